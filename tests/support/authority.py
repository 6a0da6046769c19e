"""A certification authority for tests: RSA keys, certificates with alternative names, all in PEM."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def pem_key(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: str
    key: str = field(repr=False)


class Authority:
    """Signs certificates; `bits` is the length of all keys (long ones take long to make), `today` is the time of
    day by which they are valid: without it that of this machine."""

    def __init__(
        self, name: str = "Test CA", bits: int = 2048, today: datetime.datetime | None = None, days: int = 30
    ) -> None:
        self._bits, self._today = bits, today
        self._key = rsa.generate_private_key(65537, bits)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = (
            self._builder(self._name, self._key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self, subject: x509.Name, public: rsa.RSAPublicKey, days: int, begins: int = -1
    ) -> x509.CertificateBuilder:
        now = self._today or datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + min(begins, days - 1) * DAY)
            .not_valid_after(now + days * DAY)
        )

    def issue(self, name: str, *alternatives: str, days: int = 30) -> Issued:
        """A certificate for CN=`name` with these addresses and domain names. It ends in so many days; before
        today where they are fewer than 0."""
        key = rsa.generate_private_key(65537, self._bits)
        names = [_general(text) for text in alternatives]
        made = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(made.public_bytes(serialization.Encoding.PEM).decode(), pem_key(key))

    def sign(self, request: str, days: int = 30, begins: int = -1) -> str:
        """The certificate for a request in PEM, with the names and usages that it asks for, from `begins` days
        after today."""
        asked = x509.load_pem_x509_csr(request.encode())
        public = asked.public_key()
        assert asked.is_signature_valid
        assert isinstance(public, rsa.RSAPublicKey)
        made = self._builder(asked.subject, public, days, begins)
        for extension in asked.extensions:
            made = made.add_extension(extension.value, extension.critical)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def request(self, name: str) -> str:
        """A certificate request for CN=`name`, in PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()


def _general(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
