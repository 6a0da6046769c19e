"""A spare ASP takes the place of one that dies or hangs, and keeps it (S-108)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.sim.node import SimNode
from chassis.sim.run import simulate
from launch.simulate import model
from tests.support import CONFIGS
from tests.support.sim_moves import LAB, Moving, changed_lab
from tests.support.sim_shell import RATE, SimShell

ONE_WORKS = ("asp-count 2", "asp-count 1")
"""Changes the lab of the simulator: the ASP 1/1 works for both tunnels, and 1/2 is its spare."""

TWO_ASPS = ("  asp 4/1\n", "  asp 4/1\n  asp 4/2\n")

NEGOTIATED = CONFIGS / "ikev2" / "lab.yaml"

SPARES = CONFIGS / "asp-spares" / "lab.yaml"


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


def test_an_asp_that_may_not_have_ended_can_harm_nobody(manual: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher cannot kill the one that hangs: the spare waits for a while, and goes on then."""
    monkeypatch.setattr(SimNode, "_kill", lambda self, values: None)
    hung = manual.b.cards["asp 1/1"]
    hung.stop()
    manual.wait(3.0)
    assert manual.homes() == {"asp 1/2"}
    assert {row["reason"] for row in manual.ask("status")["tunnels"]} == {
        "SAs not installed: not let go of by asp 1/1 yet"
    }
    manual.wait(1.0)
    assert all(row["up"] for row in manual.ask("status")["tunnels"])
    said = "asp 1/1 is not known to have ended: manual SAs that it had go on with closed windows"
    assert [event["text"] for event in manual.ask("events")["events"]].count(said) == 1
    manual.traffic()
    hung.resume()
    manual.traffic()
    assert manual.replay() == ""
    monkeypatch.undo()
    manual.wait(4.0)
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


def up_at(shell: SimShell) -> dict[str, str]:
    """The ASP of each tunnel of the hub that is up; an on-demand one is while its peer's tunnel is."""
    rows = shell.ask("hub", "tunnels", {"kind": "all", "detail": True})["tunnels"]
    return {row["name"]: row["asp"] for row in rows if row["up"]}


@pytest.mark.behaviour("B-171", "B-202", "B-203")
@pytest.mark.parametrize(("noticed", "resumed"), [(0.0, 0.0), (0.5, 0.4)])
def test_traffic_of_every_path_goes_on_at_the_spare(noticed: float, resumed: float) -> None:
    """The ASP is killed; or it hangs, which is noticed after half a second, and goes on later, before it is killed
    for that."""
    shell = SimShell(SPARES)
    shell.wait_until(shell.tunnels_up)
    shell.send(20)
    at_first = {"Tun-1": "asp 2/1", "Tun-2": "asp 2/2", "branches": "asp 2/1"}
    assert up_at(shell) == at_first
    for tester in shell.testers.values():
        for flow in tester.model.flows:
            tester.burst(flow, RATE, round(5 * RATE))
    shell.pass_time(1.0)
    gone = shell.routers["hub"].cards["asp 2/1"]
    (gone.stop if noticed else gone.kill)()
    shell.pass_time(noticed + 0.1)
    at_the_spare = {"Tun-1": "asp 5/1", "Tun-2": "asp 2/2", "branches": "asp 5/1"}
    shell.pass_time(resumed)
    gone.resume()
    shell.wait_until(lambda: up_at(shell).get("Tun-1") == "asp 5/1", 3.0 - resumed)
    shell.wait_until(lambda: up_at(shell) == at_the_spare, 3.0)
    shell.pass_time(6.0)
    flows = shell.flows()
    # Forward goes by the second tunnel as soon as it is noticed; the others when their ends know.
    assert flows["forward"]["lost"] <= (noticed + 0.02) * RATE
    assert all(flows[name]["lost"] < (noticed + 3.0) * RATE for name in ("reverse", "up", "down"))
    assert {flow["duplicated"] for flow in flows.values()} == {0}
    roles = {row["asp"]: row["role"] for row in shell.ask("hub", "asps", {})["asps"]}
    assert roles == {"2/1": "spare", "2/2": "active", "5/1": "active", "5/2": "spare"}
    # All that was on the wires between the routers, once more: a packet that arrives twice ends the run.
    assert sum(end.replay(1000.0) for end in shell.run.between) > 1000
    shell.pass_time(2.0)
    shell.send(20)
    assert {name: flow["lost"] for name, flow in shell.flows().items()} == {
        name: flow["lost"] for name, flow in flows.items()
    }
    assert up_at(shell) == at_the_spare


def test_schedules_of_faults_pass_with_spares_and_a_peer_that_is_not_known() -> None:
    outcome = simulate(model(SPARES), 3, 0.7)
    assert outcome.passed, outcome
    assert outcome.kills >= 5
