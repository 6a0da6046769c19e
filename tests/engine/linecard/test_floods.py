"""What strangers can make a line card keep: each kind is bounded and counted, and known neighbours do not pay."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from chassis.bus.batch import Step
from chassis.bus.messages import NeighbourEvent
from chassis.bus.records import NextHop
from chassis.linecard.arp import Neighbour
from chassis.net import icmp
from chassis.net.address import BROADCAST_MAC, ZERO_MAC, format_address
from chassis.net.address import parse_address as ip
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, header
from tests.support.linecard import GATEWAY, HOST, INNER, MAC, OUTER, RECORDS, Rig, packet, port, route

UNRESOLVED, KNOWN, WAITING = 512, 2048, 1024
"""What a port keeps: neighbours that are asked for, those known, packets that wait."""

BURST = 500
"""Neighbours of which the controller is told at once."""

FLOOD = 4 * KNOWN


def wide() -> Rig:
    """Both networks have room for a flood, a host and a gateway in each are known."""
    rig = Rig(
        (
            *RECORDS,
            port("3/1", INNER, "10.0.0.1", 8),
            port("3/11", OUTER, "20.0.0.1", 8),
            route(INNER, "10.0.0.0/8", NextHop("port", 0, "lc 3", "3/1")),
            route(OUTER, "20.0.0.0/8", NextHop("port", 0, "lc 3", "3/11")),
            route(INNER, "192.168.0.0/16", NextHop("port", 0, "lc 3", "3/1", ip("10.0.0.9"))),
        )
    )
    rig.knows("3/1", "10.0.0.5", HOST).knows("3/1", "10.0.0.9", GATEWAY).knows("3/11", "20.0.0.9", GATEWAY)
    return rig


def scan(rig: Rig, numbers: Iterator[int], packets: int, port: str = "3/1") -> None:
    """Packets of a stranger's to addresses that nobody has, each to another one."""
    network = ip("10.128.0.1" if port == "3/1" else "20.128.0.1")
    rig.frames(port, *(packet(format_address(network + next(numbers)), "11.0.0.7") for _ in range(packets)))


def spoof(rig: Rig, numbers: Iterator[int], packets: int, port: str = "3/1") -> None:
    """ARP of a stranger on the network, each in the name of another address."""
    network = ip("10.128.0.1" if port == "3/1" else "20.128.0.1")
    own = rig.card.ports.own[port].record.address
    link = header(BROADCAST_MAC, HOST, ETHERTYPE_ARP)
    frames = [Arp(REQUEST, HOST, network + next(numbers), ZERO_MAC, own).emit() for _ in range(packets)]
    rig.frames(port, *(link + frame for frame in frames))


Flood = Callable[[Rig, Iterator[int], int, str], None]
FLOODS = pytest.mark.parametrize("flood", [scan, spoof])


def alive() -> int:
    """Neighbours that anything holds."""
    return sum(type(one) is Neighbour for one in gc.get_objects())


def count_of(rig: Rig, name: str) -> int:
    return rig.card.counters.get(name)


