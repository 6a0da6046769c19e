"""Requests at an operator socket whose answers are taken when they come, beside other descriptors.

A connection is made for the first request, and anew after the other side went away: whoever is gone answers each
open request with an error here, and the next request finds its successor.
"""

from __future__ import annotations

import json
import select
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.bus.operator import AWAY, OperatorClient, OperatorError

Answer = tuple[int, Mapping[str, Any], str]
"""Number of a request, its result, and its error or nothing."""


class OperatorStream:
    """One connection to an operator socket. Only `answers` with `block` and a write to a full pipe block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: OperatorClient | None = None
        self._input = bytearray()
        self._open: set[int] = set()
        self._answers: list[Answer] = []

    def filenos(self) -> list[int]:
        """Descriptors to wait for; `answers` is worth a call when one is readable."""
        return [] if self._client is None else [self._client.connection.fileno()]

    def ask(self, number: int, command: str, arguments: Mapping[str, Any]) -> None:
        """Send a request. Where that fails, the error is one of the next `answers`."""
        line = json.dumps({"id": number, "command": command, "arguments": dict(arguments)}).encode() + b"\n"
        self._open.add(number)
        for _ in range(2):
            try:
                if self._client is None:
                    self._client = OperatorClient(self._path)
                self._client.connection.sendall(line)
            except (OSError, OperatorError):
                self._drop()
                # The connection of an earlier request may have ended meanwhile.
                continue
            return
        self._fail()

    def answers(self, block: bool = False) -> list[Answer]:
        """Return the answers that have come; with `block` wait for one where a request is open."""
        while self._client is not None and not (block and self._answers):
            stream = self._client.connection
            wait = None if block and self._open else 0
            if not select.select([stream], [], [], wait)[0]:
                break
            try:
                data = stream.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                self._drop()
                self._fail()
                break
            self._take(data)
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        self._drop()

    def _take(self, data: bytes) -> None:
        self._input += data
        if b"\n" not in data:
            return
        *lines, rest = bytes(self._input).split(b"\n")
        self._input = bytearray(rest)
        for line in lines:
            answer = json.loads(line)
            number = answer.get("id")
            if number in self._open and answer.get("last", True):
                self._open.discard(number)
                self._answers.append((number, answer.get("result", {}), answer.get("error", "")))

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
        self._input.clear()

    def _fail(self) -> None:
        self._answers += [(number, {}, AWAY) for number in sorted(self._open)]
        self._open.clear()
