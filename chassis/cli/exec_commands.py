"""The exec commands that act, on the router or on the session: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chassis.bus.requests import MAX_PING
from chassis.cli import acts, monitor, probes
from chassis.cli.dialogue import Check, Conversation, InquiryReply, Outcome, Question, Seat, refused
from chassis.cli.rows import ADMINISTRATOR, HIGHEST_PRIVILEGE, ExecCommand, Values, of_context, of_guide
from chassis.cli.views import acts as act_views
from chassis.cli.views import monitor as monitor_view
from chassis.cli.views import probes as view
from chassis.cli.views import system, tunnels


def _clear(what: str) -> Callable[[Values, str], dict[str, Any]]:
    return lambda values, context: {"tunnel": values["name"], "what": what}


def _enable(values: Values, seat: Seat) -> Conversation:
    """Go to a higher privilege; beyond that of the login its password is asked for."""
    level = int(values.get("level", HIGHEST_PRIVILEGE))
    if level > seat.privilege_max:
        refused(f"privilege {level} is above your highest, {seat.privilege_max}")
    if level > seat.login_privilege:
        secret = yield Question("Password: ", echo=False)
        reply: InquiryReply = yield Check(level, secret)
        reply.unless_refused()
    seat.privilege = level
    return Outcome({})


EXEC_COMMANDS: Final[tuple[ExecCommand, ...]] = (
    of_guide("clear-ike-sa", tunnels.cleared, "clear", _clear("ike"), ADMINISTRATOR),
    of_guide("clear-ipsec-sa", tunnels.cleared, "clear", _clear("ipsec"), ADMINISTRATOR),
    ExecCommand(
        "clear-arp-cache",
        "clear arp-cache [<address:address>]",
        "forget the neighbours of this context",
        act_views.arp_cleared,
        "clear-arp",
        lambda values, context: {"context": context, **values},
        privilege=ADMINISTRATOR,
    ),
    ExecCommand(
        "clear-counters",
        "clear counters [{<what=port> [<name:port>] | <what=circuit> | <what=tunnel> [<name:name>]}]",
        "count from zero in what is shown of ports, circuits and tunnels",
        system.silent,
        privilege=ADMINISTRATOR,
        opening=acts.clear_counters,
    ),
    ExecCommand(
        "clear-log",
        "clear log",
        "delete the records of the log",
        system.silent,
        "clear-log",
        privilege=ADMINISTRATOR,
    ),
    ExecCommand(
        "ping",
        f"ping [<address:address> [<count:1-{probes.MAX_COUNT}>] [size <size:0-{MAX_PING}>] "
        f"[timeout <timeout:1-{probes.MAX_TIMEOUT}>] [source <source:address>]]",
        "send echo requests in this context",
        view.ping,
        opening=probes.ping,
    ),
    ExecCommand(
        "traceroute",
        f"traceroute <address:address> [ttl <hops:1-255>] [timeout <timeout:1-{probes.MAX_TIMEOUT}>] "
        "[source <source:address>]",
        "find the hops on the way to an address",
        view.traceroute,
        opening=probes.traceroute,
    ),
    ExecCommand(
        "save-configuration",
        "save configuration [<file:word>]",
        "write the configuration in force into a file",
        act_views.saved,
        privilege=ADMINISTRATOR,
        opening=acts.save,
        aliases=("save",),
    ),
    ExecCommand(
        "dir",
        "dir [<path:word>]",
        "files of a folder",
        act_views.directory,
        "files",
        lambda values, context: {"path": values.get("path", "")},
        privilege=ADMINISTRATOR,
    ),
    ExecCommand(
        "copy",
        "copy <file:word> <target:word>",
        "copy a file",
        act_views.copied,
        privilege=ADMINISTRATOR,
        opening=acts.copy,
    ),
    ExecCommand(
        "more",
        "more <file:word>",
        "show a text file",
        act_views.text_file,
        "read-file",
        lambda values, context: {"file": values["file"]},
        privilege=ADMINISTRATOR,
    ),
    ExecCommand(
        "delete",
        "delete <file:word>",
        "delete a file",
        act_views.deleted,
        privilege=ADMINISTRATOR,
        opening=acts.delete,
    ),
    ExecCommand(
        "reload",
        "reload",
        "start the router again from its boot file",
        act_views.reloading,
        privilege=ADMINISTRATOR,
        opening=acts.reload,
    ),
    ExecCommand(
        "reload-card",
        "reload card <slot:1-14>",
        "start the processes of a card again",
        act_views.card_reloading,
        privilege=ADMINISTRATOR,
        opening=acts.reload_card,
    ),
    ExecCommand(
        "reload-asp",
        "reload asp <asp:asp>",
        "start an ASP again",
        act_views.card_reloading,
        privilege=ADMINISTRATOR,
        opening=acts.reload_asp,
    ),
    ExecCommand(
        "monitor-tunnel",
        "monitor tunnel [<name:name>]",
        "look at tunnels, or at one and its traffic, until ^C",
        monitor_view.tunnel,
        opening=monitor.tunnel,
    ),
    # The routes of a context are asked for because a context that is not there has none.
    ExecCommand(
        "context",
        "context <context:name>",
        "go to another context",
        system.silent,
        "routes",
        of_context,
        privilege=ADMINISTRATOR,
        act="context",
    ),
    ExecCommand("enable", "enable [<level:0-15>]", "turn on privileged commands", system.silent, opening=_enable),
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
        "terminal-monitor",
        "terminal monitor",
        "show lines of the log as they come",
        system.silent,
        act="monitor",
        mode="any",
    ),
    ExecCommand(
        "no-terminal-monitor",
        "no terminal monitor",
        "show no lines of the log as they come",
        system.silent,
        act="no monitor",
        mode="any",
    ),
    ExecCommand(
        "terminal-width", "terminal width <columns:20-512>", "columns of the terminal", system.silent, act="width"
    ),
)
"""In the order of the documentation."""

EXEC_WORDS: Final[Mapping[str, str]] = {
    "asp": "an ASP",
    "card": "a card, or one of its ASPs",
    "clear": "reset a function",
    "context": "go to another context",
    "counters": "what was counted",
    "copy": "copy a file",
    "delete": "delete a file",
    "dir": "files of a folder",
    "disable": "turn off privileged commands",
    "enable": "turn on privileged commands",
    "exit": "end the session",
    "length": "rows of the terminal",
    "logout": "end the session",
    "monitor": "look at what comes",
    "more": "show a text file",
    "no": "turn off what a command turns on",
    "ping": "send echo requests",
    "reload": "start processes again",
    "save": "write to a file",
    "size": "octets of data in each request",
    "source": "address to send from",
    "terminal": "settings of the terminal",
    "timeout": "seconds to wait for an answer",
    "traceroute": "find the hops on the way to an address",
    "ttl": "largest number of hops",
    "width": "columns of the terminal",
}
"""What `?` says of the keywords of these commands."""
