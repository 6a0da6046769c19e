"""ESP in tunnel mode, a batch at a time (RFC 4303): headers, trailers, replay windows.

A cipher engine (`cipher_engine`) encrypts and authenticates.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from itertools import accumulate
from operator import or_
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import IcvFunction, Octets
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.cipher_engine import TRAILERS, CipherEngine, EspOpener, EspSealer, Pending
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.inbound_table import (
    BITMAP,
    EDGE,
    MAX_NARROW,
    STATE_WORD,
    WINDOW,
    InboundTable,
    OpeningLayout,
)
from chassis.ase.ipsec.outer_header import EspHeads
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.replay import (
    Verdict,
    accept_batch,
    accept_rising,
    accept_run,
    advance,
    bits_behind,
    check,
    infer_esn,
)
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, MAX_EXTENDED_SEQUENCE, Esp, UdpPorts
from chassis.ase.ipsec.state import (
    WINDOW_WORDS,
    SaSlot,
    VolatileWindow,
    WindowStore,
    bitmap_words,
    store_windows,
)
from chassis.net.columns import Numbers
from chassis.net.ethernet import HEADROOM

Span: TypeAlias = tuple[Item, int, int, int]
"""A received packet and its payload: (item, start, end, protocol of the payload)."""

Clear: TypeAlias = tuple[bytes | bytearray, Sequence[Item], Sequence[int], int]
"""Decrypted packets: (octets, packets, stride of each, lead). The stride of a packet is its octets there: `lead`
octets without meaning, payload and trailer."""


class EspLayout(NamedTuple):
    """What packets of outbound ESP look like. Octets are those of a block, an IV and an ICV."""

    sealer: type[EspSealer]
    esn: bool
    udp: bool
    block: int
    iv_octets: int
    icv_octets: int


def layout_of(esp: Esp, esn: bool) -> OpeningLayout | None:
    """Return the layout of an SA whose packets can be opened together with those of others; None for other SAs."""
    cipher = esp.cipher_algorithm
    if not esp.icv_octets or not cipher.iv_octets:
        return None
    overhead = ESP_HEADER_LENGTH + cipher.iv_octets + esp.icv_octets
    return OpeningLayout(esp.cipher, esp.integrity, esn, cipher.block_octets, overhead, esp.icv_octets)


DropItem: TypeAlias = Callable[[IpsecDropCause, Item, int], None]
"""`drop(cause, item, spi)` counts a dropped packet."""


_HIGH: Final = struct.Struct("!I").pack
_ALL_ONES: Final = (1 << 64) - 1


def icv_with_esn(icv: IcvFunction, number: int) -> IcvFunction:
    """Return the ICV function for packets whose extended number has the same high 32 bits as `number`.

    The high half is authenticated at the end of the packet but not sent (RFC 4303 2.8, 3.3.2.1, RFC 4302
    3.3.3.3.2.2).
    """
    high = _HIGH(number >> 32)

    def extended(data: Octets, head: Octets | None = None) -> bytes:
        return icv(high, data if head is None else b"".join((head, data)))

    return extended


def refusal(verdict: Verdict, number: int, esn: bool, forged: IpsecDropCause) -> IpsecDropCause:
    """Return the cause of a drop for a number or an ICV that was refused; `forged` is the cause for an ICV.

    A late packet with an extended number has a low half that belongs to the next 2^32 numbers, if there are any,
    and so a wrong ICV (RFC 4303 appendix A2.2). Number 0 is never sent.
    """
    if verdict is Verdict.REPLAYED:
        return IpsecDropCause.REPLAYED
    has_next = esn and 0 < number <= MAX_EXTENDED_SEQUENCE - (1 << 32)
    if verdict is Verdict.OUTSIDE_WINDOW and not has_next:
        return IpsecDropCause.OUTSIDE_WINDOW
    return forged


def payload_end(clear: Octets, start: int, after: int) -> int | None:
    """Return the end of the payload in decrypted octets whose ESP trailer ends at `after`; None if the padding is
    wrong."""
    padding = clear[after - ESP_TRAILER_LENGTH]
    end = after - ESP_TRAILER_LENGTH - padding
    # The trailer without its last octet, the next header.
    if end < start or clear[end : after - 1] != TRAILERS[padding][:-1]:
        return None
    return end


@lru_cache(maxsize=64)
def _tails(block: int, suffix: bytes) -> list[bytes]:
    """Return the trailers of IPv4 packets, each with the suffix, by the octets of the packet modulo a block. SAs
    share them."""
    return [TRAILERS[(-ESP_TRAILER_LENGTH - size) % block] + suffix for size in range(block)]


class EspSender:
    """Outbound ESP of one SA.

    The outer header is written here only if `ah_octets`, the room for AH before ESP, is 0.
    """

    __slots__ = ("_iv_in_head", "block", "fixed", "heads", "layout", "sealer")

    def __init__(
        self,
        esp: Esp,
        source: int,
        destination: int,
        ah_octets: int,
        esn: bool,
        udp: UdpPorts | None = None,
        engine: CipherEngine = CRYPTOGRAPHY,
    ) -> None:
        cipher = esp.cipher_algorithm
        self.sealer = engine.sealer(esp, esn)
        self.block = cipher.block_octets
        iv_in_head = self._iv_in_head = self.sealer.iv_in_head
        self.heads = EspHeads(esp.spi, source, destination, udp, ah_octets, cipher.iv_octets if iv_in_head else 0)
        self.fixed = self.heads.octets + esp.icv_octets + (0 if iv_in_head else cipher.iv_octets)
        """Octets of an outer packet, headroom included, beside payload and trailer."""
        self.layout = EspLayout(
            type(self.sealer), esn, udp is not None, self.block, cipher.iv_octets, esp.icv_octets
        )
        """Packets of SAs that have it in common are sealed together."""

    def encrypt(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        marks: Sequence[int],
        identifications: Sequence[int],
        first: int,
        next_headers: Sequence[int] | None,
        random: Callable[[int], bytes],
    ) -> tuple[bytearray, array[int]]:
        """Encapsulate the packets at `spans` of `view` with sequence numbers from `first` on, all with the same
        high half. The result is complete after the engine's `flush`.

        `marks` holds the outer type of service << 16 | outer flags of each packet, `identifications` those of the
        outer headers if they are written here, `next_headers` the next headers (None: all IPv4). `random(n)`
        returns n unpredictable octets. Returns a batch with room for the link header, the outer header and AH.
        """
        sealer, block, fixed = self.sealer, self.block, self.fixed
        count = len(spans)
        if count == 1 and next_headers is None:
            return self._encrypt_one(view, spans[0], marks[0], identifications[0], first, random)
        if next_headers is None:
            table = _tails(block, sealer.suffix(first))
            tails = [table[(end - start) % block] for start, end in spans]
        else:
            suffix = sealer.suffix(first)
            tails = [
                TRAILERS[(start - end - ESP_TRAILER_LENGTH) % block][:-1] + bytes((protocol,)) + suffix
                for (start, end), protocol in zip(spans, next_headers, strict=True)
            ]
        most = ESP_TRAILER_LENGTH + block - 1
        sizes = [end - start + most & -block for start, end in spans]
        lengths = array("H", [size + fixed for size in sizes])
        ivs = sealer.ivs(first, count, random)
        head_ivs = ivs if self._iv_in_head else [b""] * count
        heads = self.heads.make(lengths, marks, identifications, first & 0xFFFFFFFF, head_ivs)
        return sealer.seal(view, spans, heads, tails, sizes, ivs, first), lengths

    def _encrypt_one(
        self,
        view: memoryview,
        span: tuple[int, int],
        mark: int,
        identification: int,
        number: int,
        random: Callable[[int], bytes],
    ) -> tuple[bytearray, array[int]]:
        """Encapsulate one IPv4 packet, as `encrypt` does."""
        sealer, block = self.sealer, self.block
        start, end = span
        octets = end - start
        size = octets + ESP_TRAILER_LENGTH + block - 1 & -block
        lengths = array("H", (size + self.fixed,))
        (iv,) = sealer.ivs(number, 1, random)
        head_iv = iv if self._iv_in_head else b""
        (head,) = self.heads.make(lengths, (mark,), (identification,), number & 0xFFFFFFFF, (head_iv,))
        tail = _tails(block, sealer.suffix(number))[octets % block]
        sealed = sealer.seal_one(head, view[start:end], tail, size, iv, number)
        # An engine that completes packets later has kept its own bytearray.
        return sealed if isinstance(sealed, bytearray) else bytearray(sealed), lengths

    def outer_length(self, octets: int) -> int:
        """Return the length, headroom included, of the outer packet of an IPv4 packet."""
        return (octets + ESP_TRAILER_LENGTH + self.block - 1 & -self.block) + self.fixed

    def longest_inner(self, most: int) -> int:
        """Return the octets of the longest IPv4 packet whose outer packet has `most` octets at most."""
        return (most + HEADROOM - self.fixed & -self.block) - ESP_TRAILER_LENGTH


class EspReceiver:
    """Inbound ESP of one SA, and the replay window if there is integrity. The window is in the SA's row of the
    table."""

    __slots__ = (
        "_at",
        "_bits_behind",
        "_block",
        "_engine",
        "_esn",
        "_esp",
        "_has_icv",
        "_opener",
        "_overhead",
        "_row",
        "_slot",
        "_stores",
        "_table",
        "_wide",
        "moved",
        "spi",
        "window",
    )  # fmt: skip

    def __init__(
        self,
        esp: Esp,
        window: int,
        slot: WindowStore,
        esn: bool,
        engine: CipherEngine = CRYPTOGRAPHY,
        row: tuple[InboundTable, int] | None = None,
    ) -> None:
        """`row` is the SA's own in a table; None: one in a table of its own."""
        self._table, self._row = row or (InboundTable(), 0)
        self._at = self._row * self._table.width
        self.moved: tuple[int, int] | None = None
        """Edge and bitmap that must be stored."""
        self._stores = not isinstance(slot, VolatileWindow)
        cipher = esp.cipher_algorithm
        self.spi = esp.spi
        self._esp, self._engine = esp, engine
        self._opener: EspOpener | None = None
        """Made with the first packet: of many tunnels few receive at a time, and keyed contexts are large."""
        self._block = cipher.block_octets
        self._has_icv = esp.icv_octets > 0
        self._overhead = ESP_HEADER_LENGTH + cipher.iv_octets + esp.icv_octets
        """Octets of a packet's header, IV and ICV."""
        self._esn = esn
        self.window = window
        self._slot = slot
        edge, bitmap = slot.window()
        self._wide = 0
        """The bitmap of a window that is too large for the table."""
        self.edge = edge
        self._bitmap = bitmap & ((1 << window) - 1)
        self._table.set(self._row, WINDOW, window)
        if isinstance(slot, SaSlot):
            self._table.set(self._row, STATE_WORD, slot.selector_word)
        self._bits_behind = bits_behind(window)

    @property
    def edge(self) -> int:
        """The highest authenticated sequence number."""
        edge: int = self._table.cells[self._at + EDGE]
        return edge

    @edge.setter
    def edge(self, edge: int) -> None:
        self._table.cells[self._at + EDGE] = edge

    @property
    def _bitmap(self) -> int:
        if self.window > MAX_NARROW:
            return self._wide
        bitmap: int = self._table.cells[self._at + BITMAP]
        return bitmap

    @_bitmap.setter
    def _bitmap(self, bitmap: int) -> None:
        if self.window > MAX_NARROW:
            self._wide = bitmap
        else:
            self._table.cells[self._at + BITMAP] = bitmap

    def _window(self) -> tuple[int, int]:
        """Return edge and bitmap."""
        cells, at = self._table.cells, self._at
        return cells[at + EDGE], cells[at + BITMAP] if self.window <= MAX_NARROW else self._wide

    def _keep(self, edge: int, bitmap: int) -> None:
        """Store a new edge and bitmap, and use them."""
        self.moved = None
        if self._stores:
            self._slot.store_window(edge, bitmap | self._bits_behind)
        self._table.cells[self._at + EDGE] = edge
        self._bitmap = bitmap

    @property
    def opener(self) -> EspOpener:
        """The opener of the SA."""
        return self._opener or self._make_opener()

    def _make_opener(self) -> EspOpener:
        self._opener = self._table.openers[self._row] = self._engine.opener(self._esp, self._esn)
        return self._opener

    def begin(self, view: memoryview, items: list[Item], drop: DropItem) -> Received | None:
        """Begin to verify and decrypt packets whose ESP header is at item[2]; None if there is nothing to finish.

        Dropped packets go to `drop`. A packet that the window refuses already costs no cryptography.
        """
        opener, block = self._opener or self._make_opener(), self._block
        lead = opener.lead
        least, overhead = lead + block, self._overhead - lead
        strides = [item[3] - item[2] - overhead for item in items]
        if strides and (min(strides) < least or reduce(or_, [stride - lead for stride in strides]) % block):
            right = [stride >= least and not (stride - lead) % block for stride in strides]
            for item, whole in zip(items, right, strict=True):
                if not whole:
                    drop(IpsecDropCause.MALFORMED, item, self.spi)
            items = [item for item, whole in zip(items, right, strict=True) if whole]
            strides = [stride for stride, whole in zip(strides, right, strict=True) if whole]
        if not items:
            return None
        edge, window = self.edge, self.window
        if self._esn:
            # All are inferred from the window's edge before the batch. Only a gap of nearly 2^32 numbers within
            # one batch would give another result.
            numbers = [infer_esn(edge, window, item[5]) for item in items]
        else:
            numbers = [item[5] for item in items]
        fresh: list[int] | None = None
        if self._has_icv and min(numbers) <= edge:
            bitmap = self._bitmap
            fresh = [
                index
                for index, number in enumerate(numbers)
                if number > edge or check(edge, bitmap, window, number) is Verdict.FRESH
            ]
            if len(fresh) == len(items):
                fresh = None
        pending: Pending = None
        if fresh is None:
            pending = opener.begin(view, items, numbers)
        elif fresh:
            pending = opener.begin(view, [items[index] for index in fresh], [numbers[index] for index in fresh])
        return items, strides, numbers, fresh, pending

    def begin_few(self, view: memoryview, items: Sequence[Item]) -> list[Received] | None:
        """Begin with each packet alone, which is cheaper for few of them, as `begin` does for all.

        None, with nothing done, if one may have to be dropped before, there is no window, or the numbers do not
        rise.
        """
        if not self._has_icv:
            return None
        opener = self._opener or self._make_opener()
        block, overhead = self._block, self._overhead
        edge: int = self._table.cells[self._at + EDGE]
        last = edge
        rows: list[tuple[Item, int, int]] = []
        for item in items:
            sealed = item[3] - item[2] - overhead
            number = infer_esn(edge, self.window, item[5]) if self._esn else item[5]
            if sealed < block or sealed % block or number <= last:
                return None
            last = number
            rows.append((item, sealed, number))
        lead, begin = opener.lead, opener.begin_one
        return [
            ((item,), (lead + sealed,), (number,), None, begin(view, item, number))
            for item, sealed, number in rows
        ]

    def begin_columns(self, packets: PacketColumns) -> ReceivedColumns | None:
        """Begin with many packets, as `begin` does for items.

        None, with nothing done, where only `begin` can: some packets have to be dropped before, or numbers have
        different high halves.
        """
        opener, block, overhead = self._opener or self._make_opener(), self._block, self._overhead
        sealed = packets.size - overhead if packets.size else packets.sizes - overhead
        if isinstance(sealed, int):
            if sealed < block or sealed % block:
                return None
        elif int(np.minimum.reduce(sealed)) < block or int(np.bitwise_or.reduce(sealed)) % block:
            return None
        numbers, edge = packets.numbers, self.edge
        if self._esn:
            base = max(edge - self.window + 1, 0)
            if base >> 62:
                return None
            numbers = base + ((numbers - (base & 0xFFFFFFFF)) & 0xFFFFFFFF)
        least, most = int(numbers[0]), int(numbers[-1])
        count = packets.count
        rising = (
            most - least == count - 1 and numbers.tobytes() == np.arange(least, least + count).tobytes()
        ) or bool(np.logical_and.reduce(numbers[1:] > numbers[:-1]))
        if not rising:
            least, most = int(np.minimum.reduce(numbers)), int(np.maximum.reduce(numbers))
        if least >> 32 != most >> 32:
            return None
        if self._has_icv and least <= edge:
            bitmap, window = self._bitmap, self.window
            for number in numbers[numbers <= edge].tolist():
                if check(edge, bitmap, window, number) is not Verdict.FRESH:
                    return None
            rising = False
        return ReceivedColumns(
            packets, sealed + opener.lead, numbers, rising, opener.begin_columns(packets, numbers)
        )

    def finish_columns(self, received: ReceivedColumns, drop: DropItem) -> Octets | Clear:
        """Return the decrypted packets, after the engine's `flush`, as octets if all of them are authentic and
        fresh, else as `finish` does. The window is stored before this returns."""
        opener = self._opener or self._make_opener()
        packets, numbers = received.packets, received.numbers
        authentic, clear = opener.finish(received.pending)
        if not self._has_icv:
            return clear
        if authentic is None and received.rising:
            first, last, window = int(numbers[0]), int(numbers[-1]), self.window
            newest = numbers[-window:].tolist() if last - first >= packets.count else ()
            edge, bitmap = self._window()
            self._keep(*accept_rising(edge, bitmap, window, first, last, newest))
            return clear
        strides = received.strides
        each = [strides] * packets.count if isinstance(strides, int) else strides.tolist()
        begun = packets.items(), each, numbers.tolist()
        accepted = self._accept(*begun, range(packets.count), authentic, bytes(clear), drop)
        return clear if len(accepted[1]) == packets.count else accepted

    def finish_one(self, received: Received) -> tuple[Octets, int] | None:
        """Return a packet that `begin_few` began, decrypted, and its lead, after the engine's `flush`.

        If `moved` is set, call `store_window` before a packet leaves. None, with nothing done, if the packet is
        not authentic.
        """
        opener = self._opener or self._make_opener()
        authentic, clear = opener.finish(received[4])
        if authentic is not None:
            return None
        window, number = self.window, received[2][0]
        cells, at = self._table.cells, self._at
        if window > MAX_NARROW:
            moved = cells[at + EDGE], self._wide = advance(cells[at + EDGE], self._wide, window, number)
        else:
            moved = advance(cells[at + EDGE], cells[at + BITMAP], window, number)
            cells[at + EDGE], cells[at + BITMAP] = moved
        if self._stores:
            self.moved = moved
        return clear, opener.lead

    @property
    def lead(self) -> int:
        """Octets before each payload in what is decrypted."""
        return (self._opener or self._make_opener()).lead

    def store_window(self) -> None:
        """Store the window after `finish_one`."""
        if self.moved is not None:
            edge, bitmap = self.moved
            self.moved = None
            self._slot.store_window(edge, bitmap | self._bits_behind)

    def finish(self, received: Received, drop: DropItem) -> Clear:
        """Return the decrypted packets that are authentic and fresh, after the engine's `flush`. The window is
        stored before this returns. Dropped packets go to `drop`."""
        items, strides, numbers, fresh, pending = received
        opener = self._opener or self._make_opener()
        lead = opener.lead
        authentic: Sequence[int] | None = None
        clear: Octets = b""
        if fresh is None or fresh:
            authentic, clear = opener.finish(pending)
        if isinstance(clear, memoryview):
            clear = bytes(clear)
        if not self._has_icv:
            return clear, items, strides, lead
        if fresh is None and authentic is None:
            edge, bitmap = self._window()
            run = accept_run(edge, bitmap, self.window, numbers)
            if run is not None:
                self._keep(*run)
                return clear, items, strides, lead
        begun: Sequence[int] = range(len(items)) if fresh is None else fresh
        return self._accept(items, strides, numbers, begun, authentic, clear, drop)

    def _accept(
        self,
        items: Sequence[Item],
        strides: Sequence[int],
        numbers: Sequence[int],
        begun: Sequence[int],
        authentic: Sequence[int] | None,
        clear: bytes | bytearray,
        drop: DropItem,
    ) -> Clear:
        """Take the packets that were opened through the window, in order, and store it. `begun` are the indices of
        those that the opener was given, `authentic` which of those are authentic."""
        opened = begun if authentic is None else [begun[index] for index in authentic]
        edge, bitmap, accepted, refused = accept_batch(
            *self._window(), self.window, numbers, set(opened).__contains__
        )
        for index, verdict in refused:
            cause = refusal(verdict, numbers[index], self._esn, IpsecDropCause.ESP_AUTHENTICATION)
            drop(cause, items[index], self.spi)
        if accepted:
            self._keep(edge, bitmap)
        if len(accepted) != len(opened):
            # A number that was there twice: what was opened the second time is taken out.
            taken = set(accepted)
            afters = accumulate([strides[index] for index in opened])
            clear = b"".join(
                [
                    clear[after - strides[index] : after]
                    for index, after in zip(opened, afters, strict=True)
                    if index in taken
                ]
            )
        lead = (self._opener or self._make_opener()).lead
        return clear, [items[index] for index in accepted], [strides[index] for index in accepted], lead


