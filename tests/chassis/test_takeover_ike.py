"""Negotiated tunnels: the preferred ASP dies under flows both ways, and is back with new SAs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lab_wire as wire
import pytest
from lab_bounds import within

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory
    from launch.scenario_lab import LabClient

LAB = "configs/high-availability/lab.yaml"
ROUNDS = 10
DPD_INTERVAL = 0.2
DPD_TRIES = 3
RESTART = 1.0
"""Seconds after which the launcher starts a dead card again (S-112)."""
NEGOTIATION = 0.6
"""Seconds that a process and its negotiation may take before its INITIAL-CONTACT is known."""

pytestmark = pytest.mark.multiprocess


@pytest.mark.behaviour("B-199", "B-201", "B-202", "B-203")
@pytest.mark.alone
def test_the_second_tunnel_takes_over_until_the_first_is_negotiated_anew(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB)
    captures = [lab.capture("ha", f"port 3/{port}", tmp_path / f"{port}.pcapng") for port in (11, 12)]
    lab.wait_until("tunnels up")
    lab.wait_until("flow forward via ha asp 2/1")
    lab.wait_until("flow reverse via ha asp 2/1")
    forward, reverse, back = [], [], []
    for _ in range(ROUNDS):
        boot = lab.node("ha").card("asp 2/1")["boot"]
        killed = lab.kill("ha", "asp 2/1")
        lab.wait_until(lambda killed=killed: _took(lab, "forward", "ha 2/2 protect", killed))
        lab.wait_until(lambda boot=boot: _stands(lab, boot))
        started = lab.clock()
        lab.wait_until("tunnel Tun-1 of ha up")
        lab.wait_until(lambda started=started: _took(lab, "forward", "ha 2/1 protect", started))
        back.append((lab.clock() - started) * 1000)
        lab.wait_until(lambda started=started: _took(lab, "reverse", "ha 2/1 open", started))
        settled = lab.clock()
        lab.wait_until(lambda settled=settled: lab.clock() > settled + 0.3)
        forward.append(lab.report("forward", since=killed - 0.05, until=killed + RESTART / 2)["window_loss_ms"])
        reverse.append(lab.report("reverse", since=killed - 0.05, until=settled)["window_loss_ms"])
    for flow in ("forward", "reverse"):
        report = lab.report(flow)
        assert report["corrupted"] == report["duplicated"] == 0
    for port, file in zip((11, 12), captures, strict=True):
        lab.capture_stop("ha", f"port 3/{port}", file)
        assert len(list(wire.packets(file))) > 1000
        assert wire.used_twice(file) == []
    assert not any(lab.leaks(node) for node in ("t1", "t2"))
    within("forward loss when the preferred ASP is killed", forward, 50)
    within("the preferred path is back after its ASP stands again", back, 2000)
    # The gateway notices by its own questions, or by the restarted ASP's INITIAL-CONTACT.
    bound = 1000 * min(DPD_INTERVAL * (1 + DPD_TRIES), RESTART + NEGOTIATION) + 300
    within("reverse loss until the gateway knows", reverse, bound)


def _took(lab: LabClient, flow: str, step: str, since: float) -> bool:
    """Whether a traced packet of a flow that was sent since then arrived by way of this step."""
    return any(step in path.steps for path in lab.paths(flow, since) if path.arrived)


def _stands(lab: LabClient, boot: int) -> bool:
    """Whether a later start of the preferred ASP is admitted."""
    card = lab.node("ha").card("asp 2/1")
    return bool(card["boot"] > boot and card["usable"])
