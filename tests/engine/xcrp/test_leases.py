"""Leases of sequence numbers as ASPs get them: on disk before they are used, never twice for one SPI."""

from __future__ import annotations

from chassis.bus.engine import Persist, ToCard
from chassis.bus.messages import SaEvent, SaReport
from chassis.bus.records import TunnelRecord
from chassis.xcrp.id_allocator import LEASE_SIZE, LEASES
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted


def lease(node: Node, card: str = "asp 2/1", tunnel: int = 1) -> tuple[int, int]:
    record = node.cards[card].replica.records["tunnel", tunnel]
    assert isinstance(record, TunnelRecord)
    return record.leases[0].start, record.leases[0].end


def ask_more(node: Node, next_sequence: int) -> list[object]:
    assert node.controller is not None
    event = SaEvent(SaReport(1, 10, "out", "esp", 301, 0), "lease", next_sequence=next_sequence)
    outputs = node.controller.receive("asp 2/1", event, node.now)
    node.perform(outputs)
    return list(outputs)


def test_more_numbers_are_on_disk_before_the_asp_has_them() -> None:
    node = booted()
    start, end = lease(node)
    assert (start, end) == (1, LEASE_SIZE + 1)
    outputs = ask_more(node, end - 1000)
    assert [type(output) for output in outputs[:3]] == [Persist, Persist, ToCard]
    assert [output.file for output in outputs if isinstance(output, Persist)] == [LEASES, "leases.copy.json"]
    assert lease(node) == (1, 2 * LEASE_SIZE + 1)
    # Asked again before it saw the answer: it has enough.
    assert ask_more(node, end - 900) == []
    assert lease(node) == (1, 2 * LEASE_SIZE + 1)


def test_an_asp_that_lost_its_sa_state_goes_on_above() -> None:
    node = booted()
    _, end = lease(node)
    node.kill_card("asp 2/1")
    node.start_card("asp 2/1")
    node.run(0.1)
    assert lease(node)[0] == 1
    node.kill_card("asp 2/1")
    node.start_card("asp 2/1", fresh=True)
    node.run(0.1)
    assert lease(node) == (end, end + LEASE_SIZE)
    # The same start says hello again: nothing more is lost.
    node.card_does("asp 2/1", node.cards["asp 2/1"].on_connected(node.now))
    node.run(0.1)
    assert lease(node) == (end, end + LEASE_SIZE)


def test_a_fresh_asp_of_a_new_chassis_begins_at_one() -> None:
    node = Node(HIGH_AVAILABILITY)
    node.start()
    node.start_card("asp 2/1", fresh=True)
    node.run(0.1)
    assert lease(node)[0] == 1


def test_a_tunnel_that_moves_to_another_asp_or_comes_back_goes_on_above() -> None:
    node = booted()
    moved = HIGH_AVAILABILITY.replace("  asp-group G1 service", "  asp-group G2 service")
    node.ask("apply", text=moved)
    node.run(0.1)
    first = lease(node, "asp 2/2")
    assert first == (LEASE_SIZE + 1, 2 * LEASE_SIZE + 1)
    head, _, tail = HIGH_AVAILABILITY.partition("tunnel ipsec Tun-1 manual")
    rest = tail[tail.index("tunnel ipsec Tun-2") :]
    node.ask("apply", text=head + rest)
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.1)
    number = node.tunnel("Tun-1")["number"]
    assert number == 3
    assert lease(node, tunnel=number)[0] == 2 * LEASE_SIZE + 1


def test_events_of_sas_are_logged_and_strangers_ignored() -> None:
    node = booted()
    assert node.controller is not None
    sa = SaReport(1, 10, "out", "esp", 301, 0)
    node.perform(node.controller.receive("asp 2/1", SaEvent(sa, "exhausted", "last number used"), node.now))
    assert any("exhausted: last number used" in event for event in node.events())
    assert node.controller.receive("asp 2/2", SaEvent(sa, "lease"), node.now) == []
    assert (
        node.controller.receive("asp 2/1", SaEvent(SaReport(99, 1, "out", "esp", 1, 0), "lease"), node.now) == []
    )
