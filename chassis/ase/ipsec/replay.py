"""Anti-replay window (RFC 4303 3.4.3 and appendix A2, RFC 4302 3.4.3).

The state of a window is a pair of numbers: `edge`, the highest authenticated sequence number, and `bitmap`, whose
bit i says that `edge - i` was received. Check a number before authentication and advance the window after it. Both
are arithmetic on the pair, so a batch keeps the pair in local variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache

MIN_WINDOW = 32
MAX_WINDOW = 1024
WINDOW_STEP = 32
DEFAULT_WINDOW = 64

_NUMBERS_END = 1 << 64


class Verdict(Enum):
    """Result for one number: the first three by the window, the last by the packet's ICV."""

    FRESH = "fresh"
    OUTSIDE_WINDOW = "outside window"
    REPLAYED = "replayed"
    FORGED = "forged"


def valid_window(window: int) -> bool:
    """Whether a window of `window` packets can be configured."""
    return MIN_WINDOW <= window <= MAX_WINDOW and window % WINDOW_STEP == 0


def check(edge: int, bitmap: int, window: int, number: int) -> Verdict:
    """Return the verdict on one number. Number 0 is never sent (RFC 4303 3.3.3), so it is outside the window."""
    behind = edge - number
    if behind < 0:
        return Verdict.FRESH
    if behind >= window or number == 0:
        return Verdict.OUTSIDE_WINDOW
    return Verdict.REPLAYED if bitmap >> behind & 1 else Verdict.FRESH


def infer_esn(edge: int, window: int, low: int) -> int:
    """Return the extended number with the low half `low` that lies in the window or above it, closer than 2^32.

    It covers both cases of RFC 4303 appendix A2.2. No number is above the last of 64 bits: there the result is the
    number with the same low half below the window.
    """
    base = max(edge - window + 1, 0)
    number = base + ((low - base) & 0xFFFFFFFF)
    return number if number < _NUMBERS_END else number - (1 << 32)


def advance(edge: int, bitmap: int, window: int, number: int) -> tuple[int, int]:
    """Return the state after an authenticated packet whose number `check` called fresh."""
    ahead = number - edge
    if ahead <= 0:
        return edge, bitmap | 1 << -ahead
    if ahead >= window:
        return number, 1
    return number, (bitmap << ahead | 1) & ((1 << window) - 1)


def accept_batch(
    edge: int, bitmap: int, window: int, numbers: Sequence[int], authentic: Callable[[int], bool]
) -> tuple[int, int, list[int], list[tuple[int, Verdict]]]:
    """Check, authenticate and advance for the packets of a batch, in order.

    `authentic(i)` says whether packet i is authentic; it is called only if the number is fresh. Returns the new
    edge and bitmap, the indices accepted, and (index, verdict) of the packets refused. A number that is accepted
    once in a batch is a replay the second time.
    """
    accepted: list[int] = []
    refused: list[tuple[int, Verdict]] = []
    accept = accepted.append
    mask = (1 << window) - 1
    for index, number in enumerate(numbers):
        ahead = number - edge
        if ahead <= 0:
            verdict = check(edge, bitmap, window, number)
            if verdict is not Verdict.FRESH:
                refused.append((index, verdict))
                continue
        if not authentic(index):
            refused.append((index, Verdict.FORGED))
            continue
        accept(index)
        if ahead == 1:  # nearly every packet: avoid a call
            edge = number
            bitmap = (bitmap << 1 | 1) & mask
        else:
            edge, bitmap = advance(edge, bitmap, window, number)
    return edge, bitmap, accepted, refused


def accept_run(edge: int, bitmap: int, window: int, numbers: Sequence[int]) -> tuple[int, int] | None:
    """Return the state after authentic packets whose numbers rise by one, all above the edge; None for others."""
    first, count = numbers[0], len(numbers)
    if first <= edge or numbers[-1] - first != count - 1 or numbers != list(range(first, first + count)):
        return None
    ones = (1 << min(count, window)) - 1
    ahead = first + count - 1 - edge
    return first + count - 1, ones if ahead >= window else (bitmap << ahead | ones) & ((1 << window) - 1)


def accept_rising(
    edge: int, bitmap: int, window: int, first: int, last: int, newest: Sequence[int]
) -> tuple[int, int]:
    """Return the state after authentic packets whose numbers rise from `first`, above the edge, to `last`.

    `newest` are the last numbers, `window` of them at least or all; empty: no number is missing.
    """
    if not newest:
        ones = (1 << min(last - first + 1, window)) - 1
    else:
        ones = 0
        for number in newest:
            ones |= 1 << last - number if last - number < window else 0
    ahead = last - edge
    return last, ones if ahead >= window else (bitmap << ahead | ones) & ((1 << window) - 1)


@lru_cache(maxsize=16)
def bits_behind(window: int) -> int:
    """Return the bits of a bitmap behind a window of this size. They are stored as received.

    The history behind the window is not kept. With a wider window, configured later, those numbers must not look
    fresh.
    """
    return ((1 << MAX_WINDOW) - 1) ^ ((1 << window) - 1)


def all_received(edge: int) -> tuple[int, int]:
    """Return the state that refuses every number up to `edge`, for an SA whose history is unknown."""
    return edge, (1 << MAX_WINDOW) - 1
