"""A scenario against a lab in memory: what happens, what is seen, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from chassis.bus.operator import OperatorError
from launch.client.lab_client import LabTimeout
from launch.lab.yaml_source import LabError
from launch.scenario import report
from launch.scenario.boot import load as load_scenario
from launch.scenario.runner import Runner, ScenarioOutcome
from tests.support.fake_lab import FakeLab, write_lab

SCENARIO = """\
scenario:
  - {when: tunnels up, within: 5s, do: start forward}
  - {at: 2s, do: kill a asp 1/1, as: killed}
  - {after: 1s, do: restart a asp 1/1, as: back}
  - {after: 1s, expect: [tunnels up]}
"""


def run(fake: FakeLab, path: Path) -> ScenarioOutcome:
    return Runner(fake.client, load_scenario(path)[1]).run()


def prepared(folder: Path, expect: str, scenario: str = SCENARIO) -> tuple[FakeLab, Path]:
    path = write_lab(folder, scenario + "expect:\n" + expect)
    fake = FakeLab(path)
    for node in ("a", "b"):
        fake.at(0.5, lambda node=node: fake.tunnel(node, True))  # type: ignore[misc]
    return fake, path


def test_a_run_that_holds(tmp_path: Path) -> None:
    fake, path = prepared(
        tmp_path,
        """\
  - {flow: forward, loss: 20ms..40ms, since: killed, until: back}
  - {flow: forward, lost: 0, since: back}
  - {flow: forward, longest-gap: < 50ms, duplicated: 0, reordered: 0, corrupted: 0}
  - {flow: forward, via: [a asp 1/1, b asp 1/1], not-via: a asp 1/2}
  - {tunnel: t1, of: a, state: up, asp: asp 1/1}
  - {card: asp 1/1, of: b, boot: 1}
  - {unexpected: 0}
  - tunnels up
  - {run: "test $CHASSIS_LAB = two && echo yes", output: yes}
