"""What main mode and aggressive mode share (RFC 2409 5.1, 5.2, 5.4): proposals, vendor IDs, NAT-D, authentication.

Authentication is by preshared key (HASH) or RSA signature (SIG and certificates). The responder finds its
connection by the peer's identity, which must be the one that is expected (guide chapter 5, 6.4.1). The lines
that a refusal logs are those of the guide's table 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

from cryptography import x509

from chassis.ase.ike.connections import Connection
from chassis.ase.ike.credentials import CertificateError
from chassis.ase.ike.crypto.ikev1 import equal
from chassis.ase.ike.crypto.signatures import v1_sign, v1_verify
from chassis.ase.ike.errors import NegotiationError, Row
from chassis.ase.ike.host import SessionPart
from chassis.ase.ike.identity import IkeIdentity, printable
from chassis.ase.ike.ike_proposals import NoMatch, choose_v1
from chassis.ase.ike.on_demand import OnDemandGroup
from chassis.ase.ike.payloads.numbers import CertEncoding, ExchangeType, IdType, NotifyTypeV1
from chassis.ase.ike.payloads.v1 import (
    CertReqV1,
    CertV1,
    Hash,
    IdV1,
    KeV1,
    NatD,
    NonceV1,
    PayloadV1,
    Signature,
    VendorV1,
)
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.v1 import keymat
from chassis.ase.ike.v1.isakmp_sa import IsakmpSa, Phase1Event, Phase1State
from chassis.ase.ike.v1.keymat import IncomingMessage, Phase1Negotiation, exactly_one
from chassis.bus.messages import PeerAnswer
from chassis.model.ike import IkeProposal

MAX_CERTIFICATES: Final = 8
"""Certificates, and requests for them, in one message (count)."""

VENDORS: Final = (keymat.NAT_T_VENDOR, keymat.DPD_VENDOR)

_MODE_NAMES: Final = MappingProxyType({"main": "MAIN_MODE", "aggressive": "AGGRESSIVE_MODE"})

_SUFFIXES: Final = MappingProxyType(
    {
        IdType.DER_ASN1_DN: "dn",
        IdType.IPV4_ADDR: "ipv4",
        IdType.USER_FQDN: "user-fqdn",
        IdType.FQDN: "fqdn",
    }
)

Handler = Callable[[IncomingMessage], Phase1Event | None]


class Phase1Exchange(SessionPart[IsakmpSa], ABC):
    """One phase 1 on the ISAKMP SA `sa`.

    A handler takes one message in the one state in which it is due, sends the next message, and returns the event.
    It returns None to drop a message that is not the one that is due.
    """

    __slots__ = ()

    @property
    def phase1(self) -> Phase1Negotiation:
        """What both ends have agreed so far."""
        return self.sa.phase1

    @abstractmethod
    def handlers(self) -> dict[Phase1State, Handler]:
        """Return the handler of the next message of the peer, by state."""

    def on_peer_answer(self, answer: PeerAnswer, now: float) -> Phase1Event:
        """Go on with the controller's answer to a question of this exchange; only aggressive mode asks any.

        Raises:
            NegotiationError: the peer is refused.
        """
        raise AssertionError("no question was asked")

    @abstractmethod
    def start(self, connection: Connection, now: float) -> Phase1Event:
        """Send message 1."""

    # --- proposals, capabilities, NAT ---

    def eligible_connections(self, mode: str) -> tuple[Connection, ...]:
        """Return the connections that a peer at this address may open in this mode (B-033, S-038).

        Raises:
            NegotiationError: there is none.
        """
        path = self.sa.path
        group = self.sa.host.group(path.context, path.local, path.remote, 1)
        members = () if group is None else group.members
        answering = tuple([one for one in members if one.enabled and one.may_respond and not one.config_error])
        if not answering and self.on_demand is not None:
            if mode != "aggressive":
                raise _wrong_mode(mode, "aggressive")
            return ()
        if not answering:
            raise NegotiationError("no matching connection", "no IKEv1 connection answers this peer")
        if len(members) == 1:
            self.sa.connection = members[0]
        fitting = tuple([one for one in answering if one.policy.mode == mode])
        if not fitting and (mode != "aggressive" or self.on_demand is None):
            raise _wrong_mode(mode, answering[0].policy.mode)
        self.phase1.group = group
        self.phase1.members = fitting
        return fitting

    @property
    def on_demand(self) -> OnDemandGroup | None:
        """The on-demand tunnels of our address, whose peers are known by their identities alone."""
        path = self.sa.path
        return self.sa.host.on_demand(path.context, path.local, 1)

    def store_choice(self, payloads: tuple[PayloadV1, ...], proposals: Sequence[IkeProposal]) -> None:
        """Store the transform that the responder chose.

        Raises:
            NegotiationError: it is not one of those that were offered, as they were offered.
        """
        answer = exactly_one(payloads, SaV1)
        found = choose_v1(answer, proposals, strict_lifetime=self.sa.host.settings.strict_lifetime)
        if isinstance(found, NoMatch) or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
            text = "the peer chose what was not offered"
            raise NegotiationError("no proposal chosen", text, notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
        self.phase1.choice = found

    def ke_and_nonce(self) -> tuple[KeV1, NonceV1]:
        """Make our public value and nonce in the chosen group, and return their payloads."""
        phase1 = self.phase1
        phase1.make_ke_and_nonce(self.sa.host.random, self.sa.initiator)
        if self.sa.initiator:
            return KeV1(phase1.g_i), NonceV1(phase1.ni)
        return KeV1(phase1.g_r), NonceV1(phase1.nr)

    def store_ke_and_nonce(self, payloads: tuple[PayloadV1, ...]) -> None:
        """Store the peer's public value and nonce.

        Raises:
            NegotiationError: one of them is missing.
        """
        phase1 = self.phase1
        public, nonce = exactly_one(payloads, KeV1).public, exactly_one(payloads, NonceV1).value
        if self.sa.initiator:
            phase1.g_r, phase1.nr = public, nonce
        else:
            phase1.g_i, phase1.ni = public, nonce

    def store_peer_vendors(self, payloads: tuple[PayloadV1, ...]) -> None:
        """Store which extensions the peer has: NAT traversal (RFC 3947), dead peer detection (RFC 3706)."""
        known = {one.id for one in payloads if isinstance(one, VendorV1)}
        self.phase1.nat_t |= keymat.NAT_T_VENDOR.id in known
        self.phase1.dpd |= keymat.DPD_VENDOR.id in known

    def store_nat_result(self, payloads: tuple[PayloadV1, ...], message: IncomingMessage) -> None:
        """Store which end is behind a NAT, if the peer has NAT traversal."""
        if self.phase1.nat_t:
            self.phase1.detect_nat([one for one in payloads if isinstance(one, NatD)], message.path)

    def nat_payloads(self) -> tuple[PayloadV1, ...]:
        """Return our NAT-D payloads; none if the peer has no NAT traversal."""
        return self.phase1.nat_d_payloads(self.sa.path) if self.phase1.nat_t else ()

    def move_to_nat_port(self) -> None:
        """Send the next messages on port 4500 if there is a NAT (RFC 3947 4); the initiator does."""
        if self.sa.nat_detected and not self.sa.path.on_nat_port:
            self.sa.path = self.sa.path.floated()

    # --- our authentication ---

    def cert_requests(self) -> tuple[CertReqV1, ...]:
        """Return a CERTREQ for each trusted authority; nothing with preshared keys."""
        phase1 = self.phase1
        if phase1.by_psk:
            return ()
        credentials = next((one.credentials for one in phase1.members if one.credentials is not None), None)
        names = () if credentials is None else credentials.names
        return tuple([CertReqV1(CertEncoding.X509_SIGNATURE, name) for name in names[:MAX_CERTIFICATES]])

    def auth_payloads(self, connection: Connection) -> tuple[IdV1, tuple[PayloadV1, ...]]:
        """Return (our ID payload, what authenticates it: HASH, or certificates and SIG).

        Raises:
            NegotiationError: there is no certificate that can sign.
        """
        own = connection.identity.v1()
        digest = self.phase1.auth_hash(self.sa.initiator, own.emit())
        if self.phase1.by_psk:
            return own, (Hash(digest),)
        credentials, wall = connection.credentials, self.sa.host.wall_clock
        found = None if credentials is None else credentials.select(connection.identity, wall)
        if found is None:
            raise NegotiationError(
                "no certificate",
                "there is no self certificate with its key in the PKI store of the context",
                notify=NotifyTypeV1.CERTIFICATE_UNAVAILABLE,
            )
        certificates = tuple([CertV1(CertEncoding.X509_SIGNATURE, der) for der in found.ders])
        try:
            signature = v1_sign(found.key, digest)
        except ValueError as error:
            size, name = found.key.key_size, self.phase1.hash_name
            raise NegotiationError(
                "no certificate",
                f"our certificate's key of {size} bits is too short to sign {name}",
                notify=NotifyTypeV1.CERTIFICATE_UNAVAILABLE,
            ) from error
        return own, (*certificates, Signature(signature))

    # --- the peer's authentication ---

    def is_psk_hash_valid(self, received: Hash | None, claimed: IdV1) -> bool:
        """Return whether the peer's HASH, if there is one, authenticates its ID payload."""
        digest = self.phase1.auth_hash(not self.sa.initiator, claimed.emit())
        return received is not None and equal(received.value, digest)

    def authenticate_peer(self, payloads: Sequence[PayloadV1], claimed: IdV1) -> tuple[Connection, IkeIdentity]:
        """Return the connection that the peer means, and its identity.

        Call it when the HASH of a preshared key is valid; a signature is verified here.

        Raises:
            NegotiationError: the signature or a certificate is not valid, or no connection expects the identity.
        """
        phase1 = self.phase1
        identity = IkeIdentity.received(claimed)
        certified: tuple[IkeIdentity, ...] | None = None
        provisional = phase1.members[0]
        if not phase1.by_psk:
            certified = self._check_signature(provisional, payloads, claimed)
        if self.sa.initiator:
            found = [one for one in phase1.members if one.expected.same(identity)]
        else:
            found = self.matching_connections(identity)
            if phase1.by_psk:
                # The key was chosen by address, before the peer sent its identity: it must be that identity's.
                found = [one for one in found if one.psk == provisional.psk]
        if not found:
            if certified is None:
                raise unexpected_psk_identity(identity, encrypted=True)
            raise self.unexpected_certified_identity(identity, certified, encrypted=True)
        if certified is not None:
            self._check_certified_identity(found[0], identity, certified)
        return found[0], identity

    def set_authenticated(
        self, connection: Connection, identity: IkeIdentity, payloads: tuple[PayloadV1, ...]
    ) -> None:
        """Store the authenticated peer, and whether it sent INITIAL-CONTACT."""
        self.sa.connection = connection
        self.sa.peer_identity = identity
        self.store_initial_contact(payloads)

    def store_initial_contact(self, payloads: tuple[PayloadV1, ...]) -> None:
        """Remember an INITIAL-CONTACT until the SA is established."""
        self.phase1.peer_initial_contact |= keymat.has_initial_contact(payloads)

    def matching_connections(self, identity: IkeIdentity) -> list[Connection]:
        """Return the eligible connections that expect this identity and have the chosen proposal, if one was."""
        phase1 = self.phase1
        if phase1.choice is not None and phase1.members[0].is_candidate:
            return list(phase1.members)  # They were chosen by the identity.
        known = () if phase1.group is None else phase1.group.by_identity.get(identity.key, ())
        allowed = {id(member) for member in phase1.members}
        return [
            one
            for one in known
            if id(one) in allowed and (phase1.choice is None or phase1.choice.proposal in one.proposals)
        ]

    def _check_signature(
        self, connection: Connection, payloads: Sequence[PayloadV1], claimed: IdV1
    ) -> tuple[IkeIdentity, ...]:
        """Return the identities in the peer's certificate, if its SIG is valid.

        Raises:
            NegotiationError: the signature or a certificate is not valid. In main mode it is final, because the
                message came under the keys; in aggressive mode anybody may have sent it.
        """
        final = self.phase1.mode == ExchangeType.MAIN_MODE

        def error_of(cause: str, text: str, notify: int) -> NegotiationError:
            return NegotiationError(cause, text, notify=notify, encrypted=final, final=final)

        certificates = [one for one in payloads if isinstance(one, CertV1)]
        ders = tuple([one.data for one in certificates if one.encoding == CertEncoding.X509_SIGNATURE])
        if not ders:
            raise error_of("certificate", "the peer sent no certificate", NotifyTypeV1.CERTIFICATE_UNAVAILABLE)
        if connection.credentials is None or len(ders) > MAX_CERTIFICATES:
            text = "the peer's certificates are not accepted"
            raise error_of("certificate", text, NotifyTypeV1.INVALID_CERTIFICATE)
        try:
            verified = connection.credentials.verify(ders, self.sa.host.wall_clock)
        except CertificateError as error:
            text = f"the peer's certificate: {error}"
            raise error_of("certificate", text, NotifyTypeV1.INVALID_CERTIFICATE) from error
        signature = exactly_one(payloads, Signature)
        digest = self.phase1.auth_hash(not self.sa.initiator, claimed.emit())
        if not v1_verify(verified.public_key, digest, signature.value):
            raise error_of("signature", "the peer's signature does not verify", NotifyTypeV1.INVALID_SIGNATURE)
        return tuple(verified.identities)

    def unexpected_certified_identity(
        self, identity: IkeIdentity, certified: Sequence[IkeIdentity] | None, *, encrypted: bool
    ) -> NegotiationError:
        """Return the error for an ID payload that is not configured, with certificates.

        For an initiator, the one policy that it uses does not match. For a responder, no policy matches; the guide
        has lines of their own for dial-in users (`_row_prefix`).
        `certified` None: the certificate has not come yet.
        """
        values = {"id_type": identity.type_name, "id": display_identity(identity)}
        prefix = self._row_prefix()
        if self.sa.initiator:
            rows: list[Row] = [("ikev1-cert-id-payload-policy", values)]
        else:
            suffix = _SUFFIXES.get(IdType(identity.id_type), "fqdn")
            rows = [(f"{prefix}-{suffix}", values)]
        members = self.phase1.members
        if certified is not None and not any(one.expected.same(name) for one in members for name in certified):
            rows.append((f"{prefix}-no-cert", {"count": 1}))
        text = f"the peer says that it is {identity}, which is not configured"
        return self._invalid_id(text, rows, encrypted=encrypted)

    def _check_certified_identity(
        self, connection: Connection, claimed: IkeIdentity, certified: Sequence[IkeIdentity]
    ) -> None:
        """Check that the certificate has the remote identity, if `validate-certificate-identity` is on (B-045).

        Raises:
            NegotiationError: it has not.
        """
        if not connection.policy.validate_certificate_identity:
            return
        if any(connection.expected.same(name) for name in certified):
            return
        alike = next((name for name in certified if name.id_type == claimed.id_type), None)
        if alike is None:
            row: Row = (f"{self._row_prefix()}-no-cert", {"count": 1})
        else:
            row = (
                "ikev1-cert-id-payload-cert",
                {
                    "id_type": claimed.type_name,
                    "id": display_identity(claimed),
                    "cert_id_type": alike.type_name,
                    "cert_id": display_identity(alike),
                },
            )
        text = f"the peer's certificate does not say {connection.expected}"
        raise self._invalid_id(text, [row], encrypted=True)

    def _invalid_id(self, text: str, rows: Sequence[Row], *, encrypted: bool) -> NegotiationError:
        return NegotiationError(
            "identity",
            text,
            rows=tuple(rows),
            notify=NotifyTypeV1.INVALID_ID_INFORMATION,
            notify_row=(f"{self._row_prefix()}-notify-invalid-id", {"notify": "INVALID_ID_INFORMATION"}),
            encrypted=encrypted,
            final=encrypted,
        )

    def _row_prefix(self) -> str:
        """Return the prefix of the ids of the guide's texts about identities in certificates.

        A dial-in user is a peer that opens in aggressive mode at an address of ours with on-demand tunnels.
        """
        answers = not self.sa.initiator and self.phase1.mode == ExchangeType.AGGRESSIVE_MODE
        return "ikev1-cert-id-dialin" if answers and self.on_demand is not None else "ikev1-cert-id"


