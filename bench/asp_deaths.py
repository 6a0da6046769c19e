"""What the death of an ASP with thousands of tunnels costs, beside that of one with a single tunnel (guide 13).

The lab is that of high availability with manual keys. One of the tunnels of its preferred ASP carries the forward
flow; a tunnel of the other ASP takes that over, and carries a flow of its own all the time. The rest have routes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from bench.deaths import KILLED, TAKEOVER
from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot
from tests.support import failures

TUNNELS: Final = 4_000
ROUNDS: Final = 7
WITHIN: Final = 90.0
"""Longest time (s) that a lab, and a killed ASP with its tunnels, have to come up."""

RATE: Final = 2_000
"""Packets/s of each flow: a loss measures time to half a millisecond."""

GROWTH: Final = 1.5
MARGIN: Final = 5.0
"""The loss with many tunnels may be `GROWTH` times that with one, or `MARGIN` ms more: that is the noise of the
measurement. A change of a route for each tunnel costs some 20 us each: 80 ms."""

BEFORE: Final = 0.05
"""Time (s) before the kill from which losses count."""

OTHER: Final = "172.168.3.200"
"""Destination of the flow that the other ASP's tunnel carries always."""


def written(folder: Path, tunnels: int) -> Path:
    """Write the lab with so many tunnels of the preferred ASP, and the flow `other`; return its file."""
    text = (TAKEOVER.parent / "ha.cfg").read_text()
    inner = ["context C1", f"  ip route {OTHER}/32 TI-2"]
    more: list[str] = []
    for number in range(1, tunnels):
        high, low = number >> 8, number & 255
        inner += [
            f"  interface TI-more-{number}",
            f"    ip address 193.{number >> 6}.{(number & 63) * 4}.1/30",
            f"  ip route 20.{high}.{low}.0/24 TI-more-{number}",
        ]
        more += [f"ipsec security-association more-{number}"]
        for way, spi in (("in", 0x10000 + 2 * number), ("out", 0x10001 + 2 * number)):
            more += [
                f"  {way}",
                "    esp encryption aes-128-cbc key 0x" + "a5" * 16,
                "    esp authentication hmac-sha1-96 key 0x" + "5a" * 20,
                f"    esp spi {spi}",
            ]
        more += [
            f"tunnel ipsec more-{number} manual",
            "  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1",
            f"  bind interface TI-more-{number} C1",
            f"  seq 10 security-association more-{number}",
        ]
    (folder / "ha.cfg").write_text("\n".join((text, *inner, *more, "")))
    (folder / "gateway.cfg").write_text((TAKEOVER.parent / "gateway.cfg").read_text())
    lab, _, _ = TAKEOVER.read_text().partition("\nflows:\n")
    flow = f'from: "t1:1", to: "t2:1", rate: {RATE}, size: 200, start: manual'
    flows = f"  forward: {{{flow}, trace: 100ms}}\n  other: {{{flow}, destination: {OTHER}}}\n"
    (folder / "lab.yaml").write_text(f"{lab}\nflows:\n{flows}")
    return folder / "lab.yaml"


def killed(lab: LabClient, tunnels: int, rounds: int) -> tuple[list[float], list[int]]:
    """Kill the preferred ASP in each round, until its next start is in use. Return the forward flow's losses (ms)
    until the other ASP had it, and how many packets the flow lost that the other ASP carries always."""
    lab.wait_until("tunnels up", within=WITHIN)
    assert len(lab.node("ha").status()["tunnels"]) == tunnels + 1
    lab.start("forward", "other")
    lab.wait_until("flow forward via ha asp 2/1", within=WITHIN)
    lab.wait_until("flow other received >= 100", within=WITHIN)
    moved: list[float] = []
    lost: list[int] = []
    for _ in range(rounds):
        boot_number = lab.node("ha").card("asp 2/1")["boot"]
        at = lab.kill("ha", "asp 2/1")
        lab.wait_until(partial(failures.took, lab, "forward", "ha 2/2 encapsulate", at), WITHIN)
        gone = lab.clock()
        lab.wait_until(partial(failures.stands, lab, "ha", "asp 2/1", boot_number), WITHIN)
        lab.wait_until("tunnels up", within=WITHIN)
        back = lab.clock()
        lab.wait_until(partial(failures.took, lab, "forward", "ha 2/1 encapsulate", back), WITHIN)
        received = lab.report("other")["received"]
        lab.wait_until(f"flow other received >= {received + 200}", within=WITHIN)
        moved.append(lab.report("forward", since=at - BEFORE, until=gone)["window_loss_ms"])
        lost.append(lab.report("other", since=at - BEFORE, until=back)["window_lost"])
    return moved, lost


def compare(report: Report, tunnels: int, rounds: int) -> None:
    """Measure with one tunnel and with so many, and hold the losses to their bounds."""
    medians = []
    for count in (1, tunnels):
        name = f"an ASP with {count:,} tunnel{'s' * (count > 1)} is killed"
        with report.row(name), TemporaryDirectory() as folder:
            booted = boot(written(Path(folder), count), within=WITHIN)
            try:
                moved, lost = killed(booted.client, count, rounds)
                ledger = failures.at_rest(booted.client)
            finally:
                booted.close()
            report.within(f"{name}: forward loss", moved, KILLED)
            said = f"{name}: the other ASP's flow lost {sum(lost)}, bar none"
            named = f"{name}: every lost packet has a cause with a name"
            report.judge([(said, not any(lost)), (named, failures.has_names(ledger))])
            medians.append(median(moved))
    if len(medians) == 2:
        one, many = medians
        most = max(GROWTH * one, one + MARGIN)
        said = f"the forward loss does not grow: {many:.1f} ms with {tunnels:,}, bar {most:.1f}"
        report.judge([(said, many <= most)])


def run(report: Report) -> None:
    compare(report, TUNNELS, ROUNDS)
