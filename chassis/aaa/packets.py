"""RADIUS packets: questions and reports out, replies in (RFC 2865, RFC 2866, RFC 3579).

Packets are pyrad's; what it leaves open is done here. Its decoder takes an attribute that is longer than the rest
of its packet, and packets above 4096 octets: such replies are refused before it sees them. Its encoder reads
octets that begin with `0x` as digits: Class is given to it by number, which it leaves alone. Identifiers and
authenticators are arguments, so that it never makes one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyrad.packet import (
    AccessAccept,
    AccessChallenge,
    AccessReject,
    AccessRequest,
    AccountingRequest,
    AccountingResponse,
    AcctPacket,
    AuthPacket,
    Packet,
    PacketError,
)

from chassis.aaa.accounting_record import STATUS_TYPES, AccountingRecord
from chassis.aaa.dictionary import DICTIONARY
from chassis.aaa.settings import ServerAddress

SHORTEST, LONGEST = 20, 4096
"""Octets of a packet (RFC 2865 3)."""

LONGEST_TEXT, LONGEST_VENDOR_TEXT = 253, 247
"""Octets of the value of an attribute, and of one of a vendor (RFC 2865 5, 5.26)."""

OUTBOUND, VIRTUAL, BY_RADIUS = 5, 5, 1
"""Service-Type Outbound (RFC 2865 5.6), NAS-Port-Type Virtual (5.41), Acct-Authentic RADIUS (RFC 2866 5.6)."""

_MESSAGE_AUTHENTICATOR, _CLASS = 80, 25
_WORD = 1 << 32
_EXPECTED = {
    AccessRequest: (AccessAccept, AccessReject, AccessChallenge),
    AccountingRequest: (AccountingResponse,),
}
"""Codes of the replies to a request."""


class ReplyError(ValueError):
    """A reply that is dropped. `cause` is its counter: "malformed", "bad authenticator", "unsigned" or "unknown
    type". The server's key has made the last two."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class SentRequest:
    """What a reply is checked against. `signed`: an accept must have a Message-Authenticator."""

    code: int
    identifier: int
    authenticator: bytes
    secret: bytes = field(repr=False)
    signed: bool = True
    payload: bytes = field(default=b"", repr=False)


def access_request(
    identifier: int,
    authenticator: bytes,
    server: ServerAddress,
    *,
    hostname: str,
    identity: str,
    password: bytes,
    peer: str,
    local: str,
) -> SentRequest:
    """Return a question about a peer: may it come in, and with what key.

    The first attribute is Message-Authenticator (RFC 3579 3.2). `identity` has at most 253 octets in UTF-8.
    """
    packet = AuthPacket(
        AccessRequest, identifier, secret=server.secret, authenticator=authenticator, dict=DICTIONARY
    )
    packet.add_message_authenticator()
    packet.AddAttribute("User-Name", _cut(identity))
    packet[2] = [packet.PwCrypt(password)]
    packet.AddAttribute("Service-Type", OUTBOUND)
    _add_router(packet, server, hostname, peer, local)
    return SentRequest(
        AccessRequest, identifier, authenticator, server.secret, server.signed, packet.RequestPacket()
    )


def accounting_request(
    identifier: int, server: ServerAddress, *, hostname: str, record: AccountingRecord, delay: int
) -> SentRequest:
    """Return a report of a session; `delay` (s) is Acct-Delay-Time."""
    packet = AcctPacket(AccountingRequest, identifier, secret=server.secret, dict=DICTIONARY)
    packet.AddAttribute("Acct-Status-Type", STATUS_TYPES[record.status])
    packet.AddAttribute("Acct-Session-Id", _cut(record.session))
    packet.AddAttribute("User-Name", _cut(record.user))
    packet.AddAttribute("Acct-Authentic", BY_RADIUS)
    packet.AddAttribute("Service-Type", OUTBOUND)
    _add_router(packet, server, hostname, record.peer, record.local)
    if record.address is not None:
        packet.AddAttribute("Framed-IP-Address", record.address)
    if record.profile is not None:
        packet.AddAttribute("Security-Service", _cut(f"ipsec profile {record.profile}", LONGEST_VENDOR_TEXT))
    packet.AddAttribute("Event-Timestamp", int(record.time) % _WORD)
    packet.AddAttribute("Acct-Delay-Time", min(delay, _WORD - 1))
    if record.status != "start":
        _add_counters(packet, record)
    if record.classes:
        packet[_CLASS] = list(record.classes)
    payload = packet.RequestPacket()
    return SentRequest(AccountingRequest, identifier, packet.authenticator, server.secret, False, payload)


