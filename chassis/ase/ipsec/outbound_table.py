"""The outbound SAs of an ASP as a table: a row of 64-bit numbers for each.

An SA reads and writes its own row, and what handles many SAs at once reads and writes columns: there is one place
for each number. Rows have a place in the table as long as their owner lives.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.cell_table import CellTable, with_room
from chassis.ase.ipsec.esp import EspSender
from chassis.net.columns import Bytes

USED, PACKETS, OCTETS = range(3)
"""Highest sequence number used, outer packets and outer octets sent. The number may have all 64 bits."""
CEILING: Final = 3
"""Highest next sequence number that needs no notice and no lease; 0: packets of the SA need more than ESP."""
OCTETS_CEILING: Final = 4
"""Octets at which a notice is due."""
STATE_WORD: Final = 5
"""Word of the stored state with the next number; 0: it is not stored."""
IDENTIFICATIONS: Final = 6
"""Row of the sequence of identifications (`outer_header`)."""
BASE_SUM, DF_MASK, DF_BITS = range(7, 10)
"""Sum of the constant words of the outer header; the outer flags are `inner & mask | bits`."""
BLOCK, FIXED, RANDOM = range(10, 13)
"""Octets of a block, of an outer packet beside payload and trailer, and of the randomness of a packet."""
LONGEST: Final = 13
"""Octets of the longest inner packet that needs nothing but ESP."""
GROUP, WAY, CIRCUIT = range(14, 17)
"""Of the SA's tunnel: what goes in one batch, the way of outer packets, the circuit."""
PACKETS_SLOT, OCTETS_SLOT = range(17, 19)
"""Of the SA's tunnel: the slots of its counters of inner packets and octets."""
TUNNEL: Final = 19
"""The tunnel whose packets are known to use this SA alone; 0 in a row that is a new SA's."""
_WIDTH: Final = 20

NO_CEILING: Final = (1 << 63) - 1

_HEAD_OCTETS: Final = 64
"""Room for the head of a packet without IV: link, outer, UDP and ESP header."""


class OutboundTable(CellTable):
    """A row of `_WIDTH` numbers for each outbound SA, and what its packets begin with and are sealed by.

    Row 0 is of no SA. `places` has the rows of tunnels whose packets all use one SA, and need nothing but ESP; 0
    for other tunnels. A tunnel that is not there is looked up when it has packets.
    """

    def __init__(self, job_words: int) -> None:
        """`job_words` is the length of the sealers' `words`."""
        self.heads: Bytes = np.zeros((0, _HEAD_OCTETS), np.uint8)
        self.words: NDArray[np.uint64] = np.zeros((0, job_words), np.uint64)
        self.senders: NDArray[Any] = np.zeros(0, object)
        self.sealers: NDArray[Any] = np.zeros(0, object)
        super().__init__(_WIDTH)
        self.places: dict[int, int] = {}
        self.changes = 0
        """How often `forget` was called."""
        self.allocate()

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.heads, self.words = with_room(self.heads, rows), with_room(self.words, rows)
        self.senders, self.sealers = with_room(self.senders, rows), with_room(self.sealers, rows)

    def free(self, row: int) -> None:
        super().free(row)
        self.senders[row] = self.sealers[row] = 0

    def forget(self, tunnel: int) -> None:
        """Something about this tunnel changed: look it up again."""
        self.places.pop(tunnel, None)
        self.changes += 1

    def set_sender(self, row: int, sender: EspSender) -> None:
        """Set what the packets of an SA begin with and are sealed by."""
        template = sender.heads.template
        numbers = self.numbers[row]
        numbers[BASE_SUM], numbers[BLOCK], numbers[FIXED] = sender.heads.base_sum, sender.block, sender.fixed
        numbers[RANDOM] = sender.sealer.random_octets
        self.heads[row, : len(template)] = np.frombuffer(template, np.uint8)
        if len(sender.sealer.words):
            self.words[row] = sender.sealer.words
        self.senders[row], self.sealers[row] = sender, sender.sealer
