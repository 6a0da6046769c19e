"""A traced packet is told whole: every process on its way has answered, or was given up and is named."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chassis.bus.operator import OperatorError
from launch.client.running_lab import RunningLab
from launch.ctl import main
from launch.scenario.boot import load as load_scenario
from launch.scenario.runner import Runner
from tests.support.fake_lab import FakeLab, write_lab

WHOLE = (
    "t1:1 out",
    *("a 3/10 in", "a 1/1 encapsulate", "a 3/11 out"),
    *("b 3/11 in", "b 1/1 decapsulate", "b 3/10 out"),
    "t2:1 in",
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeLab:
    made = FakeLab(write_lab(tmp_path))
    made.slow = True
    return made


def traced(fake: FakeLab) -> None:
    fake.client.start("forward")
    fake.client.wait(0.2)


def test_a_packet_that_arrived_is_whole_though_its_stamps_are_on_their_way(fake: FakeLab) -> None:
    traced(fake)
    paths = fake.client.paths("forward")
    assert len(paths) >= 4
    assert {path.steps for path in paths if path.arrived} == {WHOLE}
    assert fake.client.path("forward") == WHOLE
    assert all(path.complete and not path.given_up for path in paths)


def test_the_cards_are_asked_once_for_each_packet_that_arrived(fake: FakeLab) -> None:
    traced(fake)
    fake.client.paths("forward")
    fake.said.clear()
    assert {path.steps for path in fake.client.paths("forward")} == {WHOLE}
    assert not [said for said in fake.said if said[1] == "traces" and said[2].get("settled")]


@pytest.mark.parametrize(("said", "why"), [
    ({"given_up": {"asp 1/1": "asp 1/1 is down"}}, {"b asp 1/1": "asp 1/1 is down"}),
    ({"since": {"asp 1/1": 2000.0}}, {"b asp 1/1": "asp 1/1 was restarted"}),
    ({"began": 2000.0}, {"b xcrp": "the controller was restarted"}),
    ({"since": {"asp 1/1": 1.0}, "began": 1.0}, {}),
])  # fmt: skip
def test_who_was_given_up_is_named(fake: FakeLab, said: dict[str, Any], why: dict[str, str]) -> None:
    fake.given_up["b"] = said
    traced(fake)
    (path, *_) = fake.client.paths("forward")
    assert path.steps == tuple(step for step in WHOLE if step != "b 1/1 decapsulate")
    assert path.complete
    assert path.given_up == why


def test_a_packet_that_is_on_its_way_is_not_complete(fake: FakeLab) -> None:
    fake.loses = lambda now: True
    traced(fake)
    (path, *_) = fake.client.paths("forward")
    assert (path.steps, path.arrived, path.complete) == (("t1:1 out",), False, False)


def test_an_expectation_that_fails_says_whose_stamps_may_be_missing(tmp_path: Path) -> None:
    text = """
scenario:
  - {do: start forward}
  - {after: 1s, expect: [{flow: forward, via: b asp 1/1}]}
"""
    file = write_lab(tmp_path, text)
    fake = FakeLab(file)
    fake.slow = True
    fake.given_up["b"] = {"given_up": {"asp 1/1": "asp 1/1 is down"}}
    outcome = Runner(fake.client, load_scenario(file)[1]).run()
    (checked,) = outcome.expectations
    assert not checked.passed
    assert "(stamps may be missing of b asp 1/1)" in checked.seen


NO_FURTHER = "not complete: no process has stamped it since"


class Lab:
    """A router between a tester and a Linux node, as `chassisctl` reaches it. One packet is traced."""

    far_end = RunningLab.far_end
    routers = RunningLab.routers

    def __init__(self, last: str, silent: str = "") -> None:
        self.nodes = {"a": {"kind": "smartedge"}, "t": {"kind": "tester"}, "h": {"kind": "linux"}}
        self.links = [["t:1", "a:3/1"], ["a:3/2", "h:eth1"]]
        self.steps = ["3/1 in", last]
        self.silent = silent
        self.asked = 0

    def node(self, name: str, command: str, /, **arguments: Any) -> dict[str, Any]:
        if command == "trace":
            self.asked += 1
            return {"errors": {}}
        if name == "t" or not self.asked:
            return {"traces": []}
        steps = list(self.steps)
        if arguments.get("settled") and not self.silent:
            steps.insert(1, "1/1 encapsulate")
        stamps = [{"step": step, "time": 5.0 + 0.001 * at} for at, step in enumerate(steps)]
        told = {"given_up": {"asp 1/1": self.silent}} if self.silent and arguments.get("settled") else {}
        return {"traces": [{"number": zlib.crc32(b"a") << 31 | 1, "stamps": stamps}], **told}


@pytest.mark.parametrize(("lab", "lines"), [
    (Lab("3/2 out"), ["a 3/1 in", "a 1/1 encapsulate", "a 3/2 out"]),
    (Lab("3/2 out", "no answer in time"),
        ["a 3/1 in", "a 3/2 out", "stamps of a asp 1/1 may be missing: no answer in time"]),
    (Lab("3 circuit 5"), ["a 3/1 in", "a 1/1 encapsulate", "a 3 circuit 5",
        "not complete: no process has stamped it since"]),
])  # fmt: skip
def test_chassisctl_tells_a_packet_whole(lab: Lab, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningLab, "find", classmethod(lambda cls, name: lab))
    said = CliRunner().invoke(main.main, ["trace", "a"])
    assert said.exit_code == 0, said.output
    told = [line.strip().partition(" ms  ")[2] or line.strip() for line in said.output.splitlines()]
    assert told[1:] == lines


def test_chassisctl_says_that_no_packet_came(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(Lab):
        def node(self, name: str, command: str, /, **arguments: Any) -> dict[str, Any]:
            if name == "t":
                raise OperatorError("it is gone")
            return {"errors": {}, "traces": []}

    monkeypatch.setattr(RunningLab, "find", classmethod(lambda cls, name: Empty("")))
    said = CliRunner().invoke(main.main, ["trace", "a", "--wait", "50ms"])
    assert (said.exit_code, "no matching packet in 0.05 s" in said.output) == (1, True)
