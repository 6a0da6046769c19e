"""Ten minutes of the site-to-site lab at half of what it carries: rekeys, kills, replays, and then the books."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml

from bench.report import Report
from bench.site import NAME, TOP, site
from bench.stream import booted
from launch.scenario.boot import boot
from tests.support.soak import FLOWS, judged, soak

LAB = Path("tests/system/soak.yaml")
SIZE = 1400
SUITE = "AES-128-CBC/SHA1"
PART = 2
"""The flows carry together the highest load divided by this."""
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
REKEY_EVERY = 20.0
KILL_EVERY = 60.0
MOST_GROWTH = 4.0
"""Octets a packet: of tens of millions nothing may stay. Queues that fill for a moment hold some 30 MB."""


def run(report: Report) -> None:
    """The soak at half of the highest load that one way carries, shared by both ways.

    AssertionError, after all figures were told, where anything is wrong.
    """
    with TemporaryDirectory() as name:
        with booted(site(Path(name), SUITE, economical=False, veth=False)) as stream:
            highest = median(run.rate for run in stream.highest(NAME, {SIZE: 1}, TOP))
        settings = yaml.safe_load(LAB.read_text())["settings"]
        file = site(Path(name), SUITE, economical=False, veth=False, settings=settings)
        flows = {way: {"size": SIZE, "rate": 1000, "start": "manual", "trace": "0s"} for way in FLOWS}
        lab = boot(file, flows=flows)
        try:
            rate = highest / PART / len(FLOWS)
            print(f"soak: {rate:,.0f} packets/s of {SIZE} bytes each way for {SECONDS:,.0f} s", flush=True)
            result = soak(
                lab.client,
                Path(name),
                SECONDS,
                rekey_every=REKEY_EVERY,
                kill_every=KILL_EVERY,
                rate=rate,
                tell=lambda text: print(f"  {text}", flush=True),
            )
        finally:
            lab.close()
    ledger = result.ledger
    assert ledger is not None
    report.add("soak: packets sent", [ledger.sent], "packets")
    report.add("  lost, all for causes that have a name", [ledger.lost], "packets")
    for place, causes in ledger.dropped.items():
        report.keep(f"  dropped by {place}:", {cause: float(count) for cause, count in causes.items()}, "packets")
        print(f"  dropped by {place}: " + ", ".join(f"{cause} {count:,}" for cause, count in causes.items()))
    report.add("  gone with a process", [sum(ledger.lost_in_crash.values())], "packets")
    report.add("  unexplained", [sum(map(abs, ledger.unexplained.values())) + abs(ledger.residual)], "packets")
    report.add("  kills", [result.kills], "")
    report.add("  rekeys", [result.rekeys], "")
    report.add("  seconds until the tunnel was back", result.outages, "s")
    report.add("  packets of the wire captured", [result.captured], "packets")
    report.add("  of them in clear", [result.clear], "packets")
    report.add("  packets injected again", [result.injected], "packets")
    report.add("  accepted twice or damaged", [result.accepted], "packets")
    report.add("  largest growth of a process", [max(result.growth().values(), default=0.0)], "octets/packet")
    wrong = judged(result, MOST_GROWTH)
    for text in wrong:
        print(f"  WRONG: {text}")
    report.add("  soak judged: things that are wrong", [len(wrong)], "")
    assert not wrong, "; ".join(wrong)
