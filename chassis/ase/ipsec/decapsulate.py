"""Decapsulation of ESP and AH packets, a batch at a time (RFC 4301 5.2).

In: outer packets for local addresses of one context. Out: the inner IPv4 packets by tunnel, the dropped packets by
cause, and the packets that are not for an SA (IKE, ICMP, fragments). The destination, protocol and SPI of a packet
select its SA; the packets of one SA are verified and decrypted together. Replay windows are stored before a packet
is returned. An inner packet is returned only if the selectors of its SA match it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from chassis.ase.ipsec.ah import AhReceiver
from chassis.ase.ipsec.causes import Drops, IpsecDropCause, UnknownSa, add_count
from chassis.ase.ipsec.esp import DropItem, EspReceiver, Item, Span
from chassis.ase.ipsec.gcm import GcmReceiver
from chassis.ase.ipsec.ipcomp import decompress
from chassis.ase.ipsec.outer_header import FRAGMENTATION_NEEDED, IPSEC_PROTOCOLS
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, InboundSa
from chassis.ase.ipsec.spd import Classifier, FlowCaches, Rule
from chassis.ase.ipsec.state import WindowStore
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.ipv4 import (
    FRAGMENT_MASK,
    IPV4_HEADER_LENGTH,
    PROTOCOL_AH,
    PROTOCOL_ESP,
    PROTOCOL_ICMP,
    PROTOCOL_IPCOMP,
    PROTOCOL_IPIP,
    PROTOCOL_NONE,
    PROTOCOL_UDP,
)
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH

_OUTER: Final = struct.Struct("!BBHxxHxBxxIIIII").unpack_from
_THREE: Final = struct.Struct("!III").unpack_from
_TWO: Final = struct.Struct("!II").unpack_from
_SOURCE: Final = struct.Struct("!I").unpack_from
_PORT: Final = struct.Struct("!H").unpack_from
_CHECKSUM: Final = struct.Struct("!H")
_MIN_LENGTH: Final = HEADROOM + IPV4_HEADER_LENGTH + 12
"""Shortest packet that can be ESP or AH: the three words after the outer header hold SPI and sequence number."""

_ALLOWED: Final = 1

SelectorCheck: TypeAlias = Callable[[memoryview, int, int], int]
"""`allows(view, start, end)` returns `_ALLOWED` for an inner packet that the selectors match."""

_ECN_MASK, _NOT_ECT, _ECT_1, _ECT_0, _CE = 3, 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class DecapsulatedGroup:
    """Inner packets of one tunnel, as a batch. `origins[i]` is the index of packet i in the batch given."""

    tunnel: int
    body: bytearray
    lengths: array[int]
    origins: Sequence[int]


@dataclass(frozen=True, slots=True)
class DecapsulationResult:
    """Inner packets in groups, ordered by the first packet of each group, and the drops.

    `negotiated`: the SAs of IKE that received authentic packets. `punted`: IPv4 packets for other handlers: UDP to
    an IKE port, ICMP "fragmentation needed", and fragments, which must be reassembled first (RFC 4303 3.4.1).
    """

    groups: tuple[DecapsulatedGroup, ...]
    drops: Drops
    negotiated: tuple[Decapsulator, ...] = ()
    punted: tuple[memoryview, ...] = ()


InnerPacket: TypeAlias = tuple[int, memoryview | bytes]
"""(index in the batch, inner packet)."""


def merge_ecn(inner: memoryview, outer: int) -> bytes | None:
    """Return the inner packet with the outer ECN field merged in; None if it must be dropped (RFC 6040 figure 4).

    Call it for outer fields ECT(1) and CE: the other two change nothing.
    """
    ecn = inner[1] & _ECN_MASK
    if outer == _CE:
        if ecn == _NOT_ECT:
            return None
        merged = _CE
    else:
        merged = _ECT_1 if ecn == _ECT_0 else ecn
    packet = bytearray(inner)
    before = packet[0] << 8 | packet[1]
    packet[1] = packet[1] & ~_ECN_MASK | merged
    after = packet[0] << 8 | packet[1]
    total = (~_CHECKSUM.unpack_from(packet, 10)[0] & 0xFFFF) + (~before & 0xFFFF) + after  # RFC 1624
    total = (total & 0xFFFF) + (total >> 16)
    _CHECKSUM.pack_into(packet, 10, ~(total + (total >> 16)) & 0xFFFF)
    return bytes(packet)


class Decapsulator:
    """An installed inbound SA: keyed contexts, replay windows and counters.

    `packets` and `octets` count authentic outer packets, `decapsulated` the inner packets returned, `drops` all
    others by cause. `udp_source` is the (address, port) of the newest authentic UDP-encapsulated packet (RFC
    3948).
    """

    __slots__ = (
        "_ah",
        "_caches",
        "_esp",
        "_restriction",
        "_selectors",
        "decapsulated",
        "drops",
        "octets",
        "packets",
        "sa",
        "udp_source",
    )

    def __init__(self, sa: InboundSa, slots: Sequence[WindowStore], caches: FlowCaches | None = None) -> None:
        """`slots` keep the windows of the SA's protocols, outermost first. `caches` is shared by all SAs of the
        ASP."""
        self._caches = caches
        self.sa = sa
        self._ah = AhReceiver(sa.ah, sa.window, slots[0], sa.esn) if sa.ah else None
        self._esp: EspReceiver | None = None
        if sa.esp is not None:
            kind = GcmReceiver if sa.esp.cipher_algorithm.combined else EspReceiver
            self._esp = kind(sa.esp, sa.window, slots[-1], sa.esn)
        self.udp_source: tuple[int, int] | None = None
        self._selectors = (
            Classifier([(rule, _ALLOWED) for rule in sa.selectors], 1 - _ALLOWED, caches) if sa.selectors else None
        )
        self._restriction: Classifier | None = None
        self.packets = 0
        self.octets = 0
        self.decapsulated = 0
        self.drops: dict[IpsecDropCause, int] = {}

    def restrict_selectors(self, rules: tuple[Rule, ...] | None) -> None:
        """Accept only inner packets that also match these rules, mirrored, beside the SA's own selectors.

        `()` matches everything. None (the SPD entry was removed) matches nothing.
        """
        mirrored = () if rules is None else tuple([rule.mirrored() for rule in rules])
        if rules is None or (mirrored and mirrored != self.sa.selectors):
            self._restriction = Classifier([(rule, _ALLOWED) for rule in mirrored], 1 - _ALLOWED, self._caches)
        else:
            self._restriction = None

    def _selector_check(self) -> SelectorCheck | None:
        """Return the check of selectors and restriction; None if both match everything."""
        checks = [
            check.value
            for check in (self._selectors, self._restriction)
            if check is not None and check.constant is None
        ]
        if len(checks) < 2:
            return checks[0] if checks else None
        agreed, present = checks

        def both(view: memoryview, start: int, end: int) -> int:
            return agreed(view, start, end) & present(view, start, end)

        return both

    def decapsulate(self, view: memoryview, items: list[Item], drops: Drops) -> list[InnerPacket]:
        """Decapsulate packets of this SA; return (index, inner packet) of those that pass all checks.

        Dropped packets are counted in `drops` and in `self.drops`.
        """

        def drop(cause: IpsecDropCause, item: Item, spi: int) -> None:
            drops.add(cause, spi, _SOURCE(view, item[1] + 12)[0], item[5], tunnel)
            add_count(self.drops, cause)

        clear, spans = view, []
        spi, tunnel = self.sa.protocols[0][1], self.sa.tunnel
        if self._ah is not None:
            spans = self._ah.verify_icv(view, items, drop)
            if self._esp is not None:
                items = self._esp_items(view, spans, drop)
        if self._esp is not None:
            clear, spans = self._esp.decrypt(view, items, drop)
        self.packets += len(spans)
        self.octets += sum([span[0][3] - span[0][1] for span in spans])
        if self.sa.udp and spans:
            self._update_udp_source(view, spans[-1][0])
        allows = self._selector_check()
        result: list[InnerPacket] = []
        add = result.append
        for item, start, end, protocol in spans:
            octets = clear
            if protocol != PROTOCOL_IPIP:
                decompressed = self._decompressed(clear[start:end], protocol, item, drop)
                if decompressed is None:
                    continue
                octets, start, end = memoryview(decompressed), 0, len(decompressed)
            first = octets[start] if end - start >= IPV4_HEADER_LENGTH else 0
            total = octets[start + 2] << 8 | octets[start + 3] if first else 0
            if first >> 4 != 4 or not IPV4_HEADER_LENGTH <= (first & 15) << 2 <= total <= end - start:
                drop(IpsecDropCause.MALFORMED, item, spi)
                continue
            end = start + total
            if allows is not None and allows(octets, start, end) != _ALLOWED:
                # The peer is authentic, so the sample names the source of the inner packet (RFC 4301 5.2).
                drops.add(IpsecDropCause.SELECTOR_MISMATCH, spi, _SOURCE(octets, start + 12)[0], item[5], tunnel)
                add_count(self.drops, IpsecDropCause.SELECTOR_MISMATCH)
                continue
            if not item[4] & _ECT_1:
                add((item[0], octets[start:end]))
                continue
            merged = merge_ecn(octets[start:end], item[4] & _ECN_MASK)  # ECT(1) or CE outside
            if merged is None:
                drop(IpsecDropCause.ECN, item, spi)
            else:
                add((item[0], merged))
        self.decapsulated += len(result)
        return result

    def _update_udp_source(self, view: memoryview, item: Item) -> None:
        """Remember the source of an authentic packet (RFC 7296 2.23).

        Ignore a packet that is not the newest, because it may have been sent before the NAT mapping changed, and
        any packet of an SA without integrity.
        """
        assert self._esp is not None
        assert self.sa.esp is not None
        newest = (self._esp.edge & 0xFFFFFFFF) == item[5] and self.sa.esp.icv_octets
        if newest and view[item[1] + 9] == PROTOCOL_UDP:
            self.udp_source = (_SOURCE(view, item[1] + 12)[0], _PORT(view, item[2] - UDP_HEADER_LENGTH)[0])

    def _decompressed(self, data: memoryview, protocol: int, item: Item, drop: DropItem) -> bytes | None:
        """Return the decompressed packet (RFC 3173); None after counting a drop if `data` is not one."""
        packet: bytes | None = None
        if protocol == PROTOCOL_IPCOMP and self.sa.ip_comp:
            packet = decompress(data, self.sa.cpi)
            cause = IpsecDropCause.DECOMPRESSION_FAILED
        else:
            cause = IpsecDropCause.DUMMY if protocol == PROTOCOL_NONE else IpsecDropCause.NOT_TUNNEL_MODE
        if packet is None:
            drop(cause, item, self.sa.protocols[-1][1])
        return packet

    def _esp_items(self, view: memoryview, spans: list[Span], drop: DropItem) -> list[Item]:
        """Return the packets inside AH as items of the ESP header, whose SPI must be this SA's."""
        assert self._esp is not None
        items: list[Item] = []
        for item, start, end, protocol in spans:
            index, ip, _, _, service, _ = item
            if protocol != PROTOCOL_ESP:
                drop(IpsecDropCause.NOT_TUNNEL_MODE, item, self.sa.protocols[0][1])
                continue
            if end - start < ESP_HEADER_LENGTH:
                drop(IpsecDropCause.MALFORMED, item, self._esp.spi)
                continue
            spi, number = _TWO(view, start)
            if spi != self._esp.spi:
                drop(IpsecDropCause.NO_INBOUND_SA, (*item[:5], number), spi)
            else:
                items.append((index, ip, start, end, service, number))
        return items


