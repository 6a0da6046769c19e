"""Password hashes of crypt(3): `$1$` (MD5), `$5$` (SHA-256) and `$6$` (SHA-512), made and verified by libpass.

The prefix of a hash decides its scheme, whatever type (`encrypted 1`, `encrypted 2`) its line names. Verifying
takes up to a second of processor time and blocks: callers do it in a thread.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from passlib.ifc import PasswordHash

PUBLISHED: Final = "$1$........$kvQfdsjs0ACFMeDHQ7n/o."
"""The hash that the guide prints (example 13): everybody knows its password."""

MAX_ROUNDS: Final = 1_000_000
"""Most rounds of a hash that is verified: more would hold a processor for longer than a second."""

MAX_PASSWORD_OCTETS: Final = 1024
"""Length (octets) of the longest password that is tried."""

ROUNDS: Final = 5000
"""Rounds of hashes that are made here: the schemes' own default."""

_FORM = re.compile(r"\$(?:1|[56](?:\$rounds=(?P<rounds>[0-9]{1,9}))?)\$[^$:\s]{0,16}\$[./A-Za-z0-9]{22,86}\Z")


def is_usable(password_hash: str, *, published: bool = False) -> bool:
    """Return whether a hash can let anybody in: its scheme is known, its rounds are bounded, and it is not the one
    that the guide prints, unless `published`."""
    found = _FORM.match(password_hash)
    if found is None or (password_hash == PUBLISHED and not published):
        return False
    return int(found["rounds"] or ROUNDS) <= MAX_ROUNDS


def verify(password: str, password_hash: str) -> bool:
    """Return whether this password has this hash, compared in constant time.

    A hash that is not usable costs as much as one of the default scheme, and fits no password.
    """
    from passlib.exc import PasswordSizeError, PasswordValueError

    usable = is_usable(password_hash, published=True)
    if len(password.encode(errors="replace")) > MAX_PASSWORD_OCTETS:
        return False
    held = password_hash if usable else _NOBODY
    try:
        fits = bool(_scheme(held).verify(password, held))
    except (ValueError, PasswordSizeError, PasswordValueError):
        return False
    return fits and usable


def hashed(password: str) -> str:
    """Return a new SHA-512 hash of a password, in the form in which SSH sends it (RFC 4252, section 8)."""
    from passlib.hash import sha512_crypt

    return str(sha512_crypt.using(rounds=ROUNDS).hash(unicodedata.normalize("NFKC", password)))


_NOBODY: Final = "$6$" + "nobody$" + "." * 86
"""A hash that no password has."""


def _scheme(password_hash: str) -> PasswordHash:
    from passlib.hash import md5_crypt, sha256_crypt, sha512_crypt

    found: PasswordHash = {"1": md5_crypt, "5": sha256_crypt, "6": sha512_crypt}[password_hash[1]]
    return found
