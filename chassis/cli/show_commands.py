"""The exec commands that show: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chassis.cli.rows import ExecCommand, Values, of_context, of_guide
from chassis.cli.views import hardware, interfaces, security, system, tunnels
from chassis.model.router import LOCAL


def _tunnels(values: Values, context: str) -> dict[str, Any]:
    """One by its name, those to an address, or those whose interface is in the context, all in local (S-075)."""
    form = values.get("form", "")
    if "name" in values or "remote" in values:
        context = ""
    return {
        "name": values.get("name", ""),
        "remote": values.get("remote", ""),
        "context": "" if context == LOCAL else context,
        "kind": form if form == tunnels.ON_DEMAND else "all",
        "detail": form == "detail",
    }


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


def _certificates(values: Values, context: str) -> dict[str, Any]:
    return {"context": context, "whose": "self", **values}


def _whole(values: Values, context: str) -> dict[str, Any]:
    return {"keys": False, "verbose": bool(values.get("verbose"))}


_SCOPE = "[<scope=all-contexts>] [<verbose=verbose>]"
_FORM = "[{<form=detail> | <form=on-demand>}]"
_DETAIL = "[<detail=detail>]"
_ARP_FORMS: Final = (*interfaces.EVERY_CONTEXT, "interworking", "summary", "xcrp")

SHOW_COMMANDS: Final[tuple[ExecCommand, ...]] = (
    ExecCommand("show-version", "show version", "software release", system.version, "system"),
    ExecCommand("show-release", "show release", "installed releases", system.release, "system"),
    ExecCommand("show-chassis", "show chassis", "cards of the chassis by slot", hardware.chassis, "hardware"),
    ExecCommand(
        "show-hardware", f"show hardware {_DETAIL}", "parts of the chassis", hardware.hardware, "hardware"
    ),
    ExecCommand("show-slot-table", "show slot table", "slots and their state", hardware.slot_table, "hardware"),
    ExecCommand("show-card", "show card [<slot:1-14>]", "cards and their processes", hardware.card, "hardware"),
    ExecCommand("show-asp", f"show asp [<name:asp>] {_DETAIL}", "ASPs", hardware.asps, "asps"),
    ExecCommand("show-asp-pool", f"show asp pool [<name:name>] {_DETAIL}", "ASP pools", hardware.pools, "asps"),
    ExecCommand(
        "show-asp-group", f"show asp group [<name:name>] {_DETAIL}", "ASP groups", hardware.groups, "asps"
    ),
    ExecCommand("show-alarms", "show alarms", "alarms that stand", hardware.alarms, "alarms", parts="alarms"),
    ExecCommand("show-process", "show process", "processes of the cards", hardware.process, "processes"),
    ExecCommand(
        "show-context", "show context [<scope=all>]", "this context, or all", interfaces.contexts, "contexts"
    ),
    ExecCommand(
        "show-ip-interface",
        "show ip interface [<form=brief>]",
        "interfaces of the context",
        interfaces.interfaces,
        "interfaces",
        lambda values, context: {"context": context, "name": values.get("name", "")},
        aliases=("show ip interface <name:name>",),
    ),
    ExecCommand(
        "show-ip-local-interface",
        "show ip local interface",
        "addresses of the interfaces of the context",
        interfaces.local_interfaces,
        "interfaces",
        of_context,
    ),
    ExecCommand(
        "show-port",
        "show port [<port:port>] [<form=detail|counters>]",
        "Ethernet ports",
        interfaces.ports,
        "ports",
        lambda values, context: {"port": values.get("port", ""), "counters": "form" in values},
    ),
    ExecCommand(
        "show-circuit",
        "show circuit [<form=counters>]",
        "circuits of ports and tunnels",
        interfaces.circuits,
        "circuits",
        lambda values, context: {"counters": "form" in values},
        parts="circuits",
    ),
    ExecCommand(
        "show-administrators",
        "show administrators",
        "who is logged in, and who may be",
        system.administrators,
        "administrators",
    ),
    ExecCommand("show-privilege", "show privilege", "privilege of this session", system.privilege),
    ExecCommand("show-clock", "show clock", "date and time", system.clock),
    ExecCommand(
        "show-log",
        "show log [active] [since <from:word>] [level <level:0-7>] [facility <facility:word>] "
        "[tunnel <tunnel:name>] [context <context:name>] [last <last:1-1000000>] [<explain=explain>]",
        "the log",
        system.log,
        "log",
        lambda values, context: {name: value for name, value in values.items() if name != "explain"},
    ),
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
        "show-configuration-context",
        "show configuration context [<context:name>] [<verbose=verbose>]",
        "this context as configured, or another one",
        system.part_of_configuration,
        "config",
        lambda values, context: {
            "part": "context",
            "keys": False,
            "context": values.get("context", context),
            "verbose": bool(values.get("verbose")),
        },
    ),
    ExecCommand(
        "show-ip-route",
        "show ip route",
        "routes of the context",
        interfaces.routes,
        "routes",
        of_context,
    ),
    ExecCommand(
        "show-arp-cache",
        f"show arp-cache [<form={'|'.join(_ARP_FORMS)}>]",
        "ARP entries of the context",
        interfaces.arp,
        "arp",
        lambda values, context: {"context": "" if values.get("form") in interfaces.EVERY_CONTEXT else context},
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
    of_guide("pki-show-self", security.certificates, "certificates", _certificates),
    of_guide("show-pki-certificate", security.certificates, "certificates", _certificates),
    of_guide(
        "show-pki-key-pair",
        security.key_pairs,
        "key-pairs",
        lambda values, context: {"context": context, "name": values.get("name", "")},
    ),
    of_guide(
        "show-pki-certificate-request",
        security.certificate_requests,
        "certificate-requests",
        lambda values, context: {"context": "" if values.get("scope") else context},
        syntax="show pki certificate-request rsa [<scope=all>]",
    ),
    ExecCommand(
        "show-tunnel",
        "show tunnel",
        "tunnels of every kind",
        tunnels.tunnels,
        "tunnels",
        _tunnels,
        parts="tunnels",
    ),
    ExecCommand(
        "show-tunnel-ipsec",
        f"show tunnel ipsec [{{name <name:name> | remote <remote:address>}}] {_FORM}",
        "IPsec tunnels",
        tunnels.tunnels,
        "tunnels",
        _tunnels,
        aliases=(f"show tunnel ipsec <name:name> {_FORM}",),
        parts="tunnels",
        guide="10",
    ),
    of_guide(
        "show-ike-statistics",
        security.ike_statistics,
        "ike-statistics",
        lambda values, context: {"asp": values["asp"]},
    ),
    of_guide(
        "show-ipsec-statistics",
        security.ipsec_statistics,
        "ipsec-statistics",
        lambda values, context: {"asp": values["asp"], "context": values["context"]},
    ),
    ExecCommand(
        "show-ipsec-queues",
        "show ipsec queues [<name:name>]",
        "rate of each ASP, and the queues of all tunnels or one",
        security.queues,
        "queues",
        lambda values, context: {"tunnel": values.get("name", "")},
    ),
    of_guide(
        "show-tunnel-statistics",
        tunnels.statistics,
        "sas",
        lambda values, context: {"tunnel": values["name"], "cleared": True},
        syntax=f"show tunnel ipsec [name] <name:name> [<form=on-demand>] statistics {_DETAIL}",
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
    "active": "of the active controller",
    "access-list": "IPsec access lists",
    "administrators": "who is logged in, and who may be",
    "alarms": "alarms that stand",
    "all": "of all contexts",
    "all-context": "of all contexts",
    "all-contexts": "of all contexts",
    "arp-cache": "neighbours by ARP",
    "asp": "ASPs, or what one uses",
    "brief": "one line for each",
    "card": "cards, or what an ASP uses",
    "certificate": "certificates",
    "certificate-request": "certificate requests",
    "chassis": "cards of the chassis",
    "circuit": "circuits of ports and tunnels",
    "clock": "date and time",
    "configuration": "configuration in force",
    "context": "contexts",
    "counters": "what was counted",
    "detail": "with all that is known",
    "global": "of all tunnels",
    "group": "ASP groups",
    "handle": "by its handle",
    "hardware": "parts of the chassis",
    "identity": "by its subject or alternative name",
    "explain": "with what the guide recommends",
    "facility": "lines of one facility",
    "ike": "Internet Key Exchange",
    "ike1": "IKE version 1",
    "ike2": "IKE version 2",
    "interface": "interfaces of the context",
    "interworking": "of interworking circuits",
    "ip": "Internet Protocol",
    "ipsec": "IP Security",
    "key-pair": "key pairs, without the keys",
    "last": "the last lines only",
    "level": "lines of this syslog level and the more severe ones",
    "local": "of the router itself",
    "log": "the log",
    "name": "by name",
    "on-demand": "of on-demand tunnels",
    "pki": "public key infrastructure",
    "policy": "policies",
    "pool": "ASP pools",
    "port": "Ethernet ports",
    "privilege": "privilege of this session",
    "process": "processes of the cards",
    "profile": "IPsec profiles",
    "proposal": "proposals",
    "release": "installed releases",
    "remote": "by remote end point",
    "route": "routes of the context",
    "rsa": "of RSA keys",
    "sa": "security associations",
    "security-association": "manual security associations",
    "self": "our own",
    "show": "show information about the system",
    "since": "lines from this time on: 15m, 14:30:15 or 2026-11-29T14:30",
    "queues": "queues of SAs, and the rate of ASPs",
    "slot": "slots of the chassis",
    "statistics": "what was counted",
    "summary": "numbers only",
    "table": "slots and their state",
    "trusted": "of authorities",
    "tunnel": "tunnels",
    "verbose": "with settings that have their default value",
    "version": "software release",
    "xcrp": "of the controller's own port",
}
"""What `?` says of the keywords of these commands."""
