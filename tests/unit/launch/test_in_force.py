"""What a status says of a start-up file that is not in force."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from launch.client import status_view
from launch.supervisor import active_config


def test_the_status_says_it_until_the_file_is_in_force() -> None:
    found = active_config.Committed(3, "before.cfg", ("changed: context c", "  - a", "  + b"))

    def lines(**configuration: object) -> list[str]:
        return active_config.now("lab", "a", "/x/a.cfg", found, {"configuration": configuration})

    assert lines(commit=3, file="before.cfg", differs=True) == active_config.startup_notes(
        "lab", "a", "/x/a.cfg", found
    )
    assert lines(commit=4, file="/x/a.cfg", differs=False) == []
    later = "\n".join(lines(commit=5, file="", differs=True))
    assert "a: /x/a.cfg is not in force: commit 5 of an operator is" in later
    assert "chassisctl apply a /x/a.cfg --dry-run" in later
    assert lines(commit=0, file="", differs=False) == []
    assert active_config.now("lab", "a", "/x/a.cfg", found, {}) == []


def test_the_status_is_shown_with_it() -> None:
    status = {
        "lab": "x",
        "seconds": 1.0,
        "boot_seconds": 0.5,
        "missing": [],
        "not_in_force": ["a: a.cfg is not in force", "  the file would change:"],
        "processes": [],
        "nodes": {},
        "flows": {},
        "events": [],
    }
    shown = StringIO()
    Console(file=shown, width=120).print(status_view.render(status))
    assert "a: a.cfg is not in force" in shown.getvalue()
