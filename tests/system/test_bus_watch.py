"""The bus of a running lab, watched and recorded while its processes die."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chassisctl import chassisctl
from tests.support.lab_files import CALM, MANUAL_KEYS

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory) -> LabClient:
    return shared_lab_factory(MANUAL_KEYS, flows=CALM)


def recorded(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a record that is being written."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")][1:]


def test_the_bus_is_watched_across_the_death_of_its_controller(lab: LabClient, tmp_path: Path) -> None:
    everything, tunnel = tmp_path / "all.jsonl", tmp_path / "tunnel.jsonl"
    watching = chassisctl(lab, "bus", "--record", everything, **PIPES)
    only = ("--tunnel", "circuit", "--type", "TunnelEvent")
    by_name = chassisctl(lab, "bus", "a", *only, "--record", tunnel, **PIPES)
    lab.wait_until(lambda: {line["node"] for line in recorded(everything)} == {"a", "b"}, within=60)
    lab.wait_until(tunnel.exists, within=60)
    lab.kill("a", "xcrp")

    def back() -> bool:
        return all(any("is back" in line.get("note", "") for line in recorded(f)) for f in (everything, tunnel))

    lab.wait_until(back, within=60)
    lab.wait_until("cards of a up", within=60)
    lab.restart("a", "asp 1/1")
    lab.wait_until(lambda: any(line.get("type") == "TunnelEvent" for line in recorded(tunnel)), within=60)
    lab.wait_until("tunnels of a up", within=60)
    for process in (watching, by_name):
        process.send_signal(signal.SIGINT)
    output, told = watching.communicate(timeout=60)
    by_name.communicate(timeout=60)
    assert watching.returncode == 0, told
    assert "a xcrp     -- the controller went away" in told
    assert "a xcrp     -- the controller is back" in told
    # Of the other router nothing is missing, and no key is anywhere.
    lines = recorded(everything)
    assert not any("note" in line for line in lines if line["node"] == "b")
    assert len(output.splitlines()) == sum("note" not in line for line in lines)

    words = ("bus", "--replay", everything, "a", "--card", "asp 1/1", "--engine", "--json")
    replaying = chassisctl(lab, *words, **PIPES)
    answers = [json.loads(line) for line in replaying.communicate(timeout=60)[0].splitlines()]
    assert ("same", "TunnelEvent") in [(answer["what"], answer["type"]) for answer in answers], answers


def test_a_tunnel_and_a_card_that_no_router_has_are_refused(lab: LabClient, tmp_path: Path) -> None:
    for arguments, said in (
        (("--tunnel", "circut"), "no tunnel 'circut'; did you mean 'circuit'?"),
        (("--card", "lc 33"), "no lc 33; there are xcrp, asp 1/1"),
        (("--record", tmp_path / "none" / "x"), "none/x: No such file or directory"),
    ):
        process = chassisctl(lab, "bus", *arguments, **PIPES)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert said in told
