"""The shipped labs of negotiated tunnels pass by `chassis-launch test`, and operators' commands reach IKE."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import CONFIGS

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

CONFIGS = CONFIGS


def _charon() -> None:
    if not Path("/usr/lib/ipsec/charon").exists() or shutil.which("swanctl") is None:
        why = "strongswan-charon and strongswan-swanctl are not installed"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


PROVES = {
    "site-to-site": ("B-151", "B-223"),
    "ikev2": ("B-225",),
    "high-availability": ("B-226",),
    "asp-spares": ("B-171", "B-202", "B-203"),
    "hub-and-spoke": ("B-007", "B-008", "B-091", "B-154"),
    "on-demand": (
        "B-014",
        "B-016",
        "B-043",
        "B-155",
        "B-156",
        "B-157",
        "B-160",
        "B-164",
        "B-171",
        "B-175",
    ),
    "strongswan": (),
}
"""The guide's statements that a shipped lab shows."""


@pytest.mark.parametrize(
    "lab", [pytest.param(lab, marks=pytest.mark.behaviour(*names)) for lab, names in PROVES.items()]
)
def test_the_scenario_of_a_shipped_lab_holds(lab: str, tmp_path: Path) -> None:
    if lab == "strongswan":
        _charon()
    file = CONFIGS / lab / "lab.yaml"
    command = (sys.executable, "-c", "from launch.main import main; main()", "test", str(file))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_operators_clear_rekey_and_see_what_ike_made(lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory("configs/site-to-site/lab.yaml")
    lab.wait_until("tunnels up")
    row = lab.node("a").tunnel("rec_1_1")
    assert (row["kind"], row["ike_version"], row["identity"]) == ("static", 1, "20.1.0.2")
    lab.wait_until(lambda: lab.node("a").tunnel("rec_1_1")["sas"])

    def serials() -> set[int]:
        return {sa["serial"] for sa in lab.node("a").tunnel("rec_1_1")["sas"] if sa["direction"] == "out"}

    before = serials()
    assert lab.ask("a", "rekey", {"tunnel": "rec_1_1"})["errors"] == {}
    lab.wait_until(lambda: serials() - before)
    before = serials()
    assert lab.ask("b", "clear", {"tunnel": "rec_2_1"})["errors"] == {}
    lab.wait_until(lambda: serials() and not serials() & before)
    lab.wait_until("tunnels up")
    seen = lab.ask("a", "ike", {})["cards"]["asp 1/1"]["tunnels"]
    assert [tunnel["name"] for tunnel in seen] == ["rec_1_1"]
    assert lab.ask("a", "ike", {"what": "statistics"})["cards"]["asp 1/1"]["total"]
    (key,) = {row["kind"] for row in lab.ask("a", "keys", {})["cards"]["asp 1/1"]["keys"]}
    assert key == "ikev1"
