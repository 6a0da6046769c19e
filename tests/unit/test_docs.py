"""Pages that are printed from the code say what the code says."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chassis.config.fidelity import describe as fidelity
from chassis.config.fidelity import emulated
from tests.support import ROOT
from tools.bus_page import describe as bus
from tools.commands_page import describe as commands
from tools.states_page import describe as states

DOCS = ROOT / "docs"


@pytest.mark.parametrize(("page", "describe"), [("bus.md", bus), ("commands.md", commands), ("states.md", states)])
def test_a_printed_page_is_up_to_date(page: str, describe: Callable[[], str]) -> None:
    assert (DOCS / page).read_text() == describe(), "run `make docs`"


def test_the_page_of_fidelity_says_what_the_grammar_and_its_proven_statements_say() -> None:
    page = (DOCS / "fidelity.md").read_text()
    assert page == fidelity(emulated(page)), "run `make docs`"


ROOT = DOCS.parent
REFERENCE = re.compile(r"\b([SM]-\d{2,3}|B-\d{3})\b")
ROW = re.compile(r"^\| ([SMB]-\d{2,3}) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def sources() -> Iterator[Path]:
    """What cites rows of decisions and statements: code, tests, pages, labs and configurations."""
    yield ROOT / "README.md"
    for folder in ("chassis", "launch", "tests", "bench", "docs", "configs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml", ".cfg"):
                yield path


def test_every_row_that_is_cited_stands_in_a_page() -> None:
    rows = {row for page in DOCS.glob("*.md") for row in ROW.findall(page.read_text())}
    cited = {(reference, path) for path in sources() for reference in REFERENCE.findall(path.read_text())}
    unknown = {(row, str(path.relative_to(ROOT))) for row, path in cited if row not in rows and row != "B-999"}
    assert len(cited) > 100
    assert unknown == set()


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *DOCS.glob("*.md")):
        for link in LINK.findall(page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


RFCS = re.compile(r"\bRFCs? (\d{3,5}(?:(?:,? and|,) \d{4})*)")


def test_every_rfc_that_is_cited_stands_in_the_references() -> None:
    listed = set(re.findall(r"^\| (\d{3,5}) \|", (DOCS / "references.md").read_text(), re.MULTILINE))
    cited = {number for path in sources() for said in RFCS.findall(path.read_text()) for number in said.split()}
    numbers = {number.strip(",") for number in cited} - {"and"}
    assert len(numbers) > 40
    assert numbers == listed


def test_an_engine_is_driven_by_hand_as_the_example_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(DOCS / "drive_an_engine.py"))
    said = capsys.readouterr().out
    assert said.count("out of 3/1 to 02:00:00:00:00:05: ") == 2
    assert "Arp(operation=2" in said
    assert "Icmp(type=0, code=0" in said
    assert "b'hello'" in said
