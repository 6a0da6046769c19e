"""Aggressive mode (RFC 2409 5.1, 5.4): three messages, identities in clear, the key found by identity."""

from __future__ import annotations

from chassis.ase.ike.connection import Connection
from chassis.ase.ike.crypto.ikev1 import decrypt_payloads, equal
from chassis.ase.ike.errors import NegotiationError, no_ike_proposal_v1
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import Hash, IdV1, KeV1, NonceV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.proposals import NoMatch, choose_v1, offer_v1
from chassis.ase.ike.v1 import main_mode, phase1_exchange
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, IsakmpSa, Phase1Event
from chassis.ase.ike.v1.keymat import (
    PSK,
    IncomingMessage,
    cleartext_payloads,
    exactly_one,
    first_of_type,
    is_encrypted,
    offered_method,
    sa_body,
)
from chassis.model.ike import IkeProposal

# --- initiator ---


def send_am1(session: IsakmpSa, connection: Connection, now: float) -> Phase1Event:
    """Message 1. The group cannot be negotiated: proposals of another group than the first are left out."""
    offer = offer_v1(_one_group(connection))
    handshake = session.phase1
    handshake.sa_i = offer.emit()
    # The group is all that is needed of a choice to make our values; the answer brings the real one.
    chosen = choose_v1(offer, connection.proposals, strict_lifetime=False)
    assert not isinstance(chosen, NoMatch)
    handshake.choice = chosen
    handshake.make_ke_and_nonce(session.host.random, True)
    requests = phase1_exchange.cert_requests(session)
    payloads: tuple[PayloadV1, ...] = (
        offer,
        KeV1(handshake.g_i),
        NonceV1(handshake.ni),
        connection.identity.v1(),
        *requests,
        *main_mode.VENDORS,
    )
    session.send_phase_1(payloads, now, wait=True)
    return Phase1Event.BEGIN_AGGRESSIVE


def _one_group(connection: Connection) -> list[IkeProposal]:
    first = connection.proposals[0]
    return [one for one in connection.proposals if one.dh_group == first.dh_group]


def on_am2(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 2: the responder's values, identity and proof. Message 3: our proof."""
    if is_encrypted(message):
        return None
    payloads = cleartext_payloads(message)
    handshake = session.phase1
    connection = handshake.members[0]
    main_mode.store_choice(session, payloads, _one_group(connection))
    main_mode.store_peer_vendors(session, payloads)
    handshake.cky_r = message.header.spi_r
    handshake.g_r, handshake.nr = exactly_one(payloads, KeV1).public, exactly_one(payloads, NonceV1).value
    claimed = exactly_one(payloads, IdV1)
    handshake.derive(connection.psk, True)
    _check_hash(session, payloads, claimed)
    connection, identity = phase1_exchange.authenticate_peer(session, payloads, claimed)
    main_mode.store_nat_result(session, payloads, message)
    if (handshake.behind_nat or handshake.peer_behind_nat) and not session.path.encapsulated:
        session.path = session.path.floated()
    _, proof = phase1_exchange.auth_payloads(session, connection)
    session.set_authenticated(connection, identity, payloads)
    last = (*proof, *main_mode.nat_payloads(session), *session.initial_contact_notify(connection))
    session.send_phase_1(last, message.now, encrypted=True)
    return Phase1Event.AM2_RECEIVED


# --- responder ---


def on_am1(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 1: the initiator's proposals, values and identity. Message 2: ours, with our proof."""
    if is_encrypted(message):
        return None
    members = main_mode.eligible_connections(session, "aggressive")
    payloads = cleartext_payloads(message)
    handshake = session.phase1
    handshake.sa_i = sa_body(message, payloads)
    offer = exactly_one(payloads, SaV1)
    claimed = exactly_one(payloads, IdV1)
    identity = Identity.received(claimed)
    found = phase1_exchange.matching_connections(handshake, identity)
    strict = session.host.settings.strict_lifetime
    # Proposals are judged first: which method was meant decides which lines an unknown identity gets.
    ours = dict.fromkeys([proposal for one in found or members for proposal in one.proposals])
    chosen = choose_v1(offer, tuple(ours), strict_lifetime=strict)
    if isinstance(chosen, NoMatch):
        raise no_ike_proposal_v1(chosen)
    if not found:
        if offered_method(chosen.answer) == PSK:
            raise phase1_exchange.unexpected_psk(identity, protected=False)
        raise phase1_exchange.unexpected_certified(session, identity, None, protected=False)
    handshake.choice = chosen
    handshake.members = tuple([one for one in found if chosen.proposal in one.proposals])
    connection = handshake.members[0]
    main_mode.store_peer_vendors(session, payloads)
    handshake.g_i, handshake.ni = exactly_one(payloads, KeV1).public, exactly_one(payloads, NonceV1).value
    handshake.make_ke_and_nonce(session.host.random, False)
    handshake.derive(connection.psk, False)
    session.claimed_id = claimed
    own, proof = phase1_exchange.auth_payloads(session, connection)
    reply = (
        chosen.answer,
        KeV1(handshake.g_r),
        NonceV1(handshake.nr),
        own,
        *proof,
        *phase1_exchange.cert_requests(session),
        *main_mode.VENDORS,
        *main_mode.nat_payloads(session),
    )
    session.send_phase_1(reply, message.now, wait=True)
    return Phase1Event.AM1_RECEIVED


def on_am3(session: IsakmpSa, message: IncomingMessage) -> Phase1Event | None:
    """Message 3: the initiator's proof, encrypted or not (RFC 2409 5.4 leaves it open)."""
    handshake = session.phase1
    assert handshake.chain is not None
    assert session.claimed_id is not None
    after = handshake.chain
    if is_encrypted(message):
        payloads, _, after = decrypt_payloads(handshake.chain, message.data, message.header)
    else:
        payloads = cleartext_payloads(message)
    _check_hash(session, payloads, session.claimed_id)
    try:
        connection, identity = phase1_exchange.authenticate_peer(session, payloads, session.claimed_id)
    except NegotiationError as error:
        if error.encrypted:
            # It is the peer's own message: what is said to it under the keys comes after that one.
            handshake.chain = after
        raise
    main_mode.store_nat_result(session, payloads, message)
    handshake.chain = after
    session.path = message.path
    session.store_initial_contact(payloads)
    session.set_authenticated(connection, identity, payloads)
    return Phase1Event.AUTH_RECEIVED


def _check_hash(session: IsakmpSa, payloads: tuple[PayloadV1, ...], claimed: IdV1) -> None:
    """With preshared keys: the peer's HASH."""
    handshake = session.phase1
    if not handshake.by_psk:
        return
    received = first_of_type(payloads, Hash)
    digest = handshake.auth_hash(not session.initiator, claimed.emit())
    if received is None or not equal(received.value, digest):
        raise NegotiationError(
            "preshared key",
            f"the peer's HASH does not verify: {PSK_MISMATCH_TEXT}",
            notify=NotifyTypeV1.INVALID_HASH_INFORMATION,
        )
