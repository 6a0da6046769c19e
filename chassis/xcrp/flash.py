"""The flash of a router: the PEM files of its contexts' PKI stores (guide 6.1), read once and checked.

A file is `pki/CONTEXT/KIND/NAME.pem`. KIND is `trusted` (certificates of authorities), `self` (certificates of
this router, with intermediate ones), `keys` (private keys) or `requests` (certificate requests, which are only
shown). A certificate in `self` belongs to the key of the same name. An error message has the path of its file and
never the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


def read_store(files: Iterable[FlashFile]) -> PkiStore:
    """Return the PKI stores of these files. Invalid files do not raise; they are in `problems`."""
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
            public = _key(file.data) if item.kind == KEY else _certificate(file.data, item.kind == SELF)
        except _BadPemError as error:
            problems.append(FlashProblem("error", file.path, str(error)))
            continue
        if item.kind == KEY and file.exposed:
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


def _key(data: bytes) -> object:
    """Return the public numbers of a private key.

    Raises:
        _BadPemError: the file is not a PEM file with an RSA key without a passphrase.
    """
    if len(data) > MAX_PEM_OCTETS:
        raise _BadPemError("is too long for a PEM file")
    try:
        key = serialization.load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise _BadPemError("is a private key with a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _BadPemError("is not a readable PEM private key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _BadPemError("is a private key of another kind than RSA")
    return key.private_numbers().public_numbers
