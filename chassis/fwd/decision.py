"""Decisions: what happens to the packets of a flow, looked up once and kept for a generation.

A flow is (context, source, destination), as the header bytes give them. A decision is an object shared by
all flows that go the same way, so that "the same decision" is identity and a batch stays whole.
"""

from __future__ import annotations

from enum import IntEnum

from chassis.bus.counters import Counters
from chassis.bus.records import NextHop, RouteRecord
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.fib import Fib, Usable, choose
from chassis.net.address import ALL_ONES, directed_broadcast, is_multicast, is_unicast_host

MAX_CACHED_FLOWS = 65536
"""Most flows that a card keeps, of all contexts. One more starts the cache anew: it is a cache, not a table. A
stranger's flood of addresses costs the flows that were there one look at the table each."""

MAX_SHARED_DECISIONS = 16384
"""Most decisions that flows share; a connected network has one for each of its addresses. As for flows."""

SHED = "decisions shed"
"""A card's counter of the flows and shared decisions that made room."""


class DecisionKind(IntEnum):
    """What is done. From `PORT` on the packet is forwarded, so its TTL counts."""

    DROP = 1
    ARP = 2
    LOCAL = 3
    """The router's own stack."""
    DECAPSULATE = 4
    """The ASP that owns the address."""
    ASP_ADDRESS = 5
    """An address that an ASP owns: the packet's protocol says whether `DECAPSULATE` or `LOCAL`."""
    PORT = 6
    TUNNEL = 7


class Decision:
    """One way for packets. Compared by identity; which fields count depends on the kind.

    `address` is the next hop's address on the port, `card` the card to which packets are given. Only `ASP_ADDRESS`
    has `to_decapsulate` and `to_local`.
    """

    __slots__ = ("address", "card", "cause", "generation", "kind", "port", "to_decapsulate", "to_local", "tunnel")

    to_decapsulate: Decision
    to_local: Decision

    def __init__(
        self,
        kind: DecisionKind,
        generation: int = 0,
        *,
        cause: DropCause | None = None,
        card: str = "",
        port: str = "",
        address: int = 0,
        tunnel: int = 0,
    ) -> None:
        self.kind = kind
        self.generation = generation
        self.cause = cause
        self.card = card
        self.port = port
        self.address = address
        self.tunnel = tunnel

    def __repr__(self) -> str:
        details = [str(self.cause)] if self.cause else []
        details += [f"{name}={getattr(self, name)}" for name in ("card", "port", "tunnel") if getattr(self, name)]
        return f"Decision({', '.join([self.kind.name, *details])})"


DROPS: dict[DropCause, Decision] = {cause: Decision(DecisionKind.DROP, cause=cause) for cause in DropCause}
"""The decision to drop for a cause; independent of any generation."""

ARP = Decision(DecisionKind.ARP)

FlowCache = dict[int, Decision]
"""Flow key (source << 32 | destination) to its decision, which may be of an older generation."""


