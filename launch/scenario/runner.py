"""Run a scenario in a booted lab: do its steps in order, stop the flows, check the expectations (docs/labs.md).

Input: a client and a parsed scenario. Output: `ScenarioOutcome` with results, flows, paths and events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.bus import regular_files
from chassis.bus.operator import OperatorError
from launch.client.conditions import goes_by
from launch.client.lab_client import LabClient, LabTimeout, Result
from launch.lab.counter_names import subject
from launch.lab.scenario import Expectation, Scenario, ScenarioAction, ScenarioStep
from launch.lab.scenario_syntax import Bound
from launch.lab.yaml_source import YamlPosition

MAX_PATHS = 50
"""Largest number of different paths of a flow in a result."""


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """The result of one expectation."""

    expect: str
    seen: str
    passed: bool
    place: YamlPosition

    def to_json(self) -> Result:
        return {"expect": self.expect, "seen": self.seen, "passed": self.passed}


@dataclass(slots=True)
class ScenarioOutcome:
    """The result of a scenario. Times of events are seconds since it began."""

    boot_ms: float = 0.0
    expectations: list[ExpectationResult] = field(default_factory=list)
    flows: dict[str, Result] = field(default_factory=dict)
    events: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(checked.passed for checked in self.expectations)

    def to_json(self) -> Result:
        return {
            "passed": self.passed,
            "boot_ms": round(self.boot_ms, 1),
            "expectations": [checked.to_json() for checked in self.expectations],
            "flows": self.flows,
            "events": self.events,
        }


class Runner:
    """One run. Pass each line of progress to `tell` at once."""

    def __init__(
        self, lab: LabClient, scenario: Scenario, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self._lab = lab
        self._scenario = scenario
        self._tell = tell
        self._moments: dict[str, float] = {}
        self._began = lab.clock()
        self._stopped = False
        self._own: list[Result] = []
        self.outcome = ScenarioOutcome()

    def run(self) -> ScenarioOutcome:
        """Run everything. A step that fails counts as a failed expectation and ends the steps."""
        lab, outcome = self._lab, self.outcome
        self._began = last = lab.clock()
        for number, step in enumerate(self._scenario.steps, 1):
            try:
                last = self._step(step, last)
            except (OperatorError, LabTimeout, OSError) as error:
                what = f"step {number} is done: {_describe(step)}"
                self._note(f"step {number} failed: {error}")
                outcome.expectations.append(ExpectationResult(what, str(error), False, step.place))
                break
        self._finish()
        for expectation in self._scenario.expect:
            outcome.expectations.append(self._checked(expectation, final=True))
        self._collect()
        return outcome

    # steps

    def _step(self, step: ScenarioStep, last: float) -> float:
        """Do one step. Return the time at which it was done (s)."""
        lab = self._lab
        if step.at is not None:
            lab.wait(self._began + step.at - lab.clock())
        elif step.after is not None:
            lab.wait(last + step.after - lab.clock())
        elif step.when is not None:
            took = lab.wait_until(step.when, step.within)
            self._note(f"{step.when.text} (after {took:.2f} s)")
        moment = lab.clock()
        for action in step.actions:
            self._note(action.text)
            moment = lab.clock()
            self._do(action)
        if step.label:
            self._moments[step.label] = moment
        for expectation in step.expect:
            self.outcome.expectations.append(self._checked(expectation, final=False))
        return lab.clock()

    def _do(self, action: ScenarioAction) -> None:
        lab = self._lab
        if action.kind == "start":
            lab.start(*action.flows)
        elif action.kind == "stop":
            lab.stop(*action.flows)
        elif action.kind == "card":
            lab.card_action(action.verb, action.node, action.card)
        elif action.kind == "link":
            for end in action.ends:
                lab.link(end, **action.faults)
        elif action.kind == "apply":
            assert action.file is not None
            lab.apply(action.node, regular_files.read_text(action.file, errors="replace"), str(action.file))
        elif action.kind == "inject":
            assert action.file is not None
            lab.inject(action.ends[0], action.file, action.seconds)
        elif action.kind == "run":
            status, output = lab.shell(action.command)
            if status:
                raise OperatorError(f"{action.command}: ended with {status}: {output.strip()[-500:]}")
        elif action.condition is not None:
            lab.wait_until(action.condition, action.seconds)
        else:
            lab.wait(action.seconds)

    def _finish(self) -> None:
        """Stop the flows and wait for packets under way."""
        lab = self._lab
        if lab.file.flows:
            try:
                lab.stop()
                lab.drain()
            except OperatorError as error:
                self._note(f"flows could not be stopped: {error}")
        self._stopped = True

    def _collect(self) -> None:
        lab, outcome = self._lab, self.outcome
        for name in lab.file.flows:
            try:
                outcome.flows[name] = {**_account(lab.report(name, final=True)), "paths": self._paths(name)}
            except OperatorError as error:
                outcome.flows[name] = {"error": str(error)}
        for event in lab.events(self._began):
            self._own.append({**event, "time": round(event["time"] - self._began, 4)})
        outcome.events = sorted(self._own, key=lambda event: float(event["time"]))

    def _paths(self, flow: str) -> list[list[str]]:
        different = dict.fromkeys(path.steps for path in self._lab.paths(flow) if path.arrived)
        return [list(steps) for steps in different][:MAX_PATHS]

    def _note(self, text: str) -> None:
        at = self._lab.clock() - self._began
        self._own.append({"time": round(at, 4), "node": "scenario", "text": text})
        self._tell(f"{at:8.3f} s  {text}")

    # expectations

    def _checked(self, expectation: Expectation, *, final: bool) -> ExpectationResult:
        lab = self._lab
        deadline = lab.clock() + expectation.within
        while True:
            try:
                seen, passed = _JUDGES[expectation.kind](self, expectation, final)
            except OperatorError as error:
                seen, passed = str(error), False
            if passed or lab.clock() >= deadline:
                break
            lab.wait(0.02)
        return ExpectationResult(expectation.text, seen, passed, expectation.at)

    def _condition(self, expectation: Expectation, final: bool) -> tuple[str, bool]:
        assert expectation.condition is not None
        held, seen = self._lab.check(expectation.condition)
        return seen, held

    def _flow(self, expectation: Expectation, final: bool) -> tuple[str, bool]:
        for label in (expectation.since, expectation.until):
            if label and label not in self._moments:
                return f"the step {label!r} was not reached", False
        since = self._moments.get(expectation.since, 0.0)
        until = self._moments.get(expectation.until, float("inf"))
        window = bool(expectation.since or expectation.until)
        seen: list[str] = []
        passed = True
        if expectation.bounds:
            report = self._lab.report(expectation.flow, since=since, until=until, final=final)
            for name, bound in expectation.bounds:
                value, unit = _number(report, name, bound, window)
                seen.append(f"{name}: {value:g}{unit}")
                passed &= bound.holds(value)
            if not passed:
                seen.append(f"({report['sent']} sent, {report['received']} received, flow is {report['state']})")
        if expectation.path or expectation.via or expectation.avoid:
            last = self._lab.last_path(expectation.flow, since, until)
            path = last.steps if last is not None else ()
            seen.append(f"path: {', '.join(path)}" if path else "no traced packet arrived")
            if last is not None and last.given_up:
                seen.append(f"(stamps may be missing of {', '.join(last.given_up)})")
            if not path and not self._lab.flow(expectation.flow).trace:
                seen.append("only its first packet is traced (give the flow 'trace: 100ms')")
            passed &= bool(path)
            passed &= not expectation.path or path == expectation.path
            passed &= all(goes_by(path, place) for place in expectation.via)
            passed &= not any(goes_by(path, place) for place in expectation.avoid)
        return ", ".join(seen), passed

    def _rows(self, expectation: Expectation, kind: str) -> tuple[str, bool]:
        lab = self._lab
        nodes = [expectation.node] if expectation.node else [router.name for router in lab.file.routers()]
        seen, passed = [], True
        for node in nodes:
            for row in lab.ask(node, "status", {})[f"{kind}s"]:
                if row["card" if kind == "card" else "name"] != expectation.name:
                    continue
                values = {**row, "state": "up" if row.get("up", row.get("usable")) else "down"}
                passed &= all(str(values.get(key)) == wanted for key, wanted in expectation.values.items())
                told = {**dict.fromkeys(expectation.values), **({"reason": None} if row.get("reason") else {})}
                seen.append(f"{node}: " + ", ".join(f"{key}: {values.get(key)}" for key in told))
        if not seen:
            return f"no {kind} {expectation.name}", False
        return "; ".join(seen), passed

    def _counter(self, expectation: Expectation, final: bool) -> tuple[str, bool]:
        found = self._lab.counters(expectation.node, expectation.card)
        value = found.get(expectation.name)
        if value is None:
            if why := self._absent(expectation, found):
                return why, False
            value = 0
        return f"{expectation.name}: {value}", all(bound.holds(value) for _, bound in expectation.bounds)

    def _absent(self, expectation: Expectation, found: Mapping[str, int]) -> str:
        """Return why a missing counter can never exist; empty if the first count creates it."""
        kind, what = subject(expectation.name)
        where = f"{expectation.node} {expectation.card}".rstrip()
        if kind == "port":
            return "" if any(name.startswith(f"port {what} ") for name in found) else f"{where} has no port {what}"
        if not kind:
            return ""
        status = self._lab.ask(expectation.node, "status", {})
        if kind == "card":
            there = {row["card"] for row in status["cards"]}
        else:
            key = "number" if kind == "tunnel" else "circuit"
            there = {str(row.get(key)) for row in status["tunnels"]}
        return "" if what in there else f"{where} has nothing to do with {kind} {what}"

    def _unexpected(self, expectation: Expectation, final: bool) -> tuple[str, bool]:
        found = self._lab.unexpected(expectation.node)
        seen = ", ".join(f"{cause}: {count}" for cause, count in found.items()) or "none"
        return seen, all(bound.holds(sum(found.values())) for _, bound in expectation.bounds)

    def _shell(self, expectation: Expectation, final: bool) -> tuple[str, bool]:
        status, output = self._lab.shell(expectation.name)
        passed = str(status) == expectation.values.get("status", "0")
        pattern = expectation.values.get("output")
        if pattern is not None:
            passed &= re.search(pattern, output, re.MULTILINE) is not None
        return f"status {status}, output {output.strip()[-500:]!r}", passed


_JUDGES: Mapping[str, Callable[[Runner, Expectation, bool], tuple[str, bool]]] = {
    "condition": Runner._condition,
    "flow": Runner._flow,
    "tunnel": lambda runner, expectation, final: runner._rows(expectation, "tunnel"),
    "card": lambda runner, expectation, final: runner._rows(expectation, "card"),
    "counter": Runner._counter,
    "unexpected": Runner._unexpected,
    "run": Runner._shell,
}


def _number(report: Mapping[str, Any], name: str, bound: Bound, window: bool) -> tuple[float, str]:
    """Return a number of a flow's measurements, and its unit."""
    if name == "loss":
        name = "loss-ms" if bound.time else "lost"
    if name == "lost":
        return report["window_lost" if window else "lost"], " packets"
    if name == "loss-ms":
        return report.get("window_loss_ms" if window else "loss_ms", 0.0), " ms"
    if name == "longest-gap":
        return report["window_gap_ms" if window else "longest_gap_ms"], " ms"
    if name.startswith("latency-"):
        return report["latency"].get(f"{name.removeprefix('latency-')}_ms", 0.0), " ms"
    return report[name], ""


def _account(report: Mapping[str, Any]) -> Result:
    keys = ("sent", "received", "lost", "loss_ms", "longest_gap_ms", "duplicated", "reordered", "corrupted")
    account = {key: report[key] for key in keys}
    account["lost_before_first"] = report["lost_before_first"]
    account["latency"] = report["latency"]
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in account.items()}


def _describe(step: ScenarioStep) -> str:
    said = [f"when {step.when.text} within {step.within:g} s"] if step.when else []
    return "; ".join([*said, *(action.text for action in step.actions)]) or "wait"