def accept_runs(
    table: InboundTable,
    rows: Numbers,
    cells: Numbers,
    receivers: Callable[[int], EspReceiver],
    numbers: Numbers,
    firsts: Numbers,
    counts: Numbers,
) -> None:
    """Take authentic packets of many SAs through their windows, and store these: so many of each SA, whose numbers
    rise above the edge.

    `rows` are those of the SAs, all different, `cells` a copy of them, and `receivers(i)` the receiver of SA i;
    `firsts` are the places of the first numbers.
    """
    lasts, window = numbers[firsts + (counts - 1)], cells[:, WINDOW]
    if len(numbers) == len(firsts):
        ones: NDArray[np.uint64] = np.ones(len(lasts), np.uint64)
    else:
        behind = np.repeat(lasts, counts) - numbers
        bits = np.uint64(1) << np.minimum(behind, MAX_NARROW - 1).astype(np.uint64)
        bits[behind >= MAX_NARROW] = 0
        ones = np.bitwise_or.reduceat(bits, firsts)
    ahead = lasts - cells[:, EDGE]
    before = cells[:, BITMAP].astype(np.uint64) << np.minimum(ahead, MAX_NARROW - 1).astype(np.uint64)
    before[ahead >= MAX_NARROW] = 0
    held = np.uint64(_ALL_ONES) >> (MAX_NARROW - np.minimum(window, MAX_NARROW)).astype(np.uint64)
    bitmaps = (before | ones) & held
    wide = (window > MAX_NARROW).nonzero()[0]
    bitmaps[wide] = 0
    larger: list[int] = []
    for index in wide.tolist():
        first, count = int(firsts[index]), int(counts[index])
        receiver = receivers(index)
        own = numbers[first : first + count].tolist()
        _, bitmap = accept_rising(receiver.edge, receiver._wide, receiver.window, own[0], own[-1], own)
        receiver._wide = bitmap
        larger.append(bitmap | receiver._bits_behind)
    table.numbers[rows, EDGE] = lasts
    table.numbers[rows, BITMAP] = bitmaps.view(np.int64)
    words = cells[:, STATE_WORD]
    stored = words.nonzero()[0]
    if not len(stored) or table.state is None:
        return
    windows = np.full((len(rows), WINDOW_WORDS), _ALL_ONES, np.uint64)
    windows[:, 0] = lasts
    windows[:, 1] = bitmaps | ~held
    for index, bitmap in zip(wide.tolist(), larger, strict=True):
        windows[index, 1:] = bitmap_words(bitmap)
    if len(stored) < len(words):
        words, windows = words[stored], windows[stored]
    store_windows(table.state, words, windows)


class ReceivedColumns(NamedTuple):
    """Packets, stride of all or of each, extended sequence numbers, whether they rise above the window's edge, and
    what the opener has begun."""

    packets: PacketColumns
    strides: int | Numbers
    numbers: Numbers
    rising: bool
    pending: Pending


Received: TypeAlias = tuple[Sequence[Item], Sequence[int], Sequence[int], list[int] | None, Pending]
"""Packets, stride of each, sequence numbers, indices of those that the window does not refuse (None: all), and
what the opener has begun."""
