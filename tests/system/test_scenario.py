"""`chassis-launch test`: a user's scenario passes, and one with a wrong expectation says what was seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.multiprocess

LAB = Path(__file__).parent / "takeover.yaml"


def chassis_test(lab: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", "from launch.main import main; main()", "test", str(lab), *options)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_scenario_that_holds_passes(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    done = chassis_test(LAB, tmp_path, "--json", "--junit", str(junit))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["passed"] is True
    assert all(expectation["passed"] for expectation in result["expectations"])
    assert len(result["expectations"]) == 9
    assert 0 < result["boot_ms"] < 30_000
    flow = result["flows"]["forward"]
    assert flow["sent"] == flow["received"] + flow["lost"] > 1000
    assert flow["loss_ms"] == pytest.approx(flow["lost"])
    # A killed ASP may have handed a traced packet on, and taken its own stamp of it along.
    ways = {step for path in flow["paths"] for step in path if "encapsulate" in step}
    assert ways == {"ha 2/1 encapsulate", "ha 2/2 encapsulate"}
    texts = [event["text"] for event in result["events"]]
    assert "kill ha asp 2/1" in texts
    assert any("died" in text for text in texts)
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("9", "0")
    assert not (tmp_path / "build" / "failed-labs").exists()


def test_a_wrong_expectation_fails_and_says_what_was_seen(tmp_path: Path) -> None:
    text = LAB.read_text().replace("../../", f"{LAB.parents[2]}/")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        text.replace("lost: 20..300, since: lossy, until: clean", "lost: 0, since: lossy, until: clean")
    )
    done = chassis_test(wrong, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    at = next(index for index, line in enumerate(lines) if "FAIL" in line)
    assert lines[at].split(maxsplit=1)[1] == "flow: forward, lost: 0, since: lossy, until: clean"
    assert lines[at + 1].strip().startswith("seen: lost: ")
    assert "1 of 9 expectations failed" in lines
    kept = Path(tmp_path, lines[-1].removeprefix("logs and captures are in "))
    names = {file.name for file in kept.iterdir()}
    assert {"result.json", "launcher.log", "ha.asp2-1.log", "ha.3-11.pcapng", "wrong.yaml"} <= names
    assert json.loads((kept / "result.json").read_text())["passed"] is False


def test_a_wrong_file_starts_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = LAB.read_text().replace("../../", f"{LAB.parents[2]}/").replace("do: kill ha", "do: kill he")
    wrong.write_text(text)
    line = 1 + text[: text.index("do: kill he")].count("\n")
    done = chassis_test(wrong, tmp_path)
    assert done.returncode == 2
    assert f"wrong.yaml:{line}:10: error" in done.stderr
    assert "'he' is not a router of the lab; routers: ha, gateway" in done.stderr
