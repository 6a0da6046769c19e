"""Certificates of a context, own and trusted, and validation of a peer's certification path (RFC 5280 6, RFC 4945
5; guide 6.1).

The path is built here with the primitives of `cryptography`. Its `x509.verification` is for web servers: it
requires an extended key usage of TLS, a host name as subjectAltName, CA certificates with a subject key identifier
and RSA keys of at least 2048 bits, and it trusts only CA certificates. RFC 4945 requires none of that, the guide's
example has a key of 512 bits, and an operator may trust a self-signed certificate of a peer.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtensionOID

from chassis.ase.ike.identity import IkeIdentity, printable
from chassis.ase.ike.payloads.numbers import IdType
from chassis.bus.records import CertificateRecord

MAX_CERTIFICATES: Final = 10
"""Largest number of certificates in one message (count)."""
MAX_OCTETS: Final = 16_384
"""Largest size of a certificate (octets)."""
MAX_KEY_BITS: Final = 8192
"""Largest RSA key (bits): longer ones cost too much time."""
MAX_SIGNATURES: Final = 32
"""Signatures checked for one peer (count). Limits the work for certificates that all have the same name."""

_DER_ENCODING: Final = serialization.Encoding.DER
_KNOWN_EXTENSIONS: Final = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    )
)
"""Extensions that may be critical. Any certificate policies are accepted, as none are required."""

_IKE_USAGES: Final = frozenset(
    x509.ObjectIdentifier(oid)
    for oid in (
        "2.5.29.37.0",  # anyExtendedKeyUsage
        "1.3.6.1.5.5.7.3.17",  # ipsecIKE
        "1.3.6.1.5.5.7.3.5",  # ipsecEndSystem, ipsecTunnel and ipsecUser: older CAs wrote these
        "1.3.6.1.5.5.7.3.6",
        "1.3.6.1.5.5.7.3.7",
        "1.3.6.1.5.5.8.2.2",  # iKEIntermediate
    )
)
_MALFORMED: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for a malformed certificate, when it is loaded or a field is first read."""


class CertificateError(Exception):
    """A certificate is not accepted. The text is the reason, for the operator."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An accepted certificate. `identities` are its subject and alternative names."""

    certificate: x509.Certificate
    public_key: rsa.RSAPublicKey
    identities: tuple[IkeIdentity, ...]


@dataclass(frozen=True, slots=True)
class _CertificateFields:
    """The fields of a certificate, read once. `begins` and `ends` are its validity (s since 1970)."""

    certificate: x509.Certificate
    octets: bytes
    subject: bytes
    issuer: bytes
    text: str
    begins: float
    ends: float
    extensions: x509.Extensions


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings of `cryptography` about certificates, such as the serial number 0 of old root CAs.

    They are harmless, and a peer must not be able to fill our standard error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(der: bytes) -> x509.Certificate:
    """Load one certificate.

    Raises:
        CertificateError: it is malformed or longer than MAX_OCTETS.
    """
    if len(der) > MAX_OCTETS:
        raise CertificateError(f"certificate of {len(der)} bytes: at most {MAX_OCTETS} are accepted")
    try:
        return x509.load_der_x509_certificate(der)
    except _MALFORMED:
        raise CertificateError("malformed certificate") from None


def certificate_identities(certificate: x509.Certificate) -> tuple[IkeIdentity, ...]:
    """Return subject and alternative names as identities (RFC 4945 3.1).

    Raises:
        CertificateError: the certificate is malformed.
    """
    return _identities(_facts(certificate))


def verify(trusted: Sequence[x509.Certificate], ders: Sequence[bytes], wall: float) -> Verified:
    """Return the first certificate of `ders`, verified by a path through the others to a trusted one.

    `wall` is the time of day (s since 1970).

    Raises:
        CertificateError: the certificate is not accepted, or there is no path.
    """
    with suppress_warnings():
        return _verify(trusted, ders, wall)


