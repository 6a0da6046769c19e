"""Runs of `chassis-launch` by the process that serves this one: what they print, and who ends with whom."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from launch.run_folders import LAB_FILE
from launch.scenario import launcher_run
from launch.scenario.launcher_run import LauncherRun
from tests.support.processes import eventually, lives

WITHIN = 60.0

LAB = """\
name: two
topology:
  nodes:
    t1: {kind: tester, ports: {p: {address: 10.0.0.1/24}}}
    t2: {kind: tester, ports: {p: {address: 10.0.0.2/24}}}
  links:
    - endpoints: ["t1:p", "t2:p"]
"""


def started(folder: Path, *arguments: str) -> LauncherRun:
    places = {"CHASSIS_RUN": str(folder / "r"), "CHASSIS_STATE": str(folder / "s")}
    return LauncherRun(arguments, {**os.environ, **places})


def outcome(folder: Path, *arguments: str) -> tuple[int | None, str]:
    run = started(folder, *arguments)
    try:
        return run.wait(WITHIN), run.output()
    finally:
        run.close()


def running(folder: Path) -> tuple[LauncherRun, int]:
    """A launcher in the foreground of its run, and its process."""
    (folder / "lab.yaml").write_text(LAB)
    run = started(folder, "run", "lab.yaml", "--quiet")
    facts = folder / "r" / "two" / LAB_FILE
    eventually(facts.exists, "the lab runs")
    assert run.wait(0) is None
    return run, json.loads(facts.read_text())["launcher"]


@pytest.fixture
def folder(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(short_folder)
    return short_folder


def test_a_run_is_that_of_its_arguments_its_environment_and_its_folder(folder: Path) -> None:
    (folder / "lab.yaml").write_text("topology: 1\n")
    assert outcome(folder, "list") == (0, "no lab runs\n")
    status, said = outcome(folder, "check", "lab.yaml")
    assert (status, said.startswith("lab.yaml:1:")) == (1, True)
    status, said = outcome(folder, "check", "missing.yaml")
    assert (status, "'missing.yaml' does not exist" in said) == (2, True)


@pytest.mark.multiprocess
def test_a_run_that_is_given_up_is_killed(folder: Path) -> None:
    run, launcher = running(folder)
    run.close()
    eventually(lambda: not lives(launcher), "the launcher is killed")


@pytest.mark.multiprocess
def test_runs_end_with_the_process_that_serves_them_and_the_next_has_another(folder: Path) -> None:
    run, launcher = running(folder)
    serving = launcher_run._launcher._process
    assert serving is not None
    serving.send_signal(signal.SIGKILL)
    assert run.wait(WITHIN) == -1
    run.close()
    eventually(lambda: not lives(launcher), "the launcher is killed")
    assert outcome(folder, "list") == (0, "no lab runs\n")
    assert launcher_run._launcher._process is not serving
