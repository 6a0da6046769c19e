"""The journal: the file of a router's commits, most of them as differences, with whole configurations between.

A file of lines, each one value in JSON. A commit is one of these:

    {"number", "file", "user", "comment", "time", "changed", ...} with one of
        "text"      a whole configuration
        "lines"     lines that were applied to the configuration of the commit before
        "back"      the number of an earlier commit whose configuration is in force again
    and, of a commit that must be confirmed, "deadline" (s since 1970) and "return" (the number of the commit whose
    configuration comes back when it passes); of a commit that took one back, "undoes" (the number of that one)

Two more lines add to the commit before them: {"number", "checkpoint"} has its whole configuration as text,
{"number", "confirmed"} says that it was confirmed. The configuration in force is that of the last commit that has
a whole one, with the commits after it carried out in order. `back` never names a commit before that. A line
without its end was never in force. Keys are in clear: only the owner may read the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final

from chassis.bus.engine import Append, Persist

JOURNAL: Final = "journal"

MAX_JOURNAL_COMMITS = 100
"""Most commits that are left when a journal is cut back (count), but for those after its last whole one."""

CUT_BACK_COMMITS = 2 * MAX_JOURNAL_COMMITS
"""Number of commits above which a journal is cut back."""

CUT_BACK_OCTETS = 1 << 26
"""Size (octets) above which a journal is cut back, to half of it or to its last whole commit."""

MIN_CHECKPOINT_OCTETS = 1 << 16
"""Octets of differences after a whole commit, and more than that one has, that call for the next checkpoint."""

ChangedPath = tuple[str | int, ...]
"""Names an object, as `chassis.config.difference` has it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A configuration that was put into force.

    One of `text`, `lines` and `back` says what it is (see above); one with `lines` or `back` may have `text` too,
    from a checkpoint. `time` is in seconds since 1970. `changed` names the objects that it changed, None where an
    older program wrote the line. `deadline` is None for a commit that needs no confirmation.
    """

    number: int
    file: str
    text: str | None = None
    lines: str | None = None
    back: int | None = None
    user: str = ""
    comment: str = ""
    time: float = 0.0
    changed: tuple[ChangedPath, ...] | None = None
    deadline: float | None = None
    back_to: int = 0
    confirmed: bool = False
    undoes: int = 0


class Journal:
    """The commits of a node that are kept, oldest first. The first one has a whole configuration.

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
            if not self._read(line):
                self.problems.append(
                    f"line {number} of the journal ({len(line)} octets) is not a commit: left out"
                )
        if torn:
            self.problems.append(
                f"line {len(lines) + 1} of the journal ({len(torn)} octets) has no end: it was never in force"
            )

    # what it holds

    @property
    def last(self) -> Commit | None:
        return self.commits[-1] if self.commits else None

    @property
    def version(self) -> int:
        """Return the number of the last commit; 0 before the first."""
        return self.commits[-1].number if self.commits else 0

    @property
    def waiting(self) -> Commit | None:
        """Return the commit in force if it waits to be confirmed."""
        last = self.last
        return last if last is not None and last.deadline is not None and not last.confirmed else None

    def find(self, number: int) -> Commit | None:
        """Return the commit of a number, if it is kept."""
        return next((commit for commit in reversed(self.commits) if commit.number == number), None)

    def steps_to(self, number: int) -> Sequence[Commit]:
        """Return the commits that make the configuration of a number: a whole one, and those after it in order.

        Raises:
            LookupError: the commit is not kept.
        """
        places = [place for place, commit in enumerate(self.commits) if commit.number == number]
        if not places:
            raise LookupError(f"commit {number} is not kept")
        first = self._whole(places[-1])
        return self.commits[first : places[-1] + 1]

    def reaches(self, number: int) -> bool:
        """Return whether a commit is at or after the last whole one, so that a later line may name it."""
        return bool(self.commits) and self.commits[self._whole(len(self.commits) - 1)].number <= number

    @property
    def needs_checkpoint(self) -> bool:
        """Return whether the last commit's configuration should be written as a whole."""
        if not self.commits or self.commits[-1].text is not None or self.waiting is not None:
            return False
        whole = self._whole(len(self.commits) - 1)
        octets = sum(self._sizes[whole + 1 :])
        return self.differences >= MAX_JOURNAL_COMMITS or octets > max(MIN_CHECKPOINT_OCTETS, self._sizes[whole])

    @property
    def differences(self) -> int:
        """Return the number of commits after the last whole one."""
        return len(self.commits) - 1 - self._whole(len(self.commits) - 1) if self.commits else 0

    @property
    def needs_cut(self) -> bool:
        """Return whether the journal must be cut back."""
        return self._cut() > 0 and (len(self.commits) > CUT_BACK_COMMITS or sum(self._sizes) > CUT_BACK_OCTETS)

    # its changes: each returns a write, and may be taken for done when that is on disk

    def rewrite(self) -> Persist:
        """Return the write that makes the file hold exactly these commits, cut back if there are too many."""
        if self.needs_cut:
            cut = self._cut()
            del self.commits[:cut], self._sizes[:cut]
        lines = [_written(commit) for commit in self.commits]
        self._sizes = [len(line) for line in lines]
        return Persist(JOURNAL, b"".join(lines))

    def append(self, commit: Commit) -> Append:
        """Add a commit."""
        line = _written(commit)
        self._add(commit, len(line))
        return Append(JOURNAL, line)

    def undo_append(self) -> None:
        """Remove the last commit, because its write failed."""
        del self.commits[-1], self._sizes[-1]

    def confirm(self) -> Append:
        """Confirm the last commit."""
        self.commits[-1] = replace(self.commits[-1], confirmed=True)
        return Append(JOURNAL, _line({"number": self.version, "confirmed": True}))

    def undo_confirm(self) -> None:
        """The last commit is not confirmed, because that write failed."""
        self.commits[-1] = replace(self.commits[-1], confirmed=False)

    def checkpoint(self, text: str) -> Append:
        """Add the whole configuration of the last commit."""
        line = _line({"number": self.version, "checkpoint": text})
        self.commits[-1] = replace(self.commits[-1], text=text)
        self._sizes[-1] += len(line)
        return Append(JOURNAL, line)

    # inside

    def _whole(self, place: int) -> int:
        """Return the place of the last commit up to this one that has a whole configuration."""
        while place > 0 and self.commits[place].text is None:
            place -= 1
        return place

    def _cut(self) -> int:
        """Return how many commits a cut removes: it leaves a whole one first."""
        last = self._whole(len(self.commits) - 1) if self.commits else 0
        cut = self._whole(max(0, len(self.commits) - MAX_JOURNAL_COMMITS))
        while cut < last and (self.commits[cut].text is None or sum(self._sizes[cut:]) > CUT_BACK_OCTETS // 2):
            cut += 1
        return cut

    def _add(self, commit: Commit, size: int) -> None:
        self.commits.append(commit)
        self._sizes.append(size)

    def _read(self, line: bytes) -> bool:
        """Take in a line of the file; return False if it is none of a journal."""
        try:
            value = json.loads(line)
            number = value["number"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if type(number) is not int:
            return False
        if "checkpoint" in value or ("confirmed" in value and "file" not in value):
            if not self.commits or self.commits[-1].number != number:
                return False
            if "checkpoint" not in value:
                self.commits[-1] = replace(self.commits[-1], confirmed=True)
            elif type(value["checkpoint"]) is str:
                self.commits[-1] = replace(self.commits[-1], text=value["checkpoint"])
                self._sizes[-1] += len(line) + 1
            else:
                return False
            return True
        commit = _commit(value)
        if commit is None or (commit.text is None and not self.commits):
            return False
        self._add(commit, len(line) + 1)
        return True


_TYPES: Final[dict[str, type]] = {
    "number": int, "file": str, "text": str, "lines": str, "back": int, "user": str, "comment": str, "time": float,
    "deadline": float, "return": int, "confirmed": bool, "undoes": int,
}  # fmt: skip
"""Types of the values of a commit's line."""


def _commit(value: dict[str, Any]) -> Commit | None:
    """Return the commit of a line; None if its values have other types."""
    held = {name: value[name] for name in _TYPES if name in value}
    if "file" not in held or not {"text", "lines", "back"} & held.keys():
        return None
    for name, item in held.items():
        if type(item) is not _TYPES[name] or (type(item) is float and not isfinite(item)):
            return None
    changed = value.get("changed")
    if "return" in held:
        held["back_to"] = held.pop("return")
    try:
        paths = None if changed is None else tuple(tuple(path) for path in changed)
    except TypeError:
        return None
    return Commit(**held, changed=paths)


def _written(commit: Commit) -> bytes:
    """Return the line of a commit: what is not its default."""
    value: dict[str, Any] = {"number": commit.number, "file": commit.file}
    for name in ("text", "lines", "back", "deadline"):
        if (item := getattr(commit, name)) is not None:
            value[name] = item
    for name in ("user", "comment", "time", "confirmed", "undoes"):
        if item := getattr(commit, name):
            value[name] = item
    if commit.deadline is not None:
        value["return"] = commit.back_to
    if commit.changed is not None:
        value["changed"] = commit.changed
    return _line(value)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
