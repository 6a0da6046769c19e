"""A tunnel that is parked after every event, and put back for the next one, does what one does that never is: the
same datagrams, octet for octet, at the same times, the same SAs, log lines and counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike.parking import ParkedTunnel
from chassis.ase.ike.unknown_spi import invalid_spi_v1, invalid_spi_v2
from chassis.ase.ike_messages import Configure, FromIke, IkePacket, PeerAlive, SaExpire, ToIke
from chassis.bus.records import PolicyRecord, Record, TunnelRecord
from chassis.model.acl import AclRule
from chassis.model.ike import IkePolicy
from tests.support.ike.pair import (
    CONTEXT,
    NAT,
    TUNNEL,
    A,
    B,
    End,
    Ends,
    EnginePair,
    Trouble,
    esp,
    other,
    proposal,
)

MODES = [(1, "main"), (1, "aggressive"), (2, "main")]
RULES = ((AclRule(10, source=(0x0A010000, 16), destination=(0x0A020000, 16)),),)


class ParkingEngine:
    """An engine of which the tunnel is parked whenever it is at rest."""

    def __init__(self, ike: IkeEngine) -> None:
        self.ike = ike
        self.parked: ParkedTunnel | None = None
        self.count = self.answered = 0
        self.largest = 0
        self._records: tuple[Record, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ike, name)

    def next_timer(self) -> float:
        next_timer = self.ike.next_timer()
        return next_timer if self.parked is None else min(next_timer, self.parked.due)

    def receive(self, message: ToIke, now: float, wall: float) -> list[FromIke]:
        if self.parked is not None and isinstance(message, IkePacket):
            answered = self.ike.parking.answer(self.parked, message, now)
            if answered is not None:
                self.parked, answer = answered
                self.answered += 1
                return [answer]
        self.put_back(now)
        if isinstance(message, Configure):
            own: list[Record] = [one for one in message.put if isinstance(one, TunnelRecord)]
            policies = [one for one in message.put if isinstance(one, PolicyRecord)]
            own += [one for one in policies if isinstance(one.value, IkePolicy)]
            self._records = tuple(own)
        return self._rest(self.ike.receive(message, now, wall))

    def on_timer(self, now: float) -> list[FromIke]:
        if self.parked is not None and self.parked.due <= now:
            self.put_back(now)
        return self._rest(self.ike.on_timer(now))

    def put_back(self, now: float) -> None:
        if self.parked is not None:
            self.ike.parking.put_back(TUNNEL, self.parked, self._records, now)
            self.parked = None

    def _rest(self, outputs: list[FromIke]) -> list[FromIke]:
        if self.parked is not None:
            return outputs
        self.parked = self.ike.parking.park(TUNNEL, [one.key for one in self._records])
        if self.parked is not None:
            self.count += 1
            self.largest = max(self.largest, len(self.parked.data))
            table = self.ike.ike_sa_manager.table
            assert not [one for one in table.by_spi.values() if one.established]
            assert not table.child_owner
            assert not self.ike.connection_manager.by_tunnel
            assert not self.ike.ike_sa_manager.statistics.tunnels
        return outputs


class ParkingPair(EnginePair):
    """Two ends, whose tunnel is parked at each of them."""

    def _end(self, ends: Ends) -> End:
        end = super()._end(ends)
        end.ike = cast(IkeEngine, ParkingEngine(end.ike))
        return end


Scenario = Callable[[EnginePair], None]


def lifetimes(two: EnginePair) -> None:
    """Those of both kinds of SAs end."""
    two.run(1000)


def rekey(two: EnginePair) -> None:
    for end in (two.a, two.b):
        for what in ("ipsec", "ike"):
            two.ask(end, "rekey", what=what)
            two.run(30)


def clear(two: EnginePair) -> None:
    for end in (two.b, two.a):
        for what in ("ike", "ipsec", "all"):
            two.ask(end, "clear", what=what)
            two.run(30)


def kilobytes(two: EnginePair) -> None:
    for end in (two.a, two.b):
        for hard in (False, True):
            newest = list(end.pairs)[-1]
            two.give(end, SaExpire(*newest, hard, "limit of kilobytes"))
            two.run(30)


def hints(two: EnginePair) -> None:
    """Somebody says that the peer has no SA with our SPI; packets of the peer come."""
    for end, there in ((two.a, B), (two.b, A)):
        spi = end.installs[-1].outbound.esp_spi.to_bytes(4, "big")
        for data in (invalid_spi_v1(b"12345678", b"1234", 3, spi), invalid_spi_v2(b"12345678", spi)):
            two.give(end, IkePacket(CONTEXT, end.local, 500, there, 500, data))
            two.run(5)
        two.give(end, PeerAlive((TUNNEL,)))
        two.run(40)


def replays(two: EnginePair) -> None:
    """Everything that was sent comes again."""
    for end, peer in ((two.a, two.b), (two.b, two.a)):
        for one in list(peer.sent):
            two.give(end, IkePacket(CONTEXT, end.local, one.remote_port, peer.local, one.local_port, one.data))
    two.run(30)


def peer_is_silent(two: EnginePair) -> None:
    two.trouble = lambda *_: ()
    two.run(60)
    two.trouble = None
    two.run(70)


SCENARIOS = [lifetimes, rekey, clear, kilobytes, hints, replays, peer_is_silent]


def troubled() -> Trouble:
    """Return a wire that delivers most of what it gets twice, and loses an eighth."""
    random = Random(4)
    return lambda *_: (0.005, 0.02) if random.random() > 0.125 else ()


def played(pair: type[EnginePair], kind: str, scenario: Scenario, ends: Ends) -> EnginePair:
    far = replace(other(ends), connection="responder-only")
    if kind == "nat":
        far = replace(far, remote=NAT)
    wire = troubled() if kind == "troubled" else None
    two = pair(replace(ends, connection="initiator-only"), far, nat=kind == "nat", trouble=wire)
    two.run(20)
    assert two.a.up()
    assert two.b.up()
    scenario(two)
    return two


def seen(end: End) -> tuple[Any, ...]:
    """All that an engine has let out, what it counted, and its IKE SAs."""
    statistics = end.ike.ike_sa_manager.statistics
    return (
        end.sent, end.pairs, end.sending, end.states, end.logs, end.deleted, end.expiring, end.moves,
        statistics.total, statistics.tunnels, [one.describe() for one in end.sessions],
    )  # fmt: skip


@pytest.mark.parametrize(("version", "mode"), MODES)
@pytest.mark.parametrize(
    ("kind", "scenario"),
    [*(("plain", one) for one in SCENARIOS), ("nat", rekey), ("troubled", lifetimes), ("troubled", rekey)],
)
def test_parked_ends_do_what_others_do(version: Any, mode: Any, kind: str, scenario: Scenario) -> None:
    ends = Ends(
        version=version, mode=mode, keepalive=True, rules=RULES, identity_local="a.example",
        identity_remote="b.example", lifetime=900, proposals=(proposal(version, lifetime=900),),
        suites=(esp(seconds=400),),
    )  # fmt: skip
    always, parked = (played(one, kind, scenario, ends) for one in (EnginePair, ParkingPair))
    assert sum(cast(ParkingEngine, end.ike).answered for end in (parked.a, parked.b)) > 0
    for end, same in ((parked.a, always.a), (parked.b, always.b)):
        engine = cast(ParkingEngine, end.ike)
        assert engine.count > 3
        assert engine.largest < 3000
        engine.put_back(parked.now)
        assert seen(end) == seen(same)
