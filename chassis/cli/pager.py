"""Printing page by page: `---(more)---` after each, then space for a page, return for a line, q for the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MORE: Final = "---(more)---"
"""The line that waits for a key. It stands alone in its row."""

_ERASE: Final = f"\r{' ' * len(MORE)}\r"


class Pager:
    """Lines on their way to a terminal of `length` rows and `width` columns; a length of 0 shows all at once.

    With `more` other lines follow, which `feed` gives when it is `hungry`.
    """

    def __init__(self, lines: Sequence[str], length: int, width: int, *, more: bool = False) -> None:
        self._lines = lines
        self._next = 0
        self._length, self._width = length, width
        self._more = more
        self._room = 0
        """Rows that are left of the page; 0 for no end."""
        self.waits = False
        """Whether `MORE` is shown and a key decides."""
        self.abandoned = False
        """Whether a key ended the listing before its last line."""

    @property
    def hungry(self) -> bool:
        """Whether all lines are shown, and others follow."""
        return self._more and not self.waits and not self.abandoned

    def start(self) -> bytes:
        """Return the first page."""
        return self._show(self._length - 1 if self._length else 0)

    def feed(self, lines: Sequence[str], *, more: bool = False) -> bytes:
        """Take the lines that follow those before; return what still fits the page."""
        self._lines, self._next, self._more = lines, 0, more
        return self._show(self._room)

    def key(self, octet: int) -> bytes:
        """Return what a key shows; nothing for a key without a meaning here."""
        if octet == 0x20:
            return self._erase() + self._show(max(self._length - 1, 1))
        if octet in (0x0D, 0x0A):
            return self._erase() + self._show(1)
        if octet in (0x71, 0x51, 0x03):
            self.abandoned = True
            return self._erase()
        return b""

    def _erase(self) -> bytes:
        self.waits = False
        return _ERASE.encode()

    def _show(self, rows: int) -> bytes:
        """Show so many rows, but one line at least; all lines where `rows` is 0 or less."""
        shown: list[str] = []
        used = 0
        full = False
        while self._next < len(self._lines) and not full:
            needed = max(-(-len(self._lines[self._next]) // max(self._width, 1)), 1)
            if rows > 0 and shown and used + needed > rows:
                full = True
                break
            shown.append(self._lines[self._next])
            used += needed
            self._next += 1
            full = 0 < rows <= used
        self._room = max(rows - used, 0)
        self.waits = self._next < len(self._lines) or (self._more and full)
        text = "".join(f"{line}\r\n" for line in shown)
        return (text + MORE if self.waits else text).encode()
