"""The highest load that a lab carries, by bisection on steps of 5 %."""

from __future__ import annotations

from collections.abc import Callable
from math import log

LEAST = 1000.0
"""Lowest load (packets/s) that is tried."""
MOST = 1_000_000.0
STEP = 1.05
"""Factor between two loads that are told apart."""
STRIDE = 8
"""Steps from a first guess to the next load that is tried."""


def load_of(level: int) -> float:
    """Return the load (packets/s) of a number of steps above the lowest one."""
    return LEAST * STEP**level


def level_of(load: float) -> int:
    """Return the steps of the nearest load."""
    return max(round(log(load / LEAST) / log(STEP)), 0)


def best_load(carries: Callable[[float], bool], guess: float, stride: int = STRIDE) -> float:
    """Return the highest load that is carried, to one step, beginning near `guess`.

    A load that is not carried at once has a second try: a machine has other things to do at times.

    Raises:
        AssertionError: not even the lowest load is carried.
    """

    def tried(level: int) -> bool:
        return carries(load_of(level)) or carries(load_of(level))

    most = level_of(MOST)
    low = high = min(level_of(guess), most)
    if tried(low):
        while high == low and low < most:
            high = min(low + stride, most)
            if tried(high):
                low = high
    else:
        while low == high:
            assert high > 0, f"not even {LEAST:,.0f} packets/s are carried"
            low = max(high - stride, 0)
            if not tried(low):
                high = low
    while high - low > 1:
        middle = (low + high) // 2
        if tried(middle):
            low = middle
        else:
            high = middle
    return load_of(low)
