"""Certificates of a context: what we show and what we trust (guide 6.1, RFC 4945)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa


class CertificateError(Exception):
    """A certificate that is not accepted; the text is the reason that the operator reads."""


@dataclass(frozen=True, slots=True)
class Own:
    """A certificate of ours with its key."""

    name: str
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PKI store of a context, read once."""

    trusted: tuple[x509.Certificate, ...] = ()
    own: tuple[Own, ...] = ()
