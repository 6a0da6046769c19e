"""What all cards do alike, driven in memory."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.card import HELLO_PART_INTERVAL, HELLO_RETRY_INTERVAL, MAX_INSTANCES_PER_PART, CardBase
from chassis.bus.engine import Connect, Disconnect, Exit, Output, Perform, ToController
from chassis.bus.messages import (
    Delta,
    FromCard,
    Goodbye,
    Heartbeat,
    HeldInstances,
    Hello,
    Reply,
    Request,
    Snapshot,
    TraceStamps,
    Welcome,
)
from chassis.bus.records import CardStateRecord, ContextRecord, Instance, TunnelRecord
from chassis.bus.requests import LINE_CARD
from chassis.model.router import Tunnel

INSTANCE = TunnelRecord(
    number=1,
    config=Tunnel("t"),
    asp="asp 1/1",
    circuit=0,
    home="",
    context=1,
    outer_context=1,
    local=1,
    remote=2,
    queues=0,
    up=True,
    instance=Instance(on_demand=1, identity="p.example", profile="t"),
)
WELCOME = Welcome(5, 10, 0.1, 5, {})


def said(outputs: list[Output]) -> list[FromCard]:
    return [output.message for output in outputs if isinstance(output, ToController)]


def batch(card: str, epoch: int) -> Batch:
    body, lengths = pack([b"x" * 40])
    return Batch(Step.EGRESS, body, lengths, card=card, epoch=epoch)


@pytest.fixture
def card() -> CardBase:
    card = CardBase("lc 3", pid=1, boot=2)
    card.start(0.0)
    (hello,) = said(card.on_connected(0.0))
    assert isinstance(hello, Hello)
    assert (hello.boot, hello.epoch, hello.version) == (2, 0, 0)
    card.receive(WELCOME, 0.0)
    states = (
        CardStateRecord("lc 3", "linecard", 2, 5, True),
        CardStateRecord("asp 1/1", "asp", 4, 7, True),
        CardStateRecord("asp 1/2", "asp", 0, 8, False),
    )
    outputs = card.receive(Snapshot(10, 1, 1, states), 0.0)
    assert Connect("asp 1/1", 4) in outputs
    assert Connect("asp 1/2", 0) not in outputs
    beat = said(outputs)[-1]
    assert isinstance(beat, Heartbeat)
    assert (beat.epoch, beat.version) == (5, 10)
    return card


def test_hello_is_said_again_until_it_is_answered() -> None:
    card = CardBase("lc 3", pid=1, boot=2)
    card.on_connected(0.0)
    assert card.next_timer() == HELLO_RETRY_INTERVAL
    assert isinstance(said(card.on_timer(HELLO_RETRY_INTERVAL))[0], Hello)
    card.receive(WELCOME, 0.6)
    assert card.next_timer() == pytest.approx(0.7)


def test_heartbeats_come_at_the_interval_and_say_how_late(card: CardBase) -> None:
    (beat,) = said(card.on_timer(0.1))
    assert isinstance(beat, Heartbeat)
    assert beat.loop_lag == 0.0
    (beat,) = said(card.on_timer(0.5))
    assert isinstance(beat, Heartbeat)
    assert beat.loop_lag == pytest.approx(0.3)


def test_aligned_heartbeats_come_at_multiples_of_the_interval() -> None:
    cards = [CardBase(name, pid=1, boot=2) for name in ("lc 3", "lc 4")]
    for number, card in enumerate(cards):
        card.aligned = True
        card.on_connected(0.0)
        # Also one that is admitted at such a time does not say it twice.
        card.receive(WELCOME, 0.6 + 0.03 * number)
        assert card.next_timer() == pytest.approx(0.7)
    for card in cards:
        for at, late in ((0.7, 0.0004), (0.8, 0.0), (0.9, 0.04), (1.0, 0.0)):
            assert card.next_timer() == pytest.approx(at)
            assert isinstance(card.heartbeat(at + late), Heartbeat)
        assert card.next_timer() == pytest.approx(1.1)


def test_a_heartbeat_alone_leaves_the_rest_to_the_timer(card: CardBase) -> None:
    assert card.beat_at == card.own_due() == card.next_timer()
    assert card.heartbeat(0.1).version == 10
    assert card.beat_at == pytest.approx(0.2)
    card.add_stamp(replace(batch("asp 1/1", 7), marks=((0, 5),)), "3/1 in", 0.15)
    assert card.own_due() < 0.15
    assert [type(message) for message in said(card.on_timer(0.2))] == [Heartbeat, TraceStamps]


def test_only_batches_of_a_current_epoch_are_taken(card: CardBase) -> None:
    assert card.is_current_sender(batch("asp 1/1", 7))
    assert not card.is_current_sender(batch("asp 1/1", 6))
    assert not card.is_current_sender(batch("asp 9/1", 7))
    assert card.counters.get("drop stale epoch") == 2
    card.receive(Delta(10, 11, (CardStateRecord("asp 1/1", "asp", 4, 9, False),), ()), 0.0)
    assert not card.is_current_sender(batch("asp 1/1", 7))
    assert not card.up["asp 1/1"]


def test_a_closed_connection_takes_the_flag_down_at_once_and_a_new_start_brings_it_back(card: CardBase) -> None:
    assert card.up["asp 1/1"]
    card.on_fabric_peer("asp 1/1", 4, False, 0.0)
    assert not card.up["asp 1/1"]
    card.on_fabric_peer("asp 1/1", 4, True, 0.0)
    assert card.up["asp 1/1"]
    card.on_fabric_peer("asp 1/1", 4, False, 0.0)
    outputs = card.receive(Delta(10, 11, (CardStateRecord("asp 1/1", "asp", 5, 9, True),), ()), 0.0)
    assert Connect("asp 1/1", 5) in outputs
    assert card.up["asp 1/1"]


def test_a_card_that_is_no_more_is_disconnected(card: CardBase) -> None:
    outputs = card.receive(Delta(10, 11, (), (("card", "asp 1/1"),)), 0.0)
    assert Disconnect("asp 1/1") in outputs
    assert not card.is_current_sender(batch("asp 1/1", 7))


def test_a_gap_in_the_deltas_asks_for_a_snapshot(card: CardBase) -> None:
    outputs = card.receive(Delta(11, 12, (ContextRecord(1, "local"),), ()), 0.0)
    assert isinstance(said(outputs)[0], Hello)
    assert card.receive(Delta(12, 13, (), ()), 0.0) == []
    card.receive(Welcome(5, 20, 0.1, 5, {}), 0.1)
    card.receive(Snapshot(20, 1, 1, (CardStateRecord("lc 3", "linecard", 2, 5, True),)), 0.1)
    assert card.replica.version == 20


def test_standing_still_fences_until_the_next_welcome(card: CardBase) -> None:
    assert card.on_stall(0.39, 1.0) == []
    assert card.is_current_sender(batch("asp 1/1", 7))
    (hello,) = said(card.on_stall(0.7, 2.0))
    assert isinstance(hello, Hello)
    assert not card.is_current_sender(batch("asp 1/1", 7))
    assert card.counters.get("drop fenced") == 1
    card.receive(Welcome(6, 20, 0.1, 5, {}), 2.1)
    assert card.is_current_sender(batch("asp 1/1", 7))
    assert card.epoch == 6


def test_an_epoch_raised_without_a_welcome_fences_too(card: CardBase) -> None:
    outputs = card.receive(Delta(10, 11, (CardStateRecord("lc 3", "linecard", 2, 6, False),), ()), 0.0)
    assert isinstance(said(outputs)[0], Hello)
    assert not card.is_current_sender(batch("asp 1/1", 7))


def test_without_a_controller_it_goes_on_with_what_it_holds(card: CardBase) -> None:
    card.on_disconnected(1.0)
    assert card.on_timer(2.0) == []
    assert card.is_current_sender(batch("asp 1/1", 7))
    (hello,) = said(card.on_connected(3.0))
    assert isinstance(hello, Hello)
    assert (hello.epoch, hello.version) == (5, 10)


def test_requests_goodbye_and_stamps(card: CardBase) -> None:
    request = Request(1, "capture-stop", {"what": "fabric", "file": ""})
    card.specs = LINE_CARD
    assert card.receive(request, 0.0) == [Perform(request)]
    (reply,) = said(card.receive(Request(2, "nonsense", {}), 0.0))
    assert isinstance(reply, Reply)
    assert "nonsense" in reply.error
    assert card.receive(Goodbye("no such slot"), 0.0) == [Exit("no such slot")]
    traced = batch("asp 1/1", 7)
    traced.marks = ((0, 99),)
    card.add_stamp(traced, "3/11 out", 0.05)
    assert card.next_timer() < 0
    (stamps,) = said(card.on_timer(0.05))
    assert isinstance(stamps, TraceStamps)
    assert [(stamp.number, stamp.step, stamp.time) for stamp in stamps.stamps] == [(99, "3/11 out", 0.05)]


def test_what_follows_a_hello_is_sent_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    card = CardBase("asp 1/1", pid=1, boot=2)
    held = [replace(INSTANCE, number=number) for number in range(10 * MAX_INSTANCES_PER_PART)]
    monkeypatch.setattr(card, "held_instances", lambda: tuple(held))
    messages = said(card.on_connected(0.0))
    assert [type(message) for message in messages] == [Hello, HeldInstances]
    while card.next_timer() == -inf:
        (part,) = said(card.on_timer(0.0))
        messages.append(part)
    parts = [message for message in messages if isinstance(message, HeldInstances)]
    assert [(part.part, part.parts) for part in parts] == [(number, 10) for number in range(1, 11)]
    assert [record for part in parts for record in part.instances] == held
    # The more it has said, the longer it waits for an answer.
    assert card.next_timer() == pytest.approx(10 * HELLO_PART_INTERVAL)
    card.on_timer(card.next_timer())
    assert card.next_timer() == -inf
    card.on_disconnected(1.1)
    assert card.next_timer() == inf
