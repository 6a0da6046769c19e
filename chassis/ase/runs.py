"""Packets of several tunnels that are sealed together and leave together.

In: runs of packets, each of one tunnel. Out: outer packets in a batch for each way, in the order of the packets.
What is more than sealing (fragments, drops, notices of an SA, AH, compression) is left to the caller. The numbers
of a packet are stored when its run is added.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

from chassis.ase.counters import ENCAPSULATED, AspCounters
from chassis.ase.ipsec.esp import EspLayout
from chassis.ase.ipsec.joint_sealing import InnerPackets, JointPart, seal_together
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.tunnels import AspTunnel, TunnelEgress, Way
from chassis.bus.batch import Batch, Run, Step
from chassis.fwd.decision import Decision
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.tables import ForwardingTables
from chassis.net.ethernet import HEADROOM


class _Added(NamedTuple):
    """A run of packets, the octets from `start` to `stop`, and where its octets of randomness are."""

    tunnel: int
    circuit: int
    part: JointPart
    begin: int
    start: int
    stop: int
    drawn_at: int


class JointRuns:
    """The packets of the runs of one batch until `take` seals them."""

    def __init__(self, sadb: Sadb, tables: ForwardingTables, counters: AspCounters, batch: Batch) -> None:
        """No packet of the batch may be shorter than an IPv4 header."""
        self._sadb = sadb
        self._tables = tables
        self._counters = counters
        self._batch = batch
        self._inner = InnerPackets(batch.body, batch.lengths)
        self._added: dict[tuple[Way, EspLayout], list[_Added]] = {}
        self._decisions: dict[Way, Decision | None] = {}
        self._wanted = 0
        """Octets of randomness for what was added."""

    def add(self, state: AspTunnel, egress: TunnelEgress, begin: int, end: int, start: int, stop: int) -> bool:
        """Add the packets of a tunnel, from `begin` to `end`, which are the octets from `start` to `stop`; return
        whether they were added."""
        way, record = egress.way, state.record
        if way is None or egress.cause is not None or self._inner.longest(begin, end) > egress.limits.smallest:
            return False
        encapsulator = self._sadb.find_joint(record.number, self._inner, begin, end)
        if encapsulator is None:
            return False
        most = self._tables.mtu(way[2]) if way[2] else UNLIMITED
        part = encapsulator.take_joint(self._inner, begin, end, most)
        if part is None:
            return False
        added = _Added(record.number, record.circuit, part, begin, start, stop, self._wanted)
        self._added.setdefault((way, part.sender.layout), []).append(added)
        self._decisions[way] = egress.decision
        self._wanted += part.sender.sealer.random_octets * part.packets
        self._counters.count_tunnel(
            record.number, ENCAPSULATED, part.packets, stop - start - HEADROOM * part.packets
        )
        return True

    def take(self, random: Callable[[int], bytes]) -> list[tuple[Decision | None, Batch]]:
        """Seal the packets added since; return them with the decision for each batch, or for None with its card in
        `card`."""
        if not self._added:
            return []
        drawn = random(self._wanted) if self._wanted else b""
        batches: list[tuple[Decision | None, Batch]] = []
        for (way, _), members in self._added.items():
            inner, own = self._own(members, drawn)
            parts = [member.part for member in members]
            body, lengths = seal_together(inner, parts, own, self._sadb.engine.flush)
            batch = Batch(
                Step.CIRCUIT_OUT, body, lengths, card=way[1], ingress=self._batch.ingress, context=way[0]
            )
            decision = self._decisions[way]
            if decision is None:
                runs: list[Run] = [(member.part.packets, member.tunnel, member.circuit) for member in members]
                if len(runs) == 1:
                    _, batch.tunnel, batch.circuit = runs[0]
                else:
                    batch.runs = tuple(runs)
            batches.append((decision, batch))
        self._added, self._wanted = {}, 0
        return batches

    def _own(self, members: Sequence[_Added], drawn: bytes) -> tuple[InnerPackets, bytes]:
        """Return the packets of these runs, and their octets of randomness."""
        if sum([member.part.packets for member in members]) == len(self._batch.lengths):
            return self._inner, drawn
        view, lengths = memoryview(self._batch.body), array("H")
        pieces: list[memoryview] = []
        octets: list[bytes] = []
        for member in members:
            lengths += self._batch.lengths[member.begin : member.begin + member.part.packets]
            pieces.append(view[member.start : member.stop])
            wanted = member.part.sender.sealer.random_octets * member.part.packets
            octets.append(drawn[member.drawn_at : member.drawn_at + wanted])
        return InnerPackets(bytearray().join(pieces), lengths), b"".join(octets)
