"""One session over SSH: keys of the client in, output of the CLI out, requests to the controller.

`chassis.cli.session.CliSession` decides what happens; its calls run in threads, so that a long listing of one
session delays no other. Keys wait here, at most `MAX_KEYS` octets, while the session waits or its client does not
read: then the client has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, Final

import asyncssh

from chassis.bus.arguments import fault
from chassis.cli.dialogue import Transfer
from chassis.cli.log_monitor import FIRST_NUMBER
from chassis.cli.session import INTERRUPT, Action, Ask, Carry, CliSession, Close, Verify, Wake, Write
from chassis.mgmt import transfers
from chassis.mgmt.controller_link import ControllerLink
from chassis.mgmt.logins import Account

MAX_KEYS: Final = 65_536
"""Most octets of keys that wait; the client can send no more until there is room."""

KEYS_AT_ONCE: Final = 4096
"""Most octets of keys that the CLI is given at once."""

OUTPUT_AT_ONCE: Final = 32_768
"""Octets of output that are written before it is looked whether the client still reads."""

WRITE_TIMEOUT: Final = 300.0
"""Time (s) after which a client that does not read is cut."""

MAX_END_KEYS: Final = 8
"""How often ^D is given to a session whose client sends nothing more, before it is ended (count)."""

END_OF_INPUT: Final = 0x04


class Unread(Exception):
    """The client does not read what it is sent."""


@dataclass(frozen=True, slots=True)
class SessionHost:
    """What all sessions of a process share. `path` is the controller's operator socket, `requests` are those that
    a session may send there, `wall_offset` is added to monotonic time for Unix time (s). `check` tells why a
    password does not give an account more privilege, or nothing."""

    node: str
    path: Path
    threads: Executor
    requests: frozenset[str]
    wall_offset: float
    check: Callable[[Account, str, str], Awaitable[str]]
    urls: bool = False
    """Whether a session may use files of other machines."""


class SshSession(asyncssh.SSHServerSession[bytes]):
    """One channel: a shell, with a terminal or without, or one command. `on_end` is called once."""

    def __init__(
        self, host: SessionHost, account: Account, source: str, on_end: Callable[[SshSession], None]
    ) -> None:
        self.account, self.source = account, source
        self.began = self.active = time.monotonic()
        """Times (s) of the login and of the last key."""
        self.closing = ""
        """Why the session is ended from outside."""
        self._host, self._on_end = host, on_end
        self._size: tuple[int, int] | None = None
        self._command: str | None = None
        self._keys = bytearray()
        self._events: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._waiting: set[int] = set()
        self._wake_at = inf
        self._eof = self._in_line = False
        self._end_keys = count()
        self._status: int | None = None
        self._link = ControllerLink(host.path, self._answered, host.threads)
        self._task: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None

    # the channel

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._size = term_size[:2]
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        return False

    def session_started(self) -> None:
        self._chan.set_write_buffer_limits(high=2 * OUTPUT_AT_ONCE)
        self._task = asyncio.create_task(self._serve())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.active = time.monotonic()
        self._keys += data
        self._in_line = data[-1:] not in (b"\r", b"\n")
        if len(self._keys) > MAX_KEYS:
            self._chan.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._changed.set()
        return True

    def break_received(self, msec: int) -> bool:
        self.data_received(bytes([INTERRUPT]), None)
        return True

    def signal_received(self, signal: str) -> None:
        if signal == "INT":
            self.data_received(bytes([INTERRUPT]), None)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._size = (width, height)
        self._happened("resize", None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.close()
        if self._task is not None:
            self._task.cancel()
        self._on_end(self)

    def end(self, why: str) -> None:
        """End the session from outside, and tell the operator why."""
        self.closing = self.closing or why
        self._changed.set()

    # the session

    async def _serve(self) -> None:
        status = 1
        try:
            status = await self._run()
        except (Unread, ConnectionError):
            self._chan.abort()
            return
        except Exception as error:
            # A fault of this program: it ends this session only.
            print(f"session of {self.account.user}: {fault(error)}", file=sys.stderr)
            with contextlib.suppress(Exception):
                await self._write(b"% Error: internal error\r\n")
        self._chan.exit(status)

    async def _run(self) -> int:
        width, length = self._terminal_size()
        cli = CliSession(
            self._host.node,
            self.account.user,
            privilege=self.account.privilege,
            privilege_max=self.account.privilege_max,
            context=self.account.context,
            source=f"ssh {self.source}",
            width=width,
            length=length,
            terminal=self._command is None,
            wall_offset=self._host.wall_offset,
        )
        if self._command is None:
            await self._step(cli.start)
        else:
            await self._step(cli.execute, self._command)
        while self._status is None and not self.closing:
            await self._wait()
            await self._take_events(cli)
            if self._idle_at() <= time.monotonic():
                self.end(f"the session was idle for {self.account.idle_timeout / 60:g} minutes")
            elif self._wake_at <= time.monotonic():
                self._wake_at = inf
                await self._step(cli.on_timer)
            elif keys := self._next_keys():
                await self._step(cli.receive, keys)
        if self.closing:
            await self._write(f"\r\n% {self.closing}\r\n".encode())
        return self._status or 0

    def _terminal_size(self) -> tuple[int, int]:
        """Return columns and rows; rows are 0 where nothing stops at the end of a page."""
        if self._size is None:
            return 80, 0
        width, length = self._size
        return min(max(width or 80, 20), 512), 0 if self._command is not None else min(length or 24, 512)

    async def _wait(self) -> None:
        """Wait until something happens: keys that can be taken, an answer, a timer, the end."""
        while not (self._events or self.closing or self._can_take()):
            left = min(self._wake_at, self._idle_at()) - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left == inf else left):
                    await self._changed.wait()

    def _idle_at(self) -> float:
        """Return the time (s) at which the session ends if no key is typed; a command ends by itself."""
        return self.active + self.account.idle_timeout if self._command is None else inf

    def _can_take(self) -> bool:
        if self._waiting and INTERRUPT not in self._keys:
            return False
        return self._command is None and (bool(self._keys) or self._eof)

    def _next_keys(self) -> bytes:
        """Return the next keys for the CLI. While it waits for an answer, keys wait too, but for an interrupt."""
        if not self._can_take():
            return b""
        if not self._keys:
            # The client has sent all that it will.
            if next(self._end_keys) >= MAX_END_KEYS:
                self._status = 1
                return b""
            # A last line without its end is one too.
            ends, self._in_line = (b"\r" if self._in_line else b""), False
            return ends + bytes([END_OF_INPUT])
        most = self._keys.index(INTERRUPT) + 1 if self._waiting else KEYS_AT_ONCE
        keys = bytes(self._keys[:most])
        del self._keys[:most]
        self._waiting.clear()
        if len(self._keys) <= MAX_KEYS // 2:
            self._chan.resume_reading()
        return keys

    async def _take_events(self, cli: CliSession) -> None:
        while self._events and self._status is None:
            what, value = self._events.pop(0)
            if what == "resize":
                cli.resize(*self._terminal_size())
            else:
                number, result, error = value
                self._waiting.discard(number)
                await self._step(cli.answer, number, result, error)

    async def _step(self, call: Callable[..., list[Action]], *arguments: Any) -> None:
        """Call the session in a thread, and do what it says."""
        loop = asyncio.get_running_loop()
        actions = await loop.run_in_executor(self._host.threads, lambda: call(*arguments, time.monotonic()))
        await self._do(actions)

    async def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Write(text):
                    await self._write(text)
                case Ask(number, command, arguments):
                    # What a monitor of the log asks keeps no key waiting.
                    if number < FIRST_NUMBER:
                        self._waiting.add(number)
                    # No session of anybody shows a key in clear.
                    if command in self._host.requests and not arguments.get("keys"):
                        self._link.ask(number, command, arguments)
                    else:
                        self._answered(number, {}, f"{command}: no request of a session")
                case Verify(number, _, secret):
                    self._waiting.add(number)
                    self._checking = asyncio.create_task(self._check(number, secret))
                case Carry(number, transfer):
                    self._waiting.add(number)
                    self._checking = asyncio.create_task(self._carry(number, transfer))
                case Wake(at):
                    self._wake_at = at
                case Close(status):
                    self._status = status

    async def _check(self, number: int, secret: str) -> None:
        why = await self._host.check(self.account, secret, self.source)
        self._answered(number, {}, why)

    async def _carry(self, number: int, asked: Transfer) -> None:
        text, why = "", "the lab allows no URLs: it has no `urls: true`"
        if self._host.urls:
            try:
                text, why = await transfers.carry(asked.url, asked.data, asked.password, self._host.threads), ""
            except transfers.TransferError as error:
                why = str(error)
            except Exception as error:
                why = fault(error)
        self._answered(number, {"text": text}, why)

    async def _write(self, text: bytes) -> None:
        """Write to the client as fast as it reads.

        Raises:
            Unread: it has not read for `WRITE_TIMEOUT`.
        """
        if self._command is not None and self._size is not None:
            text = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        for at in range(0, len(text), OUTPUT_AT_ONCE):
            self._chan.write(text[at : at + OUTPUT_AT_ONCE])
            if not self._writable.is_set():
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await self._writable.wait()
                except TimeoutError:
                    raise Unread from None

    def _answered(self, number: int, result: Mapping[str, Any], error: str) -> None:
        self._happened("answer", (number, result, error))

    def _happened(self, what: str, value: Any) -> None:
        if what == "resize" and any(kind == "resize" for kind, _ in self._events):
            return
        self._events.append((what, value))
        self._changed.set()
