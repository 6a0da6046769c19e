"""What IKE asks the controller about peers of on-demand tunnels, through the data engine."""

from __future__ import annotations

from chassis.bus.engine import ToIke
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion
from tests.support.asp_negotiated import Side, sides


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
