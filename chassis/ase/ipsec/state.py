"""Sequence numbers and replay windows of SAs in a buffer that outlives the process.

The caller supplies a writable memoryview, normally of a mapped file. The layout is an array of
64-bit words in the byte order of the machine, because an aligned word is what a killed process
either wrote or did not write; nothing that spans several words is ever in force half written.

    header   magic, version, slots, words of a slot, check word, salt, spare, whether it ever served
    slot     use (0 free, 1 held, 2 released; above its low octet the assignment), digest of the place
             (2 words), next sequence number, which window copy is in force (0 or 1),
             2 x (edge, 16 words of bitmap), digest of the keys

Rules of writing: the next number is one word. A window goes into the copy that is not in force,
then the selector word turns over. A slot is filled first, then its use word is set. A fresh buffer
gets its magic last.

A released slot keeps its numbers: the same SA configured again goes on where it stopped, and the
slot is taken for another SA only when no free one is left. So does a slot that an earlier process
held and this one has not claimed yet, after all released ones: install what is to live on first.

Numbers follow the SA and not its place. An SA that the controller has not just had here (its slot is
new, or of another assignment) starts from the highest edge and next number that any SA of the node
with its direction, protocol, SPI and key reached, in this buffer or in those of the node's other
ASPs. The controller sees to it that whoever held it there has let go of it, or has ended, before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

from chassis.ase.ipsec.replay import all_received

_MAGIC: Final = int.from_bytes(b"IPsecSAs", "little")
_VERSION: Final = 1
_HEADER_WORDS: Final = 8
_WORD: Final = 8

_BITMAP_WORDS: Final = 16
_BITMAP_OCTETS: Final = _BITMAP_WORDS * _WORD
_USE, _KEY, _NEXT, _SELECTOR, _WINDOWS = 0, 1, 3, 4, 5
_WINDOW_WORDS: Final = 1 + _BITMAP_WORDS
_KEYS: Final = 39
_SLOT_WORDS: Final = 40
_SALT, _SERVED = 5, 7
"""Words of the header."""

_FREE, _HELD, _RELEASED = 0, 1, 2
_STATE: Final = 0xFF
"""The low octet of the use word."""
_NUMBERS_END: Final = 1 << 32


class StateError(Exception):
    """The buffer is no SA state, or is damaged, or has no slot left; the text says which."""


class Direction(IntEnum):
    """Which way the packets of an SA go."""

    INBOUND = 0
    OUTBOUND = 1


@dataclass(frozen=True, slots=True)
class SlotKey:
    """What identifies an SA on the wire; the context is the one that holds the local address.

    `key` is what makes its packets authentic, or secret where nothing does; it is no part of the place.
    """

    direction: Direction
    context: int
    protocol: int
    spi: int
    destination: int
    key: bytes = field(default=b"", compare=False, repr=False)

    def keys(self, salt: int) -> int:
        """The word that stands for direction, protocol, SPI and key wherever they are; 0 without a key."""
        if not self.key:
            return 0
        packed = struct.pack("!BBI", self.direction, self.protocol, self.spi) + self.key
        made = hashlib.blake2b(packed, digest_size=8, key=salt.to_bytes(8, "little"), person=b"SA keys").digest()
        return int.from_bytes(made, "little") or 1

    def digest(self) -> tuple[int, int]:
        """The two words that stand for the key in a slot."""
        packed = struct.pack("!BQBII", self.direction, self.context, self.protocol, self.spi, self.destination)
        words: tuple[int, int] = struct.unpack("<QQ", hashlib.blake2b(packed, digest_size=16).digest())
        return words


def octets_for(slots: int) -> int:
    """Size of a buffer with so many slots: one a protocol and direction of each SA."""
    return (_HEADER_WORDS + slots * _SLOT_WORDS) * _WORD


FILE_SIZE: Final = octets_for(1 << 15)
"""Size of an ASP's file: room for 8,000 tunnels with both directions, and as many again that rekey."""


def _header_check(slots: int, salt: int) -> int:
    packed = struct.pack("<QQQQ", _MAGIC, _VERSION, slots, _SLOT_WORDS)
    if salt:
        packed += struct.pack("<Q", salt)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