class Decider:
    """Decides for flows, and remembers it until the generation changes.

    `usable` says whether a next hop may be given packets at this moment. Whoever changes its mind about any
    next hop calls `invalidate`: old decisions are then void without being visited.
    """

    def __init__(
        self, fib: Fib, usable: Usable, card_up: dict[str, bool], counters: Counters | None = None
    ) -> None:
        self.fib = fib
        self.generation = 0
        self._usable = usable
        self._card_up = card_up
        self._flows: dict[int, FlowCache] = {}
        self._held = 0
        """Flows in all caches."""
        self._counters = Counters() if counters is None else counters
        self._shared: dict[tuple[int | str, ...], Decision] = {}

    def invalidate(self) -> None:
        """Something that decisions rest on changed."""
        self.generation += 1
        self._shared = {}

    def flows(self, context: int) -> FlowCache:
        """The cache of a context: entries count only if their generation is the current one."""
        flows = self._flows.get(context)
        if flows is None:
            flows = self._flows[context] = {}
        return flows

    def decide(self, context: int, key: int) -> Decision:
        """The decision for a flow, made now; it is put into the cache."""
        decision = self._make(context, key >> 32, key & ALL_ONES)
        if decision.kind is DecisionKind.DROP:
            # Shared drops have no generation: the cache keeps a copy that ends with this one.
            cause = decision.cause
            decision = self._share(DecisionKind.DROP, (DecisionKind.DROP, str(cause)), cause=cause)
        flows = self.flows(context)
        if key not in flows:
            if self._held >= MAX_CACHED_FLOWS:
                self._make_room()
            self._held += 1
        flows[key] = decision
        return decision

    def to(self, context: int, destination: int) -> Decision:
        """The decision for packets of the router itself, whose source is not looked at."""
        return self._to(context, destination)

    def _make(self, context: int, source: int, destination: int) -> Decision:
        if not is_unicast_host(source):
            return DROPS[DropCause.MARTIAN_SOURCE]
        return self._to(context, destination)

    def _to(self, context: int, destination: int) -> Decision:
        local = self.fib.local(context, destination)
        if local is not None:
            if local.owner:
                return self._owned(local.owner)
            return self._share(DecisionKind.LOCAL, (DecisionKind.LOCAL,))
        if is_multicast(destination):
            return DROPS[DropCause.MULTICAST]
        if destination == ALL_ONES:
            return DROPS[DropCause.BROADCAST]
        if not is_unicast_host(destination):
            return DROPS[DropCause.MARTIAN_DESTINATION]
        route = self.fib.lookup(context, destination)
        if route is None:
            return DROPS[DropCause.NO_ROUTE]
        hop, passed = choose(route.next_hops, self._usable)
        if hop is None:
            return DROPS[DropCause.TUNNEL_DOWN if passed else DropCause.NEXT_HOP_DOWN]
        return self._by(hop, route, destination)

    def _by(self, hop: NextHop, route: RouteRecord, destination: int) -> Decision:
        if hop.kind == "tunnel":
            return self._share(
                DecisionKind.TUNNEL, (DecisionKind.TUNNEL, hop.tunnel), card=hop.card, tunnel=hop.tunnel
            )
        if hop.kind == "local":
            return self._share(DecisionKind.LOCAL, (DecisionKind.LOCAL,))
        if hop.kind != "port":
            return DROPS[DropCause.DISCARD]
        address = hop.address
        if not address:
            # A connected network: neither its broadcast address nor its own is a host (RFC 2644).
            whole = directed_broadcast((route.prefix, route.length))
            if whole is not None and destination in (whole, route.prefix):
                return DROPS[DropCause.BROADCAST]
            address = destination
        return self._share(
            DecisionKind.PORT,
            (DecisionKind.PORT, hop.port, address),
            card=hop.card,
            port=hop.port,
            address=address,
        )

    def _owned(self, asp: str) -> Decision:
        decision = self._share(DecisionKind.ASP_ADDRESS, (DecisionKind.ASP_ADDRESS, asp), card=asp)
        if self._card_up.get(asp):
            decision.to_decapsulate = self._share(
                DecisionKind.DECAPSULATE, (DecisionKind.DECAPSULATE, asp), card=asp
            )
        else:
            decision.to_decapsulate = DROPS[DropCause.OWNER_DOWN]
        decision.to_local = self._share(DecisionKind.LOCAL, (DecisionKind.LOCAL,))
        return decision

    def _share(
        self,
        kind: DecisionKind,
        key: tuple[int | str, ...],
        *,
        cause: DropCause | None = None,
        card: str = "",
        port: str = "",
        address: int = 0,
        tunnel: int = 0,
    ) -> Decision:
        decision = self._shared.get(key)
        if decision is None:
            if len(self._shared) >= MAX_SHARED_DECISIONS:
                self._make_room()
            decision = self._shared[key] = Decision(
                kind, self.generation, cause=cause, card=card, port=port, address=address, tunnel=tunnel
            )
        return decision

    def _make_room(self) -> None:
        """Forget all flows and what they share: a flow holds its decision. Those that go on are decided anew."""
        self._counters.add(SHED, self._held + len(self._shared))
        # In their places: whoever goes through a batch has the cache of its context at hand.
        for flows in self._flows.values():
            flows.clear()
        self._held = 0
        self._shared = {}
