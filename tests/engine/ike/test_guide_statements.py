"""Statements of the guide about two ends of IKE that no other file has a test of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike.log import INFORMATIONAL, TEMPLATES
from chassis.bus.records import ContextRecord, PolicyRecord, Record, TunnelRecord
from tests.support.ike.pair import CONTEXT, TUNNEL, Ends, EnginePair, agree, other, proposal

ELSEWHERE = 8
"""Another context."""
SECOND = TUNNEL + 1


def of_version(version: int, tunnel: int) -> Ends:
    """One of two tunnels between the same addresses."""
    return Ends(version=version, tunnel=tunnel, proposals=(proposal(version, f"of-{version}"),))


@pytest.mark.behaviour("B-003", "B-051")
def test_both_versions_are_spoken_at_one_address_and_port() -> None:
    first, second = of_version(1, TUNNEL), of_version(2, SECOND)
    two = EnginePair(first, other(first))
    two.configure(two.a, second.records())
    two.configure(two.b, other(second).records())
    for tunnel in (TUNNEL, SECOND):
        assert two.until(lambda tunnel=tunnel: two.a.up(tunnel) and two.b.up(tunnel), 20)
        assert two.packet(two.a, tunnel=tunnel)
    assert {packet.local_port for end in (two.a, two.b) for packet in end.sent} == {500}
    assert {packet.data[17] >> 4 for packet in two.a.sent} == {1, 2}


@pytest.mark.behaviour("B-028", "B-082")
def test_what_a_policy_of_version_2_says_may_differ() -> None:
    ends = Ends(lifetime=3600, connection="initiator-only")
    two = EnginePair(ends, replace(other(ends), lifetime=400, connection="responder-only"))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    # Each end keeps its own lifetime: the one with the shorter makes the successor.
    two.run(420)
    agree(two)
    assert two.packet(two.a)


@pytest.mark.behaviour("B-042")
@pytest.mark.parametrize("version", [1, 2])
def test_numbers_of_queues_may_differ(version: int) -> None:
    ends = Ends(version=version)
    two = EnginePair(ends, other(ends))
    for end, queues in ((two.a, 4), (two.b, 1)):
        tunnel = next(record for record in ends.records() if isinstance(record, TunnelRecord))
        local, remote = (ends.local, ends.remote) if end is two.a else (ends.remote, ends.local)
        two.configure(end, (replace(tunnel, local=local, remote=remote, queues=queues),))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    assert two.packet(two.a)
    assert two.packet(two.b)


def in_context(ends: Ends, number: int) -> tuple[Record, ...]:
    """The records of an end with its outer context renumbered."""
    found: list[Record] = []
    for record in ends.records():
        if isinstance(record, ContextRecord):
            record = replace(record, number=number)
        elif isinstance(record, PolicyRecord) and record.context:
            record = replace(record, context=number)
        elif isinstance(record, TunnelRecord):
            record = replace(record, outer_context=number)
        found.append(record)
    return tuple(found)


@pytest.mark.behaviour("B-075")
@pytest.mark.parametrize("version", [1, 2])
def test_keepalive_is_of_one_context(version: int) -> None:
    asks = Ends(version=version, tunnel=TUNNEL, keepalive=True)
    silent = Ends(version=version, tunnel=SECOND)
    two = EnginePair(asks, replace(other(asks), keepalive=False))
    two.configure(two.a, in_context(silent, ELSEWHERE))
    two.configure(two.b, in_context(other(silent), ELSEWHERE))
    assert two.until(lambda: two.a.up(TUNNEL) and two.a.up(SECOND), 20)
    two.run(5)
    two.a.sent.clear()
    two.b.sent.clear()
    two.run(60)
    assert {packet.context for packet in two.a.sent} == {CONTEXT}
    assert len(two.a.sent) >= 5


@pytest.mark.behaviour("B-215")
def test_what_is_informational() -> None:
    said = ("selectors-sent", "selectors-received", "responder-lifetime", "delete-received")
    rows = {row for row in TEMPLATES if row.startswith("ikev1-") and any(part in row for part in said)}
    assert rows
    assert rows <= INFORMATIONAL
    assert not [row for row in INFORMATIONAL if "mismatch" in row or "invalid" in row]
    ends = Ends(version=1)
    two = EnginePair(ends, other(ends))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    seen = {record.id: record.severity for end in (two.a, two.b) for record in end.logs}
    assert seen
    assert all(severity == "informational" for row, severity in seen.items() if row in rows)
    assert rows & set(seen)
