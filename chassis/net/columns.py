"""The packets of a batch as a table of octets: one operation does for all what a loop does for each.

A batch is packets laid end to end, and their lengths. An operation on a column of the table costs a microsecond or
two for a batch of any size, so it is for batches of `MIN_PACKETS` and more; for fewer a loop is faster.
"""

from __future__ import annotations

from array import array
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.net.types import Buffer, Writable

MIN_PACKETS = 12
"""Packets (count) of a batch from which on columns are faster than a loop."""

Bytes: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint16]
Numbers: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.integer[Any]]
Cells: TypeAlias = NDArray[np.void]

_OCTET, _WORD = np.dtype(np.uint8), np.dtype(np.uint16)


@cache
def cell(octets: int) -> np.dtype[np.void]:
    """Return the type of a value of so many octets, whatever they are."""
    return np.dtype((np.void, octets))


@cache
def _number(octets: int) -> np.dtype[Any]:
    return np.dtype(f">u{octets}")


def common_length(lengths: array[int]) -> int:
    """Return the length that all packets of a batch have; 0: they differ, or there is none."""
    return lengths[0] if lengths and lengths == lengths[:1] * len(lengths) else 0


_MANY = 64
"""Packets (count) from which on numpy finds the largest number faster than Python."""


def longest(lengths: array[int]) -> int:
    """Return the largest length of the packets of a batch, of which there is one at least."""
    if len(lengths) < _MANY:
        return max(lengths)
    return common_length(lengths) or int(np.frombuffer(lengths, _WORD).max())


