"""Counters of a process's hops: batches and packets by connection, wake-ups, queueing times of sampled batches.

They are in the card's mapped counters, all under `PREFIX`. `chassisctl perf` reads them. A sender writes its
monotonic time into the header of one batch in `SAMPLE_INTERVAL`; all processes of a lab share that clock, so that
the receiver knows how long the batch was queued: in both sockets' queues, in ZeroMQ's I/O threads, and until its
turn came.
"""

from __future__ import annotations

import time

from chassis.bus.counters import Counters

PREFIX = "perf "
COUNTS = (
    "batches sent",
    "packets sent",
    "wake-ups",
    "batches received",
    "batches handled",
    "packets received",
    "wait us",
    "waits below {number} us",
)
"""What is counted for a hop; each name is `perf HOP COUNT`."""
WAKEUPS = f"{PREFIX}wake-ups"
"""Name of the counter of a loop's turns in which something was ready."""
SAMPLE_INTERVAL = 64
"""Batches (count) of a connection of which one carries a stamp. The first one does."""
_SAMPLE_MASK = SAMPLE_INTERVAL - 1
MAX_SENDERS = 64
"""Senders (count) of a socket whose queueing times are counted apart, at most: more than a chassis has cards."""
MAX_WAIT = 60_000_000
"""Longest queueing time (us) that is taken for one; a stamp that says more, or is of the future, is ignored."""


def stamp_now() -> int:
    """Return the monotonic time (us)."""
    return time.monotonic_ns() // 1000


class SentBatches:
    """Counts what one connection took. `hop` names it: `fabric to asp 1/1`, `port 3/11`."""

    __slots__ = ("_batches", "_packets", "_values")

    def __init__(self, counters: Counters, hop: str) -> None:
        self._values = counters.values
        self._batches = counters.slot(f"{PREFIX}{hop} batches sent")
        self._packets = counters.slot(f"{PREFIX}{hop} packets sent")

    def stamp(self) -> int:
        """Return the stamp (us) of the next batch; 0 for a batch that is not sampled."""
        return 0 if self._values[self._batches] & _SAMPLE_MASK else stamp_now()

    def count(self, packets: int) -> None:
        """Count a batch that was sent."""
        self._values[self._batches] += 1
        self._values[self._packets] += packets


class ReceivedBatches:
    """Counts what was read from one socket. `hop` names it: `fabric`, `port 3/11`."""

    __slots__ = ("_batches", "_counters", "_hop", "_joined", "_packets", "_reads", "_values", "_waits")

    def __init__(self, counters: Counters, hop: str) -> None:
        self._counters, self._values, self._hop = counters, counters.values, hop
        self._waits: dict[str, _WaitCounters] = {}
        self._reads = counters.slot(f"{PREFIX}{hop} wake-ups")
        self._batches = counters.slot(f"{PREFIX}{hop} batches received")
        self._joined = counters.slot(f"{PREFIX}{hop} batches handled")
        self._packets = counters.slot(f"{PREFIX}{hop} packets received")

    def woken(self) -> None:
        """Count a wake-up of the process in which this socket was ready."""
        self._values[self._reads] += 1

    def count(self, batches: int, handled: int, packets: int) -> None:
        """Count batches that were read together, how many batches they are handled as, and their packets."""
        values = self._values
        values[self._batches] += batches
        values[self._joined] += handled
        values[self._packets] += packets

    def waited(self, stamp: int, sender: str = "") -> None:
        """Count the queueing time of a sampled batch, apart for each sender that has a name."""
        wait = stamp_now() - stamp
        if not 0 <= wait <= MAX_WAIT:
            return
        waits = self._waits.get(sender)
        if waits is None:
            if len(self._waits) >= MAX_SENDERS:
                sender = ""
            hop = f"{self._hop} from {sender}" if sender else self._hop
            waits = self._waits.setdefault(sender, _WaitCounters(self._counters, hop))
        waits.count(wait)


class _WaitCounters:
    """Counts queueing times (us) of one sender: their sum, and how many are of each order."""

    __slots__ = ("_counters", "_hop", "_orders", "_total")

    def __init__(self, counters: Counters, hop: str) -> None:
        self._counters, self._hop = counters, hop
        self._total = counters.slot(f"{PREFIX}{hop} wait us")
        self._orders = [0] * (MAX_WAIT.bit_length() + 1)
        """Slots; an order takes one when it is first seen."""

    def count(self, wait: int) -> None:
        values, order = self._counters.values, wait.bit_length()
        slot = self._orders[order]
        if not slot:
            slot = self._orders[order] = self._counters.slot(wait_name(self._hop, wait))
        values[self._total] += wait
        values[slot] += 1


def wait_name(hop: str, wait: int) -> str:
    """Return the name of the counter of queueing times (us) of this order: of less than the next power of 2."""
    return f"{PREFIX}{hop} waits below {1 << wait.bit_length()} us"
