"""Objects of a PKI store as operators import, make and request them (guide 6.1): checks of PEM, PKCS#10 requests.

Errors name what is wrong with a file, never its content. Keys and certificates are RSA (S-099).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Final

import gmpy2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

MIN_KEY_BITS: Final = 512
"""Length (bits) of the shortest key pair, that of the guide's example 6.1.2."""

_LIBRARY_BITS, _EXPONENT = 1024, 65_537

MAX_KEY_BITS: Final = 16_384
"""Length (bits) of the longest key pair that is imported."""

SUBJECT: Final[Mapping[str, tuple[x509.ObjectIdentifier, int]]] = {
    "common_name": (NameOID.COMMON_NAME, 64),
    "organization_unit": (NameOID.ORGANIZATIONAL_UNIT_NAME, 64),
    "organization": (NameOID.ORGANIZATION_NAME, 64),
    "city": (NameOID.LOCALITY_NAME, 128),
    "state": (NameOID.STATE_OR_PROVINCE_NAME, 128),
    "postal_code": (NameOID.POSTAL_CODE, 40),
    "country": (NameOID.COUNTRY_NAME, 2),
}
"""Fields of a request's subject, in the order of the guide's questions, with the longest text of each in
characters (RFC 5280, appendix A.1)."""

ALTERNATIVES: Final = ("ipv4", "ipv6", "domain", "email")
"""Kinds of alternative names, in the order of the guide's questions."""

USAGES: Final = (
    "DigitalSignature",
    "NonRepudiation",
    "KeyEncipherment",
    "DataEncipherment",
    "KeyAgreement",
    "EncipherOnly",
    "DecipherOnly",
)
"""Key usages (RFC 5280 4.2.1.3), in the order of the guide's questions."""


class PkiError(ValueError):
    """A file or a value cannot be used; the text says why, and what was expected."""


@dataclass(frozen=True, slots=True)
class RequestedNames:
    """What a certificate request asks for. `subject` and `alternatives` have no empty texts; `usages` is None
    where the request leaves the key's usage to the authority."""

    subject: Mapping[str, str]
    alternatives: Mapping[str, str]
    usages: Sequence[str] | None = None


