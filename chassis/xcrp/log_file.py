"""The log in a file of the state folder, so that it outlives its controller. Pure.

A line of JSON for each record. Records are gathered for `FLUSH_DELAY` and appended, without waiting for the disk:
a killed controller loses what it gathered, a machine that loses its power more. The file is written anew from what
is kept in memory when it has grown beyond that. If it cannot be written, that is logged once, nothing more is
written, and from time to time the whole file is tried again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import inf, isfinite
from typing import Any, Final

from chassis.bus.engine import Output, WriteLog
from chassis.bus.messages import LogRecord
from chassis.xcrp.log import Log, LogEntry

LOG_FILE: Final = "log.jsonl"

FLUSH_DELAY: Final = 0.1
"""Time (s) for which records are gathered: what a killed controller loses."""

MAX_GATHERED: Final = 1000
"""Records (count) that are not gathered longer."""

RETRY_INTERVAL: Final = 30.0
"""Time (s) between two tries to write a file that could not be written."""

SLACK: Final = 2 << 20
"""Octets by which the file may exceed twice what was written when it was last written anew."""


def encode(entry: LogEntry) -> bytes:
    """Return the line of an entry."""
    record = entry.record
    fields = (
        entry.number,
        entry.wall,
        record.severity,
        record.facility,
        record.id,
        record.text,
        entry.context,
        entry.circuit,
        record.values,
    )
    return json.dumps(fields, separators=(",", ":"), default=_plain).encode() + b"\n"


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def decode(line: bytes, wall_offset: float) -> LogEntry | None:
    """Return the entry of a line; None if it is no whole line of an entry."""
    try:
        number, wall, severity, facility, id, text, context, circuit, values = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (severity, facility, id, text, circuit)
    if (
        type(number) is not int
        or number <= 0
        or type(wall) not in (int, float)
        or not isfinite(wall)
        or not all(isinstance(one, str) for one in texts)
        or type(context) is not int
        or not isinstance(values, dict)
        or not all(isinstance(one, str | int | float | None) for one in values.values())
    ):
        return None
    record = LogRecord(wall - wall_offset, severity, facility, id, text, values)
    return LogEntry(number, wall, record, context, circuit)


def entries(data: bytes, wall_offset: float) -> Iterator[LogEntry]:
    """Return the entries of a file in order; lines that are torn or none are passed over."""
    last = 0
    for line in data.split(b"\n"):
        entry = decode(line, wall_offset) if line else None
        if entry is not None and entry.number > last:
            last = entry.number
            yield entry


class LogFile:
    """What is to be written, and when."""

    def __init__(self, data: bytes) -> None:
        """`data` is the file as it is now."""
        self.level = 7
        """Records up to this level go into the file."""
        self.enabled = True
        self._gathered: list[bytes] = [b"\n"] if data and not data.endswith(b"\n") else []
        self._octets = len(data)
        self._whole = 0
        """Octets that the file had when it was written anew last."""
        self._flush_at = inf
        self._failed = False
        self._trying = False
        """Whether the whole file is being written because the write before failed."""

    def add(self, entry: LogEntry, now: float) -> None:
        """Gather an entry."""
        if self.enabled and not self._failed and entry.level <= self.level:
            self._gathered.append(encode(entry))
            self._flush_at = min(self._flush_at, now if len(self._gathered) >= MAX_GATHERED else now + FLUSH_DELAY)

    def next_timer(self) -> float:
        return self._flush_at

    def on_timer(self, log: Log, now: float) -> list[Output]:
        return self.flush(log) if now >= self._flush_at else []

    def flush(self, log: Log) -> list[Output]:
        """Write what is gathered, or the whole file if it has grown or has to be tried again."""
        self._flush_at = inf
        if self._failed:
            self._trying = True
            return self.rewrite(log)
        if not self._gathered:
            return []
        data = b"".join(self._gathered)
        if self._octets + len(data) > 2 * self._whole + SLACK:
            return self.rewrite(log)
        self._gathered.clear()
        self._octets += len(data)
        return [WriteLog(LOG_FILE, data, whole=False)]

    def rewrite(self, log: Iterable[LogEntry]) -> list[Output]:
        """Write the file anew."""
        self._gathered.clear()
        data = b"".join(encode(entry) for entry in log if entry.level <= self.level) if self.enabled else b""
        self._octets = self._whole = len(data)
        return [WriteLog(LOG_FILE, data, whole=True)]

    def on_written(self, error: str, now: float) -> tuple[str, str] | None:
        """The shell's answer to a write; return severity and text of what is to be logged."""
        self._trying, tried = False, self._trying
        if error:
            first, self._failed = not self._failed, True
            self._gathered.clear()
            self._flush_at = now + RETRY_INTERVAL
            return (
                ("error", f"the log is kept in memory only: its file can't be written: {error}") if first else None
            )
        if tried and self._failed:
            self._failed = False
            return "notice", "the log's file is written again"
        return None
