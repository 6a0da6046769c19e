"""The pytest plugin as somebody else's project uses it: in a test run of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab_files import calm

pytestmark = pytest.mark.multiprocess

TESTS = """
import json, os, signal
from pathlib import Path
import pytest

LAB = Path.cwd() / "calm" / "lab.yaml"


def test_kill_and_wait(lab_factory):
    # A lab with a folder and a command beside it.
    for file in LAB.parent.glob("*.cfg"):
        Path(file.name).write_text(file.read_text())
    Path("fl").mkdir(exist_ok=True)
    text = LAB.read_text().replace("config: a.cfg", "config: a.cfg, flash: fl")
    Path("beside.yaml").write_text(text)
    lab = lab_factory(
        "beside.yaml", settings={"restart-delay": "never"}, flows={"circuit-forward": {"rate": 100}}
    )
    assert lab.flow("circuit-forward").rate == 100
    assert lab.boot_ms > 0
    asp = lab.node("a").tunnel("circuit")["asp"]
    lab.wait_until("tunnels up")
    lab.kill("a", asp)
    lab.wait_until("tunnel circuit of a down")
    assert not lab.node("a").card(asp)["usable"]
    lab.wait(1.2)
    assert not lab.check(f"{asp} of a up")[0]
    lab.restart("a", asp)
    lab.wait_until("tunnel circuit of a up")
    Path("passed.json").write_text(json.dumps([str(lab.run), lab.node("a").card("lc 3")["pid"]]))


@pytest.mark.lab(LAB)
def test_that_fails(lab):
    assert lab.check("tunnels down")[0], "tunnels are up"


@pytest.fixture(scope="module")
def shared(shared_lab_factory):
    return shared_lab_factory(LAB)


def test_that_shares(shared):
    Path("shared.json").write_text(json.dumps([str(shared.run), shared.node("a").card("lc 3")["pid"]]))


def test_that_shares_and_fails(shared):
    assert json.loads(Path("shared.json").read_text())[0] == str(shared.run)
    assert shared.check("tunnels down")[0], "tunnels of the shared lab are up"


def test_that_is_killed(lab_factory):
    if "KILL" in os.environ:
        lab = lab_factory(LAB)
        pids = [card["pid"] for node in ("a", "b") for card in lab.node(node).status()["cards"]]
        Path("pids.json").write_text(json.dumps([str(lab.run), pids]))
        os.kill(os.getpid(), signal.SIGKILL)
"""


def run_tests(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(TESTS)
    (folder / "calm").mkdir(exist_ok=True)
    calm(folder / "calm")
    command = (sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *options, "test_theirs.py")
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_labs_of_other_projects(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "-k", "not killed")
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert "tunnels of the shared lab are up" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("logs of lab manual-keys are in ")]
    assert len(lines) == 2
    for line in lines:
        kept = Path(line.split(" are in ")[1])
        assert kept.parent == tmp_path / "build" / "failed-labs"
        assert {"launcher.log", "a.xcrp.log", "lab.json"} <= {file.name for file in kept.iterdir()}
        events = [json.loads(line) for line in (kept / "events.jsonl").read_text().splitlines()]
        assert "asp 1/1 usable" in [event["text"] for event in events if event["node"] == "a"]
    for name in ("passed.json", "shared.json"):
        run, pid = json.loads((tmp_path / name).read_text())
        assert not Path(run).exists()
        assert not Path(f"/proc/{pid}").exists()


def test_a_killed_test_run_leaves_no_process(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "-k", "killed", KILL="1")
    assert done.returncode == -signal.SIGKILL
    run, pids = json.loads((tmp_path / "pids.json").read_text())
    assert len(pids) >= 6
    for pid in pids:
        try:
            ended = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([ended], [], [], 10)[0], f"process {pid} outlives the test run"
        finally:
            os.close(ended)
    # The next run of anybody clears away the folders of this one.
    assert "1 passed" in run_tests(tmp_path, "-k", "shares and not fails").stdout
    assert not Path(run).parents[1].exists()
