"""Certificate authorities and certificates, made in memory for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.bus.records import CertificateRecord

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
YEAR = 365 * 86_400.0

Usage = Literal["digital_signature", "content_commitment", "key_encipherment", "key_cert_sign", "crl_sign"]


@cache
def key(name: str, bits: int = 1024) -> rsa.RSAPrivateKey:
    """One key for each name in a test run: making them is what takes time, long ones most of all."""
    return rsa.generate_private_key(65537, bits)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that signs what it is asked to."""

    certificate: x509.Certificate
    private: rsa.RSAPrivateKey

    def issue(
        self,
        name: str,
        *,
        public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None = None,
        dns: Sequence[str] = (),
        mail: Sequence[str] = (),
        addresses: Sequence[str] = (),
        ca: bool | None = None,
        path_length: int | None = None,
        usages: Sequence[Usage] | None = None,
        extended: Sequence[str] = (),
        begins: float = NOW - YEAR,
        ends: float = NOW + YEAR,
        algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
        other: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """A certificate for /CN=name; `public` is the key of that name when it is not given."""
        return build(
            name,
            public or key(name).public_key(),
            self.certificate.subject,
            self.private,
            dns=dns,
            mail=mail,
            addresses=addresses,
            ca=ca,
            path_length=path_length,
            usages=usages,
            extended=extended,
            begins=begins,
            ends=ends,
            algorithm=algorithm,
            other=other,
        )

    def authority(self, name: str, *, path_length: int | None = None, ca: bool | None = True) -> Authority:
        """A CA below this one."""
        return Authority(self.issue(name, ca=ca, path_length=path_length), key(name))


def common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def build(
    name: str,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *,
    dns: Sequence[str] = (),
    mail: Sequence[str] = (),
    addresses: Sequence[str] = (),
    ca: bool | None = None,
    path_length: int | None = None,
    usages: Sequence[Usage] | None = None,
    extended: Sequence[str] = (),
    begins: float = NOW - YEAR,
    ends: float = NOW + YEAR,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
    other: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """`ca` None: no basic constraints; `usages` None: no key usage. Times in seconds since 1970."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name(name) if name else x509.Name([]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(begins, UTC))
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
    )
    names: list[x509.GeneralName] = [x509.DNSName(text) for text in dns]
    names += [x509.RFC822Name(text) for text in mail]
    names += [x509.IPAddress(ip_address(text)) for text in addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not name)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if usages is not None:
        builder = builder.add_extension(_usage(usages), critical=True)
    if extended:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in extended]), critical=False
        )
    for extension, critical in other:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, algorithm or hashes.SHA256())


def _usage(usages: Sequence[Usage]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in usages,
        content_commitment="content_commitment" in usages,
        key_encipherment="key_encipherment" in usages,
        key_cert_sign="key_cert_sign" in usages,
        crl_sign="crl_sign" in usages,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def root(name: str = "root", *, path_length: int | None = None, ca: bool | None = True) -> Authority:
    """A CA that signed itself."""
    private = key(name)
    certificate = build(name, private.public_key(), common_name(name), private, ca=ca, path_length=path_length)
    return Authority(certificate, private)


def records(
    *,
    trusted: Sequence[x509.Certificate] = (),
    own: Sequence[tuple[str, x509.Certificate, rsa.RSAPrivateKey]] = (),
    context: int = 1,
) -> list[CertificateRecord]:
    """The PKI store of a context: what it trusts, and (name, certificate, key) of what it shows."""
    found = [CertificateRecord(context, f"ca{n}", "trusted", pem(ca)) for n, ca in enumerate(trusted)]
    for name, certificate, private in own:
        found.append(CertificateRecord(context, name, "self", pem(certificate)))
        found.append(CertificateRecord(context, name, "key", key_pem(private)))
    return found
