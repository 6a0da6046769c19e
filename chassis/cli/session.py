"""One operator's session: keys and lines in, actions for its shell out. Pure; `now` is the monotonic clock (s).

A session asks the controller through its shell (`Ask`, then `answer`). While it waits, keys are kept; ^C gives up
waiting. A shell that loses its controller answers with an error, and the session goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from chassis.bus.arguments import fault
from chassis.cli import completion, transactions
from chassis.cli.commands import BY_NAME
from chassis.cli.completion import Offers, ParsedLine, SyntaxFault
from chassis.cli.config_mode import ConfigMode
from chassis.cli.dialogue import (
    Check,
    Conversation,
    DialogueRun,
    Inquiry,
    InquiryReply,
    Outcome,
    Part,
    Pause,
    Question,
    Seat,
    Transfer,
    in_parts,
)
from chassis.cli.line_editor import BELL, KeyEvent, LineEditor
from chassis.cli.log_monitor import FIRST_NUMBER, LogMonitor
from chassis.cli.pager import Pager
from chassis.cli.rows import ADMINISTRATOR, DEFAULT_PRIVILEGE, HIGHEST_PRIVILEGE, ExecCommand, Values
from chassis.cli.urls import without_password
from chassis.cli.views import transactions as view
from chassis.cli.views.layout import Scope, ViewError
from chassis.config.transcript import is_output, prompt_end

MAX_QUEUED_OCTETS: Final = 65_536
"""Most octets of keys that are kept while a session waits; of more, the last are lost and the bell rings."""

INTERRUPT: Final = 0x03


@dataclass(frozen=True, slots=True)
class Write:
    """Octets for the operator's terminal, or for the output of a command without one."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of the controller (`chassis.bus.requests`); `answer` takes the reply under this number."""

    number: int
    command: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verify:
    """A password for a privilege level, to be checked; `answer` takes an error where it is wrong."""

    number: int
    level: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Carry:
    """Carry out a transfer of a file; `answer` takes its `text`, or why it failed."""

    number: int
    transfer: Transfer


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `on_timer` at this time of the monotonic clock (s); a later one replaces it."""

    at: float


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over; `status` is 1 where its one command was refused, else 0."""

    status: int


Action = Write | Ask | Verify | Carry | Wake | Close


@dataclass(frozen=True, slots=True)
class Lookup:
    """A `?` or a tab (`shows` is False) in a line, and what may be typed there."""

    shows: bool
    offered: Offers


