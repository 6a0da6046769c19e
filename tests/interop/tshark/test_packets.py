"""What tshark makes of this engine's packets, with their keys: ESP opened and its ICV recomputed, AH and IPComp
taken apart. AH, bundles, compression and bare ESP have no other judge of another make here than this and scapy."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ipsec.outer_header import ipv4_checksum
from chassis.ase.ipsec.sa import Ah, Esp, OutboundSa, SequenceLease, UdpPorts
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.net.ethernet import HEADROOM

SOURCE, DESTINATION = 0x0A000001, 0x0A000002
LINKTYPE_IPV4 = 228
NO_CHECKING = "ANY {} bit authentication [no checking]"

CIPHER_NAMES = {
    "null": "NULL",
    "des-cbc": "DES-CBC [RFC2405]",
    "3des-cbc": "TripleDES-CBC [RFC2451]",
    "aes-128-cbc": "AES-CBC [RFC3602]",
    "aes-192-cbc": "AES-CBC [RFC3602]",
    "aes-256-cbc": "AES-CBC [RFC3602]",
    "aes-128-gcm": "AES-GCM with 16 octet ICV [RFC4106]",
    "aes-192-gcm": "AES-GCM with 16 octet ICV [RFC4106]",
    "aes-256-gcm": "AES-GCM with 16 octet ICV [RFC4106]",
}
INTEGRITY_NAMES = {
    "hmac-md5-96": "HMAC-MD5-96 [RFC2403]",
    "hmac-sha1-96": "HMAC-SHA-1-96 [RFC2404]",
    "hmac-aes-xcbc": NO_CHECKING.format(96),
    "hmac-sha-256-128": "HMAC-SHA-256-128 [RFC4868]",
    "hmac-sha-384-192": "HMAC-SHA-384-192 [RFC4868]",
    "hmac-sha-512-256": "HMAC-SHA-512-256 [RFC4868]",
}
SIZES = (28, 29, 30, 31, 100, 1400, 9000)


@pytest.fixture(autouse=True)
def needs_tshark() -> None:
    if shutil.which("tshark") is None:
        missing = "tshark missing: apt-get install -y --no-install-recommends tshark"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def clear_packet(size: int, content: bytes = b"") -> bytes:
    """An IPv4 packet with a protocol that nobody takes apart further."""
    head = struct.pack("!BBHHHBBHII", 0x45, 0, size, 1, 0, 63, 253, 0, 0xC0A80105, 0xC0A80207)
    head = head[:10] + ipv4_checksum(struct.unpack("!10H", head)).to_bytes(2, "big") + head[12:]
    return (head + (content or random.Random(size).randbytes(size)))[:size]


def esp(cipher: str, integrity: str | None, spi: int) -> Esp:
    key = random.Random(cipher).randbytes(CIPHERS[cipher].key_octets)
    if not integrity:
        return Esp(spi, cipher, key)
    return Esp(spi, cipher, key, integrity, random.Random(integrity).randbytes(INTEGRITY[integrity].key_octets))


def ah(integrity: str, spi: int) -> Ah:
    return Ah(spi, integrity, random.Random(integrity).randbytes(INTEGRITY[integrity].key_octets))


def protected(packets: Iterable[bytes], first: int = 1, **how: Any) -> list[bytes]:
    """Packets as this engine sends them; `how` are fields of the SA."""
    sadb = Sadb(SaStateFile(memoryview(bytearray(octets_for(2)))))
    sa = OutboundSa(1, 1, SOURCE, DESTINATION, negotiated=True, **how)
    sadb.install_outbound(sa, SequenceLease(first, sa.max_sequence + 1))
    sadb.spd.set_entries(1, [SpdEntry(0)])
    chosen = list(packets)
    body = bytearray(b"".join(bytes(HEADROOM) + packet for packet in chosen))
    lengths = [HEADROOM + len(packet) for packet in chosen]
    result = sadb.encapsulate_tunnel(1, body, lengths, random.Random(1).randbytes)
    assert result.drops.counts == {}
    wire: list[bytes] = []
    offset = 0
    for length in result.lengths:
        wire.append(bytes(result.body[offset + HEADROOM : offset + length]))
        offset += length
    return wire


def row(use: Esp) -> str:
    """What tshark is told of an SA."""
    name = INTEGRITY_NAMES[use.integrity] if use.integrity else "NULL"
    keys = [f"0x{key.hex()}" if key else "" for key in (use.cipher_key, use.integrity_key)]
    fields = ("IPv4", "*", "*", f"{use.spi:#010x}", CIPHER_NAMES[use.cipher], keys[0], name, keys[1])
    return "uat:esp_sa:" + ",".join(f'"{field}"' for field in fields)


def dissected(folder: Path, wire: Sequence[bytes], uses: Iterable[Esp] = ()) -> list[dict[str, Any]]:
    """Tshark's layers of each packet; those that there are twice are lists, outermost first."""
    parts = [struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_IPV4)]
    parts += [struct.pack("<IIII", at, 0, len(packet), len(packet)) + packet for at, packet in enumerate(wire)]
    (folder / "wire.pcap").write_bytes(b"".join(parts))
    command = ["tshark", "-r", str(folder / "wire.pcap"), "-T", "json", "--no-duplicate-keys"]
    preferences = [
        "esp.enable_encryption_decode:TRUE",
        "esp.enable_authentication_check:TRUE",
        "ip.defragment:FALSE",
        *map(row, uses),
    ]
    for preference in preferences:
        command += ["-o", preference]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    packets = [one["_source"]["layers"] for one in json.loads(done.stdout)]
    assert len(packets) == len(wire)
    return packets


