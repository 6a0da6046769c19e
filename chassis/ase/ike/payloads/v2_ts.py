"""Traffic selectors (RFC 7296 3.13)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2

IPV4_RANGE: Final = 7
IPV6_RANGE: Final = 8

_SELECTOR_HEAD = struct.Struct("!BBHHH")
_ADDRESS_OCTETS: Final = {IPV4_RANGE: 4, IPV6_RANGE: 16}


def _ts_fault(field: str, what: str, offset: int, log: str, **values: int) -> PayloadError:
    return PayloadError("TS", field, what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX)


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """Addresses `first` to `last` (numbers), ports `first_port` to `last_port`; protocol 0 is any.

    Ports 65535 to 0 mean OPAQUE; for ICMP they hold type and code.
    """

    first: int
    last: int
    protocol: int = 0
    first_port: int = 0
    last_port: int = 65535
    kind: int = IPV4_RANGE

    def emit(self) -> bytes:
        octets = _ADDRESS_OCTETS[self.kind]
        head = _SELECTOR_HEAD.pack(self.kind, self.protocol, 8 + 2 * octets, self.first_port, self.last_port)
        return head + self.first.to_bytes(octets, "big") + self.last.to_bytes(octets, "big")


@dataclass(frozen=True, slots=True)
class TS:
    """1 to 255 selectors; `type` is PayloadTypeV2.TS_I or PayloadTypeV2.TS_R."""

    type: int
    selectors: tuple[TrafficSelector, ...]

    @classmethod
    def parse(cls, body: memoryview, type: int) -> TS:
        """Raises PayloadError when there is none, or one of an unknown kind or a wrong length."""
        size = len(body)
        if size < 4:
            raise _ts_fault("length", f"{size} bytes", size, "ikev2-ts-incomplete", received=size)
        count = body[0]
        if not count:
            raise _ts_fault("selectors", "none", 0, "ikev2-ts-zero")
        selectors: list[TrafficSelector] = []
        at = 4
        for _ in range(count):
            if size - at < 8:
                raise _ts_fault(
                    "selector", f"{size - at} bytes left", at, "ikev2-ts-incomplete", received=size - at
                )
            kind, protocol, length, first_port, last_port = _SELECTOR_HEAD.unpack_from(body, at)
            octets = _ADDRESS_OCTETS.get(kind)
            if octets is None:
                raise _ts_fault("selector type", f"{kind}", at, "ikev2-invalid-ts-type", type=kind)
            if length != 8 + 2 * octets:
                raise _ts_fault("selector length", f"{length}", at + 2, "ikev2-invalid-ts-length", length=length)
            if length > size - at:
                raise _ts_fault(
                    "selector", f"{size - at} bytes left", at, "ikev2-ts-incomplete", received=size - at
                )
            middle = at + 8 + octets
            at += length
            first = int.from_bytes(body[middle - octets : middle], "big")
            last = int.from_bytes(body[middle:at], "big")
            selectors.append(TrafficSelector(first, last, protocol, first_port, last_port, kind))
        if at != size:
            raise _ts_fault("length", f"{size - at} bytes too many", at, "ikev2-default-length", received=size)
        return cls(type, tuple(selectors))

    def emit(self) -> bytes:
        return bytes((len(self.selectors), 0, 0, 0)) + b"".join([s.emit() for s in self.selectors])
