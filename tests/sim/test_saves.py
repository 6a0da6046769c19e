"""A controller is killed at any of 36 moments of commits and saves: files and configuration are old or new, and
whole, and nothing that was acknowledged is lost."""

from __future__ import annotations

import re
from typing import Any

from chassis.config.parser import parse
from chassis.config.render import render
from chassis.config.values import HIDDEN_VALUE
from chassis.sim.failpoints import OutputFailpoint
from chassis.sim.lab import Run
from launch.simulate import model
from tests.support import CONFIGS

MODEL = model(CONFIGS / "simulate" / "lab.yaml")
MOMENTS = 36
FILE = ("redback.cfg",)


def marked(text: str, number: int) -> str:
    return f"ipsec security-association mark\n description {number}\n!\n{text}"


class Saving:
    """Router `b` of the lab of the simulator. The numbers mark configurations."""

    def __init__(self) -> None:
        self.run = Run(MODEL, 5)
        self.world = self.run.world
        self.b = next(node for node in self.run.nodes if node.model.name == "b")
        self.run.boot()
        self.wait(4.0)
        self.given: set[str] = set()
        """What files may hold."""
        self.committed = self.saved = 0
        """The last that was acknowledged."""

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def commit(self, number: int) -> None:
        text = marked(self.b.model.variants[0].text, number)
        self.given.add(render(parse(text, "x").config, keys=False))

        def answered(result: dict[str, Any], error: str) -> None:
            assert (result["applied"], error) == (True, "")
            self.committed = number

        self.b.operate("apply", {"text": text}, answered)

    def save(self) -> None:
        def answered(result: dict[str, Any], error: str) -> None:
            assert (result["exists"], error) == (False, "")
            self.saved = number_of(self.b.disk.flash[FILE].decode())

        self.b.operate("save", {"overwrite": True}, answered)

    def number_in_force(self) -> int:
        found: list[int] = []
        self.b.operate("config", {"keys": False}, lambda result, error: found.append(number_of(result["text"])))
        self.wait(1.0)
        return found[0]


def number_of(text: str) -> int:
    return max(
        (int(line.split()[-1]) for line in text.splitlines() if line.startswith(" description ")), default=0
    )


def test_a_kill_at_any_moment_of_a_save_leaves_the_old_or_the_new_file() -> None:
    rig = Saving()
    rig.commit(1)
    rig.wait(1.0)
    rig.save()
    rig.wait(1.0)
    assert (rig.committed, rig.saved) == (1, 1)
    number, cut = 1, 0
    for moment in range(MOMENTS):
        controller = rig.b.controller
        assert controller is not None
        failpoint = OutputFailpoint(controller.engine, moment % 12 + 1, chance=lambda: 0.7)
        controller.engine = failpoint
        for _ in range(7):
            number += 1
            rig.commit(number)
            rig.wait(0.1)
            rig.save()
            rig.wait(0.1)
        cut += failpoint.spent
        if not failpoint.spent:
            controller.kill()
        rig.wait(4.0)
        text = rig.b.disk.flash[FILE].decode()
        assert re.sub(r"encrypted 1 \S+", HIDDEN_VALUE, text) in rig.given
        assert rig.saved <= number_of(text) <= number
        in_force = rig.number_in_force()
        assert rig.committed <= in_force <= number
        assert number_of(text) <= in_force
        rig.committed, rig.saved = in_force, number_of(text)
    assert cut >= 30
