"""Tables of 64-bit numbers: objects own rows, and what handles many objects at once uses columns."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chassis.net.columns import Numbers

_FIRST_ROWS: Final = 64


class CellTable:
    """Rows of 64-bit numbers.

    `numbers` are all rows, `cells` the same memory as one sequence, without a sign. Both are others after
    `allocate`.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.numbers: Numbers = np.zeros((0, width), np.int64)
        self.cells: memoryview
        self._free: list[int] = []
        self._grow(_FIRST_ROWS)

    def _grow(self, rows: int) -> None:
        before = len(self.numbers)
        self.numbers = with_room(self.numbers, rows)
        self.cells = self.numbers.reshape(-1).view(np.uint64).data
        self._free += range(rows - 1, before - 1, -1)

    def allocate(self) -> int:
        """Return a row of zeros."""
        if not self._free:
            self._grow(2 * len(self.numbers))
        row = self._free.pop()
        self.numbers[row] = 0
        return row

    def get(self, row: int, column: int) -> int:
        """Return a number."""
        number: int = self.cells[row * self.width + column]
        return number

    def set(self, row: int, column: int, number: int) -> None:
        """Change a number."""
        self.cells[row * self.width + column] = number

    def free(self, row: int) -> None:
        """Give a row back: its owner is no more."""
        self._free.append(row)


def with_room(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the rows with empty ones after them."""
    grown = np.zeros((count, *rows.shape[1:]), rows.dtype)
    grown[: len(rows)] = rows
    return grown
