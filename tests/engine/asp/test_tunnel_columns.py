"""Batches of many tunnels that are sealed by columns: octet for octet what their packets are one at a time.

Whatever changes between two batches (SAs, peers, routes, MTUs, cards) counts for the next one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase import tunnel_columns
from chassis.ase.ike_messages import IkeTunnelState, SaActivateOutbound, SaDelete, SaUpdateAddress
from chassis.ase.ipsec.sa import MAX_SEQUENCE, SequenceLease
from chassis.ase.tunnel_columns import MIN_RUNS, TunnelColumns
from chassis.bus.batch import Batch, Step
from chassis.bus.messages import SaEvent
from chassis.bus.records import CardStateRecord, LeaseRecord, PortRecord, Record, TunnelRecord
from chassis.model.ipsec import TunnelEntry
from chassis.net import icmp
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4
from tests.engine.asp.test_batches import INSIDE, Places, by_sa, clear_packet, places, same_accounts
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    LC4,
    OUTER,
    Controller,
    altered,
    batch_of,
    ip,
    manual_sa,
    packets_of,
    port_hop,
    records,
    route,
    udp_packet,
)
from tests.support.asp_negotiated import A, Side, encapsulated, install, static
from tests.support.cipher_engines import ENGINES, engine_of

KINDS: list[dict[str, Any]] = [
    {},
    {"kind": "gcm"},
    {"kind": "sha2"},
    {"esn": True},
    {"kind": "gcm", "esn": True},
    {"kbytes": 4000, "soft_kbytes": 40},
    {},
]
"""What protects each tunnel, in turn; the last of them are behind a NAT."""
BUNDLE = 12
"""A tunnel whose packets need more than ESP."""
NAKED = 13
"""A tunnel without an SA."""
FLEET = range(1, 43)
UNKNOWN = 99


def is_economical(tunnel: int) -> bool:
    return tunnel % 2 == 0


def kind_of(tunnel: int, remote: int) -> dict[str, Any]:
    if tunnel == BUNDLE:
        return {"kind": "bundle", "remote": remote}
    nat = tunnel % len(KINDS) == len(KINDS) - 1
    return {**KINDS[tunnel % len(KINDS)], "remote": remote, "encapsulation": encapsulated(remote) if nat else ()}


def far_end(tunnel: int) -> int:
    """Some share their ends, and so a sequence of identifications."""
    return ip(f"{41 if tunnel % 3 else 42}.0.0.{tunnel // 2}")


def fleet(engine: str) -> Side:
    """A router with the tunnels of `FLEET`, every second one economical, with peers by two line cards."""
    made = static(mtu=1400)
    templates = {record.number: record for record in made if isinstance(record, TunnelRecord)}
    for number in FLEET:
        economical = is_economical(number)
        name = {"number": number, "circuit": 0 if economical else 100 + number, "name": f"t{number}"}
        template = templates[ECONOMICAL if economical else CIRCUIT]
        made.append(altered(template, remote=far_end(number), **name))
    made += [
        route(OUTER, "41.0.0.0/16", port_hop(LC3, "3/11")),
        route(OUTER, "42.0.0.0/16", port_hop(LC4, "4/11", "41.0.0.7")),
    ]
    side = Side(made, engine=engine_of(engine))
    for number in FLEET:
        if number != NAKED:
            side.ike(install(number, 1, **kind_of(number, far_end(number))), IkeTunnelState(number, True, ""))
    return side


def packet_for(tunnel: int, size: int, number: int, *, df: bool = False) -> bytes:
    return udp_packet(*INSIDE[ECONOMICAL if is_economical(tunnel) else CIRCUIT], size, number=number, df=df)


def alike(whole: Controller, single: Controller, runs: Iterable[tuple[int, int]], packets: list[bytes]) -> Places:
    """Give a batch of runs to one ASP, and its packets one at a time to the twin; compare; where they went."""
    together: Places = {}
    apart: Places = {}
    fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
    ways = tuple([(count, tunnel, 0) for count, tunnel in runs])
    places(whole.give(batch_of(packets, Step.ENCAPSULATE, runs=ways, **fields)), together)
    each = [tunnel for count, tunnel, _ in ways for _ in range(count)]
    for packet, tunnel in zip(packets, each, strict=True):
        places(single.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
    assert by_sa(together) == by_sa(apart)
    assert dict(whole.asp.counters.items()) == dict(single.asp.counters.items())
    if isinstance(whole, Side) and isinstance(single, Side):
        same_accounts(whole, single)
    return together


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many batches, and packets, columns sealed."""
    counts: Counter[str] = Counter()
    take = TunnelColumns.take

    def counted(self: TunnelColumns, plan: Any, *arguments: Any) -> list[tuple[str, Batch]]:
        counts["packets"] += plan.inner.columns.count
        counts["same length" if plan.inner.columns.stride else "lengths"] += 1
        counts["repeated"] += len(plan.first_runs) < len(plan.rows)
        return take(self, plan, *arguments)

    monkeypatch.setattr(TunnelColumns, "take", counted)
    return counts


