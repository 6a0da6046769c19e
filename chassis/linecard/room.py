"""How many neighbours a port keeps, and which of them make room for others.

Anyone can have us ask for any address of a port's network, and anyone there can answer for any of them. So
there is a bound for neighbours that are asked for, for those that are known, and for the packets that wait. Of
those asked for the one goes that was asked for first: a host that is there answers soon. Of those known the one
goes that was sent to the longest ago, so that neighbours which carry traffic stay, however many others are made
up.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chassis.linecard.neighbours import Neighbour

UNRESOLVED = 512
"""Most neighbours of a port that are asked for and have not answered."""

KNOWN = 2048
"""Most neighbours of a port whose hardware address is known."""

WAITING = 1024
"""Most packets of a port that wait for neighbours."""


class Room:
    """What a port keeps of its neighbours. Each method that takes something says what is too much then, if there
    is anything: the caller does away with it."""

    __slots__ = ("_known", "_last_sent", "_number", "_queues", "_unresolved", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        """Packets in all queues."""
        self._unresolved: dict[Neighbour, None] = {}
        self._queues: dict[Neighbour, None] = {}
        """Neighbours for which packets wait, in the order in which the first came."""
        self._known = 0
        self._last_sent: list[tuple[float, int, Neighbour]] = []
        """Known neighbours by a time at which they were sent to, which may not be the last one: a heap."""
        self._number = 0

    def ask(self, neighbour: Neighbour) -> Neighbour | None:
        """It is asked for from now on."""
        self._unresolved[neighbour] = None
        return next(iter(self._unresolved)) if len(self._unresolved) > UNRESOLVED else None

    def answered(self, neighbour: Neighbour) -> None:
        """It is asked for no more."""
        self._unresolved.pop(neighbour, None)

    def know(self, neighbour: Neighbour) -> Neighbour | None:
        """Its address is known from now on."""
        self._known += 1
        self._push(neighbour)
        return self._longest_ago() if self._known > KNOWN else None

    def forget(self) -> None:
        """The address of one that was known is so no more."""
        self._known -= 1
        if not self._known:
            self._last_sent.clear()

    def queue(self, neighbour: Neighbour) -> Neighbour | None:
        """A packet waits for it; the neighbour whose first packet is to go for it."""
        self._queues[neighbour] = None
        self.waiting += 1
        return next(iter(self._queues)) if self.waiting > WAITING else None

    def unqueue(self, neighbour: Neighbour, packets: int) -> None:
        """So many of its packets wait no more; its queue was brought up to that before."""
        self.waiting -= packets
        if not neighbour.waiting:
            self._queues.pop(neighbour, None)

    # inside

    def _push(self, neighbour: Neighbour) -> None:
        if len(self._last_sent) > 2 * KNOWN:
            self._last_sent = [entry for entry in self._last_sent if entry[2].mac]
            heapq.heapify(self._last_sent)
        self._number += 1
        heapq.heappush(self._last_sent, (neighbour.used, self._number, neighbour))

    def _longest_ago(self) -> Neighbour:
        """The known neighbour that was sent to the longest ago."""
        while True:
            used, _, neighbour = heapq.heappop(self._last_sent)
            if not neighbour.mac:
                continue
            if neighbour.used == used:
                return neighbour
            self._push(neighbour)
