"""Thousands of generated requests for a controller: each is answered, nothing raises, the bus carries it."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToOperator
from chassis.bus.requests import CONTROLLER
from tests.support import odd
from tests.support.xcrp import HIGH_AVAILABILITY, booted

OPEN = {name: spec for name, spec in CONTROLLER.items() if name != "bus"}
"""What the engine answers; `bus` is its process's."""


def test_the_table_names_every_command() -> None:
    controller = booted().controller
    assert controller is not None
    assert {*controller._operators._commands, "bus"} == CONTROLLER.keys()


@pytest.mark.parametrize("seed", range(4))
def test_generated_requests(seed: int) -> None:
    node = booted()
    controller = node.controller
    assert controller is not None
    before = len(controller.state.journal.commits)
    for number, (name, arguments) in enumerate(odd.requests(OPEN, 1500, seed, odd.RAW), 1):
        about = (name, arguments)
        answered = len(node.answers)
        outputs = odd.survived(controller.on_operator_command, number, name, arguments, node.now, about=about)
        assert odd.asked(odd.carried(outputs, about)), about
        odd.survived(node.perform, outputs, about=about)
        node.run(0.01)
        for answer in node.answers[answered:]:
            odd.carried([answer], about)
        if not node.cards:
            # An empty configuration was applied.
            node.ask("apply", text=HIGH_AVAILABILITY)
            for card, _ in controller.cards():
                node.start_card(card)
            node.run(0.3)
    node.run(30.0)
    assert {answer.number for answer in node.answers if answer.last} >= set(range(1, 1501))
    assert isinstance(controller.on_operator_command(0, "status", {}, node.now)[-1], ToOperator)
    # Texts that are no configuration were refused; every one that was taken can be read again.
    assert len(controller.state.journal.commits) >= before
    node.kill_controller()
    odd.survived(node.start)
    assert node.controller is not None
    assert node.controller.state.journal.commits