@pytest.mark.parametrize("engine", ENGINES)
def test_packets_of_many_tunnels_are_their_packets_one_at_a_time(engine: str, taken: Counter[str]) -> None:
    chance = random.Random(3)
    whole, single = (fleet(engine) for _ in range(2))
    number = 0
    for odd in (0.0, 0.0, 0.02, 0.3) * 5:
        sizes = chance.choice(((64,), (1200,), (64, 576, 1200), range(20, 1400)))
        known = [tunnel for tunnel in FLEET if tunnel not in (BUNDLE, NAKED)]
        chosen = known if odd < 0.02 else [*known, BUNDLE, NAKED, UNKNOWN]
        tunnels = [chance.choice(chosen) for _ in range(chance.choice((20, 60, 120)))]
        if chance.random() < 0.5:
            tunnels = list(dict.fromkeys(tunnels))
        runs = [
            (chance.choice((1, 1, 1, 2, 5)) if odd or chance.random() < 0.3 else 1, tunnel) for tunnel in tunnels
        ]
        packets = []
        for count, tunnel in runs:
            for _ in range(count):
                number += 1
                inside = ECONOMICAL if is_economical(tunnel) else CIRCUIT
                plain = packet_for(tunnel, chance.choice(sizes), number)
                packets.append(clear_packet(chance, inside, number) if chance.random() < odd else plain)
        alike(whole, single, runs, packets)
    assert taken["packets"] > number // 3
    assert min(taken["same length"], taken["lengths"], taken["repeated"]) > 2


def _smaller_link(side: Side) -> None:
    """A router on the way refuses a packet of a tunnel."""
    sent = side.protect(4, [udp_packet(*INSIDE[ECONOMICAL], 1200, df=True)])
    (outer,) = [packet for _, batch in sent for packet in packets_of(batch)]
    message = icmp.unreachable(4, outer[:548], 1000)
    error = Ipv4(ip("40.0.7.7"), A, PROTOCOL_ICMP, message.emit()).emit()
    side.give(batch_of([error], Step.DECAPSULATE, context=OUTER))
    assert side.count("path mtu updates") == 1


def _lease(side: Side, tunnel: int, first: int, limit: int) -> None:
    """Go on with other numbers."""
    encapsulator = side.asp.sadb.outbound[tunnel, 1]
    encapsulator.limit = 0
    encapsulator.renew_lease(SequenceLease(first, limit))


def _put(*made: Record) -> Callable[[Side], None]:
    return lambda side: [side.put(*made), None][1]


def _altered(tunnel: int, **fields: Any) -> Callable[[Side], None]:
    return lambda side: [side.put(altered(side.tunnel(tunnel), **fields)), None][1]


def _say(*messages: Any) -> Callable[[Side], None]:
    return lambda side: [side.ike(*messages), None][1]


def _small_port(side: Side) -> None:
    record = side.record("port", "4/11")
    assert isinstance(record, PortRecord)
    side.put(replace(record, mtu=700))


NUMBERED = (14, 17, 24, 31)
"""Tunnels whose numbers come to an end: the first has 32 bits, the others 64."""

