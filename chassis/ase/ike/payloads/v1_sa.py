"""The SA payload of version 1: proposals, transforms, attributes (RFC 2407 4.6.1, RFC 2408 3.3 to 3.6).

One codec serves phase 1 (one ISAKMP proposal of several transforms) and phase 2 (several proposals of
one number are a bundle of AH, ESP and IPComp).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import IPSEC_DOI, SIT_IDENTITY_ONLY, NotifyTypeV1, PayloadTypeV1, Protocol

MAX_PROPOSALS: Final = 64
MAX_TRANSFORMS: Final = 512
MAX_ATTRIBUTES: Final = 32
MAX_SPI: Final = 16

_SITUATION = struct.Struct("!II")
_PROPOSAL = struct.Struct("!BBHBBBB")
_TRANSFORM = struct.Struct("!BBHBBH")
_PAIR = struct.Struct("!HH")
_SPI_SIZES: Final = {
    Protocol.IKE: frozenset(range(MAX_SPI + 1)),
    Protocol.AH: frozenset((4,)),
    Protocol.ESP: frozenset((4,)),
    Protocol.IPCOMP: frozenset((2, 4)),
}


def _fault(field: str, what: str, offset: int, notify: int, log: str = "", **values: int) -> PayloadError:
    return PayloadError("SA", field, what, offset, log=log, values=values, notify=notify)


def _reserved(field: str, value: int, offset: int) -> PayloadError:
    return _fault(
        field,
        f"reserved {value:#x}",
        offset,
        NotifyTypeV1.BAD_PROPOSAL_SYNTAX,
        "ikev1-invalid-reserved-value",
        value=value,
    )


@dataclass(frozen=True, slots=True)
class AttributeV1:
    """A data attribute: an int value is in short form (two octets), octets are in long form."""

    type: int
    value: int | bytes

    @property
    def number(self) -> int:
        """The value as a number, of either form."""
        return self.value if isinstance(self.value, int) else int.from_bytes(self.value, "big")

    def emit(self) -> bytes:
        if isinstance(self.value, int):
            return _PAIR.pack(0x8000 | self.type, self.value)
        return _PAIR.pack(self.type, len(self.value)) + self.value


@dataclass(frozen=True, slots=True)
class TransformV1:
    """Transform `number` (1, 2, ...) with its protocol's transform identifier `id`."""

    number: int
    id: int
    attributes: tuple[AttributeV1, ...] = ()

    def emit(self, last: bool) -> bytes:
        attributes = b"".join([attribute.emit() for attribute in self.attributes])
        head = _TRANSFORM.pack(
            0 if last else PayloadTypeV1.TRANSFORM, 0, 8 + len(attributes), self.number, self.id, 0
        )
        return head + attributes


