"""A spare ASP takes the place of one that dies or hangs, and keeps it (S-108)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.sim.run import simulate
from launch.simulate import model
from tests.support import CONFIGS
from tests.support.sim_moves import LAB, Moving, changed_lab

ONE_WORKS = ("asp-count 2", "asp-count 1")
"""Changes the lab of the simulator: the ASP 1/1 works for both tunnels, and 1/2 is its spare."""

TWO_ASPS = ("  asp 4/1\n", "  asp 4/1\n  asp 4/2\n")

NEGOTIATED = CONFIGS / "ikev2" / "lab.yaml"


@pytest.fixture
def manual(tmp_path: Path) -> Moving:
    return Moving(changed_lab(tmp_path / "lab", LAB, b=ONE_WORKS))


def test_a_spare_takes_the_place_of_a_dead_asp_and_keeps_it(manual: Moving) -> None:
    assert manual.homes() == {"asp 1/1"}
    manual.b.cards["asp 1/1"].kill()
    manual.wait(0.3)
    assert manual.homes() == {"asp 1/2"}
    manual.traffic()
    manual.wait(3.0)
    manual.run.expect_recovered()
    assert manual.homes() == {"asp 1/2"}
    assert manual.replay() == ""
    manual.traffic()


def test_the_one_that_returned_is_the_spare_of_the_other(manual: Moving) -> None:
    for gone, other in (("asp 1/1", "asp 1/2"), ("asp 1/2", "asp 1/1"), ("asp 1/1", "asp 1/2")):
        assert manual.homes() == {gone}
        manual.b.cards[gone].kill()
        manual.wait(3.0)
        assert manual.homes() == {other}
        assert manual.replay() == ""
        manual.traffic()


@pytest.mark.parametrize("seconds", [0.55, 0.9, 2.5])
def test_an_asp_that_hangs_and_goes_on_after_the_move_is_the_spare(manual: Moving, seconds: float) -> None:
    """Its successor may wait until it is known to be gone, and accepts nothing that was recorded before."""
    hung = manual.b.cards["asp 1/1"]
    hung.stop()
    manual.wait(seconds)
    assert manual.homes() == {"asp 1/2"}
    hung.resume()
    manual.wait(3.0)
    manual.run.expect_recovered()
    assert manual.homes() == {"asp 1/2"}
    assert manual.replay() == ""
    manual.traffic()


def test_a_controller_that_restarts_knows_who_took_the_place(manual: Moving) -> None:
    manual.b.cards["asp 1/1"].kill()
    manual.wait(3.0)
    assert manual.b.controller is not None
    manual.b.controller.kill()
    manual.wait(3.0)
    assert manual.homes() == {"asp 1/2"}
    assert manual.replay() == ""
    manual.traffic()


def test_a_controller_that_dies_with_the_asp_gives_its_place_away_or_back(manual: Moving) -> None:
    assert manual.b.controller is not None
    manual.b.controller.kill()
    manual.b.cards["asp 1/1"].kill()
    manual.wait(5.0)
    assert len(manual.homes()) == 1
    manual.run.expect_recovered()
    assert manual.replay() == ""
    manual.traffic()


@pytest.mark.parametrize("seed", [1, 2])
def test_schedules_of_faults_pass_where_both_routers_have_a_spare(tmp_path: Path, seed: int) -> None:
    lab = model(changed_lab(tmp_path / "lab", LAB, a=ONE_WORKS, b=ONE_WORKS))
    outcome = simulate(lab, seed, 1.2)
    assert outcome.passed, outcome
    assert outcome.kills >= 5


@pytest.mark.parametrize(("end", "noticed"), [("kill", 0.0), ("stop", 0.5)])
def test_a_negotiated_tunnel_comes_up_at_the_spare_within_three_seconds(
    tmp_path: Path, end: str, noticed: float
) -> None:
    """Three seconds after the end was noticed: an ASP that hangs misses its heartbeats first."""
    moving = Moving(changed_lab(tmp_path / "lab", NEGOTIATED, b=TWO_ASPS))
    assert moving.homes() == {"asp 4/1"}
    gone = moving.b.cards["asp 4/1"]
    getattr(gone, end)()
    moving.wait(noticed + 2.6)
    (tunnel,) = moving.ask("status")["tunnels"]
    assert (tunnel["asp"], tunnel["up"]) == ("asp 4/2", True)
    moving.traffic()
    gone.resume()
    moving.wait(2.0)
    moving.run.expect_recovered()
    moving.traffic()
    assert moving.homes() == {"asp 4/2"}


def test_schedules_of_faults_pass_with_negotiated_tunnels(tmp_path: Path) -> None:
    outcome = simulate(model(changed_lab(tmp_path / "lab", NEGOTIATED, b=TWO_ASPS)), 6, 0.7)
    assert outcome.passed, outcome
    assert outcome.kills >= 5
