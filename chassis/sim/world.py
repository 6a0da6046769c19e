"""The simulated world: a clock that jumps from event to event, and one seeded source of everything random.

Nothing here knows a real clock: a simulated hour lasts as long as its events take to compute. Two worlds with
the same seed and the same engines go the same way, event by event.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

START_TIME = 1000.0
"""Time at which every world begins: not 0, so that nothing takes a time for "not yet"."""

MIN_MESSAGE_DELAY = 0.0001
"""Seconds that a message takes at least."""

TYPICAL_MESSAGE_DELAY = 0.0009
"""Most seconds that 98 of 100 messages take on top."""

MAX_MESSAGE_DELAY = 0.03
"""Most seconds that the other two take on top: a busy machine."""

Call = Callable[[Any], object]


class Violation(Exception):
    """Something happened that may never happen. `time` is in seconds from the start of the run."""

    def __init__(self, rule: str, what: str, time: float) -> None:
        super().__init__(rule, what, time)
        self.rule = rule
        self.what = what
        self.time = time

    def __str__(self) -> str:
        return f"{self.rule}: {self.what} (at {self.time:.6f} s)"


class Simulation:
    """Events in order of time; events of one time in the order in which they were asked for."""

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
        """Have `call(argument)` made at a time; a time that has passed means as soon as possible."""
        self._number = number = self._number + 1
        heappush(self._heap, (when, number, call, argument))

    def after(self, seconds: float, call: Call, argument: Any = None) -> None:
        self.at(self.now + seconds, call, argument)

    def delay(self) -> float:
        """How long one message takes."""
        drawn = self.chance()
        if drawn < 0.98:
            return MIN_MESSAGE_DELAY + TYPICAL_MESSAGE_DELAY * drawn
        return MIN_MESSAGE_DELAY + MAX_MESSAGE_DELAY * 50 * (drawn - 0.98)

    def log_event(self, text: str) -> None:
        """A line of the trace, where one is kept."""
        if self.trace is not None:
            self.trace(self.elapsed, text)

    def violation(self, rule: str, what: str) -> Violation:
        """The exception to raise, with the time in it."""
        return Violation(rule, what, self.elapsed)

    def run(self, until: float = inf) -> None:
        """Everything up to a time, in order."""
        heap, pop = self._heap, heappop
        done = 0
        try:
            while heap and heap[0][0] <= until:
                when, _, call, argument = pop(heap)
                # What was asked for a time that had passed happens now: the clock never goes back.
                if when > self.now:
                    self.now = when
                done += 1
                call(argument)
        finally:
            self.events += done
        if until < inf:
            self.now = until

    def fingerprint(self) -> str:
        """A short text that is the same for two runs that went the same way."""
        drawn = self.random.getrandbits(48)
        return f"{self._number:x}-{drawn:012x}"
