"""Packets through an ASP with a busy IKE: the manual-keys lab, and a Linux node that sets up tunnels.

The measured tunnel and the new tunnels have the same local end point and so the same ASP: its data engine carries
the packets and the IKE datagrams, its IKE process computes at the same time. Bars: 99 % of the packets within 5
ms, none lost, no heartbeat late by an interval.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench import lab as whole_lab
from bench.ike_ends import NETWORKS, PREFIX, PSK, cpu, identity
from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

MANUAL = Path("configs/manual-keys")
LOCAL, REMOTE = "30.0.0.2", "40.1.0.2"
"""`LOCAL` is the end point of the lab's economical tunnel."""
ASP = "asp 1/2"
GATEWAY = "40.1.0.1"
PORT = "3/12"
TUNNELS = 200
GROUPS = (2, 14)
SIZES = (1400, 64)
FLOW = "economical-forward"
PART = 4
"""The offered load is the highest load divided by this."""
SECONDS = 10.0
WARM_UP = 2.0
LOOK = 0.1
"""Time (s) between two checks of heartbeats: the heartbeat interval."""
P99 = 5.0
"""Bound (ms) of the 99th percentile of latency."""


def configuration(group: int) -> str:
    """Return extra configuration lines for router a: an end for each tunnel of `bench.ike_ends.records`."""
    inside, outside = (f"{network}/{PREFIX}" for network in reversed(NETWORKS))
    lines = [
        "ike2 proposal load",
        "  authentication algorithm hmac-sha1-96",
        "  encryption algorithm aes-128-cbc",
        "  pseudo-random-function hmac-sha1",
        f"  dh-group {group}",
        "ipsec proposal load",
        "  esp encryption aes-128-cbc",
        "  esp authentication hmac-sha1-96",
        "ipsec policy load",
        "  seq 1 proposal load",
        "context wan",
        "  interface to-load",
        f"    ip address {GATEWAY}/24",
    ]
    numbers = range(1, TUNNELS + 1)
    for number in numbers:
        lines += (
            f"  ike2 policy load{number}",
            "    connection-type responder-only",
            f"    identity local fqdn {identity(LOCAL, number)}",
            f"    pre-shared-key {PSK.decode()}",
            "    seq 1 proposal load",
        )
    lines.append("context load")
    for number in numbers:
        lines += (
            f"  interface load{number}",
            f"    ip address 56.0.{number // 64}.{number % 64 * 4 + 1}/30",
            f"  ipsec access-list load{number}",
            f"    seq 10 udp {inside} eq {number} {outside} eq {number}",
        )
    for number in numbers:
        lines += (
            f"tunnel ipsec load{number} economical",
            f"  peer-end-point local {LOCAL} remote {REMOTE} context wan",
            f"  bind interface load{number} load",
            f"  remote-id {identity(REMOTE, number)}",
            f"  ike-policy load{number}",
            f"  seq 10 ipsec-policy load access-group load{number}",
        )
    lines += (f"port ethernet {PORT}", "  no shutdown", "  bind interface to-load wan", "")
    return "\n".join(lines)


@contextmanager
def _lab(group: int, rate: int, size: int) -> Iterator[LabClient]:
    """Boot the lab with the Linux node `load` on a port of router a."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        document: dict[str, Any] = yaml.safe_load((MANUAL / "lab.yaml").read_text())
        topology = document["topology"]
        topology["nodes"]["load"] = {
            "kind": "linux",
            "addresses": {"eth1": f"{REMOTE}/24"},
            "routes": f"default via {GATEWAY}",
        }
        topology["links"].append({"endpoints": ["load:eth1", f"a:{PORT}"]})
        for flow in document["flows"].values():
            flow |= {"start": "manual", "trace": "0s"}
        document["flows"][FLOW] |= {"rate": rate, "size": size}
        (folder / "lab.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        (folder / "a.cfg").write_text((MANUAL / "a.cfg").read_text() + configuration(group))
        (folder / "b.cfg").write_text((MANUAL / "b.cfg").read_text())
        booted = boot(folder / "lab.yaml")
        try:
            lab = booted.client
            lab.wait_until(lambda: lab.node("a").tunnel("economical")["up"])
            yield lab
        finally:
            booted.close()


@contextmanager
def _flood(lab: LabClient, group: int) -> Iterator[None]:
    """Run set-ups; yield when every tunnel has been up once."""
    (pid,) = (row["pid"] for row in lab.ask("", "ps", {})["processes"] if row["node"] == "load")
    # Enter only the node's network namespace: the node may not see the folder of this project.
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    command = (sys.executable, "-m", "bench.ike_flood", REMOTE, LOCAL, str(TUNNELS), str(group))
    with subprocess.Popen(
        ["nsenter", f"--target={pid}", "--net", *user, *command],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as flood:
        try:
            lab.wait_until(lambda: _done(lab) >= TUNNELS or flood.poll() is not None)
            assert flood.returncode is None, "the initiator has ended"
            lab.wait(WARM_UP)
            yield
        finally:
            flood.kill()


def _done(lab: LabClient) -> int:
    """Return the number of set-ups that the ASP's IKE has completed."""
    return lab.counters("a", ASP).get("ike v2 IKE SAs established", 0)


