"""What a decoder of IKE says about bytes that are not what they claim to be."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from chassis.net.errors import DecodeError

_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})


class PayloadError(DecodeError):
    """A DecodeError that knows its payload and field, the line to log and the notification to send.

    `payload` and `field` are the RFC's words. `log` is an id of `messages.TEMPLATES` or "" when
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
