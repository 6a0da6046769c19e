"""Commands that ask: a conversation of questions, requests and printed text, in the order of its own steps. Pure.

A conversation is a generator. It yields a `Question` and gets the line that was typed, an `Inquiry` and gets the
controller's `InquiryReply`, a `Saying` or a `Pause` and gets nothing. It returns an `Outcome`, or raises
`ViewError` with the reason why nothing came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

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
    """Send a request of `chassis.bus.requests` to the controller."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InquiryReply:
    """The controller's answer; `error` is empty where the request was carried out."""

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
class Outcome:
    """What the command's view shows. The first `said` of its lines were printed by the conversation."""

    data: Any
    said: int = 0


Step = Question | Inquiry | Saying | Pause
Conversation = Generator[Step, Any, Outcome]


@dataclass(frozen=True, slots=True)
class Seat:
    """Who has the conversation. `live`: text is printed as it comes; else all of it is shown at the end."""

    user: str
    node: str
    context: str
    live: bool = True


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

    `waits_for` is the step that has to be answered next: a `Question`, an `Inquiry` or a `Pause`.
    """

    def __init__(self, conversation: Conversation, width: int) -> None:
        self._conversation = conversation
        self._editor = LineEditor(width)
        self._said = ""
        self.waits_for: Question | Inquiry | Pause | None = None

    def advance(self, answer: str | InquiryReply | None) -> Outcome | None:
        """Go on with the answer to the last step, None at the start and after a pause, up to the next step; return
        the outcome at the end.

        Raises:
            ViewError: the conversation is over, without an outcome.
        """
        if isinstance(self.waits_for, Question) and isinstance(answer, str):
            answer = answer.strip() or self.waits_for.default
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
