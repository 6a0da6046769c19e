"""A router's disk gets full at any of 30 moments: no acknowledged commit is lost, nothing ends, and it is told."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.sim.lab import Run
from chassis.xcrp.journal import JOURNAL, Journal
from launch.simulate import model
from tests.support import CONFIGS

LAB = CONFIGS / "simulate" / "lab.yaml"
MODEL = model(LAB)

FULL_FOR = 4.0
"""Simulated seconds."""


class Router:
    """Router `b` of the lab of the simulator, whose disk has room for so many writes more."""

    def __init__(self) -> None:
        self.run = Run(MODEL, 3)
        self.world = self.run.world
        self.b = next(node for node in self.run.nodes if node.model.name == "b")
        self.acknowledged = ""
        """The text of the last commit that was."""
        self.refused: list[str] = []

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def boot(self, room: float = float("inf")) -> None:
        self.b.disk.room = room
        self.run.boot()
        self.acknowledged = self.b.model.variants[0].text

    def commit(self, number: int) -> None:
        """Apply one of the two configurations with a description of its own."""
        mark = f"ipsec security-association mark\n description {number}\n!\n"
        text = mark + self.b.model.variants[number % 2].text

        def answered(result: dict[str, Any], error: str) -> None:
            if error:
                self.refused.append(error)
            else:
                assert result["applied"]
                self.acknowledged = text

        self.b.operate("apply", {"text": text, "file": f"{number}.cfg"}, answered)

    def get_room(self) -> None:
        """The disk has room again: everything comes back, with what was acknowledged and no less."""
        self.b.disk.room = float("inf")
        self.wait(6.0)
        for _ in range(2):
            # A controller that starts anew has nothing but what is on disk.
            assert self.b.controller is not None
            assert Journal(self.b.disk.files[JOURNAL]).commits[-1].text == self.acknowledged
            status = self.status()
            assert [card["card"] for card in status["cards"] if not card["usable"]] == []
            assert [tunnel["reason"] for tunnel in status["tunnels"] if not tunnel["up"]] == []
            assert self.b.controller is not None
            self.b.controller.kill()
            self.wait(4.0)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.b.operate("status", {}, lambda result, error: found.update(result))
        self.wait(0.5)
        return found

    def told(self) -> list[str]:
        return [event for event in self.b.events if "No space left on device" in event]


@pytest.mark.parametrize("room", range(10))
def test_full_at_launch(room: int) -> None:
    router = Router()
    router.boot(room)
    router.wait(FULL_FOR)
    assert router.b.disk.refused
    assert router.told()
    router.get_room()


@pytest.mark.parametrize("room", range(10))
def test_full_at_commits(room: int) -> None:
    router = Router()
    router.boot()
    router.wait(4.0)
    router.b.disk.room = room
    for number in range(1, 13):
        router.commit(number)
        router.wait(FULL_FOR / 12)
    assert router.refused
    assert all("No space left on device" in why for why in router.refused)
    assert len(router.told()) >= len(router.refused)
    # What was refused is in force nowhere, what was acknowledged is.
    router.get_room()
    before = router.acknowledged
    router.commit(20)
    router.wait(1.0)
    assert router.acknowledged != before


@pytest.mark.parametrize("room", range(10))
def test_full_at_restarts(room: int) -> None:
    router = Router()
    router.boot()
    router.wait(4.0)
    router.commit(1)
    router.wait(1.0)
    assert "description 1" in router.acknowledged
    router.b.disk.room = room
    for process in [router.b.controller, *router.b.cards.values()]:
        assert process is not None
        process.kill()
    router.wait(FULL_FOR)
    if room < 6:
        assert router.told()
    router.commit(2)
    router.wait(1.0)
    router.get_room()
