"""Read and check `scenario:` and `expect:` of a lab file before anything runs (docs/labs.md).

Input: a lab with unparsed values. Output: a `Scenario`; errors go to the reporter. A step waits (`at:` seconds
after the start, `after:` seconds after the previous step, or `when:` a condition holds, for at most `within:`),
then does its `do:` in order, then checks its `expect:`. `as:` names the time at which its last action began, for
`since:` and `until:` of expectations.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.net import units
from chassis.net.units import parse_probability, parse_seconds
from launch.lab import counter_names
from launch.lab.model import Endpoint, Lab
from launch.lab.scenario_syntax import (
    Bound,
    Condition,
    WordError,
    known_flow,
    known_router,
    parse_bound,
    parse_condition,
    parse_time,
)
from launch.lab.yaml_source import Marked, Reporter, YamlPosition, beside, is_there

DEFAULT_WAIT_TIMEOUT = 30.0
"""Default time (s) of a `when:` or `wait until`."""

STEP_KEYS = ("at", "after", "when", "within", "do", "expect", "as")
CARD_ACTIONS = ("kill", "stop", "continue", "restart")
ACTIONS = (
    "start FLOW",
    "stop FLOW",
    "kill NODE CARD",
    "stop NODE CARD",
    "continue NODE CARD",
    "restart NODE CARD",
    "link NODE:PORT down",
    "link NODE:PORT loss 1% delay 20ms",
    "link NODE:PORT clear",
    "apply NODE FILE",
    "inject NODE:PORT FILE [last 5s]",
    "run COMMAND",
    "wait 2s",
    "wait until CONDITION [within 10s]",
)
_CARD = re.compile(r"asp \d+/\d+|lc \d+")
_FAULTS: Mapping[str, Callable[[Any], float]] = {
    "loss": parse_probability,
    "delay": parse_seconds,
    "jitter": parse_seconds,
    "reorder": parse_probability,
    "duplicate": parse_probability,
    "rate": units.parse_rate_limit,
}


@dataclass(frozen=True, slots=True)
class ScenarioAction:
    """One action. `kind` is the first word of its form, `card` for the four actions on cards."""

    text: str
    kind: str
    flows: tuple[str, ...] = ()
    verb: str = ""
    node: str = ""
    card: str = ""
    ends: tuple[Endpoint, ...] = ()
    faults: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    command: str = ""
    seconds: float = 0.0
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation. `text` is its printed form.

    `bounds` limit numbers, by name; `path` is a whole path, `via` and `avoid` are cards or ports on it.
    """

    text: str
    at: YamlPosition
    kind: str
    condition: Condition | None = None
    flow: str = ""
    bounds: tuple[tuple[str, Bound], ...] = ()
    path: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    node: str = ""
    card: str = ""
    name: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class ScenarioStep:
    """One step: its wait, actions and expectations. `at` and `after` are None if the file has none."""

    place: YamlPosition
    at: float | None = None
    after: float | None = None
    when: Condition | None = None
    within: float = DEFAULT_WAIT_TIMEOUT
    actions: tuple[ScenarioAction, ...] = ()
    expect: tuple[Expectation, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    steps: tuple[ScenarioStep, ...]
    expect: tuple[Expectation, ...]


FLOW_BOUNDS = (
    "lost",
    "loss",
    "loss-ms",
    "longest-gap",
    "duplicated",
    "reordered",
    "corrupted",
    "received",
    "sent",
    "latency-min",
    "latency-avg",
    "latency-p50",
    "latency-p99",
    "latency-max",
)
"""Numbers of a flow. `loss` is in packets, or in time if its bound is; the others as their names say."""

IN_WINDOW = ("lost", "loss", "loss-ms", "longest-gap")
_FLOW_KEYS = ("flow", *FLOW_BOUNDS, "path", "via", "not-via", "since", "until", "within")
_TUNNEL_KEYS = ("tunnel", "of", "state", "asp", "home", "mode", "reason", "within")
_CARD_KEYS = ("card", "of", "state", "boot", "epoch", "within")
_COUNTER_KEYS = ("counter", "of", "card", "is", "within")
_UNEXPECTED_KEYS = ("unexpected", "of", "within")
_RUN_KEYS = ("run", "status", "output", "within")
_FORMS = {
    "flow": _FLOW_KEYS,
    "tunnel": _TUNNEL_KEYS,
    "counter": _COUNTER_KEYS,
    "card": _CARD_KEYS,
    "unexpected": _UNEXPECTED_KEYS,
    "run": _RUN_KEYS,
}


def read_scenario(lab: Lab, reporter: Reporter) -> Scenario:
    """Read the lab's scenario; report every error with its position and the fix."""
    return _Reader(lab, reporter).scenario()


class _Reader:
    def __init__(self, lab: Lab, reporter: Reporter) -> None:
        self._lab = lab
        self._report = reporter
        self._labels: set[str] = set()

    def scenario(self) -> Scenario:
        for node in self._lab.scenario:
            label = node.value.get("as") if node.is_mapping else None
            if label is not None:
                self._labels.add(str(label.value))
        steps = [self._step(node) for node in self._lab.scenario]
        expect = [self._expectation(node) for node in self._lab.expect]
        return Scenario(
            tuple(step for step in steps if step is not None),
            tuple(one for one in expect if one is not None),
        )

    # steps

    def _step(self, node: Marked) -> ScenarioStep | None:
        if isinstance(node.value, str):
            action = self._action(node)
            return None if action is None else ScenarioStep(node.at, actions=(action,))
        if not node.is_mapping:
            self._wrong(node, "a step is a mapping such as {at: 2s, do: kill a asp 1/1}, or one action")
            return None
        fields = self._known(node, "key of a step", STEP_KEYS)
        waits = [key for key in ("at", "after", "when") if key in fields]
        if len(waits) > 1:
            self._wrong(fields[waits[1]], f"a step has one of at, after and when, not {' and '.join(waits)}")
        if "within" in fields and "when" not in fields:
            self._wrong(fields["within"], "'within:' bounds a 'when:'; there is none in this step")
        if "do" not in fields and "expect" not in fields and not waits and len(fields) == len(node.value):
            self._wrong(node, "this step does nothing: give it 'do:', 'expect:' or 'when:'")
        actions = [self._action(item) for item in _several(fields.get("do"))]
        expect = [self._expectation(item) for item in _several(fields.get("expect"))]
        return ScenarioStep(
            node.at,
            self._time(fields.get("at")),
            self._time(fields.get("after")),
            self._condition(fields.get("when")),
            self._time(fields.get("within"), DEFAULT_WAIT_TIMEOUT) or DEFAULT_WAIT_TIMEOUT,
            tuple(action for action in actions if action is not None),
            tuple(one for one in expect if one is not None),
            str(fields["as"].value) if "as" in fields else "",
        )

    def _action(self, node: Marked) -> ScenarioAction | None:
        text = node.value
        if not isinstance(text, str) or not text.split():
            self._wrong(node, f"an action is a text such as {ACTIONS[0]!r} or {ACTIONS[2]!r}")
            return None
        text = " ".join(text.split()) if not text.startswith("run ") else text
        verb, _, rest = text.partition(" ")
        reader = {
            "start": self._flow_action,
            "stop": self._stop_action,
            "kill": self._card_action,
            "continue": self._card_action,
            "restart": self._card_action,
            "link": self._link_action,
            "apply": self._apply_action,
            "inject": self._inject_action,
            "run": lambda text, rest: ScenarioAction(text, "run", command=_given(rest, "run COMMAND")),
            "wait": self._wait_action,
        }.get(verb)
        if reader is None:
            self._report.unknown("action", verb, {form.split()[0] for form in ACTIONS}, node.at)
            return None
        try:
            return reader(text, rest.strip())
        except WordError as error:
            self._wrong(node, str(error), text)
            return None

    def _flow_action(self, text: str, rest: str) -> ScenarioAction:
        verb = text.split()[0]
        names = rest.replace(",", " ").split()
        if not names:
            raise WordError(f"{verb}: flow missing; expected '{verb} NAME' or '{verb} all'")
        flows = tuple(self._lab.flows) if names == ["all"] else tuple(known_flow(n, self._lab) for n in names)
        return ScenarioAction(text, verb, flows=flows)

    def _stop_action(self, text: str, rest: str) -> ScenarioAction:
        words = rest.split()
        if len(words) > 1 and words[0] in self._lab.nodes and words[0] not in self._lab.flows:
            return self._card_action(text, rest)
        return self._flow_action(text, rest)

    def _card_action(self, text: str, rest: str) -> ScenarioAction:
        verb = text.split()[0]
        node, _, card = rest.partition(" ")
        if not card:
            raise WordError(
                f"{verb}: card missing; expected '{verb} a asp 1/1', '{verb} a lc 3' or '{verb} a xcrp'"
            )
        if node not in self._lab.nodes or not (
            card in ("tester", "peers", "xcrp") or card[:4] == "asp " or card[:3] == "lc "
        ):
            known_router(node, self._lab)
            raise WordError(f"{card!r} is not a card; expected 'asp 1/1', 'lc 3' or 'xcrp'")
        return ScenarioAction(text, "card", verb=verb, node=node, card=card)

    def _end(self, word: str) -> Endpoint:
        node, colon, port = word.partition(":")
        end = Endpoint(node, port)
        if not colon or self._lab.far_end(end) is None:
            known = ", ".join(str(one) for link in self._lab.links for one in link.ends)
            raise WordError(f"{word!r} is not an end of a link; ends: {known or 'none'}")
        return end

    def _link_action(self, text: str, rest: str) -> ScenarioAction:
        words = rest.split()
        if len(words) < 2:
            raise WordError("link: fault missing; expected 'link a:3/11 down' or 'link a:3/11 loss 1%'")
        near = self._end(words[0])
        far = self._lab.far_end(near)
        both = (near, far) if far is not None else (near,)
        if words[1:] in (["down"], ["up"], ["clear"]):
            faults = {"down": {"down": True}, "up": {"down": False}, "clear": {"clear": True}}[words[1]]
            return ScenarioAction(text, "link", ends=both, faults=faults)
        ends: tuple[Endpoint, ...] = (near,)
        if words[1] == "both":
            ends, words = both, [words[0], *words[2:]]
        made: dict[str, Any] = {}
        if len(words) % 2 == 0 or len(words) < 3:
            raise WordError(f"faults must be pairs of name and value; names: {', '.join(_FAULTS)}")
        for name, value in zip(words[1::2], words[2::2], strict=True):
            if name not in _FAULTS:
                raise WordError(f"{name!r} is not a fault of a link; expected down, {', '.join(_FAULTS)}")
            try:
                made[name] = _FAULTS[name](value)
            except ValueError as error:
                raise WordError(f"{name}: {error}") from None
        return ScenarioAction(text, "link", ends=ends, faults=made)

    def _file(self, word: str) -> Path:
        return beside(self._lab.file, word)

    def _apply_action(self, text: str, rest: str) -> ScenarioAction:
        words = shlex.split(rest)
        if len(words) != 2:
            raise WordError("apply: router or file missing; expected 'apply a new.cfg'")
        file = self._file(words[1])
        if not is_there(file):
            raise WordError(f"file {words[1]!r} does not exist beside the lab")
        return ScenarioAction(text, "apply", node=known_router(words[0], self._lab), file=file)

    def _inject_action(self, text: str, rest: str) -> ScenarioAction:
        words = shlex.split(rest)
        seconds = 0.0
        if len(words) == 4 and words[2] == "last":
            seconds, words = parse_time(words[3]), words[:2]
        if len(words) != 2:
            raise WordError(
                "inject: port or file missing; expected 'inject a:3/11 capture.pcapng' or '... last 5s'"
            )
        return ScenarioAction(
            text, "inject", ends=(self._end(words[0]),), file=self._file(words[1]), seconds=seconds
        )

    def _wait_action(self, text: str, rest: str) -> ScenarioAction:
        if not rest.startswith("until "):
            return ScenarioAction(text, "wait", seconds=parse_time(_given(rest, "wait 2s")))
        rest, _, within = rest.removeprefix("until ").partition(" within ")
        limit = parse_time(within) if within else DEFAULT_WAIT_TIMEOUT
        return ScenarioAction(text, "wait", seconds=limit, condition=parse_condition(rest, self._lab))

    # expectations

    def _expectation(self, node: Marked) -> Expectation | None:
        try:
            if isinstance(node.value, str):
                condition = parse_condition(node.value, self._lab)
                return Expectation(condition.text, node.at, "condition", condition)
            if not node.is_mapping:
                raise WordError("an expectation is a mapping such as {flow: forward, lost: <= 5}, or a condition")
            if "condition" in node.value:
                return self._late_condition(node)
            for kind, keys in _FORMS.items():
                if kind in node.value:
                    return self._mapping(node, kind, self._known(node, f"key of a {kind} expectation", keys))
            known = ", ".join(_FORMS)
            raise WordError(f"expectation without a subject; expected one of the keys {known}")
        except WordError as error:
            self._wrong(node, str(error))
            return None

    def _late_condition(self, node: Marked) -> Expectation:
        fields = self._known(node, "key of a condition", ("condition", "within"))
        condition = parse_condition(fields["condition"].value, self._lab)
        within = self._time(fields.get("within"), 0.0) or 0.0
        return Expectation(_text(node), node.at, "condition", condition, within=within)

    def _mapping(self, node: Marked, kind: str, fields: dict[str, Marked]) -> Expectation | None:
        text = _text(node)
        within = self._time(fields.get("within"), 0.0) or 0.0
        of = str(fields["of"].value) if "of" in fields else ""
        if of and kind != "unexpected":
            self._checked(fields["of"], lambda: known_router(of, self._lab))
        if kind == "flow":
            return self._flow(node, fields, text, within)
        if kind == "unexpected":
            bound = self._bound(fields["unexpected"])
            return Expectation(
                text, node.at, kind, bounds=(("unexpected", bound),) if bound else (), node=of, within=within
            )
        if kind == "run":
            command = _given(str(fields["run"].value), "run: COMMAND")
            wanted = {key: str(value.value) for key, value in fields.items() if key in ("status", "output")}
            return Expectation(text, node.at, kind, name=command, values=wanted, within=within)
        if not of and kind != "tunnel":
            raise WordError(f"{kind}: router missing; expected 'of: NAME'")
        if kind == "counter":
            bound = self._bound(fields["is"]) if "is" in fields else parse_bound("> 0")
            card = str(fields["card"].value) if "card" in fields else ""
            name = str(fields["counter"].value)
            if card and not _CARD.fullmatch(card):
                raise WordError(f"{card!r} is not a card with counters; expected 'asp 1/1' or 'lc 3'")
            if why := counter_names.problem(name, card):
                raise WordError(why)
            bounds = (("is", bound),) if bound else ()
            return Expectation(text, node.at, kind, node=of, card=card, name=name, bounds=bounds, within=within)
        values = {key: str(value.value) for key, value in fields.items() if key not in (kind, "of", "within")}
        if not values:
            raise WordError(f"this {kind} has no expectation; expected for example 'state: up'")
        if values.get("state", "up") not in ("up", "down"):
            raise WordError(f"state: {values['state']!r} is not a state; expected up or down")
        name = str(fields[kind].value)
        return Expectation(text, node.at, kind, node=of, name=name, values=values, within=within)

    def _flow(self, node: Marked, fields: dict[str, Marked], text: str, within: float) -> Expectation:
        name = known_flow(str(fields["flow"].value), self._lab)
        bounds = [(key, self._bound(fields[key])) for key in FLOW_BOUNDS if key in fields]
        window = [key for key in ("since", "until") if key in fields]
        for edge in window:
            label = str(fields[edge].value)
            if label not in self._labels:
                known = ", ".join(sorted(self._labels)) or "none"
                self._wrong(fields[edge], f"no step has 'as: {label}'; moments: {known}")
        for key, _ in bounds:
            if window and key not in IN_WINDOW:
                self._wrong(fields[key], f"{key!r} is not measured by period; only {', '.join(IN_WINDOW)} are")
        path, via, avoid = (_texts(fields.get(key)) for key in ("path", "via", "not-via"))
        if not bounds and not path and not via and not avoid and len(fields) == len(node.value):
            raise WordError(
                "this flow has no expectation; expected for example 'lost: 0', 'loss: < 50ms' or 'via: a asp 1/1'"
            )
        return Expectation(
            text,
            node.at,
            "flow",
            flow=name,
            bounds=tuple((key, bound) for key, bound in bounds if bound is not None),
            path=path,
            via=via,
            avoid=avoid,
            since=str(fields["since"].value) if "since" in fields else "",
            until=str(fields["until"].value) if "until" in fields else "",
            within=within,
        )

    # values

    def _known(self, node: Marked, what: str, known: tuple[str, ...]) -> dict[str, Marked]:
        for key, child in node.items():
            if key not in known:
                self._report.unknown(what, key, known, child.key)
        return {key: child for key, child in node.items() if key in known}

    def _wrong(self, node: Marked, message: str, name: str = "") -> None:
        self._report.error(node.at, "lab-scenario", message, name)

    def _checked(self, node: Marked, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except WordError as error:
            self._wrong(node, str(error), str(node.value))
            return None

    def _bound(self, node: Marked) -> Bound | None:
        found: Bound | None = self._checked(node, lambda: parse_bound(node.value))
        return found

    def _time(self, node: Marked | None, default: float | None = None) -> float | None:
        if node is None:
            return default
        seconds: float | None = self._checked(node, lambda: parse_time(node.value))
        return default if seconds is None else seconds

    def _condition(self, node: Marked | None) -> Condition | None:
        if node is None:
            return None
        condition: Condition | None = self._checked(node, lambda: parse_condition(node.value, self._lab))
        return condition


def _several(node: Marked | None) -> tuple[Marked, ...]:
    if node is None:
        return ()
    return node.value if node.is_list else (node,)


def _texts(node: Marked | None) -> tuple[str, ...]:
    return tuple(str(item.value) for item in _several(node))


def _given(text: str, form: str) -> str:
    if not text.strip():
        raise WordError(f"incomplete; expected {form!r}")
    return text.strip()


def _text(node: Marked) -> str:
    def plain(value: Any) -> str:
        return f"[{', '.join(map(plain, value))}]" if isinstance(value, list) else str(value)

    return ", ".join(f"{key}: {plain(value)}" for key, value in node.plain().items())
