"""An inbound SA that decapsulates (RFC 4301 5.2): its checks, its replay windows and its counters."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from chassis.ase.ipsec.ah import AhReceiver
from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.causes import Drops, IpsecDropCause, add_count
from chassis.ase.ipsec.cipher_engine import TRAILERS, CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.esp import (
    Clear,
    DropItem,
    EspReceiver,
    Received,
    ReceivedColumns,
    Span,
    layout_of,
    payload_end,
)
from chassis.ase.ipsec.inbound_table import (
    CHECKED,
    DECAPSULATED,
    LAYOUT,
    NEGOTIATED,
    OCTETS,
    PACKETS,
    QUIET_UNTIL,
    TUNNEL,
    UDP,
    InboundTable,
)
from chassis.ase.ipsec.inner_columns import InnerColumns, read_inner
from chassis.ase.ipsec.ipcomp import decompress
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, InboundSa
from chassis.ase.ipsec.spd import Classifier, FlowCaches, Rule
from chassis.ase.ipsec.state import WindowStore
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.ipv4 import (
    IPV4_HEADER_LENGTH,
    PROTOCOL_ESP,
    PROTOCOL_IPCOMP,
    PROTOCOL_IPIP,
    PROTOCOL_NONE,
    PROTOCOL_UDP,
)
from chassis.net.udp import UDP_HEADER_LENGTH

_TWO: Final = struct.Struct("!II").unpack_from
_SOURCE: Final = struct.Struct("!I").unpack_from
_INNER: Final = struct.Struct("!BxH").unpack_from
_PORT: Final = struct.Struct("!H").unpack_from
_CHECKSUM: Final = struct.Struct("!H")

_ALLOWED: Final = 1
_NO_OPTIONS: Final = 0x45
"""Version and header length of an IPv4 packet without options."""

SelectorCheck: TypeAlias = Callable[[Octets, int, int], int]
"""`allows(octets, start, end)` returns `_ALLOWED` for an inner packet that the selectors match."""

_ECN_MASK, _NOT_ECT, _ECT_1, _ECT_0, _CE = 3, 0, 1, 2, 3


InnerPackets: TypeAlias = tuple[Sequence[Octets], Sequence[int], Sequence[int]]
"""Inner packets, each after its headroom, as two octet strings in a list or all of them in one; the length of each
with headroom; and its index in the batch."""

_Found: TypeAlias = tuple[list[Octets], list[int], list[int]]
"""`InnerPackets` that are added to: two octet strings for each."""


def apart(found: InnerPackets) -> _Found:
    """Return inner packets as two octet strings each."""
    pieces, sizes, origins = found
    if isinstance(pieces, list):
        return pieces, list(sizes), list(origins)
    view = memoryview(pieces[0])
    apart: list[Octets] = []
    for after, size in zip(accumulate(sizes), sizes, strict=True):
        apart += (HEADROOM_FILL, view[after - size + HEADROOM : after])
    return apart, list(sizes), list(origins)


def merge_ecn(inner: Octets, outer: int) -> bytes | None:
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

    `packets` and `octets` count authentic outer packets, `decapsulated` the inner packets returned, all in its row
    of the table; `drops` all others by cause. `udp_source` is the (address, port) of the newest authentic
    UDP-encapsulated packet (RFC 3948).
    """

    __slots__ = (
        "_ah",
        "_at",
        "_caches",
        "_restriction",
        "_selectors",
        "_table",
        "allows",
        "drops",
        "heard",
        "negotiated",
        "receiver",
        "row",
        "sa",
        "tunnel",
        "udp_source",
    )

    def __init__(
        self,
        sa: InboundSa,
        slots: Sequence[WindowStore],
        caches: FlowCaches | None = None,
        engine: CipherEngine = CRYPTOGRAPHY,
        table: InboundTable | None = None,
    ) -> None:
        """`slots` keep the windows of the SA's protocols, outermost first. `caches`, `engine` and `table` are
        shared by all SAs of the ASP."""
        self._caches = caches
        self._table = table or InboundTable()
        self.row = self._table.allocate()
        self._at = self.row * self._table.width
        self.negotiated = sa.negotiated
        self.heard = False
        """Set with each authentic packet."""
        self.sa = sa
        self.tunnel = sa.tunnel
        self._ah = AhReceiver(sa.ah, sa.window, slots[0], sa.esn) if sa.ah else None
        self.receiver: EspReceiver | None = None
        if sa.esp is not None:
            self.receiver = EspReceiver(sa.esp, sa.window, slots[-1], sa.esn, engine, (self._table, self.row))
        layout = layout_of(sa.esp, sa.esn) if sa.esp is not None and sa.ah is None else None
        set_cell = self._table.set
        set_cell(self.row, LAYOUT, self._table.place(layout))
        set_cell(self.row, TUNNEL, sa.tunnel)
        set_cell(self.row, NEGOTIATED, sa.negotiated)
        set_cell(self.row, UDP, sa.udp)
        self.udp_source: tuple[int, int] | None = None
        self._selectors = (
            Classifier([(rule, _ALLOWED) for rule in sa.selectors], 1 - _ALLOWED, caches) if sa.selectors else None
        )
        self._restriction: Classifier | None = None
        self.allows = self._selector_check()
        self.drops: dict[IpsecDropCause, int] = {}

    def __del__(self) -> None:
        self._table.free(self.row)

    @property
    def packets(self) -> int:
        """Authentic outer packets."""
        return self._table.get(self.row, PACKETS)

    @property
    def octets(self) -> int:
        """Octets of the authentic outer packets."""
        return self._table.get(self.row, OCTETS)

    @property
    def decapsulated(self) -> int:
        """Inner packets returned."""
        return self._table.get(self.row, DECAPSULATED)

    @property
    def quiet_until(self) -> int:
        """Octets below which nothing follows from more packets of a negotiated SA that was seen before."""
        return self._table.get(self.row, QUIET_UNTIL)

    @quiet_until.setter
    def quiet_until(self, octets: int) -> None:
        self._table.set(self.row, QUIET_UNTIL, octets)

    def _add(self, packets: int, octets: int, decapsulated: int) -> None:
        """Count packets."""
        if packets:
            self.heard = True
            cells, at = self._table.cells, self._at
            cells[at + PACKETS] += packets
            cells[at + OCTETS] += octets
            cells[at + DECAPSULATED] += decapsulated

    @property
    def is_quiet(self) -> bool:
        """Whether nothing follows from the packets counted since `quiet_until` was set."""
        cells, at = self._table.cells, self._at
        quiet: bool = cells[at + OCTETS] < cells[at + QUIET_UNTIL]
        return quiet

    def restrict_selectors(self, rules: tuple[Rule, ...] | None) -> None:
        """Accept only inner packets that also match these rules, mirrored, beside the SA's own selectors.

        `()` matches everything. None (the SPD entry was removed) matches nothing.
        """
        mirrored = () if rules is None else tuple([rule.mirrored() for rule in rules])
        if rules is None or (mirrored and mirrored != self.sa.selectors):
            self._restriction = Classifier([(rule, _ALLOWED) for rule in mirrored], 1 - _ALLOWED, self._caches)
        else:
            self._restriction = None
        self.allows = self._selector_check()

    def _selector_check(self) -> SelectorCheck | None:
        """Return the check of selectors and restriction; None if both match everything."""
        checks = [
            check.value
            for check in (self._selectors, self._restriction)
            if check is not None and check.constant is None
        ]
        self._table.set(self.row, CHECKED, bool(checks))
        if len(checks) < 2:
            return checks[0] if checks else None
        agreed, present = checks

        def both(octets: Octets, start: int, end: int) -> int:
            return agreed(octets, start, end) & present(octets, start, end)

        return both

    def _dropper(self, view: memoryview, drops: Drops) -> DropItem:
        """Return the function that counts a dropped packet of this SA."""
        tunnel = self.sa.tunnel

        def drop(cause: IpsecDropCause, item: Item, spi: int) -> None:
            drops.add(cause, spi, _SOURCE(view, item[1] + 12)[0], item[5], tunnel)
            add_count(self.drops, cause)

        return drop

    def begin(self, view: memoryview, items: list[Item], drops: Drops) -> list[Span] | Received | None:
        """Begin to decapsulate packets of this SA; return what `finish` needs, or None if nothing is left of them.

        Dropped packets are counted in `drops` and in `self.drops`.
        """
        drop = self._dropper(view, drops)
        spans: list[Span] = []
        if self._ah is not None:
            spans = self._ah.verify_icv(view, items, drop)
            if self.receiver is None:
                return spans or None
            items = self._esp_items(view, spans, drop)
        assert self.receiver is not None
        return self.receiver.begin(view, items, drop)

    def begin_few(self, view: memoryview, items: list[Item]) -> list[Received] | None:
        """Begin to decapsulate each packet alone; None, with nothing done, where only `begin` can."""
        return None if self._ah is not None or self.receiver is None else self.receiver.begin_few(view, items)

    def begin_columns(self, packets: PacketColumns) -> ReceivedColumns | None:
        """Begin to decapsulate many packets; None, with nothing done, where only `begin` can."""
        return None if self._ah is not None or self.receiver is None else self.receiver.begin_columns(packets)

    def finish_few(self, view: memoryview, begun: Sequence[Received], drops: Drops) -> InnerPackets:
        """Return the inner packets of what `begin_few` began, as `finish` does."""
        assert self.receiver is not None
        found = self._finish_one(view, begun[0], drops)
        if len(begun) > 1:
            pieces, sizes, origins = found
            for one in begun[1:]:
                more = self._finish_one(view, one, drops)
                pieces += more[0]
                sizes += more[1]
                origins += more[2]
        if self.receiver.moved:
            self.receiver.store_window()
        return found

    def _finish_one(self, view: memoryview, begun: Received, drops: Drops) -> _Found:
        assert self.receiver is not None
        opened = self.receiver.finish_one(begun)
        if opened is None:
            return apart(self.finish(view, begun, drops))
        clear, start = opened
        item = begun[0][0]
        after = len(clear)
        stop = payload_end(clear, start, after)
        if stop is None:
            self._dropper(view, drops)(IpsecDropCause.MALFORMED, item, self.receiver.spi)
            return [], [], []
        octets = item[3] - item[1]
        if self.sa.udp:
            self._update_udp_source(view, item)
        allows = self.allows
        protocol = clear[-1]
        if protocol == PROTOCOL_IPIP and stop - start >= IPV4_HEADER_LENGTH and not item[4] & _ECT_1:
            first, total = _INNER(clear, start)
            end = start + total
            if (
                first == _NO_OPTIONS
                and IPV4_HEADER_LENGTH <= total <= stop - start
                and (allows is None or allows(clear, start, end) == _ALLOWED)
            ):
                self.heard = True
                cells, at = self._table.cells, self._at
                cells[at + PACKETS] += 1
                cells[at + OCTETS] += octets
                cells[at + DECAPSULATED] += 1
                return [HEADROOM_FILL, clear[start:end]], [HEADROOM + total], [item[0]]
        found: _Found = ([], [], [])
        self._take(clear, item, start, stop, protocol, drops, found, self._dropper(view, drops), allows)
        self._add(1, octets, len(found[1]))
        return found

    def finish(self, view: memoryview, begun: list[Span] | Received, drops: Drops) -> InnerPackets:
        """Return the inner packets that pass all checks, after the engine's `flush`.

        Dropped packets are counted in `drops` and in `self.drops`.
        """
        drop = self._dropper(view, drops)
        if isinstance(begun, list):
            found: _Found = ([], [], [])
            allows = self.allows
            for item, start, end, protocol in begun:
                self._take(view, item, start, end, protocol, drops, found, drop, allows)
            self._count([span[0] for span in begun], view, len(found[1]))
            return found
        assert self.receiver is not None
        return self._finish_items(view, self.receiver.finish(begun, drop), drops, drop)

    def finish_columns(self, view: memoryview, begun: ReceivedColumns, drops: Drops) -> InnerPackets:
        """Return the inner packets of what `begin_columns` began, as `finish` does."""
        assert self.receiver is not None
        drop = self._dropper(view, drops)
        clear = self.receiver.finish_columns(begun, drop)
        if isinstance(clear, tuple):
            return self._finish_items(view, clear, drops, drop)
        packets, strides, lead = begun.packets, begun.strides, self.receiver.lead
        allows = self.allows
        inner = read_inner(clear, packets.services, strides, lead, allows)
        if inner is None:
            each = [strides] * packets.count if isinstance(strides, int) else strides.tolist()
            octets = clear if isinstance(clear, bytes) else bytes(clear)
            return self._finish_items(view, (octets, packets.items(), each, lead), drops, drop)
        if inner.odd:
            return self._finish_odd(view, clear, inner, packets, drops, drop, allows)
        self._add(packets.count, packets.outer_octets, packets.count)
        if self.sa.udp:
            self._update_udp_source(view, packets.item(packets.count - 1))
        return (inner.body,), inner.sizes, packets.origins

    def _finish_odd(
        self,
        view: memoryview,
        clear: Octets,
        inner: InnerColumns,
        packets: PacketColumns,
        drops: Drops,
        drop: DropItem,
        allows: SelectorCheck | None,
    ) -> InnerPackets:
        """Return inner packets of which some are not ordinary: those take the checks one by one."""
        assert self.receiver is not None
        items = packets.items()
        authentic = items
        pieces: list[Octets] = list(inner.pieces)
        sizes = inner.sizes
        missing: list[int] = []
        for index in inner.odd:
            item, start, after = items[index], inner.starts[index], inner.afters[index]
            found: _Found = ([], [], [])
            stop = payload_end(clear, start, after)
            if stop is None:
                drop(IpsecDropCause.MALFORMED, item, self.receiver.spi)
                authentic = [other for other in authentic if other is not item]
            else:
                self._take(clear, item, start, stop, clear[after - 1], drops, found, drop, allows)
            if found[1]:
                pieces[index], sizes[index] = found[0][1], found[1][0]
            else:
                missing.append(index)
        origins = list(packets.origins)
        for index in reversed(missing):
            del pieces[index], sizes[index], origins[index]
        self._count(authentic, view, len(sizes))
        return (bytearray(HEADROOM).join([b"", *pieces]),), sizes, origins

    def finish_clear(self, view: memoryview, opened: Clear, drops: Drops) -> InnerPackets:
        """Return the inner packets of decrypted packets that the window took."""
        return self._finish_items(view, opened, drops, self._dropper(view, drops))

    def _finish_items(self, view: memoryview, opened: Clear, drops: Drops, drop: DropItem) -> _Found:
        assert self.receiver is not None
        pieces: list[Octets] = []
        sizes: list[int] = []
        origins: list[int] = []
        found: _Found = (pieces, sizes, origins)
        clear, items, strides, lead = opened
        allows = self.allows
        authentic = items
        padded: list[Item] | None = None
        for item, after, stride in zip(items, accumulate(strides), strides, strict=True):
            start = after - stride + lead
            padding = clear[after - ESP_TRAILER_LENGTH]
            if clear.endswith(TRAILERS[padding], start, after) and not item[4] & _ECT_1:
                # Nearly every packet: an IPv4 packet without options, with right padding.
                most = after - ESP_TRAILER_LENGTH - padding - start
                if most >= IPV4_HEADER_LENGTH:
                    first, total = _INNER(clear, start)
                    if (
                        first == _NO_OPTIONS
                        and IPV4_HEADER_LENGTH <= total <= most
                        and (allows is None or allows(clear, start, start + total) == _ALLOWED)
                    ):
                        pieces += (HEADROOM_FILL, clear[start : start + total])
                        sizes.append(HEADROOM + total)
                        origins.append(item[0])
                        continue
            stop = payload_end(clear, start, after)
            if stop is None:
                drop(IpsecDropCause.MALFORMED, item, self.receiver.spi)
                if padded is None:
                    padded = list(items)
                padded.remove(item)
                continue
            self._take(clear, item, start, stop, clear[after - 1], drops, found, drop, allows)
        self._count(authentic if padded is None else padded, view, len(sizes))
        return found

    def _count(self, items: Sequence[Item], view: memoryview, decapsulated: int) -> None:
        """Count authentic packets, and how many of them are returned."""
        self._add(len(items), sum([item[3] - item[1] for item in items]), decapsulated)
        if self.sa.udp and items:
            self._update_udp_source(view, items[-1])

    def _take(
        self,
        octets: Octets,
        item: Item,
        start: int,
        end: int,
        protocol: int,
        drops: Drops,
        found: _Found,
        drop: DropItem,
        allows: SelectorCheck | None,
    ) -> None:
        """Add the packet in an authentic payload to those found, if it passes all checks."""
        spi = self.sa.protocols[0][1]
        if protocol != PROTOCOL_IPIP:
            decompressed = self._decompressed(octets[start:end], protocol, item, drop)
            if decompressed is None:
                return
            octets, start, end = decompressed, 0, len(decompressed)
        first, total = _INNER(octets, start) if end - start >= IPV4_HEADER_LENGTH else (0, 0)
        if first >> 4 != 4 or not IPV4_HEADER_LENGTH <= (first & 15) << 2 <= total <= end - start:
            drop(IpsecDropCause.MALFORMED, item, spi)
            return
        end = start + total
        if allows is not None and allows(octets, start, end) != _ALLOWED:
            # The peer is authentic, so the sample names the source of the inner packet (RFC 4301 5.2).
            tunnel = self.sa.tunnel
            drops.add(IpsecDropCause.SELECTOR_MISMATCH, spi, _SOURCE(octets, start + 12)[0], item[5], tunnel)
            add_count(self.drops, IpsecDropCause.SELECTOR_MISMATCH)
            return
        packet: Octets = octets[start:end]
        if item[4] & _ECT_1:  # ECT(1) or CE outside
            merged = merge_ecn(packet, item[4] & _ECN_MASK)
            if merged is None:
                drop(IpsecDropCause.ECN, item, spi)
                return
            packet = merged
        pieces, sizes, origins = found
        pieces += (HEADROOM_FILL, packet)
        sizes.append(HEADROOM + total)
        origins.append(item[0])

    def _update_udp_source(self, view: memoryview, item: Item) -> None:
        """Remember the source of an authentic packet (RFC 7296 2.23).

        Ignore a packet that is not the newest, because it may have been sent before the NAT mapping changed, and
        any packet of an SA without integrity.
        """
        assert self.receiver is not None
        assert self.sa.esp is not None
        newest = (self.receiver.edge & 0xFFFFFFFF) == item[5] and self.sa.esp.icv_octets
        if newest and view[item[1] + 9] == PROTOCOL_UDP:
            self.udp_source = (_SOURCE(view, item[1] + 12)[0], _PORT(view, item[2] - UDP_HEADER_LENGTH)[0])

    def _decompressed(self, data: Octets, protocol: int, item: Item, drop: DropItem) -> bytes | None:
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
        assert self.receiver is not None
        items: list[Item] = []
        for item, start, end, protocol in spans:
            index, ip, _, _, service, _ = item
            if protocol != PROTOCOL_ESP:
                drop(IpsecDropCause.NOT_TUNNEL_MODE, item, self.sa.protocols[0][1])
                continue
            if end - start < ESP_HEADER_LENGTH:
                drop(IpsecDropCause.MALFORMED, item, self.receiver.spi)
                continue
            spi, number = _TWO(view, start)
            if spi != self.receiver.spi:
                drop(IpsecDropCause.NO_INBOUND_SA, (*item[:5], number), spi)
            else:
                items.append((index, ip, start, end, service, number))
        return items
