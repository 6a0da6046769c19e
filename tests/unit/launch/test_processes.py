"""What the launcher answers a controller about the processes of its node."""

from __future__ import annotations

from typing import Any, cast

import pytest

from launch.supervisor.processes import Processes, ProcessSlot


class Heard:
    """A controller's channel that keeps what was sent."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def send(self, **values: Any) -> None:
        self.said.append(values)


@pytest.mark.parametrize(("boot", "told"), [(3, [{"what": "died", "card": "asp 1/1", "boot": 3}]), (2, [])])
def test_a_controller_that_wants_a_dead_card_killed_hears_that_it_died(boot: int, told: list[Any]) -> None:
    """It ended while no controller ran, and is not started again."""
    nothing = cast("Any", None)
    processes = Processes(nothing, "lab", nothing, {}, {}, lambda *about: None, lambda slot, message: None)
    heard = Heard()
    controller = ProcessSlot("a", "xcrp", "xcrp", boot=9, state="running", channel=cast("Any", heard))
    for slot in (controller, ProcessSlot("a", "asp 1/1", "asp", boot=3)):
        processes.slots["a", slot.card] = slot
    processes._on_message(controller, {"what": "kill", "card": "asp 1/1", "boot": boot, "why": "hung"})
    assert heard.said == told
