"""Real processes under odd requests, too many connections and messages that are none: none of them ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest
import zmq

from chassis.bus import codec, endpoints
from chassis.bus.messages import Hello
from chassis.bus.requests import CONTROLLER, LAUNCHER, TESTER
from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory
from launch.run_folders import LAUNCHER_SOCKET
from tests.support import CONFIGS, odd

pytestmark = pytest.mark.multiprocess

CONFIGS = CONFIGS / "manual-keys"
LAB = """
name: odd
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    t1: {kind: tester, ports: {"1": {address: 50.0.0.1/8, gateway: 50.0.0.254}}}
  links:
    - endpoints: ["t1:1", "a:3/1"]
flows:
  f: {from: "t1:1", to: "t1:1", start: manual}
"""
ACTS = {
    *("kill", "stop", "continue", "restart", "destroy", "apply", "capture", "start", "define"),
    *("reload", "reload-card", "reload-asp", "commit", "rollback"),
}
"""Requests that change the lab, or write files, where they are right."""

VALUES = tuple(value for value in odd.ODD if value is not odd.DEEP)
LINES = (
    b"[" * 100_000, b"{" * 5000, b"9" * 5000, b"\xff\xfe", b"\0", b"null", b'""', b'{"id":[],"command":"status"}',
)  # fmt: skip
"""Lines that are no requests."""


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory) -> LabClient:
    return shared_lab_factory.text(LAB, {"a.cfg": (CONFIGS / "a.cfg").read_text()})


def socket_of(lab: LabClient, who: str) -> Path:
    return lab.run / LAUNCHER_SOCKET if who == "" else endpoints.operator(lab.run, who)


def processes(lab: LabClient) -> list[tuple[str, str, int, int]]:
    rows = lab.ask("", "ps", {})["processes"]
    return sorted((row["node"], row["card"], row["pid"], row["boot"]) for row in rows)


@pytest.fixture
def unharmed(lab: LabClient) -> Iterator[None]:
    """The same processes run afterwards, and none has written a traceback."""
    before = processes(lab)
    yield
    assert processes(lab) == before
    assert lab.ask("a", "status", {})["cards"]
    for log in lab.run.glob("*.log"):
        assert "Traceback" not in log.read_text(errors="replace"), log


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("who", "table"), [("", LAUNCHER), ("a", CONTROLLER), ("t1", TESTER)])
def test_odd_requests(lab: LabClient, who: str, table: dict[str, object]) -> None:
    harmless = {name: spec for name, spec in table.items() if name not in ACTS}
    asked = [*odd.requests(harmless, 300, 7, VALUES)]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20.0)
        client.connect(str(socket_of(lab, who)))
        answers = client.makefile("rb")
        for number, (name, arguments) in enumerate(asked):
            line = json.dumps({"id": number, "command": name, "arguments": arguments}).encode()
            # The last one is answered in any case, whatever the one before it waits for.
            client.sendall(line + b"\n" + LINES[number % len(LINES)] + b'\n{"id":"x","command":"nothing"}\n')
            while (answer := json.loads(odd.survived(answers.readline, about=name)))["id"] != "x":
                assert "internal error" not in answer["error"], (name, arguments)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("who", ["", "a", "t1"])
def test_more_connections_than_a_process_takes(lab: LabClient, who: str) -> None:
    command = "ps" if who == "" else "status"
    with ExitStack() as stack:
        for _ in range(400):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(5.0)
            with suppress(BlockingIOError, TimeoutError):
                client.connect(str(socket_of(lab, who)))
                client.sendall(b'{"id":1,"command":"bus"')
        assert odd.survived(lab.ask, who, command, {})


@pytest.mark.usefixtures("unharmed")
def test_messages_that_are_none(lab: LabClient) -> None:
    random = Random(3)
    whole = codec.encode(Hello(1, "lc 99", "linecard", 1, 1, 0, 0))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 1000)
        peer.connect(endpoints.control(lab.run, "a"))
        for _ in range(500):
            data = bytearray(whole)
            for _ in range(random.choice((1, 2, 20))):
                data[random.randrange(len(data))] = random.randrange(256)
            peer.send(bytes(data[: random.choice((len(data), random.randrange(len(data) + 1)))]))
        lab.wait_until(
            lambda: any("undecodable message" in row["text"] for row in lab.ask("a", "log", {})["records"])
        )
    finally:
        context.destroy(linger=1000)
