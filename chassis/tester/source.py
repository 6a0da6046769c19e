"""The sending end of a flow: which packets are due, and which had time to arrive."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from chassis.bus.batch import MAX_PACKETS, Batch, Step
from chassis.net.ethernet import HEADROOM, MAXIMUM_PAYLOAD, header
from chassis.net.fragments import fragment
from chassis.net.ipv4 import Ipv4
from chassis.tester.flow import MAX_RATE, Flow, PacketTemplate

SEND_INTERVAL = 0.001
"""Shortest interval (s) between two batches of a flow. Packets due in between are sent together."""

MAX_SEND_INTERVAL = 0.002
"""The same of a flow with many packets. A batch costs the tester some 80 us of CPU, whatever is in it, and each
process behind it as much, so many packets go in fewer batches."""

SHORT_INTERVAL_RATE = 20_000
"""Packets/s up to which the shortest interval is kept. Above it the interval grows with the rate."""

MAX_CATCH_UP_INTERVAL = 0.1
"""Time (s) of packets that a stalled source catches up; it skips the others."""

LOSS_DECISION_DELAY = 1.0
"""Time (s) after which a packet that has not arrived counts as lost."""

MAX_BATCH_OCTETS = 384 * 1024
"""Octets of a batch. Large packets make batches of less than MAX_PACKETS."""


class Source:
    """Numbering and schedule of one flow.

    `numbering` changes with each start: its upper 16 bits with each process (a process has 16 of them), its lower
    16 bits count the starts.
    """

    def __init__(self, flow: Flow, boot: int) -> None:
        self.flow = flow
        self.template = PacketTemplate(flow)
        self.state = "stopped"
        """stopped, waiting (for the MAC address of the next hop), running or done."""
        self.reason = ""
        self.sent = 0
        self.numbering = (boot << 4 & 0xFFFF) << 16
        self.skipped = 0
        """Packets that were never sent because the process was stalled."""
        self.started_at = 0.0
        self.last_sent = 0.0
        self.rate = flow.rate
        self.count = flow.count
        self.congested = False
        """The wire accepts no more packets at present: a flow at `rate: max` waits."""
        self._schedule_start = 0.0
        self._sent_before_start = 0
        self._next_trace = inf
        self._next_send = 0.0
        self._history: deque[tuple[float, int]] = deque()
        self._max_batch = max(min(MAX_PACKETS, MAX_BATCH_OCTETS // (flow.size + HEADROOM)), 1)
        self._interval = SEND_INTERVAL

    def start(self, now: float, rate: float | None = None, count: int | None = None) -> None:
        """Send from now on, once the next hop is resolved; `rate` and `count` replace the flow's own."""
        self.rate = self.flow.rate if rate is None else rate
        self._interval = min(SEND_INTERVAL * max(self.rate / SHORT_INTERVAL_RATE, 1.0), MAX_SEND_INTERVAL)
        limit = self.flow.count if count is None else count
        self.count = self.sent + limit if limit else 0
        self.state, self.reason = "waiting", "next hop not resolved"
        self.numbering += 1

    def stop(self) -> None:
        """Stop sending; a flow that is done stays done."""
        if self.state != "done":
            self.state, self.reason = "stopped", ""

    def on_next_hop_resolved(self, now: float) -> None:
        """Send the first packet now."""
        if self.state == "waiting":
            self.state, self.reason = "running", ""
            self._schedule_start, self._sent_before_start, self._next_trace = now, self.sent, now
            self._next_send = now
            self.started_at = now
            self._history.append((now, self.sent))

    def next_timer(self) -> float:
        """Return the time at which packets are due, or inf."""
        if self.state != "running" or (self.congested and self.rate == MAX_RATE):
            return inf
        if self.rate == MAX_RATE:
            return -inf
        return max(self._schedule_start + (self.sent - self._sent_before_start) / self.rate, self._next_send)

    def send(self, mac: bytes, own_mac: bytes, trace: int, now: float) -> list[Batch]:
        """Return the packets that are due, in batches.

        The first packet is marked with trace number `trace` if `wants_trace` returned True.
        """
        if self.state != "running":
            return []
        number = self._due(now)
        if number <= 0:
            return []
        if number > self._max_batch and self.rate != MAX_RATE:
            # What fills no batch goes with the next one: a second, small one would cost everybody as much.
            number -= number % self._max_batch
        if self.count:
            number = min(number, self.count - self.sent)
        now_ns = int(now * 1e9)
        marks = ((0, trace),) if trace and self.wants_trace(now) else ()
        if marks:
            self._next_trace = now + self.flow.trace if self.flow.trace else inf
        batches = []
        make, lengths, most = self.template.make, self.template.lengths, self._max_batch
        first, left = self.sent, number
        while left:
            count = min(left, most)
            body = make(mac, own_mac, self.numbering, first, count, now_ns)
            batch = Batch(Step.INGRESS, body, lengths(count), marks=marks)
            batches += [batch] if self.flow.size <= MAXIMUM_PAYLOAD else _fragment(batch)
            marks = ()
            first += count
            left -= count
        self.sent += number
        self.last_sent = now
        self._next_send = now + self._interval
        self._remember_sent(now)
        if self.count and self.sent >= self.count:
            self.state = "done"
        return batches

    def wants_trace(self, now: float) -> bool:
        """Whether the next packet must be traced."""
        return now >= self._next_trace

    def statistics(self, now: float) -> dict[str, Any]:
        """Return the counts. `settled` is the number of packets that had time to arrive."""
        return {
            "state": self.state,
            "reason": self.reason,
            "boot": self.numbering >> 16,
            "sent": self.sent,
            "settled": self._settled(now),
            "not_sent": self.skipped,
            "rate": "max" if self.rate == MAX_RATE else self.rate,
            "started_at": self.started_at,
            "last_sent": self.last_sent,
        }

    # internals

    def _due(self, now: float) -> int:
        if self.rate == MAX_RATE:
            # One large batch at a time: the wire tells after each that it is full.
            return 0 if self.congested else self._max_batch
        elapsed = (now - self._schedule_start) * self.rate
        due = int(elapsed + 1e-6) + 1 - (self.sent - self._sent_before_start)
        most = max(int(self.rate * MAX_CATCH_UP_INTERVAL), 1)
        if due > most:
            self.skipped += due - most
            self._schedule_start += (due - most) / self.rate
            due = most
        return due

    def _remember_sent(self, now: float) -> None:
        history = self._history
        if not history or now - history[-1][0] >= LOSS_DECISION_DELAY / 50:
            history.append((now, self.sent))
        while len(history) > 1 and history[1][0] <= now - LOSS_DECISION_DELAY:
            history.popleft()

    def _settled(self, now: float) -> int:
        if now - self.last_sent >= LOSS_DECISION_DELAY:
            return self.sent
        settled = 0
        for time, sent in self._history:
            if time <= now - LOSS_DECISION_DELAY:
                settled = sent
        return settled


def _fragment(batch: Batch) -> list[Batch]:
    """Return the batch with each packet in fragments of at most 1,500 octets, as a host sends them (RFC 791)."""
    batches = []
    marked = dict(batch.marks)
    for index, packet in enumerate(batch.packets()):
        frame = bytes(packet)
        pieces = fragment(Ipv4.parse(frame[HEADROOM:]), MAXIMUM_PAYLOAD)
        frames = [header(frame[:6], frame[6:12]) + piece.emit() for piece in pieces]
        lengths = batch.lengths[:0]
        lengths.extend(map(len, frames))
        marks = ((0, marked[index]),) if index in marked else ()
        batches.append(Batch(Step.INGRESS, bytearray(b"".join(frames)), lengths, marks=marks))
    return batches
