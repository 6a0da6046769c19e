"""Two whole engines, and a peer whose messages are bent: on the wire, or under its keys before they are sealed.

What the log has to say of it, at which end, and what the other end has to hear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chassis.ase.ike.log import INFORMATIONAL, TEMPLATES
from chassis.ase.ike.payloads import v1, v2
from chassis.ase.ike.payloads.header import HEADER_LENGTH, INITIATOR, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, PayloadTypeV2
from chassis.ase.ike.payloads.v1 import NotifyV1
from chassis.ase.ike.payloads.v2_payloads import NotifyV2
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.ike_messages import IkePacket
from chassis.bus.messages import LogRecord
from tests.support.ike.pair import A, B, End, Ends, EnginePair

COMES_UP_IN = 200.0
"""Seconds in which a tunnel stands that a bent message kept from coming up: an attempt is given up, then begun
again."""

Bend = Callable[[bytes], bytes]
Part = tuple[int, int, bytes, int | None]
"""A payload: (type, flags, body, length field or None for the right one); with `RAW` the body is all of it."""
RAW = -1


class MutatedPair(EnginePair):
    """`bend` changes the first datagram that end a sends."""

    def __init__(self, a: Ends, b: Ends, bend: Bend | None = None, **settings: Any) -> None:
        self._bend = bend
        super().__init__(a, b, **settings)

    def _wire(self, end: End, packet: IkePacket) -> None:
        if self._bend is not None and end is self.a:
            bend, self._bend = self._bend, None
            packet = replace(packet, data=bend(packet.data))
        super()._wire(end, packet)

    def hand(self, data: bytes) -> None:
        """A datagram from a's address comes to b."""
        self.give(self.b, IkePacket(7, self.b.local, 500, self.a.local, 500, data))

    def lives(self) -> None:
        """The tunnel is up or comes up by itself, and carries both ways."""
        assert self.until(lambda: self.a.up() and self.b.up(), COMES_UP_IN), (self.a.texts(), self.b.texts())
        assert self.packet(self.a)
        assert self.packet(self.b)


def said(end: End, row: str, **expected: Any) -> LogRecord:
    """The first line of a row, which has to say the text that it has in the guide, which tunnel, context and peer
    is meant, and who says it."""
    found = [record for record in end.logs if record.id == row]
    assert found, (row, end.rows(), end.texts())
    record: LogRecord = found[0]
    values = record.values
    assert record.text == TEMPLATES[row].format(**values)
    assert record.severity == ("informational" if row in INFORMATIONAL else "error")
    peer, asp = ("10.0.0.2", "asp 1/1") if end.local == A else ("10.0.0.1", "asp 2/1")
    where = {"tunnel": "tunnel5", "context": "outer", "peer": peer, "asp": asp}
    assert {name: values.get(name) for name in where} == where
    assert {name: values.get(name) for name in expected} == expected
    return record


def notifies_in_clear(end: End) -> list[int]:
    """Types of the notifications that an end sent unprotected."""
    found = []
    for packet in end.sent:
        header = Header.parse(packet.data)
        if header.major == 1 and not header.encrypted:
            found += [one.notify for one in v1.MessageV1.parse(packet.data).payloads if isinstance(one, NotifyV1)]
        elif header.major == 2:
            found += errors(v2.MessageV2.parse(packet.data).payloads)
    return found


def errors(payloads: Iterable[v2.PayloadV2]) -> list[int]:
    """The notifications of version 2 that report an error (RFC 7296 3.10.1)."""
    return [one.notify for one in payloads if isinstance(one, NotifyV2) and one.notify < 0x4000]


# --- version 2, payload by payload ---


def parts(first: int, plain: bytes) -> list[Part]:
    """A right chain, taken apart."""
    found: list[Part] = []
    at, kind = 0, first
    while kind:
        following, flags = plain[at], plain[at + 1]
        length = int.from_bytes(plain[at + 2 : at + 4], "big")
        found.append((kind, flags, plain[at + 4 : at + length], None))
        at, kind = at + length, following
    return found


def joined(chain: list[Part]) -> tuple[int, bytes]:
    """(type of the first payload, octets)."""
    plain = b""
    for place, (_, flags, body, length) in enumerate(chain):
        following = chain[place + 1][0] if place + 1 < len(chain) else 0
        size = 4 + len(body) if length is None else length
        plain += body if flags == RAW else bytes((following, flags)) + size.to_bytes(2, "big") + body
    return (chain[0][0] if chain else 0), plain


def message(header: Header, chain: list[Part]) -> bytes:
    """In clear, with a header that fits."""
    first, plain = joined(chain)
    return replace(header, next_payload=first, length=HEADER_LENGTH + len(plain)).emit() + plain


Change = Callable[[list[Part]], list[Part]]


@dataclass
class Seen:
    """What became of the message that was bent: its ID (None: not sent yet), and the errors that answered it."""

    message_id: int | None = None
    answers: list[int] = field(default_factory=list)


def bend_once(
    patch: pytest.MonkeyPatch, sender: int, exchange: ExchangeType, response: bool, change: Change
) -> Seen:
    """The first message of this exchange and direction that the end with address `sender` packs is changed, under
    the keys where it has them."""
    pack = SessionV2._pack
    seen = Seen()

    def packed(
        session: SessionV2, kind: int, message_id: int, payloads: tuple[v2.PayloadV2, ...], flag: int
    ) -> tuple[bytes, ...]:
        datagrams = pack(session, kind, message_id, payloads, flag)
        if flag and session.path.local != sender and message_id == seen.message_id and not seen.answers:
            seen.answers += errors(payloads)
        if seen.message_id is not None or kind != exchange or bool(flag) != response:
            return datagrams
        if session.path.local != sender:
            return datagrams
        seen.message_id = message_id
        chain = change(parts(*v2.emit_payloads(payloads)))
        if exchange == ExchangeType.IKE_SA_INIT:
            # What both sign later is what was sent.
            session.first_message_sent = message(Header.parse(datagrams[0]), chain)
            return (session.first_message_sent,)
        flags = flag | (INITIATOR if session.initiator else 0)
        header = Header(session.spi_i, session.spi_r, 0, VERSION_2, kind, flags, message_id, 0)
        guard = session.ike_keymat.sending
        first, plain = joined(chain)
        return (guard._encrypt(header, b"", PayloadTypeV2.SK, first, b"", plain, bytes(guard.iv_octets)),)

    patch.setattr(SessionV2, "_pack", packed)
    return seen


ADDRESSES = {"a": A, "b": B}
