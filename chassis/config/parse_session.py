"""State of a configuration while it is read: open modes, the current line, diagnostics, and where words stand.

`chassis.config.effects` reads and changes it for one command; `chassis.config.parser` drives it line by line.
"""

from __future__ import annotations

from chassis.config.diagnostics import Diagnostic, Severity
from chassis.config.drafts import Frame, Path, SourceLine, SourcePosition, root
from chassis.config.grammar import Command
from chassis.config.matcher import Match
from chassis.model.router import Config

NO_COMMAND = Command("", (), "", "", does="none")
"""Command of a line that matches no command."""


class ParseSession:
    """The open modes as a stack, the current line with its match, diagnostics and positions.

    `shift` is 1 where the line begins with `no`, else 0: indices of the match do not count that word. `failed`
    says that the line had an error. `broken` has the paths of objects with a wrong line.
    """

    def __init__(self, file: str = "", config: Config | None = None) -> None:
        self.file = file
        self.stack: list[Frame] = [root(config)]
        self.diagnostics: list[Diagnostic] = []
        self.positions: dict[Path, SourcePosition] = {}
        self.broken: set[Path] = set()
        self.line = SourceLine("", 0)
        self.match = Match(NO_COMMAND, {}, {})
        self.shift = 0
        self.failed = False

    @property
    def mode(self) -> str:
        """Return the name of the open mode."""
        return self.stack[-1].mode

    def push(self, frame: Frame) -> None:
        """Open a mode."""
        frame.indent = self.line.indent
        self.stack.append(frame)

    def position(self, index: int) -> SourcePosition:
        """Return the position of a word of the matched command; its index does not count a leading `no`."""
        return self.line.position(index + self.shift)

    def store_positions(self, path: Path) -> None:
        """Store the position of each value of the line below `path`."""
        for name, index in self.match.word_index.items():
            self.positions[(*path, name)] = self.line.position(index + self.shift)

    def store_position(self, path: Path, name: str | None) -> None:
        """Store the position of one value of the line as `path`; `name` None is the line itself."""
        index = 0 if name is None else self.match.word_index[name] + self.shift
        self.positions[path] = self.line.position(index)

    def report(
        self,
        severity: Severity,
        code: str,
        place: SourcePosition,
        message: str,
        hint: str = "",
        secret: bool = True,
    ) -> None:
        """Add a diagnostic for a word of the line; `secret` drops the hint if the command can have a key."""
        if severity == "error":
            self.failed = True
            self.broken.add(self.stack[-1].path)
        if hint and secret and self.match.command.has_secret:
            hint = ""
        self.diagnostics.append(
            Diagnostic(severity, code, place.word, self.file, place.line, place.column, message, hint)
        )
