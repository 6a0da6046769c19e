"""Published packets, octet for octet: what this engine sends of them, and what it opens.

The vectors are recomputed by another library, so that one that was typed in wrongly is found as that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.hmac import HMAC

from chassis.ase.ipsec.ah import AhReceiver, AhSender
from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.esp import EspReceiver, EspSender, Span, payload_end
from chassis.ase.ipsec.outer_header import ipv4_checksum
from chassis.ase.ipsec.received import Item
from chassis.ase.ipsec.sa import Ah, Esp, InboundSa, OutboundSa, SequenceLease, UdpPorts
from chassis.ase.ipsec.spd import SpdEntry
from tests.support.ipsec import batch, database, packets_of
from tests.unit.ase.ipsec import known_packets as known
from tests.unit.ase.ipsec.known_packets import octets

HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "hmac-md5-96": hashes.MD5, "hmac-sha1-96": hashes.SHA1, "hmac-sha-256-128": hashes.SHA256,
    "hmac-sha-384-192": hashes.SHA384, "hmac-sha-512-256": hashes.SHA512,
}  # fmt: skip


class Edge:
    """A replay window that stands where a test wants it."""

    def __init__(self, edge: int = 0) -> None:
        self.edge = edge

    def window(self) -> tuple[int, int]:
        return self.edge, 0

    def store_window(self, edge: int, bitmap: int) -> None:
        self.edge = edge


_Protocol = TypeVar("_Protocol", Esp, Ah)


def with_spi(value: _Protocol, spi: int) -> _Protocol:
    """ESP or AH with an SPI that no configuration may choose (RFC 4303 2.1), as examples do."""
    object.__setattr__(value, "spi", spi)
    return value


def hmac(name: str, key: bytes, data: bytes) -> bytes:
    mac = HMAC(key, HASHES[name]())
    mac.update(data)
    return mac.finalize()[: INTEGRITY[name].icv_octets]


def xcbc(key: bytes, data: bytes) -> bytes:
    """AES-XCBC-MAC-96 by the letter of RFC 3566 section 4."""

    def block(use: bytes, clear: bytes) -> bytes:
        return Cipher(AES(use), modes.ECB()).encryptor().update(clear)

    def plus(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=True))

    k1, k2, k3 = (block(key, bytes([number]) * 16) for number in (1, 2, 3))
    value = bytes(16)
    while len(data) > 16:
        value, data = block(k1, plus(value, data[:16])), data[16:]
    last, mask = (data, k2) if len(data) == 16 else ((data + b"\x80").ljust(16, b"\0"), k3)
    return block(k1, plus(plus(value, last), mask))[:12]


def cbc(algorithm: Any, iv: bytes, clear: bytes) -> bytes:
    return Cipher(algorithm, modes.CBC(iv)).encryptor().update(clear)


def first_block(algorithm: Any, iv: bytes) -> bytes:
    """The block that a context which stands at zero must be fed so that `iv` comes out of it."""
    return Cipher(algorithm, modes.ECB()).decryptor().update(iv)


def trailer(clear: bytes, block: int, following: int) -> bytes:
    padding = -(len(clear) + 2) % block
    return bytes(range(1, padding + 1)) + bytes((padding, following))


def opened(receiver: EspReceiver, packet: bytes) -> tuple[list[bytes], list[int], list[IpsecDropCause]]:
    """What an ESP packet without IP header carries, its protocol, and why it was dropped instead."""
    drops: list[IpsecDropCause] = []
    item: Item = (0, 0, 0, len(packet), 0, int.from_bytes(packet[4:8], "big"))
    begun = receiver.begin(memoryview(packet), [item], lambda cause, item, spi: drops.append(cause))
    if begun is None:
        return [], [], drops
    clear, items, _, lead = receiver.finish(begun, lambda cause, item, spi: drops.append(cause))
    if not items:
        return [], [], drops
    end = payload_end(clear, lead, len(clear))
    return [bytes(clear[lead:end])], [clear[-1]], drops


def esp_alone(sender: EspSender, clear: bytes, number: int, following: int, block: bytes = b"") -> bytes:
    """ESP of one payload, from its header on."""
    body, lengths = sender.encrypt(
        memoryview(clear), [(0, len(clear))], [0], [0], number, [following], lambda _: block
    )
    (packet,) = packets_of(body, lengths)
    return packet[20:]


# AES-GCM


def extended(vector: known.Gcm) -> bool:
    return len(vector.sequence) == 16


def gcm_esp(vector: known.Gcm) -> Esp:
    key = octets(vector.key) + octets(vector.salt)
    return with_spi(Esp(0x1000, f"aes-{len(vector.key) * 4}-gcm", key), vector.spi)


def gcm_packet(vector: known.Gcm) -> bytes:
    number = int(vector.sequence, 16) & 0xFFFFFFFF
    return struct.pack("!II", vector.spi, number) + octets(vector.iv) + octets(vector.sealed)


@pytest.mark.parametrize("vector", known.GCM, ids=str)
def test_gcm_packets_were_typed_in_rightly(vector: known.Gcm) -> None:
    known_data = struct.pack("!I", vector.spi) + octets(vector.sequence)
    nonce = octets(vector.salt) + octets(vector.iv)
    assert AESGCM(octets(vector.key)).encrypt(nonce, octets(vector.plain), known_data).hex() == vector.sealed


@pytest.mark.parametrize("vector", known.GCM, ids=str)
def test_packets_of_the_gcm_draft_open(vector: known.Gcm) -> None:
    number, plain = int(vector.sequence, 16), octets(vector.plain)
    edge = Edge(max(number - 1, 0))
    receiver = EspReceiver(gcm_esp(vector), 64, edge, extended(vector))
    assert opened(receiver, gcm_packet(vector)) == ([plain[: -2 - plain[-2]]], [plain[-1]], [])
    assert edge.edge == number
    # Whether there is a high half is authenticated, even where it is zero.
    low = number & 0xFFFFFFFF
    receiver = EspReceiver(gcm_esp(vector), 64, Edge(max(low - 1, 0)), not extended(vector))
    if low:
        assert opened(receiver, gcm_packet(vector))[2] == [IpsecDropCause.ESP_AUTHENTICATION]
    for place in (8, 16, len(gcm_packet(vector)) - 1):
        changed = bytearray(gcm_packet(vector))
        changed[place] ^= 1
        receiver = EspReceiver(gcm_esp(vector), 64, Edge(max(number - 1, 0)), extended(vector))
        assert opened(receiver, bytes(changed))[2] == [IpsecDropCause.ESP_AUTHENTICATION]


@pytest.mark.parametrize("vector", known.GCM, ids=str)
def test_what_the_gcm_draft_sends_is_sent(vector: known.Gcm) -> None:
    """All but the IV: this engine's is the number of the packet, so what follows it is recomputed."""
    number, plain = int(vector.sequence, 16), octets(vector.plain)
    sender = EspSender(gcm_esp(vector), 1, 2, 0, extended(vector))
    sent = esp_alone(sender, plain[: -2 - plain[-2]], number, plain[-1])
    iv = number.to_bytes(8, "big")
    assert sent[:16] == gcm_packet(vector)[:8] + iv
    assert len(sent) == len(gcm_packet(vector))
    known_data = struct.pack("!I", vector.spi) + octets(vector.sequence)
    assert sent[16:] == AESGCM(octets(vector.key)).encrypt(octets(vector.salt) + iv, plain, known_data)


