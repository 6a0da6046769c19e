"""Protected packets that came in pieces: whole again before they are opened, within bounds of time and room."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from chassis.bus.batch import Step
from chassis.fwd.reassembly import MAX_REASSEMBLIES, REASSEMBLY_TIMEOUT
from chassis.net.fragments import fragment
from chassis.net.ipv4 import Ipv4
from tests.support.asp import CIRCUIT, ECONOMICAL, OUTER, Controller, batch_of, packets_of, pair, udp_packet
from tests.support.asp_negotiated import install, sides


def in_pieces(packets: list[bytes], mtu: int) -> list[list[bytes]]:
    return [[piece.emit() for piece in fragment(Ipv4.parse(packet), mtu)] for packet in packets]


def opened(side: Controller, pieces: list[bytes]) -> list[bytes]:
    """What comes out of pieces that arrive in one batch."""
    out = side.give(batch_of(pieces, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    return [packet for _, batch in out for packet in packets_of(batch)]


@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
@pytest.mark.parametrize("mtu", [68, 576, 1200])
def test_pieces_in_any_order_are_whole_packets(kind: str, mtu: int) -> None:
    a, b = pair(kind=kind, df_bit="clear")
    clear = [udp_packet(size=1300 + number, number=number) for number in range(20)]
    [(_, out)] = a.protect(CIRCUIT, clear)
    pieces = [piece for packet in in_pieces(packets_of(out), mtu) for piece in packet]
    random.Random(mtu).shuffle(pieces)
    got = []
    for start in range(0, len(pieces), 30):
        got += opened(b, pieces[start : start + 30])
    assert sorted(got) == sorted(clear)
    assert b.drops() == {}
    assert b.count("packets queued") == 0
    b.check_counts()


@pytest.mark.parametrize("kind", ["gcm", "sha2"])
def test_pieces_of_what_was_negotiated(kind: str) -> None:
    left, right = sides(df_bit="clear")
    left.ike(install(CIRCUIT, 1, kind=kind))
    right.ike(install(CIRCUIT, 1, there=True, kind=kind))
    clear = [udp_packet(size=1400, number=number) for number in range(5)]
    ((_, out),) = left.protect(CIRCUIT, clear)
    assert opened(right, [piece for packet in in_pieces(packets_of(out), 600) for piece in packet]) == clear


@pytest.mark.parametrize("kind", ["esp", "ah", "gcm"])
def test_a_piece_lost_costs_no_packet_of_another_sa(kind: str) -> None:
    left, right = sides(df_bit="clear")
    for tunnel in (CIRCUIT, ECONOMICAL):
        left.ike(install(tunnel, 1, kind=kind))
        right.ike(install(tunnel, 1, there=True, kind=kind))
    clear = [udp_packet(size=1400, number=number) for number in range(5)]
    ((_, one),) = left.protect(CIRCUIT, clear)
    ((_, other),) = left.protect(ECONOMICAL, clear)
    for torn, whole in zip(in_pieces(packets_of(one), 600), in_pieces(packets_of(other), 600), strict=True):
        assert len(opened(right, [*torn[:-1], *whole])) == 1
    assert right.drops() == {}


def test_a_last_piece_shorter_than_any_packet() -> None:
    a, b = pair(df_bit="clear")
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(size=1300)])
    [packet] = packets_of(out)
    whole = Ipv4.parse(packet)
    cut = (len(whole.payload) - 1) // 8 * 8
    first = replace(whole, payload=whole.payload[:cut], more_fragments=True)
    last = replace(whole, payload=whole.payload[cut:], offset=cut)
    assert len(last.payload) < 12
    assert opened(b, [last.emit(), first.emit()]) == [udp_packet(size=1300)]


def test_a_missing_piece_is_a_drop_by_name() -> None:
    a, b = pair(df_bit="clear")
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(size=1300, number=number) for number in range(3)])
    first, second, third = in_pieces(packets_of(out), 600)
    assert len(opened(b, [*first, *second[:-1], *third])) == 2
    assert b.count("packets queued") == len(second) - 1
    b.pass_time(REASSEMBLY_TIMEOUT + 1)
    assert b.drops() == {"fragment": len(second) - 1}
    assert b.count("packets queued") == 0
    b.check_counts()


def test_pieces_are_checked_as_a_packet_is() -> None:
    a, b = pair(df_bit="clear")
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(size=1300, number=number) for number in range(2)])
    first, second = in_pieces(packets_of(out), 600)
    forged = bytearray(second[1])
    forged[-1] ^= 1
    assert len(opened(b, first)) == 1
    assert opened(b, first) == []
    assert opened(b, [second[0], bytes(forged), *second[2:]]) == []
    assert b.drops() == {"replayed": 1, "esp integrity": 1}
    b.check_counts()


def test_a_flood_of_pieces_takes_no_more_room_than_is_given() -> None:
    a, b = pair(df_bit="clear")
    [(_, out)] = a.protect(
        CIRCUIT, [udp_packet(size=1300, number=number) for number in range(MAX_REASSEMBLIES * 3)]
    )
    firsts = [pieces[0] for pieces in in_pieces(packets_of(out), 600)]
    assert opened(b, firsts) == []
    assert b.count("packets queued") == MAX_REASSEMBLIES
    assert b.drops() == {"fragment": MAX_REASSEMBLIES * 2}
    b.check_counts()
    # What comes whole meanwhile is opened.
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(size=100)])
    assert opened(b, packets_of(out)) == [udp_packet(size=100)]


def test_congestion_that_a_piece_met_reaches_the_receiver() -> None:
    a, b = pair(df_bit="clear")
    clear = Ipv4.parse(udp_packet(size=1300))
    [(_, out)] = a.protect(CIRCUIT, [replace(clear, tos=2).emit()])
    [pieces] = in_pieces(packets_of(out), 600)
    marked = replace(Ipv4.parse(pieces[1]), tos=3).emit()
    [got] = opened(b, [pieces[0], marked, *pieces[2:]])
    assert Ipv4.parse(got) == replace(clear, tos=3)
