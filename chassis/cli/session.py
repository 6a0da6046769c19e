"""One operator's session: keys and lines in, actions for its shell out. Pure; `now` is the monotonic clock (s).

A session asks the controller through its shell (`Ask`, then `answer`). While it waits, keys are kept; ^C gives up
waiting. A shell that loses its controller answers with an error, and the session goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from chassis.bus.arguments import fault
from chassis.cli import completion
from chassis.cli.completion import ParsedLine, SyntaxFault
from chassis.cli.dialogue import DialogueRun, Inquiry, InquiryReply, Pause, Question, Seat
from chassis.cli.line_editor import BELL, KeyEvent, LineEditor
from chassis.cli.pager import Pager
from chassis.cli.rows import ADMINISTRATOR, DEFAULT_PRIVILEGE, HIGHEST_PRIVILEGE
from chassis.cli.views.layout import Scope, ViewError

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
class Wake:
    """Call `on_timer` at this time (s, monotonic); a later one replaces it."""

    at: float


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over; `status` is 1 where its one command was refused, else 0."""

    status: int


Action = Write | Ask | Wake | Close


class CliSession:
    """A session of `user` at router `node`.

    `privilege` is the level at login (0 to 15) and the highest without a password. `width` and `length` are the
    terminal's columns and rows. `terminal` is False where nobody types: then only `execute` is used.
    `wall_offset` is what has to be added to `now` for Unix time (s); without it the session has no clock.
    """

    def __init__(
        self,
        node: str,
        user: str,
        *,
        privilege: int = HIGHEST_PRIVILEGE,
        context: str = "local",
        width: int = 80,
        length: int = 24,
        terminal: bool = True,
        wall_offset: float | None = None,
    ) -> None:
        self.node, self.user, self.context = node, user, context
        self.privilege = self._login_privilege = privilege
        self._width, self._length = width, length
        self._terminal = terminal
        self._wall_offset = wall_offset
        self._editor = LineEditor(width)
        self._keys = bytearray()
        self._number = 0
        self._waiting: ParsedLine | None = None
        self._pager: Pager | None = None
        self._dialogue: DialogueRun | None = None
        self._asks: ParsedLine | None = None
        """The line whose conversation it is."""
        self._wake_at = inf
        self._alone = False
        """Whether the session ends with the command that runs."""
        self._closed = False

    @property
    def prompt(self) -> str:
        return f"[{self.context}]{self.node}{'#' if self.privilege >= ADMINISTRATOR else '>'}"

    def start(self, now: float) -> list[Action]:
        """Return what a new session shows."""
        return [Write(self._editor.begin(self.prompt))]

    def receive(self, octets: bytes, now: float) -> list[Action]:
        """Take keys as they come."""
        if self._closed:
            return []
        # A key that interrupts is not lost, however many were typed before it.
        if len(self._keys) + len(octets) > MAX_QUEUED_OCTETS and INTERRUPT not in octets:
            return [Write(BELL)]
        self._keys += octets
        return _joined(self._take_keys(now))

    def execute(self, line: str, now: float) -> list[Action]:
        """Run one command without a terminal. The session ends with it: `Close` is the last action."""
        self._alone = True
        return _joined(self._run(line, now) if line.strip() else [Close(0)])

    def answer(self, number: int, result: Mapping[str, Any], error: str, now: float) -> list[Action]:
        """Take the reply to an `Ask`; one that was given up is passed over."""
        waiting = self._waiting
        if self._closed or waiting is None or number != self._number:
            return []
        self._waiting = None
        if self._dialogue is not None:
            asked = self._dialogue.waits_for
            name = asked.command if isinstance(asked, Inquiry) else ""
            reply = InquiryReply(result, error.removeprefix(f"{name}: "))
            return _joined([*self._talk(waiting, reply, now), *self._take_keys(now)])
        if error:
            said = error.removeprefix(f"{waiting.command.request}: ")
            return _joined([*self._print([f"% Error: {said}"], failed=True), *self._take_keys(now)])
        return _joined([*self._show(waiting, result, now), *self._take_keys(now)])

    def on_timer(self, now: float) -> list[Action]:
        """The time of the last `Wake` has come."""
        waiting = self._waiting
        if self._closed or waiting is None or now < self._wake_at:
            return []
        self._wake_at, self._waiting = inf, None
        return _joined([*self._talk(waiting, None, now), *self._take_keys(now)])

    def resize(self, width: int, length: int) -> None:
        """The terminal has another size, in columns and rows; `terminal length 0` stays."""
        self._width = self._editor.width = width
        if self._length:
            self._length = length

    # keys

    def _take_keys(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._keys and not self._closed and not self._alone:
            if self._waiting is not None:
                if INTERRUPT not in self._keys:
                    break
                del self._keys[: self._keys.index(INTERRUPT) + 1]
                self._waiting = None
                actions += [Write(b"^C\r\n"), *self._give_up_dialogue()]
                continue
            octet = self._keys.pop(0)
            if self._dialogue is not None:
                actions += self._take_answer(self._dialogue, octet, now)
                continue
            if self._pager is not None:
                actions.append(Write(self._pager.key(octet)))
                actions += self._after_page()
                continue
            echo, event = self._editor.feed(octet)
            actions.append(Write(echo))
            if event is not None:
                actions += self._on_event(event, now)
        return actions

    def _on_event(self, event: KeyEvent, now: float) -> list[Action]:
        match event.kind:
            case "line":
                self._editor.remember(event.text)
                return self._run(event.text, now)
            case "help":
                lines = ["?", *completion.help_lines(event.text, self.privilege)]
                return [Write(_terminal_text(lines)), Write(self._editor.resume())]
            case "complete":
                added = completion.complete(event.text, self.privilege)
                return [Write(self._editor.insert(added) if added else BELL)]
            case "end of input":
                return [Write(b"\r\n"), *self._close(0)]
        return [self._next_prompt()]

    # commands

    def _run(self, line: str, now: float) -> list[Action]:
        if not line.strip() or line.lstrip().startswith("!"):
            return self._print([], failed=False)
        parsed = completion.parse(line, self.privilege)
        if isinstance(parsed, SyntaxFault):
            return self._print(parsed.lines(0 if self._alone else len(self.prompt)), failed=True)
        if parsed.command.opening is not None:
            seat = Seat(self.user, self.node, self.context, live=not self._alone and not parsed.pipes)
            self._dialogue = DialogueRun(parsed.command.opening(parsed.values, seat), self._width)
            self._asks = parsed
            return self._talk(parsed, None, now)
        if not parsed.command.request:
            return self._show(parsed, {}, now)
        self._number += 1
        self._waiting = parsed
        arguments = parsed.command.arguments(parsed.values, self.context)
        return [Ask(self._number, parsed.command.request, arguments)]

    def _talk(self, parsed: ParsedLine, answer: str | InquiryReply | None, now: float) -> list[Action]:
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
        actions: list[Action] = [Write(run.said())]
        match run.waits_for:
            case Question():
                actions.append(Write(run.prompt()))
            case Inquiry(command, arguments):
                self._number += 1
                self._waiting = parsed
                actions.append(Ask(self._number, command, arguments))
            case Pause(seconds):
                self._waiting = parsed
                self._wake_at = now + seconds
                actions.append(Wake(self._wake_at))
            case None:
                assert outcome is not None
                self._dialogue = None
                actions += self._show(parsed, outcome.data, now, outcome.said)
        return actions

    def _take_answer(self, run: DialogueRun, octet: int, now: float) -> list[Action]:
        """Take one octet of an answer to a question."""
        assert self._asks is not None
        typed = run.key(octet)
        if typed.abandoned:
            return [Write(typed.echo), *self._give_up_dialogue()]
        more = [] if typed.answer is None else self._talk(self._asks, typed.answer, now)
        return [Write(typed.echo), *more]

    def _give_up_dialogue(self) -> list[Action]:
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None
            self._wake_at = inf
        return [self._next_prompt()]

    def _show(self, parsed: ParsedLine, data: Mapping[str, Any], now: float, said: int = 0) -> list[Action]:
        """Show an answer through the command's view and the line's filters, without the first `said` lines."""
        scope = Scope(parsed.values, self.node, self.context, now, self._wall_offset, self.user, self.privilege)
        filters = list(parsed.pipes)
        try:
            refused = self._act(parsed)
            if refused:
                return self._print([f"% Error: {refused}"], failed=True)
            chosen = parsed.command.view.select(data, scope)
            if filters and filters[0].name == "json":
                lines = json.dumps(chosen, indent=2).splitlines()
                del filters[0]
            else:
                lines = parsed.command.view.lines(chosen, scope)[said:]
            for one in filters:
                lines = one.apply(lines)
        except ViewError as error:
            return self._print([f"% Error: {error}"], failed=True)
        except Exception as error:
            # A fault of this program: the operator is told, and the session goes on.
            return self._print([f"% Error: {fault(error)}"], failed=True)
        if parsed.command.act == "exit":
            return self._close(0)
        return self._print(lines, failed=False)

    def _act(self, parsed: ParsedLine) -> str:
        """Do what a command does to the session; return why not."""
        values = parsed.values
        match parsed.command.act:
            case "enable":
                level = int(values.get("level", self._login_privilege))
                if level > self._login_privilege or self._login_privilege < ADMINISTRATOR:
                    return "no password is set for this privilege"
                self.privilege = level
            case "disable":
                self.privilege = min(self.privilege, DEFAULT_PRIVILEGE)
            case "length":
                self._length = int(values["rows"])
            case "width":
                self._width = self._editor.width = int(values["columns"])
            case "context":
                self.context = str(values["context"])
        return ""

    def _print(self, lines: Sequence[str], *, failed: bool) -> list[Action]:
        if self._alone:
            text = "".join(f"{line}\n" for line in lines).encode()
            return [Write(text), *self._close(1 if failed else 0)]
        self._pager = Pager(lines, self._length, self._width)
        return [Write(self._pager.start()), *self._after_page()]

    def _after_page(self) -> list[Action]:
        if self._pager is not None and self._pager.waits:
            return []
        self._pager = None
        return [self._next_prompt()]

    def _next_prompt(self) -> Action:
        return Write(self._editor.begin(self.prompt))

    def _close(self, status: int) -> list[Action]:
        self._closed = True
        self._keys.clear()
        return [Close(status)]


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
