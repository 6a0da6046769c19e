"""Priority queues before the SAs of an ASP that has a rate (guide 8.5, table 3; S-040, S-072).

What sends for a policy line of a tunnel, its outbound SA, has one queue, or four with strict priority where its
tunnel names a policy with `num-queues 4`. Packets wait there *before* they have a sequence number: whatever
overtakes whatever, numbers leave in order and a peer's window sees no difference. Where a successor takes over the
line, what waits goes with the successor. A line whose peer narrows has several SAs side by side; they share the
queues, for which of them a packet goes by is known only when its turn comes: what waits outlives any SA.

Among SAs turns are taken, by what they cost of the rate: what one tunnel marks as urgent is not at the expense of
another. A full queue drops what comes last. The octets of all queues together are bounded too, lower classes
having less of the room, so that they never fill it before a higher one.

An ASP without a rate holds nothing back: packets go by here without a look.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any, Final

from chassis.ase.counters import ENCAPSULATED, QUEUE_CAUSES, QUEUE_NAMES, AnyCause, AspCounters
from chassis.ase.entry_numbers import describe_entry
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import NO_ENTRY
from chassis.bus.backlog import selected
from chassis.bus.batch import Batch
from chassis.bus.coalesce import join
from chassis.bus.priority import CLASSES, classes_of
from chassis.fwd.rate import Rate
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

MAX_QUEUE_PACKETS: Final = 512
"""Most packets of one queue."""

MAX_BUFFER_OCTETS: Final = 32 << 20
"""Most octets in the queues of an ASP."""

QUEUE_OCTET_LIMITS: Final = (
    MAX_BUFFER_OCTETS,
    MAX_BUFFER_OCTETS * 9 // 10,
    MAX_BUFFER_OCTETS * 8 // 10,
    MAX_BUFFER_OCTETS * 7 // 10,
    MAX_BUFFER_OCTETS * 7 // 10,
)
"""Octets in all queues up to which a queue takes packets, by queue; the last is that of SAs with one."""

SINGLE_QUEUE: Final = CLASSES
"""The queue of an SA that has but one, beside its four, which an SA has at other times."""

RATE_BURST_INTERVAL: Final = 0.01
"""Seconds of the rate that an ASP may be behind: what a process that was late for its timer can make up for."""

SERVICE_INTERVAL: Final = 0.001
"""Seconds of the rate that are served at once where packets wait: the grain of the process's timers."""

QUANTUM_PACKETS: Final = 32
QUANTUM_BITS: Final = 65536 * 8
"""What an SA may use of the rate before it is another's turn: more than any packet takes."""


class QueueStatistics:
    """What went through a queue: packets, drops, how deep it was, and how long packets waited."""

    __slots__ = ("_waits", "depth", "dropped", "longest", "passed", "peak", "total")

    def __init__(self) -> None:
        self.depth = 0
        self.peak = 0
        self.passed = 0
        self.dropped = 0
        self.total = 0
        """Microseconds that the packets waited, together."""
        self.longest = 0
        self._waits: Counter[int] = Counter()

    def count_enqueued(self, packets: int) -> None:
        self.depth += packets
        self.peak = max(self.peak, self.depth)

    def count_dequeued(self, packets: int, waited: int) -> None:
        """They leave after so many microseconds."""
        self.depth -= packets
        self.passed += packets
        self.total += waited * packets
        self.longest = max(self.longest, waited)
        shift = max(waited.bit_length() - 4, 0)
        self._waits[(shift << 3) + (waited >> shift)] += packets

    def quantile(self, part: float) -> int:
        """Microseconds that this part of the packets waited at most; exact to an eighth."""
        wanted = ceil(self.passed * part)
        for bucket, packets in sorted(self._waits.items()):
            wanted -= packets
            if wanted <= 0:
                shift = max((bucket >> 3) - 1, 0)
                return min((bucket - (shift << 3) + 1 << shift) - 1, self.longest)
        return 0

    def to_json(self) -> dict[str, Any]:
        """Times in milliseconds."""
        return {
            "depth": self.depth,
            "peak_depth": self.peak,
            "dequeued": self.passed,
            "dropped": self.dropped,
            "latency": {
                "avg_ms": round(self.total / max(self.passed, 1) / 1000, 3),
                "p50_ms": self.quantile(0.5) / 1000,
                "p99_ms": self.quantile(0.99) / 1000,
                "max_ms": self.longest / 1000,
            },
        }


