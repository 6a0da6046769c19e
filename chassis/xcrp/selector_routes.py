"""Traffic-selector routes: routes to the negotiated networks of a peer, into its tunnel (B-023, B-146, B-147).

They are candidates like those of a static route without `cost` into the tunnel's interface, and are used while the
tunnel is up. The last negotiated networks are kept while a tunnel is down, for discard routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chassis.net.address import MASKS
from chassis.xcrp.plan import Plan
from chassis.xcrp.routes import Candidate, PrefixKey, order

MAX_SELECTOR_ROUTES: Final = 256
"""Most networks of one tunnel that become routes (count)."""

COST: Final = 1
DISTANCE: Final = 1
"""The values of a static route without `cost` and `distance`."""


class SelectorRoutes:
    """Routes by tunnel and by prefix."""

    def __init__(self) -> None:
        self._of_tunnel: dict[int, tuple[PrefixKey, ...]] = {}
        self._added: dict[PrefixKey, dict[int, Candidate]] = {}

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
        before = self._of_tunnel.get(number, ())
        if before == tuple(networks):
            return set()
        self._remove(number)
        if networks:
            self._of_tunnel[number] = tuple(networks)
        candidate = Candidate(COST, "tunnel", tunnel_plan.config.interface or "", tunnel=number, distance=DISTANCE)
        for key in networks:
            self._added.setdefault(key, {})[number] = candidate
        return set(before) ^ set(networks)

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
            name = tunnel_plan.config.interface or ""
            for key in keys:
                self._added[key][number] = Candidate(COST, "tunnel", name, tunnel=number, distance=DISTANCE)
        return changed

    def remove(self, number: int) -> tuple[PrefixKey, ...]:
        """A tunnel is no more: remove its routes, and return their prefixes."""
        keys = self.of_tunnel(number)
        self._remove(number)
        return keys

    def _remove(self, number: int) -> None:
        for key in self._of_tunnel.pop(number, ()):
            del self._added[key][number]
            if not self._added[key]:
                del self._added[key]
