"""The log of a running router: at syslog servers on Linux nodes, near and through a tunnel; and after a kill."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from chassis.xcrp.log_file import LOG_FILE
from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory
from launch.supervisor.namespaces import available
from tests.support import CONFIGS
from tests.support.chassisctl import ending
from tests.support.terminal import TerminalRig

pytestmark = pytest.mark.multiprocess

LISTEN = """\
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("", 514))
print("ready", flush=True)
while True:
    line, (address, port) = heard.recvfrom(4096)
    print(address, port, line.decode(), flush=True)
"""

NODE = """\
      kind: linux
      addresses: {{eth1: {address}}}
      routes: [default via {gateway}]
      files:
        listen.py: |
{listen}
      exec: ["python3 listen.py > heard &"]
      wait-for: ["grep -q ready heard"]
"""

LAB = """\
name: syslog
topology:
  nodes:
    a: {{kind: smartedge, config: a.cfg}}
    b: {{kind: smartedge, config: b.cfg}}
    near:
{near}
    far:
{far}
  links:
    - endpoints: ["near:eth1", "a:3/1"]
    - endpoints: ["a:3/11", "b:3/12"]
    - endpoints: ["far:eth1", "b:3/1"]
"""

FORM = re.compile(
    r"<(\d+)>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (\S+) (?:\[[0-9A-F]{4}\]: )?%[A-Z]+-(\d)-[A-Z]+: .+"
)


PLAIN = """\
name: console
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
"""


def lab_text() -> str:
    listen = "".join(f"          {line}\n" for line in LISTEN.splitlines())
    nodes = {
        name: NODE.format(address=f"{first}.1.0.9/8", gateway=f"{first}.0.0.254", listen=listen)
        for name, first in (("near", 50), ("far", 60))
    }
    return LAB.format(**nodes)


def config(router: str) -> str:
    """The configuration of a router of the lab of manual keys, with the clear side in context local."""
    text = (CONFIGS / "manual-keys" / f"{router}.cfg").read_text()
    return re.sub(r"\blan$", "local", text, flags=re.MULTILINE)


SERVER = "\ncontext local\n  logging syslog {}\n!\nsystem hostname edge\n"


@pytest.fixture
def lab(lab_factory: LabFactory) -> LabClient:
    if why := available():
        pytest.skip(f"this machine lets us make no namespaces: {why}")
    files = {"a.cfg": config("a") + SERVER.format("60.1.0.9"), "b.cfg": config("b")}
    made = lab_factory.text(lab_text(), files)
    made.wait_until("tunnels up")
    return made


def log_a_line(lab: LabClient) -> None:
    lab.ask("a", "config", {"keys": True})


def heard(lab: LabClient, node: str) -> list[str]:
    return str(lab.ask("", "exec", {"node": node, "command": "cat heard"})["output"]).splitlines()[1:]


def told(lab: LabClient, node: str) -> Callable[[], bool]:
    """Whether a node has heard of the line; another is logged with each look, because ARP may take the first."""

    def look() -> bool:
        log_a_line(lab)
        return any("printed with clear keys" in line for line in heard(lab, node))

    return look


def test_lines_come_to_a_server_through_a_tunnel_and_to_one_near_by(lab: LabClient) -> None:
    lab.wait_until(told(lab, "far"))
    for line in heard(lab, "far"):
        address, port, said = line.split(" ", 2)
        # The server is behind the tunnel: the address is that of the router's end of it.
        assert (address, port) == ("55.0.1.1", "514")
        found = FORM.fullmatch(said)
        assert found is not None, said
        priority, _, hostname, level = found.groups()
        assert (int(priority), hostname) == (23 * 8 + int(level), "edge")
    assert heard(lab, "near") == []
    lab.apply("a", config("a") + SERVER.format("50.1.0.9 facility local3") + "logging filter syslog 4\n")
    lab.wait_until(told(lab, "near"))
    (line, *_) = [line for line in heard(lab, "near") if "clear keys" in line]
    assert line.startswith("50.0.0.254 514 <156>")


def test_the_log_is_there_after_its_controller_was_killed(lab: LabClient) -> None:
    assert lab.run is not None
    path = lab.run.parents[1] / "s" / lab.run.name / "a" / LOG_FILE
    for _ in range(3):
        log_a_line(lab)
        before = numbers_and_texts(lab)
        number = before[-1][0]
        lab.wait_until(partial(holds, path, f"[{number},".encode()))
        lab.kill("a", "xcrp")
        lab.wait_until(lambda: lab.ask("a", "status", {}))
        assert numbers_and_texts(lab)[: len(before)] == before
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_come_to_the_console_as_the_configuration_says(lab_factory: LabFactory) -> None:
    text = config("a") + "context local\n  logging console\n!\nlogging filter console 4\n"
    lab = lab_factory.text(PLAIN, {"a.cfg": text})
    rig = TerminalRig(lab)
    with ending(rig.process):
        rig.until("[local]a#")
        # The console shows what comes after it has asked where the log ends.
        lab.wait_until(partial(shown_at, lab, rig))
        rig.type("exit\r")


def shown_at(lab: LabClient, rig: TerminalRig) -> bool:
    log_a_line(lab)
    rig.type("\r")
    seen = rig.until("[local]a#")
    return "%CONFIGURATION-4-WARN: the configuration was printed with clear keys\r\n" in seen


def holds(path: Path, line: bytes) -> bool:
    return path.exists() and line in path.read_bytes()


def numbers_and_texts(lab: LabClient) -> list[tuple[int, str]]:
    return [(row["number"], row["text"]) for row in lab.ask("a", "log", {})["records"]]
