"""Flows: the format of a numbered UDP packet, and a template that makes and checks a batch of them.

The UDP payload is a magic number, the flow's number, the source's numbering, the sequence number and the time of
sending, then a filler that depends on the flow alone. The sequence number and the time determine all other octets,
so a sink detects every packet that differs from what was sent. The identification of the IPv4 header is the low
half of the sequence number.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

from chassis.net.address import format_address, parse_address
from chassis.net.checksum import ones_sum, pseudo_header_sum
from chassis.net.ethernet import ETHERTYPE_IPV4, HEADROOM, header
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, MAX_IPV4_LENGTH, PROTOCOL_UDP, header_bytes

MAGIC = b"CHASSIS\x01"
UDP_PORT = 40_000
"""Destination port of every flow. The source port is this one plus 1 to 4096, by the flow's number."""

TTL = 64
PAYLOAD = Struct("!8sIIQQ")
"""Magic, flow, numbering, sequence number, time of sending (ns of the machine's monotonic clock)."""

MAX_DESTINATIONS = 4096
"""Networks that the packets of a flow may go to, in turn."""

OVERHEAD = IPV4_HEADER_LENGTH + 8
MIN_FLOW_LENGTH = OVERHEAD + PAYLOAD.size
"""Octets of the shortest IPv4 packet of a flow."""

MAX_RATE = float("inf")
"""Stands for `rate: max`: as fast as the wire accepts packets."""


class FlowError(ValueError):
    """A flow cannot be made from the values given; the text says why."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow as a lab file defines it.

    `rate` is in packets a second, `size` in octets of the IPv4 packet, `trace` in seconds between traced packets
    (0: only the first one), `count` the packets after which it ends (0: never). A flow with `auto` starts with its
    tester, and packets lost before the first one arrived do not count. Its packets go in turn to the same host of
    `destinations` /24 networks, from that of `destination` on.
    """

    name: str
    from_node: str
    from_port: str
    to_node: str
    to_port: str
    rate: float
    size: int
    source: int
    destination: int
    dscp: int = 0
    trace: float = 0.0
    auto: bool = False
    count: int = 0
    destinations: int = 1

    @property
    def targets(self) -> Sequence[int]:
        """All addresses that its packets go to."""
        return range(self.destination, self.destination + (self.destinations << 8), 1 << 8)

    @property
    def number(self) -> int:
        """The number in its packets; both ends derive it from the name."""
        return zlib.crc32(self.name.encode())

    @property
    def source_port(self) -> int:
        """UDP source port of its packets."""
        return UDP_PORT + 1 + self.number % 4096


def _parse_end(values: Mapping[str, Any], key: str) -> tuple[str, str]:
    text = str(values.get(key, ""))
    node, colon, port = text.partition(":")
    if not (node and colon and port):
        raise FlowError(f"{key}: {text!r} is not a port of a tester; expected t1:1")
    return node, port


