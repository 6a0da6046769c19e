"""What a router's PKI stores hold, as plain values for operators: never a key itself (guide 6.1, table 4)."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.bus.records import CertificateRecord, Key
from chassis.xcrp.flash import KEY, SELF, TRUSTED, PkiObject, PkiStore

Row = dict[str, Any]

HANDLE_DIGITS: Final = 8
"""Hexadecimal digits of a certificate's handle: the first of its SHA-256 fingerprint."""

_NAMES: Final = (x509.DNSName, x509.RFC822Name, x509.IPAddress)
"""Kinds of alternative names that an IKE identity may be."""


def certificates(store: PkiStore, context: str, whose: str, held: Container[Key] | None, number: int) -> list[Row]:
    """Return the certificates of a context, `trusted` or `self`. With `held` only those whose record, in the
    context of this number, an ASP holds."""
    kind = SELF if whose == "self" else TRUSTED
    return [
        _certificate(item, certificate, place)
        for item in store.items.get(context, ())
        if item.kind == kind and (held is None or (CertificateRecord.TYPE, number, item.kind, item.name) in held)
        for place, certificate in enumerate(x509.load_pem_x509_certificates(item.pem))
    ]


def handle_of(certificate: x509.Certificate) -> str:
    """Return the handle of a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:HANDLE_DIGITS]


def _certificate(item: PkiObject, certificate: x509.Certificate, place: int) -> Row:
    """Return the row of one certificate of a file; `place` 0 is that of the file's name."""
    public = certificate.public_key()
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    return {
        "handle": handle_of(certificate),
        "name": item.name,
        "context": item.context,
        "place": place,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S}",
        "identities": list(_identities(certificate)),
        "bits": public.key_size if isinstance(public, rsa.RSAPublicKey) else 0,
        "fingerprint": fingerprint,
        "key_pair": item.name if item.kind == SELF and not place else "",
    }


def _identities(certificate: x509.Certificate) -> Iterator[str]:
    """Return the names of a certificate by which a peer may be known."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return
    for name in names:
        if isinstance(name, _NAMES):
            yield str(name.value)


def is_of(row: Row, identity: str) -> bool:
    """Return whether a certificate has an identity: its subject, a part of it, or an alternative name."""
    wanted = identity.lower()
    parts = [part.partition("=")[2].lower() for part in row["subject"].split(",")]
    return wanted in (row["subject"].lower(), *parts, *(name.lower() for name in row["identities"]))


def key_pairs(store: PkiStore, context: str) -> list[Row]:
    """Return the key pairs of a context by their names: kind, length, and whether there is a certificate."""
    own = set(store.names(context, SELF))
    rows = []
    for item in store.items.get(context, ()):
        if item.kind == KEY:
            key = serialization.load_pem_private_key(item.pem, None, unsafe_skip_rsa_key_validation=True)
            bits = key.key_size if isinstance(key, rsa.RSAPrivateKey) else 0
            rows.append(
                {
                    "name": item.name,
                    "context": context,
                    "kind": "rsa",
                    "bits": bits,
                    "certificate": item.name in own,
                }
            )
    return rows


def certificate_requests(store: PkiStore, context: str) -> list[Row]:
    """Return the certificate requests of a context, or of all where it is empty, with their files."""
    rows = []
    for item in store.requests:
        if context in ("", item.context):
            request = x509.load_pem_x509_csr(item.pem)
            public = request.public_key()
            rows.append(
                {
                    "name": item.name,
                    "context": item.context,
                    "file": f"pki/{item.context}/requests/{item.name}.pem",
                    "subject": request.subject.rfc4514_string(),
                    "bits": public.key_size if isinstance(public, rsa.RSAPublicKey) else 0,
                }
            )
    return rows
