"""The table of instances of on-demand tunnels: which peer has which, and whether one more may come (guide 9.3).

An identity has one instance for the whole of an outer context (B-159). Identities compare without regard to case.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from chassis.xcrp.capacity import Capacity, SessionCount
from chassis.xcrp.plan import Plan, TunnelPlan


@dataclass(slots=True)
class InstanceTable:
    """Instances by identity, and their number by on-demand tunnel and profile."""

    _by_identity: dict[tuple[int, str], int] = field(default_factory=dict)
    _counts: Counter[tuple[int, str]] = field(default_factory=Counter)

    def add(self, tunnel_plan: TunnelPlan) -> None:
        """Add an instance; the one that its identity had must be removed before."""
        assert tunnel_plan.instance is not None
        self._by_identity[_key(tunnel_plan.outer, tunnel_plan.instance.identity)] = tunnel_plan.number
        self._counts[tunnel_plan.instance.on_demand, tunnel_plan.instance.profile] += 1

    def remove(self, tunnel_plan: TunnelPlan) -> None:
        instance = tunnel_plan.instance
        assert instance is not None
        key = _key(tunnel_plan.outer, instance.identity)
        if self._by_identity.get(key) == tunnel_plan.number:
            del self._by_identity[key]
        of_profile = (instance.on_demand, instance.profile)
        self._counts[of_profile] -= 1
        if not self._counts[of_profile]:
            del self._counts[of_profile]

    def of(self, outer: int, identity: str) -> int | None:
        """Return the number of the instance of an identity in an outer context; None if it has none."""
        return self._by_identity.get(_key(outer, identity))

    def active(self, on_demand: int, profile: str) -> int:
        """Return how many instances an on-demand tunnel has with a profile."""
        return self._counts[on_demand, profile]


def refusal(
    plan: Plan,
    table: InstanceTable,
    template: TunnelPlan,
    profile: str,
    before: TunnelPlan | None,
    capacity: Capacity,
) -> str:
    """Return why an on-demand tunnel may not have one more instance with a profile, or empty (B-173, B-180).

    `before` is the instance that the peer has already and that would end, `capacity` what cards and router hold.
    """
    was = before.instance if before is not None else None
    own = int(was is not None and (was.on_demand, was.profile) == (template.number, profile))
    limit = template.config.max_tunnels
    if limit is not None and table.active(template.number, profile) - own >= limit:
        return f"max-tunnels: {limit} of profile {profile} are active"
    room = SessionCount.of(plan.sessions, capacity)
    if before is not None:
        room.add(before.asp, -1)
    return room.lacking(template.asp)


def _key(outer: int, identity: str) -> tuple[int, str]:
    return outer, identity.lower()
