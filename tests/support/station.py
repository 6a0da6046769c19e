"""A station on a simulated wire: it answers ARP for every address, and does with datagrams what a test wants."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.bus.engine import Output, ToWire
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM, Ethernet, header
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp

PORT = "1"
BROADCAST = b"\xff" * 6


def udp(source: int, source_port: int, destination: int, port: int, payload: bytes) -> Ipv4:
    """One datagram."""
    datagram = Udp(source_port, port, payload)
    return Ipv4(source, destination, PROTOCOL_UDP, datagram.emit((source, destination)))


Hear = Callable[[Ipv4, Udp, float], Sequence[tuple[float, Ipv4]]]
"""(packet, its datagram, time): what is sent back, each after so many seconds."""


class Station:
    """The engine of a tester with one port. `router` is the address that it sends by."""

    def __init__(self, number: int, router: int, hear: Hear) -> None:
        self._mac = b"\x02\xaa\0\0\0" + bytes((number,))
        self._router, self._hear = router, hear
        self._router_mac = b""
        self._queue: list[tuple[float, int, Ipv4]] = []
        self._ids = count()

    def start(self, now: float) -> list[Output]:
        return []

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        return [self._arp(REQUEST, BROADCAST, 0, bytes(6), self._router)] if up else []

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        outputs: list[Output] = []
        for frame in batch.packets():
            head, body = Ethernet.parse(frame), frame[HEADROOM:]
            if head.ethertype == ETHERTYPE_ARP:
                arp = Arp.parse(body)
                if arp.sender_address == self._router:
                    self._router_mac = arp.sender_mac
                if arp.operation == REQUEST and arp.target_address != arp.sender_address:
                    outputs.append(
                        self._arp(REPLY, arp.sender_mac, arp.target_address, arp.sender_mac, arp.sender_address)
                    )
            elif head.ethertype == ETHERTYPE_IPV4:
                self._on_packet(Ipv4.parse(body, padding=True), now)
        return outputs + self.on_timer(now)

    def _on_packet(self, packet: Ipv4, now: float) -> None:
        if packet.protocol != PROTOCOL_UDP or packet.more_fragments or packet.offset:
            return
        for delay, answer in self._hear(packet, Udp.parse(packet.payload), now):
            heappush(self._queue, (now + delay, next(self._ids), answer))

    def on_timer(self, now: float) -> list[Output]:
        due: list[Ipv4] = []
        while self._queue and self._queue[0][0] <= now and len(due) < MAX_PACKETS:
            due.append(heappop(self._queue)[2])
        return self.send(due)

    def next_timer(self) -> float:
        return self._queue[0][0] if self._queue else inf

    def send(self, packets: Sequence[Ipv4]) -> list[Output]:
        """Packets to the router, `MAX_PACKETS` at most."""
        assert self._router_mac or not packets, "the router has answered the station's ARP request"
        head = header(self._router_mac, self._mac)
        return [_to_wire([head + packet.emit() for packet in packets])] if packets else []

    def _arp(self, operation: int, to: bytes, own: int, mac: bytes, address: int) -> Output:
        packet = Arp(operation, self._mac, own, mac, address)
        return _to_wire([(header(to, self._mac, ETHERTYPE_ARP) + packet.emit()).ljust(60, b"\0")])


def _to_wire(frames: list[bytes]) -> Output:
    body, lengths = pack(frames)
    assert isinstance(lengths, array)
    return ToWire(PORT, Batch(Step.INGRESS, body, lengths))