def _wrong_mode(received: str, configured: str) -> NegotiationError:
    """Return the error for a peer that opens in another mode than the configured one."""
    values = {"received": _MODE_NAMES[received], "configured": _MODE_NAMES[configured]}
    row: Row = ("ikev1-p1-xchange-type-mismatch", values)
    text = f"the peer initiates {received} mode, but {_MODE_NAMES[configured]} is configured"
    return NegotiationError("exchange mode", text, rows=(row,), notify=NotifyTypeV1.UNSUPPORTED_EXCHANGE_TYPE)


def unexpected_psk_identity(identity: IkeIdentity, *, encrypted: bool) -> NegotiationError:
    """Return the error for an ID payload that is not configured, with preshared keys."""
    id_ = "ikev1-psk-id-ipv4" if identity.id_type == IdType.IPV4_ADDR else "ikev1-psk-id-fqdn"
    row: Row = (id_, {"id_type": identity.type_name, "id": display_identity(identity)})
    return NegotiationError(
        "identity",
        f"the peer says that it is {identity}, which is not configured",
        rows=(row,),
        notify=NotifyTypeV1.INVALID_ID_INFORMATION,
        encrypted=encrypted,
        final=encrypted,
    )


def display_identity(identity: IkeIdentity) -> str:
    """Return an identity as table 5 prints it, distinguished names with slashes; any octets of a peer are safe."""
    if identity.id_type == IdType.DER_ASN1_DN:
        try:
            rdns = x509.Name.from_bytes(identity.data).rdns
            return printable("".join([f"/{rdn.rfc4514_string()}" for rdn in rdns]))
        except (ValueError, AttributeError, TypeError):
            return str(identity)
    return str(identity)
