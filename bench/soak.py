"""A lab under load for a long time, with rekeys, kills of ASPs and replays of captured packets; then its
accounting.

`run` takes ten minutes on the site-to-site lab at half of its highest load.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from bench.report import Report
from bench.site import NAME, site
from bench.stream import booted, sized
from chassis.bus.batch import MAX_PACKETS
from chassis.bus.fabric import MAX_QUEUED_BATCHES
from chassis.bus.sender import MAX_BACKLOG_PACKETS
from launch.client.lab_client import LabTimeout
from launch.scenario.boot import boot
from tests.support import capture as wire

if TYPE_CHECKING:
    from launch.client.accounting import PacketAccounting
    from launch.client.lab_client import LabClient


ENDS = {"a": ("asp 1/1", "3/11"), "b": ("asp 1/2", "3/12")}
"""Each router's ASP of the tunnel and its port to the other router."""
INSIDE = ("a", "port 3/1")
"""A port inside the tunnel's networks, where packets are in clear."""
TUNNELS = {"a": "rec_1_1", "b": "rec_2_1"}
FLOWS = ("forward", "reverse")
WINDOW = (0.3, 1.0)
"""Time (s) before and after a kill, and after the recovery, in which the wire is captured."""
LOOK = 2.0
"""Time (s) between two measurements of all processes' memory."""
BACK_WITHIN = 20.0
CARDS = 4
"""Largest number of processes with a queue towards a card: those of its router."""
HELD = CARDS * (MAX_QUEUED_BATCHES * MAX_PACKETS + MAX_BACKLOG_PACKETS) + MAX_PACKETS
"""Packets that fit into all queues towards a process and into its memory."""
LIFE = 10
"""Measurements of a process before its memory growth is evaluated."""
NOISE = 4 << 20
"""Growth (octets) that is ignored: one allocation step of an allocator."""


