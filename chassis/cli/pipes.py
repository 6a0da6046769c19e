"""Filters of what a command prints: `| include TEXT`, `exclude`, `begin`, `grep`, `count` and `json`.

A pattern is plain text with `^`, `$`, `.`, `[...]` and up to `MAX_REPEATS` of `*`, `+`, `?` after one character:
nothing in it can take more than a moment, whatever is typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

PIPES: Final = {
    "begin": "start with the first line that has the text",
    "count": "number of lines",
    "exclude": "lines that do not have the text",
    "grep": "lines that have the text; -i in any case, -v those without it",
    "include": "lines that have the text",
    "json": "the data instead of lines",
}
"""Every filter, with its help."""

MAX_PATTERN: Final = 200
"""Most characters of a pattern."""

MAX_REPEATS: Final = 3
"""Most signs of repetition in a pattern: each multiplies the time that a line can take by its length."""


class PipeError(ValueError):
    """A filter can't be used as typed. `column` is where it is wrong, counted from the line's start."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


@dataclass(frozen=True, slots=True)
class LineFilter:
    """One filter of lines."""

    name: str
    matches: Callable[[str], bool]

    def apply(self, lines: Sequence[str]) -> list[str]:
        match self.name:
            case "include" | "grep":
                return [line for line in lines if self.matches(line)]
            case "exclude":
                return [line for line in lines if not self.matches(line)]
            case "begin":
                first = next((at for at, line in enumerate(lines) if self.matches(line)), len(lines))
                return list(lines[first:])
            case "count":
                return [str(len(lines))]
        return list(lines)


def split(line: str) -> list[tuple[int, str]]:
    """Return (column, text) of the command and of each filter; `|` between double quotes is no separator."""
    parts: list[tuple[int, str]] = []
    start, quoted = 0, False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == "|" and not quoted:
            parts.append((start, line[start:at]))
            start = at + 1
    return [*parts, (start, line[start:])]


def read(parts: Sequence[tuple[int, str]]) -> list[LineFilter]:
    """Read filters.

    Raises:
        PipeError: one of them is none, has no text or one that can't be used.
    """
    return [_read(column, text, position) for position, (column, text) in enumerate(parts)]


def _read(column: int, text: str, position: int) -> LineFilter:
    word, _, rest = text.strip().partition(" ")
    at = column + len(text) - len(text.lstrip())
    found = [name for name in PIPES if name.startswith(word.lower())] if word else []
    if not word:
        raise PipeError("incomplete", at)
    if word.lower() in PIPES:
        found = [word.lower()]
    if len(found) != 1:
        raise PipeError("ambiguous" if found else "invalid", at)
    (name,) = found
    rest = rest.strip()
    if name in ("count", "json"):
        if rest or (name == "json" and position):
            raise PipeError("invalid", at if name == "json" and position else column + text.rindex(rest))
        return LineFilter(name, bool)
    invert = ignore_case = False
    while name == "grep" and (option := re.match(r"-([iv]+)(?:\s+|$)", rest)):
        invert |= "v" in option[1]
        ignore_case |= "i" in option[1]
        rest = rest[option.end() :]
    if len(rest) > 1 and rest[0] == rest[-1] == '"':
        rest = rest[1:-1]
    if not rest:
        raise PipeError("incomplete", column + len(text))
    matches = _pattern(rest, ignore_case, column + text.find(rest))
    return LineFilter(name, (lambda line: not matches(line)) if invert else matches)


def _pattern(text: str, ignore_case: bool, column: int) -> Callable[[str], bool]:
    if len(text) > MAX_PATTERN:
        raise PipeError("invalid", column)
    # Groups and counted repetitions are what makes a pattern slow: their signs stand for themselves.
    literal = re.sub(r"(?<!\\)([(){}])", r"\\\1", text)
    if sum(literal.count(sign) for sign in "*+?") > MAX_REPEATS:
        raise PipeError("invalid", column)
    try:
        pattern = re.compile(literal, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError):
        raise PipeError("invalid", column) from None
    return lambda line: pattern.search(line) is not None
