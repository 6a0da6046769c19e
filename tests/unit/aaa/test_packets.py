"""RADIUS packets: the example of RFC 2865, replies that are malformed, and any text in a request."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.packet import AccessRequest, AcctPacket, AuthPacket

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.dictionary import DICTIONARY
from chassis.aaa.packets import LONGEST, ReplyError, SentRequest, access_request, accounting_request, read_reply
from tests.support.radius import BOOKS, SECRET, WALL, A

# RFC 2865 7.1: secret xyzzy5461.
EXAMPLE = SentRequest(
    AccessRequest, 0, bytes.fromhex("0f403f9473978057bd83d5cb98f4227a"), b"xyzzy5461", signed=False
)
REPLY = bytes.fromhex(
    "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103".replace(" ", "")
)

TEXT = st.text(max_size=300)


def signed(body: bytes, code: int = 2, length: int | None = None) -> bytes:
    """A reply to the example with these attributes, whatever they are."""
    size = 20 + len(body) if length is None else length
    head = bytes((code, 0)) + size.to_bytes(2)
    return head + hashlib.md5(head + EXAMPLE.authenticator + body + EXAMPLE.secret).digest() + body


def test_the_reply_of_the_rfc_is_genuine() -> None:
    reply = read_reply(REPLY, EXAMPLE)
    assert (reply.code, reply["Service-Type"]) == (2, [1])


def test_octets_beyond_the_length_are_padding() -> None:
    assert read_reply(REPLY + b"more", EXAMPLE)["Service-Type"] == [1]


@pytest.mark.parametrize("at", range(len(REPLY)))
def test_no_octet_of_a_reply_can_be_changed(at: int) -> None:
    bent = bytearray(REPLY)
    bent[at] ^= 1
    with pytest.raises(ReplyError) as error:
        # The identifier chose the request before.
        read_reply(bytes(bent), EXAMPLE)
    assert error.value.cause in ("malformed", "bad authenticator")


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"\2\0\0\x14", REPLY[:19], REPLY[:-1],
        signed(b"\x06\x06\0\0\0\1", length=19),
        signed(b"\x06"),
        signed(b"\x06\x01"),
        signed(b"\x06\x07\0\0\0\1"),
        signed(b"\x50\x11" + bytes(15)),
        signed(b"\x50\x12" + bytes(16) + b"\x50\x12" + bytes(16)),
        signed(b"\x12\xff" * 1 + bytes(253) + b"".join(b"\x12\xff" + bytes(253) for _ in range(16))),
    ],
)  # fmt: skip
def test_what_is_no_packet_is_malformed(reply: bytes) -> None:
    with pytest.raises(ReplyError, match="malformed"):
        read_reply(reply, EXAMPLE)


def test_the_longest_packet_is_one() -> None:
    body = b"".join(b"\x12\xfe" + bytes(252) for _ in range(16)) + b"\x12\x0c" + bytes(10)
    assert len(signed(body)) == LONGEST
    assert read_reply(signed(body), EXAMPLE).code == 2


@pytest.mark.parametrize(("code", "cause"), [(1, "unknown type"), (5, "unknown type"), (43, "unknown type")])
def test_a_packet_that_answers_nothing_is_of_an_unknown_type(code: int, cause: str) -> None:
    with pytest.raises(ReplyError, match=cause):
        read_reply(signed(b"", code), EXAMPLE)


def test_a_proxy_state_that_was_not_sent_is_no_part_of_a_reply() -> None:
    """It is what a bent reply has (CVE-2024-3596)."""
    with pytest.raises(ReplyError, match="bad authenticator"):
        read_reply(signed(b"\x21\x04ab"), EXAMPLE)
    with pytest.raises(ReplyError, match="unsigned"):
        read_reply(REPLY, replace(EXAMPLE, signed=True))


@given(TEXT, TEXT, TEXT, TEXT)
def test_any_text_fits_into_a_question(hostname: str, identity: str, peer: str, local: str) -> None:
    peer, local = peer[:60], local[:60]
    sent = access_request(
        7, bytes(range(16)), A, hostname=hostname, identity=identity, password=b"Redback", peer=peer, local=local
    )
    packet = AuthPacket(packet=sent.payload, secret=SECRET, dict=DICTIONARY)
    assert packet.verify_message_authenticator()
    assert (packet.id, packet.authenticator, sent.payload[20]) == (7, bytes(range(16)), 80)
    assert packet.get(1, [b""])[0] == identity.encode()[:253]


@given(TEXT, TEXT, TEXT, TEXT, st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 40), st.binary(max_size=253))
def test_any_text_and_count_fits_into_a_report(
    hostname: str, session: str, user: str, profile: str, count: int, seconds: int, octets: bytes
) -> None:
    record = AccountingRecord(
        "r", session, "stop", "vpn", user, WALL, profile=profile, classes=(octets,), seconds=seconds,
        input_octets=count, output_octets=count, input_packets=count, output_packets=count,
    )  # fmt: skip
    sent = accounting_request(9, BOOKS, hostname=hostname, record=record, delay=seconds)
    packet = AcctPacket(packet=sent.payload, secret=BOOKS.secret, dict=DICTIONARY)
    assert packet.VerifyAcctRequest()
    assert (packet.get(25), sent.authenticator) == ([octets], packet.authenticator)
    octets_counted = packet["Acct-Input-Octets"][0] + (packet["Acct-Input-Gigawords"][0] << 32)
    assert octets_counted == count == packet["Acct-Output-Packets-64"][0]