# AES-CBC


@pytest.mark.parametrize("vector", known.CBC, ids=str)
def test_cbc_packets_were_typed_in_rightly(vector: known.Cbc) -> None:
    clear, wire = octets(vector.clear), octets(vector.wire)
    payload, following = (clear, 4) if vector.tunnel else (clear[20:], clear[9])
    plain = payload + trailer(payload, 16, following)
    assert cbc(AES(octets(vector.key)), octets(vector.iv), plain) == wire[44:]
    assert wire[28:44].hex() == vector.iv
    for header in (clear[:20], wire[:20]):
        assert ipv4_checksum(struct.unpack("!10H", header)) == 0
    assert struct.unpack("!H", clear[2:4])[0] == len(clear)
    assert struct.unpack("!H", wire[2:4])[0] == len(wire)


def cbc_ends(vector: known.Cbc) -> tuple[Esp, int, int, int]:
    """ESP, source, destination, sequence number."""
    spi, number = struct.unpack("!II", octets(vector.wire)[20:28])
    source, destination = struct.unpack("!II", octets(vector.wire)[12:20])
    return Esp(spi, "aes-128-cbc", octets(vector.key)), source, destination, number


@pytest.mark.parametrize("vector", known.CBC, ids=str)
def test_packets_of_rfc_3602_open(vector: known.Cbc) -> None:
    use, source, destination, _ = cbc_ends(vector)
    sadb = database()
    sadb.install_inbound(InboundSa(1, 1, source, destination, esp=use))
    result = sadb.decapsulate_batch(*batch([octets(vector.wire)]))
    if vector.tunnel:
        assert packets_of(result.groups[0].body, result.groups[0].lengths) == [octets(vector.clear)]
        assert result.drops.counts == {}
    else:
        assert result.groups == ()
        assert result.drops.counts == {IpsecDropCause.NOT_TUNNEL_MODE: 1}


