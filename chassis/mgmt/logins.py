"""Who may log in: the lab's own login, and the administrators of the configuration in force (guide example 13).

A login is `user` or `user@context`; without a context it is `local`. An administrator is one of that context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from chassis.cli.rows import DEFAULT_PRIVILEGE, HIGHEST_PRIVILEGE
from chassis.mgmt import passwords
from chassis.model.router import LOCAL
from chassis.net.ssh_key import public_key

MAX_NAME: Final = 128
"""Length (characters) of the longest login name."""

MAX_SHOWN: Final = 40
"""Length (characters) of the part of a login name that a log line has."""


NO_HASH: Final = "its password hash is none of $1$, $5$ and $6$, or has too many rounds"


@dataclass(frozen=True, slots=True)
class Account:
    """One who may log in. `password_hash` is empty where no password does, and `why` says why if there is a
    reason; `keys` are the octets of public keys, `idle_timeout` is in seconds, `enable_hash` is that of the
    context's `enable` line or empty."""

    user: str
    context: str = LOCAL
    password_hash: str = field(default="", repr=False)
    keys: tuple[bytes, ...] = ()
    privilege: int = DEFAULT_PRIVILEGE
    privilege_max: int = HIGHEST_PRIVILEGE
    idle_timeout: float = inf
    enable_hash: str = field(default="", repr=False)
    why: str = ""


def split(name: str) -> tuple[str, str]:
    """Return user and context of a login name."""
    user, _, context = name.partition("@")
    return user, context or LOCAL


def of_lab(ssh: Mapping[str, Any], name: str) -> Account | None:
    """Return the lab's own login if this is its name. It has every privilege."""
    user, context = split(name)
    if not ssh.get("user") or user != ssh["user"] or context != LOCAL:
        return None
    return Account(
        user,
        password_hash=str(ssh.get("hash", "")),
        keys=_decoded(ssh.get("keys", ())),
        privilege=HIGHEST_PRIVILEGE,
    )


def of_configuration(answer: Mapping[str, Any], name: str, *, published: bool) -> Account | None:
    """Return the administrator of this name, from the controller's answer to `login`; None if there is none.

    `published`: the password hash that the guide prints counts.
    """
    if not answer.get("exists"):
        return None
    user, context = split(name)

    def usable(text: str) -> str:
        return text if passwords.is_usable(text, published=published) else ""

    given = str(answer.get("hash", ""))
    highest = int(answer.get("privilege_max", HIGHEST_PRIVILEGE))
    return Account(
        user,
        context,
        usable(given),
        _decoded(answer.get("keys", ())),
        min(int(answer.get("privilege_start", DEFAULT_PRIVILEGE)), highest),
        highest,
        (answer.get("idle_timeout") or 0) * 60.0 or inf,
        usable(str(answer.get("enable", ""))),
        "" if usable(given) else "the guide prints its password hash" if given == passwords.PUBLISHED else NO_HASH,
    )


def shown(name: str) -> str:
    """Return a login name for a log line: whoever connects chooses it."""
    text = "".join(c if c.isprintable() else "?" for c in name[:MAX_SHOWN])
    return repr(text) + ("..." if len(name) > MAX_SHOWN else "")


def _decoded(keys: Any) -> tuple[bytes, ...]:
    """Return the octets of public keys that are written as `ALGORITHM BASE64 [REMARK]`; leave out what is none."""
    found: list[bytes] = []
    for text in keys:
        octets = public_key(str(text))
        if octets:
            found.append(octets)
    return tuple(found)
