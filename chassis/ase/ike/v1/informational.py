"""Informational exchanges (RFC 2409 5.7): notifications and deletes, under the keys or in clear.

What comes in clear proves nothing: it is logged and at most shortens a negotiation that has proved nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import after_hash, decrypt_payloads
from chassis.ase.ike.errors import FailureReason, notify_name_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, Hash, MessageV1, NotifyV1, PayloadV1, emit_payloads
from chassis.ase.ike.retransmit import is_newer_sequence
from chassis.ase.ike.v1 import isakmp_sa
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, psk_may_differ, refusal_failure
from chassis.ase.ike.v1.keymat import IncomingMessage, cleartext_payloads, is_encrypted

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

MAX_DELETE_SPIS: Final = 64
"""SPIs of one Delete payload that are looked at."""

MAX_UNDECRYPTABLE: Final = 2
"""Messages in place of the peer's proof that make no sense under our keys, until the keys are suspected."""


# --- out ---


def encrypted_message(session: SessionV1, payloads: Sequence[PayloadV1]) -> bytes:
    """A whole message under the keys."""
    handshake = session.phase1
    message_id = session.new_message_id()
    digest = ikev1.quick_hash_1(session.keys, message_id, emit_payloads(payloads)[1])
    header = handshake.header(ExchangeType.INFORMATIONAL_V1, message_id)
    message, _ = handshake.exchange_chain(message_id).encrypt(header, (Hash(digest), *payloads))
    return message


def cleartext_message(session: SessionV1, notify: int, data: bytes = b"") -> bytes:
    """A whole message in clear, for a peer that has no keys with us."""
    handshake = session.phase1
    header = handshake.header(ExchangeType.INFORMATIONAL_V1, session.new_message_id())
    spi = handshake.cky_i + handshake.cky_r
    return MessageV1(header, (NotifyV1(notify, Protocol.IKE, spi, data),)).emit()


def isakmp_sa_delete(session: SessionV1) -> DeleteV1:
    """The Delete payload for the ISAKMP SA itself."""
    return DeleteV1(Protocol.IKE, (session.phase1.cky_i + session.phase1.cky_r,))


# --- in ---


def receive(session: SessionV1, message: IncomingMessage) -> None:
    if not is_encrypted(message):
        _on_cleartext_notify(session, message)
        return
    handshake = session.phase1
    message_id = message.header.message_id
    if handshake.keys is None or not message_id or session.is_id_used(message_id):
        session.host.count("decryption failures")
        return
    try:
        payloads, plain, _ = decrypt_payloads(handshake.exchange_chain(message_id), message.data, message.header)
    except PayloadError:
        _on_undecryptable(session, message)
        return
    first = payloads[0] if payloads else None
    right = ikev1.quick_hash_1(session.keys, message_id, after_hash(plain)) if payloads else b""
    if not isinstance(first, Hash) or not ikev1.equal(first.value, right):
        _on_undecryptable(session, message)
        return
    session.mark_id_used(message_id)
    if _is_fresh(session, payloads):
        session.on_authentic_message(message)
    for one in payloads[1:]:
        if session.closed:
            return
        if isinstance(one, DeleteV1):
            _on_delete(session, one, message.now)
        elif isinstance(one, NotifyV1) and not session.orphaned:
            _on_notify(session, one, message)


def receive_orphaned(session: SessionV1, message: IncomingMessage) -> None:
    """A message under an ISAKMP SA that is gone: for a moment it may still say that pairs are, too."""
    handshake, header = session.phase1, message.header
    cookies = (handshake.cky_i, handshake.cky_r)
    informs = header.exchange == ExchangeType.INFORMATIONAL_V1 and is_encrypted(message)
    if informs and handshake.keys is not None and (header.spi_i, header.spi_r) == cookies:
        receive(session, message)
    else:
        session.host.count("unknown SPI")


