"""Pages that are printed from the code say what the code says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chassis.config.fidelity import describe as fidelity
from launch.describe import describe as bus
from launch.diagrams import describe as states

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "describe"), [("bus.md", bus), ("fidelity.md", fidelity), ("states.md", states)])
def test_a_printed_page_is_up_to_date(page: str, describe: Callable[[], str]) -> None:
    assert (DOCS / page).read_text() == describe(), "run `make docs`"