def certificates(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM file; there is at least one.

    Raises:
        PkiError: it has none, or one of another kind of key than RSA.
    """
    try:
        found = x509.load_pem_x509_certificates(data)
        publics = [one.public_key() for one in found]
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise PkiError("is not a readable PEM certificate") from None
    if not all(isinstance(public, rsa.RSAPublicKey) for public in publics):
        raise PkiError("has a certificate of another kind of key than RSA")
    return found


def private_key(data: bytes, password: bytes | None = None) -> rsa.RSAPrivateKey:
    """Return the private key of a PEM file.

    Raises:
        PkiError: it has none, one of another kind than RSA or of a length out of range, or one under a passphrase
            other than `password`.
    """
    try:
        key = serialization.load_pem_private_key(data, password if b"ENCRYPTED" in data else None)
    except TypeError:
        raise PkiError("is a private key with a passphrase: store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PkiError("is not a readable PEM private key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PkiError("is a private key of another kind than RSA")
    if not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        raise PkiError(f"has a key of {key.key_size} bits; expected {MIN_KEY_BITS} to {MAX_KEY_BITS}")
    return key


def new_key(bits: int) -> rsa.RSAPrivateKey:
    """Return a new private key of `MIN_KEY_BITS` to `MAX_KEY_BITS` bits. A long one takes seconds."""
    if bits >= _LIBRARY_BITS:
        return rsa.generate_private_key(_EXPONENT, bits)
    while True:
        # The library makes no key as short as that of the guide's example: primes come from random ones of its.
        seed = rsa.generate_private_key(_EXPONENT, _LIBRARY_BITS).private_numbers()
        p, q = _prime(seed.p, bits - bits // 2), _prime(seed.q, bits // 2)
        if p != q and (p * q).bit_length() == bits and gcd(_EXPONENT, (p - 1) * (q - 1)) == 1:
            break
    d = rsa.rsa_recover_private_exponent(_EXPONENT, p, q)
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    return rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    ).private_key()


def _prime(random: int, bits: int) -> int:
    """Return a prime of this length, with its two highest bits set, from a random number that is longer."""
    low = random % (1 << (bits - 2))
    return int(gmpy2.next_prime(0b11 << (bits - 2) | low))


def certificate_request(key: rsa.RSAPrivateKey, names: RequestedNames) -> bytes:
    """Return a PKCS#10 request (RFC 2986) in PEM, signed with SHA-256.

    Raises:
        PkiError: a name does not fit its field, there is no name at all, or the usages contradict each other.
    """
    subject = [x509.NameAttribute(SUBJECT[field][0], text) for field, text in _checked(names.subject)]
    alternatives = [_alternative(kind, text) for kind, text in names.alternatives.items()]
    if not subject and not alternatives:
        raise PkiError("a certificate request needs a name: give the common name or an alternative name")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if alternatives:
        request = request.add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject)
    if names.usages is not None:
        request = request.add_extension(_key_usage(names.usages), critical=True)
    # A short key has no room for a longer hash than SHA-256 in PKCS#1 (RFC 8017 9.2): 512 bits are enough.
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def subject_fault(field: str, text: str) -> str:
    """Return what is wrong with a text for a field of the subject; empty if nothing is."""
    most = SUBJECT[field][1]
    if field == "country" and text and not (len(text) == 2 and text.isascii() and text.isalpha()):
        return "the country code has two letters"
    if len(text) > most:
        return f"it has {len(text)} characters, at most {most} are taken"
    return "" if text.isprintable() else "it has a character that cannot be printed"


def alternative_fault(kind: str, text: str) -> str:
    """Return what is wrong with an alternative name; empty if nothing is."""
    try:
        _alternative(kind, text)
    except PkiError as error:
        return str(error)
    return ""


def _checked(subject: Mapping[str, str]) -> list[tuple[str, str]]:
    for field, text in subject.items():
        if why := subject_fault(field, text):
            raise PkiError(f"{field.replace('_', ' ')}: {why}")
    return [(field, subject[field]) for field in SUBJECT if subject.get(field)]


def _alternative(kind: str, text: str) -> x509.GeneralName:
    try:
        match kind:
            case "ipv4":
                return x509.IPAddress(ipaddress.IPv4Address(text))
            case "ipv6":
                return x509.IPAddress(ipaddress.IPv6Address(text))
            case "domain":
                if not _is_domain(text):
                    raise ValueError
                return x509.DNSName(text)
        local, _, domain = text.partition("@")
        if not local or not local.isascii() or not _is_domain(domain):
            raise ValueError
        return x509.RFC822Name(text)
    except ValueError:
        expected = {"ipv4": "an IPv4 address", "ipv6": "an IPv6 address", "domain": "a domain name"}
        raise PkiError(f"expected {expected.get(kind, 'an address such as user@example.net')}") from None


def _is_domain(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage:
    """Raises `PkiError` where a usage needs another one (RFC 5280 4.2.1.3)."""
    on = set(usages)
    only = on & {"EncipherOnly", "DecipherOnly"}
    if only and "KeyAgreement" not in on:
        raise PkiError(f"{sorted(only)[0]} has a meaning only with KeyAgreement: say y to that, or n to this")
    return x509.KeyUsage(
        digital_signature="DigitalSignature" in on,
        content_commitment="NonRepudiation" in on,
        key_encipherment="KeyEncipherment" in on,
        data_encipherment="DataEncipherment" in on,
        key_agreement="KeyAgreement" in on,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only="EncipherOnly" in on,
        decipher_only="DecipherOnly" in on,
    )
