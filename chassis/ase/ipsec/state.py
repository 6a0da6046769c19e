"""Sequence numbers and replay windows of SAs in a buffer that outlives the process.

The caller supplies a writable memoryview, normally of a mapped file. The layout is an array of 64-bit words in the
byte order of the machine, because a killed process has either written an aligned word or not. A value of several
words takes effect with a single word that is written last.

    header   magic, version, slots, words of a slot, check word, salt, spare, whether it was ever in service
    slot     use (0 free, 1 held, 2 released; above its low octet the assignment), digest of the place
             (2 words), next sequence number, which window copy is valid (0 or 1),
             2 x (edge, 16 words of bitmap), digest of the keys

Order of writes: the next number is one word. A window is written into the copy that is not valid, then the
selector word changes. A slot is filled first, then its use word is set. A new buffer gets its magic last.

A released slot keeps its numbers: the same SA, configured again, continues there. The slot is reused for another
SA only if no free slot is left. The slots that an earlier process held and this process has not claimed yet are
reused after all released ones, so install the SAs that continue first.

Numbers follow the SA, not its place. An SA that was not on this ASP just before (its slot is new, or of another
assignment) starts from the highest edge and next number of any SA of the router with its direction, protocol, SPI
and key, in this buffer or in those of the other ASPs. The controller makes sure that the previous ASP has released
the SA, or has ended, before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.replay import all_received
from chassis.net.columns import Numbers

_MAGIC: Final = int.from_bytes(b"IPsecSAs", "little")
_VERSION: Final = 1
_HEADER_WORDS: Final = 8
_WORD: Final = 8

_BITMAP_WORDS: Final = 16
_BITMAP_OCTETS: Final = _BITMAP_WORDS * _WORD
_USE, _KEY, _NEXT, _SELECTOR, _WINDOWS = 0, 1, 3, 4, 5
WINDOW_WORDS: Final = 1 + _BITMAP_WORDS
_WINDOW_RANGE: Final = np.arange(WINDOW_WORDS)
_KEYS: Final = 39
_SLOT_WORDS: Final = 40
_SALT, _SERVED = 5, 7
"""Words of the header."""

_FREE, _HELD, _RELEASED = 0, 1, 2
_STATE: Final = 0xFF
"""The low octet of the use word."""
_NUMBERS_END: Final = 1 << 32


class StateError(Exception):
    """The buffer is not an SA state, or is damaged, or has no slot left; the text says which."""


class Direction(IntEnum):
    """Direction of an SA, seen from this router."""

    INBOUND = 0
    OUTBOUND = 1


@dataclass(frozen=True, slots=True)
class SlotKey:
    """What identifies an SA on the wire. `context` is the one of the local address.

    `key` authenticates the SA's packets, or encrypts them if nothing authenticates; it is not part of the place.
    """

    direction: Direction
    context: int
    protocol: int
    spi: int
    destination: int
    key: bytes = field(default=b"", compare=False, repr=False)

    def key_digest(self, salt: int) -> int:
        """Return the digest word of direction, protocol, SPI and key, at any place; 0 without a key."""
        if not self.key:
            return 0
        packed = struct.pack("!BBI", self.direction, self.protocol, self.spi) + self.key
        made = hashlib.blake2b(packed, digest_size=8, key=salt.to_bytes(8, "little"), person=b"SA keys").digest()
        return int.from_bytes(made, "little") or 1

    def place_digest(self) -> tuple[int, int]:
        """Return the two digest words of the place."""
        packed = struct.pack("!BQBII", self.direction, self.context, self.protocol, self.spi, self.destination)
        words: tuple[int, int] = struct.unpack("<QQ", hashlib.blake2b(packed, digest_size=16).digest())
        return words


def octets_for(slots: int) -> int:
    """Return the octets of a buffer with `slots` slots. An SA needs a slot for each protocol and direction."""
    return (_HEADER_WORDS + slots * _SLOT_WORDS) * _WORD


FILE_SIZE: Final = octets_for(1 << 15)
"""Size of an ASP's file: room for 8,000 tunnels with both directions, and as many again that rekey."""


def _header_check(slots: int, salt: int) -> int:
    packed = struct.pack("<QQQQ", _MAGIC, _VERSION, slots, _SLOT_WORDS)
    if salt:
        packed += struct.pack("<Q", salt)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


