"""Accounting sessions of the peers of on-demand tunnels: their start, interim updates and end (RFC 2866).

A session is its instance's. The ASP says what a peer has used, now and then and at its end; the last figures are
kept for a session whose ASP dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Literal

from chassis.aaa.accounting_record import AccountingRecord, TerminateCause
from chassis.bus.engine import Output
from chassis.bus.messages import PeerUsage, TunnelUsage
from chassis.net.address import format_address
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.session_store import SessionStore

LAST_FIGURES: Final = 1.0
"""Time (s) that an ASP has for the last figures of a session that has ended."""

MIN_INTERIM: Final = 60
"""Shortest interval of interim updates (s; RFC 2869 5.16)."""

_CAUSES: Final = (
    ("session timeout", TerminateCause.SESSION_TIMEOUT),
    ("deleted by the peer", TerminateCause.USER_REQUEST),
    ("cleared by the operator", TerminateCause.ADMIN_RESET),
    ("came anew", TerminateCause.LOST_CARRIER),
    ("dead peer", TerminateCause.LOST_CARRIER),
    ("no answer", TerminateCause.LOST_CARRIER),
    ("asp ", TerminateCause.NAS_ERROR),
)
"""Words of the reason for which an instance ended."""


def terminate_cause(reason: str, *, by_commit: bool) -> TerminateCause:
    """Return the cause that a stop gives for the reason of an end."""
    if by_commit:
        return TerminateCause.ADMIN_RESET
    return next((cause for words, cause in _CAUSES if words in reason), TerminateCause.LOST_SERVICE)


@dataclass(slots=True)
class _Session:
    """An open session, or one that has ended and waits for its last figures: then `cause` is set.

    `began` and `ended` are monotonic, `ended_wall` is the time of day of the end. `interim` is in seconds, 0: no
    updates.
    """

    start: AccountingRecord
    asp: str
    began: float
    interim: int
    usage: TunnelUsage
    updates: int = 0
    cause: TerminateCause | None = None
    ended: float = 0.0
    ended_wall: float = 0.0


class PeerSessions:
    """The sessions of a router. `account` reports a record to AAA."""

    def __init__(self, store: SessionStore, account: Callable[[AccountingRecord, float], list[Output]]) -> None:
        self._store, self._account = store, account
        self._open: dict[int, _Session] = {}
        """By the number of the instance."""
        self._due: list[tuple[float, int]] = []
        """When a session has an interim update, or no longer waits for figures."""

    def begin(
        self, tunnel_plan: TunnelPlan, context: str, now: float, wall: float, *, is_new: bool = True
    ) -> list[Output]:
        """Report the start of an instance's session; no effect for one without. `wall`: the time of day.

        `is_new` False: the session goes on that another controller began.
        """
        instance, number = tunnel_plan.instance, tunnel_plan.number
        if instance is None or not instance.session or number in self._open:
            return []
        start = AccountingRecord(
            id=f"{instance.session} start",
            session=instance.session,
            status="start",
            context=context,
            user=instance.identity,
            time=instance.since,
            peer=format_address(tunnel_plan.remote),
            local=format_address(tunnel_plan.local),
            address=format_address(instance.address) if instance.address else None,
            profile=instance.profile,
            classes=instance.classes,
        )
        interim = max(instance.interim, MIN_INTERIM) if instance.interim else 0
        began = now - max(0.0, wall - instance.since)
        self._open[number] = _Session(start, tunnel_plan.asp, began, interim, TunnelUsage(number, 0, 0, 0, 0))
        if interim:
            self._add_due(now + interim, number)
        held = self._store.sessions.get(start.session)
        if held is None:
            self._store.begin(start, now)
        elif held.started and not is_new:
            return []
        return self._account(start, now)

    def on_usage(self, asp: str, message: PeerUsage, now: float) -> list[Output]:
        """An ASP says what its peers have used."""
        outputs: list[Output] = []
        for usage in message.tunnels:
            session = self._open.get(usage.tunnel)
            if session is None or session.asp != asp:
                continue
            session.usage = usage
            if session.cause is not None:
                outputs += self._stop(usage.tunnel, now)
        return outputs

    def end(self, number: int, cause: TerminateCause, now: float, wall: float, *, awaited: bool) -> list[Output]:
        """An instance has ended. `awaited`: its ASP is going to say what it used in all."""
        session = self._open.get(number)
        if session is None or session.cause is not None:
            return []
        session.cause, session.ended, session.ended_wall = cause, now, wall
        if not awaited:
            return self._stop(number, now)
        self._add_due(now + LAST_FIGURES, number)
        return []

    def close_lost(self, sessions: Iterable[str], now: float, wall: float) -> list[Output]:
        """Report the end of sessions that ended while no controller ran."""
        outputs: list[Output] = []
        for session in sessions:
            held = self._store.sessions[session]
            if not held.started:
                outputs += self._account(held.start, now)
            stop = held.stop
            if stop is None:
                stop = replace(
                    held.start,
                    id=f"{session} stop",
                    status="stop",
                    time=wall,
                    seconds=max(0, int(wall - held.start.time)),
                    cause=TerminateCause.LOST_SERVICE,
                )
                self._store.end(stop, now)
            outputs += self._account(stop, now)
        return outputs

    def sessions(self) -> set[str]:
        """Return the sessions that are open."""
        return {session.start.session for session in self._open.values()}

    def next_timer(self) -> float:
        return self._due[0][0] if self._due else inf

    def on_timer(self, now: float, wall: float) -> list[Output]:
        """Report interim updates, and the end of sessions whose ASP says nothing more."""
        outputs: list[Output] = []
        while self._due and self._due[0][0] <= now:
            _, number = heappop(self._due)
            session = self._open.get(number)
            if session is None:
                continue
            if session.cause is not None:
                outputs += self._stop(number, now)
                continue
            session.updates += 1
            update = self._record(session, "interim", f" {session.updates} {int(wall)}", now, wall)
            outputs += self._account(update, now)
            heappush(self._due, (now + session.interim, number))
        return outputs

    def _add_due(self, at: float, number: int) -> None:
        heappush(self._due, (at, number))
        drop_stale(self._due, self._open)

    def _stop(self, number: int, now: float) -> list[Output]:
        session = self._open.pop(number)
        stop = self._record(session, "stop", "", session.ended, session.ended_wall)
        self._store.end(stop, now)
        return self._account(stop, now)

    def _record(
        self, session: _Session, status: Literal["interim", "stop"], more: str, now: float, wall: float
    ) -> AccountingRecord:
        usage = session.usage
        return replace(
            session.start,
            id=f"{session.start.session} {status}{more}",
            status=status,
            cause=session.cause,
            time=wall,
            seconds=max(0, round(now - session.began)),
            input_packets=usage.packets_in,
            input_octets=usage.octets_in,
            output_packets=usage.packets_out,
            output_octets=usage.octets_out,
        )


MIN_DUE: Final = 64


def drop_stale(due: list[tuple[float, int]], live: Mapping[int, object]) -> None:
    """Drop the numbers that are not `live` from a heap of (time, number), once they are most of it."""
    if len(due) > MIN_DUE + 2 * len(live):
        due[:] = [one for one in due if one[1] in live]
        heapify(due)
