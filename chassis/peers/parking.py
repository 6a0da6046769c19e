"""Peers at rest: each is parked in a few hundred octets until something is about it.

A peer that is up is parked when nothing of it is under way (`chassis.ase.ike.parking`). It is put back when a
datagram for its address comes that asks more than whether it is alive, when its next timer is due (a new key, a
probe, a NAT's keepalive), and when it is to go.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from chassis.ase.ike.parking import ParkedTunnel, Parking
from chassis.ase.ike_messages import IkePacket
from chassis.peers.spec import PeersSpec

REST: Final = 1.0
"""Time (s) that a peer stays awake after it came up or was put back, and between two attempts to park it."""

MAX_STALE: Final = 256
"""Stale timers that are kept (count), in addition to one for each parked peer."""


class ParkedPeers:
    """The parked peers of one node, by number, and those that are up and are to be parked."""

    def __init__(self, spec: PeersSpec, parking: Parking) -> None:
        self._spec = spec
        self._parking = parking
        self._parked: dict[int, ParkedTunnel] = {}
        self._due: list[tuple[float, int]] = []
        """A heap of (time of the next timer, number); those that `_parked` does not confirm are stale."""
        self._awake: dict[int, float] = {}
        """When to try to park each peer that is up (s), by number, the next one first."""

    def __len__(self) -> int:
        """Return how many are parked."""
        return len(self._parked)

    def on_up(self, number: int, now: float) -> None:
        """A peer came up: park it when it is at rest."""
        if number not in self._parked:
            self._awake.setdefault(number, now + REST)

    def on_down(self, number: int) -> None:
        """A peer went down, or is to go: it is not at rest."""
        self._awake.pop(number, None)

    def answer(self, number: int, packet: IkePacket, now: float) -> IkePacket | None:
        """Return the answer of a parked peer that is asked whether it is alive, which stays parked; None for any
        other message and peer."""
        parked = self._parked.get(number)
        answered = None if parked is None else self._parking.answer(parked, packet, now)
        if answered is None:
            return None
        self._parked[number], answer = answered
        return answer

    def unpark(self, number: int, now: float) -> None:
        """Put a peer back, if it is parked. Call it before the engine gets anything that is about the peer."""
        parked = self._parked.pop(number, None)
        if parked is not None:
            self._parking.put_back(number, parked, self._spec.records(number), now)
            self._awake[number] = now + REST

    def unpark_due(self, now: float) -> None:
        """Put the peers back whose timers are due. Call it before the engine's `on_timer`."""
        while self._next_due() <= now:
            _, number = heappop(self._due)
            self.unpark(number, now)

    def park_resting(self, now: float) -> None:
        """Park the peers that were awake for REST seconds. Call it after the engine's `on_timer`."""
        while self._awake:
            number, at = next(iter(self._awake.items()))
            if at > now:
                return
            del self._awake[number]
            parked = self._parking.park(number, self._spec.keys(number))
            if parked is None:
                self._awake[number] = now + REST
                continue
            self._parked[number] = parked
            heappush(self._due, (parked.due, number))
            if len(self._due) > MAX_STALE + 2 * len(self._parked):
                self._due = [(one.due, known) for known, one in self._parked.items()]
                heapify(self._due)

    def next_timer(self) -> float:
        """Return when `unpark_due` or `park_resting` has to be called (s)."""
        return min(self._next_due(), next(iter(self._awake.values()), inf))

    def _next_due(self) -> float:
        while self._due:
            at, number = self._due[0]
            parked = self._parked.get(number)
            if parked is not None and parked.due == at:
                return at
            heappop(self._due)
        return inf
