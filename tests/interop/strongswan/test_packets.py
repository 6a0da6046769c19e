"""The product's packets and strongSwan's: every cipher and every integrity algorithm that both have, all sizes.

Whole packets of 28 to 1,400 bytes go both ways with DF. The peer's tunnel device has an MTU of 1,400, so larger
ones come from it as inner fragments; towards it they go whole, up to 9,000 bytes, on a wire that carries them.
"""

from __future__ import annotations

import random
import socket
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.net.address import parse_address
from chassis.net.checksum import checksum
from tests.support.charon import PROGRAM, require
from tests.support.charon_rig import CIPHERS, INTEGRITY, Rig, Suite
from tests.support.ike.udp_end import DONT_FRAGMENT, ECHO, OUR_HOST, PEER, PEER_HOST, US, clear_packet
from tests.support.netns import IP_MTU_DISCOVER, IP_PMTUDISC_DO

pytestmark = pytest.mark.multiprocess

SIZES = (*range(28, 64), *range(97, 1384, 97), *range(1384, 1401))
"""Every rest of a block at either end, and some between."""
LARGE = (1401, 1428, 1500, 2777, 4096, 8192, 8999, 9000)
PEERS_MTU = 1400
WIRE_MTU = 9500
IP_PMTUDISC_DONT = 0

SUITES = [
    Suite(esp_cipher=cipher, esp_integrity=integrity)
    for cipher in CIPHERS
    for integrity in (("",) if cipher.endswith("gcm") else INTEGRITY)
]


@pytest.fixture(scope="module")
def wide_rig() -> Iterator[Rig]:
    require(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig.build(Path(folder))
        try:
            for host in ("us", "peer"):
                rig.namespaces.run(host, "ip", "link", "set", "eth0", "mtu", str(WIRE_MTU))
            yield rig
        finally:
            rig.close()


def content(size: int) -> bytes:
    """What a packet of this size carries: nothing in one of 28 bytes, and never the same in two."""
    return random.Random(size).randbytes(size - 28)


def received(far: socket.socket, contents: list[bytes]) -> None:
    """What waits in the socket of the peer's host."""
    while True:
        try:
            contents.append(far.recv(65536))
        except BlockingIOError:
            return


def checked(packet: bytes) -> tuple[int, bytes]:
    """Flags with offset, and what a packet from the peer's host carries behind its IP header."""
    assert checksum(packet[:20]) == 0
    assert struct.unpack("!H", packet[2:4])[0] == len(packet)
    assert packet[12:16] == parse_address(PEER_HOST).to_bytes(4, "big")
    assert packet[16:20] == parse_address(OUR_HOST).to_bytes(4, "big")
    return struct.unpack("!H", packet[6:8])[0], packet[20:]


def carries_all_sizes(rig: Rig) -> None:
    us = rig.us
    there: list[bytes] = []

    def arrived() -> bool:
        received(us.far, there)
        return len(there) >= len(SIZES)

    def back() -> None:
        for size in SIZES:
            us.far.sendto(content(size), (OUR_HOST, ECHO))

    us.both_ways(
        [clear_packet(PEER_HOST, size, content(size)) for size in SIZES],
        back,
        arrived,
        lambda: len(us.opened) >= len(SIZES),
    )
    assert sorted(there, key=len) == [content(size) for size in SIZES]
    came = sorted((checked(packet) for packet in us.opened), key=lambda one: len(one[1]))
    assert [flags for flags, _ in came] == [DONT_FRAGMENT] * len(SIZES)
    assert [data[8:] for _, data in came] == [content(size) for size in SIZES]
    assert us.drops == []


def carries_large_ones(rig: Rig) -> None:
    us = rig.us
    there: list[bytes] = []
    # The last fragment of a datagram has no more-fragments flag: one of each is all of them.
    total = sum(size - 20 for size in LARGE)

    def arrived() -> bool:
        received(us.far, there)
        return len(there) >= len(LARGE)

    def back() -> None:
        us.far.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        try:
            for size in LARGE:
                us.far.sendto(content(size), (OUR_HOST, ECHO))
        finally:
            us.far.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)

    def came() -> bool:
        return sum(len(packet) - 20 for packet in us.opened) >= total

    us.both_ways([clear_packet(PEER_HOST, size, content(size), 0) for size in LARGE], back, arrived, came)
    assert sorted(there, key=len) == [content(size) for size in LARGE]
    datagrams: dict[bytes, dict[int, bytes]] = defaultdict(dict)
    for packet in us.opened:
        flags, data = checked(packet)
        assert len(packet) <= PEERS_MTU
        assert flags & 0x3FFF, "a fragment"
        datagrams[packet[4:6]][(flags & 0x1FFF) * 8] = data
    whole: list[bytes] = []
    for pieces in datagrams.values():
        joined = b""
        for offset, data in sorted(pieces.items()):
            assert offset == len(joined)
            joined += data
        whole.append(joined[8:])
    assert sorted(whole, key=len) == [content(size) for size in LARGE]
    assert us.drops == []


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.their_esp)
def test_every_cipher_and_integrity_algorithm(wide_rig: Rig, suite: Suite, version: int) -> None:
    role = "initiator" if (SUITES.index(suite) + version) % 2 else "responder"
    with wide_rig.tunnel(version, role, suite):
        carries_all_sizes(wide_rig)
        carries_large_ones(wide_rig)


def test_nothing_that_both_have_is_left_out() -> None:
    from chassis.ase.ipsec import algorithms

    assert {suite.esp_cipher for suite in SUITES} == set(algorithms.CIPHERS)
    assert {suite.esp_integrity for suite in SUITES} == {"", *algorithms.INTEGRITY}


def test_outer_headers_are_those_of_nat_traversal(wide_rig: Rig) -> None:
    us = wide_rig.us
    with wide_rig.tunnel(1, "initiator", Suite()):
        for flags in (0, DONT_FRAGMENT):
            (packet,) = us.send([clear_packet(PEER_HOST, 576, content(576), flags)])
            assert checksum(packet[:20]) == 0
            assert (packet[0], packet[8], packet[9]) == (0x45, 64, 17)
            assert struct.unpack("!H", packet[6:8])[0] == flags
            assert packet[12:16] == parse_address(US).to_bytes(4, "big")
            assert packet[16:20] == parse_address(PEER).to_bytes(4, "big")
            assert struct.unpack("!HHHH", packet[20:28]) == (4500, 4500, len(packet) - 20, 0)
        there: list[bytes] = []
        us.until(lambda: (received(us.far, there), len(there) == 2)[1], lambda: "both packets")
        assert there == [content(576)] * 2
