"""Priority queues before the SAs of an ASP that has a rate (guide 8.5; S-040, S-072 of docs/decisions.md).

An SPD entry of a tunnel has one queue, or four with strict priority if its tunnel names a policy with `num-queues
4`. Packets wait there *before* they have a sequence number. Numbers therefore leave in order, whichever packet
overtakes another, and the peer's replay window sees no difference. Queued packets belong to the entry, not to an
SA: they go with the successor after a rekey, and an entry with several SAs (a peer that narrows) selects the SA
only when a packet is dequeued.

Entries are served by deficit round robin, measured in the unit of the rate, so urgent packets of one tunnel do not
delay another tunnel. A full queue drops the newest packets. The octets of all queues together are limited as well;
lower classes have a lower limit, so they cannot fill the buffer before a higher class.

An ASP without a rate does not queue: packets pass by without a check.
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
from chassis.bus.coalesce import coalesce
from chassis.bus.priority import classes_of
from chassis.model.qos import CLASS_COUNT
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH
from chassis.net.rate import Rate

MAX_QUEUE_PACKETS: Final = 512
"""Packets of one queue."""

MAX_BUFFER_OCTETS: Final = 32 << 20
"""Octets in all queues of an ASP."""

QUEUE_OCTET_LIMITS: Final = (
    MAX_BUFFER_OCTETS,
    MAX_BUFFER_OCTETS * 9 // 10,
    MAX_BUFFER_OCTETS * 8 // 10,
    MAX_BUFFER_OCTETS * 7 // 10,
    MAX_BUFFER_OCTETS * 7 // 10,
)
"""Octets in all queues above which a queue accepts no packet, by queue; the last is that of single queues."""

SINGLE_QUEUE: Final = CLASS_COUNT
"""Index of the queue of an entry without priorities, after its four priority queues."""

RATE_BURST_INTERVAL: Final = 0.01
"""Time (s) of the rate that may be caught up by a process whose timer was late."""

SERVICE_INTERVAL: Final = 0.001
"""Time (s) of the rate that is served at once if packets wait: the resolution of the process's timers."""

QUANTUM_PACKETS: Final = 32
QUANTUM_BITS: Final = 65536 * 8
"""What an entry may use of the rate before the next entry: more than the largest packet (in packets, in bits)."""


class QueueStatistics:
    """Statistics of a queue: packets, drops, depth, and how long packets waited (us)."""

    __slots__ = ("_waits", "depth", "dropped", "longest", "passed", "peak", "total")

    def __init__(self) -> None:
        self.depth = 0
        self.peak = 0
        self.passed = 0
        self.dropped = 0
        self.total = 0
        """Time (us) that all packets waited, together."""
        self.longest = 0
        self._waits: Counter[int] = Counter()

    def count_enqueued(self, packets: int) -> None:
        """Count packets that begin to wait."""
        self.depth += packets
        self.peak = max(self.peak, self.depth)

    def count_dequeued(self, packets: int, waited: int) -> None:
        """Count packets that waited `waited` us."""
        self.depth -= packets
        self.passed += packets
        self.total += waited * packets
        self.longest = max(self.longest, waited)
        shift = max(waited.bit_length() - 4, 0)
        self._waits[(shift << 3) + (waited >> shift)] += packets

    def quantile(self, part: float) -> int:
        """Return the time (us) that `part` (0 to 1) of the packets waited at most, exact to an eighth."""
        wanted = ceil(self.passed * part)
        for bucket, packets in sorted(self._waits.items()):
            wanted -= packets
            if wanted <= 0:
                shift = max((bucket >> 3) - 1, 0)
                return min((bucket - (shift << 3) + 1 << shift) - 1, self.longest)
        return 0

    def to_json(self) -> dict[str, Any]:
        """Return the statistics with times in milliseconds."""
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
    """Packets that were enqueued together and still wait: those from `first` on, which begin at octet `at`.
    `nesting` is the number of tunnels that they have passed on this ASP."""

    batch: Batch
    nesting: int
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
    """The queues of an SPD entry. `deficit` is what is left of its turn (packets or bits)."""

    tunnel: int
    entry: int
    queues: tuple[_Queue, ...] = field(default_factory=lambda: tuple([_Queue() for _ in range(CLASS_COUNT + 1)]))
    waiting: int = 0
    deficit: float = 0.0


