"""Both directions against scapy's IPsec layer, for every algorithm that both know."""

from __future__ import annotations

import random

import pytest

from chassis.ase.ipsec.sa import DfPolicy, InboundSa, OutboundSa, SequenceLease, UdpPorts
from chassis.ase.ipsec.spd import SpdEntry
from tests.support.ipsec import (
    ENTRY,
    LEFT,
    RIGHT,
    ah,
    batch,
    database,
    esp,
    inner,
    packets_of,
    protected,
    receiver,
    sender,
)
from tests.support.scapy_peer import COMBINATIONS, INTEGRITY_NAMES, Enclosing, inet, scapy_ah, scapy_esp, text

SIZES = (20, 21, 28, 39, 40, 41, 64, 100, 333, 576, 1400, 1433)


def clear_packets(seed: int) -> list[bytes]:
    chance = random.Random(seed)
    sizes = [*SIZES, *(chance.randrange(20, 1500) for _ in range(4))]
    return [
        inner(
            size,
            seed=chance.randrange(1 << 30),
            service=chance.choice([0, 0, 2, 0xB8]),
            flags=chance.choice([0, 0x4000]),
        )
        for size in sizes
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cipher", "integrity"), COMBINATIONS)
def test_esp_both_ways(cipher: str, integrity: str | None) -> None:
    use = esp(cipher, integrity)
    packets = clear_packets(1)
    wire = protected(sender(use), packets)
    assert len(wire) == len(packets)
    peer = scapy_esp(use)
    for clear, sealed in zip(packets, wire, strict=True):
        seen = inet.IP(sealed)
        assert bytes(peer.decrypt(seen)) == clear
    peer = scapy_esp(use)
    theirs = [bytes(peer.encrypt(inet.IP(clear))) for clear in packets]
    result = receiver(use).decapsulate_batch(*batch(theirs))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("integrity", [name for name in INTEGRITY_NAMES if name])
def test_ah_both_ways(integrity: str) -> None:
    use = ah(integrity)
    packets = clear_packets(2)
    peer = scapy_ah(use)
    for clear, sealed in zip(packets, protected(sender(None, use), packets), strict=True):
        assert bytes(peer.decrypt(inet.IP(sealed))) == clear
    peer = scapy_ah(use)
    theirs = [bytes(peer.encrypt(inet.IP(clear))) for clear in packets]
    result = receiver(None, use).decapsulate_batch(*batch(theirs))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("cipher", "esp_integrity", "ah_integrity"),
    [
        ("aes-128-cbc", "hmac-sha1-96", "hmac-md5-96"),
        ("3des-cbc", None, "hmac-sha1-96"),
        ("null", "hmac-md5-96", "hmac-sha1-96"),
    ],
)
def test_bundles_both_ways(cipher: str, esp_integrity: str | None, ah_integrity: str) -> None:
    use_esp, use_ah = esp(cipher, esp_integrity), ah(ah_integrity)
    packets = clear_packets(3)
    outer, inside = scapy_ah(use_ah, tunnel=False), scapy_esp(use_esp)
    wrap = Enclosing(use_ah)
    for clear, sealed in zip(packets, protected(sender(use_esp, use_ah), packets), strict=True):
        assert bytes(inside.decrypt(inet.IP(bytes(outer.decrypt(inet.IP(sealed)))))) == clear
    theirs = [wrap(bytes(inside.encrypt(inet.IP(clear)))) for clear in packets]
    result = receiver(use_esp, use_ah).decapsulate_batch(*batch(theirs))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


EXTENDED = (7 << 32) + 100
"""Where the numbers of an SA stand in the tests of extended ones: scapy has one high half for all of it."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("cipher", "integrity"),
    [("aes-128-gcm", None), ("aes-256-gcm", None), ("aes-128-cbc", "hmac-sha-256-128"), ("null", "hmac-sha1-96")],
)
def test_extended_numbers(cipher: str, integrity: str | None) -> None:
    use = esp(cipher, integrity)
    packets = clear_packets(5)
    left, right = database(), database()
    left.install_outbound(
        OutboundSa(1, 1, LEFT, RIGHT, ENTRY, esp=use, esn=True, negotiated=True),
        SequenceLease(EXTENDED, EXTENDED + 100),
    )
    left.spd.set_entries(1, [SpdEntry(ENTRY)])
    right.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=use, esn=True, negotiated=True))
    peer = scapy_esp(use, esn_en=True, esn=7)
    for clear, sealed in zip(packets, protected(left, packets), strict=True):
        assert bytes(peer.decrypt(inet.IP(sealed))) == clear
    # A receiver whose window stands at zero takes scapy's numbers for those of the first high half.
    peer = scapy_esp(use, esn_en=True, esn=0)
    theirs = [bytes(peer.encrypt(inet.IP(clear))) for clear in packets]
    result = right.decapsulate_batch(*batch(theirs))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("cipher", "integrity"), [("aes-256-cbc", "hmac-sha1-96"), ("null", "hmac-md5-96"), ("aes-128-gcm", None)]
)
def test_esp_in_udp(cipher: str, integrity: str | None) -> None:
    use = esp(cipher, integrity)
    packets = clear_packets(6)
    left, right = database(), database()
    left.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, ENTRY, esp=use, negotiated=True, udp=UdpPorts(4500, 4500)))
    left.spd.set_entries(1, [SpdEntry(ENTRY)])
    right.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=use, negotiated=True, udp=True))
    peer = scapy_esp(use, nat_t_header=inet.UDP(sport=4500, dport=4500))
    for clear, sealed in zip(packets, protected(left, packets), strict=True):
        seen = inet.IP(sealed)
        assert (seen[inet.UDP].sport, seen[inet.UDP].dport, seen[inet.UDP].chksum) == (4500, 4500, 0)
        assert bytes(peer.decrypt(seen)) == clear
    peer = scapy_esp(use, nat_t_header=inet.UDP(sport=4500, dport=4500))
    theirs = [bytes(peer.encrypt(inet.IP(clear))) for clear in packets]
    result = right.decapsulate_batch(*batch(theirs))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


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
