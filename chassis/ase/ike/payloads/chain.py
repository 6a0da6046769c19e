"""Chains of payloads of both versions: generic headers, what each payload offers, and the error of decoders.

A payload class has `type`, its number in the chain, `parse(body, ...)` and `emit()`, which take and return the
octets after the generic header (RFC 2408 3.2, RFC 7296 3.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from chassis.net.errors import DecodeError

_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})


class PayloadError(DecodeError):
    """Octets do not decode: which payload and field, the line to log, and the notification to send.

    `payload` and `field` are the RFC's words. `log` is an id of `log.TEMPLATES` or "" when
    the guide has no line for the cause; `values` fill its template. `notify` is the type of the
    notification for the peer (0: none) and `data` the octets that go with it.
    """

    __slots__ = ("data", "field", "log", "notify", "payload", "values")

    def __init__(
        self,
        payload: str,
        field: str,
        what: str,
        offset: int = 0,
        *,
        log: str = "",
        values: Mapping[str, Any] = _NO_VALUES,
        notify: int = 0,
        data: bytes = b"",
    ) -> None:
        super().__init__(f"ike {payload} {field}", what, offset)
        self.payload = payload
        self.field = field
        self.log = log
        self.values = dict(values)
        self.notify = notify
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"log": self.log, "values": self.values, "notify": self.notify, "data": self.data}
        return (_restore_payload_error, (self.payload, self.field, self.what, self.offset, state))


def _restore_payload_error(
    payload: str, field: str, what: str, offset: int, state: dict[str, Any]
) -> PayloadError:
    return PayloadError(payload, field, what, offset, **state)


MAX_PAYLOADS: Final = 64
"""Payloads in one chain (count); a longer chain is refused."""

GENERIC_LENGTH: Final = 4
GENERIC = struct.Struct("!BBH")

View: TypeAlias = memoryview


class Payload(Protocol):
    """The interface of every payload class."""

    @property
    def type(self) -> int:
        """The payload type, as the generic header before it says."""

    def emit(self) -> bytes:
        """Return the octets after the generic header."""


@dataclass(frozen=True, slots=True)
class UnknownPayload:
    """A payload of a type without a class. `critical` is the bit of version 2 (RFC 7296 2.5)."""

    type: int
    body: bytes
    critical: bool = False

    def emit(self) -> bytes:
        return self.body


PayloadKind = TypeVar("PayloadKind")


def first_of_type(payloads: Iterable[object], kind: type[PayloadKind]) -> PayloadKind | None:
    """Return the first payload of a class; None if there is none."""
    return next((one for one in payloads if isinstance(one, kind)), None)


def emit_chain(payloads: tuple[Payload, ...] | list[Payload], last: int = 0) -> tuple[int, bytes]:
    """Return (type of the first payload, octets of the chain); the last payload has `last` as its next type.

    Raises:
        ValueError: a payload is longer than 65535 octets.
    """
    parts: list[bytes] = []
    following = last
    for payload in reversed(payloads):
        body = payload.emit()
        size = GENERIC_LENGTH + len(body)
        if size > 0xFFFF:
            raise ValueError(f"payload {payload.type} of {size} bytes: at most 65535")
        critical = 0x80 if isinstance(payload, UnknownPayload) and payload.critical else 0
        parts.append(body)
        parts.append(GENERIC.pack(following, critical, size))
        following = payload.type
    parts.reverse()
    return following, b"".join(parts)
