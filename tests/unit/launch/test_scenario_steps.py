"""Steps and expectations are read with their places; everything wrong is said at once, with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.lab.parser import load
from launch.lab.scenario import Scenario, read_scenario
from launch.lab.yaml_source import LabError, Reporter
from launch.scenario.boot import load as load_scenario
from tests.support.fake_lab import write_lab

GOOD = """\
scenario:
  - {when: tunnels up, within: 5s, do: start forward}
  - at: 2s
    do: [kill a asp 1/1, link a:3/11 loss 1% delay 20ms]
    as: killed
  - {after: 100ms, do: "stop a asp 1/2"}
  - "continue a asp 1/2"
  - {do: stop forward, expect: [tunnels up, {flow: forward, lost: 0}]}
  - {do: [link a:3/11 down, link a:3/11 both loss 50%, link a:3/11 clear, apply a a.cfg, run true, wait 1s]}
  - {do: wait until tunnel t1 of a down within 3s}
  - {do: inject b:3/12 capture.pcapng last 5s}
expect:
  - tunnels up
  - {flow: forward, loss: < 50ms, lost: 0..100, since: killed}
  - {flow: forward, via: a asp 1/2, not-via: [b asp 1/1]}
  - {flow: forward, path: ["t1:1 out", "t2:1 in"]}
  - {tunnel: t1, of: a, state: up, asp: asp 1/1}
  - {card: asp 1/1, of: a, state: up, boot: 2}
  - {counter: drop stale epoch, of: a, card: lc 3, is: 0}
  - {unexpected: 0}
  - {run: "true", within: 2s}
  - {condition: tunnels up, within: 3s}
"""


def scenario_of(path: Path) -> Scenario:
    return load_scenario(path)[1]


def test_every_form_is_read(tmp_path: Path) -> None:
    scenario = scenario_of(write_lab(tmp_path, GOOD))
    kinds = [action.kind for step in scenario.steps for action in step.actions]
    assert kinds == [
        *("start", "card", "link", "card", "card", "stop", "link", "link", "link", "apply", "run", "wait"),
        *("wait", "inject"),
    ]
    first, second = scenario.steps[:2]
    assert first.when is not None
    assert (first.when.kind, first.within) == ("tunnels", 5.0)
    assert (second.at, second.label) == (2.0, "killed")
    link = second.actions[1]
    assert [str(end) for end in link.ends] == ["a:3/11"]
    assert link.faults == {"loss": 0.01, "delay": 0.02}
    down, both, clear = scenario.steps[5].actions[:3]
    assert [str(end) for end in down.ends] == [str(end) for end in both.ends] == ["a:3/11", "b:3/12"]
    assert (down.faults, both.faults, clear.faults) == ({"down": True}, {"loss": 0.5}, {"clear": True})
    assert scenario.steps[5].actions[3].file == (tmp_path / "a.cfg").resolve()
    assert scenario.steps[7].actions[0].seconds == 5.0
    assert [expectation.kind for expectation in scenario.expect] == [
        *("condition", "flow", "flow", "flow", "tunnel", "card", "counter", "unexpected", "run", "condition")
    ]
    assert scenario.expect[1].text == "flow: forward, loss: < 50ms, lost: 0..100, since: killed"
    assert scenario.steps[4].expect[1].flow == "forward"


@pytest.mark.parametrize(("line", "place", "says"), [
    ("scenario:\n  - {at: 2s, do: kil a asp 1/1}", (15, 18), "did you mean 'kill'"),
    ("scenario:\n  - {at: soon, do: start forward}", (15, 10), "not a duration"),
    ("scenario:\n  - {at: 2s, do: start backward}", (15, 18), "'backward' is not a flow of the lab"),
    ("scenario:\n  - {at: 2s, when: tunnels up, do: start all}", (15, 20), "one of at, after and when"),
    ("scenario:\n  - {when: tunnels op, do: start all}", (15, 12), "not a condition"),
    ("scenario:\n  - {do: kill c asp 1/1}", (15, 10), "'c' is not a router"),
    ("scenario:\n  - {do: kill a fan 1}", (15, 10), "is not a card; expected 'asp 1/1'"),
    ("scenario:\n  - {do: kill a}", (15, 10), "card missing"),
    ("scenario:\n  - {do: link a:3/12 down}", (15, 10), "not an end of a link; ends: t1:1"),
    ("scenario:\n  - {do: link a:3/11 loss}", (15, 10), "pairs"),
    ("scenario:\n  - {do: link a:3/11 loss 300%}", (15, 10), "loss: "),
    ("scenario:\n  - {do: link a:3/11 colour red}", (15, 10), "'colour' is not a fault"),
    ("scenario:\n  - {do: apply a c.cfg}", (15, 10), "file 'c.cfg' does not exist"),
    ("scenario:\n  - {do: apply t1 a.cfg}", (15, 10), "'t1' is not a router"),
    ("scenario:\n  - {doo: start all}", (15, 6), "did you mean 'do'"),
    ("scenario:\n  - {as: x}", (15, 5), "does nothing"),
    ("scenario:\n  - {do: start all, within: 2s}", (15, 29), "bounds a 'when:'"),
    ("scenario:\n  - 5", (15, 5), "a step is a mapping"),
    ("scenario:\n  - {do: wait until pigs fly}", (15, 10), "not a condition"),
    ("expect:\n  - {flow: forward, lost: few}", (15, 27), "not a bound"),
    ("expect:\n  - {flow: forward, lst: 0}", (15, 21), "did you mean 'lost'"),
    ("expect:\n  - {flow: forward}", (15, 5), "this flow has no expectation"),
    ("expect:\n  - {flow: other, lost: 0}", (15, 5), "'other' is not a flow"),
    ("expect:\n  - {flow: forward, lost: 0, since: never}", (15, 37), "no step has 'as: never'"),
    ("expect:\n  - {tunnel: t1, of: c, state: up}", (15, 22), "'c' is not a router"),
    ("expect:\n  - {tunnel: t1, state: sideways}", (15, 5), "expected up or down"),
    ("expect:\n  - {card: asp 1/1, state: up}", (15, 5), "router missing"),
    ("expect:\n  - {pigs: fly}", (15, 5), "one of the keys flow"),
    ("expect:\n  - 7", (15, 5), "an expectation is a mapping"),
])  # fmt: skip
def test_what_is_wrong_has_its_place_and_the_fix(
    tmp_path: Path, line: str, place: tuple[int, int], says: str
) -> None:
    path = write_lab(tmp_path, line)
    with pytest.raises(LabError) as raised:
        load_scenario(path)
    found = raised.value.diagnostics
    assert [(one.line, one.column) for one in found] == [place], found
    assert says in found[0].message + found[0].hint


def test_a_window_bounds_only_what_is_told_by_period(tmp_path: Path) -> None:
    text = "scenario:\n  - {do: start all, as: go}\nexpect:\n  - {flow: forward, sent: 5, since: go}"
    with pytest.raises(LabError, match="not measured by period"):
        load_scenario(write_lab(tmp_path, text))


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = "scenario:\n  - {do: fly}\n  - {at: soon}\nexpect:\n  - {flow: x, lost: 0}"
    path = write_lab(tmp_path, text)
    lab, _ = load(path)
    reporter = Reporter(str(path))
    read_scenario(lab, reporter)
    assert [one.line for one in reporter.diagnostics] == [15, 16, 18]
