"""The data path of an ASP: encapsulate and send on, decapsulate and forward (RFC 4301 5.1, 5.2).

In: batches of other cards, and datagrams of IKE. Out: batches for other cards, and datagrams for IKE. Packets of a
circuit-based tunnel go back to the line card that holds its circuit. Those of an economical tunnel are looked up
here and go to the card of the egress port. Outputs leave in the order of the packets.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import numpy as np

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AnyCause, AspCounters, AspDropCause
from chassis.ase.host import DataPathHost
from chassis.ase.ike_messages import IkePacket
from chassis.ase.ipsec.causes import Drops, IpsecDropCause
from chassis.ase.ipsec.decapsulated import DecapsulatedGroup, DecapsulatedRuns, joined_groups
from chassis.ase.ipsec.inbound_table import CIRCUIT, OCTETS_SLOT, PACKETS_SLOT, VERSION, WAY
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.nat_traversal import IkeDatagrams
from chassis.ase.path_mtu import PathMtus, tunnel_mtu
from chassis.ase.queues import Queues
from chassis.ase.runs import JointRuns
from chassis.ase.tunnel_columns import MIN_RUNS, TunnelColumns, stretches
from chassis.ase.tunnels import AspTunnel, TunnelEgress, TunnelTable, Way
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToFabric, ToIke
from chassis.bus.runs import Runs
from chassis.fwd.decision import Decision, DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Forwarder, Origin
from chassis.fwd.mtu import UNLIMITED, FitResult, MtuLimits, fit_to_mtu
from chassis.fwd.tables import ForwardingTables
from chassis.net.columns import MIN_PACKETS, Numbers
from chassis.net.ethernet import HEADROOM, MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_ICMP

_MIN_LENGTH = HEADROOM + IPV4_HEADER_LENGTH

SIDES = ("inner", "outer")
"""Where packets may be watched: before encapsulation and after decapsulation, and the other way round."""

Tap = Callable[[str, Batch], None]
"""`tap(step, batch)`: the step names what is done with the packets, and for which tunnel."""


class DataPath:
    """The data path of one ASP, and the `Delivery` of its forwarder.

    Each call returns its outputs. A batch that is given to it may have a trace mark only if it holds one packet.
    """

    def __init__(
        self,
        host: DataPathHost,
        sadb: Sadb,
        tunnels: TunnelTable,
        tables: ForwardingTables,
        counters: AspCounters,
        random: Callable[[int], bytes],
        card_counters: Counters,
    ) -> None:
        self._host = host
        self._sadb = sadb
        self._tunnels = tunnels
        self._tables = tables
        self._decider = tables.decider
        self._counters = counters
        self._random = random
        self._forwarder = Forwarder(host.card, tables, self, card_counters)
        self.datagrams = IkeDatagrams(counters, host.drop, random, sadb.ipv4_ids)
        self.path_mtus = PathMtus(host, sadb, tunnels.local, tables, counters)
        self.queues = Queues(sadb, counters)
        self._columns = TunnelColumns(sadb, tunnels, tables, counters, self._find_egress)
        self._values = np.frombuffer(counters.values, np.int64)
        self._changes = (-1, -1)
        """Generation of the decisions, and changes of tunnels, that `_inward` and its columns are right for."""
        self._inward: list[tuple[str, int] | None] = []
        """Where inner packets go (`TunnelEgress.inward`), by `WAY` of the inbound table."""
        self.taps: dict[str, Tap] = {}
        """Taps by the side that they watch."""
        self._serving = False
        place = host.card.removeprefix("asp ")
        self._encapsulate_step = f"{place} encapsulate"
        self._decapsulate_step = f"{place} decapsulate"

    def encapsulate(self, batch: Batch, now: float, nesting: int = 0) -> list[Output]:
        """Encapsulate packets for a tunnel; their TTL is decremented already.

        Where the ASP has a rate, packets go through the queues of their SAs.
        """
        if self.taps:
            self._tap("inner", "encapsulate", batch, batch.tunnel)
        if self.queues.idle:
            return self._encapsulate_now(batch, now, nesting)
        state = self._tunnels.local.get(batch.tunnel)
        if state is None or not state.pairs or not state.record.up:
            return self._encapsulate_now(batch, now, nesting)
        out: list[Output] = []
        for unwanted in self.queues.enqueue(batch, state.record.queues > 1, nesting, now):
            out += self._encapsulate_now(unwanted, now, nesting)
        return out + self.serve(now)

    def encapsulate_runs(self, batch: Batch, now: float, nesting: int = 0) -> list[Output]:
        """Encapsulate packets for several tunnels, in runs.

        Where nothing else is to be done with them, the outer packets leave together.
        """
        out: list[Output] = []
        lengths = batch.lengths
        if self.taps or not self.queues.idle or len(lengths) < MIN_PACKETS or min(lengths) < _MIN_LENGTH:
            for part in batch.split_runs():
                out += self.encapsulate(part, now, nesting)
            return out
        if len(batch.runs) >= MIN_RUNS:
            plan = self._columns.plan(batch)
            if not isinstance(plan, list):
                return self._send(self._columns.take(plan, batch.ingress, self._random))
            for part in stretches(batch, plan):
                plan = self._columns.plan(part) if len(part.runs) >= MIN_RUNS else []
                if isinstance(plan, list):
                    out += self._encapsulate_joint(part, now, nesting)
                else:
                    out += self._send(self._columns.take(plan, batch.ingress, self._random))
            return out
        return self._encapsulate_joint(batch, now, nesting)

    def _encapsulate_joint(self, batch: Batch, now: float, nesting: int) -> list[Output]:
        """Encapsulate packets for several tunnels, one run after the other, and seal what can be together."""
        out: list[Output] = []
        lengths = batch.lengths
        view, descriptors = memoryview(batch.body), batch.descriptors
        joined = JointRuns(self._sadb, self._tables, self._counters, batch)
        begin = start = 0
        for packets, number, _ in batch.runs:
            state = self._tunnels.local.get(number)
            end = begin + packets
            stop = start + (lengths[begin] if packets == 1 else sum(lengths[begin:end]))
            egress: TunnelEgress | None = None
            if state is not None and state.pairs and state.record.up:
                egress = state.egress
                if egress is None or egress.generation != self._decider.generation:
                    egress = self._find_egress(state)
            if state is None or egress is None or not joined.add(state, egress, begin, end, start, stop):
                out += self._send_joined(joined)
                part = Batch(
                    batch.step,
                    view[start:stop],
                    lengths[begin:end],
                    ingress=batch.ingress,
                    context=batch.context,
                    tunnel=number,
                    descriptors=descriptors[begin:end],
                )
                out += self._encapsulate_now(part, now, nesting)
            begin, start = end, stop
        return out + self._send_joined(joined)

    def _send_joined(self, joined: JointRuns) -> list[Output]:
        return self._send(joined.take(self._random))

    def _send(self, batches: Iterable[tuple[str, Batch]]) -> list[Output]:
        return [self._to_card(card, batch) for card, batch in batches]

    def serve(self, now: float) -> list[Output]:
        """Encapsulate the packets in the queues whose turn has come."""
        # Outer packets may go into another tunnel, and so into its queues: the call in progress serves them.
        if self._serving:
            return []
        self._serving = True
        out: list[Output] = []
        while (served := self.queues.dequeue(now)) is not None:
            out += self._encapsulate_now(served.batch, now, served.nesting)
        self._serving = False
        return out

    def _encapsulate_now(self, batch: Batch, now: float, nesting: int) -> list[Output]:
        """Encapsulate packets past the queues."""
        host = self._host
        number = batch.tunnel
        state = self._tunnels.local.get(number)
        if state is None:
            return self._drop(AspDropCause.NO_TUNNEL, batch)
        host.add_stamp(batch, self._encapsulate_step, now)
        record = state.record
        if not state.pairs:
            if state.spd_entries:
                return self._request_sas(batch, now)
            return self._drop(AspDropCause.NO_SA, batch)
        if not record.up:
            return self._drop(AspDropCause.TUNNEL_DOWN, batch)
        egress = state.egress
        if egress is None or egress.generation != self._decider.generation:
            egress = self._find_egress(state)
        if egress.cause is not None:
            return self._drop(egress.cause, batch)
        out: list[Output] = []
        body, lengths = batch.body, batch.lengths
        whole = False
        if max(lengths) - HEADROOM > egress.limits.smallest:
            fitted, out = self._pre_fragment(batch, state, egress, nesting, now)
            whole = fitted.whole > 0
            body, lengths = fitted.body, fitted.lengths
            if not lengths:
                return out
        result = self._sadb.encapsulate_tunnel(number, body, lengths, self._random)
        outer_lengths = result.lengths
        count = len(outer_lengths)
        if result.drops.counts:
            out += self._count_ipsec_drops(number, result.drops, now)
        if result.notices:
            out += host.on_sa_notice(result.notices, now)
        if result.missing:
            out += host.on_acquire(number, result.missing, now)
        if not count:
            return out
        octets = sum(lengths if count == len(lengths) else [lengths[index] for index in result.origins])
        self._counters.count_tunnel(number, ENCAPSULATED, count, octets - HEADROOM * count)
        outer = Batch(
            Step.CIRCUIT_OUT,
            result.body,
            outer_lengths,
            ingress=batch.ingress,
            context=record.outer_context,
            marks=batch.marks,
        )
        if self.taps:
            self._tap("outer", "encapsulate", outer, number)
        most = egress.limits.outer_fragment if whole else UNLIMITED
        if egress.decision is not None:
            origin = Origin(transit=False, tunnel=number, nesting=nesting, max_fragment=most)
            return out + self._forwarder.execute_decision(egress.decision, outer, origin, now)
        if whole:
            fitted = fit_to_mtu(outer.body, outer.lengths, MtuLimits(most, UNLIMITED))
            self._count_fit(fitted)
            outer.body, outer.lengths = fitted.body, fitted.lengths
        outer.tunnel, outer.circuit = number, record.circuit
        out.append(self._to_card(record.home, outer))
        return out

    def _pre_fragment(
        self, batch: Batch, state: AspTunnel, egress: TunnelEgress, nesting: int, now: float
    ) -> tuple[FitResult, list[Output]]:
        """Fit packets to the MTU of their tunnel (S-110); return them, and the ICMP errors that are owed."""
        number, limits = state.record.number, egress.limits
        policy = partial(self._sadb.fragment_decision, number)
        fitted = fit_to_mtu(batch.body, batch.lengths, limits, policy=policy)
        self._count_fit(fitted)
        counters, refused = self._counters, len(fitted.too_long)
        counters.count_tunnel_fragments(number, fitted.fragments)
        counters.count_tunnel_drop(number, ENCAPSULATED, IpsecDropCause.MALFORMED, fitted.malformed)
        if not refused:
            return fitted, []
        counters.count_tunnel_drop(number, ENCAPSULATED, DropCause.TOO_LONG, refused)
        self._host.drop(DropCause.TOO_LONG, refused)
        origin = Origin(transit=True, nesting=nesting)
        errors = self._forwarder.send_icmp_errors(
            DropCause.TOO_LONG, fitted.too_long, state.record.context, origin, now, limits.df_set
        )
        return fitted, errors

    def decapsulate(self, batch: Batch, now: float, nesting: int = 0) -> list[Output]:
        """Decapsulate packets that came in for an address of this ASP in a context."""
        if self.taps:
            self._tap("outer", "decapsulate", batch)
        host = self._host
        host.add_stamp(batch, self._decapsulate_step, now)
        others: list[Output] = []
        reassemble = partial(self._reassemble, batch.context, now, nesting, others)
        result = self._sadb.decapsulate_batch(batch.body, batch.lengths, batch.context, reassemble)
        out: list[Output] = []
        if result.drops.counts:
            out += host.count_drops(result.drops, now)
            if result.drops.unknown is not None:
                out += host.on_unknown_sa(batch.context, result.drops.unknown, now)
        if self.taps:
            groups = result.groups
        else:
            groups = result.apart
            for runs in result.together:
                out += self._deliver_runs(runs, batch.ingress, now, nesting)
        if len(groups) > 1 and not self.taps:
            out += self._deliver_together(groups, batch.ingress, now, nesting)
        else:
            for group in groups:
                out += self._deliver(group, batch, now, nesting)
        if result.negotiated or result.peers:
            out += host.on_inbound_traffic(result.negotiated, result.peers, now)
        if result.punted:
            self._handle_punted(batch.context, result.punted, now, others)
        return out + others if others else out

    def _deliver(self, group: DecapsulatedGroup, batch: Batch, now: float, nesting: int) -> list[Output]:
        """Send the inner packets of a tunnel on."""
        number, body, lengths = group.tunnel, group.body, group.lengths
        state = self._tunnels.local[number]
        record = state.record
        self._counters.count_tunnel(number, DECAPSULATED, len(lengths), len(body) - HEADROOM * len(lengths))
        inner = Batch(
            Step.CIRCUIT_IN,
            body,
            lengths,
            ingress=batch.ingress,
            context=record.context,
            tunnel=number,
            circuit=record.circuit,
            marks=batch.marks,
        )
        if self.taps:
            self._tap("inner", "decapsulate", inner, number)
        if record.config.economical:
            return self._forwarder.forward(inner, Origin(transit=True, tunnel=number, nesting=nesting), now)
        egress = state.egress
        if egress is None or egress.generation != self._decider.generation:
            egress = self._find_egress(state)
        if egress.cause is not None:
            self.dropped(egress.cause, len(lengths), Origin(transit=True, tunnel=number))
            return []
        return [self._to_card(record.home, inner)]

    def _deliver_runs(self, opened: DecapsulatedRuns, ingress: str, now: float, nesting: int) -> list[Output]:
        """Send the inner packets of many tunnels on, as `_deliver_together` does."""
        table, changes = self._sadb.inbound_table, (self._decider.generation, self._sadb.table.changes)
        if changes != self._changes:
            self._changes = changes
            table.version += 1
            self._inward.clear()
        tunnels, counts = opened.tunnels, opened.counts
        cells = table.numbers[opened.places]
        old = (cells[:, VERSION] != table.version).nonzero()[0].tolist()
        if old:
            for index in old:
                self._find_inward(int(tunnels[index]), table.numbers[opened.places[index]], table.version)
            cells = table.numbers[opened.places]
        np.add.at(self._values, cells[:, PACKETS_SLOT], counts)
        np.add.at(self._values, cells[:, OCTETS_SLOT], opened.octets)
        ways, circuits = cells[:, WAY], cells[:, CIRCUIT]
        out: list[Output] = []
        different = dict.fromkeys(ways.tolist())
        for way in different:
            members = ways == way
            chosen = members if len(different) > 1 else None
            inward = self._inward[way]
            if inward is None:
                for index in np.flatnonzero(members).tolist():
                    state = self._tunnels.local[int(tunnels[index])]
                    cause = cast(AnyCause, (state.egress or self._find_egress(state)).cause)
                    self.dropped(cause, int(counts[index]), Origin(transit=True, tunnel=state.record.number))
                continue
            home, context = inward
            inner = Batch(Step.CIRCUIT_IN, *opened.batch(chosen), ingress=ingress, context=context)
            if home:
                own = (
                    (counts, tunnels, circuits)
                    if chosen is None
                    else (counts[members], tunnels[members], circuits[members])
                )
                if len(own[0]) == 1:
                    _, inner.tunnel, inner.circuit = [int(column[0]) for column in own]
                else:
                    inner.runs = Runs.of(*own)
                out.append(self._to_card(home, inner))
                continue
            sent = self._forwarder.forward_together(inner, Origin(transit=True, nesting=nesting), now)
            if sent is not None:
                out += sent
                continue
            # A drop is counted for its tunnel.
            for index in np.flatnonzero(members).tolist():
                only = np.zeros(len(tunnels), bool)
                only[index] = True
                inner = Batch(Step.CIRCUIT_IN, *opened.batch(only), ingress=ingress, context=context)
                origin = Origin(transit=True, tunnel=int(tunnels[index]), nesting=nesting)
                out += self._forwarder.forward(inner, origin, now)
        return out

    def _find_inward(self, number: int, cells: Numbers, version: int) -> None:
        """Fill in where the inner packets of a tunnel go, in the row of its SA, and begin its counters."""
        state = self._tunnels.local[number]
        egress = state.egress
        if egress is None or egress.generation != self._decider.generation:
            egress = self._find_egress(state)
        if egress.inward not in self._inward:
            self._inward.append(egress.inward)
        slots = self._counters.tunnel_slots(number)
        cells[PACKETS_SLOT], cells[OCTETS_SLOT] = slots[DECAPSULATED], slots[DECAPSULATED + 1]
        cells[WAY], cells[CIRCUIT] = self._inward.index(egress.inward), state.record.circuit
        cells[VERSION] = version

    def _deliver_together(
        self, groups: Sequence[DecapsulatedGroup], ingress: str, now: float, nesting: int
    ) -> list[Output]:
        """Send the inner packets of several tunnels on, in as few batches as they need."""
        local, generation = self._tunnels.local, self._decider.generation
        ways: dict[tuple[str, int], list[DecapsulatedGroup]] = {}
        for group in groups:
            number, sizes = group.tunnel, group.sizes
            count = len(sizes)
            state = local[number]
            record = state.record
            self._counters.count_tunnel(number, DECAPSULATED, count, sum(sizes) - HEADROOM * count)
            home = ""
            if not record.config.economical:
                egress = state.egress
                if egress is None or egress.generation != generation:
                    egress = self._find_egress(state)
                if egress.cause is not None:
                    self.dropped(egress.cause, count, Origin(transit=True, tunnel=number))
                    continue
                home = record.home
            ways.setdefault((home, record.context), []).append(group)
        out: list[Output] = []
        for (home, context), members in ways.items():
            inner = Batch(Step.CIRCUIT_IN, *joined_groups(members), ingress=ingress, context=context)
            if home:
                runs = [(len(group.sizes), group.tunnel, local[group.tunnel].record.circuit) for group in members]
                if len(runs) == 1:
                    _, inner.tunnel, inner.circuit = runs[0]
                else:
                    inner.runs = tuple(runs)
                out.append(self._to_card(home, inner))
                continue
            sent = self._forwarder.forward_together(inner, Origin(transit=True, nesting=nesting), now)
            if sent is not None:
                out += sent
                continue
            # A drop is counted for its tunnel.
            for group in members:
                inner = Batch(Step.CIRCUIT_IN, group.body, group.lengths, ingress=ingress, context=context)
                origin = Origin(transit=True, tunnel=group.tunnel, nesting=nesting)
                out += self._forwarder.forward(inner, origin, now)
        return out

    def send_datagram(self, message: IkePacket, now: float) -> list[Output]:
        """Send a datagram of IKE by the ASP's own routes, whatever the mode of its tunnel.

        The circuit of a tunnel is for the tunnel's packets, and may not be there yet.
        """
        packet = self.datagrams.packet_of(message)
        if packet is None:
            self._counters.count_ike_dropped()
            return []
        self._counters.count_ike_out()
        decision = self._decider.decide_destination(message.context, message.remote)
        if decision.kind is DecisionKind.TUNNEL and self._tables.tunnels[decision.tunnel].remote == message.remote:
            # The route to the peer leads into the tunnel that IKE negotiates.
            self._counters.count_ike_dropped()
            self._host.drop(DropCause.LOOP)
            return []
        batch = Batch(
            Step.EGRESS,
            bytearray(HEADROOM) + packet,
            array("H", [HEADROOM + len(packet)]),
            context=message.context,
        )
        if self.taps:
            self._tap("outer", "ike", batch)
        return self._forwarder.execute_decision(decision, batch, Origin(transit=False), now)

    # inside

    def _tap(self, side: str, step: str, batch: Batch, tunnel: int = 0) -> None:
        """Show packets to the tap of a side."""
        tap = self.taps.get(side)
        if tap is not None:
            state = self._tunnels.local.get(tunnel)
            tap(f"{step} {state.record.config.name}" if state is not None else step, batch)

    def _request_sas(self, batch: Batch, now: float) -> list[Output]:
        """Drop packets for a negotiated tunnel without any SA, and ask IKE for the SAs of their SPD entries."""
        result = self._sadb.encapsulate_tunnel(batch.tunnel, batch.body, batch.lengths, self._random)
        out = self._count_ipsec_drops(batch.tunnel, result.drops, now)
        return out + self._host.on_acquire(batch.tunnel, result.missing, now) if result.missing else out

    def _handle_punted(self, context: int, packets: Iterable[memoryview], now: float, out: list[Output]) -> None:
        """Act on datagrams of IKE and ICMP errors about our packets."""
        for packet in packets:
            if packet[9] == PROTOCOL_ICMP:
                out += self.path_mtus.receive(context, packet, now)
                continue
            found = self.datagrams.receive(context, packet, now)
            if isinstance(found, IkePacket):
                out.append(ToIke(found))

    def _reassemble(
        self, context: int, now: float, nesting: int, out: list[Output], fragment: memoryview
    ) -> bytes | None:
        """Return the packet for an SA that a fragment completes. Datagrams of IKE and packets for the router
        itself are passed on."""
        found = self.datagrams.receive(context, fragment, now)
        if isinstance(found, IkePacket):
            out.append(ToIke(found))
        elif found is not None:
            if len(found.packet) > MAX_BATCHED_IPV4_LENGTH:
                self._host.drop(IpsecDropCause.MALFORMED)
            elif found.is_local:
                octets = bytearray(HEADROOM) + found.packet
                whole = Batch(Step.LOCAL, octets, array("H", (len(octets),)), context=context)
                out += self.to_local_stack(whole, Origin(transit=True, nesting=nesting), now)
            else:
                return found.packet
        return None

    def _find_egress(self, state: AspTunnel) -> TunnelEgress:
        """Decide where the outer packets of a tunnel go, for this generation of decisions."""
        record, decider = state.record, self._decider
        limits = tunnel_mtu(record, state.overhead, self.path_mtus.egress(state))
        cause: AnyCause | None = None
        decision: Decision | None = None
        if record.config.economical:
            decision = decider.decide_destination(record.outer_context, state.peer)
            if decision.kind is DecisionKind.TUNNEL and decision.tunnel == record.number:
                # The route to the peer leads into the tunnel itself.
                cause = DropCause.LOOP
            elif decision.kind is DecisionKind.DROP:
                # No sequence number and no encryption is spent on packets that can't leave.
                cause = decision.cause or DropCause.NO_ROUTE
        elif not record.circuit or not record.home:
            cause = AspDropCause.NO_CIRCUIT
        elif not self._host.up.get(record.home, False):
            cause = AspDropCause.HOME_DOWN
        way: Way | None = None
        if cause is not None:
            pass
        elif decision is None:
            way = (record.outer_context, record.home, "", 0)
        elif decision.kind is DecisionKind.PORT:
            way = (record.outer_context, decision.card, decision.port, decision.address)
        inward: tuple[str, int] | None = None
        if record.config.economical or cause is None:
            inward = "" if record.config.economical else record.home, record.context
        state.egress = egress = TunnelEgress(
            decider.generation, limits, cause, decision, way, limits.smallest, inward
        )
        return egress

    # Delivery

    def to_port(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        if batch.hops:
            return [self._to_card(card, batch)]
        mtu = self._tables.mtu(batch.port)
        largest = min(mtu, origin.max_fragment)
        out: list[Output] = []
        if max(batch.lengths) - HEADROOM > largest:
            fitted = fit_to_mtu(batch.body, batch.lengths, MtuLimits(largest, mtu), batch.marks)
            self._count_fit(fitted)
            self._counters.count_post_ipsec_drop(
                origin.tunnel, _direction(origin), IpsecDropCause.MALFORMED, fitted.malformed
            )
            if fitted.too_long:
                self.dropped(DropCause.TOO_LONG, len(fitted.too_long), origin)
                out += self._forwarder.send_icmp_errors(
                    DropCause.TOO_LONG, fitted.too_long, batch.context, origin, now, mtu
                )
            if not fitted.lengths:
                return out
            batch.body, batch.lengths, batch.marks = fitted.body, fitted.lengths, fitted.marks
        out.append(self._to_card(card, batch))
        return out

    def to_tunnel(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        if card != self._host.card:
            return [self._to_card(card, batch)]
        if batch.runs:
            return self.encapsulate_runs(batch, now, origin.nesting + 1)
        return self.encapsulate(batch, now, origin.nesting + 1)

    def to_decapsulation(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        if card != self._host.card:
            return [self._to_card(card, batch)]
        return self.decapsulate(batch, now, origin.nesting + 1)

    def to_local_stack(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        destination = int.from_bytes(batch.body[HEADROOM + 16 : HEADROOM + 20], "big")
        card = self._tables.line_card(batch.context, destination)
        if card:
            return [self._to_card(card, batch)]
        self.dropped(DropCause.NEXT_HOP_DOWN, len(batch.lengths), origin)
        return []

    def dropped(self, cause: AnyCause, packets: int, origin: Origin) -> None:
        if packets:
            self._host.drop(cause, packets)
            self._counters.count_post_ipsec_drop(origin.tunnel, _direction(origin), cause, packets)

    # inside

    def _to_card(self, card: str, batch: Batch) -> Output:
        self._counters.values[self._counters.sent] += len(batch.lengths)
        return ToFabric(card, self._host.set_sender(batch))

    def _drop(self, cause: AnyCause, batch: Batch) -> list[Output]:
        self._host.drop(cause, len(batch.lengths))
        if cause is not AspDropCause.NO_TUNNEL:
            self._counters.count_tunnel_drop(batch.tunnel, ENCAPSULATED, cause, len(batch.lengths))
        return []

    def _count_ipsec_drops(self, tunnel: int, drops: Drops, now: float) -> list[Output]:
        for cause, packets in drops.counts.items():
            self._counters.count_tunnel_drop(tunnel, ENCAPSULATED, cause, packets)
        return self._host.count_drops(drops, now)

    def _count_fit(self, fitted: FitResult) -> None:
        self._counters.count_fragments(fitted.fragments)
        if fitted.malformed:
            self._host.drop(IpsecDropCause.MALFORMED, fitted.malformed)


def _direction(origin: Origin) -> int:
    """Return which slots of its tunnel count a packet: the tunnel decapsulated what is in transit."""
    return DECAPSULATED if origin.transit else ENCAPSULATED
