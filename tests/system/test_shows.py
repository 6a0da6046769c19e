"""Show commands at the shipped labs with real processes: the text that the simulator has, JSON, and figures.

Figures are those of the testers, of the packet accounting and of a capture of the wire.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chassis.bus.operator import OperatorError
from tests.support.cli import CliRig
from tests.support.cli_shows import LABS, ShownLab, masked

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

PACKETS = 400


def ask(lab: LabClient, node: str, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return lab.ask(node, command, arguments)
    except OperatorError as error:
        raise LookupError(str(error)) from None


def show(lab: LabClient, node: str, line: str, context: str) -> str:
    rig = CliRig(partial(ask, lab, node), context=context, wall_offset=time.time() - time.monotonic())
    rig.now = time.monotonic()
    return rig.run(line)


def without_counts(text: str) -> str:
    """Text without the packets and octets of a tunnel's ways and SAs, and without circuits' numbers."""
    return re.sub(r"(?m)^((?:out|in) .*?)\d+ +\d+( +\d+)?$", r"\1COUNTED", text)


def golden(lab: ShownLab) -> dict[str, str]:
    """What the simulator's router shows, by command."""
    parts = re.split(rf"(?m)^\[{lab.context}\]#(.*)\n", lab.golden.read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def captured_esp(file: Path) -> int:
    """Frames of ESP or AH in a capture, as tshark counts them."""
    command = ("tshark", "-r", str(file), "-Y", "esp or ah", "-T", "fields", "-e", "frame.number")
    return len(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


@pytest.mark.parametrize("shown", LABS, ids=lambda shown: shown.name)
def test_a_running_router_shows_what_happens(lab_factory: LabFactory, shown: ShownLab, tmp_path: Path) -> None:
    lab = lab_factory(str(shown.path))
    lab.wait_until("tunnels up", within=30)
    lab.stop()
    lab.drain()
    port, wire = "3/11", tmp_path / "wire.pcapng"
    line = f"show tunnel ipsec {shown.tunnel} statistics"
    data = partial(_data, lab, shown)
    (before,) = data(line)
    ports = {row["port"]: row["counters"] for row in data("show port counters")}
    sent = {flow: lab.report(flow)["sent"] for flow in ("forward", "reverse")}
    lab.capture(shown.node, f"port {port}", wire)
    lab.start(rate=400, count=PACKETS)
    lab.wait_until(lambda: all(lab.report(flow)["sent"] == sent[flow] + PACKETS for flow in sent), within=30)
    lab.drain()
    lab.capture_stop(shown.node, f"port {port}", wire)

    (after,) = data(line)
    for way, flow in (("encapsulated", "forward"), ("decapsulated", "reverse")):
        report = lab.report(flow)
        assert after[way]["packets"] - before[way]["packets"] == PACKETS
        assert report["lost"] == 0 or report["sent"] > 2 * PACKETS
    circuits = {row["name"]: row for row in data("show circuit counters")["circuits"]}
    if shown.tunnel in circuits:
        counted = circuits[shown.tunnel]["counters"]
        assert counted["packets_out"] == after["encapsulated"]["packets"]
        assert counted["packets_in"] == after["decapsulated"]["packets"]
    total = data(f"show ipsec card {shown.carried} statistics global context {shown.context}")
    assert total["encapsulated"] == after["encapsulated"]
    assert total["decapsulated"] == after["decapsulated"]
    accounting = lab.accounting()
    assert accounting.unexplained == {}
    assert accounting.residual == 0
    # The port to the office has the flows and nothing else but ARP.
    office = next(row for row in data("show port counters") if row["port"] == "3/1")["counters"]
    assert 0 <= office["packets_in"] - ports["3/1"]["packets_in"] - PACKETS < 10
    assert 0 <= office["packets_out"] - ports["3/1"]["packets_out"] - PACKETS < 10
    if shutil.which("tshark") is not None:
        assert captured_esp(wire) == 2 * PACKETS

    expected = golden(shown)
    for command, text in expected.items():
        said = masked(show(lab, shown.node, command, shown.context))
        assert without_counts(said) == without_counts(text), command
        if not said.startswith("% "):
            json.loads(show(lab, shown.node, f"{command} | json", shown.context))


def _data(lab: LabClient, shown: ShownLab, line: str) -> Any:
    return json.loads(show(lab, shown.node, f"{line} | json", shown.context))
