"""The forwarder of every card (RFC 1812 5.2.1): look packets up, and do what follows from the decision.

In: batches of IPv4 packets without a link header, or a decision for a batch. Out: what the card's `Delivery`
returns for them, and ICMP errors. Here are the TTL, the limit of nested tunnels, the next step of the batch, and
whom to tell of a drop. A `Delivery` is what a kind of card does itself: a line card has ports and a local stack,
an ASP has tunnels.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from chassis.bus.batch import Batch, Step, TraceMark
from chassis.bus.counters import Counters
from chassis.bus.engine import Output
from chassis.bus.runs import Hops, Runs
from chassis.fwd.classify import look_up
from chassis.fwd.classify_loop import Group
from chassis.fwd.decided import DecidedPackets, Numbers
from chassis.fwd.decision import Decision, DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.flow_table import DecisionNumbers
from chassis.fwd.icmp_errors import ERRORS, IcmpErrors
from chassis.fwd.joint_ways import NO_WAY, JointWays
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.rewrite import decrement_ttls
from chassis.fwd.tables import ForwardingTables
from chassis.net.columns import longest
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.types import Writable

ORIGINATED = "packets originated"
"""Counter of packets whose source is this card."""

# Members of an enumeration, looked up once: each look-up takes as long as a function call.
_PORT, _TUNNEL, _LOCAL = DecisionKind.PORT, DecisionKind.TUNNEL, DecisionKind.LOCAL
_DECAPSULATE, _ASP_ADDRESS = DecisionKind.DECAPSULATE, DecisionKind.ASP_ADDRESS
_STEP_ENCAPSULATE, _STEP_DECAPSULATE = Step.ENCAPSULATE, Step.DECAPSULATE
_STEP_EGRESS, _STEP_LOCAL = Step.EGRESS, Step.LOCAL

MAX_TUNNEL_NESTING = 8
"""Times (count) that one card may encapsulate and decapsulate a packet before it is dropped as a loop."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where packets come from, as far as forwarding depends on it.

    `transit`: other nodes sent them, so their TTL counts and errors are owed; else this router did. `port` is the
    port by which they came in, empty where this card does not know it. `tunnel` is the tunnel that they came out
    of, or, not in transit, the one that they are the outer packets of; 0 for none. `nesting` counts the tunnels
    that this card has put them through. `max_fragment` (octets) limits the fragments of one that is fragmented.
    """

    transit: bool
    port: str = ""
    tunnel: int = 0
    nesting: int = 0
    max_fragment: int = UNLIMITED


class Delivery(Protocol):
    """What a kind of card does itself. The batch has its step, and where it matters port, address and tunnel, or
    runs of several."""

    def to_port(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Send packets out of `batch.port`, a port of `card`, to the neighbour `batch.address`. Those of a batch
        with `hops` fit their ports."""

    def to_tunnel(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Have `card` encapsulate packets for `batch.tunnel`."""

    def to_decapsulation(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Have `card` decapsulate packets for an address that it owns."""

    def to_local_stack(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Deliver packets for the router itself."""

    def dropped(self, cause: DropCause, packets: int, origin: Origin) -> None:
        """Count packets as dropped."""


class Forwarder:
    """Forwarding of one card. Each call returns its outputs, in the order of the packets."""

    def __init__(
        self,
        card: str,
        tables: ForwardingTables,
        delivery: Delivery,
        counters: Counters,
    ) -> None:
        self._card = card
        self._tables = tables
        self._decider = tables.decider
        self._delivery = delivery
        self._joint = JointWays(tables)
        self._icmp = IcmpErrors(counters)
        self._values = counters.values
        self._originated = counters.slot(ORIGINATED)

    def forward(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Look packets without a link header up in the context of their batch, and act on the decisions."""
        found = look_up(self._decider, batch.context, batch.body, batch.lengths, transit=origin.transit)
        if isinstance(found, DecidedPackets):
            return self.execute_decided(found, batch, origin, now)
        return self.execute_groups(found, batch, origin, now)

    def forward_together(self, batch: Batch, origin: Origin, now: float) -> list[Output] | None:
        """Forward packets of several tunnels as `forward` does, if all leave by ports, whole, or into tunnels;
        otherwise return None, with nothing done."""
        found = look_up(self._decider, batch.context, batch.body, batch.lengths, transit=origin.transit)
        if isinstance(found, DecidedPackets):
            self._joint.refresh()
            ways = set(self._joint.of(found.numbers).tolist())
            if all(self._may_join(way, origin) for way in ways) and self._fit(found, origin):
                return self.execute_decided(found, batch, origin, now)
            found = found.groups(self._decider.numbered)
        for decision, _, lengths in found:
            if not self._joint_card(decision, lengths, origin):
                return None
        return self.execute_groups(found, batch, origin, now)

    def execute_groups(self, groups: list[Group], batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Act on the decisions for the packets of a batch.

        Packets for next hops on one card, or for tunnels of one, go there together, in runs.
        """
        if len(groups) == 1:
            return self._execute_group(groups[0], batch, origin, now)
        joint: dict[tuple[DecisionKind, str], list[Group]] = {}
        for group in groups:
            decision, _, lengths = group
            joint.setdefault((decision.kind, self._joint_card(decision, lengths, origin)), []).append(group)
        joint = {key: parts for key, parts in joint.items() if key[1] and len(parts) > 1}
        together = {id(decision) for parts in joint.values() for decision, _, _ in parts}
        out: list[Output] = []
        for group in groups:
            if id(group[0]) not in together:
                out += self._execute_group(group, batch, origin, now)
        for (kind, card), parts in joint.items():
            part = Batch(_STEP_EGRESS, *_joined(parts), ingress=batch.ingress, context=batch.context)
            if origin.transit:
                decrement_ttls(part.body, part.lengths)
            if kind is _PORT:
                part.hops = tuple([(len(own), to.port, to.address) for to, _, own in parts])
                out += self._delivery.to_port(card, part, origin, now)
            else:
                part.step, part.runs = _STEP_ENCAPSULATE, tuple([(len(own), to.tunnel, 0) for to, _, own in parts])
                out += self._delivery.to_tunnel(card, part, origin, now)
        return out

    def execute_decided(self, decided: DecidedPackets, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Do what `execute_groups` does; packets that go on together are not taken apart by decision before."""
        numbered, numbers, joint = self._decider.numbered, decided.numbers, self._joint
        joint.refresh()
        if not self._fit(decided, origin):
            return self.execute_groups(decided.groups(numbered), batch, origin, now)
        ways = joint.of(numbers)
        way = int(ways[0])
        if ways.tobytes() == ways[:1].tobytes() * len(ways) and self._may_join(way, origin):
            return self._execute_way(way, numbers, decided.counts, decided.arranged(), batch, origin, now)
        places: dict[int, list[int]] = {}
        for place, way in enumerate(ways.tolist()):
            places.setdefault(way if self._may_join(way, origin) else NO_WAY, []).append(place)
        alone = places.pop(NO_WAY, [])
        alone += [members[0] for members in places.values() if len(members) == 1]
        alone.sort()
        together = [(way, members) for way, members in places.items() if len(members) > 1]
        order = np.array([*alone, *chain.from_iterable([members for _, members in together])])
        numbers, counts = numbers[order], decided.counts[order]
        body, lengths = decided.arranged(order)
        view = memoryview(body)
        out: list[Output] = []
        first = at = place = 0

        def packets(decisions: int) -> tuple[memoryview, array[int]]:
            """Return the packets of so many more decisions."""
            nonlocal first, at, place
            last = first + int(counts[place : place + decisions].sum())
            own = lengths[first:last]
            begin, at = at, at + sum(own)
            first, place = last, place + decisions
            return view[begin:at], own

        for number in numbers[: len(alone)].tolist():
            out += self._execute_group((numbered[number], *packets(1)), batch, origin, now)
        for way, members in together:
            some = slice(place, place + len(members))
            given = packets(len(members))
            out += self._execute_way(way, numbers[some], counts[some], given, batch, origin, now)
        return out

    def _fit(self, decided: DecidedPackets, origin: Origin) -> bool:
        """Return whether every packet leaves whole by each of the ways; `_joint` knows the decisions."""
        largest = longest(decided.lengths) - HEADROOM
        joint = self._joint
        return largest <= origin.max_fragment and (
            largest <= joint.smallest or largest <= joint.largest(decided.numbers)
        )

    def _may_join(self, way: int, origin: Origin) -> bool:
        """Return whether packets for this place of `JointWays.ways` may go there together."""
        if way == NO_WAY:
            return False
        kind, card = self._joint.ways[way]
        return kind is _PORT or (origin.transit and (card != self._card or origin.nesting < MAX_TUNNEL_NESTING))

    def _execute_way(
        self,
        way: int,
        numbers: DecisionNumbers,
        counts: Numbers,
        packets: tuple[Writable, array[int]],
        batch: Batch,
        origin: Origin,
        now: float,
    ) -> list[Output]:
        """Send packets on by a way. `numbers` are their decisions and `counts` how many packets each has, in the
        order of the packets."""
        kind, card = self._joint.ways[way]
        part = Batch(_STEP_EGRESS, *packets, ingress=batch.ingress, context=batch.context)
        if origin.transit:
            decrement_ttls(part.body, part.lengths)
        targets = self._joint.targets(numbers)
        if kind is _PORT:
            part.hops = Hops.of(counts, self._joint.port_names(numbers), targets)
            return self._delivery.to_port(card, part, origin, now)
        part.step, part.runs = _STEP_ENCAPSULATE, Runs.of(counts, targets, 0)
        return self._delivery.to_tunnel(card, part, origin, now)

    def _execute_group(self, group: Group, batch: Batch, origin: Origin, now: float) -> list[Output]:
        decision, body, lengths = group
        part = Batch(batch.step, body, lengths, "", 0, batch.ingress, batch.context)
        if batch.marks:
            part.marks = batch.marks
        return self.execute_decision(decision, part, origin, now)

    def _joint_card(self, decision: Decision, lengths: array[int], origin: Origin) -> str:
        """Return the card to which packets may go together with others; empty if more is to be looked at first."""
        if decision.kind is _PORT:
            largest = min(self._tables.mtu(decision.port), origin.max_fragment)
            return decision.card if longest(lengths) - HEADROOM <= largest else ""
        if decision.kind is _TUNNEL and origin.transit:
            card = self._tables.tunnels[decision.tunnel].asp
            return card if card != self._card or origin.nesting < MAX_TUNNEL_NESTING else ""
        return ""

    def execute_decision(self, decision: Decision, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Act on the decision for a batch, which is the callee's from then on."""
        kind = decision.kind
        if kind >= _PORT:
            if origin.transit:
                decrement_ttls(batch.body, batch.lengths)
            if kind is _PORT:
                batch.step, batch.port, batch.address = _STEP_EGRESS, decision.port, decision.address
                return self._delivery.to_port(decision.card, batch, origin, now)
            card = self._tables.tunnels[decision.tunnel].asp
            # The route to a tunnel's peer leads into that tunnel, or tunnels lead into each other.
            into_itself = decision.tunnel == origin.tunnel and not origin.transit
            if into_itself or (card == self._card and origin.nesting >= MAX_TUNNEL_NESTING):
                return self.drop(DropCause.LOOP, batch, origin, now)
            batch.step, batch.tunnel = _STEP_ENCAPSULATE, decision.tunnel
            return self._delivery.to_tunnel(card, batch, origin, now)
        if kind is _LOCAL:
            batch.step = _STEP_LOCAL
            return self._delivery.to_local_stack(batch, origin, now)
        if kind is _DECAPSULATE or kind is _ASP_ADDRESS:
            if decision.card == self._card and origin.nesting >= MAX_TUNNEL_NESTING:
                return self.drop(DropCause.LOOP, batch, origin, now)
            batch.step = _STEP_DECAPSULATE
            return self._delivery.to_decapsulation(decision.card, batch, origin, now)
        return self.drop(decision.cause or DropCause.NO_ROUTE, batch, origin, now)

    def originate(
        self, context: int, packet: bytes, now: float, *, marks: tuple[TraceMark, ...] = (), nesting: int = 0
    ) -> list[Output]:
        """Send a packet of the router's own. Its TTL is not touched, and no error about it is made."""
        self._values[self._originated] += 1
        decision = self._decider.decide_destination(context, int.from_bytes(packet[16:20], "big"))
        if decision.kind is _ASP_ADDRESS:
            decision = decision.to_local
        body = bytearray(HEADROOM_FILL + packet)
        batch = Batch(_STEP_LOCAL, body, array("H", (len(body),)), context=context, marks=marks)
        return self.execute_decision(decision, batch, Origin(transit=False, nesting=nesting), now)

    def drop(self, cause: DropCause, batch: Batch, origin: Origin, now: float, mtu: int = 0) -> list[Output]:
        """Drop a batch: count its packets and send the ICMP errors that are owed (`send_icmp_errors`)."""
        self._delivery.dropped(cause, len(batch.lengths), origin)
        if cause not in ERRORS or not origin.transit:
            return []
        packets = [packet[HEADROOM:] for packet in batch.packets()]
        return self.send_icmp_errors(cause, packets, batch.context, origin, now, mtu)

    def send_icmp_errors(
        self,
        cause: DropCause,
        packets: Iterable[memoryview],
        context: int,
        origin: Origin,
        now: float,
        mtu: int = 0,
    ) -> list[Output]:
        """Send the ICMP errors that are owed for dropped packets, given without headroom.

        The caller has counted the packets. `mtu` (octets) is that of the next hop, for `TOO_LONG`.
        """
        if cause not in ERRORS or not origin.transit:
            return []
        out: list[Output] = []

        def source(sender: int) -> int:
            # The router sends no error to itself.
            if self._tables.fib.local(context, sender) is not None:
                return 0
            return self._tables.egress_address(context, self._decider.decide_destination(context, sender))

        for packet in packets:
            error = self._icmp.make(cause, packet, source, now, mtu)
            if error is not None:
                out += self.originate(context, error, now, nesting=origin.nesting)
        return out


def _joined(groups: list[Group]) -> tuple[Writable, array[int]]:
    """Return body and lengths of the packets of these groups, in their order."""
    lengths = array("H")
    for _, _, own in groups:
        lengths += own
    return bytearray().join([body for _, body, _ in groups]), lengths
