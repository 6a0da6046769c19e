"""The sending end of a flow: which packets are due, and which of them had time to arrive."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from chassis.bus.batch import MAX_PACKETS, Batch, Step
from chassis.net.ethernet import HEADROOM, MAXIMUM_PAYLOAD, header
from chassis.net.fragments import fragment
from chassis.net.ipv4 import Ipv4
from chassis.tester.flow import MAX_RATE, Flow, PacketTemplate

TICK = 0.001
"""Shortest time between two batches of a flow, in seconds: what is due in between goes together."""

BACKLOG = 0.1
"""A source that stood still makes up for that many seconds of packets, and skips the rest."""

BURST = 64
"""Packets of a batch of a flow at `rate: max`, and BURSTS of them each time that the source is called."""

BURSTS = 4

SETTLE = 1.0
"""Seconds after which a packet that was sent counts as lost when it has not arrived."""

BATCH_BYTES = 384 * 1024
"""A batch is shorter than MAX_PACKETS when packets are so large that it would have more bytes than this."""


class Source:
    """One flow's numbering and schedule.

    `run` numbers the starts: its upper 16 bits stand for the numbering, a new one with each process (16 for
    each, so that a process may begin anew), its lower 16 bits count the starts.
    """

    def __init__(self, flow: Flow, boot: int) -> None:
        self.flow = flow
        self.template = PacketTemplate(flow)
        self.state = "stopped"
        """stopped, waiting (the next hop's MAC address is not known yet), running or done."""
        self.reason = ""
        self.sent = 0
        self.run = (boot << 4 & 0xFFFF) << 16
        self.skipped = 0
        """Packets that were never sent because the process stood still."""
        self.started_at = 0.0
        self.last_sent = 0.0
        self.rate = flow.rate
        self.count = flow.count
        self.congested = False
        """The wire takes no more at the moment: a flow at `rate: max` waits for it."""
        self._origin = 0.0
        self._origin_sent = 0
        self._next_trace = inf
        self._tick_at = 0.0
        self._history: deque[tuple[float, int]] = deque()
        most = max(min(MAX_PACKETS, BATCH_BYTES // (flow.size + HEADROOM)), 1)
        self._most = min(most, BURST) if flow.rate == MAX_RATE else most

    def start(self, now: float, rate: float | None = None, count: int | None = None) -> None:
        """Send from now on, as soon as the next hop is known; `rate` and `count` in place of the flow's own."""
        self.rate = self.flow.rate if rate is None else rate
        limit = self.flow.count if count is None else count
        self.count = self.sent + limit if limit else 0
        self.state, self.reason = "waiting", "next hop not resolved"
        self.run += 1

    def stop(self) -> None:
        if self.state != "done":
            self.state, self.reason = "stopped", ""

    def ready(self, now: float) -> None:
        """The next hop is known: the first packet is due now."""
        if self.state == "waiting":
            self.state, self.reason = "running", ""
            self._origin, self._origin_sent, self._next_trace = now, self.sent, now
            self._tick_at = now
            self.started_at = now
            self._history.append((now, self.sent))

    def next_timer(self) -> float:
        """When packets are due, or infinity."""
        if self.state != "running" or (self.congested and self.rate == MAX_RATE):
            return inf
        if self.rate == MAX_RATE:
            return -inf
        return max(self._origin + (self.sent - self._origin_sent) / self.rate, self._tick_at)

    def due(self, mac: bytes, own_mac: bytes, trace: int, now: float) -> list[Batch]:
        """The packets that are due, in batches, the first packet of the first one marked with trace number
        `trace` when `wants_trace` said so."""
        if self.state != "running":
            return []
        number = self._due(now)
        if number <= 0:
            return []
        if self.count:
            number = min(number, self.count - self.sent)
        now_ns = int(now * 1e9)
        marks = ((0, trace),) if trace and self.wants_trace(now) else ()
        if marks:
            self._next_trace = now + self.flow.trace if self.flow.trace else inf
        batches = []
        make, lengths, most = self.template.make, self.template.lengths, self._most
        first, left = self.sent, number
        while left:
            count = min(left, most)
            body = make(mac, own_mac, self.run, first, count, now_ns)
            batch = Batch(Step.IN, body, lengths(count), marks=marks)
            batches += [batch] if self.flow.size <= MAXIMUM_PAYLOAD else _fragmented(batch)
            marks = ()
            first += count
            left -= count
        self.sent += number
        self.last_sent = now
        self._tick_at = now + TICK
        self._note(now)
        if self.count and self.sent >= self.count:
            self.state = "done"
        return batches

    def wants_trace(self, now: float) -> bool:
        return now >= self._next_trace

    def report(self, now: float) -> dict[str, Any]:
        """`settled` is the number of packets that had time to arrive."""
        return {
            "state": self.state,
            "reason": self.reason,
            "boot": self.run >> 16,
            "sent": self.sent,
            "settled": self._settled(now),
            "skipped": self.skipped,
            "rate": "max" if self.rate == MAX_RATE else self.rate,
            "started_at": self.started_at,
            "last_sent": self.last_sent,
        }

    # inside

    def _due(self, now: float) -> int:
        if self.rate == MAX_RATE:
            return 0 if self.congested else self._most * BURSTS
        elapsed = (now - self._origin) * self.rate
        due = int(elapsed + 1e-6) + 1 - (self.sent - self._origin_sent)
        most = max(int(self.rate * BACKLOG), 1)
        if due > most:
            self.skipped += due - most
            self._origin += (due - most) / self.rate
            due = most
        return due

    def _note(self, now: float) -> None:
        history = self._history
        if not history or now - history[-1][0] >= SETTLE / 50:
            history.append((now, self.sent))
        while len(history) > 1 and history[1][0] <= now - SETTLE:
            history.popleft()

    def _settled(self, now: float) -> int:
        if now - self.last_sent >= SETTLE:
            return self.sent
        settled = 0
        for time, sent in self._history:
            if time <= now - SETTLE:
                settled = sent
        return settled


def _fragmented(batch: Batch) -> list[Batch]:
    """The batch with each packet in fragments of at most 1,500 bytes, as a host sends them (RFC 791)."""
    batches = []
    marked = dict(batch.marks)
    for index, packet in enumerate(batch.packets()):
        frame = bytes(packet)
        pieces = fragment(Ipv4.parse(frame[HEADROOM:]), MAXIMUM_PAYLOAD)
        frames = [header(frame[:6], frame[6:12]) + piece.emit() for piece in pieces]
        lengths = batch.lengths[:0]
        lengths.extend(map(len, frames))
        marks = ((0, marked[index]),) if index in marked else ()
        batches.append(Batch(Step.IN, bytearray(b"".join(frames)), lengths, marks=marks))
    return batches
