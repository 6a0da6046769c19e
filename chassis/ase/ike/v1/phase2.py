"""Phase 2 of an ISAKMP SA (RFC 2409 5.5): which quick modes run, which wait, and which goes on after a collision.

`QuickModes` starts those that are wanted, gives each received message to the quick mode that it belongs to, and
retransmits.
"""

from __future__ import annotations

from typing import Final

from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import IvChain, after_hash, decrypt_payloads
from chassis.ase.ike.errors import FailureReason, NegotiationError
from chassis.ase.ike.host import SessionPart
from chassis.ase.ike.payloads.chain import PayloadError, first_of_type
from chassis.ase.ike.payloads.v1 import Hash, IdV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.retransmit import ReplyCacheV1
from chassis.ase.ike.traffic_selectors import matching_entries
from chassis.ase.ike.v1.isakmp_sa import IsakmpSa
from chassis.ase.ike.v1.keymat import IncomingMessage, is_encrypted
from chassis.ase.ike.v1.quick_mode import QuickMode, QuickModeState

MAX_OWN_QUICK_MODES: Final = 8
"""Quick modes that this end runs at once; the others wait (count)."""
MAX_PEER_QUICK_MODES: Final = 32
"""Quick modes that the peer may run at once; one more is not answered yet (count)."""


