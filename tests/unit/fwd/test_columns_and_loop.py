"""Random batches: the way by columns and the loop give the same octets, in the same groups."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from chassis.bus.batch import pack
from chassis.fwd import classify as by_columns
from chassis.fwd import decision, flow_table, rewrite
from chassis.fwd.classify_loop import Group, classify_by_loop
from chassis.fwd.decided import DecidedPackets
from chassis.fwd.decision import Decider, Decision
from chassis.fwd.rewrite import decrement_ttls, write_link_headers
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.arp import Arp
from chassis.net.checksum import is_intact
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM, header
from chassis.net.ipv4 import Ipv4
from chassis.net.udp import Udp
from tests.support.fwd import MAC, PEER, decider

SEEDS = range(150)
DESTINATIONS = ("30.1.1.1", "30.2.2.2", "40.0.0.1", "10.0.0.7", "10.0.0.8", "10.0.0.1", "9.9.9.9", "60.0.0.1")
UNUSUAL: tuple[Callable[[Random, bytearray], object], ...] = (
    # A wrong checksum, a version, options, lengths that are too small or too large, a TTL, a fragment.
    lambda random, frame: frame.__setitem__(24, frame[24] ^ 1 << random.randrange(8)),
    lambda random, frame: frame.__setitem__(14, random.choice((0x65, 0x44, 0x46, 0x4F))),
    lambda random, frame: frame.__delitem__(slice(random.randrange(len(frame)), None)),
    lambda random, frame: frame.extend(bytes(random.randrange(60))),
    lambda random, frame: frame.__setitem__(slice(6), random.choice((b"\xff" * 6, PEER, b"\1\0\x5e\0\0\5"))),
    lambda random, frame: frame.__setitem__(slice(12, 14), random.choice((b"\x86\xdd", b"\x08\x06"))),
    lambda random, frame: frame.__setitem__(
        slice(0, None),
        header(b"\xff" * 6, PEER, ETHERTYPE_ARP) + Arp(1, PEER, ip("10.0.0.5"), bytes(6), ip("10.0.0.1")).emit(),
    ),
)


def _packet(random: Random, usual: Ipv4, varied: frozenset[str]) -> Ipv4:
    """A packet like the usual one, but for the fields that vary in its batch."""
    values = {name: getattr(usual, name) for name in Ipv4.__slots__}
    if "destination" in varied:
        values["destination"] = ip(random.choice(DESTINATIONS))
    if "source" in varied:
        values["source"] = ip(random.choice(("10.0.0.5", "10.0.0.6", "127.0.0.1", "0.0.0.0")))
    if "ttl" in varied:
        values["ttl"] = random.choice((0, 1, 2, 64, 255))
    if "tos" in varied:
        values["tos"] = random.randrange(256)
    if "size" in varied:
        values["payload"] = random.randbytes(random.choice((0, 1, 3, 4, 8, 26, 40, 300)))
    if "protocol" in varied:
        values["protocol"] = random.choice((1, 6, 17, 50, 51, 108))
    if "port" in varied:
        values["payload"] = Udp(500, random.choice((500, 4500, 9)), values["payload"]).emit()
    if "quote" in varied:
        quoted = Ipv4(ip("9.9.9.9"), ip("8.8.8.8"), random.choice((50, 17, 6)), bytes(20)).emit()
        values |= {"protocol": 1, "payload": icmp.Icmp(3, random.choice((4, 1)), 0, quoted).emit()}
    if "fragment" in varied:
        values["more_fragments"], values["offset"] = random.choice(((True, 0), (False, 64), (False, 0)))
    if "options" in varied:
        values["options"] = random.choice((b"", b"\1\1\1\1"))
    return Ipv4(**{**values, "identification": random.randrange(65536)})


def _batch(random: Random) -> tuple[bytearray, array[int]]:
    usual = Ipv4(
        ip("10.0.0.5"),
        ip(random.choice(DESTINATIONS)),
        random.choice((6, 17, 17, 50, 50)),
        random.randbytes(random.choice((8, 20, 100))),
        ttl=random.choice((1, 2, 64, 64, 64)),
    )
    names = ("destination", "source", "ttl", "tos", "size", "protocol", "port", "quote", "fragment", "options")
    varied = frozenset(random.sample(names, random.choice((0, 0, 1, 1, 2, 3))))
    links = [header(MAC, PEER), header(MAC, b"\2\0\0\0\0\x77")][: random.choice((1, 1, 2))]
    frames = [
        bytearray(random.choice(links) + _packet(random, usual, varied).emit())
        for _ in range(random.choice((1, 2, 16, 40, 100)))
    ]
    if random.random() < 0.3:
        for frame in random.choices(frames, k=random.choice((1, 3))):
            random.choice(UNUSUAL)(random, frame)
    elif random.random() < 0.2:
        frames = [frame.ljust(random.choice((60, 60, 64)), b"\0") for frame in frames]
    # A batch on the bus has no frame shorter than its headroom.
    return pack([frame.ljust(HEADROOM, b"\0") for frame in frames])


def _shown(groups: list[Group] | None) -> object:
    if groups is None:
        return None
    return [(repr(decision), id(decision), bytes(body), list(lengths)) for decision, body, lengths in groups]


@pytest.mark.parametrize("mac", [MAC, b""])
@pytest.mark.parametrize("transit", [True, False])
def test_columns_and_loop_find_the_same_groups(mac: bytes, transit: bool) -> None:
    columns_did = groups_found = 0
    for seed in SEEDS:
        random = Random(seed)
        known = decider()
        # The second batch finds flows of the first one, and void ones.
        for _ in range(2):
            body, lengths = _batch(random)
            viewed = memoryview(b"x" + body)[1:] if random.random() < 0.5 else body
            wanted = _shown(classify_by_loop(known, 1, bytearray(body), lengths[:], mac, transit))
            groups = by_columns.classify_by_columns(known, 1, viewed, lengths[:], mac, transit)
            if groups is not None:
                columns_did += 1
                groups_found += len(groups)
                assert _shown(groups) == wanted, seed
                assert len(groups) == 1 or all(not memoryview(group).readonly for _, group, _ in groups)
            assert viewed == body
        if random.random() < 0.3:
            known.invalidate()
    # Most batches are ordinary, and many are split.
    assert columns_did > 0.4 * 2 * len(SEEDS)
    assert groups_found > 1.2 * columns_did


def _alike(groups: list[Group]) -> list[tuple[str, int, bytes, array[int]]]:
    return [(repr(one), one.address, bytes(some), sizes) for one, some, sizes in groups]


def _by_fate(groups: list[Group]) -> dict[tuple[str, int], tuple[bytes, list[int]]]:
    """The packets by what is done with them."""
    found: dict[tuple[str, int], tuple[bytes, list[int]]] = {}
    for name, address, some, sizes in _alike(groups):
        before, lengths = found.get((name, address), (b"", []))
        found[name, address] = before + some, lengths + list(sizes)
    return found


@pytest.mark.parametrize("most", [16, 1 << 16])
def test_a_table_of_flows_and_the_loop_find_the_same_groups(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Also where flows and decisions are evicted in the middle of a batch, and the table is made anew."""
    monkeypatch.setattr(decision, "MAX_CACHED_FLOWS", 20 * most)
    monkeypatch.setattr(decision, "MAX_SHARED_DECISIONS", 4 * most)
    monkeypatch.setattr(flow_table, "MAX_ROWS", most)
    taken = owned = 0
    for seed in range(30):
        random = Random(seed)
        known, other = decider(), decider()
        hosts = random.choice((3, 50, 200))
        beside = random.choice((0, 0, 1))
        # Many peers of an address that an ASP owns, with and without others; and the flow with the largest key.
        peers = random.random() < 0.3
        largest = Ipv4(ip("255.255.255.255"), ip("255.255.255.255"), 17, bytes(20))
        for _ in range(9):
            sizes = random.choice(((20,), (20, 40, 300)))
            packets = [
                Ipv4(
                    ip(f"10.0.0.{random.randrange(2, 5)}"),
                    ip(random.choice(DESTINATIONS))
                    if random.random() < 0.1 * beside
                    else ip("10.0.0.2") + random.randrange(hosts),
                    random.choice((17, 50)),
                    random.randbytes(random.choice(sizes)),
                    ttl=1 if random.random() < 0.001 else 64,
                )
                for _ in range(random.randrange(2, 257))
            ]
            if peers:
                packets = [replace(one, destination=ip("9.9.9.9")) for one in packets]
            if random.random() < 0.1:
                packets[random.randrange(len(packets))] = largest
            body, lengths = pack([header(MAC, PEER) + one.emit() for one in packets])
            found = by_columns.look_up_by_columns(known, 1, body, lengths, MAC, True)
            taken += isinstance(found, DecidedPackets)
            owned += peers and found is not None
            groups = found.groups(known.numbered) if isinstance(found, DecidedPackets) else found
            wanted = classify_by_loop(other, 1, bytearray(body), lengths, MAC, True)
            if groups is not None and most > 16:
                assert _alike(groups) == _alike(wanted)
            elif groups is not None:
                # What is decided again after an eviction is in a group of its own.
                assert _by_fate(groups) == _by_fate(wanted)
            if random.random() < 0.1:
                known.invalidate()
                other.invalidate()
    assert taken > 60
    assert owned > 20


