"""Instances of on-demand tunnels through deaths: of the controller, which they survive, and of their ASP."""

from __future__ import annotations

from math import inf

import pytest

from chassis.bus import card
from chassis.bus.engine import ToController
from chassis.bus.messages import HeldInstances
from chassis.bus.records import CircuitRecord, TunnelHopRecord, TunnelRecord
from tests.support.on_demand import ASP, HUB, Hub, hub

ECONOMICAL = HUB.replace("tunnel ipsec T on-demand\n", "tunnel ipsec T on-demand economical\n")


def with_peers(count: int = 3, text: str = HUB, **settings: object) -> Hub:
    node = hub(text, **settings)
    for one in range(count):
        number = node.admit(f"peer-{one}.example", f"50.0.{one >> 8}.{one & 255}")
        node.comes_up(number, f"10.2.{one}.0/24" if one < 256 else "10.3.0.0/16")
    return node


def restart(node: Hub, text: str = "") -> None:
    node.kill_controller()
    if text:
        node.text, node.state = text, {k: v for k, v in node.state.items() if "journal" not in k}
    node.start()
    node.run(0.3)


@pytest.mark.parametrize("text", [HUB, ECONOMICAL])
def test_a_controller_that_starts_again_takes_instances_over(text: str) -> None:
    """Same numbers, circuits and routes; the cards are sent nothing that they do not have."""
    node = with_peers(text=text)
    before, circuits = node.instances("lc 3"), node.circuits("lc 3")
    changes = {name: len(one.changes) for name, one in node.cards.items()}
    records = {name: dict(one.replica.records) for name, one in node.cards.items()}
    restart(node)
    assert node.instances("lc 3") == before
    assert node.circuits("lc 3") == circuits
    for name, one in node.cards.items():
        for change in one.changes[changes[name] :]:
            told = TunnelRecord | TunnelHopRecord | CircuitRecord
            assert not [r for r in (*change.put, *change.deleted) if isinstance(r, told)]
        assert one.replica.records == records[name]
    assert node.hops("lc 3", "inner", "10.2.1.0/24") == ["T (peer-1.example)"]
    row = node.tunnel("T")
    assert (row["up"], row["instances"], row["instances_up"]) == (True, 3, 3)
    # What comes now has a number that nobody had.
    fresh = node.admit("peer-9.example", "50.0.0.9")
    assert fresh > max(before.values())
    # The same peer again is the same instance; from another address it is another one.
    assert node.admit("peer-1.example", "50.0.0.1") == before["peer-1.example"]
    assert node.admit("PEER-1.example", "50.0.0.77") not in (*before.values(), fresh)
    assert len(node.instances()) == 4


def test_max_tunnels_counts_what_was_taken_over() -> None:
    node = with_peers(text=HUB.replace("  ike-policy pol\n", "  ike-policy pol\n  max-tunnels 3\n"))
    restart(node)
    assert node.refused("peer-9.example", "50.0.0.9") == "max-tunnels: 3 of profile T are active"
    assert len(node.instances()) == 3


def test_many_instances_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "MAX_INSTANCES_PER_PART", 50)
    node = with_peers(120)
    held = node.asp.held_instances()
    assert len(held) == 120
    sent: list[HeldInstances] = []
    restart(node)
    outputs = node.asp._hello(node.now)
    while node.asp.next_timer() == -inf:
        outputs += node.asp.on_timer(node.now)
    for output in outputs:
        assert isinstance(output, ToController)
        if isinstance(output.message, HeldInstances):
            sent.append(output.message)
    assert [(one.part, one.parts, len(one.instances)) for one in sent] == [(1, 3, 50), (2, 3, 50), (3, 3, 20)]
    assert node.tunnel("T")["instances"] == 120
    assert node.instances("lc 3") == {one.instance.identity: one.number for one in held if one.instance}


