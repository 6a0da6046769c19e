"""Filters of what a command prints."""

from __future__ import annotations

import time

import pytest

from chassis.cli.pipes import MAX_PATTERN, PIPES, PipeError, read, split

LINES = ["alpha (1)", "Beta", "gamma", "beta 2", " delta | x"]


def filtered(text: str) -> list[str]:
    lines = LINES
    for pipe in read(split(f"show x | {text}")[1:]):
        lines = pipe.apply(lines)
    return lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("include eta", ["Beta", "beta 2"]),
        ("inc eta", ["Beta", "beta 2"]),
        ("exclude eta", ["alpha (1)", "gamma", " delta | x"]),
        ("begin gam", ["gamma", "beta 2", " delta | x"]),
        ("begin nothing", []),
        ("grep beta", ["beta 2"]),
        ("grep   beta 2  ", ["beta 2"]),
        ("grep -i beta", ["Beta", "beta 2"]),
        ("grep -v a", []),
        ("grep -iv BETA", ["alpha (1)", "gamma", " delta | x"]),
        ('grep "ta 2"', ["beta 2"]),
        ('include "mm|2"', ["gamma", "beta 2"]),
        ("include (1)", ["alpha (1)"]),
        ("include ^b", ["beta 2"]),
        ("include a$", ["Beta", "gamma"]),
        ("include g.m*a", ["gamma"]),
        ("include [Bb]eta", ["Beta", "beta 2"]),
        ("count", ["5"]),
        ("include eta | count", ["2"]),
        ("include eta | exclude 2 | count", ["1"]),
    ],
)
def test_lines_are_filtered(text: str, lines: list[str]) -> None:
    assert filtered(text) == lines


@pytest.mark.parametrize(
    ("text", "why", "column"),
    [
        ("foo x", "invalid", 9),
        ("", "incomplete", 9),
        ("include", "incomplete", 16),
        ('include ""', "incomplete", 19),
        ("count x", "invalid", 15),
        ("include a | json", "invalid", 21),
        ("include [", "invalid", 17),
        ("include *", "invalid", 17),
        ("include a*b*c*d*", "invalid", 17),
        ("include " + "x" * (MAX_PATTERN + 1), "invalid", 17),
    ],
)
def test_a_wrong_filter_says_where(text: str, why: str, column: int) -> None:
    with pytest.raises(PipeError, match=why) as caught:
        filtered(text)
    assert caught.value.column == column


def test_every_filter_begins_with_a_letter_of_its_own() -> None:
    assert len({name[0] for name in PIPES}) == len(PIPES)


def test_no_pattern_takes_long() -> None:
    """The signs that make a pattern's time explode stand for themselves."""
    began = time.process_time()
    for text in ("(a+)+$", "(a|aa)+$", "a*a*a*b", "(x+x+)+y", "a{1,30000}{1,30000}", "\\(a+"):
        for pipe in read([(0, f"include {text}")]):
            pipe.apply(["a" * 200 + "!"])
    assert time.process_time() - began < 5
