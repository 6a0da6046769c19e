"""Certificates of a context: what we show and what we trust (guide 6.1, RFC 4945)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.ase.ike import certificates
from chassis.ase.ike.certificates import CertificateError, Verified
from chassis.ase.ike.identity import Identity
from chassis.bus.records import CertificateRecord

__all__ = ["CertificateError", "Credentials", "Own", "Verified"]

_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Own:
    """A certificate of ours with its key. `chain` are the CA certificates (DER) between it and the root.

    `identities` is what the certificate vouches for.
    """

    name: str
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    identities: tuple[Identity, ...] = ()
    chain: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def ders(self) -> tuple[bytes, ...]:
        """What the peer is sent: our certificate, then the way towards the root, which the peer has itself."""
        return (self.certificate.public_bytes(_DER), *self.chain)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PKI store of a context, read once."""

    trusted: tuple[x509.Certificate, ...] = ()
    own: tuple[Own, ...] = ()

    def select(self, identity: Identity) -> Own | None:
        """Our certificate that vouches for `identity`, else the first one; None without any."""
        for own in self.own:
            if any(identity.same(other) for other in own.identities):
                return own
        return self.own[0] if self.own else None

    def verify(self, ders: Sequence[bytes], wall: float) -> Verified:
        """The peer's certificate, which comes first, by way of the others; raises CertificateError.

        `wall` is in seconds since 1970.
        """
        return certificates.verify(self.trusted, ders, wall)

    @property
    def names(self) -> tuple[bytes, ...]:
        """Subjects of what we trust, as DER: version 1 asks for certificates by them (RFC 4945 3.2.7.2)."""
        return tuple(certificate.subject.public_bytes() for certificate in self.trusted)

    @property
    def key_hashes(self) -> tuple[bytes, ...]:
        """SHA-1 of the public key info of what we trust: version 2 asks by them (RFC 7296 3.7)."""
        return tuple(
            hashlib.sha1(certificate.public_key().public_bytes(_DER, _SPKI)).digest()
            for certificate in self.trusted
        )

    @classmethod
    def read(cls, records: Iterable[CertificateRecord]) -> tuple[Credentials, list[str]]:
        """The store of one context, and why parts of it are left out. No text holds anything of a key.

        A file of a self certificate may go on with the CA certificates above it.
        """
        with certificates.unwarned():
            return cls._read(records)

    @classmethod
    def _read(cls, records: Iterable[CertificateRecord]) -> tuple[Credentials, list[str]]:
        problems: list[str] = []
        keys: dict[str, rsa.RSAPrivateKey] = {}
        trusted: dict[bytes, x509.Certificate] = {}
        selves: dict[str, list[x509.Certificate]] = {}
        for record in sorted(records, key=lambda record: (record.kind, record.name)):
            try:
                if record.kind == "key":
                    keys[record.name] = _key(record.pem)
                elif record.kind == "self":
                    selves[record.name] = _certificates(record.pem)
                else:
                    for certificate in _certificates(record.pem):
                        trusted[certificate.public_bytes(_DER)] = certificate
            except CertificateError as error:
                problems.append(f"PKI {_WORDS.get(record.kind, record.kind)} {record.name}: {error}")
        above = [*trusted.values(), *(other for found in selves.values() for other in found[1:])]
        own: list[Own] = []
        for name, found in selves.items():
            try:
                own.append(_own(name, found[0], keys.get(name), above))
            except CertificateError as error:
                problems.append(f"PKI self certificate {name}: {error}")
        return cls(tuple(trusted.values()), tuple(own)), problems


_WORDS: Final = {"key": "key pair", "self": "self certificate", "trusted": "trusted certificate"}


def _key(pem: bytes) -> rsa.RSAPrivateKey:
    """Raises CertificateError with a text of ours: the library's might quote the file."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise CertificateError("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("no private key in PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CertificateError("unsupported key: only RSA keys are supported")
    return key


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise CertificateError("no certificate in PEM form") from None
    for certificate in found:
        certificates.identities(certificate)
    return found


def _own(name: str, leaf: x509.Certificate, key: rsa.RSAPrivateKey | None, above: list[x509.Certificate]) -> Own:
    if key is None:
        raise CertificateError("there is no key pair of this name")
    public = leaf.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise CertificateError("unsupported key: only RSA keys are supported")
    if public.public_numbers() != key.public_key().public_numbers():
        raise CertificateError("does not fit the key pair of this name")
    return Own(name, leaf, key, certificates.identities(leaf), _chain(leaf, above))


def _chain(leaf: x509.Certificate, above: list[x509.Certificate]) -> tuple[bytes, ...]:
    """The CA certificates that lead from `leaf` towards a root, without the root."""
    chain: list[bytes] = []
    last = leaf
    while last.issuer != last.subject and len(chain) < certificates.MAX_CERTIFICATES - 1:
        issuer = next((other for other in above if _issued(other, last)), None)
        if issuer is None or issuer.issuer == issuer.subject:
            break
        der = issuer.public_bytes(_DER)
        if der in chain:
            break
        chain.append(der)
        last = issuer
    return tuple(chain)


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    if issuer.subject != subject.issuer:
        return False
    try:
        certificates.check_signature(issuer, subject)
    except CertificateError:
        return False
    return True