@dataclass(slots=True, eq=False)
class _QueuedBatch:
    """Packets that came together, as far as they still wait: those from `first` on, which begin at `at`."""

    batch: Batch
    depth: int
    arrived: float
    first: int = 0
    at: int = 0


class _Queue:
    __slots__ = ("batches", "statistics")

    def __init__(self) -> None:
        self.batches: deque[_QueuedBatch] = deque()
        self.statistics = QueueStatistics()


@dataclass(slots=True, eq=False)
class _EntryQueues:
    """The queues of the SA that sends for a policy line. `deficit` is what is left of its turn."""

    tunnel: int
    entry: int
    queues: tuple[_Queue, ...] = field(default_factory=lambda: tuple([_Queue() for _ in range(CLASSES + 1)]))
    waiting: int = 0
    deficit: float = 0.0


@dataclass(frozen=True, slots=True)
class DequeuedBatch:
    """Packets whose turn it is, all of one queue; `depth` as they came with it."""

    batch: Batch
    depth: int


class Queues:
    """All queues of one ASP, and its rate."""

    def __init__(self, sadb: Sadb, counters: AspCounters) -> None:
        self._sadb = sadb
        self._counters = counters
        self.rate: Rate | None = None
        self.waiting = 0
        self.due = inf
        """When there will be something to serve."""
        self._octets = 0
        self._by_entry_key: dict[tuple[int, int], _EntryQueues] = {}
        self._active: deque[_EntryQueues] = deque()
        """SAs with packets that wait, in the order of their turns."""
        self._tokens = 0.0
        self._refilled_at = -inf
        self._statistics = tuple([QueueStatistics() for _ in range(CLASSES + 1)])

    @property
    def idle(self) -> bool:
        """Whether packets may go by as if nothing were here."""
        return self.rate is None and not self._active

    def set_rate(self, given: object) -> None:
        """Go by this rate from now on, as a lab writes it; without one what waits goes at once."""
        rate = Rate.parse(given) if given is not None else None
        if rate == self.rate:
            return
        self.rate = rate
        self._tokens, self._refilled_at = 0.0, -inf
        for sa in self._active:
            sa.deficit = 0.0
        if self._active:
            self.due = -inf

    def enqueue(self, batch: Batch, priorities: bool, depth: int, now: float) -> list[Batch]:
        """Let clear packets of a tunnel wait for their turn. Those for which there is no SA come back at once:
        nothing will come of them, and whoever makes SAs is to hear of them without delay."""
        others: list[Batch] = []
        for entry, part in self._by_entry(batch):
            if entry == NO_ENTRY or self._sadb.current_outbound(batch.tunnel, entry) is None:
                others.append(part)
                continue
            sa = self._by_entry_key.get((batch.tunnel, entry))
            if sa is None:
                sa = self._by_entry_key[batch.tunnel, entry] = _EntryQueues(batch.tunnel, entry)
            if not priorities:
                self._enqueue(sa, SINGLE_QUEUE, part, depth, now)
                continue
            for number, one in _split(part, classes_of(part.body, part.lengths, part.descriptors)):
                self._enqueue(sa, number, one, depth, now)
        return others

    def dequeue(self, now: float) -> DequeuedBatch | None:
        """The packets that are next, as many as the rate allows by now; None where it allows none or none wait."""
        if not self._active:
            self.due = inf
            return None
        rate = self.rate
        if rate is not None:
            self._refill(rate, now)
            if self._tokens <= 0:
                self.due = self._refilled_at + SERVICE_INTERVAL - self._tokens / rate.amount
                return None
        sa = self._active[0]
        if sa.deficit <= 0:
            sa.deficit += QUANTUM_PACKETS if rate is not None and rate.packets else QUANTUM_BITS
        number = next(number for number, queue in enumerate(sa.queues) if queue.batches)
        served = self._dequeue(sa, number, now)
        if not sa.waiting:
            sa.deficit = 0.0
            self._active.popleft()
        elif sa.deficit <= 0:
            self._active.rotate(-1)
        return served

    def flush(self, cause: AnyCause) -> int:
        """Forget all packets that wait, for this cause; how many there were."""
        count = self.waiting
        for sa in self._active:
            for number, queue in enumerate(sa.queues):
                if queue.batches:
                    self._statistics[number].depth -= queue.statistics.depth
                    queue.statistics.depth = 0
                    queue.batches.clear()
                    self._counters.set_queue(number, self._statistics[number].depth)
            self._counters.count_tunnel_drop(sa.tunnel, ENCAPSULATED, cause, sa.waiting)
            sa.waiting, sa.deficit = 0, 0.0
        self._active.clear()
        self._octets = self.waiting = 0
        self.due = inf
        self._counters.set_waiting_queued(0)
        return count

    def remove_tunnel(self, tunnel: int) -> None:
        """The tunnel is no more here: what was measured of it goes once nothing of it waits."""
        for key in [key for key, sa in self._by_entry_key.items() if key[0] == tunnel and not sa.waiting]:
            del self._by_entry_key[key]

    def remove_stale_entries(self) -> None:
        """As `forget`, for lines and rules that their tunnels have no more."""
        policies = self._sadb.spd
        for key in [
            key for key, sa in self._by_entry_key.items() if not sa.waiting and not policies.may_have_entry(*key)
        ]:
            del self._by_entry_key[key]

    def measured_tunnels(self) -> set[int]:
        """Tunnels of which something was measured."""
        return {tunnel for tunnel, _ in self._by_entry_key}

    def statistics(self, tunnel: int | None = None) -> dict[str, Any]:
        """The rate, what all SAs have of each queue, and each SA's own; of one tunnel only where it is given."""
        return {
            "rate": str(self.rate) if self.rate else "",
            "depth": self.waiting,
            "queues": _report(self._statistics),
            "sas": [
                {
                    "tunnel": number,
                    **describe_entry(entry),
                    "queues": _report([queue.statistics for queue in sa.queues]),
                }
                for (number, entry), sa in sorted(self._by_entry_key.items())
                if tunnel in (None, number)
            ],
        }

    # inside

    def _by_entry(self, batch: Batch) -> list[tuple[int, Batch]]:
        """The batch by the policy lines that its packets match."""
        classifier = self._sadb.spd.classifier(batch.tunnel)
        if classifier is None:
            return [(NO_ENTRY, batch)]
        if classifier.constant is not None:
            return [(classifier.constant, batch)]
        view = memoryview(batch.body)
        entries: list[int] = []
        at = 0
        for length in batch.lengths:
            start, at = at + HEADROOM, at + length
            entries.append(classifier.value(view, start, at) if at - start >= IPV4_HEADER_LENGTH else NO_ENTRY)
        return _split(batch, entries)

    def _enqueue(self, sa: _EntryQueues, number: int, batch: Batch, depth: int, now: float) -> None:
        """Packets into one of an SA's queues, as far as it has room for them."""
        queue = sa.queues[number]
        count = room = len(batch.lengths)
        room = min(room, MAX_QUEUE_PACKETS - queue.statistics.depth)
        octets = QUEUE_OCTET_LIMITS[number] - self._octets
        if len(batch.body) > octets or room < count:
            fitting = size = 0
            for length in batch.lengths[:room]:
                if size + length > octets:
                    break
                size += length
                fitting += 1
            batch = _part(batch, 0, fitting, 0, size)
            lost = count - fitting
            queue.statistics.dropped += lost
            self._statistics[number].dropped += lost
            self._counters.count_queue_drop(QUEUE_CAUSES[number], lost, sa.tunnel)
            count = fitting
            if not count:
                return
        # What they are for is decided.
        batch.descriptors = b""
        queue.batches.append(_QueuedBatch(batch, depth, now))
        queue.statistics.count_enqueued(count)
        self._statistics[number].count_enqueued(count)
        if not sa.waiting:
            self._active.append(sa)
        sa.waiting += count
        self.waiting += count
        self._octets += len(batch.body)
        self._counters.set_waiting_queued(self.waiting)
        self._counters.set_queue(number, self._statistics[number].depth)

    def _refill(self, rate: Rate, now: float) -> None:
        if now > self._refilled_at:
            earned = min(now - self._refilled_at, RATE_BURST_INTERVAL) * rate.amount
            self._tokens = min(self._tokens + earned, RATE_BURST_INTERVAL * rate.amount)
            self._refilled_at = now

    def _dequeue(self, sa: _EntryQueues, number: int, now: float) -> DequeuedBatch:
        """Packets of one queue, up to what is left of the SA's turn and of the rate; at least one."""
        queue, rate = sa.queues[number], self.rate
        left = min(sa.deficit, self._tokens) if rate is not None else sa.deficit
        price = rate or Rate(inf)
        served: Batch | None = None
        depth = queue.batches[0].depth
        while queue.batches and left > 0:
            queued = queue.batches[0]
            batch = queued.batch
            count = size = 0
            spent = 0
            for length in batch.lengths[queued.first :]:
                spent += price.cost(length)
                size += length
                count += 1
                if spent >= left:
                    break
            part = _part(batch, queued.first, count, queued.at, size)
            if served is None:
                served = part
            elif queued.depth != depth or not join(served, part):
                break
            queued.first += count
            queued.at += size
            if queued.first == len(batch.lengths):
                queue.batches.popleft()
            left -= spent
            sa.deficit -= spent
            self._tokens -= spent if rate is not None else 0
            self._octets -= size
            self._count_dequeued(sa, number, count, round((now - queued.arrived) * 1e6))
        assert served is not None
        return DequeuedBatch(served, depth)

    def _count_dequeued(self, sa: _EntryQueues, number: int, count: int, waited: int) -> None:
        waited = max(waited, 0)
        statistics = self._statistics[number]
        sa.queues[number].statistics.count_dequeued(count, waited)
        statistics.count_dequeued(count, waited)
        sa.waiting -= count
        self.waiting -= count
        self._counters.set_waiting_queued(self.waiting)
        self._counters.set_queue(number, statistics.depth, count, waited * count, statistics.longest)


def _split(batch: Batch, keys: Sequence[int]) -> list[tuple[int, Batch]]:
    """The packets of a batch by their keys, in the order of the keys; those of one key in their own order."""
    different = set(keys)
    if len(different) == 1:
        return [(keys[0], batch)]
    return [(key, selected(batch, [key == one for one in keys])) for key in sorted(different)]


def _part(batch: Batch, first: int, count: int, at: int, size: int) -> Batch:
    """`count` packets of a batch from `first` on, in the `size` octets that begin at `at`."""
    if count == len(batch.lengths):
        return batch
    return replace(
        batch,
        body=memoryview(batch.body)[at : at + size],
        lengths=batch.lengths[first : first + count],
        descriptors=b"",
        marks=(),
    )


def _report(statistics: Sequence[QueueStatistics]) -> dict[str, dict[str, Any]]:
    """By the name of the queue, those that were ever used."""
    named = zip(QUEUE_NAMES, statistics, strict=True)
    return {name: statistics.to_json() for name, statistics in named if statistics.peak or statistics.dropped}
