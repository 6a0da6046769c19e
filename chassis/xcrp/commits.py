"""Commits, and files of numbers, that must be on disk before they take effect.

A commit is written to the journal, and takes effect when the shell reports that the write is on disk. If the write
failed, the commit is refused with the reason. A commit that must be confirmed is undone when its time is over, by
the next controller too. While a file of numbers is not on disk, no card gets records that may use them. A failed
write is reported once and repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

from chassis.bus.engine import Append, Output, Persist
from chassis.config.difference import difference
from chassis.config.render import render_in_parts
from chassis.xcrp.configuration import CheckedConfig, check, replay
from chassis.xcrp.id_allocator import IdAllocator
from chassis.xcrp.journal import JOURNAL, MAX_JOURNAL_COMMITS, Commit
from chassis.xcrp.state import ControllerState

WRITE_RETRY_INTERVAL = 0.25
"""Time after a failed write until the next try (s)."""

CHECKPOINT_DELAY = 2.0
"""Time without a commit before a checkpoint is begun (s): a commit begins its text anew."""

CHECKPOINT_PART = 2000
"""Lines of a checkpoint's text that are made at once (count): some milliseconds of work."""

MAX_LOGGED_ERRORS = 100
"""Errors of a start-up file that are logged one by one (count); `status` has their number."""

Answer = Callable[[str], list[Output]]
"""Returns the answer to the operator who commits, from why the commit is refused, or from an empty text."""

Force = Callable[[CheckedConfig, str, float], list[Output]]
"""Puts a configuration into force. The text says what it is, as in "configuration a.cfg"."""


@dataclass(frozen=True, slots=True)
class _JournalWrite:
    """A write to the journal for which somebody waits. If it fails, `undo` takes it back."""

    done: Callable[[float], list[Output]]
    undo: Callable[[], None]
    answer: Answer
    what: str


