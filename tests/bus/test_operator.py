"""The operators' protocol over a real socket, served from a poll loop in a thread of the test."""

from __future__ import annotations

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
