"""JSON lines over a stream socket in the launcher's loop. No call blocks.

Input: objects to send and octets from the socket. Output: calls of `on_message` and `on_close`.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from chassis.bus.loop import Loop

MAX_PENDING = 1 << 20
"""Largest backlog (octets) for a slow reader; a channel with more than this is closed."""


class Channel:
    """One end of a stream of JSON objects.

    Call `on_message(object)` for each object that arrives, and `on_close()` once when the other end has closed.
    """

    def __init__(
        self,
        loop: Loop,
        stream: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop, self._socket = loop, stream
        self._on_message, self._on_close = on_message, on_close
        self._fd = stream.fileno()
        self._input = b""
        self._output = bytearray()
        stream.setblocking(False)
        loop.add(self._fd, self._readable)

    def send(self, **values: Any) -> None:
        """Queue one object. Do nothing on a closed channel."""
        if self._fd >= 0:
            self._output += json.dumps(values).encode() + b"\n"
            self._flush()

    def close(self) -> None:
        """Close the socket without a call of `on_close`."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            self._fd = -1
            self._socket.close()

    def _flush(self) -> None:
        waiting = False
        try:
            while self._output:
                del self._output[: self._socket.send(self._output)]
        except BlockingIOError:
            waiting = len(self._output) <= MAX_PENDING
            if not waiting:
                self._gone()
                return
        except OSError:
            self._gone()
            return
        self._loop.remove(self._fd)
        self._loop.add(self._fd, self._readable, zmq.POLLIN | zmq.POLLOUT if waiting else zmq.POLLIN)

    def _readable(self, now: float) -> None:
        if self._output:
            self._flush()
        try:
            data = self._socket.recv(1 << 18) if self._fd >= 0 else None
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            self._gone()
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            message: Any = None
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
            if isinstance(message, dict):
                self._on_message(message)

    def _gone(self) -> None:
        if self._fd >= 0:
            self.close()
            self._on_close()


class ChannelRequest:
    """One request to an operator socket: call `done(result, error)` exactly once."""

    def __init__(
        self, loop: Loop, path: Path, command: str, done: Callable[[dict[str, Any], str], None], **arguments: Any
    ) -> None:
        self._done: Callable[[dict[str, Any], str], None] | None = done
        self._channel: Channel | None = None
        try:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            self._finish({}, f"cannot be asked: {error.strerror}")
            return
        stream.setblocking(False)
        try:
            stream.connect(str(path))
        except OSError as error:
            stream.close()
            self._finish({}, f"not there: {error.strerror}")
            return
        self._channel = Channel(loop, stream, self._answer, lambda: self._finish({}, "went away"))
        self._channel.send(id=1, command=command, arguments=arguments)

    def give_up(self) -> None:
        """Finish with an error because the answer did not arrive in time."""
        self._finish({}, "no answer in time")

    def _answer(self, message: dict[str, Any]) -> None:
        if message.get("last", True):
            self._finish(message.get("result") or {}, str(message.get("error") or ""))

    def _finish(self, result: dict[str, Any], error: str) -> None:
        done, self._done = self._done, None
        if self._channel is not None:
            self._channel.close()
        if done is not None:
            done(result, error)
