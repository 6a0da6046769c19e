"""Each line of the guide's table 6 on the wire, between two whole engines: who says it, what the peer hears, and
that the tunnel lives on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike.log import TEMPLATES
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from tests.support.ike.mutated_messages import Change, MutatedPair, notifies_in_clear, said
from tests.support.ike.pair import TUNNEL, Ends, other
from tests.support.ike.table6 import (
    CHAINS,
    HEADERS,
    MISMATCHES,
    PLAIN,
    spoilt,
    with_a_wrong_header,
    with_a_wrong_payload,
    with_other_suites,
)


@pytest.mark.behaviour("B-216")
@pytest.mark.parametrize(("row", "kind", "body", "length"), PLAIN)
@pytest.mark.parametrize("who", ["a", "b"])
def test_a_payload_that_is_wrong(
    row: str, kind: int, body: bytes, length: int | None, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, seen = with_a_wrong_payload(monkeypatch, kind, body, length, who)
    if who == "a":
        said(two.b, row)
        expected = (
            NotifyTypeV2.AUTHENTICATION_FAILED if row == "ikev2-auth-method" else NotifyTypeV2.INVALID_SYNTAX
        )
        assert seen.answers == [expected]
    else:
        # A response is not answered, whatever is in it (RFC 7296 2.21).
        said(two.a, row)
    assert len(two.a.logs) + len(two.b.logs) < 10
    two.lives()


@pytest.mark.behaviour("B-217")
@pytest.mark.parametrize(("row", "exchange", "change", "notify"), CHAINS)
def test_a_chain_that_is_wrong(
    row: str, exchange: ExchangeType, change: Change, notify: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, seen = spoilt(monkeypatch, exchange, change)
    said(two.b, row)
    assert seen.answers == ([notify] if notify else [])
    if not notify:
        assert two.a.ike.ike_sa_manager.statistics.total["v2 negotiations initiated"] == 1
    two.lives()


@pytest.mark.behaviour("B-217")
def test_an_unknown_payload_that_is_not_critical_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    two, seen = spoilt(monkeypatch, ExchangeType.INFORMATIONAL, lambda chain: [*chain, (200, 0, b"?", None)])
    assert seen.answers == []
    assert not two.b.rows()
    two.lives()


@pytest.mark.parametrize(("row", "change", "notify"), HEADERS)
def test_a_header_that_is_wrong(row: str, change: Callable[[bytes], bytes], notify: int) -> None:
    two, session = with_a_wrong_header(change)
    said(two.b, row)
    assert notifies_in_clear(two.b) == ([notify] if notify else [])
    assert len(two.b.sent) == bool(notify)
    two.run(60)
    assert two.b.ike.connection_manager.by_tunnel[TUNNEL].sessions() == [session]
    two.lives()


@pytest.mark.parametrize(
    ("row", "change", "notify"),
    [case for case in HEADERS if "incomplete" not in case[0] and "zero" not in case[0]],
)
def test_a_first_message_whose_header_is_wrong(row: str, change: Callable[[bytes], bytes], notify: int) -> None:
    ends = Ends(connection="initiator-only")
    two = MutatedPair(ends, replace(other(ends), connection="responder-only"), change)
    two.run(0.3)
    said(two.b, row)
    assert notifies_in_clear(two.b) == ([notify] if notify else [])
    two.lives()


@pytest.mark.behaviour("B-034", "B-035")
@pytest.mark.parametrize(("row", "ours", "theirs", "values"), MISMATCHES)
def test_pairs_that_differ(row: str, ours: dict[str, Any], theirs: dict[str, Any], values: dict[str, Any]) -> None:
    """Once both ends are configured alike, the tunnel is up."""
    two, alike = with_other_suites(ours, theirs)
    said(two.b, row, proposal=1, **values)
    assert any("NO_PROPOSAL_CHOSEN" in text for text in two.a.texts())
    two.configure(two.b, alike.records(), whole=True)
    two.lives()


@pytest.mark.behaviour("B-216")
def test_every_line_of_the_table_is_provoked() -> None:
    provoked = {case[0] for cases in (PLAIN, CHAINS, HEADERS, MISMATCHES) for case in cases}  # type: ignore[attr-defined]
    assert provoked == {row for row in TEMPLATES if row.startswith("ikev2-")}