def _ike(lab: LabClient) -> int:
    """Return the process id of the ASP's IKE, its only child."""
    pid = lab.node("a").card(ASP)["pid"]
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _wanted(pid: int) -> float:
    """Return the time (s) that a process has run or waited for a core."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return (int(ran) + int(waited)) / 1e9


@dataclass(frozen=True, slots=True)
class Carried:
    """Measurements of a stream: latency (ms) of 99 % of the packets and of the slowest, packets lost, set-ups/s at
    the same time, IKE's CPU use and demand (cores), largest delay (ms) of a heartbeat."""

    received: int
    p99: float
    slowest: float
    lost: int
    rate: float
    used: float
    wanted: float
    heartbeat_delay: float


def carried(group: int, rate: int, size: int, *, flooded: bool) -> Carried:
    """Run the stream once, with or without set-ups."""
    with _lab(group, rate, size) as lab, _flood(lab, group) if flooded else nullcontext():
        pid = _ike(lab)
        lab.start(FLOW)
        begin, done, used, wanted = lab.clock(), _done(lab), cpu(pid), _wanted(pid)
        late = 0.0
        while lab.clock() - begin < SECONDS:
            lab.wait(LOOK)
            late = max(late, *(card["loop_lag"] for card in lab.node("a").status()["cards"]))
        spent = lab.clock() - begin
        done, used, wanted = _done(lab) - done, cpu(pid) - used, _wanted(pid) - wanted
        lab.stop(FLOW)
        lab.drain(FLOW)
        report = lab.report(FLOW, final=True)
        latency = report["latency"]
        return Carried(
            report["received"],
            latency["p99_ms"],
            latency["max_ms"],
            report["lost"],
            done / spent,
            used / spent,
            wanted / spent,
            late * 1e3,
        )


def bars(found: Carried) -> list[tuple[str, bool]]:
    """Return (bar, whether it is reached) with set-ups."""
    return [
        (f"latency of 99 % {found.p99:.2f} ms, bar under {P99:g} ms", found.p99 < P99),
        (
            f"{found.lost:,} of {found.received + found.lost:,} lost, bar none",
            not found.lost and found.received > 0,
        ),
        (
            f"heartbeat late by {found.heartbeat_delay:.1f} ms, bar under an interval of {LOOK * 1e3:g} ms",
            found.heartbeat_delay < LOOK * 1e3,
        ),
    ]


def run(report: Report) -> None:
    """Run a quarter of the lab's highest load, without set-ups and with set-ups of each group."""
    for size in SIZES:
        with report.row(f"beside set-ups, {size} bytes"):
            _size(report, size)


def _size(report: Report, size: int) -> None:
    known = f"whole lab, economical, {size} bytes"
    found = [figure.value for figure in report.figures if figure.name.startswith(known) and figure.value]
    highest = found[0] if found else median(run.rate for run in whole_lab.highest("economical", size))
    rate = int(highest / PART)
    alone = carried(GROUPS[0], rate, size, flooded=False)
    what = f"{rate:,} packets/s of {size} bytes"
    report.add(f"{what}, no set-ups: latency of 99 %", [alone.p99], "ms")
    report.add("  packets lost", [alone.lost], "packets")
    report.add("  heartbeat late by at most", [alone.heartbeat_delay], "ms")
    for group in GROUPS:
        with report.row(f"{what}, IKEv2 group {group}"):
            beside = carried(group, rate, size, flooded=True)
            report.add(
                f"{what}, IKEv2 group {group}: latency of 99 %", [beside.p99], "ms", "no set-ups", alone.p99
            )
            report.add("  latency of the slowest", [beside.slowest], "ms", "no set-ups", alone.slowest)
            report.add("  packets lost", [beside.lost], "packets")
            report.add("  packets received", [beside.received], "packets")
            report.add("  heartbeat late by at most", [beside.heartbeat_delay], "ms")
            report.add("  set-ups beside it", [beside.rate], "set-ups/s")
            report.add("  IKE's process ran", [beside.used], "cores")
            report.add("  IKE's process ran or waited for a core", [beside.wanted], "of the time")
            report.judge(bars(beside))