InboundKey: TypeAlias = tuple[int, int, int]
"""(destination, protocol, SPI) within one context."""


def decapsulate_batch(
    inbound: Mapping[InboundKey, Decapsulator], body: bytes | bytearray | memoryview, lengths: Sequence[int]
) -> DecapsulationResult:
    """Decapsulate a batch with the inbound SAs of the context that received it.

    `lengths` are octets, headroom included. Nothing is raised for the content of packets: a packet that fails a
    check is counted in `drops` of the result.
    """
    drops = Drops()
    view = memoryview(body)
    punted: list[memoryview] = []
    pending = _items_by_sa(inbound, view, lengths, drops, punted)
    negotiated: list[Decapsulator] = []
    by_tunnel: dict[int, list[InnerPacket]] = {}
    mixed: set[int] = set()
    for decapsulator, items in pending.items():
        before = decapsulator.packets
        clear = decapsulator.decapsulate(view, items, drops)
        if decapsulator.sa.negotiated and decapsulator.packets != before:
            negotiated.append(decapsulator)
        if not clear:
            continue
        tunnel = decapsulator.sa.tunnel
        if tunnel in by_tunnel:
            by_tunnel[tunnel] += clear
            mixed.add(tunnel)
        else:
            by_tunnel[tunnel] = clear
    groups: list[DecapsulatedGroup] = []
    for tunnel, packets in by_tunnel.items():
        if tunnel in mixed:
            packets.sort(key=lambda packet: packet[0])
        pieces: list[memoryview | bytes] = []
        sizes: list[int] = []
        for _, packet in packets:
            pieces += (HEADROOM_FILL, packet)
            sizes.append(HEADROOM + len(packet))
        origins = [index for index, _ in packets]
        groups.append(DecapsulatedGroup(tunnel, bytearray().join(pieces), array("H", sizes), origins))
    groups.sort(key=lambda group: group.origins[0])
    return DecapsulationResult(tuple(groups), drops, tuple(negotiated), tuple(punted))


