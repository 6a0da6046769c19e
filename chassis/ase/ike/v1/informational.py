"""Informational exchanges (RFC 2409 5.7): notifications and deletes, under the keys or in clear.

What comes in clear proves nothing: it is logged and at most shortens a negotiation that has proved nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import after_hash, decrypt_payloads
from chassis.ase.ike.errors import FailureReason, notify_name_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, Hash, NotifyV1, PayloadV1
from chassis.ase.ike.retransmit import is_newer_sequence
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, IsakmpSa
from chassis.ase.ike.v1.keymat import IncomingMessage, cleartext_payloads, is_encrypted
from chassis.ase.ike.v1.quick_mode import QuickModes

MAX_DELETE_SPIS: Final = 64
"""SPIs of one Delete payload that are looked at."""

MAX_UNDECRYPTABLE: Final = 2
"""Messages in place of the peer's proof that make no sense under our keys, until the keys are suspected."""


def receive(session: IsakmpSa, message: IncomingMessage) -> None:
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


def receive_orphaned(session: IsakmpSa, message: IncomingMessage) -> None:
    """A message under an ISAKMP SA that is gone: for a moment it may still say that pairs are, too."""
    handshake, header = session.phase1, message.header
    cookies = (handshake.cky_i, handshake.cky_r)
    informs = header.exchange == ExchangeType.INFORMATIONAL_V1 and is_encrypted(message)
    if informs and handshake.keys is not None and (header.spi_i, header.spi_r) == cookies:
        receive(session, message)
    else:
        session.host.count("unknown SPI")


def _is_fresh(session: IsakmpSa, payloads: Sequence[PayloadV1]) -> bool:
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


def _on_undecryptable(session: IsakmpSa, message: IncomingMessage) -> None:
    """It makes no sense under our keys. Where the peer's proof is due, that is how one answers whose keys come
    from another preshared key. Once may be a message that overtook the proof, to which our own is sent again."""
    session.host.count("decryption failures")
    if not session.psk_may_differ():
        return
    session.phase1.undecryptable += 1
    if session.phase1.undecryptable == MAX_UNDECRYPTABLE:
        session.log("ikev1-psk-mismatch-suspected", {}, message.now)
        session.fail_after_grace(FailureReason("preshared key", PSK_MISMATCH_TEXT), message.now)


def _on_cleartext_notify(session: IsakmpSa, message: IncomingMessage) -> None:
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
            session.fail_after_grace(session.refusal_failure(name), message.now)


def _on_notify(session: IsakmpSa, one: NotifyV1, message: IncomingMessage) -> None:
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
            session.on_initial_contact(now)
    elif one.is_error:
        name = notify_name_v1(one.notify)
        if session.notify_allowed(now):
            session.log("ikev1-received-notify", {"notify": name}, now)
        failure = FailureReason("refused by the peer", f"the peer refuses: {name}")
        if session.established:
            QuickModes(session).on_refused(one.spi, failure, now)
        else:
            session.abort(failure, now)


def _on_delete(session: IsakmpSa, one: DeleteV1, now: float) -> None:
    if not session.established and not session.orphaned:
        return
    if one.protocol == Protocol.IKE:
        for spi in one.spis[:MAX_DELETE_SPIS]:
            session.on_isakmp_sa_delete(spi, now)
        return
    if one.protocol not in (Protocol.AH, Protocol.ESP):
        return
    name = Protocol(one.protocol).name
    for spi in one.spis[:MAX_DELETE_SPIS]:
        if session.notify_allowed(now):
            values = {"protocol": name, "spi": int.from_bytes(spi, "big")}
            session.log(f"ikev1-delete-received-{name.lower()}", values, now)
        session.on_child_sa_delete(one.protocol, spi, now)
