"""Packets of many SAs in one batch: opened together they give what they give one at a time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from chassis.ase.ipsec import joint_opening
from chassis.ase.ipsec.algorithms import CIPHERS
from chassis.ase.ipsec.inbound_table import InboundTable
from chassis.ase.ipsec.sa import InboundSa
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.select_sa import OuterColumns
from chassis.ase.ipsec.spd import Rule
from chassis.ase.ipsec.state import SaStateFile, octets_for
from tests.support.cipher_engines import ENGINES, engine_of
from tests.support.ipsec import LEFT, RIGHT, esp, inner
from tests.unit.ase.ipsec.test_packet_columns import (
    PORTS,
    SIZES,
    SUITES,
    Sealer,
    clear_packet,
    compare,
    on_the_wire,
    opened,
    payload,
)

ALONE = ("null", "null, extended numbers", "no integrity")
"""Suites whose packets are not opened together with those of other SAs."""
SAS = 40
"""SAs of a receiver. The first two are of one tunnel."""


class Receivers:
    """Two databases with the same SAs, of one suite or of several, and what seals for them."""

    def __init__(self, engine: str, suites: Sequence[str], chance: random.Random, *, udp: bool) -> None:
        self.states = [memoryview(bytearray(octets_for(2 * SAS))) for _ in range(2)]
        self.engine = engine
        self.sas: list[InboundSa] = []
        self.sealers: list[Sealer] = []
        for serial in range(SAS):
            (cipher, integrity), esn = SUITES[suites[serial % len(suites)]]
            use = esp(cipher, integrity, 0x1001 + serial)
            self.sealers.append(Sealer(use, esn, udp=udp))
            self.sas.append(
                InboundSa(
                    max(serial, 1),
                    serial,
                    LEFT,
                    RIGHT,
                    esp=use,
                    esn=esn,
                    negotiated=esn,
                    window=chance.choice((32, 64, 128)),
                    selectors=PORTS if serial % 3 == 0 else (Rule(17), Rule(6)) if serial % 3 == 1 else (),
                    udp=udp,
                )
            )
        self.sadbs = [self.restarted(index) for index in range(2)]

    def restarted(self, index: int) -> Sadb:
        sadb = Sadb(SaStateFile(self.states[index], salt=1), engine=engine_of(self.engine))
        for sa in self.sas:
            sadb.install_inbound(sa)
        return sadb


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was opened together."""
    counts: Counter[str] = Counter()
    finish = joint_opening._finish

    def finished(
        outer: OuterColumns, opening: joint_opening._Begun, table: InboundTable
    ) -> joint_opening.Opened | None:
        result = finish(outer, opening, table)
        sas = 0 if result is None else (len(result.packets.sas) if result.packets else 0) + len(result.odd)
        counts["batches"] += 1
        counts["forged"] += sas < len(opening.packets.sas)
        if result is not None:
            counts["odd"] += bool(result.odd)
            counts["all ordinary"] += not result.odd
            counts["one length"] += result.runs is not None and result.runs.inner.total > 0
            counts["several lengths"] += result.runs is not None and not result.runs.inner.total
        return result

    monkeypatch.setattr(joint_opening, "_finish", finished)
    return counts


