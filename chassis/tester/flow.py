"""Flows: the format of a numbered UDP packet, and a template that makes and checks a batch of them.

The UDP payload is a magic number, the flow's number, the source's numbering, the sequence number and the time of
sending, then a filler that depends on the flow alone. The sequence number and the time determine all other octets,
so a sink detects every packet that differs from what was sent. The identification of the IPv4 header is the low
half of the sequence number.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chassis.bus.batch import MAX_PACKETS
from chassis.net.address import format_address, parse_address
from chassis.net.checksum import ones_sum, pseudo_header_sum
from chassis.net.columns import Numbers
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


MIN_COLUMN_PACKETS = 8
"""Packets (count) of a batch from which on they are numbered by columns; a loop is faster for fewer."""

_IDENTIFICATION_AT = HEADROOM + 4
_TTL_AT = HEADROOM + 8
_UDP_SUM_AT = HEADROOM + 26
_NUMBERING_AT = HEADROOM + OVERHEAD + 12
_SEQUENCE_AT = _NUMBERING_AT + 4
_IDENTIFICATION = Struct("!HHBBH")
_WORD = Struct("!H")
_ADDRESS = Struct("!I")
SEQUENCE_TIME = Struct("!QQ")
"""Sequence number and time of sending (ns)."""

_COLUMNS = (
    ("identification", ">u2", _IDENTIFICATION_AT),
    ("ip_sum", ">u2", HEADROOM + 10),
    ("destination", ">u4", HEADROOM + 16),
    ("udp_sum", ">u2", _UDP_SUM_AT),
    ("sequence", ">u8", _SEQUENCE_AT),
    ("sent", ">u8", _SEQUENCE_AT + 8),
)
"""What differs between the packets of a flow: name, number, octet of the frame."""

_INDEX = np.arange(MAX_PACKETS)
_UDP_SUMS = (0xFFFF - np.arange(2 * 0xFFFF + MAX_PACKETS) % 0xFFFF).astype(">u2")
"""The UDP checksum by the sum of all other words. Those of a run of packets are a part of it."""
_IP_SUMS = np.where(_UDP_SUMS == 0xFFFF, 0, _UDP_SUMS).astype(">u2")
"""The same of an IPv4 header; 65535 is 0 there."""


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
        self._columns = np.dtype(
            {
                "names": [name for name, _, _ in _COLUMNS],
                "formats": [number for _, number, _ in _COLUMNS],
                "offsets": [at for _, _, at in _COLUMNS],
                "itemsize": size + HEADROOM,
            }
        )
        several = flow.destinations + MAX_PACKETS if flow.destinations > 1 else 0
        targets = np.resize(np.array(flow.targets), several)
        self._targets = targets.astype(">u4")
        """Destinations of a run of packets, from any one on."""
        self._steps: Numbers = (targets - flow.destination) % 0xFFFF
        """What the sums of each have more than those of the first destination, modulo 65535."""
        self._row_of: tuple[bytes, bytes, int, int] | None = None
        self._row = b""

    def make(self, mac: bytes, own_mac: bytes, numbering: int, first: int, count: int, now_ns: int) -> bytearray:
        """Return `count` frames end to end with sequence numbers from `first` on, sent at `now_ns` (ns), between
        two MAC addresses."""
        row = self.row(mac, own_mac, TTL, numbering)
        if count < MIN_COLUMN_PACKETS:
            return self.numbered(row, TTL, numbering, zip(range(first, first + count), repeat(now_ns)), count)
        body = bytearray(row) * count
        self.number_run(self.table(body), TTL, numbering, first, now_ns)
        return body

    def lengths(self, count: int) -> array[int]:
        """Return the lengths (octets, headroom included) of `count` packets of `make`."""
        return array("H", (self.flow.size + HEADROOM,)) * count

    def row(self, mac: bytes, source_mac: bytes, ttl: int, numbering: int) -> bytes:
        """Return the frame between two MAC addresses with everything that packets of one numbering, with one TTL,
        have in common; the rest of it is not valid."""
        key = mac, source_mac, ttl, numbering
        if key != self._row_of:
            frame = bytearray(self._packet)
            frame[:HEADROOM] = header(mac, source_mac, ETHERTYPE_IPV4)
            frame[_TTL_AT] = ttl
            frame[_NUMBERING_AT : _NUMBERING_AT + 4] = numbering.to_bytes(4, "big")
            self._row_of, self._row = key, bytes(frame)
        return self._row

    def numbered(
        self, row: bytes, ttl: int, numbering: int, numbers: Iterable[tuple[int, int]], count: int
    ) -> bytearray:
        """Return `count` frames end to end, made of `row`, with each (sequence number, time of sending (ns)) of
        `numbers`. For few packets: it is a loop."""
        body = bytearray(row) * count
        size = len(row)
        ip_at, udp_at, sequence_at = _IDENTIFICATION_AT, _UDP_SUM_AT, _SEQUENCE_AT
        ip_sum, udp_sum = self.ip_sum - ((TTL - ttl) << 8), self.udp_sum + numbering
        patch_ip, patch_udp, patch_sequence = _IDENTIFICATION.pack_into, _WORD.pack_into, SEQUENCE_TIME.pack_into
        destination, destinations = self.flow.destination, self.flow.destinations
        further = 0
        for sequence, sent in numbers:
            identification = sequence & 0xFFFF
            if destinations > 1:
                further = sequence % destinations << 8
                _ADDRESS.pack_into(body, ip_at + 12, destination + further)
            patch_ip(
                body, ip_at, identification, 0, ttl, PROTOCOL_UDP, -(ip_sum + identification + further) % 0xFFFF
            )
            patch_udp(body, udp_at, 0xFFFF - (udp_sum + sequence + sent + further) % 0xFFFF)
            patch_sequence(body, sequence_at, sequence, sent)
            ip_at += size
            udp_at += size
            sequence_at += size
        return body

    def table(self, body: bytearray | memoryview) -> NDArray[np.void]:
        """Return frames of this flow's size that lie end to end, by the columns in which they differ:
        `identification`, `ip_sum`, `destination`, `udp_sum`, `sequence`, `sent`. The memory is that of `body`."""
        return np.frombuffer(body, self._columns)

    def number_run(self, table: NDArray[np.void], ttl: int, numbering: int, first: int, sent: int) -> None:
        """Write what differs into frames with sequence numbers from `first` on, below 2**63, and one time (ns)."""
        count, low = len(table), first & 0xFFFF
        sequences = np.arange(first, first + count)
        if low + count > 0x10000 or count > MAX_PACKETS:
            self.number(table, ttl, numbering, sequences, sent)
            return
        table["identification"] = table["sequence"] = sequences
        table["sent"] = sent
        # Each packet's sums are one more than those of the packet before it.
        ip_at = (self.ip_sum - ((TTL - ttl) << 8) + low) % 0xFFFF
        udp_at = (self.udp_sum + numbering + first + sent) % 0xFFFF
        destinations = self.flow.destinations
        if destinations == 1:
            table["ip_sum"] = _IP_SUMS[ip_at : ip_at + count]
            table["udp_sum"] = _UDP_SUMS[udp_at : udp_at + count]
            return
        at = first % destinations
        table["destination"] = self._targets[at : at + count]
        steps = self._steps[at : at + count] + _INDEX[:count]
        table["ip_sum"] = _IP_SUMS[steps + ip_at]
        table["udp_sum"] = _UDP_SUMS[steps + udp_at]

    def number(
        self, table: NDArray[np.void], ttl: int, numbering: int, sequences: Numbers, sent: Numbers | int
    ) -> None:
        """Write what differs into frames with these sequence numbers and times of sending (ns), or one for all."""
        low = sequences & 0xFFFF
        ip_sums = low + (self.ip_sum - ((TTL - ttl) << 8))
        udp_sums = sequences % 0xFFFF + (sent % 0xFFFF + (self.udp_sum + numbering) % 0xFFFF)
        destination, destinations = self.flow.destination, self.flow.destinations
        if destinations > 1:
            further = sequences % destinations << 8
            table["destination"] = further + destination
            ip_sums += further
            udp_sums += further
        table["identification"], table["sequence"], table["sent"] = low, sequences, sent
        table["ip_sum"] = -ip_sums % 0xFFFF
        table["udp_sum"] = 0xFFFF - udp_sums % 0xFFFF

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
