"""Commits, and files of numbers, that must be on disk before they take effect.

A commit is written to the journal, and takes effect when the shell reports that the write is on disk. If the write
failed, the commit is refused with the reason. While a file of numbers is not on disk, no card gets records that
may use them. A failed write is reported once and repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from chassis.bus.engine import Output
from chassis.xcrp.configuration import JOURNAL, CheckedConfig, Journal
from chassis.xcrp.id_allocator import IdAllocator

WRITE_RETRY_INTERVAL = 0.25
"""Time after a failed write until the next try (s)."""

Answer = Callable[[str], list[Output]]
"""Returns the answer to the operator who commits, from why the commit is refused, or from an empty text."""

Force = Callable[[str, CheckedConfig, float], list[Output]]
"""Puts the configuration of a file into force."""


@dataclass(frozen=True, slots=True)
class _Commit:
    file: str
    checked: CheckedConfig
    answer: Answer


class Commits:
    """The journal, the commit that waits for it, and the files whose last write failed."""

    def __init__(
        self,
        journal: Journal,
        numbers: IdAllocator,
        force: Force,
        event: Callable[[str, float], list[Output]],
        tell_all: Callable[[], list[Output]],
    ) -> None:
        """`event` adds a line to the history; `tell_all` sends every card all records that it needs."""
        self.journal = journal
        self._numbers, self._force, self._event, self._tell_all = numbers, force, event, tell_all
        self._waiting: _Commit | None = None
        self.write_errors: dict[str, str] = {}
        """Error of the last write, by file."""
        self.retry_at = inf

    @property
    def busy(self) -> bool:
        """Whether a commit waits for its write."""
        return self._waiting is not None

    def repair_journal(self) -> list[Output]:
        """Rewrite the journal if it has lines that cannot be read, or too many commits."""
        return [self.journal.rewrite()] if self.journal.problems or self.journal.needs_cut else []

    def commit(
        self, text: str, file: str, checked: CheckedConfig, same: bool, answer: Answer, now: float
    ) -> list[Output]:
        """Begin a commit. `same`: it is equal to the one in force, so it is not written to the journal."""
        assert not checked.refused
        assert not self.busy
        if same and self.journal.last is not None:
            return [*self._force(file, checked, now), *answer("")]
        self._waiting = _Commit(file, checked, answer)
        return [self.journal.append(file, text)]

    def on_stored(self, file: str, error: str, now: float) -> list[Output]:
        """The shell's answer to a `Persist` or `Append`: why the file is not on disk, or empty if it is."""
        if file != JOURNAL:
            return self._stored_numbers(file, error, now)
        commit, self._waiting = self._waiting, None
        if commit is None:
            return self._report_write(file, error, now)
        if error:
            self.journal.undo_append()
            why = f"the journal can't be written: {error}"
            said = self._event(f"configuration {commit.file or 'from an operator'} refused: {why}", now)
            return [*said, *commit.answer(why)]
        outputs = [*self._force(commit.file, commit.checked, now), *commit.answer("")]
        if self.journal.needs_cut:
            outputs.append(self.journal.rewrite())
        return outputs

    def retry_writes(self, now: float) -> list[Output]:
        """Repeat failed writes if it is time; `on_stored` gets the result."""
        if now < self.retry_at:
            return []
        self.retry_at = inf
        outputs: list[Output] = []
        if JOURNAL in self.write_errors:
            if self._waiting is None:
                outputs.append(self.journal.rewrite())
            else:
                self.retry_at = now + WRITE_RETRY_INTERVAL
        return outputs + list(self._numbers.pending_writes())

    def _stored_numbers(self, file: str, error: str, now: float) -> list[Output]:
        if error:
            self._numbers.unstored(file)
        outputs = self._report_write(file, error, now)
        if not error and outputs and not self.write_errors.keys() - {JOURNAL}:
            outputs += self._tell_all()
        return outputs

    def _report_write(self, file: str, error: str, now: float) -> list[Output]:
        """Remember the result of a write; report it where it differs from the last one."""
        known = self.write_errors.get(file)
        if error:
            self.write_errors[file] = error
            self.retry_at = now + WRITE_RETRY_INTERVAL
            text = f"{file} can't be written ({error}): it is tried again"
            return [] if known == error else self._event(text, now)
        if known is None:
            return []
        del self.write_errors[file]
        if not self.write_errors:
            self.retry_at = inf
        return self._event(f"{file} is written again", now)
