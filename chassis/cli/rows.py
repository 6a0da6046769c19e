"""What a row of the tables of exec commands is: words, arguments, request, view.

A command of the guide has its words from the grammar (`chassis.config.operations`), where settled spellings are.
`request` names a request of the controller (`chassis.bus.requests`), `arguments` makes its arguments from what was
typed, `view` shows the answer. `act` is what the session does itself, after the answer where there is a request.
A command that asks its operator, or sends several requests, has an `opening` in place of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from chassis.cli.dialogue import Opening
from chassis.cli.views.layout import View
from chassis.config.grammar import Command
from chassis.config.operations import BY_ID

Values = Mapping[str, Any]
Act = Literal["", "disable", "exit", "length", "width", "context", "monitor", "no monitor"]

USER: Final = 0
"""Privilege of commands that only show."""

ADMINISTRATOR: Final = 10
"""Privilege of commands that act; from here on the prompt ends with `#`."""

DEFAULT_PRIVILEGE: Final = 6
"""Privilege after `disable`, and of an administrator whose configuration names none."""

HIGHEST_PRIVILEGE: Final = 15

_ANYWHERE: Final = ("show ", "terminal ")
"""How commands of every mode begin (guide 10)."""


def no_arguments(values: Values, context: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """One row. `syntax` is in the notation of `chassis.config.grammar`; `guide` is empty where it is silent.

    `mode` says where it can be typed: "exec", "config" for every configuration mode, or "any". Commands that show
    and settings of the terminal are of any mode. `parts` names the rows of an answer that comes in parts
    (`chassis.cli.dialogue.in_parts`).
    """

    id: str
    syntax: str
    help: str
    view: View
    request: str = ""
    arguments: Callable[[Values, str], dict[str, Any]] = no_arguments
    aliases: tuple[str, ...] = ()
    privilege: int = USER
    guide: str = ""
    act: Act = ""
    opening: Opening | None = None
    mode: Literal["exec", "config", "any"] = "exec"
    parts: str = ""

    def known(self, privilege: int, configuring: bool) -> bool:
        """Whether a session of this privilege may type it, in configuration mode or in exec mode."""
        anywhere = self.mode == "any" or self.syntax.startswith(_ANYWHERE)
        return self.privilege <= privilege and (anywhere or (self.mode == "config") == configuring)

    def compiled(self) -> Command:
        """The row as the matcher takes it."""
        return Command(
            self.id, ("exec",), self.syntax, self.help, kind="exec", does="none", aliases=self.aliases, no=()
        )


def of_guide(
    name: str,
    view: View,
    request: str,
    arguments: Callable[[Values, str], dict[str, Any]] = no_arguments,
    privilege: int = USER,
    syntax: str = "",
) -> ExecCommand:
    known = BY_ID[name]
    aliases = () if syntax else known.aliases
    return ExecCommand(
        name, syntax or known.syntax, known.help, view, request, arguments, aliases, privilege, known.guide
    )


def of_context(values: Values, context: str) -> dict[str, Any]:
    """Arguments of a request about a context: the one that was named, or the session's."""
    return {"context": values.get("context", context)}
