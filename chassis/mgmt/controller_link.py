"""Requests of one session at the controller's operator socket, in the event loop of `mgmt`. No call blocks.

A connection is made for the first request, and anew after the controller went away: each open request is answered
with an error then, and the next request finds the controller's successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from itertools import count
from pathlib import Path
from typing import Any, Final

from chassis.bus.operator import AWAY, MAX_LINE, OperatorError, served_by

MAX_OPEN: Final = 16
"""Most requests of a session that wait for their answers (count)."""

SHORT_ANSWER: Final = 65_536
"""Length (octets) of an answer up to which it is decoded at once; a longer one is decoded in a thread."""

RETRY_INTERVAL: Final = 0.1
"""Time (s) between two tries of a request that waits for the controller's return."""

OnAnswer = Callable[[int, Mapping[str, Any], str], None]
"""Takes the number of a request, its result, and its error or nothing."""


class ControllerLink:
    """One connection to an operator socket; `on_answer` is called once for each request."""

    def __init__(self, path: Path, on_answer: OnAnswer, threads: Executor) -> None:
        self._path, self._on_answer, self._threads = path, on_answer, threads
        self.on_gone: Callable[[], None] = lambda: None
        """Called when a connection has ended."""
        self._open: set[int] = set()
        self._unsent: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, number: int, command: str, arguments: Mapping[str, Any]) -> None:
        if len(self._open) >= MAX_OPEN:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._on_answer, number, {}, f"{MAX_OPEN} requests wait for their answers already")
            return
        line = json.dumps({"id": number, "command": command, "arguments": dict(arguments)}).encode() + b"\n"
        self._open.add(number)
        if self._writer is not None:
            self._writer.write(line)
            return
        self._unsent.append(line)
        if self._task is None:
            self._task = asyncio.create_task(self._serve())

    def close(self) -> None:
        """Drop the connection; open requests are not answered any more."""
        self._open.clear()
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        """Connect, send and read until the other side goes away."""
        why = AWAY
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
            try:
                uid = served_by(writer.get_extra_info("socket"))
                if uid != os.geteuid():
                    raise OperatorError(f"user {uid} listens in the controller's place: nothing was sent")
                for line in self._unsent:
                    writer.write(line)
                self._unsent.clear()
                self._writer = writer
                while True:
                    await self._take(await reader.readuntil(b"\n"))
            finally:
                self._writer = None
                writer.close()
                self.on_gone()
        except OperatorError as error:
            why = str(error)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self._task = None
            self._unsent.clear()
            lost, self._open = self._open, set()
            for number in sorted(lost):
                self._on_answer(number, {}, why)

    async def _take(self, line: bytes) -> None:
        if len(line) <= SHORT_ANSWER:
            answer = json.loads(line)
        else:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, json.loads, line)
        number = answer.get("id")
        if number in self._open and answer.get("last", True):
            self._open.discard(number)
            self._on_answer(number, answer.get("result") or {}, str(answer.get("error") or ""))


class ControllerClient:
    """Requests of `mgmt` itself, each awaited."""

    def __init__(self, path: Path, threads: Executor) -> None:
        self._link = ControllerLink(path, self._answered, threads)
        self._link.on_gone = lambda: self.on_gone()
        self.on_gone: Callable[[], None] = lambda: None
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}

    async def call(self, command: str, wait: float = 0.0, /, **arguments: Any) -> Mapping[str, Any]:
        """Return the answer; wait up to `wait` seconds for a controller that is away.

        Raises:
            OperatorError: the controller is away, or refuses.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            number = next(self._numbers)
            answer: asyncio.Future[Mapping[str, Any]] = loop.create_future()
            self._waiting[number] = answer
            self._link.ask(number, command, arguments)
            try:
                return await answer
            except OperatorError as error:
                if str(error) != AWAY or loop.time() >= until:
                    raise
            finally:
                self._waiting.pop(number, None)
            await asyncio.sleep(RETRY_INTERVAL)

    def close(self) -> None:
        self._link.close()

    def _answered(self, number: int, result: Mapping[str, Any], error: str) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if error:
            with contextlib.suppress(asyncio.InvalidStateError):
                answer.set_exception(OperatorError(error))
        else:
            answer.set_result(result)
