"""Parts of a configuration, as the show commands of the guide's chapter 10 name them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from chassis.config.render import render
from chassis.model.router import LOCAL, Config, Context

_GLOBAL: Final[Mapping[str, tuple[str, ...]]] = {
    "ike": ("ike_proposals",),
    "ipsec": ("ipsec_proposals", "ipsec_policies", "manual_sas", "qos_policies"),
    "ike-proposal": ("ike_proposals",),
    "ipsec-policy": ("ipsec_policies",),
    "ipsec-proposal": ("ipsec_proposals",),
    "security-association": ("manual_sas",),
}
"""Fields of `Config` in each part."""

_CONTEXT: Final[Mapping[str, tuple[str, ...]]] = {
    "ike": ("keepalive", "ike_policies"),
    "ipsec": ("acls", "profiles"),
    "ike-policy": ("ike_policies",),
    "ipsec-access-list": ("acls",),
    "ipsec-profile": ("profiles",),
}
"""Fields of `Context` in each part."""

TUNNEL: Final = "tunnel"
CONTEXT: Final = "context"
PARTS: Final = frozenset({*_GLOBAL, *_CONTEXT, TUNNEL, CONTEXT})
"""The names of the parts."""


def portion(config: Config, part: str, context: str = "", name: str = "") -> Config:
    """Return a configuration with nothing but a part of this one (of `PARTS`).

    What is in contexts is that of `context`, or of all where it is empty. A tunnel is in the context of its
    interface, and in local (S-075). With `name` only the objects of this name are left. The part `context` has
    whole contexts.
    """

    def chosen(held: Any) -> Any:
        if name and isinstance(held, Mapping):
            return {key: item for key, item in held.items() if key == name}
        return held

    def only(made: Any, whole: Any, fields: tuple[str, ...]) -> Any:
        return replace(made, **{field: chosen(getattr(whole, field)) for field in fields})

    if part == CONTEXT:
        return Config(contexts={key: one for key, one in config.contexts.items() if context in ("", key)})
    contexts = {
        key: only(Context(key), one, _CONTEXT.get(part, ()))
        for key, one in config.contexts.items()
        if context in ("", key)
    }
    left = {key: one for key, one in contexts.items() if one != Context(key)}
    made: Config = only(Config(contexts=left), config, _GLOBAL.get(part, ()))
    if part != TUNNEL:
        return made
    tunnels = {key: one for key, one in config.tunnels.items() if context in ("", LOCAL, one.interface_context)}
    return replace(made, tunnels=chosen(tunnels))


def used_by(config: Config, names: Collection[str]) -> Config:
    """Return a configuration with these tunnels and what they use, and nothing else."""
    tunnels = _only(config.tunnels, names)
    entries = [entry for tunnel in tunnels.values() for entry in tunnel.entries]
    policies = _only(config.ipsec_policies, {entry.policy for entry in entries})
    contexts = {
        name: Context(
            name,
            ike_policies=_only(
                one.ike_policies, {tunnel.ike_policy for tunnel in tunnels.values() if tunnel.context == name}
            ),
            acls=_only(
                one.acls,
                {
                    entry.acl
                    for tunnel in tunnels.values()
                    if tunnel.interface_context == name
                    for entry in tunnel.entries
                },
            ),
        )
        for name, one in config.contexts.items()
    }
    ike_policies = [policy for one in contexts.values() for policy in one.ike_policies.values()]
    return Config(
        contexts=contexts,
        tunnels=tunnels,
        ike_proposals=_only(config.ike_proposals, {ref.name for one in ike_policies for ref in one.proposals}),
        ipsec_policies=policies,
        ipsec_proposals=_only(
            config.ipsec_proposals, {ref.name for one in policies.values() for ref in one.proposals}
        ),
        manual_sas=_only(config.manual_sas, {entry.sa for entry in entries}),
        qos_policies=_only(config.qos_policies, {tunnel.qos_policy for tunnel in tunnels.values()}),
    )


_Held = TypeVar("_Held")


def _only(held: Mapping[str, _Held], names: Collection[str | None]) -> dict[str, _Held]:
    return {name: one for name, one in held.items() if name in names}


def render_portion(config: Config, verbose: bool = False, keys: bool = True) -> str:
    """Print a configuration that `portion` returned, without the lines that an empty one has too."""
    empty = {*render(Config(contexts={}), verbose).splitlines()} - {"!"}
    lines: list[str] = []
    for line in render(config, verbose, keys).splitlines():
        if line not in empty and (line != "!" or lines[-1:] not in ([], ["!"])):
            lines.append(line)
    while lines and lines[-1] == "!":
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
