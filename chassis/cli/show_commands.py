"""The exec commands that show: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chassis.cli.rows import ExecCommand, Values, of_context, of_guide
from chassis.cli.views import routing, system, tunnels


def _tunnel(values: Values, context: str) -> dict[str, Any]:
    return {"tunnel": values["name"]}


def _part(part: str, *, scoped: bool = True) -> Callable[[Values, str], dict[str, Any]]:
    """Arguments of `config` for a part of the configuration; `scoped` ones are of the session's context."""

    def arguments(values: Values, context: str) -> dict[str, Any]:
        return {
            "part": part,
            "keys": False,
            "context": context if scoped and not values.get("scope") else "",
            "name": values.get("name", ""),
            "asp": values.get("asp", ""),
            "verbose": bool(values.get("verbose")),
        }

    return arguments


def _whole(values: Values, context: str) -> dict[str, Any]:
    return {"keys": False, "verbose": bool(values.get("verbose"))}


_SCOPE = "[<scope=all-contexts>] [<verbose=verbose>]"
_FORM = "[{<form=detail> | <form=on-demand>}]"
_DETAIL = "[<detail=detail>]"

SHOW_COMMANDS: Final[tuple[ExecCommand, ...]] = (
    ExecCommand("show-version", "show version", "software release", system.version),
    ExecCommand("show-chassis", "show chassis", "cards of the chassis by slot", system.chassis, "status"),
    ExecCommand("show-process", "show process", "processes of the cards", system.process, "status"),
    ExecCommand("show-clock", "show clock", "date and time", system.clock),
    ExecCommand("show-log", "show log", "the log", system.log, "log"),
    ExecCommand(
        "show-configuration",
        "show configuration [<verbose=verbose>]",
        "configuration in force",
        system.configuration,
        "config",
        _whole,
    ),
    of_guide(
        "show-configuration-ike",
        system.part_of_configuration,
        "config",
        _part("ike"),
        syntax=f"show configuration ike {_SCOPE}",
    ),
    of_guide(
        "show-configuration-ipsec",
        system.part_of_configuration,
        "config",
        _part("ipsec"),
        syntax=f"show configuration ipsec {_SCOPE}",
    ),
    of_guide(
        "show-configuration-tunnel",
        system.part_of_configuration,
        "config",
        _part("tunnel"),
        syntax=f"show configuration tunnel {_SCOPE}",
    ),
    ExecCommand(
        "show-ip-route",
        "show ip route",
        "routes of the context",
        routing.routes,
        "routes",
        of_context,
    ),
    ExecCommand(
        "show-arp-cache",
        "show arp-cache",
        "neighbours by ARP",
        routing.arp,
        "neighbours",
    ),
    of_guide(
        "show-ike-policy",
        system.part_of_configuration,
        "config",
        _part("ike-policy"),
    ),
    of_guide(
        "show-ike-proposal",
        system.part_of_configuration,
        "config",
        _part("ike-proposal", scoped=False),
    ),
    *(
        of_guide(
            f"show-ipsec-{name}",
            system.part_of_configuration,
            "config",
            _part(part, scoped=part in ("ipsec-access-list", "ipsec-profile")),
        )
        for name, part in (
            ("access-list", "ipsec-access-list"),
            ("policy", "ipsec-policy"),
            ("profile", "ipsec-profile"),
            ("proposal", "ipsec-proposal"),
            ("sa", "security-association"),
        )
    ),
    ExecCommand("show-tunnel", "show tunnel", "tunnels of every kind", tunnels.tunnels, "status"),
    ExecCommand(
        "show-tunnel-ipsec",
        f"show tunnel ipsec [{{name <name:name> | remote <remote:address>}}] {_FORM}",
        "IPsec tunnels",
        tunnels.tunnels,
        "status",
        aliases=(f"show tunnel ipsec <name:name> {_FORM}",),
        guide="10",
    ),
    of_guide(
        "show-tunnel-statistics",
        tunnels.statistics,
        "sas",
        _tunnel,
        syntax=f"show tunnel ipsec [name] <name:name> [on-demand] statistics {_DETAIL}",
    ),
    of_guide(
        "show-tunnel-ike-statistics",
        tunnels.ike_statistics,
        "ike",
        lambda values, context: {"tunnel": values["name"], "what": "statistics"},
        syntax=f"show tunnel ipsec [name] <name:name> statistics ike {_DETAIL}",
    ),
)
"""In the order of the documentation."""

SHOW_WORDS: Final[Mapping[str, str]] = {
    "access-list": "IPsec access lists",
    "all-contexts": "of all contexts",
    "asp": "what an ASP uses",
    "card": "what an ASP uses",
    "arp-cache": "neighbours by ARP",
    "chassis": "cards of the chassis",
    "clock": "date and time",
    "configuration": "configuration in force",
    "detail": "with all that is known",
    "ike": "Internet Key Exchange",
    "ip": "Internet Protocol",
    "ipsec": "IP Security",
    "log": "the log",
    "name": "by name",
    "on-demand": "of on-demand tunnels",
    "policy": "policies",
    "process": "processes of the cards",
    "profile": "IPsec profiles",
    "proposal": "proposals",
    "remote": "by remote end point",
    "route": "routes of the context",
    "sa": "security associations",
    "security-association": "manual security associations",
    "show": "show information about the system",
    "statistics": "what was counted",
    "tunnel": "tunnels",
    "verbose": "with settings that have their default value",
    "version": "software release",
}
"""What `?` says of the keywords of these commands."""
