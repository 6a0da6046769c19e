"""The operators' protocol over a real socket, served from a poll loop in a thread of the test."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from chassis.bus.loop import Loop
from chassis.bus.operator import OperatorClient, OperatorError, OperatorServer
from chassis.bus.operator_loop import OperatorSocket
from tests.support import odd


@pytest.fixture
def served() -> Iterator[Path]:
    with TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "x.sock"
        loop = Loop()

        def handler(number: int, command: str, arguments: dict[str, Any]) -> None:
            if command == "echo":
                server.answer(number, arguments)
            elif command == "raise":
                raise KeyError("a secret")
            elif command == "odd":
                server.answer(number, {"value": {1, 2}})
            elif command == "wait":
                pass
            elif command == "count":
                for value in range(arguments["to"]):
                    server.answer(number, {"value": value}, last=False)
                server.answer(number, {"value": "done"})
            else:
                server.answer(number, {}, f"no command {command}")

        server = OperatorSocket(loop, path, handler)
        thread = threading.Thread(target=loop.run, args=(lambda: float("inf"), lambda now: None))
        thread.start()
        yield path
        loop.stop()
        thread.join(5)
        server.close()


def test_calls_streams_and_errors(served: Path) -> None:
    with OperatorClient(served) as client:
        assert client.call("echo", a=1, b="x" * 300_000) == {"a": 1, "b": "x" * 300_000}
        assert [answer["value"] for answer in client.stream("count", to=500)] == [*range(500), "done"]
        with pytest.raises(OperatorError, match="no command nothing"):
            client.call("nothing")
    assert served.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", [
    b"{",
    b"[1]",
    b'{"id":1,"command":5}',
    b'{"command":"echo","arguments":3}',
    b'{"id":{},"command":"echo"}',
    b'{"id":"' + b"x" * 100 + b'","command":"echo"}',
    b"9" * 5000,
    b"[" * 50_000,
    b'{"id":1,"command":"echo","arguments":{"a":NaN}}',
    b'{"id":1,"command":"echo","arguments":{"a":-Infinity}}',
    b'{"id":1,"command":"raise"}',
    b'{"id":1,"command":"odd"}',
    b"\xff",
    b"\0",
    b'"\\ud800"',
])  # fmt: skip
def test_bad_lines_get_an_error_and_the_connection_lives(served: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5.0)
        raw.connect(str(served))
        raw.sendall(line + b"\n" + b'{"id":2,"command":"echo","arguments":{}}\n')
        answers = raw.makefile("rb")
        assert b'"last":true' in (first := odd.survived(answers.readline))
        assert b'"error":""' not in first
        assert b'"id":2' in odd.survived(answers.readline)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no process listens on this socket"):
        OperatorClient(tmp_path / "none.sock")


def heard_at(path: Path, uid: int) -> tuple[str, bytes]:
    """What a client says of a server of this user's, and what the server heard of a configuration with a key."""
    listener = socket.socket(socket.AF_UNIX)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        heard = b""
        if os.geteuid() != uid:
            os.setuid(uid)
        listener.bind(str(path))
        listener.listen()
        theirs.sendall(b".")
        client, _ = listener.accept()
        while more := client.recv(4096):
            heard += more
            if heard.endswith(b"\n"):
                client.sendall(b'{"id":1,"result":{},"error":"","last":true}\n')
        theirs.sendall(heard)
        os._exit(0)
    theirs.close()
    listener.close()
    said = ""
    assert ours.recv(1) == b"."
    try:
        with OperatorClient(path, 5.0) as client:
            client.call("apply", text="key of the tunnel")
    except OperatorError as error:
        said = str(error)
    os.waitpid(pid, 0)
    heard = ours.recv(4096)
    ours.close()
    return said, heard


def test_nothing_is_sent_to_a_process_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        own = os.geteuid()
        said, heard = heard_at(Path(folder) / "own.sock", own)
        assert (said, b"key of the tunnel" in heard) == ("", True)
        if own == 0:
            os.chmod(folder, 0o777)
            said, heard = heard_at(Path(folder) / "x.sock", 12345)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: own + 1)
            said, heard = heard_at(Path(folder) / "x.sock", own + 1)
        assert heard == b""
        assert "listens there, not one of yours: nothing was sent" in said


