"""Answers to messages that belong to no IKE SA: in clear, so they prove nothing and promise nothing.

None is longer than what it answers, and a budget bounds them all: nobody is flooded by way of us.
"""

from __future__ import annotations

from chassis.ase.ike.payloads import v1, v2_payloads
from chassis.ase.ike.payloads.header import INITIATOR, RESPONSE, VERSION_1, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, Protocol
from chassis.ase.ike.payloads.v1 import MessageV1
from chassis.ase.ike.payloads.v2 import MessageV2

RATE = 50.0
BURST = 100
"""Answers a second, and how many at once."""


def answer_v1(header: Header, notify: int, message_id: bytes, size: int) -> bytes | None:
    """An informational exchange in clear (RFC 2408 5.1 ff.); `message_id` is four random octets.

    None where the message to be answered is shorter, or is one of those that are never answered.
    """
    if header.exchange == ExchangeType.INFORMATIONAL_V1:
        return None
    head = Header(
        header.spi_i,
        header.spi_r,
        0,
        VERSION_1,
        ExchangeType.INFORMATIONAL_V1,
        0,
        int.from_bytes(message_id, "big") or 1,
        0,
    )
    spi = header.spi_i + header.spi_r
    message = MessageV1(head, (v1.NotifyV1(notify, Protocol.IKE, spi),)).emit()
    return message if len(message) <= size else None


def answer_v2(header: Header, notify: int, data: bytes, size: int) -> bytes | None:
    """The response in clear to a request (RFC 7296 2.21.4, 2.5); None for a response, which is never answered."""
    if header.is_response:
        return None
    flags = RESPONSE | (INITIATOR if not header.from_initiator else 0)
    exchange = header.exchange if header.exchange >= ExchangeType.IKE_SA_INIT else ExchangeType.INFORMATIONAL
    head = Header(header.spi_i, header.spi_r, 0, VERSION_2, exchange, flags, header.message_id, 0)
    message = MessageV2(head, (v2_payloads.NotifyV2(notify, data),)).emit()
    return message if len(message) <= size else None
