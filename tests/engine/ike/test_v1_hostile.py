"""IKEv1 sessions and what a hostile or broken peer sends: in clear, and inside messages that it encrypted."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from chassis.ase.ike.connection import Line
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import IvChain
from chassis.ase.ike.payloads.header import Header
from tests.support.ike.v1_pair import FakeHost, V1Pair, connection, suite


def mutated(dice: Random, data: bytes, start: int = 0) -> bytes:
    """A few octets changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(start, max(len(changed), start + 1))
        kind = dice.random()
        if kind < 0.7 and at < len(changed):
            changed[at] = dice.choice((0, 1, 255, dice.randrange(256)))
        elif kind < 0.85:
            del changed[at : at + dice.randint(1, 8)]
        else:
            changed[at:at] = dice.randbytes(dice.randint(1, 8))
    if len(changed) >= 28:
        changed[24:28] = len(changed).to_bytes(4, "big")
    return bytes(changed)


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("seed", range(30))
def test_messages_that_were_changed_in_clear(mode: str, seed: int) -> None:
    """Each message comes with changed ones before and after it; nothing is raised, and SAs that stand stay."""
    dice = Random(seed)
    line = Line(10, "i", (suite(ah="hmac-sha1-96", group=2, ip_comp=True, seconds=300),), (), 64)
    pair = V1Pair(connection(mode=mode, lines=[line]), seed=seed)
    pair.establish()
    assert pair.both_ways()

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        forged = [(dice.uniform(0.0, 0.1), mutated(dice, data, 8)) for _ in range(4) if len(data) > 28]
        return [(0.05, data), *[(at, one) for at, one in forged if len(one) >= 28]]

    pair.wire = wire
    session = pair.a.session
    pair.run(700)
    assert pair.both_ways()
    assert pair.a.session is session
    assert "failed" not in [event[0] for event in pair.b.events]
    # Beginning anew among forgeries may fail, never with more than a refusal.
    for _ in range(10):
        pair.b.begin()
        pair.run(3)


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("seed", range(30))
def test_messages_that_a_peer_encrypted(mode: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is inside is changed before it is encrypted, and every HASH of phase 2 counts as right."""
    dice = Random(seed)
    troubled = [False]
    seal = IvChain.encrypt_plain

    def sealing(self: IvChain, header: Header, first: int, plain: bytes) -> tuple[bytes, IvChain]:
        if troubled[0] and dice.random() < 0.5:
            plain = mutated(dice, plain)
        return seal(self, header, first, plain)

    monkeypatch.setattr(IvChain, "encrypt_plain", sealing)
    monkeypatch.setattr(ikev1, "equal", lambda one, other: True)
    one = connection(mode=mode, keepalive=True)
    pair = V1Pair(one, seed=seed)
    troubled[0] = True
    for _ in range(6):
        pair.a.begin()
        pair.run(40)
        for host in (pair.a, pair.b):
            if host.standing:
                host.session.negotiate(host.connections[0].lines[0], 0, pair.now)
        pair.run(40)
    troubled[0] = False
    for host in (pair.a, pair.b):
        for session in list(host.sessions):
            session.close("enough", pair.now, tell=False)
        assert not host.installed_pairs
        assert not host.owners
        assert not host.spis_out
    pair.run(60)
    pair.establish(10)
    assert pair.both_ways()


def test_a_flood_of_quick_modes_is_bounded() -> None:
    """A peer that is who it says may still be broken: it cannot make us hold pairs without bound."""
    pair = V1Pair(connection())
    pair.establish()
    line = pair.a.connections[0].lines[0]
    for _ in range(400):
        pair.a.session.negotiate(line, 0, pair.now)
        pair.run(0.1)
        assert len(pair.b.installed_pairs) <= 260
    pair.run(100)
    assert len(pair.b.installed_pairs) == 1
    assert pair.both_ways()
    pair.settled()


def test_rekeying_again_and_again_keeps_one_sa() -> None:
    pair = V1Pair(connection())
    pair.establish()
    for _ in range(20):
        pair.a.session.rekey(pair.now)
        pair.run(0.5)
        pair.b.session.rekey(pair.now)
        pair.run(0.5)
        assert pair.both_ways()
    pair.run(30)
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    assert pair.both_ways()
    pair.settled()