CHANGES: dict[str, Callable[[Side], None]] = {
    "numbers up to 32 bits": lambda side: _lease(side, NUMBERED[0], MAX_SEQUENCE - 3, MAX_SEQUENCE + 1),
    "extended numbers over 32 bits": lambda side: _lease(side, NUMBERED[1], MAX_SEQUENCE - 1, 1 << 40),
    "extended numbers over 63 bits": lambda side: _lease(side, NUMBERED[2], (1 << 63) - 3, (1 << 63) + 9),
    "the last extended numbers": lambda side: _lease(side, NUMBERED[3], (1 << 64) - 5, (1 << 64) - 1),
    "an sa is rekeyed": _say(install(2, 2, kind="sha2", remote=far_end(2), replaces=1)),
    "its predecessor goes": _say(SaDelete(2, 1, "rekeyed")),
    "a successor only receives": _say(install(3, 2, remote=far_end(3), send=False)),
    "until it sends": _say(SaActivateOutbound(3, 2)),
    "an sa goes": _say(SaDelete(5, 1, "deleted")),
    "a peer behind a nat moves": _say(SaUpdateAddress(6, 1, encapsulated(ip("42.0.0.9"), 4777)[0])),
    "another way to peers": _put(route(OUTER, "41.0.0.0/16", port_hop(LC4, "4/11", "41.0.0.3"))),
    "no way to peers": _put(route(OUTER, "42.0.0.0/16")),
    "a way again": _put(route(OUTER, "42.0.0.0/16", port_hop(LC3, "3/11"))),
    "a tunnel is down": _altered(7, up=False),
    "and up": _altered(7, up=True),
    "a tunnel has another circuit": _altered(9, circuit=777),
    "a tunnel sets df": _altered(11, df_bit="set"),
    "a tunnel has a smaller mtu": _altered(10, mtu=500),
    "a link on the way is small": _smaller_link,
    "a port is small": _small_port,
    "a line card is down": _put(CardStateRecord(LC3, "linecard", 1, 1, False)),
    "and back": _put(CardStateRecord(LC3, "linecard", 1, 1, True)),
    "a tunnel is gone": lambda side: [side.put(delete=[("tunnel", 8)]), None][1],
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_counts_for_the_next_batch(engine: str, taken: Counter[str]) -> None:
    whole, single = (fleet(engine) for _ in range(2))
    changing = [*NUMBERED, *range(1, BUNDLE)]
    plain = [tunnel for tunnel in FLEET if tunnel > NAKED and tunnel not in changing]
    number = 0
    for name, change in CHANGES.items():
        for side in (whole, single):
            change(side)
            side.told(object)
        for count, size in ((1, 300), (3, 1000)):
            # Enough plain tunnels beside each, whatever becomes of the others.
            runs = [run for one in changing for run in ((count, one), *((1, each) for each in plain[:MIN_RUNS]))]
            tunnels = [tunnel for count, tunnel in runs for _ in range(count)]
            packets = [packet_for(tunnel, size, number + at, df=tunnel == 4) for at, tunnel in enumerate(tunnels)]
            number += len(packets)
            assert alike(whole, single, runs, packets), name
    assert taken["packets"] > number // 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lease_that_ends_in_a_batch_and_the_numbers_stored(engine: str, taken: Counter[str]) -> None:
    """Manual keys: the numbers in the state are those of packets one at a time, and so is what is asked for."""
    whole, single = (manual(engine) for _ in range(2))
    chance = random.Random(5)
    number = 0
    for _ in range(12):
        tunnels = [chance.choice(range(1, 31)) for _ in range(60)]
        packets = [packet_for(tunnel, 100, number + at) for at, tunnel in enumerate(tunnels)]
        number += len(tunnels)
        alike(whole, single, [(1, tunnel) for tunnel in tunnels], packets)
        assert whole.state.tobytes() == single.state.tobytes()
    assert any(isinstance(message, SaEvent) for message in whole.said)
    assert sorted(map(str, whole.said)) == sorted(map(str, single.said))
    assert whole.drops()["no lease"] > 9
    assert taken["packets"] > 60


def manual(engine: str) -> Controller:
    """A router with 30 tunnels of manual keys, some of them with a short lease."""
    made = [record for record in records() if not isinstance(record, TunnelRecord)]
    templates = {record.number: record for record in records() if isinstance(record, TunnelRecord)}
    for number in range(1, 31):
        economical = is_economical(number)
        made.append(manual_sa(f"m{number}", 100_000 + 20 * number))
        made.append(
            altered(
                templates[ECONOMICAL if economical else CIRCUIT],
                number=number,
                name=f"t{number}",
                circuit=0 if economical else 100 + number,
                entries=(TunnelEntry(10, sa=f"m{number}"),),
                leases=(LeaseRecord(10, start=1, end=12 if number % 5 == 0 else 5000),),
            )
        )
    return Controller(made, slots=128, engine=engine_of(engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_no_number_is_used_twice_when_the_process_ends_while_it_seals(
    engine: str, taken: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    side = manual(engine)
    tunnels = [tunnel for tunnel in range(1, 31) if tunnel % 5]
    runs = tuple([(1, tunnel, 0) for tunnel in tunnels])
    spis: Counter[bytes] = Counter()

    def sent() -> None:
        packets = [packet_for(tunnel, 100, 0) for tunnel in tunnels]
        batch = batch_of(packets, Step.ENCAPSULATE, runs=runs, context=INNER)
        for _, out in side.give(batch):
            spis.update(packet[20:28] for packet in packets_of(out))

    sent()
    sent()
    seal = tunnel_columns.seal_together

    def killed(*arguments: Any) -> None:
        body, lengths = seal(*arguments)
        spis.update(packet[20:28] for packet in packets_of(Batch(Step.EGRESS, bytearray(body), lengths)))
        raise InterruptedError

    monkeypatch.setattr(tunnel_columns, "seal_together", killed)
    with pytest.raises(InterruptedError):
        sent()
    monkeypatch.setattr(tunnel_columns, "seal_together", seal)
    side.start()
    sent()
    sent()
    assert taken["packets"] == 5 * len(tunnels)
    assert max(spis.values()) == 1