@FLOODS
def test_neighbours_that_carry_traffic_stay_in_a_flood_of_unknown_ones(flood: Flood) -> None:
    rig, numbers = wide(), count()
    for step in range(FLOOD // 128):
        flood(rig, numbers, 128, "3/1")
        flood(rig, numbers, 128, "3/11")
        rig.now += 0.001
        # Clear packets by a gateway, and those of a tunnel: in, out by the card that holds its circuit, and back.
        rig.frames("3/1", packet("192.168.0.1"), packet("30.0.0.1"))
        assert [(name, link) for name, link, _ in rig.sent()] == [("3/1", header(GATEWAY, MAC["3/1"]))], step
        assert [(card, batch.step) for card, batch in rig.fabric()] == [("asp 1/1", Step.ENCAPSULATE)]
        rig.batch(Step.CIRCUIT_OUT, packet("6.6.6.1", "5.5.5.1", protocol=50), circuit=17, context=OUTER)
        assert [(name, link) for name, link, _ in rig.sent()] == [("3/11", header(GATEWAY, MAC["3/11"]))], step
        rig.batch(Step.CIRCUIT_IN, packet("10.0.0.5", "30.0.0.1"), circuit=17, context=INNER)
        assert [(name, link) for name, link, _ in rig.sent()] == [("3/1", header(HOST, MAC["3/1"]))], step
    assert len(rig.neighbours("3/1")) <= UNRESOLVED + KNOWN
    assert len(rig.neighbours("3/11")) <= UNRESOLVED + KNOWN


def test_a_scan_leaves_so_many_neighbours_and_packets_and_no_more() -> None:
    rig, numbers, before = wide(), count(), alive()
    for _ in range(FLOOD // 128):
        scan(rig, numbers, 128)
    neighbours = rig.neighbours("3/1")
    assert len(neighbours) <= UNRESOLVED + 2
    assert alive() - before <= 4 * UNRESOLVED + KNOWN
    assert count_of(rig, "packets queued") <= UNRESOLVED
    assert count_of(rig, "neighbours shed unresolved") == FLOOD - UNRESOLVED
    assert count_of(rig, "drop too many neighbours") == FLOOD - UNRESOLVED
    # The rest is given up when nobody answers, and nothing stays.
    rig.after(4.0)
    assert len(neighbours) == 2
    assert count_of(rig, "packets queued") == 0


def test_a_host_that_answers_is_found_in_the_midst_of_a_scan() -> None:
    rig, numbers = wide(), count()
    for turn in range(20):
        scan(rig, numbers, 128)
        address = f"10.7.0.{turn + 1}"
        rig.frames("3/1", packet(address))
        scan(rig, numbers, 256)
        rig.arp("3/1", REPLY, address, HOST, "10.0.0.1", target_mac=MAC["3/1"])
        assert [p.destination for _, _, p in rig.sent()] == [ip(address)]


def test_packets_wait_for_a_port_in_so_many_places_and_the_oldest_make_room() -> None:
    rig = wide()
    for turn in range(64):
        rig.frames("3/1", *(packet(f"10.200.0.{n + 1}", identification=turn) for n in range(100)))
    assert count_of(rig, "packets queued") == WAITING
    assert count_of(rig, "drop neighbour queue full") == 64 * 100 - WAITING
    rig.arp("3/1", REPLY, "10.200.0.100", HOST, "10.0.0.1", target_mac=MAC["3/1"])
    assert [p.identification for _, _, p in rig.sent()][-1] == 63


def test_spoofed_arp_leaves_so_many_neighbours_and_tells_the_controller_of_few() -> None:
    rig, numbers, before, told = wide(), count(), alive(), 0
    for _ in range(FLOOD // 128):
        spoof(rig, numbers, 128)
        told += len(rig.told(NeighbourEvent))
    assert told <= BURST
    assert len(rig.neighbours("3/1")) <= KNOWN
    assert alive() - before <= 4 * KNOWN
    assert count_of(rig, "neighbours shed known") == FLOOD - KNOWN + 2
    assert count_of(rig, "neighbour events held back") > FLOOD - BURST
    # The next second has room for more.
    rig.now += 2.0
    rig.arp("3/11", REQUEST, "20.0.0.77", HOST, "20.0.0.1")
    assert len(rig.told(NeighbourEvent)) == 1


def test_of_known_neighbours_the_one_sent_to_the_longest_ago_makes_room() -> None:
    rig = wide()
    addresses = [format_address(ip("10.1.0.1") + n) for n in range(KNOWN - 2)]
    for address in addresses:
        rig.knows("3/1", address, HOST)
    for address in (*addresses[::-1], "10.0.0.5", "10.0.0.9"):
        rig.now += 0.001
        rig.frames("3/1", packet(address, "10.0.0.5"))
        assert len(rig.sent()) == 1
    for new in range(3):
        rig.frames("3/1", packet(f"10.2.0.{new + 1}"))
        rig.arp("3/1", REPLY, f"10.2.0.{new + 1}", HOST, "10.0.0.1", target_mac=MAC["3/1"])
        assert len(rig.sent()) == 1
    held = rig.neighbours("3/1")
    assert [address for address in addresses if ip(address) not in held] == addresses[-3:]


def test_an_answer_that_comes_again_and_again_makes_no_heap_of_timers() -> None:
    rig = wide()
    for _ in range(2000):
        rig.now += 0.001
        rig.knows("3/1", "10.0.0.5", HOST)
    assert len(rig.card.delivery.arp._timers) <= 10
    # The last answer counts: the neighbour is asked again an hour after it.
    for more, asked in ((3599.0, False), (1.1, True)):
        rig.now += more
        rig.do(rig.card.on_timer(rig.now))
        assert (ip("10.0.0.5") in [arp.target_address for _, _, arp in rig.arps()]) == asked


def test_packets_to_nowhere_use_up_no_word_of_packets_that_are_too_long() -> None:
    rig = wide()
    rig.frames("3/1", *[packet("200.0.0.1", "10.0.0.5")] * 1000)
    assert count_of(rig, "icmp errors rate limited") == 800
    for _ in range(3):
        rig.frames("3/1", packet("10.0.0.9", "10.0.0.5", bytes(1600), dont_fragment=True))
        assert [icmp.Icmp.parse(p.payload).code for _, _, p in rig.sent()] == [icmp.FRAGMENTATION_NEEDED]
