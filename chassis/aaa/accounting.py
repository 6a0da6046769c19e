"""Accounting records on their way: kept until a server acknowledges them, in order within a session (RFC 2866).

A start or a stop is tried again until a server has it: while none replies, the records of the context rest for
some time. An interim update is dropped where a later record of its session is there, or no server replies.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import AccountingAcknowledged, AccountingDropped, RadiusLog
from chassis.aaa.packets import SentRequest, accounting_request
from chassis.aaa.servers import Server
from chassis.aaa.settings import AaaConfig
from chassis.aaa.transport import COMPLAINT_PERIOD, GaveUp, Outcome, RadiusRequest, RadiusTransport, Replied

REST = 60.0
"""Seconds for which the records of a context rest when no server replied."""

WINDOW = 64
"""Records of a context under way at once."""

MOST_RECORDS = 65536
"""Records that wait for an acknowledgement."""


@dataclass(eq=False, slots=True)
class KeptRecord:
    """A record that no server has acknowledged."""

    record: AccountingRecord
    accounting: Accounting = field(repr=False)
    request: RadiusRequest | None = None
    delay: int = 0
    """Acct-Delay-Time (s) of its last transmission."""

    def encode(self, identifier: int, server: Server[RadiusRequest], now: float) -> SentRequest:
        self.delay = self.accounting.delay(self.record, now)
        return accounting_request(
            identifier,
            server.address,
            hostname=self.accounting.hostname,
            record=self.record,
            delay=self.delay,
        )

    def has_changed(self, sent: SentRequest, now: float) -> bool:
        """Another delay makes another request (RFC 2866 5.2)."""
        return self.accounting.delay(self.record, now) != self.delay


@dataclass(eq=False, slots=True)
class ReportingContext:
    """The records of one context: sessions whose first record is to be sent, in order, and how many are under
    way."""

    ready: dict[str, None] = field(default_factory=dict)
    under_way: int = 0
    rests_until: float = -inf


class Accounting:
    """The accounting of a router. `wall_offset`: what the clock of the day (s since 1970) shows beyond `now`."""

    def __init__(self, transport: RadiusTransport, wall_offset: float) -> None:
        self._transport = transport
        self.wall_offset = wall_offset
        self._sessions: dict[str, deque[KeptRecord]] = {}
        self._contexts: dict[str, ReportingContext] = {}
        self._ids: set[str] = set()
        self._complained = -inf

    @property
    def hostname(self) -> str:
        return self._transport.config.hostname

    def delay(self, record: AccountingRecord, now: float) -> int:
        """Return for how long (s) a record has waited."""
        return max(0, int(now + self.wall_offset - record.time))

    def pending(self) -> tuple[AccountingRecord, ...]:
        """Return the starts and stops that no server has acknowledged, in order."""
        kept = (one.record for session in self._sessions.values() for one in session)
        return tuple(record for record in kept if record.status != "interim")

    def add(self, record: AccountingRecord, now: float) -> list[Outcome]:
        """Report a record, or one again that an earlier controller left. A record that is known is ignored."""
        if record.id in self._ids:
            return []
        if not self._transport.config.of(record.context).accounting:
            return [AccountingDropped(record.id, f"context {record.context} does not report sessions")]
        session = self._sessions.get(record.session)
        actions: list[Outcome] = [*self._without_old_interim(session)] if session else []
        if len(self._ids) >= MOST_RECORDS:
            if now >= self._complained + COMPLAINT_PERIOD:
                self._complained = now
                text = f"{MOST_RECORDS} accounting records wait: {record.status} of {record.session} is dropped"
                actions.append(RadiusLog("error", text, record.context))
            return [*actions, AccountingDropped(record.id, "too many accounting records wait")]
        kept = KeptRecord(record, self)
        self._ids.add(record.id)
        if session:
            session.append(kept)
        else:
            self._sessions[record.session] = deque((kept,))
            self._of(record.context).ready[record.session] = None
        return [*actions, *self._send(record.context, now)]

    def _of(self, context: str) -> ReportingContext:
        return self._contexts.setdefault(context, ReportingContext())

    def _without_old_interim(self, session: deque[KeptRecord]) -> list[AccountingDropped]:
        """Drop an interim update that waits at the end of a session: a later record is coming."""
        last = session[-1]
        if last.record.status != "interim" or last.request is not None:
            return []
        session.pop()
        self._ids.discard(last.record.id)
        if not session:
            # The session goes on: its next record takes the place.
            del self._sessions[last.record.session]
            self._of(last.record.context).ready.pop(last.record.session, None)
        return [AccountingDropped(last.record.id, "a later record of its session is there")]

    def _send(self, context: str, now: float) -> list[Outcome]:
        """Send what the window allows."""
        reporting = self._of(context)
        outcomes: list[Outcome] = []
        while reporting.ready and reporting.under_way < WINDOW and now >= reporting.rests_until:
            session = next(iter(reporting.ready))
            del reporting.ready[session]
            kept = self._sessions[session][0]
            kept.request = RadiusRequest("accounting", context, kept)
            reporting.under_way += 1
            outcomes += self._transport.begin(kept.request, now)
            if any(isinstance(one, GaveUp) for one in outcomes):
                # The caller hands the failure back, and then the context rests.
                break
        return outcomes

    def on_replied(self, replied: Replied, now: float) -> list[Outcome]:
        """A server has a record."""
        kept = replied.request.content
        assert isinstance(kept, KeptRecord)
        return [AccountingAcknowledged(kept.record.id), *self._done(kept, now)]

    def on_gave_up(self, gave_up: GaveUp, now: float) -> list[Outcome]:
        """No server replied: an interim update is dropped, another record waits at the head of its session."""
        kept = gave_up.request.content
        assert isinstance(kept, KeptRecord)
        record = kept.record
        reporting = self._of(record.context)
        rested = now < reporting.rests_until
        reporting.rests_until = now + REST
        actions: list[Outcome] = []
        if not rested:
            actions.append(
                RadiusLog("warning", f"accounting rests for {REST:g} seconds: {gave_up.reason}", record.context)
            )
        if record.status == "interim":
            return [*actions, AccountingDropped(record.id, gave_up.reason), *self._done(kept, now)]
        kept.request = None
        reporting.under_way -= 1
        reporting.ready[record.session] = None
        return actions

    def _done(self, kept: KeptRecord, now: float) -> list[Outcome]:
        """The first record of a session needs nothing more; the next may go."""
        record = kept.record
        session, reporting = self._sessions[record.session], self._of(record.context)
        session.popleft()
        self._ids.discard(record.id)
        reporting.under_way -= 1
        if session:
            reporting.ready[record.session] = None
        else:
            del self._sessions[record.session]
        return self._send(record.context, now)

    def drop_unreported(self, config: AaaConfig, now: float) -> list[Outcome]:
        """Drop what waits in contexts that report no sessions by this configuration, before it is in force."""
        silent = [context for context in self._contexts if not config.of(context).accounting]
        return [one for context in silent for one in self._drop_all(context, now)]

    def try_again(self, now: float) -> list[Outcome]:
        """Contexts that rest try again: the servers may be others now."""
        outcomes: list[Outcome] = []
        for context, reporting in self._contexts.items():
            reporting.rests_until = now
            outcomes += self._send(context, now)
        return outcomes

    def _drop_all(self, context: str, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for name, session in list(self._sessions.items()):
            if session[0].record.context == context:
                del self._sessions[name]
                for kept in session:
                    if kept.request is not None:
                        outcomes += self._transport.cancel(kept.request, now)
                    self._ids.discard(kept.record.id)
                    reason = f"context {context} does not report sessions"
                    outcomes.append(AccountingDropped(kept.record.id, reason))
        del self._contexts[context]
        return outcomes

    def next_timer(self) -> float:
        """Return when `on_timer` wants to be called, or infinity."""
        resting = (one.rests_until for one in self._contexts.values() if one.ready and one.under_way < WINDOW)
        return min(resting, default=inf)

    def on_timer(self, now: float) -> list[Outcome]:
        """Contexts that have rested try again."""
        due = [name for name, one in self._contexts.items() if one.ready and now >= one.rests_until]
        return [one for name in due for one in self._send(name, now)]
