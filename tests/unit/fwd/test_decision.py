"""What a card keeps of the ways of packets is bounded, however many addresses strangers make up."""

from __future__ import annotations

import gc

import pytest

from chassis.bus.records import RouteRecord
from chassis.fwd.decision import Decider, Decision, DecisionKind
from chassis.net.address import parse_address as ip
from tests.support.fwd import CONNECTED, decider, packet, run

FLOWS, DECISIONS = 65536, 16384
"""Most flows and decisions that a card keeps."""


def known() -> Decider:
    by = decider()
    by.fib.apply([RouteRecord(context, ip("11.0.0.0"), 8, (CONNECTED,)) for context in range(1, 9)], [])
    return by


def alive() -> int:
    """Decisions that anything holds."""
    return sum(type(one) is Decision for one in gc.get_objects())


@pytest.mark.parametrize(
    ("kind", "destinations", "sources", "contexts"),
    [("to everyone", 1, 0, 1), ("from everyone", 0, 1, 1), ("in all contexts", 0, 1, 8)],
)
def test_a_flood_of_addresses_leaves_so_many_decisions_and_no_more(
    kind: str, destinations: int, sources: int, contexts: int
) -> None:
    by = known()
    before = alive()
    for number in range(FLOWS + 1000):
        source, destination = ip("12.0.0.1") + number * sources, ip("11.0.0.1") + number * destinations
        by.decide(1 + number % contexts, source << 32 | destination)
    assert alive() - before <= DECISIONS
    assert sum(len(by.flows(1 + context)) for context in range(contexts)) <= FLOWS


def test_traffic_goes_its_way_while_its_decision_makes_room() -> None:
    by = known()
    ways = set()
    for number in range(2 * DECISIONS):
        by.decide(1, ip("12.0.0.1") << 32 | ip("11.0.0.1") + number)
        if number % 64 == 0:
            ((decision, _, lengths),) = run(packet("30.1.1.1"), packet("30.1.1.2"), by=by)
            assert len(lengths) == 2
            ways.add((decision.kind, decision.card, decision.tunnel))
    assert ways == {(DecisionKind.TUNNEL, "asp 1/1", 7)}


def test_room_is_made_in_the_middle_of_a_batch() -> None:
    by = known()
    for number in range(DECISIONS - 4):
        by.decide(1, ip("12.0.0.1") << 32 | ip("11.0.1.1") + number)
    groups = run(*(packet(f"11.0.0.{last}", identification=last) for last in (1, 2, 3, 4, 5, 1, 2, 3)), by=by)
    sent = [(d.address, len(lengths), len(body) // len(lengths)) for d, body, lengths in groups]
    assert {address for address, _, _ in sent} == {ip(f"11.0.0.{last}") for last in range(1, 6)}
    assert sum(number for _, number, _ in sent) == 8
    assert {size for _, _, size in sent} == {14 + 20 + 20}
