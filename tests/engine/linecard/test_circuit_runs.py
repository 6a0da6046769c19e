"""Packets of several circuits in one batch: the same packets leave, counted alike, as if each run came alone."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.records import CircuitRecord
from chassis.fwd import rewrite
from chassis.net.address import parse_address as ip
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import PROTOCOL_ESP, PROTOCOL_ICMP, Ipv4
from tests.support.linecard import CIRCUIT, GATEWAY, HOST, INNER, OUTER, RECORDS, Rig

CIRCUITS = (CIRCUIT, 18, 19)
UNKNOWN = 20


def _rig() -> Rig:
    more = [
        CircuitRecord(number=number, kind="tunnel", card="lc 3", context=INNER, interface="if", tunnel=number)
        for number in CIRCUITS
    ]
    rig = Rig((*RECORDS, *more))
    return rig.knows("3/1", "10.0.0.9", HOST).knows("3/1", "10.0.0.5", HOST).knows("3/11", "20.0.0.9", GATEWAY)


def _runs(random: Random, step: Step) -> Batch:
    """A batch of runs; some have packets that do not leave by a port, or an unknown circuit."""
    usual = random.choice((True, True, False))
    circuits = CIRCUITS if usual else (*CIRCUITS, UNKNOWN)
    runs = tuple((random.randrange(1, 30), 0, random.choice(circuits)) for _ in range(random.randrange(2, 12)))
    inward = step is Step.CIRCUIT_IN
    near = ("10.0.0.5", "10.9.1.1", "5.1.1.1") if inward else ("6.6.6.1", "6.6.6.2")
    odd = ("30.0.0.1", "31.0.0.1", "200.1.1.1", "10.0.0.1")
    sizes = [random.randrange(300) for _ in range(random.choice((1, 3)))] + [] if usual else [20, 1600]
    packets = [
        Ipv4(
            ip("5.5.5.1" if not inward else "30.0.0.9"),
            ip(random.choice(near if usual or random.random() < 0.9 else odd)),
            17 if inward else PROTOCOL_ESP,
            random.randbytes(random.choice(sizes)),
            ttl=64 if usual else random.choice((1, 64)),
            identification=random.randrange(65536),
        ).emit()
        for _ in range(sum(packets for packets, _, _ in runs))
    ]
    body, lengths = pack(packets, HEADROOM)
    return Batch(step, body, lengths, "asp 1/1", 6, context=INNER if inward else OUTER, runs=runs)


def _seen(rig: Rig, batches: list[Batch]) -> tuple[dict[str, int], dict[tuple[object, ...], list[bytes]]]:
    """Counters, and what left, in its order for each flow and way out; ICMP errors are in any order."""
    rig.do([output for batch in batches for output in rig.card.receive_batch(batch, rig.now)])
    left: dict[tuple[object, ...], list[bytes]] = defaultdict(list)
    for name, frame in rig.wire():
        left[name, frame[:HEADROOM], frame[26:34]].append(frame)
    for name, batch in rig.fabric():
        for packet in batch.packets():
            left[name, batch.step, batch.tunnel or batch.runs, bytes(packet[26:34])].append(bytes(packet))
    for packets in left.values():
        if packets[0][HEADROOM + 9] == PROTOCOL_ICMP:
            packets.sort()
    return dict(rig.card.counters.items()), left


@pytest.mark.parametrize("step", [Step.CIRCUIT_OUT, Step.CIRCUIT_IN])
@pytest.mark.parametrize("least", [1, 1 << 16])
def test_runs_together_do_what_each_does_alone(monkeypatch: pytest.MonkeyPatch, step: Step, least: int) -> None:
    monkeypatch.setattr(rewrite, "MIN_PACKETS", least)
    for seed in range(40):
        together = _runs(Random(seed), step)
        alone = _runs(Random(seed), step).split_runs()
        wanted = _seen(_rig(), [*alone])
        assert _seen(_rig(), [together]) == wanted, seed


def test_circuits_that_come_and_go_are_counted_apart() -> None:
    """The row of a circuit that is gone is another's later; that of an instance gives its counters back."""
    random, rig, counted = Random(1), _rig(), dict[int, list[int]]()

    def circuit(number: int) -> CircuitRecord:
        temporary = number % 2 == 0
        return CircuitRecord(
            number=number,
            kind="tunnel",
            card="lc 3",
            context=INNER,
            interface="if",
            tunnel=number,
            temporary=temporary,
        )

    here: set[int] = set()
    for _ in range(60):
        gone = {number for number in here if random.random() < 0.2}
        new = {number for number in range(100, 200) if number not in here and random.random() < 0.2}
        rig.delta(*map(circuit, new), delete=[circuit(number).key for number in gone])
        here = (here | new) - gone
        for number in gone:
            if number % 2 == 0:
                counted.pop(number, None)
        runs = tuple((random.randrange(1, 4), 0, random.choice(sorted(here))) for _ in range(20))
        packets = [
            Ipv4(ip("30.0.0.9"), ip("10.0.0.5"), 17, bytes(random.choice((8, 8, 40)))).emit()
            for _ in range(sum(packets for packets, _, _ in runs))
        ]
        body, lengths = pack(packets, HEADROOM)
        batch = Batch(Step.CIRCUIT_IN, body, lengths, "asp 1/1", 6, context=INNER, runs=runs)
        rig.do(rig.card.receive_batch(batch, rig.now))
        at = 0
        for count, _, number in runs:
            row = counted.setdefault(number, [0, 0])
            row[0] += count
            row[1] += sum(map(len, packets[at : at + count]))
            at += count
        for number in here:
            totals = rig.card.circuits.own[number].totals()
            assert [totals["packets_in"], totals["octets_in"]] == counted.get(number, [0, 0])
