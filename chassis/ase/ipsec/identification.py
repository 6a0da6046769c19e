"""Identifications of outer headers: one sequence for all packets of one source, destination and protocol.

Who puts fragments together goes by these three and the identification (RFC 791 3.2), and knows no SPI. So SAs
between the same ends, of one tunnel or of several, take theirs from one sequence (RFC 6864 section 4): were two
packets in pieces at once under one identification, a piece lost of one would cost the other too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

Ends: TypeAlias = tuple[int, int, int]
"""(source, destination, protocol) of outer headers."""

_ALL: Final = 1 << 16


class Ipv4IdSequence:
    """The sequence of one source, destination and protocol.

    It begins where the numbers of its SAs are: a process that goes on with SAs goes on here as well, and new SAs
    have new SPIs, so that a successor does not repeat what its predecessor has just sent.
    """

    __slots__ = ("__weakref__", "_next", "_taken")

    def __init__(self) -> None:
        self._next = 0
        self._taken = False

    def join(self, spi: int, number: int) -> None:
        """An SA takes part that sends its packet `number` next; the place of a sequence in use stays."""
        if not self._taken:
            self._next = (self._next + spi + number) % _ALL

    def take(self, count: int) -> Sequence[int]:
        """The next `count` identifications."""
        first, after = self._next, self._next + count
        self._next = after % _ALL
        self._taken = True
        if after <= _ALL:
            return range(first, after)
        return [number % _ALL for number in range(first, after)]


class Ipv4IdSequences:
    """The sequences in use: one lives as long as an SA that takes part in it."""

    __slots__ = ("_sequences",)

    def __init__(self) -> None:
        self._sequences: WeakValueDictionary[Ends, Ipv4IdSequence] = WeakValueDictionary()

    def of(self, ends: Ends) -> Ipv4IdSequence:
        """The sequence for these ends, for an SA to keep."""
        sequence = self._sequences.get(ends)
        if sequence is None:
            sequence = self._sequences[ends] = Ipv4IdSequence()
        return sequence

    def used(self, ends: Ends) -> Ipv4IdSequence | None:
        """The sequence for these ends if an SA takes part in it."""
        return self._sequences.get(ends)