def _is_fresh(session: SessionV1, payloads: Sequence[PayloadV1]) -> bool:
    """Whether the peer made this message just now. Of an SA that lives long not every message ID is remembered, so
    what was recorded may come again one day; the numbers of dead peer detection tell (RFC 3706 7)."""
    for one in payloads:
        if (
            isinstance(one, NotifyV1)
            and one.notify in (NotifyTypeV1.R_U_THERE, NotifyTypeV1.R_U_THERE_ACK)
            and len(one.data) == 4
        ):
            number = int.from_bytes(one.data, "big")
            if one.notify == NotifyTypeV1.R_U_THERE_ACK:
                return session.detector is not None and session.detector.matches_pending(number)
            if is_newer_sequence(number, session.peer_dpd_sequence):
                session.peer_dpd_sequence = number
                return True
    return not session.ids_evicted


def _on_undecryptable(session: SessionV1, message: IncomingMessage) -> None:
    """It makes no sense under our keys. Where the peer's proof is due, that is how one answers whose keys come
    from another preshared key. Once may be a message that overtook the proof, to which our own is sent again."""
    session.host.count("decryption failures")
    if not psk_may_differ(session):
        return
    session.phase1.undecryptable += 1
    if session.phase1.undecryptable == MAX_UNDECRYPTABLE:
        session.log("ikev1-psk-mismatch-suspected", {}, message.now)
        session.fail_after_grace(FailureReason("preshared key", PSK_MISMATCH_TEXT), message.now)


def _on_cleartext_notify(session: SessionV1, message: IncomingMessage) -> None:
    try:
        payloads = cleartext_payloads(message)
    except PayloadError:
        session.host.count("messages malformed")
        return
    for one in payloads[:4]:
        if not isinstance(one, NotifyV1) or not session.notify_allowed(message.now):
            continue
        name = notify_name_v1(one.notify)
        session.log("ikev1-received-unprotected-notify", {"notify": name}, message.now)
        if not session.established and one.is_error:
            session.fail_after_grace(refusal_failure(session, name), message.now)


def _on_notify(session: SessionV1, one: NotifyV1, message: IncomingMessage) -> None:
    now = message.now
    if one.notify == NotifyTypeV1.R_U_THERE:
        if session.established and len(one.data) == 4 and session.notify_allowed(now):
            session.send_informational(
                (NotifyV1(NotifyTypeV1.R_U_THERE_ACK, Protocol.IKE, one.spi, one.data),), now
            )
    elif one.notify == NotifyTypeV1.R_U_THERE_ACK:
        pass  # A sign of life, which `heard_from` has noted.
    elif one.notify == NotifyTypeV1.INITIAL_CONTACT:
        if session.established:
            isakmp_sa.on_initial_contact(session, now)
    elif one.is_error:
        name = notify_name_v1(one.notify)
        if session.notify_allowed(now):
            session.log("ikev1-received-notify", {"notify": name}, now)
        failure = FailureReason("refused by the peer", f"the peer refuses: {name}")
        if session.established:
            session.quick_modes.on_refused(one.spi, failure, now)
        else:
            session.abort(failure, now)


def _on_delete(session: SessionV1, one: DeleteV1, now: float) -> None:
    if not session.established and not session.orphaned:
        return
    if one.protocol == Protocol.IKE:
        for spi in one.spis[:MAX_DELETE_SPIS]:
            isakmp_sa.on_isakmp_sa_delete(session, spi, now)
        return
    if one.protocol not in (Protocol.AH, Protocol.ESP):
        return
    name = Protocol(one.protocol).name
    for spi in one.spis[:MAX_DELETE_SPIS]:
        if session.notify_allowed(now):
            values = {"protocol": name, "spi": int.from_bytes(spi, "big")}
            session.log(f"ikev1-delete-received-{name.lower()}", values, now)
        isakmp_sa.on_child_sa_delete(session, one.protocol, spi, now)
