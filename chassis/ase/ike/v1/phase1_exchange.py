"""Proofs of identity in phase 1, and whether the proved identity is the one that is expected (guide 5, 6.4.1).

A connection is found by the peer's identity; the lines that a refusal logs are those of the guide's table 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from cryptography import x509

from chassis.ase.ike.connection import Connection
from chassis.ase.ike.credentials import CertificateError
from chassis.ase.ike.crypto.ikev1 import equal
from chassis.ase.ike.crypto.signatures import v1_sign, v1_verify
from chassis.ase.ike.errors import NegotiationError, Row
from chassis.ase.ike.identity import Identity, printable
from chassis.ase.ike.payloads.numbers import CertEncoding, ExchangeType, IdType, NotifyTypeV1
from chassis.ase.ike.payloads.v1 import CertReqV1, CertV1, Hash, IdV1, PayloadV1, Signature
from chassis.ase.ike.v1.isakmp_sa import IsakmpSa
from chassis.ase.ike.v1.keymat import Phase1Negotiation, exactly_one

MAX_CERTIFICATES: Final = 8

_SUFFIXES: Final = MappingProxyType(
    {
        IdType.DER_ASN1_DN: "dn",
        IdType.IPV4_ADDR: "ipv4",
        IdType.USER_FQDN: "user-fqdn",
        IdType.FQDN: "fqdn",
    }
)


def display_identity(identity: Identity) -> str:
    """An identity as table 5 prints it: distinguished names with slashes. A stranger's may hold anything."""
    if identity.id_type == IdType.DER_ASN1_DN:
        try:
            rdns = x509.Name.from_bytes(identity.data).rdns
            return printable("".join([f"/{rdn.rfc4514_string()}" for rdn in rdns]))
        except (ValueError, AttributeError, TypeError):
            return str(identity)
    return str(identity)


# --- our own proof ---


def cert_requests(session: IsakmpSa) -> tuple[CertReqV1, ...]:
    """CERTREQ for each authority that we trust; nothing with preshared keys."""
    handshake = session.phase1
    if handshake.by_psk:
        return ()
    credentials = next((one.credentials for one in handshake.members if one.credentials is not None), None)
    names = () if credentials is None else credentials.names
    return tuple([CertReqV1(CertEncoding.X509_SIGNATURE, name) for name in names[:MAX_CERTIFICATES]])


def auth_payloads(session: IsakmpSa, connection: Connection) -> tuple[IdV1, tuple[PayloadV1, ...]]:
    """(our ID payload, what proves it: HASH, or certificates and SIG)."""
    handshake = session.phase1
    own = connection.identity.v1()
    digest = handshake.auth_hash(session.initiator, own.emit())
    if handshake.by_psk:
        return own, (Hash(digest),)
    found = None if connection.credentials is None else connection.credentials.select(connection.identity)
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
        raise NegotiationError(
            "no certificate",
            f"our certificate's key of {found.key.key_size} bits is too short to sign {handshake.hash_name}",
            notify=NotifyTypeV1.CERTIFICATE_UNAVAILABLE,
        ) from error
    return own, (*certificates, Signature(signature))


# --- the peer's proof ---


def is_psk_hash_valid(
    handshake: Phase1Negotiation, from_initiator: bool, payloads: Sequence[PayloadV1], claimed: IdV1
) -> bool:
    """Whether the peer's HASH is right."""
    received = exactly_one(payloads, Hash)
    return equal(received.value, handshake.auth_hash(from_initiator, claimed.emit()))


def check_signature(
    session: IsakmpSa, connection: Connection, payloads: Sequence[PayloadV1], claimed: IdV1
) -> tuple[Identity, ...]:
    """The identities in the peer's certificate, once its SIG is right; raises NegotiationError."""
    # In main mode this came under the keys, so it is the peer's last word; in aggressive mode it may be anybody's.
    sure = session.phase1.mode == ExchangeType.MAIN_MODE

    def stop(cause: str, text: str, notify: int) -> NegotiationError:
        return NegotiationError(cause, text, notify=notify, encrypted=sure, final=sure)

    ders = tuple(
        [one.data for one in payloads if isinstance(one, CertV1) and one.encoding == CertEncoding.X509_SIGNATURE]
    )
    if not ders:
        raise stop("certificate", "the peer sent no certificate", NotifyTypeV1.CERTIFICATE_UNAVAILABLE)
    if connection.credentials is None or len(ders) > MAX_CERTIFICATES:
        raise stop("certificate", "the peer's certificates are not accepted", NotifyTypeV1.INVALID_CERTIFICATE)
    try:
        verified = connection.credentials.verify(ders, session.host.wall)
    except CertificateError as error:
        raise stop("certificate", f"the peer's certificate: {error}", NotifyTypeV1.INVALID_CERTIFICATE) from error
    signature = exactly_one(payloads, Signature)
    digest = session.phase1.auth_hash(not session.initiator, claimed.emit())
    if not v1_verify(verified.public_key, digest, signature.value):
        raise stop("signature", "the peer's signature does not verify", NotifyTypeV1.INVALID_SIGNATURE)
    return tuple(verified.identities)


