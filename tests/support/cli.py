"""A CLI session in memory: what it writes, with the controller's answers given by a function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from chassis.cli.session import Action, Ask, Carry, CliSession, Close, Verify, Wake, Write
from tests.support.xcrp import Node

PASSWORD = "secret"
"""Opens every privilege."""

Controller = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Answers a request; LookupError with the text of a refusal."""


def of_node(node: Node) -> Controller:
    """The controller of a node in memory."""
    return lambda command, arguments: node.ask(command, **arguments)


class CliRig:
    """A session and its shell. With `hold` set, requests wait in `asked` for `reply`."""

    def __init__(self, controller: Controller | None = None, **settings: Any) -> None:
        self.session = CliSession("a", "tester", **settings)
        self.controller = controller
        self.hold = False
        self.urls: dict[str, str] = {}
        """Files on other machines; those of SSH want `PASSWORD`."""
        self.sleeps = False
        """Whether a session that wants to be woken waits for `timer`; else its time comes at once."""
        self.asked: list[Ask] = []
        self.requests: list[Ask] = []
        self.checked: list[tuple[int, str]] = []
        """Levels and passwords that were to be checked."""
        self.status: int | None = None
        self.now = 1000.0

    def start(self, named: bool = False) -> str:
        """Begin the session; the controller says who the router is only where it is `named`."""
        hold, self.hold = self.hold, not named
        text = self._do(self.session.start(self.now))
        text += self.reply({}, "not now") if self.asked else ""
        self.hold = hold
        self.requests.clear()
        return text

    def type(self, keys: str | bytes) -> str:
        """Type keys; return what the terminal gets."""
        octets = keys.encode() if isinstance(keys, str) else keys
        return self._do(self.session.receive(octets, self.now))

    def run(self, line: str) -> str:
        """Run one command without a terminal."""
        return self._do(self.session.execute(line, self.now))

    def timer(self) -> str:
        """The shell looks at its clock."""
        return self._do(self.session.on_timer(self.now))

    def reply(self, result: Mapping[str, Any], error: str = "") -> str:
        """Answer the oldest request that waits."""
        return self._do(self._replied(result, error))

    def _replied(self, result: Mapping[str, Any], error: str = "") -> list[Action]:
        return self.session.answer(self.asked.pop(0).number, result, error, self.now)

    def _do(self, actions: list[Action]) -> str:
        text = ""
        left = deque(actions)
        while left:
            action = left.popleft()
            assert self.status is None
            match action:
                case Write(octets):
                    text += octets.decode()
                case Close(status):
                    self.status = status
                case Verify(number, level, secret):
                    self.checked.append((level, secret))
                    error = "" if secret == PASSWORD else "wrong password"
                    left.extendleft(reversed(self.session.answer(number, {}, error, self.now)))
                case Carry(number, transfer):
                    held = self.urls.get(transfer.url, "")
                    error = "" if transfer.password in ("", PASSWORD) else "Login failed"
                    if transfer.data is not None and not error:
                        self.urls[transfer.url] = transfer.data
                    left.extendleft(reversed(self.session.answer(number, {"text": held}, error, self.now)))
                case Wake() if self.sleeps:
                    pass
                case Wake(at):
                    self.now = max(self.now, at)
                    left.extendleft(reversed(self.session.on_timer(self.now)))
                case Ask():
                    self.asked.append(action)
                    self.requests.append(action)
                    left.extendleft(reversed([] if self.hold else self._answer(action)))
        return text

    def _answer(self, ask: Ask) -> list[Action]:
        assert self.controller is not None
        try:
            return self._replied(self.controller(ask.command, ask.arguments))
        except LookupError as error:
            return self._replied({}, str(error.args[0]))