@pytest.mark.parametrize("vector", known.CBC, ids=str)
def test_packets_of_rfc_3602_are_sent(vector: known.Cbc) -> None:
    """With the random block that makes the published IV, ESP is the published one, in either mode."""
    use, source, destination, number = cbc_ends(vector)
    clear = octets(vector.clear) if vector.tunnel else octets(vector.clear)[20:]
    following = 4 if vector.tunnel else octets(vector.clear)[9]
    block = first_block(AES(octets(vector.key)), octets(vector.iv))
    sender = EspSender(use, source, destination, 0, False)
    assert esp_alone(sender, clear, number, following, block) == octets(vector.wire)[20:]


@pytest.mark.parametrize("vector", [one for one in known.CBC if one.tunnel], ids=str)
def test_whole_tunnel_packets_of_rfc_3602_are_sent(vector: known.Cbc) -> None:
    use, source, destination, number = cbc_ends(vector)
    sadb = database()
    sadb.install_outbound(OutboundSa(1, 1, source, destination, esp=use), SequenceLease(first=number))
    sadb.spd.set_entries(1, [SpdEntry(0)])
    block = first_block(AES(octets(vector.key)), octets(vector.iv))
    result = sadb.encapsulate_tunnel(1, *batch([octets(vector.clear)]), lambda _: block)
    (packet,) = packets_of(result.body, result.lengths)
    wire = octets(vector.wire)
    # The RFC's identification is arbitrary, and the checksum goes with it.
    assert (packet[:4], packet[6:10], packet[12:]) == (wire[:4], wire[6:10], wire[12:])
    assert ipv4_checksum(struct.unpack("!10H", packet[:20])) == 0


# DES and 3DES: neither RFC 2405 nor RFC 2451 has vectors; these are of libdes (destest.c), OpenSSL's ancestor.

LIBDES = b"7654321 Now is the time for \0\0\0\0"
LIBDES_IV = octets("fedcba9876543210")


@pytest.mark.parametrize(("cipher", "key", "sealed"), [
    ("des-cbc", "0123456789abcdef", "ccd173ffab2039f4acd8aefddfd8a1eb468e91157888ba681d269397f7fe62b4"),
    ("3des-cbc", "0123456789abcdeff1e0d3c2b5a49786fedcba9876543210",
        "3fe301c962ac01d02213763c1cbd4cdc799657c064ecf5d41c673812cfde9675"),
])  # fmt: skip
def test_des_in_esp(cipher: str, key: str, sealed: str) -> None:
    algorithm = TripleDES(octets(key) * (3 if cipher == "des-cbc" else 1))
    assert cbc(algorithm, LIBDES_IV, LIBDES).hex() == sealed, "typed in rightly"
    use = Esp(0x1000, cipher, octets(key))
    sent = esp_alone(EspSender(use, 1, 2, 0, False), LIBDES, 1, 59, first_block(algorithm, LIBDES_IV))
    assert sent[:8] == octets("0000100000000001")
    assert sent[8:16] == LIBDES_IV
    assert sent[16:48].hex() == sealed
    assert sent[48:] == cbc(algorithm, octets(sealed)[-8:], trailer(LIBDES, 8, 59))
    assert opened(EspReceiver(use, 64, Edge(), False), sent) == ([LIBDES], [59], [])


# No cipher


