"""Decisions: what happens to the packets of a flow, looked up once and kept for a generation.

A flow is (context, source, destination). A decision is an object shared by all flows that are treated alike, so
that "the same decision" is identity and a batch stays whole.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.bus.counters import Counters
from chassis.bus.records import NextHop, RouteRecord
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.fib import Fib, Usable, choose_next_hop
from chassis.fwd.flow_table import DecisionNumbers, FlowTable, Keys
from chassis.net.address import ALL_ONES, directed_broadcast, is_multicast, is_unicast_host

MAX_CACHED_FLOWS = 65536
"""Flows (count) that a card caches, of all contexts, at most. One more clears the cache: a flood of addresses
costs each flow one lookup."""

MAX_SHARED_DECISIONS = 16384
"""Decisions (count) that flows share, at most: a connected network has one for each of its addresses."""

EVICTED = "decisions shed"
"""Counter of a card: flows and shared decisions that were evicted."""


class DecisionKind(IntEnum):
    """What is done with a packet. From `PORT` on it is forwarded, so its TTL counts."""

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
    """What is done with packets, and where they go. Compared by identity; which fields count depends on the kind.

    `address` is the next hop's address on the port, `card` the card to which packets are given. Only `ASP_ADDRESS`
    has `to_decapsulate` and `to_local`. `number` is its place in `Decider.numbered`, if it is in the cache.
    """

    __slots__ = (
        "address",
        "card",
        "cause",
        "generation",
        "kind",
        "number",
        "port",
        "to_decapsulate",
        "to_local",
        "tunnel",
    )

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
        self.number = 0

    def __repr__(self) -> str:
        details = [str(self.cause)] if self.cause else []
        details += [f"{name}={getattr(self, name)}" for name in ("card", "port", "tunnel") if getattr(self, name)]
        return f"Decision({', '.join([self.kind.name, *details])})"


DROPS: dict[DropCause, Decision] = {cause: Decision(DecisionKind.DROP, cause=cause) for cause in DropCause}
"""The decision to drop for a cause; independent of any generation."""

ARP = Decision(DecisionKind.ARP)

Kinds: TypeAlias = NDArray[np.uint8]
"""Values of `DecisionKind`."""

FlowCache = dict[int, Decision]
"""Flow key (source << 32 | destination) to its decision, which may be of an older generation."""


def by_packet(number: int) -> int:
    """Return what stands for the number of a decision that does not say what is done with each packet of a flow,
    and the number for that."""
    return -2 - number


class Decider:
    """Decides for flows, and caches the decisions until the generation changes.

    `usable` returns whether a next hop may be given packets now. Call `invalidate` when its answer for any next
    hop changes: old decisions are void then, without a visit to each.
    """

    def __init__(
        self, fib: Fib, usable: Usable, card_up: dict[str, bool], counters: Counters | None = None
    ) -> None:
        self.fib = fib
        self.generation = 0
        self._usable = usable
        self._card_up = card_up
        self._flows: dict[int, FlowCache] = {}
        self._cached = 0
        """Flows in all caches."""
        self._counters = Counters() if counters is None else counters
        self._shared: dict[tuple[int | str, ...], Decision] = {}
        self._tables: dict[int, FlowTable] = {}
        self.numbered: list[Decision] = []
        """The decisions of this generation, by number; another list after they were evicted."""
        self._kinds: Kinds = np.zeros(1, np.uint8)
        """Their kinds, and room for more."""

    def invalidate(self) -> None:
        """Make all decisions void: something that they rest on changed."""
        self.generation += 1
        self._forget_shared()

    def flows(self, context: int) -> FlowCache:
        """Return the cache of a context. An entry is valid only if its generation is the current one."""
        flows = self._flows.get(context)
        if flows is None:
            flows = self._flows[context] = {}
        return flows

    def find(self, context: int, keys: Keys) -> DecisionNumbers | None:
        """Return the number of the decision for each of many flows: `by_packet` of it for `ASP_ADDRESS`, and
        `NOWHERE` for a flow that is to be looked up alone. None: some of them were evicted meanwhile."""
        table = self._tables.get(context)
        if table is None:
            table = self._tables[context] = FlowTable()
        numbers, missing = table.find(keys)
        if missing is not None:
            cached, generation, numbered = self.flows(context).get, self.generation, self.numbered
            wanted, found = keys[missing], []
            for key in wanted.view(">u8").tolist():
                flow = cached(key)
                if flow is None or flow.generation != generation:
                    flow = self.decide(context, key)
                number = flow.number
                found.append(by_packet(number) if flow.kind is DecisionKind.ASP_ADDRESS else number)
            if numbered is not self.numbered:
                return None
            numbers[missing] = found
            table.add(wanted, numbers[missing])
        return numbers

    def kinds(self, numbers: DecisionNumbers) -> Kinds:
        """Return the kinds of decisions."""
        return self._kinds[numbers]

    def decide(self, context: int, key: int) -> Decision:
        """Return the decision for a flow (source << 32 | destination), made now, and cache it."""
        flows = self.flows(context)
        if key not in flows and self._cached >= MAX_CACHED_FLOWS:
            self._evict_all()
        decision = self._decide(context, key >> 32, key & ALL_ONES)
        if decision.kind is DecisionKind.DROP:
            # Shared drops have no generation: the cache keeps a copy that ends with this one.
            cause = decision.cause
            decision = self._share(DecisionKind.DROP, (DecisionKind.DROP, str(cause)), cause=cause)
        # That may have evicted all as well.
        if key not in flows:
            self._cached += 1
        flows[key] = decision
        return decision

    def _decide(self, context: int, source: int, destination: int) -> Decision:
        if not is_unicast_host(source):
            return DROPS[DropCause.MARTIAN_SOURCE]
        return self.decide_destination(context, destination)

    def decide_destination(self, context: int, destination: int) -> Decision:
        """Return the decision for packets of the router itself; their source is not checked."""
        local = self.fib.local(context, destination)
        if local is not None:
            if local.owner:
                return self._asp_address(local.owner)
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
        hop, passed = choose_next_hop(route.next_hops, self._usable)
        if hop is None:
            return DROPS[DropCause.TUNNEL_DOWN if passed else DropCause.NEXT_HOP_DOWN]
        return self._by_next_hop(hop, route, destination)

    def _by_next_hop(self, hop: NextHop, route: RouteRecord, destination: int) -> Decision:
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

    def _asp_address(self, asp: str) -> Decision:
        to_decapsulate = DROPS[DropCause.OWNER_DOWN]
        if self._card_up.get(asp):
            to_decapsulate = self._share(DecisionKind.DECAPSULATE, (DecisionKind.DECAPSULATE, asp), card=asp)
        to_local = self._share(DecisionKind.LOCAL, (DecisionKind.LOCAL,))
        # The last one, because each may evict those before it: this one is in the cache.
        decision = self._share(DecisionKind.ASP_ADDRESS, (DecisionKind.ASP_ADDRESS, asp), card=asp)
        decision.to_decapsulate, decision.to_local = to_decapsulate, to_local
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
                self._evict_all()
            decision = self._shared[key] = Decision(
                kind, self.generation, cause=cause, card=card, port=port, address=address, tunnel=tunnel
            )
            self._add_number(decision)
        return decision

    def _add_number(self, decision: Decision) -> None:
        decision.number = number = len(self.numbered)
        self.numbered.append(decision)
        if number == len(self._kinds):
            self._kinds = np.concatenate((self._kinds, np.zeros_like(self._kinds)))
        self._kinds[number] = decision.kind

    def _forget_shared(self) -> None:
        self._shared = {}
        self._tables = {}
        self.numbered = []

    def _evict_all(self) -> None:
        """Clear all caches: a flow holds its decision, so both go. Flows that continue are decided again."""
        self._counters.add(EVICTED, self._cached + len(self._shared))
        # Cleared in place: `classify` holds the cache of its context.
        for flows in self._flows.values():
            flows.clear()
        self._cached = 0
        self._forget_shared()
