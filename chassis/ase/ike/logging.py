"""Log lines of IKE: the guide's texts and our own, with what tells an operator which tunnel is meant.

A session that does not know yet whom the peer means speaks of the one tunnel that is configured between the two
addresses; where there are several it names none. A line of one kind is said at most `BURST` times in a second;
those beyond are counted, and named in the next one. Its kind is that of the message and nothing that a peer chose,
or each of a stranger's addresses would have a budget of its own; and those that have proved who they are have one
that no stranger can use up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chassis.ase.ike.connection import Connection, Group
from chassis.ase.ike.host import Path, Session
from chassis.ase.ike.messages import INFORMATIONAL, text
from chassis.bus.messages import LogRecord, Value
from chassis.net.address import format_address

FACILITY: Final = "ike"
BURST: Final = 20
PREFIX: Final = "ike-"
"""What the ids of our own lines begin with; the guide's have ids of their own."""


class IkeLogger:
    """Makes records, or none where too many were made."""

    def __init__(self, asp: str, group: Callable[[int, int, int, int], Group | None]) -> None:
        """`group(context, local, remote, version)` has the connections that a peer there may mean."""
        self._asp = asp
        self._group = group
        self._said: dict[tuple[str, bool], tuple[int, int, int]] = {}
        """By id, and whether the IKE SA stands: the second, lines said in it, lines held back since."""

    def table(
        self, id: str, values: Mapping[str, Any], session: Session | None, path: Path, now: float
    ) -> LogRecord | None:
        """A line of the guide's tables."""
        severity = "informational" if id in INFORMATIONAL else "error"
        return self._record(severity, id, text(id, values), values, session, path, now)

    def own(
        self, kind: str, severity: str, said: str, session: Session | None, path: Path, now: float
    ) -> LogRecord | None:
        """A line of our own."""
        return self._record(severity, PREFIX + kind.replace(" ", "-").lower(), said, {}, session, path, now)

    def _record(
        self,
        severity: str,
        id: str,
        said: str,
        values: Mapping[str, Any],
        session: Session | None,
        path: Path,
        now: float,
    ) -> LogRecord | None:
        second = int(now)
        kind = id, session is not None and session.established
        at, count, held = self._said.get(kind, (second, 0, 0))
        if at != second:
            count = 0
        if count >= BURST:
            self._said[kind] = (second, count, held + 1)
            return None
        self._said[kind] = (second, count + 1, 0)
        plain: dict[str, Value] = {
            name: value if isinstance(value, str | int | float | bool | bytes) else str(value)
            for name, value in values.items()
        }
        plain["asp"] = self._asp
        plain["peer"] = format_address(path.remote)
        connection = self._connection(session, path)
        if connection is not None:
            plain["tunnel"], plain["context"] = connection.name, connection.context_name
        else:
            plain["context"] = path.context
        if held:
            plain["held back"] = held
        return LogRecord(now, severity, FACILITY, id, said, plain)

    def _connection(self, session: Session | None, path: Path) -> Connection | None:
        """Whose line it is."""
        if session is not None and session.connection is not None:
            return session.connection
        versions = (1, 2) if session is None else (session.version,)
        groups = [self._group(path.context, path.local, path.remote, version) for version in versions]
        members = [member for group in groups if group is not None for member in group.members]
        return members[0] if len(members) == 1 else None
