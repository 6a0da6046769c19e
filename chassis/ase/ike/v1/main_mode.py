"""Main mode (RFC 2409 5.1, 5.4): what each of its six messages holds, and what it leads to.

Each function takes one message in the one state where it is due, sends what follows, and names the event.
"""

from __future__ import annotations

from collections.abc import Sequence

from chassis.ase.ike.connection import Connection
from chassis.ase.ike.crypto.ikev1 import decrypt_payloads
from chassis.ase.ike.errors import NegotiationError, Row, malformed_v1, no_ike_proposal_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import IdV1, KeV1, NatD, NonceV1, PayloadV1, VendorV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.proposals import NoMatch, choose_v1, offer_v1
from chassis.ase.ike.v1 import keymat, phase1_exchange
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, IsakmpSa, Phase1Event
from chassis.ase.ike.v1.keymat import IncomingMessage, cleartext_payloads, exactly_one, is_encrypted, sa_body
from chassis.model.ike import IkeProposal

MODE_NAMES = {"main": "MAIN_MODE", "aggressive": "AGGRESSIVE_MODE"}
VENDORS = (keymat.NAT_T_VENDOR, keymat.DPD_VENDOR)


def store_peer_vendors(session: IsakmpSa, payloads: tuple[PayloadV1, ...]) -> None:
    """What the peer can do beyond RFC 2409."""
    known = {one.id for one in payloads if isinstance(one, VendorV1)}
    session.phase1.nat_t |= keymat.NAT_T_VENDOR.id in known
    session.phase1.dpd |= keymat.DPD_VENDOR.id in known


def store_nat_result(session: IsakmpSa, payloads: tuple[PayloadV1, ...], message: IncomingMessage) -> None:
    """What the NAT-D payloads say of the way between us."""
    handshake = session.phase1
    if handshake.nat_t:
        found = [one for one in payloads if isinstance(one, NatD)]
        handshake.behind_nat, handshake.peer_behind_nat = keymat.detect_nat(
            found, handshake.hash_name, handshake.cky_i, handshake.cky_r, message.path
        )


def nat_payloads(session: IsakmpSa) -> tuple[PayloadV1, ...]:
    handshake = session.phase1
    if not handshake.nat_t:
        return ()
    return keymat.nat_d_payloads(handshake.hash_name, handshake.cky_i, handshake.cky_r, session.path)


def eligible_connections(session: IsakmpSa, mode: str) -> tuple[Connection, ...]:
    """Connections that a peer at this address may open in this mode; NegotiationError if none (B-033, S-038)."""
    path = session.path
    group = session.host.group(path.context, path.local, path.remote, 1)
    members = () if group is None else group.members
    answering = tuple([one for one in members if one.wanted and one.responds and not one.flaw])
    if not answering:
        raise NegotiationError("not answered", "no IKEv1 connection answers this peer")
    if len(members) == 1:
        session.connection = members[0]
    fitting = tuple([one for one in answering if one.policy.mode == mode])
    if not fitting:
        configured = MODE_NAMES[answering[0].policy.mode]
        row: Row = ("ikev1-p1-xchange-type-mismatch", {"received": MODE_NAMES[mode], "configured": configured})
        text = f"the peer begins in {mode} mode, {configured} is configured"
        raise NegotiationError("exchange mode", text, rows=(row,), notify=NotifyTypeV1.UNSUPPORTED_EXCHANGE_TYPE)
    session.phase1.group = group
    session.phase1.members = fitting
    return fitting


def store_choice(session: IsakmpSa, payloads: tuple[PayloadV1, ...], proposals: Sequence[IkeProposal]) -> None:
    """The responder's SA payload: one of the transforms that we offered, as we said it."""
    answer = exactly_one(payloads, SaV1)
    found = choose_v1(answer, proposals, strict_lifetime=session.host.settings.strict_lifetime)
    if isinstance(found, NoMatch) or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise NegotiationError(
            "no proposal chosen", "the peer chose what was not offered", notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX
        )
    session.phase1.choice = found


# --- initiator ---


def send_mm1(session: IsakmpSa, connection: Connection, now: float) -> Phase1Event:
    """Message 1: our proposals."""
    offer = offer_v1(connection.proposals)
    session.phase1.sa_i = offer.emit()
    session.send_phase_1((offer, *VENDORS), now, wait=True)
    return Phase1Event.BEGIN_MAIN


