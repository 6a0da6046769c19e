"""The operators' protocol, server and client: JSON lines over a Unix stream socket.

A request is `{"id": 1, "command": "status", "arguments": {}}`. It has one or more answers
`{"id": 1, "result": {}, "error": "", "last": true}`; `last` is true in the last one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from chassis.bus.arguments import fault

MAX_LINE = 64 * 1024 * 1024
"""Length (octets) of the longest line that either side accepts."""

MAX_UNFINISHED_OCTETS = 2 * MAX_LINE
"""Most octets of incomplete requests that a server holds, of all its clients."""

MAX_CLIENTS = 128
"""Most clients of a server (count); fewer if the process may open few descriptors."""

MAX_ID = 64
"""Length (characters) of the longest `id` of a request, if it is a text."""

MAX_PENDING_REQUESTS = 1000
"""Most unanswered requests of one client (count)."""

BACKLOG = 256
"""Connections that wait to be accepted (count)."""

CONNECT_RETRY_INTERVAL = 0.01
"""Time (s) after which a client tries to connect again if too many connections wait."""

AWAY = "the controller is away: try again"
"""The error of an operator's request whose controller is gone."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accept() for lack of resources; the connection stays in the queue."""

Handler = Callable[[int, str, dict[str, Any]], None]


class OperatorError(Exception):
    """The command was refused or failed; the text says why."""


class OperatorGone(OperatorError):
    """No process listens on the socket, or it closed the connection. It may be restarted."""


def _json_default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} has no JSON form")


class OperatorServer:
    """Serves an operator socket in the caller's poll loop, without blocking.

    `handler(number, command, arguments)` is called for each request, with a number of the server's own that
    `answer` takes. An exception of the handler becomes an answer and a line in the process's log. Register every
    descriptor of `filenos()` for reading, call `ready(fd)` when one is readable, and then call `filenos()` again.

    There are at most `MAX_CLIENTS` clients. For one more, the client that was silent longest and waits for no
    answer is disconnected; if all wait, the new client is refused.
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
        self._listener.listen(BACKLOG)
        self._most = min(MAX_CLIENTS, max(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        # Closed when the process has no descriptors left, so that a connection can be accepted and refused.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._clients: dict[int, socket.socket] = {}
        """Clients by descriptor; the client that was silent longest is first."""
        self._buffers: dict[int, bytearray] = {}
        self._pending: dict[int, bytearray] = {}
        self._requests: dict[int, tuple[int, Any]] = {}
        self._asked: dict[int, int] = {}
        """Unanswered requests (count), by client."""
        self._number = 0

    def filenos(self) -> list[int]:
        if not self._can_refuse():
            return list(self._clients)
        return [self._listener.fileno(), *self._clients]

    def blocked(self) -> list[int]:
        """Return the clients with unsent answers; register these for writing too."""
        return [fd for fd, data in self._pending.items() if data]

    def ready(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._clients:
            self._flush(fd)
            if fd in self._clients:
                self._read(fd)

    def answer(self, number: int, result: Mapping[str, Any], error: str = "", last: bool = True) -> bool:
        """Answer a request. Return False if its client has disconnected, so that a stream may stop."""
        entry = self._requests.get(number)
        if entry is None:
            return False
        fd, ident = entry
        line = _line(ident, result, error, last)
        if last:
            del self._requests[number]
            self._asked[fd] -= 1
        self._pending[fd] += line
        if len(self._pending[fd]) > MAX_LINE:
            self._drop(fd)
            return False
        self._flush(fd)
        return True

    def close(self) -> None:
        for fd in list(self._clients):
            self._drop(fd)
        self._listener.close()
        if self._spare >= 0:
            os.close(self._spare)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._turn_away()
            return
        client.setblocking(False)
        if len(self._clients) >= self._most:
            idle = next((fd for fd in self._clients if not self._asked[fd] and not self._pending[fd]), None)
            if idle is None:
                _refuse(client, f"{self._most} others wait for answers here: try again later")
                return
            self._drop(idle)
        fd = client.fileno()
        self._clients[fd] = client
        self._buffers[fd] = bytearray()
        self._pending[fd] = bytearray()
        self._asked[fd] = 0

    def _turn_away(self) -> None:
        """Accept a connection with the reserved descriptor, and close it."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            _refuse(client, "this process can't open anything more: try again later")
        self._can_refuse()

    def _can_refuse(self) -> bool:
        """Return whether the reserved descriptor is open. Without it the listener is not polled, because a
        connection that cannot be accepted keeps it readable."""
        if self._spare < 0:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._spare >= 0

    def _drop(self, fd: int) -> None:
        client = self._clients.pop(fd, None)
        # The next client may get the same descriptor, but must not get these answers.
        self._requests = {number: entry for number, entry in self._requests.items() if entry[0] != fd}
        self._buffers.pop(fd, None)
        self._pending.pop(fd, None)
        self._asked.pop(fd, None)
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
        client = self._clients[fd] = self._clients.pop(fd)
        buffer = self._buffers[fd]
        buffer += data
        if b"\n" in data:
            *lines, rest = bytes(buffer).split(b"\n")
            self._buffers[fd] = bytearray(rest)
            for line in lines:
                # The client may have disconnected, and another one may have its descriptor.
                if self._clients.get(fd) is client:
                    self._request(fd, line)
        elif len(buffer) > MAX_LINE or sum(map(len, self._buffers.values())) > MAX_UNFINISHED_OCTETS:
            self._pending[fd] += _line(None, {}, f"a request has at most {MAX_LINE} bytes", True)
            self._flush(fd)
            self._drop(fd)

    def _request(self, fd: int, line: bytes) -> None:
        self._number += 1
        number = self._number
        self._requests[number] = (fd, None)
        self._asked[fd] += 1
        try:
            request = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            self.answer(number, {}, f"not JSON: {type(error).__name__}")
            return
        fields = request if isinstance(request, dict) else {}
        ident, command, arguments = fields.get("id"), fields.get("command"), fields.get("arguments", {})
        if type(ident) is int or (type(ident) is str and len(ident) <= MAX_ID):
            self._requests[number] = (fd, ident)
        elif ident is not None:
            command = None
        if not isinstance(command, str) or not isinstance(arguments, dict):
            self.answer(number, {}, "a request is an object with id, command and arguments")
            return
        if self._asked[fd] > MAX_PENDING_REQUESTS:
            self.answer(
                number, {}, f"{MAX_PENDING_REQUESTS} requests of this connection wait for their answers already"
            )
            return
        try:
            self._handler(number, command, arguments)
        except Exception as error:
            text = fault(error)
            print(f"request {command[:40]!r}: {text}", file=sys.stderr)
            self.answer(number, {}, text)


