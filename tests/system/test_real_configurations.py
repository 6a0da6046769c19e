"""Configurations of real routers, and one with an error, as running routers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import REAL

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

REAL = REAL

LAB = """\
name: real
topology:
  nodes:
    gateway: {{kind: smartedge, config: {real}/05-ipsec-gateway.cfg}}
    wrong: {{kind: smartedge, config: wrong.cfg}}
  links:
    - endpoints: ["gateway:3/1", "wrong:3/1"]
"""

WRONG = """\
Current configuration:
card ge-10-port 3
context local
 interface users
  ip address 10.21.7.7/16
  ip address nonsense
 router ospf 1
  area 0.0.0.0
 ip route 10.20.0.0/16 10.21.0.1
port ethernet 3/1
 no shutdown
 bind interface users local
"""


def test_they_boot_and_forward_and_a_new_controller_takes_them_the_same_way(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    (tmp_path / "wrong.cfg").write_text(WRONG)
    file = tmp_path / "lab.yaml"
    file.write_text(LAB.format(real=REAL))
    lab = lab_factory(file)
    gateway, wrong = lab.node("gateway"), lab.node("wrong")
    lab.wait_until(lambda: all(card["usable"] for card in gateway.status()["cards"] + wrong.status()["cards"]))
    assert gateway.status()["diagnostics"]["error"] == 0
    for start in (1, 2):
        status = wrong.status()
        assert status["diagnostics"] == {"error": 1, "warning": 1, "note": 0}
        assert any("wrong.cfg in force with 1 error" in event["text"] for event in status["events"])
        # The gateway's secondary address, and its primary one behind it.
        for address in ("10.21.0.1", "10.20.0.1"):
            answer = wrong.call("ping", address=address, count=2, interval=0.05)
            assert answer["received"] >= 1, answer
        assert "router ospf 1" in wrong.call("config")["text"]
        if start == 1:
            boot = status["boot"]
            lab.kill("wrong", "xcrp")
            lab.wait_until(lambda boot=boot: wrong.status()["boot"] > boot)
            lab.wait_until(lambda: all(card["usable"] for card in wrong.status()["cards"]))
