"""The quick modes of one session: which are asked for, which are under way, and whose turn it is."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import Chain, after_hash, open_payloads
from chassis.ase.ike.host import Blame, Path
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.v1 import Hash, IdV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.v1 import informational, quick, selectors
from chassis.ase.ike.v1.faults import Stop
from chassis.ase.ike.v1.handshake import Incoming, is_encrypted, maybe
from chassis.ase.ike.v1.phase2 import QuickModeEvent, QuickModeState
from chassis.ase.ike.v1.quick import QUICK_MODE_CACHE_TIMEOUT, Quick
from chassis.ase.ike.v1.resending import Answered

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

MAX_OWN_QUICK_MODES: Final = 8
"""Quick modes of ours under way at once; the others wait."""
MAX_PEER_QUICK_MODES: Final = 32
"""Quick modes of the peer under way at once; one more is not answered yet."""
MAX_QUICK_MODES: Final = 256
"""Quick modes that are remembered in all."""


class Negotiations:
    """By message ID."""

    def __init__(self, session: SessionV1) -> None:
        self._session = session
        self._all: dict[int, Quick] = {}
        self._asked: dict[int, tuple[Line, int]] = {}
        """By line: what is to be begun, and the serial of the pair that it succeeds."""
        self._live: list[Quick] = []
        """Those under way, and some that have just ended; the ended ones are many more."""
        self._forget_at = inf
        """When the first of the ended ones is to be forgotten."""

    @property
    def pending(self) -> list[Quick]:
        live = [one for one in self._live if one.pending]
        if len(live) < len(self._live):
            self._forget_at = min(self._forget_at, *[one.forget for one in self._live if not one.pending])
            self._live = live
        return list(live)

    @property
    def busy(self) -> bool:
        return bool(self.pending)

    # --- our own ---

    def ask(self, line: Line, replaces: int, now: float) -> None:
        """Begin one for a line, as soon as there is room and nothing of the line is under way."""
        if any(one.initiator and one.line is not None and one.line.number == line.number for one in self.pending):
            return
        self._asked[line.number] = (line, replaces)
        self.drain(now)

    def drain(self, now: float) -> None:
        """Begin what may begin."""
        session = self._session
        if not session.established:
            return
        for number, (line, replaces) in list(self._asked.items()):
            pending = self.pending
            if sum([one.initiator for one in pending]) >= MAX_OWN_QUICK_MODES:
                return
            if any(one.line is not None and one.line.number == number for _, one in self._everywhere()):
                continue  # The peer's for this line comes first: it may make ours needless.
            del self._asked[number]
            configured = None if session.connection is None else session.connection.line(number)
            if configured is None:
                continue
            line = configured
            try:
                one = quick.send_qm1(session, line, replaces, now)
            except Stop as stop:
                session.host.failed(session, Blame(stop.cause, stop.text), now, line)
                continue
            self._add(one)

    def _add(self, one: Quick) -> None:
        self._all[one.message_id] = one
        self._live.append(one)
        if len(self._all) > MAX_QUICK_MODES:
            done = next((key for key, old in self._all.items() if not old.pending), None)
            if done is not None:
                del self._all[done]

    def configured(self, connection: Connection, now: float) -> None:
        """Give up what was offered for lines that select otherwise now; whoever keeps the tunnel asks anew."""
        for one in self.pending:
            line = one.line
            if one.state is QuickModeState.OFFERED and line is not None:
                wanted = connection.line(line.number)
                if wanted is None or wanted.rules != line.rules:
                    quick.abort(self._session, one, None, now)

    def take_over(self, elder: Negotiations) -> None:
        """What an older session was asked for and has not begun."""
        for number, asked in elder._asked.items():
            self._asked.setdefault(number, asked)
        elder._asked.clear()

    def stop(self, now: float) -> None:
        """The session ends."""
        self._asked.clear()
        for one in self.pending:
            quick.abort(self._session, one, None, now)
        self._all.clear()
        self._live.clear()
        self._forget_at = inf

    # --- messages ---

    def receive(self, message: Incoming) -> None:
        """A message of some quick mode."""
        session, header, now = self._session, message.header, message.now
        host = session.host
        cookies = (session.handshake.cky_i, session.handshake.cky_r)
        if (
            not session.established
            or not is_encrypted(message)
            or not header.message_id
            or (header.spi_i, header.spi_r) != cookies
        ):
            host.count("out of turn")
            return
        one = self._all.get(header.message_id)
        if one is not None and one.answered.again(host, message.data, message.path):
            return
        fresh = one is None
        if one is None:
            answering = sum([not other.initiator for other in self.pending])
            if session.was_used(header.message_id) or answering >= MAX_PEER_QUICK_MODES:
                host.count("out of turn")
                return
            one = Quick(header.message_id, False, session.handshake.exchange_chain(header.message_id))
        elif not one.pending:
            return
        try:
            payloads, plain, after = open_payloads(one.chain, message.data, header)
        except PayloadError:
            host.count("undecipherable")
            return
        if not payloads or not isinstance(payloads[0], Hash):
            host.count("undecipherable")
            return
        covered = after_hash(plain)
        if fresh:
            self._offered(one, message, payloads, covered, after)
            return
        before, one.chain = (one.chain, one.answered), after
        one.answered = Answered(list(one.answered.seen))
        one.answered.took(message.data)
        try:
            quick.verify(session, one, payloads, covered)
            session.heard_from(message)
            if one.state is QuickModeState.OFFERED:
                quick.on_qm2(session, one, payloads, now)
                for rival in one.rivals:
                    session.use(rival)
            else:
                quick.mark_confirmed(session, one, now)
        except Stop as stop:
            if not stop.certain:
                # Not the peer's, so what it has to say is still to come.
                one.chain, one.answered = before
                host.count("undecipherable")
                return
            self._refuse(one, None, stop, message.path, now)
            quick.abort(session, one, Blame(stop.cause, stop.text), now)
        self._after(one, now)

    def _after(self, one: Quick, now: float) -> None:
        """Something ended; what was asked for its line meanwhile is there now."""
        if one.state is QuickModeState.DONE and one.line is not None:
            self._asked.pop(one.line.number, None)
        self.drain(now)

    def _offered(
        self, one: Quick, message: Incoming, payloads: tuple[PayloadV1, ...], covered: bytes, after: Chain
    ) -> None:
        session, now = self._session, message.now
        digest = ikev1.quick_hash_1(session.keys, one.message_id, covered)
        first = payloads[0]
        if not isinstance(first, Hash) or not ikev1.equal(first.value, digest):
            session.host.count("undecipherable")
            return
        if not session.forgot:
            # Else it may be one from long ago; what follows it shows that the peer is there.
            session.heard_from(message)
        rivals = self._rivals(payloads)
        stronger = [other for _, other in rivals if other.message_id < one.message_id]
        if stronger:
            # Both ends began at once, and ours stays: the peer answers it and gives this one up.
            for other in stronger:
                other.rivals.add(one.message_id)
            return
        session.use(one.message_id)
        one.answered.took(message.data)
        one.chain = after
        try:
            quick.on_qm1(session, one, payloads, message.path, now)
        except Stop as stop:
            # No line of ours failed: what the peer asks for does not put off what is asked for here.
            session.host.failed(session, Blame(stop.cause, stop.text), now)
            session.host.release(one.spis)
            one.spis = {}
            one.take(QuickModeEvent.FAIL)
            one.forget = now + QUICK_MODE_CACHE_TIMEOUT
            self._refuse(one, maybe(payloads, SaV1), stop, message.path, now)
        else:
            for owner, other in rivals:
                quick.abort(owner, other, None, now)
        self._add(one)

    def _everywhere(self) -> list[tuple[SessionV1, Quick]]:
        """What is under way for the connection, under whichever of its ISAKMP SAs."""
        sessions = (self._session, *self._session.siblings())
        return [(session, one) for session in sessions for one in session.negotiations.pending]

    def _rivals(self, payloads: tuple[PayloadV1, ...]) -> list[tuple[SessionV1, Quick]]:
        """Quick modes of ours without an answer, for a line that the peer now begins one for."""
        ids = [one for one in payloads if isinstance(one, IdV1)]
        if len(ids) != 2:
            return []
        return [
            (session, one)
            for session, one in self._everywhere()
            if one.state is QuickModeState.OFFERED and one.line and selectors.matching((one.line,), ids[1], ids[0])
        ]

    def _refuse(self, one: Quick, offered: SaV1 | None, stop: Stop, path: Path, now: float) -> None:
        session = self._session
        for row, values in stop.rows:
            session.log(row, values, now)
        if stop.notify:
            data = informational.sealed(session, (quick.refusal_notify(offered, stop.notify),))
            one.answered.sent(data)
            # Beyond the budget of this second it is said when the peer asks again: a peer with many rules that we
            # don't have would else take us for dead.
            if session.may_speak(now):
                session.host.send(path, data)

    def refused(self, spi: bytes, blame: Blame, now: float) -> None:
        """The peer refuses a quick mode of ours: the one with this SPI, or the only one."""
        waiting = [one for one in self.pending if one.state is QuickModeState.OFFERED]
        found = [one for one in waiting if spi and spi in one.spis.values()]
        if not found and len(waiting) == 1:
            found = waiting
        for one in found:
            quick.abort(self._session, one, blame, now)
        if found:
            self.drain(now)

    def seen(self, serial: int, now: float) -> None:
        """The peer sends by a pair that waits for message 3: it has it."""
        for session, one in self._everywhere():
            if one.state is QuickModeState.ANSWERED and one.pair is not None and one.pair.child.serial == serial:
                quick.mark_confirmed(session, one, now)
                session.negotiations._after(one, now)
                session.host.changed(session)
                return
        pair = self._session.pairs.by_serial(serial)
        if pair is not None:
            self._session.pairs.confirm(pair, now)

    # --- time ---

    def wake(self) -> float:
        live = min([one.due for one in self.pending], default=inf)
        return min(live, self._forget_at)

    def on_timer(self, now: float) -> None:
        session = self._session
        if self._forget_at <= now:
            ended = [one for one in self._all.values() if not one.pending]
            for one in ended:
                if one.forget <= now:
                    del self._all[one.message_id]
            self._forget_at = min([one.forget for one in ended if one.forget > now], default=inf)
        for one in self.pending:
            resend = one.resend
            if resend is None or resend.due > now:
                continue
            if resend.fire(session.host, session.host.settings, session.path):
                continue
            if one.initiator:
                quick.abort(session, one, Blame("timeout", f"{session.peer} does not answer a quick mode"), now)
                if session.heard < now - _patience(session):
                    # Not a word in all that time: the peer has lost this SA, or is gone.
                    session.peer_is_dead(f"{session.peer} does not answer", now)
                    return
            else:
                # The peer may have given it up for one that crossed it: then the line has what it needs.
                served = one.line is not None and session.holder.pairs.serves(one.line.number)
                blame = None if served else Blame("timeout", f"{session.peer} did not confirm a quick mode")
                quick.abort(session, one, blame, now)
            self.drain(now)


def _patience(session: SessionV1) -> float:
    """Seconds that a message is sent again for."""
    settings = session.host.settings
    waits = [min(settings.retransmit * 2.0**step, settings.longest) for step in range(settings.retries + 1)]
    return sum(waits) - settings.retransmit
