"""The alarms that stand: what each is about, how severe it is, and when it was raised. Pure.

An alarm has one place, such as `asp 1/1` or `tunnel NAME`, and one name there. It is raised once and cleared once.
The table is kept in a file of the state folder, with the number of the last record of the log that it counts; with
the log's records after that a later controller knows which alarms were told, and does not tell them again.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from chassis.xcrp.log import LogEntry

ALARMS_FILE: Final = "alarms.json"

MAJOR, MINOR, WARNING, CLEARED = "major", "minor", "warning", "cleared"

FACILITY: Final = "alarm"
"""Facility of the log records that tell of alarms."""

_LOGGED_AS: Final = {MAJOR: "error", MINOR: "warning", WARNING: "warning", CLEARED: "informational"}
"""Severity of the log record by that of the alarm."""

_SEVERITIES: Final = ("critical", MAJOR, MINOR, WARNING)
_KINDS: Final = ("router", "lc", "ase", "asp", "port", "tunnel", "context", "certificate")
"""Kinds of places in the order in which they are listed."""

_DIGITS: Final = re.compile(r"(\d+)")

AlarmKey = tuple[str, str]
"""Place and name of an alarm."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm: `place` and `name` tell it from others. `cause` is a tunnel's, as RBN-IP-SECURITY-MIB names it."""

    severity: str
    place: str
    name: str
    text: str
    cause: str = ""

    @property
    def key(self) -> AlarmKey:
        return self.place, self.name

    @property
    def kind(self) -> str:
        return self.place.partition(" ")[0]

    @property
    def line(self) -> str:
        """Text of the log record that tells of it."""
        return f"{self.place}: alarm {self.name} ({self.severity})" + (self.text and f": {self.text}")

    @property
    def logged_as(self) -> str:
        """Severity of that record."""
        return _LOGGED_AS[self.severity]

    @property
    def values(self) -> dict[str, str]:
        """Values of that record."""
        _, _, about = self.place.partition(" ")
        where = {
            "tunnel": {"tunnel": about},
            "context": {"context": about},
            "certificate": {"context": about.rpartition(" ")[2]},
        }.get(self.kind, {})
        cause = {"cause": self.cause} if self.cause else {}
        return {**where, "alarm": self.name, "object": self.place, "state": self.severity, **cause}


@dataclass(frozen=True, slots=True)
class StandingAlarm:
    """An alarm that stands. `raised`: Unix time (s)."""

    alarm: Alarm
    raised: float


class AlarmTable:
    """All alarms that stand, by key."""

    def __init__(self) -> None:
        self.standing: dict[AlarmKey, StandingAlarm] = {}
        self._sorted: list[tuple[Any, AlarmKey]] | None = None

    def put(self, alarm: Alarm, wall: float) -> bool:
        """Let an alarm stand; return whether it is new. One that stood keeps its time; its text may be another."""
        held = self.standing.get(alarm.key)
        if held is None:
            self.standing[alarm.key] = StandingAlarm(alarm, wall)
            self._sorted = None
            return True
        if held.alarm != alarm:
            self.standing[alarm.key] = StandingAlarm(alarm, held.raised)
            self._sorted = None
        return False

    def clear(self, key: AlarmKey) -> Alarm | None:
        """Clear an alarm; return what tells of that, or None if it does not stand."""
        if self.standing.pop(key, None) is None:
            return None
        self._sorted = None
        return Alarm(CLEARED, *key, "")

    def of_kinds(self, kinds: Iterable[str]) -> list[AlarmKey]:
        """Return the keys of the alarms whose places are of these kinds."""
        return [key for key, held in self.standing.items() if held.alarm.kind in kinds]

    @property
    def total(self) -> dict[str, int]:
        """Number of alarms of each severity that there is, the worst first."""
        counts = dict.fromkeys(_SEVERITIES, 0)
        for held in self.standing.values():
            counts[held.alarm.severity] += 1
        return {severity: count for severity, count in counts.items() if count}

    def part(self, after: str, limit: int) -> tuple[list[StandingAlarm], str]:
        """Return at most `limit` alarms after the one that `after` names, and the name of the last one if more
        follow: the worst first, then the router, cards, ports, tunnels, contexts and certificates, each by name.

        Raises:
            ValueError: `after` names no alarm that can be.
        """
        if self._sorted is None:
            self._sorted = sorted((_order(held.alarm.severity, *key), key) for key, held in self.standing.items())
        begin = bisect_right(self._sorted, _order(*_named(after)), key=lambda one: one[0]) if after else 0
        found = [self.standing[key] for _, key in self._sorted[begin : begin + limit]]
        if begin + limit >= len(self._sorted):
            return found, ""
        last = found[-1].alarm
        return found, f"{last.severity} {last.name} {last.place}"

    # what outlives the controller

    def restore(self, rows: Iterable[Any], number: int, log: Iterable[LogEntry]) -> None:
        """Take up the alarms of a file, and what the log told after its record `number`.

        Raises:
            ValueError, TypeError: a row is none.
        """
        for severity, place, name, text, cause, raised in rows:
            if severity not in _SEVERITIES:
                raise ValueError(f"{severity!r} is no severity")
            if not isfinite(float(raised)):
                raise ValueError(f"{raised!r} is no time")
            self.put(Alarm(severity, str(place), str(name), str(text), str(cause)), float(raised))
        for entry in log:
            told = told_by(entry)
            if told is None or entry.number <= number:
                continue
            if told.severity == CLEARED:
                self.clear(told.key)
            else:
                self.put(told, entry.wall)

    def rows(self) -> list[Any]:
        """Return what the file has of each alarm."""
        return [
            (one.alarm.severity, one.alarm.place, one.alarm.name, one.alarm.text, one.alarm.cause, one.raised)
            for one in self.standing.values()
        ]


def told_by(entry: LogEntry) -> Alarm | None:
    """Return the alarm that a log record tells of, one with the severity `CLEARED` if it was cleared."""
    record, values = entry.record, entry.record.values
    severity, place, name = (str(values.get(field)) for field in ("state", "object", "alarm"))
    if record.facility != FACILITY or severity not in _LOGGED_AS:
        return None
    bare = Alarm(severity, place, name, "", str(values.get("cause", "")))
    return Alarm(severity, place, name, record.text.removeprefix(bare.line).removeprefix(": "), bare.cause)


def read_file(data: bytes) -> Mapping[str, Any]:
    """Return what a file of alarms says; nothing if it can't be read."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _named(after: str) -> tuple[str, str, str]:
    severity, _, rest = after.partition(" ")
    name, _, place = rest.partition(" ")
    if severity not in _SEVERITIES or not name:
        raise ValueError(f"{after!r} is not the `next` of a part")
    return severity, place, name


def _order(severity: str, place: str, name: str) -> Any:
    kind, _, about = place.partition(" ")
    at = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    # Text and numbers alternate, so that port 3/2 stands before port 3/11.
    parts = tuple(int(part) if part.isdecimal() else part for part in _DIGITS.split(about))
    return _SEVERITIES.index(severity), at, parts, name
