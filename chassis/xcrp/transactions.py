"""The operators' commands about transactions: `apply`, `commit`, `candidate`, `commits`, `rollback`.

A candidate is the list of lines that an operator typed, with those of their modes, and the number of the commit
that was in force when configuration mode was entered (its base). The lines are applied to what is in force now. A
commit is refused where another one has changed an object since then that these lines change too, and while a
commit of somebody else waits to be confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.bus.messages import Attributes
from chassis.config.difference import ConfigChange, difference
from chassis.xcrp import configuration
from chassis.xcrp.commits import Answer, Commits
from chassis.xcrp.configuration import CheckedConfig
from chassis.xcrp.journal import ChangedPath, Commit, Journal
from chassis.xcrp.operators import Method, Operators

LOCKED: Final = "Database is locked by another transaction"
"""Begins the refusal of a commit because of somebody else's, as on the router."""

SECONDS_A_MINUTE: Final = 60.0


def _apply(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    checked = configuration.check(given["text"], given["file"], modern=state.settings.modern, secret=state.secret)
    checked = state.with_room(checked, given["file"])
    apply = not checked.refused and not given["dry"]
    found = () if checked.refused else difference(state.config, checked.config)
    result: Attributes = {
        "changes": configuration.changes_of(found),
        "diagnostics": configuration.diagnostics_of(checked),
        "applied": apply,
        "version": state.journal.version,
    }
    if not apply:
        return [ToOperator(number, result)]
    if waiting := state.journal.waiting:
        return [ToOperator(number, {**result, "applied": False}, f"apply: {_lock(waiting)}")]
    answer = _answer(operators, number, "apply", result)
    # The commit in force may have a text with wrong lines: then this one takes its place in the journal.
    if (
        not found
        and configuration.identical(state.config, checked.config)
        and not state.running.errors
        and state.journal.last is not None
    ):
        return [*operators.commits.force(checked, given["file"], now), *answer("")]
    commit = Commit(
        0, given["file"], text=given["text"], user=given["user"], comment=given["comment"], changed=_paths(found)
    )
    return operators.commits.commit(commit, checked, answer, now)


def _commit(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state, commits, journal = operators.state, operators.commits, operators.state.journal
    lines, user, base, minutes = given["lines"], given["user"], given["base"], given["confirm"]
    waiting = journal.waiting
    if waiting is not None and (waiting.user != user or (lines.strip() and base < waiting.number)):
        return [ToOperator(number, {}, _lock(waiting))]
    confirms = waiting is not None and given["typed"]
    checked = configuration.check_lines(
        state.running,
        lines,
        given["file"],
        modern=state.settings.modern,
        secret=state.secret,
        typed=not given["file"],
    )
    checked = state.with_room(checked, given["file"])
    result: Attributes = {
        "applied": not checked.refused,
        "version": journal.version,
        "diagnostics": configuration.diagnostics_of(checked),
        "changes": [],
        "minutes": minutes,
        "confirmed": waiting.number if waiting is not None and confirms and not minutes else 0,
    }
    if checked.refused:
        return [ToOperator(number, result)]
    found = difference(state.config, checked.config)
    if why := _conflict(journal, base, found):
        return [ToOperator(number, {}, why)]
    result["changes"] = configuration.changes_of(found)
    answer = _answer(operators, number, "commit", result)
    if configuration.identical(state.config, checked.config) and not minutes:
        return commits.confirm(answer) if confirms else answer("")
    commit = Commit(
        0, given["file"], lines=lines, user=user, comment=given["comment"], changed=_paths(found),
        **_confirmation(commits, waiting, minutes, confirms, now),
    )  # fmt: skip
    return commits.commit(commit, checked, answer, now)


def _confirmation(
    commits: Commits, waiting: Commit | None, minutes: int, confirms: bool, now: float
) -> dict[str, Any]:
    """Return until when a commit must be confirmed, and where it goes back to. Lines that are committed by leaving
    the mode do not confirm the commit before them: they go back with it."""
    if minutes:
        back_to = commits.journal.version if waiting is None else waiting.back_to
        return {"deadline": now + commits.wall_offset + minutes * SECONDS_A_MINUTE, "back_to": back_to}
    if waiting is not None and not confirms:
        return {"deadline": waiting.deadline, "back_to": waiting.back_to}
    return {}


def _candidate(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    checked = configuration.check_lines(
        state.running,
        given["lines"],
        given["file"],
        modern=state.settings.modern,
        secret=state.secret,
        typed=not given["file"],
    )
    checked = state.with_room(checked, given["file"])
    found = difference(state.config, checked.config)
    answer: dict[str, Any] = {
        "difference": list(_difference_lines(found)),
        "diagnostics": configuration.diagnostics_of(checked),
        "conflict": _conflict(state.journal, given["base"], found),
    }
    return [ToOperator(number, answer)]


def _commits(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    journal, wall = operators.state.journal, now + operators.commits.wall_offset
    waiting = journal.waiting
    rows: list[dict[str, Any]] = [
        {
            "number": commit.number,
            "time": commit.time,
            "user": commit.user,
            "comment": commit.comment,
            "file": commit.file,
            "kind": _kind(commit),
            "back": commit.back or 0,
            "state": _state(journal, commit),
        }
        for commit in reversed(journal.commits)
    ]
    undone_if: dict[str, Any] = {}
    if waiting is not None and waiting.deadline is not None:
        seconds = max(0.0, waiting.deadline - wall)
        undone_if = {"number": waiting.number, "user": waiting.user, "seconds": seconds}
    return [ToOperator(number, {"version": journal.version, "commits": rows, "open": undone_if})]


def _kind(commit: Commit) -> str:
    if commit.back is not None:
        return "rollback"
    return "apply" if commit.lines is None else "commit"


def _state(journal: Journal, commit: Commit) -> str:
    """Return what became of a commit that had to be confirmed; empty for another one."""
    if commit.deadline is None:
        return ""
    if commit is journal.last:
        return "confirmed" if commit.confirmed else "waiting"
    later = (other for other in journal.commits if other.number > commit.number)
    ended = next((other for other in later if other.deadline is None or other.back_to != commit.back_to), None)
    if ended is None:
        return "waiting" if journal.waiting is not None else "confirmed"
    return "undone" if ended.undoes and ended.back == commit.back_to else "confirmed"


def _rollback(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state, commits, journal = operators.state, operators.commits, operators.state.journal
    target, user = given["number"], given["user"]
    waiting = journal.waiting
    if waiting is not None and waiting.user != user:
        return [ToOperator(number, {}, _lock(waiting))]
    try:
        earlier = commits.earlier(target)
    except LookupError as error:
        raise ArgumentError(str(error)) from None
    checked = state.with_room(CheckedConfig(earlier.config, (), earlier.all_diagnostics), f"commit {target}")
    found = () if checked.refused else difference(state.config, checked.config)
    result: Attributes = {
        "applied": not checked.refused,
        "version": journal.version,
        "diagnostics": configuration.diagnostics_of(checked),
        "changes": configuration.changes_of(found),
    }
    if checked.refused:
        return [ToOperator(number, result)]
    answer = _answer(operators, number, "rollback", result)
    if waiting is None and configuration.identical(state.config, checked.config):
        return answer("")
    comment = given["comment"] or f"configuration of commit {target} again"
    kept: dict[str, Any] = {"back": target}
    if not journal.reaches(target):
        kept["text"] = configuration.text_of(checked.config)
    commit = Commit(0, "", user=user, comment=comment, changed=_paths(found), **kept)
    return commits.commit(commit, checked, answer, now)


def _answer(operators: Operators, number: int, name: str, result: Attributes) -> Answer:
    """Return the function that answers when the commit is in force, or why it is not."""
    journal = operators.state.journal

    def answer(why: str) -> list[Output]:
        if why:
            return [ToOperator(number, {**result, "applied": False}, f"{name}: {why}")]
        return [ToOperator(number, {**result, "version": journal.version})]

    return answer


def _lock(waiting: Commit) -> str:
    who = waiting.user or "an operator"
    return f"{LOCKED} of user {who}: commit {waiting.number} waits to be confirmed"


def _paths(found: Iterable[ConfigChange]) -> tuple[ChangedPath, ...]:
    return tuple(change.path for change in found)


def _conflict(journal: Journal, base: int, found: Iterable[ConfigChange]) -> str:
    """Return why changes that began at commit `base` cannot be made now; empty if they can. Below 0 there is no
    base.

    Raises:
        ArgumentError: the base is no commit.
    """
    if base > journal.version:
        raise ArgumentError(f"there is no commit {base}; the last one is {journal.version}")
    mine = set(_paths(found))
    if base < 0 or base == journal.version or not mine:
        return ""
    for commit in reversed(journal.commits):
        if commit.number <= base:
            return ""
        who = commit.user or "an operator"
        if commit.changed is None:
            return f"{LOCKED} of user {who}: commit {commit.number} came after this one began"
        both = next((path for path in commit.changed if path in mine), None)
        if both is not None:
            what = " ".join(map(str, both))
            return f"{LOCKED} of user {who}: {what} was changed by commit {commit.number} after this one began"
    if journal.commits and journal.commits[0].number > base + 1:
        return f"{LOCKED}: there were too many since commit {base}, where this one began"
    return ""


def _difference_lines(found: Iterable[ConfigChange]) -> Iterator[str]:
    """Return changes as lines: `+` and `-` before what comes and goes, blanks before the objects that hold it."""
    context = ""
    for change in found:
        kind, *names = map(str, change.path)
        inside = kind == "context" and len(names) > 1
        head = "context" if inside else ""
        if inside:
            if names[0] != context:
                yield f"  context {names[0]}"
            context = names[0]
            kind, *names = names[1:]
        else:
            context = names[0] if kind == "context" else ""
        blanks = " " if head else ""
        name = " ".join((kind, *names))
        if kind in ("route", "kept", "accepted", "hostname"):
            gone = [f"- ip route {' '.join(names)}"] if change.kind == "removed" else []
            yield from (f"{line[:2]}{blanks}{line[2:]}" for line in (*change.lines, *gone))
        elif change.kind == "removed":
            yield f"- {blanks}{name}"
        elif change.kind == "added":
            opening, *lines = change.lines
            yield f"+ {blanks}{opening[2:]}"
            yield from (f"+ {blanks} {line[2:]}" for line in lines)
        else:
            yield f"  {blanks}{name}"
            yield from (f"{line[:2]}{blanks} {line[2:]}" for line in change.lines)


COMMANDS: Final[dict[str, Method]] = {
    "apply": _apply,
    "commit": _commit,
    "candidate": _candidate,
    "commits": _commits,
    "rollback": _rollback,
}
"""Functions that carry out the commands, by name."""
