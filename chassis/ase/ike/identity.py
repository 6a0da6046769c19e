"""Identities of IKE peers: configured, as ID payloads of both versions, and compared (guide 6.4.1, 9.3).

An identity is an address or a name; a certificate adds distinguished names. Names compare without regard to case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from chassis.ase.ike.payloads import v1, v2_payloads
from chassis.ase.ike.payloads.numbers import IdType
from chassis.net.address import format_address, parse_address
from chassis.net.errors import DecodeError

_TYPES: Final = frozenset(IdType)
_TEXT: Final = frozenset((IdType.FQDN, IdType.USER_FQDN, IdType.KEY_ID))


MAX_SHOWN: Final = 256
"""Characters of a name that are shown. A domain name is at most 255 long; a payload may have 65,000 octets."""


def printable(text: str) -> str:
    """Return a peer's text for a log line: at most MAX_SHOWN characters, unprintable ones as escapes."""
    shown = "".join([one if one.isprintable() else f"\\x{ord(one):02x}" for one in text[:MAX_SHOWN]])
    return shown if len(text) <= MAX_SHOWN else f"{shown}..."


@dataclass(frozen=True, slots=True)
class IkeIdentity:
    """`id_type` is an `IdType`, `data` the octets of the ID payload after its four fixed ones."""

    id_type: int
    data: bytes

    @classmethod
    def address(cls, address: int) -> IkeIdentity:
        return cls(IdType.IPV4_ADDR, address.to_bytes(4, "big"))

    @classmethod
    def of(cls, text: str) -> IkeIdentity:
        """Return a configured identity: of a dotted address, a user@name, else a domain name."""
        try:
            return cls.address(parse_address(text))
        except (ValueError, DecodeError):
            return cls(IdType.USER_FQDN if "@" in text else IdType.FQDN, text.encode())

    @classmethod
    def received(cls, payload: v1.IdV1 | v2_payloads.IdV2) -> IkeIdentity:
        return cls(payload.id_type, payload.data)

    def v1(self) -> v1.IdV1:
        """Return the ID payload of phase 1; protocol and port are 0 (RFC 2407 4.6.2)."""
        return v1.IdV1(self.id_type, self.data)

    def v2(self, type: int) -> v2_payloads.IdV2:
        """Return the ID payload; `type` is PayloadTypeV2.ID_I or PayloadTypeV2.ID_R (RFC 7296 3.5)."""
        return v2_payloads.IdV2(type, self.id_type, self.data)

    @property
    def key(self) -> tuple[int, bytes]:
        """A key for tables of peers: equal for identities that are the same."""
        return (self.id_type, self.data.lower() if self.id_type in _TEXT else self.data)

    def same(self, other: IkeIdentity) -> bool:
        """Return whether both are of one type and equal; case does not matter in names."""
        return self.key == other.key

    @property
    def type_name(self) -> str:
        """The type as the guide's log texts name it."""
        return f"ID_{IdType(self.id_type).name}" if self.id_type in _TYPES else f"ID_{self.id_type}"

    def __str__(self) -> str:
        if self.id_type == IdType.IPV4_ADDR and len(self.data) == 4:
            return format_address(int.from_bytes(self.data, "big"))
        if self.id_type == IdType.DER_ASN1_DN:
            try:
                return printable(x509.Name.from_bytes(self.data).rfc4514_string())
            except (ValueError, AttributeError, TypeError):
                return printable(self.data.hex())
        if self.id_type in _TEXT:
            return printable(self.data.decode(errors="backslashreplace"))
        return printable(self.data.hex())