def test_new_flows_are_decided_once_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [header(MAC, PEER) + Ipv4(ip("10.0.0.5"), ip(d), 17, bytes(8)).emit() for d in DESTINATIONS * 5]
    body, lengths = pack(frames)
    keys: list[int] = []
    decide = Decider.decide

    def asked(known: Decider, context: int, key: int) -> Decision:
        keys.append(key)
        return decide(known, context, key)

    monkeypatch.setattr(Decider, "decide", asked)
    for way in (classify_by_loop, by_columns.classify_by_columns):
        known = decider()
        for _ in range(2):
            assert way(known, 1, body, lengths, MAC, True) is not None
        known.invalidate()
        way(known, 1, body, lengths, MAC, True)
    assert len(keys) == 4 * len(DESTINATIONS)
    assert keys[: len(keys) // 2] == keys[len(keys) // 2 :]


@pytest.mark.parametrize("least", [1, 1 << 16])
def test_headers_are_rewritten_alike(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    monkeypatch.setattr(rewrite, "MIN_PACKETS", least)
    link = header(PEER, MAC, ETHERTYPE_IPV4)
    for seed in SEEDS:
        random = Random(seed)
        sizes = [random.randrange(60) for _ in range(random.choice((1, 2)))]
        packets = []
        for _ in range(random.choice((1, 2, 30, 200))):
            payload = bytes(random.choice(sizes))
            packets.append(
                Ipv4(
                    random.randrange(1 << 32),
                    random.choice((ip("30.1.1.1"), random.randrange(1 << 32))),
                    17,
                    payload,
                    ttl=random.randrange(1, 256),
                    identification=random.randrange(65536),
                ).emit()
            )
        # Checksums that carry, or give 0xFFFF, when the TTL is decremented.
        for wanted in (0xFEFF, 0xFEFE, 0xFF00, 0xFFFE, 0xFE00, 0x00FF):
            plain = Ipv4(ip("10.0.0.5"), ip("30.1.1.1"), 17, bytes(sizes[0]), identification=0).emit()
            number = (int.from_bytes(plain[10:12], "big") - wanted) % 0xFFFF
            packet = Ipv4(ip("10.0.0.5"), ip("30.1.1.1"), 17, bytes(sizes[0]), identification=number).emit()
            assert packet[10:12] == wanted.to_bytes(2, "big")
            packets.append(packet)
        body, lengths = pack(packets, HEADROOM)
        viewed = memoryview(bytearray(b"x" + body))[1:] if random.random() < 0.5 else body
        decrement_ttls(viewed, lengths)
        write_link_headers(viewed, lengths, link)
        expected = bytearray()
        for packet in packets:
            less = bytearray(packet)
            ipv4.decrement_ttl(less)
            assert is_intact(less[:20])
            expected += link + less
        assert viewed == expected, seed
