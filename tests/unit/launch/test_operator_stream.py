"""Requests whose answers are taken when they come, also from a controller that goes away and comes back."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from chassis.bus.operator import AWAY
from launch.client.operator_stream import OperatorStream


class FakeController:
    """A listener that answers what the test tells it to."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._client: socket.socket | None = None

    def request(self) -> dict[str, Any]:
        if self._client is None:
            self._client, _ = self._listener.accept()
        found: dict[str, Any] = json.loads(self._client.recv(65_536))
        return found

    def send(self, octets: bytes) -> None:
        assert self._client is not None
        self._client.sendall(octets)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._listener.close()


@pytest.fixture
def path(short_folder: Path) -> Path:
    return short_folder / "operator"


def test_an_answer_comes_whole_however_it_is_cut(path: Path) -> None:
    controller, stream = FakeController(path), OperatorStream(path)
    stream.ask(7, "status", {"since": 1})
    assert controller.request() == {"id": 7, "command": "status", "arguments": {"since": 1}}
    controller.send(b'{"id":7,"result":{"half":1},"error":"","last":false}\n{"id":7,"resu')
    assert stream.answers() == []
    controller.send(b'lt":{"node":"a"},"error":"","last":true}\n{"id":9,"result":{},"error":"","last":true}\n')
    assert stream.answers(block=True) == [(7, {"node": "a"}, "")]
    assert stream.answers() == []
    stream.close()
    controller.close()


def test_a_controller_that_goes_answers_with_an_error_and_its_successor_is_found(path: Path) -> None:
    controller, stream = FakeController(path), OperatorStream(path)
    stream.ask(1, "status", {})
    controller.request()
    controller.close()
    assert stream.answers(block=True) == [(1, {}, AWAY)]
    stream.ask(2, "status", {})
    assert stream.answers() == [(2, {}, AWAY)]
    controller = FakeController(path)
    stream.ask(3, "status", {})
    assert controller.request()["id"] == 3
    controller.send(b'{"id":3,"result":{},"error":"status: no","last":true}\n')
    assert stream.answers(block=True) == [(3, {}, "status: no")]
    stream.close()
    controller.close()


def test_a_connection_that_ended_between_two_requests_is_made_anew(path: Path) -> None:
    controller, stream = FakeController(path), OperatorStream(path)
    stream.ask(1, "status", {})
    controller.request()
    controller.send(b'{"id":1,"result":{},"error":"","last":true}\n')
    assert stream.answers(block=True) == [(1, {}, "")]
    controller.close()
    controller = FakeController(path)
    stream.ask(2, "status", {})
    assert controller.request()["id"] == 2
    stream.close()
    controller.close()
