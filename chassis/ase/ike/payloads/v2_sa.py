"""The SA payload of version 2: proposals, transforms and their attributes (RFC 7296 3.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2, Protocol

MAX_PROPOSALS: Final = 64
MAX_TRANSFORMS: Final = 512
MAX_ATTRIBUTES: Final = 16
KEY_LENGTH: Final = 14
"""The one transform attribute that is defined: key length in bits, always in short form (RFC 7296 3.3.5)."""

_PROPOSAL = struct.Struct("!BBHBBBB")
_TRANSFORM = struct.Struct("!BBHBBH")
_PAIR = struct.Struct("!HH")
_SPI_SIZES: Final = {Protocol.IKE: (0, 8), Protocol.AH: (4,), Protocol.ESP: (4,)}


def _fault(field: str, what: str, offset: int, log: str = "", **values: int) -> PayloadError:
    return PayloadError("SA", field, what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX)


@dataclass(frozen=True, slots=True)
class AttributeV2:
    """A transform attribute: an int value is in short form (two octets), octets are in long form."""

    type: int
    value: int | bytes

    def emit(self) -> bytes:
        if isinstance(self.value, int):
            return _PAIR.pack(0x8000 | self.type, self.value)
        return _PAIR.pack(self.type, len(self.value)) + self.value


@dataclass(frozen=True, slots=True)
class TransformV2:
    """One algorithm: `type` 1 ENCR, 2 PRF, 3 INTEG, 4 DH, 5 ESN; `id` its number in that type."""

    type: int
    id: int
    attributes: tuple[AttributeV2, ...] = ()

    @property
    def key_bits(self) -> int | None:
        """The Key Length attribute (bits); None without one."""
        for attribute in self.attributes:
            if attribute.type == KEY_LENGTH and isinstance(attribute.value, int):
                return attribute.value
        return None

    def emit(self, last: bool) -> bytes:
        attributes = b"".join([attribute.emit() for attribute in self.attributes])
        return _TRANSFORM.pack(0 if last else 3, 0, 8 + len(attributes), self.type, 0, self.id) + attributes


@dataclass(frozen=True, slots=True)
class ProposalV2:
    """`spi` is empty, eight octets (IKE SA rekeyed) or four (AH, ESP). Two proposals of one number are a bundle
    (RFC 4306 3.3)."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[TransformV2, ...]

    def emit(self, last: bool) -> bytes:
        count = len(self.transforms)
        body = b"".join([t.emit(i == count) for i, t in enumerate(self.transforms, 1)])
        size = 8 + len(self.spi) + len(body)
        head = _PROPOSAL.pack(0 if last else 2, 0, size, self.number, self.protocol, len(self.spi), count)
        return head + self.spi + body


@dataclass(frozen=True, slots=True)
class SaV2:
    """Proposals in order of preference."""

    type: ClassVar[int] = PayloadTypeV2.SA
    proposals: tuple[ProposalV2, ...]

    @classmethod
    def parse(cls, body: memoryview) -> SaV2:
        """Raises PayloadError for a wrong structure; unknown protocols, transforms and attributes are left to the
        choice of a proposal."""
        size = len(body)
        proposals: list[ProposalV2] = []
        at = 0
        transforms_left = MAX_TRANSFORMS
        more = True
        while more:
            if size - at < 8:
                raise _fault("proposal", f"{size - at} bytes left", at, "ikev2-sa-incomplete", received=size - at)
            last, _, length, number, protocol, spi_size, count = _PROPOSAL.unpack_from(body, at)
            if length > size - at or length < 8 + spi_size:
                raise _fault(
                    "proposal length",
                    f"{length} of {size - at} bytes",
                    at + 2,
                    "ikev2-proposal-length",
                    length=length,
                    received=size - at,
                )
            if last not in (0, 2):
                raise _fault("proposal", f"last substructure {last}", at)
            if spi_size not in _SPI_SIZES.get(protocol, (spi_size,)):
                raise _fault(
                    "SPI size",
                    f"{spi_size} for protocol {protocol}",
                    at + 6,
                    "ikev2-invalid-spi-size",
                    size=spi_size,
                    proposal=number,
                )
            if count == 0:
                raise _fault("transforms", "none", at + 7, "ikev2-zero-transform", proposal=number)
            transforms_left -= count
            if transforms_left < 0 or len(proposals) == MAX_PROPOSALS:
                raise _fault("proposals", "too many proposals or transforms", at)
            start = at + 8 + spi_size
            end = at + length
            transforms = _transforms(body, start, end, count)
            proposals.append(ProposalV2(number, protocol, bytes(body[at + 8 : start]), transforms))
            at = end
            more = last == 2
        if at != size:
            raise _fault(
                "length",
                f"{size - at} bytes after the last proposal",
                at,
                "ikev2-sa-length",
                length=at,
                received=size,
            )
        return cls(tuple(proposals))

    def emit(self) -> bytes:
        count = len(self.proposals)
        return b"".join([p.emit(i == count) for i, p in enumerate(self.proposals, 1)])


def _transforms(body: memoryview, at: int, end: int, count: int) -> tuple[TransformV2, ...]:
    """Return `count` transforms that fill the octets from `at` to `end`; raises PayloadError."""
    transforms: list[TransformV2] = []
    for left in range(count - 1, -1, -1):
        room = end - at
        if room < 8:
            raise _fault("transform", f"{room} bytes left", at, "ikev2-xform-incomplete", received=room)
        last, _, length, kind, _, number = _TRANSFORM.unpack_from(body, at)
        if length < 8 or length > room:
            raise _fault(
                "transform length",
                f"{length} of {room} bytes",
                at + 2,
                "ikev2-xform-length",
                length=length,
                received=room,
            )
        if last != (3 if left else 0):
            raise _fault("transform", f"last substructure {last} with {left} to come", at)
        attributes = _attributes(body, at + 8, at + length) if length > 8 else ()
        transforms.append(TransformV2(kind, number, attributes))
        at += length
    if at != end:
        raise _fault(
            "transforms", f"{end - at} bytes too many", at, "ikev2-xform-length", length=at, received=end - at
        )
    return tuple(transforms)


def _attributes(body: memoryview, at: int, end: int) -> tuple[AttributeV2, ...]:
    attributes: list[AttributeV2] = []
    while at < end:
        if end - at < 4 or len(attributes) == MAX_ATTRIBUTES:
            raise _fault(
                "attribute",
                f"{end - at} bytes left",
                at,
                "ikev2-xform-attrib-length",
                length=4,
                received=end - at,
            )
        kind, value = _PAIR.unpack_from(body, at)
        at += 4
        if kind & 0x8000:
            attributes.append(AttributeV2(kind & 0x7FFF, value))
            continue
        if kind == KEY_LENGTH:
            raise _fault("attribute format", "key length in long form", at - 4, "ikev2-xform-attrib-af")
        if value > end - at:
            raise _fault(
                "attribute length",
                f"{value} of {end - at} bytes",
                at - 2,
                "ikev2-xform-attrib-length",
                length=value,
                received=end - at,
            )
        attributes.append(AttributeV2(kind, bytes(body[at : at + value])))
        at += value
    return tuple(attributes)
