"""The exec commands: one row each. Parser, help, completion and privileges come from this table.

A command of the guide has its words from the grammar (`chassis.config.operations`), where settled spellings are.
`request` names a request of the controller (`chassis.bus.requests`), `arguments` makes its arguments from what was
typed, `view` shows the answer. `act` is what the session does itself, after the answer where there is a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from chassis.bus.requests import MAX_PING
from chassis.cli.views import routing, system, tunnels
from chassis.cli.views.layout import View
from chassis.config.grammar import Command
from chassis.config.matcher import CompiledGrammar
from chassis.config.operations import BY_ID

Values = Mapping[str, Any]
Act = Literal["", "enable", "disable", "exit", "length", "width", "context"]

USER: Final = 0
"""Privilege of commands that only show."""

ADMINISTRATOR: Final = 10
"""Privilege of commands that act; from here on the prompt ends with `#`."""

DEFAULT_PRIVILEGE: Final = 6
"""Privilege after `disable`, and of an administrator whose configuration names none."""

HIGHEST_PRIVILEGE: Final = 15


def _nothing(values: Values, context: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """One row. `syntax` is in the notation of `chassis.config.grammar`; `guide` is empty where it is silent."""

    id: str
    syntax: str
    help: str
    view: View
    request: str = ""
    arguments: Callable[[Values, str], dict[str, Any]] = _nothing
    aliases: tuple[str, ...] = ()
    privilege: int = USER
    guide: str = ""
    act: Act = ""

    def compiled(self) -> Command:
        """The row as the matcher takes it."""
        return Command(
            self.id, ("exec",), self.syntax, self.help, kind="exec", does="none", aliases=self.aliases, no=()
        )


def _of_guide(
    name: str,
    view: View,
    request: str,
    arguments: Callable[[Values, str], dict[str, Any]] = _nothing,
    privilege: int = USER,
    syntax: str = "",
) -> ExecCommand:
    known = BY_ID[name]
    aliases = () if syntax else known.aliases
    return ExecCommand(
        name, syntax or known.syntax, known.help, view, request, arguments, aliases, privilege, known.guide
    )


def _tunnel(values: Values, context: str) -> dict[str, Any]:
    return {"tunnel": values["name"]}


def _clear(what: str) -> Callable[[Values, str], dict[str, Any]]:
    return lambda values, context: {"tunnel": values["name"], "what": what}


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


def _context(values: Values, context: str) -> dict[str, Any]:
    return {"context": values.get("context", context)}


def _ping(values: Values, context: str) -> dict[str, Any]:
    return {"context": context, "size": 36, **values}


_SCOPE = "[<scope=all-contexts>] [<verbose=verbose>]"
_FORM = "[{<form=detail> | <form=on-demand>}]"
_DETAIL = "[<detail=detail>]"

COMMANDS: Final[tuple[ExecCommand, ...]] = (
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
    _of_guide(
        "show-configuration-ike",
        system.part_of_configuration,
        "config",
        _part("ike"),
        syntax=f"show configuration ike {_SCOPE}",
    ),
    _of_guide(
        "show-configuration-ipsec",
        system.part_of_configuration,
        "config",
        _part("ipsec"),
        syntax=f"show configuration ipsec {_SCOPE}",
    ),
    _of_guide(
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
        _context,
    ),
    ExecCommand(
        "show-arp-cache",
        "show arp-cache",
        "neighbours by ARP",
        routing.arp,
        "neighbours",
    ),
    _of_guide(
        "show-ike-policy",
        system.part_of_configuration,
        "config",
        _part("ike-policy"),
    ),
    _of_guide(
        "show-ike-proposal",
        system.part_of_configuration,
        "config",
        _part("ike-proposal", scoped=False),
    ),
    *(
        _of_guide(
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
    _of_guide(
        "show-tunnel-statistics",
        tunnels.statistics,
        "sas",
        _tunnel,
        syntax=f"show tunnel ipsec [name] <name:name> [on-demand] statistics {_DETAIL}",
    ),
    _of_guide(
        "show-tunnel-ike-statistics",
        tunnels.ike_statistics,
        "ike",
        lambda values, context: {"tunnel": values["name"], "what": "statistics"},
        syntax=f"show tunnel ipsec [name] <name:name> statistics ike {_DETAIL}",
    ),
    _of_guide("clear-ike-sa", tunnels.cleared, "clear", _clear("ike"), ADMINISTRATOR),
    _of_guide("clear-ipsec-sa", tunnels.cleared, "clear", _clear("ipsec"), ADMINISTRATOR),
    ExecCommand(
        "ping",
        f"ping <address:address> [<count:1-10000>] [size <size:0-{MAX_PING}>] [timeout <timeout:1-60>] "
        "[source <source:address>]",
        "send echo requests in this context",
        routing.ping,
        "ping",
        _ping,
    ),
    # The routes of a context are asked for because a context that is not there has none.
    ExecCommand(
        "context",
        "context <context:name>",
        "go to another context",
        system.silent,
        "routes",
        _context,
        privilege=ADMINISTRATOR,
        act="context",
    ),
    ExecCommand("enable", "enable [<level:0-15>]", "turn on privileged commands", system.silent, act="enable"),
    ExecCommand("disable", "disable", "turn off privileged commands", system.silent, act="disable"),
    ExecCommand("exit", "exit", "end the session", system.silent, act="exit"),
    ExecCommand("logout", "logout", "end the session", system.silent, act="exit"),
    ExecCommand(
        "terminal-length",
        "terminal length <rows:0-512>",
        "rows of the terminal; 0 does not stop at its end",
        system.silent,
        act="length",
    ),
    ExecCommand(
        "terminal-width", "terminal width <columns:20-512>", "columns of the terminal", system.silent, act="width"
    ),
)

BY_NAME: Final[Mapping[str, ExecCommand]] = {row.id: row for row in COMMANDS}

WORDS: Final[Mapping[str, str]] = {
    "access-list": "IPsec access lists",
    "all-contexts": "of all contexts",
    "asp": "what an ASP uses",
    "card": "what an ASP uses",
    "arp-cache": "neighbours by ARP",
    "chassis": "cards of the chassis",
    "clear": "reset a function",
    "clock": "date and time",
    "configuration": "configuration in force",
    "context": "go to another context",
    "detail": "with all that is known",
    "disable": "turn off privileged commands",
    "enable": "turn on privileged commands",
    "exit": "end the session",
    "ike": "Internet Key Exchange",
    "ip": "Internet Protocol",
    "ipsec": "IP Security",
    "length": "rows of the terminal",
    "log": "the log",
    "logout": "end the session",
    "name": "by name",
    "on-demand": "of on-demand tunnels",
    "ping": "send echo requests",
    "policy": "policies",
    "process": "processes of the cards",
    "profile": "IPsec profiles",
    "proposal": "proposals",
    "remote": "by remote end point",
    "route": "routes of the context",
    "sa": "security associations",
    "security-association": "manual security associations",
    "show": "show information about the system",
    "size": "octets of data in each request",
    "source": "address to send from",
    "statistics": "what was counted",
    "terminal": "settings of the terminal",
    "timeout": "seconds to wait for the last answer",
    "tunnel": "tunnels",
    "verbose": "with settings that have their default value",
    "version": "software release",
    "width": "columns of the terminal",
}
"""What `?` says of a keyword."""


@cache
def grammar(privilege: int) -> CompiledGrammar:
    """The commands that a privilege (0 to 15) knows, ready to match."""
    return CompiledGrammar((row.compiled() for row in COMMANDS if row.privilege <= privilege), False, False)
