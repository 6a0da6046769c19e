"""The operators' protocol: JSON lines over a Unix stream socket.

A request is `{"id": 1, "command": "status", "arguments": {}}`; its answers are one or more
`{"id": 1, "result": {}, "error": "", "last": true}`, of which the last one says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_LINE = 64 * 1024 * 1024
"""Longest line, in bytes, that either side takes."""

Handler = Callable[[int, str, dict[str, Any]], None]


class OperatorError(Exception):
    """The command was refused or could not be done; the text says why."""


class OperatorGone(OperatorError):
    """Nobody listens at the other side, or whoever did went away: a process that may come back."""


def _json_default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} has no JSON form")


class OperatorServer:
    """Serves an operator socket inside somebody else's poll loop: nothing here blocks.

    `handler(number, command, arguments)` is called for each request, with a number of the server's own that
    `answer` takes. Register every `fileno` of `filenos()` for reading and call `ready(fd)` when one is; the
    loop asks for `filenos()` again after each call.
    """

    def __init__(self, path: Path, handler: Handler) -> None:
        self._handler = handler
        self._path = path
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(mask)
        self._listener.listen(64)
        self._clients: dict[int, socket.socket] = {}
        self._buffers: dict[int, bytearray] = {}
        self._pending: dict[int, bytearray] = {}
        self._requests: dict[int, tuple[int, Any]] = {}
        self._number = 0

    def filenos(self) -> list[int]:
        return [self._listener.fileno(), *self._clients]

    def blocked(self) -> list[int]:
        """Clients that still have answers to take: register these for writing too."""
        return [fd for fd, data in self._pending.items() if data]

    def ready(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._clients:
            self._flush(fd)
            if fd in self._clients:
                self._read(fd)

    def answer(self, number: int, result: Mapping[str, Any], error: str = "", last: bool = True) -> bool:
        """Answer a request; False when whoever asked has gone, so that a stream may stop."""
        entry = self._requests.pop(number, None) if last else self._requests.get(number)
        if entry is None:
            return False
        fd, ident = entry
        if fd not in self._clients:
            self._requests.pop(number, None)
            return False
        line = json.dumps(
            {"id": ident, "result": result, "error": error, "last": last},
            default=_json_default,
            separators=(",", ":"),
        )
        self._pending[fd] += line.encode() + b"\n"
        if len(self._pending[fd]) > MAX_LINE:
            self._drop(fd)
            return False
        self._flush(fd)
        return True

    def close(self) -> None:
        for fd in list(self._clients):
            self._drop(fd)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients[client.fileno()] = client
            self._buffers[client.fileno()] = bytearray()
            self._pending[client.fileno()] = bytearray()

    def _drop(self, fd: int) -> None:
        client = self._clients.pop(fd, None)
        # The next client may get the same descriptor, and must not get the answers of this one.
        self._requests = {number: entry for number, entry in self._requests.items() if entry[0] != fd}
        self._buffers.pop(fd, None)
        self._pending.pop(fd, None)
        if client is not None:
            client.close()

    def _flush(self, fd: int) -> None:
        data = self._pending[fd]
        while data:
            try:
                sent = self._clients[fd].send(data)
            except BlockingIOError:
                return
            except OSError:
                self._drop(fd)
                return
            del data[:sent]

    def _read(self, fd: int) -> None:
        try:
            data = self._clients[fd].recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        buffer = self._buffers[fd]
        buffer += data
        *lines, rest = buffer.split(b"\n")
        self._buffers[fd] = rest if isinstance(rest, bytearray) else bytearray(rest)
        if len(rest) > MAX_LINE:
            self._drop(fd)
            return
        for line in lines:
            self._request(fd, bytes(line))

    def _request(self, fd: int, line: bytes) -> None:
        self._number += 1
        number = self._number
        self._requests[number] = (fd, None)
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            self.answer(number, {}, f"not JSON: {error}")
            return
        if not isinstance(request, dict):
            self.answer(number, {}, "a request is an object with id, command and arguments")
            return
        self._requests[number] = (fd, request.get("id"))
        command, arguments = request.get("command"), request.get("arguments", {})
        if not isinstance(command, str) or not isinstance(arguments, dict):
            self.answer(number, {}, "a request is an object with id, command and arguments")
            return
        self._handler(number, command, arguments)


def served_by(stream: socket.socket) -> int:
    """The user whose process listens at the other end of a connected Unix socket (unix(7), SO_PEERCRED)."""
    _, uid, _ = struct.unpack("iII", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class OperatorClient:
    """A program's end of an operator socket. Blocks; `timeout` seconds bound each wait for an answer.

    What it sends may have keys in it: a process of another user at the other end gets nothing, and OperatorError
    says so.
    """

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise OperatorGone(f"{path}: {error.strerror}: nobody listens there") from None
        if (uid := served_by(self._socket)) != os.geteuid():
            self._socket.close()
            raise OperatorError(f"{path}: a process of user {uid} listens there, not of yours: nothing was sent")
        self._file = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> OperatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def stream(self, command: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Each answer of a command until its last one.

        Raises:
            OperatorGone: the other side went away.
            OperatorError: the command was refused, or the other side stayed silent.
        """
        self._number += 1
        request = {"id": self._number, "command": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request, default=_json_default).encode() + b"\n")
            while line := self._file.readline(MAX_LINE):
                answer = json.loads(line)
                if answer.get("id") != self._number:
                    continue
                if answer.get("error"):
                    raise OperatorError(answer["error"])
                yield answer.get("result", {})
                if answer.get("last", True):
                    return
        except TimeoutError:
            raise OperatorError(f"{command}: no answer in time") from None
        except OSError as error:
            raise OperatorGone(f"{command}: {error.strerror}") from None
        raise OperatorGone(f"{command}: the other side went away")

    def call(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        """The last answer of a command; `OperatorError` where it is refused."""
        result: dict[str, Any] = {}
        for result in self.stream(command, **arguments):  # noqa: B007
            pass
        return result