class SaSlot:
    """Numbers of one protocol of one SA; every store is in force, whole, when the call returns."""

    __slots__ = ("_base", "_octets", "_selector", "_words", "is_new", "number")

    def __init__(self, words: memoryview, octets: memoryview, number: int, is_new: bool) -> None:
        self._words = words
        self._octets = octets
        self._base = _HEADER_WORDS + number * _SLOT_WORDS
        self._selector = words[self._base + _SELECTOR]
        self.number = number
        self.is_new = is_new

    @property
    def next_number(self) -> int:
        """The next sequence number that may be sent, 0 in a new slot."""
        value: int = self._words[self._base + _NEXT]
        return value

    def store_next(self, number: int) -> None:
        """Say that every number below `number` may have been used."""
        self._words[self._base + _NEXT] = number

    def window(self) -> tuple[int, int]:
        """Edge and bitmap in force."""
        start = self._base + _WINDOWS + self._selector * _WINDOW_WORDS
        bitmap = self._octets[(start + 1) * _WORD : (start + _WINDOW_WORDS) * _WORD]
        return self._words[start], int.from_bytes(bitmap, "little")

    def store_window(self, edge: int, bitmap: int) -> None:
        """Put a new edge and bitmap in force, or leave the old pair."""
        other = 1 - self._selector
        start = self._base + _WINDOWS + other * _WINDOW_WORDS
        self._words[start] = edge
        self._octets[(start + 1) * _WORD : (start + _WINDOW_WORDS) * _WORD] = bitmap.to_bytes(
            _BITMAP_OCTETS, "little"
        )
        self._words[self._base + _SELECTOR] = other
        self._selector = other


@dataclass(frozen=True, slots=True)
class Reached:
    """How far an SA came: the next number to send, and the window (edge, bitmap)."""

    next_number: int = 0
    edge: int = 0
    bitmap: int = 0

    def joined(self, other: Reached) -> Reached:
        """What refuses all that either refuses."""
        number = max(self.next_number, other.next_number)
        if self.edge == other.edge:
            return Reached(number, self.edge, self.bitmap | other.bitmap)
        further = max(self, other, key=lambda reached: reached.edge)
        return Reached(number, further.edge, further.bitmap)

    def everything(self) -> Reached:
        """For an SA at another place: no number up to the edge is taken there."""
        return Reached(self.next_number, *all_received(self.edge)) if self.edge else self


class WindowStore(Protocol):
    """Where a receiver's replay window is kept."""

    def window(self) -> tuple[int, int]: ...

    def store_window(self, edge: int, bitmap: int) -> None: ...


class VolatileWindow:
    """The window of an SA that ends with its process: the receiver's own copy is the only one."""

    __slots__ = ()

    def window(self) -> tuple[int, int]:
        """Nothing was received yet."""
        return 0, 0

    def store_window(self, edge: int, bitmap: int) -> None:
        """There is nobody to keep it for."""