def test_parts_that_lack_one_are_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "MAX_INSTANCES_PER_PART", 50)
    node = with_peers(120)
    node.kill_controller()
    card_does = node.card_does
    lost: list[int] = []

    def lossy(card: str, outputs: list[object]) -> None:
        kept = []
        for output in outputs:
            message = output.message if isinstance(output, ToController) else None
            if isinstance(message, HeldInstances) and message.part == 2 and not lost:
                lost.append(message.part)
            else:
                kept.append(output)
        card_does(card, kept)  # type: ignore[arg-type]

    node.card_does = lossy  # type: ignore[assignment]
    node.start()
    node.run(0.05)
    assert lost
    assert node.controller is not None
    assert not node.controller.state.reconciled
    node.run(0.7)
    assert node.controller.state.reconciled
    assert node.tunnel("T")["instances"] == 120


def test_an_instance_whose_peer_went_meanwhile_is_no_more() -> None:
    node = with_peers(3)
    node.kill_controller()
    gone = node.instances()["peer-1.example"]
    held = node.asp.held_instances()
    node.asp.held_instances = lambda: tuple(one for one in held if one.number != gone)  # type: ignore[method-assign]
    node.start()
    node.run(0.3)
    assert set(node.instances()) == set(node.instances("lc 3")) == {"peer-0.example", "peer-2.example"}
    assert node.hops("lc 3", "inner", "10.2.1.0/24") == []


def test_what_is_no_longer_configured_ends_at_the_start() -> None:
    node = with_peers(3)
    restart(node, HUB.replace("  ip route traffic", "  shutdown\n  ip route traffic"))
    assert not node.instances()
    assert not node.instances("lc 3")
    assert node.tunnel("T")["reason"] == "shutdown"


@pytest.mark.parametrize("text", [HUB, ECONOMICAL])
def test_the_death_of_an_asp_ends_its_instances(text: str) -> None:
    node = with_peers(12, text)
    node.kill_card(ASP)
    assert not node.instances("lc 3")
    assert not node.circuits("lc 3")
    assert node.hops("lc 3", "inner", "10.2.1.0/24") == []
    lines = [line for line in node.events() if "peer-" not in line and "ended" in line]
    assert lines == ["tunnel T: 12 peers ended: asp 2/1 died"]
    node.start_card(ASP)
    node.run(0.3)
    assert node.tunnel("T")["instances"] == 0
    node.admit("peer-1.example", "50.0.0.1")


def test_another_process_of_an_asp_has_no_peers() -> None:
    """Even where nobody saw the one before it end."""
    node = with_peers(3)
    node.boots[ASP] += 1
    del node.cards[ASP]
    node.start_card(ASP)
    node.run(0.3)
    assert not node.instances("lc 3")


def test_an_asp_that_hung_has_its_peers_yet() -> None:
    node = with_peers(3)
    before = node.instances("lc 3")
    node.stop_card(ASP)
    node.run(1.0)
    assert not node.tunnel("T")["up"]
    assert node.instances("lc 3") == before
    node.continue_card(ASP, 1.0)
    node.run(0.5)
    assert node.tunnel("T")["instances_up"] == 3
    assert node.instances("lc 3") == node.instances() == before


def test_an_asp_that_a_new_controller_gave_up_has_its_peers_yet() -> None:
    """It was hung for the whole of the reconcile window: its instances are taken over when it goes on."""
    node = with_peers(3, **{"kill-after": 60})
    before = node.instances("lc 3")
    node.stop_card(ASP)
    node.kill_controller()
    node.start()
    node.run(3.0)
    assert not node.instances("lc 3")
    node.continue_card(ASP, 4.0)
    node.run(0.5)
    assert node.instances("lc 3") == node.instances() == before
    assert node.tunnel("T")["instances_up"] == 3


def test_the_death_of_a_line_card_moves_circuits_back() -> None:
    node = with_peers(3)
    before = node.circuits("lc 3")
    node.kill_card("lc 3")
    assert not node.tunnel("T")["up"]
    node.start_card("lc 3")
    node.run(0.3)
    after = node.circuits("lc 3")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert node.tunnel("T")["instances_up"] == 3
