"""The flash of a router: the PEM files of its contexts' PKI stores (guide 6.1), read once and checked.

A file is `pki/CONTEXT/KIND/NAME.pem`. KIND is `trusted` (certificates of authorities), `self` (certificates of
this router, with intermediate ones), `keys` (private keys, those that an operator made or imported encrypted
under the router's secret) or `requests` (certificate requests, which are only shown). A certificate in `self`
belongs to the key of the same name. An error message has the path of its file and never the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TRUSTED, SELF, KEY, REQUEST = "trusted", "self", "key", "request"

FOLDERS: Final[Mapping[str, str]] = {"trusted": TRUSTED, "self": SELF, "keys": KEY, "requests": REQUEST}
"""Kind of the objects, by folder of a context's store."""

MAX_PEM_OCTETS = 1 << 18
"""Size (octets) of the largest file that is read as PEM."""

MAX_FLASH_FILES = 4096
"""Most files of one flash (count)."""


@dataclass(frozen=True, slots=True)
class FlashFile:
    """A file of the flash: `path` is relative to the flash, `error` is the reason if it could not be read.

    `exposed`: its group or others may read it.
    """

    path: str
    data: bytes = field(default=b"", repr=False)
    exposed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class FlashProblem:
    """An error or warning about a file of the flash. A file with an error is not used."""

    severity: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"flash {self.path}: {self.text}"


@dataclass(frozen=True, slots=True)
class PkiObject:
    """A valid file: an object of a context's store."""

    context: str
    kind: str
    name: str
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PkiStore:
    """The valid files by context, certificate requests apart, and the errors of the others."""

    items: Mapping[str, tuple[PkiObject, ...]] = field(default_factory=dict)
    requests: tuple[PkiObject, ...] = ()
    problems: tuple[FlashProblem, ...] = ()

    def names(self, context: str, kind: str) -> list[str]:
        return [item.name for item in self.items.get(context, ()) if item.kind == kind]

    def pem(self, context: str, kind: str, name: str) -> bytes:
        """Return the PEM text of an object; a key's is clear.

        Raises:
            KeyError: there is no such object.
        """
        for item in self.items.get(context, ()):
            if (item.kind, item.name) == (kind, name):
                return item.pem
        raise KeyError(f"{context} {kind} {name}")

    def first_missing(self, context: str) -> str:
        """Return what a context lacks for rsa-signature (guide 6.1): a trusted or own certificate, or its key."""
        if not self.names(context, TRUSTED):
            return f"context {context} has no trusted certificate"
        own = self.names(context, SELF)
        if not own:
            return f"context {context} has no certificate of its own"
        if not set(own) & set(self.names(context, KEY)):
            return f"certificate {own[0]} of context {context} has no key"
        return ""


def read_store(files: Iterable[FlashFile], passwords: Sequence[bytes] = ()) -> PkiStore:
    """Return the PKI stores of these files. Invalid files do not raise; they are in `problems`.

    `passwords`: one of them opens each private key that is encrypted. Keys of the result are clear.
    """
    items: dict[str, dict[tuple[str, str], PkiObject]] = {}
    problems: list[FlashProblem] = []
    publics: dict[tuple[str, str, str], object] = {}
    requests: list[PkiObject] = []
    for file in files:
        parts = file.path.split("/")
        if file.error:
            problems.append(FlashProblem("error", file.path, file.error))
            continue
        well_placed = len(parts) == 4 and parts[0] == "pki" and parts[2] in FOLDERS
        if not well_placed or not parts[3].endswith(".pem"):
            text = "is not pki/CONTEXT/{trusted,self,keys,requests}/NAME.pem and is not used"
            problems.append(FlashProblem("warning", file.path, text))
            continue
        item = PkiObject(parts[1], FOLDERS[parts[2]], parts[3].removesuffix(".pem"), file.data)
        try:
            if item.kind == REQUEST:
                _check_request(file.data)
                requests.append(item)
                continue
            if item.kind == KEY:
                item, public = _opened(item, passwords)
            else:
                public = _certificate(file.data, item.kind == SELF)
        except _BadPemError as error:
            problems.append(FlashProblem("error", file.path, str(error)))
            continue
        if item.kind == KEY and file.exposed and item.pem == file.data:
            problems.append(FlashProblem("warning", file.path, "a private key that others may read: chmod 600"))
        items.setdefault(item.context, {})[item.kind, item.name] = item
        publics[item.context, item.kind, item.name] = public
    for context, of_context in items.items():
        for item in [item for item in of_context.values() if item.kind == SELF]:
            path = f"pki/{context}/self/{item.name}.pem"
            if (KEY, item.name) not in of_context:
                problems.append(
                    FlashProblem("warning", path, f"there is no key pki/{context}/keys/{item.name}.pem")
                )
            elif publics[context, SELF, item.name] != publics[context, KEY, item.name]:
                text = f"is not the certificate of key pki/{context}/keys/{item.name}.pem"
                problems.append(FlashProblem("error", path, text))
                del of_context[SELF, item.name]
    whole = {context: tuple(of_context.values()) for context, of_context in items.items()}
    return PkiStore(whole, tuple(requests), tuple(problems))


class _BadPemError(Exception):
    """A file cannot be used; the text is the reason, without any content."""


def _certificate(data: bytes, own: bool) -> object:
    """Return the public numbers of the first certificate of a PEM file.

    Raises:
        _BadPemError: the file is not a PEM certificate with an RSA key.
    """
    if len(data) > MAX_PEM_OCTETS:
        raise _BadPemError("is too long for a PEM file")
    try:
        certificates = x509.load_pem_x509_certificates(data)
        public = certificates[0].public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _BadPemError("is not a readable PEM certificate") from None
    if not isinstance(public, rsa.RSAPublicKey):
        if own:
            raise _BadPemError("is a certificate of another kind of key than RSA")
        return None
    return public.public_numbers()


def _check_request(data: bytes) -> None:
    """Check a PEM file with a certificate request.

    Raises:
        _BadPemError: it is none.
    """
    if len(data) > MAX_PEM_OCTETS:
        raise _BadPemError("is too long for a PEM file")
    try:
        x509.load_pem_x509_csr(data)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _BadPemError("is not a readable PEM certificate request") from None


def _opened(item: PkiObject, passwords: Sequence[bytes]) -> tuple[PkiObject, object]:
    """Return a private key's object with the key in clear, and the public numbers of the key.

    Raises:
        _BadPemError: the file is not a PEM file with an RSA key, or none of the passwords opens it.
    """
    if len(item.pem) > MAX_PEM_OCTETS:
        raise _BadPemError("is too long for a PEM file")
    encrypted = b"ENCRYPTED" in item.pem
    key = None
    for password in passwords if encrypted else (None,):
        try:
            key = serialization.load_pem_private_key(item.pem, password, unsafe_skip_rsa_key_validation=True)
        except (ValueError, UnsupportedAlgorithm, TypeError):
            continue
        break
    if key is None:
        text = "is not a readable PEM private key"
        if encrypted:
            text = "is a private key under a passphrase or under the secret of another router"
        raise _BadPemError(text)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _BadPemError("is a private key of another kind than RSA")
    pem = clear_pem(key) if encrypted else item.pem
    return replace(item, pem=pem), key.private_numbers().public_numbers


def clear_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return a private key as PEM without a passphrase (PKCS#8)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypted_pem(key: rsa.RSAPrivateKey, password: bytes) -> bytes:
    """Return a private key as PEM, encrypted under a password (PKCS#8, RFC 5958)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
