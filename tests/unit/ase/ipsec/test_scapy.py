"""Random packets through this engine and scapy's IPsec layer, each protecting what the other opens.

Every run has the same packets: seeds are names. What is changed on the way, both must refuse.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.outer_header import ipv4_checksum
from chassis.ase.ipsec.sa import Ah, DfPolicy, Esp, InboundSa, OutboundSa, SequenceLease, UdpPorts
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from tests.support.ipsec import ENTRY, LEFT, RIGHT, ah, batch, database, esp, inner, packets_of, protected, sender
from tests.support.scapy_peer import (
    COMBINATIONS,
    INTEGRITY_NAMES,
    Enclosing,
    inet,
    ipsec,
    scapy_ah,
    scapy_esp,
    scapy_opens,
    scapy_seals,
    text,
)

pytestmark = pytest.mark.filterwarnings("ignore")

Options = bytes
LARGEST = 9000
MANUAL_EDGE = 1 << 20
EXTENDED_EDGE = 1 << 32
"""Where the high half changes: it does in the middle of every run of extended numbers."""


# Packets


def any_options(chance: random.Random) -> Options:
    """IPv4 options, padded to whole words: all kinds that routers may or may not change, in any order."""
    kinds: Sequence[Callable[[], bytes]] = (
        lambda: b"\x01",
        lambda: b"\x07\x0b\x04" + chance.randbytes(8),
        lambda: b"\x44\x08\x05\x00" + chance.randbytes(4),
        lambda: b"\x83\x07\x04" + chance.randbytes(4),
        lambda: b"\x89\x07\x04" + chance.randbytes(4),
        lambda: b"\x94\x04\x00\x00",
        lambda: b"\x82\x0b" + chance.randbytes(9),
        lambda: b"\x86\x06" + chance.randbytes(4),
        lambda: b"\x88\x04" + chance.randbytes(2),
    )
    options = b""
    for _ in range(chance.randrange(1, 6)):
        more = chance.choice(kinds)()
        if len(options) + len(more) <= 40:
            options += more
    return options.ljust(-(-len(options) // 4) * 4, b"\0")


def any_packet(chance: random.Random) -> bytes:
    """A clear IPv4 packet: any size from 28 to 9,000, many of them small, with options or not, whole or a
    fragment, of any type of service that has no congestion mark."""
    options = any_options(chance) if chance.random() < 0.25 else b""
    header = 20 + len(options)
    size = max(int(28 * (LARGEST / 28) ** (chance.random() ** 1.3)), header)
    size = chance.choice((28, 29, 1399, 1400, 1401, LARGEST, size, size, size, size, size, size))
    size = max(size, header)
    flags = chance.choice(
        (0, 0, 0x4000, 0x4000, 0x2000, chance.randrange(1, 8000), 0x2000 | chance.randrange(8000))
    )
    head = struct.pack(
        "!BBHHHBBHII", 0x40 | header // 4, chance.randrange(64) << 2, size, chance.randrange(1 << 16), flags,
        chance.randrange(1, 256), chance.choice((1, 6, 17, 17, 47, chance.choice((2, 89, 132, 253)))), 0,
        chance.randrange(1, 1 << 32), chance.randrange(1, 1 << 32),
    ) + options  # fmt: skip
    checksum = ipv4_checksum(struct.unpack(f"!{header // 2}H", head))
    head = head[:10] + checksum.to_bytes(2, "big") + head[12:]
    # Compressible or not, ports that no dissector of scapy's wants.
    ports = struct.pack("!HH", chance.randrange(20000, 30000), chance.randrange(20000, 30000))
    rest = chance.randbytes(size) if chance.random() < 0.7 else chance.randbytes(3) * size
    return (head + ports + rest)[:size]


def changed(packet: bytes, place: int, chance: random.Random) -> bytes:
    octets = bytearray(packet)
    octets[place] ^= 1 << chance.randrange(8)
    return bytes(octets)


# This engine's ends


def numbers_from(esn: bool, count: int) -> range:
    first = EXTENDED_EDGE - count // 2 if esn else MANUAL_EDGE
    return range(first, first + count)


def our_sender(use_esp: Esp | None, use_ah: Ah | None, first: int, *, esn: bool, udp: bool) -> Sadb:
    sadb = database(2)
    sa = OutboundSa(
        1, 1, LEFT, RIGHT, entry=ENTRY, context=0, esp=use_esp, ah=use_ah, esn=esn, negotiated=True,
        udp=UdpPorts(4500, 4500) if udp else None,
    )  # fmt: skip
    sadb.install_outbound(sa, SequenceLease(first, sa.max_sequence + 1))
    sadb.spd.set_entries(1, [SpdEntry(ENTRY)])
    return sadb


def our_receiver(use_esp: Esp | None, use_ah: Ah | None, *, esn: bool, udp: bool) -> Sadb:
    sadb = database(2)
    sa = InboundSa(
        1, 1, LEFT, RIGHT, context=0, esp=use_esp, ah=use_ah, window=1024, esn=esn, negotiated=True, udp=udp
    )
    sadb.install_inbound(sa)
    return sadb


def sent(sadb: Sadb, packets: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """What goes out, given in batches of any size."""
    wire: list[bytes] = []
    while len(wire) < len(packets):
        some = packets[len(wire) : len(wire) + chance.randrange(1, 20)]
        result = sadb.encapsulate_tunnel(1, *batch(some), chance.randbytes)
        assert result.drops.counts == {}
        wire += packets_of(result.body, result.lengths)
    return wire


def opened(
    sadb: Sadb, wire: Sequence[bytes], chance: random.Random
) -> tuple[list[bytes], dict[IpsecDropCause, int]]:
    """What comes in, given in batches of any size, and what was dropped.

    The first packet comes alone: an SA that has only begun is here at numbers of 32 whole bits at once, and the
    high halves of a batch are inferred from where the window stood before it.
    """
    clear: list[bytes] = []
    drops: dict[IpsecDropCause, int] = {}
    at = 0
    while at < len(wire):
        some = wire[at : at + (chance.randrange(1, 20) if at else 1)]
        at += len(some)
        result = sadb.decapsulate_batch(*batch(some))
        for group in result.groups:
            clear += packets_of(group.body, group.lengths)
        for cause, count in result.drops.counts.items():
            drops[cause] = drops.get(cause, 0) + count
    return clear, drops


# ESP


WAYS = {"plain": (False, False), "udp": (False, True), "esn": (True, False), "both": (True, True)}


@pytest.mark.parametrize(("cipher", "integrity"), COMBINATIONS)
def test_esp(cipher: str, integrity: str | None) -> None:
    for way, (esn, udp) in WAYS.items():
        chance = random.Random(f"{cipher} {integrity} {way}")
        use = esp(cipher, integrity, chance.randrange(256, 1 << 32))
        packets = [any_packet(chance) for _ in range(16 if way == "plain" else 8)]
        numbers = numbers_from(esn, len(packets))
        peer = scapy_esp(
            use, esn_en=esn, nat_t_header=inet.UDP(sport=4500, dport=4500) if udp else None
        )  # fmt: skip
        wire = sent(our_sender(use, None, numbers[0], esn=esn, udp=udp), packets, chance)
        for clear, sealed, number in zip(packets, wire, numbers, strict=True):
            assert scapy_opens(peer, sealed, number) == clear
            if udp:
                assert struct.unpack("!4H", sealed[20:28]) == (4500, 4500, len(sealed) - 20, 0)
        theirs = [scapy_seals(peer, clear, number) for clear, number in zip(packets, numbers, strict=True)]
        assert [len(one) for one in theirs] == [len(one) for one in wire], "one form, one length"
        fresh = our_receiver(use, None, esn=esn, udp=udp)
        if use.icv_octets:
            refused_by_both(peer, fresh, wire, theirs, numbers, 36 if udp else 28, chance)
        assert opened(fresh, theirs, chance) == (packets, {})
        # The same numbers once more: without integrity there is no window.
        again = opened(fresh, theirs, chance)
        assert again == ((packets, {}) if not use.icv_octets else ([], {IpsecDropCause.REPLAYED: len(theirs)}))


def refused_by_both(
    peer: Any,
    sadb: Sadb,
    wire: Sequence[bytes],
    theirs: Sequence[bytes],
    numbers: range,
    first: int,
    chance: random.Random,
) -> None:
    """One bit changed from the octet `first` on, behind what says whose packet it is and which."""
    damaged = [changed(one, chance.randrange(first, len(one)), chance) for one in theirs[:4]]
    clear, drops = opened(sadb, damaged, chance)
    assert clear == []
    assert drops == {IpsecDropCause.ESP_AUTHENTICATION: 4}
    for sealed, number in zip(wire[:4], numbers, strict=False):
        with pytest.raises(ipsec.IPSecIntegrityError):
            scapy_opens(peer, changed(sealed, chance.randrange(first, len(sealed)), chance), number)


# AH


def routed(packet: bytes, chance: random.Random) -> bytes:
    """The packet as routers may have changed it: type of service, DF, TTL, and the checksum with them."""
    octets = bytearray(packet)
    header = (octets[0] & 15) * 4
    octets[1] = chance.randrange(64) << 2
    octets[6] ^= chance.choice((0, 0x40))
    octets[8] = chance.randrange(1, 65)
    octets[10:12] = bytes(2)
    octets[10:12] = ipv4_checksum(struct.unpack(f"!{header // 2}H", octets[:header])).to_bytes(2, "big")
    return bytes(octets)


@pytest.mark.parametrize("esn", [False, True])
@pytest.mark.parametrize("integrity", [name for name in INTEGRITY_NAMES if name])
def test_ah(integrity: str, esn: bool) -> None:
    chance = random.Random(f"{integrity} {esn}")
    use = ah(integrity, chance.randrange(256, 1 << 32))
    packets = [any_packet(chance) for _ in range(40)]
    numbers = numbers_from(esn, len(packets))
    peer = scapy_ah(use, esn_en=esn)
    wire = sent(our_sender(None, use, numbers[0], esn=esn, udp=False), packets, chance)
    for clear, sealed, number in zip(packets, wire, numbers, strict=True):
        assert scapy_opens(peer, sealed, number) == clear
        assert scapy_opens(peer, routed(sealed, chance), number) == clear
    theirs = [scapy_seals(peer, clear, number) for clear, number in zip(packets, numbers, strict=True)]
    assert [len(one) for one in theirs] == [len(one) for one in wire]
    fresh = our_receiver(None, use, esn=esn, udp=False)
    # Identification, protocol, addresses, and all from AH on: none of it may change.
    for number, sealed, own in zip(numbers[:12], theirs, wire, strict=False):
        place = chance.choice((4, 5, 12, 13, 14, 15, chance.randrange(32, len(sealed)), len(sealed) - 1))
        clear, drops = opened(fresh, [changed(sealed, place, chance)], chance)
        assert (clear, drops) == ([], {IpsecDropCause.AH_AUTHENTICATION: 1}), place
        with pytest.raises(ipsec.IPSecIntegrityError):
            scapy_opens(peer, changed(own, place, chance), number)
    assert opened(fresh, [routed(sealed, chance) for sealed in theirs], chance) == (packets, {})
    assert opened(fresh, theirs, chance) == ([], {IpsecDropCause.REPLAYED: len(theirs)})


MUTABLE = (7, 68, 131, 137, 136)
"""Options whose content routers may change (RFC 4302 appendix A1), stream identifier as an obsolete one."""


def places_of(options: Options) -> tuple[list[int], list[int]]:
    """Places in options that may be changed, and that may not: content of either kind, beyond type and length."""
    may: list[int] = []
    may_not: list[int] = []
    at = 0
    while at < len(options) and options[at] != 0:
        size = 1 if options[at] == 1 else options[at + 1]
        (may if options[at] in MUTABLE else may_not).extend(range(at + 2, at + size))
        at += size
    return may, may_not


def test_ah_behind_options() -> None:
    """Outer headers with options, which this engine does not send: what a router may write in passing, it may."""
    chance = random.Random("options")
    use = ah("hmac-sha1-96")
    sadb = our_receiver(None, use, esn=False, udp=False)
    accepted = refused = 0
    for number in range(1, 200):
        options = any_options(chance)
        outer = inet.IP(
            bytes(inet.IP(src=text(LEFT), dst=text(RIGHT), ihl=5 + len(options) // 4))[:20] + options
        )  # fmt: skip
        outer.remove_payload()
        outer.id, outer.ttl, outer.tos = chance.randrange(1 << 16), 60, 0x20
        clear = any_packet(chance)
        sealed = scapy_seals(scapy_ah(use, outer=outer), clear, number)
        assert sealed[20 : 20 + len(options)] == options
        may, may_not = places_of(options)
        if may_not:
            place = 20 + chance.choice(may_not)
            assert opened(sadb, [changed(sealed, place, chance)], chance) == (
                [],
                {IpsecDropCause.AH_AUTHENTICATION: 1},
            )
            refused += 1
        for place in may:
            if chance.random() < 0.5:
                sealed = changed(sealed, 20 + place, chance)
                accepted += 1
        assert opened(sadb, [routed(sealed, chance)], chance) == ([clear], {}), options.hex()
    assert accepted > 150
    assert refused > 50


# AH around ESP


@pytest.mark.parametrize("esn", [False, True])
@pytest.mark.parametrize(("cipher", "integrity"), [pair for pair in COMBINATIONS if pair[1] != "hmac-sha-384-192"])
def test_bundles(cipher: str, integrity: str | None, esn: bool) -> None:
    chance = random.Random(f"bundle {cipher} {integrity} {esn}")
    outer = chance.choice([name for name in INTEGRITY_NAMES if name])
    use_esp = esp(cipher, integrity, chance.randrange(256, 1 << 32))
    use_ah = ah(outer, chance.randrange(256, 1 << 32))
    packets = [any_packet(chance) for _ in range(8)]
    numbers = numbers_from(esn, len(packets))
    around, inside = scapy_ah(use_ah, tunnel=False, esn_en=esn), scapy_esp(use_esp, esn_en=esn)
    wire = sent(our_sender(use_esp, use_ah, numbers[0], esn=esn, udp=False), packets, chance)
    for clear, sealed, number in zip(packets, wire, numbers, strict=True):
        assert scapy_opens(inside, scapy_opens(around, routed(sealed, chance), number), number) == clear
    wrap = Enclosing(use_ah, esn)
    theirs = [
        routed(wrap(scapy_seals(inside, clear, number), number), chance)
        for clear, number in zip(packets, numbers, strict=True)
    ]
    assert [len(one) for one in theirs] == [len(one) for one in wire]
    fresh = our_receiver(use_esp, use_ah, esn=esn, udp=False)
    damaged = changed(theirs[0], chance.randrange(32, len(theirs[0])), chance)
    assert opened(fresh, [damaged], chance) == ([], {IpsecDropCause.AH_AUTHENTICATION: 1})
    assert opened(fresh, theirs, chance) == (packets, {})
    assert opened(fresh, theirs, chance) == ([], {IpsecDropCause.REPLAYED: len(theirs)})


# Outer headers


@pytest.mark.parametrize("df", list(DfPolicy))
@pytest.mark.parametrize("protocols", ["esp", "ah", "both"])
def test_outer_headers(df: DfPolicy, protocols: str) -> None:
    use_esp = esp() if protocols != "ah" else None
    use_ah = ah() if protocols != "esp" else None
    packets = [
        inner(60, service=service, flags=flags, seed=service)
        for service in (0, 1, 2, 3, 0xB8, 0xFF)
        for flags in (0, 0x4000, 0x2000, 0x4000 | 100)
    ]
    for number, (clear, sealed) in enumerate(
        zip(packets, protected(sender(use_esp, use_ah, df=df), packets), strict=True), start=1
    ):
        outer = inet.IP(sealed)
        asked = bool(clear[6] & 0x40)
        expected = {DfPolicy.PROPAGATE: asked, DfPolicy.SET: True, DfPolicy.CLEAR: False}[df]
        assert (outer.src, outer.dst) == (text(LEFT), text(RIGHT))
        assert outer.proto == (50 if protocols == "esp" else 51)
        assert (outer.flags.DF, outer.flags.MF, outer.frag) == (expected, False, 0)
        assert outer.tos == clear[1]
        assert outer.ttl == 64
        assert outer.len == len(sealed)
        assert outer.id == (0x1001 if protocols == "esp" else 0x2001) + number
        right = outer.copy()
        del right.chksum
        assert inet.IP(bytes(right)).chksum == outer.chksum
