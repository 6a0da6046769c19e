"""The running configuration and the journal of its commits.

A commit is on disk, in the journal, before it takes effect and before it is acknowledged. A controller that ends
at any moment therefore restarts with the complete old or the complete new configuration. The journal is a file of
lines, each one commit in JSON. A line without its end was never in force.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chassis.bus.engine import Append, Persist
from chassis.config.diagnostics import Diagnostic, has_errors
from chassis.config.difference import difference
from chassis.config.parser import parse
from chassis.config.render import render
from chassis.model.router import Config

JOURNAL = "journal"

MAX_JOURNAL_COMMITS = 20
"""Most commits that are left when a journal is cut back (count)."""

CUT_BACK_COMMITS = 2 * MAX_JOURNAL_COMMITS
"""Number of commits above which a journal is cut back."""

CUT_BACK_OCTETS = 1 << 26
"""Size (octets) above which a journal is cut back, to half of it or to its last commit."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A configuration that was put into force: the text of its file as given, and the file's name."""

    number: int
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class CheckedConfig:
    """A parsed and checked text. `config` is the configuration without the lines in error.

    An operator's `apply` of a text with an error is refused. A start-up file, also as the journal has it, is put
    into force without those lines (rule 2 of docs/decisions.md).
    """

    config: Config
    diagnostics: tuple[Diagnostic, ...]

    @property
    def refused(self) -> bool:
        return has_errors(self.diagnostics)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Return the diagnostics of the lines in error."""
        return tuple(found for found in self.diagnostics if found.severity == "error")


@lru_cache(maxsize=4)
def check(text: str, file: str, *, modern: bool = False) -> CheckedConfig:
    """Parse a configuration and check it. Errors in the text do not raise; they are in the diagnostics.

    `modern`: accept the algorithms that the guide does not have. The last few results are cached, because a text
    is checked before it is applied and again when it is put into force, which takes 1 s for thousands of tunnels.
    """
    parsed = parse(text, file, modern=modern)
    return CheckedConfig(parsed.config, parsed.diagnostics)


def diagnostics_of(checked: CheckedConfig) -> list[dict[str, str | int | float | bool | bytes | None]]:
    """Return the diagnostics as in an operator's answer."""
    return [
        {
            "severity": found.severity,
            "code": found.code,
            "name": found.name,
            "file": found.file,
            "line": found.line,
            "column": found.column,
            "message": found.message,
            "hint": found.hint,
        }
        for found in checked.diagnostics
    ]


class Journal:
    """The commits of a node that are kept, oldest first.

    `problems` names each line that could not be read, without its text, because it may contain keys.
    """

    def __init__(self, data: bytes | None) -> None:
        """`data`: the journal's file, None where there is none."""
        self.commits: list[Commit] = []
        self.problems: list[str] = []
        self._sizes: list[int] = []
        lines = (data or b"").split(b"\n")
        torn = lines.pop()
        for number, line in enumerate(lines, 1):
            commit = _read(line)
            if commit is None:
                self.problems.append(
                    f"line {number} of the journal ({len(line)} octets) is not a commit: left out"
                )
            else:
                self._add(commit, len(line) + 1)
        if torn:
            self.problems.append(
                f"line {len(lines) + 1} of the journal ({len(torn)} octets) has no end: it was never in force"
            )

    @property
    def last(self) -> Commit | None:
        return self.commits[-1] if self.commits else None

    @property
    def needs_cut(self) -> bool:
        """Return whether the journal must be cut back."""
        return len(self.commits) > CUT_BACK_COMMITS or (
            len(self.commits) > 1 and sum(self._sizes) > CUT_BACK_OCTETS
        )

    def rewrite(self) -> Persist:
        """Return the write that makes the file hold exactly these commits, cut back if there are too many."""
        if self.needs_cut:
            keep = 1
            while (
                keep < min(MAX_JOURNAL_COMMITS, len(self._sizes))
                and sum(self._sizes[-keep - 1 :]) <= CUT_BACK_OCTETS // 2
            ):
                keep += 1
            del self.commits[:-keep], self._sizes[:-keep]
        return Persist(JOURNAL, b"".join(map(_written, self.commits)))

    def append(self, file: str, text: str) -> Append:
        """Add a commit; return its write. It may be put into force when that is on disk."""
        number = self.commits[-1].number + 1 if self.commits else 1
        commit = Commit(number, file, text)
        line = _written(commit)
        self._add(commit, len(line))
        return Append(JOURNAL, line)

    def undo_append(self) -> None:
        """Remove the last commit, because its write failed."""
        del self.commits[-1], self._sizes[-1]

    def _add(self, commit: Commit, size: int) -> None:
        self.commits.append(commit)
        self._sizes.append(size)


def _written(commit: Commit) -> bytes:
    return json.dumps({"number": commit.number, "file": commit.file, "text": commit.text}).encode() + b"\n"


def _read(line: bytes) -> Commit | None:
    try:
        value = json.loads(line)
        number, file, text = value["number"], value["file"], value["text"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if type(number) is not int or type(file) is not str or type(text) is not str:
        return None
    return Commit(number, file, text)


def changes(old: Config, new: Config) -> list[dict[str, Any]]:
    """Return the changes of a commit as in an operator's answer, without keys."""
    return [
        {"kind": change.kind, "path": [str(part) for part in change.path], "lines": list(change.lines)}
        for change in difference(old, new)
    ]


def text_of(config: Config) -> str:
    """Return the configuration as commands, as in a saved file, including keys."""
    return render(config)
