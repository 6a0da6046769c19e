"""Placement: the ASP of each local end of tunnels, by (context, local address) (S-102, S-106, S-108)."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.model.router import Config
from chassis.xcrp.inventory import asp

Place = tuple[str, str]
"""(name of the peer-end-point context, local address in dotted form)"""


def working_asps(config: Config, context: str) -> tuple[str, ...]:
    """Return the ASPs that give a context the Security service; none if its group or pools are undefined or
    empty."""
    owner = config.contexts.get(context)
    group = config.groups.get(owner.asp_group) if owner is not None and owner.asp_group else None
    if group is None:
        return ()
    asps = dict.fromkeys(
        asp(name) for pool in group.pools if pool in config.pools for name in config.pools[pool].asps
    )
    return tuple(asps)[: group.asp_count]


def place(config: Config, placed: Mapping[Place, str]) -> dict[Place, str]:
    """Return the ASP of every local end of the configuration. A valid placement in `placed` is kept.

    A new local end goes to the working ASP with the fewest local ends, of several to the first in order.
    """
    working: dict[str, tuple[str, ...]] = {}
    result: dict[Place, str] = {}
    load: dict[str, int] = {}
    new: list[Place] = []
    for tunnel in config.tunnels.values():
        if tunnel.local is None:
            continue
        at = (tunnel.context, tunnel.local)
        if at in result or tunnel.context not in config.contexts:
            continue
        if tunnel.context not in working:
            working[tunnel.context] = working_asps(config, tunnel.context)
        asps = working[tunnel.context]
        if not asps:
            continue
        old = placed.get(at, "")
        result[at] = old if old in asps else ""
        if old in asps:
            load[old] = load.get(old, 0) + 1
        else:
            new.append(at)
    for at in new:
        best = min(working[at[0]], key=lambda name: load.get(name, 0))
        result[at] = best
        load[best] = load.get(best, 0) + 1
    return result
