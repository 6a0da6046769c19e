"""The operators' requests about the log: a part of it, and clearing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.model.router import LOCAL
from chassis.xcrp.log import LogEntry
from chassis.xcrp.operators import Method, Operators

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO: Final = re.compile(r"([0-9]{1,9})([smhd])")
_CLOCK: Final = ("%H:%M:%S", "%H:%M")


def read_time(text: str, wall: float) -> float:
    """Return the Unix time (s) that a text means at `wall`: `15m` ago, `14:30[:15]` (UTC, the last time that the
    clock showed it), or a date and time as `2026-11-29T14:30`.

    Raises:
        ArgumentError: it is none of them.
    """
    if ago := _AGO.fullmatch(text):
        return wall - int(ago[1]) * _UNITS[ago[2]]
    for form in _CLOCK:
        try:
            clock = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        today = datetime.fromtimestamp(wall, UTC)
        at = today.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
        return (at if at <= today else at - timedelta(days=1)).timestamp()
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{text!r} is no time: expected as in 15m, 14:30:15 or 2026-11-29T14:30:15") from error


def chosen(entries: Iterable[LogEntry], given: dict[str, Any], wall: float) -> Iterator[LogEntry]:
    """Return the entries that a request asks for, all that there are of them."""
    since = read_time(given["from"], wall) if given["from"] else None
    for entry in entries:
        record = entry.record
        if (
            (not given["since"] or record.time >= given["since"])
            and (since is None or entry.wall >= since)
            and entry.level <= given["level"]
            and given["facility"].lower() in ("", record.facility.lower())
            and given["tunnel"] in ("", record.values.get("tunnel"))
            and given["context"] in ("", record.values.get("context"))
        ):
            yield entry


def _shown(operators: Operators, entries: Iterable[LogEntry], where: str) -> Iterable[LogEntry]:
    """Return those that go to a monitor, by their level, or to the console, by the line of their context too."""
    if where == "log":
        return entries
    config = operators.state.config
    entries = (entry for entry in entries if entry.level <= config.log_filter_console)
    if where == "monitor":
        return entries
    known = {name for name, context in config.contexts.items() if context.logging_console}
    return (entry for entry in entries if entry.record.values.get("context", LOCAL) in known)


def _log(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    history = operators.state.history
    found = list(
        _shown(
            operators, chosen(history.log.after(given["after"]), given, now + history.wall_offset), given["shown"]
        )
    )
    rows: list[Any] = [entry.row() for entry in found[-given["last"] :]]
    left_out = len(found) - len(rows)
    return [ToOperator(number, {"records": rows, "left_out": left_out, "number": history.log.number})]


def _clear_log(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    history = operators.state.history
    cleared = history.clear_log()
    return [*history.log_file.rewrite(history.log), ToOperator(number, {"cleared": cleared})]


COMMANDS: Final[dict[str, Method]] = {"log": _log, "clear-log": _clear_log}
"""Functions that carry out the commands, by name."""
