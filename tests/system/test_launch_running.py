"""`chassis-launch` as a person uses it, with the real processes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.bus.operator import OperatorClient, OperatorError
from launch.supervisor.namespaces import available
from tests.support.lab_files import calm
from tests.support.processes import DEADLINE, eventually, lives

pytestmark = pytest.mark.multiprocess

ROUTER = """\
context c
  interface left
    ip address 10.0.0.1/24
  interface right
    ip address 10.9.0.1/24
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface left c
port ethernet 3/2
  no shutdown
  bind interface right c
"""

LAB = """\
name: linux
settings: {restart-delay: 0}
topology:
  nodes:
    r: {kind: smartedge, config: r.cfg}
    h:
      kind: linux
      addresses: {eth1: 10.0.0.2/24}
      routes: [default via 10.0.0.1]
      wait-for: [ping -c 1 -W 0.3 10.9.0.2]
    g: {kind: linux, addresses: {eth1: 10.9.0.2/24}, routes: [default via 10.9.0.1]}
  links:
    - endpoints: ["h:eth1", "r:3/1"]
    - endpoints: ["r:3/2", "g:eth1"]
"""


class Programs:
    """Runs the two programs in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "CHASSIS_RUN": str(folder / "r"), "CHASSIS_STATE": str(folder / "s")}

    def command(self, module: str, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-c", f"from {module} import main; main()", *map(str, arguments)]

    def __call__(self, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(module, *arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, *self.command("launch.main", *arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def programs(short_folder: Path) -> Iterator[Programs]:
    made = Programs(short_folder)
    yield made
    made("launch.main", "destroy", "--all")


def test_one_status_when_the_flows_run(programs: Programs) -> None:
    done = programs("launch.main", calm(programs.folder), "--once")
    assert done.returncode == 0, done.stderr
    assert "sequence numbers of manual keys begin at 1" in done.stderr
    assert done.stdout.count("usable") >= 6
    assert done.stdout.count(" up ") >= 4
    assert done.stdout.count("running") >= 8
    assert not list((programs.folder / "r").iterdir())


def test_ctrl_c_ends_a_lab_in_the_foreground(programs: Programs) -> None:
    with programs.start(calm(programs.folder)) as launcher:
        assert launcher.stderr is not None
        lines = [launcher.stderr.readline(), launcher.stderr.readline()]
        assert lines[1] == "lab manual-keys is up; Ctrl-C ends it, chassisctl looks at it\n"
        facts = json.loads((programs.folder / "r" / "manual-keys" / "lab.json").read_text())
        pids = [card["pid"] for node in facts["nodes"].values() for card in node["cards"].values()]
        assert len(pids) == 12
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(DEADLINE) == 0
    assert not [pid for pid in pids if lives(pid)]
    assert not (programs.folder / "r" / "manual-keys").exists()


def test_a_detached_lab_is_listed_acted_on_and_destroyed(programs: Programs) -> None:
    up = programs("launch.main", calm(programs.folder), "--detach", "--name", "mine")
    assert (up.returncode, up.stdout.splitlines()[0]) == (0, "lab mine is up"), up.stderr
    ports = re.findall(r"^  [ab]: SSH at 127\.0\.0\.1 port (\d+): ssh -F \S+/ssh_config [ab]\b", up.stdout, re.M)
    assert len(ports) == 2
    again = programs("launch.main", calm(programs.folder), "--detach", "--name", "mine")
    assert again.returncode == 1
    assert "a lab 'mine' already runs" in again.stderr
    assert programs("launch.main", "list").stdout.startswith("mine ")
    killed = programs("launch.ctl.main", "kill", "a", "asp", "1/1", "--json")
    assert json.loads(killed.stdout)["boot"] == 1
    with OperatorClient(programs.folder / "r" / "mine" / "launcher.sock") as client:

        def back() -> bool:
            cards = client.call("status")["nodes"]["a"]["status"].get("cards", [])
            return any(card["card"] == "asp 1/1" and card["boot"] == 2 and card["usable"] for card in cards)

        eventually(back, "the ASP is back")
        launcher = client.call("ps")["launcher"]

    def pinged() -> bool:
        ping = programs("launch.ctl.main", "ping", "a", "60.1.0.1", "--context", "lan", "--count", "1")
        return "1 packets transmitted, 1 packets received" in ping.stdout

    # The controller says that the ASP is usable when others may not have connected to it yet.
    eventually(pinged, "a ping goes through it")
    # Heartbeats are work enough for every process of the node to be measured.
    measured = json.loads(programs("launch.ctl.main", "perf", "a", "--seconds", "0.3", "--json").stdout)
    cards = {row["card"]: row for row in measured["processes"]}
    assert {"xcrp", "lc 3", "asp 1/1", "asp 1/1 ike", "asp 1/2"} <= cards.keys()
    assert cards["asp 1/1"]["main"] > 0
    assert {row["node"] for row in measured["processes"]} == {"a"}
    assert programs("launch.main", "destroy").stdout == "mine: ended\n"
    assert not lives(launcher)
    assert not (programs.folder / "s" / "mine").exists()


LEADER = """\
import fcntl, signal, subprocess, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
subprocess.run(sys.argv[1:], check=True)
sys.stdin.readline()
"""
"""What a terminal's shell does: it leads its session, runs a command, and waits for the next. A hangup ends it,
also where whoever began all this ignores hangups."""

NOHUP = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
"""What `nohup` does to a command."""

DEFAULT = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)
BY_ITSELF = (sys.executable, "-c", DEFAULT)
"""A command that hangups end, also where whoever began all this ignores them: no shell can undo that."""


def test_a_detached_lab_outlives_its_terminal_and_shares_the_cores_as_its_session_does(programs: Programs) -> None:
    ours, theirs = os.openpty()
    command = [
        *NOHUP,
        sys.executable,
        "-c",
        LEADER,
        *programs.command("launch.main", calm(programs.folder), "--detach"),
    ]
    with subprocess.Popen(
        command, env=programs.environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as shell:
        os.close(theirs)
        shown = b""
        while b"lab manual-keys is up" not in shown:
            assert select.select([ours], [], [], DEADLINE)[0], shown
            shown += os.read(ours, 1 << 12)
        launcher = json.loads(programs("launch.main", "list", "--json").stdout)[0]["launcher"]
        assert os.getsid(launcher) == shell.pid != os.getpgid(launcher)
        # The terminal is gone.
        os.close(ours)
        assert shell.wait(DEADLINE) == -signal.SIGHUP
    killed = programs("launch.ctl.main", "kill", "a", "asp", "1/1", "--json")
    assert json.loads(killed.stdout)["boot"] == 1, killed.stderr
    assert lives(launcher)
    assert programs("launch.main", "destroy").stdout == "manual-keys: ended\n"


TESTERS = """\
name: two
topology:
  nodes:
    t1: {kind: tester, ports: {"1": {address: 10.1.0.1/24}}}
    t2: {kind: tester, ports: {"1": {address: 10.1.0.2/24}}}
  links: [{endpoints: ["t1:1", "t2:1"]}]
"""


@pytest.mark.parametrize(("prefix", "ends"), [(BY_ITSELF, True), (NOHUP, False)], ids=["by itself", "nohup"])
def test_a_hangup_ends_a_lab_in_the_foreground_but_not_under_nohup(
    programs: Programs, prefix: tuple[str, ...], ends: bool
) -> None:
    lab = programs.folder / "lab.yaml"
    lab.write_text(TESTERS)
    with programs.start(lab, prefix=prefix) as launcher:
        assert launcher.stderr is not None
        assert launcher.stderr.readline() == "lab two is up; Ctrl-C ends it, chassisctl looks at it\n"
        try:
            launcher.send_signal(signal.SIGHUP)
            if not ends:
                with OperatorClient(programs.folder / "r" / "two" / "launcher.sock") as client:
                    # A signal is taken before the next request is.
                    try:
                        answers = [len(client.call("ps")["processes"]) for _ in range(5)]
                    except OperatorError as error:
                        pytest.fail(f"the hangup ended it: {error}")
                assert answers == [2] * 5
                assert launcher.poll() is None
                launcher.send_signal(signal.SIGTERM)
            assert launcher.wait(DEADLINE) == 0
        finally:
            # What does not end would be waited for without end.
            launcher.kill()
    assert not (programs.folder / "r" / "two").exists()


def test_linux_nodes_on_a_router_and_a_card_that_dies_takes_its_sockets_up_again(programs: Programs) -> None:
    if why := available():
        pytest.skip(f"this machine lets us make no namespaces: {why}")
    lab = programs.folder / "lab.yaml"
    lab.write_text(LAB)
    (programs.folder / "r.cfg").write_text(ROUTER)
    up = programs("launch.main", lab, "--detach")
    assert (up.returncode, up.stdout.splitlines()[0]) == (0, "lab linux is up"), up.stderr
    said = programs("launch.ctl.main", "exec", "h", "ping", "-c", "1", "-t", "1", "10.9.0.2")
    assert "From 10.0.0.1 icmp_seq=1 Time to live exceeded" in said.stdout
    assert programs("launch.ctl.main", "exec", "h", "sh", "-c", "echo one; echo two").stdout == "one\ntwo\n"
    assert programs("launch.ctl.main", "exec", "h", "echo one; echo 'two  three'").stdout == "one\ntwo  three\n"
    programs("launch.ctl.main", "kill", "r", "lc", "3")
    with OperatorClient(programs.folder / "r" / "linux" / "launcher.sock") as client:

        def reached() -> bool:
            try:
                return client.call("exec", node="h", command="ping -c 1 -W 0.3 10.9.0.2")["code"] == 0
            except OperatorError:
                return False

        eventually(reached, "the new line card forwards")
    assert programs("launch.main", "destroy").stdout == "linux: ended\n"


def test_faults_of_a_link_to_a_linux_node_hold_both_ways_or_one_way_from_either_end(programs: Programs) -> None:
    if why := available():
        pytest.skip(f"this machine lets us make no namespaces: {why}")
    lab = programs.folder / "lab.yaml"
    lab.write_text(LAB)
    (programs.folder / "r.cfg").write_text(ROUTER)
    up = programs("launch.main", lab, "--detach")
    assert up.returncode == 0, up.stderr

    def link(*words: str) -> str:
        done = programs("launch.ctl.main", "link", *words)
        return done.stdout or done.stderr

    def run(node: str, command: str) -> str:
        with OperatorClient(programs.folder / "r" / "linux" / "launcher.sock") as client:
            return str(client.call("exec", node=node, command=command)["output"])

    def ping(patience: float = 5) -> tuple[bool, int]:
        """Whether all answers came, and how many requests the far node got; ARP comes when it likes."""
        before = echoes()
        said = run("h", f"ping -c 2 -i 0.1 -W {patience} 10.9.0.2")
        return " 0% packet loss" in said, echoes() - before

    def echoes() -> int:
        names, values = (line.split() for line in run("g", "cat /proc/net/snmp").splitlines() if "Icmp:" in line)
        return int(dict(zip(names, values, strict=True))["InEchos"])

    assert ping()[0]
    assert link("r:3/2", "--loss", "100%") == "r:3/2: loss 1.0\ng:eth1: loss 1.0\n"
    assert ping(0.3) == (False, 0)
    assert link("g:eth1", "--clear") == "g:eth1: no faults\nr:3/2: no faults\n"
    assert ping()[0]
    assert link("g:eth1", "--one-way", "--loss", "100%") == "g:eth1: loss 1.0\n"
    assert ping(0.3) == (False, 2)
    assert link("g:eth1", "--one-way", "--clear") == "g:eth1: no faults\n"
    assert link("h:eth1", "--down") == "h:eth1: down True\nr:3/1: down True\n"
    assert ping(0.3) == (False, 0)
    assert link("h:eth1", "--up") == "h:eth1: no faults\nr:3/1: no faults\n"
    eventually(lambda: ping(0.3)[0], "the link is up again")
    assert programs("launch.main", "destroy").stdout == "linux: ended\n"


def test_a_linux_node_that_fails_says_why_beside_a_router_that_is_asked_meanwhile(programs: Programs) -> None:
    if why := available():
        pytest.skip(f"this machine lets us make no namespaces: {why}")
    lab = programs.folder / "lab.yaml"
    lab.write_text(LAB.replace("wait-for: [ping -c 1 -W 0.3 10.9.0.2]", "exec: [echo no luck; false]"))
    (programs.folder / "r.cfg").write_text(ROUTER)
    done = programs("launch.main", lab, "--detach")
    assert done.returncode == 1
    assert "h: exec 'echo no luck; false' ended with 1: no luck" in done.stderr
    eventually(lambda: programs("launch.main", "list").stdout == "no lab runs\n", "it is ended")


def test_a_file_edited_after_the_last_run_is_said_not_to_be_in_force(programs: Programs) -> None:
    file = programs.folder / "r.cfg"
    file.write_text(ROUTER)
    up = programs("launch.main", file, "--detach")
    assert (up.returncode, "not in force" in up.stderr) == (0, False), up.stderr
    assert programs("launch.main", "destroy", "r", "--keep-state").returncode == 0
    file.write_text(ROUTER.replace("10.9.0.1", "10.9.0.3"))
    up = programs("launch.main", file, "--detach")
    assert f"note: r: {file} is not in force: commit 1 of {file} is" in up.stderr
    assert "+ ip address 10.9.0.3/24" in up.stderr
    status = programs("launch.ctl.main", "status", "--once").stdout
    assert f"{file} is not in force" in status
    assert "+ ip address 10.9.0.3/24" in status
    command = f"chassisctl apply r {file}"
    assert command in status
    programs("launch.ctl.main", *command.split()[1:])
    assert "not in force" not in programs("launch.ctl.main", "status", "--once").stdout
    assert programs("launch.main", "destroy").returncode == 0


def test_a_lab_ends_with_the_process_that_it_is_tied_to(programs: Programs) -> None:
    with subprocess.Popen(["sleep", "100"]) as owner:
        up = programs("launch.main", calm(programs.folder), "--detach", "--with-pid", str(owner.pid))
        assert up.returncode == 0, up.stderr
        launcher = json.loads(programs("launch.main", "list", "--json").stdout)[0]["launcher"]
        watched = os.pidfd_open(launcher)
        owner.kill()
    assert select.select([watched], [], [], DEADLINE)[0]
    os.close(watched)
    assert not (programs.folder / "r" / "manual-keys").exists()
