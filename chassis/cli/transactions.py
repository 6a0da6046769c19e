"""Conversations of configuration mode: entering it, typed lines, commit, abort, and the ways out.

Their outcomes are for the view `chassis.cli.views.transactions.said`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from chassis.cli.config_mode import ConfigMode, TypedLine
from chassis.cli.dialogue import Conversation, Inquiry, InquiryReply, Outcome, Seat, Step, refused
from chassis.config.diagnostics import Diagnostic, has_errors
from chassis.config.grammar import Command

GREETING: Final = "Enter configuration commands, one per line, 'end' to exit"
COMMITTED: Final = "Transaction committed"
ABORTED: Final = "Transaction aborted"
DEFAULT_CONFIRM: Final = 10
"""Minutes until a commit that nobody confirms is rolled back."""

LEFT_OUT: Final = "% Error: left out, as the line that it is indented below"
INVALID: Final = "% Invalid input at '^' marker"
_SAYS: Final = {"error": "% Error", "warning": "% Warning", "note": "% Note"}
_PLAIN: Final = frozenset({"unknown", "surplus", "incomplete", "ambiguous"})
"""Codes of diagnostics of which the caret says enough."""

Values = Mapping[str, Any]


def _said(*said: str, failed: bool = False) -> Outcome:
    return Outcome({"lines": [*said]}, failed=failed)


def identify(seat: Seat, *, keep: bool = False) -> Generator[Step, Any, InquiryReply]:
    """Ask who the router is; return the reply. The prompt has its name from then on. With `keep` ^C does not end
    it: what was done before has yet to be told."""
    reply: InquiryReply = yield Inquiry("identity", keep=keep)
    if not reply.error:
        seat.hostname = str(reply.result["hostname"])
    return reply


def begin(values: Values, seat: Seat) -> Conversation:
    """What a new session does before its first prompt."""
    yield from identify(seat)
    return _said()


def configure(values: Values, seat: Seat) -> Conversation:
    """Enter configuration mode."""
    reply = yield from identify(seat)
    seat.mode = begun(reply.unless_refused())
    return _said(GREETING)


def begun(identity: Mapping[str, Any]) -> ConfigMode:
    """Configuration mode on what is in force now."""
    return ConfigMode(int(identity["version"]), modern=bool(identity["modern"]))


def typed_line(seat: Seat, mode: ConfigMode, typed: TypedLine) -> Conversation:
    """A line that changes something: learn the object that it names, then take the line."""
    if typed.hides:
        refused("the history hides keys: type it")
    path = mode.missing(typed)
    if path:
        reply: InquiryReply = yield Inquiry("object", {"path": [*path]})
        found = reply.unless_refused()
        mode.learn(typed, bool(found["exists"]), str(found["text"]))
    said = mode.take(typed)
    return _said(*(line for found in said for line in diagnostic_lines(found)), failed=has_errors(said))


def wrong_line(mode: ConfigMode, typed: TypedLine, indent: int) -> list[str]:
    """Refuse a line that no open mode knows; it was typed `indent` columns from the left. Return what is said."""
    mode.refuse(typed)
    found, failure = mode.why(typed), typed.failure
    words = typed.source.words
    if failure is not None and failure.ambiguous and (found is None or found.code == "ambiguous"):
        before = typed.source.text[typed.source.start : typed.source.columns[typed.reached] - 1]
        return [f'% Ambiguous command:  "{before}{words[typed.reached]}"']
    if found is not None and found.code == "incomplete" and typed.reached >= len(words):
        return [f"% Incomplete command: {' '.join(words)}"]
    column = typed.source.columns[min(typed.reached, len(words) - 1)] if found is None else found.column
    said = [f"{' ' * (indent + column - 1)}^", INVALID]
    if found is not None and (found.code not in _PLAIN or found.hint):
        plain = found.code in _PLAIN
        said += [f"  repaired: {found.hint}"] if plain else diagnostic_lines(found)
    return said


def of_exec_mode(mode: ConfigMode, command: Command) -> list[str]:
    """What is said of a command of exec mode. `configure` at the top, as a file may begin, is passed over."""
    if command.id != "config":
        return [f"% Error: `{command.keywords}` is a command of exec mode, not of the configuration"]
    return ["% Error: configuration mode is open already"] if mode.depth else []


def diagnostic_lines(found: Diagnostic | Mapping[str, Any], where: str = "") -> list[str]:
    """A diagnostic as the CLI prints it; `where` names its line."""
    get = found.get if isinstance(found, Mapping) else lambda name: getattr(found, name)
    said = [f"{_SAYS[str(get('severity'))]}: {where}{get('message')}"]
    return [*said, f"  repaired: {get('hint')}"] if get("hint") else said


def commit(values: Values, seat: Seat) -> Conversation:
    """`commit` as it is typed; only that confirms what waits to be confirmed."""
    minutes = int(values.get("minutes", DEFAULT_CONFIRM)) if values.get("confirmed") else 0
    return (yield from _commit(seat, minutes, _unquoted(str(values.get("comment", ""))), typed=True))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _commit(seat: Seat, minutes: int, comment: str, *, typed: bool) -> Conversation:
    mode = _mode(seat)
    arguments = {
        "lines": mode.text,
        "base": mode.base,
        "user": seat.user,
        "comment": comment,
        "confirm": minutes,
        "file": mode.file,
        "typed": typed,
    }
    reply: InquiryReply = yield Inquiry("commit", arguments, keep=True)
    result = reply.unless_refused()
    said = reason_lines(mode, result["diagnostics"])
    if not result["applied"]:
        return _said(*said, "% Error: nothing is committed", failed=True)
    mode.committed(int(result["version"]))
    yield from identify(seat, keep=True)
    done = f"Commit confirmed ,it will be rolled back within {minutes} minutes" if minutes else COMMITTED
    return _said(*said, done)


def _mode(seat: Seat) -> ConfigMode:
    """The configuration mode of a command that only that mode knows."""
    assert seat.mode is not None
    return seat.mode


def reason_lines(mode: ConfigMode, diagnostics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the controller says of the candidate, each with the line that it is about; but not what was said when
    the line was typed."""
    said: list[str] = []
    for found in diagnostics:
        number = int(found["line"])
        if found["severity"] == "note" or mode.was_told(number, str(found["code"])):
            continue
        line = mode.line(number)
        where = f"line {number}, `{line}`: " if line else ""
        said += diagnostic_lines(found, where)
    return said


