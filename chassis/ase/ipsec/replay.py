"""Anti-replay window (RFC 4303 3.4.3 and appendix A2, RFC 4302 3.4.3).

The state of a window is a pair of numbers: `edge`, the highest sequence number that was
authenticated, and `bitmap`, whose bit i says that `edge - i` was received. Checking comes before
authentication, advancing after it; both are arithmetic on the pair, so a batch keeps them in locals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

MIN_WINDOW = 32
MAX_WINDOW = 1024
WINDOW_STEP = 32
DEFAULT_WINDOW = 64

_NUMBERS_END = 1 << 64


class Verdict(Enum):
    """What becomes of a number: the first three by the window, the last by its packet's ICV."""

    FRESH = "fresh"
    OUTSIDE_WINDOW = "late"
    REPLAYED = "duplicate"
    FORGED = "forged"


def valid_window(window: int) -> bool:
    """Whether a window of so many packets can be configured."""
    return MIN_WINDOW <= window <= MAX_WINDOW and window % WINDOW_STEP == 0


def check(edge: int, bitmap: int, window: int, number: int) -> Verdict:
    """Verdict on one number. Number 0 is never sent (RFC 4303 3.3.3), so it is always late."""
    behind = edge - number
    if behind < 0:
        return Verdict.FRESH
    if behind >= window or number == 0:
        return Verdict.OUTSIDE_WINDOW
    return Verdict.REPLAYED if bitmap >> behind & 1 else Verdict.FRESH


def infer_esn(edge: int, window: int, low: int) -> int:
    """The extended number whose low half was received: the one that lies in the window or above it, closer
    than 2^32 (RFC 4303 appendix A2.2, both of its cases in one). There is none above the last of 64 bits: what
    would be has the same low half below the window, and is late."""
    base = max(edge - window + 1, 0)
    number = base + ((low - base) & 0xFFFFFFFF)
    return number if number < _NUMBERS_END else number - (1 << 32)


def advance(edge: int, bitmap: int, window: int, number: int) -> tuple[int, int]:
    """The state after an authenticated packet with a number that `check` called fresh."""
    ahead = number - edge
    if ahead <= 0:
        return edge, bitmap | 1 << -ahead
    if ahead >= window:
        return number, 1
    return number, (bitmap << ahead | 1) & ((1 << window) - 1)


def accept_batch(
    edge: int, bitmap: int, window: int, numbers: Sequence[int], authentic: Callable[[int], bool]
) -> tuple[int, int, list[int], list[tuple[int, Verdict]]]:
    """Take the packets of a batch in order: check, authenticate, advance.

    `authentic(i)` says whether packet i is; it is asked only where the number is fresh. Returns
    the new edge and bitmap, the indices accepted, and (index, verdict) of those refused. A number
    that comes twice in the batch is a duplicate the second time if it was accepted the first time.
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
        if ahead == 1:  # nearly every packet: worth more than a call
            edge = number
            bitmap = (bitmap << 1 | 1) & mask
        else:
            edge, bitmap = advance(edge, bitmap, window, number)
    return edge, bitmap, accepted, refused


def bits_behind(window: int) -> int:
    """The bits of a bitmap that lie behind a window. They are stored as received: the history there is not kept,
    and a wider window, configured later, must not take those numbers for ones that never came."""
    return ((1 << MAX_WINDOW) - 1) ^ ((1 << window) - 1)


def all_received(edge: int) -> tuple[int, int]:
    """A state that refuses every number up to `edge`: for an SA whose history is unknown."""
    return edge, (1 << MAX_WINDOW) - 1
