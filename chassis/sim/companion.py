"""The IKE process of a simulated ASP: an engine of its own, two connections to the data engine, one death."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chassis.sim.connection import SimConnection
from chassis.sim.process import CONTROL, EVENT, Process

if TYPE_CHECKING:
    from chassis.sim.node import CardProcess

DEPTH = 1 << 20
"""Messages that the pipe between the two holds: the real one takes as much as memory does."""


WALL = 1_700_000_000.0
"""Seconds since 1970 at which a simulated clock begins: certificates have dates."""


class IkeProcessModel(Process):
    """Ends with its card and ends its card; what its engine says goes to the card's engine as `from_ike`."""

    def __init__(self, card: CardProcess, engine: Any) -> None:
        super().__init__(card.world, card.node, f"{card.card} ike", card.boot, card.pid + 100_000)
        self._card = card
        self._down = SimConnection(self.world, f"{card.name} to ike", self, self._takes, CONTROL, DEPTH)
        self._up = SimConnection(self.world, f"{self.name} to card", card, self._given, EVENT, DEPTH)
        card.on_death.append(lambda _: self.kill())
        self.on_death.append(lambda _: card.kill())
        self.engine = engine

    def take(self, message: Any) -> None:
        """A message of the data engine, to arrive in a while."""
        self._down.send(message)

    def perform(self, outputs: list[Any] | tuple[Any, ...]) -> None:
        for message in outputs:
            self._up.send(message)

    def _takes(self, message: Any) -> None:
        now = self.world.now
        self.after(self.engine.receive(message, now, WALL + now))

    def _given(self, message: Any) -> None:
        card = self._card
        card.after(card.engine.from_ike(message, self.world.now))