def _items_by_sa(
    inbound: Mapping[InboundKey, Decapsulator],
    view: memoryview,
    lengths: Sequence[int],
    drops: Drops,
    punted: list[memoryview],
) -> dict[Decapsulator, list[Item]]:
    """Return the packets of a batch by their SA. Punt fragments, packets for IKE and ICMP "fragmentation needed";
    drop all others."""
    pending: dict[Decapsulator, list[Item]] = {}
    add: Callable[[Item], None] | None = None
    last: InboundKey | None = None
    size = len(view)
    offset = 0
    for index, length in enumerate(lengths):
        start = offset + HEADROOM
        offset += length
        if length < _MIN_LENGTH or offset > size:
            short = _short_packet(view, start, min(offset, size))
            if short is None:
                drops.add(IpsecDropCause.MALFORMED)
            else:
                punted.append(short)
            continue
        version_length, service, total, flags, protocol, source, destination, one, two, three = _OUTER(view, start)
        at = start + IPV4_HEADER_LENGTH
        end = start + total
        if version_length != 0x45:
            at = start + (version_length & 15) * 4
            if version_length >> 4 != 4 or at < start + IPV4_HEADER_LENGTH or at + 12 > offset:
                drops.add(IpsecDropCause.MALFORMED, 0, source)
                continue
            one, two, three = _THREE(view, at)
        if end > offset or end < at + 12:
            short = _short_packet(view, start, offset)
            if short is None:
                drops.add(IpsecDropCause.MALFORMED, 0, source)
            else:
                punted.append(short)
            continue
        if flags & FRAGMENT_MASK:
            if protocol in IPSEC_PROTOCOLS:
                punted.append(view[start:end])
            else:
                drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
            continue
        if protocol == PROTOCOL_ESP:
            spi, number = one, two
        elif protocol == PROTOCOL_AH:
            spi, number = two, three
        elif protocol == PROTOCOL_UDP:
            port = one & 0xFFFF
            if port == IKE_PORT or (
                port == NAT_PORT and (not three or end < at + UDP_HEADER_LENGTH + ESP_HEADER_LENGTH)
            ):
                # On port 4500 a zero SPI marks a message of IKE (RFC 3948 2.2).
                punted.append(view[start:end])
                continue
            if port != NAT_PORT:
                drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
                continue
            if two >> 16 != end - at:
                drops.add(IpsecDropCause.MALFORMED, 0, source)
                continue
            at += UDP_HEADER_LENGTH
            protocol = PROTOCOL_ESP
            spi, number = _TWO(view, at)
        elif protocol == PROTOCOL_ICMP and one >> 16 == FRAGMENTATION_NEEDED:
            punted.append(view[start:end])
            continue
        else:
            drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
            continue
        key = (destination, protocol, spi)
        if key != last:
            decapsulator = inbound.get(key)
            last = key
            if decapsulator is None:
                add = None
            else:
                add = pending.setdefault(decapsulator, []).append
        if add is None:
            drops.add(IpsecDropCause.NO_INBOUND_SA, spi, source, number)
            if drops.unknown is None:
                udp_port = _PORT(view, at - UDP_HEADER_LENGTH)[0] if view[start + 9] == PROTOCOL_UDP else 0
                drops.unknown = UnknownSa(source, destination, protocol, spi, udp_port)
        else:
            add((index, start, at, end, service, number))
    return pending


def _short_packet(view: memoryview, start: int, stop: int) -> memoryview | None:
    """Return a packet too short for ESP if it must be punted: a UDP datagram (a NAT keepalive has one octet,
    RFC 3948 2.3) or the last fragment of a packet. Otherwise None."""
    if stop - start < IPV4_HEADER_LENGTH or view[start] >> 4 != 4 or view[start + 9] not in IPSEC_PROTOCOLS:
        return None
    if view[start + 9] != PROTOCOL_UDP and not (view[start + 6] << 8 | view[start + 7]) & FRAGMENT_MASK:
        return None
    end = start + (view[start + 2] << 8 | view[start + 3])
    return view[start:end] if start + IPV4_HEADER_LENGTH < end <= stop else None
