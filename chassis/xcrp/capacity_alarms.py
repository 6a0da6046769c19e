"""Alarms of capacity: an ASE card or the router holds all the tunnels that it can, and refused a peer for that.

One stands for each card, and one for the router. It is raised with the first peer that is refused, and over when
there is room again. Static tunnels without room have alarms of their own. The name is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from chassis.xcrp.alarms import MINOR, Alarm, AlarmKey
from chassis.xcrp.capacity import ROUTER, Capacity, SessionCount
from chassis.xcrp.node import NodeState

KINDS: Final = ("ase", ROUTER)
"""Kinds of the places of these alarms: an ASE card, such as `ase 2`, and the router."""

NAME: Final = "tunnelCapacityReached"

CHECK_INTERVAL: Final = 1.0
"""Time (s) after which a standing alarm is looked at again: where peers come and go at the limit, it stands on."""


class CapacityAlarms:
    """Finds the alarms of capacity. `due` is when (s) they are to be looked at next."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._full: set[str] = set()
        self.due = -inf

    def on_refused(self, asp: str) -> None:
        """A peer was refused because the card of this ASP, or the router, has no room."""
        place = self._room().full_at(asp)
        if place and place not in self._full:
            self._full.add(place)
            self.due = -inf

    def find(self, standing: Iterable[AlarmKey], now: float) -> list[Alarm]:
        """Return the alarms of this moment; those with the keys `standing` stand."""
        self._full.update(place for place, name in standing if name == NAME)
        room = self._room() if self._full else None
        self._full = {place for place in self._full if room is not None and room.is_full(place)}
        self.due = now + CHECK_INTERVAL if self._full else inf
        most = self._node.settings.capacity
        return [Alarm(MINOR, place, NAME, _text(place, most)) for place in sorted(self._full)]

    def _room(self) -> SessionCount:
        return SessionCount.of(self._node.plan.sessions, self._node.settings.capacity)


def _text(place: str, most: Capacity) -> str:
    count = most.router if place == ROUTER else most.card
    return f"holds {count} tunnels: peers are refused"