class _Elsewhere:
    """The slots in the buffer of another ASP, as they are when it is read."""

    def __init__(self, buffer: memoryview) -> None:
        self._octets = buffer.cast("B")
        size = len(self._octets)
        self._words = self._octets[: size - size % _WORD].cast("Q")
        self._places: dict[tuple[int, int], list[int]] = {}
        self._keys: dict[int, list[int]] = {}
        words = self._words
        if len(words) < _HEADER_WORDS or words[0] == 0:
            # Its process has not made it yet.
            self.salt = 0
            return
        slots, self.salt = words[2], words[_SALT]
        whole = words[0] == _MAGIC and words[1] == _VERSION and words[3] == _SLOT_WORDS
        if not whole or words[4] != _header_check(slots, self.salt):
            raise StateError("the SA state of another ASP is damaged: how far its SAs came can't be known")
        slots = min(slots, (len(words) - _HEADER_WORDS) // _SLOT_WORDS)
        stop = _HEADER_WORDS + slots * _SLOT_WORDS
        for number, use in enumerate(words[_HEADER_WORDS + _USE : stop : _SLOT_WORDS].tolist()):
            if use & _STATE == _FREE:
                continue
            base = _HEADER_WORDS + number * _SLOT_WORDS
            self._places.setdefault((words[base + _KEY], words[base + _KEY + 1]), []).append(base)
            self._keys.setdefault(words[base + _KEYS], []).append(base)

    def reached(self, digest: tuple[int, int], keys: int) -> Iterator[Reached]:
        """How far the SAs with this place came, and those with these keys."""
        places = self._places.get(digest, ())
        for base in places:
            yield _reached(self._words, self._octets, base)
        for base in self._keys.get(keys, ()) if keys else ():
            if base not in places:
                yield _reached(self._words, self._octets, base).everything()


def _reached(words: memoryview, octets: memoryview, base: int) -> Reached:
    start = base + _WINDOWS + (words[base + _SELECTOR] & 1) * _WINDOW_WORDS
    bitmap = octets[(start + 1) * _WORD : (start + _WINDOW_WORDS) * _WORD]
    return Reached(words[base + _NEXT], words[start], int.from_bytes(bitmap, "little"))


Others = Callable[[], Iterable[memoryview]]
"""The buffers of the node's other ASPs, read only, as they are now. StateError where one can't be had."""


class SaStateFile:
    """The slots in one buffer.

    `is_fresh` tells that the buffer was all zero, so no history is known: outbound numbers must
    then start at a lease that no earlier file has given out.
    """

    def __init__(self, buffer: memoryview, salt: int = 0, others: Others = tuple) -> None:
        """`salt` goes into the digests of keys in a buffer that is new; `others` are asked for what an SA
        that comes here reached elsewhere."""
        if buffer.readonly or not buffer.c_contiguous:
            raise StateError("SA state needs a writable, contiguous buffer")
        self._octets = buffer.cast("B")
        size = len(self._octets)
        self._words = self._octets[: size - size % _WORD].cast("Q")
        self.slots = (len(self._words) - _HEADER_WORDS) // _SLOT_WORDS
        if self.slots < 1:
            raise StateError(f"SA state needs at least {octets_for(1)} octets, not {size}")
        self.is_fresh = self._words[0] == 0
        if self.is_fresh:
            self._format(salt)
        self._check_header()
        self._salt: int = self._words[_SALT]
        self._others = others
        self._elsewhere: list[_Elsewhere] | None = None
        self._by_keys: dict[int, set[int]] = {}
        self._held: dict[tuple[int, int], int] = {}
        self._released: dict[tuple[int, int], int] = {}
        self._left: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._scan()

    @property
    def served(self) -> bool:
        """Whether an earlier process was in service with this buffer."""
        return bool(self._words[_SERVED])

    def serve(self) -> None:
        """Note that this process is in service: a buffer without that word later is another one."""
        if not self._words[_SERVED]:
            self._words[_SERVED] = 1

    def look_again(self) -> None:
        """The other ASPs' buffers may have changed since they were read."""
        self._elsewhere = None

    def _format(self, salt: int) -> None:
        words = self._words
        if any(self._uses()):
            raise StateError("SA state has no header but is not empty: damaged, or another kind of file")
        words[1] = _VERSION
        words[2] = self.slots
        words[3] = _SLOT_WORDS
        words[4] = _header_check(self.slots, salt)
        words[_SALT] = salt
        words[0] = _MAGIC

    def _uses(self) -> list[int]:
        """The use word of every slot."""
        stop = _HEADER_WORDS + self.slots * _SLOT_WORDS
        return self._words[_HEADER_WORDS + _USE : stop : _SLOT_WORDS].tolist()

    def _check_header(self) -> None:
        words = self._words
        if words[0] != _MAGIC:
            raise StateError("SA state has a wrong magic number: damaged, or another kind of file")
        if words[1] != _VERSION:
            raise StateError(f"SA state has version {words[1]}, this program writes version {_VERSION}")
        if words[3] != _SLOT_WORDS or words[4] != _header_check(words[2], words[_SALT]):
            raise StateError("SA state has a damaged header")
        if words[2] > self.slots:
            raise StateError(f"SA state was cut: it names {words[2]} slots and has room for {self.slots}")
        self.slots = words[2]

    def _scan(self) -> None:
        words = self._words
        for number, use in enumerate(self._uses()):
            base = _HEADER_WORDS + number * _SLOT_WORDS
            use &= _STATE
            if use == _FREE:
                self._free.append(number)
                continue
            if use > _RELEASED or words[base + _SELECTOR] > 1 or words[base + _NEXT] > _NUMBERS_END:
                raise StateError(f"SA state is damaged in slot {number}")
            digest = (words[base + _KEY], words[base + _KEY + 1])
            (self._left if use == _HELD else self._released)[digest] = number
            self._by_keys.setdefault(words[base + _KEYS], set()).add(number)
        self._free.reverse()

    def room(self) -> int:
        """How many slots could be claimed for new SAs."""
        return self.slots - len(self._held)

    def claim(self, key: SlotKey, assignment: int = 0) -> SaSlot:
        """The slot of an SA, with the numbers that it has to go on from.

        `assignment` is the controller's number for having this SA at this place: where the slot has the same,
        nobody else had the SA meanwhile. StateError when all slots are held, or when the state of another ASP
        can't be read.
        """
        digest = key.digest()
        number = self._held.get(digest)
        if number is not None:
            return SaSlot(self._words, self._octets, number, is_new=False)
        words = self._words
        number = self._left.get(digest, self._released.get(digest))
        keys = key.keys(self._salt)
        known = number is not None and words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] >> 8 == assignment
        reached = Reached() if known else self._reached(key, digest, keys)
        is_new = number is None
        if number is None:
            number = self._take()
            start = (_HEADER_WORDS + number * _SLOT_WORDS) * _WORD
            self._octets[start : start + _SLOT_WORDS * _WORD] = bytes(_SLOT_WORDS * _WORD)
        else:
            self._left.pop(digest, None)
            self._released.pop(digest, None)
            self._forget_keys(number)
        base = _HEADER_WORDS + number * _SLOT_WORDS
        slot = SaSlot(words, self._octets, number, is_new=is_new)
        if reached.next_number > slot.next_number:
            slot.store_next(reached.next_number)
        if reached.edge and (reached.edge, reached.bitmap) != slot.window():
            slot.store_window(reached.edge, reached.bitmap)
        if is_new:
            words[base + _KEY], words[base + _KEY + 1] = digest
        words[base + _KEYS] = keys
        words[base + _USE] = _HELD | assignment << 8
        self._by_keys.setdefault(keys, set()).add(number)
        self._held[digest] = number
        return slot

    def _reached(self, key: SlotKey, digest: tuple[int, int], keys: int) -> Reached:
        """How far an SA came wherever it was on this node: at its own place, else by its keys."""
        if self._elsewhere is None:
            self._elsewhere = [_Elsewhere(buffer) for buffer in self._others()]
        reached = Reached()
        own = self._left.get(digest, self._released.get(digest))
        if own is not None:
            reached = _reached(self._words, self._octets, _HEADER_WORDS + own * _SLOT_WORDS)
        for number in self._by_keys.get(keys, ()) if keys else ():
            if number != own:
                base = _HEADER_WORDS + number * _SLOT_WORDS
                reached = reached.joined(_reached(self._words, self._octets, base).everything())
        for other in self._elsewhere:
            for found in other.reached(digest, key.keys(other.salt)):
                reached = reached.joined(found)
        return reached

    def _forget_keys(self, number: int) -> None:
        self._by_keys.get(self._words[_HEADER_WORDS + number * _SLOT_WORDS + _KEYS], set()).discard(number)

    def _take(self) -> int:
        """A slot to overwrite: a free one, else the one that was released or left behind first."""
        if self._free:
            return self._free.pop()
        unused = self._released or self._left
        if not unused:
            raise StateError(f"SA state is full: all {self.slots} slots are held")
        number = unused.pop(next(iter(unused)))
        self._forget_keys(number)
        self._words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] = _FREE
        return number

    def release(self, key: SlotKey) -> None:
        """Give a slot back; its numbers stay until the slot is needed for another SA."""
        digest = key.digest()
        number = self._held.pop(digest, None)
        if number is not None:
            at = _HEADER_WORDS + number * _SLOT_WORDS + _USE
            self._words[at] = self._words[at] & ~_STATE | _RELEASED
            self._released[digest] = number
