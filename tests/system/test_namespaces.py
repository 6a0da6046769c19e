"""Linux nodes: made, joined to ports, set up, and gone with whoever holds them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chassis.ports.ring import PacketRing, rings_of
from launch.lab.model import Endpoint
from launch.lab.parser import load
from launch.supervisor import start
from launch.supervisor.namespaces import NamespaceError, RootNamespace, available, unconfined
from tests.support.processes import DEADLINE, eventually, lives

pytestmark = pytest.mark.multiprocess

LAB = """\
name: n
topology:
  nodes:
    h:
      kind: linux
      addresses: {eth1: 10.0.0.2/24, lo: 10.7.7.7/32}
      routes: [default via 10.0.0.1, 10.5.0.0/16 via 10.0.0.1 metric 7]
      files: {note.txt: "kept here", /run/mark: "of its own", /etc/hostname: "h.lab"}
      exec: ["echo $(cat note.txt) >> done", "sleep 1000 &"]
      wait-for: ["test -s done"]
    g: {kind: linux, addresses: {eth1: 10.0.0.1/24, eth2: 10.9.0.1/24}}
    t: {kind: tester, ports: {"1": {address: 10.9.0.2/24}}}
  links:
    - endpoints: ["h:eth1", "g:eth1"]
    - endpoints: ["g:eth2", "t:1"]
"""


@pytest.fixture(autouse=True)
def namespaces() -> None:
    why = available()
    if why:
        pytest.skip(f"this machine lets us make no namespaces: {why}")


class Nodes:
    """The launcher's side of a lab's Linux nodes."""

    def __init__(self, folder: Path, text: str = LAB) -> None:
        file = folder / "lab.yaml"
        file.write_text(text)
        self.lab, _ = load(file)
        self.ground = RootNamespace(self.lab, folder)
        self._answers = self.ground.channel.makefile("r")

    def say(self, **message: Any) -> None:
        self.ground.channel.sendall(json.dumps(message).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def run(self, node: str, command: str | list[str]) -> str:
        self.say(what="exec", node=node, number=1, command=command)
        answer = self.answer()
        assert answer["code"] == 0, answer
        output: str = answer["output"]
        return output


@pytest.fixture
def nodes(short_folder: Path) -> Iterator[Nodes]:
    made = Nodes(short_folder)
    yield made
    made.ground.close()


def test_nodes_are_set_up_and_reach_each_other(nodes: Nodes) -> None:
    nodes.say(what="go")
    assert {nodes.answer()["node"], nodes.answer()["node"]} == {"g", "h"}
    assert nodes.run("h", "ping -c 1 -W 5 10.0.0.1 > out; cat done") == "kept here\n"
    routes = nodes.run("h", "ip -4 route").splitlines()
    assert any(line.startswith("default via 10.0.0.1 dev eth1") for line in routes)
    assert any(line.startswith("10.5.0.0/16 via 10.0.0.1") and "metric 7" in line for line in routes)
    assert "10.7.7.7" in nodes.run("h", "ip -4 address show lo")


def test_files_and_processes_are_the_nodes_own(nodes: Nodes) -> None:
    assert nodes.run("h", "cat /run/mark /etc/hostname") == "of its ownh.lab"
    assert not Path("/run/mark").exists()
    assert nodes.run("g", "ls /run; cat /etc/hostname") != "h.lab"
    names = nodes.run("h", "cat /proc/[0-9]*/comm")
    assert len(names.splitlines()) < 10


def test_a_program_gets_its_arguments_as_they_are(nodes: Nodes) -> None:
    assert nodes.run("h", ["sh", "-c", "echo one; echo two"]) == "one\ntwo\n"
    assert nodes.run("h", ["printf", "%s.", "a b", "", "$HOME", "*", "it's"]) == "a b..$HOME.*.it's."
    nodes.say(what="exec", node="h", number=1, command=["no-such-program", "x"])
    answer = nodes.answer()
    assert (answer["code"], answer["output"]) == (127, "no-such-program: No such file or directory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="for root only is it a difference")
def test_root_has_no_capabilities_outside_of_the_nodes(nodes: Nodes) -> None:
    if why := unconfined():
        pytest.skip(f"this machine lets root make no user namespace: {why}")
    assert nodes.run("h", "readlink /proc/self/ns/user").strip() != os.readlink("/proc/self/ns/user")
    assert nodes.run("h", "mknod null c 1 3 2>&1 || true").strip().endswith("Operation not permitted")
    assert nodes.run("h", "cat /proc/self/uid_map").split()[:3] == ["0", "0", "1"]
    # The launcher is still the machine's root, and its sockets' buffers are larger than a user's.
    with socket.socket(fileno=os.dup(nodes.ground.sockets[Endpoint("t", "1")])) as raw:
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 16 << 20
    if shutil.which("setpriv"):
        assert nodes.run("h", "setpriv --reuid 1000 --regid 1000 --clear-groups id -u") == "1000\n"


def test_a_lab_whose_commands_are_root_of_the_machine_says_so(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_folder / "lab.yaml").write_text(LAB)
    told: list[str] = []
    for why, notes in (("Operation not permitted", 1), ("", 0)):
        monkeypatch.setattr(start, "unconfined", lambda why=why: why, raising=False)
        told.clear()
        start.prepare(short_folder / "lab.yaml", None, False, told.append)
        assert len(told) == notes
        assert all("run with all capabilities of root" in note and why in note for note in told)


def test_what_goes_wrong_in_a_node_is_said(short_folder: Path) -> None:
    bad = LAB.replace('"echo $(cat note.txt) >> done"', '"echo so not; exit 3"')
    made = Nodes(short_folder, bad)
    try:
        made.say(what="go")
        errors = {answer["node"]: answer["error"] for answer in (made.answer(), made.answer())}
    finally:
        made.ground.close()
    assert errors == {"g": "", "h": "exec 'echo so not; exit 3' ended with 3: so not"}


@pytest.mark.parametrize(("old", "new", "said"), [
    ("default via 10.0.0.1", "default over 10.0.0.1", "node h: route 'default over 10.0.0.1' is not valid"),
    ("{eth1: 10.0.0.2/24", "{eth4: 10.0.0.2/24", "node h: device eth4 has no link; linked devices: eth1"),
    ("/etc/hostname", "/etc/no/such", "node h: file /etc/no/such: does not exist on the machine"),
])  # fmt: skip
def test_a_node_that_cannot_be_made_is_refused(short_folder: Path, old: str, new: str, said: str) -> None:
    assert old in LAB
    with pytest.raises(NamespaceError, match=said):
        Nodes(short_folder, LAB.replace(old, new))


def frames_of(raw: socket.socket, ring: PacketRing) -> Iterator[bytes]:
    """The frames that come to a socket with rings, for as long as it takes."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        select.select([raw], [], [], 0.1)
        body, lengths = ring.receive()
        at = 0
        for length in lengths:
            yield bytes(body[at : at + length])
            at += length


