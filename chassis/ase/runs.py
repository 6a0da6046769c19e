"""Packets of several tunnels that are sealed together and leave together.

In: runs of packets, each of one tunnel. Out: outer packets in the order of the packets, in a batch for each card,
context and layout, in runs of circuits or next hops. What is more than sealing (fragments, drops, notices of an
SA, AH, compression) is left to the caller. The numbers of a packet are stored when its run is added.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from chassis.ase.counters import ENCAPSULATED, AspCounters
from chassis.ase.ipsec.esp import EspLayout
from chassis.ase.ipsec.joint_sealing import InnerPackets, JointPart, JointParts, seal_together
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.tunnels import AspTunnel, TunnelEgress, Way
from chassis.bus.batch import Batch, HopRun, Run, Step
from chassis.bus.coalesce import joined_runs
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.tables import ForwardingTables
from chassis.net.ethernet import HEADROOM

_Added = tuple[JointPart, int, int, Way, int, int, int, int]
"""A run of packets: what seals it, tunnel, circuit, way, its first packet, its first octet and that after it, and
where its octets of randomness are."""

_Layouts = dict[EspLayout, list[_Added]]


class JointRuns:
    """The packets of the runs of one batch until `take` seals them."""

    def __init__(self, sadb: Sadb, tables: ForwardingTables, counters: AspCounters, batch: Batch) -> None:
        """No packet of the batch may be shorter than an IPv4 header."""
        self._sadb = sadb
        self._tables = tables
        self._counters = counters
        self._batch = batch
        self._inner = InnerPackets(batch.body, batch.lengths)
        self._ways: dict[Way, tuple[int, _Layouts]] = {}
        """Octets of an outer packet that leaves whole, and the runs of the way's card and context."""
        self._outers: dict[tuple[int, str, bool], _Layouts] = {}
        """Runs by context and card of their outer packets, and whether these have a next hop."""
        self._wanted = 0
        """Octets of randomness for what was added."""

    def add(self, state: AspTunnel, egress: TunnelEgress, begin: int, end: int, start: int, stop: int) -> bool:
        """Add the packets of a tunnel, from `begin` to `end`, which are the octets from `start` to `stop`; return
        whether they were added."""
        way, record, inner, sadb = egress.way, state.record, self._inner, self._sadb
        if way is None or inner.longest(begin, end) > egress.smallest:
            return False
        number = record.number
        version, encapsulator = state.only_sa
        if version != sadb.spd.version:
            encapsulator = sadb.only_outbound(number)
            state.only_sa = sadb.spd.version, encapsulator
        if encapsulator is None:
            encapsulator = sadb.find_joint(number, inner, begin, end)
        elif not inner.are_ordinary(begin, end):
            return False
        if encapsulator is None:
            return False
        known = self._ways.get(way)
        if known is None:
            context, card, port, _ = way
            most = self._tables.mtu(port) if port else UNLIMITED
            known = self._ways[way] = most, self._outers.setdefault((context, card, bool(port)), {})
        most, outer = known
        part = encapsulator.take_joint(inner, begin, end, most)
        if part is None:
            return False
        sender = part[0]
        added = (part, number, record.circuit, way, begin, start, stop, self._wanted)
        outer.setdefault(sender.layout, []).append(added)
        packets = end - begin
        self._wanted += sender.sealer.random_octets * packets
        self._counters.count_tunnel(number, ENCAPSULATED, packets, stop - start - HEADROOM * packets)
        return True

    def take(self, random: Callable[[int], bytes]) -> list[tuple[str, Batch]]:
        """Seal the packets added since; return each batch with the card that it is for."""
        drawn = random(self._wanted) if self._wanted else b""
        batches: list[tuple[str, Batch]] = []
        for (context, card, by_port), outer in self._outers.items():
            for members in outer.values():
                inner, own = self._own(members, drawn)
                parts = JointParts.of([member[0] for member in members])
                body, lengths = seal_together(inner, parts, own, self._sadb.engine.flush)
                batch = Batch(Step.CIRCUIT_OUT, body, lengths, ingress=self._batch.ingress, context=context)
                if by_port:
                    batch.step = Step.EGRESS
                    hops: list[HopRun] = [(part.packets, way[2], way[3]) for part, _, _, way, *_ in members]
                    batch.hops = joined_runs(hops)
                    if len(batch.hops) == 1:
                        _, batch.port, batch.address = batch.hops[0]
                        batch.hops = ()
                else:
                    runs: list[Run] = [(part.packets, tunnel, circuit) for part, tunnel, circuit, *_ in members]
                    if len(runs) == 1:
                        _, batch.tunnel, batch.circuit = runs[0]
                    else:
                        batch.runs = tuple(runs)
                batches.append((card, batch))
        self._ways, self._outers, self._wanted = {}, {}, 0
        return batches

    def _own(self, members: Sequence[_Added], drawn: bytes) -> tuple[InnerPackets, bytes]:
        """Return the packets of these runs, and their octets of randomness."""
        if sum([part.packets for part, *_ in members]) == len(self._batch.lengths):
            return self._inner, drawn
        view, lengths = memoryview(self._batch.body), array("H")
        pieces: list[memoryview] = []
        octets: list[bytes] = []
        for part, _, _, _, begin, start, stop, at in members:
            lengths += self._batch.lengths[begin : begin + part.packets]
            pieces.append(view[start:stop])
            octets.append(drawn[at : at + part.sender.sealer.random_octets * part.packets])
        return InnerPackets(bytearray().join(pieces), lengths), b"".join(octets)
