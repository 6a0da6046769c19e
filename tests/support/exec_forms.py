"""Lines to type for every form of the exec commands, made from their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chassis.cli.commands import COMMANDS
from chassis.cli.rows import ExecCommand
from chassis.config.grammar import Alternatives, Choice, Element, OptionalPart, Param, SyntaxWord, parse_syntax

Values = Mapping[str, str]
"""A text for each field of a syntax, or for `ROW.field` where it is another one in that row."""


def _values(row: ExecCommand, field: str, values: Values) -> str:
    found = values.get(f"{row.id}.{field}", values.get(field))
    assert found is not None, f"no value is given for {row.id}.{field}"
    return found


def _each(row: ExecCommand, elements: Sequence[Element], values: Values) -> list[str]:
    """One form, then as many as it takes to have each option and each alternative once."""
    parts: list[list[str]] = []
    for element in elements:
        match element:
            case SyntaxWord(spellings):
                parts.append([spellings[0]])
            case Choice():
                parts.append([text for text, _ in element.options])
            case Param(field):
                parts.append([_values(row, field, values)])
            case OptionalPart(items):
                parts.append(["", *_each(row, items, values)])
            case Alternatives(branches):
                parts.append([form for branch in branches for form in _each(row, branch, values)])
    first = [options[0] for options in parts]
    forms = [first]
    for at, options in enumerate(parts):
        forms += [[*first[:at], option, *first[at + 1 :]] for option in options[1:]]
    return [" ".join(word for word in form if word) for form in forms]


def forms(row: ExecCommand, values: Values) -> list[str]:
    """The lines of one row, each option in turn."""
    return [form for syntax in (row.syntax, *row.aliases) for form in _each(row, parse_syntax(syntax), values)]


def show_lines(values: Values) -> list[str]:
    """The lines of every row that shows."""
    return [line for row in COMMANDS if row.syntax.startswith("show ") for line in forms(row, values)]


EXAMPLES: Final[Values] = {
    "show-log.from": "15m",
    "show-log.facility": "ike",
    "show-log.tunnel": "t1",
    "show-log.level": "4",
    "show-log.last": "3",
    "address": "10.0.0.1",
    "asp": "1/1",
    "bits": "2048",
    "columns": "512",
    "comment": "why",
    "context": "lan",
    "count": "5",
    "file": "redback.cfg",
    "handle": "0a1b2c3d",
    "hops": "5",
    "identity": "a.example",
    "level": "15",
    "minutes": "10",
    "number": "3",
    "name": "t0",
    "show-asp.name": "1/1",
    "clear-counters.name": "3/1",
    "path": "/flash",
    "port": "3/1",
    "remote": "9.9.2.1",
    "rows": "0",
    "size": "100",
    "slot": "3",
    "source": "10.0.0.2",
    "target": "other.cfg",
    "timeout": "2",
}
"""A value of each field that fits its type."""
