"""Routers whose configuration in force is a commit and not their start-up file (S-113).

A controller that finds commits in its state folder loads the last one and does not read the start-up file.
Input: the state folder, the start-up file, a controller's status. Output: note lines for people.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.config.secrets import RouterSecret
from chassis.model.router import Config
from chassis.xcrp import configuration
from chassis.xcrp.journal import JOURNAL, Journal

SHOWN = 12
"""Largest number of lines that a note shows of a difference."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The last commit of a router, and its difference from the start-up file of this launch.

    `lines` are the changes that applying the file would make, with keys in their encrypted form; `()` if both mean
    the same.
    """

    number: int
    file: str
    lines: tuple[str, ...]


def committed(
    state: Path, text: str, config: Config, modern: bool, secret: RouterSecret | None = None
) -> Committed | None:
    """Compare a node's last commit with the text of its start-up file; None if the state folder has no commit."""
    try:
        journal = Journal((state / JOURNAL).read_bytes())
    except OSError:
        return None
    last = journal.last
    if last is None:
        return None
    lines: tuple[str, ...] = ()
    if last.text != text:
        held = configuration.replay(journal.steps_to(last.number), modern=modern, secret=secret).config
        lines = tuple(_lines(configuration.changes(held, config)))
    return Committed(last.number, last.file, lines)


def _lines(changes: list[dict[str, Any]]) -> Iterator[str]:
    for change in changes:
        yield f"{change['kind']}: {' '.join(change['path'])}"
        yield from (f"  {line}" for line in change["lines"])


def startup_notes(lab: str, node: str, file: str, found: Committed) -> list[str]:
    """Return the lines that tell people about the commit in force; empty if there is no difference."""
    if not found.lines:
        return []
    more = len(found.lines) - SHOWN
    return [
        f"{node}: {file} is not in force: commit {found.number} of {found.file or 'an operator'} is",
        "  the file would change:",
        *(f"    {line}" for line in found.lines[:SHOWN]),
        *([f"    ... and {more} lines more"] if more > 0 else []),
        f"  to use the file: {apply(node, file)}",
        _forget(lab),
    ]


def _forget(lab: str) -> str:
    return f"  to delete the commits and all other state of the lab: chassis-launch destroy {lab}"


def apply(node: str, file: str) -> str:
    """Return the command that applies a file to a running router."""
    return f"chassisctl apply {node} {shlex.quote(os.path.abspath(file))}"


def now(lab: str, node: str, file: str, found: Committed | None, status: Mapping[str, Any]) -> list[str]:
    """Return the same note for a running router, from its controller's status; it may have newer commits."""
    running = status.get("configuration") or {}
    number = running.get("commit")
    if not number or not running.get("differs"):
        return []
    if found is not None and found.number == number:
        return startup_notes(lab, node, file, found)
    command = apply(node, file)
    return [
        f"{node}: {file} is not in force: commit {number} of {running.get('file') or 'an operator'} is",
        f"  to see the difference: {command} --dry-run; to use the file: {command}",
        _forget(lab),
    ]
