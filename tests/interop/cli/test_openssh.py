"""OpenSSH's client as an operator uses it, with keys and pages in a terminal; and what a terminal gets as programs
that collect configurations read it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import collectors, ssh_lab
from tests.support.ssh_lab import OPERATOR, PASSWORD, SshLab

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

ROWS, COLUMNS = 12, 80
PROMPT = "[local]a#"
MORE = "---(more)---"


class Seat:
    """An operator at a terminal of `ROWS` and `COLUMNS` with OpenSSH's client, logged in."""

    def __init__(self, lab: SshLab, node: str = "a", user: str = OPERATOR, password: str = PASSWORD) -> None:
        import pexpect

        program, *arguments = lab.openssh(node, user=user)
        self.child: Any = pexpect.spawn(
            program, arguments, dimensions=(ROWS, COLUMNS), timeout=15, encoding="ascii"
        )
        self.child.delaybeforesend = None
        self.seen = self.child.logfile_read = io.StringIO()
        self.until("assword:")
        self.type(f"{password}\r")

    def until(self, text: str) -> str:
        """Wait for a text; return what came before it."""
        self.child.expect_exact(text)
        before: str = self.child.before
        return before

    def type(self, keys: str) -> None:
        self.child.send(keys)

    def run(self, line: str, prompt: str = PROMPT) -> str:
        """Type a line at a prompt; return echo and output, up to the next prompt."""
        self.type(f"{line}\r")
        return self.until(prompt)

    def end(self) -> int:
        """Wait for the client to end; return its status."""
        import pexpect

        self.child.expect(pexpect.EOF)
        self.child.close()
        status: int = self.child.exitstatus
        return status


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> SshLab:
    ssh_lab.need("ssh", "pexpect")
    return ssh_lab.start(shared_lab_factory, tmp_path_factory.mktemp("openssh"))


@pytest.fixture
def seat(lab: SshLab) -> Iterator[Seat]:
    made = Seat(lab)
    made.until(PROMPT)
    yield made
    made.child.close(force=True)


def test_help_tab_history_and_abbreviations(seat: Seat) -> None:
    seat.type("show tun?")
    assert seat.until(f"{PROMPT}show tun") == "show tun?\r\n  tunnel                tunnels\r\n"
    seat.type("\t")
    seat.until("nel ")
    seat.type("| inc\t")
    seat.until("lude ")
    seat.type("Up\r")
    assert re.fullmatch(r"Up\r\nt0 +manual +9\.9\.1\.1 +9\.9\.2\.1 +1/1 +\d+ +Up\r\n", seat.until(PROMPT))
    assert "\r\nRedback Networks SmartEdge OS Version SEOS-" in seat.run("sh ver")
    assert '\r\n% Ambiguous command:  "sh i"\r\n' in seat.run("sh i")
    # Two lines back, one forward, and the arrow key back again.
    seat.type("\x10\x10")
    seat.until("sh ver")
    seat.type("\x0e")
    seat.until("sh i")
    seat.type("\x1b[A\r")
    assert "SEOS-" in seat.until(PROMPT)
    # The line is edited: to its start, a word, to its end, the last word away.
    seat.type("clock now\x01show \x05\x17\r")
    assert " UTC\r\n" in seat.until(PROMPT)


def test_the_caret_stands_under_the_wrong_word_and_control_keys_give_up(seat: Seat) -> None:
    said = seat.run("show  tunnel here").split("\r\n")
    assert said[1:] == [f"{' ' * (len(PROMPT) + len('show  tunnel '))}^", "% Invalid input at '^' marker", ""]
    assert "% Incomplete command: show\r\n" in seat.run("show")
    seat.type("show clock\x03")
    assert seat.until(PROMPT) == "show clock^C\r\n"
    seat.type("\x1a")
    assert seat.until(PROMPT).strip() in ("", "^Z")
    seat.type("exit\r")
    assert seat.end() == 0


