"""Each line of the guide's table 5 on the wire, between two whole engines: who says it, what the peer hears, and
that the tunnel comes up once nothing is wrong any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chassis.ase.ike.log import TEMPLATES
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from tests.support.ike.mutated_messages import MutatedPair, notifies_in_clear, said
from tests.support.ike.pair import CONTEXT, Ends, other
from tests.support.ike.table5 import (
    ANSWERS,
    CASES,
    DIALIN_USERS,
    FIRST_MESSAGES,
    SHORTER,
    bent_first,
    certified,
    distinguished,
    with_a_deleted_pair,
    with_rules,
    with_shorter_lifetimes,
)


@pytest.mark.behaviour("B-213")
@pytest.mark.parametrize(("change", "row", "value", "sending", "notify"), FIRST_MESSAGES)
def test_a_first_message_that_is_wrong(
    change: Callable[[bytearray], None], row: str, value: int | None, sending: str, notify: int
) -> None:
    two = bent_first(change)
    said(two.b, row, **({} if value is None else {"value": value}))
    assert notifies_in_clear(two.b) == ([notify] if notify else [])
    if sending:
        said(two.b, sending)
        heard = said(two.a, "ikev1-received-unprotected-notify")
        assert heard.values["notify"] == NotifyTypeV1(notify).name
    else:
        assert not [one for one in two.b.rows() if "-notify-" in one]
    two.lives()


def test_an_exchange_of_an_ike_sa_that_nobody_speaks() -> None:
    ends = Ends(version=1)
    two = MutatedPair(ends, other(ends))
    two.lives()
    data = bytearray(two.a.sent[-1].data)
    data[18] = 0x99
    two.b.sent.clear()
    two.hand(bytes(data))
    said(two.b, "ikev1-unsupported-xchgtype")
    assert not two.b.sent
    two.lives()


# --- both ends are configured, and differ ---


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    distinguished(monkeypatch)


@pytest.mark.behaviour("B-026", "B-030", "B-034", "B-035", "B-039", "B-040", "B-213", "B-214")
@pytest.mark.parametrize("what", CASES)
def test_ends_that_differ(what: str, names: None) -> None:
    case = CASES[what]
    ends, alike = case.ends()
    two = case.negotiated()
    sees, hears = (two.b, two.a) if case.sees == "b" else (two.a, two.b)
    for row, values in case.rows:
        said(sees, row, **values)
    mine = [row for row in sees.rows() if "selectors-received" not in row and "selectors-sent" not in row]
    assert mine[: len(case.rows)] == [row for row, _ in case.rows]
    if what == "lifetime":
        assert sees.says("lifetime: received 86400, configured 3600")
    assert said(hears, case.told).values["notify"] == case.notify
    if what.startswith("preshared keys"):
        # A genuine answer may be on its way still.
        assert two.until(lambda: sees.says("the preshared keys of the two ends probably differ"), 2)
    assert not two.a.pairs
    assert not two.b.pairs
    if ends.certificates:
        # The end that is wrong gets what the other one expects.
        ends = replace(ends, **certified(mode=ends.mode, validate=ends.validate))
        alike = replace(alike, **ANSWERS, mode=ends.mode)
        two.configure(two.a, ends.records(), whole=True)
    two.configure(two.b, alike.records(), whole=True)
    two.lives()


@pytest.mark.behaviour("B-213")
@pytest.mark.parametrize("who", DIALIN_USERS)
def test_a_dial_in_user_that_is_refused(who: str, names: None) -> None:
    """It has no tunnel yet: the lines name the on-demand tunnel, once that is known."""
    user = DIALIN_USERS[who]
    two = user.dials()
    assert two.b.rows()[: len(user.rows)] == [row for row, _ in user.rows]
    for row, values in user.rows:
        record = next(one for one in two.b.logs if one.id == row)
        assert record.text == TEMPLATES[row].format(**values)
        assert record.severity == "error"
        assert record.values["peer"] == "10.0.0.1"
        about = ("dial50", "outer") if user.by else (None, CONTEXT)
        assert (record.values.get("tunnel"), record.values["context"]) == about
    heard = next(one for one in two.a.logs if one.id == user.told)
    assert heard.values["notify"] == "INVALID_ID_INFORMATION"
    assert not two.a.pairs
    assert not two.b.questions


# --- what is no mistake ---


@pytest.mark.behaviour("B-213")
def test_selectors_are_said_at_both_ends() -> None:
    two = with_rules()
    for end, way in ((two.a, "sent"), (two.b, "received")):
        for name, address in (("initiator", "10.1.0.0"), ("responder", "10.2.0.0")):
            record = said(end, f"ikev1-p2-selectors-{way}-{name}", proto=0, port=0)
            assert address in record.text


@pytest.mark.behaviour("B-213")
@pytest.mark.parametrize("name", ["seconds", "kbytes"])
def test_the_responder_has_the_shorter_lifetime(name: str) -> None:
    two = with_shorter_lifetimes()
    row = f"ikev1-p2-responder-lifetime-{name}"
    said(two.a, f"{row}-notify", notify="RESPONDER_LIFETIME")
    said(two.a, row, notify="RESPOND_NOTIFY", value=SHORTER[name])


@pytest.mark.behaviour("B-213")
@pytest.mark.parametrize("name", ["ah", "esp"])
def test_the_peer_deletes_a_pair(name: str) -> None:
    two, gone = with_a_deleted_pair(name)
    said(two.b, f"ikev1-delete-received-{name}", protocol=name.upper(), spi=getattr(gone.outbound, f"{name}_spi"))
    two.lives()


INFORMED = {
    *(f"ikev1-p2-selectors-{way}-{name}" for way in ("sent", "received") for name in ("initiator", "responder")),
    *(f"ikev1-p2-responder-lifetime-{name}{more}" for name in ("seconds", "kbytes") for more in ("", "-notify")),
    *(f"ikev1-delete-received-{name}" for name in ("ah", "esp")),
}


@pytest.mark.behaviour("B-213")
def test_every_line_of_the_table_is_provoked() -> None:
    provoked = set(INFORMED)
    for _, row, _, sending, _ in FIRST_MESSAGES:
        provoked |= {row, sending}
    for case in CASES.values():
        provoked |= {case.told, *(row for row, _ in case.rows)}
    for user in DIALIN_USERS.values():
        provoked |= {row for row, _ in user.rows}
    assert provoked - {""} == {row for row in TEMPLATES if row.startswith("ikev1-")}