def abort(values: Values, seat: Seat) -> Conversation:
    """Forget the candidate, and stay in global configuration."""
    mode = _mode(seat)
    reply = yield from identify(seat, keep=True)
    seat.mode = ConfigMode(mode.base, modern=mode.modern) if reply.error else begun(reply.result)
    return _said(ABORTED)


def end(values: Values, seat: Seat) -> Conversation:
    """Commit what is pending, and go back to exec mode; stay where the commit fails."""
    outcome = _said()
    if _mode(seat).lines:
        outcome = yield from _commit(seat, 0, "", typed=False)
    if not outcome.failed:
        seat.mode = None
    return outcome


def leave(values: Values, seat: Seat) -> Conversation:
    """Leave the innermost mode; from global configuration as `end` does."""
    mode = _mode(seat)
    if not mode.depth:
        return (yield from end(values, seat))
    mode.leave()
    return _said()


def candidate(values: Values, seat: Seat) -> Conversation:
    """What the candidate of this session would change."""
    mode = seat.mode
    if mode is None:
        refused("this session is not in configuration mode: it has no candidate")
    asked = {"lines": mode.text, "base": mode.base, "file": mode.file}
    reply: InquiryReply = yield Inquiry("candidate", asked)
    result = reply.unless_refused()
    remarks = reason_lines(mode, result["diagnostics"])
    return Outcome({**result, "lines": len(mode.lines), "remarks": remarks})


def transactions(values: Values, seat: Seat) -> Conversation:
    """The transactions that are open."""
    mode = seat.mode
    reply: InquiryReply = yield Inquiry("commits")
    lines, base = (len(mode.lines), mode.base) if mode is not None else (0, 0)
    return Outcome({"lines": lines, "base": base, "open": reply.unless_refused()["open"]})


def history(values: Values, seat: Seat) -> Conversation:
    """The lines that were typed in this session, keys hidden."""
    yield from ()
    return _said(*seat.history)


def rollback(values: Values, seat: Seat) -> Conversation:
    """Put the configuration of an earlier commit into force again."""
    asked = {"number": values["number"], "user": seat.user}
    reply: InquiryReply = yield Inquiry("rollback", asked, keep=True)
    result = reply.unless_refused()
    said = [line for found in result["diagnostics"] for line in diagnostic_lines(found)]
    if not result["applied"]:
        return _said(*said, "% Error: nothing is committed", failed=True)
    yield from identify(seat, keep=True)
    return _said(*said, COMMITTED)
