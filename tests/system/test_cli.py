"""`chassisctl cli` and `console` at the routers of a running lab: one command, and a session in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.chassisctl import chassisctl, ending
from tests.support.lab_files import CALM, MANUAL_KEYS
from tests.support.terminal import TerminalRig

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

pytestmark = pytest.mark.multiprocess


def run(lab: LabClient, command: str) -> tuple[str, int]:
    process = chassisctl(lab, "cli", "a", "-c", command, **PIPES)
    output, told = process.communicate(timeout=60)
    assert told == ""
    return output, process.returncode


def test_one_command_and_a_session_see_the_tunnels(lab_factory: LabFactory) -> None:
    lab = lab_factory(MANUAL_KEYS, flows=CALM)
    lab.wait_until("tunnels of a up", within=60)

    said, status = run(lab, "show tunnel")
    assert status == 0
    assert re.search(r"^circuit +manual +30\.0\.0\.1 +20\.0\.0\.1 +1/1 +\d+ +Up$", said, re.MULTILINE)
    assert re.search(r"^economical +manual +30\.0\.0\.2 +20\.0\.0\.2 +1/2 +- +Up$", said, re.MULTILINE)
    assert said.endswith("\nTunnels: 2, up: 2, down: 0\n")
    assert run(lab, "show foo") == ("     ^\n% Invalid input at '^' marker\n", 1)
    assert run(lab, "show tunnel ipsec none statistics")[1] == 1
    assert "Way  Packets" in run(lab, "show tunnel ipsec circuit statistics detail")[0]
    assert "3/11" in run(lab, "show arp-cache all-context")[0]

    rig = TerminalRig(lab)
    with ending(rig.process):
        rig.until("[local]a#")
        rig.type("terminal length 0\r")
        rig.until("[local]a#")
        rig.type("context wan\rping 40.0.0.2\r")
        assert "\r\n!!!!!\r\n" in rig.until("0.0% packet loss\r\n")
        rig.type("context local\r")
        rig.until("[local]a#")
        # The session outlives the controller.
        rig.type("show clock\r")
        assert " UTC\r\n" in rig.until("[local]a#")
        lab.kill("a", "xcrp")
        lab.wait_until("cards of a up", within=60)
        rig.type("show tunnel ipsec name circuit | json\r")
        assert '"name": "circuit"' in rig.until("[local]a#")
        # A candidate that was begun before the controller died is committed to its successor.
        rig.type("configure\r")
        rig.until("[local]a(config)#")
        rig.type("tunnel ipsec circuit\rmtu 1300\r")
        rig.until("mtu 1300\r\n[local]a(config-tunnel)#")
        lab.kill("a", "xcrp")
        lab.wait_until("cards of a up", within=60)
        rig.type("end\r")
        assert "Transaction committed" in rig.until("[local]a#")
        rig.type("show configuration tunnel | include mtu\r")
        assert "\r\n mtu 1300\r\n" in rig.until("[local]a#")
        rig.type("exit\r")
        rig.process.wait(timeout=60)
    os.close(rig.screen)
    assert rig.process.returncode == 0

    keys = re.findall(r"key 0x([0-9a-f]+)", MANUAL_KEYS.with_name("a.cfg").read_text())
    said, _ = run(lab, "show configuration")
    assert keys
    assert not [key for key in keys if key in said]