@pytest.mark.parametrize(
    "data", [octets("0123456789abcdef"), b"Network Security People Have A Strange Sense Of Humor"]
)
def test_null_leaves_the_data_of_rfc_2410_as_they_are(data: bytes) -> None:
    use = Esp(0x1000, "null", b"", "hmac-sha1-96", b"k" * 20)
    sent = esp_alone(EspSender(use, 1, 2, 0, False), data, 1, 17)
    assert sent[8 : 8 + len(data)] == data
    assert sent[8 + len(data) : -12] == trailer(data, 4, 17)
    assert opened(EspReceiver(use, 64, Edge(), False), sent) == ([data], [17], [])


# Integrity


@pytest.mark.parametrize("size", [*range(70), 1399, 1400, 9000])
def test_xcbc_by_the_letter(size: int) -> None:
    key, data = bytes(range(16)), bytes(number * 7 & 0xFF for number in range(size))
    assert INTEGRITY["hmac-aes-xcbc"].keyed(key).icv(data) == xcbc(key, data)


@pytest.mark.parametrize("vector", known.ODP_ESP, ids=str)
def test_esp_of_open_data_plane(vector: known.Odp) -> None:
    payload = known.ODP_CLEAR[20:]
    key = b"\x5a" * vector.key_octets
    iv = octets(vector.iv)
    head = struct.pack("!II", known.ODP_SPI, vector.sequence) + iv
    plain = payload + trailer(payload, 16 if iv else 4, 1)
    body = cbc(AES(known.ODP_CIPHER_KEY), iv, plain) if iv else plain
    assert hmac(vector.integrity, key, head + body).hex() == vector.icv, "typed in rightly"
    cipher = ("aes-128-cbc", known.ODP_CIPHER_KEY) if iv else ("null", b"")
    use = with_spi(Esp(0x1000, *cipher, vector.integrity, key), known.ODP_SPI)
    block = first_block(AES(known.ODP_CIPHER_KEY), iv) if iv else b""
    sent = esp_alone(EspSender(use, *known.ODP_INNER, 0, False), payload, vector.sequence, 1, block)
    assert sent == head + body + octets(vector.icv)
    assert opened(EspReceiver(use, 64, Edge(), False), sent) == ([payload], [1], [])


@pytest.mark.parametrize("udp", [False, True])
def test_esp_tunnel_of_open_data_plane(udp: bool) -> None:
    """A whole packet, alone and in UDP (RFC 3948), where ESP is the same."""
    source, destination = known.ODP_OUTER
    use = with_spi(Esp(0x1000, "null", b"", "hmac-sha-256-128", b"\x5a" * 32), known.ODP_SPI)
    sadb = database()
    out = OutboundSa(1, 1, source, destination, esp=use, udp=UdpPorts(4500, 4500) if udp else None)
    sadb.install_outbound(out)
    sadb.spd.set_entries(1, [SpdEntry(0)])
    result = sadb.encapsulate_tunnel(1, *batch([known.ODP_CLEAR]), lambda _: b"")
    (packet,) = packets_of(result.body, result.lengths)
    esp = (
        octets("0000007b00000001") + known.ODP_CLEAR + octets("01020204") + octets(known.ODP_TUNNEL_ICV)
    )  # fmt: skip
    assert packet[20:] == (octets("1194119400a40000") if udp else b"") + esp
    head = octets("450000b000000000403219180a006f020a00de02")  # fmt: skip
    if not udp:
        assert (packet[:4], packet[6:10], packet[12:20]) == (head[:4], head[6:10], head[12:])
        sadb.install_inbound(InboundSa(1, 1, source, destination, esp=use))
        opened_result = sadb.decapsulate_batch(*batch([head + esp]))
        group = opened_result.groups[0]
        assert packets_of(group.body, group.lengths) == [known.ODP_CLEAR]


def test_esp_with_xcbc_of_open_data_plane() -> None:
    wire = known.ODP_XCBC_WIRE
    assert xcbc(known.ODP_XCBC_KEY, wire[20:-12]) == wire[-12:], "typed in rightly"
    source, destination = struct.unpack("!II", wire[12:20])
    use = Esp(0x100, "null", b"", "hmac-aes-xcbc", known.ODP_XCBC_KEY)
    sadb = database()
    sadb.install_inbound(InboundSa(1, 1, source, destination, esp=use))
    sadb.install_outbound(OutboundSa(1, 2, source, destination, esp=use))
    sadb.spd.set_entries(1, [SpdEntry(0)])
    group = sadb.decapsulate_batch(*batch([wire])).groups[0]
    assert packets_of(group.body, group.lengths) == [known.ODP_XCBC_CLEAR]
    result = sadb.encapsulate_tunnel(1, *batch([known.ODP_XCBC_CLEAR]), lambda _: b"")
    (packet,) = packets_of(result.body, result.lengths)
    assert packet[20:] == wire[20:]


