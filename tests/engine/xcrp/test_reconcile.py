"""A controller that was killed: what its cards hold is replaced only where it is wrong."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToCard
from chassis.bus.messages import Delta, Snapshot
from tests.support.xcrp import HIGH_AVAILABILITY, FakeAsp, Node, booted, sa


def many(count: int) -> str:
    return HIGH_AVAILABILITY + "".join(
        f"context C1\n  interface X{i}\n    ip address 10.{i >> 8}.{i & 255}.1/30\n"
        f"  ip route 11.{i >> 8}.{i & 255}.0/24 X{i}\n"
        f"tunnel ipsec x{i} manual {'economical' if i % 2 else ''}\n"
        f"  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1\n"
        f"  bind interface X{i} C1\n  seq 10 security-association m{i}\n" + sa(f"m{i}", 1000 + i)
        for i in range(count)
    )


def forget_changes(node: Node) -> None:
    for card in node.cards.values():
        card.changes.clear()


def changed(node: Node) -> list[object]:
    return [
        record
        for card in node.cards.values()
        for change in card.changes
        for record in (*change.put, *change.deleted)
    ]


def test_nothing_differs_when_the_world_did_not_change() -> None:
    node = booted(many(400))
    tunnels = node.ask("status")["tunnels"]
    cards = node.ask("status")["cards"]
    assert sum(row["up"] for row in tunnels) == 402
    forget_changes(node)
    node.kill_controller()
    node.run(5.0)
    events = len(node.events())
    node.start()
    node.run(1.0)
    assert changed(node) == []
    after = node.ask("status")["tunnels"]
    assert [(row["number"], row["circuit"], row["home"], row["asp"], row["up"]) for row in after] == [
        (row["number"], row["circuit"], row["home"], row["asp"], row["up"]) for row in tunnels
    ]
    assert [(row["card"], row["boot"], row["epoch"], row["pid"]) for row in node.ask("status")["cards"]] == [
        (row["card"], row["boot"], row["epoch"], row["pid"]) for row in cards
    ]
    assert not [event for event in node.events()[events:] if event.startswith("tunnel")]
    # It replicates from there on as if it had never been away.
    node.kill_card("asp 2/1")
    node.start_card("asp 2/1")
    node.run(0.2)
    assert sum(row["up"] for row in node.ask("status")["tunnels"]) == 402


def test_nothing_is_published_before_all_said_hello() -> None:
    node = booted()
    node.kill_controller()
    sent: list[ToCard] = []
    node.watch = sent.append
    node.stop_card("asp 2/2")
    node.start()
    node.run(1.9)
    assert sent == []
    assert node.card_does("asp 2/2", node.cards["asp 2/2"].on_connected(node.now)) is None
    assert {output.card for output in sent if isinstance(output.message, Snapshot)} == set(node.cards)


def test_the_window_begins_when_the_controller_can_hear() -> None:
    node = booted()
    cards = node.ask("status")["cards"]
    node.kill_controller()
    node.stop_card("asp 2/2")
    node.start()
    # Reading its configuration took longer than the window is.
    node.run(1.0)
    node.perform(node.controller.on_stall(3.0, node.now))
    node.run(3.9)
    assert not node.controller.state.reconciled
    node.continue_card("asp 2/2", 4.9)
    node.run(0.1)
    assert node.controller.state.reconciled
    assert [(row["card"], row["boot"], row["epoch"]) for row in node.ask("status")["cards"]] == [
        (row["card"], row["boot"], row["epoch"]) for row in cards
    ]


def test_who_is_silent_for_the_whole_window_is_fenced() -> None:
    node = booted()
    epoch = node.card("asp 2/1")["epoch"]
    node.kill_controller()
    node.stop_card("asp 2/1")
    node.start()
    node.run(2.1)
    row = node.card("asp 2/1")
    assert (row["state"], row["epoch"]) == ("hung", epoch + 1)
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-2"]
    node.run(1.1)
    assert [output.values["card"] for output in node.launcher if output.request == "kill"] == ["asp 2/1"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_card_that_was_replaced_meanwhile(fresh: bool) -> None:
    node = booted()
    epoch = node.card("asp 2/1")["epoch"]
    held = node.controller.node.numbers.leases if node.controller is not None else {}
    ends = {lease.end for lease in held.values() if lease.asp == "asp 2/1"}
    node.kill_controller()
    del node.cards["asp 2/1"]
    node.start_card("asp 2/1", fresh=fresh)
    forget_changes(node)
    node.start()
    node.run(0.5)
    row = node.card("asp 2/1")
    assert (row["usable"], row["boot"]) == (True, 2)
    assert row["epoch"] > epoch
    assert node.tunnel("Tun-1")["up"]
    assert node.controller is not None
    leases = [lease for lease in node.controller.node.numbers.leases.values() if lease.asp == "asp 2/1"]
    assert [lease.start in ends for lease in leases] == [fresh]


def test_died_and_started_again_within_the_window() -> None:
    node = booted()
    node.kill_controller()
    node.stop_card("lc 4")
    node.start()
    node.kill_card("lc 4")
    # Nobody is left to wait for.
    assert node.card("lc 4")["state"] == "absent"
    assert node.tunnel("Tun-2")["reason"] == "line card down"
    node.start_card("lc 4")
    node.run(0.2)
    assert node.tunnel("Tun-2")["up"]


def test_what_changed_at_the_cards_meanwhile_is_taken_over() -> None:
    node = booted()
    node.kill_controller()
    card = node.cards["asp 2/1"]
    assert isinstance(card, FakeAsp)
    card.up_tunnels.clear()
    node.cards["lc 4"].ports.clear()  # type: ignore[union-attr]
    node.start()
    node.run(0.0005)
    assert node.tunnel("Tun-1")["reason"].startswith("SAs not installed")
    assert node.tunnel("Tun-2")["reason"] == "no route to the peer"
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == []


def test_commands_wait_for_the_window() -> None:
    node = booted()
    node.kill_controller()
    node.stop_card("lc 4")
    node.start()
    assert node.controller is not None
    node.answers.clear()
    node.perform(node.controller.on_operator_command(5, "status", {}, node.now))
    assert node.answers == []
    node.run(2.1)
    assert [answer.number for answer in node.answers] == [5]


def test_a_card_without_a_snapshot_is_not_usable_yet() -> None:
    node = booted()
    node.kill_controller()
    node.cards["asp 2/1"].replica.version = 0
    deltas: list[ToCard] = []
    node.watch = lambda output: deltas.append(output) if isinstance(output.message, Delta) else None
    node.start()
    assert node.card("asp 2/1")["usable"]
    assert any(
        getattr(record, "card", "") == "asp 2/1" and record.usable  # type: ignore[union-attr]
        for output in deltas
        if isinstance(output.message, Delta)
        for record in output.message.put
    )
