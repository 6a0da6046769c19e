"""Seeded sequences of everything that can happen, in any order: what must hold holds after each step."""

from __future__ import annotations

import json
import random

import pytest

from chassis.bus.records import CardStateRecord, CircuitRecord, TunnelRecord
from chassis.xcrp.id_allocator import CARDS
from tests.support.xcrp import TWO_WAYS, Cut, Node

PORTS = ("3/1", "3/11", "4/1", "4/2")
TEXTS = (
    TWO_WAYS,
    TWO_WAYS.replace("manual economical", "manual"),
    TWO_WAYS.replace("asp-group G1 service", "asp-group G2 service"),
    TWO_WAYS.replace("tunnel ipsec Tun-1 manual", "tunnel ipsec Tun-9 manual"),
)


class Watch:
    """What was ever true, to compare with what is."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.circuits: dict[int, tuple[str, int, str]] = {}
        self.tunnels: dict[int, str] = {}
        self.leases: dict[str, list[tuple[int, str, int]]] = {}

    def check(self, node: Node) -> None:
        assert node.controller is not None
        stored = {card: epoch for card, (_, epoch, _) in json.loads(node.state.get(CARDS, b"{}")).items()}
        for record in node.controller.node.publisher.records.values():
            if isinstance(record, CardStateRecord):
                assert record.epoch >= self.epochs.get(record.card, 0), "an epoch went back"
                assert record.epoch <= stored[record.card], "an epoch was used before it was stored"
                self.epochs[record.card] = record.epoch
            elif isinstance(record, CircuitRecord):
                what = (record.card, record.tunnel, record.port)
                assert self.circuits.setdefault(record.number, what) == what, "a circuit number was used again"
            elif isinstance(record, TunnelRecord):
                assert self.tunnels.setdefault(record.number, record.config.name) == record.config.name
        taken: dict[str, list[tuple[int, int]]] = {}
        for lease in node.controller.node.numbers.leases.values():
            for use in lease.uses:
                for start, end in taken.get(use, ()):
                    assert lease.end <= start or lease.start >= end, "two leases overlap"
                taken.setdefault(use, []).append((lease.start, lease.end))


def obey(node: Node) -> None:
    """The launcher's part: what the controller wants killed is killed."""
    wanted = [output.values for output in node.launcher if output.request == "kill"]
    node.launcher.clear()
    for values in wanted:
        card = str(values["card"])
        if card in node.cards and node.boots[card] == values["boot"]:
            node.stopped.discard(card)
            node.frozen.pop(card, None)
            node.kill_card(card)


def settled(node: Node) -> None:
    """Everything is started and has had its time: all cards hold just what is wanted for them."""
    assert node.controller is not None
    for card, _ in node.controller.cards():
        if card in node.stopped:
            node.stopped.discard(card)
            node.frozen.pop(card, None)
            node.kill_card(card)
        if card not in node.cards:
            node.start_card(card)
    for _ in range(6):
        node.run(1.0)
        obey(node)
        for card in set(dict(node.controller.cards())) - set(node.cards):
            node.start_card(card)
    engine = node.controller.node
    assert {row["card"] for row in node.ask("status")["cards"] if row["usable"]} == set(node.cards)
    for name, card in node.cards.items():
        wanted = {
            key: record
            for key, record in engine.publisher.records.items()
            if engine.publisher._wants(name, record)
        }
        assert card.replica.records == wanted, name
        assert card.epoch == engine.cards[name].epoch
        assert not card.fenced


@pytest.mark.parametrize("seed", range(28))
def test_any_sequence(seed: int) -> None:
    rng = random.Random(seed)
    node = Node(TWO_WAYS)
    node.boot_all(*PORTS)
    watch = Watch()
    for _ in range(40):
        alive = sorted(node.cards)
        dead = sorted(set(dict(node.controller.cards())) - set(node.cards)) if node.controller is not None else []
        what = rng.choice(
            ["kill", "start", "start", "stop", "go on", "controller", "carrier", "apply", "wait", "cut", "late"]
        )
        if what == "kill" and alive:
            card = rng.choice(alive)
            node.stopped.discard(card)
            node.frozen.pop(card, None)
            node.kill_card(card)
        elif what == "start" and dead:
            node.start_card(rng.choice(dead), fresh=rng.random() < 0.3)
        elif what == "stop" and alive:
            node.stop_card(rng.choice(alive))
        elif what == "go on" and node.stopped & set(alive):
            card = rng.choice(sorted(node.stopped & set(alive)))
            node.continue_card(card, rng.choice([0.1, 0.45, 2.0]))
        elif what == "controller":
            node.kill_controller()
            node.run(rng.random() * 3)
            node.start()
        elif what == "carrier":
            port = rng.choice(PORTS)
            if f"lc {port[0]}" in node.cards and f"lc {port[0]}" not in node.stopped:
                node.carrier_event(port, rng.random() < 0.7)
        elif what in ("apply", "cut"):
            text = rng.choice(TEXTS)
            if what == "cut":
                node.budget = rng.randrange(12)
            try:
                assert node.controller is not None
                node.perform(node.controller.on_operator_command(1, "apply", {"text": text}, node.now))
            except Cut:
                node.budget = 1 << 30
                node.kill_controller()
                node.start()
            node.budget = 1 << 30
        elif what == "late" and node.controller is not None:
            node.now += 1.0
            node.perform(node.controller.on_stall(1.0, node.now))
        node.run(rng.choice([0.0, 0.01, 0.3, 1.2]))
        obey(node)
        watch.check(node)
    settled(node)
    watch.check(node)
