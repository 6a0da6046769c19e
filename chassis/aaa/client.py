"""The RADIUS client of a router: a pure engine that the controller drives.

The sequence of calls, with `now` in seconds of a monotonic clock:

1. `RadiusClient(random, wall_offset)` once. `random(n)` gives n octets that nobody can guess; `wall_offset` is
   what the clock of the day shows more than `now`, and `set_clock` corrects it.
2. `configure(aaa_config(config, source_of), now)` at the start and after each commit that changes contexts, or
   addresses by which servers are reached.
3. After a start: `account(record, now)` for each record that `AccountingRecord.from_json` reads from what was
   kept.
4. `authorize(AccessQuestion(...), now)` when a peer of an on-demand tunnel has said its identity. Each token gets
   one of `Authorized`, `Rejected` and `Unreachable`, at once or later. `cancel(token, now)` when nobody waits for
   it any more.
5. `account(AccountingRecord(...), now)` when a session begins, at its interim interval and at its end. The caller
   keeps starts and stops (`to_json`) before it calls, and forgets one at `AccountingAcknowledged` or
   `AccountingDropped`.
6. `on_datagram(...)` for each UDP datagram that comes to the router at a source port in use. `endpoints()` says
   from where they are of use; others are counted and dropped.
7. `on_timer(now)` at `next_timer()`.

Each call returns what is to be done, in order. `SendDatagram` is sent in its context from its source port; a
source of None leaves the address to routing. What is sent is one datagram each: a lost one is sent again by a
timer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from chassis.aaa.accounting import Accounting
from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import AaaAction, AccessQuestion
from chassis.aaa.questions import QuestionLimits, Questions
from chassis.aaa.servers import ServerStatus
from chassis.aaa.settings import AaaConfig
from chassis.aaa.transport import Endpoint, GaveUp, Outcome, RadiusTransport, Random, Replied


class RadiusClient:
    """Asks RADIUS servers about peers, and reports sessions to them."""

    def __init__(self, random: Random, wall_offset: float = 0.0, limits: QuestionLimits | None = None) -> None:
        self._transport = RadiusTransport(random)
        self._questions = Questions(self._transport, random, limits or QuestionLimits())
        self._accounting = Accounting(self._transport, wall_offset)

    def set_clock(self, wall_offset: float) -> None:
        """The clock of the day shows `wall_offset` more than `now`."""
        self._accounting.wall_offset = wall_offset

    def configure(self, config: AaaConfig, now: float) -> list[AaaAction]:
        """Use these servers from now on. What waits at a server that is gone goes to the next one."""
        dropped = self._resolved(self._accounting.drop_unreported(config, now), now)
        moved = self._resolved(self._transport.configure(config, now), now)
        return [*dropped, *moved, *self._resolved(self._accounting.try_again(now), now)]

    def authorize(self, question: AccessQuestion, now: float) -> list[AaaAction]:
        """Ask whether a peer may come in, and on what terms."""
        return self._resolved(self._questions.ask(question, now), now)

    def cancel(self, token: Hashable, now: float) -> list[AaaAction]:
        """Nobody waits for the answer with this token any more; there is going to be none."""
        return self._resolved(self._questions.cancel(token, now), now)

    def account(self, record: AccountingRecord, now: float) -> list[AaaAction]:
        """Report a start, an interim update or a stop."""
        return self._resolved(self._accounting.add(record, now), now)

    def on_datagram(
        self, context: str, source: str, source_port: int, destination_port: int, payload: bytes, now: float
    ) -> list[AaaAction]:
        """Take a datagram that came from anybody. What answers no request is counted and dropped."""
        outcomes = self._transport.on_datagram(context, source, source_port, destination_port, payload, now)
        return self._resolved(outcomes, now)

    def on_timer(self, now: float) -> list[AaaAction]:
        """Do what is due: send again, give up a server, try accounting again."""
        silent = self._resolved(self._transport.on_timer(now), now)
        return [*silent, *self._resolved(self._accounting.on_timer(now), now)]

    def next_timer(self) -> float:
        """Return when `on_timer` wants to be called, or infinity."""
        return min(self._transport.next_timer(), self._accounting.next_timer())

    def pending_accounting(self) -> tuple[AccountingRecord, ...]:
        """Return the starts and stops that no server has acknowledged, in order within each session."""
        return self._accounting.pending()

    def endpoints(self) -> frozenset[Endpoint]:
        """Return (context, server, its port, own port) of all servers: only from there a datagram is of use."""
        return self._transport.endpoints()

    def status(self) -> tuple[ServerStatus, ...]:
        """Return all servers with their states and counters."""
        return self._transport.status()

    @property
    def open_questions(self) -> int:
        """Questions that are asked, or wait for their turn."""
        return self._questions.open

    @property
    def refused(self) -> Mapping[str, int]:
        """Questions that were answered without a server, by the cause."""
        return self._questions.refused

    @property
    def strays(self) -> int:
        """Datagrams that were of no server, or answered nothing that waited."""
        return self._transport.strays

    def _resolved(self, outcomes: Iterable[Outcome], now: float) -> list[AaaAction]:
        """Return the actions among outcomes, and those that follow from the others."""
        actions: list[AaaAction] = []
        todo = list(reversed(list(outcomes)))
        while todo:
            outcome = todo.pop()
            if isinstance(outcome, Replied | GaveUp):
                owner = self._questions if outcome.request.role == "authentication" else self._accounting
                if isinstance(outcome, Replied):
                    found = owner.on_replied(outcome, now)
                else:
                    found = owner.on_gave_up(outcome, now)
                todo.extend(reversed(found))
            else:
                actions.append(outcome)
        return actions