@dataclass(frozen=True, slots=True)
class DequeuedBatch:
    """Packets of one queue to encapsulate now; `nesting` as they had it when they were enqueued."""

    batch: Batch
    nesting: int


class Queues:
    """All queues of one ASP, and its rate."""

    def __init__(self, sadb: Sadb, counters: AspCounters) -> None:
        self._sadb = sadb
        self._counters = counters
        self.rate: Rate | None = None
        self.waiting = 0
        self.due = inf
        """Time at which `dequeue` may have packets; inf if none wait."""
        self._octets = 0
        self._by_entry_key: dict[tuple[int, int], _EntryQueues] = {}
        self._active: deque[_EntryQueues] = deque()
        """Entries with queued packets, in the order of their turns."""
        self._tokens = 0.0
        self._refilled_at = -inf
        self._statistics = tuple([QueueStatistics() for _ in range(CLASS_COUNT + 1)])

    @property
    def idle(self) -> bool:
        """Whether packets may pass without a call of `enqueue`."""
        return self.rate is None and not self._active

    def set_rate(self, given: object) -> None:
        """Set the rate, in the form of a lab file; None removes it, and queued packets leave at once.

        Raises:
            ValueError: `given` is not a rate.
        """
        rate = Rate.parse(given) if given is not None else None
        if rate == self.rate:
            return
        self.rate = rate
        self._tokens, self._refilled_at = 0.0, -inf
        for owner in self._active:
            owner.deficit = 0.0
        if self._active:
            self.due = -inf

    def enqueue(self, batch: Batch, priorities: bool, nesting: int, now: float) -> list[Batch]:
        """Queue inner packets of a tunnel. Return those without an SA: they will be dropped, and IKE must learn of
        them at once."""
        others: list[Batch] = []
        for entry, part in self._by_entry(batch):
            if entry == NO_ENTRY or self._sadb.current_outbound(batch.tunnel, entry) is None:
                others.append(part)
                continue
            owner = self._by_entry_key.get((batch.tunnel, entry))
            if owner is None:
                owner = self._by_entry_key[batch.tunnel, entry] = _EntryQueues(batch.tunnel, entry)
            if not priorities:
                self._enqueue(owner, SINGLE_QUEUE, part, nesting, now)
                continue
            for number, one in _split(part, classes_of(part.body, part.lengths, part.descriptors)):
                self._enqueue(owner, number, one, nesting, now)
        return others

    def dequeue(self, now: float) -> DequeuedBatch | None:
        """Return the next packets, as many as the rate allows by now; None if it allows none, or none wait."""
        if not self._active:
            self.due = inf
            return None
        rate = self.rate
        if rate is not None:
            self._refill(rate, now)
            if self._tokens <= 0:
                self.due = self._refilled_at + SERVICE_INTERVAL - self._tokens / rate.amount
                return None
        owner = self._active[0]
        if owner.deficit <= 0:
            owner.deficit += QUANTUM_PACKETS if rate is not None and rate.packets else QUANTUM_BITS
        number = next(number for number, queue in enumerate(owner.queues) if queue.batches)
        served = self._dequeue(owner, number, now)
        if not owner.waiting:
            owner.deficit = 0.0
            self._active.popleft()
        elif owner.deficit <= 0:
            self._active.rotate(-1)
        return served

    def flush(self, cause: AnyCause) -> int:
        """Drop all queued packets for this cause; return how many there were, which the caller counts
        for the ASP."""
        count = self.waiting
        for owner in self._active:
            for number, queue in enumerate(owner.queues):
                if queue.batches:
                    self._statistics[number].depth -= queue.statistics.depth
                    queue.statistics.depth = 0
                    queue.batches.clear()
                    self._counters.set_queue(number, self._statistics[number].depth)
            self._counters.count_tunnel_drop(owner.tunnel, ENCAPSULATED, cause, owner.waiting)
            owner.waiting, owner.deficit = 0, 0.0
        self._active.clear()
        self._octets = self.waiting = 0
        self.due = inf
        self._counters.set_waiting_queued(0)
        return count

    def remove_tunnel(self, tunnel: int) -> None:
        """Remove the statistics of a tunnel that is no longer here, unless packets of it wait."""
        for key in [key for key, owner in self._by_entry_key.items() if key[0] == tunnel and not owner.waiting]:
            del self._by_entry_key[key]

    def remove_stale_entries(self) -> None:
        """Remove the statistics of entries that no longer exist, unless packets of them wait."""
        policies = self._sadb.spd
        for key in [
            key
            for key, owner in self._by_entry_key.items()
            if not owner.waiting and not policies.may_have_entry(*key)
        ]:
            del self._by_entry_key[key]

    def measured_tunnels(self) -> set[int]:
        """Return the tunnels with statistics."""
        return {tunnel for tunnel, _ in self._by_entry_key}

    def statistics(self, tunnel: int | None = None) -> dict[str, Any]:
        """Return the rate, the totals of each queue, and the queues of each entry (of one tunnel if given)."""
        return {
            "rate": str(self.rate) if self.rate else "",
            "depth": self.waiting,
            "queues": _report(self._statistics),
            "sas": [
                {
                    "tunnel": number,
                    **describe_entry(entry),
                    "queues": _report([queue.statistics for queue in owner.queues]),
                }
                for (number, entry), owner in sorted(self._by_entry_key.items())
                if tunnel in (None, number)
            ],
        }

    # internals

    def _by_entry(self, batch: Batch) -> list[tuple[int, Batch]]:
        """Return the packets of a batch by the number of the SPD entry that they match."""
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

    def _enqueue(self, owner: _EntryQueues, number: int, batch: Batch, nesting: int, now: float) -> None:
        """Append packets to one queue, as far as it has room; drop the others."""
        queue = owner.queues[number]
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
            self._counters.count_queue_drop(QUEUE_CAUSES[number], lost, owner.tunnel)
            count = fitting
            if not count:
                return
        # The descriptors have selected the queue and are not needed any longer.
        batch.descriptors = b""
        queue.batches.append(_QueuedBatch(batch, nesting, now))
        queue.statistics.count_enqueued(count)
        self._statistics[number].count_enqueued(count)
        if not owner.waiting:
            self._active.append(owner)
        owner.waiting += count
        self.waiting += count
        self._octets += len(batch.body)
        self._counters.set_waiting_queued(self.waiting)
        self._counters.set_queue(number, self._statistics[number].depth)

    def _refill(self, rate: Rate, now: float) -> None:
        if now > self._refilled_at:
            earned = min(now - self._refilled_at, RATE_BURST_INTERVAL) * rate.amount
            self._tokens = min(self._tokens + earned, RATE_BURST_INTERVAL * rate.amount)
            self._refilled_at = now

    def _dequeue(self, owner: _EntryQueues, number: int, now: float) -> DequeuedBatch:
        """Return packets of one queue: as many as the entry's deficit and the rate allow, at least one."""
        queue, rate = owner.queues[number], self.rate
        left = min(owner.deficit, self._tokens) if rate is not None else owner.deficit
        price = rate or Rate(inf)
        served: Batch | None = None
        nesting = queue.batches[0].nesting
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
            elif queued.nesting != nesting or not coalesce(served, part):
                break
            queued.first += count
            queued.at += size
            if queued.first == len(batch.lengths):
                queue.batches.popleft()
            left -= spent
            owner.deficit -= spent
            self._tokens -= spent if rate is not None else 0
            self._octets -= size
            self._count_dequeued(owner, number, count, round((now - queued.arrived) * 1e6))
        assert served is not None
        return DequeuedBatch(served, nesting)

    def _count_dequeued(self, owner: _EntryQueues, number: int, count: int, waited: int) -> None:
        waited = max(waited, 0)
        statistics = self._statistics[number]
        owner.queues[number].statistics.count_dequeued(count, waited)
        statistics.count_dequeued(count, waited)
        owner.waiting -= count
        self.waiting -= count
        self._counters.set_waiting_queued(self.waiting)
        self._counters.set_queue(number, statistics.depth, count, waited * count, statistics.longest)


def _split(batch: Batch, keys: Sequence[int]) -> list[tuple[int, Batch]]:
    """Return the packets of a batch by their keys, in the order of the keys. Packets of one key keep
    their order."""
    different = set(keys)
    if len(different) == 1:
        return [(keys[0], batch)]
    return [(key, selected(batch, [key == one for one in keys])) for key in sorted(different)]


def _part(batch: Batch, first: int, count: int, at: int, size: int) -> Batch:
    """Return `count` packets of a batch from `first` on, in the `size` octets that begin at octet `at`."""
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
    """Return the statistics by the name of the queue, without queues that were never used."""
    named = zip(QUEUE_NAMES, statistics, strict=True)
    return {name: statistics.to_json() for name, statistics in named if statistics.peak or statistics.dropped}
