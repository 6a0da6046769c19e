"""A lab of the simplest engines that can be: real cards without packets, and a controller that only admits."""

from __future__ import annotations

import json
from dataclasses import astuple
from math import inf
from typing import Any, cast

from chassis.bus.card import CardBase
from chassis.bus.engine import Append, Persist, ToCard, ToLauncher, ToOperator
from chassis.bus.messages import Heartbeat, Hello, Welcome
from chassis.bus.records import CardStateRecord, Record, TunnelRecord
from chassis.bus.replication import Publisher
from chassis.model.router import Tunnel
from chassis.sim.lab import LabModel
from chassis.sim.node import CardModel, NodeModel, Variant

CARDS = ("lc 3", "asp 1/1", "asp 1/2")
JOURNAL = "journal"
CARDS_FILE = "cards"


class FakeCard(CardBase):
    """A card that has nothing to do."""

    def receive_batch(self, batch: Any, now: float) -> list[Any]:
        return []

    def receive_frames(self, port: str, batch: Any, now: float) -> list[Any]:
        return []

    def on_carrier(self, port: str, up: bool, now: float) -> list[Any]:
        return []


class FakeController:
    """Admits every hello under a new epoch, gives cards up that are silent, journals commits."""

    silence = 0.5

    def __init__(self, start: Any) -> None:
        self.publisher = Publisher(lambda card, record: True, start.boot * 100_000)
        self.heard: dict[str, float] = {}
        self.hung: dict[str, float] = {}
        self.epoch = start.boot * 1000
        # A line that was cut short was never acknowledged.
        lines = (b"1400\n" + start.files.get(JOURNAL, b"")).split(b"\n")[:-1]
        self.mtu = int(lines[-1])
        for values in json.loads(start.files.get(CARDS_FILE, b"[]")):
            self.publisher.put(CardStateRecord(*values))
            if values[4]:
                self.heard[values[0]] = start.now + 2.0

    def start(self, now: float) -> list[Any]:
        self.configure()
        return []

    def configure(self) -> None:
        for number in (1, 2):
            self.publisher.put(tunnel(number, self.mtu))

    def state(self, state: CardStateRecord) -> list[Any]:
        self.publisher.put(state)
        states = [astuple(one) for one in self.publisher.records.values() if isinstance(one, CardStateRecord)]
        return [Persist(CARDS_FILE, json.dumps(states).encode()), *self.flush()]

    def flush(self) -> list[Any]:
        return [ToCard(card, delta) for card, delta in self.publisher.flush()]

    def receive(self, card: str, message: Any, now: float) -> list[Any]:
        if isinstance(message, Heartbeat):
            self.heard[card] = now
            return []
        if not isinstance(message, Hello):
            return []
        self.heard[card] = now
        self.hung.pop(card, None)
        self.publisher.unsubscribe(card)
        epoch, known = message.epoch, self.publisher.records.get(("card", card))
        if not isinstance(known, CardStateRecord) or known.epoch != epoch or known.boot != message.boot:
            self.epoch += 1
            epoch = self.epoch
        outputs = self.state(CardStateRecord(card, "asp", message.boot, epoch, True, message.pid))
        outputs.append(ToCard(card, Welcome(epoch, self.publisher.version, 0.1, 5, {})))
        return outputs + [ToCard(card, part) for part in self.publisher.snapshot(card)]

    def give_up(self, card: str) -> list[Any]:
        self.heard.pop(card, None)
        state = self.publisher.records.get(("card", card))
        if not isinstance(state, CardStateRecord):
            return []
        self.epoch += 1
        return self.state(CardStateRecord(card, "asp", state.boot, self.epoch, False, state.pid))

    def on_connection_lost(self, card: str, now: float) -> list[Any]:
        return self.give_up(card)

    def on_card_died(self, card: str, boot: int, now: float) -> list[Any]:
        self.hung.pop(card, None)
        return self.give_up(card)

    def on_card_started(self, card: str, boot: int, pid: int, now: float) -> list[Any]:
        return []

    def on_stall(self, seconds: float, now: float) -> list[Any]:
        self.heard = {card: max(at, min(at + seconds, max(at, now))) for card, at in self.heard.items()}
        return []

    def on_operator_command(self, number: int, command: str, arguments: Any, now: float) -> list[Any]:
        if command == "apply":
            self.mtu = int(arguments["text"])
            self.configure()
            journal = Append(JOURNAL, f"{self.mtu}\n".encode())
            return [journal, *self.flush(), ToOperator(number, {"applied": True})]
        cards: Any = [
            {"card": record.card, "usable": record.usable}
            for record in self.publisher.records.values()
            if isinstance(record, CardStateRecord)
        ]
        return [ToOperator(number, {"cards": cards, "tunnels": cast(Any, [{"name": "t", "up": True}])})]

    def on_stored(self, file: str, error: str, now: float) -> list[Any]:
        return []

    def on_timer(self, now: float) -> list[Any]:
        outputs: list[Any] = []
        for card, at in list(self.heard.items()):
            if now >= at + self.silence:
                outputs += self.give_up(card)
                self.hung[card] = now + 1.0
        for card, at in list(self.hung.items()):
            if now >= at:
                del self.hung[card]
                outputs.append(ToLauncher("kill", {"card": card, "why": "hung"}))
        return outputs

    def next_timer(self) -> float:
        return min(min(self.heard.values(), default=inf) + self.silence, min(self.hung.values(), default=inf))


def tunnel(number: int, mtu: int) -> TunnelRecord:
    return TunnelRecord(
        number=number,
        config=Tunnel(f"t{number}", kind="manual", economical=True, mtu=mtu),
        asp="asp 1/1",
        circuit=0,
        home="",
        context=1,
        outer_context=1,
        local=1,
        remote=2,
        queues=1,
        up=True,
    )


def marks(mtu: int) -> Any:
    def of(record: Record) -> bool | None:
        return record.config.mtu == mtu if isinstance(record, TunnelRecord) else None

    return of


def fake_lab(nodes: int = 2, controller: Any = FakeController) -> LabModel:
    """Routers without wires."""
    cards = tuple(
        CardModel(card, lambda start: FakeCard(start.card, pid=start.pid, boot=start.boot)) for card in CARDS
    )
    variants = (Variant("1400", marks(1400)), Variant("1300", marks(1300)))
    return LabModel(
        "fakes",
        tuple(NodeModel(name, controller, cards, variants=variants) for name in ("a", "b", "c")[:nodes]),
        (),
        (),
        lambda body, at: None,
    )
