"""Print `docs/commands.md` from the tables of commands: `python -m tools.commands_page > docs/commands.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from typing import Final

from chassis.cli.commands import COMMANDS
from chassis.cli.rows import DEFAULT_PRIVILEGE, HIGHEST_PRIVILEGE, ExecCommand
from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.fidelity import STANDING, standing_of, syntax_of
from chassis.config.grammar import MODES, Alternatives, Command, Element, OptionalPart, Param
from chassis.config.objects import CLASSES
from chassis.config.operations import OPERATIONS
from chassis.model.ipsec import DEFAULT_WINDOW, IpsecProposal
from chassis.model.router import LOCAL, StaticRoute

INTRODUCTION = """# Commands

Printed from the tables of commands by `make docs`; a test compares the page with them. Section: of the guide.
*Emulated*: does what the guide says. *Accepted only*: checked, kept, printed back, without effect here. *Not yet*:
what uses it says so. *Ours*: the guide is silent. Words may be shortened as long as they are clear; `word/other`
is one word in two spellings, `[...]` may be left out, `{... | ...}` is one of these, and what has a `*` needs
`extensions: [modern]`.

Show commands and `terminal` are known in every mode, the others of exec mode there alone. Where a privilege is
named, a session needs it. Every output takes `| include`, `exclude`, `begin`, `count`, `grep` and, as its first
filter, `json`."""

EXEC_COLUMNS = ("command", "what it does", "privilege", "section", "standing")
CONFIG_COLUMNS = ("command", "what it sets", "default", "range", "section", "standing")


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    titles = list(columns)
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def _exec_row(row: ExecCommand) -> tuple[object, ...]:
    syntax = syntax_of(row.compiled())
    standing = STANDING["emulated" if row.guide else "ours"]
    return (f"`{syntax}`", row.help, row.privilege or "", row.guide, standing)


def _missing_row(command: Command) -> tuple[object, ...]:
    """The row of a command of the guide that nobody can type yet."""
    return (f"`{syntax_of(command)}`", command.help, "", command.guide, standing_of(command))


IN_FORCE: Final[Mapping[str, object]] = {
    "administrator.privilege-start": DEFAULT_PRIVILEGE,
    "administrator.privilege-max": HIGHEST_PRIVILEGE,
    "administrator.timeout": 0,
    "ipsec-proposal.esp-authentication": IpsecProposal("").esp_integrity,
    "ipsec-proposal.esp-encryption": IpsecProposal("").esp_cipher,
    "ipsec-sa.anti-replay-window": DEFAULT_WINDOW,
    "ipsec-qos-policy.num-queues": 1,
    "tunnel.peer-end-point": f"context: {LOCAL}",
    "tunnel.peer-end-point-on-demand": f"context: {LOCAL}",
    "tunnel.bind-interface": f"interface-context: {LOCAL}",
    "port.shutdown": "on",
}
"""What is in force without a line, where no field of the object has it."""


def _default(command: Command) -> object:
    """What is in force without the command's line, where that is something."""
    if command.id in IN_FORCE:
        return IN_FORCE[command.id]
    if command.does == "route":
        plain = StaticRoute("")
        return f"cost: {plain.cost}, distance: {plain.distance}"
    kind = CLASSES.get(command.modes[0])
    if kind is None or command.does not in ("set", "flag", "switch"):
        return ""
    name = command.target or next(iter(command.fields), "")
    value = next((field.default for field in fields(kind) if field.name == name), MISSING)
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str | int) else ""


def _numbers(elements: Iterable[Element]) -> Iterable[Param]:
    for element in elements:
        match element:
            case Param() if element.type.name[0].isdigit():
                yield element
            case OptionalPart(items):
                yield from _numbers(items)
            case Alternatives(branches):
                for branch in branches:
                    yield from _numbers(branch)


def _range(command: Command) -> str:
    found = [(param.field.replace("_", "-"), param.type.help) for param in _numbers(command.elements)]
    texts = [help.removeprefix("number from ") for _, help in found]
    if len(found) == 1:
        return texts[0]
    return ", ".join(f"{name}: {text}" for (name, _), text in zip(found, texts, strict=True))


def _config_row(command: Command) -> tuple[object, ...]:
    return (
        f"`{syntax_of(command)}`",
        command.help,
        _default(command),
        _range(command),
        command.guide,
        standing_of(command),
    )


def describe() -> str:
    """Return the whole page."""
    shows = [row for row in COMMANDS if row.syntax.startswith("show ")]
    acts = [row for row in COMMANDS if row not in shows and row.mode != "config"]
    configuring = [row for row in COMMANDS if row.mode == "config"]
    known = {row.id for row in COMMANDS}
    missing = [command for command in OPERATIONS if command.id not in known and command.standing == "later"]
    lines = [INTRODUCTION, "", "## Show commands", "", *_table(EXEC_COLUMNS, map(_exec_row, shows))]
    lines += ["", "## Other commands of exec mode", "", *_table(EXEC_COLUMNS, map(_exec_row, acts))]
    lines += _table(EXEC_COLUMNS, map(_missing_row, missing))[2:]
    lines += ["", "## Commands of every configuration mode", ""]
    lines += _table(EXEC_COLUMNS, map(_exec_row, configuring))
    for mode in MODES.values():
        commands = [
            replace(command, modes=(mode.name,)) for command in CONFIG_COMMANDS if mode.name in command.modes
        ]
        if commands:
            title = mode.title[0].upper() + mode.title[1:]
            lines += ["", f"## {title}", "", f"`{mode.prompt}`", ""]
            lines += _table(CONFIG_COLUMNS, map(_config_row, commands))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(describe(), end="")
