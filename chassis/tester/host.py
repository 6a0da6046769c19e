"""A host on a tester's port: addresses, ARP and echo (RFC 826, RFC 792)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from chassis.bus.batch import Batch, Step, pack
from chassis.net import arp, icmp, ipv4
from chassis.net.address import BROADCAST_MAC, MASKS, ZERO_MAC, contains, parse_address
from chassis.net.arp import Arp
from chassis.net.errors import DecodeError
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header, padded
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import Ipv4

ARP_RETRY_INTERVAL = 0.1
"""Interval (s) between the first `MAX_FAST_REQUESTS` requests for a neighbour that does not answer."""

ARP_SLOW_RETRY_INTERVAL = 1.0
"""Interval (s) between the requests after these."""

MAX_FAST_REQUESTS = 20

ARP_REFRESH_INTERVAL = 30.0
"""Time (s) after which a resolved neighbour is requested again; meanwhile its entry stays valid."""


def port_mac(node: str, port: str) -> bytes:
    """Return a locally administered MAC address, the same at every start."""
    return b"\x02\x54" + zlib.crc32(f"{node}:{port}".encode()).to_bytes(4, "big")


@dataclass(slots=True)
class _Neighbour:
    mac: bytes = b""
    ask_at: float = -inf
    asked: int = 0


class TesterHost:
    """One port: its own addresses, the addresses of flows, and the neighbours that it needs."""

    def __init__(self, node: str, port: str, settings: Mapping[str, Any]) -> None:
        """`settings`: `address` (`10.0.0.1/24`) and `gateway`, empty if the port has none."""
        self.mac = port_mac(node, port)
        text, _, length = str(settings.get("address", "")).partition("/")
        self.address = parse_address(text) if text else 0
        size = int(length or 32) if text else 0
        self.network = (self.address & MASKS[size], size)
        gateway = str(settings.get("gateway") or "")
        self.gateway = parse_address(gateway) if gateway else 0
        self.addresses: set[int] = {self.address} if text else set()
        self.up = False
        self._neighbours: dict[int, _Neighbour] = {}
        if self.gateway:
            self._neighbours[self.gateway] = _Neighbour()

    def next_hop(self, destination: int) -> int:
        """Return the neighbour that leads to a destination; 0 without one."""
        if self.address and contains(self.network, destination):
            return destination
        return self.gateway

    def resolve(self, address: int) -> bytes:
        """Return the neighbour's MAC address; empty while it is unknown, and then ARP requests follow."""
        neighbour = self._neighbours.get(address)
        if neighbour is None:
            neighbour = self._neighbours[address] = _Neighbour()
        return neighbour.mac

    def on_carrier(self, up: bool) -> list[bytes]:
        """The wire came up or went down. Return gratuitous ARP frames; all neighbours are requested again."""
        self.up = up
        for neighbour in self._neighbours.values():
            neighbour.ask_at, neighbour.asked = -inf, 0
        return (
            [self._arp(arp.REQUEST, BROADCAST_MAC, a, ZERO_MAC, a) for a in sorted(self.addresses)] if up else []
        )

    def answer_for(self, addresses: Iterable[int]) -> list[bytes]:
        """Answer ARP for these addresses too; return gratuitous ARP frames for the new ones."""
        new = sorted(set(addresses) - self.addresses)
        self.addresses.update(new)
        return [self._arp(arp.REQUEST, BROADCAST_MAC, a, ZERO_MAC, a) for a in new] if self.up else []

    def next_timer(self) -> float:
        """Return the time of the next ARP request, or inf."""
        if not self.up or not self._neighbours:
            return inf
        return min(neighbour.ask_at for neighbour in self._neighbours.values())

    def on_timer(self, now: float) -> list[bytes]:
        """Return the ARP requests that are due."""
        if not self.up:
            return []
        frames = []
        for address, neighbour in self._neighbours.items():
            if neighbour.ask_at <= now:
                neighbour.asked += 1
                wait = ARP_RETRY_INTERVAL if neighbour.asked <= MAX_FAST_REQUESTS else ARP_SLOW_RETRY_INTERVAL
                neighbour.ask_at = now + (ARP_REFRESH_INTERVAL if neighbour.mac and neighbour.asked > 1 else wait)
                frames.append(self._arp(arp.REQUEST, BROADCAST_MAC, self.address, ZERO_MAC, address))
        return frames

    def on_arp(self, frame: bytes, now: float) -> list[bytes]:
        """Learn from an ARP packet; return the answer if it asks for an address of this port."""
        try:
            packet = Arp.parse(frame[HEADROOM:])
        except DecodeError:
            return []
        neighbour = self._neighbours.get(packet.sender_address)
        if neighbour is not None and packet.sender_address not in self.addresses:
            neighbour.mac = packet.sender_mac
            neighbour.asked, neighbour.ask_at = 1, now + ARP_REFRESH_INTERVAL
        if packet.operation != arp.REQUEST or packet.target_address not in self.addresses:
            return []
        if packet.sender_address in self.addresses:
            return []
        return [
            self._arp(
                arp.REPLY, packet.sender_mac, packet.target_address, packet.sender_mac, packet.sender_address
            )
        ]

    def on_echo_request(self, frame: bytes) -> list[bytes] | None:
        """Return the answer to an echo request for an address of this port; None if the frame is not one."""
        try:
            packet = Ipv4.parse(frame[HEADROOM:], padding=True)
            if (
                packet.protocol != ipv4.PROTOCOL_ICMP
                or packet.destination not in self.addresses
                or packet.more_fragments
            ):
                return None
            message = Icmp.parse(packet.payload)
        except DecodeError:
            return None
        if message.type != icmp.ECHO_REQUEST or packet.offset:
            return None
        reply = Ipv4(
            packet.destination, packet.source, ipv4.PROTOCOL_ICMP, icmp.echo_reply(message).emit(), tos=packet.tos
        )
        return [padded(header(frame[6:12], self.mac) + reply.emit())]

    def _arp(self, operation: int, to: bytes, sender: int, target_mac: bytes, target: int) -> bytes:
        packet = Arp(operation, self.mac, sender, target_mac, target)
        return padded(header(to, self.mac, ETHERTYPE_ARP) + packet.emit())


def frames_batch(frames: list[bytes]) -> Batch:
    """Return a batch of frames for the wire."""
    body, lengths = pack(frames)
    return Batch(Step.INGRESS, body, lengths)
