"""The controller is killed in 75 moments of commits: the old or the new configuration, whole, and never an
acknowledged one lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chassis.bus.records import TunnelRecord
from chassis.sim.failpoints import OutputFailpoint
from chassis.sim.lab import Run
from chassis.sim.node import CardProcess
from chassis.xcrp.journal import JOURNAL, Journal
from launch.simulate import model
from tests.support import CONFIGS

MODEL = model(CONFIGS / "simulate" / "lab.yaml")
ROUNDS = 3
MOMENTS = 5
"""Of each way to be killed, in each of the rounds; there are five ways."""

MINUTE = 60.0
BACK = 8.0
"""Simulated seconds in which a controller is back and everything is up."""


class Killed:
    """Router `b` of the lab of the simulator. Each commit gives both tunnels another MTU, the same to both."""

    def __init__(self, seed: int) -> None:
        self.run = Run(MODEL, seed)
        self.world = self.run.world
        self.b = next(node for node in self.run.nodes if node.model.name == "b")
        self.b.on_replicated = self.whole
        self.mtu = 1300
        self.acknowledged = 0
        """Version of the last commit that was."""
        self.confirmed = False
        """Whether the confirmation was acknowledged."""
        self.draw = self.world.random
        self.run.boot()
        self.wait(4.0)
        self.commit(self.mtu)
        self.wait(1.0)
        assert self.acknowledged == 2

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def wait_until(self, deadline: float, before: float) -> None:
        """Wait until so many seconds before a time of the day."""
        self.wait(deadline - self.controller.engine.state.history.wall_offset - self.world.now - before)

    @property
    def controller(self) -> Any:
        assert self.b.controller is not None
        return self.b.controller

    def whole(self, card: CardProcess) -> None:
        records = card.engine.replica.records.values()
        mtus = {record.config.mtu for record in records if isinstance(record, TunnelRecord)}
        assert len(mtus) <= 1, f"{card.name} holds half a commit"

    def commit(self, mtu: int, confirm: int = 0, lines: str | None = None) -> None:
        """Begin one; nobody waits for its answer."""
        if lines is None:
            lines = "".join(f"tunnel ipsec {name}\nmtu {mtu}\n" for name in ("circuit", "economical"))

        def answered(result: dict[str, Any], error: str) -> None:
            assert not error
            assert result["applied"]
            self.acknowledged = result["version"]
            self.confirmed = result["confirmed"] > 0

        arguments = {"lines": lines, "user": "ann", "confirm": confirm}
        self.b.operate("commit", arguments, answered)

    def kill_soon(self, moment: int) -> None:
        """After so many outputs of the next call that has some, or a little later between two calls."""
        if moment % 2:
            self.controller.engine = OutputFailpoint(self.controller.engine, moment // 2, chance=self.draw.random)
            self.wait(0.3)
        else:
            self.wait(0.006 * self.draw.random())
        if self.b.controller is not None:
            self.controller.kill()
        self.wait(BACK)

    def found(self) -> int:
        """The MTU in force, which is that of all records, configuration and journal."""
        engine = self.controller.engine
        held = {tunnel.mtu for tunnel in engine.state.config.tunnels.values()}
        [mtu] = held
        assert {record.config.mtu for record in engine.node.publisher.records.values()
                if isinstance(record, TunnelRecord)} == held  # fmt: skip
        for card in self.b.cards.values():
            records = card.engine.replica.records.values()
            assert {record.config.mtu for record in records if isinstance(record, TunnelRecord)} <= held
        assert all(state.up for state in engine.node.tunnels.values())
        journal = Journal(self.b.disk.files[JOURNAL])
        assert not journal.problems
        assert journal.version == engine.state.journal.version
        assert journal.version >= self.acknowledged, "an acknowledged commit is lost"
        return int(mtu)

    # the ways

    def during_a_commit(self, moment: int) -> None:
        old, new = self.mtu, self.mtu + 1
        before = self.acknowledged
        self.commit(new)
        self.kill_soon(moment)
        self.mtu = self.found()
        assert self.mtu == new if self.acknowledged > before else self.mtu in (old, new)
        self.acknowledged = self.controller.engine.state.journal.version

    def during_a_commit_confirmed(self, moment: int) -> None:
        old, new = self.mtu, self.mtu + 1
        before = self.acknowledged
        self.commit(new, confirm=1)
        self.kill_soon(moment)
        assert self.found() == new if self.acknowledged > before else self.found() in (old, new)
        self.wait(MINUTE)
        assert self.found() == old

    def begin_confirmed(self) -> tuple[int, int]:
        """A commit that waits to be confirmed; the MTU before and the MTU now."""
        old, new = self.mtu, self.mtu + 1
        self.commit(new, confirm=1)
        self.wait(1.0)
        assert self.found() == new
        return old, new

    def during_the_confirmation(self, moment: int) -> None:
        old, new = self.begin_confirmed()
        self.confirmed = False
        self.commit(0, lines="")
        self.kill_soon(moment)
        assert self.found() == new
        waits = self.controller.engine.state.journal.waiting is not None
        assert not (waits and self.confirmed), "an acknowledged confirmation is lost"
        self.wait(MINUTE)
        self.mtu = self.found()
        assert self.mtu == (old if waits else new)

    def while_it_is_undone(self, moment: int) -> None:
        old, _ = self.begin_confirmed()
        waiting = self.controller.engine.state.journal.waiting
        self.wait_until(waiting.deadline, 0.003 * self.draw.random())
        self.kill_soon(moment)
        assert self.found() == old
        self.wait(MINUTE)
        assert self.found() == old

    def until_it_is_too_late(self, moment: int) -> None:
        """Killed before, and not back in time."""
        old, new = self.begin_confirmed()
        waiting = self.controller.engine.state.journal.waiting
        self.wait_until(waiting.deadline, 0.01 * (moment + 1))
        assert self.found() == new
        self.controller.kill()
        self.wait(BACK)
        assert self.found() == old


WAYS: tuple[Callable[[Killed, int], None], ...] = (
    Killed.during_a_commit,
    Killed.during_a_commit_confirmed,
    Killed.during_the_confirmation,
    Killed.while_it_is_undone,
    Killed.until_it_is_too_late,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed(way: Callable[[Killed, int], None], seed: int) -> None:
    router = Killed(seed)
    for moment in range(MOMENTS):
        way(router, moment + MOMENTS * (seed % 2))