def test_a_ports_socket_sees_and_sends_whole_frames(nodes: Nodes) -> None:
    raw = socket.socket(fileno=os.dup(nodes.ground.sockets[Endpoint("t", "1")]))
    with raw:
        ring = rings_of(raw)
        assert ring is not None
        frames = frames_of(raw, ring)
        nodes.say(what="exec", node="g", number=1, command="ping -c 1 -W 1 10.9.0.2")
        frame = next(frame for frame in frames if frame[12:14] == b"\x08\x06")
        assert frame[28:32] == socket.inet_aton("10.9.0.1")
        assert frame[38:42] == socket.inet_aton("10.9.0.2")
        assert nodes.answer()["code"] == 1
        mac = b"\x02\0\0\0\0\x09"
        reply = frame[6:12] + mac + frame[12:20] + b"\0\x02" + mac + frame[38:42] + frame[6:12] + frame[28:32]
        assert ring.send([memoryview(reply)]) == 1
        eventually(lambda: "02:00:00:00:00:09" in nodes.run("g", "ip neigh"), "the reply was taken")
        # The kernel leaves checksums to hardware that is not there, unless it is told not to.
        nodes.run("g", "echo hello > /dev/udp/10.9.0.2/9 || bash -c 'echo hello > /dev/udp/10.9.0.2/9'")
        while frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
            frame = next(frames)
        ring.close()
        assert _udp_sum(frame[14:]) == 0xFFFF


def _udp_sum(packet: bytes) -> int:
    """The ones' complement sum of a datagram with its pseudo header: all ones where its checksum is right."""
    udp = packet[20 : int.from_bytes(packet[2:4], "big")]
    data = packet[12:20] + b"\0\x11" + len(udp).to_bytes(2, "big") + udp + b"\0" * (len(udp) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    return (total & 0xFFFF) + (total >> 16)


def test_closing_ends_every_process(short_folder: Path) -> None:
    nodes = Nodes(short_folder)
    nodes.say(what="go")
    nodes.answer()
    nodes.answer()
    pids = [nodes.ground.child.pid, *nodes.ground.pids.values()]
    assert all(lives(pid) for pid in pids)
    nodes.ground.close()
    assert not [pid for pid in pids if lives(pid)]


def test_a_killed_launcher_takes_its_nodes_with_it(short_folder: Path) -> None:
    (short_folder / "lab.yaml").write_text(LAB)
    program = (
        "import sys, signal; from pathlib import Path; from launch.lab.parser import load\n"
        "from launch.supervisor.namespaces import RootNamespace\n"
        "folder = Path(sys.argv[1]); ground = RootNamespace(load(folder / 'lab.yaml')[0], folder)\n"
        'ground.channel.sendall(b\'{"what": "go"}\\n\'); ground.channel.makefile().readline()\n'
        "print(ground.child.pid, *ground.pids.values(), flush=True); signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, short_folder], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        assert select.select([launcher.stdout], [], [], DEADLINE)[0]
        pids = [int(word) for word in launcher.stdout.readline().split()]
        assert len(pids) == 3
        launcher.send_signal(signal.SIGKILL)
    eventually(lambda: not [pid for pid in pids if lives(pid)], "every process of the nodes has ended")
