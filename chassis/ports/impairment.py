"""Impairments of a wire (as tc-netem(8) has them): down, loss, delay, jitter, reordering, duplication and rate,
repeatable from a seed.

The sending end of a wire applies them, in this order: `down`, `loss`, `duplicate`, `reorder`, `rate`, `delay`
with `jitter`. Jitter alone never reorders: a packet leaves no earlier than the one before it. A reordered packet
is held back until a later one has passed it, or for `MAX_REORDER_DELAY` seconds if none comes.

Every kind of impairment draws from a generator of its own: switching one on changes nothing in the others.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

from chassis.bus.batch import MAX_PACKETS, Batch
from chassis.net.units import parse_probability, parse_rate, parse_seconds

MAX_REORDER_DELAY = 0.02
"""Time (s) after which a packet that was held back is sent although no other passed it."""

MAX_QUEUE_DELAY = 0.05
"""Depth (s at its rate) of the queue of a wire with a rate; what is more is dropped."""

MIN_QUEUE_OCTETS = 16 * 1514
"""Octets that the queue of a wire with a rate holds at least, however slow the wire."""

MAX_IN_FLIGHT_OCTETS = 64 * 1024 * 1024
"""Octets that a wire with a delay holds, at most."""

IMPAIRMENT_COUNTS = ("down", "loss", "queue", "duplicate", "reorder")
"""What is counted: packets dropped for the first three, packets duplicated, packets held back."""


def _parse_flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    raise ValueError(f"{value!r} is neither true nor false")


_PARSERS = {
    "down": _parse_flag,
    "loss": parse_probability,
    "delay": parse_seconds,
    "jitter": parse_seconds,
    "reorder": parse_probability,
    "duplicate": parse_probability,
    "rate": parse_rate,
}


class Impairment:
    """One direction of a wire. Without any setting `offer` hands the batch back as it is."""

    def __init__(self, seed: int = 0) -> None:
        self.down = False
        self.loss = 0.0
        self.delay = 0.0
        self.jitter = 0.0
        self.reorder = 0.0
        self.duplicate = 0.0
        self.rate = 0.0
        self.counts: dict[str, int] = dict.fromkeys(IMPAIRMENT_COUNTS, 0)
        self.idle = True
        """Batches pass unchanged: no impairment is set and nothing is on the wire."""
        self._queue: deque[tuple[float, bytes | memoryview, int]] = deque()
        self._queued = 0
        self._held: list[tuple[bytes | memoryview, int]] = []
        self._held_until = inf
        self._free_at = 0.0
        self._prototype: Batch | None = None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart all generators from a seed."""
        self._loss, self._twice, self._swap, self._shake = (
            Random(f"{seed} {kind}") for kind in ("loss", "duplicate", "reorder", "jitter")
        )

    def set(self, **settings: Any) -> None:
        """Change some impairments and leave the others; each takes a number, or a text as in labs.

        `clear=True` ends all impairments first, `seed` restarts the generators. `down` drops what is on the wire.

        Raises:
            ValueError: an unknown impairment or a wrong value; nothing was changed.
        """
        wanted: dict[str, float | bool] = {}
        for name, value in settings.items():
            if name in ("clear", "seed") or value is None:
                continue
            parser = _PARSERS.get(name)
            if parser is None:
                raise ValueError(f"no fault {name!r}: one of {', '.join(_PARSERS)}")
            wanted[name] = parser(value)
        seed = settings.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ValueError(f"{seed!r} is no seed: a whole number")
        if settings.get("clear"):
            self.down = False
            self.loss = self.delay = self.jitter = self.reorder = self.duplicate = self.rate = 0.0
        for name, value in wanted.items():
            setattr(self, name, value)
        if seed is not None:
            self.seed(seed)
        if self.down:
            self.counts["down"] += len(self._queue) + len(self._held)
            self._queue.clear()
            self._held.clear()
            self._queued, self._held_until = 0, inf
        self._update()

    def settings(self) -> Mapping[str, float | bool]:
        """Return the impairments in force: probabilities from 0 to 1, times (s), rate (bits/s)."""
        values = {name: getattr(self, name) for name in _PARSERS}
        return {name: value for name, value in values.items() if value}

    def enqueue(self, batch: Batch, now: float) -> list[Batch]:
        """Give the wire a batch; return the batches that come out at its far end now."""
        if self.idle:
            return [batch]
        if self.down:
            self.counts["down"] += len(batch)
            return []
        self._prototype = batch
        for packet, mark in self._impaired(batch, now):
            self._schedule(packet, mark, now)
        return self.dequeue(now)

    def dequeue(self, now: float) -> list[Batch]:
        """Return the batches that come out at the far end by now; call it at `next_timer`."""
        if now >= self._held_until:
            held, self._held, self._held_until = self._held, [], inf
            for packet, mark in held:
                self._schedule(packet, mark, now)
        queue = self._queue
        if not queue or queue[0][0] > now:
            return []
        packets: list[bytes | memoryview] = []
        marks: list[tuple[int, int]] = []
        batches: list[Batch] = []
        while queue and queue[0][0] <= now:
            _, packet, mark = queue.popleft()
            if mark >= 0:
                marks.append((len(packets), mark))
            packets.append(packet)
            if len(packets) == MAX_PACKETS:
                batches.append(self._batch(packets, marks))
                packets, marks = [], []
        if packets:
            batches.append(self._batch(packets, marks))
        if not queue:
            self._update()
        return batches

    def next_timer(self) -> float:
        """When `due` has something to give, or infinity."""
        if self.idle:
            return inf
        first = self._queue[0][0] if self._queue else inf
        return min(first, self._held_until)

    # inside

    def _update(self) -> None:
        """Compute whether batches pass unchanged: no impairment is set and nothing is on the wire."""
        settings = (self.down, self.loss, self.delay, self.jitter, self.reorder, self.duplicate, self.rate)
        self.idle = not any(settings) and not self._queue and not self._held

    def _impaired(self, batch: Batch, now: float) -> list[tuple[bytes | memoryview, int]]:
        """Return the packets (with trace number, or -1) after loss, duplication and reordering."""
        loss, duplicate, reorder = self.loss, self.duplicate, self.reorder
        draw_loss, draw_twice, draw_swap = self._loss.random, self._twice.random, self._swap.random
        marked = dict(batch.marks)
        counts = self.counts
        out: list[tuple[bytes | memoryview, int]] = []
        # Packets that wait must not change when the sender uses its buffer again.
        data = memoryview(bytes(batch.body))
        at = 0
        for index, length in enumerate(batch.lengths):
            entry = (data[at : at + length], marked.get(index, -1))
            at += length
            if loss and draw_loss() < loss:
                counts["loss"] += 1
                continue
            copies = 1
            if duplicate and draw_twice() < duplicate:
                counts["duplicate"] += 1
                copies = 2
            if reorder and draw_swap() < reorder:
                counts["reorder"] += 1
                if not self._held:
                    self._held_until = now + MAX_REORDER_DELAY
                self._held.extend([entry] * copies)
                continue
            out.extend([entry] * copies)
            if self._held:
                out.extend(self._held)
                self._held.clear()
                self._held_until = inf
        return out

    def _schedule(self, packet: bytes | memoryview, mark: int, now: float) -> None:
        size = len(packet)
        at = now
        if self.rate:
            begin = max(self._free_at, now)
            depth = max(MAX_QUEUE_DELAY, MIN_QUEUE_OCTETS * 8 / self.rate)
            if begin - now > depth:
                self.counts["queue"] += 1
                return
            at = self._free_at = begin + size * 8 / self.rate
        if self._queued + size > MAX_IN_FLIGHT_OCTETS:
            self.counts["queue"] += 1
            return
        at += self.delay
        if self.jitter:
            at += self._shake.uniform(-self.jitter, self.jitter)
        last = self._queue[-1][0] if self._queue else now
        self._queue.append((max(at, last, now), packet, mark))
        self._queued += size

    def _batch(self, packets: list[bytes | memoryview], marks: list[tuple[int, int]]) -> Batch:
        assert self._prototype is not None
        body = bytearray().join(packets)
        self._queued -= len(body)
        return replace(
            self._prototype,
            body=body,
            lengths=array("H", map(len, packets)),
            marks=tuple(marks),
            descriptors=b"",
        )
