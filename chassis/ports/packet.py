"""A packet port: a port's link to a Linux device, by a raw packet socket."""

from __future__ import annotations

import socket
from array import array

from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.net.ethernet import HEADROOM
from chassis.ports.driver import OnCarrier, OnFrames, PortDriver

BURST = 64
"""Most frames taken from a packet socket into one batch."""

LARGEST_FRAME = 65536


class PacketPort(PortDriver):
    """A port on a Linux device, by a raw packet socket that was opened where the device is."""

    def __init__(
        self,
        loop: Loop,
        port: str,
        far: WireSpec,
        counters: Counters,
        on_frames: OnFrames,
        on_carrier: OnCarrier,
    ) -> None:
        super().__init__(port, counters, on_frames, on_carrier, far.seed)
        self._loop = loop
        self._socket = socket.socket(fileno=far.fd)
        self._socket.setblocking(False)
        self._own = self._socket.getsockname()[0] if self._socket.family == socket.AF_PACKET else ""
        self._connected = True
        loop.add(self._socket.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove(self._socket.fileno())
        self._socket.detach()

    def _put(self, batch: Batch) -> int:
        sent = 0
        send = self._socket.send
        for frame in batch.packets():
            try:
                send(frame)
            except OSError:
                continue
            sent += 1
        return sent

    def _readable(self, now: float) -> None:
        body = bytearray()
        lengths = array("H")
        take = self._socket.recvfrom
        for _ in range(BURST):
            try:
                frame, address = take(LARGEST_FRAME)
            except OSError:
                break
            # A packet socket also sees what this end itself sent.
            if address[2] == socket.PACKET_OUTGOING or not HEADROOM <= len(frame) <= 0xFFFF:
                continue
            body += frame
            lengths.append(len(frame))
        if lengths:
            self._receive(Batch(Step.IN, body, lengths), now)