def test_configuration_mode_at_the_terminal(seat: Seat) -> None:
    assert "'end' to exit" in seat.run("conf", "[local]a(config)#")
    seat.run("cont lan", "[local]a(config-ctx)#")
    seat.type("interf?")
    assert "\r\n  interface " in seat.until("[local]a(config-ctx)#interf")
    seat.type("\t")
    seat.until("ace ")
    seat.run("made", "[local]a(config-if)#")
    indent = " " * len("[local]a(config-if)#ip address ")
    assert f"\r\n{indent}^\r\n% Invalid input at '^' marker\r\n" in seat.run("ip address 10.0.0", "(config-if)#")
    seat.run("ip addr 10.77.0.1/24", "(config-if)#")
    seat.type("description for nobody\x03")
    seat.until("(config-if)#")
    seat.type("\x1a")
    assert "Transaction committed\r\n" in seat.until(PROMPT)
    seat.run("context lan", "[lan]a#")
    assert "10.77.0.1/24" in seat.run("show ip interface made", "[lan]a#")
    seat.run("context local")
    left_out = "show configuration | grep description"
    assert seat.run(left_out) == f"{left_out}\r\n"


def test_pages_are_as_long_as_the_terminal_also_after_a_change_of_its_size(seat: Seat) -> None:
    # Password hashes take more columns than the terminal has.
    shown = "show configuration | exclude encrypted"
    seat.type(f"{shown}\r")
    seat.until(f"{shown}\r\n")
    first = seat.until(MORE)
    assert collectors.NETSHOT_PAGER.search("\n".join(collectors.lines_of(first + MORE)))
    assert first.startswith("Building configuration...\r\n")
    assert first.count("\r\n") == ROWS - 1
    seat.type(" ")
    assert seat.until(MORE).count("\r\n") == ROWS - 1
    seat.type("\r")
    line = seat.until(MORE)
    assert line.count("\r\n") == 1
    seat.type("q")
    assert seat.until(PROMPT).strip() == ""

    seat.child.setwinsize(30, 100)
    seat.type(f"{shown}\r")
    seat.until(f"{shown}\r\n")
    assert seat.until(MORE).count("\r\n") == 29
    seat.type("q")
    seat.until(PROMPT)
    # A line goes on in the next row of the terminal, and is taken back from there.
    seat.type(f"show {'x' * 100}\x15show clock\r")
    assert " UTC\r\n" in seat.until(PROMPT)

    seat.run("terminal length 0")
    assert seat.run("show configuration").endswith("\r\nend\r\n")


def test_oxidized_and_rancid_read_what_a_terminal_gets(seat: Seat) -> None:
    seat.run("terminal length 0")
    kept = collectors.oxidized({command: seat.run(command) + PROMPT for command in collectors.OXIDIZED_COMMANDS})
    assert kept.endswith("\nend\n")
    assert "\ntunnel ipsec t0 manual\n" in kept

    seat.seen.seek(0)
    seat.seen.truncate()
    for command in collectors.RANCID_COMMANDS:
        seat.run(command)
    seat.type("exit\r")
    assert seat.end() == 0
    run = collectors.rancid(f"{PROMPT}{seat.seen.getvalue()}")
    assert run.missed == []
    assert run.complete
    assert run.kept["show config"][-1] == "end"
    assert run.kept["dir /flash"]


def test_netshot_reads_what_a_terminal_without_privileges_gets(lab: SshLab) -> None:
    prompt = "[local]a>"
    reader = Seat(lab, user=ssh_lab.READER, password=ssh_lab.READER_PASSWORD)
    assert collectors.NETSHOT_PROMPT.fullmatch(prompt)
    reader.until(prompt)
    reader.run("terminal length 0", prompt)
    answers = {
        command: reader.run(command, prompt).removeprefix(f"{command}\r\n")
        for command in collectors.NETSHOT_COMMANDS
    }
    reader.child.close(force=True)
    device = collectors.netshot(answers)
    assert device.family == "SE1200"
    assert {port: on for port, (on, _) in device.ports.items()} == {"3/1": True, "3/2": True}
    assert device.interfaces["wan peer"] == [("172.16.0.1", 24)]
    assert ("3", "ge-10-port") in {(slot, kind) for slot, kind, _ in device.modules}