@dataclass(frozen=True, slots=True)
class ProposalV1:
    """`spi` is empty (phase 1), four octets (AH, ESP), or two (the CPI of IPComp)."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[TransformV1, ...]

    def emit(self, last: bool) -> bytes:
        count = len(self.transforms)
        body = b"".join([t.emit(i == count) for i, t in enumerate(self.transforms, 1)])
        size = 8 + len(self.spi) + len(body)
        following = 0 if last else PayloadTypeV1.PROPOSAL
        return (
            _PROPOSAL.pack(following, 0, size, self.number, self.protocol, len(self.spi), count) + self.spi + body
        )


@dataclass(frozen=True, slots=True)
class SaV1:
    """Proposals in order of preference, always in the IPsec DOI and the situation "identity only"."""

    type: ClassVar[int] = PayloadTypeV1.SA
    proposals: tuple[ProposalV1, ...]

    @classmethod
    def parse(cls, body: memoryview) -> SaV1:
        """Raises PayloadError for a wrong structure; unknown identifiers and attributes are left to the
        choice of a proposal."""
        size = len(body)
        if size < 16:
            raise _fault("length", f"{size} bytes", size, NotifyTypeV1.PAYLOAD_MALFORMED)
        doi, situation = _SITUATION.unpack_from(body)
        if doi != IPSEC_DOI:
            raise _fault("DOI", f"{doi:#x}", 0, NotifyTypeV1.DOI_NOT_SUPPORTED, "ikev1-invalid-doi", value=doi)
        if situation != SIT_IDENTITY_ONLY:
            raise _fault(
                "situation",
                f"{situation:#x}",
                4,
                NotifyTypeV1.SITUATION_NOT_SUPPORTED,
                "ikev1-situation-not-supported",
                value=situation,
            )
        proposals: list[ProposalV1] = []
        transforms_left = MAX_TRANSFORMS
        at = 8
        more = True
        while more:
            room = size - at
            if room < 8:
                raise _fault("proposal", f"{room} bytes left", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
            following, reserved, length, number, protocol, spi_size, count = _PROPOSAL.unpack_from(body, at)
            if following not in (0, PayloadTypeV1.PROPOSAL):
                raise _fault("proposal", f"next payload {following}", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
            if reserved:
                raise _reserved("proposal", reserved, at + 1)
            if not 8 + spi_size <= length <= room:
                raise _fault(
                    "proposal length", f"{length} of {room} bytes", at + 2, NotifyTypeV1.BAD_PROPOSAL_SYNTAX
                )
            sizes = _SPI_SIZES.get(protocol)
            if sizes is None:
                raise _fault(
                    "protocol ID", f"{protocol:#x}", at + 5, 0, "ikev1-invalid-protocol-id", value=protocol
                )
            if spi_size not in sizes:
                raise _fault("SPI size", f"{spi_size} for protocol {protocol}", at + 6, NotifyTypeV1.INVALID_SPI)
            transforms_left -= count
            if not count or transforms_left < 0 or len(proposals) == MAX_PROPOSALS:
                raise _fault("transforms", f"{count} of them", at + 7, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
            start = at + 8 + spi_size
            transforms = _transforms(body, start, at + length, count)
            proposals.append(ProposalV1(number, protocol, bytes(body[at + 8 : start]), transforms))
            at += length
            more = following == PayloadTypeV1.PROPOSAL
        if at != size:
            raise _fault(
                "length",
                f"{size - at} bytes after the last proposal",
                at,
                NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
                "ikev1-sa-payload-length",
                length=size + 4,
                size=at + 4,
            )
        return cls(tuple(proposals))

    def emit(self) -> bytes:
        count = len(self.proposals)
        proposals = b"".join([p.emit(i == count) for i, p in enumerate(self.proposals, 1)])
        return _SITUATION.pack(IPSEC_DOI, SIT_IDENTITY_ONLY) + proposals


def _transforms(body: memoryview, at: int, end: int, count: int) -> tuple[TransformV1, ...]:
    """Return `count` transforms that fill the octets from `at` to `end`; raises PayloadError."""
    transforms: list[TransformV1] = []
    for left in range(count - 1, -1, -1):
        room = end - at
        if room < 8:
            raise _fault("transform", f"{room} bytes left", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
        following, reserved, length, number, identifier, reserved_2 = _TRANSFORM.unpack_from(body, at)
        if reserved or reserved_2:
            raise _reserved("transform", reserved or reserved_2, at + 1)
        if following != (PayloadTypeV1.TRANSFORM if left else 0):
            raise _fault(
                "transform", f"next payload {following} with {left} to come", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX
            )
        if not 8 <= length <= room:
            raise _fault("transform length", f"{length} of {room} bytes", at + 2, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
        transforms.append(TransformV1(number, identifier, _attributes(body, at + 8, at + length)))
        at += length
    if at != end:
        raise _fault("proposal length", f"{end - at} bytes too many", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
    return tuple(transforms)


def _attributes(body: memoryview, at: int, end: int) -> tuple[AttributeV1, ...]:
    attributes: list[AttributeV1] = []
    while at < end:
        room = end - at - 4
        if room < 0 or len(attributes) == MAX_ATTRIBUTES:
            raise _fault("attribute", f"{end - at} bytes left", at, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
        kind, value = _PAIR.unpack_from(body, at)
        at += 4
        if kind & 0x8000:
            attributes.append(AttributeV1(kind & 0x7FFF, value))
            continue
        if value > room:
            raise _fault("attribute length", f"{value} of {room} bytes", at - 2, NotifyTypeV1.BAD_PROPOSAL_SYNTAX)
        attributes.append(AttributeV1(kind, bytes(body[at : at + value])))
        at += value
    return tuple(attributes)
