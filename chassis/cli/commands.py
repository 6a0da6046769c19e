"""The table of all exec commands. Parser, help, completion and privileges come from it.

Rows stand in `show_commands`, `exec_commands`, `pki_commands` and `transaction_commands`; `rows` says what one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from chassis.cli.exec_commands import EXEC_COMMANDS, EXEC_WORDS
from chassis.cli.pki_commands import PKI_COMMANDS, PKI_WORDS
from chassis.cli.rows import ExecCommand
from chassis.cli.show_commands import SHOW_COMMANDS, SHOW_WORDS
from chassis.cli.transaction_commands import TRANSACTION_COMMANDS, TRANSACTION_WORDS
from chassis.config.grammar import Alternatives, Command, Element, OptionalPart, SyntaxWord
from chassis.config.matcher import CompiledGrammar

COMMANDS: Final[tuple[ExecCommand, ...]] = (
    *SHOW_COMMANDS,
    *EXEC_COMMANDS,
    *PKI_COMMANDS,
    *TRANSACTION_COMMANDS,
)

BY_NAME: Final[Mapping[str, ExecCommand]] = {row.id: row for row in COMMANDS}

REQUESTS: Final = frozenset(
    {row.request for row in COMMANDS if row.request}
    | {
        "boot",
        "candidate",
        "clear-counters",
        "commit",
        "commits",
        "copy-file",
        "delete-file",
        "identity",
        "names",
        "object",
        "ping",
    }
    | {"key-pairs", "pki-find", "pki-import", "pki-remove", "pki-request"}
    | {"read-file", "reload", "reload-asp", "reload-card", "rollback", "sas", "save", "tunnels"}
)
"""Requests that a session may send to a controller: those of the rows, and of conversations."""

PREFIX_WORDS: Final[Mapping[str, str]] = {
    "default": "give a setting the value that it has without a line",
    "no": "remove a line, or turn off what it turns on",
}
"""Words before a line of the configuration, with their help."""

CONFIGURATION_WORDS: Final[Mapping[str, str]] = {
    "aaa": "authentication, authorization and accounting of peers",
    "ah": "authentication header",
    "asp": "pools and groups of ASPs",
    "authentication": "how ends prove who they are, and packets that they are whole",
    "encryption": "cipher",
    "esp": "encapsulating security payload",
    "identity": "who the ends are for each other",
    "ike": "Internet Key Exchange version 1",
    "ike2": "Internet Key Exchange version 2",
    "interface": "interface of a context",
    "ip": "Internet Protocol",
    "ipsec": "IP Security",
    "lifetime": "when an SA ends",
    "logging": "where log lines go",
    "privilege": "privilege levels",
    "radius": "RADIUS servers and how they are asked",
    "service": "services of the router",
    "tunnel": "tunnel",
}
"""What `?` says of keywords of the configuration that begin several commands; others have their command's help."""

WORDS: Final[Mapping[str, str]] = {**SHOW_WORDS, **EXEC_WORDS, **PKI_WORDS, **TRANSACTION_WORDS}
"""What `?` says of a keyword."""


@cache
def grammar(privilege: int, configuring: bool = False) -> CompiledGrammar:
    """The commands that a privilege (0 to 15) knows in exec mode, or in every configuration mode."""
    rows = (row.compiled() for row in COMMANDS if row.known(privilege, configuring))
    return CompiledGrammar(rows, False, False)


@cache
def other_spellings(command: Command) -> Mapping[str, str]:
    """Keywords of a command that are accepted in place of another, with that one."""
    found: dict[str, str] = {}

    def visit(elements: Sequence[Element]) -> None:
        for element in elements:
            match element:
                case SyntaxWord(spellings):
                    found.update((other, spellings[0]) for other in spellings[1:])
                case OptionalPart(items):
                    visit(items)
                case Alternatives(branches):
                    for branch in branches:
                        visit(branch)

    visit(command.elements)
    return found