def _verify(trusted: Sequence[x509.Certificate], ders: Sequence[bytes], wall: float) -> Verified:
    if not ders:
        raise CertificateError("no certificate received")
    if len(ders) > MAX_CERTIFICATES:
        raise CertificateError(f"{len(ders)} certificates: at most {MAX_CERTIFICATES} are accepted")
    leaf = _facts(load(ders[0]))
    key = _public_key(leaf)
    _check_dates(leaf, wall)
    _check_critical(leaf)
    _check_usage(leaf)
    names = _identities(leaf)
    anchors = [_facts(certificate) for certificate in trusted]
    if not any(anchor.octets == leaf.octets for anchor in anchors):
        _PathSearch(anchors, _others(ders[1:]), wall).path_from(leaf)
    return Verified(leaf.certificate, key, names)


def _others(ders: Sequence[bytes]) -> list[_CertificateFields]:
    """Return the intermediate certificates of a message, without malformed ones."""
    found: list[_CertificateFields] = []
    for der in ders:
        try:
            found.append(_facts(load(der)))
        except CertificateError:
            continue
    return found


class _PathSearch:
    """Builds a path depth first, trusted issuers before others. Keeps the first reason against an issuer."""

    def __init__(
        self, anchors: Sequence[_CertificateFields], others: Sequence[_CertificateFields], wall: float
    ) -> None:
        self._anchors = anchors
        self._others = others
        self._wall = wall
        self._signatures = 0
        self._reason: CertificateError | None = None

    def path_from(self, leaf: _CertificateFields) -> None:
        """Find a path from `leaf` to a trusted certificate.

        Raises:
            CertificateError: there is none.
        """
        if not self._reaches(leaf, [leaf]):
            raise self._reason or CertificateError(f"untrusted issuer {_name(leaf.certificate.issuer)}")

    def _reaches(self, subject: _CertificateFields, path: list[_CertificateFields]) -> bool:
        """Return whether a path leads from `subject`, the last of `path`, to a trusted certificate."""
        for issuer in self._anchors:
            if self._issued(issuer, subject, path):
                return True
        used = {facts.octets for facts in path}
        for issuer in self._others:
            if (
                issuer.octets not in used
                and self._issued(issuer, subject, path)
                and self._reaches(issuer, [*path, issuer])
            ):
                return True
        return False

    def _issued(
        self, issuer: _CertificateFields, subject: _CertificateFields, path: Sequence[_CertificateFields]
    ) -> bool:
        if issuer.subject != subject.issuer:
            return False
        try:
            self._signatures += 1
            if self._signatures > MAX_SIGNATURES:
                raise CertificateError(f"no path after {MAX_SIGNATURES} signatures")
            check_signature(issuer.certificate, subject.certificate)
            _check_dates(issuer, self._wall)
            _check_critical(issuer)
            # Self-issued certificates do not count (RFC 5280 4.2.1.9), nor does the leaf.
            below = sum(facts.issuer != facts.subject for facts in path[1:])
            _check_authority(issuer, below)
        except CertificateError as error:
            self._reason = self._reason or error
            return False
        return True


def _facts(certificate: x509.Certificate) -> _CertificateFields:
    try:
        return _CertificateFields(
            certificate,
            certificate.public_bytes(_DER_ENCODING),
            certificate.subject.public_bytes(),
            certificate.issuer.public_bytes(),
            _name(certificate.subject),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            certificate.extensions,
        )
    except _MALFORMED:
        raise CertificateError("malformed certificate") from None


def _name(name: x509.Name) -> str:
    try:
        return printable(name.rfc4514_string()) or "without a name"
    except _MALFORMED:
        return "with a malformed name"


