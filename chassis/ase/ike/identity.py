"""Identities of IKE peers: from the configuration, on the wire of both versions, and compared (guide 6.4.1, 9.3).

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
"""Characters of a name that are shown: no domain name is longer, but a payload holds 65,000."""


def printable(text: str) -> str:
    """A name that a stranger made, fit for a line of the log: nothing in it breaks or colours the line."""
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
        """What a configured identity means: a dotted address, a user@name, else a domain name."""
        try:
            return cls.address(parse_address(text))
        except (ValueError, DecodeError):
            return cls(IdType.USER_FQDN if "@" in text else IdType.FQDN, text.encode())

    @classmethod
    def received(cls, payload: v1.IdV1 | v2_payloads.IdV2) -> IkeIdentity:
        return cls(payload.id_type, payload.data)

    def v1(self) -> v1.IdV1:
        """The ID payload of phase 1; protocol and port are left open, as RFC 2407 4.6.2 allows."""
        return v1.IdV1(self.id_type, self.data)

    def v2(self, type: int) -> v2_payloads.IdV2:
        """The ID payload of `type` PayloadTypeV2.ID_I or PayloadTypeV2.ID_R."""
        return v2_payloads.IdV2(type, self.id_type, self.data)

    @property
    def key(self) -> tuple[int, bytes]:
        """Equal for identities that are the same: what tables of peers are indexed by."""
        return (self.id_type, self.data.lower() if self.id_type in _TEXT else self.data)

    def same(self, other: IkeIdentity) -> bool:
        return self.key == other.key

    @property
    def type_name(self) -> str:
        """The type in the words of the guide's log lines."""
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