class CliSession:
    """A session of `user` at router `node`.

    `privilege` is the level at login (0 to 15) and the highest without a password, `privilege_max` the highest of
    all. `source` says where the user sits, such as "console" or "ssh 127.0.0.1:4242". `width` and `length` are the
    terminal's columns and rows. `terminal` is False where nobody types: then only `execute` is used.
    `wall_offset` is what has to be added to `now` for Unix time (s); without it the session has no clock.
    """

    def __init__(
        self,
        node: str,
        user: str,
        *,
        hostname: str = "",
        privilege: int = HIGHEST_PRIVILEGE,
        privilege_max: int = HIGHEST_PRIVILEGE,
        context: str = "local",
        source: str = "console",
        width: int = 80,
        length: int = 24,
        terminal: bool = True,
        wall_offset: float | None = None,
    ) -> None:
        self.seat = Seat(
            user,
            node,
            context,
            hostname=hostname or node,
            privilege=privilege,
            login_privilege=privilege,
            privilege_max=max(privilege, privilege_max),
            source=source,
            width=width,
            length=length,
        )
        self._wall_offset = wall_offset
        self._editor = LineEditor(width)
        self._editor.history = self.seat.history
        self._keys = bytearray()
        self._number = 0
        self._line: ParsedLine | None = None
        """The command that runs, and its conversation."""
        self._dialogue: DialogueRun | None = None
        self._lookup: Lookup | None = None
        """Help or completion that waits for names."""
        self._wake_at = inf
        """When the conversation that runs goes on."""
        self._announced = inf
        """The time of the last `Wake`."""
        self._monitor: LogMonitor | None = None
        self._pager: Pager | None = None
        self._alone = not terminal
        """Whether the session ends with the command that runs."""
        self._closed = False

    @property
    def prompt(self) -> str:
        seat = self.seat
        mode = seat.mode.prompt if seat.mode is not None else ""
        return f"[{seat.context}]{seat.hostname}{mode}{'#' if seat.privilege >= ADMINISTRATOR else '>'}"

    def start(self, now: float) -> list[Action]:
        """Return what a new session does first: it asks who the router is, then comes the prompt."""
        return self._done(self._run_row(_FIRST, {}, now))

    def watch_console(self, now: float) -> list[Action]:
        """Show log lines that the configuration sends to the console, from now on."""
        self._monitor = LogMonitor(now, console=True)
        return self._done([])

    def receive(self, octets: bytes, now: float) -> list[Action]:
        """Take keys as they come."""
        if self._closed:
            return []
        # A key that interrupts is not lost, however many were typed before it.
        if len(self._keys) + len(octets) > MAX_QUEUED_OCTETS and (INTERRUPT not in octets or self._keeps):
            return [Write(BELL)]
        self._keys += octets
        return self._done(self._take_keys(now))

    def execute(self, line: str, now: float) -> list[Action]:
        """Run one command without a terminal. The session ends with it: `Close` is the last action."""
        self._alone = True
        return _joined(self._run(line, now) if line.strip() else [Close(0)])

    def answer(self, number: int, result: Mapping[str, Any], error: str, now: float) -> list[Action]:
        """Take the reply to an `Ask`, a `Verify` or a `Carry`; one that was given up is passed over."""
        if number >= FIRST_NUMBER:
            return self._done(self._take_log_lines(number, result, error, now))
        if self._lookup is not None and number == self._number:
            offer = self._offer(result.get("names", ()), bool(result.get("more")))
            return self._done([*offer, *self._take_keys(now)])
        step = self._dialogue.waits_for if self._dialogue is not None else None
        if self._closed or number != self._number or not isinstance(step, Inquiry | Check | Transfer):
            return []
        name = step.command if isinstance(step, Inquiry) else ""
        reply = InquiryReply(result, error.removeprefix(f"{name}: "))
        return self._done([*self._talk(reply, now), *self._take_keys(now)])

    def on_timer(self, now: float) -> list[Action]:
        """The time of the last `Wake` has come."""
        if self._closed or now < self._announced:
            return []
        self._announced = inf
        actions: list[Action] = []
        if self._monitor is not None and self._monitor.due <= now:
            number, arguments = self._monitor.ask()
            actions.append(Ask(number, "log", arguments))
        if self._dialogue is not None and now >= self._wake_at:
            self._wake_at = inf
            actions += [*self._talk(None, now), *self._take_keys(now)]
        return self._done(actions)

    def _done(self, actions: Sequence[Action]) -> list[Action]:
        """Return actions with when the session wants to be called next."""
        due = min(self._wake_at, self._monitor.due if self._monitor is not None else inf)
        if due != self._announced and due != inf and not self._closed:
            actions = [*actions, Wake(due)]
        self._announced = due
        return _joined(actions)

    def _take_log_lines(self, number: int, result: Mapping[str, Any], error: str, now: float) -> list[Action]:
        """Take lines of the log; they are shown at the prompt, straight after it or what is typed there."""
        monitor = self._monitor
        if self._closed or monitor is None or number != monitor.number:
            return []
        monitor.on_answer(result, error, now)
        waits = self._dialogue is None and self._lookup is None and self._pager is None
        return [Write(monitor.take().encode())] if waits else []

    def resize(self, width: int, length: int) -> None:
        """The terminal has another size, in columns and rows; `terminal length 0` stays."""
        self.seat.width = self._editor.width = width
        if self.seat.length:
            self.seat.length = length

    # keys

    def _take_keys(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._keys and not self._closed and not self._alone:
            if self._pager is not None and self._pager.waits:
                actions += [Write(self._pager.key(self._keys.pop(0))), *self._after_page(now)]
                continue
            if self._dialogue is not None or self._lookup is not None:
                step = self._dialogue.waits_for if self._dialogue is not None else None
                if self._dialogue is not None and isinstance(step, Question):
                    actions += self._take_answer(self._dialogue, self._keys.pop(0), now)
                    continue
                if INTERRUPT not in self._keys or self._keeps:
                    break
                del self._keys[: self._keys.index(INTERRUPT) + 1]
                actions += [Write(b"^C\r\n"), *self._give_up()]
                continue
            echo, event = self._editor.feed(self._keys.pop(0))
            actions.append(Write(echo))
            if event is not None:
                actions += self._on_event(event, now)
        return actions

    @property
    def _keeps(self) -> bool:
        """Whether what the session waits for can't be given up."""
        step = self._dialogue.waits_for if self._dialogue is not None else None
        return isinstance(step, Inquiry) and step.keep

    def _on_event(self, event: KeyEvent, now: float) -> list[Action]:
        match event.kind:
            case "line":
                return self._run(event.text, now)
            case "help" | "complete":
                offered = completion.offers(event.text, self.seat)
                self._lookup = Lookup(event.kind == "help", offered)
                if offered.names is None or (event.kind == "complete" and not offered.begun):
                    return self._offer((), False)
                self._number += 1
                asked = {"kind": offered.names.kind, "context": offered.names.context, "prefix": offered.begun}
                return [Ask(self._number, "names", asked)]
            case "end of input" if self.seat.mode is not None:
                return [Write(b"\r\n"), *self._run_row(BY_NAME["leave-mode"], {}, now)]
            case "end of input":
                return [Write(b"\r\n"), *self._close(0)]
            case "end of mode" if self.seat.mode is not None:
                return self._run_row(BY_NAME["end"], {}, now)
        return [self._next_prompt()]

    def _offer(self, found: Sequence[str], more: bool) -> list[Action]:
        """Show or complete what may be typed; `found` are the names that the controller knows, `more`: some."""
        lookup, self._lookup = self._lookup, None
        assert lookup is not None
        offered, mode = lookup.offered, self.seat.mode
        names = set(found)
        if mode is not None and offered.names is not None:
            names |= {*mode.names(offered.names.kind, offered.names.context)}
        fitting = sorted(name for name in names if name.startswith(offered.begun))
        if lookup.shows:
            lines = ["?", *completion.help_lines(offered, fitting, more)]
            return [Write(_terminal_text(lines)), Write(self._editor.resume())]
        added = completion.complete(offered, fitting, more)
        return [Write(self._editor.insert(added) if added else BELL)]

    def _take_answer(self, run: DialogueRun, octet: int, now: float) -> list[Action]:
        """Take one octet of an answer to a question."""
        typed = run.key(octet)
        if typed.abandoned:
            return [Write(typed.echo), *self._give_up()]
        more = [] if typed.answer is None else self._talk(typed.answer, now)
        return [Write(typed.echo), *more]

    # commands

    def _run(self, line: str, now: float) -> list[Action]:
        try:
            return self._run_line(line, now)
        except Exception as error:
            # A fault of this program: the operator is told, and the session goes on.
            return self._print([f"% Error: {fault(error)}"], failed=True)

    def _run_line(self, line: str, now: float) -> list[Action]:
        end = prompt_end(line)
        text = " " * end + line[end:]
        if not text.strip() or text.lstrip().startswith("!"):
            return self._print([], failed=False)
        seat, indent = self.seat, 0 if self._alone else len(self.prompt)
        if seat.mode is not None:
            return self._run_configuring(seat.mode, line, text, now)
        self._editor.remember(without_password(line))
        return self._run_exec(completion.parse(text, seat.privilege), indent, now)

    def _run_configuring(self, mode: ConfigMode, line: str, text: str, now: float) -> list[Action]:
        """A line in configuration mode; `text` is the line with blanks in place of a prompt."""
        if is_output(text):
            return self._print([], failed=False)
        seat, indent = self.seat, 0 if self._alone else len(self.prompt)
        typed = mode.read(line)
        parsed = None if typed.changes else completion.parse(text, seat.privilege, configuring=True)
        self._editor.remember(without_password(line) if isinstance(parsed, ParsedLine) else typed.masked)
        if mode.leaves_out(typed):
            return self._print([transactions.LEFT_OUT], failed=True)
        if parsed is None:
            return self._converse(_TYPED, transactions.typed_line(seat, mode, typed), now)
        if isinstance(parsed, SyntaxFault):
            elsewhere = completion.parse(text, seat.privilege)
            if isinstance(elsewhere, ParsedLine):
                said = transactions.of_exec_mode(mode, elsewhere.command.compiled())
                return self._print(said, failed=bool(said))
            if typed.configures and typed.reached >= parsed.reached:
                return self._print(transactions.wrong_line(mode, typed, indent), failed=True)
        return self._run_exec(parsed, indent, now)

    def _run_exec(self, parsed: ParsedLine | SyntaxFault, indent: int, now: float) -> list[Action]:
        if isinstance(parsed, SyntaxFault):
            return self._print(parsed.lines(indent), failed=True)
        seat = self.seat
        seat.live = not self._alone and not parsed.pipes
        if parsed.command.opening is not None:
            return self._converse(parsed, parsed.command.opening(parsed.values, seat), now)
        return self._converse(parsed, _one_request(parsed.command, parsed.values, seat), now)

    def _run_row(self, row: ExecCommand, values: Values, now: float) -> list[Action]:
        assert row.opening is not None
        return self._converse(ParsedLine(row, values, ()), row.opening(values, self.seat), now)

    def _converse(self, parsed: ParsedLine, conversation: Conversation, now: float) -> list[Action]:
        self._line, self._dialogue = parsed, DialogueRun(conversation, self.seat.width)
        return self._talk(None, now)

    def _talk(self, answer: str | InquiryReply | None, now: float) -> list[Action]:
        """Go on with a command's conversation, up to what it waits for next or to its end."""
        run = self._dialogue
        assert run is not None
        try:
            outcome = run.advance(answer)
            while self._alone and isinstance(run.waits_for, Question):
                outcome = run.advance("")
        except Exception as error:
            # Other errors than a ViewError are faults of this program: the operator is told.
            said = str(error) if isinstance(error, ViewError) else fault(error)
            self._dialogue = None
            return [Write(run.said()), *self._print([f"% Error: {said}"], failed=True)]
        return [Write(run.said()), *self._do(run, outcome, now)]

    def _do(self, run: DialogueRun, outcome: Outcome | None, now: float) -> list[Action]:
        match run.waits_for:
            case Question():
                return [Write(run.prompt())]
            case Inquiry(command, arguments):
                self._number += 1
                return [Ask(self._number, command, arguments)]
            case Check(level, secret):
                self._number += 1
                return [Verify(self._number, level, secret)]
            case Transfer() as transfer:
                self._number += 1
                return [Carry(self._number, transfer)]
            case Pause(seconds):
                self._wake_at = now + seconds
                return []
            case Part(data):
                assert self._line is not None
                return self._show_part(self._line, data, now)
        assert outcome is not None
        assert self._line is not None
        self._dialogue = None
        return self._show(self._line, outcome, now)

    def _show(self, parsed: ParsedLine, outcome: Outcome, now: float) -> list[Action]:
        """Show an outcome through the command's view and the line's filters, without what was said before."""
        scope, filters = self._scope(parsed, now), list(parsed.pipes)
        try:
            chosen = parsed.command.view.select(outcome.data, scope)
            if filters and filters[0].name == "json":
                lines = json.dumps(chosen, indent=2).splitlines()
                del filters[0]
            else:
                lines = parsed.command.view.lines(chosen, scope)[outcome.said :]
            for one in filters:
                lines = one.apply(lines)
        except ViewError as error:
            return self._print([f"% Error: {error}"], failed=True)
        except Exception as error:
            # A fault of this program: the operator is told, and the session goes on.
            return self._print([f"% Error: {fault(error)}"], failed=True)
        self._act(parsed, now)
        if parsed.command.act == "exit":
            return self._close(0)
        return self._print(lines, failed=outcome.failed)

    def _show_part(self, parsed: ParsedLine, data: Any, now: float) -> list[Action]:
        """Show a part of a listing; the conversation goes on when it has been seen."""
        scope, view = self._scope(parsed, now), parsed.command.view
        try:
            lines = view.lines(view.select(data, scope), scope)
        except Exception as error:
            said = str(error) if isinstance(error, ViewError) else fault(error)
            self._dialogue = None
            return self._print([f"% Error: {said}"], failed=True)
        return self._page(lines, now, more=True)

    def _scope(self, parsed: ParsedLine, now: float) -> Scope:
        seat = self.seat
        return Scope(parsed.values, seat.node, seat.context, now, self._wall_offset, seat.user, seat.privilege)

    def _act(self, parsed: ParsedLine, now: float) -> None:
        """Do what a command does to the session."""
        values, seat = parsed.values, self.seat
        match parsed.command.act:
            case "disable":
                seat.privilege = min(seat.privilege, DEFAULT_PRIVILEGE)
            case "length":
                seat.length = int(values["rows"])
            case "width":
                seat.width = self._editor.width = int(values["columns"])
            case "monitor":
                self._monitor = LogMonitor(now, console=False)
            case "no monitor":
                self._monitor = None
            case "context":
                seat.context = str(values["context"])

    def _give_up(self) -> list[Action]:
        """^C: the conversation ends where it is."""
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None
            self._wake_at = inf
        self._lookup = self._pager = None
        return [self._next_prompt()]

    # output

    def _print(self, lines: Sequence[str], *, failed: bool) -> list[Action]:
        if self._alone:
            return [Write("".join(f"{line}\n" for line in lines).encode()), *self._close(1 if failed else 0)]
        return self._page(lines, 0.0)

    def _page(self, lines: Sequence[str], now: float, *, more: bool = False) -> list[Action]:
        """Show lines, after those of a listing that has begun; with `more` others follow."""
        if self._pager is None:
            self._pager = Pager(lines, self.seat.length, self.seat.width, more=more)
            return [Write(self._pager.start()), *self._after_page(now)]
        return [Write(self._pager.feed(lines, more=more)), *self._after_page(now)]

    def _after_page(self, now: float) -> list[Action]:
        pager = self._pager
        if pager is not None and pager.waits:
            return []
        if pager is not None and pager.hungry:
            return self._talk(None, now)
        if self._dialogue is not None:
            return self._give_up()
        self._pager = None
        return [self._next_prompt()]

    def _next_prompt(self) -> Action:
        held = self._monitor.take() if self._monitor is not None else ""
        return Write(self._editor.begin(self.prompt) + held.encode())

    def _close(self, status: int) -> list[Action]:
        self._closed = True
        self._keys.clear()
        return [Close(status)]


def _one_request(command: ExecCommand, values: Values, seat: Seat) -> Conversation:
    """A command of one request, or of none; of several where the answer comes in parts."""
    if not command.request:
        return Outcome({})
    if command.parts:
        asked = command.arguments(values, seat.context)
        outcome: Outcome = yield from in_parts(command.request, command.parts, asked, seat)
        return outcome
    reply: InquiryReply = yield Inquiry(command.request, command.arguments(values, seat.context))
    return Outcome(reply.unless_refused())


_FIRST: Final = ExecCommand("", "", "", view.said, opening=transactions.begin)
"""What a new session does before its first prompt."""

_TYPED: Final = ParsedLine(ExecCommand("", "", "", view.said), {}, ())
"""Stands for the command of a line of the configuration."""


def _terminal_text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


def _joined(actions: Sequence[Action]) -> list[Action]:
    """The same actions with what is written together in one."""
    joined: list[Action] = []
    for action in actions:
        last = joined[-1] if joined else None
        if isinstance(action, Write):
            if not action.text:
                continue
            if isinstance(last, Write):
                joined[-1] = Write(last.text + action.text)
                continue
        joined.append(action)
    return joined