def _public_key(facts: _CertificateFields) -> rsa.RSAPublicKey:
    try:
        key = facts.certificate.public_key()
    except _MALFORMED:
        raise CertificateError(f"unsupported key in the certificate of {facts.text}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise CertificateError(f"unsupported key in the certificate of {facts.text}: only RSA keys are supported")
    if key.key_size > MAX_KEY_BITS:
        raise CertificateError(f"RSA key of {key.key_size} bits in the certificate of {facts.text}: too long")
    return key


def _day(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _check_dates(facts: _CertificateFields, wall: float) -> None:
    if wall < facts.begins:
        raise CertificateError(f"certificate of {facts.text} is not valid before {_day(facts.begins)}")
    if wall > facts.ends:
        raise CertificateError(f"certificate of {facts.text} expired on {_day(facts.ends)}")


def _check_critical(facts: _CertificateFields) -> None:
    for extension in facts.extensions:
        if extension.critical and extension.oid not in _KNOWN_EXTENSIONS:
            raise CertificateError(
                f"unsupported critical extension {extension.oid.dotted_string} in the certificate of {facts.text}"
            )


def _check_usage(leaf: _CertificateFields) -> None:
    """Check that the peer's certificate is for signatures and for IKE (RFC 4945 5.1.3.2, 5.1.3.12)."""
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and not (value.digital_signature or value.content_commitment):
            raise CertificateError(
                f"key usage of the certificate of {leaf.text} has neither digitalSignature nor nonRepudiation"
            )
        if isinstance(value, x509.ExtendedKeyUsage) and _IKE_USAGES.isdisjoint(value):
            raise CertificateError(f"extended key usage of the certificate of {leaf.text} is not for IKE")


def _check_authority(issuer: _CertificateFields, below: int) -> None:
    """Check that `issuer` may sign certificates, with `below` CA certificates under it (RFC 4945 5.1.3.9).

    This holds for trusted certificates, too: a trusted certificate of a peer does not make that peer a CA.
    """
    authority = False
    for extension in issuer.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            authority = value.ca
            if value.path_length is not None and below > value.path_length:
                raise CertificateError(
                    f"path length {value.path_length} of CA {issuer.text} is exceeded: {below} CAs are below it"
                )
        elif isinstance(value, x509.KeyUsage) and not value.key_cert_sign:
            raise CertificateError(f"key usage of issuer {issuer.text} lacks keyCertSign")
        elif isinstance(value, x509.NameConstraints):
            raise CertificateError(f"name constraints of CA {issuer.text} are not supported")
    if not authority:
        raise CertificateError(f"issuer {issuer.text} is not a CA")


def check_signature(issuer: x509.Certificate, subject: x509.Certificate) -> None:
    """Check that the key of `issuer` signed `subject`.

    Raises:
        CertificateError: the signature is bad or of an unsupported kind.
    """
    try:
        if not _signed_with_sha1(issuer, subject):
            subject.verify_directly_issued_by(issuer)
    except InvalidSignature:
        raise CertificateError(f"bad signature in the certificate of {_name(subject.subject)}") from None
    except _MALFORMED:
        raise CertificateError(f"unsupported signature in the certificate of {_name(subject.subject)}") from None


def _signed_with_sha1(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    """Return whether the signature is RSA with SHA-1, which is then checked here.

    `cryptography` no longer checks such certificates, but CAs as old as the guide sign with SHA-1 only.

    Raises:
        InvalidSignature: the signature is RSA with SHA-1 and does not fit.
    """
    if not isinstance(subject.signature_hash_algorithm, hashes.SHA1):
        return False
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size > MAX_KEY_BITS:
        return False
    key.verify(subject.signature, subject.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1())
    return True


def _identities(facts: _CertificateFields) -> tuple[IkeIdentity, ...]:
    found: list[IkeIdentity] = []
    if facts.certificate.subject.rdns:
        found.append(IkeIdentity(IdType.DER_ASN1_DN, facts.subject))
    for extension in facts.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            found.extend(filter(None, map(_alternative, extension.value)))
    return tuple(found)


def _alternative(name: x509.GeneralName) -> IkeIdentity | None:
    match name:
        case x509.IPAddress(value=IPv4Address() as address):
            return IkeIdentity(IdType.IPV4_ADDR, address.packed)
        case x509.IPAddress(value=IPv6Address() as address):
            return IkeIdentity(IdType.IPV6_ADDR, address.packed)
        case x509.DNSName(value=text):
            return IkeIdentity(IdType.FQDN, text.encode())
        case x509.RFC822Name(value=text):
            return IkeIdentity(IdType.USER_FQDN, text.encode())
        case _:
            return None


_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate of this end with its key. `chain` are the CA certificates (DER) between it and the root.

    `identities` are its subject and alternative names.
    """

    name: str
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    identities: tuple[IkeIdentity, ...] = ()
    chain: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def ders(self) -> tuple[bytes, ...]:
        """What the peer is sent (DER): the certificate and its chain, without the root, which the peer has."""
        return (self.certificate.public_bytes(_DER), *self.chain)

    def is_valid(self, wall: float) -> bool:
        facts = self.certificate
        return facts.not_valid_before_utc.timestamp() <= wall <= facts.not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PKI store of a context: trusted certificates, and own ones with their keys."""

    trusted: tuple[x509.Certificate, ...] = ()
    own: tuple[OwnCertificate, ...] = ()

    def select(self, identity: IkeIdentity, wall: float) -> OwnCertificate | None:
        """Return the own certificate for `identity`, else the first own one; None without any. One that is valid
        at `wall` (s since 1970) goes before one that is not: a new one may stand beside the old one."""
        named = [own for own in self.own if any(identity.same(other) for other in own.identities)]
        among = named or self.own
        return next((own for own in among if own.is_valid(wall)), among[0] if among else None)

    def verify(self, ders: Sequence[bytes], wall: float) -> Verified:
        """Return the peer's certificate, the first of `ders`, verified. `wall` is the time of day (s since 1970).

        Raises:
            CertificateError: the certificate is not accepted, or there is no path to a trusted one.
        """
        return verify(self.trusted, ders, wall)

    @property
    def names(self) -> tuple[bytes, ...]:
        """Subjects of the trusted certificates (DER), for certificate requests of IKEv1 (RFC 4945 3.2.7.2)."""
        return tuple(certificate.subject.public_bytes() for certificate in self.trusted)

    @property
    def key_hashes(self) -> tuple[bytes, ...]:
        """SHA-1 of the trusted public keys, for certificate requests of IKEv2 (RFC 7296 3.7)."""
        return tuple(
            hashlib.sha1(certificate.public_key().public_bytes(_DER, _SPKI)).digest()
            for certificate in self.trusted
        )

    @classmethod
    def read(cls, records: Iterable[CertificateRecord]) -> tuple[Credentials, list[str]]:
        """Return the store of one context, and errors about records that it lacks. No text contains key octets.

        The file of a self certificate may contain the CA certificates above it as well.
        """
        with suppress_warnings():
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
        own: list[OwnCertificate] = []
        for name, found in selves.items():
            try:
                own.append(_own(name, found[0], keys.get(name), above))
            except CertificateError as error:
                problems.append(f"PKI self certificate {name}: {error}")
        return cls(tuple(trusted.values()), tuple(own)), problems


_WORDS: Final = {"key": "key pair", "self": "self certificate", "trusted": "trusted certificate"}


def _key(pem: bytes) -> rsa.RSAPrivateKey:
    """Load a private key.

    Raises:
        CertificateError: it is not a key that can be used. The text is ours: the library's might quote the file.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise CertificateError("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("not a private key in PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CertificateError("unsupported key: only RSA keys are supported")
    return key


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise CertificateError("not a certificate in PEM form") from None
    for certificate in found:
        certificate_identities(certificate)
    return found


def _own(
    name: str, leaf: x509.Certificate, key: rsa.RSAPrivateKey | None, above: list[x509.Certificate]
) -> OwnCertificate:
    if key is None:
        raise CertificateError("there is no key pair of this name")
    public = leaf.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise CertificateError("unsupported key: only RSA keys are supported")
    if public.public_numbers() != key.public_key().public_numbers():
        raise CertificateError("does not match the key pair of this name")
    return OwnCertificate(name, leaf, key, certificate_identities(leaf), _chain(leaf, above))


def _chain(leaf: x509.Certificate, above: list[x509.Certificate]) -> tuple[bytes, ...]:
    """Return the CA certificates (DER) from `leaf` towards the root, without the root."""
    chain: list[bytes] = []
    last = leaf
    while last.issuer != last.subject and len(chain) < MAX_CERTIFICATES - 1:
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
        check_signature(issuer, subject)
    except CertificateError:
        return False
    return True
