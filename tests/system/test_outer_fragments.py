"""Outer packets that are larger than the link: cut at one router, whole again at the ASP of the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import CONFIGS

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

SHIPPED = CONFIGS / "manual-keys"

FLOWS = """\
flows:
  circuit:
    {from: "t1:1", to: "t2:1", source: 50.1.0.1, destination: 60.1.0.1, rate: 100, size: 4000, start: manual}
  economical:
    {from: "t2:1", to: "t1:1", source: 60.2.0.1, destination: 50.2.0.1, rate: 100, size: 4000, start: manual}
"""


def test_packets_of_both_modes_arrive_whole(lab_factory: LabFactory) -> None:
    lab_text = (SHIPPED / "lab.yaml").read_text()
    tunnels = re.compile(r"^(tunnel ipsec .*\n)", re.MULTILINE)
    configurations = {}
    for name in ("a.cfg", "b.cfg"):
        text, count = tunnels.subn(r"\1  mtu 9000\n  df-bit clear\n", (SHIPPED / name).read_text())
        assert count == 2
        configurations[name] = text
    lab = lab_factory.text(lab_text[: lab_text.index("# A flow's")] + FLOWS, configurations)
    lab.wait_until("tunnels up")
    flows = ("circuit", "economical")
    lab.start(*flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 50", within=60)
    lab.stop(*flows)
    lab.drain(*flows)
    for flow in flows:
        report = lab.report(flow, final=True)
        assert report["received"] == report["sent"]
        assert report["corrupted"] == report["duplicated"] == report["reordered"] == 0
    assert lab.unexpected() == {}
    # Each came in three pieces, of which two ended in making it whole.
    asp = lab.node("b").tunnel("circuit")["asp"]
    assert lab.counters("b", asp)["packets delivered"] == 2 * lab.report("circuit", final=True)["sent"]
