"""Packets through a line card: each step, each decision, each drop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.batch import Batch, Step, decode, encode_header, pack
from chassis.bus.engine import ToFabric, ToWire
from chassis.bus.messages import Hello, Welcome
from chassis.bus.priority import classes_of
from chassis.bus.records import CardStateRecord, LocalAddressRecord, NextHop, PortRecord, TunnelHopRecord
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.ethernet import HEADROOM, header
from chassis.net.icmp import Icmp
from chassis.net.udp import Udp
from tests.support.linecard import (
    CIRCUIT,
    CIRCUITED,
    ECONOMICAL,
    GATEWAY,
    HOST,
    INNER,
    MAC,
    OUTER,
    RECORDS,
    SPARE,
    Rig,
    packet,
    packets_of,
    port,
    route,
    tunnel,
)


def esp(destination: str = "5.5.5.1", **fields: object) -> ipv4.Ipv4:
    return packet(destination, "6.6.6.1", protocol=ipv4.PROTOCOL_ESP, **fields)


# 3/1 in


def test_clear_packets_for_a_tunnel_go_to_its_asp_in_the_buffer_they_came_in() -> None:
    rig = Rig()
    body, lengths = pack([header(MAC["3/1"], HOST) + packet(f"30.0.0.{n}").emit() for n in range(1, 65)])
    ((card, batch),) = [
        (o.card, o.batch)
        for o in rig.do(rig.card.receive_frames("3/1", Batch(Step.INGRESS, body, lengths), 1.0))
        if isinstance(o, ToFabric)
    ]
    assert card == "asp 1/1"
    assert batch.body is body
    assert (batch.step, batch.tunnel, batch.context, batch.ingress) == (Step.ENCAPSULATE, ECONOMICAL, INNER, "3/1")
    assert (batch.card, batch.epoch) == ("lc 3", 4)
    assert packets_of(batch) == [packet(f"30.0.0.{n}", ttl=63) for n in range(1, 65)]


@pytest.mark.behaviour("B-136")
def test_a_port_marks_the_packets_that_come_in_and_are_forwarded() -> None:
    rig = Rig()
    marked = replace(next(record for record in RECORDS if record.key == ("port", "3/1")), descriptor=33)
    rig.delta(marked)
    # Into a tunnel and out of another card's port.
    rig.frames("3/1", packet("30.0.0.63"), packet("10.4.0.33"), packet("30.0.0.10", tos=46 << 2))
    (_, inward), (_, across) = rig.fabric()
    assert (inward.step, across.step) == (Step.ENCAPSULATE, Step.EGRESS)
    received = decode(encode_header(inward), inward.body)
    assert received.descriptors == bytes([33, 33])
    assert list(classes_of(received.body, received.lengths, received.descriptors)) == [1, 1]
    assert across.descriptors == bytes([33])
    assert [one.tos for one in packets_of(received)] == [0, 46 << 2], "packets stay as they are"
    # What is for an ASP's own address is not forwarded, and what comes out of a circuit came in elsewhere.
    rig.frames("3/11", esp())
    rig.batch(Step.CIRCUIT_IN, packet("10.4.0.33"), circuit=CIRCUIT, context=INNER, tunnel=CIRCUITED)
    ((_, back),) = rig.fabric()
    assert (back.step, back.descriptors) == (Step.EGRESS, b"")
    # The mark can be 0, and goes away with the policy.
    for descriptor, seen in ((0, b"\0"), (-1, b"")):
        rig.delta(replace(marked, descriptor=descriptor))
        rig.frames("3/1", packet("30.0.0.63", tos=46 << 2))
        ((_, inward),) = rig.fabric()
        assert inward.descriptors == seen


def test_a_tunnel_without_a_record_is_not_usable() -> None:
    rig = Rig([record for record in RECORDS if not isinstance(record, TunnelHopRecord)])
    rig.frames("3/1", packet("30.0.0.1"))
    assert (rig.fabric(), rig.drops()) == ([], {"no usable tunnel": 1})


def test_the_record_of_a_tunnel_says_which_asp_it_needs() -> None:
    rig = Rig()
    # The route names asp 1/1 still.
    rig.delta(tunnel(CIRCUITED, "asp 1/2", economical=False))
    rig.frames("3/1", packet("31.0.0.1"))
    assert [card for card, _ in rig.fabric()] == ["asp 1/2"]
    rig.do(rig.card.on_fabric_peer("asp 1/2", 3, False, rig.now))
    rig.frames("3/1", packet("31.0.0.1"))
    assert (rig.fabric(), rig.drops()) == ([], {"no usable tunnel": 1})


@pytest.mark.parametrize("enabled", [False, None])
def test_a_port_of_another_card_is_usable_if_its_record_says_so(enabled: bool | None) -> None:
    rig = Rig()
    if enabled is None:
        rig.delta(delete=(("port", "4/1"),))
    else:
        rig.delta(port("4/1", INNER, "10.4.0.1", enabled=enabled))
    rig.frames("3/1", packet("10.4.0.5"))
    assert (rig.fabric(), rig.drops()) == ([], {"no usable next hop": 1})


def test_out_of_another_port_of_this_card() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.frames("3/1", packet("10.9.1.1"))
    assert rig.sent() == [("3/1", header(GATEWAY, MAC["3/1"]), packet("10.9.1.1", ttl=63))]


def test_out_of_a_port_of_another_card() -> None:
    rig = Rig()
    rig.frames("3/1", packet("10.4.0.7"), packet("10.4.0.8"), packet("10.4.0.7"))
    ((card, batch),) = rig.fabric()
    assert (card, batch.step) == ("lc 4", Step.EGRESS)
    assert batch.hops == ((2, "4/1", ip("10.4.0.7")), (1, "4/1", ip("10.4.0.8")))
    assert packets_of(batch) == [packet(f"10.4.0.{host}", ttl=63) for host in (7, 7, 8)]


def test_packets_for_an_address_that_an_asp_owns() -> None:
    rig = Rig()
    ike = packet("5.5.5.1", "6.6.6.1", Udp(500, 500, b"x").emit(), ttl=1)
    rig.frames("3/11", esp(), ike, esp(more_fragments=True, payload=bytes(64)))
    ((card, batch),) = rig.fabric()
    assert card == "asp 1/1"
    assert (batch.step, batch.context, batch.ingress) == (Step.DECAPSULATE, OUTER, "3/11")
    assert packets_of(batch) == [esp(), ike, esp(more_fragments=True, payload=bytes(64))]


def test_contexts_are_apart() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    rig.frames("3/11", packet("10.0.0.1", "20.0.0.5"))
    assert rig.drops() == {"no route": 1}


# tunnels


def test_the_next_tunnel_by_cost_takes_over_when_an_asp_is_gone_and_gives_back() -> None:
    rig = Rig()

    def way() -> list[tuple[str, int]]:
        rig.frames("3/1", packet())
        return [(card, batch.tunnel) for card, batch in rig.fabric()]

    assert way() == [("asp 1/1", ECONOMICAL)]
    rig.do(rig.card.on_fabric_peer("asp 1/1", 3, False, rig.now))
    assert way() == [("asp 1/2", SPARE)]
    rig.delta(CardStateRecord("asp 1/2", "asp", 3, 8, False))
    assert way() == []
    assert rig.drops() == {"no usable tunnel": 1}
    assert rig.wire() == []
    rig.delta(CardStateRecord("asp 1/1", "asp", 4, 9, True))
    assert way() == [("asp 1/1", ECONOMICAL)]


@pytest.mark.behaviour("B-130")
def test_a_route_into_a_tunnel_never_falls_through_to_a_shorter_prefix_or_a_port() -> None:
    hops = (NextHop("tunnel", 5, "asp 1/1", tunnel=ECONOMICAL), NextHop("port", 9, "lc 3", "3/1", ip("10.0.0.9")))
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.delta(route(INNER, "30.0.0.0/8", *hops))
    rig.do(rig.card.on_fabric_peer("asp 1/1", 3, False, rig.now))
    rig.frames("3/1", packet(), packet("31.0.0.1"))
    assert rig.outputs == []
    assert rig.drops() == {"no usable tunnel": 2}
    # Once the route is withdrawn the table decides.
    rig.delta(delete=(("route", INNER, ip("30.0.0.0"), 8),))
    rig.frames("3/1", packet())
    assert [(name, p) for name, _, p in rig.sent()] == [("3/1", packet(ttl=63))]


def test_a_circuit_based_tunnel_needs_the_card_of_its_circuit() -> None:
    rig = Rig()
    far = tunnel(CIRCUITED, "asp 1/1", economical=False, home="lc 4")

    def way() -> list[int]:
        rig.frames("3/1", packet("31.0.0.1"))
        return [batch.tunnel for _, batch in rig.fabric()]

    assert way() == [CIRCUITED]
    rig.delta(far)
    assert way() == [CIRCUITED]
    rig.do(rig.card.on_fabric_peer("lc 4", 2, False, rig.now))
    assert way() == []
    rig.delta(replace(far, home=""))
    assert way() == []
    rig.delta(tunnel(CIRCUITED, "asp 1/1", economical=False, up=False))
    assert way() == []
    rig.delta(tunnel(CIRCUITED, "asp 1/1", economical=False))
    assert way() == [CIRCUITED]


# 3 circuit 17


def test_protected_packets_are_counted_by_the_circuit_and_looked_up_in_the_outer_context() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    out = packet("6.6.6.1", "5.5.5.1", protocol=ipv4.PROTOCOL_ESP, ttl=64)
    rig.batch(Step.CIRCUIT_OUT, out, out, circuit=CIRCUIT, tunnel=CIRCUITED, context=OUTER)
    assert rig.sent() == [("3/11", header(GATEWAY, MAC["3/11"]), out)] * 2
    counters = rig.card.counters
    assert counters.get("circuit 17 packets out") == 2
    assert counters.get("circuit 17 bytes out") == 2 * 60
    assert counters.get("circuit 17 packets in") == 0


def test_clear_packets_come_in_by_the_circuit() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    clear = packet("10.0.0.5", "30.0.0.1")
    rig.batch(Step.CIRCUIT_IN, clear, circuit=CIRCUIT, tunnel=CIRCUITED, context=INNER)
    assert rig.sent() == [("3/1", header(HOST, MAC["3/1"]), packet("10.0.0.5", "30.0.0.1", ttl=63))]
    assert rig.card.counters.get("circuit 17 packets in") == 1
    assert rig.card.counters.get("circuit 17 bytes in") == 60


@pytest.mark.behaviour("B-013")
def test_no_circuit_counter_without_circuit_packets() -> None:
    rig = Rig()
    rig.frames("3/1", packet())
    assert not any(name.startswith("circuit") for name, _ in rig.card.counters.items())


def test_a_circuit_that_is_not_here() -> None:
    rig = Rig()
    rig.batch(Step.CIRCUIT_OUT, packet(), circuit=99, context=OUTER)
    rig.delta(delete=(("circuit", CIRCUIT),))
    rig.batch(Step.CIRCUIT_IN, packet(), circuit=CIRCUIT, context=INNER)
    assert rig.drops() == {"unknown circuit": 2}


# 3/11 out


def test_out_resolves_and_sends_and_touches_nothing_else() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    body, lengths = pack([packet("99.0.0.1", ttl=1).emit()] * 3, HEADROOM)
    batch = Batch(
        Step.EGRESS, body, lengths, card="asp 1/1", epoch=6, port="3/11", address=ip("20.0.0.9"), context=OUTER
    )
    (output,) = rig.do(rig.card.receive_batch(batch, rig.now))
    assert isinstance(output, ToWire)
    assert output.batch.body is body
    assert rig.sent() == [("3/11", header(GATEWAY, MAC["3/11"]), packet("99.0.0.1", ttl=1))] * 3


def test_out_of_a_port_that_is_elsewhere_or_down() -> None:
    rig = Rig()
    rig.batch(Step.EGRESS, packet(), port="4/1", address=1, context=OUTER)
    rig.batch(Step.EGRESS, packet(), port="3/11", context=OUTER)
    rig.do(rig.card.on_carrier("3/11", False, rig.now))
    rig.batch(Step.EGRESS, packet(), port="3/11", address=ip("20.0.0.9"), context=OUTER)
    assert rig.drops() == {"unknown port": 1, "no next hop address": 1, "port down": 1}


# errors that are owed


def refusals(rig: Rig) -> list[tuple[int, int, int]]:
    found = []
    for _, _, sent in rig.sent():
        message = Icmp.parse(sent.payload)
        assert sent.source == ip("10.0.0.1")
        assert sent.destination == ip("10.0.0.5")
        found.append((message.type, message.code, message.mtu))
    return found


@pytest.mark.parametrize(("sent", "wanted"), [
    (packet(ttl=1), (11, 0, 0)),
    (packet("10.0.0.5", ttl=1), (11, 0, 0)),
    (packet("200.0.0.1"), (3, 0, 0)),
    (packet("10.0.0.1"), (3, 3, 0)),
    (packet("10.0.0.1", protocol=ipv4.PROTOCOL_TCP), (3, 2, 0)),
    (packet("10.9.0.1", payload=bytes(1481), dont_fragment=True), (3, 4, 1500)),
])  # fmt: skip
def test_senders_are_told(sent: ipv4.Ipv4, wanted: tuple[int, int, int]) -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST).knows("3/1", "10.0.0.9", GATEWAY)
    rig.frames("3/1", sent)
    assert refusals(rig) == [wanted]
    assert sum(rig.drops().values()) == 1


def test_a_dead_neighbour_is_told_of_after_three_requests() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.frames("3/1", packet("10.0.0.66"), packet("10.0.0.66"))
    rig.after(3.0)
    assert refusals(rig) == [(3, 1, 0), (3, 1, 0)]
    assert rig.drops() == {"neighbour unresolved": 2}


def test_the_router_tells_itself_nothing_of_its_own_packets() -> None:
    rig = Rig()
    rig.delta(delete=(("route", OUTER, ip("6.6.6.0"), 24),))
    rig.batch(Step.CIRCUIT_OUT, packet("6.6.6.1", "5.5.5.1"), circuit=CIRCUIT, context=OUTER)
    assert rig.outputs == []
    assert rig.drops() == {"no route": 1}
    assert rig.card.counters.get("packets delivered") == 0


# sizes


def test_a_packet_above_the_mtu_of_its_port_is_cut_up_on_the_way_out() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    big = packet("10.9.0.1", payload=bytes(range(256)) * 12, identification=9)
    rig.frames("3/1", packet("10.9.0.2"), big, packet("10.9.0.3"))
    sent = [p for _, _, p in rig.sent()]
    assert [p.destination & 255 for p in sent] == [2, 1, 1, 1, 3]
    assert b"".join(p.payload for p in sent[1:4]) == big.payload
    assert [p.more_fragments for p in sent[1:4]] == [True, True, False]
    assert all(len(p.emit()) <= 1500 for p in sent)


def test_a_smaller_port_mtu_counts() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    changed = [r for r in RECORDS if isinstance(r, PortRecord) and r.port == "3/1"]
    rig.delta(replace(changed[0], mtu=600))
    rig.frames("3/1", packet("10.9.0.1", payload=bytes(600)), packet("10.9.0.1", payload=bytes(580)))
    assert [len(p.emit()) for _, _, p in rig.sent()] == [596, 44, 600]


# epochs and fences


def test_batches_of_an_old_epoch_or_an_unknown_card_are_dropped() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    where = {"port": "3/11", "address": ip("20.0.0.9"), "context": OUTER}
    rig.batch(Step.EGRESS, packet(), packet(), epoch=5, **where)
    rig.batch(Step.EGRESS, packet(), card="asp 9/9", epoch=0, **where)
    assert rig.wire() == []
    rig.delta(CardStateRecord("asp 1/1", "asp", 3, 20, True))
    rig.batch(Step.EGRESS, packet(), epoch=6, **where)
    assert rig.wire() == []
    assert rig.drops() == {"stale epoch": 4}
    rig.batch(Step.EGRESS, packet(), epoch=20, **where)
    assert len(rig.wire()) == 1


def test_a_card_that_stood_still_sends_nothing_until_it_is_welcome_again() -> None:
    rig = Rig().knows("3/11", "20.0.0.9", GATEWAY)
    where = {"port": "3/11", "address": ip("20.0.0.9"), "context": OUTER}
    rig.frames("3/1", packet("10.0.0.66"))  # waits for its neighbour
    rig.now += 0.7
    (hello,) = rig.do(rig.card.on_stall(0.7, rig.now))
    assert isinstance(hello.message, Hello)  # type: ignore[union-attr]
    rig.batch(Step.EGRESS, packet(), **where)
    rig.frames("3/1", packet(), packet())
    assert [o for o in rig.outputs if isinstance(o, ToWire | ToFabric)] == []
    assert [o for o in rig.after(1.0) if isinstance(o, ToWire | ToFabric)] == []
    assert rig.drops()["fenced"] == 4  # its repeated request for the neighbour among them
    rig.do(rig.card.receive(Welcome(9, 10, 0.1, 5, {}), rig.now))
    rig.frames("3/1", packet())
    ((_, batch),) = rig.fabric()
    assert batch.epoch == 9


def test_steps_of_other_cards_are_refused() -> None:
    rig = Rig()
    for step in (Step.INGRESS, Step.ENCAPSULATE, Step.DECAPSULATE):
        rig.batch(step, packet())
    assert rig.drops() == {"unexpected step": 3}


def test_frames_of_ports_that_are_down_or_unknown() -> None:
    rig = Rig(carrier=False)
    rig.frames("3/1", packet())
    rig.do(rig.card.receive_frames("3/9", Batch(Step.INGRESS, *pack([bytes(60)])), rig.now))
    assert rig.drops() == {"port down": 2}


def test_an_address_moves_to_another_asp() -> None:
    rig = Rig()
    rig.delta(LocalAddressRecord(OUTER, ip("5.5.5.1"), "asp 1/2"))
    rig.frames("3/11", esp())
    assert [card for card, _ in rig.fabric()] == ["asp 1/2"]
    rig.do(rig.card.on_fabric_peer("asp 1/2", 3, False, rig.now))
    rig.frames("3/11", esp())
    assert rig.drops() == {"asp down": 1}


def test_a_port_that_goes_down_takes_its_routes_with_it() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    hops = (NextHop("port", 5, "lc 3", "3/1", ip("10.0.0.9")), NextHop("port", 9, "lc 4", "4/1", ip("10.4.0.9")))
    rig.delta(route(INNER, "40.0.0.0/8", *hops))
    clear = packet("40.0.0.1", "30.0.0.1")
    rig.batch(Step.CIRCUIT_IN, clear, circuit=CIRCUIT, context=INNER)
    assert [name for name, _ in rig.wire()] == ["3/1"]
    rig.do(rig.card.on_carrier("3/1", False, rig.now))
    rig.batch(Step.CIRCUIT_IN, clear, circuit=CIRCUIT, context=INNER)
    assert [(card, b.port, b.address) for card, b in rig.fabric()] == [("lc 4", "4/1", ip("10.4.0.9"))]
    rig.do(rig.card.on_fabric_peer("lc 4", 2, False, rig.now))
    rig.batch(Step.CIRCUIT_IN, clear, circuit=CIRCUIT, context=INNER)
    assert rig.drops() == {"no usable next hop": 1}


def test_errors_about_packets_out_of_a_tunnel_go_back_through_it() -> None:
    rig = Rig()
    rig.batch(Step.CIRCUIT_IN, packet("10.0.0.5", "30.0.0.1", ttl=1), circuit=CIRCUIT, context=INNER)
    ((card, batch),) = rig.fabric()
    (told,) = packets_of(batch)
    assert (card, batch.step, batch.tunnel) == ("asp 1/1", Step.ENCAPSULATE, ECONOMICAL)
    assert (told.source, told.destination) == (ip("172.16.0.1"), ip("30.0.0.1"))
    assert Icmp.parse(told.payload).type == icmp.TIME_EXCEEDED
