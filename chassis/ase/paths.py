"""Both ways of a packet through an ASP: protect and on to the wire, open and on to its destination.

A circuit-based tunnel's packets go back to the line card that holds its circuit; an economical tunnel's are looked
up here and go straight to the card of the egress port. Outputs leave in the order of the packets.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AnyCause, AspCounters, AspDropCause
from chassis.ase.datagrams import Datagrams
from chassis.ase.host import DataPathHost
from chassis.ase.ipsec.causes import Drops, IpsecDropCause
from chassis.ase.ipsec.sadb import Sadb, fragment_decision
from chassis.ase.link import IkePacket
from chassis.ase.path_mtu import PathMtus, tunnel_mtu
from chassis.ase.queues import Queues
from chassis.ase.routes import Routes
from chassis.ase.tunnels import AspTunnel, TunnelEgress, TunnelTable
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToFabric, ToIke
from chassis.fwd.classify import classify
from chassis.fwd.decision import Decision, DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.icmp_errors import ERRORS, IcmpErrors
from chassis.fwd.mtu import UNLIMITED, FitResult, MtuLimits, fit_to_mtu
from chassis.fwd.rewrite import decrement_ttls
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import PROTOCOL_ICMP
from chassis.net.types import Writable

LONGEST_BATCHED = 0xFFFF
"""The longest packet of a batch, with its headroom."""

SIDES = ("inner", "outer")
"""Where packets may be watched: before they are protected and after they were opened, and the other way round."""

Tap = Callable[[str, Batch], None]
"""`tap(step, batch)`: what is done with the packets, and for which tunnel, and the packets."""

NESTING = 8
"""How often one packet may be protected and opened at one ASP before it is dropped: tunnels in tunnels end."""


class Paths:
    """The data path of one ASP. Each call returns its outputs; batches given to it have at most one trace mark,
    and only if they hold one packet."""

    def __init__(
        self,
        host: DataPathHost,
        sadb: Sadb,
        tunnels: TunnelTable,
        routes: Routes,
        counters: AspCounters,
        random: Callable[[int], bytes],
        icmp_counters: Counters,
    ) -> None:
        self._host = host
        self._sadb = sadb
        self._tunnels = tunnels
        self._routes = routes
        self._decider = routes.decider
        self._counters = counters
        self._random = random
        self._errors = IcmpErrors(icmp_counters)
        self.datagrams = Datagrams(counters, host.drop, random, sadb.ipv4_ids)
        self.path_mtus = PathMtus(host, sadb, tunnels.states, routes, counters)
        self.queues = Queues(sadb, counters)
        self.taps: dict[str, Tap] = {}
        """Who watches a side; it costs nothing while nobody does."""
        self._serving = False
        place = host.card.removeprefix("asp ")
        self._protect_step = f"{place} protect"
        self._open_step = f"{place} open"

    def protect(self, batch: Batch, now: float, depth: int = 0) -> list[Output]:
        """Clear packets into a tunnel; their TTL has been taken care of. Where the ASP has a rate they go by the
        queues of their SAs."""
        if self.taps:
            self._seen("inner", "encapsulate", batch, batch.tunnel)
        if self.queues.idle:
            return self._protect(batch, now, depth)
        state = self._tunnels.states.get(batch.tunnel)
        if state is None or not state.pairs or not state.record.up:
            return self._protect(batch, now, depth)
        out: list[Output] = []
        for unwanted in self.queues.enqueue(batch, state.record.queues > 1, depth, now):
            out += self._protect(unwanted, now, depth)
        return out + self.serve(now)

    def serve(self, now: float) -> list[Output]:
        """Go on with packets in the queues whose turn has come."""
        # What is protected may go into another tunnel, and so into its queues: the call in progress serves it.
        if self._serving:
            return []
        self._serving = True
        out: list[Output] = []
        while (served := self.queues.dequeue(now)) is not None:
            out += self._protect(served.batch, now, served.depth)
        self._serving = False
        return out

    def _protect(self, batch: Batch, now: float, depth: int) -> list[Output]:
        """Clear packets into a tunnel at once."""
        host = self._host
        number = batch.tunnel
        state = self._tunnels.states.get(number)
        if state is None:
            return self._lost(AspDropCause.NO_TUNNEL, batch)
        host.stamp(batch, self._protect_step, now)
        record = state.record
        if not state.pairs:
            if state.spd_entries:
                return self._unanswered(batch, now)
            return self._lost(AspDropCause.NO_SA, batch)
        if not record.up:
            return self._lost(AspDropCause.TUNNEL_DOWN, batch)
        path = state.egress
        if path is None or path.generation != self._decider.generation:
            path = self._path(state)
        if path.cause is not None:
            return self._lost(path.cause, batch)
        out: list[Output] = []
        body, lengths = batch.body, batch.lengths
        whole = False
        if max(lengths) - HEADROOM > path.limits.smallest:
            fitted = fit_to_mtu(body, lengths, path.limits, policy=partial(fragment_decision, self._sadb, number))
            whole = fitted.whole > 0
            self._count(fitted)
            self._counters.count_tunnel_fragments(number, fitted.fragments)
            self._counters.count_tunnel_drop(number, ENCAPSULATED, IpsecDropCause.MALFORMED, fitted.malformed)
            self._counters.count_tunnel_drop(number, ENCAPSULATED, DropCause.TOO_LONG, len(fitted.too_long))
            body, lengths = fitted.body, fitted.lengths
            for packet in fitted.too_long:
                source = self._routes.source(record.context, port=batch.ingress)
                out += self._report(
                    DropCause.TOO_LONG, packet, record.context, source, now, depth, mtu=path.limits.df_set
                )
            if not lengths:
                return out
        result = self._sadb.encapsulate_tunnel(number, body, lengths, self._random)
        protected = result.lengths
        count = len(protected)
        if result.drops.counts:
            out += self._refused(number, result.drops, now)
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
            protected,
            ingress=batch.ingress,
            context=record.outer_context,
            marks=batch.marks,
        )
        if self.taps:
            self._seen("outer", "encapsulate", outer, number)
        most = path.limits.outer_fragment if whole else UNLIMITED
        if path.decision is not None:
            return out + self._go(path.decision, outer, now, depth, number, own=True, most=most)
        if whole:
            fitted = fit_to_mtu(outer.body, outer.lengths, MtuLimits(most, UNLIMITED))
            self._count(fitted)
            outer.body, outer.lengths = fitted.body, fitted.lengths
        outer.tunnel, outer.circuit = number, record.circuit
        self._send(out, record.home, outer)
        return out

    def open(self, batch: Batch, now: float, depth: int = 0) -> list[Output]:
        """Protected packets as they came in for a local address of a context."""
        if self.taps:
            self._seen("outer", "decapsulate", batch)
        return self._open(batch, now, depth)

    def _open(self, batch: Batch, now: float, depth: int) -> list[Output]:
        host = self._host
        host.stamp(batch, self._open_step, now)
        result = self._sadb.decapsulate_batch(batch.body, batch.lengths, batch.context)
        out: list[Output] = []
        if result.drops.counts:
            out += host.count_drops(result.drops, now)
        for group in result.groups:
            number, lengths = group.tunnel, group.lengths
            state = self._tunnels.states[number]
            record = state.record
            self._counters.count_tunnel(
                number, DECAPSULATED, len(lengths), len(group.body) - HEADROOM * len(lengths)
            )
            clear = Batch(
                Step.CIRCUIT_IN,
                group.body,
                lengths,
                ingress=batch.ingress,
                context=record.context,
                tunnel=number,
                circuit=record.circuit,
                marks=batch.marks,
            )
            if self.taps:
                self._seen("inner", "decapsulate", clear, number)
            if record.economical:
                out += self._forward(clear, now, depth, number)
                continue
            path = state.egress
            if path is None or path.generation != self._decider.generation:
                path = self._path(state)
            if path.cause is not None:
                self._stranded(path.cause, len(lengths), number, DECAPSULATED)
            else:
                self._send(out, record.home, clear)
        if result.negotiated:
            out += host.on_inbound_traffic(result.negotiated, now)
        if result.punted:
            out += self._aside(batch, result.punted, now, depth)
        return out

    def send_datagram(self, message: IkePacket, now: float) -> list[Output]:
        """A datagram of IKE on its way. Whatever the mode of the tunnel that it is about, it goes by the ASP's own
        routes: the tunnel's circuit is for the tunnel's packets, and may not be there yet."""
        packet = self.datagrams.datagram(message)
        if packet is None:
            self._counters.count_ike_dropped()
            return []
        self._counters.count_ike_out()
        way = self._decider.to(message.context, message.remote)
        if way.kind is DecisionKind.TUNNEL and self._tunnels.records[way.tunnel].remote == message.remote:
            # The way to the tunnel's peer leads into the tunnel that is to be made.
            self._counters.count_ike_dropped()
            self._host.drop(DropCause.LOOP)
            return []
        batch = Batch(
            Step.OUT, bytearray(HEADROOM) + packet, array("H", [HEADROOM + len(packet)]), context=message.context
        )
        if self.taps:
            self._seen("outer", "ike", batch)
        return self._go(way, batch, now, 0, 0, own=True)

    # inside

    def _seen(self, side: str, step: str, batch: Batch, tunnel: int = 0) -> None:
        """Show packets to whoever watches this side."""
        tap = self.taps.get(side)
        if tap is not None:
            state = self._tunnels.states.get(tunnel)
            tap(f"{step} {state.record.name}" if state is not None else step, batch)

    def _unanswered(self, batch: Batch, now: float) -> list[Output]:
        """Packets for a negotiated tunnel without any SA: dropped, and IKE hears which lines they want."""
        result = self._sadb.encapsulate_tunnel(batch.tunnel, batch.body, batch.lengths, self._random)
        out = self._refused(batch.tunnel, result.drops, now)
        return out + self._host.on_acquire(batch.tunnel, result.missing, now) if result.missing else out

    def _aside(self, batch: Batch, packets: Iterable[memoryview], now: float, depth: int) -> list[Output]:
        """IKE's packets, what routers say of ours, and pieces: what becomes whole is opened together."""
        out: list[Output] = []
        body, lengths = bytearray(), array("H")
        for packet in packets:
            if packet[9] == PROTOCOL_ICMP:
                out += self.path_mtus.heard(batch.context, packet, now)
                continue
            found = self.datagrams.arrived(batch.context, packet, now)
            if isinstance(found, IkePacket):
                out.append(ToIke(found))
            elif found is not None:
                length = HEADROOM + len(found.packet)
                if length > LONGEST_BATCHED:
                    self._host.drop(IpsecDropCause.MALFORMED)
                    continue
                body += bytearray(HEADROOM) + found.packet
                lengths.append(length)
        if not lengths:
            return out
        return out + self._open(replace(batch, body=body, lengths=lengths, marks=()), now, depth)

    def _path(self, state: AspTunnel) -> TunnelEgress:
        """Decide how the packets of a tunnel go on, for this generation of decisions."""
        record, decider = state.record, self._decider
        limits = tunnel_mtu(record, state.overhead, self.path_mtus.egress(state))
        cause: AnyCause | None = None
        way: Decision | None = None
        if record.economical:
            way = decider.to(record.outer_context, state.peer)
            if way.kind is DecisionKind.TUNNEL and way.tunnel == record.number:
                # The way to the tunnel's peer leads into the tunnel itself.
                cause = DropCause.LOOP
            elif way.kind is DecisionKind.DROP:
                # No number and no cipher is spent on what would not leave.
                cause = way.cause or DropCause.NO_ROUTE
        elif not record.circuit or not record.home:
            cause = AspDropCause.NO_CIRCUIT
        elif not self._host.up.get(record.home, False):
            cause = AspDropCause.HOME_DOWN
        state.egress = path = TunnelEgress(decider.generation, limits, cause, way)
        return path

    def _forward(self, batch: Batch, now: float, depth: int, tunnel: int) -> list[Output]:
        """Route clear packets that came out of an economical tunnel."""
        out: list[Output] = []
        for decision, body, lengths in classify(self._decider, batch.context, batch.body, batch.lengths):
            if decision.kind >= DecisionKind.PORT:
                decrement_ttls(body, lengths)
            part = Batch(
                Step.OUT,
                body,
                lengths,
                ingress=batch.ingress,
                context=batch.context,
                marks=batch.marks,
            )
            out += self._go(decision, part, now, depth, tunnel, own=False)
        return out

    def _go(
        self,
        decision: Decision,
        batch: Batch,
        now: float,
        depth: int,
        tunnel: int,
        *,
        own: bool,
        most: int = UNLIMITED,
    ) -> list[Output]:
        """Send packets the way that was decided for them. `own`: their source is this router, which needs no
        ICMP error, and they are protected by `tunnel`, if it is not 0; else they came in by it. What may be cut
        leaves a port in pieces of `most` octets."""
        kind = decision.kind
        which = ENCAPSULATED if own else DECAPSULATED
        out: list[Output] = []
        if kind is DecisionKind.PORT:
            mtu = self._routes.mtu(decision.port)
            most = min(mtu, most)
            if max(batch.lengths) - HEADROOM > most:
                fitted = fit_to_mtu(batch.body, batch.lengths, MtuLimits(most, mtu))
                self._count(fitted)
                self._counters.count_post_ipsec_drop(tunnel, which, IpsecDropCause.MALFORMED, fitted.malformed)
                if own:
                    self._stranded(DropCause.TOO_LONG, len(fitted.too_long), tunnel, which)
                else:
                    self._counters.count_post_ipsec_drop(tunnel, which, DropCause.TOO_LONG, len(fitted.too_long))
                    source = self._routes.source(batch.context, tunnel)
                    for packet in fitted.too_long:
                        out += self._report(DropCause.TOO_LONG, packet, batch.context, source, now, depth, mtu=mtu)
                if not fitted.lengths:
                    return out
                batch.body, batch.lengths = fitted.body, fitted.lengths
            batch.step, batch.port, batch.address = Step.OUT, decision.port, decision.address
            self._send(out, decision.card, batch)
        elif kind is DecisionKind.TUNNEL:
            record = self._tunnels.records[decision.tunnel]
            batch.step, batch.tunnel = Step.PROTECT, record.number
            if record.asp != self._host.card:
                self._send(out, record.asp, batch)
            elif depth < NESTING:
                out += self.protect(batch, now, depth + 1)
            else:
                self._stranded(DropCause.LOOP, len(batch.lengths), tunnel, which)
        elif kind is DecisionKind.DECAPSULATE or kind is DecisionKind.ASP_ADDRESS:
            batch.step = Step.OPEN
            if decision.card != self._host.card:
                self._send(out, decision.card, batch)
            elif depth < NESTING:
                out += self.open(batch, now, depth + 1)
            else:
                self._stranded(DropCause.LOOP, len(batch.lengths), tunnel, which)
        elif kind is DecisionKind.LOCAL:
            card = self._routes.line_card(batch.context, _destination(batch.body))
            if card:
                batch.step = Step.LOCAL
                self._send(out, card, batch)
            else:
                self._stranded(DropCause.NEXT_HOP_DOWN, len(batch.lengths), tunnel, which)
        else:
            cause = decision.cause or DropCause.NO_ROUTE
            if own or cause not in ERRORS:
                self._stranded(cause, len(batch.lengths), tunnel, which)
            else:
                self._counters.count_post_ipsec_drop(tunnel, which, cause, len(batch.lengths))
                source = self._routes.source(batch.context, tunnel)
                for packet in batch.packets():
                    out += self._report(cause, packet[HEADROOM:], batch.context, source, now, depth)
        return out

    def _report(
        self,
        cause: DropCause,
        packet: memoryview,
        context: int,
        source: int,
        now: float,
        depth: int,
        *,
        mtu: int = 0,
    ) -> list[Output]:
        """Drop a packet and tell its sender why, if that is owed and not too much."""
        self._host.drop(cause)
        message = self._errors.make(cause, packet, lambda _: source, now, mtu)
        if message is None:
            return []
        self._counters.count_icmp_error()
        batch = Batch(
            Step.OUT,
            bytearray(HEADROOM) + message,
            array("H", [HEADROOM + len(message)]),
            context=context,
        )
        way = self._decider.to(context, _destination(batch.body))
        return self._go(
            way if way.kind is not DecisionKind.ASP_ADDRESS else way.to_local, batch, now, depth, 0, own=True
        )

    def _send(self, out: list[Output], card: str, batch: Batch) -> None:
        self._counters.values[self._counters.sent] += len(batch.lengths)
        out.append(ToFabric(card, self._host.sending(batch)))

    def _lost(self, cause: AnyCause, batch: Batch) -> list[Output]:
        self._host.drop(cause, len(batch.lengths))
        if cause is not AspDropCause.NO_TUNNEL:
            self._counters.count_tunnel_drop(batch.tunnel, ENCAPSULATED, cause, len(batch.lengths))
        return []

    def _stranded(self, cause: AnyCause, packets: int, tunnel: int, which: int) -> None:
        """Drop packets that were protected or opened, and have no way on."""
        if packets:
            self._host.drop(cause, packets)
            self._counters.count_post_ipsec_drop(tunnel, which, cause, packets)

    def _refused(self, tunnel: int, drops: Drops, now: float) -> list[Output]:
        for cause, packets in drops.counts.items():
            self._counters.count_tunnel_drop(tunnel, ENCAPSULATED, cause, packets)
        return self._host.count_drops(drops, now)

    def _count(self, fitted: FitResult) -> None:
        self._counters.count_fragments(fitted.fragments)
        if fitted.malformed:
            self._host.drop(IpsecDropCause.MALFORMED, fitted.malformed)


def _destination(body: Writable) -> int:
    return int.from_bytes(body[HEADROOM + 16 : HEADROOM + 20], "big")
