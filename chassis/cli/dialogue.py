"""Commands that ask: a conversation of questions, requests and printed text, in the order of its own steps. Pure.

A conversation is a generator. It yields a `Question` and gets the line that was typed, an `Inquiry` and gets the
controller's `InquiryReply`, a `Check` or a `Transfer` and gets the shell's, a `Saying` or a `Pause` and gets
nothing. It returns an `Outcome`, or raises `ViewError` with the reason why nothing came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from chassis.cli.config_mode import ConfigMode
from chassis.cli.line_editor import BELL, LineEditor
from chassis.cli.views.layout import ViewError

YES: Final = ("y", "yes")
"""Answers that mean yes, in small letters; every other one means no."""


@dataclass(frozen=True, slots=True)
class Question:
    """Ask the operator. `default` is the answer where the line is empty; without `echo` the answer is not shown.

    Where nobody types, the default is the answer.
    """

    prompt: str
    default: str = ""
    echo: bool = True


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Send a request of `chassis.bus.requests` to the controller. With `keep` ^C does not give up waiting."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Have the shell check a password for a privilege level (0 to 15)."""

    level: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Have the shell read a file of another machine, or write `data` there; the reply has its `text`."""

    url: str
    data: str | None = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InquiryReply:
    """The answer of the controller or of the shell; `error` is empty where the request was carried out."""

    result: Mapping[str, Any]
    error: str = ""

    def unless_refused(self) -> Mapping[str, Any]:
        """Return the result.

        Raises:
            ViewError: the request was refused.
        """
        if self.error:
            raise ViewError(self.error)
        return self.result


@dataclass(frozen=True, slots=True)
class Saying:
    """Print text now, as it is; the next thing follows it in the same line."""

    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """Show data through the command's view, page by page; more follows. The conversation goes on as soon as the
    operator has seen it, and ends where they do not want more."""

    data: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the command's view shows. The first `said` of its lines were printed by the conversation. `failed`: the
    command was refused, for the reasons that are shown."""

    data: Any
    said: int = 0
    failed: bool = False


Step = Question | Inquiry | Check | Transfer | Saying | Pause | Part
Conversation = Generator[Step, Any, Outcome]


@dataclass(slots=True)
class Seat:
    """Who has the conversation, and where in the router the session is. `live`: text is printed as it comes; else
    all of it is shown at the end.

    `hostname` is the name in the prompt. `login_privilege` is reached without a password, `privilege_max` never
    exceeded (0 to 15). `width` and `length` are the terminal's, in columns and rows; a length of 0 does not page.
    `source` says where the user sits, such as "ssh 127.0.0.1:4242". `history` has the lines that were typed, keys
    hidden. `mode` is there in configuration mode.
    """

    user: str
    node: str
    context: str
    live: bool = True
    hostname: str = ""
    privilege: int = 15
    login_privilege: int = 15
    privilege_max: int = 15
    source: str = "console"
    width: int = 80
    length: int = 24
    history: list[str] = field(default_factory=list)
    mode: ConfigMode | None = None


Opening = Callable[[Mapping[str, Any], Seat], Conversation]
"""Begins a conversation from what was typed."""


def agreed(answer: str) -> bool:
    """Whether an answer to a question with (y/n) means yes."""
    return answer.strip().lower() in YES


def refused(text: str) -> NoReturn:
    """End the conversation without an outcome."""
    raise ViewError(text)


@dataclass(frozen=True, slots=True)
class Typed:
    """What one key did to a question: its echo; the answer where the line ended; or that the operator gave up."""

    echo: bytes
    answer: str | None = None
    abandoned: bool = False


class DialogueRun:
    """One conversation of a session on a terminal of `width` columns.

    `waits_for` is the step that has to be answered next: a `Question`, `Inquiry`, `Check`, `Transfer`,
    `Pause` or `Part`.
    """

    def __init__(self, conversation: Conversation, width: int) -> None:
        self._conversation = conversation
        self._editor = LineEditor(width)
        self._said = ""
        self.waits_for: Question | Inquiry | Check | Transfer | Pause | Part | None = None

    def advance(self, answer: str | InquiryReply | None) -> Outcome | None:
        """Go on with the answer to the last step, None at the start and after a pause, up to the next step; return
        the outcome at the end.

        Raises:
            ViewError: the conversation is over, without an outcome.
        """
        if isinstance(self.waits_for, Question) and isinstance(answer, str):
            answer = (answer.strip() if self.waits_for.echo else answer) or self.waits_for.default
        self.waits_for = None
        given: Any = answer
        while True:
            try:
                step = self._conversation.send(given)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            given = None
            if isinstance(step, Saying):
                self._said += step.text
                continue
            self.waits_for = step
            return None

    def said(self) -> bytes:
        """Return what was said since the last call, for a terminal."""
        said, self._said = self._said, ""
        return said.replace("\n", "\r\n").encode()

    def prompt(self) -> bytes:
        """Return what shows the question."""
        assert isinstance(self.waits_for, Question)
        return self._editor.begin(self.waits_for.prompt)

    def key(self, octet: int) -> Typed:
        """Take one octet of the answer."""
        assert isinstance(self.waits_for, Question)
        echo, event = self._editor.feed(octet)
        if not self.waits_for.echo and (event is None or event.kind == "line"):
            echo = b"" if event is None else b"\r\n"
        if event is None:
            return Typed(echo)
        match event.kind:
            case "line":
                return Typed(echo, event.text)
            case "help":
                shown = self._editor.insert("?")
                return Typed(shown if self.waits_for.echo else b"")
            case "complete":
                return Typed(BELL)
            case "end of input":
                return Typed(b"\r\n", abandoned=True)
        return Typed(echo, abandoned=True)

    def close(self) -> None:
        """The operator gave up: the conversation ends where it is."""
        self._conversation.close()


def in_parts(request: str, key: str, asked: dict[str, Any], seat: Seat) -> Conversation:
    """Send a request whose answer comes in parts: each has its rows under `key`, and as `next` what the request
    for the following one has as `after`; the last one's `next` is empty.

    The view gets each part, the later ones with `first` as False. Where nothing is printed as it comes, it gets
    all rows as one part, without `next`.
    """
    rows: list[Any] = []
    errors: dict[str, str] = {}
    while True:
        reply: InquiryReply = yield Inquiry(request, asked)
        data = dict(reply.unless_refused())
        going_on = data.pop("next")
        if not seat.live:
            rows += data[key]
            errors |= data.get("errors", {})
            data[key] = rows
            if errors:
                data["errors"] = errors
        elif "after" in asked:
            data["first"] = False
        if not going_on:
            return Outcome(data)
        if seat.live:
            yield Part({**data, "next": going_on})
        asked = {**asked, "after": going_on}
