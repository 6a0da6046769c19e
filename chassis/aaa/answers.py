"""What an Access-Accept says of a peer: its key, its IPsec profile, its addresses and the terms of its session.

Security-Service (vendor 2352, attribute 203) has the key as the guide prints it, and the profile in a form of our
own (S-055), one of them or both, joined by `;` in either order:

    ike pre-shared-key {hex HEX-VALUE | ASCII-VALUE}
    ipsec profile NAME
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pyrad.packet import Packet

_KEY = r"ike\s+pre-shared-key\s+(?:hex\s+(?P<hex>\S+?)|(?P<text>\S+?))"
_PROFILE = r"ipsec\s+profile\s+(?P<profile>[^\s;]+)"
_FORMS = tuple(
    re.compile(rf"\s*{form}\s*", re.ASCII)
    for form in (rf"{_KEY}(?:\s*;\s*{_PROFILE})?", rf"{_PROFILE}(?:\s*;\s*{_KEY})?")
)
_DIGITS = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})+)", re.ASCII)


class AnswerError(ValueError):
    """An answer of a genuine server that cannot be used; the text has no part of a key."""


@dataclass(frozen=True, slots=True)
class SecurityService:
    """The meaning of Security-Service attributes: preshared key (octets), and name of an IPsec profile."""

    key: bytes | None = field(default=None, repr=False)
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class AccessAnswer:
    """An Access-Accept. Addresses are dotted, times in seconds; None where the server says nothing.

    `netmask` belongs to `address`. `pool` is the pool that the router takes the address from (Framed-Pool, RFC
    2869 5.18). `address` is None too where the server leaves the choice to the router or the user (RFC 2865 5.8).
    `classes` are sent back in accounting, unchanged (RFC 2865 5.25). `server` says who answered.
    """

    key: bytes | None = field(default=None, repr=False)
    profile: str | None = None
    address: str | None = None
    netmask: str | None = None
    dns: tuple[str, ...] = ()
    pool: str | None = None
    session_timeout: int | None = None
    interim_interval: int | None = None
    classes: tuple[bytes, ...] = field(default=(), repr=False)
    server: str = ""


def read_security_service(text: str) -> SecurityService:
    """Return the meaning of one Security-Service attribute.

    Raises:
        AnswerError: it has neither of the two forms.
    """
    if not text.isascii() or not text.isprintable():
        raise AnswerError("Security-Service has other than printable ASCII characters")
    for form in _FORMS:
        found = form.fullmatch(text)
        if found is not None:
            return SecurityService(_key(found["hex"], found["text"]), found["profile"])
    raise AnswerError("Security-Service is neither `ike pre-shared-key KEY` nor `ipsec profile NAME`, nor both")


def _key(digits: str | None, text: str | None) -> bytes | None:
    if digits is not None:
        found = _DIGITS.fullmatch(digits)
        if found is None:
            raise AnswerError("Security-Service: after `hex` the key has an even number of hexadecimal digits")
        return bytes.fromhex(found[1])
    if text == "hex":
        raise AnswerError("Security-Service: there is no key after `hex`")
    return None if text is None else text.encode("ascii")


def read_accept(packet: Packet, server: str) -> AccessAnswer:
    """Return the answer of an Access-Accept that is known to be genuine.

    Raises:
        AnswerError: an attribute has a wrong length or value; RFC 2865 5 has it treated as a reject.
    """
    service = _security_service(packet)
    address = _text(packet, "Framed-IP-Address")
    return AccessAnswer(
        key=service.key,
        profile=service.profile,
        address=None if address in ("255.255.255.255", "255.255.255.254") else address,
        netmask=_text(packet, "Framed-IP-Netmask"),
        dns=_name_servers(packet),
        pool=_text(packet, "Framed-Pool"),
        session_timeout=_number(packet, "Session-Timeout"),
        interim_interval=_number(packet, "Acct-Interim-Interval"),
        classes=tuple(packet.get(25, ())),
        server=server,
    )


def _security_service(packet: Packet) -> SecurityService:
    key, profile = None, None
    for text in _all(packet, "Security-Service"):
        service = read_security_service(text)
        if (service.key is not None and key is not None) or (service.profile is not None and profile is not None):
            raise AnswerError("Security-Service gives two keys or two profiles")
        key, profile = service.key or key, service.profile or profile
    return SecurityService(key, profile)


def _name_servers(packet: Packet) -> tuple[str, ...]:
    """Return the name servers for the peer, Redback's attributes first; each once."""
    names = ("Client-DNS-Pri", "Client-DNS-Sec", "MS-Primary-DNS-Server", "MS-Secondary-DNS-Server")
    return tuple(dict.fromkeys(address for name in names for address in _all(packet, name)))


def reject_reason(packet: Packet) -> str:
    """Return what a genuine Access-Reject says to a reader, as printable text of at most 200 characters."""
    said = b" ".join(packet.get(18, ())).decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else "?" for sign in said)[:200]


def _all(packet: Packet, name: str) -> list[str]:
    """Return the values of an attribute that is text or an address."""
    return [str(value) for value in _values(packet, name)]


def _text(packet: Packet, name: str) -> str | None:
    value = _single(packet, name)
    return None if value is None else str(value)


def _number(packet: Packet, name: str) -> int | None:
    value = _single(packet, name)
    return None if value is None else int(value)


def _single(packet: Packet, name: str) -> str | int | None:
    values = _values(packet, name)
    if len(values) > 1:
        raise AnswerError(f"{name} is given {len(values)} times")
    return values[0] if values else None


def _values(packet: Packet, name: str) -> list[str | int]:
    try:
        values = packet.get(name, [])
    except ValueError:
        raise AnswerError(f"{name} has a wrong length") from None
    if any(isinstance(value, bytes) for value in values):
        raise AnswerError(f"{name} is not text in UTF-8")
    return list(values)
