"""The simulation: a clock that jumps from event to event, and one seeded random source.

It uses no real clock. Two simulations with the same seed and the same engines are equal, event by event.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

START_TIME = 1000.0
"""Start time (s) of every simulation. Not 0, so that code which confuses 0 with "unset" fails."""

MIN_MESSAGE_DELAY = 0.0001
"""Shortest delay of a message (s)."""

TYPICAL_MESSAGE_DELAY = 0.0009
"""Most additional delay of 98 of 100 messages (s)."""

MAX_MESSAGE_DELAY = 0.03
"""Most additional delay of the other two (s), as on a busy machine."""

Call = Callable[[Any], object]


class Violation(Exception):
    """A rule was violated. `time` is in seconds from the start of the run."""

    def __init__(self, rule: str, what: str, time: float) -> None:
        super().__init__(rule, what, time)
        self.rule = rule
        self.what = what
        self.time = time

    def __str__(self) -> str:
        return f"{self.rule}: {self.what} (at {self.time:.6f} s)"


class Simulation:
    """Runs events in order of time; events of the same time in the order in which they were scheduled."""

    def __init__(self, seed: int, trace: Callable[[float, str], None] | None = None) -> None:
        self.seed = seed
        self.now = START_TIME
        self.events = 0
        self.trace = trace
        self.random = Random(seed)
        self.chance = self.random.random
        self._heap: list[tuple[float, int, Call, Any]] = []
        self._number = 0

    @property
    def elapsed(self) -> float:
        """Seconds from the start of the run."""
        return self.now - START_TIME

    def at(self, when: float, call: Call, argument: Any = None) -> None:
        """Schedule `call(argument)` for a time; if it has passed, for as soon as possible."""
        self._number = number = self._number + 1
        heappush(self._heap, (when, number, call, argument))

    def after(self, seconds: float, call: Call, argument: Any = None) -> None:
        self.at(self.now + seconds, call, argument)

    def delay(self) -> float:
        """Draw the delay of one message (s)."""
        drawn = self.chance()
        if drawn < 0.98:
            return MIN_MESSAGE_DELAY + TYPICAL_MESSAGE_DELAY * drawn
        return MIN_MESSAGE_DELAY + MAX_MESSAGE_DELAY * 50 * (drawn - 0.98)

    def log_event(self, text: str) -> None:
        """Write a line to the trace, if there is one."""
        if self.trace is not None:
            self.trace(self.elapsed, text)

    def violation(self, rule: str, what: str) -> Violation:
        """Return the exception to raise."""
        return Violation(rule, what, self.elapsed)

    def run(self, until: float = inf) -> None:
        """Run all events up to a time."""
        heap, pop = self._heap, heappop
        done = 0
        try:
            while heap and heap[0][0] <= until:
                when, _, call, argument = pop(heap)
                # An event for a time that has passed runs now: the clock never goes back.
                if when > self.now:
                    self.now = when
                done += 1
                call(argument)
        finally:
            self.events += done
        if until < inf:
            self.now = until

    def fingerprint(self) -> str:
        """Return a short text that is equal for equal runs."""
        drawn = self.random.getrandbits(48)
        return f"{self._number:x}-{drawn:012x}"
