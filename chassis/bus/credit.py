"""How much is under way on a connection: what this end sent, less what the far end took from its socket.

The far end counts what it takes in its mapped counters (`chassis.bus.counters`), so that no message is needed and
nobody waits for one. The count begins with the connection: what was under way on an earlier one is not in it.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from chassis.bus import counters

MAX_PACKETS_UNDER_WAY = 1024
"""Packets (count) of a connection that its far end has not taken yet, at most: tens of milliseconds of work."""


LOOK_UP_INTERVAL = 64
"""Batches (count) after which a counter that the far end did not have is looked for again."""


class Credit:
    """The packets that may be sent on one connection."""

    __slots__ = ("_at_start", "_files", "_map", "_most", "_name", "_sent", "_slot", "_unknown", "_values")

    def __init__(self, files: Sequence[Path] = (), name: str = "", most: int = MAX_PACKETS_UNDER_WAY) -> None:
        """The far end's counter `name` is in the first of these files that exists. Without a file there is no
        limit."""
        self._files, self._name, self._most = tuple(files), name, most
        self._map: mmap.mmap | None = None
        self._values: memoryview | None = None
        self._slot = self._at_start = self._sent = self._unknown = 0

    def connected(self) -> None:
        """A connection begins, on which nothing was sent yet."""
        self.close()
        self._sent = self._unknown = 0
        self._look_up()

    def _look_up(self) -> None:
        """Find the far end's counter, which counts what is under way as taken. It may not have one yet."""
        for path in self._files:
            try:
                slot = counters.find_slot(path, self._name)
                if slot is None:
                    continue
                with path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                continue
            self._values, self._slot = memoryview(self._map).cast("Q"), slot
            self._at_start = self._values[slot] - self._sent
            return

    def close(self) -> None:
        """Forget the far end."""
        if self._values is not None:
            self._values.release()
            self._values = None
        if self._map is not None:
            self._map.close()
            self._map = None

    def count(self, packets: int) -> None:
        """Count packets that were sent."""
        self._sent += packets
        if self._values is None and self._files:
            self._unknown += 1
            if not self._unknown % LOOK_UP_INTERVAL:
                self._look_up()

    @property
    def under_way(self) -> int:
        """Return the packets (count) that the far end has not taken; 0 if it does not tell."""
        if self._values is None:
            return 0
        return self._sent - (self._values[self._slot] - self._at_start)

    def allows(self, packets: int) -> bool:
        """Return whether so many packets may be sent now. A batch may always be sent when nothing is under way."""
        under_way = self.under_way
        return under_way <= 0 or under_way + packets <= self._most