class Columns:
    """The packets of one batch.

    `octets` is the body, `lengths` and `starts` are the length and the offset in the body of each of the `count`
    packets. `stride` is the length of every packet if all have the same one, else 0. The table shares the memory
    of the body: while it exists, a body that is a bytearray can't change its size.
    """

    __slots__ = ("_body", "_lengths", "_sizes", "_starts", "count", "stride")

    def __init__(self, body: bytes | Writable, lengths: array[int]) -> None:
        """The lengths must fill the body."""
        self.count = len(lengths)
        self.stride = common_length(lengths)
        self._body, self._sizes = body, lengths
        self._lengths: Numbers | None = None
        self._starts: Numbers | None = None

    @property
    def octets(self) -> Bytes:
        return np.frombuffer(self._body, _OCTET)

    @property
    def lengths(self) -> Numbers:
        if self._lengths is None:
            self._lengths = np.frombuffer(self._sizes, _WORD).astype(np.int64)
        return self._lengths

    @property
    def starts(self) -> Numbers:
        if self._starts is None:
            lengths = np.frombuffer(self._sizes, _WORD)
            starts: Numbers = np.add.accumulate(lengths, dtype=np.int64)
            starts -= lengths
            self._starts = starts
        return self._starts

    def cells(self, at: int, octets: int) -> Cells:
        """Return the octets from offset `at` on of every packet, as one value for each; no packet may be shorter.

        It may be a view of the body or a copy.
        """
        if self.stride:
            return np.ndarray((self.count,), cell(octets), self._body, at, (self.stride,))
        return self._any_cell(octets, at)[self.starts]

    def copied(self, packets: Indices) -> tuple[Writable, array[int]]:
        """Return body and lengths of a copy of these packets, by their indices, in this order."""
        stride = self.stride
        if stride:
            return self.cells(0, stride)[packets].view(_OCTET).data, self._sizes[: len(packets)]
        view, starts, sizes = memoryview(self._body), self.starts.tolist(), self._sizes
        chosen = packets.tolist()
        body = bytearray().join([view[starts[at] : starts[at] + sizes[at]] for at in chosen])
        return body, array("H", [sizes[at] for at in chosen])

    def beginnings(self, octets: int) -> Columns:
        """Return a table of copies of the first octets of every packet; no packet may be shorter."""
        return Columns(self.extract(0, octets), array("H", (octets,)) * self.count)

    def extract(self, at: int, octets: int) -> bytes:
        """Return the octets from offset `at` on of every packet, end to end; no packet may be shorter."""
        return self.cells(at, octets).tobytes()

    def overlay(self, at: int, octets: int, values: Buffer) -> None:
        """Write octets, laid end to end, to offset `at` of every packet; or one value for all."""
        self._write(at, octets, np.frombuffer(values, cell(octets)))

    def read(self, at: int, octets: int) -> Bytes:
        """Return a copy of the octets from offset `at` on of every packet, in rows; no packet may be shorter."""
        if self.stride:
            table: Bytes = np.ndarray((self.count, octets), _OCTET, self._body, at, (self.stride, 1))
            return table.copy()
        return self.cells(at, octets).view(_OCTET).reshape(self.count, octets)

    def words(self, at: int, count: int) -> Words:
        """Return a copy of `count` 16-bit words from offset `at` on of every packet: a row for each word.

        The words are in the machine's byte order: that makes no difference to a comparison, nor to whether a sum
        of them is 0 in ones' complement (RFC 1071 2.B).
        """
        shape, stride = (count, self.count), self.stride
        table: Words
        if stride:
            table = np.ndarray(shape, _WORD, self._body, at, (2, stride))
        else:
            table = np.ndarray(shape, _WORD, self.cells(at, 2 * count), 0, (2, 2 * count))
        return table.copy()

    def numbers(self, at: int, octets: int) -> Numbers:
        """Return the unsigned number of 1, 2 or 4 octets at offset `at` of every packet."""
        return self._numbers(at, octets).astype(np.int64)

    def write(self, at: int, values: Bytes) -> None:
        """Write octets from offset `at` on into every packet: a row for each packet, or one for all."""
        octets = values.shape[-1]
        cells = np.ascontiguousarray(values).view(cell(octets))
        self._write(at, octets, cells[:, 0] if cells.ndim > 1 else cells)

    def write_numbers(self, at: int, octets: int, values: Numbers) -> None:
        """Write a number of 1, 2 or 4 octets to offset `at` of every packet."""
        self._write(at, octets, values.astype(_number(octets)).view(cell(octets)))

    def add(self, at: int, octets: int, value: int) -> None:
        """Add to the number of 1, 2 or 4 octets at offset `at` of every packet. It wraps; `value` has its size."""
        numbers = self._numbers(at, octets)
        numbers += value
        if not self.stride:
            self._write(at, octets, numbers.view(cell(octets)))

    def take(self, places: Numbers, octets: int) -> Cells:
        """Return a copy of the octets at these offsets of the body, as one value for each."""
        return self._any_cell(octets)[places]

    def put(self, places: Numbers, cells: Cells | Bytes) -> None:
        """Write values of `take`, or rows of octets, to these offsets of the body; they must not overlap."""
        if cells.dtype == _OCTET:
            cells = np.ascontiguousarray(cells).view(cell(cells.shape[-1]))[:, 0]
        self._any_cell(cells.dtype.itemsize)[places] = cells

    # inside

    def _any_cell(self, octets: int, at: int = 0) -> Cells:
        """Return a view of the body with a value for each offset from `at` on; they overlap."""
        return np.ndarray((max(len(self._body) - at - octets + 1, 0),), cell(octets), self._body, at, (1,))

    def _numbers(self, at: int, octets: int) -> NDArray[Any]:
        if self.stride:
            return np.ndarray((self.count,), _number(octets), self._body, at, (self.stride,))
        return self.cells(at, octets).view(_number(octets))

    def _write(self, at: int, octets: int, cells: Cells) -> None:
        if self.stride:
            self.cells(at, octets)[:] = cells
        else:
            self._any_cell(octets, at)[self.starts] = cells


def by_value(values: Numbers, most: int) -> list[tuple[int, Numbers]] | None:
    """Return each value with the indices of its packets; None if there are more than `most` values."""
    different = np.unique(values)
    if len(different) > most:
        return None
    return [(value, np.flatnonzero(values == value)) for value in different.tolist()]


def runs(changes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (begin, end) of each run of packets; `changes[i]` says whether packet i + 1 begins another run."""
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(changes) + 1]
    return list(pairwise(edges))
