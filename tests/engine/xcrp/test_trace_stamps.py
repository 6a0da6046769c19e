"""Stamps of traced packets: told at once, or when every card has said what it stamped or was given up."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.batch import Batch, Step, pack
from tests.support.xcrp import Node, booted


@pytest.fixture
def node() -> Node:
    return booted()


def pass_by(node: Node, card: str, step: str, number: int = 7) -> None:
    """A card stamps a packet and sends it on; its report has not gone out yet."""
    body, lengths = pack([b"x" * 40])
    node.cards[card].add_stamp(Batch(Step.INGRESS, body, lengths, marks=((0, number),)), step, node.now)


def steps(answer: dict[str, Any]) -> list[str]:
    return [stamp["step"] for trace in answer["traces"] for stamp in trace["stamps"]]


def test_settled_traces_have_what_no_card_had_reported(node: Node) -> None:
    pass_by(node, "lc 3", "3/1 in")
    pass_by(node, "asp 2/1", "2/1 encapsulate")
    assert steps(node.ask("traces")) == []
    answer = node.ask("traces", settled=True)
    assert sorted(steps(answer)) == ["2/1 encapsulate", "3/1 in"]
    assert answer["given_up"] == {}
    assert answer["began"] < node.now
    assert answer["since"].keys() == node.cards.keys()
    # Each was said once.
    assert len(steps(node.ask("traces", settled=True))) == 2


def test_a_dead_card_is_given_up_and_its_next_start_says_since_when(node: Node) -> None:
    pass_by(node, "asp 2/1", "2/1 encapsulate")
    node.kill_card("asp 2/1")
    answer = node.ask("traces", settled=True)
    assert steps(answer) == []
    assert answer["given_up"] == {"asp 2/1": "asp 2/1 is absent"}
    died = node.now
    node.run(0.5)
    node.start_card("asp 2/1")
    node.run(0.2)
    answer = node.ask("traces", settled=True)
    assert answer["given_up"] == {}
    assert answer["since"]["asp 2/1"] > died > answer["since"]["lc 3"]


def test_a_card_that_hangs_is_waited_for_until_it_is_given_up(node: Node) -> None:
    assert node.controller is not None
    pass_by(node, "lc 3", "3/1 in")
    node.stop_card("asp 2/1")
    before = len(node.answers)
    node.perform(node.controller.on_operator_command(78, "traces", {"settled": True}, node.now))
    assert len(node.answers) == before
    node.run(3.0)
    (answer,) = [answer for answer in node.answers[before:] if answer.number == 78]
    assert steps(answer.result) == ["3/1 in"]
    assert list(answer.result["given_up"]) == ["asp 2/1"]


def test_a_new_controller_says_since_when_it_knows_anything(node: Node) -> None:
    pass_by(node, "lc 3", "3/1 in")
    node.ask("traces", settled=True)
    sent = node.now
    node.kill_controller()
    node.run(0.5)
    node.start()
    node.run(1.0)
    answer = node.ask("traces", settled=True)
    assert answer["traces"] == []
    assert answer["began"] > sent
    # The cards are those that they were.
    assert answer["since"] == {}
