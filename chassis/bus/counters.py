"""Counters in a mapped file: they stay after their process, and other processes read them without a message.

The file is a header, with the number of slots in use, and a table of slots: a name and a 64-bit number in the
machine's byte order. A name is written before its slot is counted as in use, so that a reader sees either the
whole slot or none. A slot without a name is free. The table is larger than any card needs; its unused part is a
hole in the file, takes no memory, and is not read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Container, Iterator
from pathlib import Path

MAGIC = b"CHSCNT2\0"
HEADER_SIZE = 64
NAME_SIZE = 56
SLOT_SIZE = NAME_SIZE + 8
SLOTS = 1 << 18
"""Slots of a file (count). A chassis has 32,000 tunnels at most, and each has four slots at its ASP and at its
circuit's line card. Slots of removed tunnels are not used again, but those of on-demand peers, which come and go,
are (`Counters.release`)."""
GROWTH_OCTETS = 1 << 16
"""Octets of the file that are allocated at the start. More are allocated before their use, because a store into a
hole of a file on a full disk ends the process (SIGBUS)."""
RESERVED_SLOTS = 1024
"""Slots (count) that names of tunnels and circuits cannot take, so that names such as drop causes find one."""
FILE_SIZE = HEADER_SIZE + SLOTS * SLOT_SIZE
OVERFLOW_NAME = "(no free slot)"
"""Name of the slot that counts for all names that found no free slot."""

_SLOT = struct.Struct(f"={NAME_SIZE}sQ")
_USED = 1
"""Index of the 64-bit word with the number of slots in use."""


class Counters:
    """Named 64-bit counters in a writable buffer of `FILE_SIZE` octets (by default in memory of their own).

    Hot paths take a slot once (`slot`) and then do `values[slot] += n`.
    """

    def __init__(self, buffer: memoryview | None = None, grow: Callable[[int], bool] | None = None) -> None:
        """`grow` allocates that many octets of the file; False if the disk is full. None: all are allocated."""
        # Anonymous memory is allocated at the first write; most counters need a page or two.
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
        self._slots = {name: _word(index) for index, (name, _) in enumerate(found) if name}
        self._free = [index for index, (name, _) in enumerate(found) if not name]
        self._grow = grow
        self._room = SLOTS if grow is None else max(_slots(GROWTH_OCTETS), used)

    def slot(self, name: str, *, numbered: bool = False) -> int:
        """Return the slot of a name; take a new one if it has none.

        Set `numbered` for names of a tunnel or circuit. They must leave the reserved slots free for other names.
        """
        found = self._slots.get(name)
        if found is not None:
            return found
        encoded = name.encode()
        if len(encoded) > NAME_SIZE:
            return self.slot(encoded[:NAME_SIZE].decode(errors="ignore"), numbered=numbered)
        index = self._free.pop() if self._free else self.values[_USED]
        # The last slot counts for all names that find no other.
        if (
            name != OVERFLOW_NAME
            and index == self.values[_USED]
            and (index >= SLOTS - 1 - RESERVED_SLOTS * numbered or not self._has_room(index + 1))
        ):
            return self.slot(OVERFLOW_NAME)
        at = HEADER_SIZE + index * SLOT_SIZE
        self._bytes[at : at + NAME_SIZE] = encoded.ljust(NAME_SIZE, b"\0")
        self.values[_USED] = max(self.values[_USED], index + 1)
        slot = self._slots[name] = _word(index)
        return slot

    def release(self, name: str) -> None:
        """Give the slot of a name back, so that another name can take it; no effect without one.

        Nobody may count in it any more.
        """
        slot = self._slots.pop(name, None)
        if slot is None:
            return
        self.values[slot] = 0
        end = 8 * slot
        self._bytes[end - NAME_SIZE : end] = bytes(NAME_SIZE)
        self._free.append((end - NAME_SIZE - HEADER_SIZE) // SLOT_SIZE)

    def release_numbered(self, kind: str, keep: Container[int] = ()) -> None:
        """Give back the slots of all names `KIND N ...` whose number is not in `keep`."""
        begin = f"{kind} "
        for name in [name for name in self._slots if name.startswith(begin)]:
            number = name[len(begin) :].partition(" ")[0]
            if not number.isdecimal() or int(number) not in keep:
                self.release(name)

    def _has_room(self, slots: int) -> bool:
        """Return whether one slot more than `slots` is allocated; allocate more if not."""
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
    """Return the number of whole slots in the first octets of a file."""
    return (octets - HEADER_SIZE) // SLOT_SIZE


def _word(index: int) -> int:
    """Return the index of the 64-bit word with the number of a slot."""
    return (HEADER_SIZE + index * SLOT_SIZE + NAME_SIZE) // 8


def _found(slots: bytes | memoryview) -> list[tuple[str, int]]:
    """Return name and number of each of these whole slots."""
    return [(name.rstrip(b"\0").decode(errors="replace"), value) for name, value in _SLOT.iter_unpack(slots)]


def used(path: Path) -> bytes:
    """Return the part of a counters file that is in use, itself a counters file; empty for another file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
        if len(header) < HEADER_SIZE or header[:8] != MAGIC:
            return b""
        count = min(memoryview(header).cast("Q")[_USED], SLOTS)
        return header + file.read(count * SLOT_SIZE)


def find_slot(path: Path, name: str) -> int | None:
    """Return the slot of a name in a counters file: the index of its 64-bit word. None without one.

    Raises:
        OSError: the file cannot be read.
    """
    data = used(path)
    sought = name.encode()[:NAME_SIZE].ljust(NAME_SIZE, b"\0")
    for index in range((len(data) - HEADER_SIZE) // SLOT_SIZE):
        at = HEADER_SIZE + index * SLOT_SIZE
        if data.startswith(sought, at):
            return _word(index)
    return None


def read(path: Path) -> dict[str, int]:
    """Return the counters in a file; empty if it is not a counters file. Reads only the part in use.

    Raises:
        OSError: the file cannot be read.
    """
    data = used(path)
    found = dict(_found(data[HEADER_SIZE : len(data) // SLOT_SIZE * SLOT_SIZE]))
    found.pop("", None)
    return found