class SaSlot:
    """Numbers of one protocol of one SA. A store has taken effect completely when its call returns."""

    __slots__ = ("_base", "_octets", "_words", "is_new", "number")

    def __init__(self, words: memoryview, octets: memoryview, number: int, is_new: bool) -> None:
        self._words = words
        self._octets = octets
        self._base = _HEADER_WORDS + number * _SLOT_WORDS
        self.number = number
        self.is_new = is_new

    @property
    def selector_word(self) -> int:
        """The word of the state that says which copy of the window is valid."""
        return self._base + _SELECTOR

    @property
    def next_word(self) -> int:
        """The word of the state with the next sequence number."""
        return self._base + _NEXT

    @property
    def next_number(self) -> int:
        """The next sequence number that may be sent; 0 in a new slot."""
        value: int = self._words[self._base + _NEXT]
        return value

    def store_next(self, number: int) -> None:
        """Store that every number below `number` may have been used."""
        self._words[self._base + _NEXT] = number

    def window(self) -> tuple[int, int]:
        """Return the valid edge and bitmap."""
        start = self._base + _WINDOWS + self._words[self._base + _SELECTOR] * WINDOW_WORDS
        bitmap = self._octets[(start + 1) * _WORD : (start + WINDOW_WORDS) * _WORD]
        return self._words[start], int.from_bytes(bitmap, "little")

    def store_window(self, edge: int, bitmap: int) -> None:
        """Store a new edge and bitmap: a process that is killed leaves either the old pair or the new one."""
        other = 1 - self._words[self._base + _SELECTOR]
        start = self._base + _WINDOWS + other * WINDOW_WORDS
        self._words[start] = edge
        self._octets[(start + 1) * _WORD : (start + WINDOW_WORDS) * _WORD] = bitmap.to_bytes(
            _BITMAP_OCTETS, "little"
        )
        self._words[self._base + _SELECTOR] = other


def store_windows(words: memoryview, selectors: Numbers, windows: NDArray[np.uint64]) -> None:
    """Store new edges and bitmaps: of each, a killed process leaves the old pair or the new one.

    `words` are those of the state, `selectors` the `selector_word` of each slot, `windows` a row of `WINDOW_WORDS`
    for each.
    """
    stored: NDArray[np.uint64] = np.frombuffer(words, np.uint64)
    others = np.uint64(1) - stored[selectors]
    starts = others.astype(np.int64) * WINDOW_WORDS + (selectors + (_WINDOWS - _SELECTOR))
    stored[starts[:, None] + _WINDOW_RANGE] = windows
    stored[selectors] = others


def bitmap_words(bitmap: int) -> NDArray[np.uint64]:
    """Return a bitmap as the words that are stored."""
    return np.frombuffer(bitmap.to_bytes(_BITMAP_OCTETS, "little"), np.uint64)


@dataclass(frozen=True, slots=True)
class SaProgress:
    """Progress of an SA: the next number to send, and the window (edge, bitmap)."""

    next_number: int = 0
    edge: int = 0
    bitmap: int = 0

    def merged_with(self, other: SaProgress) -> SaProgress:
        """Return the state that refuses what either state refuses."""
        number = max(self.next_number, other.next_number)
        if self.edge == other.edge:
            return SaProgress(number, self.edge, self.bitmap | other.bitmap)
        further = max(self, other, key=lambda progress: progress.edge)
        return SaProgress(number, further.edge, further.bitmap)

    def as_all_received(self) -> SaProgress:
        """Return the state for the SA at another place: no number up to the edge is accepted there."""
        return SaProgress(self.next_number, *all_received(self.edge)) if self.edge else self


class WindowStore(Protocol):
    """Where a receiver stores its replay window."""

    def window(self) -> tuple[int, int]:
        """Return the stored edge and bitmap."""

    def store_window(self, edge: int, bitmap: int) -> None:
        """Store a new edge and bitmap."""


class VolatileWindow:
    """Window store of an SA that ends with its process: only the receiver's copy exists."""

    __slots__ = ()

    def window(self) -> tuple[int, int]:
        """Return the empty window."""
        return 0, 0

    def store_window(self, edge: int, bitmap: int) -> None:
        """No-op: the window of a negotiated SA is not stored, because the SA ends with its process."""


