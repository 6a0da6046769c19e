"""`configure FILE`: the lines of a file become a candidate. Only an `end` in it commits; an error discards all."""

from __future__ import annotations

from typing import Any, Final

from chassis.cli import transactions
from chassis.cli.config_mode import ConfigMode
from chassis.cli.dialogue import Conversation, Inquiry, InquiryReply, Outcome, Pause, Seat
from chassis.cli.transactions import Values
from chassis.cli.urls import carry, is_url
from chassis.config.diagnostics import Diagnostic, has_errors

SLICE: Final = 500
"""Lines that are read at once; then the shell may do other things."""

MAX_SAID: Final = 100
"""Most diagnostics (count) that are shown."""


def configure_file(values: Values, seat: Seat) -> Conversation:
    """Read a file of the flash line by line."""
    name = str(values["file"])
    if is_url(name):
        text = str((yield from carry(name, None))["text"])
    else:
        read: InquiryReply = yield Inquiry("read-file", {"file": name})
        text = str(read.unless_refused()["text"])
    reply: InquiryReply = yield from transactions.identify(seat)
    mode = transactions.begun(reply.unless_refused())
    found: list[Diagnostic] = yield from _taken(mode, name, text.split("\n"))
    said = [line for one in found[:MAX_SAID] if one.severity != "note" for line in _lines(mode, one)]
    if len(found) > MAX_SAID:
        said.append(f"... and {len(found) - MAX_SAID} more")
    if has_errors(found):
        said.append(f"% Error: nothing of {name} is taken")
        return Outcome({"lines": said}, failed=True)
    seat.mode = mode
    if not mode.file_ended:
        mode.end_file()
        return Outcome({"lines": [*said, transactions.GREETING]})
    outcome = yield from transactions.end({}, seat)
    return Outcome({"lines": [*said, *outcome.data["lines"]]}, failed=outcome.failed)


def _taken(mode: ConfigMode, name: str, lines: list[str]) -> Any:
    """Take the lines up to an `end`; return what is said about them."""
    mode.begin_file(name, lines)
    found: list[Diagnostic] = []
    for number, line in enumerate(lines, 1):
        if number % SLICE == 0:
            yield Pause(0.0)
        typed = mode.read_in_file(line)
        path = mode.missing(typed) if typed is not None else ()
        if typed is not None and path:
            reply: InquiryReply = yield Inquiry("object", {"path": [*path]})
            known = reply.unless_refused()
            mode.learn(typed, bool(known["exists"]), str(known["text"]))
        found += mode.take_in_file(typed, line, number)
        if mode.file_ended:
            break
    return found


def _lines(mode: ConfigMode, found: Diagnostic) -> list[str]:
    return transactions.diagnostic_lines(found, f"line {found.line}, `{mode.line(found.line).strip()}`: ")