def _parse_number(values: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise FlowError(f"{key}: {value!r} is not a number from {low:g} to {high:g}")
    return value


def parse_flow(name: str, values: Mapping[str, Any]) -> Flow:
    """Return the flow of a lab's plain values: `from`, `to`, `rate`, `size`, `source`, `destination`, `dscp`,
    `trace`, `start` (auto or manual), `count`, `destinations`.

    Raises:
        FlowError: a key is unknown, or a value is not valid.
    """
    known = {
        "from",
        "to",
        "rate",
        "size",
        "source",
        "destination",
        "destinations",
        "dscp",
        "trace",
        "start",
        "count",
    }  # fmt: skip
    for key in values:
        if key not in known:
            raise FlowError(f"a flow has no {key!r}: it has {', '.join(sorted(known))}")
    from_node, from_port = _parse_end(values, "from")
    to_node, to_port = _parse_end(values, "to")
    rate = values.get("rate", 100.0)
    start = values.get("start", "manual")
    if start not in ("auto", "manual"):
        raise FlowError(f"start: {start!r} is not valid; expected auto or manual")
    addresses = []
    for key in ("source", "destination"):
        try:
            addresses.append(parse_address(str(values.get(key, ""))))
        except ValueError as error:
            raise FlowError(f"{key}: {error}") from None
    destinations = int(_parse_number(values, "destinations", 1, 1, MAX_DESTINATIONS))
    if addresses[1] + (destinations - 1 << 8) >= 1 << 32:
        raise FlowError(f"destinations: no {destinations} networks begin at {values.get('destination')}")
    return Flow(
        name,
        from_node,
        from_port,
        to_node,
        to_port,
        MAX_RATE if rate == "max" else float(_parse_number(values, "rate", 100.0, 1e-3, 1e7)),
        int(_parse_number(values, "size", 200, MIN_FLOW_LENGTH, MAX_IPV4_LENGTH - HEADROOM)),
        addresses[0],
        addresses[1],
        int(_parse_number(values, "dscp", 0, 0, 63)),
        float(_parse_number(values, "trace", 0.0, 0, 1e9)),
        start == "auto",
        int(_parse_number(values, "count", 0, 0, 2**62)),
        destinations,
    )


def describe_flow(flow: Flow) -> dict[str, Any]:
    """Return the flow as plain values for reports."""
    return {
        "from": f"{flow.from_node}:{flow.from_port}",
        "to": f"{flow.to_node}:{flow.to_port}",
        "rate": "max" if flow.rate == MAX_RATE else flow.rate,
        "size": flow.size,
        "source": format_address(flow.source),
        "destination": format_address(flow.destination),
        "destinations": flow.destinations,
        "dscp": flow.dscp,
        "trace": flow.trace,
        "start": "auto" if flow.auto else "manual",
        "count": flow.count,
    }


class PacketTemplate:
    """Makes a flow's packets, and checks packets that arrive.

    Only identification, both checksums, numbering, sequence number and time differ between packets, and the
    destination of a flow with several. A 16-bit ones' complement sum is a remainder modulo 65535, so each checksum
    is one addition away from a constant (RFC 1071); so is it after a number was added to an address.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        size, number = flow.size, flow.number
        pattern = MAGIC + number.to_bytes(4, "big")
        self.filler = (pattern * (size // len(pattern) + 1))[: size - MIN_FLOW_LENGTH]
        tos = flow.dscp << 2
        ip = bytearray(
            header_bytes(
                flow.source, flow.destination, PROTOCOL_UDP, size, ttl=TTL, tos=tos, identification=0, flags=0
            )
        )
        ip[10:12] = b"\0\0"
        self.ip_sum = ones_sum(ip)
        """Sum of the IP header with TTL 64, identification 0 and checksum 0."""
        length = size - IPV4_HEADER_LENGTH
        self.ports_length = (flow.source_port, UDP_PORT, length)
        udp = b"".join(value.to_bytes(2, "big") for value in self.ports_length)
        constant = udp + b"\0\0" + PAYLOAD.pack(MAGIC, number, 0, 0, 0) + self.filler
        self.udp_sum = ones_sum(constant) + pseudo_header_sum(flow.source, flow.destination, PROTOCOL_UDP, length)
        """Sum of the datagram and its pseudo header with start, sequence number, time and checksum 0."""
        self.head = bytes(ip[:4])
        """Version, header length, TOS and total length: they arrive as they left."""
        self.source = bytes(ip[12:16])
        self.ports = udp
        self.magic = pattern
        self._packet = bytes(HEADROOM) + bytes(ip) + constant

    def make(self, mac: bytes, own_mac: bytes, numbering: int, first: int, count: int, now_ns: int) -> bytearray:
        """Return `count` frames end to end with sequence numbers from `first` on, sent at `now_ns` (ns), between
        two MAC addresses."""
        frame = bytearray(self._packet)
        frame[:HEADROOM] = header(mac, own_mac, ETHERTYPE_IPV4)
        size = len(frame)
        ip_at, udp_at, run_at = HEADROOM + 4, HEADROOM + 26, HEADROOM + OVERHEAD + 12
        _RUN_TIME.pack_into(frame, run_at, numbering, 0, now_ns)
        body = frame * count
        ip_sum, udp_sum = self.ip_sum, self.udp_sum + numbering + now_ns
        patch_ip, patch_udp, patch_sequence = _IDENTIFICATION.pack_into, _WORD.pack_into, _SEQUENCE.pack_into
        sequence_at = run_at + 4
        destination, destinations = self.flow.destination, self.flow.destinations
        further = 0
        for sequence in range(first, first + count):
            identification = sequence & 0xFFFF
            if destinations > 1:
                further = sequence % destinations << 8
                _ADDRESS.pack_into(body, ip_at + 12, destination + further)
            patch_ip(
                body,
                ip_at,
                identification,
                0,
                TTL,
                PROTOCOL_UDP,
                (0xFFFF - (ip_sum + identification + further) % 0xFFFF) % 0xFFFF,
            )
            patch_udp(body, udp_at, 0xFFFF - (udp_sum + sequence + further) % 0xFFFF)
            patch_sequence(body, sequence_at, sequence)
            ip_at += size
            udp_at += size
            sequence_at += size
        return body

    def lengths(self, count: int) -> array[int]:
        """Return the lengths (octets, headroom included) of `count` packets of `make`."""
        return array("H", (self.flow.size + HEADROOM,)) * count

    def has_ends(self, octets: bytes) -> bool:
        """Whether addresses and ports, 12 octets of a packet, are those of the flow."""
        destination = int.from_bytes(octets[4:8], "big")
        return octets[:4] == self.source and octets[8:] == self.ports[:4] and destination in self.flow.targets

    def is_intact(
        self,
        sequence: int,
        numbering: int,
        sent: int,
        identification: int,
        ttl: int,
        destination: int,
        sums: tuple[int, int],
    ) -> bool:
        """Whether identification, destination and both checksums (IPv4, UDP) are those of this packet, after hops
        that changed only its TTL."""
        further = sequence % self.flow.destinations << 8
        ip_sum = self.ip_sum + further + identification - ((TTL - ttl) << 8)
        return (
            identification == sequence & 0xFFFF
            and destination == self.flow.destination + further
            and (sums[0] + ip_sum) % 0xFFFF == 0
            and (sums[1] + self.udp_sum + further + numbering + sent + sequence) % 0xFFFF == 0
        )


_RUN_TIME = Struct("!IQQ")
_IDENTIFICATION = Struct("!HHBBH")
_WORD = Struct("!H")
_ADDRESS = Struct("!I")
_SEQUENCE = Struct("!Q")
