"""Informational exchanges (RFC 2409 5.7): notifications and deletes, under the keys or in clear.

What comes in clear proves nothing: it is logged and at most shortens a negotiation that has proved nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import after_hash, open_payloads
from chassis.ase.ike.errors import FailureReason, notify_name_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, Hash, MessageV1, NotifyV1, PayloadV1, emit_payloads
from chassis.ase.ike.v1 import dpd, isakmp_sa
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, keys_may_differ, refusal
from chassis.ase.ike.v1.keymat import Incoming, in_clear, is_encrypted

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

MAX_DELETE_SPIS: Final = 64
"""SPIs of one Delete payload that are looked at."""

MAX_UNDECRYPTABLE: Final = 2
"""Messages in place of the peer's proof that make no sense under our keys, until the keys are suspected."""


# --- out ---


def sealed(session: SessionV1, payloads: Sequence[PayloadV1]) -> bytes:
    """A whole message under the keys."""
    handshake = session.handshake
    message_id = session.message_id()
    digest = ikev1.quick_hash_1(session.keys, message_id, emit_payloads(payloads)[1])
    header = handshake.header(ExchangeType.INFORMATIONAL_V1, message_id)
    message, _ = handshake.exchange_chain(message_id).seal(header, (Hash(digest), *payloads))
    return message


def in_the_open(session: SessionV1, notify: int, data: bytes = b"") -> bytes:
    """A whole message in clear, for a peer that has no keys with us."""
    handshake = session.handshake
    header = handshake.header(ExchangeType.INFORMATIONAL_V1, session.message_id())
    spi = handshake.cky_i + handshake.cky_r
    return MessageV1(header, (NotifyV1(notify, Protocol.IKE, spi, data),)).emit()


def delete(session: SessionV1) -> DeleteV1:
    """The Delete payload for the ISAKMP SA itself."""
    return DeleteV1(Protocol.IKE, (session.handshake.cky_i + session.handshake.cky_r,))


# --- in ---


def receive(session: SessionV1, message: Incoming) -> None:
    if not is_encrypted(message):
        _unprotected(session, message)
        return
    handshake = session.handshake
    message_id = message.header.message_id
    if handshake.keys is None or not message_id or session.was_used(message_id):
        session.host.count("decryption failures")
        return
    try:
        payloads, plain, _ = open_payloads(handshake.exchange_chain(message_id), message.data, message.header)
    except PayloadError:
        _undecipherable(session, message)
        return
    first = payloads[0] if payloads else None
    right = ikev1.quick_hash_1(session.keys, message_id, after_hash(plain)) if payloads else b""
    if not isinstance(first, Hash) or not ikev1.equal(first.value, right):
        _undecipherable(session, message)
        return
    session.use(message_id)
    if _fresh(session, payloads):
        session.heard_from(message)
    for one in payloads[1:]:
        if session.closed:
            return
        if isinstance(one, DeleteV1):
            _deleted(session, one, message.now)
        elif isinstance(one, NotifyV1) and not session.orphaned:
            _notified(session, one, message)


def receive_late(session: SessionV1, message: Incoming) -> None:
    """A message under an ISAKMP SA that is gone: for a moment it may still say that pairs are, too."""
    handshake, header = session.handshake, message.header
    cookies = (handshake.cky_i, handshake.cky_r)
    informs = header.exchange == ExchangeType.INFORMATIONAL_V1 and is_encrypted(message)
    if informs and handshake.keys is not None and (header.spi_i, header.spi_r) == cookies:
        receive(session, message)
    else:
        session.host.count("unknown SPI")


def _fresh(session: SessionV1, payloads: Sequence[PayloadV1]) -> bool:
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
                return session.detector is not None and session.detector.answers(number)
            if dpd.newer(number, session.asked):
                session.asked = number
                return True
    return not session.forgot


def _undecipherable(session: SessionV1, message: Incoming) -> None:
    """It makes no sense under our keys. Where the peer's proof is due, that is how one answers whose keys come
    from another preshared key. Once may be a message that overtook the proof, to which our own is sent again."""
    session.host.count("decryption failures")
    if not keys_may_differ(session):
        return
    session.handshake.riddles += 1
    if session.handshake.riddles == MAX_UNDECRYPTABLE:
        session.log("ikev1-psk-mismatch-suspected", {}, message.now)
        session.doom(FailureReason("preshared key", PSK_MISMATCH_TEXT), message.now)


def _unprotected(session: SessionV1, message: Incoming) -> None:
    try:
        payloads = in_clear(message)
    except PayloadError:
        session.host.count("messages malformed")
        return
    for one in payloads[:4]:
        if not isinstance(one, NotifyV1) or not session.may_speak(message.now):
            continue
        name = notify_name_v1(one.notify)
        session.log("ikev1-received-unprotected-notify", {"notify": name}, message.now)
        if not session.established and one.is_error:
            session.doom(refusal(session, name), message.now)


def _notified(session: SessionV1, one: NotifyV1, message: Incoming) -> None:
    now = message.now
    if one.notify == NotifyTypeV1.R_U_THERE:
        if session.established and len(one.data) == 4 and session.may_speak(now):
            session.tell((NotifyV1(NotifyTypeV1.R_U_THERE_ACK, Protocol.IKE, one.spi, one.data),), now)
    elif one.notify == NotifyTypeV1.R_U_THERE_ACK:
        pass  # A sign of life, which `heard_from` has noted.
    elif one.notify == NotifyTypeV1.INITIAL_CONTACT:
        if session.established:
            isakmp_sa.peer_began_anew(session, now)
    elif one.is_error:
        name = notify_name_v1(one.notify)
        if session.may_speak(now):
            session.log("ikev1-received-notify", {"notify": name}, now)
        failure = FailureReason("refused by the peer", f"the peer refuses: {name}")
        if session.established:
            session.negotiations.refused(one.spi, failure, now)
        else:
            session.fail(failure, now)


def _deleted(session: SessionV1, one: DeleteV1, now: float) -> None:
    if not session.established and not session.orphaned:
        return
    if one.protocol == Protocol.IKE:
        for spi in one.spis[:MAX_DELETE_SPIS]:
            isakmp_sa.isakmp_deleted(session, spi, now)
        return
    if one.protocol not in (Protocol.AH, Protocol.ESP):
        return
    name = Protocol(one.protocol).name
    for spi in one.spis[:MAX_DELETE_SPIS]:
        if session.may_speak(now):
            values = {"protocol": name, "spi": int.from_bytes(spi, "big")}
            session.log(f"ikev1-delete-received-{name.lower()}", values, now)
        isakmp_sa.pair_deleted(session, one.protocol, spi, now)
