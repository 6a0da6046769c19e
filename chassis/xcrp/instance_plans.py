"""Instances of on-demand tunnels in a plan: how one is made, and which of them a commit carries over (guide 9.3).

An instance is a tunnel like others. It has the configuration of its on-demand tunnel, its template, with the `seq`
lines, DF bit and MTU of a profile, and an authenticated peer. A commit that changes a profile acts on later peers.
What is gone does not wait: an instance ends if its template is removed, incomplete or shut down, has other ends,
another mode, interface or IKE policy, or if an IPsec policy or access list of its own is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chassis.bus.records import Instance, TunnelRecord
from chassis.model.ipsec import Profile
from chassis.model.router import Config
from chassis.model.source import as_carried
from chassis.net.address import format_address
from chassis.xcrp import ike_config
from chassis.xcrp.plan import Plan, TunnelPlan


def instance_plan(
    template: TunnelPlan, profile: Profile, number: int, instance: Instance, remote: int
) -> TunnelPlan:
    """Return the tunnel of a peer at the address `remote`."""
    config = replace(
        template.config,
        remote=format_address(remote),
        remote_id=instance.identity,
        max_tunnels=None,
        df_bit=profile.df_bit or "propagate",
        mtu=profile.mtu,
        entries=as_carried(profile.entries),
    )
    return replace(template, number=number, config=config, remote=remote, instance=instance)


def held_plan(record: TunnelRecord) -> TunnelPlan:
    """Return an instance as its ASP holds it: what only a configuration tells is missing."""
    return TunnelPlan(
        number=record.number,
        config=record.config,
        asp=record.asp,
        context=record.context,
        outer=record.outer_context,
        local=record.local,
        remote=record.remote,
        queues=record.queues,
        config_error="",
        instance=record.instance,
    )


def carry_over(held: TunnelPlan, template: TunnelPlan | None, config: Config) -> TunnelPlan | str:
    """Return an instance as it goes on under a configuration, or why it ends. `template` is its on-demand tunnel
    there."""
    if template is None:
        return "on-demand tunnel removed"
    if template.config_error:
        return template.config_error
    if template.config.name != held.config.name:
        return "on-demand tunnel replaced"
    if template.asp != held.asp:
        return f"moved to {template.asp}"
    if (template.outer, template.local) != (held.outer, held.local):
        return "local end point changed"
    if (template.context, template.config.interface) != (held.context, held.config.interface):
        return "bound to another interface"
    if template.config.economical != held.config.economical:
        return "mode changed"
    if template.config.ike_policy != held.config.ike_policy:
        return "IKE policy changed"
    lacks = fault(config, held)
    if lacks:
        return lacks
    own = held.config
    kept = replace(
        template.config,
        remote=own.remote,
        remote_id=own.remote_id,
        max_tunnels=None,
        df_bit=own.df_bit,
        mtu=own.mtu,
        entries=own.entries,
    )
    made = replace(template, number=held.number, config=kept, remote=held.remote, instance=held.instance)
    return held if made == held else made


def fault(config: Config, tunnel_plan: TunnelPlan) -> str:
    """Return what the `seq` lines of an instance lack first, or empty."""
    return ike_config.entries_error(config, tunnel_plan.config)


def instances(plan: Plan) -> list[TunnelPlan]:
    """Return all instances of a plan."""
    return [plan.tunnels[number] for numbers in plan.instances.values() for number in numbers]


@dataclass(frozen=True, slots=True)
class EndedInstance:
    """An instance that has ended, with the reason. `by_commit`: a change of the configuration ended it."""

    tunnel_plan: TunnelPlan
    reason: str
    by_commit: bool = False


def ended_lines(ended: Iterable[EndedInstance]) -> list[str]:
    """Return what the history tells of instances that ended: one line for each reason."""
    by_cause: dict[str, list[TunnelPlan]] = {}
    for one in ended:
        by_cause.setdefault(one.reason, []).append(one.tunnel_plan)
    return [f"tunnel {_peers(gone)} ended: {why}" for why, gone in by_cause.items()]


def _peers(gone: list[TunnelPlan]) -> str:
    names = dict.fromkeys(one.config.name for one in gone)
    if len(gone) == 1:
        return gone[0].label
    if len(names) == 1:
        return f"{gone[0].config.name}: {len(gone)} peers"
    return f"{gone[0].config.name} and {len(names) - 1} more: {len(gone)} peers"
