"""Syntax of scenarios: bounds such as `<= 5` or `< 50ms`, and conditions such as `tunnel t1 of a up`
(docs/labs.md).

Input: texts of a lab file. Output: `Bound` and `Condition`, or `WordError`. A condition is one line that holds or
does not at a moment; `Condition.text` is its text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.net import units
from launch.lab.model import Lab, RouterNode


class WordError(ValueError):
    """A text cannot be parsed; the error says what is expected."""


_BOUND = re.compile(r"\s*(<=|>=|==|!=|<|>|=)?\s*(-?\d+(?:\.\d+)?)\s*(us|µs|ms|s|packets?|%)?\s*\Z")
_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)?\s*\.\.\s*(\d+(?:\.\d+)?)\s*(us|ms|s)?\s*\Z")

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}

_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound on a number. `time`: the number is in milliseconds."""

    text: str
    low: float
    high: float
    compare: str
    time: bool

    def holds(self, value: float) -> bool:
        if self.compare == "..":
            return self.low <= value <= self.high
        return _COMPARE[self.compare](value, self.low)


def parse_bound(value: Any) -> Bound:
    """Parse `0`, `<= 5`, `< 50ms`, `> 100 packets` or `1..5`; a bare number must be met exactly.

    Raises:
        WordError: the text is not a bound.
    """
    text = str(value)
    if not isinstance(value, bool):
        match = _BOUND.match(text)
        if match:
            sign, number, unit = match[1] or "=", float(match[2]), match[3] or ""
            scale = _MILLISECONDS.get(unit, 1.0)
            return Bound(text.strip(), number * scale, number * scale, sign, unit in _MILLISECONDS)
        match = _RANGE.match(text)
        if match:
            low_unit, high_unit = match[2] or match[4] or "", match[4] or match[2] or ""
            low = float(match[1]) * _MILLISECONDS.get(low_unit, 1.0)
            high = float(match[3]) * _MILLISECONDS.get(high_unit, 1.0)
            return Bound(text.strip(), low, high, "..", bool(low_unit))
    raise WordError(f"{text!r} is not a bound; expected 0, '<= 5', '< 50ms' or '1..5'")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition. `kind` is tunnels, tunnel, cards, card, port, flow or path; the fields of that kind are set.

    `state` is up or down, or a flow's state; `where` is the card that a tunnel must be on or a path must pass, as
    in a path (`a asp 1/1`); `bound` limits the packets that a flow received.
    """

    text: str
    kind: str
    name: str = ""
    node: str = ""
    state: str = "up"
    where: str = ""
    bound: Bound | None = None


FLOW_STATES = ("running", "waiting", "stopped", "done")

FORMS = (
    "tunnels up",
    "tunnels of a up",
    "tunnel t1 up",
    "tunnel t1 of a down",
    "tunnel t1 of a on asp 1/1",
    "cards up",
    "asp 1/1 of a up",
    "lc 3 of a down",
    "xcrp of a up",
    "port 3/11 of a up",
    "flow forward running",
    "flow forward received >= 100",
    "flow forward via a asp 1/1",
)
"""One example of each form."""

_CARD = r"(?P<name>xcrp|asp \d+/\d+|lc \d+)"
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(rf"{pattern}\Z"))
    for kind, pattern in (
        ("tunnels", r"tunnels(?: of (?P<node>\S+))? (?P<state>up|down)"),
        ("tunnel", r"tunnel (?P<name>\S+)(?: of (?P<node>\S+))? (?P<state>up|down)"),
        ("tunnel", r"tunnel (?P<name>\S+)(?: of (?P<node>\S+))? on (?P<where>asp \d+/\d+|lc \d+)"),
        ("cards", r"cards(?: of (?P<node>\S+))? (?P<state>up|down)"),
        ("card", rf"{_CARD} of (?P<node>\S+) (?P<state>up|down)"),
        ("card", rf"(?P<node>\S+) {_CARD} (?P<state>up|down)"),
        ("port", r"port (?P<name>\d+/\d+) of (?P<node>\S+) (?P<state>up|down)"),
        ("flow", rf"flow (?P<name>\S+) (?P<state>{'|'.join(FLOW_STATES)})"),
        ("flow", r"flow (?P<name>\S+) received (?P<bound>.+)"),
        ("path", r"flow (?P<name>\S+) via (?P<where>\S+ (?:xcrp|asp \d+/\d+|lc \d+|\d+/\d+))"),
    )
)


def parse_condition(text: Any, lab: Lab) -> Condition:
    """Parse a condition of a lab.

    Raises:
        WordError: the text is not a condition, or names something that the lab does not have.
    """
    words = " ".join(str(text).split())
    for kind, pattern in _PATTERNS:
        match = pattern.match(words)
        if match is None:
            continue
        found = {key: value for key, value in match.groupdict().items() if value is not None}
        bound = parse_bound(found.pop("bound")) if "bound" in found else None
        condition = Condition(words, kind, bound=bound, **found)
        _check(condition, lab)
        return condition
    raise WordError(
        f"{words!r} is not a condition; expected one like {', '.join(repr(form) for form in FORMS[:6])}"
    )


def _check(condition: Condition, lab: Lab) -> None:
    if condition.node:
        known_router(condition.node, lab)
    if condition.kind in ("flow", "path"):
        known_flow(condition.name, lab)
    if condition.kind == "path":
        known_router(condition.where.partition(" ")[0], lab)


def known_router(name: str, lab: Lab) -> str:
    """Return the name; WordError if the lab has no such router."""
    if not isinstance(lab.nodes.get(name), RouterNode):
        routers = ", ".join(node.name for node in lab.routers())
        raise WordError(f"{name!r} is not a router of the lab; routers: {routers or 'none'}")
    return name


def known_flow(name: str, lab: Lab) -> str:
    """Return the name; WordError if the lab has no such flow."""
    if name not in lab.flows:
        raise WordError(f"{name!r} is not a flow of the lab; flows: {', '.join(lab.flows) or 'none'}")
    return name


def parse_time(value: Any) -> float:
    """Parse a duration such as `2s` or `100ms` into seconds; WordError if it is not a duration."""
    try:
        return units.parse_duration(value)
    except ValueError as error:
        raise WordError(str(error)) from None