class Commits:
    """The journal, what waits for it, and the files whose last write failed."""

    def __init__(
        self,
        state: ControllerState,
        numbers: IdAllocator,
        force: Force,
        tell_all: Callable[[], list[Output]],
        wall_offset: float,
    ) -> None:
        """`tell_all` sends every card all records that it needs. `wall_offset`: what the clock of the day (s since
        1970) shows more than the engine's."""
        self.state, self.journal = state, state.journal
        self._numbers, self._force, self._tell_all = numbers, force, tell_all
        self.wall_offset = wall_offset
        self._writes: deque[_JournalWrite | None] = deque()
        """The writes to the journal whose results are to come, in order; None for one that nobody waits for."""
        self._before: tuple[int, CheckedConfig] | None = None
        """The number and the configuration before the commit that waits to be confirmed, if at hand."""
        self._undo_after, self._undo_before = 0.0, inf
        """When what is not confirmed is undone at the earliest, because the last try failed, and at the latest,
        because the clock of the day may have been set back while no controller ran."""
        self._checkpoint_at = inf
        self._rendering: tuple[int, Iterator[str]] | None = None
        """The number of a commit, and its configuration as text while that is made."""
        self.write_errors: dict[str, str] = {}
        """Error of the last write, by file."""
        self.retry_at = inf

    @property
    def busy(self) -> bool:
        """Whether a commit waits for its write."""
        return any(self._writes)

    # at the start

    def load(self, startup: tuple[str, str] | None, now: float) -> list[Output]:
        """Put the journal's last configuration into force, or the file that a start without one reads."""
        state, journal = self.state, self.journal
        outputs: list[Output] = []
        waiting, last = journal.waiting, journal.last
        if waiting is not None and waiting.deadline is not None and waiting.deadline <= now + self.wall_offset:
            checked = replay(journal.steps_to(waiting.back_to), modern=state.settings.modern, secret=state.secret)
            now_in_force = replay(
                journal.steps_to(waiting.number), modern=state.settings.modern, secret=state.secret
            )
            commit = self._undoing(waiting, now_in_force, checked, now)
            outputs += self._append(commit)
            outputs += state.event(f"configuration of commit {waiting.back_to} again: {commit.comment}", now)
            file = ""
        elif last is not None:
            if waiting is not None and waiting.deadline is not None:
                self._undo_before = now + max(0.0, waiting.deadline - waiting.time)
            checked = replay(journal.steps_to(last.number), modern=state.settings.modern, secret=state.secret)
            file = last.file
        elif startup is not None:
            text, file = startup
            checked = state.with_room(check(text, file, modern=state.settings.modern, secret=state.secret), file)
        else:
            return []
        state.diagnostics = checked
        errors = checked.errors
        for found in errors[:MAX_LOGGED_ERRORS]:
            state.log("error", "configuration", found.logged, now)
        if errors and last is None and state.settings.refuse:
            return state.event(f"configuration {file} refused: {errors[0].logged}", now)
        state.config = checked.config
        if last is None and startup is not None:
            outputs += self._append(Commit(1, file, text=startup[0], time=now + self.wall_offset))
        if errors:
            what = "1 error: its line has" if len(errors) == 1 else f"{len(errors)} errors: their lines have"
            name = file or "from an operator"
            outputs += state.event(f"configuration {name} in force with {what} no effect; {errors[0].logged}", now)
        return outputs

    def repair_journal(self) -> list[Output]:
        """Rewrite the journal if it has lines that cannot be read, or too many commits."""
        if self.journal.problems or self.journal.needs_cut:
            return [self._written(self.journal.rewrite())]
        return []

    # commits

    def commit(self, commit: Commit, checked: CheckedConfig, answer: Answer, now: float) -> list[Output]:
        """Begin a commit; it gets its number and its time here."""
        assert not checked.refused
        assert not self.busy
        before = (self.journal.version, self.state.running)
        commit = replace(commit, number=before[0] + 1, time=now + self.wall_offset)

        def done(now: float) -> list[Output]:
            self._undo_before = inf
            if commit.deadline is not None and commit.back_to == before[0]:
                self._before = before
            self._call_checkpoint(now)
            return self._force(checked, _called(commit), now)

        write = _JournalWrite(done, self.journal.undo_append, answer, _called(commit))
        return [self._written(self.journal.append(commit), write)]

    def force(self, checked: CheckedConfig, file: str, now: float) -> list[Output]:
        """Put a configuration into force that says the same as the one in force: the journal has it already."""
        return self._force(checked, _called(Commit(0, file, text="")), now)

    def confirm(self, answer: Answer) -> list[Output]:
        """Confirm the commit that waits for it."""
        number = self.journal.version

        def done(now: float) -> list[Output]:
            self._call_checkpoint(now)
            return self.state.event(f"commit {number} confirmed", now)

        write = _JournalWrite(done, self.journal.undo_confirm, answer, f"the confirmation of commit {number}")
        return [self._written(self.journal.confirm(), write)]

    def earlier(self, number: int) -> CheckedConfig:
        """Return the configuration of a commit.

        Raises:
            LookupError: the commit is not kept.
        """
        if self._before is not None and self._before[0] == number:
            return self._before[1]
        return replay(self.journal.steps_to(number), modern=self.state.settings.modern, secret=self.state.secret)

    # time

    def next_timer(self) -> float:
        return min(self.retry_at, inf if self.busy else self._checkpoint_at, self._undo_at())

    def on_timer(self, now: float) -> list[Output]:
        """Repeat failed writes, undo what was not confirmed, and write a checkpoint, where it is time."""
        outputs = self._retry_writes(now)
        waiting = self.journal.waiting
        if waiting is not None and now >= self._undo_at():
            outputs += self._undo(waiting, now)
        elif now >= self._checkpoint_at and not self.busy:
            outputs += self._checkpoint()
        return outputs

    def _call_checkpoint(self, now: float) -> None:
        """A commit was written: say when the next checkpoint is begun."""
        overdue = self.journal.differences >= 2 * MAX_JOURNAL_COMMITS
        delay = 0.0 if overdue else CHECKPOINT_DELAY
        self._checkpoint_at = now + delay if self.journal.needs_checkpoint else inf

    def _checkpoint(self) -> list[Output]:
        """Go on with the next checkpoint: a part of its text, or the write of the whole."""
        journal = self.journal
        if not journal.needs_checkpoint:
            self._checkpoint_at, self._rendering = inf, None
            return []
        if self._rendering is None or self._rendering[0] != journal.version:
            # Where one commit follows the other, no text would ever be ready in time.
            every = CHECKPOINT_PART if journal.differences < 2 * MAX_JOURNAL_COMMITS else None
            self._rendering = (journal.version, render_in_parts(self.state.config, every=every))
        text = next(self._rendering[1])
        if not text:
            return []
        self._checkpoint_at, self._rendering = inf, None
        return [self._written(journal.checkpoint(text))]

    def _undo_at(self) -> float:
        """Return when the commit that waits to be confirmed is undone; inf without one."""
        waiting = self.journal.waiting
        if waiting is None or waiting.deadline is None or self.busy or not self.state.reconciled:
            return inf
        return max(min(waiting.deadline - self.wall_offset, self._undo_before), self._undo_after)

    def _undo(self, waiting: Commit, now: float) -> list[Output]:
        checked = self.earlier(waiting.back_to)
        commit = self._undoing(waiting, self.state.running, checked, now)

        def done(now: float) -> list[Output]:
            return self._force(checked, f"configuration of commit {waiting.back_to} again: {commit.comment}:", now)

        def undo() -> None:
            self.journal.undo_append()
            self._undo_after = now + WRITE_RETRY_INTERVAL

        return [self._written(self.journal.append(commit), _JournalWrite(done, undo, lambda why: [], ""))]

    def _undoing(self, waiting: Commit, old: CheckedConfig, new: CheckedConfig, now: float) -> Commit:
        """Return the commit that takes back one that was not confirmed."""
        return Commit(
            self.journal.version + 1,
            "",
            back=waiting.back_to,
            user=waiting.user,
            comment=f"commit {waiting.number} of {waiting.user or 'an operator'} was not confirmed",
            time=now + self.wall_offset,
            changed=tuple(change.path for change in difference(old.config, new.config)),
            undoes=waiting.number,
        )

    # results of writes

    def on_stored(self, file: str, error: str, now: float) -> list[Output]:
        """The shell's answer to a `Persist` or `Append`: why the file is not on disk, or empty if it is."""
        if file != JOURNAL:
            return self._stored_numbers(file, error, now)
        write = self._writes.popleft() if self._writes else None
        if write is None:
            return self._report_write(file, error, now)
        if error:
            write.undo()
            if not write.what:
                return self._report_write(file, error, now)
            why = f"the journal can't be written: {error}"
            said = self.state.event(f"{write.what} refused: {why}", now)
            return [*said, *write.answer(why)]
        outputs = [*write.done(now), *write.answer("")]
        if self.journal.needs_cut:
            outputs.append(self._written(self.journal.rewrite()))
        return outputs

    def _written(self, output: Persist | Append, write: _JournalWrite | None = None) -> Output:
        self._writes.append(write)
        return output

    def _append(self, commit: Commit) -> list[Output]:
        """Add a commit that is in force already; if it does not get to disk, that is tried again."""
        return [self._written(self.journal.append(commit))]

    def _retry_writes(self, now: float) -> list[Output]:
        """Repeat failed writes if it is time; `on_stored` gets the result."""
        if now < self.retry_at:
            return []
        self.retry_at = inf
        outputs: list[Output] = []
        if JOURNAL in self.write_errors:
            if not self.busy:
                outputs.append(self._written(self.journal.rewrite()))
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
            return [] if known == error else self.state.event(text, now)
        if known is None:
            return []
        del self.write_errors[file]
        if not self.write_errors:
            self.retry_at = inf
        return self.state.event(f"{file} is written again", now)


def _called(commit: Commit) -> str:
    """Return what a commit is called in the history."""
    if commit.text is not None and commit.back is None:
        return f"configuration {commit.file or 'from an operator'}"
    return f"commit {commit.number} of {commit.user or 'an operator'}"
