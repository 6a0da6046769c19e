"""From nothing to the first packet through a tunnel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from lab_bounds import within

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

LAB = "configs/manual-keys/lab.yaml"
FLOW = "circuit-forward"
ROUNDS = 10

pytestmark = pytest.mark.multiprocess


@pytest.mark.alone
def test_two_routers_boot_to_the_first_packet_through_a_tunnel(lab_factory: LabFactory) -> None:
    took = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        lab = lab_factory(LAB, ready=False)
        lab.wait_until(f"flow {FLOW} received >= 1", within=10)
        took.append((time.monotonic() - began) * 1000)
        lab_factory.end(lab)
    within("two routers, from the command to the first packet through the tunnel", took, 2000)
