"""The receiving end of a flow: checks every packet against what must have been sent, and counts."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chassis.bus.batch import MAX_PACKETS, Batch
from chassis.net.columns import Numbers
from chassis.net.ethernet import HEADROOM
from chassis.tester.flow import MAX_RATE, MIN_COLUMN_PACKETS, PAYLOAD, SEQUENCE_TIME, Flow, PacketTemplate
from chassis.tester.latency import LatencyHistogram
from chassis.tester.sequence_tracker import SequenceTracker

MIN_PAUSE_NS = 2_000_000
"""Shortest time (ns) without arrivals that is remembered with its begin and end."""

MAX_PAUSES = 20_000

SEND_INTERVAL_NS = 1_000_000
"""Interval (ns) between batches of a source; such a pause is not counted."""

MAX_REPORTED_LOSS_RUNS = 500
"""Runs of missing packets in a report, the latest ones."""

_PAYLOAD_REST = Struct("!IQQ")
_FIRST = Struct("!6x6s10xB31xIQQ")
"""Of a frame: source MAC address, TTL, numbering, sequence number and time of sending."""
_NUMBERS_AT = _FIRST.size - SEQUENCE_TIME.size

MAX_KEPT_TABLES = 8
"""Tables of frames (count), of at most MAX_PACKETS, that are kept to compare with."""


def _frames(template: PacketTemplate, row: bytes, order: int) -> tuple[bytearray, NDArray[np.void]]:
    """Return 2**order frames made of `row`, and their table. Only what the table has differs from `row`."""
    frames = bytearray(row) * (1 << order)
    return frames, template.table(frames)


_kept_frames = lru_cache(MAX_KEPT_TABLES)(_frames)


class Sink:
    """What arrived of one flow. Only packets of the newest process of the source count: each process has numbers
    of its own."""

    def __init__(self, flow: Flow, mac: bytes) -> None:
        self.flow = flow
        self.template = PacketTemplate(flow)
        self.tracker = SequenceTracker()
        self.latency = LatencyHistogram()
        self.corrupted = 0
        self.stale = 0
        """Packets of an earlier process of the source."""
        self.longest = 0
        self.longest_at = 0
        self.boot = -1
        self._numbering = -1
        self._pauses: deque[tuple[int, int]] = deque(maxlen=MAX_PAUSES)
        self._interval = SEND_INTERVAL_NS if flow.rate == MAX_RATE else max(int(1e9 / flow.rate), SEND_INTERVAL_NS)
        self._mac = mac
        self._frame_size = flow.size + HEADROOM

    def receive_batch(self, batch: Batch, now_ns: int) -> bool:
        """Count a batch if every packet is whole and intact, of this flow, and has one numbering. Otherwise return
        False; nothing is counted then.

        The packets must be equal to what must have been sent, made anew with their sequence numbers and times.
        """
        lengths, body = batch.lengths, batch.body
        count, size = len(lengths), self._frame_size
        if lengths[0] != size or (count > 1 and lengths != self.template.lengths(count)):
            return False
        source_mac, ttl, run, first, sent = _FIRST.unpack_from(body)
        row = self.template.row(self._mac, source_mac, ttl, run)
        if count < MIN_COLUMN_PACKETS:
            numbers = [SEQUENCE_TIME.unpack_from(body, at) for at in range(_NUMBERS_AT, count * size, size)]
            if self.template.numbered(row, ttl, run, numbers, count) != body:
                return False
            if self._is_current(run, count):
                self._count_numbers(numbers, run, now_ns)
            return True
        last, last_sent = SEQUENCE_TIME.unpack_from(body, (count - 1) * size + _NUMBERS_AT)
        frames = _kept_frames if count <= MAX_PACKETS else _frames
        expected, table = frames(self.template, row, (count - 1).bit_length())
        table = table[:count]
        if last - first == count - 1 and sent == last_sent and last < 1 << 63:
            self.template.number_run(table, ttl, run, first, sent)
            if expected.startswith(body):
                if self._is_current(run, count):
                    self._count_run(first, count, sent, sent, run, now_ns)
                    self.latency.add(now_ns - sent, count)
                return True
        arrived = self.template.table(body)
        sequences, sents = arrived["sequence"].astype(np.int64), arrived["sent"].astype(np.int64)
        if sequences.min() < 0 or sents.min() < 0:
            return False
        self.template.number(table, ttl, run, sequences, sents)
        if not expected.startswith(body):
            return False
        if self._is_current(run, count):
            self._count_columns(sequences, sents, run, now_ns)
        return True

    def receive_packet(self, packet: bytes, now_ns: int) -> str:
        """Count one IPv4 packet, reassembled if necessary, that has this flow's magic number.

        Returns `received`, `duplicated`, `stale` or `corrupted`.
        """
        flow, template = self.flow, self.template
        size = flow.size
        if (
            len(packet) != size
            or packet[:4] != template.head
            or packet[9] != 17
            or packet[12:16] != template.source
            or packet[20:26] != template.ports
            or packet[28:40] != template.magic
            or not packet.endswith(template.filler)
        ):
            self.corrupted += 1
            return "corrupted"
        run, sequence, sent = _PAYLOAD_REST.unpack_from(packet, 28 + PAYLOAD.size - _PAYLOAD_REST.size)
        identification = packet[4] << 8 | packet[5]
        sums = (packet[10] << 8 | packet[11], packet[26] << 8 | packet[27])
        destination = int.from_bytes(packet[16:20], "big")
        if not template.is_intact(sequence, run, sent, identification, packet[8], destination, sums):
            self.corrupted += 1
            return "corrupted"
        if run >> 16 != self.boot and not self._on_boot(run >> 16):
            self.stale += 1
            return "stale"
        return "received" if self._count_packet(sequence, sent, run, now_ns) else "duplicated"

    def statistics(self, begin_ns: int = -1, end_ns: int = 1 << 63) -> dict[str, Any]:
        """Return totals, and `window`: packets lost of those that should have arrived in [begin, end) (ns), and
        the longest pause that overlaps it."""
        tracker = self.tracker
        gaps = [
            {
                "first": gap.first,
                "count": gap.count,
                "sent_after": gap.sent_before / 1e9,
                "sent_before": gap.sent_after / 1e9,
            }
            for gap in tracker.loss_runs[-MAX_REPORTED_LOSS_RUNS:]
        ]
        pauses = [after - before for before, after in self._pauses if after > begin_ns and before < end_ns]
        return {
            "boot": self.boot,
            "received": tracker.received,
            "missing": tracker.missing,
            "leading": tracker.leading,
            "duplicated": tracker.duplicated,
            "reordered": tracker.reordered,
            "corrupted": self.corrupted,
            "stale": self.stale,
            "highest": tracker.highest,
            "first": tracker.first,
            "first_seen": tracker.first_seen / 1e9,
            "first_sent": tracker.first_sent / 1e9,
            "last_seen": tracker.last_seen / 1e9,
            "last_sent": tracker.last_sent / 1e9,
            "longest_gap_ms": self.longest / 1e6,
            "longest_gap_at": self.longest_at / 1e9,
            "latency": self.latency.statistics(),
            "gaps": gaps,
            "gaps_left_out": max(len(tracker.loss_runs) - MAX_REPORTED_LOSS_RUNS, 0),
            "window": {
                "missing": tracker.lost_between(begin_ns, end_ns),
                "longest_gap_ms": max(pauses, default=0) / 1e6,
            },
        }

    # internals

    def _is_current(self, run: int, count: int) -> bool:
        """Return whether packets of a numbering count; those of an older process of the source are stale."""
        if run >> 16 != self.boot and not self._on_boot(run >> 16):
            self.stale += count
            return False
        return True

    def _count_numbers(self, numbers: list[tuple[int, int]], run: int, now_ns: int) -> None:
        """Count intact packets of one numbering by their sequence numbers and times of sending."""
        first, sent = numbers[0]
        last, last_sent = numbers[-1]
        count = len(numbers)
        if (
            first > self.tracker.highest
            and last - first == count - 1
            and [number for number, _ in numbers] == [*range(first, last + 1)]
        ):
            self._count_run(first, count, sent, last_sent, run, now_ns)
            for sent, group in groupby(numbers, itemgetter(1)):
                self.latency.add(now_ns - sent, sum(1 for _ in group))
        else:
            for sequence, sent in numbers:
                self._count_packet(sequence, sent, run, now_ns)

    def _count_columns(self, sequences: Numbers, sents: Numbers, run: int, now_ns: int) -> None:
        """Count intact packets of one numbering by their sequence numbers and times of sending."""
        self.latency.add_each(now_ns - sents)
        first, sent = int(sequences[0]), int(sents[0])
        if first > self.tracker.highest and bool((sequences[1:] - sequences[:-1] == 1).all()):
            self._count_run(first, len(sequences), sent, int(sents[-1]), run, now_ns)
            return
        # Packets that arrived together have no pause between them.
        self._measure_pause(first, sent, run, now_ns)
        self.tracker.receive_columns(sequences, sents, now_ns)

    def _count_run(self, first: int, count: int, sent: int, last_sent: int, run: int, now_ns: int) -> None:
        """Count packets numbered without a gap, but for their latency."""
        self._measure_pause(first, sent, run, now_ns)
        self.tracker.receive_run(first, count, sent, last_sent, now_ns)

    def _on_boot(self, boot: int) -> bool:
        """Start new statistics for a newer process of the source; return False if the process is an older one."""
        if boot < self.boot:
            return False
        self.boot = boot
        self.tracker = SequenceTracker()
        self._numbering = -1
        return True

    def _count_packet(self, sequence: int, sent: int, run: int, now_ns: int) -> bool:
        self._measure_pause(sequence, sent, run, now_ns)
        self.latency.add(now_ns - sent, 1)
        return self.tracker.receive(sequence, sent, now_ns)

    def _measure_pause(self, sequence: int, sent: int, run: int, now_ns: int) -> None:
        """Measure the time without arrivals, less the time for which the source itself paused."""
        tracker = self.tracker
        if run != self._numbering:
            if run < self._numbering:
                return
            self._numbering = run
            return
        pause = now_ns - tracker.last_seen
        if sequence == tracker.highest + 1:
            pause -= max(sent - tracker.last_sent - self._interval, 0)
        if pause > self.longest:
            self.longest, self.longest_at = pause, tracker.last_seen
        if pause >= MIN_PAUSE_NS:
            self._pauses.append((tracker.last_seen, tracker.last_seen + pause))
