"""Diagnostics of a configuration: what the parser and the checks report, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error, warning or note about one place of a file.

    `line` and `column` are 1-based and point at the first character of the wrong or undefined word, `name` is that
    word as it was typed. An error means that the line has no effect, a warning that it is kept (or that its
    surplus words are ignored), a note that it is right but does nothing here. `hint` is the repaired line, without
    its indentation, where there is one, else "". `owner` is the path of the object that a check found it at, empty
    for what the parser reports of a line. No field holds a key, but for one of the wrong
    length (S-069).
    """

    severity: Severity
    code: str
    name: str
    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    owner: tuple[str | int, ...] = field(default=(), compare=False, repr=False)

    @property
    def logged(self) -> str:
        """Return the text without the repaired line. That may hold a key of the wrong length (S-069), which the
        one who typed it may see, and no log."""
        place = f"{self.file}:{self.line}:{self.column}" if self.file else f"{self.line}:{self.column}"
        return f"{place}: {self.severity} {self.code}: {self.message}"

    def __str__(self) -> str:
        text = self.logged
        return f"{text}\n    repaired: {self.hint}" if self.hint else text


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return diagnostics sorted by line, column and code, as they are printed and compared."""
    return tuple(sorted(diagnostics, key=lambda d: (d.line, d.column, d.code, d.name)))


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Return whether a diagnostic is an error."""
    return any(d.severity == "error" for d in diagnostics)
