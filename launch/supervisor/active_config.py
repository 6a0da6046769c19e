"""Which configuration a router goes by where it is not its start-up file (S-113), and what can be done about it.

A controller that finds commits in its state folder goes by the last of them, and the start-up file is not read.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.model.router import Config
from chassis.xcrp import configuration

SHOWN = 12
"""Most lines that are said of a difference."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The last commit of a router, and how it differs from the start-up file of this launch.

    `lines` are what applying the file would change, with keys hidden: empty where both mean the same.
    """

    number: int
    file: str
    lines: tuple[str, ...]


def committed(state: Path, text: str, config: Config, modern: bool) -> Committed | None:
    """What a node's state folder holds beside this text of its start-up file; None where it holds no commit."""
    try:
        journal = configuration.Journal((state / configuration.JOURNAL).read_bytes())
    except OSError:
        return None
    last = journal.last
    if last is None:
        return None
    lines: tuple[str, ...] = ()
    if last.text != text:
        held = configuration.check(last.text, last.file, modern=modern).config
        lines = tuple(_lines(configuration.changes(held, config)))
    return Committed(last.number, last.file, lines)


def _lines(changes: list[dict[str, Any]]) -> Iterator[str]:
    for change in changes:
        yield f"{change['kind']}: {' '.join(change['path'])}"
        yield from (f"  {line}" for line in change["lines"])


def startup_notes(lab: str, node: str, file: str, found: Committed) -> list[str]:
    """The lines that say so, for people; none where there is no difference."""
    if not found.lines:
        return []
    more = len(found.lines) - SHOWN
    return [
        f"{node}: {file} is not in force: commit {found.number} of {found.file or 'an operator'} is",
        "  the file would change:",
        *(f"    {line}" for line in found.lines[:SHOWN]),
        *([f"    ... and {more} lines more"] if more > 0 else []),
        f"  to go by the file: {apply(node, file)}",
        _forget(lab),
    ]


def _forget(lab: str) -> str:
    return f"  to forget what was committed, and all other state of the lab: chassis-launch destroy {lab}"


def apply(node: str, file: str) -> str:
    """The command that puts a file into force."""
    return f"chassisctl apply {node} {shlex.quote(os.path.abspath(file))}"


def now(lab: str, node: str, file: str, found: Committed | None, status: Mapping[str, Any]) -> list[str]:
    """The same of a router that runs, from its controller's status; it may have had commits since the launch."""
    running = status.get("configuration") or {}
    number = running.get("commit")
    if not number or not running.get("differs"):
        return []
    if found is not None and found.number == number:
        return startup_notes(lab, node, file, found)
    command = apply(node, file)
    return [
        f"{node}: {file} is not in force: commit {number} of {running.get('file') or 'an operator'} is",
        f"  how they differ: {command} --dry-run; to go by the file: {command}",
        _forget(lab),
    ]
