"""Manual SAs that move by a commit, under real processes: what was recorded on the wire is accepted no more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import CONFIGS

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

LAB = "configs/manual-keys/lab.yaml"
TEXT = (CONFIGS / "manual-keys" / "b.cfg").read_text()
PACKETS = 150
FLOWS = ("circuit-forward", "economical-forward")
WIRE = "b:3/12"

pytestmark = pytest.mark.multiprocess


def refused(lab: LabClient) -> int:
    """Packets that an ASP of `b` dropped because it had them before, or may have."""
    found = [lab.counters("b", asp) for asp in ("asp 1/1", "asp 1/2")]
    return sum(
        counts.get(f"drop {cause}", 0) for counts in found for cause in ("outside replay window", "replayed")
    )


def again(lab: LabClient) -> int:
    """Packets that a tester received twice."""
    return sum(int(lab.report(flow)["duplicated"]) for flow in FLOWS)


def run(lab: LabClient) -> None:
    """So many packets of each flow, which all arrive."""
    wanted = {flow: lab.report(flow)["received"] + PACKETS for flow in FLOWS}
    lab.start(*FLOWS, count=PACKETS)
    for flow, received in wanted.items():
        lab.wait_until(lambda flow=flow, received=received: lab.report(flow)["received"] == received)


def test_recorded_packets_are_refused_when_the_asp_left_its_pool_or_the_context_has_another_name(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB)
    lab.wait_until(lambda: all(lab.report(flow)["received"] for flow in FLOWS))
    lab.stop()
    lab.drain()
    record = lab.capture("b", "port 3/12", tmp_path / "recorded.pcapng")
    run(lab)
    lab.capture_stop("b", "port 3/12", record)
    for text in (
        TEXT.replace("\n  asp 1/1\n", "\n"),
        TEXT.replace("\n  asp 1/2\n", "\n"),
        TEXT.replace(" wan\n", " outside\n"),
    ):
        assert text != TEXT
        assert lab.apply("b", text)["applied"]
        lab.wait_until("tunnels up")
        dropped = refused(lab)
        injected = lab.inject(WIRE, record)
        assert injected >= PACKETS * len(FLOWS)
        # Each of them is refused, or reaches the tester once more.
        lab.wait_until(lambda dropped=dropped: refused(lab) - dropped + again(lab) >= PACKETS * len(FLOWS))
        assert again(lab) == 0, "replays were accepted"
    # The tunnels go on with numbers that were never used.
    run(lab)
