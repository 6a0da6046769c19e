"""Two testers in memory: what one sends the other accounts for, whatever the wire does to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.engine import Perform, ToOperator, ToWire
from chassis.net import arp, icmp, ipv4
from chassis.net.address import BROADCAST_MAC, ZERO_MAC, parse_address
from chassis.net.arp import Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, Ethernet, header
from chassis.net.fragments import fragment
from chassis.net.icmp import Icmp, echo_request
from chassis.net.ipv4 import Ipv4, decrement_ttl
from chassis.net.udp import Udp
from chassis.ports.impairment import Impairment
from chassis.tester.engine import TesterEngine as Engine
from chassis.tester.flow import FlowError, parse_flow
from chassis.tester.host import MAX_FAST_REQUESTS, port_mac
from chassis.tester.results import combine
from chassis.tester.source import MAX_SEND_INTERVAL
from tests.support.tester import FLOW, Pair, Wire

ROUTER = b"\x02\x00\x00\x00\x03\x01"
ONE, TWO = parse_address("10.0.0.1"), parse_address("10.0.0.2")


def flow_packets(batches: list[Batch]) -> list[bytes]:
    frames = [bytes(packet) for batch in batches for packet in batch.packets()]
    return [frame for frame in frames if frame[12:14] == b"\x08\x00"]


def wrap(*frames: bytes) -> Batch:
    body, lengths = pack(frames)
    return Batch(Step.INGRESS, body, lengths)


def arp_only(batch: Batch) -> bool:
    return batch.body[12:14] == b"\x08\x06"


def started(wire: Wire = lambda batch, now: [batch], **flow: Any) -> Pair:
    pair = Pair(wire, **flow)
    pair.call(pair.t1, "start", flow="forward")
    return pair


def final(pair: Pair) -> dict[str, Any]:
    pair.call(pair.t1, "stop", flow="forward")
    source, sink = pair.ends()
    return combine(source, sink, final=True)


# what is sent


@pytest.mark.parametrize("size", [64, 65, 200, 1400])
def test_packets_are_valid_and_numbered(size: int) -> None:
    pair = started(size=size, dscp=46, count=50)
    pair.run(0.1)
    frames = flow_packets(pair.sent)
    assert len(frames) == 50
    for number, frame in enumerate(frames):
        outer = Ethernet.parse(frame)
        assert (outer.destination, outer.source) == (port_mac("t2", "1"), port_mac("t1", "1"))
        packet = Ipv4.parse(outer.payload)
        assert (packet.source, packet.destination, packet.tos) == (ONE, TWO, 46 << 2)
        assert len(outer.payload) == size
        assert packet.identification == number
        datagram = Udp.parse(packet.payload, (ONE, TWO))
        assert int.from_bytes(datagram.payload[16:24], "big") == number


@pytest.mark.parametrize("destinations", [7, 300])
def test_packets_go_to_several_networks_in_turn(destinations: int) -> None:
    pair = started(size=200, count=400, destinations=destinations)
    pair.run(0.5)
    frames = flow_packets(pair.sent)
    first = TWO
    for number, frame in enumerate(frames):
        packet = Ipv4.parse(frame[HEADROOM:])
        assert packet.destination == first + number % destinations * 256
        Udp.parse(packet.payload, (packet.source, packet.destination))
    found = final(pair)
    assert (len(frames), found["received"], found["corrupted"]) == (400, 400, 0)


def test_a_packet_of_several_networks_must_arrive_with_its_own_address() -> None:
    def wire(batch: Batch, now: float) -> list[Batch]:
        if arp_only(batch):
            return [batch]
        out = []
        for packet in batch.packets():
            frame = bytearray(packet)
            if not out:
                # Another of the flow's addresses, with right checksums.
                moved = Ipv4.parse(bytes(frame[HEADROOM:]))
                source, other = moved.source, moved.destination + 256
                datagram = Udp.parse(moved.payload, (source, moved.destination))
                payload = datagram.emit((source, other))
                frame[HEADROOM:] = replace(moved, destination=other, payload=payload).emit()
            out.append(wrap(bytes(frame)))
        return out

    pair = started(wire, size=200, rate=100.0, count=4, destinations=3)
    pair.run(0.1)
    source, sink = pair.ends()
    assert (source["sent"], sink["received"], sink["corrupted"]) == (4, 0, 4)


def test_checksums_are_valid_for_large_numbers() -> None:
    pair = Pair()
    source = pair.t1._ends["forward"].source
    assert source is not None
    for first in (0, 65_530, 2**32 - 2, 2**48 + 65_534):
        body = source.template.make(ROUTER, ROUTER, 7, first, 10, 10**18 + 12345)
        for at in range(0, len(body), 214):
            packet = Ipv4.parse(bytes(body[at + HEADROOM : at + 214]))
            Udp.parse(packet.payload, (ONE, TWO))


@pytest.mark.parametrize("rate", [10.0, 999.0, 2000.0, 50_000.0])
def test_a_rate_is_kept(rate: float) -> None:
    pair = started(rate=rate)
    pair.run(2.0)
    source, sink = pair.ends()
    assert source["sent"] == pytest.approx(rate * 2, abs=rate * MAX_SEND_INTERVAL + 1)
    assert sink["received"] == source["sent"]
    assert sink["longest_gap_ms"] <= max(1000 / rate, 1) + 0.01


@pytest.mark.parametrize(
    ("rate", "interval"), [(500.0, 0.002), (20_000.0, 0.001), (30_000.0, 0.0015), (1e5, 0.002)]
)
def test_many_packets_go_in_fewer_batches(rate: float, interval: float) -> None:
    pair = started(rate=rate)
    pair.run(0.1)
    arp_batches = 2
    assert len(pair.sent) - arp_batches == pytest.approx(0.1 / interval, rel=0.05)


def test_what_fills_no_batch_waits_for_the_next() -> None:
    """At 200,000/s 400 packets are due at a time: a batch of 256, and not another one of 144."""
    pair = started(rate=200_000.0, size=64)
    pair.run(0.1)
    sizes = [len(batch) for batch in pair.sent if len(batch) > 1]
    assert set(sizes[1:]) == {MAX_PACKETS}
    source, _ = pair.ends()
    assert source["sent"] == pytest.approx(20_000, abs=400 + MAX_PACKETS)


def test_rate_max_sends_one_large_batch_at_a_time() -> None:
    pair = started(rate="max", size=64)
    outputs = pair.t1.on_timer(pair.now)
    assert [len(output.batch) for output in outputs if isinstance(output, ToWire)] == [MAX_PACKETS]


def test_due_packets_go_together() -> None:
    pair = started(rate=60_000.0)
    pair.run(0.1)
    sizes = [len(batch) for batch in pair.sent[2:]]
    assert max(sizes) <= MAX_PACKETS
    assert sum(sizes) / len(sizes) > 50


def test_a_source_that_stood_still_skips_what_is_too_old() -> None:
    pair = started(rate=1000.0)
    pair.run(0.1)
    pair.now += 3.0
    pair.run(1.0)
    source, sink = pair.ends()
    assert source["not_sent"] == pytest.approx(2900, abs=3)
    assert source["sent"] + source["not_sent"] == pytest.approx(4100, abs=3)
    assert sink["missing"] == 0


def test_a_counted_flow_ends_by_itself() -> None:
    pair = started(count=25)
    pair.run(1.0)
    source, sink = pair.ends()
    assert (source["state"], source["sent"], sink["received"]) == ("done", 25, 25)
    assert pair.t1.next_timer() > pair.now
    pair.call(pair.t1, "start", flow="forward", count=5)
    pair.run(1.0)
    assert pair.ends()[1]["received"] == 30


def test_rate_max_waits_for_the_wire() -> None:
    pair = started(rate="max", size=64)
    assert pair.t1.next_timer() == -inf
    pair.t1.on_timer(pair.now)
    pair.t1.on_congestion("1", True, pair.now)
    assert pair.t1.on_timer(pair.now) == []
    assert pair.t1.next_timer() > pair.now
    pair.t1.on_congestion("1", False, pair.now)
    assert pair.t1.next_timer() == -inf


def test_a_restarted_flow_goes_on_numbering_and_the_pause_is_no_gap() -> None:
    pair = started()
    pair.run(0.5)
    pair.call(pair.t1, "stop", flow="forward")
    pair.run(5.0)
    pair.call(pair.t1, "start", flow="forward")
    pair.run(0.5)
    report = final(pair)
    assert report["lost"] == report["duplicated"] == 0
    assert report["sent"] == report["received"] == pytest.approx(1002, abs=2)
    assert report["longest_gap_ms"] < 2


def test_packets_larger_than_the_link_go_in_fragments_and_are_put_together() -> None:
    pair = started(size=4000, trace=0.01, count=50)
    pair.run(0.1)
    assert max(length for batch in pair.sent for length in batch.lengths) <= 1514
    report = final(pair)
    assert report["received"] == report["sent"] == 50
    assert report["corrupted"] == 0


# what is received


def test_a_clean_wire_loses_nothing() -> None:
    pair = started(rate=2000.0)
    pair.run(3.0)
    report = final(pair)
    assert report["sent"] == report["received"] == pytest.approx(6001, abs=2)
    assert {key: report[key] for key in ("lost", "duplicated", "reordered", "corrupted", "in_flight")} == {
        "lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0, "in_flight": 0,
    }  # fmt: skip
    assert report["longest_gap_ms"] == pytest.approx(1.0, abs=0.01)


def test_an_outage_is_told_in_packets_and_milliseconds() -> None:
    pair = started(rate=2000.0)
    begin, end = pair.now + 1.0, pair.now + 1.05
    pair.wire = lambda batch, now: [] if begin <= now < end else [batch]
    pair.run(2.0)
    report = final(pair)
    assert 98 <= report["lost"] <= 102
    assert report["loss_ms"] == pytest.approx(50, abs=1)
    assert report["longest_gap_ms"] == pytest.approx(51, abs=1)


def test_loss_since_an_event_is_told_apart_from_loss_before() -> None:
    pair = started(rate=1000.0)
    start = pair.now
    pair.wire = lambda batch, now: [] if 0.5 <= now - start < 0.6 or 1.5 <= now - start < 1.53 else [batch]
    pair.run(2.0)

    def lost(since: float, until: float) -> int:
        source, sink = pair.ends(since=start + since, until=start + until)
        return int(combine(source, sink, final=True, begin=start + since, end=start + until)["window_lost"])

    assert lost(0.0, 3.0) == pytest.approx(130, abs=2)
    assert lost(1.0, 3.0) == pytest.approx(30, abs=1)
    assert lost(0.0, 1.0) == pytest.approx(100, abs=1)
    assert lost(0.55, 1.0) == pytest.approx(50, abs=1)
    assert lost(0.7, 1.4) == 0
    source, sink = pair.ends(since=start + 1.0)
    assert combine(source, sink, begin=start + 1.0)["window_gap_ms"] == pytest.approx(31, abs=1)


def test_packets_in_flight_are_not_lost_and_those_that_had_time_are() -> None:
    pair = started(rate=1000.0)
    cut = pair.now + 1.0
    pair.wire = lambda batch, now: [batch] if now < cut else []
    pair.run(1.5)
    source, sink = pair.ends()
    early = combine(source, sink)
    assert (early["lost"], early["in_flight"]) == (0, pytest.approx(500, abs=2))
    pair.run(1.0)
    source, sink = pair.ends()
    later = combine(source, sink)
    assert later["lost"] == pytest.approx(500, abs=25)
    assert later["lost"] + later["in_flight"] == pytest.approx(1500, abs=2)
    assert final(pair)["lost"] == pytest.approx(1500, abs=2)
    source, sink = pair.ends(since=cut + 1.0)
    window = combine(source, sink, final=True, begin=cut + 1.0)
    assert window["window_lost"] == pytest.approx(500, abs=2)


def test_an_auto_flow_does_not_count_what_was_sent_before_the_way_was_there() -> None:
    pair = Pair(lambda batch, now: [batch] if now >= 101.0 or arp_only(batch) else [], start="auto")
    pair.run(2.0)
    source, sink = pair.ends()
    report = combine(source, sink, auto=True, final=True)
    assert (report["lost"], report["window_lost"]) == (0, 0)
    assert report["lost_before_first"] == pytest.approx(1000, abs=2)
    assert combine(source, sink, auto=False, final=True)["lost"] == report["lost_before_first"]


def test_nothing_arriving_at_all_is_lost_not_unknown() -> None:
    pair = started(lambda batch, now: [batch] if arp_only(batch) else [])
    pair.run(2.0)
    report = final(pair)
    assert (report["received"], report["lost"]) == (0, report["sent"])
    assert report["longest_gap_ms"] == pytest.approx(2000, abs=5)


def test_every_fault_of_a_wire_is_counted_as_what_it_is() -> None:
    pair = started(rate=5000.0)
    wire = Impairment(11)
    pair.wire = wire.enqueue
    pair.run(0.1)
    wire.set(loss="2%", duplicate="1%", reorder="1%")
    pair.run(2.0)
    wire.set(clear=True)
    pair.run(0.1)
    report = final(pair)
    assert report["lost"] == wire.counts["loss"] > 0
    assert report["duplicated"] == wire.counts["duplicate"] > 0
    assert 0 < report["reordered"] <= wire.counts["reorder"]
    assert report["received"] + report["lost"] == report["sent"]
    assert report["corrupted"] == 0


def test_latency_is_measured() -> None:
    wire = Impairment()
    wire.set(delay="20ms")
    pair = started(lambda batch, now: [batch] if arp_only(batch) else wire.enqueue(batch, now))
    pair.run(0.5)
    while wire.next_timer() < inf:
        pair.now = max(pair.now, wire.next_timer())
        for batch in wire.dequeue(wire.next_timer()):
            pair.deliver(batch)
    latency = pair.ends()[1]["latency"]
    assert latency["min_ms"] == pytest.approx(20, abs=0.1)
    assert latency["p99_ms"] == pytest.approx(20, rel=0.06)


def test_a_router_on_the_way_may_change_ttl_and_macs_only() -> None:
    def hop(batch: Batch) -> list[Batch]:
        body = bytearray(batch.body)
        at = 0
        for length in batch.lengths:
            body[at + 6 : at + 12] = ROUTER
            decrement_ttl(body, at + HEADROOM)
            at += length
        return [replace(batch, body=body)]

    pair = started(lambda batch, now: [batch] if arp_only(batch) else hop(batch), rate=10_000.0, count=2000)
    pair.run(1.0)
    report = final(pair)
    assert (report["received"], report["corrupted"]) == (2000, 0)


@pytest.mark.parametrize("where", [15, 19, 20, 24, 30, 35, 37, 41, 45, 52, 55, 60, 70, 80, 213])
@pytest.mark.parametrize("alone", [True, False])
def test_a_changed_byte_is_never_taken_for_what_was_sent(where: int, alone: bool) -> None:
    pair = started(rate=5000.0)
    pair.run(0.01)
    frames = flow_packets(pair.sent)
    fresh = Pair()
    fresh.call(fresh.t1, "start", flow="forward")
    bad = bytearray(frames[5])
    bad[where] ^= 0x11
    batch = wrap(bytes(bad)) if alone else wrap(*frames[:5], bytes(bad), *frames[6:10])
    before = fresh.ends()[1]["received"]
    fresh.deliver(batch)
    # A changed fragment field makes a packet wait for others that never come.
    fresh.now += 3.0
    sink, report = fresh.ends()[1], fresh.call(fresh.t2, "flows")
    received = sink["received"] + sink["duplicated"] - before
    assert received == (0 if alone else 9)
    assert sink["corrupted"] + sum(report["unexpected"].values()) > 0


def test_a_flow_that_comes_out_at_the_wrong_port_is_a_leak() -> None:
    ports = {"1": {"address": "10.0.0.2/24"}, "2": {"address": "10.0.9.2/24"}}
    pair = started()
    other = Engine("t2", ports=ports, flows={"forward": FLOW})
    mac = port_mac("t2", "2")
    frame = mac + flow_packets(pair.sent)[0][6:]
    other.receive_frames("2", wrap(frame), 1.0)
    answer = other.on_operator_command(1, "flows", {}, 1.0)[0]
    assert isinstance(answer, ToOperator)
    assert answer.result["unexpected"] == {"flow forward at the wrong port": 1}
    assert answer.result["flows"]["forward"]["sink"]["received"] == 0  # type: ignore[index,call-overload]


def test_a_new_process_of_the_source_begins_a_new_account() -> None:
    pair = started()
    pair.run(0.1)
    old = list(pair.sent)
    again = Engine("t1", ports={"1": {"address": "10.0.0.1/24"}}, flows={"forward": FLOW}, boot=2)
    again.on_carrier("1", True, pair.now)
    again.on_operator_command(1, "start", {"flow": "forward", "count": 10}, pair.now)
    reply = header(port_mac("t1", "1"), port_mac("t2", "1"), ETHERTYPE_ARP)
    reply += Arp(arp.REPLY, port_mac("t2", "1"), TWO, port_mac("t1", "1"), ONE).emit()
    outputs = again.receive_frames("1", wrap(reply), pair.now)
    for output in outputs:
        assert isinstance(output, ToWire)
        pair.deliver(output.batch)
    sink = pair.ends()[1]
    assert (sink["boot"], sink["received"], sink["duplicated"]) == (32, 1, 0)
    for batch in old[2:5]:
        pair.deliver(batch)
    assert pair.ends()[1]["stale"] == 3


def test_packets_of_two_flows_in_one_batch_are_told_apart() -> None:
    flows = {"one": FLOW, "two": {**FLOW, "source": "10.0.0.3"}}
    pair = Pair()
    pair.t2 = Engine("t2", ports={"1": {"address": "10.0.0.2/24"}}, flows=flows)
    source = Engine("t1", ports={"1": {"address": "10.0.0.1/24"}}, flows=flows)
    ends = [source._ends[name].source for name in flows]
    frames = []
    for end in ends:
        assert end is not None
        body = end.template.make(port_mac("t2", "1"), ROUTER, 16 << 16 | 1, 0, 2, 10**9)
        frames += [bytes(body[:214]), bytes(body[214:])]
    pair.deliver(wrap(frames[0], frames[2], frames[1], frames[3]))
    report = pair.call(pair.t2, "flows")["flows"]
    assert [report[name]["sink"]["received"] for name in flows] == [2, 2]


# traces


def test_traced_packets_are_stamped_at_both_ends() -> None:
    pair = started(trace=0.1)
    pair.run(1.05)
    out = pair.call(pair.t1, "traces")["traces"]
    back = pair.call(pair.t2, "traces")["traces"]
    assert len(out) == 11
    assert [trace["number"] for trace in out] == [trace["number"] for trace in back]
    assert all(trace["flow"] == "forward" for trace in out)
    assert {stamp["step"] for trace in out for stamp in trace["stamps"]} == {"t1:1 out"}
    assert {stamp["step"] for trace in back for stamp in trace["stamps"]} == {"t2:1 in"}
    times = [trace["stamps"][0]["time"] for trace in out]
    assert all(after - before == pytest.approx(0.1, abs=0.002) for before, after in pairwise(times))
    numbers = {trace["number"] for trace in out}
    assert len(numbers) == 11
    assert all(number < 2**53 for number in numbers)


def test_without_an_interval_the_first_packet_of_each_start_is_traced() -> None:
    pair = started()
    pair.run(1.0)
    pair.call(pair.t1, "stop")
    pair.call(pair.t1, "start")
    pair.run(1.0)
    assert len(pair.call(pair.t1, "traces")["traces"]) == 2


def test_testers_number_their_traces_apart() -> None:
    numbers = set()
    for node in ("t1", "t2", "source", "sink"):
        for boot in (1, 2):
            numbers.add(Engine(node, ports={}, boot=boot)._trace)
    assert len(numbers) == 8


# the host


def test_arp_is_answered_for_own_and_flow_addresses_only() -> None:
    flows = {"forward": {**FLOW, "source": "10.0.0.77"}}
    tester = Engine("t1", ports={"1": {"address": "10.0.0.1/24"}}, flows=flows)
    announced = [output for output in tester.on_carrier("1", True, 0.0) if isinstance(output, ToWire)]
    assert sum(len(output.batch) for output in announced) >= 2
    for target, answered in (("10.0.0.1", True), ("10.0.0.77", True), ("10.0.0.9", False)):
        ask = Arp(arp.REQUEST, ROUTER, TWO, ZERO_MAC, parse_address(target)).emit()
        outputs = tester.receive_frames("1", wrap(header(BROADCAST_MAC, ROUTER, ETHERTYPE_ARP) + ask), 0.0)
        assert bool(outputs) == answered
        if outputs:
            assert isinstance(outputs[0], ToWire)
            reply = Arp.parse(bytes(outputs[0].batch.body[HEADROOM:]))
            assert (reply.operation, reply.sender_mac) == (arp.REPLY, port_mac("t1", "1"))
            assert (reply.sender_address, reply.target_mac) == (parse_address(target), ROUTER)


def test_a_flow_waits_for_its_gateway_and_asks_again() -> None:
    flows = {"forward": {**FLOW, "destination": "60.1.0.1"}}
    ports = {"1": {"address": "10.0.0.1/24", "gateway": "10.0.0.254"}}
    tester = Engine("t1", ports=ports, flows=flows)
    tester.on_carrier("1", True, 0.0)
    tester.on_operator_command(1, "start", {"flow": "forward"}, 0.0)
    asked, now = 0, 0.0
    while now < 5.0:
        now = max(tester.next_timer(), now)
        asked += sum(isinstance(output, ToWire) for output in tester.on_timer(now))
        now += 1e-6
    assert MAX_FAST_REQUESTS < asked < 40
    gateway = Arp(arp.REPLY, ROUTER, parse_address("10.0.0.254"), port_mac("t1", "1"), ONE).emit()
    frame = header(port_mac("t1", "1"), ROUTER, ETHERTYPE_ARP) + gateway
    outputs = tester.receive_frames("1", wrap(frame), now)
    sent = [output.batch for output in outputs if isinstance(output, ToWire)]
    assert bytes(sent[0].body[:6]) == ROUTER


def test_a_flow_without_a_way_says_so() -> None:
    pair = started(destination="60.1.0.1")
    pair.run(0.5)
    source = pair.ends()[0]
    assert source["state"] == "waiting"
    assert "no gateway" in source["reason"]


def test_echo_is_answered() -> None:
    pair = Pair()
    request = Ipv4(TWO, ONE, ipv4.PROTOCOL_ICMP, echo_request(7, 9, b"chassis" * 8).emit()).emit()
    outputs = pair.t1.receive_frames("1", wrap(header(port_mac("t1", "1"), ROUTER) + request), 1.0)
    assert isinstance(outputs[0], ToWire)
    frame = Ethernet.parse(bytes(outputs[0].batch.body))
    assert frame.destination == ROUTER
    packet = Ipv4.parse(frame.payload)
    message = Icmp.parse(packet.payload)
    assert (packet.source, packet.destination, message.type) == (ONE, TWO, icmp.ECHO_REPLY)
    assert (message.identifier, message.sequence, message.payload) == (7, 9, b"chassis" * 8)


def test_errors_of_routers_are_counted() -> None:
    pair = Pair()
    error = Ipv4(
        TWO, ONE, ipv4.PROTOCOL_ICMP, icmp.unreachable(icmp.FRAGMENTATION_NEEDED, bytes(28), 1400).emit()
    ).emit()
    assert pair.t1.receive_frames("1", wrap(header(port_mac("t1", "1"), ROUTER) + error), 1.0) == []
    assert pair.call(pair.t1, "flows")["unexpected"] == {"icmp 3/4": 1}


@pytest.mark.parametrize("protocol", [50, 51, 6])
def test_what_no_flow_sent_is_unexpected(protocol: int) -> None:
    pair = Pair()
    packet = Ipv4(TWO, ONE, protocol, bytes(40)).emit()
    pair.t1.receive_frames("1", wrap(header(port_mac("t1", "1"), ROUTER) + packet), 1.0)
    report = pair.call(pair.t1, "flows")
    assert report["unexpected"] == {f"protocol {protocol}": 1}
    assert bytes.fromhex(report["unexpected_packets"][0]["bytes"])[HEADROOM:] == packet


@pytest.mark.parametrize("frame", [bytes(14), bytes(20), bytes(12) + b"\x08\x00" + bytes(7), b"\xff" * 60])
def test_rubbish_is_survived(frame: bytes) -> None:
    pair = Pair()
    pair.deliver(wrap(frame))
    pair.deliver(wrap(port_mac("t2", "1") + bytes(6) + b"\x08\x00" + frame))
    pair.deliver(wrap(port_mac("t2", "1") + bytes(6) + b"\x08\x06" + frame))


def test_fragments_of_a_router_are_put_together_in_any_order() -> None:
    pair = started(size=1400)
    frame = flow_packets(pair.sent)[0]
    packet = Ipv4.parse(frame[HEADROOM:])
    pieces = [frame[:HEADROOM] + piece.emit() for piece in fragment(packet, 576)]
    fresh = Pair(size=1400)
    for piece in reversed(pieces):
        fresh.deliver(wrap(piece))
    assert fresh.ends()[1]["received"] == 1


# operators


def test_commands_that_only_the_shell_can_do_are_handed_on() -> None:
    pair = Pair()
    outputs = pair.t1.on_operator_command(3, "link", {"port": "1", "down": True}, 0.0)
    assert isinstance(outputs[0], Perform)
    assert (outputs[0].request.number, outputs[0].request.name) == (3, "link")


@pytest.mark.parametrize(("command", "arguments", "text"), [
    ("fly", {}, "does not know"),
    ("start", {"flow": "back"}, "no flow 'back'"),
    ("start", {"flow": "forward", "rate": -1}, "rate"),
    ("define", {"flow": "x"}, "spec"),
    ("define", {"flow": "x", "spec": {**FLOW, "from": "t1:9"}}, "no port"),
])  # fmt: skip
def test_wrong_commands_are_refused_with_a_reason(command: str, arguments: dict[str, Any], text: str) -> None:
    pair = Pair()
    with pytest.raises(ValueError, match=text):
        pair.call(pair.t1, command, **arguments)


def test_a_flow_starts_where_it_begins() -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="begins at t1, not at t2"):
        pair.call(pair.t2, "start", flow="forward")


def test_a_flow_can_be_defined_while_running_and_defined_anew() -> None:
    pair = Pair()
    spec = {**FLOW, "rate": 500.0, "source": "10.0.0.50"}
    for rounds in range(2):
        for tester in (pair.t2, pair.t1):
            assert pair.call(tester, "define", flow="extra", spec=spec)["defined"]
        pair.call(pair.t1, "start", flow="extra", count=20)
        pair.run(1.0)
        source = pair.call(pair.t1, "flows", flow="extra")["flows"]["extra"]["source"]
        sink = pair.call(pair.t2, "flows", flow="extra")["flows"]["extra"]["sink"]
        assert (source["sent"], sink["received"], sink["missing"], sink["stale"]) == (20, 20, 0, 0), rounds


@pytest.mark.parametrize("change", [
    {"from": "t1"},
    {"rate": 0},
    {"size": 59},
    {"size": 65535},
    {"source": "nowhere"},
    {"dscp": 64},
    {"colour": 1},
    {"start": "soon"},
])  # fmt: skip
def test_wrong_flows_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FlowError):
        parse_flow("forward", {**FLOW, **change})


def test_counters_of_flows_outlive_the_engine() -> None:
    counters = Counters()
    tester = Engine("t1", ports={"1": {"address": "10.0.0.1/24"}}, flows={"forward": FLOW}, counters=counters)
    tester.on_carrier("1", True, 0.0)
    tester.on_operator_command(1, "start", {"flow": "forward", "count": 3}, 0.0)
    frame = header(port_mac("t1", "1"), ROUTER, ETHERTYPE_ARP)
    tester.receive_frames("1", wrap(frame + Arp(arp.REPLY, ROUTER, TWO, port_mac("t1", "1"), ONE).emit()), 0.0)
    tester.on_timer(0.01)
    assert counters.get("flow forward sent") == 3
