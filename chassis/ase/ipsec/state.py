"""Sequence numbers and replay windows of SAs in a buffer that outlives the process.

The caller supplies a writable memoryview, normally of a mapped file. The layout is an array of
64-bit words in the byte order of the machine, because an aligned word is what a killed process
either wrote or did not write; nothing that spans several words is ever in force half written.

    header   magic, version, slots, words of a slot, check word, 3 spare
    slot     use (0 free, 1 held, 2 released), key digest (2 words), next sequence number,
             which window copy is in force (0 or 1), 2 x (edge, 16 words of bitmap), spare

Rules of writing: the next number is one word. A window goes into the copy that is not in force,
then the selector word turns over. A slot is filled first, then its use word is set. A fresh buffer
gets its magic last.

A released slot keeps its numbers: the same SA configured again goes on where it stopped, and the
slot is taken for another SA only when no free one is left. So does a slot that an earlier process
held and this one has not claimed yet, after all released ones: install what is to live on first.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

_MAGIC: Final = int.from_bytes(b"IPsecSAs", "little")
_VERSION: Final = 1
_HEADER_WORDS: Final = 8
_WORD: Final = 8

_BITMAP_WORDS: Final = 16
_BITMAP_OCTETS: Final = _BITMAP_WORDS * _WORD
_USE, _KEY, _NEXT, _SELECTOR, _WINDOWS = 0, 1, 3, 4, 5
_WINDOW_WORDS: Final = 1 + _BITMAP_WORDS
_SLOT_WORDS: Final = 40

_FREE, _HELD, _RELEASED = 0, 1, 2
_NUMBERS_END: Final = 1 << 32


class StateError(Exception):
    """The buffer is no SA state, or is damaged, or has no slot left; the text says which."""


class Direction(IntEnum):
    """Which way the packets of an SA go."""

    INBOUND = 0
    OUTBOUND = 1


@dataclass(frozen=True, slots=True)
class SlotKey:
    """What identifies an SA on the wire; the context is the one that holds the local address."""

    direction: Direction
    context: int
    protocol: int
    spi: int
    destination: int

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


def _header_check(slots: int) -> int:
    packed = struct.pack("<QQQQ", _MAGIC, _VERSION, slots, _SLOT_WORDS)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


class Slot:
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


class Window(Protocol):
    """Where a receiver's replay window is kept."""

    def window(self) -> tuple[int, int]: ...

    def store_window(self, edge: int, bitmap: int) -> None: ...


class Unkept:
    """The window of an SA that ends with its process: the receiver's own copy is the only one."""

    __slots__ = ()

    def window(self) -> tuple[int, int]:
        """Nothing was received yet."""
        return 0, 0

    def store_window(self, edge: int, bitmap: int) -> None:
        """There is nobody to keep it for."""


class SaState:
    """The slots in one buffer.

    `is_fresh` tells that the buffer was all zero, so no history is known: outbound numbers must
    then start at a lease that no earlier file has given out.
    """

    def __init__(self, buffer: memoryview) -> None:
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
            self._format()
        self._check_header()
        self._held: dict[tuple[int, int], int] = {}
        self._released: dict[tuple[int, int], int] = {}
        self._left: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._scan()

    def _format(self) -> None:
        words = self._words
        if any(self._uses()):
            raise StateError("SA state has no header but is not empty: damaged, or another kind of file")
        words[1] = _VERSION
        words[2] = self.slots
        words[3] = _SLOT_WORDS
        words[4] = _header_check(self.slots)
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
        if words[3] != _SLOT_WORDS or words[4] != _header_check(words[2]):
            raise StateError("SA state has a damaged header")
        if words[2] > self.slots:
            raise StateError(f"SA state was cut: it names {words[2]} slots and has room for {self.slots}")
        self.slots = words[2]

    def _scan(self) -> None:
        words = self._words
        for number, use in enumerate(self._uses()):
            base = _HEADER_WORDS + number * _SLOT_WORDS
            if use == _FREE:
                self._free.append(number)
                continue
            if use > _RELEASED or words[base + _SELECTOR] > 1 or words[base + _NEXT] > _NUMBERS_END:
                raise StateError(f"SA state is damaged in slot {number}")
            digest = (words[base + _KEY], words[base + _KEY + 1])
            (self._left if use == _HELD else self._released)[digest] = number
        self._free.reverse()

    def room(self) -> int:
        """How many slots could be claimed for new SAs."""
        return self.slots - len(self._held)

    def claim(self, key: SlotKey) -> Slot:
        """The slot of an SA, with its numbers if it ever had one here; StateError when all are held."""
        digest = key.digest()
        number = self._held.get(digest)
        if number is not None:
            return Slot(self._words, self._octets, number, is_new=False)
        number = self._left.pop(digest, None)
        if number is None:
            number = self._released.pop(digest, None)
        if number is not None:
            self._words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] = _HELD
            self._held[digest] = number
            return Slot(self._words, self._octets, number, is_new=False)
        number = self._take()
        base = _HEADER_WORDS + number * _SLOT_WORDS
        words = self._words
        start = base * _WORD
        self._octets[start : start + _SLOT_WORDS * _WORD] = bytes(_SLOT_WORDS * _WORD)
        words[base + _KEY], words[base + _KEY + 1] = digest
        words[base + _USE] = _HELD
        self._held[digest] = number
        return Slot(words, self._octets, number, is_new=True)

    def _take(self) -> int:
        """A slot to overwrite: a free one, else the one that was released or left behind first."""
        if self._free:
            return self._free.pop()
        unused = self._released or self._left
        if not unused:
            raise StateError(f"SA state is full: all {self.slots} slots are held")
        number = unused.pop(next(iter(unused)))
        self._words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] = _FREE
        return number

    def release(self, key: SlotKey) -> None:
        """Give a slot back; its numbers stay until the slot is needed for another SA."""
        digest = key.digest()
        number = self._held.pop(digest, None)
        if number is not None:
            self._words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] = _RELEASED
            self._released[digest] = number
