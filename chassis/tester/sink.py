"""The receiving end of a flow: checks every packet against what must have been sent, and keeps account."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from struct import Struct
from typing import Any

from chassis.bus.batch import Batch
from chassis.net.ethernet import HEADROOM
from chassis.tester.flow import MAX_RATE, PAYLOAD, SMALLEST, TTL, Flow, PacketTemplate
from chassis.tester.measurements import LatencyHistogram, SequenceTracker

PAUSE = 2_000_000
"""A time without arrivals of this many ns or more is remembered with its begin and end."""

MAX_PAUSES = 20_000

TICK_NS = 1_000_000
"""Pauses of a source between batches that are not counted as its own, in ns."""

REPORTED_GAPS = 500
"""Most runs of missing packets in a report, the latest."""

_PAYLOAD_REST = Struct("!IQQ")


class Sink:
    """What arrived of one flow.

    Only the newest start of the source's process counts: another process has numbers of its own.
    """

    def __init__(self, flow: Flow, mac: bytes) -> None:
        self.flow = flow
        self.template = PacketTemplate(flow)
        self.ledger = SequenceTracker()
        self.latency = LatencyHistogram()
        self.corrupted = 0
        self.stale = 0
        """Packets of an earlier process of the source."""
        self.longest = 0
        self.longest_at = 0
        self.boot = -1
        self._run = -1
        self._pauses: deque[tuple[int, int]] = deque(maxlen=MAX_PAUSES)
        self._interval = TICK_NS if flow.rate == MAX_RATE else max(int(1e9 / flow.rate), TICK_NS)
        self._mac = mac
        self._frame_size = flow.size + HEADROOM
        # What stays the same is compared as it is; what changes comes out as numbers.
        self._frame = Struct(f"!6s6x2s4sH2sBBH14sH12sIQQ{flow.size - SMALLEST}s")
        template = self.template
        self._same = (
            (0, mac),
            (1, b"\x08\x00"),
            (2, template.head),
            (4, b"\0\0"),
            (6, 17),
            (8, template.ends),
            (10, template.mark),
            (14, template.filler),
        )

    def batch(self, batch: Batch, now_ns: int) -> bool:
        """Take a batch whose every packet is a whole and intact one of this flow; False, with nothing
        counted, where it is not that simple."""
        lengths = batch.lengths
        count, size = len(lengths), self._frame_size
        if lengths[0] != size or (count > 1 and lengths.count(size) != count):
            return False
        columns = list(zip(*self._frame.iter_unpack(batch.body), strict=True))
        for column, value in self._same:
            if columns[column].count(value) != count:
                return False
        runs, sequences, sents = columns[11], columns[12], columns[13]
        run, first = runs[0], sequences[0]
        if (count > 1 and runs.count(run) != count) or not self._headers(columns, count):
            return False
        if run >> 16 != self.boot and not self._started(run >> 16):
            self.stale += count
            return True
        if sequences[-1] - first == count - 1 and sequences == tuple(range(first, first + count)):
            self._pause(first, sents[0], run, now_ns)
            self.ledger.run(first, count, sents[0], sents[-1], now_ns)
            if sents[0] == sents[-1]:
                self.latency.add(now_ns - sents[0], count)
            else:
                for sent, group in groupby(sents):
                    self.latency.add(now_ns - sent, sum(1 for _ in group))
        else:
            for sequence, sent in zip(sequences, sents, strict=True):
                self._one(sequence, sent, run, now_ns)
        return True

    def packet(self, packet: bytes, now_ns: int) -> str:
        """Take one IP packet, reassembled if need be, that carries this flow's mark.

        Returns `received`, `duplicated`, `stale` or `corrupted`.
        """
        flow, template = self.flow, self.template
        size = flow.size
        if (
            len(packet) != size
            or packet[:4] != template.head
            or packet[9] != 17
            or packet[12:26] != template.ends
            or packet[28:40] != template.mark
            or not packet.endswith(template.filler)
        ):
            self.corrupted += 1
            return "corrupted"
        run, sequence, sent = _PAYLOAD_REST.unpack_from(packet, 28 + PAYLOAD.size - _PAYLOAD_REST.size)
        identification = packet[4] << 8 | packet[5]
        sums = (packet[10] << 8 | packet[11], packet[26] << 8 | packet[27])
        if not template.intact(sequence, run, sent, identification, packet[8], sums):
            self.corrupted += 1
            return "corrupted"
        if run >> 16 != self.boot and not self._started(run >> 16):
            self.stale += 1
            return "stale"
        return "received" if self._one(sequence, sent, run, now_ns) else "duplicated"

    def report(self, begin_ns: int = -1, end_ns: int = 1 << 63) -> dict[str, Any]:
        """Totals, and `window`: what was lost of the packets that should have arrived in [begin, end), and the
        longest time without arrivals that reaches into it."""
        ledger = self.ledger
        gaps = [
            {
                "first": gap.first,
                "count": gap.count,
                "sent_after": gap.sent_before / 1e9,
                "sent_before": gap.sent_after / 1e9,
            }
            for gap in ledger.gaps[-REPORTED_GAPS:]
        ]
        pauses = [after - before for before, after in self._pauses if after > begin_ns and before < end_ns]
        return {
            "boot": self.boot,
            "received": ledger.received,
            "missing": ledger.missing,
            "leading": ledger.leading,
            "duplicated": ledger.duplicated,
            "reordered": ledger.reordered,
            "corrupted": self.corrupted,
            "stale": self.stale,
            "highest": ledger.highest,
            "first": ledger.first,
            "first_seen": ledger.first_seen / 1e9,
            "first_sent": ledger.first_sent / 1e9,
            "last_seen": ledger.last_seen / 1e9,
            "last_sent": ledger.last_sent / 1e9,
            "longest_gap_ms": self.longest / 1e6,
            "longest_gap_at": self.longest_at / 1e9,
            "latency": self.latency.report(),
            "gaps": gaps,
            "gaps_left_out": max(len(ledger.gaps) - REPORTED_GAPS, 0),
            "window": {
                "missing": ledger.lost_between(begin_ns, end_ns),
                "longest_gap_ms": max(pauses, default=0) / 1e6,
            },
        }

    # inside

    def _headers(self, columns: list[Any], count: int) -> bool:
        """Whether identifications and checksums are right in every packet of the batch."""
        template = self.template
        identifications, ttls, ip_sums, udp_sums = columns[3], columns[5], columns[7], columns[9]
        run, sequences, sents = columns[11][0], columns[12], columns[13]
        ttl = ttls[0]
        if count > 1 and ttls.count(ttl) != count:
            return False
        if identifications != tuple([sequence & 0xFFFF for sequence in sequences]):
            return False
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

    def _started(self, boot: int) -> bool:
        """A packet of another process of the source: False where it is one that came before the present one."""
        if boot < self.boot:
            return False
        self.boot = boot
        self.ledger = SequenceTracker()
        self._run = -1
        return True

    def _one(self, sequence: int, sent: int, run: int, now_ns: int) -> bool:
        self._pause(sequence, sent, run, now_ns)
        self.latency.add(now_ns - sent, 1)
        return self.ledger.one(sequence, sent, now_ns)

    def _pause(self, sequence: int, sent: int, run: int, now_ns: int) -> None:
        """Remember how long nothing arrived; time for which the source itself paused does not count."""
        ledger = self.ledger
        if run != self._run:
            if run < self._run:
                return
            self._run = run
            return
        pause = now_ns - ledger.last_seen
        if sequence == ledger.highest + 1:
            pause -= max(sent - ledger.last_sent - self._interval, 0)
        if pause > self.longest:
            self.longest, self.longest_at = pause, ledger.last_seen
        if pause >= PAUSE:
            self._pauses.append((ledger.last_seen, ledger.last_seen + pause))
