"""A controller and a channel in memory, for sessions over SSH without SSH."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

from chassis.cli.commands import REQUESTS
from chassis.mgmt.logins import Account
from chassis.mgmt.ssh_session import SessionHost, SshSession
from tests.support.cli_answers import SYSTEM

WITHIN = 60.0
"""Time (s) that anything may take on a crowded machine."""


async def until(condition: Callable[[], Any], what: str = "") -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.002)


class Controller:
    """Answers requests at an operator socket; those named in `held` wait for `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[dict[str, Any]] = []
        """Records that are answered to `log`."""
        self.held: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._waiting: list[tuple[asyncio.StreamWriter, dict[str, Any]]] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 24)

    async def close(self) -> None:
        """Go away, with all connections."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self._waiting.clear()

    def release(self) -> None:
        self.held.clear()
        waiting, self._waiting = self._waiting, []
        for writer, request in waiting:
            self._answer(writer, request)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        # The end of the event loop cancels what serves a connection.
        with contextlib.suppress(asyncio.CancelledError):
            while line := await reader.readline():
                request = json.loads(line)
                self.asked.append(request)
                if request["command"] in self.held:
                    self._waiting.append((writer, request))
                else:
                    self._answer(writer, request)

    def _answer(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        results: dict[str, Any] = {
            "identity": {"hostname": "a", "contexts": ["local"], "version": 1, "system": {}},
            "log": {"records": self.log, "left_out": 0, "number": len(self.log)},
            "system": SYSTEM,
        }
        answer = {"id": request["id"], "result": results.get(request["command"], {}), "error": "", "last": True}
        writer.write(json.dumps(answer).encode() + b"\n")


class FakeChannel:
    """What a session has of asyncssh: written octets, whether it reads, how it ended."""

    def __init__(self) -> None:
        self.text = b""
        self.reading = True
        self.status: int | None = None
        self.aborted = False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.text += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def exit(self, status: int) -> None:
        self.status = status

    def abort(self) -> None:
        self.aborted = True


class SessionRig:
    """A session, its channel and its controller."""

    def __init__(self, controller: Controller, session: SshSession, channel: FakeChannel) -> None:
        self.controller, self.session, self.channel = controller, session, channel

    def type(self, keys: str | bytes) -> None:
        self.session.data_received(keys.encode() if isinstance(keys, str) else keys, None)

    async def shows(self, text: str) -> None:
        await until(lambda: text.encode() in self.channel.text)

    async def ended(self) -> int:
        await until(lambda: self.channel.status is not None)
        assert self.channel.status is not None
        return self.channel.status


@asynccontextmanager
async def session(
    folder: Path,
    *,
    command: str | None = None,
    terminal: bool = True,
    idle: float = inf,
    requests: frozenset[str] = REQUESTS,
    privilege: int = 15,
) -> AsyncIterator[SessionRig]:
    """A started session. Its controller lets it in."""

    async def check(account: Account, secret: str, source: str) -> str:
        return "" if secret == "right" else "wrong password"

    controller = Controller(folder / "a.sock")
    await controller.open()
    threads = ThreadPoolExecutor(2)
    try:
        host = SessionHost("a", controller.path, threads, requests, 1e9, check)
        account = Account("op", idle_timeout=idle, privilege=privilege)
        made = SshSession(host, account, "127.0.0.1:4242", lambda ended: None)
        channel: Any = FakeChannel()
        made.connection_made(channel)
        if terminal:
            assert made.pty_requested("vt100", (80, 24, 0, 0), {})
        assert made.shell_requested() if command is None else made.exec_requested(command)
        made.session_started()
        yield SessionRig(controller, made, channel)
        made.connection_lost(None)
    finally:
        await controller.close()
        threads.shutdown()
