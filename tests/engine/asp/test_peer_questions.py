"""What IKE asks the controller about peers of on-demand tunnels, through the data engine."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

from chassis.ase.ike_messages import Configure
from chassis.bus.engine import ToIke
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion
from chassis.bus.records import Instance, Record, TunnelRecord
from chassis.bus.replication import MAX_RECORDS_PER_SLICE
from tests.support.asp import CIRCUIT
from tests.support.asp_negotiated import Side, sides, static

INSTANCES = 4_000


def question(number: int) -> PeerQuestion:
    return PeerQuestion(number, "admit", 50, f"p{number}.example", 1, 2, 500)


def reconnected(side: Side) -> list[int]:
    """The numbers of the questions that a controller hears that comes back."""
    side.take(side.asp.on_disconnected(side.now))
    side.heard(PeerQuestion)
    side.take(side.asp.on_connected(side.now))
    side.admit()
    return [one.number for one in side.heard(PeerQuestion)]


def test_what_a_controller_has_not_answered_is_asked_again() -> None:
    """A question that is asked while it is away is lost: the peer would wait until its negotiation ends."""
    side, _ = sides()
    side.ike(*map(question, (1, 2, 3)))
    assert [one.number for one in side.heard(PeerQuestion)] == [1, 2, 3]
    answer = PeerAnswer(2, tunnel=9)
    assert side.asp.receive(answer, side.now) == [ToIke(answer)]
    assert reconnected(side) == [1, 3]
    side.ike(PeerDropped(3, 0, "gone"))
    assert reconnected(side) == [1]
    # A new IKE process asks anew.
    side.asp.ike_connected(side.now)
    assert reconnected(side) == []


def instances() -> list[Record]:
    """Peers of one ASP."""
    made = static()
    tunnel = next(one for one in made if isinstance(one, TunnelRecord) and one.number == CIRCUIT)
    for number in range(1_000, 1_000 + INSTANCES):
        peer = Instance(on_demand=50, identity=f"p{number}.example", profile="T")
        made.append(replace(tunnel, number=number, remote=tunnel.remote + number, instance=peer))
    return made


def test_thousands_of_peers_come_in_slices_and_an_answer_behind_them() -> None:
    side, _ = sides()
    side.told(Configure)
    for record in instances():
        side.publisher.put(record)
    ((_, delta),) = side.publisher.flush()
    side.take(side.asp.receive(delta, side.now))
    # The answer about the last of them follows its record.
    answer = PeerAnswer(1, tunnel=999 + INSTANCES)
    side.take(side.asp.receive(answer, side.now))
    turns = [len(side.asp.tunnels.local)]
    while side.asp.next_timer() == -inf:
        side.take(side.asp.on_timer(side.now))
        turns.append(len(side.asp.tunnels.local))
        side.now += 0.01
    assert max(after - before for before, after in pairwise(turns)) <= MAX_RECORDS_PER_SLICE
    configured = [one for one in side.to_ike if isinstance(one, Configure)]
    assert max(len(one.put) for one in configured) <= MAX_RECORDS_PER_SLICE
    assert sum(len(one.put) for one in configured) == INSTANCES
    assert side.to_ike.index(answer) > side.to_ike.index(configured[-1])
    assert len(side.asp.held_instances()) == INSTANCES
