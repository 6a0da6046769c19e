"""A batch is its packets one at a time, octet for octet, in every cipher engine.

Two routers' ASPs get random batches: one of them whole, its twin the same packets each in a batch of its own.
Whatever the batch holds, both send the same packets to the same places in the same order, and count the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike_messages import IkeTunnelState, NatMappingChanged, UnknownSpi
from chassis.ase.ipsec import joint_sealing
from chassis.ase.ipsec.cipher_engine import EspOpener, EspSealer, Pending, Unsealed
from chassis.ase.ipsec.cryptography_engine import CbcOpener, CbcSealer, GcmOpener, GcmSealer
from chassis.ase.ipsec.ipsec_mb import MultiBufferOpener, MultiBufferSealer
from chassis.ase.ipsec.received import PacketColumns
from chassis.bus.batch import Batch, Step
from chassis.bus.coalesce import coalesced
from chassis.bus.messages import SaEvent
from chassis.bus.records import LeaseRecord, TunnelRecord
from chassis.net.columns import Numbers
from chassis.net.ipv4 import Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    LC4,
    OUTER,
    SPARE,
    Controller,
    altered,
    batch_of,
    ip,
    packets_of,
    port_hop,
    records,
    route,
    tunnel_hop,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, Side, encapsulated, install, static
from tests.support.cipher_engines import ENGINES, engine_of
from tests.support.ipsec import resized

INSIDE = {CIRCUIT: ("50.0.0.1", "60.0.0.1"), ECONOMICAL: ("52.0.0.1", "62.0.0.1")}
SIZES = (20, 21, 40, 64, 100, 333, 576, 1400, 1418, 1500, 1800)
OPTIONS = (b"\1\1\1\0", b"\x07\x07\x04\0\0\0\0\0", b"\x94\x04\0\0")
"""No operation, record route, router alert."""

SIDES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "esp": ({}, {"esn": True}),
    "gcm and sha2": ({"kind": "gcm"}, {"kind": "sha2"}),
    "gcm with esn, compressed": ({"kind": "gcm", "esn": True}, {"cpi_out": 2, "cpi_in": 2}),
    "bundle and ah": ({"kind": "bundle"}, {"kind": "ah", "esn": True}),
    "udp": ({}, {"kind": "gcm"}),
}
"""What protects each tunnel of two routers with negotiated SAs."""


def four(kind: str, engine: str) -> tuple[Controller, Controller, Controller, Controller]:
    """Two left routers and two right ones."""
    used = engine_of(engine)
    if kind == "manual":
        ends = [Controller(records(there=there, mtu=1400), engine=used) for there in (False, False, True, True)]
        return ends[0], ends[1], ends[2], ends[3]
    sides = [Side(static(there=there, mtu=1400), engine=used) for there in (False, False, True, True)]
    for side, there in zip(sides, (False, False, True, True), strict=True):
        for tunnel, fields in zip((CIRCUIT, ECONOMICAL), SIDES[kind], strict=True):
            udp = encapsulated(A if there else B) if kind == "udp" else ()
            side.ike(install(tunnel, 1, there=there, encapsulation=udp, **fields))
            side.ike(IkeTunnelState(tunnel, True, ""))
    return sides[0], sides[1], sides[2], sides[3]


def clear_packet(chance: random.Random, tunnel: int, number: int) -> bytes:
    """A packet for a tunnel, or something like one."""
    source, destination = INSIDE[tunnel]
    packet = udp_packet(source, destination, chance.choice(SIZES), df=chance.random() < 0.2, number=number)
    what = chance.random()
    if what < 0.2:
        options = chance.choice(OPTIONS)
        longer = bytearray(packet[:20] + options + packet[20:])
        longer[0] += len(options) // 4
        packet = _checksummed(resized(bytes(longer)))
    elif what < 0.35:
        packet = _with(packet, 1, chance.randrange(256))  # type of service and ECN
    elif what < 0.45:
        packet = _with(packet, 6, chance.choice((0x20, 0x00)), chance.randrange(1, 90))  # a fragment
    elif what < 0.5:
        changed = bytearray(packet)
        changed[chance.choice((0, 2, 3))] ^= 1 << chance.randrange(8)
        packet = bytes(changed)
    elif what < 0.55:
        packet = packet[: chance.randrange(len(packet))]
    elif what < 0.6:
        packet += bytes(chance.randrange(1, 50))
    return packet


def _with(packet: bytes, at: int, *octets: int) -> bytes:
    return _checksummed(packet[:at] + bytes(octets) + packet[at + len(octets) :])


def _checksummed(packet: bytes) -> bytes:
    """The packet with a right checksum over a header of any length."""
    octets = bytearray(packet)
    octets[10:12] = b"\0\0"
    size = (octets[0] & 15) * 4
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, size, 2))
    octets[10:12] = (-total % 0xFFFF).to_bytes(2, "big")
    return bytes(octets)


def wire_packets(chance: random.Random, sent: Sequence[bytes]) -> list[bytes]:
    """Outer packets as a hostile network delivers them."""
    packets, whole = list(sent), set(sent)
    for _ in range(len(packets) // 3):
        at = chance.randrange(len(packets))
        packet = packets[at]
        what = chance.random()
        if what < 0.3:
            changed = bytearray(packet)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            packets[at] = bytes(changed)
        elif what < 0.4:
            packets.insert(chance.randrange(len(packets)), packet)
        elif what < 0.5:
            packets[at] = packet[: chance.randrange(1, len(packet))]
        elif what < 0.65:
            packets[at] = _with(packet, 1, chance.randrange(256))
        elif what < 0.75:
            longer = bytearray(packet[:20] + b"\1\1\1\0" + packet[20:])
            longer[0] += 1
            packets[at] = _checksummed(bytes(longer[:2]) + len(longer).to_bytes(2, "big") + bytes(longer[4:]))
        elif what < 0.85:
            other = chance.randrange(len(packets))
            packets[at], packets[other] = packets[other], packets[at]
        elif packet in whole:
            first = Ipv4.parse(packet)
            cut = len(first.payload) // 16 * 8
            if cut:
                head = replace(first, payload=first.payload[:cut], more_fragments=True, dont_fragment=False)
                tail = replace(first, payload=first.payload[cut:], offset=cut, dont_fragment=False)
                packets[at : at + 1] = [head.emit(), tail.emit()]
    return packets


Places = dict[tuple[object, ...], list[bytes]]


def places(sent: Sequence[tuple[str, Batch]], into: Places) -> None:
    """The packets by where they go, in order."""
    for card, batch in [(card, part) for card, whole in sent for part in whole.split_runs()]:
        place = (card, batch.step, batch.context, batch.port, batch.address, batch.tunnel, batch.circuit)
        into.setdefault(place, []).extend(packets_of(batch))


def both(
    chance: random.Random, whole: Controller, single: Controller, packets: Sequence[bytes], **fields: object
) -> Places:
    """Give a batch to one ASP, and its packets one by one to the twin; compare; return where they went."""
    epoch = 1 if chance.random() < 0.9 else 2
    marked = {index: 1 + chance.randrange(1000) for index in range(len(packets)) if chance.random() < 0.03}
    together: Places = {}
    apart: Places = {}
    step = fields.pop("step")
    assert isinstance(step, Step)
    batch = batch_of(packets, step, marks=tuple(marked.items()), **fields)
    places(whole.give(batch, epoch=epoch), together)
    for index, packet in enumerate(packets):
        marks = ((0, marked[index]),) if index in marked else ()
        places(single.give(batch_of([packet], step, marks=marks, **fields), LC3, epoch), apart)
    assert together == apart
    assert dict(whole.asp.counters.items()) == dict(single.asp.counters.items())
    return together


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_of_tunnels_are_a_batch_of_each(engine: str) -> None:
    chance = random.Random(5)
    left, left_twin, _, _ = four("gcm and sha2", engine)
    number = 0
    for _ in range(4):
        together: Places = {}
        apart: Places = {}
        runs, packets, tunnels = [], [], []
        for tunnel in (CIRCUIT, ECONOMICAL, CIRCUIT, 99, ECONOMICAL):
            count = chance.choice((1, 3, 9))
            runs.append((count, tunnel, 0))
            known = tunnel if tunnel in INSIDE else CIRCUIT
            packets += [clear_packet(chance, known, number + i) for i in range(count)]
            tunnels += [tunnel] * count
            number += count
        fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
        places(left.give(batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), **fields)), together)
        for packet, tunnel in zip(packets, tunnels, strict=True):
            places(left_twin.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
        assert together == apart
        assert dict(left.asp.counters.items()) == dict(left_twin.asp.counters.items())
        assert len(together) > 1


MANY: dict[int, tuple[bool, dict[str, Any]]] = {
    CIRCUIT: (False, {}),
    ECONOMICAL: (True, {"esn": True}),
    3: (False, {"kind": "gcm", "kbytes": 4000, "soft_kbytes": 4}),
    4: (True, {"kind": "sha2", "kbytes": 4000, "soft_kbytes": 4}),
    5: (False, {"cpi_out": 2, "cpi_in": 2}),
    6: (True, {"kind": "ah", "esn": True}),
    7: (True, {"kind": "gcm", "esn": True}),
    8: (False, {"kind": "bundle"}),
    9: (False, {}),
    10: (False, {"kind": "gcm"}),
}
"""Economical or not, and what protects it, by tunnel. Some SAs have a soft limit of octets."""
NAKED = 11
"""A tunnel without an SA."""


def many(engine: str, *, there: bool) -> Side:
    """A router with the tunnels of `MANY`, all negotiated, one behind a NAT."""
    made = static(there=there, mtu=1400)
    templates = {record.number: record for record in made if isinstance(record, TunnelRecord)}
    for number in range(3, NAKED + 1):
        economical = number in MANY and MANY[number][0]
        circuit = 0 if economical else 100 + number
        name = {"number": number, "circuit": circuit, "name": f"t{number}"}
        made.append(altered(templates[ECONOMICAL if economical else CIRCUIT], **name))
    side = Side(made, engine=engine_of(engine))
    for number, (_, fields) in MANY.items():
        udp = encapsulated(A if there else B) if number == ECONOMICAL else ()
        side.ike(install(number, 1, there=there, encapsulation=udp, **fields))
        side.ike(IkeTunnelState(number, True, ""))
    return side


def by_sa(sent: Places) -> dict[tuple[object, ...], list[bytes]]:
    """The outer packets by where they go and by their SA: the order of packets of different SAs is free."""
    found: dict[tuple[object, ...], list[bytes]] = {}
    for place, packets in sent.items():
        for packet in packets:
            at = 28 if packet[9] == 17 else 24 if packet[9] == 51 else 20
            found.setdefault((place, packet[9], packet[at : at + 4]), []).append(packet)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_short_runs_of_many_tunnels_are_their_packets_one_at_a_time(engine: str) -> None:
    chance = random.Random(7)
    left, left_twin = (many(engine, there=False) for _ in range(2))
    right, right_twin = (many(engine, there=True) for _ in range(2))
    number = opened = 0
    for _ in range(12):
        together: Places = {}
        apart: Places = {}
        runs, packets, tunnels = [], [], []
        for _ in range(chance.choice((2, 9, 40))):
            tunnel = chance.choice((*MANY, *MANY, NAKED, 99))
            count = chance.choice((1, 1, 1, 2, 5, 8))
            runs.append((count, tunnel, 0))
            inside = ECONOMICAL if tunnel in MANY and MANY[tunnel][0] else CIRCUIT
            # Most packets are ordinary ones: what leaves together does so only if nothing is between.
            packets += [
                clear_packet(chance, inside, number + i)
                if chance.random() < 0.2
                else udp_packet(*INSIDE[inside], chance.choice(SIZES[:8]), number=number + i)
                for i in range(count)
            ]
            tunnels += [tunnel] * count
            number += count
        fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
        places(left.give(batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), **fields)), together)
        for packet, tunnel in zip(packets, tunnels, strict=True):
            places(left_twin.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
        assert by_sa(together) == by_sa(apart)
        same_accounts(left, left_twin)
        outer = [packet for place, some in together.items() if place[2] == OUTER for packet in some]
        chance.shuffle(outer)
        wire = wire_packets(chance, outer)
        opened += opened_alike(right, right_twin, wire)
    assert opened > number // 4, "most of what is not damaged comes out"


def opened_alike(whole: Side, single: Side, wire: Sequence[bytes]) -> int:
    """Give outer packets to one ASP as a batch, and one by one to its twin; compare; return how many came out.

    Each circuit-based tunnel has a place of its own, where the order is that of its packets. The others share one.
    """
    together: Places = {}
    apart: Places = {}
    fields: dict[str, Any] = {"context": OUTER, "ingress": "3/11"}
    places(whole.give(batch_of(wire, Step.DECAPSULATE, **fields)), together)
    for packet in wire:
        places(single.give(batch_of([packet], Step.DECAPSULATE, **fields)), apart)
    assert {place: sorted(some) for place, some in together.items()} == {
        place: sorted(some) for place, some in apart.items()
    }
    assert [some for place, some in together.items() if place[6]] == [
        apart[place] for place in together if place[6]
    ]
    same_accounts(whole, single)
    return sum(len(some) for place, some in together.items() if place[2] == INNER)


def same_accounts(whole: Side, single: Side) -> None:
    """Both ASPs counted the same, for each tunnel and SA, and told IKE the same."""
    assert dict(whole.asp.counters.items()) == dict(single.asp.counters.items())
    tunnels, others = (side.asp.sa_statistics.statistics()["tunnels"] for side in (whole, single))
    for sa in [sa for tunnel in (*tunnels, *others) for sa in tunnel["sas"]]:
        # What the MTU's check of a run drops is counted for the tunnel alone.
        sa["drops"].pop("malformed", None)
    assert tunnels == others
    # Of a batch's packets for unknown SAs IKE is told of the first, and of a peer's addresses of the last.
    first, second = (
        [message for message in side.told(object) if not isinstance(message, UnknownSpi | NatMappingChanged)]
        for side in (whole, single)
    )
    assert set(map(str, first)) == set(map(str, second))


@pytest.mark.parametrize("engine", ENGINES)
def test_many_ordinary_packets_are_sealed_as_one_at_a_time(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of one length make a table; it is sealed for one tunnel and for many, of all kinds together."""
    tables: Counter[tuple[type[EspSealer], bool, bool]] = Counter()
    kinds = SEALERS[engine]
    monkeypatch.setattr(joint_sealing, "MIN_GROUP", 8)
    for kind in kinds:
        _count_tables(kind, tables, monkeypatch)
    chance = random.Random(11)
    left, left_twin = (many(engine, there=False) for _ in range(2))
    right, right_twin = (many(engine, there=True) for _ in range(2))
    number = 0
    for size in (20, 64, 65, 73, 576, 1200, None, None):
        for tunnels in ([CIRCUIT], [ECONOMICAL], [3], [7], [CIRCUIT, 9, 9, 3, 10, 3, *MANY, NAKED, 3, 9]):
            runs = [(chance.choice((1, 9, 30)) if len(tunnels) > 1 else 90, tunnel, 0) for tunnel in tunnels]
            packets = []
            for count, tunnel, _ in runs:
                ends = INSIDE[ECONOMICAL if MANY.get(tunnel, (False,))[0] else CIRCUIT]
                for _ in range(count):
                    number += 1
                    octets = size or chance.choice((65, 65, 576))
                    packet = udp_packet(*ends, octets, number=number)
                    packets.append(_with(packet, 1, chance.randrange(256)) if chance.random() < 0.02 else packet)
            together: Places = {}
            apart: Places = {}
            fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
            if len(runs) == 1:
                whole = batch_of(packets, Step.ENCAPSULATE, tunnel=runs[0][1], **fields)
            else:
                whole = batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), **fields)
            places(left.give(whole), together)
            each = [tunnel for count, tunnel, _ in runs for _ in range(count)]
            for packet, tunnel in zip(packets, each, strict=True):
                places(left_twin.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
            assert by_sa(together) == by_sa(apart)
            same_accounts(left, left_twin)
            outer = [packet for place, some in together.items() if place[2] == OUTER for packet in some]
            wire = outer if chance.random() < 0.5 else wire_packets(chance, outer)
            opened_alike(right, right_twin, wire)
    for kind in kinds:
        for same_length in (True, False):
            assert tables[kind, False, same_length] > 1, "one SA"
            assert tables[kind, True, same_length], "several SAs"


@pytest.mark.parametrize("engine", ENGINES)
def test_many_packets_are_opened_as_one_at_a_time(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of one or a few SAs are columns, whether they have one length or several; some are not ordinary."""
    columns: Counter[tuple[type[EspOpener], bool]] = Counter()
    for kind in OPENERS[engine]:
        _count_columns(kind, columns, monkeypatch)
    chance = random.Random(13)
    left = many(engine, there=False)
    right, right_twin = (many(engine, there=True) for _ in range(2))
    number = opened = total = 0
    for sizes in ((64,), (1200,), (64, 576, 576, 1200), range(20, 1300)):
        for tunnels in ((CIRCUIT,), (ECONOMICAL,), (3,), (7,), (5,), (4, 9), (CIRCUIT, 10, 8)):
            outer: list[bytes] = []
            for tunnel in tunnels:
                ends = INSIDE[ECONOMICAL if MANY[tunnel][0] else CIRCUIT]
                packets = []
                for _ in range(chance.choice((20, 60, 90))):
                    number += 1
                    service = chance.choice((0, 0, 0, 0xB8, 2))
                    packets.append(_with(udp_packet(*ends, chance.choice(sizes), number=number), 1, service))
                sent = left.give(batch_of(packets, Step.ENCAPSULATE, context=INNER, tunnel=tunnel, ingress="3/1"))
                outer += [packet for _, batch in sent for packet in packets_of(batch)]
            if len(tunnels) > 1:
                outer = _interleaved(chance, outer, len(tunnels))
            wire = list(outer)
            for _ in range(chance.choice((0, 1, 2, 9))):
                at = chance.randrange(len(wire))
                wire[at : at + 1] = wire_packets(chance, [*wire[at : at + 1], *chance.choices(outer, k=2)])[:2]
            opened += opened_alike(right, right_twin, wire)
            total += len(outer)
    assert opened > total * 3 // 4
    for kind in OPENERS[engine]:
        assert columns[kind, True] > 2, "packets of one length"
        assert columns[kind, False] > 2, "packets of several lengths"


def _interleaved(chance: random.Random, packets: Sequence[bytes], parts: int) -> list[bytes]:
    """The packets of several senders, each of them in its order."""
    size = -(-len(packets) // parts)
    rest = [list(packets[at : at + size]) for at in range(0, len(packets), size)]
    mixed: list[bytes] = []
    while any(rest):
        some = chance.choice([one for one in rest if one])
        mixed += some[:2]
        del some[:2]
    return mixed


OPENERS: dict[str, tuple[type[EspOpener], ...]] = {
    "cryptography": (CbcOpener, GcmOpener),
    "ipsec-mb": (MultiBufferOpener,),
}


def _count_columns(
    kind: type[EspOpener], columns: Counter[tuple[type[EspOpener], bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_columns = kind.begin_columns

    def counted(self: EspOpener, packets: PacketColumns, numbers: Numbers) -> Pending:
        columns[kind, packets.size > 0] += 1
        return begin_columns(self, packets, numbers)

    monkeypatch.setattr(kind, "begin_columns", counted)


SEALERS: dict[str, tuple[type[EspSealer], ...]] = {
    "cryptography": (CbcSealer, GcmSealer),
    "ipsec-mb": (MultiBufferSealer,),
}


def _count_tables(
    kind: type[EspSealer], tables: Counter[tuple[type[EspSealer], bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_all = kind.seal_all

    def counted(self: EspSealer, packets: Unsealed) -> None:
        tables[kind, len(packets.runs.sealers) > 1, packets.columns.stride > 0] += 1
        seal_all(self, packets)

    monkeypatch.setattr(kind, "seal_all", counted)


@pytest.mark.parametrize("ttls", [(1, 9, 9), (9, 9, 9)])
def test_a_packet_dropped_after_decapsulation_counts_for_its_tunnel(ttls: tuple[int, ...]) -> None:
    left, right = (many("cryptography", there=there) for there in (False, True))
    tunnels = (ECONOMICAL, 4, 7)
    packets = [udp_packet(*INSIDE[ECONOMICAL], ttl=ttl) for ttl in ttls]
    runs = tuple([(1, tunnel, 0) for tunnel in tunnels])
    sent = coalesced(
        [batch for _, batch in left.give(batch_of(packets, Step.ENCAPSULATE, runs=runs, context=INNER))]
    )
    assert len(sent) == 1, "all outer packets leave in one batch"
    went = [batch for _, batch in right.open(sent[0]) if batch.step is Step.EGRESS and batch.context == INNER]
    passed = [ttl for ttl in ttls if ttl > 1]
    assert sum(len(batch.lengths) for batch in went) == len(passed)
    assert len(went) == (1 if passed == list(ttls) else len(passed))
    totals = [right.asp.sa_statistics.statistics(tunnel)["tunnels"] for tunnel in tunnels]
    assert [any("ttl" in str(key) for key in _keys(one)) for one in totals] == [ttl == 1 for ttl in ttls]


@pytest.mark.parametrize("engine", ENGINES)
def test_short_runs_keep_to_the_lease(engine: str) -> None:
    """Manual keys: the request for a lease, its end, and the numbers that are stored."""
    lease = {"leases": (LeaseRecord(10, start=1, end=9),)}
    whole, single = (Controller(records(**lease), engine=engine_of(engine)) for _ in range(2))
    tunnels = [CIRCUIT, ECONOMICAL] * 12
    packets = [udp_packet(*INSIDE[tunnel], number=number) for number, tunnel in enumerate(tunnels)]
    together: Places = {}
    apart: Places = {}
    runs = tuple([(1, tunnel, 0) for tunnel in tunnels])
    places(whole.give(batch_of(packets, Step.ENCAPSULATE, runs=runs, context=INNER)), together)
    for packet, tunnel in zip(packets, tunnels, strict=True):
        places(single.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, context=INNER)), apart)
    assert together == apart
    assert sum(map(len, together.values())) == 16
    assert whole.drops() == single.drops() == {"no lease": 8}
    assert whole.said == single.said
    assert any(isinstance(message, SaEvent) for message in whole.said)
    assert whole.state.tobytes() == single.state.tobytes()


@pytest.mark.parametrize("size", [1, 2, 6])
def test_windows_of_few_packets_are_stored(size: int) -> None:
    left, right = Controller(records()), Controller(records(there=True))
    tunnels = [CIRCUIT, ECONOMICAL] * size
    packets = [udp_packet(*INSIDE[tunnel], number=number) for number, tunnel in enumerate(tunnels)]
    runs = tuple([(1, tunnel, 0) for tunnel in tunnels])
    sent = left.give(batch_of(packets, Step.ENCAPSULATE, runs=runs, context=INNER))
    outer = [packet for _, batch in sent for packet in packets_of(batch)]
    assert len(outer) == len(packets)
    assert sum(len(batch) for _, batch in right.open(batch_of(outer, Step.DECAPSULATE))) == len(packets)
    right.start()
    before = right.drops()
    assert right.open(batch_of(outer, Step.DECAPSULATE)) == []
    assert right.drops() == {**before, "replayed": len(packets)}


def test_short_runs_keep_to_the_limit_of_octets() -> None:
    sides = [many("cryptography", there=False) for _ in range(2)]
    for side, size in zip(sides, (12, 1), strict=True):
        side.told(object)
        packets = [udp_packet(*INSIDE[CIRCUIT], 1000, number=number) for number in range(12)]
        for at in range(0, 12, size):
            runs = ((1, 3, 0),) * size
            side.give(batch_of(packets[at : at + size], Step.ENCAPSULATE, runs=runs, context=INNER))
    whole, single = (list(map(str, side.told(object))) for side in sides)
    assert whole == single
    assert any("SaExpir" in message for message in whole), whole


def _keys(value: object) -> list[object]:
    """All keys in nested values."""
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in _keys(inner))]
    return [key for inner in value for key in _keys(inner)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["manual", *SIDES])
def test_a_batch_is_its_packets_one_at_a_time(kind: str, engine: str) -> None:
    chance = random.Random(kind)
    left, left_twin, right, right_twin = four(kind, engine)
    number = opened = 0
    for _ in range(6):
        outer: list[bytes] = []
        for tunnel in (CIRCUIT, ECONOMICAL, CIRCUIT):
            packets = [clear_packet(chance, tunnel, number + i) for i in range(chance.choice((1, 2, 7, 17, 40)))]
            number += len(packets)
            fields = {"step": Step.ENCAPSULATE, "context": INNER, "tunnel": tunnel, "ingress": "3/1"}
            went = both(chance, left, left_twin, packets, **fields)
            outer += [packet for place, some in went.items() if place[2] == OUTER for packet in some]
        wire = wire_packets(chance, outer)
        fields = {"step": Step.DECAPSULATE, "context": OUTER, "ingress": "3/11"}
        went = both(chance, right, right_twin, wire, **fields)
        opened += sum(len(some) for place, some in went.items() if place[2] == INNER)
    assert opened > number // 5, "most of what is not damaged comes out"


HOPS = range(20, 50)
"""More economical tunnels, each to a peer of its own: the first half behind one line card, the others another."""


def hub(engine: str, *, there: bool = False) -> Side:
    """A router with the tunnels of `MANY` and `HOPS`, and routes into tunnels of its own and of another ASP."""
    side = many(engine, there=there)
    one = side.tunnel(ECONOMICAL)
    side.put(
        route(OUTER, "41.0.0.0/16", port_hop(LC3, "3/11")), route(OUTER, "42.0.0.0/16", port_hop(LC4, "4/11"))
    )
    for number in HOPS:
        remote = ip(f"{41 if number < 35 else 42}.0.0.{number}")
        side.put(
            altered(one, number=number, name=f"t{number}", remote=remote),
            altered(one, number=number + 100, name=f"t{number + 100}", asp=SPARE),
            route(INNER, f"{number + 50}.0.0.0/8", tunnel_hop(number)),
            route(INNER, f"{number + 150}.0.0.0/8", tunnel_hop(number + 100)),
        )
        side.ike(install(number, 1, kind="gcm", there=there, remote=remote), IkeTunnelState(number, True, ""))
    return side


@pytest.mark.parametrize("engine", ENGINES)
def test_outer_packets_for_many_next_hops_are_their_packets_one_at_a_time(engine: str) -> None:
    chance = random.Random(9)
    whole, single = hub(engine), hub(engine)
    number = 0
    for odd in (False, True) * 6:
        together: Places = {}
        apart: Places = {}
        runs, packets, tunnels = [], [], []
        for _ in range(60):
            tunnel, count = chance.choice(HOPS), chance.choice((1, 1, 1, 2, 8) if odd else (1, 1, 2))
            runs.append((count, tunnel, 0))
            for at in range(number, number + count):
                easy = udp_packet(*INSIDE[ECONOMICAL], chance.choice(SIZES[2:8]), number=at)
                packets.append(clear_packet(chance, ECONOMICAL, at) if odd and chance.random() < 0.1 else easy)
            tunnels += [tunnel] * count
            number += count
        fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
        sent = whole.give(batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), **fields))
        places(sent, together)
        for packet, tunnel in zip(packets, tunnels, strict=True):
            places(single.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
        assert together == apart
        same_accounts(whole, single)
        if not odd:
            assert sorted(card for card, _ in sent) == [LC3, LC4], "one batch for each card"
            assert {hop[1] for _, batch in sent for hop in batch.hops} == {"3/11", "4/11"}


@pytest.mark.parametrize("engine", ENGINES)
def test_packets_from_tunnels_into_tunnels_are_their_packets_one_at_a_time(engine: str) -> None:
    chance = random.Random(11)
    left, (whole, single) = many(engine, there=False), (hub(engine, there=True) for _ in range(2))
    economical = [number for number in MANY if MANY[number][0]]
    for odd in (False, True) * 6:
        outer: list[bytes] = []
        nets = [*(number + 50 for number in HOPS), *(number + 150 for number in HOPS), *[60] * 20]
        for tunnel in economical:
            packets = [
                # Errors about them find no route.
                udp_packet(
                    "53.0.0.1",
                    f"{chance.choice([*nets, 99, 127] if odd else nets)}.0.0.{chance.randrange(9, 40)}",
                    chance.choice(SIZES if odd else SIZES[2:8]),
                    ttl=1 if odd and chance.random() < 0.02 else 9,
                    number=number,
                )
                for number in range(chance.choice((1, 9, 30) if odd else (20, 30)))
            ]
            for _, batch in left.give(batch_of(packets, Step.ENCAPSULATE, tunnel=tunnel, context=INNER)):
                outer += [packet for packet in packets_of(batch) if batch.context == OUTER]
        together: Places = {}
        apart: Places = {}
        fields: dict[str, Any] = {"context": OUTER, "ingress": "3/11"}
        sent = whole.give(batch_of(outer, Step.DECAPSULATE, **fields))
        places(sent, together)
        for packet in outer:
            places(single.give(batch_of([packet], Step.DECAPSULATE, **fields)), apart)
        assert together == apart
        if not odd:
            assert sorted((card, batch.step) for card, batch in sent) == [
                (SPARE, Step.ENCAPSULATE), (LC3, Step.EGRESS), (LC3, Step.EGRESS), (LC4, Step.EGRESS),
            ]  # fmt: skip
        same_accounts(whole, single)
