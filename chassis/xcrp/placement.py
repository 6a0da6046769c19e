"""Placement: the ASP of each local end of tunnels, by (context, local address) (S-102, S-106, S-108)."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.model.router import Config
from chassis.xcrp.inventory import asp
from chassis.xcrp.spares import NO_SEATS, Seats, Takeovers, working

Place = tuple[str, str]
"""(name of the peer-end-point context, local address in dotted form)"""


def group_of(config: Config, context: str) -> str:
    """Return the ASP group that gives a context the Security service; empty if there is none."""
    owner = config.contexts.get(context)
    name = owner.asp_group if owner is not None else None
    return name if name and name in config.groups else ""


def working_asps(config: Config, context: str, seats: Seats = NO_SEATS) -> tuple[str, ...]:
    """Return the ASPs that give a context the Security service; none if its group or pools are undefined or
    empty."""
    group = group_of(config, context)
    return tuple(map(asp, working(config, group, seats))) if group else ()


def place(
    config: Config,
    placed: Mapping[Place, str],
    seats: Seats = NO_SEATS,
    takeovers: Takeovers | None = None,
) -> dict[Place, str]:
    """Return the ASP of every local end of the configuration. A valid placement in `placed` is kept; the local
    ends of an ASP whose place was taken go with the place.

    A new local end goes to the working ASP with the fewest local ends, of several to the first in order.
    """
    heirs = {(group, asp(name)): asp(taker) for (group, name), taker in (takeovers or {}).items()}
    by_context: dict[str, tuple[str, ...]] = {}
    result: dict[Place, str] = {}
    load: dict[str, int] = {}
    new: list[Place] = []
    for tunnel in config.tunnels.values():
        if tunnel.local is None:
            continue
        at = (tunnel.context, tunnel.local)
        if at in result or tunnel.context not in config.contexts:
            continue
        if tunnel.context not in by_context:
            by_context[tunnel.context] = working_asps(config, tunnel.context, seats)
        asps = by_context[tunnel.context]
        if not asps:
            continue
        old = placed.get(at, "")
        if heirs and old not in asps:
            old = heirs.get((group_of(config, tunnel.context), old), old)
        result[at] = old if old in asps else ""
        if old in asps:
            load[old] = load.get(old, 0) + 1
        else:
            new.append(at)
    for at in new:
        best = min(by_context[at[0]], key=lambda name: load.get(name, 0))
        result[at] = best
        load[best] = load.get(best, 0) + 1
    return result
