"""A flow at `rate: max` goes as fast as its wire takes packets: it loses none, however slow the far end is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

COUNT = 60_000

LAB = f"""
name: max
topology:
  nodes:
    t1: {{kind: tester, ports: {{"1": {{address: 10.1.0.1/24}}}}}}
    t2: {{kind: tester, ports: {{"1": {{address: 10.1.0.2/24}}}}}}
  links:
    - endpoints: ["t1:1", "t2:1"]
flows:
  max: {{from: "t1:1", to: "t2:1", rate: max, size: 64, count: {COUNT}, start: manual}}
"""

pytestmark = pytest.mark.multiprocess


def test_a_flow_at_rate_max_loses_nothing(lab_factory: LabFactory) -> None:
    lab = lab_factory.text(LAB)
    lab.start("max")
    lab.wait_until(lambda: lab.report("max")["sent"] == COUNT, within=60.0)
    lab.drain("max", within=60)
    report = lab.report("max", final=True)
    assert (report["received"], report["duplicated"], report["reordered"]) == (COUNT, 0, 0)
    assert lab.node("t1").counters("")["port 1 drop not sent"] == 0