class QuickModes(SessionPart[IsakmpSa]):
    """Runs the quick modes of one ISAKMP SA. It keeps no state of its own: all is in `IsakmpSa`, so that it also
    serves another ISAKMP SA of the connection."""

    __slots__ = ()

    @property
    def pending(self) -> list[QuickMode]:
        """Those that wait for the peer, oldest first."""
        return [one for one in self.sa.exchanges.pending if isinstance(one, QuickMode)]

    # --- our own ---

    def request(self, entry: PolicyEntry, replaces: int, now: float) -> None:
        """Start one for an entry as soon as MAX_OWN_QUICK_MODES allows it and none is pending for the entry."""
        if any(
            one.initiator and one.entry is not None and one.entry.number == entry.number for one in self.pending
        ):
            return
        self.sa.wanted[entry.number] = (entry, replaces)
        self.start_pending(now)

    def start_pending(self, now: float) -> None:
        """Start what is wanted and may start."""
        sa = self.sa
        if not sa.established:
            return
        for number, (_, replaces) in list(sa.wanted.items()):
            if sum([one.initiator for one in self.pending]) >= MAX_OWN_QUICK_MODES:
                return
            if any(one.entry is not None and one.entry.number == number for one in self._all_in_progress()):
                continue  # One of the peer's comes first: it may make ours needless.
            del sa.wanted[number]
            entry = None if sa.connection is None else sa.connection.entry(number)
            if entry is None:
                continue
            try:
                one = QuickMode.start(sa, entry, replaces, now)
            except NegotiationError as error:
                sa.host.on_failed(sa, error.failure, now, entry)
                continue
            sa.exchanges.add(one)

    def on_configured(self, connection: Connection, now: float) -> None:
        """Abort those whose entry has other selectors now; the connection manager asks again."""
        for one in self.pending:
            entry = one.entry
            if one.state is QuickModeState.QM1_SENT and entry is not None:
                wanted = connection.entry(entry.number)
                if wanted is None or wanted.rules != entry.rules:
                    one.abort(None, now)

    # --- messages ---

    def receive(self, message: IncomingMessage) -> None:
        """Handle a message of a quick mode."""
        sa, header, now = self.sa, message.header, message.now
        host = sa.host
        if (
            not sa.established
            or not is_encrypted(message)
            or not header.message_id
            or header.spi_i + header.spi_r != sa.phase1.cookies
        ):
            host.count("unexpected messages")
            return
        known = sa.exchanges.get(header.message_id)
        one = known if isinstance(known, QuickMode) else None
        if one is not None and one.reply_cache.is_duplicate(host, message.data, message.path):
            return
        is_new = one is None
        if one is None:
            answering = sum([not other.initiator for other in self.pending])
            if sa.is_id_used(header.message_id) or answering >= MAX_PEER_QUICK_MODES:
                host.count("unexpected messages")
                return
            one = QuickMode(sa, header.message_id, False, sa.phase1.exchange_chain(header.message_id))
        elif not one.pending:
            return
        try:
            payloads, plain, after = decrypt_payloads(one.chain, message.data, header)
        except PayloadError:
            host.count("decryption failures")
            return
        if not payloads or not isinstance(payloads[0], Hash):
            host.count("decryption failures")
            return
        covered = after_hash(plain)
        if is_new:
            self._on_qm1(one, message, payloads, covered, after)
            return
        before, one.chain = (one.chain, one.reply_cache), after
        one.reply_cache = ReplyCacheV1(list(one.reply_cache.handled))
        one.reply_cache.remember(message.data)
        try:
            one.verify(payloads, covered)
            sa.on_authentic_message(message)
            if one.state is QuickModeState.QM1_SENT:
                one.on_qm2(payloads, now)
                for message_id in one.blocked_exchanges:
                    sa.mark_id_used(message_id, quick=True)
            else:
                one.mark_confirmed(now)
        except NegotiationError as error:
            if not error.final:
                # The message is not the peer's: wait for the genuine one.
                one.chain, one.reply_cache = before
                host.count("decryption failures")
                return
            one.refuse(None, error, message.path, now)
            one.abort(error.failure, now)
        self._on_finished(one, now)

    def _on_finished(self, one: QuickMode, now: float) -> None:
        """Drop the wish that a finished quick mode fulfils, and start what waited for it."""
        if one.state is QuickModeState.DONE and one.entry is not None:
            self.sa.wanted.pop(one.entry.number, None)
        self.start_pending(now)

    def _on_qm1(
        self,
        one: QuickMode,
        message: IncomingMessage,
        payloads: tuple[PayloadV1, ...],
        covered: bytes,
        after: IvChain,
    ) -> None:
        """Handle message 1 of the peer: verify it, settle collisions, and answer or refuse it."""
        sa, now = self.sa, message.now
        digest = ikev1.quick_hash_1(sa.keys, one.message_id, covered)
        first = payloads[0]
        if not isinstance(first, Hash) or not ikev1.equal(first.value, digest):
            sa.host.count("decryption failures")
            return
        if not sa.used_ids.quick_evicted and first_of_type(payloads, SaV1) is not None:
            # Else it may be a replay of long ago, of an informational message too, and is not a sign of life.
            sa.on_authentic_message(message)
        colliding = self._colliding(payloads)
        stronger = [other for other in colliding if other.message_id < one.message_id]
        if stronger:
            # Ours goes on: the peer answers it and aborts this one.
            for other in stronger:
                other.blocked_exchanges = (*other.blocked_exchanges, one.message_id)
            return
        sa.mark_id_used(one.message_id, quick=True)
        one.reply_cache.remember(message.data)
        one.chain = after
        try:
            one.on_qm1(payloads, message.path, now)
        except NegotiationError as error:
            # Report no entry: this does not delay what this end wants for its own entries.
            sa.host.on_failed(sa, error.failure, now)
            one.abort(None, now)
            one.refuse(first_of_type(payloads, SaV1), error, message.path, now)
        else:
            for other in colliding:
                other.abort(None, now)
        sa.exchanges.add(one)

    def _all_in_progress(self) -> list[QuickMode]:
        """Return those that are pending under any ISAKMP SA of the connection."""
        return [one for sa in (self.sa, *self.sa.sibling_sessions()) for one in QuickModes(sa).pending]

    def _colliding(self, payloads: tuple[PayloadV1, ...]) -> list[QuickMode]:
        """Return quick modes of ours without an answer that are for the selectors of the peer's message 1."""
        ids = [one for one in payloads if isinstance(one, IdV1)]
        if len(ids) != 2:
            return []
        return [
            one
            for one in self._all_in_progress()
            if one.state is QuickModeState.QM1_SENT
            and one.entry
            and matching_entries((one.entry,), ids[1], ids[0])
        ]

    def on_refused(self, spi: bytes, failure: FailureReason, now: float) -> None:
        """Abort the quick mode of ours with this SPI, or the only one: the peer refuses it."""
        waiting = [one for one in self.pending if one.state is QuickModeState.QM1_SENT]
        found = [one for one in waiting if spi and spi in one.spis.values()]
        if not found and len(waiting) == 1:
            found = waiting
        for one in found:
            one.abort(failure, now)
        if found:
            self.start_pending(now)

    def on_peer_uses_sa(self, serial: int, now: float) -> None:
        """Confirm a CHILD SA that waits for message 3: the peer sends by it, so it has it."""
        for one in self._all_in_progress():
            if (
                one.state is QuickModeState.QM2_SENT
                and one.child_sa is not None
                and one.child_sa.child.serial == serial
            ):
                one.mark_confirmed(now)
                QuickModes(one.sa)._on_finished(one, now)
                one.sa.host.reschedule(one.sa)
                return
        child_sa = self.sa.child_sas.by_serial(serial)
        if child_sa is not None:
            self.sa.child_sas.confirm(child_sa, now)

    # --- time ---

    def on_timer(self, now: float) -> None:
        """Retransmit what is due; abort what was retransmitted often enough."""
        sa = self.sa
        sa.exchanges.remove_finished(now)
        for one in self.pending:
            resend = one.retransmission
            if resend is None or resend.due > now:
                continue
            if resend.retransmit(sa.host, sa.path, now):
                continue
            if one.initiator:
                one.abort(FailureReason("timeout", f"{sa.peer} does not answer a quick mode"), now)
                if sa.last_received < now - self._retransmit_timeout():
                    # No message in all that time: the peer has lost this SA, or is dead.
                    sa.on_peer_dead(f"{sa.peer} does not answer", now)
                    return
            else:
                # The peer may have aborted it for one that collided: then the entry has a CHILD SA.
                served = one.entry is not None and sa.current_session.child_sas.has_child(one.entry.number)
                failure = FailureReason("timeout", f"{sa.peer} did not confirm a quick mode")
                one.abort(None if served else failure, now)
            self.start_pending(now)

    def _retransmit_timeout(self) -> float:
        """Return for how long (s) a message is retransmitted."""
        settings = self.sa.host.settings
        waits = [
            min(settings.retransmit_timeout * 2.0**step, settings.longest)
            for step in range(settings.retransmit_tries + 1)
        ]
        return sum(waits) - settings.retransmit_timeout