def on_mm2(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 2: the proposal that was chosen. Message 3: our values."""
    if is_encrypted(message):
        return None
    payloads = cleartext_payloads(message)
    store_choice(session, payloads, session.phase1.members[0].proposals)
    store_peer_vendors(session, payloads)
    handshake = session.phase1
    handshake.cky_r = message.header.spi_r
    handshake.make_ke_and_nonce(session.host.random, True)
    session.send_phase_1(
        (
            KeV1(handshake.g_i),
            NonceV1(handshake.ni),
            *phase1_exchange.cert_requests(session),
            *nat_payloads(session),
        ),
        message.now,
        wait=True,
    )
    return Phase1Event.MM2_RECEIVED


def on_mm4(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 4: the responder's values. Message 5: who we are, on port 4500 if there is a NAT (RFC 3947 4)."""
    if is_encrypted(message):
        return None
    payloads = cleartext_payloads(message)
    handshake = session.phase1
    handshake.g_r, handshake.nr = exactly_one(payloads, KeV1).public, exactly_one(payloads, NonceV1).value
    connection = handshake.members[0]
    handshake.derive(connection.psk, True)
    store_nat_result(session, payloads, message)
    if (handshake.behind_nat or handshake.peer_behind_nat) and not session.path.encapsulated:
        session.path = session.path.floated()
    own, proof = phase1_exchange.auth_payloads(session, connection)
    session.send_phase_1(
        (own, *proof, *session.initial_contact_notify(connection)), message.now, encrypted=True, wait=True
    )
    return Phase1Event.KE_RECEIVED


def on_mm6(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 6: who the responder is."""
    payloads, claimed = _decrypt_auth(session, message)
    connection, identity = phase1_exchange.authenticate_peer(session, payloads, claimed)
    session.set_authenticated(connection, identity, payloads)
    return Phase1Event.AUTH_RECEIVED


# --- responder ---


def on_mm1(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 1: the initiator's proposals. Message 2: the one that is chosen."""
    if is_encrypted(message):
        return None
    members = eligible_connections(session, "main")
    payloads = cleartext_payloads(message)
    handshake = session.phase1
    handshake.sa_i = sa_body(message, payloads)
    ours = dict.fromkeys([proposal for one in members for proposal in one.proposals])
    found = choose_v1(
        exactly_one(payloads, SaV1), tuple(ours), strict_lifetime=session.host.settings.strict_lifetime
    )
    if isinstance(found, NoMatch):
        raise no_ike_proposal_v1(found)
    handshake.choice = found
    handshake.members = tuple([one for one in members if found.proposal in one.proposals])
    store_peer_vendors(session, payloads)
    session.send_phase_1((found.answer, *VENDORS), message.now)
    return Phase1Event.MM1_RECEIVED


def on_mm3(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 3: the initiator's values. Message 4: ours."""
    if is_encrypted(message):
        return None
    payloads = cleartext_payloads(message)
    handshake = session.phase1
    handshake.g_i, handshake.ni = exactly_one(payloads, KeV1).public, exactly_one(payloads, NonceV1).value
    store_nat_result(session, payloads, message)
    session.path = message.path
    handshake.make_ke_and_nonce(session.host.random, False)
    session.send_phase_1(
        (
            KeV1(handshake.g_r),
            NonceV1(handshake.nr),
            *phase1_exchange.cert_requests(session),
            *nat_payloads(session),
        ),
        message.now,
    )
    return Phase1Event.KE_RECEIVED


def on_mm5(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 5: who the initiator is. Message 6: who we are.

    The key is the one that is configured for the peer's address: nothing else is known of it before this message
    is open (RFC 2409 5.4). The shared secret is computed only now, when the peer has shown that it receives.
    """
    handshake = session.phase1
    if handshake.keys is None:
        handshake.derive(handshake.members[0].psk, False)
    payloads, claimed = _decrypt_auth(session, message)
    connection, identity = phase1_exchange.authenticate_peer(session, payloads, claimed)
    session.path = message.path
    own, ours = phase1_exchange.auth_payloads(session, connection)
    session.set_authenticated(connection, identity, payloads)
    session.send_phase_1((own, *ours, *session.initial_contact_notify(connection)), message.now, encrypted=True)
    return Phase1Event.AUTH_RECEIVED


# --- both ---


def _decrypt_auth(session: IsakmpSa, message: IncomingMessage) -> tuple[tuple[PayloadV1, ...], IdV1]:
    """(payloads, ID payload) of message 5 or 6, decrypted; with preshared keys the HASH is right."""
    handshake = session.phase1
    assert handshake.chain is not None
    if not is_encrypted(message):
        raise NegotiationError(
            "malformed", "the proof of identity came in clear", notify=NotifyTypeV1.INVALID_FLAGS
        )
    try:
        payloads, _, after = decrypt_payloads(handshake.chain, message.data, message.header)
        claimed = exactly_one(payloads, IdV1)
        if handshake.by_psk and not phase1_exchange.is_psk_hash_valid(
            handshake, not session.initiator, payloads, claimed
        ):
            raise _psk_mismatch(())
    except PayloadError as error:
        if not handshake.by_psk:
            raise malformed_v1(error) from error
        rows: tuple[Row, ...] = ()
        if error.log == "ikev1-psk-payload-length":
            rows = ((error.log, error.values),)
        raise _psk_mismatch(rows) from error
    handshake.chain = after
    session.store_initial_contact(payloads)
    return payloads, claimed


def _psk_mismatch(rows: tuple[Row, ...]) -> NegotiationError:
    """Message 5 or 6 makes no sense under our key (guide chapter 15, first row)."""
    return NegotiationError(
        "preshared key",
        PSK_MISMATCH_TEXT,
        rows=(*rows, ("ikev1-psk-mismatch-suspected", {})),
        notify=NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
        notify_row=("ikev1-psk-notify-unequal-payload-lengths", {"notify": "UNEQUAL_PAYLOAD_LENGTHS"}),
    )
