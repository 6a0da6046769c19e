"""Informational exchanges of the peer (RFC 2408 4.8, RFC 2409 5.7): notifications, Deletes, dead peer detection.

A message in clear is not authenticated: it is logged, and before the SA is established it may shorten the
negotiation. `IsakmpSa` makes the messages that are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import after_hash, decrypt_payloads
from chassis.ase.ike.errors import FailureReason, notify_name_v1
from chassis.ase.ike.host import SessionPart
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, Hash, NotifyV1, PayloadV1
from chassis.ase.ike.retransmit import is_newer_sequence
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, IsakmpSa
from chassis.ase.ike.v1.keymat import IncomingMessage, cleartext_payloads, is_encrypted
from chassis.ase.ike.v1.phase2 import QuickModes

MAX_DELETE_SPIS: Final = 64
"""SPIs of one Delete payload that are handled (count)."""

MAX_CLEARTEXT_NOTIFIES: Final = 4
"""Payloads of one message in clear that are handled (count)."""

MAX_UNDECRYPTABLE: Final = 2
"""Messages that do not decrypt, where MM6 is due, after which the preshared keys are suspected to differ (count).
One may be a message that overtook MM6: our MM5 is sent again for that."""


class Informational(SessionPart[IsakmpSa]):
    """Handles the informational exchanges of the peer under one ISAKMP SA. It keeps no state of its own."""

    __slots__ = ()

    def receive(self, message: IncomingMessage) -> None:
        """Handle a message: verify its HASH, then handle its Deletes and notifications in order."""
        if not is_encrypted(message):
            self._on_cleartext_notify(message)
            return
        sa, message_id = self.sa, message.header.message_id
        if sa.phase1.keys is None or not message_id or sa.is_id_used(message_id):
            sa.host.count("decryption failures")
            return
        try:
            chain = sa.phase1.exchange_chain(message_id)
            payloads, plain, _ = decrypt_payloads(chain, message.data, message.header)
        except PayloadError:
            self._on_undecryptable(message.now)
            return
        first = payloads[0] if payloads else None
        right = ikev1.quick_hash_1(sa.keys, message_id, after_hash(plain)) if payloads else b""
        if not isinstance(first, Hash) or not ikev1.equal(first.value, right):
            self._on_undecryptable(message.now)
            return
        sa.mark_id_used(message_id, quick=False)
        if self._is_fresh(payloads):
            sa.on_authentic_message(message)
        for one in payloads[1:]:
            if sa.closed:
                return
            if isinstance(one, DeleteV1):
                self._on_delete(one, message.now)
            elif isinstance(one, NotifyV1) and not sa.orphaned:
                self._on_notify(one, message.now)

    def receive_orphaned(self, message: IncomingMessage) -> None:
        """Handle a message under a deleted ISAKMP SA: for a moment, a Delete for its CHILD SAs may still come."""
        phase1, header = self.sa.phase1, message.header
        informs = header.exchange == ExchangeType.INFORMATIONAL_V1 and is_encrypted(message)
        if informs and phase1.keys is not None and header.spi_i + header.spi_r == phase1.cookies:
            self.receive(message)
        else:
            self.sa.host.count("unknown SPI")

    def _is_fresh(self, payloads: Sequence[PayloadV1]) -> bool:
        """Return whether the peer made this authentic message just now.

        An SA that lives long does not remember every message ID, so an old message may be replayed. The sequence
        numbers of dead peer detection tell (RFC 3706 7).
        """
        sa = self.sa
        for one in payloads:
            if (
                isinstance(one, NotifyV1)
                and one.notify in (NotifyTypeV1.R_U_THERE, NotifyTypeV1.R_U_THERE_ACK)
                and len(one.data) == 4
            ):
                number = int.from_bytes(one.data, "big")
                if one.notify == NotifyTypeV1.R_U_THERE_ACK:
                    return sa.detector is not None and sa.detector.matches_pending(number)
                if is_newer_sequence(number, sa.peer_dpd_sequence):
                    sa.peer_dpd_sequence = number
                    return True
        return not sa.ids_evicted

    def _on_undecryptable(self, now: float) -> None:
        """Count a message that does not decrypt, or whose HASH is not valid. If MM6 is due, the preshared keys
        probably differ: log that and fail at MAX_UNDECRYPTABLE."""
        sa = self.sa
        sa.host.count("decryption failures")
        if not sa.psk_may_differ():
            return
        sa.phase1.undecryptable += 1
        if sa.phase1.undecryptable == MAX_UNDECRYPTABLE:
            sa.log("ikev1-psk-mismatch-suspected", {}, now)
            sa.fail_after_grace(FailureReason("preshared key", PSK_MISMATCH_TEXT), now)

    def _on_cleartext_notify(self, message: IncomingMessage) -> None:
        """Log the notifications of a message in clear; an error before the SA is established may be the end."""
        sa, now = self.sa, message.now
        try:
            payloads = cleartext_payloads(message)
        except PayloadError:
            sa.host.count("messages malformed")
            return
        for one in payloads[:MAX_CLEARTEXT_NOTIFIES]:
            if not isinstance(one, NotifyV1) or not sa.notify_allowed(now):
                continue
            name = notify_name_v1(one.notify)
            sa.log("ikev1-received-unprotected-notify", {"notify": name}, now)
            if not sa.established and one.is_error:
                sa.fail_after_grace(sa.refusal_failure(name), now)

    def _on_notify(self, one: NotifyV1, now: float) -> None:
        """Handle an authentic notification."""
        sa = self.sa
        if one.notify == NotifyTypeV1.R_U_THERE:
            if sa.established and len(one.data) == 4 and sa.notify_allowed(now):
                answer = NotifyV1(NotifyTypeV1.R_U_THERE_ACK, Protocol.IKE, one.spi, one.data)
                sa.send_informational((answer,), now)
        elif one.notify == NotifyTypeV1.R_U_THERE_ACK:
            pass  # `on_authentic_message` has counted it as a sign of life.
        elif one.notify == NotifyTypeV1.INITIAL_CONTACT:
            if sa.established:
                sa.on_initial_contact(now)
        elif one.is_error:
            name = notify_name_v1(one.notify)
            if sa.notify_allowed(now):
                sa.log("ikev1-received-notify", {"notify": name}, now)
            failure = FailureReason("refused by the peer", f"the peer refuses: {name}")
            if sa.established:
                QuickModes(sa).on_refused(one.spi, failure, now)
            else:
                sa.abort(failure, now)

    def _on_delete(self, one: DeleteV1, now: float) -> None:
        """Handle an authentic Delete, of ISAKMP SAs or of CHILD SAs."""
        sa = self.sa
        if not sa.established and not sa.orphaned:
            return
        spis = one.spis[:MAX_DELETE_SPIS]
        if one.protocol == Protocol.IKE:
            for spi in spis:
                sa.on_isakmp_sa_delete(spi, now)
            return
        if one.protocol not in (Protocol.AH, Protocol.ESP):
            return
        name = Protocol(one.protocol).name
        for spi in spis:
            if sa.notify_allowed(now):
                values = {"protocol": name, "spi": int.from_bytes(spi, "big")}
                sa.log(f"ikev1-delete-received-{name.lower()}", values, now)
            sa.on_child_sa_delete(one.protocol, spi, now)
