"""Counters in a mapped file: they outlive their process, cost no message, and anyone may read them at any time.

The file is a table of slots, each a name and a 64-bit number in the machine's byte order. A name is written
before its slot is taken into use, so that a reader sees either the whole slot or none.
"""

from __future__ import annotations

from collections.abc import Iterator

MAGIC = b"CHSCNT1\0"
NAME_SIZE = 56
SLOT_SIZE = NAME_SIZE + 8
SLOTS = 4096
FILE_SIZE = 64 + SLOTS * SLOT_SIZE
OVERFLOW = "(no free slot)"
"""Where everything is counted that came after the table was full."""


class Counters:
    """Named 64-bit counters over a writable buffer of `FILE_SIZE` bytes (its own memory where none is given).

    Hot paths take a slot once (`slot`) and then do `values[slot] += n`.
    """

    def __init__(self, buffer: memoryview | None = None) -> None:
        view = memoryview(bytearray(FILE_SIZE)) if buffer is None else buffer
        if len(view) < FILE_SIZE:
            raise ValueError(f"a counters file has {FILE_SIZE} bytes, not {len(view)}")
        self._names = view[64 : 64 + SLOTS * NAME_SIZE]
        self.values: memoryview = view[64 + SLOTS * NAME_SIZE : FILE_SIZE].cast("Q")
        self._slots: dict[str, int] = {}
        if bytes(view[:8]) != MAGIC:
            view[:FILE_SIZE] = bytes(FILE_SIZE)
            view[:8] = MAGIC
        for index, name in _names(self._names):
            self._slots[name] = index

    def slot(self, name: str) -> int:
        """The slot of this name, a new one if need be."""
        found = self._slots.get(name)
        if found is not None:
            return found
        index = len(self._slots)
        if index >= SLOTS - 1 and name != OVERFLOW:
            return self.slot(OVERFLOW)
        encoded = name.encode()[:NAME_SIZE]
        at = index * NAME_SIZE
        self._names[at + 1 : at + len(encoded)] = encoded[1:]
        self._names[at] = encoded[0]
        self._slots[name] = index
        return index

    def add(self, name: str, count: int = 1) -> None:
        self.values[self.slot(name)] += count

    def get(self, name: str) -> int:
        index = self._slots.get(name)
        return 0 if index is None else self.values[index]

    def items(self) -> Iterator[tuple[str, int]]:
        for name, index in self._slots.items():
            yield name, self.values[index]


def _names(names: memoryview) -> Iterator[tuple[int, str]]:
    for index in range(SLOTS):
        at = index * NAME_SIZE
        if not names[at]:
            return
        yield index, bytes(names[at : at + NAME_SIZE]).rstrip(b"\0").decode(errors="replace")


def read(data: bytes) -> dict[str, int]:
    """The counters in a file's bytes; empty where the file is none."""
    if len(data) < FILE_SIZE or data[:8] != MAGIC:
        return {}
    return dict(Counters(memoryview(bytearray(data))).items())
