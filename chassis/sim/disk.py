"""The disk with a simulated router's state folder, which can be full at any time."""

from __future__ import annotations

from math import inf

from chassis.bus.engine import Append, Persist

FULL = "No space left on device"

BOOTS = "boots.json"
"""The launcher's file."""


class Disk:
    """Files by name. A write is whole and on disk, or fails and leaves what was there.

    `room` counts the writes that still find room: infinity on a disk that is never full.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.room = inf
        self.refused = 0
        """Writes that found no room."""

    @property
    def full(self) -> bool:
        return self.room <= 0

    def state(self) -> dict[str, bytes]:
        """What a controller reads that starts: all but the launcher's own file."""
        return {name: data for name, data in self.files.items() if name != BOOTS}

    def write(self, output: Persist | Append) -> str:
        """Carry out a write; why it is not on disk, or nothing."""
        if self.full:
            self.refused += 1
            return FULL
        self.room -= 1
        before = b"" if isinstance(output, Persist) else self.files.get(output.file, b"")
        self.files[output.file] = before + output.data
        return ""
