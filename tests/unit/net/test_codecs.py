"""Codecs: known bytes, round trips, any bytes, and agreement with scapy."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.net import icmp, ipv4
from chassis.net.address import parse_address
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM, Ethernet, header, padded
from chassis.net.fragments import copied_options, fragment
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import Ipv4
from chassis.net.udp import Udp

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers import inet, l2  # noqa: E402

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
mac = st.binary(min_size=6, max_size=6)
data = st.binary(max_size=200)

frames = st.builds(Ethernet, mac, mac, st.integers(0x600, 0xFFFF), data)
arps = st.builds(Arp, st.sampled_from((REQUEST, REPLY)), mac, u32, mac, u32)
datagrams = st.builds(Udp, u16, u16, data)
messages = st.builds(Icmp, u8, u8, u32, data)
packets = st.builds(
    Ipv4,
    source=u32,
    destination=u32,
    protocol=u8,
    payload=data,
    ttl=u8,
    tos=u8,
    identification=u16,
    dont_fragment=st.booleans(),
    more_fragments=st.booleans(),
    offset=st.integers(0, 8000).map(lambda units: units * 8),
    options=st.integers(0, 10).flatmap(lambda words: st.binary(min_size=words * 4, max_size=words * 4)),
)


@given(st.one_of(frames, arps, datagrams, messages, packets))
def test_what_is_emitted_parses_to_the_same_value(value: Any) -> None:
    assert type(value).parse(value.emit()) == value
    assert type(value).parse(memoryview(bytearray(value.emit()))) == value


@pytest.mark.parametrize("parse", [Ethernet.parse, Arp.parse, Ipv4.parse, Udp.parse, Icmp.parse])
@given(raw=st.one_of(st.binary(max_size=80), packets.map(Ipv4.emit).map(lambda raw: raw[:-1])))
def test_any_bytes_parse_or_raise_decode_error(parse: Callable[[bytes], Any], raw: bytes) -> None:
    try:
        value = parse(raw)
    except DecodeError:
        return
    emitted = value.emit()
    # Padding of a frame and a UDP or ICMP checksum may differ; the value may not.
    assert parse(emitted) == value


@given(packets, st.integers(0, 59), u8)
def test_a_damaged_header_is_never_taken_for_another(packet: Ipv4, at: int, flip: int) -> None:
    raw = bytearray(packet.emit())
    at %= ipv4.IPV4_HEADER_LENGTH + len(packet.options)
    if flip == 0:
        return
    raw[at] ^= flip
    with pytest.raises(DecodeError):
        Ipv4.parse(raw)


def test_known_ipv4_header() -> None:
    raw = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7") + bytes(0x73 - 20)
    packet = Ipv4.parse(raw)
    assert packet.source == parse_address("192.168.0.1")
    assert packet.destination == parse_address("192.168.0.199")
    assert (packet.protocol, packet.ttl, packet.dont_fragment) == (17, 64, True)
    assert packet.emit() == raw


def test_known_arp_request() -> None:
    raw = bytes.fromhex("0001080006040001020000000301" + "0a000001" + "000000000000" + "0a000002")
    packet = Arp.parse(raw + bytes(18))
    assert packet == Arp(1, bytes.fromhex("020000000301"), 0x0A000001, bytes(6), 0x0A000002)
    assert packet.emit() == raw


@pytest.mark.parametrize(("parse", "raw", "where", "what"), [
    (Ethernet.parse, bytes(13), "ethernet", "13 bytes"),
    (Ethernet.parse, bytes(12) + b"\x00\x2e" + bytes(46), "ethernet", "length"),
    (Arp.parse, bytes(27), "arp", "27 bytes"),
    (Arp.parse, bytes.fromhex("0006080006040001") + bytes(20), "arp", "hardware"),
    (Arp.parse, bytes.fromhex("000186dd06100001") + bytes(20), "arp", "protocol"),
    (Arp.parse, bytes.fromhex("0001080006040009") + bytes(20), "arp", "operation"),
    (Ipv4.parse, b"\x65" + bytes(19), "ipv4", "version 6"),
    (Ipv4.parse, b"\x44" + bytes(19), "ipv4", "header length"),
    (Ipv4.parse, b"\x45\x00\x00\x15" + bytes(16), "ipv4", "total length"),
    (Ipv4.parse, b"\x45\x00\x00\x14" + bytes(17), "ipv4", "beyond"),
    (Ipv4.parse, b"\x45\x00\x00\x14" + bytes(16), "ipv4", "checksum"),
    (Udp.parse, bytes(7), "udp", "7 bytes"),
    (Udp.parse, struct.pack("!HHHH", 1, 2, 9, 0), "udp", "length 9"),
    (Icmp.parse, b"\x08\x00\x00\x00" + bytes(4), "icmp", "checksum"),
    (Icmp.parse, bytes(7), "icmp", "7 bytes"),
])  # fmt: skip
def test_errors_say_what_and_where(parse: Callable[[bytes], Any], raw: bytes, where: str, what: str) -> None:
    with pytest.raises(DecodeError, match=what) as caught:
        parse(raw)
    assert caught.value.where == where


def test_padding_of_a_short_frame_is_cut_by_the_total_length() -> None:
    packet = Ipv4(1, 2, ipv4.PROTOCOL_UDP, b"abc").emit()
    frame = padded(header(bytes(6), bytes(6)) + packet)
    assert len(frame) == 60
    assert Ipv4.parse(frame[HEADROOM:], padding=True).emit() == packet
    with pytest.raises(DecodeError, match="beyond"):
        Ipv4.parse(frame[HEADROOM:])


def test_reserved_flag_and_overlong_fragment_are_refused() -> None:
    for word in (0x8000, 0x1FFF):
        raw = ipv4.header_bytes(1, 2, 17, 40, ttl=9, tos=0, identification=1, flags=word) + bytes(20)
        with pytest.raises(DecodeError) as caught:
            Ipv4.parse(raw)
        assert caught.value.offset == 6


@given(packets)
def test_scapy_reads_our_ipv4(packet: Ipv4) -> None:
    seen = inet.IP(packet.emit())
    assert int(seen.ttl) == packet.ttl
    assert seen.frag * 8 == packet.offset
    assert struct.unpack("!II", packet.emit()[12:20]) == (packet.source, packet.destination)
    without = inet.IP(packet.emit()[: 20 + len(packet.options)])
    stored = without.chksum
    del without.chksum
    assert inet.IP(bytes(without)).chksum == stored


@given(datagrams, u32, u32)
def test_scapy_agrees_on_udp_checksums(datagram: Udp, source: int, destination: int) -> None:
    raw = datagram.emit((source, destination))
    packet = Ipv4(source, destination, ipv4.PROTOCOL_UDP, raw)
    theirs = inet.IP(packet.emit())
    del theirs[inet.UDP].chksum
    assert bytes(theirs)[20:] == raw
    assert Udp.parse(raw, (source, destination)) == datagram
    damaged = bytearray(raw)
    damaged[0] ^= 0x55
    with pytest.raises(DecodeError):
        Udp.parse(damaged, (source, destination))


@given(u16, u16, data)
def test_scapy_agrees_on_echo(identifier: int, sequence: int, payload: bytes) -> None:
    request = icmp.echo_request(identifier, sequence, payload)
    assert bytes(inet.ICMP(type=8, id=identifier, seq=sequence) / payload) == request.emit()
    reply = icmp.echo_reply(request)
    assert (reply.type, reply.identifier, reply.sequence) == (0, identifier, sequence)
    assert bytes(inet.ICMP(type=0, id=identifier, seq=sequence) / payload) == reply.emit()


def test_scapy_reads_icmp_errors() -> None:
    quoted = Ipv4(1, 2, 17, bytes(8)).emit()
    seen = inet.ICMP(icmp.unreachable(icmp.FRAGMENTATION_NEEDED, quoted, mtu=1400).emit())
    assert (seen.type, seen.code, seen.nexthopmtu) == (3, 4, 1400)
    assert inet.ICMP(icmp.time_exceeded(quoted).emit()).type == 11


def test_scapy_agrees_on_arp_frames() -> None:
    ours = Ethernet(
        b"\xff" * 6,
        bytes.fromhex("020000000301"),
        0x0806,
        Arp(REQUEST, bytes.fromhex("020000000301"), 0x0A000001, bytes(6), 0x0A000002).emit(),
    )
    theirs = l2.Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:03:01") / l2.ARP(
        hwsrc="02:00:00:00:03:01", psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2"
    )
    assert bytes(theirs) == ours.emit()


@given(packets.filter(lambda p: not p.options), st.integers(68, 300))
def test_fragments_put_together_are_the_packet(packet: Ipv4, mtu: int) -> None:
    if packet.more_fragments:  # only whole blocks of 8 bytes stand before another fragment
        packet = Ipv4(1, 2, 17, packet.payload[: len(packet.payload) & ~7], more_fragments=True)
    pieces = fragment(packet, mtu)
    at = packet.offset
    for piece in pieces:
        assert len(piece.emit()) <= mtu
        assert piece.offset == at
        assert piece.identification == packet.identification
        at += len(piece.payload)
    assert b"".join(piece.payload for piece in pieces) == packet.payload
    assert [piece.more_fragments for piece in pieces[:-1]] == [True] * (len(pieces) - 1)
    assert pieces[-1].more_fragments == packet.more_fragments
    assert all(len(piece.payload) % 8 == 0 for piece in pieces[:-1])


def test_only_copied_options_are_in_later_fragments() -> None:
    record_route = bytes.fromhex("07070400000000")
    router_alert = bytes.fromhex("94040000")
    packet = Ipv4(1, 2, 17, bytes(100), options=record_route + b"\x01" + router_alert)
    first, *later = fragment(packet, 68)
    assert first.options == packet.options
    assert {piece.options for piece in later} == {router_alert}
    assert copied_options(b"\x94") == b""
    assert copied_options(b"\x94\x09\x00") == b""
    assert copied_options(b"\x00\x94\x04\x00\x00") == b""


def test_an_mtu_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="MTU"):
        fragment(Ipv4(1, 2, 17, bytes(100)), 24)
