"""The file of accounting sessions: those that are open, and what no server has acknowledged of closed ones.

A controller that starts takes them up: it reports the end of sessions that ended while none ran. What happens in
a second is written at once, so a bring-up waits for no disk; what is lost with that second, the ASPs still know.
Each line is a change, as JSON; the whole is written anew when most lines are of the past.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from chassis.aaa.accounting_record import AccountingRecord
from chassis.bus.engine import Append, Output, Persist

SESSIONS: Final = "sessions.jsonl"

WRITE_DELAY: Final = 1.0
"""Time (s) for which changes are gathered."""

MIN_LINES: Final = 1000
"""Lines of a file that is not written anew for its size alone (count)."""


@dataclass(slots=True)
class StoredSession:
    """A session: its start, whether a server has that, and its stop once it has ended."""

    start: AccountingRecord
    started: bool = False
    stop: AccountingRecord | None = None


@dataclass(slots=True)
class SessionStore:
    """The sessions of a router, and the lines that are to be written."""

    sessions: dict[str, StoredSession] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)
    _written: int = 0
    _whole: bool = False
    _due: float = inf

    def read(self, data: bytes) -> str:
        """Read the file. Return what is wrong with it, or an empty text: what can be read is used."""
        bad = 0
        for line in data.splitlines():
            self._written += 1
            try:
                self._apply(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                bad += 1
        # A last line without its end would be joined with the next one.
        self._whole = bad > 0 or not data.endswith(b"\n") if data else False
        return f"{SESSIONS}: {bad} lines can't be read" if bad else ""

    def begin(self, start: AccountingRecord, now: float) -> None:
        """A session began."""
        self._note({"start": start.to_json()}, now)

    def end(self, stop: AccountingRecord, now: float) -> None:
        """A session ended."""
        if stop.session in self.sessions:
            self._note({"stop": stop.to_json()}, now)

    def done(self, session: str, status: str, now: float) -> None:
        """A server has the start or the stop of a session, or it is never sent. Without a stop nothing is kept."""
        if session in self.sessions and status in ("start", "stop"):
            self._note({"done": session, "status": status}, now)

    def forget(self, session: str, now: float) -> None:
        """Nothing of a session is to be reported any more."""
        self.done(session, "stop", now)

    def next_timer(self) -> float:
        return self._due

    def flush(self, now: float) -> list[Output]:
        """Return the write that is due."""
        if now < self._due:
            return []
        return self.write()

    def write(self) -> list[Output]:
        """Return the write of what is not written."""
        self._due = inf
        lines, self._lines = self._lines, []
        live = sum(1 + held.started + (held.stop is not None) for held in self.sessions.values())
        if self._whole or self._written + len(lines) > max(MIN_LINES, 3 * live):
            self._whole = False
            text = [json.dumps(one) for one in self._all()]
            self._written = len(text)
            return [Persist(SESSIONS, _text(text))]
        if not lines:
            return []
        self._written += len(lines)
        return [Append(SESSIONS, _text(lines))]

    def on_unwritten(self, now: float) -> None:
        """The last write failed: the whole is written again."""
        self._whole, self._due = True, now + WRITE_DELAY

    def _note(self, change: dict[str, Any], now: float) -> None:
        self._apply(change)
        self._lines.append(json.dumps(change))
        self._due = min(self._due, now + WRITE_DELAY)

    def _apply(self, change: dict[str, Any]) -> None:
        if "start" in change:
            start = AccountingRecord.from_json(change["start"])
            self.sessions[start.session] = StoredSession(start)
        elif "stop" in change:
            stop = AccountingRecord.from_json(change["stop"])
            self.sessions[stop.session].stop = stop
        elif change["status"] == "start":
            self.sessions[change["done"]].started = True
        else:
            del self.sessions[change["done"]]

    def _all(self) -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = []
        for session, held in self.sessions.items():
            changes.append({"start": held.start.to_json()})
            if held.started:
                changes.append({"done": session, "status": "start"})
            if held.stop is not None:
                changes.append({"stop": held.stop.to_json()})
        return changes


def _text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()
