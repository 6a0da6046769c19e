"""The guide's own files: what is said about each, and that each survives printing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.config.parser import parse
from chassis.config.render import render
from tests.support.configurations import SECRET

FILES = (
    *(f"{number:02}.cfg" for number in range(1, 13)),
    "13-vpnEndA.cfg",
    "14-vpnEndB.cfg",
    "15-ikev2.cfg",
    "16-high-availability.cfg",
)


def _expected(spec_dir: Path, file: str) -> list[dict[str, Any]]:
    wanted: dict[str, list[dict[str, Any]]] = yaml.safe_load((spec_dir / "diagnostics.yaml").read_text())
    return wanted[file]


@pytest.mark.behaviour("B-222")
@pytest.mark.parametrize("file", FILES)
def test_diagnostics_of_an_example(spec_dir: Path, file: str) -> None:
    wanted = _expected(spec_dir, file)
    parsed = parse((spec_dir / "examples" / file).read_text(), file)
    found = [d for d in parsed.diagnostics if d.severity != "note"]
    assert [(d.line, d.column, d.severity, d.code, d.name) for d in found] == [
        (w["line"], w["column"], w["severity"], w["code"], w["name"]) for w in wanted
    ]
    assert [d.hint for d in found] == [w["repaired"] or "" for w in wanted]
    assert all(d.file == file for d in found)


@pytest.mark.behaviour("B-227")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("verbose", [False, True])
def test_an_example_survives_printing(spec_dir: Path, file: str, verbose: bool) -> None:
    config = parse((spec_dir / "examples" / file).read_text()).config
    printed = render(config, verbose)
    again = parse(printed)
    assert again.config == config
    assert render(again.config, verbose) == printed
    assert not [d for d in again.diagnostics if d.severity == "error"]


@pytest.mark.parametrize("file", FILES)
def test_an_example_is_shown_again_by_another_router_with_the_same_secret(spec_dir: Path, file: str) -> None:
    text = (spec_dir / "examples" / file).read_text()
    one = parse(text, secret=SECRET)
    printed = render(one.config, keys=False)
    again = parse(printed, secret=SECRET)
    assert "***" not in printed
    assert again.config == one.config
    assert render(again.config, keys=False) == printed
    assert render(again.config) == render(one.config)


def test_all_examples_are_covered(spec_dir: Path) -> None:
    assert sorted(path.name for path in (spec_dir / "examples").glob("*.cfg")) == sorted(FILES)


def test_a_repaired_line_repairs(spec_dir: Path) -> None:
    """Taking the hint of each diagnostic that has one leaves a file without it."""
    for file in FILES:
        text = (spec_dir / "examples" / file).read_text()
        for diagnostic in parse(text).diagnostics:
            if not diagnostic.hint:
                continue
            line = diagnostic.line
            if diagnostic.code == "S-030":
                line = next(n for n, t in enumerate(text.split("\n"), 1) if "ike policy" in t)
            elif diagnostic.code == "S-082":
                line = next(n for n, t in enumerate(text.split("\n"), 1) if t.startswith("card ge"))
            lines = text.split("\n")
            lines[line - 1] = diagnostic.hint
            left = [(d.line, d.code) for d in parse("\n".join(lines)).diagnostics]
            assert (diagnostic.line, diagnostic.code) not in left, (file, diagnostic)