def octets(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def found(layers: Any, name: str) -> list[str]:
    """All values of a field, wherever they are."""
    values: list[str] = []
    for key, value in layers.items() if isinstance(layers, dict) else ():
        if key == name:
            values += value if isinstance(value, list) else [value]
        for one in value if isinstance(value, list) else [value]:
            values += found(one, name)
    return values


COMBINATIONS = [
    (cipher, integrity)
    for cipher in CIPHERS
    for integrity in ((None,) if CIPHERS[cipher].combined else (*INTEGRITY, None))
    if cipher != "null" or integrity
]


@pytest.mark.parametrize("udp", [False, True])
def test_esp_is_opened_and_its_icv_is_good(tmp_path: Path, udp: bool) -> None:
    uses = [esp(cipher, integrity, 0x1000 + at) for at, (cipher, integrity) in enumerate(COMBINATIONS)]
    packets = [clear_packet(size) for size in SIZES]
    wire: list[bytes] = []
    for use in uses:
        wire += protected(packets, 7, esp=use, udp=UdpPorts(4500, 4500) if udp else None)
    layers = iter(dissected(tmp_path, wire, uses))
    for use in uses:
        for number, clear in enumerate(packets, start=7):
            seen = next(layers)
            what = f"{use.cipher} {use.integrity} {len(clear)}"
            assert (len(found(seen, "udp.port")) > 0) == udp
            assert int(found(seen, "esp.spi")[0], 16) == use.spi, what
            assert int(found(seen, "esp.sequence")[0]) == number
            assert octets(found(seen, "esp.contained_data")[0]) == clear, what
            assert found(seen, "ip.len")[-1] == str(len(clear)), what
            assert found(seen, "ip.checksum.status")[-1] in ("1", "2")
            assert found(seen, "ip.src")[:2] == ["10.0.0.1", "192.168.1.5"]
            assert found(seen, "esp.protocol") == ["0x04"], what
            pad = int(found(seen, "esp.pad_len")[0])
            assert (len(clear) + 2 + pad) % max(use.cipher_algorithm.block_octets, 4) == 0
            if use.integrity not in (None, "hmac-aes-xcbc") or use.cipher_algorithm.combined:
                assert found(seen, "esp.icv_good") == ["1"], what
            assert "1" not in found(seen, "esp.icv_bad")


def test_extended_numbers_are_authenticated_and_not_sent(tmp_path: Path) -> None:
    """Tshark knows nothing of them: it sees the low half, opens the packet, and finds the ICV of a longer number
    wrong. That it is right is for the vectors and scapy to say."""
    use = esp("aes-256-cbc", "hmac-sha-256-128", 0x1000)
    packets = [clear_packet(100), clear_packet(101)]
    first = (5 << 32) - 1
    wire = protected(packets, first, esp=use, esn=True)
    short = protected(packets[:1], first & 0xFFFFFFFF, esp=use)
    assert [len(one) for one in wire[:1]] == [len(one) for one in short]
    for seen, clear, low in zip(dissected(tmp_path, wire, [use]), packets, (0xFFFFFFFF, 0), strict=True):
        assert found(seen, "esp.sequence") == [str(low)]
        assert octets(found(seen, "esp.contained_data")[0]) == clear
        assert found(seen, "esp.icv_good") == ["0"]


def ah_icv(packet: bytes, use: Ah) -> bytes:
    """The ICV of a packet, by another's HMAC (RFC 4302 3.3.3)."""
    name = {"hmac-md5-96": "md5", "hmac-sha1-96": "sha1"}.get(use.integrity, "sha" + use.integrity[9:12])
    size = use.header_octets - 12
    zeroed = bytearray(packet)
    zeroed[1] = zeroed[6] = zeroed[7] = zeroed[8] = 0
    zeroed[10:12] = bytes(2)
    zeroed[32 : 32 + size] = bytes(size)
    return hmac.new(use.key, bytes(zeroed), getattr(hashlib, name)).digest()[:size]


@pytest.mark.parametrize("inside", ["ip", "esp", "ipcomp"])
def test_ah_is_taken_apart(tmp_path: Path, inside: str) -> None:
    clear = clear_packet(600, b"compressible " * 50)
    use_esp = esp("aes-128-cbc", "hmac-sha1-96", 0x1000) if inside == "esp" else None
    following = {"ip": "4", "esp": "50", "ipcomp": "108"}[inside]
    uses = [ah(integrity, 0x2000 + at) for at, integrity in enumerate(INTEGRITY)]
    wire = [protected([clear], 9, ah=use, esp=use_esp, ip_comp=inside == "ipcomp")[0] for use in uses]
    all_seen = dissected(tmp_path, wire, [use_esp] if use_esp else ())
    for use, packet, seen in zip(uses, wire, all_seen, strict=True):
        assert seen["frame"]["frame.protocols"].startswith(
            {"ip": "ip:ah:ip:data", "esp": "ip:ah:esp:ip:data", "ipcomp": "ip:ah:ipcomp:data:ip:data"}[inside]
        )
        assert found(seen, "ah.next_header") == [following]
        assert found(seen, "ah.spi") == [f"{use.spi:#010x}"]
        assert found(seen, "ah.sequence") == ["9"]
        assert found(seen, "ah.reserved") == ["00:00"]
        assert found(seen, "ah.length") == [str(use.header_octets // 4 - 2)]
        icv = octets(found(seen, "ah.icv")[0])
        assert icv == packet[32 : 20 + use.header_octets]
        if use.integrity != "hmac-aes-xcbc":
            assert icv == ah_icv(packet, use)
        assert found(seen, "ip.len")[-1] == "600"
        if use_esp:
            assert octets(found(seen, "esp.contained_data")[0]) == clear
            assert found(seen, "esp.icv_good") == ["1"]
        else:
            assert octets(found(seen, "data.data")[-1]) == clear[20:]


BOUNDS = {"esp": ("aes-128-cbc", "hmac-sha1-96"), "gcm": ("aes-128-gcm", None), "null": ("null", "hmac-md5-96")}


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("cpi", [2, 0x1234])
def test_what_is_compressed_is_inflated(tmp_path: Path, bound: str, cpi: int) -> None:
    """IPComp within ESP: what shrinks comes with its header, what does not comes as it was."""
    use = esp(*BOUNDS[bound], 0x1000)
    packets = [clear_packet(size, b"compressible " * 800) for size in (100, 400, 1400, 9000)]
    packets += [clear_packet(size) for size in (28, 100, 1400)]
    wire = protected(packets, esp=use, ip_comp=True, cpi=cpi)
    plain = protected(packets, esp=use)
    for at, (seen, clear) in enumerate(zip(dissected(tmp_path, wire, [use]), packets, strict=True)):
        assert found(seen, "esp.icv_bad") == ["0"]
        if at < 4:
            assert len(wire[at]) < len(plain[at])
            assert found(seen, "esp.protocol") == ["0x6c"]
            assert found(seen, "ipcomp.cpi") == [f"{cpi:#06x}"]
            assert found(seen, "ipcomp.flags") == ["0x00"]
            assert found(seen, "ipcomp.next_header") == ["0x04"]
            assert found(seen, "ip.len")[-1] == str(len(clear))
            assert octets(found(seen, "data.data")[-1]) == clear[20:]
        else:
            assert len(wire[at]) == len(plain[at])
            assert found(seen, "esp.protocol") == ["0x04"]
            assert octets(found(seen, "esp.contained_data")[0]) == clear