def _add_router(packet: Packet, server: ServerAddress, hostname: str, peer: str, local: str) -> None:
    packet.AddAttribute("NAS-Identifier", _cut(hostname))
    if server.source is not None:
        packet.AddAttribute("NAS-IP-Address", server.source)
    packet.AddAttribute("NAS-Port-Type", VIRTUAL)
    if local:
        packet.AddAttribute("Called-Station-Id", local)
    if peer:
        packet.AddAttribute("Calling-Station-Id", peer)


def _cut(text: str, most: int = LONGEST_TEXT) -> bytes:
    """Return as much of a text as an attribute holds."""
    return text.encode("utf-8", "replace")[:most]


def _add_counters(packet: Packet, record: AccountingRecord) -> None:
    """Add what a session carried: octets with gigawords (RFC 2869 5.1, 5.2), and all in Redback's 64 bits, since
    packets have no gigawords."""
    packet.AddAttribute("Acct-Session-Time", record.seconds % _WORD)
    counters = {
        "Input": (record.input_octets, record.input_packets),
        "Output": (record.output_octets, record.output_packets),
    }
    for way, (octets, packets) in counters.items():
        packet.AddAttribute(f"Acct-{way}-Octets", octets % _WORD)
        packet.AddAttribute(f"Acct-{way}-Gigawords", octets // _WORD)
        packet.AddAttribute(f"Acct-{way}-Packets", packets % _WORD)
        packet.AddAttribute(f"Acct-{way}-Octets-64", octets)
        packet.AddAttribute(f"Acct-{way}-Packets-64", packets)
    if record.status == "stop" and record.cause is not None:
        packet.AddAttribute("Acct-Terminate-Cause", int(record.cause))


def read_reply(data: bytes, sent: SentRequest) -> Packet:
    """Return the reply to a request: its structure, authenticators and code are right.

    Raises:
        ReplyError: it is to be dropped.
    """
    data = _checked(data)
    request = Packet(
        sent.code, sent.identifier, secret=sent.secret, authenticator=sent.authenticator, dict=DICTIONARY
    )
    try:
        reply = request.CreateReply(packet=data)
        genuine = request.VerifyReply(reply, data)
    except (PacketError, ValueError):
        raise ReplyError("malformed") from None
    if not genuine:
        raise ReplyError("bad authenticator")
    if reply.code not in _EXPECTED[sent.code]:
        raise ReplyError("unknown type")
    # Who bends replies on their way can make an accept of a reject. The other way it gains nothing.
    if sent.signed and reply.code == AccessAccept and _MESSAGE_AUTHENTICATOR not in reply:
        raise ReplyError("unsigned")
    return reply


def _checked(data: bytes) -> bytes:
    """Return a packet without padding, whose attributes fill it (RFC 2865 3, 5).

    Raises:
        ReplyError: they do not, or there are two Message-Authenticators or one of another length than 18.
    """
    length = int.from_bytes(data[2:4]) if len(data) >= SHORTEST else 0
    if not SHORTEST <= length <= min(len(data), LONGEST):
        raise ReplyError("malformed")
    at, signatures = SHORTEST, 0
    while at < length:
        size = data[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            raise ReplyError("malformed")
        if data[at] == _MESSAGE_AUTHENTICATOR:
            signatures += 1
            if size != 18 or signatures > 1:
                raise ReplyError("malformed")
        at += size
    return data[:length]
