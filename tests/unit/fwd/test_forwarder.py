"""What every card does with a decision: TTL, step and next card, loops, drops and ICMP errors."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.engine import Output
from chassis.bus.records import CardStateRecord, NextHop, RouteRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.classify import classify, look_up
from chassis.fwd.decided import DecidedPackets
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import MAX_TUNNEL_NESTING, ORIGINATED, Forwarder, Origin
from chassis.fwd.tables import ForwardingTables
from chassis.net.address import parse_address as ip
from chassis.net.ethernet import HEADROOM
from chassis.net.icmp import TIME_EXCEEDED, Icmp
from chassis.net.ipv4 import PROTOCOL_ESP, Ipv4
from tests.support.forwarder import RECORDS
from tests.support.linecard import tunnel

TRANSIT, OWN = Origin(transit=True), Origin(transit=False)


class Recorder:
    """A card whose `Delivery` notes what it is given."""

    def __init__(self, card: str = "lc 3") -> None:
        self.counters = Counters()
        self.up = dict.fromkeys(("lc 3", "lc 4", "asp 1/1"), True)
        self.tunnelled: list[Batch] = []
        self.by_ports: list[Batch] = []
        self.tables = ForwardingTables(card, self.up, lambda port: True, self.counters)
        self.tables.apply(RecordChange(RECORDS, ()))
        self.forwarder = Forwarder(card, self.tables, self, self.counters)
        self.done: list[tuple[Any, ...]] = []

    def to_port(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        self.done.append(("port", card, batch.step, batch.port, batch.address, packets(batch)))
        self.by_ports.append(batch)
        return []

    def to_tunnel(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        self.done.append(("tunnel", card, batch.step, batch.tunnel, packets(batch)))
        self.tunnelled.append(batch)
        return []

    def to_decapsulation(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        self.done.append(("decapsulation", card, batch.step))
        return []

    def to_local_stack(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        self.done.append(("local stack", batch.step))
        return []

    def dropped(self, cause: DropCause, packets: int, origin: Origin) -> None:
        self.done.append(("dropped", cause, packets))

    def forward(self, *given: Ipv4, origin: Origin = TRANSIT) -> list[tuple[Any, ...]]:
        body, lengths = pack([packet.emit() for packet in given], HEADROOM)
        self.forwarder.forward(Batch(Step.CIRCUIT_IN, body, lengths, context=1), origin, 0.0)
        done, self.done = self.done, []
        return done


def packet(destination: str, source: str = "10.0.0.5", **fields: Any) -> Ipv4:
    return Ipv4(ip(source), ip(destination), fields.pop("protocol", 17), bytes(20), **fields)


def packets(batch: Batch) -> list[Ipv4]:
    return [Ipv4.parse(one[HEADROOM:]) for one in batch.packets()]


def test_a_decision_is_acted_on_once_for_all_of_its_packets() -> None:
    given = [packet("11.0.0.9"), packet("30.0.0.9"), packet("11.0.0.9", identification=2), packet("10.0.0.1")]
    assert Recorder().forward(*given) == [
        ("port", "lc 4", Step.EGRESS, "4/1", ip("11.0.0.9"), [packet("11.0.0.9", ttl=63),
                                                              packet("11.0.0.9", ttl=63, identification=2)]),
        # The record of the tunnel says where it is, not the next hop.
        ("tunnel", "asp 1/1", Step.ENCAPSULATE, 7, [packet("30.0.0.9", ttl=63)]),
        ("local stack", Step.LOCAL),
    ]  # fmt: skip
    assert Recorder().forward(packet("5.5.5.5", protocol=PROTOCOL_ESP)) == [
        ("decapsulation", "asp 1/1", Step.DECAPSULATE)
    ]


def test_tunnels_of_one_asp_get_their_packets_together_in_runs() -> None:
    others = [tunnel(number, asp, economical=True) for number, asp in ((8, "asp 1/1"), (9, "asp 1/2"))]
    routes = [
        RouteRecord(1, ip(f"{net}.0.0.0"), 8, (NextHop("tunnel", tunnel=number),))
        for net, number in ((31, 8), (32, 9))
    ]
    given = [
        packet("30.0.0.9"),
        packet("31.0.0.9"),
        packet("32.0.0.9"),
        packet("30.0.0.9", identification=2),
        packet("11.0.0.9"),
    ]

    def forward(card: str) -> tuple[list[tuple[Any, ...]], list[Batch]]:
        recorder = Recorder(card)
        recorder.tables.apply(RecordChange((*others, *routes, CardStateRecord("asp 1/2", "asp", 1, 1, True)), ()))
        recorder.up["asp 1/2"] = True
        recorder.tables.decider.invalidate()
        return recorder.forward(*given), recorder.tunnelled

    done, batches = forward("lc 3")
    first, second = packet("30.0.0.9", ttl=63), packet("30.0.0.9", ttl=63, identification=2)
    assert done == [
        ("tunnel", "asp 1/2", Step.ENCAPSULATE, 9, [packet("32.0.0.9", ttl=63)]),
        ("port", "lc 4", Step.EGRESS, "4/1", ip("11.0.0.9"), [packet("11.0.0.9", ttl=63)]),
        ("tunnel", "asp 1/1", Step.ENCAPSULATE, 0, [first, second, packet("31.0.0.9", ttl=63)]),
    ]
    assert [one.runs for one in batches] == [(), ((2, 7, 0), (1, 8, 0))]
    # So do those that stay with an ASP.
    done, batches = forward("asp 1/1")
    assert [(kind, card, *rest[1:2]) for kind, card, *rest in done if kind == "tunnel"] == [
        ("tunnel", "asp 1/2", 9), ("tunnel", "asp 1/1", 0),
    ]  # fmt: skip
    assert [one.runs for one in batches] == [(), ((2, 7, 0), (1, 8, 0))]


@pytest.mark.parametrize("card", ["lc 3", "lc 4", "asp 1/1"])
def test_next_hops_on_one_card_get_their_packets_together_in_runs(card: str) -> None:
    recorder = Recorder(card)
    given = [packet("11.0.0.9"), packet("11.0.0.8"), packet("10.0.0.7"), packet("11.0.0.9", identification=2)]
    # A packet that does not fit the port goes alone: it is fragmented, or its sender gets an error.
    given.append(replace(packet("11.0.0.5"), payload=bytes(1481)))
    done = recorder.forward(*given)
    sent = [replace(one, ttl=63) for one in given]
    assert done == [
        ("port", "lc 3", Step.EGRESS, "3/1", ip("10.0.0.7"), [sent[2]]),
        ("port", "lc 4", Step.EGRESS, "4/1", ip("11.0.0.5"), [sent[4]]),
        ("port", "lc 4", Step.EGRESS, "", 0, [sent[0], sent[3], sent[1]]),
    ]
    assert [one.hops for one in recorder.by_ports] == [
        (), (), ((2, "4/1", ip("11.0.0.9")), (1, "4/1", ip("11.0.0.8"))),
    ]  # fmt: skip
    # The router's own packets keep their TTL.
    assert recorder.forward(*given[:2], origin=OWN) == [("port", "lc 4", Step.EGRESS, "", 0, given[:2])]


def test_many_decisions_are_acted_on_as_one_after_the_other() -> None:
    """`execute_decided` gives each card what `execute_groups` gives it, in the same order."""
    together = 0
    for seed in range(60):
        random = Random(seed)
        card = random.choice(("lc 3", "asp 1/1"))
        origin = Origin(random.random() < 0.8, nesting=random.choice((0, 0, MAX_TUNNEL_NESTING)))
        if random.random() < 0.1:
            origin = replace(origin, max_fragment=60)
        rigs = [Recorder(card), Recorder(card)]
        for rig in rigs:
            others = [tunnel(8 + number, f"asp 1/{1 + number % 2}", economical=True) for number in range(20)]
            routes = [
                RouteRecord(1, ip(f"{40 + number}.0.0.0"), 8, (NextHop("tunnel", tunnel=8 + number),))
                for number in range(20)
            ]
            up = CardStateRecord("asp 1/2", "asp", 1, 1, True)
            rig.tables.apply(RecordChange((*others, *routes, up), ()))
            rig.up["asp 1/2"] = True
            rig.tables.decider.invalidate()
        some = [f"{40 + number}.0.0.9" for number in range(20)]
        hops = [f"{net}.0.0.{host}" for net in (10, 11) for host in range(7, 17)]
        odd = ["10.0.0.1", "12.0.0.9", "30.0.0.9", "127.0.0.1"]
        places = random.choice((some, some[::2], hops, hops[:10], some + hops, some + hops + odd, hops[:1] + odd))
        sizes = random.choice(((20,), (20,), (20, 300), (20, 1600)))
        for _ in range(3):
            given = [
                replace(packet(random.choice(places)), payload=bytes(random.choice(sizes)), identification=at)
                for at in range(random.choice((64, 100, 256)))
            ]
            body, lengths = pack([one.emit() for one in given], HEADROOM)
            groups = classify(rigs[1].tables.decider, 1, body, lengths, transit=origin.transit)
            rigs[1].forwarder.execute_groups(groups, Batch(Step.CIRCUIT_IN, body, lengths, context=1), origin, 0.0)
            body, lengths = pack([one.emit() for one in given], HEADROOM)
            found = look_up(rigs[0].tables.decider, 1, body, lengths, transit=origin.transit)
            assert isinstance(found, DecidedPackets)
            part = Batch(Step.CIRCUIT_IN, body, lengths, context=1)
            rigs[0].forwarder.forward(part, origin, 0.0)
        assert rigs[0].done == rigs[1].done
        for ours, theirs in zip(rigs[0].tunnelled, rigs[1].tunnelled, strict=True):
            assert (ours.runs, ours.tunnel) == (theirs.runs, theirs.tunnel)
            together += len(ours.runs) > 1
        for ours, theirs in zip(rigs[0].by_ports, rigs[1].by_ports, strict=True):
            assert (ours.hops, ours.port, ours.address) == (theirs.hops, theirs.port, theirs.address)
            together += len(ours.hops) > 1
    assert together > 100


def test_packets_of_several_tunnels_go_on_together_or_not_at_all() -> None:
    """`forward_together`: what is dropped counts for its tunnel, so nothing is done where a packet may be."""

    def together(card: str, *given: Ipv4, origin: Origin = TRANSIT) -> list[tuple[Any, ...]] | None:
        recorder = Recorder(card)
        body, lengths = pack([one.emit() for one in given], HEADROOM)
        before = bytes(body)
        outputs = recorder.forwarder.forward_together(Batch(Step.CIRCUIT_IN, body, lengths, context=1), origin, 0)
        if outputs is not None:
            return recorder.done
        assert (recorder.done, bytes(body)) == ([], before)
        return None

    hop, inside = packet("11.0.0.9"), packet("30.0.0.9")
    assert [one[0] for one in together("asp 1/1", hop, inside) or ()] == ["port", "tunnel"]
    for other in (
        packet("12.0.0.9"),
        packet("11.0.0.9", ttl=1),
        packet("10.0.0.1"),
        packet("5.5.5.5", protocol=PROTOCOL_ESP),
        replace(hop, payload=bytes(1481)),
    ):
        assert together("asp 1/1", hop, other) is None
    deepest = Origin(transit=True, nesting=MAX_TUNNEL_NESTING)
    assert together("asp 1/1", hop, inside, origin=deepest) is None
    assert together("lc 3", hop, inside, origin=deepest) is not None
    # An outer packet may not go into its own tunnel.
    assert together("lc 3", hop, inside, origin=OWN) is None


def test_packets_of_the_router_keep_their_ttl() -> None:
    assert Recorder().forward(packet("11.0.0.9", ttl=1), origin=OWN) == [
        ("port", "lc 4", Step.EGRESS, "4/1", ip("11.0.0.9"), [packet("11.0.0.9", ttl=1)])
    ]


def test_an_outer_packet_does_not_go_into_its_own_tunnel() -> None:
    inside = Origin(transit=False, tunnel=7)
    assert Recorder().forward(packet("30.0.0.9"), origin=inside) == [("dropped", DropCause.LOOP, 1)]
    # What came out of a tunnel may go into it again: its TTL ends a loop.
    assert Recorder().forward(packet("30.0.0.9"), origin=Origin(transit=True, tunnel=7))[0][0] == "tunnel"


@pytest.mark.parametrize("given", [packet("30.0.0.9"), packet("5.5.5.5", protocol=PROTOCOL_ESP)])
def test_tunnels_in_tunnels_of_one_card_end(given: Ipv4) -> None:
    asp = Recorder("asp 1/1")
    deepest = Origin(transit=True, nesting=MAX_TUNNEL_NESTING)
    assert asp.forward(given, origin=deepest) == [("dropped", DropCause.LOOP, 1)]
    assert asp.forward(given, origin=Origin(transit=True, nesting=MAX_TUNNEL_NESTING - 1))[0][0] != "dropped"
    # Another card counts from 0.
    assert Recorder().forward(given, origin=deepest)[0][0] != "dropped"


def test_the_sender_of_a_dropped_packet_gets_an_error_by_the_forwarder() -> None:
    card = Recorder()
    dropped, (kind, *_, (error,)) = card.forward(packet("11.0.0.9", "10.0.0.5", ttl=1))
    assert (dropped, kind) == (("dropped", DropCause.TTL, 1), "port")
    assert (error.source, error.destination, error.ttl) == (ip("10.0.0.1"), ip("10.0.0.5"), 64)
    assert Icmp.parse(error.payload).type == TIME_EXCEEDED
    assert card.counters.get(ORIGINATED) == 1


@pytest.mark.parametrize(
    ("given", "origin"),
    [(packet("12.0.0.9", "10.0.0.1"), TRANSIT), (packet("12.0.0.9"), OWN), (packet("127.0.0.1"), TRANSIT)],
    ids=["to an address of the router", "about a packet of the router", "for a silent cause"],
)
def test_no_error_is_made(given: Ipv4, origin: Origin) -> None:
    card = Recorder()
    assert [done[0] for done in card.forward(given, origin=origin)] == ["dropped"]
    assert card.counters.get(ORIGINATED) == 0
