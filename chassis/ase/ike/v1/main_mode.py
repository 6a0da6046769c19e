"""Main mode (RFC 2409 5.1, 5.4): what each of its six messages holds, and what it leads to.

Each function takes one message in the one state where it is due, sends what follows, and names the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chassis.ase.ike.connection import Connection
from chassis.ase.ike.crypto.ikev1 import open_payloads
from chassis.ase.ike.errors import NegotiationError, Row, malformed_v1, no_ike_proposal_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import IdV1, KeV1, NatD, NonceV1, NotifyV1, PayloadV1, VendorV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.proposals import NoMatch, choose_v1, offer_v1
from chassis.ase.ike.v1 import dpd, keymat, phase1_exchange
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, Phase1Event
from chassis.ase.ike.v1.keymat import Incoming, in_clear, is_encrypted, only, sa_body
from chassis.model.ike import IkeProposal

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

MODE_NAMES = {"main": "MAIN_MODE", "aggressive": "AGGRESSIVE_MODE"}
VENDORS = (keymat.NAT_T_VENDOR, dpd.DPD_VENDOR)


def note_vendors(session: SessionV1, payloads: tuple[PayloadV1, ...]) -> None:
    """What the peer can do beyond RFC 2409."""
    known = {one.id for one in payloads if isinstance(one, VendorV1)}
    session.handshake.nat |= keymat.NAT_T_VENDOR.id in known
    session.handshake.dpd |= dpd.DPD_VENDOR.id in known


def note_nat(session: SessionV1, payloads: tuple[PayloadV1, ...], message: Incoming) -> None:
    """What the NAT-D payloads say of the way between us."""
    handshake = session.handshake
    if handshake.nat:
        found = [one for one in payloads if isinstance(one, NatD)]
        handshake.behind_nat, handshake.peer_behind_nat = keymat.detect_nat(
            found, handshake.hash_name, handshake.cky_i, handshake.cky_r, message.path
        )


def nat_payloads(session: SessionV1) -> tuple[PayloadV1, ...]:
    handshake = session.handshake
    if not handshake.nat:
        return ()
    return keymat.nat_d_payloads(handshake.hash_name, handshake.cky_i, handshake.cky_r, session.path)


def eligible(session: SessionV1, mode: str) -> tuple[Connection, ...]:
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
    session.handshake.group = group
    session.handshake.members = fitting
    return fitting


def check_answer(session: SessionV1, payloads: tuple[PayloadV1, ...], proposals: Sequence[IkeProposal]) -> None:
    """The responder's SA payload: one of the transforms that we offered, as we said it."""
    answer = only(payloads, SaV1)
    found = choose_v1(answer, proposals, strict_lifetime=session.host.settings.strict_lifetime)
    if isinstance(found, NoMatch) or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise NegotiationError(
            "no proposal chosen", "the peer chose what was not offered", notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX
        )
    session.handshake.choice = found


# --- initiator ---


def send_mm1(session: SessionV1, connection: Connection, now: float) -> Phase1Event:
    """Message 1: our proposals."""
    offer = offer_v1(connection.proposals)
    session.handshake.sa_i = offer.emit()
    session.send_phase_1((offer, *VENDORS), now, wait=True)
    return Phase1Event.BEGIN_MAIN


