"""The local stack, ping, traces, and what the controller is told."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.batch import Step
from chassis.bus.engine import Perform
from chassis.bus.messages import Hello, PortEvent, Reply, Welcome
from chassis.linecard.ping import card_of
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.fragments import fragment
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import Ipv4
from tests.support import odd
from tests.support.linecard import CIRCUIT, ECONOMICAL, GATEWAY, HOST, INNER, MAC, OUTER, Rig, packet, packets_of


def echo(destination: str = "10.0.0.1", source: str = "10.0.0.5", identifier: int = 7, **fields: Any) -> Ipv4:
    request = icmp.echo_request(identifier, 3, b"data" * 10)
    return packet(destination, source, request.emit(), protocol=ipv4.PROTOCOL_ICMP, **fields)


def answer(to: Ipv4, **fields: Any) -> Ipv4:
    reply = icmp.echo_reply(Icmp.parse(to.payload))
    return Ipv4(to.destination, to.source, ipv4.PROTOCOL_ICMP, reply.emit(), **fields)


def test_echo_to_an_address_of_the_router() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.frames("3/1", echo(tos=0x20, ttl=1))
    ((name, _, reply),) = rig.sent()
    assert name == "3/1"
    assert (reply.source, reply.destination, reply.tos, reply.ttl) == (ip("10.0.0.1"), ip("10.0.0.5"), 0x20, 64)
    assert Icmp.parse(reply.payload) == Icmp(0, 0, 7 << 16 | 3, b"data" * 10)


def test_echo_out_of_a_tunnel_is_answered_into_it() -> None:
    rig = Rig()
    rig.batch(Step.LOCAL, echo("172.16.0.1", "30.0.0.1"), context=INNER)
    ((card, batch),) = rig.fabric()
    assert (card, batch.step, batch.tunnel, batch.context) == ("asp 1/1", Step.ENCAPSULATE, ECONOMICAL, INNER)
    assert [p.destination for p in packets_of(batch)] == [ip("30.0.0.1")]


def test_echo_to_an_address_that_an_asp_owns() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    rig.frames("3/11", echo("5.5.5.1", "6.6.6.6"))
    assert [(name, p.source) for name, _, p in rig.sent()] == [("3/11", ip("5.5.5.1"))]


def test_a_large_echo_is_answered_in_fragments() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    request = icmp.echo_request(1, 1, bytes(2000))
    rig.batch(Step.LOCAL, packet("10.0.0.1", payload=request.emit(), protocol=ipv4.PROTOCOL_ICMP), context=INNER)
    first, last = (p for _, _, p in rig.sent())
    assert first.more_fragments
    assert Icmp.parse(first.payload + last.payload) == icmp.echo_reply(request)


@pytest.mark.parametrize(("sent", "cause"), [
    (packet("10.0.0.1", protocol=ipv4.PROTOCOL_ICMP, payload=b"\x08\0\0\0\0\0\0\0"), "malformed icmp"),
    (packet("10.0.0.1", protocol=ipv4.PROTOCOL_ICMP, payload=b""), "malformed icmp"),
    (packet("10.0.0.1"), "port unreachable"),
    (packet("10.0.0.1", protocol=89), "protocol unreachable"),
])  # fmt: skip
def test_what_the_local_stack_drops(sent: Ipv4, cause: str) -> None:
    rig = Rig()
    rig.frames("3/1", sent)
    assert rig.drops() == {cause: 1}


def test_fragments_to_the_router_wait_for_each_other() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    large = icmp.echo_request(1, 1, bytes(range(250)) * 8)
    request = packet("10.0.0.1", payload=large.emit(), protocol=ipv4.PROTOCOL_ICMP, identification=5)
    first, second = fragment(request, 1500)
    rig.frames("3/1", second)
    assert rig.outputs == []
    assert rig.card.counters.get("packets queued") == 1
    rig.frames("3/1", first)
    replies = [p for _, _, p in rig.sent()]
    assert Icmp.parse(b"".join(p.payload for p in replies)) == icmp.echo_reply(large)
    rig.frames("3/1", second)
    rig.after(61.0)
    assert rig.drops() == {"reassembly timeout": 1}
    assert rig.card.counters.get("packets queued") == 0


def test_other_icmp_is_taken_in_silence() -> None:
    rig = Rig()
    for message in (Icmp(13, 0, 0, bytes(12)), icmp.time_exceeded(bytes(28)), icmp.unreachable(1, b"")):
        rig.frames("3/1", packet("10.0.0.1", protocol=ipv4.PROTOCOL_ICMP, payload=message.emit()))
        assert rig.outputs == []
    assert rig.drops() == {}


def test_what_is_said_of_protected_packets_goes_to_the_asp_that_sent_them() -> None:
    rig = Rig()
    sent = packet("6.6.6.1", "5.5.5.1", protocol=ipv4.PROTOCOL_ESP, dont_fragment=True).emit()
    message = packet("5.5.5.1", "20.0.0.7", icmp.unreachable(4, sent, 1000).emit(), protocol=ipv4.PROTOCOL_ICMP)
    rig.frames("3/11", message)
    ((card, batch),) = rig.fabric()
    assert (card, batch.step, batch.context) == ("asp 1/1", Step.DECAPSULATE, OUTER)
    assert packets_of(batch) == [message]
    # Whoever asks whether the address is there is answered here.
    rig.outputs.clear()
    rig.knows("3/11", "20.0.0.7", HOST)
    request = icmp.echo_request(1, 1, b"there?")
    rig.frames("3/11", packet("5.5.5.1", "20.0.0.7", request.emit(), protocol=ipv4.PROTOCOL_ICMP))
    assert rig.fabric() == []
    assert [Icmp.parse(p.payload) for _, _, p in rig.sent()] == [icmp.echo_reply(request)]


@pytest.mark.parametrize("protocol", [ipv4.PROTOCOL_ICMP, ipv4.PROTOCOL_UDP])
@pytest.mark.parametrize("length", [65_535 - 14, 65_535 - 13, 65_535])
def test_the_longest_packets_for_the_router_itself_do_not_end_it(protocol: int, length: int) -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    payload = icmp.echo_request(1, 1, bytes(length - 28)).emit()
    whole = packet("10.0.0.1", payload=payload, protocol=protocol, identification=7)
    for piece in fragment(whole, 1500):
        odd.survived(rig.frames, "3/1", piece)
    if length > 65_535 - 14:
        assert rig.drops()["reassembly timeout"] > 1
    else:
        assert rig.outputs


# ping


def test_ping_counts_answers_and_their_times() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.request("ping", context="vpn", address="10.0.0.5", count=2, interval=0.5)
    for sequence in (1, 2):
        ((name, link, request),) = rig.sent()
        assert (name, link[:6]) == ("3/1", HOST)
        assert (request.source, request.ttl) == (ip("10.0.0.1"), 64)
        assert Icmp.parse(request.payload).sequence == sequence
        rig.now += 0.002
        rig.frames("3/1", answer(request, ttl=60))
        if sequence == 1:
            rig.after(0.498)
    (reply,) = rig.told(Reply)
    assert reply.number == 77
    assert reply.result == {
        "source": "10.0.0.1",
        "address": "10.0.0.5",
        "sent": 2,
        "received": 2,
        "replies": [{"sequence": 1, "ms": 2.0, "ttl": 60}, {"sequence": 2, "ms": 2.0, "ttl": 60}],
        "errors": [],
        "refusals": [],
    }


def test_ping_without_answers_ends_after_its_timeout() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.request("ping", context=INNER, address="10.0.0.5", count=2, interval=0.5, timeout=1)
    rig.after(1.4)
    assert rig.told(Reply) == []
    rig.after(0.2)
    (reply,) = rig.told(Reply)
    assert (reply.result["sent"], reply.result["received"]) == (2, 0)
    assert rig.card.delivery.pings.next_timer() == float("inf")


def test_ping_through_a_tunnel_and_back_by_another_card() -> None:
    rig = Rig()
    rig.request("ping", context="vpn", address="30.0.0.1", trace=5)
    ((card, batch),) = rig.fabric()
    (request,) = packets_of(batch)
    assert (card, batch.step, batch.marks) == ("asp 1/1", Step.ENCAPSULATE, ((0, 5),))
    assert request.source == ip("172.16.0.1")
    assert card_of(Icmp.parse(request.payload).identifier) == "lc 3"
    rig.batch(Step.LOCAL, answer(request), card="lc 4", context=INNER)
    assert rig.told(Reply)[0].result["received"] == 1


def test_an_answer_for_another_card_is_passed_to_it() -> None:
    rig = Rig()
    theirs = answer(echo("30.0.0.1", "10.0.0.1", identifier=4 << 12 | 9))
    rig.frames("3/1", theirs)
    ((card, batch),) = rig.fabric()
    assert (card, batch.step, batch.context, batch.epoch) == ("lc 4", Step.LOCAL, INNER, 4)
    assert packets_of(batch) == [theirs]
    rig.do(rig.card.on_fabric_peer("lc 4", 2, False, rig.now))
    rig.frames("3/1", theirs)
    assert rig.fabric() == []


def test_ping_says_who_refused_it() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.request("ping", context="vpn", address="10.9.0.1", source="10.0.0.1", timeout=1)
    ((_, _, request),) = rig.sent()
    refusal = icmp.unreachable(1, request.emit()[:28])
    rig.now += 0.25
    rig.frames("3/1", packet("10.0.0.1", "10.0.0.9", refusal.emit(), protocol=ipv4.PROTOCOL_ICMP))
    # No answer comes after it, so nothing waits for the timeout.
    (reply,) = rig.told(Reply)
    assert reply.result["errors"] == ["10.0.0.9: type 3 code 1 (sequence 1)"]
    took = {"sequence": 1, "ms": 250.0, "address": "10.0.0.9", "type": 3, "code": 1}
    assert reply.result["refusals"] == [took]


def test_ping_waits_for_an_answer_after_a_redirect() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.request("ping", context="vpn", address="10.9.0.1", source="10.0.0.1", timeout=1)
    ((_, _, request),) = rig.sent()
    redirect = Icmp(icmp.REDIRECT, 1, 0, request.emit()[:28])
    rig.frames("3/1", packet("10.0.0.1", "10.0.0.9", redirect.emit(), protocol=ipv4.PROTOCOL_ICMP))
    assert rig.told(Reply) == []
    rig.frames("3/1", answer(request))
    (reply,) = rig.told(Reply)
    assert reply.result["received"] == 1
    assert reply.result["errors"] == ["10.0.0.9: type 5 code 1 (sequence 1)"]


def test_ping_of_our_own_address() -> None:
    rig = Rig()
    rig.request("ping", context="vpn", address="10.0.0.1")
    assert rig.told(Reply)[0].result["received"] == 1


def test_answers_that_nobody_waits_for() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.request("ping", context="vpn", address="10.0.0.5", count=2)
    ((_, _, request),) = rig.sent()
    wrong = Ipv4(ip("10.0.0.6"), request.source, ipv4.PROTOCOL_ICMP, answer(request).payload)
    rig.frames("3/1", wrong, answer(request), answer(request), answer(echo(identifier=3 << 12)))
    rig.after(4.0)
    assert rig.told(Reply)[0].result["received"] == 1


@pytest.mark.parametrize("arguments", [
    {"context": "nowhere", "address": "10.0.0.5"},
    {"address": "10.0.0.5"},
    {"context": "vpn"},
    {"context": "vpn", "address": "ten"},
    {"context": "vpn", "address": 2**32},
    {"context": "vpn", "address": "10.0.0.5", "count": 0},
    {"context": "vpn", "address": "10.0.0.5", "count": True},
    {"context": "vpn", "address": "10.0.0.5", "interval": "fast"},
])  # fmt: skip
def test_bad_arguments_of_ping_are_named(arguments: dict[str, Any]) -> None:
    rig = Rig()
    rig.request("ping", **arguments)
    ((reply),) = rig.told(Reply)
    assert reply.error
    assert rig.wire() == []


# traces


def test_a_marked_packet_is_stamped_on_its_way_and_goes_alone() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.frames("3/1", *(packet("10.9.0.1", identification=n) for n in range(3)), marks=[(1, 42)])
    assert [p.identification for _, _, p in rig.sent()] == [0, 1, 2]
    marked = [o.batch.marks for o in rig.outputs]  # type: ignore[union-attr]
    assert marked == [(), ((0, 42),), ()]
    assert rig.stamps() == [(42, "3/1 in"), (42, "3/1 out")]
    assert rig.stamps() == []


def test_stamps_of_every_step() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    out = packet("6.6.6.1", "5.5.5.1", protocol=ipv4.PROTOCOL_ESP)
    rig.batch(Step.CIRCUIT_OUT, out, circuit=CIRCUIT, context=OUTER, marks=((0, 1),))
    assert rig.stamps() == [(1, "3 circuit 17"), (1, "3/11 out")]
    rig.batch(Step.EGRESS, out, port="3/11", address=ip("20.0.0.9"), context=OUTER, marks=((0, 2),))
    assert rig.stamps() == [(2, "3/11 out")]
    rig.batch(Step.LOCAL, echo("172.16.0.1", "30.0.0.1"), context=INNER, marks=((0, 3),))
    assert rig.stamps() == [(3, "3 local")]
    rig.frames("3/1", packet(), marks=[(0, 4)])
    assert rig.stamps() == [(4, "3/1 in")]
    rig.frames("3/1", packet(), marks=[(0, 5)])
    ((_, batch),) = rig.fabric()
    assert batch.marks == ((0, 5),)


def test_a_mark_outlives_waiting_for_a_neighbour() -> None:
    rig = Rig()
    rig.frames("3/1", packet("10.9.0.1"), packet("10.9.0.2"), marks=[(1, 8)])
    assert rig.stamps() == [(8, "3/1 in")]
    rig.knows("3/1", "10.0.0.9", GATEWAY)
    rig.arp("3/1", 2, "10.0.0.9", GATEWAY, "10.0.0.1")
    assert rig.stamps() == [(8, "3/1 out")]


def test_an_armed_trace_marks_the_next_packets_that_match() -> None:
    rig = Rig()
    rig.request("trace", number=100, count=2, port="3/1", destination="30.0.0.7")
    assert rig.told(Reply) == [Reply(77, {})]
    rig.frames("3/11", packet("30.0.0.7"))
    rig.frames("3/1", packet("30.0.0.6"), packet("30.0.0.7"), packet("30.0.0.7"), packet("30.0.0.7"))
    assert rig.stamps() == [(100, "3/1 in"), (101, "3/1 in")]
    assert rig.card.tracer.armed == []
    rig.frames("3/1", packet("30.0.0.7"))
    assert rig.stamps() == []


def test_bad_arguments_of_trace_are_named() -> None:
    rig = Rig()
    for arguments in ({}, {"number": 1, "source": "x"}, {"number": 1, "port": 3}):
        rig.request("trace", **arguments)  # type: ignore[arg-type]
        assert rig.told(Reply)[0].error


# the controller


def test_hello_names_the_ports_that_are_up_and_a_welcome_is_answered_with_their_states() -> None:
    rig = Rig()
    rig.do(rig.card.on_disconnected(rig.now))
    rig.do(rig.card.on_carrier("3/11", False, rig.now))
    rig.do(rig.card.on_connected(rig.now))
    assert [hello.ports for hello in rig.told(Hello)] == [("3/1",)]
    rig.do(rig.card.receive(Welcome(4, 10, 0.1, 5, {}), rig.now))
    assert {(e.port, e.up) for e in rig.told(PortEvent)} == {("3/1", True), ("3/11", False)}


def test_what_the_shell_does_and_what_nobody_does() -> None:
    rig = Rig()
    rig.request("capture", what="port 3/1", file="/tmp/x.pcapng")
    assert isinstance(rig.outputs[0], Perform)
    rig.request("dance")
    assert "dance" in rig.told(Reply)[0].error


def test_headless_it_goes_on() -> None:
    rig = Rig()
    rig.do(rig.card.on_disconnected(rig.now))
    rig.frames("3/1", packet())
    assert [card for card, _ in rig.fabric()] == ["asp 1/1"]
    assert MAC["3/1"] == rig.card.ports.own["3/1"].mac
