"""The packets of a batch as a table of octets: one operation does for all what a loop does for each.

A batch is packets laid end to end, and their lengths. An operation on a column of the table costs some
microseconds for a batch of any size, so it is for batches of `MIN_PACKETS` and more; for fewer a loop is faster.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.net.types import Writable

MIN_PACKETS = 12
"""Packets (count) of a batch from which on columns are faster than a loop."""

Bytes: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[np.int64]


class Columns:
    """The packets of one batch.

    `octets` is the body, `lengths` and `starts` are the length and the offset in the body of each packet. `stride`
    is the length of every packet if all have the same one, else 0. The table shares the memory of the body: while
    it exists, a body that is a bytearray can't change its size.
    """

    __slots__ = ("_table", "lengths", "octets", "starts", "stride")

    def __init__(self, body: bytes | Writable, lengths: array[int]) -> None:
        """The lengths must fill the body."""
        self.octets: Bytes = np.frombuffer(body, dtype=np.uint8)
        self.lengths: Numbers = np.frombuffer(lengths, dtype=np.uint16).astype(np.int64)
        first, count = lengths[0], len(lengths)
        self.stride = first if bool((self.lengths == first).all()) else 0
        self._table: Bytes | None = None
        if self.stride:
            self._table = self.octets.reshape(count, first)
            self.starts: Numbers = np.arange(0, count * first, first)
        else:
            self.starts = np.cumsum(self.lengths) - self.lengths

    def read(self, at: int, octets: int) -> Bytes:
        """Return a copy of the octets from offset `at` on of every packet; no packet may be shorter."""
        if self._table is not None:
            return self._table[:, at : at + octets].copy()
        found: Bytes = self.octets[self.starts[:, None] + np.arange(at, at + octets)]
        return found

    def numbers(self, at: int, octets: int) -> Numbers:
        """Return the unsigned number of 1, 2 or 4 octets at offset `at` of every packet."""
        return self.read(at, octets).view(f">u{octets}")[:, 0].astype(np.int64)

    def write(self, at: int, values: Bytes) -> None:
        """Write octets from offset `at` on into every packet: a row for each packet, or one for all."""
        octets = values.shape[-1]
        if self._table is not None:
            self._table[:, at : at + octets] = values
        else:
            self.octets[self.starts[:, None] + np.arange(at, at + octets)] = values

    def write_numbers(self, at: int, octets: int, values: Numbers) -> None:
        """Write a number of 1, 2 or 4 octets to offset `at` of every packet."""
        self.write(at, values.astype(f">u{octets}").view(np.uint8).reshape(len(values), octets))


def runs(changes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (begin, end) of each run of packets; `changes[i]` says whether packet i + 1 begins another run."""
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(changes) + 1]
    return list(pairwise(edges))
