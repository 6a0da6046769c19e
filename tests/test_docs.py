"""Pages that are printed from the code say what the code says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chassis.config.fidelity import describe as fidelity
from chassis.config.fidelity import emulated
from launch.describe import describe as bus
from launch.diagrams import describe as states

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "describe"), [("bus.md", bus), ("states.md", states)])
def test_a_printed_page_is_up_to_date(page: str, describe: Callable[[], str]) -> None:
    assert (DOCS / page).read_text() == describe(), "run `make docs`"


def test_the_page_of_fidelity_says_what_the_grammar_and_its_proven_statements_say() -> None:
    page = (DOCS / "fidelity.md").read_text()
    assert page == fidelity(emulated(page)), "run `make docs`"
