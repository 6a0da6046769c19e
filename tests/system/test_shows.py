"""Show commands at the shipped labs with real processes: the text that the simulator has, JSON, and figures.

Figures are those of the testers, of the packet accounting and of a capture of the wire.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chassis.bus.operator import OperatorError
from tests.support import failures
from tests.support.chassisctl import chassisctl
from tests.support.cli import CliRig
from tests.support.cli_shows import LABS, ShownLab, masked

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

PACKETS = 200


def ask(lab: LabClient, node: str, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return lab.ask(node, command, arguments)
    except OperatorError as error:
        raise LookupError(str(error)) from None


def show(lab: LabClient, node: str, line: str, context: str) -> str:
    rig = CliRig(partial(ask, lab, node), context=context, wall_offset=time.time() - time.monotonic())
    rig.now = time.monotonic()
    return rig.run(line)


def comparable(text: str) -> list[str]:
    """Text without what was counted, what was dropped before a tunnel was up, the numbers of circuits and widths.

    These are given in the order in which peers are found; so lines have no order either. Two ends that begin at
    once make SAs twice; so equal lines count once.
    """
    for pattern, instead in (
        (r"^  dropped .*\n", ""),
        (r"^((?:out|in) .*?)\d+ +\d+( +\d+)?$", r"\1COUNTED"),
        (r"( \d+/\d+ +)\d+( +(?:Up|Down))", r"\1CIRCUIT\2"),
        (r"(Circuit +: )\d+$", r"\1CIRCUIT"),
        (r"(1023:63/3/1/)\d+", r"\1CIRCUIT"),
        (r"SAs: \d+", "SAs: COUNTED"),
        (r" +", " "),
    ):
        text = re.sub(rf"(?m){pattern}", instead, text)
    return sorted({*text.splitlines()})


def golden(lab: ShownLab) -> dict[str, str]:
    """What the simulator's router shows, by command."""
    parts = re.split(rf"(?m)^\[{lab.context}\]#(.*)\n", lab.golden.read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def captured_esp(file: Path) -> int:
    """Frames of ESP or AH in a capture, as tshark counts them."""
    command = ("tshark", "-r", str(file), "-Y", "esp or ah", "-T", "fields", "-e", "frame.number")
    return len(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def _data(lab: LabClient, shown: ShownLab, line: str) -> Any:
    return json.loads(show(lab, shown.node, f"{line} | json", shown.context))


class Figures:
    """What a router and the testers have counted up to now, packets by name."""

    def __init__(self, lab: LabClient, data: Callable[[str], Any], shown: ShownLab) -> None:
        self._lab = lab
        reports = {flow: lab.report(flow) for flow in ("forward", "reverse")}
        self.counts = {f"{flow} {end}": reports[flow][end] for flow in reports for end in ("sent", "received")}
        (tunnel,) = data(f"show tunnel ipsec {shown.tunnel} statistics")
        total = data(f"show ipsec card {shown.carried} statistics global context {shown.context}")
        for place, row in (("tunnel", tunnel), ("asp", total)):
            self.counts[f"{place} out"] = row["encapsulated"]["packets"]
            self.counts[f"{place} in"] = row["decapsulated"]["packets"]
        rows = data("show circuit counters")["circuits"]
        circuits = {row["name"]: row["counters"] for row in rows if "counters" in row}
        for place, name in (("port", "3/1"), ("circuit", shown.tunnel)):
            for way in ("in", "out"):
                self.counts[f"{place} {way}"] = circuits[name][f"packets_{way}"]

    def sent_since(self, packets: int) -> bool:
        """Whether both flows have sent so many packets since."""
        return all(
            self._lab.report(flow)["sent"] >= self.counts[f"{flow} sent"] + packets
            for flow in ("forward", "reverse")
        )

    def less(self, before: Figures) -> dict[str, int]:
        return {name: count - before.counts[name] for name, count in self.counts.items()}


@pytest.mark.parametrize("shown", LABS, ids=lambda shown: shown.name)
def test_a_running_router_shows_what_happens(lab_factory: LabFactory, shown: ShownLab, tmp_path: Path) -> None:
    lab = lab_factory(str(shown.path), flows={flow: {"rate": 50} for flow in ("forward", "reverse")})
    lab.wait_until("tunnels up", within=60)
    lab.stop()
    lab.drain()
    data = partial(_data, lab, shown)
    before, wire = Figures(lab, data, shown), tmp_path / "wire.pcapng"
    lab.capture(shown.node, "port 3/11", wire)
    lab.start(rate=100, count=PACKETS)
    lab.wait_until(lambda: before.sent_since(PACKETS), within=60)
    lab.drain()
    lab.capture_stop(shown.node, "port 3/11", wire)
    after = Figures(lab, data, shown)
    counted = after.less(before)

    accounting = failures.at_rest(lab)
    assert (accounting.unexplained, accounting.residual) == ({}, 0)
    assert (counted["forward sent"], counted["reverse sent"]) == (PACKETS, PACKETS)
    # A crowded machine loses packets, each of them before or after it is counted here.
    assert counted["forward received"] <= counted["tunnel out"] <= PACKETS
    assert counted["reverse received"] <= counted["tunnel in"] <= PACKETS
    assert counted["asp out"] == counted["tunnel out"]
    assert counted["asp in"] == counted["tunnel in"]
    if counted["forward received"] == counted["reverse received"] == PACKETS:
        assert counted["circuit out"] == counted["circuit in"] == PACKETS
        # The port to the office has the flows, and nothing else but ARP.
        assert 0 <= counted["port in"] - PACKETS < 10
        assert 0 <= counted["port out"] - PACKETS < 10
        if shutil.which("tshark") is not None:
            assert captured_esp(wire) == 2 * PACKETS

    for command, text in golden(shown).items():
        said = masked(show(lab, shown.node, command, shown.context))
        assert comparable(said) == comparable(text), command
        if not said.startswith("% "):
            json.loads(show(lab, shown.node, f"{command} | json", shown.context))
    # Two faces of one view. What an ASP dropped in all stands behind its tunnels.
    for words, command in (
        (("routes", shown.node, "--context", shown.context), "show ip route"),
        (("sas", shown.node, "--tunnel", shown.tunnel), f"show tunnel ipsec {shown.tunnel} statistics detail"),
    ):
        process = chassisctl(lab, *words, stdout=subprocess.PIPE, text=True)
        said, _ = process.communicate(timeout=60)
        own = said.split("\n\nASP ")[0].rstrip("\n")
        assert own == show(lab, shown.node, command, shown.context).rstrip("\n")