def test_a_fault_is_an_answer_and_a_line_in_the_log(served: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with OperatorClient(served, 5.0) as client, pytest.raises(OperatorError, match="internal error: KeyError"):
        client.call("raise")
    said = capfd.readouterr().err
    assert said.startswith("request 'raise': internal error: KeyError at ")
    assert "secret" not in said


MANY = 300
"""More clients than a server has, and more than a process may open by the default of many systems."""


def alive(client: OperatorClient) -> bool:
    with contextlib.suppress(OperatorError):
        return client.call("echo", a=1) == {"a": 1}
    return False


def test_one_client_more_takes_the_place_of_the_one_that_was_silent_longest(served: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(OperatorClient(served, 5.0))
        clients = []
        for _ in range(MANY):
            clients.append(stack.enter_context(OperatorClient(served, 5.0)))
            assert alive(clients[-1])
            assert alive(first)
        kept = [alive(client) for client in clients]
        assert kept == sorted(kept)
        assert 0 < sum(kept) < MANY / 2


def test_where_all_wait_for_answers_one_more_is_refused(served: Path) -> None:
    with ExitStack() as stack:
        waiting = []
        for _ in range(MANY):
            client = stack.enter_context(OperatorClient(served, 5.0))
            if not alive(client):
                break
            client._socket.sendall(b'{"id":7,"command":"wait"}\n{"id":8,"command":"echo"}\n')
            assert client._file.readline()
            waiting.append(client)
        assert 0 < len(waiting) < MANY / 2
        waiting[0].close()
        assert alive(stack.enter_context(OperatorClient(served, 5.0)))
        for client in waiting[1:]:
            client._socket.sendall(b'{"id":9,"command":"echo"}\n')
            assert client._file.readline()


def test_requests_that_wait_are_bounded(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5.0)
        raw.connect(str(served))
        raw.sendall(b'{"id":1,"command":"wait"}\n' * 2000 + b'{"id":2,"command":"count","arguments":{"to":0}}\n')
        answer = json.loads(odd.survived(raw.makefile("rb").readline))
        assert (answer["id"], answer["last"]) == (1, True)
        assert "wait for their answers" in answer["error"]


CROWDED = """
import os, resource, sys
from math import inf
from pathlib import Path
from chassis.bus.loop import Loop
from chassis.bus.operator_loop import OperatorSocket

loop = Loop()
server = OperatorSocket(loop, Path(sys.argv[1]), lambda number, command, given: server.answer(number, given))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        last = os.open(os.devnull, os.O_RDONLY)
except OSError:
    os.close(last)
print("ready", flush=True)
loop.run(lambda: inf, lambda now: None)
"""


def test_connections_beyond_what_a_process_may_open_are_turned_away(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "x.sock"
        process = subprocess.Popen([sys.executable, "-c", CROWDED, str(path)], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            # The one descriptor that is free.
            with OperatorClient(path, 5.0) as first:
                assert first.call("echo", a=1) == {"a": 1}
                for _ in range(80):
                    with contextlib.suppress(OperatorError), OperatorClient(path, 5.0) as turned:
                        assert not alive(turned)
                assert alive(first)
            deadline = time.monotonic() + 5.0
            while True:
                with OperatorClient(path, 5.0) as last, contextlib.suppress(OperatorError):
                    assert last.call("echo", a=3) == {"a": 3}
                    break
                assert time.monotonic() < deadline
            assert process.poll() is None
        finally:
            process.kill()
            process.wait(5)
            process.stdout.close()


def test_a_listener_that_cannot_turn_away_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "none left")

    with TemporaryDirectory(dir="/tmp") as folder:
        server = OperatorServer(Path(folder) / "x.sock", lambda number, command, arguments: None)
        listener = server.filenos()[0]
        os.close(server._spare)
        server._spare = -1
        with monkeypatch.context() as patched:
            patched.setattr("chassis.bus.operator.os.open", none_left)
            assert listener not in server.filenos()
        assert listener in server.filenos()
        server.close()
