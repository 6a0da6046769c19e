"""The receiving end of a flow: checks every packet against what must have been sent, and counts."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from operator import add
from struct import Struct
from typing import Any

from chassis.bus.batch import Batch
from chassis.net.ethernet import HEADROOM
from chassis.tester.flow import MAX_RATE, MIN_FLOW_LENGTH, PAYLOAD, TTL, Flow, PacketTemplate
from chassis.tester.measurements import LatencyHistogram, SequenceTracker

MIN_PAUSE_NS = 2_000_000
"""Shortest time (ns) without arrivals that is remembered with its begin and end."""

MAX_PAUSES = 20_000

SEND_INTERVAL_NS = 1_000_000
"""Interval (ns) between batches of a source; such a pause is not counted."""

MAX_REPORTED_LOSS_RUNS = 500
"""Runs of missing packets in a report, the latest ones."""

_PAYLOAD_REST = Struct("!IQQ")


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
        # Fields that are constant for the flow are compared as octets; the others are unpacked as numbers.
        self._frame = Struct(f"!6s6x2s4sH2sBBH4sI6sH12sIQQ{flow.size - MIN_FLOW_LENGTH}s")
        template = self.template
        self._constant_columns = (
            (0, mac),
            (1, b"\x08\x00"),
            (2, template.head),
            (4, b"\0\0"),
            (6, 17),
            (8, template.source),
            (10, template.ports),
            (12, template.magic),
            (16, template.filler),
        )

    def receive_batch(self, batch: Batch, now_ns: int) -> bool:
        """Count a batch if every packet is whole and intact, of this flow, and has one numbering. Otherwise return
        False; nothing is counted then."""
        lengths = batch.lengths
        count, size = len(lengths), self._frame_size
        if lengths[0] != size or (count > 1 and lengths.count(size) != count):
            return False
        columns = list(zip(*self._frame.iter_unpack(batch.body), strict=True))
        for column, value in self._constant_columns:
            if columns[column].count(value) != count:
                return False
        runs, sequences, sents = columns[13], columns[14], columns[15]
        run, first = runs[0], sequences[0]
        if (count > 1 and runs.count(run) != count) or not self._headers_valid(columns, count):
            return False
        if run >> 16 != self.boot and not self._on_boot(run >> 16):
            self.stale += count
            return True
        if sequences[-1] - first == count - 1 and sequences == tuple(range(first, first + count)):
            self._measure_pause(first, sents[0], run, now_ns)
            self.tracker.receive_run(first, count, sents[0], sents[-1], now_ns)
            if sents[0] == sents[-1]:
                self.latency.add(now_ns - sents[0], count)
            else:
                for sent, group in groupby(sents):
                    self.latency.add(now_ns - sent, sum(1 for _ in group))
        else:
            for sequence, sent in zip(sequences, sents, strict=True):
                self._count_packet(sequence, sent, run, now_ns)
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

    def _headers_valid(self, columns: list[Any], count: int) -> bool:
        """Whether identifications, destinations and checksums are right in every packet of the batch."""
        template = self.template
        identifications, ttls, ip_sums, udp_sums = columns[3], columns[5], columns[7], columns[11]
        run, sequences, sents, targets = columns[13][0], columns[14], columns[15], columns[9]
        ttl = ttls[0]
        if count > 1 and ttls.count(ttl) != count:
            return False
        if identifications != tuple([sequence & 0xFFFF for sequence in sequences]):
            return False
        first, destinations = self.flow.destination, self.flow.destinations
        if destinations == 1:
            if targets.count(first) != count:
                return False
        else:
            further = [sequence % destinations << 8 for sequence in sequences]
            if targets != tuple([first + more for more in further]):
                return False
            # The sums of each packet without what its address has more than the first.
            ip_sums = list(map(add, ip_sums, further))
            udp_sums = list(map(add, udp_sums, further))
        ip_sum, udp_sum = template.ip_sum - ((TTL - ttl) << 8), template.udp_sum + run
        wrong_ip = [
            (carried + ip_sum + identification) % 0xFFFF
            for carried, identification in zip(ip_sums, identifications, strict=True)
        ]
        wrong_udp = [
            (carried + udp_sum + sent + sequence) % 0xFFFF
            for carried, sent, sequence in zip(udp_sums, sents, sequences, strict=True)
        ]
        return not (any(wrong_ip) or any(wrong_udp))

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
