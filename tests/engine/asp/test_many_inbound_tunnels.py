"""A batch of outer packets of many tunnels is its packets one at a time: in what leaves, in what is counted and in
what IKE is told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from chassis.ase.ike_messages import IkeTunnelState, NatMappingChanged, SaDelete, SaExpire
from chassis.ase.ipsec import joint_opening
from chassis.ase.ipsec.inbound_table import InboundTable
from chassis.ase.ipsec.select_sa import OuterColumns
from chassis.bus.batch import Step
from chassis.bus.records import TunnelRecord
from tests.engine.asp.test_batches import opened_alike, wire_packets
from tests.support.asp import CIRCUIT, ECONOMICAL, INNER, OUTER, altered, batch_of, packets_of, udp_packet
from tests.support.asp_negotiated import A, B, Side, encapsulated, install, static
from tests.support.cipher_engines import ENGINES, engine_of

TUNNELS = range(3, 63)
"""Every second one is economical."""
KINDS: Sequence[dict[str, Any]] = (
    {},
    {},
    {"kbytes": 4000, "soft_kbytes": 4},
    {"kind": "gcm"},
    {"esn": True},
    {"kind": "gcm", "esn": True},
    {"cpi_out": 2, "cpi_in": 2},
)
"""What protects the tunnels, in turn. Some SAs have a soft limit of octets."""
INSIDE = (("50.0.0.1", "60.0.0.1"), ("52.0.0.1", "62.0.0.1"))


def router(engine: str, *, there: bool, nat: bool) -> Side:
    made = static(there=there, mtu=1400)
    templates = {record.number: record for record in made if isinstance(record, TunnelRecord)}
    for number in TUNNELS:
        economical = number % 2 == 0
        name = {"number": number, "circuit": 0 if economical else 100 + number, "name": f"t{number}"}
        made.append(altered(templates[ECONOMICAL if economical else CIRCUIT], **name))
    side = Side(made, engine=engine_of(engine))
    for number in TUNNELS:
        udp = encapsulated(A if there else B) if nat else ()
        side.ike(install(number, 1, there=there, encapsulation=udp, **KINDS[number % len(KINDS)]))
        side.ike(IkeTunnelState(number, True, ""))
    return side


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many SAs had packets that were opened together, and how many batches had such packets."""
    counts: Counter[str] = Counter()
    finish = joint_opening._finish

    def finished(
        outer: OuterColumns, opening: joint_opening._Begun, table: InboundTable
    ) -> joint_opening.Opened | None:
        result = finish(outer, opening, table)
        counts["batches"] += 1
        counts["sas"] += len(result.packets.sas) if result is not None and result.packets is not None else 0
        return result

    monkeypatch.setattr(joint_opening, "_finish", finished)
    return counts


@pytest.mark.parametrize("nat", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_packets_of_many_tunnels_open_as_one_at_a_time(engine: str, nat: bool, joint: Counter[str]) -> None:
    chance = random.Random(17)
    left = router(engine, there=False, nat=nat)
    right, right_twin = (router(engine, there=True, nat=nat) for _ in range(2))
    number = total = came = 0
    for hostile in (False, False, True, False, True, False, False):
        packets, runs = [], []
        size = chance.choice((64, 64, 300, 0))
        for at in range(chance.choice((70, 160, 250))):
            tunnel = TUNNELS[at % len(TUNNELS)] if chance.random() < 0.8 else chance.choice(TUNNELS)
            number += 1
            packets.append(
                udp_packet(*INSIDE[tunnel % 2 == 0], size or chance.randrange(40, 1300), ttl=9, number=number)
            )
            runs.append((1, tunnel, 0))
        sent = left.give(batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), context=INNER, ingress="3/1"))
        outer = [packet for _, batch in sent for packet in packets_of(batch)]
        wire = _turns(outer, 28 if nat else 20)
        if hostile:
            wire = wire_packets(chance, wire)
        elif chance.random() < 0.5:
            at = chance.randrange(len(wire))
            wire[at : at + 1] = [wire[at][:-1] + bytes((wire[at][-1] ^ 1,)), wire[at], wire[at]]
        came += opened_alike(right, right_twin, wire)
        total += len(wire)
        if hostile:
            for side in (right, right_twin):
                side.ike(SaDelete(TUNNELS[5], 1, "test"), install(TUNNELS[5], 2, there=True))
            left.ike(SaDelete(TUNNELS[5], 1, "test"), install(TUNNELS[5], 2, there=False))
    assert came > total * 2 // 3
    assert joint["batches"] >= 5
    assert joint["sas"] > 10 * joint["batches"], joint


def _turns(packets: Sequence[bytes], at: int) -> list[bytes]:
    """The packets of each SA in their order, in turn."""
    queues: dict[bytes, list[bytes]] = {}
    for packet in packets:
        queues.setdefault(packet[at : at + 4], []).append(packet)
    mixed: list[bytes] = []
    while any(queues.values()):
        mixed += [queue.pop(0) for queue in queues.values() if queue]
    return mixed


def test_ike_is_told_of_limits_and_peers_of_many_tunnels(joint: Counter[str]) -> None:
    left, right = (router("cryptography", there=there, nat=False) for there in (False, True))
    told: list[object] = []
    for turn in range(12):
        packets = [udp_packet(*INSIDE[tunnel % 2 == 0], 500, number=turn) for tunnel in (*TUNNELS, *TUNNELS)]
        runs = tuple([(1, tunnel, 0) for tunnel in (*TUNNELS, *TUNNELS)])
        sent = left.give(batch_of(packets, Step.ENCAPSULATE, runs=runs, context=INNER))
        outer = [packet for _, batch in sent for packet in packets_of(batch)]
        right.open(batch_of(outer, Step.DECAPSULATE, context=OUTER))
        told += right.told(SaExpire)
    limited = [number for number in TUNNELS if "soft_kbytes" in KINDS[number % len(KINDS)]]
    assert sorted([one.tunnel for one in told if isinstance(one, SaExpire)]) == limited, "each once"
    assert not right.told(NatMappingChanged)
    assert joint["sas"] > 12 * 20
