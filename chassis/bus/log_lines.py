"""Lines of the log as the router prints them:
`MMM DD HH:MM:SS: [CTXID]: [CIRCUIT]: %FACILITY-SEVERITY-NAME: text`.

Context and circuit stand in a line where they are known; a context as the low 16 bits of its id in four hex
digits. Year, milliseconds and host name do not. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from chassis.bus.messages import LogRecord, Value

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

ERROR_LEVEL: Final = 4
"""Records up to this level, a warning, are kept apart from the others."""

DEBUG_LEVEL: Final = 7

SEVERITIES: Final[Mapping[str, tuple[int, str]]] = {
    "critical": (2, "CRIT"),
    "error": (3, "ERR"),
    "warning": (4, "WARN"),
    "notice": (5, "NOTICE"),
    "note": (5, "NOTICE"),
    "informational": (6, "INFO"),
    "info": (6, "INFO"),
    "debug": (7, "DEBUG"),
}
"""The syslog digit (RFC 3164 4.1.1) and the name of a severity."""

LogRow = Mapping[str, Any]
"""A record as requests answer it, with `wall` (Unix time in s), `context_id` (0: none) and `circuit`."""


def level_of(severity: str) -> int:
    """Return the syslog digit of a severity; that of a note for a word that is none."""
    return SEVERITIES.get(severity, SEVERITIES["info"])[0]


def date(wall: float) -> str:
    """Return `MMM DD HH:MM:SS` of a Unix time (s), the day with a leading zero, in English whatever the locale."""
    at = datetime.fromtimestamp(max(wall, 0.0), UTC)
    return f"{MONTHS[at.month - 1]} {at.day:02} {at:%H:%M:%S}"


def name_of(facility: str, severity: str) -> str:
    """Return `%FACILITY-SEVERITY-NAME`."""
    digit, name = SEVERITIES.get(severity, SEVERITIES["info"])
    return f"%{facility.upper()}-{digit}-{name}"


def body(row: LogRow) -> str:
    """Return a line without its date."""
    parts = [f"[{row['context_id'] & 0xFFFF:04X}]"] if row["context_id"] else []
    parts += [f"[{row['circuit']}]"] if row["circuit"] else []
    return ": ".join((*parts, name_of(row["facility"], row["severity"]), row["text"]))


def line(row: LogRow) -> str:
    """Return the line of a record."""
    return f"{date(row['wall'])}: {body(row)}"


def circuit_id(place: str, kind: int, number: int) -> str:
    """Return a circuit's internal id as the router writes it: place, channels, type, level and number. Ours."""
    return f"{place}:1023:63/{kind}/1/{number}"


def row_of(record: LogRecord, number: int, wall: float, context_id: int, circuit: str) -> dict[str, Any]:
    """Return a record as requests answer it."""
    values: dict[str, Value] = dict(record.values)
    return {
        "number": number,
        "time": record.time,
        "wall": wall,
        "severity": record.severity,
        "level": level_of(record.severity),
        "facility": record.facility,
        "id": record.id,
        "text": record.text,
        "context_id": context_id,
        "circuit": circuit,
        "values": values,
    }
