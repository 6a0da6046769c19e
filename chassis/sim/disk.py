"""The disk with a simulated router's state folder, which can be full at any time."""

from __future__ import annotations

from math import inf

from chassis.bus.engine import Append, Persist

FULL = "No space left on device"

BOOTS = "boots.json"
"""The launcher's file."""


class Disk:
    """Files by name. A write is complete and on disk, or fails and changes nothing.

    `room` is the number of writes that still succeed; infinity on a disk that never becomes full.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.room = inf
        self.refused = 0
        """Writes that failed because the disk was full (count)."""

    @property
    def full(self) -> bool:
        return self.room <= 0

    def state(self) -> dict[str, bytes]:
        """Return the files that a starting controller reads: all but the launcher's file."""
        return {name: data for name, data in self.files.items() if name != BOOTS}

    def write(self, output: Persist | Append) -> str:
        """Carry out a write; return why it is not on disk, or empty."""
        if self.full:
            self.refused += 1
            return FULL
        self.room -= 1
        before = b"" if isinstance(output, Persist) else self.files.get(output.file, b"")
        self.files[output.file] = before + output.data
        return ""
