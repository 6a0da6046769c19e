"""Configurations in the style of real routers: all of each comes back, and what is no command here with it.

They are of our own making. A file with a `.indented` beside it is a script or a transcript without indentation;
that one says under which line each of its lines belongs.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from chassis.model.router import Config
from chassis.model.source import Kept
from tests.support import REAL

FILES = sorted(REAL.glob("*.cfg"))

HEADER = re.compile(r"\s*(!.*|Building configuration.*|Current configuration.*|end|\[local\].*)?\s*\Z")
"""What is no line of these configurations."""

Place = tuple[str, ...]
"""A line, and before it the lines under which it stands."""


def read(file: Path) -> Parsed:
    return parse(file.read_bytes().decode(), file.name)


def tree(text: str) -> list[Place]:
    """Every line of a configuration with those that it stands under, by its indentation alone."""
    places: list[Place] = []
    open_lines: list[tuple[int, str]] = []
    for line in text.removeprefix("\ufeff").replace("\r", "").expandtabs(8).split("\n"):
        if HEADER.match(line):
            continue
        body = line.strip()
        indent = len(line) - len(line.lstrip())
        while open_lines and open_lines[-1][0] >= indent:
            open_lines.pop()
        open_lines.append((indent, body))
        places.append(tuple(other for _, other in open_lines))
    return places


def kept(value: Any) -> set[str]:
    """The first line of everything that was kept, anywhere in a configuration."""
    if isinstance(value, Kept):
        return {value.lines[0]}
    if isinstance(value, dict):
        return set().union(*map(kept, value.values()))
    if isinstance(value, tuple):
        return set().union(*map(kept, value))
    if not is_dataclass(value):
        return set()
    return set().union(*(kept(getattr(value, field.name)) for field in fields(value)))


def follows(places: list[Place], unknown: set[str]) -> dict[Place, Place]:
    """For each line that was kept, the known line of the same mode before it, else the line of the mode."""
    last: dict[Place, Place] = {}
    found: dict[Place, Place] = {}
    for place in places:
        above = place[:-1]
        if any(line in unknown for line in above):
            continue
        if place[-1] in unknown:
            found[place] = last.get(above, above)
        else:
            last[above] = place
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_line_comes_back_in_its_place(file: Path) -> None:
    parsed = read(file)
    printed = render(parsed.config)
    indented = file.with_suffix(".indented")
    text = indented.read_text() if indented.exists() else file.read_bytes().decode()
    wanted, found = tree(text), tree(printed)
    assert sorted({*found} - {*wanted}) in ([], [("context local",)])
    assert [place for place in wanted if place not in found] == []
    assert len(found) - len(wanted) in (0, 1)
    unknown = kept(parsed.config)
    assert len(unknown) >= 3
    assert follows(found, unknown) == follows(wanted, unknown)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_there_is_nothing_worse_than_a_warning_and_a_second_pass_is_equal(file: Path) -> None:
    parsed = read(file)
    assert {d.severity for d in parsed.diagnostics} <= {"warning", "note"}
    warned = [d for d in parsed.diagnostics if d.severity == "warning"]
    assert {d.code for d in warned} <= {"unknown", "S-104"}
    first_words = [d.name for d in warned if d.code == "unknown"]
    assert len(first_words) == len(set(first_words)) >= 3
    printed = render(parsed.config)
    again = parse(printed)
    assert again.config == parsed.config
    assert render(again.config) == printed
    assert {d.severity for d in again.diagnostics} <= {"warning", "note"}


def test_there_are_ten() -> None:
    assert len(FILES) == 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_without_indentation_no_line_gets_another_meaning(file: Path) -> None:
    """Read as a script, a file has the effect that it has as it stands, and never an error."""
    parsed = read(file)
    flat = parse("\n".join(line.strip() for line in file.read_bytes().decode().split("\n")))
    assert not [d for d in flat.diagnostics if d.severity == "error"]
    assert without_kept(flat.config) == without_kept(parsed.config)


def without_kept(config: Config) -> str:
    """A configuration as text without the lines that are kept."""
    printed = render(config)
    unknown = kept(config)
    lines = [place for place in tree(printed) if not any(line in unknown for line in place)]
    return "\n".join("/".join(place) for place in lines)