@dataclass(slots=True)
class Soaked:
    """Result of a soak. `memory` is by card and process: time (s) and octets of each measurement. `outages` are
    times (s) from a kill until the tunnel is up at both ends, `unknown` until the other cards had the report."""

    seconds: float
    kills: int = 0
    unknown: list[float] = field(default_factory=list)
    rekeys: int = 0
    injected: int = 0
    outages: list[float] = field(default_factory=list)
    captured: int = 0
    clear: int = 0
    inside: int = 0
    """Clear packets that the same capture found before the tunnel, where there must be some."""
    used_twice: int = 0
    memory: dict[str, dict[int, list[tuple[float, int]]]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    unexpected: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    """Packets that testers received twice or damaged; an accepted replay would be one."""
    ledger: PacketAccounting | None = None

    @property
    def rate(self) -> float:
        """Return the rate (packets/s) of all flows together."""
        sent: int = sum(report["sent"] for report in self.reports.values())
        return sent / self.seconds

    def max_lost_in_crash(self) -> int:
        """Return the largest number of packets that the killed processes can have lost.

        Count what was sent until the other cards had the report, and for the largest latency before, plus a batch
        of each neighbour; at most what the queues hold.
        """
        waited = max(report["latency"].get("max_ms", 0.0) for report in self.reports.values()) / 1e3
        batches = (CARDS + 1) * MAX_PACKETS
        return sum(min(HELD, ceil(self.rate * (unknown + waited)) + batches) for unknown in self.unknown)

    def growth(self) -> dict[str, float]:
        """Return by card the memory growth (octets per packet) in the second half of its processes' lives; 0 below
        NOISE.

        Take the median of several processes; ignore short-lived ones.
        """
        found = {}
        for name, lives in self.memory.items():
            halves = [looks[len(looks) // 2 :] for looks in lives.values() if len(looks) >= LIFE]
            if halves:
                found[name] = median(self._grew(half) for half in halves)
        return found

    def _grew(self, looks: Sequence[tuple[float, int]]) -> float:
        """Return the median of the slopes between any two measurements, so that a temporary queue does not
        count."""
        slope = median(
            (size - before) / (time - then) for at, (time, size) in enumerate(looks) for then, before in looks[:at]
        )
        return slope / self.rate if slope * (looks[-1][0] - looks[0][0]) > NOISE else 0.0


def soak(
    lab: LabClient,
    folder: Path,
    seconds: float,
    *,
    rekey_every: float,
    kill_every: float,
    rate: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Soaked:
    """Run the flows for `seconds`, each at `rate` (packets/s; None: the lab's own)."""
    result = Soaked(seconds)
    options = {} if rate is None else {"rate": rate}
    lab.wait_until("tunnels up")
    watched = _watch(lab, folder, 0)
    inside = lab.capture(*INSIDE, folder / "inside.pcapng", clear=True)
    began = lab.start(*FLOWS, **options)
    for name in FLOWS:
        lab.wait_until(f"flow {name} received >= 100")
    lab.capture_stop(*INSIDE, inside)
    result.inside = len(list(wire.packets(inside)))
    rekey_at, kill_at, look_at = began + rekey_every, began + kill_every, began
    while (now := lab.clock()) < began + seconds:
        if now >= look_at:
            look_at = now + LOOK
            _look(lab, result, now)
        if now >= rekey_at:
            rekey_at += rekey_every
            _rekey(lab, result)
        if now >= kill_at:
            kill_at += kill_every
            watched += _kill(lab, folder, result)
            tell(f"{now - began:.0f} s: killed and back after {result.outages[-1]:.2f} s")
        lab.wait(0.05)
    lab.wait_until("tunnels up")
    lab.stop(*FLOWS)
    lab.drain()
    # Wait until the last IKE messages and their responses are processed.
    with suppress(LabTimeout):
        lab.wait_until(lambda: not lab.accounting().unexplained, 5)
    result.ledger = lab.accounting()
    for end, (_, port) in ENDS.items():
        lab.capture_stop(end, f"port {port}", watched[-1])
    result.clear += sum(len(list(wire.packets(file))) for file in watched)
    for name in FLOWS:
        report = result.reports[name] = lab.report(name, final=True)
        result.accepted += report["duplicated"] + report["corrupted"]
    result.unexpected = lab.unexpected()
    return result


def _rekey(lab: LabClient, result: Soaked) -> None:
    node = list(ENDS)[result.rekeys % 2]
    lab.wait_until("tunnels up", BACK_WITHIN)
    lab.node(node).call("rekey", tunnel=TUNNELS[node])
    result.rekeys += 1


def _watch(lab: LabClient, folder: Path, number: int) -> list[Path]:
    """Capture packets in clear at both ends until the next capture there. Return the files."""
    return [
        lab.capture(end, f"port {port}", folder / f"{end}-clear-{number}.pcapng", clear=True)
        for end, (_, port) in ENDS.items()
    ]


def _kill(lab: LabClient, folder: Path, result: Soaked) -> list[Path]:
    """Kill one end's ASP with the wire captured at both ends; then inject at the other end what it has received.

    Return the captures of packets in clear that start where these end, until the next kill.
    """
    node = list(ENDS)[result.kills % 2]
    files = {end: folder / f"{end}-{result.kills}.pcapng" for end in ENDS}
    for end, file in files.items():
        lab.capture(end, f"port {ENDS[end][1]}", file)
    lab.wait(WINDOW[0])
    asp = ENDS[node][0]
    boot = lab.node(node).card(asp)["boot"]
    killed = lab.kill(node, asp)
    result.kills += 1
    lab.wait_until(lambda: _is_up(lab, node, asp, boot), BACK_WITHIN)
    lab.wait_until("tunnels up", BACK_WITHIN)
    result.outages.append(lab.clock() - killed)
    result.unknown.append(_known(lab, node, asp, killed) - killed)
    lab.wait(WINDOW[1])
    watched = _watch(lab, folder, result.kills)
    for file in files.values():
        result.captured += len(list(wire.packets(file)))
        result.clear += len(wire.neither_protected_nor_ike(file))
        result.used_twice += len(wire.used_twice(file))
    for end, file in files.items():
        result.injected += lab.inject(f"{end}:{ENDS[end][1]}", file, 0.2)
        file.unlink()
    return watched


def _known(lab: LabClient, node: str, asp: str, killed: float) -> float:
    """Return the time at which the controller had reported the failure to all cards of the node."""
    gone = re.compile(rf"{asp} (died|connection lost|replaced|hung): epoch \d+")
    return min(
        float(event["time"])
        for event in lab.events(killed)
        if event["node"] == node and gone.fullmatch(event["text"])
    )


def _is_up(lab: LabClient, node: str, asp: str, boot: int) -> bool:
    card = lab.node(node).card(asp)
    return bool(card["boot"] > boot and card["usable"])


def _look(lab: LabClient, result: Soaked, now: float) -> None:
    for row in lab.ask("", "ps", {})["processes"]:
        if row.get("memory"):
            lives = result.memory.setdefault(f"{row['node']} {row['card']}", {})
            lives.setdefault(row["pid"], []).append((now, row["memory"]))


def judged(result: Soaked, max_growth: float = 64.0) -> list[str]:
    """Return the errors of the result; `[]` if there are none. `max_growth` is in octets per packet."""
    ledger = result.ledger
    assert ledger is not None
    wrong = []
    if ledger.unexplained or ledger.residual or ledger.overflowed:
        wrong.append(f"the accounting does not balance: {ledger.to_json()}")
    taken = sum(map(abs, ledger.lost_in_crash.values()))
    if taken > (most := result.max_lost_in_crash()):
        wrong.append(
            f"{taken:,} packets went with {result.kills} processes: no more than {most:,} waited for them"
        )
    for what, number in (("clear packets on the wire", result.clear), ("numbers used twice", result.used_twice)):
        if number:
            wrong.append(f"{number} {what}, of {result.captured:,} captured")
    if result.accepted:
        wrong.append(
            f"{result.accepted} packets were received twice or damaged; {result.injected:,} were injected"
        )
    if result.unexpected:
        wrong.append(f"testers received packets that no flow sent: {result.unexpected}")
    growth = {name: octets for name, octets in result.growth().items() if octets > max_growth}
    if growth:
        wrong.append(f"memory grew with every packet by octets: {growth}")
    if not (result.captured and result.inside and result.injected and result.rekeys and result.kills):
        wrong.append(
            f"part did not run: {result.rekeys} rekeys, {result.kills} kills, {result.injected} injected, "
            f"{result.captured} captured, {result.inside} found in clear where they are"
        )
    for name, report in result.reports.items():
        if report["received"] < report["sent"] / 2:
            wrong.append(f"flow {name}: of {report['sent']:,} packets only {report['received']:,} were received")
    return wrong


LAB = Path("bench/soak.yaml")
SIZE = 1400
SUITE = "AES-128-CBC/SHA1"
PART = 2
"""The flows together offer the highest load divided by this."""
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
REKEY_EVERY = 20.0
KILL_EVERY = 60.0
MAX_GROWTH = 4.0
"""Bound (octets per packet): queues that fill for a moment take about 30 MB, of tens of millions of packets."""


def run(report: Report) -> None:
    """Run the soak at half of the highest load of one direction, shared by both directions.

    AssertionError, after all figures were printed, if there is an error.
    """
    with TemporaryDirectory() as name:
        with booted(site(Path(name), SUITE, economical=False, veth=False)) as stream:
            highest = median(run.rate for run in stream.best(sized(NAME, str(SIZE))))
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
    wrong = judged(result, MAX_GROWTH)
    for text in wrong:
        print(f"  WRONG: {text}")
    report.add("  soak judged: things that are wrong", [len(wrong)], "")
    assert not wrong, "; ".join(wrong)