def on_mm2(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 2: the proposal that was chosen. Message 3: our values."""
    if is_encrypted(message):
        return None
    payloads = in_clear(message)
    check_answer(session, payloads, session.handshake.members[0].proposals)
    note_vendors(session, payloads)
    handshake = session.handshake
    handshake.cky_r = message.header.spi_r
    handshake.make_values(session.host.random, True)
    session.send_phase_1(
        (KeV1(handshake.g_i), NonceV1(handshake.ni), *phase1_exchange.requests(session), *nat_payloads(session)),
        message.now,
        wait=True,
    )
    return Phase1Event.MM2_RECEIVED


def on_mm4(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 4: the responder's values. Message 5: who we are, on port 4500 if there is a NAT (RFC 3947 4)."""
    if is_encrypted(message):
        return None
    payloads = in_clear(message)
    handshake = session.handshake
    handshake.g_r, handshake.nr = only(payloads, KeV1).public, only(payloads, NonceV1).value
    connection = handshake.members[0]
    handshake.derive(connection.psk, True)
    note_nat(session, payloads, message)
    if (handshake.behind_nat or handshake.peer_behind_nat) and not session.path.encapsulated:
        session.path = session.path.floated()
    own, proof = phase1_exchange.prove(session, connection)
    session.send_phase_1((own, *proof, *session.contact(connection)), message.now, encrypted=True, wait=True)
    return Phase1Event.KE_RECEIVED


def on_mm6(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 6: who the responder is."""
    payloads, claimed = _open_proof(session, message)
    connection, identity = phase1_exchange.accept(session, payloads, claimed)
    session.authenticated(connection, identity, payloads)
    return Phase1Event.AUTH_RECEIVED


# --- responder ---


def on_mm1(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 1: the initiator's proposals. Message 2: the one that is chosen."""
    if is_encrypted(message):
        return None
    members = eligible(session, "main")
    payloads = in_clear(message)
    handshake = session.handshake
    handshake.sa_i = sa_body(message, payloads)
    ours = dict.fromkeys([proposal for one in members for proposal in one.proposals])
    found = choose_v1(only(payloads, SaV1), tuple(ours), strict_lifetime=session.host.settings.strict_lifetime)
    if isinstance(found, NoMatch):
        raise no_ike_proposal_v1(found)
    handshake.choice = found
    handshake.members = tuple([one for one in members if found.proposal in one.proposals])
    note_vendors(session, payloads)
    session.send_phase_1((found.answer, *VENDORS), message.now)
    return Phase1Event.MM1_RECEIVED


def on_mm3(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 3: the initiator's values. Message 4: ours."""
    if is_encrypted(message):
        return None
    payloads = in_clear(message)
    handshake = session.handshake
    handshake.g_i, handshake.ni = only(payloads, KeV1).public, only(payloads, NonceV1).value
    note_nat(session, payloads, message)
    session.path = message.path
    handshake.make_values(session.host.random, False)
    session.send_phase_1(
        (KeV1(handshake.g_r), NonceV1(handshake.nr), *phase1_exchange.requests(session), *nat_payloads(session)),
        message.now,
    )
    return Phase1Event.KE_RECEIVED


def on_mm5(session: SessionV1, message: Incoming) -> Phase1Event | None:
    """Message 5: who the initiator is. Message 6: who we are.

    The key is the one that is configured for the peer's address: nothing else is known of it before this message
    is open (RFC 2409 5.4). The shared secret is computed only now, when the peer has shown that it receives.
    """
    handshake = session.handshake
    if handshake.keys is None:
        handshake.derive(handshake.members[0].psk, False)
    payloads, claimed = _open_proof(session, message)
    connection, identity = phase1_exchange.accept(session, payloads, claimed)
    session.path = message.path
    own, ours = phase1_exchange.prove(session, connection)
    session.authenticated(connection, identity, payloads)
    session.send_phase_1((own, *ours, *session.contact(connection)), message.now, encrypted=True)
    return Phase1Event.AUTH_RECEIVED


# --- both ---


def _open_proof(session: SessionV1, message: Incoming) -> tuple[tuple[PayloadV1, ...], IdV1]:
    """(payloads, ID payload) of message 5 or 6, decrypted; with preshared keys the HASH is right."""
    handshake = session.handshake
    assert handshake.chain is not None
    if not is_encrypted(message):
        raise NegotiationError(
            "malformed", "the proof of identity came in clear", notify=NotifyTypeV1.INVALID_FLAGS
        )
    try:
        payloads, _, after = open_payloads(handshake.chain, message.data, message.header)
        claimed = only(payloads, IdV1)
        if handshake.by_psk and not phase1_exchange.check_psk(handshake, not session.initiator, payloads, claimed):
            raise _keys_differ(())
    except PayloadError as error:
        if not handshake.by_psk:
            raise malformed_v1(error) from error
        rows: tuple[Row, ...] = ()
        if error.log == "ikev1-psk-payload-length":
            rows = ((error.log, error.values),)
        raise _keys_differ(rows) from error
    handshake.chain = after
    session.note_contact(payloads)
    return payloads, claimed


def _keys_differ(rows: tuple[Row, ...]) -> NegotiationError:
    """Message 5 or 6 makes no sense under our key (guide chapter 15, first row)."""
    return NegotiationError(
        "preshared key",
        PSK_MISMATCH_TEXT,
        rows=(*rows, ("ikev1-psk-mismatch-suspected", {})),
        notify=NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
        notify_row=("ikev1-psk-notify-unequal-payload-lengths", {"notify": "UNEQUAL_PAYLOAD_LENGTHS"}),
    )


def says_contact(payloads: tuple[PayloadV1, ...]) -> bool:
    """Whether INITIAL-CONTACT is among the payloads."""
    return any(isinstance(one, NotifyV1) and one.notify == NotifyTypeV1.INITIAL_CONTACT for one in payloads)
