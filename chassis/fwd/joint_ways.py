"""Which decisions let their packets go on together, and what their runs are made of: a row for each decision."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.fwd.decision import Decision, DecisionKind
from chassis.fwd.flow_table import DecisionNumbers
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.tables import ForwardingTables

Way: TypeAlias = tuple[DecisionKind, str]
"""`PORT` or `TUNNEL`, and the card that the packets go to."""

NO_WAY = -1
"""In place of the way of a decision whose packets go alone."""

_WAY, _LARGEST, _PORT_PLACE, _TARGET = range(4)

_PORT, _TUNNEL = DecisionKind.PORT, DecisionKind.TUNNEL


class JointWays:
    """The decisions of one generation by number; rows are made when a batch first needs them.

    A row is the place of the decision's way in `ways`, or `NO_WAY`; the largest packet (octets)
    that leaves whole; the place of its port; and the tunnel, or the next hop's address.
    """

    __slots__ = ("_columns", "_known", "_numbered", "_place_of", "_ports", "_tables", "smallest", "ways")

    def __init__(self, tables: ForwardingTables) -> None:
        self._tables = tables
        self._numbered: list[Decision] = []
        self._columns: NDArray[np.int64] = np.zeros((4, 64), np.int64)
        """Way, largest packet, port and target of each decision, and room for more."""
        self._forget([])

    def refresh(self) -> None:
        """Add the decisions made since the last call. Call it before the others."""
        numbered = self._tables.decider.numbered
        if numbered is not self._numbered:
            self._forget(numbered)
        if self._known < len(numbered):
            self._add(numbered[self._known :])

    def of(self, numbers: DecisionNumbers) -> NDArray[np.int64]:
        """Return the places of the ways of decisions."""
        ways: NDArray[np.int64] = self._columns[_WAY][numbers]
        return ways

    def largest(self, numbers: DecisionNumbers) -> int:
        """Return the largest packet (octets) that leaves whole by each of these decisions."""
        return int(np.minimum.reduce(self._columns[_LARGEST][numbers]))

    def targets(self, numbers: DecisionNumbers) -> NDArray[np.int64]:
        """Return tunnels, or addresses of next hops."""
        found: NDArray[np.int64] = self._columns[_TARGET][numbers]
        return found

    def port_names(self, numbers: DecisionNumbers) -> list[str]:
        """Return the ports of next hops; one if all have the same."""
        if len(self._ports) == 1:
            return self._ports
        places = self._columns[_PORT_PLACE][numbers]
        if np.count_nonzero(places == places[0]) == len(places):
            return [self._ports[int(places[0])]]
        return [self._ports[place] for place in places.tolist()]

    # inside

    def _forget(self, numbered: list[Decision]) -> None:
        self._numbered = numbered
        self._known = 0
        self.smallest = UNLIMITED
        """The largest packet (octets) that leaves whole by every one of the decisions."""
        self.ways: list[Way] = []
        self._ports: list[str] = []
        self._place_of: dict[Way | str, int] = {}

    def _add(self, decisions: list[Decision]) -> None:
        tables = self._tables
        wanted = self._known + len(decisions)
        while wanted > self._columns.shape[1]:
            self._columns = np.concatenate((self._columns, np.zeros_like(self._columns)), axis=1)
        for number, decision in enumerate(decisions, self._known):
            kind, way = decision.kind, NO_WAY
            largest, port, target = UNLIMITED, 0, 0
            if kind is _PORT:
                way = self._place((kind, decision.card), self.ways)
                port = self._place(decision.port, self._ports)
                largest, target = tables.mtu(decision.port), decision.address
            elif kind is _TUNNEL:
                # The record of the tunnel says where it is, not the next hop.
                way = self._place((kind, tables.tunnels[decision.tunnel].asp), self.ways)
                target = decision.tunnel
            self._columns[:, number] = way, largest, port, target
            self.smallest = min(self.smallest, largest)
        self._known = wanted

    def _place(self, one: Any, among: list[Any]) -> int:
        place = self._place_of.get(one)
        if place is None:
            place = self._place_of[one] = len(among)
            among.append(one)
        return place
