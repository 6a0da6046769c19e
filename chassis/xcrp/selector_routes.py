"""Traffic-selector routes: routes to the negotiated networks of a peer, into its tunnel (B-023, B-146, B-147).

They are candidates like those of a static route without `cost` into the tunnel's interface, and are used while the
tunnel is up. The last negotiated networks are kept while a tunnel is down, for discard routes.

Of two peers with the same network the first one has it, and the other when the first one goes. A network that
would lead the packets to the peer itself into its own tunnel gives no route, and neither does one that is, or is a
part of, a connected network of the router: whoever is there would be cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chassis.net.address import MASKS, format_prefix
from chassis.xcrp.plan import Plan, TunnelPlan
from chassis.xcrp.routes import Candidate, PrefixKey, order

MAX_SELECTOR_ROUTES: Final = 256
"""Most networks of one tunnel that become routes (count)."""

COST: Final = 1
DISTANCE: Final = 1
"""The values of a static route without `cost` and `distance`."""


MAX_NOTES: Final = 4
"""Networks of one report that are named in the log for standing without a route (count)."""


class SelectorRoutes:
    """Routes by tunnel and by prefix. `notes` are lines for the log: whoever logs them takes them out."""

    def __init__(self) -> None:
        self._of_tunnel: dict[int, tuple[PrefixKey, ...]] = {}
        self._added: dict[PrefixKey, dict[int, Candidate]] = {}
        """By prefix the candidates of tunnels, in the order in which they came."""
        self._refused: dict[int, frozenset[PrefixKey]] = {}
        """Networks of a tunnel that give no route."""
        self.notes: list[tuple[str, str]] = []
        """Name of the tunnel, and text."""

    def prefixes(self) -> Iterable[PrefixKey]:
        return self._added

    def of_tunnel(self, number: int) -> tuple[PrefixKey, ...]:
        return self._of_tunnel.get(number, ())

    def with_added(self, plan: Plan, key: PrefixKey) -> Sequence[Candidate]:
        """Return all candidates of a prefix, in order."""
        fixed = plan.prefixes.get(key, ())
        added = self._added.get(key)
        return fixed if added is None else order((*fixed, *added.values()))

    def replace(self, plan: Plan, number: int, selectors: Sequence[int]) -> set[PrefixKey]:
        """A tunnel came up with these networks (address and length in turn). Return the prefixes that changed."""
        tunnel_plan = plan.tunnels[number]
        networks: dict[PrefixKey, None] = {}
        if tunnel_plan.config.traffic_selector_routes and tunnel_plan.context:
            for address, length in zip(selectors[::2], selectors[1::2], strict=False):
                if 0 <= length <= 32 and 0 <= address < 1 << 32 and len(networks) < MAX_SELECTOR_ROUTES:
                    networks[tunnel_plan.context, address & MASKS[length], length] = None
        self._refuse(plan, tunnel_plan, networks)
        before = self._of_tunnel.get(number, ())
        if before == tuple(networks):
            return set()
        for key in before:
            if key not in networks:
                self._take_out(key, number)
        self._of_tunnel[number] = tuple(networks)
        if not networks:
            del self._of_tunnel[number]
        for key in networks:
            self._added.setdefault(key, {}).setdefault(number, _candidate(tunnel_plan))
        later = [key for key in networks if key not in before and next(iter(self._added[key])) != number]
        self._note(plan, tunnel_plan, later, "another tunnel has it, {}")
        return set(before) ^ set(networks)

    def on_down(self, number: int) -> None:
        """A tunnel went down: others that have its networks too have them first from now on."""
        for key in self._of_tunnel.get(number, ()):
            held = self._added[key]
            held[number] = held.pop(number)

    def _refuse(self, plan: Plan, tunnel_plan: TunnelPlan, networks: dict[PrefixKey, None]) -> None:
        """Take out the networks that may have no route."""
        same = tunnel_plan.context == tunnel_plan.outer
        loops = [key for key in networks if same and tunnel_plan.remote & MASKS[key[2]] == key[1]]
        own = [key for key in networks if key not in loops and _is_own(plan, key)]
        for key in (*loops, *own):
            del networks[key]
        known = self._refused.get(tunnel_plan.number, frozenset())
        self._note(plan, tunnel_plan, [key for key in loops if key not in known], "the peer itself is in it")
        self._note(plan, tunnel_plan, [key for key in own if key not in known], "it is connected to the router")
        refused = frozenset((*loops, *own))
        if refused:
            self._refused[tunnel_plan.number] = refused
        else:
            self._refused.pop(tunnel_plan.number, None)

    def _note(self, plan: Plan, tunnel_plan: TunnelPlan, keys: Sequence[PrefixKey], why: str) -> None:
        """Tell the log that these networks have no route into a tunnel. `{}` stands for the one that has it."""
        for key in keys[:MAX_NOTES]:
            first = plan.tunnels.get(next(iter(self._added.get(key, ())), 0))
            reason = why.format(first.label if first is not None else "")
            text = f"tunnel {tunnel_plan.label}: no route to {format_prefix(key[1:])}: {reason}"
            self.notes.append((tunnel_plan.config.name, text))
        if len(keys) > MAX_NOTES:
            text = f"tunnel {tunnel_plan.label}: no route to {len(keys) - MAX_NOTES} more networks"
            self.notes.append((tunnel_plan.config.name, text))

    def retain(self, plan: Plan, numbers: Iterable[int]) -> set[PrefixKey]:
        """Keep the routes of these tunnels if they exist in a new plan, in the same context, and still ask for
        routes. Return the prefixes that may have changed."""
        changed: set[PrefixKey] = set()
        for number in numbers:
            keys = self._of_tunnel.get(number)
            if keys is None:
                continue
            changed.update(keys)
            tunnel_plan = plan.tunnels.get(number)
            if (
                tunnel_plan is None
                or not tunnel_plan.config.traffic_selector_routes
                or tunnel_plan.context != keys[0][0]
            ):
                self._remove(number)
                continue
            for key in keys:
                self._added[key][number] = _candidate(tunnel_plan)
        return changed

    def remove(self, number: int) -> tuple[PrefixKey, ...]:
        """A tunnel is no more: remove its routes, and return their prefixes."""
        keys = self.of_tunnel(number)
        self._remove(number)
        return keys

    def _remove(self, number: int) -> None:
        self._refused.pop(number, None)
        for key in self._of_tunnel.pop(number, ()):
            self._take_out(key, number)

    def _take_out(self, key: PrefixKey, number: int) -> None:
        del self._added[key][number]
        if not self._added[key]:
            del self._added[key]


def _candidate(tunnel_plan: TunnelPlan) -> Candidate:
    name = tunnel_plan.config.interface or ""
    return Candidate(COST, "tunnel", name, tunnel=tunnel_plan.number, distance=DISTANCE, negotiated=True)


def _is_own(plan: Plan, key: PrefixKey) -> bool:
    """Return whether a network is connected to the router, or lies in one that is."""
    context, prefix, length = key
    for wider in range(length, -1, -1):
        for way in plan.prefixes.get((context, prefix & MASKS[wider], wider), ()):
            if way.kind == "local" or (way.kind == "port" and not way.address):
                return True
    return False
