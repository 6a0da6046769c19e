"""A node with one negotiated tunnel between two addresses, and an ASP that says what a test wants of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from chassis.xcrp.flash import FlashFile

STATIC = """\
asp pool P service security
  asp 2/1
asp group G
  pool P
  asp-count 1

context inner
  interface TI
    ip address 10.9.0.1/30
  interface lan
    ip address 10.1.0.1/24
  ipsec access-list acl
    seq 10 10.1.0.0/24 10.2.0.0/24
  ip route 10.2.0.0/24 TI

context outer
  interface wan
    ip address 40.0.0.1/24
  asp-group G service security
  ike keepalive
  ike policy pol
    identity local fqdn a.example
    pre-shared-key s3cret-of-the-test
    seq 1 proposal ike-p

ike proposal ike-p
  dh-group 2
ipsec proposal ipsec-p
ipsec policy ipsec-pol
  perfect-forward-secrecy dh-group 2
  seq 1 proposal ipsec-p

tunnel ipsec T
  peer-end-point local 40.0.0.1 remote 40.0.0.2 context outer
  bind interface TI inner
  remote-id b.example
  ike-policy pol
  seq 10 ipsec-policy ipsec-pol access-group acl

card ase 2
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface lan inner
port ethernet 3/11
  no shutdown
  bind interface wan outer
"""
PORTS = ("3/1", "3/11")


@cache
def pair(name: str = "a.example") -> tuple[bytes, bytes]:
    """(private key, certificate that it signed itself), as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(made)
        .not_valid_after(made + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def flash(context: str = "outer", name: str = "a") -> tuple[FlashFile, ...]:
    """A whole store of one context."""
    key, certificate = pair()
    return (
        FlashFile(f"pki/{context}/keys/{name}.pem", key),
        FlashFile(f"pki/{context}/self/{name}.pem", certificate),
        FlashFile(f"pki/{context}/trusted/ca.pem", certificate),
    )