# AH


def ah_item(packet: bytes) -> Item:
    return 0, 0, 20, len(packet), 0, int.from_bytes(packet[28:32], "big")


def odp_ah() -> Ah:
    return with_spi(Ah(0x1000, "hmac-sha-256-128", b"\x5a" * 32), known.ODP_SPI)


def ah_opened(packet: bytes) -> tuple[list[Span], list[IpsecDropCause]]:
    drops: list[IpsecDropCause] = []
    receiver = AhReceiver(odp_ah(), 64, Edge(), False)
    spans = receiver.verify_icv(
        memoryview(packet), [ah_item(packet)], lambda cause, item, spi: drops.append(cause)
    )
    return spans, drops


def test_ah_tunnel_of_open_data_plane() -> None:
    wire = octets(known.ODP_AH_TUNNEL) + known.ODP_CLEAR
    zeroed = bytearray(wire)
    zeroed[1] = zeroed[6] = zeroed[7] = zeroed[8] = 0
    zeroed[10:12] = bytes(2)
    zeroed[32:48] = bytes(16)
    assert hmac("hmac-sha-256-128", b"\x5a" * 32, bytes(zeroed)) == wire[32:48], "typed in rightly"
    ((item, start, end, following),), drops = ah_opened(wire)
    assert (wire[start:end], following, drops) == (known.ODP_CLEAR, 4, [])
    assert item == ah_item(wire)
    for place in (4, 9, 12, 16, 21, 24, 31, 48, len(wire) - 1):
        changed = bytearray(wire)
        changed[place] ^= 1
        assert ah_opened(bytes(changed)) != ([], []), place
        assert ah_opened(bytes(changed))[0] == [], place
    for place in (1, 6, 7, 8, 10):
        changed = bytearray(wire)
        changed[place] ^= 1
        assert len(ah_opened(bytes(changed))[0]) == 1, place


def test_what_open_data_plane_sends_by_ah_is_sent() -> None:
    sender = AhSender(odp_ah(), *known.ODP_OUTER, False, False)
    body, lengths = sender.make_room(memoryview(known.ODP_CLEAR), [(0, len(known.ODP_CLEAR))])
    sender.add_icv(body, lengths, [0], [0], 1, None)
    (packet,) = packets_of(body, lengths)
    assert packet == octets(known.ODP_AH_TUNNEL) + known.ODP_CLEAR
    assert len(ah_opened(packet)[0]) == 1


@pytest.mark.parametrize(("number", "icv"), known.ODP_AH_TRANSPORT)
def test_ah_transport_of_open_data_plane(number: int, icv: str) -> None:
    """This engine makes tunnels only; in transport mode a packet is as authentic, and says what it carries."""
    payload = known.ODP_CLEAR[20:]
    head = octets("4500009c000000004033abd9c0a86f02c0a8de02")  # fmt: skip
    wire = head + struct.pack("!BBHII", 1, 5, 0, known.ODP_SPI, number) + octets(icv) + payload
    ((_, start, end, following),), drops = ah_opened(wire)
    assert (wire[start:end], following, drops) == (payload, 1, [])


def test_every_cipher_and_integrity_algorithm_has_a_known_packet() -> None:
    ciphers = {f"aes-{len(vector.key) * 4}-gcm" for vector in known.GCM}
    ciphers |= {"aes-128-cbc", "des-cbc", "3des-cbc", "null"}
    # RFC 3602's longer keys have blocks, not packets: tests/unit/ase/ike/test_known_answers.py.
    assert set(CIPHERS) - ciphers == {"aes-192-cbc", "aes-256-cbc"}
    # RFC 2202's values, and packets of MD5, are in test_ipsec_algorithms.py and against scapy.
    assert set(INTEGRITY) - {vector.integrity for vector in known.ODP_ESP} - {"hmac-aes-xcbc"} == {"hmac-md5-96"}
