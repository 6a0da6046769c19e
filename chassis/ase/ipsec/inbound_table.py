"""The inbound SAs of an ASP as a table: a row of 64-bit numbers for each.

An SA reads and writes its own row, and what handles many SAs at once reads and writes columns: there is one place
for each number. Rows have a place in the table as long as their owner lives.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.cell_table import CellTable, with_room

EDGE, BITMAP = range(2)
"""Replay window of ESP (`replay`). The edge may have all 64 bits. The bitmap is here if it has 64 bits or less."""
WINDOW: Final = 2
"""Size of the window (packets)."""
PACKETS, OCTETS, DECAPSULATED = range(3, 6)
"""Authentic outer packets, their octets, and the inner packets returned."""
QUIET_UNTIL: Final = 6
"""Octets below which nothing follows from more packets of a negotiated SA that was seen before."""
LAYOUT: Final = 7
"""Place in `layouts`; 0: packets of the SA are not opened together with those of others."""
STATE_WORD: Final = 8
"""Word of the stored state that says which copy of the window is valid; 0: the window is not stored."""
TUNNEL, NEGOTIATED, UDP = range(9, 12)
"""Number of the tunnel; whether IKE made the SA; whether its packets may be UDP-encapsulated."""
CHECKED: Final = 12
"""Whether inner packets are matched with selectors."""
VERSION, WAY, CIRCUIT = range(13, 16)
"""Of the SA's tunnel: where its inner packets go, and the circuit; right if the version is the present one."""
PACKETS_SLOT, OCTETS_SLOT = range(16, 18)
"""Of the SA's tunnel: the slots of its counters of inner packets and octets."""
_WIDTH: Final = 18

MAX_NARROW: Final = 64
"""Bits of a window that has its bitmap in the table."""
NO_LIMIT: Final = (1 << 63) - 1


class OpeningLayout(NamedTuple):
    """What packets of inbound ESP look like. Octets are those of a block, of header, IV and ICV, and of an ICV."""

    cipher: str
    integrity: str | None
    esn: bool
    block: int
    overhead: int
    icv_octets: int


class InboundTable(CellTable):
    """A row of `_WIDTH` numbers for each inbound SA. Row 0 is of no SA.

    `openers` open the packets of the SAs, None before the first one. `state` are the words of the stored state.
    """

    def __init__(self, state: memoryview | None = None) -> None:
        self.state = state
        self.version = 0
        """Version of what `WAY` and the columns after it are right for."""
        self.openers: NDArray[Any] = np.full(0, None, object)
        self.layouts: list[OpeningLayout | None] = [None]
        super().__init__(_WIDTH)
        self.allocate()

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.openers = with_room(self.openers, rows)

    def free(self, row: int) -> None:
        super().free(row)
        self.openers[row] = None

    def place(self, layout: OpeningLayout | None) -> int:
        """Return the place of a layout."""
        if layout not in self.layouts:
            self.layouts.append(layout)
        return self.layouts.index(layout)
