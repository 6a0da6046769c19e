"""The words of scenarios: each form is read, and what is wrong is refused with a text that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.lab.model import Lab
from launch.lab.parser import load
from launch.lab.scenario_syntax import FORMS, WordError, parse_bound, parse_condition
from tests.support.fake_lab import write_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return load(write_lab(tmp_path))[0]


@pytest.mark.parametrize(("text", "holds", "fails"), [
    (0, [0], [1, -1]),
    ("<= 5", [5, 0], [6]),
    ("<5", [4.9], [5]),
    ("> 100 packets", [101], [100]),
    ("1..5", [1, 5], [0, 6]),
    ("< 50ms", [49], [50]),
    ("<= 1.5s", [1500], [1501]),
    ("10ms..2s", [10, 2000], [9, 2001]),
    ("!= 0", [1], [0]),
])  # fmt: skip
def test_bounds(text: object, holds: list[float], fails: list[float]) -> None:
    bound = parse_bound(text)
    assert all(bound.holds(value) for value in holds)
    assert not any(bound.holds(value) for value in fails)


def test_a_bound_of_time_says_so() -> None:
    assert parse_bound("< 50ms").time
    assert parse_bound("1..2s").time
    assert not parse_bound("< 50").time


@pytest.mark.parametrize("text", ["few", "<", "5 apples", True, None, "", "1..", ">> 3"])
def test_wrong_bounds(text: object) -> None:
    with pytest.raises(WordError, match="expected"):
        parse_bound(text)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_condition_is_read(form: str, lab: Lab) -> None:
    assert parse_condition(form, lab).text == form


def test_a_card_may_be_named_either_way(lab: Lab) -> None:
    one, other = parse_condition("asp 1/1 of a up", lab), parse_condition("a asp 1/1 up", lab)
    assert (one.kind, one.node, one.name) == (other.kind, other.node, other.name) == ("card", "a", "asp 1/1")


@pytest.mark.parametrize(("text", "help"), [
    ("tunnel up", "expected one like"),
    ("tunnels of c up", "'c' is not a router of the lab; routers: a, b"),
    ("tunnels of t1 up", "'t1' is not a router"),
    ("flow back running", "'back' is not a flow of the lab; flows: forward"),
    ("flow forward received many", "not a bound"),
    ("flow forward flying", "expected one like"),
])  # fmt: skip
def test_wrong_conditions(text: str, help: str, lab: Lab) -> None:
    with pytest.raises(WordError, match=help):
        parse_condition(text, lab)