""",
    )
    fake.loses = lambda now: 1002.0 <= now < 1002.03
    outcome = run(fake, path)
    assert [checked for checked in outcome.expectations if not checked.passed] == []
    assert outcome.passed
    assert len(outcome.expectations) == 10
    flow = outcome.flows["forward"]
    assert flow["sent"] == flow["received"] + flow["lost"]
    assert flow["lost"] == pytest.approx(30, abs=2)
    assert flow["loss_ms"] == pytest.approx(30, abs=2)
    assert flow["paths"] == [
        [*("t1:1 out", "a 3/10 in", "a 1/1 encapsulate", "a 3/11 out"),
            *("b 3/11 in", "b 1/1 decapsulate", "b 3/10 out", "t2:1 in")],
    ]  # fmt: skip
    assert ("", "kill", {"node": "a", "card": "asp 1/1"}) in fake.said
    texts = [event["text"] for event in outcome.events]
    assert "kill a asp 1/1" in texts
    times = [event["time"] for event in outcome.events]
    assert times == sorted(times)
    killed = next(event["time"] for event in outcome.events if event["text"] == "kill a asp 1/1")
    assert killed == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize(("expectation", "seen"), [
    ("{flow: forward, lost: 0}", "lost: 3"),
    ("{flow: forward, loss: < 10ms}", "loss: 3"),
    ("{flow: forward, via: a asp 1/2}", "a 1/1 encapsulate"),
    ('{flow: forward, path: ["t1:1 out"]}', "path: t1:1 out, a 3/10 in"),
    ("{tunnel: t1, of: a, state: down}", "a: state: up"),
    ("{tunnel: t9, state: up}", "no tunnel t9"),
    ("{card: asp 1/1, of: a, boot: 2}", "boot: 1"),
    ("tunnel t1 of a down", "tunnel t1 of a is up on asp 1/1"),
    ("{unexpected: '> 0'}", "none"),
    ("{run: 'echo no; exit 3'}", "status 3, output 'no'"),
    ("{run: 'echo no', output: yes}", "'no'"),
    ("{flow: forward, received: 1}", "received: "),
])  # fmt: skip
def test_a_failed_expectation_says_what_was_seen(tmp_path: Path, expectation: str, seen: str) -> None:
    fake, path = prepared(tmp_path, f"  - {expectation}\n")
    fake.loses = lambda now: 1002.0 <= now < 1002.03
    outcome = run(fake, path)
    assert not outcome.passed
    assert [checked.passed for checked in outcome.expectations] == [True, False]
    assert seen in outcome.expectations[1].seen
    text = "\n".join(report.as_text(outcome))
    assert "FAIL" in text
    assert "1 of 2 expectations failed" in text


def test_a_wait_that_ends_without_its_condition_fails_and_says_why(tmp_path: Path) -> None:
    path = write_lab(tmp_path, SCENARIO + "expect:\n  - {flow: forward, lost: 0, since: killed}\n")
    fake = FakeLab(path)
    outcome = run(fake, path)
    assert not outcome.passed
    first, second = outcome.expectations
    assert first.expect == "step 1 is done: when tunnels up within 5 s; start forward"
    assert "tunnel t1 of a is down: no route" in first.seen
    assert second.seen == "the step 'killed' was not reached"
    assert fake.now == pytest.approx(1005, abs=1)


def test_a_refused_configuration_fails_its_step(tmp_path: Path) -> None:
    path = write_lab(tmp_path, "scenario:\n  - apply a b.cfg\n")
    (tmp_path / "b.cfg").write_text("wrong\n")
    outcome = run(FakeLab(path), path)
    assert not outcome.passed
    assert "refused: no such command" in outcome.expectations[0].seen


def test_a_failed_shell_command_fails_its_step(tmp_path: Path) -> None:
    path = write_lab(tmp_path, "scenario:\n  - run echo sorry && false\n")
    outcome = run(FakeLab(path), path)
    assert "ended with 1: sorry" in outcome.expectations[0].seen


def test_an_expectation_may_take_its_time(tmp_path: Path) -> None:
    path = write_lab(tmp_path, "expect:\n  - {condition: tunnels up, within: 3s}\n")
    fake = FakeLab(path)
    for node in ("a", "b"):
        fake.at(2.0, lambda node=node: fake.tunnel(node, True))  # type: ignore[misc]
    assert run(fake, path).passed


def test_links_and_cards_are_asked_of_the_right_ones(tmp_path: Path) -> None:
    faults = "[link a:3/11 down, link t1:1 loss 1%, stop b asp 1/2]"
    path = write_lab(tmp_path, f"scenario:\n  - do: {faults}\n  - {{do: [start all, stop all]}}\n")
    fake = FakeLab(path)
    assert run(fake, path).passed
    said = [entry for entry in fake.said if entry[1] in ("link", "stop", "start")]
    assert said[:5] == [
        ("a", "link", {"port": "3/11", "down": True}),
        ("b", "link", {"port": "3/12", "down": True}),
        ("t1", "link", {"port": "1", "loss": 0.01}),
        ("", "stop", {"node": "b", "card": "asp 1/2"}),
        ("t1", "start", {"flow": "forward"}),
    ]


def test_json_has_what_is_promised(tmp_path: Path) -> None:
    fake, path = prepared(tmp_path, "  - {flow: forward, lost: 0}\n")
    outcome = run(fake, path)
    outcome.boot_ms = 812.34
    result = json.loads(report.as_json(outcome))
    assert result.keys() == {"passed", "boot_ms", "expectations", "flows", "events"}
    assert result["passed"] is True
    assert result["boot_ms"] == 812.3
    assert result["expectations"][1].keys() == {"expect", "seen", "passed"}
    assert result["flows"]["forward"].keys() >= {
        *("sent", "received", "lost", "loss_ms", "longest_gap_ms", "duplicated", "reordered", "paths")
    }


def test_junit_has_a_case_for_each_expectation(tmp_path: Path) -> None:
    fake, path = prepared(tmp_path, "  - {flow: forward, lost: 5}\n  - {run: 'printf \"\\\\001\"', output: yes}\n")
    outcome = run(fake, path)
    target = tmp_path / "deep" / "junit.xml"
    report.write_junit(outcome, "two", "lab.yaml", 4.5, target)
    suite = ElementTree.parse(target).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    assert [case.find("failure") is not None for case in suite] == [False, True, True]
    failure = suite[1].find("failure")
    assert failure is not None
    assert "seen: lost: 0 packets" in (failure.text or "")


def test_waiting_for_a_function_and_its_deadline(tmp_path: Path) -> None:
    fake = FakeLab(write_lab(tmp_path))
    assert fake.client.wait_until(lambda: fake.now >= 1001.0) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(LabTimeout, match="not within 2 s"):
        fake.client.wait_until(lambda: False, within=2)


def test_a_client_knows_its_lab(tmp_path: Path) -> None:
    fake = FakeLab(write_lab(tmp_path))
    lab = fake.client
    assert lab.node("a").tunnel("t1")["reason"] == "no route"
    assert lab.node("a").card("lc 3")["usable"]
    with pytest.raises(KeyError, match="no tunnel"):
        lab.node("a").tunnel("t7")
    with pytest.raises(KeyError, match="'z' is not a node of the lab; nodes: a, b"):
        lab.node("z")
    with pytest.raises(OperatorError, match="refused"):
        lab.apply("a", "wrong")
    lab.link_down("a:3/11")
    assert fake.said[-2:] == [
        ("a", "link", {"port": "3/11", "down": True}),
        ("b", "link", {"port": "3/12", "down": True}),
    ]


def test_a_lab_with_other_settings_is_the_same_lab_and_finds_everything_beside_its_file(tmp_path: Path) -> None:
    path = write_lab(tmp_path, f"{SCENARIO}  - do: [apply a a.cfg, run true]\n")
    (tmp_path / "fl").mkdir()
    path.write_text(path.read_text().replace("config: a.cfg", "config: a.cfg, flash: fl"))
    changes = {"settings": {"restart-delay": "never"}, "flows": {"forward": {"rate": 50}}}
    lab, scenario = load_scenario(path, changes)
    assert lab.file == path
    assert all(node.settings.restart_delay is None for node in lab.routers())
    assert lab.flows["forward"].rate == 50
    assert lab.routers()[0].config == (tmp_path / "a.cfg").resolve()
    assert lab.routers()[0].flash == (tmp_path / "fl").resolve()
    assert len(scenario.steps) == 5
    before, _ = load_scenario(path)
    assert lab.flows["forward"] == replace(before.flows["forward"], rate=50)
    assert lab.links == before.links


def test_what_is_wrong_with_other_settings_is_said(tmp_path: Path) -> None:
    path = write_lab(tmp_path, SCENARIO)
    with pytest.raises(LabError, match="unknown setting 'heartbeat-intervall'; did you mean 'heartbeat-interval'"):
        load_scenario(path, {"settings": {"heartbeat-intervall": "1s"}})
    with pytest.raises(LabError, match="flow 'froward' needs 'from:'"):
        load_scenario(path, {"flows": {"froward": {"rate": 5}}})
