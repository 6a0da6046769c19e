"""What views have in common: the frame of a view, columns, durations, and the error that a view may raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Data = Any
"""The answer of an operator request, or what was selected from it."""


class ViewError(ValueError):
    """What was asked for is not there; the text says so."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a view knows beside its data.

    `values` are the arguments that were typed, `now` is the monotonic clock in seconds, and `wall_offset` what has
    to be added to it for Unix time; None where the session has no clock. `user` has typed it, at this privilege.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    node: str = "Redback"
    context: str = "local"
    now: float = 0.0
    wall_offset: float | None = None
    user: str = ""
    privilege: int = 0


def _all(data: Data, scope: Scope) -> Data:
    return data


@dataclass(frozen=True, slots=True)
class View:
    """How an answer is shown. `select` keeps what was asked for, which is also what `| json` prints."""

    lines: Callable[[Data, Scope], list[str]]
    select: Callable[[Data, Scope], Data] = _all


def columns(
    titles: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = (), least: Sequence[int] = ()
) -> list[str]:
    """A table: titles, then rows, two blanks apart; the columns named in `right` are aligned there. `least` are
    the least widths of the first columns."""
    table = [list(titles), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(titles))]
    widths[: len(least)] = map(max, widths, least)
    aligned = [title in right for title in titles]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, aligned, strict=True)
        ).rstrip()
        for row in table
    ]


def pairs(values: Mapping[str, object], indent: str = "") -> list[str]:
    """Lines of `name : value`, the colons below each other."""
    width = max((len(name) for name in values), default=0)
    return [f"{indent}{name.ljust(width)} : {value}".rstrip() for name, value in values.items()]


def line_of(row: Mapping[str, Any]) -> str:
    """Name a line of a tunnel's policy, or one of its rules with SAs of its own."""
    return f"{row['entry']} rule {row['rule']}" if "rule" in row else str(row["entry"])


def duration(seconds: float) -> str:
    """A time as `00:01:05`, `2d03h` from one day on."""
    whole = max(int(seconds), 0)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}"


DATE = "%a %b %d %H:%M:%S %Y"
"""Date and time as the router prints them."""


def moment(at: float, scope: Scope) -> datetime | None:
    """The UTC date and time of a moment of the monotonic clock (s); None without a clock."""
    return None if scope.wall_offset is None else datetime.fromtimestamp(at + scope.wall_offset, UTC)
