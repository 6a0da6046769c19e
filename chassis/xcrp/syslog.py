"""Log lines to the syslog servers of the configuration, over UDP (RFC 3164).

A server of a context gets the lines of its context, one of `local` those of all. A line is `<PRI>`, the date as
the RFC has it, the name of the router, and the line as the router prints it. Lines are gathered and given to the
line card by which they leave; at most `MAX_WAITING` wait for a server, and `MAX_AT_ONCE` leave at a time. Of more
the server is told how many were left out, in a line of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Final

from chassis.bus.engine import Output
from chassis.bus.log_lines import body, date
from chassis.model.router import LOCAL, Config
from chassis.net.address import parse_address
from chassis.xcrp.leaving_card import UnreachableError
from chassis.xcrp.log import LogEntry

PORT: Final = 514
"""Port of the servers, and of the router (RFC 3164 2)."""

MAX_OCTETS: Final = 1024
"""Octets of the longest line (RFC 3164 4.1)."""

MAX_WAITING: Final = 1000
MAX_AT_ONCE: Final = 50

INTERVAL: Final = 0.1
"""Time (s) for which lines are gathered."""

FACILITIES: Final = {"user": 1, "daemon": 3, "syslog": 5} | {f"local{number}": 16 + number for number in range(8)}
"""Codes of RFC 3164 4.1.1."""

OWN_LEVEL: Final = 4
"""Level of the line that says how many were left out."""

Send = Callable[[int, int, int, int, Sequence[bytes], float], list[Output]]
"""Sends datagrams: `chassis.xcrp.router_udp.RouterUdp.send`."""


def datagram(entry: LogEntry, facility: str, hostname: str) -> bytes:
    """Return the datagram of an entry."""
    return _datagram(FACILITIES[facility] * 8 + entry.level, entry.wall, hostname, body(entry.row()))


def _datagram(priority: int, wall: float, hostname: str, said: str) -> bytes:
    at = date(wall)
    # A day of one digit has a blank before it.
    day = f"{at[:4]} {at[5:]}" if at[4] == "0" else at
    plain = "".join(char if char.isprintable() else " " for char in said)
    return f"<{priority}>{day} {hostname} {plain}".encode()[:MAX_OCTETS]


@dataclass(slots=True)
class _Server:
    """Lines that wait for the server of a context."""

    waiting: deque[bytes] = field(default_factory=deque)
    left_out: int = 0


class SyslogSender:
    """Gathers lines and sends them."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], _Server] = {}
        """By context and address."""
        self._due = inf

    def add(self, config: Config, entry: LogEntry) -> None:
        """Take an entry for the servers that get it."""
        if entry.level > config.log_filter_syslog:
            return
        for name in {LOCAL, str(entry.record.values.get("context", LOCAL))}:
            context = config.contexts.get(name)
            if context is None or context.syslog is None:
                continue
            server = self._servers.setdefault((name, context.syslog), _Server())
            if len(server.waiting) >= MAX_WAITING:
                server.left_out += 1
                continue
            server.waiting.append(datagram(entry, context.syslog_facility or "local7", config.hostname))
            self._due = min(self._due, entry.record.time + INTERVAL)

    def next_timer(self) -> float:
        return self._due

    def on_timer(
        self, config: Config, contexts: dict[str, int], send: Send, now: float, wall: float
    ) -> list[Output]:
        """Send what waits; `contexts` are the numbers of the contexts, `wall` is the Unix time (s). Lines
        for a server that cannot be reached wait on."""
        if now < self._due:
            return []
        outputs: list[Output] = []
        for (name, syslog), server in list(self._servers.items()):
            context, number = config.contexts.get(name), contexts.get(name)
            if context is None or context.syslog != syslog or number is None:
                del self._servers[name, syslog]
                continue
            lines = list(islice(server.waiting, MAX_AT_ONCE))
            all_told = len(lines) == len(server.waiting)
            if server.left_out and all_told:
                said = f"%LOG-4-WARN: {server.left_out} lines of the log were not sent: there were too many"
                facility = FACILITIES[context.syslog_facility or "local7"]
                lines.append(_datagram(facility * 8 + OWN_LEVEL, wall, config.hostname, said))
            try:
                outputs += send(number, parse_address(syslog), PORT, PORT, lines, now)
            except UnreachableError:
                continue
            if all_told:
                del self._servers[name, syslog]
            else:
                for _ in lines:
                    server.waiting.popleft()
        self._due = now + INTERVAL if self._servers else inf
        return outputs
