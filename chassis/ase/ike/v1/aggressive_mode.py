"""Aggressive mode (RFC 2409 5.1, 5.4): three messages, AM1 to AM3; identities in clear, the key chosen by them."""

from __future__ import annotations

from chassis.ase.ike.connections import Connection
from chassis.ase.ike.crypto.ikev1 import decrypt_payloads
from chassis.ase.ike.errors import NegotiationError, no_ike_proposal_v1
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.ike_proposals import NoMatch, choose_v1, offer_v1
from chassis.ase.ike.payloads.chain import first_of_type
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import Hash, IdV1, NotifyV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.peer_questions import PeerRefusedError, instance_of, with_key
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, IsakmpSa, Phase1Event, Phase1State
from chassis.ase.ike.v1.keymat import (
    PSK,
    IncomingMessage,
    cleartext_payloads,
    exactly_one,
    is_encrypted,
    offered_method,
    sa_body,
)
from chassis.ase.ike.v1.phase1_exchange import VENDORS, Handler, Phase1Exchange, unexpected_psk_identity
from chassis.bus.messages import PeerAnswer
from chassis.model.ike import IkeProposal


class AggressiveMode(Phase1Exchange):
    """One aggressive mode: the initiator handles AM2, the responder AM1 and AM3."""

    __slots__ = ("_claimed", "_key_question")

    def __init__(self, sa: IsakmpSa) -> None:
        super().__init__(sa)
        self._claimed: IdV1 | None = None
        """The initiator's ID payload, not authenticated before AM3."""
        self._key_question = 0
        """Number of the question about the initiator's key; 0 if it was not asked."""

    def handlers(self) -> dict[Phase1State, Handler]:
        return {
            Phase1State.IDLE: self.on_am1,
            Phase1State.AM1_SENT: self.on_am2,
            Phase1State.AM2_SENT: self.on_am3,
        }

    # --- initiator ---

    def start(self, connection: Connection, now: float) -> Phase1Event:
        """Send AM1: our proposals, KE, nonce and identity.

        The group cannot be negotiated, because KE goes with the proposals: those of another group than the first
        are not offered.
        """
        offer = offer_v1(_one_group(connection))
        self.phase1.sa_i = offer.emit()
        # Only the group of this choice is used; AM2 brings the peer's choice.
        chosen = choose_v1(offer, connection.proposals, strict_lifetime=False)
        assert not isinstance(chosen, NoMatch)
        self.phase1.choice = chosen
        values = self.ke_and_nonce()
        own = connection.identity.v1()
        payloads: tuple[PayloadV1, ...] = (offer, *values, own, *self.cert_requests(), *VENDORS)
        self.sa.send_phase_1(payloads, now, wait=True)
        return Phase1Event.BEGIN_AGGRESSIVE

    def on_am2(self, message: IncomingMessage) -> Phase1Event | None:
        """AM2, the responder's choice, KE, nonce, identity and authentication: send AM3, our authentication."""
        if is_encrypted(message):
            return None
        payloads = cleartext_payloads(message)
        connection = self.phase1.members[0]
        self.store_choice(payloads, _one_group(connection))
        self.store_peer_vendors(payloads)
        self.phase1.cky_r = message.header.spi_r
        self.store_ke_and_nonce(payloads)
        claimed = exactly_one(payloads, IdV1)
        self.phase1.derive(connection.psk, True)
        self._check_hash(payloads, claimed)
        connection, identity = self.authenticate_peer(payloads, claimed)
        self.store_nat_result(payloads, message)
        self.move_to_nat_port()
        _, auth = self.auth_payloads(connection)
        self.set_authenticated(connection, identity, payloads)
        last = (*auth, *self.nat_payloads(), *self.sa.initial_contact_notify(connection))
        self.sa.send_phase_1(last, message.now, encrypted=True)
        return Phase1Event.AM2_RECEIVED

    # --- responder ---

    def on_am1(self, message: IncomingMessage) -> Phase1Event | None:
        """AM1, the initiator's proposals, KE, nonce and identity: send AM2, ours, with our authentication."""
        if is_encrypted(message):
            return None
        phase1 = self.phase1
        members = self.eligible_connections("aggressive")
        payloads = cleartext_payloads(message)
        phase1.sa_i = sa_body(message, payloads)
        offer = exactly_one(payloads, SaV1)
        claimed = exactly_one(payloads, IdV1)
        identity = IkeIdentity.received(claimed)
        found = self.matching_connections(identity)
        if not found and self.on_demand is not None:
            found = list(self.on_demand.matching(identity))
            members = (*members, *self.on_demand.connections)
        # Choose the proposal first: its method decides which lines the guide has for an unexpected identity.
        ours = dict.fromkeys([proposal for one in found or members for proposal in one.proposals])
        chosen = choose_v1(offer, tuple(ours), strict_lifetime=self.sa.host.settings.strict_lifetime)
        if isinstance(chosen, NoMatch):
            raise no_ike_proposal_v1(chosen)
        if not found:
            if offered_method(chosen.answer) == PSK:
                raise unexpected_psk_identity(identity, encrypted=False)
            raise self.unexpected_certified_identity(identity, None, encrypted=False)
        phase1.choice = chosen
        phase1.members = tuple([one for one in found if chosen.proposal in one.proposals])
        connection = phase1.members[0]
        self.store_peer_vendors(payloads)
        self.store_ke_and_nonce(payloads)
        self._claimed = claimed
        if connection.is_candidate:
            self.sa.connection = connection
            if connection.key_from_aaa and phase1.by_psk:
                self._key_question = self.sa.host.ask_key(self.sa, connection)
                if not self._key_question:
                    raise NegotiationError("too many questions", "too many peers wait for a key of AAA")
                return Phase1Event.KEY_ASKED
        return self._send_am2(message.now)

    def _send_am2(self, now: float) -> Phase1Event:
        """Derive the keys and send AM2."""
        phase1, connection = self.phase1, self.phase1.members[0]
        values = self.ke_and_nonce()
        phase1.derive(connection.psk, False)
        own, auth = self.auth_payloads(connection)
        reply = (phase1.chosen.answer, *values, own, *auth, *self.cert_requests(), *VENDORS, *self.nat_payloads())
        self.sa.send_phase_1(reply, now, wait=True)
        return Phase1Event.AM1_RECEIVED

    def on_am3(self, message: IncomingMessage) -> Phase1Event | None:
        """AM3, the initiator's authentication, encrypted or in clear (RFC 2409 5.4 leaves it open)."""
        phase1 = self.phase1
        assert phase1.chain is not None
        assert self._claimed is not None
        after = phase1.chain
        if is_encrypted(message):
            payloads, _, after = decrypt_payloads(phase1.chain, message.data, message.header)
        else:
            payloads = cleartext_payloads(message)
        self._check_hash(payloads, self._claimed)
        try:
            connection, identity = self.authenticate_peer(payloads, self._claimed)
        except NegotiationError as error:
            if error.encrypted:
                # The message is the peer's own, so the refusal under the keys follows it in the IV chain.
                phase1.chain = after
            raise
        self.store_nat_result(payloads, message)
        phase1.chain = after
        self.sa.path = message.path
        if connection.is_candidate:
            self.store_initial_contact(payloads)
            self.sa.on_admission_asked()
            self.sa.host.ask_admission(self.sa, connection, self._key_question, wants_address=False)
            return Phase1Event.ADMISSION_ASKED
        self.set_authenticated(connection, identity, payloads)
        return Phase1Event.AUTH_RECEIVED

    # --- peers of on-demand tunnels ---

    def on_peer_answer(self, answer: PeerAnswer, now: float) -> Phase1Event:
        """The key came: send AM2. The tunnel came: the peer, which sent AM3, has it.

        A peer that is not admitted has established its SA already: it gets a notification and a Delete under the
        keys.
        """
        candidate = self.phase1.members[0]
        admitting = self.sa.state is Phase1State.ADMISSION_ASKED
        try:
            if not admitting:
                self.phase1.members = (with_key(candidate, answer),)
                return self._send_am2(now)
            self.sa.connection = instance_of(self.sa.host, candidate, answer)
        except PeerRefusedError as refused:
            failed = NotifyTypeV1.AUTHENTICATION_FAILED
            if admitting:
                notify = NotifyV1(failed, Protocol.IKE, self.phase1.cookies)
                self.sa.send_informational((notify, self.sa.isakmp_sa_delete()), now)
                raise NegotiationError("not admitted", str(refused), final=True) from refused
            raise NegotiationError("not admitted", str(refused), notify=failed, final=True) from refused
        assert self._claimed is not None
        self.sa.peer_identity = IkeIdentity.received(self._claimed)
        return Phase1Event.AUTH_RECEIVED

    def _check_hash(self, payloads: tuple[PayloadV1, ...], claimed: IdV1) -> None:
        """Check the peer's HASH, with preshared keys.

        Raises:
            NegotiationError: it is missing or not valid.
        """
        if self.phase1.by_psk and not self.is_psk_hash_valid(first_of_type(payloads, Hash), claimed):
            raise NegotiationError(
                "preshared key",
                f"the peer's HASH does not verify: {PSK_MISMATCH_TEXT}",
                notify=NotifyTypeV1.INVALID_HASH_INFORMATION,
            )


def _one_group(connection: Connection) -> list[IkeProposal]:
    """Return the proposals with the Diffie-Hellman group of the first one."""
    first = connection.proposals[0]
    return [one for one in connection.proposals if one.dh_group == first.dh_group]
