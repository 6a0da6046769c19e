"""Proof of identity in IKE_AUTH: made and judged (RFC 7296 2.15 and 3.8, RFC 7427). Each end goes its own way."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.ase.ike.connection import Connection
from chassis.ase.ike.credentials import CertificateError
from chassis.ase.ike.crypto.algorithms import PrfSpec
from chassis.ase.ike.crypto.signatures import (
    SIGNATURE_HASHES,
    digital_auth,
    digital_verify,
    psk_auth,
    psk_verify,
    rsa_auth,
    rsa_verify,
)
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.numbers import AuthMethod, CertEncoding, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import Auth, CertReqV2, CertV2, NotifyV2

MAX_CERTIFICATES = 8
"""Certificates of a peer that are looked at."""

HASH_PREFERENCE = (2, 3, 4, 1)
"""Hashes of RFC 7427 in our order: SHA-256 first, SHA-1 last."""


class AuthError(Exception):
    """The peer is not who it should be, or we cannot prove who we are; the text is the operator's reason."""


def hash_notify() -> NotifyV2:
    """SIGNATURE_HASH_ALGORITHMS: what we can verify."""
    return NotifyV2(
        NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS, b"".join(number.to_bytes(2, "big") for number in HASH_PREFERENCE)
    )


def peer_hashes(payloads: Iterable[PayloadV2]) -> tuple[int, ...]:
    """Hashes of the peer's SIGNATURE_HASH_ALGORITHMS that we have too, in our order."""
    for one in payloads:
        if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS:
            numbers = {int.from_bytes(one.data[at : at + 2], "big") for at in range(0, len(one.data), 2)}
            return tuple(number for number in HASH_PREFERENCE if number in numbers and number in SIGNATURE_HASHES)
    return ()


def cert_requests(connection: Connection) -> tuple[CertReqV2, ...]:
    """CERTREQ: the authorities that we trust, if any."""
    if connection.credentials is None or not connection.credentials.key_hashes:
        return ()
    return (CertReqV2(CertEncoding.X509_SIGNATURE, b"".join(connection.credentials.key_hashes)),)


def make_auth(
    connection: Connection, prf: PrfSpec, octets: bytes, hashes: tuple[int, ...]
) -> tuple[tuple[CertV2, ...], Auth]:
    """(our certificates, our AUTH payload) over the signed `octets`; AuthError without the means."""
    if connection.policy.authentication == "pre-shared-key":
        if connection.psk is None:
            raise AuthError("the IKE policy has no preshared key")
        return (), Auth(AuthMethod.SHARED_KEY, psk_auth(prf, connection.psk, octets))
    own = None if connection.credentials is None else connection.credentials.select(connection.identity)
    if own is None:
        raise AuthError(f"no certificate with a key for identity {connection.identity}")
    certificates = tuple(CertV2(CertEncoding.X509_SIGNATURE, der) for der in own.ders)
    for number in hashes:
        try:
            return certificates, Auth(AuthMethod.DIGITAL_SIGNATURE, digital_auth(own.key, octets, number))
        except ValueError:
            continue  # The key is too short for this hash.
    return certificates, Auth(AuthMethod.RSA_SIGNATURE, rsa_auth(own.key, octets))


def verify_auth(
    connection: Connection,
    prf: PrfSpec,
    octets: bytes,
    auth: Auth,
    certificates: Iterable[CertV2],
    identity: Identity,
    wall: float,
) -> None:
    """Judge the peer's AUTH payload over the signed `octets`; AuthError says what is wrong.

    Which way the peer goes is its own choice, as long as we have what it takes to verify it (guide chapter 6).
    `wall` is seconds since 1970, for the dates of certificates.
    """
    if auth.method == AuthMethod.SHARED_KEY:
        if connection.psk is None:
            raise AuthError(f"peer {identity} proves itself by preshared key, and the IKE policy has none")
        if not psk_verify(prf, connection.psk, octets, auth.data):
            raise AuthError(f"the proof of peer {identity} is wrong: the preshared keys differ")
        return
    if auth.method not in (AuthMethod.RSA_SIGNATURE, AuthMethod.DIGITAL_SIGNATURE):
        raise AuthError(f"peer {identity} proves itself by method {auth.method}, which is not supported")
    key = _public_key(connection, certificates, identity, wall)
    check = rsa_verify if auth.method == AuthMethod.RSA_SIGNATURE else digital_verify
    if not check(key, octets, auth.data):
        raise AuthError(f"the signature of peer {identity} is wrong")


def _public_key(
    connection: Connection, certificates: Iterable[CertV2], identity: Identity, wall: float
) -> rsa.RSAPublicKey:
    if connection.credentials is None:
        raise AuthError(f"peer {identity} proves itself by certificate, and the context trusts none")
    ders = tuple(one.data for one in certificates if one.encoding == CertEncoding.X509_SIGNATURE)
    if not ders:
        raise AuthError(f"peer {identity} proves itself by signature, but sent no X.509 certificate")
    if len(ders) > MAX_CERTIFICATES:
        raise AuthError(f"peer {identity} sent {len(ders)} certificates, at most {MAX_CERTIFICATES} are looked at")
    try:
        verified = connection.credentials.verify(ders, wall)
    except CertificateError as error:
        raise AuthError(f"certificate of peer {identity}: {error}") from error
    if _must_carry_identity(connection) and not any(one.same(connection.expected) for one in verified.identities):
        raise AuthError(f"the certificate of the peer does not carry identity {connection.expected}")
    return verified.public_key


def _must_carry_identity(connection: Connection) -> bool:
    """Whether a certificate counts only with the identity that the tunnel expects in it.

    Under `rsa-signature` the operator decides (guide 6.4.1). Under `pre-shared-key` a certificate has to be the
    peer's own: else anybody with one of an authority that the context trusts would do without the key.
    """
    policy = connection.policy
    return policy.validate_certificate_identity or policy.authentication == "pre-shared-key"
