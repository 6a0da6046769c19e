"""Packets of several tunnels that are sealed together and leave together.

In: short runs of packets, each of one tunnel. Out: outer packets in a batch for each way, in the order of the
packets. What is more than sealing (fragments, drops, notices of an SA, AH, compression) is left to the caller. The
numbers of a packet are stored when it is added.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from chassis.ase.counters import ENCAPSULATED, AspCounters
from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.encapsulate import Planned
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.tunnels import AspTunnel, TunnelEgress, Way
from chassis.bus.batch import Batch, Run, Step
from chassis.fwd.decision import Decision
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.tables import ForwardingTables
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

MAX_SHORT_RUN = 6
"""Packets of a run, at most, that are cheaper sealed one by one with those of other runs than as a batch."""

_MIN_LENGTH = HEADROOM + IPV4_HEADER_LENGTH


class _Outer:
    """The outer packets of one way."""

    __slots__ = ("decision", "lengths", "longest", "pieces", "runs")

    def __init__(self, decision: Decision | None, longest: int) -> None:
        self.decision = decision
        self.longest = longest
        """Octets of an outer packet that leaves whole."""
        self.pieces: list[Octets] = []
        self.lengths = array("H")
        self.runs: list[Run] = []


class JointRuns:
    """The packets of short runs of one batch until `take` seals them."""

    def __init__(self, sadb: Sadb, tables: ForwardingTables, counters: AspCounters, ingress: str) -> None:
        self._sadb = sadb
        self._tables = tables
        self._counters = counters
        self._ingress = ingress
        self._planned: list[Planned] = []
        self._places: list[_Outer] = []
        """Where each planned packet goes."""
        self._outers: dict[Way, _Outer] = {}

    def add(
        self, state: AspTunnel, egress: TunnelEgress, view: memoryview, at: int, lengths: Sequence[int]
    ) -> int:
        """Add the packets of a tunnel, from octet `at` on; return how many of them, the first ones, were added."""
        way = egress.way
        if way is None or egress.cause is not None:
            return 0
        outer = self._outers.get(way)
        if outer is None:
            longest = self._tables.mtu(way[2]) if way[2] else UNLIMITED
            outer = self._outers[way] = _Outer(egress.decision, longest)
        record = state.record
        number = record.number
        most = egress.limits.smallest + HEADROOM
        plan, planned, places, longest = self._sadb.plan, self._planned, self._places, outer.longest
        before = at
        count = 0
        for length in lengths:
            if not _MIN_LENGTH <= length <= most:
                break
            row = plan(number, view, at + HEADROOM, at + length, longest)
            if row is None:
                break
            planned.append(row)
            places.append(outer)
            outer.lengths.append(row[2])
            at += length
            count += 1
        if count:
            self._counters.count_tunnel(number, ENCAPSULATED, count, at - before - HEADROOM * count)
            if egress.decision is None:
                outer.runs.append((count, number, record.circuit))
        return count

    def take(self, random: Callable[[int], bytes]) -> list[tuple[Decision | None, Batch]]:
        """Seal the packets added since; return them with the decision for each batch, or for None with its card in
        `card`."""
        if not self._planned:
            return []
        for outer, octets in zip(self._places, self._sadb.seal(self._planned, random), strict=True):
            outer.pieces.append(octets)
        batches: list[tuple[Decision | None, Batch]] = []
        for way, outer in self._outers.items():
            if not outer.pieces:
                continue
            batch = Batch(
                Step.CIRCUIT_OUT,
                bytearray().join(outer.pieces),
                outer.lengths,
                card=way[1],
                ingress=self._ingress,
                context=way[0],
            )
            if len(outer.runs) == 1:
                _, batch.tunnel, batch.circuit = outer.runs[0]
            else:
                batch.runs = tuple(outer.runs)
            batches.append((outer.decision, batch))
        self._planned, self._places, self._outers = [], [], {}
        return batches
