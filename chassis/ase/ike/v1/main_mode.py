"""Main mode (RFC 2409 5.1, 5.4): six messages, MM1 to MM6; the identities are encrypted."""

from __future__ import annotations

from chassis.ase.ike.connections import Connection
from chassis.ase.ike.crypto.ikev1 import decrypt_payloads
from chassis.ase.ike.errors import NegotiationError, Row, malformed_v1, no_ike_proposal_v1
from chassis.ase.ike.ike_proposals import NoMatch, choose_v1, offer_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import Hash, IdV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.v1.isakmp_sa import PSK_MISMATCH_TEXT, Phase1Event, Phase1State
from chassis.ase.ike.v1.keymat import IncomingMessage, cleartext_payloads, exactly_one, is_encrypted, sa_body
from chassis.ase.ike.v1.phase1_exchange import VENDORS, Handler, Phase1Exchange


class MainMode(Phase1Exchange):
    """One main mode: the initiator handles MM2, MM4 and MM6, the responder MM1, MM3 and MM5."""

    __slots__ = ()

    def handlers(self) -> dict[Phase1State, Handler]:
        return {
            Phase1State.IDLE: self.on_mm1,
            Phase1State.MM1_SENT: self.on_mm2,
            Phase1State.MM2_SENT: self.on_mm3,
            Phase1State.MM3_SENT: self.on_mm4,
            Phase1State.MM4_SENT: self.on_mm5,
            Phase1State.MM5_SENT: self.on_mm6,
        }

    # --- initiator ---

    def start(self, connection: Connection, now: float) -> Phase1Event:
        """Send MM1: our proposals and vendor IDs."""
        offer = offer_v1(connection.proposals)
        self.phase1.sa_i = offer.emit()
        self.sa.send_phase_1((offer, *VENDORS), now, wait=True)
        return Phase1Event.BEGIN_MAIN

    def on_mm2(self, message: IncomingMessage) -> Phase1Event | None:
        """MM2, the chosen proposal: send MM3, our KE, nonce and NAT-D."""
        if is_encrypted(message):
            return None
        payloads = cleartext_payloads(message)
        self.store_choice(payloads, self.phase1.members[0].proposals)
        self.store_peer_vendors(payloads)
        self.phase1.cky_r = message.header.spi_r
        values = self.ke_and_nonce()
        self.sa.send_phase_1((*values, *self.cert_requests(), *self.nat_payloads()), message.now, wait=True)
        return Phase1Event.MM2_RECEIVED

    def on_mm4(self, message: IncomingMessage) -> Phase1Event | None:
        """MM4, the responder's KE, nonce and NAT-D: send MM5, our identity and authentication."""
        if is_encrypted(message):
            return None
        payloads = cleartext_payloads(message)
        self.store_ke_and_nonce(payloads)
        connection = self.phase1.members[0]
        self.phase1.derive(connection.psk, True)
        self.store_nat_result(payloads, message)
        self.move_to_nat_port()
        own, auth = self.auth_payloads(connection)
        contact = self.sa.initial_contact_notify(connection)
        self.sa.send_phase_1((own, *auth, *contact), message.now, encrypted=True, wait=True)
        return Phase1Event.KE_RECEIVED

    def on_mm6(self, message: IncomingMessage) -> Phase1Event | None:
        """MM6, the responder's identity and authentication."""
        payloads, claimed = self._decrypt_auth(message)
        connection, identity = self.authenticate_peer(payloads, claimed)
        self.set_authenticated(connection, identity, payloads)
        return Phase1Event.AUTH_RECEIVED

    # --- responder ---

    def on_mm1(self, message: IncomingMessage) -> Phase1Event | None:
        """MM1, the initiator's proposals: send MM2, the chosen one."""
        if is_encrypted(message):
            return None
        members = self.eligible_connections("main")
        payloads = cleartext_payloads(message)
        self.phase1.sa_i = sa_body(message, payloads)
        ours = dict.fromkeys([proposal for one in members for proposal in one.proposals])
        strict = self.sa.host.settings.strict_lifetime
        found = choose_v1(exactly_one(payloads, SaV1), tuple(ours), strict_lifetime=strict)
        if isinstance(found, NoMatch):
            raise no_ike_proposal_v1(found)
        self.phase1.choice = found
        self.phase1.members = tuple([one for one in members if found.proposal in one.proposals])
        self.store_peer_vendors(payloads)
        self.sa.send_phase_1((found.answer, *VENDORS), message.now)
        return Phase1Event.MM1_RECEIVED

    def on_mm3(self, message: IncomingMessage) -> Phase1Event | None:
        """MM3, the initiator's KE, nonce and NAT-D: send MM4, ours."""
        if is_encrypted(message):
            return None
        payloads = cleartext_payloads(message)
        self.store_ke_and_nonce(payloads)
        self.store_nat_result(payloads, message)
        self.sa.path = message.path
        values = self.ke_and_nonce()
        self.sa.send_phase_1((*values, *self.cert_requests(), *self.nat_payloads()), message.now)
        return Phase1Event.KE_RECEIVED

    def on_mm5(self, message: IncomingMessage) -> Phase1Event | None:
        """MM5, the initiator's identity and authentication: send MM6, ours.

        The preshared key is the one configured for the peer's address, because the identity is encrypted with it
        (RFC 2409 5.4). The Diffie-Hellman secret is computed only now, when the peer has shown that it receives.
        """
        if self.phase1.keys is None:
            self.phase1.derive(self.phase1.members[0].psk, False)
        payloads, claimed = self._decrypt_auth(message)
        connection, identity = self.authenticate_peer(payloads, claimed)
        self.sa.path = message.path
        own, auth = self.auth_payloads(connection)
        self.set_authenticated(connection, identity, payloads)
        contact = self.sa.initial_contact_notify(connection)
        self.sa.send_phase_1((own, *auth, *contact), message.now, encrypted=True)
        return Phase1Event.AUTH_RECEIVED

    # --- both ---

    def _decrypt_auth(self, message: IncomingMessage) -> tuple[tuple[PayloadV1, ...], IdV1]:
        """Return (payloads, ID payload) of MM5 or MM6; with preshared keys the HASH is valid.

        Raises:
            NegotiationError: the message is not encrypted, does not decrypt, or the HASH is not valid.
        """
        phase1 = self.phase1
        assert phase1.chain is not None
        if not is_encrypted(message):
            text = "the authentication is not encrypted"
            raise NegotiationError("malformed", text, notify=NotifyTypeV1.INVALID_FLAGS)
        try:
            payloads, _, after = decrypt_payloads(phase1.chain, message.data, message.header)
            claimed = exactly_one(payloads, IdV1)
            if phase1.by_psk and not self.is_psk_hash_valid(exactly_one(payloads, Hash), claimed):
                raise _psk_mismatch(())
        except PayloadError as error:
            if not phase1.by_psk:
                raise malformed_v1(error) from error
            rows: tuple[Row, ...] = ()
            if error.log == "ikev1-psk-payload-length":
                rows = ((error.log, error.values),)
            raise _psk_mismatch(rows) from error
        phase1.chain = after
        self.store_initial_contact(payloads)
        return payloads, claimed


def _psk_mismatch(rows: tuple[Row, ...]) -> NegotiationError:
    """Return the error for an MM5 or MM6 that does not decrypt under our key (guide chapter 15, first row)."""
    return NegotiationError(
        "preshared key",
        PSK_MISMATCH_TEXT,
        rows=(*rows, ("ikev1-psk-mismatch-suspected", {})),
        notify=NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
        notify_row=("ikev1-psk-notify-unequal-payload-lengths", {"notify": "UNEQUAL_PAYLOAD_LENGTHS"}),
    )
