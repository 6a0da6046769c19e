"""The chain of payloads in a message: generic headers, and the registry that picks a codec by type.

Every payload class has `TYPE` (or a field `type` when it serves several), `parse(body, ...)` and
`emit()`, which take and give what follows the generic header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

MAX_PAYLOADS: Final = 64
"""No honest message has more; a chain is refused beyond it."""

GENERIC_LENGTH: Final = 4
GENERIC = struct.Struct("!BBH")

View: TypeAlias = memoryview


class Payload(Protocol):
    """What every payload offers."""

    @property
    def type(self) -> int:
        """Its number in the chain."""

    def emit(self) -> bytes:
        """Its octets after the generic header."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload of a type that has no codec here. `critical` is version 2's bit (RFC 7296 2.5)."""

    type: int
    body: bytes
    critical: bool = False

    def emit(self) -> bytes:
        return self.body


def emit_chain(payloads: tuple[Payload, ...] | list[Payload], last: int = 0) -> tuple[int, bytes]:
    """(type of the first payload, octets of the chain); the last payload names `last` as next.

    ValueError for a payload that is longer than its length field can say.
    """
    parts: list[bytes] = []
    following = last
    for payload in reversed(payloads):
        body = payload.emit()
        size = GENERIC_LENGTH + len(body)
        if size > 0xFFFF:
            raise ValueError(f"payload {payload.type} of {size} bytes: at most 65535")
        critical = 0x80 if isinstance(payload, Unknown) and payload.critical else 0
        parts.append(body)
        parts.append(GENERIC.pack(following, critical, size))
        following = payload.type
    parts.reverse()
    return following, b"".join(parts)
