"""The operators' protocol over a real socket, served from a poll loop in a thread of the test."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from chassis.bus.loop import Loop
from chassis.bus.operator import OperatorClient, OperatorError
from chassis.bus.operator_loop import OperatorSocket


@pytest.fixture
def served() -> Iterator[Path]:
    with TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "x.sock"
        loop = Loop()

        def handler(number: int, command: str, arguments: dict[str, Any]) -> None:
            if command == "echo":
                server.answer(number, arguments)
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


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"id":1,"command":5}', b'{"command":"echo","arguments":3}'])
def test_bad_lines_get_an_error_and_the_connection_lives(served: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served))
        raw.sendall(line + b"\n" + b'{"id":2,"command":"echo","arguments":{}}\n')
        answers = raw.makefile("rb")
        assert b'"last":true' in (first := answers.readline())
        assert b'"error":""' not in first
        assert b'"id":2' in answers.readline()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="nobody listens there"):
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
        assert "listens there, not of yours: nothing was sent" in said
