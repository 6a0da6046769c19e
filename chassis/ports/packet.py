"""A packet port: a port's link to a Linux device, by a raw packet socket (packet(7)) and its rings, if any.

A Linux device makes no impairments: this end makes those of both directions, each with its own seed. If the link's
other end is a packet port as well, each makes those of what it sends.
"""

from __future__ import annotations

import socket
import time
from array import array

from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.hops import ReceivedBatches, SentBatches
from chassis.bus.loop import RETRY_INTERVAL, Loop
from chassis.bus.sender import Congestion
from chassis.net.ethernet import HEADROOM
from chassis.ports.driver import OnCarrier, OnFrames, PortDriver
from chassis.ports.ring import MAX_TRANSMIT_OCTETS, PacketRing, rings_of

MAX_BURST_FRAMES = 64
"""Frames (count) read from a packet socket into one batch, at most."""

TYPICAL_FRAME_OCTETS = 2048
MAX_FRAME_OCTETS = 65536
"""Octets of a frame: by the first the buffer of a burst is sized, the second is the most that one may have."""


class PacketPort(PortDriver):
    """A port on a Linux device. Its socket was opened in the network namespace of the device."""

    def __init__(
        self,
        loop: Loop,
        port: str,
        far: WireSpec,
        counters: Counters,
        on_frames: OnFrames,
        on_carrier: OnCarrier,
        hold: float = 0.0,
        congestion: Congestion | None = None,
    ) -> None:
        super().__init__(port, counters, on_frames, on_carrier, far.seed, far.far_seed)
        self._loop, self._hold = loop, hold
        self._congestion = Congestion() if congestion is None else congestion
        self._sent_hop = SentBatches(counters, f"port {port}")
        self._received_hop = ReceivedBatches(counters, f"port {port}")
        self._socket = socket.socket(fileno=far.fd)
        self._socket.setblocking(False)
        self._ring = rings_of(self._socket) if far.ring else None
        self._lost_slot = counters.slot(f"port {port} drop ring full")
        self._taken = bytearray(0 if self._ring else MAX_BURST_FRAMES * TYPICAL_FRAME_OCTETS + MAX_FRAME_OCTETS)
        self._room = memoryview(self._taken)
        self._connected = True
        loop.add(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        self._loop.remove(self._socket.fileno())
        if self._ring is not None:
            self._ring.close()
        self._socket.detach()

    def _write(self, batch: Batch) -> None:
        sent = 0
        if self._ring is not None:
            # Longer frames than a place in the ring are far above the MTU of the device.
            fit = max(batch.lengths) <= MAX_TRANSMIT_OCTETS
            frames = batch.packets()
            sent = self._ring.send(frames if fit else [one for one in frames if len(one) <= MAX_TRANSMIT_OCTETS])
        else:
            send = self._socket.send
            for frame in batch.packets():
                try:
                    send(frame)
                except OSError:
                    continue
                sent += 1
        self._sent_hop.count(sent)
        self._count_sent(batch, sent)
        self._count_not_sent(len(batch.lengths) - sent)

    def _drop_waiting(self, now: float) -> None:
        # Nothing waits here: the queue is the kernel's.
        return

    def _on_readable(self, now: float) -> None:
        if self._congestion.holds(now):
            # What is read now would be dropped further on; the kernel's queue holds it.
            self._loop.rest(self._socket.fileno(), now + RETRY_INTERVAL)
            return
        self._received_hop.woken()
        if self._ring is not None:
            self._read_ring(self._ring, now)
            return
        lengths = array("H")
        take, room = self._socket.recv_into, self._room
        at, full = 0, len(room) - MAX_FRAME_OCTETS
        for _ in range(MAX_BURST_FRAMES):
            if at > full:
                break
            try:
                length = take(room[at:])
            except OSError:
                break
            if HEADROOM <= length <= 0xFFFF:
                lengths.append(length)
                at += length
        if lengths:
            self._received_hop.count(1, 1, len(lengths))
            self._receive(Batch(Step.INGRESS, self._taken[:at], lengths), now)
        if lengths and self._hold and self._loop.crowded and len(lengths) < MAX_BURST_FRAMES:
            self._loop.rest(self._socket.fileno(), now + self._hold)

    def _read_ring(self, ring: PacketRing, now: float) -> None:
        read = 0
        while not self._congestion.holds(now):
            body, lengths = ring.receive()
            if ring.lost:
                # They came to this port and found no room.
                self._counters.values[self._received_slot] += ring.lost
                self._counters.values[self._lost_slot] += ring.lost
                ring.lost = 0
            if not lengths:
                break
            read += len(lengths)
            self._received_hop.count(1, 1, len(lengths))
            self._receive(Batch(Step.INGRESS, body, lengths), time.monotonic())
            if not self._loop.may_continue():
                return
        if read and self._hold and self._loop.crowded:
            self._loop.rest(self._socket.fileno(), now + self._hold)
