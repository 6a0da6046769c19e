"""From nothing to pairs that carry traffic, and attempts that fail, in both versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v1 import MessageV1, NotifyV1
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import NotifyV2
from chassis.ase.ike_messages import IkePacket
from chassis.model.acl import AclRule
from tests.support.ike.pair import TUNNEL, A, B, Ends, EnginePair, esp, other, proposal, settled


def rule(source: int, destination: int, length: int = 16, **more: Any) -> AclRule:
    return AclRule(10, source=(source, length), destination=(destination, length), **more)


def pair(ends: Ends, seconds: float = 1.0, *, trouble: Any = None, **theirs: Any) -> EnginePair:
    """End a initiates; `theirs` is what b has otherwise."""
    ends = replace(ends, connection="initiator-only")
    two = EnginePair(ends, replace(other(ends), **{"connection": "responder-only", **theirs}), trouble=trouble)
    two.run(seconds)
    return two


def established(ends: Ends, **theirs: Any) -> EnginePair:
    two = pair(ends, 3, **theirs)
    settled(two, len(ends.rules))
    return two


def algorithms(two: EnginePair) -> dict[str, Any]:
    return dict(two.b.session.describe()["algorithms"])


@pytest.mark.behaviour("B-025", "B-029", "B-034")
@pytest.mark.parametrize("version", [1, 2])
def test_the_first_pair_of_proposals_that_fits_is_taken(version: int) -> None:
    """In version 2 the responder asks for its group, and again when the IKE SA is replaced."""
    shared = proposal(version, "y", dh_group=2)
    ours = (proposal(version, "x", dh_group=5, lifetime=500), shared)
    ends = Ends(version=version, proposals=ours, suites=(replace(esp(cipher="des-cbc"), name="d"), esp()))
    theirs = {"proposals": (shared, proposal(version, "z", dh_group=1)), "suites": (esp(),)}
    two = established(ends, **theirs)
    assert two.a.installs[0].inbound.esp_cipher == "aes-128-cbc"
    assert algorithms(two)["group"] == 2
    if version == 2:
        assert two.a.count("retried after INVALID_KE_PAYLOAD") == 1
    two.ask(two.a, "rekey", what="ike")
    two.run(30)
    settled(two)
    assert algorithms(two)["group"] == 2


@pytest.mark.behaviour("B-034")
@pytest.mark.parametrize("ours", [{"esn": True}, {"suites": (esp(ip_comp=True),)}])
def test_esn_and_compression_of_version_1_have_to_be_the_same(ours: dict[str, Any]) -> None:
    two = pair(Ends(version=1), 3, **ours)
    assert two.a.standing
    assert not two.a.pairs
    assert not two.b.pairs
    assert two.b.count("failed no proposal chosen") >= 1


@pytest.mark.parametrize("group", [15, 19, 20, 21, 31])
def test_modern_groups_with_an_aead(group: int) -> None:
    one = proposal(2, cipher="aes-128-gcm", integrity="hmac-sha1-96", prf="hmac-sha-256", dh_group=group)
    gcm = (esp("", "aes-256-gcm", ""),)
    two = established(Ends(proposals=(one,), suites=gcm, pfs=group))
    for what in ("ike", "child"):
        two.ask(two.a, "rekey", what=what)
        two.run(30)
    settled(two)
    assert len(two.a.installs[0].outbound.esp_cipher_key) == 36


@pytest.mark.behaviour("B-128", "B-148")
@pytest.mark.parametrize("version", [1, 2])
def test_lines_and_access_lists(version: int) -> None:
    rules = (
        (rule(0x0A010000, 0x0A020000),),
        (rule(0x0A010000, 0x0A030000, protocol=17),),
        (rule(0x0A010000, 0x0A040000, 24),),
    )
    two = established(Ends(version=version, rules=rules))
    for number, wanted in enumerate(rules, 1):
        (sender,) = [two.a.sender(10 * number)]
        assert sender is not None
        assert [replace(one, seq=10) for one in sender.rules] == list(wanted)
        assert two.packet(two.a, 10 * number)
        assert two.packet(two.b, 10 * number)
    if version == 1:
        logged = [record.values for record in two.a.logs if record.id == "ikev1-p2-selectors-sent-responder"]
        assert [(one["address"], one["proto"]) for one in logged] == [
            ("10.2.0.0/16", 0),
            ("10.3.0.0/16", 17),
            ("10.4.0.0/24", 0),
        ]


@pytest.mark.behaviour("B-088")
def test_many_tunnels_of_version_1_between_two_addresses() -> None:
    """Aggressive mode tells by the identity which of them the peer means."""
    ones = [
        Ends(
            version=1,
            mode="aggressive",
            tunnel=n,
            identity_local=f"a{n}",
            identity_remote=f"b{n}",
            psk=b"key %d" % n,
        )
        for n in (1, 2, 3)
    ]
    two = EnginePair(ones[0], other(ones[0]))
    for one in ones[1:]:
        two.configure(two.a, one.records())
        two.configure(two.b, other(one).records())
    two.run(10)
    assert sorted(tunnel for tunnel, _ in two.b.pairs) == [1, 2, 3]
    found = {(one.connection.tunnel, str(one.peer_identity)) for one in two.b.standing}
    assert found == {(1, "a1"), (2, "a2"), (3, "a3")}


@pytest.mark.behaviour("B-050")
@pytest.mark.parametrize("begins", ["a", "b"])
def test_the_responder_of_version_2_narrows_and_both_ends_use_the_part(begins: str) -> None:
    wide = rule(0x0A000000, 0x0B000000, 8)
    narrow = rule(0x0B010000, 0x0A020000, protocol=6, destination_port=80)
    kinds = ("initiator-only", "responder-only")
    a, b = kinds if begins == "a" else kinds[::-1]
    ends = Ends(rules=((wide,),) if begins == "a" else ((),))
    two = EnginePair(replace(ends, connection=a), replace(other(ends), connection=b, rules=((narrow,),)))
    two.run(2)
    settled(two)
    ((ours,), (theirs,)) = two.a.installs[0].rules, two.b.installs[0].rules
    assert (ours.source, ours.source_port) == ((0x0A020000, 16), 80)
    assert (ours.destination, ours.protocol) == ((0x0B010000, 16), 6)
    assert (theirs.source, theirs.destination) == ((0x0B010000, 16), (0x0A020000, 16))
    assert theirs.destination_port == 80


@pytest.mark.behaviour("B-038")
def test_selectors_of_version_2_without_anything_in_common() -> None:
    two = pair(Ends(rules=((rule(1 << 16, 2 << 16),),)), rules=((rule(3 << 16, 4 << 16),),))
    assert two.a.standing
    assert not two.a.pairs
    assert two.a.count("failed traffic selectors") == 1


def test_lifetimes_of_version_1_may_differ_where_that_is_allowed() -> None:
    ends = Ends(version=1, connection="initiator-only")
    theirs = replace(other(ends), proposals=(proposal(1, lifetime=5000),), connection="responder-only")
    two = EnginePair(ends, theirs, **{"strict-lifetime": False})
    two.run(3)
    settled(two)
    assert two.b.session.describe()["lifetime"] == 5000


# --- attempts that fail ---


@pytest.mark.behaviour("B-032", "B-033")
@pytest.mark.parametrize("version", [1, 2])
def test_an_end_that_only_initiates_lets_nobody_in(version: int) -> None:
    two = pair(Ends(version=version), 40, connection="initiator-only", wanted=True, ready=False)
    assert not two.a.standing
    assert not two.b.pairs
    if version == 1:
        assert not two.b.sent
        assert two.a.count("failed timeout") >= 1
    else:
        assert two.b.says("is initiator-only")


def test_an_end_of_version_1_that_only_answers_does_not_begin_phase_1_anew() -> None:
    two = established(Ends(version=1))
    two.ask(two.b, "rekey", what="ike")
    two.run(1)
    assert len(two.b.sessions) == 1


@pytest.mark.behaviour("B-001")
def test_nobody_answers() -> None:
    two = pair(Ends(), trouble=lambda *_: [])
    assert two.until(lambda: two.a.count("failed no response") == 1)
    assert two.a.count("retransmissions") == 5
    assert not two.a.sessions


def test_a_half_open_responder_gives_up() -> None:
    def wire(sender: int, packet: IkePacket, now: float) -> list[float]:
        return [0.01] if packet.data[18] == ExchangeType.IKE_SA_INIT else []

    two = pair(Ends(), 31, trouble=wire)
    assert two.b.says("10.0.0.1 sent no IKE_AUTH")
    assert two.b.ike.ike_sa_manager.spis_held == 0


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("after", [0.0, 0.005, 0.007, 0.012, 0.017])
def test_an_attempt_that_is_given_up_leaves_nothing(after: float, refused: bool) -> None:
    two = pair(Ends(), 0.0, psk=b"another" if refused else b"secret of two")
    two.run(after)
    two.configure(two.a, Ends(wanted=False).records())
    two.run(60)
    for end in (two.a, two.b):
        assert not end.sessions
        assert not end.pairs
        assert end.ike.ike_sa_manager.spis_held == 0


@pytest.mark.parametrize("version", [1, 2])
def test_errors_in_clear_end_nothing(version: int) -> None:
    """Anybody could have sent them. In version 2 the peer is probed once, where that is asked for."""
    two = established(Ends(version=version, keepalive=version == 2))
    session = two.a.session
    two.a.sent.clear()
    for number in range(100 if version == 1 else 4):
        if version == 1:
            head = session.phase1.header(ExchangeType.INFORMATIONAL, number + 1)
            kinds = (NotifyTypeV1.NO_PROPOSAL_CHOSEN, NotifyTypeV1.INVALID_COOKIE)
            messages = [MessageV1(head, (NotifyV1(kind),)).emit() for kind in kinds]
        else:
            clear = ((NotifyTypeV2.INVALID_IKE_SPI, 37), (NotifyTypeV2.AUTHENTICATION_FAILED, 35))
            messages = [
                MessageV2(
                    Header(session.spi_i, session.spi_r, 0, 0x20, exchange, 0x20, number, 0), (NotifyV2(kind),)
                ).emit()
                for kind, exchange in clear
            ]
        for data in messages:
            two.give(two.a, IkePacket(7, A, 500, B, 500, data))
    two.run(0.001)
    if version == 1:
        assert two.a.rows().count("ikev1-received-unprotected-notify") <= 11
    else:
        assert two.a.count("cleartext errors") == 8
        assert len(two.a.sent) == 1, "one probe"
    two.run(60)
    assert two.a.session is session
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
def test_secrets_are_rows_of_wiresharks_table_and_nowhere_else(version: int) -> None:
    two = established(Ends(version=version))
    (row,) = two.a.session.secrets()
    assert [row] == two.b.session.secrets()
    if version == 1:
        assert (row["kind"], row["cookie_i"]) == ("ikev1", two.a.session.spi.hex())
        secret = row["key"]
    else:
        kinds = ("ikev2", "AES-CBC-128 [RFC3602]", "HMAC_SHA1_96 [RFC2404]")
        assert (row["kind"], row["encryption"], row["integrity"]) == kinds
        secret = row["sk_ei"]
    assert len(secret) == 32
    session = two.a.session
    shown = [session.describe(), vars(session) if hasattr(session, "__dict__") else session, two.a.logs]
    shown.append(two.ask(two.a, "sas").result)
    for value in (bytes.fromhex(secret), b"secret of two", two.a.installs[0].inbound.esp_cipher_key):
        for text in map(repr, shown):
            assert value.hex() not in text
            assert repr(value) not in text
    assert two.a.up(TUNNEL)


def test_a_request_answered_without_its_cookie_is_signed_with_it() -> None:
    """The responder asks for a cookie, then answers the same request, which the initiator had sent again: the
    answer arrives when the initiator has sent the request with the cookie."""
    ends = Ends(version=2, connection="initiator-only")
    far = replace(other(ends), connection="responder-only")
    two = EnginePair(ends, far, trouble=lambda sender, packet, now: ())
    two.run(0.1)
    manager = two.b.ike.ike_sa_manager
    usual = manager.settings

    def give(end: Any, packet: IkePacket) -> IkePacket:
        """What an end sends when it is given a datagram of the other one."""
        here, there = (packet.remote, packet.remote_port), (packet.local, packet.local_port)
        two.give(end, IkePacket(packet.context, *here, *there, packet.data))
        return cast(IkePacket, end.sent[-1])

    request = two.a.sent[0]
    manager.settings = replace(usual, cookie_threshold=0)
    demand = give(two.b, request)
    manager.settings = usual
    answer = give(two.b, request)
    with_cookie = give(two.a, demand)
    assert with_cookie.data != request.data
    auth = give(two.a, answer)
    assert give(two.b, with_cookie).data == answer.data, "the same request gets the same answer"
    give(two.a, give(two.b, auth))
    assert two.a.up()
    assert two.b.up()
    assert two.b.count("negotiations responded") == 1
