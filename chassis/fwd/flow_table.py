"""The flows of one context as a table: the decisions of a whole batch are looked up at once.

The table holds flows that were looked up one by one before, for as long as their decisions are valid.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 1 << 14
"""Flows (count) of a table from which on it is made anew of those that it lacked, instead of growing."""

Keys: TypeAlias = NDArray[np.uint64]
"""Flows: the eight octets of source and destination in a header, as one number of the machine."""
DecisionNumbers: TypeAlias = NDArray[np.int32]
"""Numbers of decisions (`chassis.fwd.decision.Decider.numbered`), where it is said also negative ones."""

Places: TypeAlias = NDArray[np.intp]

NOWHERE = -1
"""In place of a number: the flow is never in the table."""

_NOBODY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The largest key, with which each table ends, so that each key has a place."""


class FlowTable:
    """The numbers of the decisions for flows, sorted by key.

    Flows that were not found are put in when there are as many as rows: a flood of new flows costs each of them
    its share of a few sorts.
    """

    __slots__ = ("_added", "_keys", "_new", "_numbers")

    def __init__(self) -> None:
        self._keys: Keys = np.full(1, _NOBODY, np.uint64)
        self._numbers: DecisionNumbers = np.full(1, NOWHERE, np.int32)
        self._new: list[tuple[Keys, DecisionNumbers]] = []
        self._added = 0

    def find(self, keys: Keys) -> tuple[DecisionNumbers, Places | None]:
        """Return a number for each key, and the places of those that are not in the table, whose numbers mean
        nothing; None: all are."""
        places = self._keys.searchsorted(keys)
        there, numbers = self._keys[places], self._numbers[places]
        # Cheaper than a comparison by numpy.
        if there.tobytes() == keys.tobytes():
            return numbers, None
        return numbers, (there != keys).nonzero()[0]

    def add(self, keys: Keys, numbers: DecisionNumbers) -> None:
        """Put flows in that were not found, now or later. A key may be given more than once."""
        self._new.append((keys, numbers))
        self._added += len(keys)
        if self._added < len(self._keys):
            return
        if len(self._keys) <= MAX_ROWS:
            self._new.append((self._keys, self._numbers))
        else:
            self._new.append((self._keys[-1:], self._numbers[-1:]))
        merged, first = np.unique(np.concatenate([one for one, _ in self._new]), return_index=True)
        self._keys, self._numbers = merged, np.concatenate([one for _, one in self._new])[first]
        self._new, self._added = [], 0
