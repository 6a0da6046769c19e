"""Death and return of ASPs and line cards, hung ones included: what the cards are told, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.engine import ToCard
from chassis.bus.messages import PROTOCOL, Delta, Goodbye, Heartbeat, Hello
from chassis.bus.records import CardStateRecord, CircuitRecord, RouteRecord
from chassis.xcrp.cards import MAX_CPU_WAIT_FACTOR
from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, TWO_WAYS, Node, booted, sa

C1_REMOTE = "172.168.3.0/24"


@pytest.fixture
def node() -> Node:
    return booted()


@pytest.mark.behaviour("B-018", "B-021", "B-199", "B-206", "B-207")
def test_example_16_completed_comes_up(node: Node) -> None:
    assert node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-2")["up"]
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-1", "Tun-2"]
    # Circuit-based: its circuit is on the card by which the peer is reached. Economical: there is none.
    assert node.circuits("lc 3") == {node.tunnel("Tun-1")["number"]: node.tunnel("Tun-1")["circuit"]}
    assert node.circuits("lc 4") == {}
    assert node.keys_of("asp 2/1") == {"sa-1"}
    assert node.keys_of("asp 2/2") == {"sa-2"}
    assert node.keys_of("lc 3") == node.keys_of("lc 4") == set()


@pytest.mark.behaviour("B-200", "B-202", "B-203", "B-208")
def test_asp_dies_and_returns(node: Node) -> None:
    deltas: list[Delta] = []
    node.watch = lambda output: (
        deltas.append(output.message) if isinstance(output.message, Delta) and output.card == "lc 3" else None
    )
    epoch = node.card("asp 2/1")["epoch"]
    node.kill_card("asp 2/1")
    # First its flag alone, then what follows.
    assert [type(record) for record in deltas[0].put] == [CardStateRecord]
    assert deltas[0].delete == ()
    assert not any(isinstance(record, CardStateRecord) for delta in deltas[1:] for record in delta.put)
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-2"]
    row = node.tunnel("Tun-1")
    assert (row["up"], row["reason"]) == (False, "ASP: asp 2/1 is down")
    # Its circuit stays: nothing about the way to the peer has changed.
    assert row["circuit"] in node.circuits("lc 3").values()
    node.run(1.0)
    node.start_card("asp 2/1")
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-1", "Tun-2"]
    assert node.card("asp 2/1")["epoch"] == epoch + 2


def test_withdrawn_tunnel_route_becomes_discard_where_a_lab_asks() -> None:
    text = HIGH_AVAILABILITY + "context C1\n  ip route 172.168.3.0/24 172.168.2.9 cost 50\n"
    node = Node(text, settings={"discard-tunnel-routes": True})
    node.boot_all(*HA_PORTS)
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-1", "Tun-2", "3/1"]
    node.kill_card("asp 2/1")
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-2", "discard"]
    node.kill_card("asp 2/2")
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["discard"]


def test_without_that_the_fib_decides() -> None:
    node = booted(HIGH_AVAILABILITY + "context C1\n  ip route 172.168.3.0/24 172.168.2.9 cost 50\n")
    node.kill_card("asp 2/1")
    node.kill_card("asp 2/2")
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["3/1"]


def test_circuit_moves_when_its_line_card_dies() -> None:
    node = booted(TWO_WAYS, *HA_PORTS, "4/2")
    before = node.tunnel("Tun-1")
    assert before["home"] == "lc 3"
    deltas: list[Delta] = []
    node.watch = lambda output: (
        deltas.append(output.message) if isinstance(output.message, Delta) and output.card == "lc 4" else None
    )
    node.kill_card("lc 3")
    after = node.tunnel("Tun-1")
    assert (after["home"], after["up"]) == ("lc 4", True)
    assert after["circuit"] > before["circuit"]
    assert node.circuits("lc 4") == {after["number"]: after["circuit"]}
    assert [type(record) for record in deltas[0].put] == [CardStateRecord]
    assert any(isinstance(record, CircuitRecord) for record in deltas[1].put)
    assert any("in place of" in event for event in node.events())
    assert node.tunnel("Tun-2")["up"]
    node.start_card("lc 3")
    node.run(0.1)
    back = node.tunnel("Tun-1")
    assert back["home"] == "lc 3"
    assert back["circuit"] > after["circuit"]
    assert node.circuits("lc 4") == {}


def test_tunnels_go_with_the_only_line_card(node: Node) -> None:
    circuit = node.tunnel("Tun-1")["circuit"]
    node.kill_card("lc 3")
    row = node.tunnel("Tun-1")
    assert (row["up"], row["reason"], row["circuit"], row["home"]) == (False, "line card down", 0, "")
    assert node.tunnel("Tun-2")["up"]
    assert node.hops("lc 4", "C1", C1_REMOTE) == ["Tun-2"]
    assert node.hops("lc 4", "C1", "172.168.2.0/24") == []
    node.start_card("lc 3")
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-1")["circuit"] > circuit


@pytest.mark.behaviour("B-208")
def test_carrier_takes_routes_and_tunnels_with_it(node: Node) -> None:
    node.carrier_event("3/11", False)
    assert node.tunnel("Tun-1")["reason"] == "no route to the peer"
    assert node.hops("lc 3", "L1", "4.4.4.0/24") == []
    assert node.hops("lc 3", "L1", "4.4.4.1/32") == ["local"]
    node.carrier_event("3/11", True)
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]


def test_hung_card_is_fenced_then_killed(node: Node) -> None:
    epoch = node.card("asp 2/1")["epoch"]
    heard = node.now
    node.stop_card("asp 2/1")
    node.run(0.4)
    assert node.card("asp 2/1")["usable"]
    node.run(0.15)
    row = node.card("asp 2/1")
    assert (row["state"], row["epoch"]) == ("hung", epoch + 1)
    assert node.now - heard < 0.6
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-2"]
    assert not [output for output in node.launcher if output.request == "kill"]
    node.run(1.0)
    kills = [output.values for output in node.launcher if output.request == "kill"]
    assert [(kill["card"], kill["boot"]) for kill in kills] == [("asp 2/1", 1)]


def test_hung_card_that_goes_on_is_admitted_under_the_raised_epoch(node: Node) -> None:
    epoch = node.card("asp 2/1")["epoch"]
    node.stop_card("asp 2/1")
    node.run(0.7)
    assert node.card("asp 2/1")["epoch"] == epoch + 1
    card = node.cards["asp 2/1"]
    node.continue_card("asp 2/1", 0.7)
    assert card.epoch == epoch + 1
    node.run(0.1)
    assert not card.fenced
    assert node.card("asp 2/1")["usable"]
    assert node.hops("lc 3", "C1", C1_REMOTE) == ["Tun-1", "Tun-2"]
    node.run(2.0)
    assert not [output for output in node.launcher if output.request == "kill"]


def test_a_short_stop_changes_nothing(node: Node) -> None:
    before = node.card("asp 2/1")
    events = len(node.events())
    node.run(0.02)
    node.stop_card("asp 2/1")
    node.run(0.42)
    node.continue_card("asp 2/1", 0.42)
    node.run(0.5)
    # It fenced itself, because it could not know, and goes on under the epoch that it has.
    assert not node.cards["asp 2/1"].fenced
    after = node.card("asp 2/1")
    assert (after["epoch"], after["usable"]) == (before["epoch"], True)
    assert len(node.events()) == events


def test_a_late_controller_blames_nobody(node: Node) -> None:
    assert node.controller is not None
    node.now += 3.0
    node.perform(node.controller.on_timer(node.now))
    node.run(1.0)
    assert all(row["usable"] for row in node.ask("status")["cards"])
    node.now += 3.0
    node.perform(node.controller.on_stall(3.0, node.now))
    node.perform(node.controller.on_timer(node.now))
    node.run(1.0)
    assert all(row["usable"] for row in node.ask("status")["cards"])


def test_a_heartbeat_with_nothing_new_only_moves_what_is_due(node: Node) -> None:
    controller = node.controller
    assert controller is not None
    card = controller.node.cards["asp 2/1"]
    beat = Heartbeat("asp 2/1", card.epoch, 1000, card.reported_version, 0.01)
    now, due, risk = node.now + 0.05, controller.next_timer(), controller.next_risk()
    assert controller.is_still("asp 2/1", beat, now)
    assert (card.last_heartbeat, card.loop_lag) == (now, 0.01)
    assert controller.next_timer() >= due
    assert controller.next_risk() >= risk
    # What comes late moves nothing back.
    assert controller.is_still("asp 2/1", beat, now - 0.01)
    assert card.last_heartbeat == now
    for other in (
        replace(beat, epoch=card.epoch + 1),
        replace(beat, version=card.reported_version + 1),
    ):
        assert not controller.is_still("asp 2/1", other, now + 0.01)
    assert not controller.is_still("asp 9/9", beat, now + 0.01)
    node.stop_card("asp 2/1")
    node.run(1.0)
    assert not controller.is_still("asp 2/1", replace(beat, epoch=card.epoch), node.now)


def look(node: Node) -> None:
    """A tenth of a second goes by, and whoever is silent waited for a core in it."""
    assert node.controller is not None
    node.run(0.1)
    for card, _ in node.controller.cards_at_risk(node.now):
        node.controller.on_cpu_wait(card, 0.1, node.now)


def test_a_card_that_waits_for_a_core_is_not_hung_but_has_no_more_than_so_much_patience(node: Node) -> None:
    assert node.controller is not None
    pid = node.card("asp 2/1")["pid"]
    node.stop_card("asp 2/1")
    stopped = node.now
    node.run(0.3)
    assert node.controller.cards_at_risk(node.now) == [("asp 2/1", pid)]
    for _ in range(40):
        if node.card("asp 2/1")["usable"]:
            look(node)
    # Five intervals of its own and four times as many because it waits; then its traffic goes another way.
    assert node.now - stopped == pytest.approx(0.5 * (1 + MAX_CPU_WAIT_FACTOR), abs=0.15)
    assert node.card("asp 2/1")["state"] == "hung"
    # Its time is used up, and it is killed as soon as any other.
    for _ in range(8):
        look(node)
        assert not [output for output in node.launcher if output.request == "kill"]
    for _ in range(3):
        look(node)
    assert [output.values["card"] for output in node.launcher if output.request == "kill"] == ["asp 2/1"]


def test_a_card_that_got_its_core_has_all_the_patience_again(node: Node) -> None:
    epoch = node.card("asp 2/1")["epoch"]
    for _ in range(3):
        node.stop_card("asp 2/1")
        for _ in range(15):
            look(node)
        node.continue_card("asp 2/1", 1.5)
        node.run(0.2)
        row = node.card("asp 2/1")
        assert (row["epoch"], row["usable"]) == (epoch, True)


def test_ghosts_and_strangers(node: Node) -> None:
    hello = Hello(PROTOCOL, "lc 3", "linecard", 1, 1, 0, 0)

    def answer(card: str, message: Hello) -> str:
        assert node.controller is not None
        outputs = node.controller.receive(card, message, node.now)
        assert len(outputs) <= 1
        replies = [output.message for output in outputs if isinstance(output, ToCard)]
        return next((reply.reason for reply in replies if isinstance(reply, Goodbye)), "")

    assert "no card" in answer("lc 9", replace(hello, card="lc 9"))
    # Whoever speaks on the connection of another card: that card must not suffer from it.
    assert answer("lc 3", replace(hello, card="lc 4")) == ""
    node.kill_card("lc 3")
    node.start_card("lc 3")
    assert "newer" in answer("lc 3", hello)
    assert "protocol 9" in answer("lc 4", replace(hello, card="lc 4", boot=2, protocol=9))
    node.run(0.2)
    assert all(row["usable"] for row in node.ask("status")["cards"])


def test_a_card_that_says_hello_twice_keeps_its_epoch(node: Node) -> None:
    before = {row["card"]: row["epoch"] for row in node.ask("status")["cards"]}
    for name, card in list(node.cards.items()):
        card.changes.clear()
        node.card_does(name, card.on_connected(node.now))
    node.run(0.2)
    assert {row["card"]: row["epoch"] for row in node.ask("status")["cards"]} == before
    assert all(row["usable"] for row in node.ask("status")["cards"])
    assert [
        change for card in node.cards.values() for change in card.changes if change.put or change.deleted
    ] == []


def test_lost_connection_fences_at_once(node: Node) -> None:
    assert node.controller is not None
    epoch = node.card("asp 2/1")["epoch"]
    node.perform(node.controller.on_connection_lost("asp 2/1", node.now))
    node.run(0.2)
    # It heard of it by the record of its own card, said hello and is back.
    row = node.card("asp 2/1")
    assert (row["usable"], row["epoch"]) == (True, epoch + 1)


def test_hundreds_of_tunnels_go_and_come_in_few_messages() -> None:
    count = 400
    text = HIGH_AVAILABILITY + "".join(
        f"context C1\n  interface X{i}\n    ip address 10.{i >> 8}.{i & 255}.1/30\n"
        f"  ip route 11.{i >> 8}.{i & 255}.0/24 X{i}\n"
        f"tunnel ipsec x{i} manual\n  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1\n"
        f"  bind interface X{i} C1\n  seq 10 security-association m{i}\n" + sa(f"m{i}", 1000 + i)
        for i in range(count)
    )
    node = booted(text)
    assert sum(row["up"] for row in node.ask("status")["tunnels"]) == count + 2
    deltas: list[Delta] = []
    node.watch = lambda output: (
        deltas.append(output.message) if isinstance(output.message, Delta) and output.card == "lc 4" else None
    )
    node.kill_card("asp 2/1")
    assert len(deltas) == 2
    assert len(deltas[0].put) == 1
    # The route that both tunnels carry is put anew, every other one of the dead ASP's is withdrawn.
    assert [record.key for record in deltas[1].put if isinstance(record, RouteRecord)] != []
    assert len(deltas[1].delete) >= 2 * count
    deltas.clear()
    node.start_card("asp 2/1")
    node.run(0.2)
    assert sum(row["up"] for row in node.ask("status")["tunnels"]) == count + 2
    assert len(deltas) < 10
