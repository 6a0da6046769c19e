"""Changes that wait: end points, and SPIs of manual SAs, of tunnels that are up (guide 11).

A tunnel that is up stays on the end points and the manual SAs under which it came up, until it goes down,
negotiates new SAs, or is cleared. The plan is made of a configuration that has these in place of the configured
ones, so what follows from a plan holds for it as for any other. A manual SA with other SPIs stays beside the one
of its name, under a name that no line can have, because another tunnel may be cleared before.

What is gone does not wait: a tunnel, a manual SA, an end point's context, its Security service or its address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chassis.model.ipsec import ManualSa, TunnelEntry
from chassis.model.router import Config, Tunnel


def planned(config: Config, before: Config, stays: Callable[[str], bool]) -> Config:
    """Return the configuration to plan with: `config`, with what tunnels that stay keep of `before`.

    `before` is what the present plan is made of; `stays` tells whether a tunnel, by name, keeps what it has.
    """
    sas = {name for name, sa in before.manual_sas.items() if config.manual_sas.get(name) is not sa}
    tunnels: dict[str, Tunnel] = {}
    kept: dict[str, ManualSa] = {}
    for name, tunnel in config.tunnels.items():
        old = before.tunnels.get(name)
        if old is None or old.kind != tunnel.kind:
            continue
        if old is tunnel and not any(entry.sa in sas for entry in tunnel.entries):
            continue
        if not stays(name):
            continue
        held = _with_entries(_with_ends(tunnel, old, config, before), old, config, before, kept)
        if held is not tunnel:
            tunnels[name] = old if held == old else held
    if not tunnels:
        return config
    return replace(config, tunnels={**config.tunnels, **tunnels}, manual_sas={**config.manual_sas, **kept})


def waiting(config: Config, plan_of: Config) -> list[str]:
    """Return the names of the tunnels of which a change waits; `plan_of` is what `planned` returned."""
    if plan_of is config:
        return []
    return [name for name, tunnel in config.tunnels.items() if plan_of.tunnels[name] is not tunnel]


def changes(tunnel: Tunnel, held: Tunnel) -> list[str]:
    """Return the configured lines of a tunnel that wait; `held` is the tunnel as it is planned."""
    lines = []
    if _ends(tunnel) != _ends(held):
        lines.append(
            f"peer-end-point local {tunnel.local or '-'} remote {tunnel.remote or '-'} context {tunnel.context}"
        )
    names = {entry.seq: entry.sa for entry in held.entries}
    return lines + [
        f"seq {entry.seq} security-association {entry.sa}"
        for entry in tunnel.entries
        if entry.sa and names.get(entry.seq) != entry.sa
    ]


def _ends(tunnel: Tunnel) -> tuple[str | None, str | None, str]:
    return tunnel.local, tunnel.remote, tunnel.context


def _with_ends(tunnel: Tunnel, old: Tunnel, config: Config, before: Config) -> Tunnel:
    """Return a tunnel with the end points that it had, if they are still there."""
    if _ends(tunnel) == _ends(old):
        return tunnel
    context, was = config.contexts.get(old.context), before.contexts.get(old.context)
    if context is None or was is None or context.asp_group != was.asp_group:
        return tunnel
    if not any(address == old.local for one in context.interfaces.values() for address, _ in one.addresses):
        return tunnel
    # The IKE policy is one of the context of the end points.
    policy = tunnel.ike_policy if tunnel.context == old.context else old.ike_policy
    return replace(tunnel, local=old.local, remote=old.remote, context=old.context, ike_policy=policy)


def _with_entries(
    tunnel: Tunnel, old: Tunnel, config: Config, before: Config, kept: dict[str, ManualSa]
) -> Tunnel:
    """Return a tunnel with the manual SAs that its lines had, where theirs have other SPIs now. Those are added to
    `kept`."""
    had = {entry.seq: entry.sa for entry in old.entries}
    entries: list[TunnelEntry] = []
    for entry in tunnel.entries:
        name = had.get(entry.seq) or ""
        sa, was = config.manual_sas.get(entry.sa or ""), before.manual_sas.get(name)
        if sa is None or was is None or not sa.complete or _spis(sa) == _spis(was):
            entries.append(entry)
            continue
        if config.manual_sas.get(name) != was:
            own = f" of {tunnel.name} seq {entry.seq}"
            name = name.removesuffix(own) + own
            held = before.manual_sas.get(name)
            kept[name] = held if held is not None else replace(was, name=name)
        entries.append(replace(entry, sa=name))
    return tunnel if tuple(entries) == tunnel.entries else replace(tunnel, entries=tuple(entries))


def _spis(sa: ManualSa) -> tuple[object, ...]:
    return tuple((one.esp_spi, one.ah_spi) if one is not None else None for one in (sa.send, sa.receive))
