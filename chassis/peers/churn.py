"""Peers that come and go: which one goes next, and when it comes again."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Final

from chassis.peers.measurements import SetupMeasurements

MAX_BEHIND: Final = 1.0
"""Time (s) that leaving peers may be behind their rate; after a longer stall the rest stays."""


class Churn:
    """Peers that are up go in turn, at a rate, and come again after a time."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._wait = 0.0
        self._due = inf
        self._last = 0
        """Number of the peer that went last."""
        self._away: list[tuple[float, int]] = []
        """When which peer comes again; a heap."""

    @property
    def active(self) -> bool:
        return self._due < inf

    def start(self, rate: float, away: float, now: float) -> None:
        """Have `rate` peers go in a second, each for `away` (s). Those that are away come when they were to."""
        self._rate, self._wait, self._due = rate, away, now

    def stop(self) -> None:
        """Let no more go. Those that are away stay away."""
        self._due = inf
        self._away.clear()

    def next_timer(self) -> float:
        return min(self._due, self._away[0][0] if self._away else inf)

    def pop_back(self, now: float) -> list[int]:
        """Return the peers that come again."""
        back = []
        while self._away and self._away[0][0] <= now:
            back.append(heappop(self._away)[1])
        return back

    def pop_going(self, setups: SetupMeasurements, now: float) -> list[int]:
        """Return the peers that go. One that is not up is passed over; without any that is up nobody goes."""
        going: list[int] = []
        self._due = max(self._due, now - MAX_BEHIND)
        while self._due <= now:
            self._due += 1.0 / self._rate
            number = self._next_up(setups, len(going))
            if number:
                going.append(number)
                heappush(self._away, (now + self._wait, number))
        return going

    def _next_up(self, setups: SetupMeasurements, chosen: int) -> int:
        count = len(setups.peers)
        if setups.up <= chosen:
            return 0
        while True:
            self._last = self._last % count + 1
            if setups.peers[self._last - 1].up:
                return self._last
