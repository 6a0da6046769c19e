"""The packets of a batch with many decisions, sorted by them: nothing is done for each packet or decision.

In: the number of the decision for each packet. Out: a copy of the packets, those of each decision in a row and in
their order.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.fwd.classify_loop import Group
from chassis.fwd.decision import MAX_SHARED_DECISIONS, Decision
from chassis.fwd.flow_table import DecisionNumbers
from chassis.net.columns import Columns
from chassis.net.types import Writable

Numbers: TypeAlias = NDArray[Any]
"""Integers, one for each packet or decision."""

_PLACES = np.arange(1 << 16, dtype=np.uint16)
_first = np.zeros(MAX_SHARED_DECISIONS + 1, np.uint16)
"""Where a decision first occurs in the batch that is looked at; of others what was left of another batch."""


class DecidedPackets:
    """Packets and what was decided for them, which are two decisions or more.

    `numbers` are the numbers of the decisions, each once, in the order in which they first occur, and `counts` how
    many packets each has.
    """

    __slots__ = ("_leaders", "_ranks", "_whole", "body", "counts", "lengths", "numbers")

    def __init__(self, whole: Columns, body: Writable, lengths: array[int], numbers: DecisionNumbers) -> None:
        """`numbers` has the number of the decision for each packet."""
        self._whole, self.body, self.lengths = whole, body, lengths
        places = _PLACES[: whole.count]
        # Of values for the same place the last one stays.
        _first[numbers[::-1]] = places[::-1]
        self._ranks = ranks = _first[numbers]
        self._leaders = leaders = (ranks == places).nonzero()[0]
        self.numbers = numbers[leaders]
        self.counts: Numbers = np.bincount(ranks, minlength=whole.count)[leaders]

    def arranged(self, order: Numbers | None = None) -> tuple[Writable, array[int]]:
        """Return body and lengths of the packets, those of the first decision first.

        `order`: the places of the decisions in the order in which their packets are wanted instead.
        """
        ranks = self._ranks
        if order is not None:
            new = np.empty(self._whole.count, np.uint16)
            new[self._leaders[order]] = _PLACES[: len(order)]
            ranks = new[ranks]
        packets = ranks.argsort(kind="stable")
        return self._whole.copied(packets)

    def groups(self, decisions: Sequence[Decision]) -> list[Group]:
        """Return the packets of each decision, whose number is its place among these."""
        body, lengths = self.arranged()
        view, stride = memoryview(body), self._whole.stride
        groups: list[Group] = []
        first = at = 0
        for number, packets in zip(self.numbers.tolist(), self.counts.tolist(), strict=True):
            own = lengths[first : first + packets]
            end = at + (stride * packets if stride else sum(own))
            groups.append((decisions[number], view[at:end], own))
            first, at = first + packets, end
        return groups
