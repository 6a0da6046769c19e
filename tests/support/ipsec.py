"""Builders for IPsec tests: packets, batches, SAs and a pair of ends."""

from __future__ import annotations

import hmac
import random
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence

from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ipsec.outer_header import ipv4_checksum
from chassis.ase.ipsec.sa import Ah, DfPolicy, Esp, InboundSa, OutboundSa, SequenceLease
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import Rule, SpdEntry
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.net.ethernet import HEADROOM

LEFT = 0x0A000001
RIGHT = 0x0A000002
INSIDE = 0xC0A80105
OUTSIDE = 0xC0A80207
ENTRY = 10


def random_octets(seed: int = 1) -> Callable[[int], bytes]:
    """A repeatable stand-in for the random source."""
    return random.Random(seed).randbytes


def inner(
    size: int = 100,
    *,
    source: int = INSIDE,
    destination: int = OUTSIDE,
    protocol: int = 17,
    ports: tuple[int, int] = (1000, 2000),
    service: int = 0,
    flags: int = 0,
    seed: int = 7,
) -> bytes:
    """A clear IPv4 packet of `size` octets with a right header checksum."""
    head = struct.pack("!BBHHHBBHII", 0x45, service, size, 1, flags, 63, protocol, 0, source, destination)
    total = ipv4_checksum(struct.unpack("!10H", head))
    head = head[:10] + struct.pack("!H", total) + head[12:]
    rest = struct.pack("!HH", *ports) + random.Random(seed).randbytes(max(size - 24, 0))
    return (head + rest)[:size]


def batch(packets: Iterable[bytes]) -> tuple[bytearray, array[int]]:
    """Packets as one body with headroom, and its lengths."""
    chosen = list(packets)
    lengths = array("H", [HEADROOM + len(packet) for packet in chosen])
    return bytearray(b"".join(bytes(HEADROOM) + packet for packet in chosen)), lengths


def packets_of(body: bytes | bytearray | memoryview, lengths: Sequence[int]) -> list[bytes]:
    """The packets of a batch, without headroom; checks that the lengths fill the body."""
    result = []
    offset = 0
    for length in lengths:
        result.append(bytes(body[offset + HEADROOM : offset + length]))
        offset += length
    assert offset == len(body)
    return result


def esp(cipher: str = "aes-128-cbc", integrity: str | None = "hmac-sha1-96", spi: int = 0x1001) -> Esp:
    """ESP with keys made from the names; a cipher that is its own integrity algorithm takes no other."""
    key = random.Random(cipher).randbytes(CIPHERS[cipher].key_octets)
    if integrity is None or CIPHERS[cipher].combined:
        return Esp(spi, cipher, key)
    return Esp(spi, cipher, key, integrity, random.Random(integrity).randbytes(INTEGRITY[integrity].key_octets))


def ah(integrity: str = "hmac-sha1-96", spi: int = 0x2001) -> Ah:
    """AH with a key made from the name."""
    return Ah(spi, integrity, random.Random("ah" + integrity).randbytes(INTEGRITY[integrity].key_octets))


def null_esp(payload: bytes, sequence: int = 1, service: int = 0) -> bytes:
    """A hand-made packet for `esp("null")`: whatever `payload` is, its ICV is right."""
    use = esp("null")
    covered = struct.pack("!II", use.spi, sequence) + payload
    outer = inner(20, source=LEFT, destination=RIGHT, protocol=50, service=service)
    packet = outer + covered + hmac.digest(use.integrity_key, covered, "sha1")[: use.icv_octets]
    return packet[:2] + struct.pack("!H", len(packet)) + packet[4:]


def database(slots: int = 16) -> Sadb:
    """An empty database with fresh state."""
    return Sadb(SaStateFile(memoryview(bytearray(octets_for(slots)))))


def sender(
    use_esp: Esp | None,
    use_ah: Ah | None = None,
    *,
    df: DfPolicy = DfPolicy.PROPAGATE,
    lease: SequenceLease | None = None,
    rules: tuple[Rule, ...] = (),
    into: Sadb | None = None,
) -> Sadb:
    """An end that sends from LEFT to RIGHT for tunnel 1."""
    sadb = database() if into is None else into
    sadb.install_outbound(
        OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, context=0, esp=use_esp, ah=use_ah, df=df), lease
    )
    sadb.spd.set_entries(1, [SpdEntry(ENTRY, rules)])
    return sadb


def receiver(
    use_esp: Esp | None,
    use_ah: Ah | None = None,
    *,
    window: int = 64,
    selectors: tuple[Rule, ...] = (),
    into: Sadb | None = None,
) -> Sadb:
    """An end that receives at RIGHT for tunnel 1."""
    sadb = database() if into is None else into
    sadb.install_inbound(
        InboundSa(1, 1, LEFT, RIGHT, context=0, esp=use_esp, ah=use_ah, window=window, selectors=selectors)
    )
    return sadb


def protected(sadb: Sadb, packets: Iterable[bytes], seed: int = 1) -> list[bytes]:
    """Packets as they go on the wire."""
    result = sadb.encapsulate_tunnel(1, *batch(packets), random_octets(seed))
    return packets_of(result.body, result.lengths)


def resized(packet: bytes) -> bytes:
    """An IPv4 packet with total length and checksum made right again."""
    head = packet[:2] + struct.pack("!H", len(packet)) + packet[4:10] + b"\0\0" + packet[12:20]
    total = ipv4_checksum(struct.unpack("!10H", head))
    return head[:10] + struct.pack("!H", total) + head[12:] + packet[20:]
