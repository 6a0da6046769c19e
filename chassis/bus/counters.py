"""Counters in a mapped file: they outlive their process, cost no message, and anyone may read them at any time.

The file is a header, with the number of slots in use, and a table of slots: a name and a 64-bit number in the
machine's byte order. A name is written before its slot is counted as in use, so that a reader sees either the
whole slot or none. The table has room for more than any card has to count, and what is not in use is a hole in
the file, which no memory stands behind and no reader looks at.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

MAGIC = b"CHSCNT2\0"
HEADER_SIZE = 64
NAME_SIZE = 56
SLOT_SIZE = NAME_SIZE + 8
SLOTS = 1 << 18
"""A chassis has 32,000 tunnels at most, and each takes four slots of its ASP and of its circuit's line card.
Tunnels that are gone keep theirs."""
GROWTH_OCTETS = 1 << 16
"""Octets of the file that are on disk from the start. More are as they are needed: a store into a hole of a file
on a full disk would end the process."""
RESERVED_SLOTS = 1024
"""Slots that are only for names of which there is a bounded number, such as causes of drops: however many tunnels
and circuits there were, a cause is counted by its name."""
FILE_SIZE = HEADER_SIZE + SLOTS * SLOT_SIZE
OVERFLOW_NAME = "(no free slot)"
"""Where everything is counted that came after the table was full."""

_SLOT = struct.Struct(f"={NAME_SIZE}sQ")
_USED = 1
"""Which of the file's 64-bit words says how many slots are in use."""


class Counters:
    """Named 64-bit counters over a writable buffer of `FILE_SIZE` bytes (its own memory where none is given).

    Hot paths take a slot once (`slot`) and then do `values[slot] += n`.
    """

    def __init__(self, buffer: memoryview | None = None, grow: Callable[[int], bool] | None = None) -> None:
        """`grow` has so many octets of the buffer on disk, or says that there is no room; without it all are."""
        # Memory that isn't there before it is written to: few use more than a page or two of it.
        view = memoryview(mmap.mmap(-1, FILE_SIZE, flags=mmap.MAP_PRIVATE)) if buffer is None else buffer
        if len(view) < FILE_SIZE:
            raise ValueError(f"a counters file has {FILE_SIZE} bytes, not {len(view)}")
        self._bytes = view[:FILE_SIZE]
        self.values: memoryview = self._bytes.cast("Q")
        if bytes(view[:8]) != MAGIC:
            if any(view[:8]):
                view[:FILE_SIZE] = bytes(FILE_SIZE)
            view[:8] = MAGIC
        used = min(self.values[_USED], SLOTS)
        found = _found(view[HEADER_SIZE : HEADER_SIZE + used * SLOT_SIZE])
        self._slots = {name: _word(index) for index, (name, _) in enumerate(found)}
        self._grow = grow
        self._room = SLOTS if grow is None else max(_slots(GROWTH_OCTETS), used)

    def slot(self, name: str, *, numbered: bool = False) -> int:
        """The slot of this name, a new one if need be.

        `numbered` is a name of a tunnel or a circuit: of their numbers there is no end.
        """
        found = self._slots.get(name)
        if found is not None:
            return found
        encoded = name.encode()
        if len(encoded) > NAME_SIZE:
            return self.slot(encoded[:NAME_SIZE].decode(errors="ignore"), numbered=numbered)
        index = self.values[_USED]
        # The last one is for what finds no other.
        if name != OVERFLOW_NAME and (
            index >= SLOTS - 1 - RESERVED_SLOTS * numbered or not self._has_room(index + 1)
        ):
            return self.slot(OVERFLOW_NAME)
        at = HEADER_SIZE + index * SLOT_SIZE
        self._bytes[at : at + NAME_SIZE] = encoded.ljust(NAME_SIZE, b"\0")
        self.values[_USED] = index + 1
        slot = self._slots[name] = _word(index)
        return slot

    def _has_room(self, slots: int) -> bool:
        """Whether one more than so many slots are on disk."""
        if slots < self._room or self._grow is None:
            return True
        size = min(2 * (HEADER_SIZE + slots * SLOT_SIZE), FILE_SIZE)
        if not self._grow(size):
            return False
        self._room = _slots(size)
        return True

    def add(self, name: str, count: int = 1) -> None:
        self.values[self.slot(name)] += count

    def get(self, name: str) -> int:
        slot = self._slots.get(name)
        return 0 if slot is None else self.values[slot]

    def items(self) -> Iterator[tuple[str, int]]:
        for name, slot in self._slots.items():
            yield name, self.values[slot]


def _slots(octets: int) -> int:
    """How many slots are whole in the first octets of a file."""
    return (octets - HEADER_SIZE) // SLOT_SIZE


def _word(index: int) -> int:
    """Which of the file's 64-bit words is the number of a slot."""
    return (HEADER_SIZE + index * SLOT_SIZE + NAME_SIZE) // 8


def _found(slots: bytes | memoryview) -> list[tuple[str, int]]:
    """The name and the number of each of these slots, of which none is cut."""
    return [(name.rstrip(b"\0").decode(errors="replace"), value) for name, value in _SLOT.iter_unpack(slots)]


def used(path: Path) -> bytes:
    """The part of a file that is in use, which is such a file itself; empty where the file is none.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
        if len(header) < HEADER_SIZE or header[:8] != MAGIC:
            return b""
        count = min(memoryview(header).cast("Q")[_USED], SLOTS)
        return header + file.read(count * SLOT_SIZE)


def read(path: Path) -> dict[str, int]:
    """The counters in a file; empty where the file is none. It costs what is in use.

    Raises:
        OSError: it can't be read.
    """
    data = used(path)
    return dict(_found(data[HEADER_SIZE : len(data) // SLOT_SIZE * SLOT_SIZE]))
