"""The encrypted form of keys, under a secret of the router: the same key gives the same text each time.

    pre-shared-key encrypted 1 TEXT

TEXT is base64url (RFC 4648 5) without padding of:

    name of the secret (3 octets) | AES-SIV (RFC 5297) of: kind (1 octet) | key

The key of AES-SIV and the name are derived from the secret by scrypt (RFC 7914). The name tells a text of another
router from a damaged one. The form is an extension: the guide prints no key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from chassis.model.ike import PreSharedKey
from chassis.model.ipsec import Key

VERSION = "1"
"""The number before the text: how the text is made."""

SECRET_FILE = "secret"
"""File of the state folder with the router's secrets: one a line, the one in use first."""

_NAME, _SIV, _KEY = 3, 16, 64
_SALT = b"chassis router secret " + VERSION.encode()
_CONTEXT = [b"chassis encrypted " + VERSION.encode()]
_COST = {"n": 1 << 14, "r": 8, "p": 1}
_SECRET = re.compile(r"[!-~]{16,256}", re.ASCII)
_TEXT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

CHARACTERS, HEXADECIMAL, REST = b"a", b"x", b"r"
"""First octet of what is encrypted: a key in characters, one in hexadecimal digits, the rest of a kept line."""


class EncryptedFormError(ValueError):
    """A text is not an encrypted form that this router can read; the error's text says why, and what helps."""


def secret_fault(text: str) -> str:
    """Return why a text cannot be the secret of a router; empty if it can."""
    return "" if _SECRET.fullmatch(text) else "is 16 to 256 printable ASCII characters without blanks"


def encrypted_octets(word: str) -> bytes | None:
    """Return the octets of the text of an encrypted form; None if the word has not its shape."""
    if not _TEXT.fullmatch(word):
        return None
    try:
        data = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
    except ValueError:
        return None
    # Only the text that `encrypt` makes: another spelling of the same octets would not be printed unchanged.
    return data if len(data) > _NAME + _SIV and _text(data) == word else None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@lru_cache(maxsize=256)
def _cipher(secret: str) -> tuple[bytes, AESSIV]:
    """Return the name of a secret and its cipher. The derivation takes 50 ms."""
    made = hashlib.scrypt(secret.encode(), salt=_SALT, dklen=_KEY + _NAME, **_COST)
    return made[_KEY:], AESSIV(made[:_KEY])


@dataclass(frozen=True, slots=True)
class RouterSecret:
    """The secrets of one router. The first one encrypts, each of them decrypts; without any, keys stay clear."""

    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, data: bytes) -> RouterSecret:
        """Return the secrets of a file.

        Raises:
            ValueError: a line is not a secret; the text does not have the line.
        """
        lines = data.decode("ascii", "replace").split("\n")
        texts = tuple(line for line in lines if line)
        for number, line in enumerate(texts, 1):
            if fault := secret_fault(line):
                raise ValueError(f"line {number} of the file of the secret is wrong: a secret {fault}")
        if not texts:
            raise ValueError("the file of the secret is empty")
        return cls(texts)

    def write(self) -> bytes:
        """Return the content of the file."""
        return "".join(f"{text}\n" for text in self.texts).encode()

    def with_first(self, text: str) -> RouterSecret:
        """Return these secrets with one that encrypts from now on; the others go on to decrypt."""
        return RouterSecret((text, *(one for one in self.texts if one != text)))

    @property
    def name(self) -> str:
        """Return the name of the secret in use; empty if there is none."""
        return _text(_cipher(self.texts[0])[0]) if self.texts else ""

    @property
    def passwords(self) -> tuple[bytes, ...]:
        """Return what private keys on disk are encrypted under: the first for new ones."""
        return tuple(text.encode() for text in self.texts)

    def encrypt(self, kind: bytes, value: bytes) -> str:
        """Return the text of the encrypted form; empty if there is no secret."""
        if not self.texts:
            return ""
        name, cipher = _cipher(self.texts[0])
        return _text(name + cipher.encrypt(kind + value, _CONTEXT))

    def decrypt(self, text: str) -> tuple[bytes, bytes]:
        """Return kind and value of an encrypted form.

        Raises:
            EncryptedFormError: it was made under another secret, or is damaged.
        """
        data = encrypted_octets(text)
        if data is None:
            raise EncryptedFormError("this is not the text of an encrypted key: copy it as it was printed")
        name, rest = data[:_NAME], data[_NAME:]
        for secret in self.texts:
            own, cipher = _cipher(secret)
            if own == name:
                try:
                    plain = cipher.decrypt(rest, _CONTEXT)
                except InvalidTag:
                    raise EncryptedFormError(
                        "the text of this encrypted key is damaged: copy it as it was printed"
                    ) from None
                return plain[:1], plain[1:]
        own_name = f"this router's is {self.name}" if self.texts else "this router has none"
        raise EncryptedFormError(
            f"this was encrypted under the secret named {_text(name)}, and {own_name}: give the router the secret "
            "of the one that printed it (`secret:` of the lab), or type the key itself"
        )


def encrypted(value: object, secret: RouterSecret) -> object:
    """Return a key with its encrypted form, which is printed from then on; other values unchanged.

    The value of an encrypted form becomes the key in it.

    Raises:
        EncryptedFormError: the encrypted form cannot be read.
    """
    if isinstance(value, PreSharedKey) and value.form != "aaa":
        if value.opaque:
            hexadecimal, octets = _opened(secret, value.encrypted)
            value = PreSharedKey("hex" if hexadecimal else "ascii", octets)
        return replace(value, encrypted=secret.encrypt(_kind(value.form == "hex"), value.value))
    if isinstance(value, Key):
        if value.opaque:
            hexadecimal, octets = _opened(secret, value.encrypted)
            value = Key(octets, hexadecimal)
        return replace(value, encrypted=secret.encrypt(_kind(value.hexadecimal), value.value))
    return value


def _kind(hexadecimal: bool) -> bytes:
    return HEXADECIMAL if hexadecimal else CHARACTERS


def _opened(secret: RouterSecret, text: str) -> tuple[bool, bytes]:
    """Return whether a key was typed in hexadecimal digits, and its octets: only what could have been typed."""
    kind, octets = secret.decrypt(text)
    typed = kind == HEXADECIMAL or (kind == CHARACTERS and all(0x21 <= octet <= 0x7E for octet in octets))
    if not typed or not octets:
        raise EncryptedFormError("what is encrypted here is not a key: copy the line as it was printed")
    return kind == HEXADECIMAL, octets