def sealed(
    chance: random.Random, ends: Receivers, numbers: list[int], sizes: Sequence[int], odd: float
) -> list[bytes]:
    """Packets of all SAs: of most a few, in turn, of some many."""
    sent: list[bytes] = []
    favourite = chance.randrange(SAS)
    for at in range(chance.choice((30, 60, 120, 200))):
        which = favourite if chance.random() < 0.2 else at % SAS
        numbers[which] += 1 if chance.random() < 0.95 else chance.randrange(1, 99)
        clear = clear_packet(chance, sizes, odd)
        block = max(CIPHERS[ends.sealers[which].use.cipher].block_octets, 4)
        service = chance.choice((0, 0xB8))
        sent.append(ends.sealers[which].packet(numbers[which], payload(chance, clear, block, odd), service))
    return sent


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "suites", [*[(suite,) for suite in SUITES if suite not in ALONE], ("aes", "gcm"), tuple(SUITES)], ids=", ".join
)
def test_packets_of_many_sas_open_as_one_at_a_time(
    suites: tuple[str, ...], engine: str, joint: Counter[str]
) -> None:
    chance = random.Random(str(suites))
    total = came = 0
    for index, sizes in enumerate(SIZES.values()):
        ends = Receivers(engine, suites, chance, udp=index % 2 > 0)
        numbers = [0] * SAS
        earlier: list[bytes] = []
        for odd in (0.0, 0.02, 0.005, 0.2, 0.0, 0.02, 0.0, 0.005):
            sent = sealed(chance, ends, numbers, sizes, odd)
            wire = on_the_wire(chance, sent, earlier, odd)
            earlier = sent
            if chance.random() < 0.4:
                at = chance.randrange(len(wire))
                wire[at] = wire[at][:-1] + bytes((wire[at][-1] ^ 1,))
            came += compare(*ends.sadbs, wire)
            total += len(wire)
        if not any(sa.esn for sa in ends.sas):
            assert windows(ends.sadbs[0]) == windows(ends.sadbs[1]) == windows(ends.restarted(0))
    assert came > total // 2
    for what in ("batches", "forged", "odd", "all ordinary", "one length", "several lengths"):
        assert joint[what] or len(suites) == len(SUITES), (what, joint)


def windows(sadb: Sadb) -> list[tuple[int, int]]:
    return [(sa.receiver.edge, sa.receiver._bitmap) for sa in sadb.inbound.values() if sa.receiver is not None]


def test_windows_of_many_sas_are_stored(joint: Counter[str]) -> None:
    chance = random.Random(4)
    ends = Receivers("cryptography", ("aes",), chance, udp=False)
    numbers = [0] * SAS
    wire: list[bytes] = []
    for _ in range(5):
        for _ in range(120):
            which = chance.randrange(SAS)
            numbers[which] += chance.choice((1, 1, 2, 70))
            wire.append(ends.sealers[which].packet(numbers[which], payload(chance, inner(100), 16, 0.0)))
    for at in range(0, len(wire), 120):
        opened(ends.sadbs[0], wire[at : at + 120])
    assert joint["batches"] == 5
    for packet in wire:
        opened(ends.sadbs[1], [packet])
    assert windows(ends.sadbs[0]) == windows(ends.sadbs[1]) == windows(ends.restarted(0))
    assert opened(ends.restarted(0), wire)[0] == {}


def test_a_kill_between_the_stores_of_windows_leaves_the_old_ones(joint: Counter[str]) -> None:
    """The words that say which copies are valid are stored last."""
    chance = random.Random(8)
    ends = Receivers("cryptography", ("aes",), chance, udp=False)
    numbers = [0] * SAS
    kept: list[list[tuple[int, int]]] = []
    octets: list[bytes] = []
    for _ in range(2):
        opened(
            ends.sadbs[0], sealed(chance, ends, numbers, (100,), 0.0) + sealed(chance, ends, numbers, (100,), 0.0)
        )
        kept.append(windows(ends.sadbs[0]))
        octets.append(bytes(ends.states[0]))
    assert joint["batches"] == 2
    words = [memoryview(one).cast("Q") for one in octets]
    cut = memoryview(bytearray(octets[1])).cast("Q")
    selectors = set(range(8 + 4, len(cut), 40))
    changed = [at for at in selectors if words[0][at] != words[1][at]]
    assert len(changed) > SAS // 2
    for at in changed:
        cut[at] = words[0][at]
    ends.states[0] = cut.cast("B")
    found = windows(ends.restarted(0))
    moved = [index for index, window in enumerate(found) if window != kept[1][index]]
    assert [found[index] for index in moved] == [kept[0][index] for index in moved]
    assert len(moved) == len(changed)