def _line(ident: Any, result: Mapping[str, Any], error: str, last: bool) -> bytes:
    """Return an answer as it is sent; an error answer if the result cannot be encoded as JSON."""
    try:
        values = {"id": ident, "result": result, "error": error, "last": last}
        text = json.dumps(values, default=_json_default, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as wrong:
        print(f"an answer can't be sent: {fault(wrong)}", file=sys.stderr)
        values = {"id": ident, "result": {}, "error": "the answer can't be sent", "last": last}
        text = json.dumps(values, separators=(",", ":"))
    return text.encode() + b"\n"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(client: socket.socket, why: str) -> None:
    """Send the reason, and close the connection."""
    with contextlib.suppress(OSError):
        client.send(_line(None, {}, why, True))
    client.close()


def _connect(client: socket.socket, path: str, timeout: float | None) -> None:
    """Connect; wait while the listener's queue is full."""
    until = time.monotonic() + (timeout or 0.0)
    while True:
        try:
            client.connect(path)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(CONNECT_RETRY_INTERVAL)
        else:
            return


def served_by(stream: socket.socket) -> int:
    """Return the user id of the listening process of a connected Unix socket (unix(7), SO_PEERCRED)."""
    _, uid, _ = struct.unpack("iII", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class OperatorClient:
    """A client of an operator socket. It blocks; `timeout` (s) limits each wait for an answer.

    Requests may contain keys, so nothing is sent to a process of another user.

    Raises:
        OperatorGone: no process listens on the socket.
        OperatorError: a process of another user listens on it.
    """

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            _connect(self._socket, str(path), timeout)
        except OSError as error:
            self._socket.close()
            raise OperatorGone(f"{path}: {error.strerror}: no process listens on this socket") from None
        if (uid := served_by(self._socket)) != os.geteuid():
            self._socket.close()
            raise OperatorError(f"{path}: user {uid} listens there, not one of yours: nothing was sent")
        self._file = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> OperatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connection(self) -> socket.socket:
        """The connected socket, for callers that wait for several things at once and read answers themselves."""
        return self._socket

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def stream(self, command: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield each answer of a command up to its last one.

        Raises:
            OperatorGone: the server closed the connection.
            OperatorError: the command was refused, or the server did not answer in time.
        """
        self._number += 1
        request = {"id": self._number, "command": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request, default=_json_default).encode() + b"\n")
            while line := self._file.readline(MAX_LINE):
                answer = json.loads(line)
                if answer.get("id") is None and answer.get("error"):
                    raise OperatorError(answer["error"])
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
        """Return the last answer of a command; raises as `stream` does."""
        result: dict[str, Any] = {}
        for result in self.stream(command, **arguments):  # noqa: B007
            pass
        return result
