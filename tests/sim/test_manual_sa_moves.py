"""Manual SAs that move to another ASP, context or address: what was recorded before is accepted nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chassis.sim.node import NodeModel, Variant
from chassis.sim.run import simulate
from chassis.xcrp import configuration
from launch.simulate import _marks as marks
from launch.simulate import _second as second
from launch.simulate import model
from tests.support.sim_moves import LAB, TEXT, Moving


def without(asp: str) -> str:
    assert TEXT.count(f"\n  asp {asp}\n") == 1
    return TEXT.replace(f"\n  asp {asp}\n", "\n")


def renamed() -> str:
    assert " outer" in TEXT
    return TEXT.replace(" outer", " outside")


@pytest.mark.parametrize("steps", [
    pytest.param((lambda: without("1/1"), lambda: TEXT, lambda: without("1/2")), id="the ASP leaves its pool"),
    pytest.param((renamed, lambda: TEXT), id="the context is renamed"),
    pytest.param((lambda: renamed().replace("\n  asp 1/2\n", "\n"), lambda: without("1/1")), id="both at once"),
])  # fmt: skip
def test_nothing_that_was_recorded_is_accepted_after_a_move(steps: tuple[Callable[[], str], ...]) -> None:
    moving = Moving()
    homes = []
    for step in steps:
        moving.apply(step())
        assert moving.replay() == ""
        # The tunnels are up, and go on with numbers that were never used.
        moving.traffic()
        moving.run.expect_recovered()
        moving.wait(0.5)
        homes.append(moving.homes())
    assert len({tuple(sorted(home)) for home in homes}) > 1 or steps[0] is renamed


def test_an_asp_that_died_before_its_sas_moved_away_and_back_takes_no_replay() -> None:
    moving = Moving()
    for asp in ("asp 1/1", "asp 1/2"):
        other = "asp 1/2" if asp == "asp 1/1" else "asp 1/1"
        process = moving.b.cards[asp]
        process.stop()
        moving.apply(without(asp.removeprefix("asp ")))
        assert moving.homes() == {other}
        moving.traffic()
        moving.apply(without(other.removeprefix("asp ")))
        assert moving.homes() == {asp}
        moving.wait(2.0)
        assert moving.replay() == ""
        moving.traffic()


def moving_variants(node: NodeModel) -> NodeModel:
    """A router whose commits take an ASP out of the pool or rename a context, one after the other."""
    first = node.variants[0]
    variants = [first]
    for old, new in (("\n  asp 1/1\n", "\n"), ("\n  asp 1/2\n", "\n"), (" outer", " outside")):
        text = first.text.replace(old, new)
        assert text != first.text
        config = configuration.check(text, node.name).config
        variants += [second(config), Variant(text, marks(config))]
    return replace(node, variants=tuple(variants))


@pytest.mark.parametrize("seed", [2, 6])
def test_commits_that_move_sas_pass_under_kills_stops_and_replays(seed: int) -> None:
    lab = model(LAB)
    outcome = simulate(replace(lab, nodes=tuple(map(moving_variants, lab.nodes))), seed, 1.2)
    assert outcome.passed, outcome
    assert outcome.commits >= 5
