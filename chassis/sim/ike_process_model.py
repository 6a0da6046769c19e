"""The IKE process of a simulated ASP: an engine with two connections to the data engine."""

from __future__ import annotations

from typing import Any

from chassis.sim.connection import SimConnection
from chassis.sim.process import CONTROL, EVENT, Process

DEPTH = 1 << 20
"""Messages that the pipe between the two processes holds (count). The real pipe is limited by memory only."""

WALL = 1_700_000_000.0
"""Wall clock (s since 1970) at simulated time 0; certificates have dates."""


class IkeProcessModel(Process):
    """The IKE process of a card. The two processes die together; its outputs go to the card's `from_ike`."""

    def __init__(self, card: Process, engine: Any) -> None:
        super().__init__(card.world, card.node, f"{card.card} ike", card.boot, card.pid + 100_000)
        self._card = card
        self._down = SimConnection(self.world, f"{card.name} to ike", self, self._takes, CONTROL, DEPTH)
        self._up = SimConnection(self.world, f"{self.name} to card", card, self._given, EVENT, DEPTH)
        card.on_death.append(lambda _: self.kill())
        self.on_death.append(lambda _: card.kill())
        self.engine = engine

    def take(self, message: Any) -> None:
        """Send a message of the data engine to the IKE engine."""
        self._down.send(message)

    def perform(self, outputs: list[Any] | tuple[Any, ...]) -> None:
        for message in outputs:
            self._up.send(message)

    def _takes(self, message: Any) -> None:
        now = self.world.now
        self.finish_call(self.engine.receive(message, now, WALL + now))

    def _given(self, message: Any) -> None:
        card = self._card
        card.finish_call(card.engine.from_ike(message, self.world.now))