# --- whose it is ---


def matching_connections(handshake: Phase1Negotiation, identity: Identity) -> list[Connection]:
    """Members that expect this identity and have the proposal that was chosen, if it was already."""
    assert handshake.group is not None
    known = handshake.group.by_identity.get(identity.key, ())
    allowed = {id(member) for member in handshake.members}
    return [
        one
        for one in known
        if id(one) in allowed and (handshake.choice is None or handshake.choice.proposal in one.proposals)
    ]


def unexpected_psk(identity: Identity, *, protected: bool) -> NegotiationError:
    """Preshared keys: the identity is not the one that the policy expects."""
    id_ = "ikev1-psk-id-ipv4" if identity.id_type == IdType.IPV4_ADDR else "ikev1-psk-id-fqdn"
    row: Row = (id_, {"id_type": identity.type_name, "id": display_identity(identity)})
    return NegotiationError(
        "identity",
        f"the peer says that it is {identity}, which is not configured",
        rows=(row,),
        notify=NotifyTypeV1.INVALID_ID_INFORMATION,
        encrypted=protected,
        final=protected,
    )


def unexpected_certified(
    session: IsakmpSa, identity: Identity, certified: Sequence[Identity] | None, *, protected: bool
) -> NegotiationError:
    """Certificates: the identity in the ID payload is not configured.

    An initiator knows which policy it speaks for: that one does not fit. A responder has looked for one: none
    expects the peer. One that opens in aggressive mode is known by its identity alone, as dial-in users are, and
    the guide has lines of its own for these. `certified` None: the certificate has not come yet.
    """
    values = {"id_type": identity.type_name, "id": display_identity(identity)}
    kind = _row_prefix(session)
    if session.initiator:
        rows: list[Row] = [("ikev1-cert-id-payload-policy", values)]
    else:
        suffix = _SUFFIXES.get(IdType(identity.id_type), "fqdn")
        rows = [(f"{kind}-{suffix}", values)]
    members = session.phase1.members
    if certified is not None and not any(one.expected.same(name) for one in members for name in certified):
        rows.append((f"{kind}-no-cert", {"count": 1}))
    return _invalid_id(f"the peer says that it is {identity}, which is not configured", rows, kind, protected)


def _row_prefix(session: IsakmpSa) -> str:
    """How the guide's lines about identities in certificates begin."""
    by_name_alone = not session.initiator and session.phase1.mode == ExchangeType.AGGRESSIVE_MODE
    return "ikev1-cert-id-dialin" if by_name_alone else "ikev1-cert-id"


def check_certified(
    session: IsakmpSa, connection: Connection, claimed: Identity, certified: Sequence[Identity]
) -> None:
    """What `validate-certificate-identity` asks for (B-045): the certificate carries the remote identity."""
    if not connection.policy.validate_certificate_identity:
        return
    if any(connection.expected.same(name) for name in certified):
        return
    alike = next((name for name in certified if name.id_type == claimed.id_type), None)
    kind = _row_prefix(session)
    if alike is None:
        row: Row = (f"{kind}-no-cert", {"count": 1})
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
    raise _invalid_id(text, [row], kind, protected=True)


def _invalid_id(text: str, rows: Sequence[Row], kind: str, protected: bool) -> NegotiationError:
    return NegotiationError(
        "identity",
        text,
        rows=tuple(rows),
        notify=NotifyTypeV1.INVALID_ID_INFORMATION,
        notify_row=(f"{kind}-notify-invalid-id", {"notify": "INVALID_ID_INFORMATION"}),
        encrypted=protected,
        final=protected,
    )


def authenticate_peer(
    session: IsakmpSa, payloads: Sequence[PayloadV1], claimed: IdV1
) -> tuple[Connection, Identity]:
    """The connection that an authenticated peer means, and its identity; raises NegotiationError.

    A preshared key was already proved by the HASH when this is asked; a signature is checked here.
    """
    handshake = session.phase1
    identity = Identity.received(claimed)
    certified: tuple[Identity, ...] | None = None
    provisional = handshake.members[0]
    if not handshake.by_psk:
        certified = check_signature(session, provisional, payloads, claimed)
    if session.initiator:
        found = [one for one in handshake.members if one.expected.same(identity)]
    else:
        found = matching_connections(handshake, identity)
        if handshake.by_psk:
            # The key was picked by address before the peer had said who it is: it has to be its own.
            found = [one for one in found if one.psk == provisional.psk]
    if not found:
        if certified is None:
            raise unexpected_psk(identity, protected=True)
        raise unexpected_certified(session, identity, certified, protected=True)
    if certified is not None:
        check_certified(session, found[0], identity, certified)
    return found[0], identity
