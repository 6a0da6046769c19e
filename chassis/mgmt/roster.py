"""Who is logged in: kept here, told to the controller, which shows it and writes logins to the router's log.

What the controller was not told, because it is away, it is told when it is back: all sessions, and the last lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from chassis.bus.operator import OperatorError

if TYPE_CHECKING:
    from chassis.mgmt.controller_link import ControllerClient
    from chassis.mgmt.ssh_session import SshSession

REPORT_INTERVAL: Final = 1.0
"""Time (s) between two reports."""

ACTIVE_INTERVAL: Final = 5.0
"""Time (s) after which the controller is told when keys were typed last."""

CONTROLLER_TIMEOUT: Final = 5.0
"""Time (s) that a report waits for a controller that is away, before it is tried again."""

MAX_LINES: Final = 64
"""Most log lines that wait for the controller (count); of more, the oldest are lost."""

MAX_FAILURES: Final = 20
"""Most failed logins that are logged one by one in `FAILURES_WITHIN` seconds (count)."""

FAILURES_WITHIN: Final = 10.0


class Roster:
    """The sessions of a router; `report` tells the controller of them until it is cancelled."""

    def __init__(self, controller: ControllerClient) -> None:
        self._controller = controller
        controller.on_gone = self._on_gone
        self._numbers = count(1)
        self._present: dict[SshSession, int] = {}
        """Sessions and their numbers."""
        self._notes: deque[str] = deque(maxlen=MAX_LINES)
        self._warnings: deque[str] = deque(maxlen=MAX_LINES)
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)
        self._unlogged = 0
        self._changed = asyncio.Event()
        self._reported: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._present)

    def of(self, source: str) -> int:
        """Return how many sessions one connection has (count)."""
        return sum(session.source == source for session in self._present)

    def enter(self, session: SshSession) -> None:
        self._present[session] = next(self._numbers)
        self._note(f"{_who(session)} logged in from {session.source}")

    def leave(self, session: SshSession) -> None:
        if self._present.pop(session, None) is not None:
            why = f": {session.closing}" if session.closing else ""
            self._note(f"{_who(session)} from {session.source} logged out{why}")

    def turn_away(self, user: str, source: str, why: str) -> None:
        """Log who could not log in. Of very many in a short time, only their number is logged."""
        now = time.monotonic()
        if len(self._failures) == MAX_FAILURES and now - self._failures[0] < FAILURES_WITHIN:
            self._unlogged += 1
            return
        self._failures.append(now)
        if self._unlogged:
            self._warn(f"{self._unlogged} more logins failed")
            self._unlogged = 0
        self._warn(f"login of {user} from {source} failed: {why}")

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Return every session by its number, as the controller keeps it; times are monotonic (s)."""
        return {
            str(number): {
                "user": session.account.user,
                "context": session.account.context,
                "source": session.source,
                "since": session.began,
                "active": session.active,
            }
            for session, number in self._present.items()
        }

    async def report(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACTIVE_INTERVAL if self._present else None):
                    await self._changed.wait()
            forced, told = self._changed.is_set(), self.sessions()
            self._changed.clear()
            if not forced and told == self._reported:
                continue
            notes, warnings = list(self._notes), list(self._warnings)
            try:
                await self._controller.call(
                    "sessions", CONTROLLER_TIMEOUT, sessions=told, notes=notes, warnings=warnings
                )
            except OperatorError:
                self._changed.set()
            else:
                self._reported = told
                _drop(self._notes, notes)
                _drop(self._warnings, warnings)
            await asyncio.sleep(REPORT_INTERVAL)

    def _on_gone(self) -> None:
        """The controller went away: its successor knows of no session."""
        if self._present:
            self._changed.set()

    def _note(self, text: str) -> None:
        self._write(self._notes, text)

    def _warn(self, text: str) -> None:
        self._write(self._warnings, text)

    def _write(self, lines: deque[str], text: str) -> None:
        print(text, flush=True)
        lines.append(text)
        self._changed.set()


def _who(session: SshSession) -> str:
    account = session.account
    return f"{account.user}@{account.context}"


def _drop(lines: deque[str], told: list[str]) -> None:
    """Remove the lines that were told; newer ones may have come, and pushed old ones out, meanwhile."""
    for text in told:
        if lines and lines[0] == text:
            lines.popleft()
