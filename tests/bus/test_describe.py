"""The page about the bus says what the types say."""

from __future__ import annotations

from pathlib import Path

from chassis.bus.describe import describe

PAGE = Path(__file__).parent.parent.parent / "docs" / "bus.md"


def test_the_page_is_printed_from_the_types() -> None:
    assert PAGE.read_text() == describe(), "run `make docs`"
