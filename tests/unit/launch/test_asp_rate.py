"""The rate of an ASP, from a lab's file to its processes; and `chassisctl queues`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from chassis.net.rate import Rate
from chassis.xcrp.settings import ControllerSettings
from launch.client.running_lab import RunningLab
from launch.ctl.main import main as chassisctl
from launch.lab.model import RouterNode
from launch.lab.parser import load
from launch.lab.schema import schema
from launch.lab.yaml_source import LabError

LAB = """\
name: n
settings: {asp-rate: 20kpps}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    b: {kind: smartedge, config: a.cfg, settings: {asp-rate: 0}}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "a.cfg").write_text("context local\n")
    file = folder / "lab.yaml"
    file.write_text(text)
    return file


def test_every_router_is_told_its_own(tmp_path: Path) -> None:
    lab, _ = load(written(tmp_path, LAB))
    a, b = lab.nodes["a"], lab.nodes["b"]
    assert isinstance(a, RouterNode)
    assert isinstance(b, RouterNode)
    settings, problems = ControllerSettings.read(a.to_settings())
    assert not problems
    assert settings.cards["asp-rate"] == "20kpps"
    assert "asp-rate" not in ControllerSettings.read(b.to_settings())[0].cards


RIGHT: list[tuple[Any, Rate | None]] = [
    ("50M", Rate(50e6)),
    (64000, Rate(64e3)),
    ("1.5Gbit", Rate(1.5e9)),
    ("100 kbit/s", Rate(1e5)),
    ("20kpps", Rate(2e4, packets=True)),
    ("500 packets/s", Rate(500, packets=True)),
    (0, None),
    ("0pps", None),
]
WRONG = ["fast", "50 parsecs", -1, "pps", True, "-5pps"]


@pytest.mark.parametrize(("value", "rate"), RIGHT, ids=str)
def test_how_a_rate_is_written(value: Any, rate: Rate | None, tmp_path: Path) -> None:
    assert Rate.parse(value) == rate
    assert Draft202012Validator(schema()["$defs"]["settings"] | {"$defs": schema()["$defs"]}).is_valid(
        {"asp-rate": value}
    )
    lab, _ = load(written(tmp_path, LAB.replace("20kpps", str(value))))
    assert (lab.nodes["a"].settings.asp_rate != "") == (rate is not None)


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_rate(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        Rate.parse(value)
    with pytest.raises(LabError, match="asp-rate"):
        load(written(tmp_path, LAB.replace("20kpps", str(value).lower())))
    assert not Draft202012Validator(schema()["$defs"]["settings"] | {"$defs": schema()["$defs"]}).is_valid(
        {"asp-rate": value}
    )
    settings, problems = ControllerSettings.read({"asp-rate": value})
    assert [problem.split(":")[0] for problem in problems] == ["setting asp-rate"]
    assert "asp-rate" not in settings.cards


def _row(waiting: int) -> dict[str, Any]:
    latency = {"avg_ms": 1.0, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0}
    return {"depth": waiting, "peak_depth": 9, "dequeued": 100, "dropped": 4, "latency": latency}


class _Lab:
    def __init__(self, rate: str) -> None:
        self.rate = rate

    def node(self, name: str, command: str, **arguments: Any) -> dict[str, Any]:
        assert (name, command, arguments) == ("a", "queues", {"tunnel": "t1"})
        sa = {"tunnel": 1, "name": "t1", "entry": 10, "queues": {"0": _row(5)}}
        reply = {"rate": self.rate, "depth": 5, "queues": {"0": _row(5)}, "sas": [sa]}
        return {"cards": {"asp 1/1": reply}, "errors": {}}


@pytest.mark.parametrize("rate", ["20000 packets/s", ""])
def test_chassisctl_shows_queues(rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningLab, "find", classmethod(lambda cls, name: _Lab(rate)))
    plain = CliRunner().invoke(chassisctl, ["queues", "a", "--tunnel", "t1"])
    assert plain.exit_code == 0
    rows = [line.split() for line in plain.output.splitlines()]
    counts = ["0", "5", "9", "100", "4", "1.0", "2.0", "3.0"]
    assert rows[0][:3] == ["ASP", "1/1,", "rate:"]
    assert rows[2:] == [["all", *counts], ["t1", "10", *counts]]
    assert ("packets do not wait" in plain.output) == (not rate)
    answer = json.loads(CliRunner().invoke(chassisctl, ["queues", "a", "--tunnel", "t1", "--json"]).output)
    assert answer["cards"]["asp 1/1"]["sas"][0]["queues"]["0"]["latency"]["p99_ms"] == 2.0