class _OtherStateFile:
    """Read-only view of the slots in the buffer of another ASP."""

    def __init__(self, buffer: memoryview) -> None:
        self._octets = buffer.cast("B")
        size = len(self._octets)
        self._words = self._octets[: size - size % _WORD].cast("Q")
        self._places: dict[tuple[int, int], list[int]] = {}
        self._keys: dict[int, list[int]] = {}
        words = self._words
        if len(words) < _HEADER_WORDS or words[0] == 0:
            # Its process has not formatted it yet.
            self.salt = 0
            return
        slots, self.salt = words[2], words[_SALT]
        whole = words[0] == _MAGIC and words[1] == _VERSION and words[3] == _SLOT_WORDS
        if not whole or words[4] != _header_check(slots, self.salt):
            raise StateError("the SA state of another ASP is damaged: the progress of its SAs is unknown")
        slots = min(slots, (len(words) - _HEADER_WORDS) // _SLOT_WORDS)
        stop = _HEADER_WORDS + slots * _SLOT_WORDS
        for number, use in enumerate(words[_HEADER_WORDS + _USE : stop : _SLOT_WORDS].tolist()):
            if use & _STATE == _FREE:
                continue
            base = _HEADER_WORDS + number * _SLOT_WORDS
            self._places.setdefault((words[base + _KEY], words[base + _KEY + 1]), []).append(base)
            self._keys.setdefault(words[base + _KEYS], []).append(base)

    def progress(self, digest: tuple[int, int], keys: int) -> Iterator[SaProgress]:
        """Return the progress of the SAs with this place, and of those with these keys."""
        places = self._places.get(digest, ())
        for base in places:
            yield _progress_at(self._words, self._octets, base)
        for base in self._keys.get(keys, ()) if keys else ():
            if base not in places:
                yield _progress_at(self._words, self._octets, base).as_all_received()


def _progress_at(words: memoryview, octets: memoryview, base: int) -> SaProgress:
    start = base + _WINDOWS + (words[base + _SELECTOR] & 1) * WINDOW_WORDS
    bitmap = octets[(start + 1) * _WORD : (start + WINDOW_WORDS) * _WORD]
    return SaProgress(words[base + _NEXT], words[start], int.from_bytes(bitmap, "little"))


OtherStateFiles = Callable[[], Iterable[memoryview]]
"""Returns the buffers of the router's other ASPs, read-only. Raises StateError if one cannot be read."""


class SaStateFile:
    """The slots in one buffer.

    `is_fresh`: the buffer was all zero, so no history is known. Outbound numbers must then start at a lease that
    no earlier file has handed out.
    """

    def __init__(self, buffer: memoryview, salt: int = 0, others: OtherStateFiles = tuple) -> None:
        """`salt` goes into the digests of keys in a new buffer. `others` returns the buffers to search for the
        progress of an SA that moved here.

        Raises:
            StateError: the buffer is too small, not writable, damaged, or of another version.
        """
        if buffer.readonly or not buffer.c_contiguous:
            raise StateError("SA state needs a writable, contiguous buffer")
        self._octets = buffer.cast("B")
        size = len(self._octets)
        self.words = self._words = self._octets[: size - size % _WORD].cast("Q")
        self.slots = (len(self._words) - _HEADER_WORDS) // _SLOT_WORDS
        if self.slots < 1:
            raise StateError(f"SA state needs at least {octets_for(1)} octets, not {size}")
        self.is_fresh = self._words[0] == 0
        if self.is_fresh:
            self._format(salt)
        self._check_header()
        self._salt: int = self._words[_SALT]
        self._others = others
        self._other_files: list[_OtherStateFile] | None = None
        self._by_keys: dict[int, set[int]] = {}
        self._held: dict[tuple[int, int], int] = {}
        self._released: dict[tuple[int, int], int] = {}
        self._left: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._scan()

    def store_next_numbers(self, words: Iterable[int], numbers: Iterable[int]) -> None:
        """Store next sequence numbers (`SaSlot.store_next`), each in the `next_word` of its slot."""
        stored = self._words
        for word, number in zip(words, numbers, strict=True):
            stored[word] = number

    @property
    def was_in_service(self) -> bool:
        """Whether an earlier process was in service with this buffer."""
        return bool(self._words[_SERVED])

    def mark_in_service(self) -> None:
        """Store that this process is in service. A later buffer without that word is a new one."""
        if not self._words[_SERVED]:
            self._words[_SERVED] = 1

    def reread_others(self) -> None:
        """Read the buffers of the other ASPs again before the next claim."""
        self._other_files = None

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
        """Return the use word of every slot."""
        stop = _HEADER_WORDS + self.slots * _SLOT_WORDS
        return self._words[_HEADER_WORDS + _USE : stop : _SLOT_WORDS].tolist()

    def _check_header(self) -> None:
        words = self._words
        if words[0] != _MAGIC:
            raise StateError("SA state has a wrong magic number: damaged, or another kind of file")
        if words[1] != _VERSION:
            raise StateError(f"SA state has version {words[1]}; expected version {_VERSION}")
        if words[3] != _SLOT_WORDS or words[4] != _header_check(words[2], words[_SALT]):
            raise StateError("SA state has a damaged header")
        if words[2] > self.slots:
            raise StateError(f"SA state is truncated: header has {words[2]} slots, buffer has {self.slots}")
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

    def free_slots(self) -> int:
        """Return the number of slots that can be claimed for new SAs."""
        return self.slots - len(self._held)

    def claim(self, key: SlotKey, assignment: int = 0, *, closed: bool = False) -> SaSlot:
        """Return the slot of an SA, with the numbers that it must continue from.

        `assignment` is the controller's number of the SA's placement here. If the slot has the same one, no other
        ASP had the SA meanwhile. `closed`: if one had, no number up to the edge of its window is accepted.

        Raises:
            StateError: all slots are held, or the state of another ASP cannot be read.
        """
        digest = key.place_digest()
        number = self._held.get(digest)
        if number is not None:
            return SaSlot(self._words, self._octets, number, is_new=False)
        words = self._words
        number = self._left.get(digest, self._released.get(digest))
        keys = key.key_digest(self._salt)
        known = number is not None and words[_HEADER_WORDS + number * _SLOT_WORDS + _USE] >> 8 == assignment
        progress = SaProgress() if known else self._progress(key, digest, keys, closed)
        is_new = number is None
        if number is None:
            number = self._allocate_slot()
            start = (_HEADER_WORDS + number * _SLOT_WORDS) * _WORD
            self._octets[start : start + _SLOT_WORDS * _WORD] = bytes(_SLOT_WORDS * _WORD)
        else:
            self._left.pop(digest, None)
            self._released.pop(digest, None)
            self._forget_keys(number)
        base = _HEADER_WORDS + number * _SLOT_WORDS
        slot = SaSlot(words, self._octets, number, is_new=is_new)
        if progress.next_number > slot.next_number:
            slot.store_next(progress.next_number)
        if progress.edge and (progress.edge, progress.bitmap) != slot.window():
            slot.store_window(progress.edge, progress.bitmap)
        if is_new:
            words[base + _KEY], words[base + _KEY + 1] = digest
        words[base + _KEYS] = keys
        words[base + _USE] = _HELD | assignment << 8
        self._by_keys.setdefault(keys, set()).add(number)
        self._held[digest] = number
        return slot

    def _progress(self, key: SlotKey, digest: tuple[int, int], keys: int, closed: bool) -> SaProgress:
        """Return the progress of an SA on this router: at its own place, and elsewhere by its keys. `closed`: no
        number up to the edge is accepted."""
        if self._other_files is None:
            self._other_files = [_OtherStateFile(buffer) for buffer in self._others()]
        progress = SaProgress()
        own = self._left.get(digest, self._released.get(digest))
        if own is not None:
            progress = _progress_at(self._words, self._octets, _HEADER_WORDS + own * _SLOT_WORDS)
        for number in self._by_keys.get(keys, ()) if keys else ():
            if number != own:
                base = _HEADER_WORDS + number * _SLOT_WORDS
                progress = progress.merged_with(_progress_at(self._words, self._octets, base).as_all_received())
        for other in self._other_files:
            for found in other.progress(digest, key.key_digest(other.salt)):
                progress = progress.merged_with(found)
        return progress.as_all_received() if closed else progress

    def _forget_keys(self, number: int) -> None:
        self._by_keys.get(self._words[_HEADER_WORDS + number * _SLOT_WORDS + _KEYS], set()).discard(number)

    def _allocate_slot(self) -> int:
        """Return a slot to overwrite: a free one, else the oldest released one, else the oldest unclaimed one."""
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
        """Release a slot. Its numbers stay until the slot is needed for another SA."""
        digest = key.place_digest()
        number = self._held.pop(digest, None)
        if number is not None:
            at = _HEADER_WORDS + number * _SLOT_WORDS + _USE
            self._words[at] = self._words[at] & ~_STATE | _RELEASED
            self._released[digest] = number
