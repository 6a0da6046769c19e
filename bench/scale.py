"""32,000 tunnels on one chassis of four ASE cards, and their peers, on this machine: `python -m bench scale`.

They come up as fast as both ends allow; meanwhile an operator's session asks for ASPs, one tunnel and the first
page of the list. Then all rest, the controller is killed, and an ASP; last, charon sets up a thousand tunnels for
comparison. A smaller run: `python -m bench.scale --count 4000`.
"""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import ike, scale_lab
from bench.cli import Seat
from bench.lab import cpu_of
from bench.report import Report
from bench.scale_lab import KINDS, ROUTER
from chassis.cli.pager import MORE
from chassis.net.address import format_address
from launch.client.lab_client import LabClient, LabTimeout
from launch.scenario.boot import BootError, boot
from tests.support.charon import PROGRAM
from tests.support.netns import why_not

TUNNELS = 32_000
AT_ONCE = 64
"""Peers that are on their way up at a time."""
CHARON_TUNNELS = 1_000
QUARTERS = 4
NODES = tuple(kind.node for kind in KINDS)

COMMANDS = ("show asp", f"show tunnel ipsec remote {format_address(KINDS[0].first)}", "show tunnel ipsec")
"""What an operator asks: for all ASPs, for one tunnel, and for the first page of all."""

TOLD = ("hung", "killed", "died", "fenced", "connection", "admitted", "silent", "exit")
"""Words of events of processes."""
MAX_TOLD = 20

UP_SECONDS = 180.0
LAST_OF_FIRST = 0.8
"""Smallest rate of the last quarter of the set-ups, of that of the first; and of an ASP that starts again."""
TUNNEL_KB = 64.0
ANSWER = 200.0
BACK = 5.0
"""Bounds: time (s) until all are up, memory (kB) of the router for a tunnel, time (ms) of a command, and time (s)
until a controller or an ASP is back."""

WHOLE_LIMIT = 19 * 60
"""Time (s) after which the run ends, whatever it does."""
UP_LIMIT = 420.0
BACK_LIMIT = 60.0
ASP_LIMIT = 120.0
END_LIMIT = 60.0
"""Times (s) after which a part is given up."""
REST = 30.0
"""Time (s) for which all tunnels rest."""
LOOK = 2.0
ASK = 5.0
"""Times (s) between two looks at the peers, and between two rounds of an operator's commands."""


def progress(text: str) -> None:
    """Print a line for people who wait."""
    print(f"    {text}", flush=True)


def processes(lab: LabClient) -> dict[str, int]:
    """Return the process id of every process of the lab by node and card, with IKE's beside its ASP."""
    found: dict[str, int] = {}
    for row in lab.ask("", "ps", {})["processes"]:
        pid = row.get("pid")
        if not pid:
            continue
        name = f"{row['node']} {row['card']}"
        found[name] = pid
        if " asp " in name:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                found[f"{name} ike"] = int(child)
    return found


def part_of(name: str) -> str:
    """Return which part a process is: all ASPs, their IKE, the peers of all nodes, or a single one."""
    node, _, card = name.partition(" ")
    if node != ROUTER:
        return "peers"
    return "IKE" if card.endswith(" ike") else "ASPs" if card.startswith("asp ") else card


def memory(pid: int) -> float:
    """Return the memory of a process (kB): its own and its share of what it has in common with others (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


@dataclass
class Bench:
    """A running lab, and what was measured of it."""

    lab: LabClient
    report: Report
    count: int
    pids: dict[str, int] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=dict)
    """Times (ms) of an operator's commands."""
    rate: float = 0.0
    """Set-ups a second of all."""

    def statuses(self, nodes: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {node: self.lab.ask(node, "status", {}) for node in nodes}

    def asps(self) -> dict[str, dict[str, Any]]:
        """Return the rows of all ASPs, by name."""
        return {row["asp"]: row for row in self.lab.ask(ROUTER, "asps", {})["asps"]}

    def up(self) -> int:
        """Return how many tunnels are up at the router."""
        return sum(row["up"] for row in self.asps().values())

    def all_back(self) -> bool:
        """Return whether the router knows all ASPs, and that all tunnels are up."""
        rows = self.asps().values()
        return all(row["state"] == "up" for row in rows) and sum(row["up"] for row in rows) == self.count

    def tell_events(self, since: float) -> None:
        """Print what the history says of processes since a time: a card that was given up explains a low rate."""
        said = [event for event in self.lab.events(since) if any(word in event["text"] for word in TOLD)]
        for event in said[:MAX_TOLD]:
            progress(f"{event['time'] - since:6.1f} s: {event['node']}: {event['text']}")
        if len(said) > MAX_TOLD:
            progress(f"and {len(said) - MAX_TOLD} events more")

    def lost(self) -> int:
        """Return how many times a peer lost its tunnel."""
        return sum(status["lost"] for status in self.statuses(NODES).values())

    def boots(self) -> dict[str, int]:
        """Return the boot number of every ASP that serves."""
        return {name: row["boot"] for name, row in self.asps().items()}

    def datagrams(self) -> int:
        """Return how many datagrams of IKE the router's ASPs received."""
        return self.lab.counters(ROUTER).get("ike datagrams received", 0)

    # an operator

    def ask_commands(self, seat: Seat) -> None:
        """Time an operator's three commands."""
        for command in COMMANDS:
            took, text = seat.timed(f"{command}\r")
            if text.endswith(MORE):
                seat.rig.type("q")
            assert "1/1" in text, text
            self.asked.setdefault(command, []).append(took)

    # peers

    def come_up(self, nodes: Sequence[str], wanted: int, within: float, seat: Seat | None) -> list[float]:
        """Start the peers of these nodes; return the times (s) at which each quarter of them was up.

        Raises:
            LabTimeout: not all were up within the time.
        """
        began = self.lab.clock()
        for node in nodes:
            self.lab.ask(node, "start", {})
        marks: list[float] = []
        before, known = 0.0, 0
        asked_at = began
        while True:
            self.lab.wait(LOOK)
            statuses = self.statuses(nodes)
            now = self.lab.clock() - began
            up = sum(status["up"] for status in statuses.values())
            while len(marks) < QUARTERS and up >= (goal := wanted * (len(marks) + 1) / QUARTERS):
                part = (goal - known) / (up - known) if up > known else 1.0
                marks.append(before + (now - before) * part)
            failures: Counter[str] = Counter()
            for status in statuses.values():
                failures.update(status["failures"])
            progress(
                f"{now:6.1f} s: {up:,} of {wanted:,} up, {(up - known) / (now - before):.0f}/s{_named(failures)}"
            )
            before, known = now, up
            if up >= wanted:
                return marks
            if now > within:
                raise LabTimeout(f"{up:,} of {wanted:,} tunnels are up after {now:.0f} s{_named(failures)}")
            if seat is not None and self.lab.clock() >= asked_at:
                self.ask_commands(seat)
                asked_at = self.lab.clock() + ASK


def _named(failures: Mapping[str, int]) -> str:
    return f"; {dict(failures)}" if failures else ""


def set_up(bench: Bench, seat: Seat) -> None:
    """Bring all tunnels up."""
    report, count = bench.report, bench.count
    used = cpu_of(bench.pids)
    began = bench.lab.clock()
    try:
        marks = bench.come_up(NODES, count, UP_LIMIT, seat)
    finally:
        bench.tell_events(began)
    spent = cpu_of(bench.pids)
    parts: dict[str, float] = {}
    for name in bench.pids:
        parts[part_of(name)] = parts.get(part_of(name), 0.0) + spent[name] - used[name]
    bench.rate = count / marks[-1]
    report.within("all tunnels up", [marks[-1]], UP_SECONDS * count / TUNNELS, "s")
    report.add("  set-ups, both ends", [bench.rate], "set-ups/s")
    spans = [late - early for early, late in zip([0.0, *marks], marks, strict=False)]
    rates = [count / QUARTERS / span for span in spans]
    for number, rate in enumerate(rates, 1):
        report.add(f"  quarter {number}", [rate], "set-ups/s", "the first", rates[0])
    report.bar(LAST_OF_FIRST, "ratio")
    for part, seconds in sorted(parts.items()):
        report.add(f"  CPU of {part} for each", [seconds / count * 1e3], "ms")
    report.add("  CPU of all for each", [sum(parts.values()) / count * 1e3], "ms")


def hold(bench: Bench) -> None:
    """Let all tunnels rest: memory, what all processes use, and how many ask whether their peer is alive."""
    report, count, lab = bench.report, bench.count, bench.lab
    kilobytes: dict[str, float] = {}
    for name, pid in bench.pids.items():
        kilobytes[part_of(name)] = kilobytes.get(part_of(name), 0.0) + memory(pid)
    for part, size in sorted(kilobytes.items()):
        report.add(f"memory of {part} for a tunnel", [size / count], "kB")
    router = sum(size for part, size in kilobytes.items() if part != "peers")
    if count == TUNNELS:
        report.within("memory of the router for a tunnel", [router / count], TUNNEL_KB, "kB")
    lost = bench.lost()
    if lost:
        progress(f"{lost} tunnels were lost and came up again meanwhile")
    used, sent = cpu_of(bench.pids), bench.datagrams()
    progress(f"all rest for {REST:g} s")
    lab.wait(REST)
    spent = sum(cpu_of(bench.pids).values()) - sum(used.values())
    report.add("CPU of all processes while all rest", [spent / REST], "cores")
    report.add("  datagrams of IKE to the router, of its tunnels", [(bench.datagrams() - sent) / REST], "1/s")
    lost = bench.lost() - lost
    report.judge([(f"{lost} tunnels lost while all rest, bar none", not lost)])


def controller(bench: Bench) -> None:
    """Kill the controller: the next one knows all tunnels again, and none of them goes down."""
    lab, report = bench.lab, bench.report
    lost, boots = bench.lost(), bench.boots()
    killed = lab.kill(ROUTER, "xcrp")
    lab.wait_until(bench.all_back, BACK_LIMIT)
    report.within("a controller is killed: all tunnels known again", [lab.clock() - killed], BACK, "s")
    lost = bench.lost() - lost
    flaps = [event["text"] for event in lab.events(killed) if event["text"].startswith("tunnel")]
    report.judge(
        [
            (f"  {lost} tunnels lost by it, bar none", not lost),
            (f"  {len(flaps)} tunnels told of in the history {flaps[:3] or ''}, bar none", not flaps),
            ("  every ASP goes on", bench.boots() == boots),
        ]
    )


def asp(bench: Bench) -> None:
    """Kill an ASP: it is in use again, then its peers come again."""
    lab, report, kind = bench.lab, bench.report, KINDS[0]
    name, share = kind.asp, bench.count // len(KINDS)
    boot_before = bench.asps()[name]["boot"]
    before = bench.statuses(NODES)
    killed = lab.kill(ROUTER, f"asp {name}")

    def stands() -> bool:
        row = bench.asps()[name]
        return bool(row["state"] == "up" and row["boot"] > boot_before)

    lab.wait_until(stands, BACK_LIMIT)
    report.within("an ASP is killed: its successor is in use", [lab.clock() - killed], BACK, "s")
    # Its peers would find out by dead peer detection, each at its own time.
    lab.ask(kind.node, "down", {})
    lab.wait_until(lambda: lab.ask(kind.node, "status", {})["state"] == "stopped", BACK_LIMIT)
    marks = bench.come_up((kind.node,), share, ASP_LIMIT, None)
    report.add(f"  its {share:,} tunnels set up again", [share / marks[-1]], "set-ups/s", "all", bench.rate)
    report.bar(LAST_OF_FIRST, "ratio")
    after = bench.statuses(NODES[1:])
    lost = sum(after[node]["lost"] - before[node]["lost"] for node in after)
    report.judge([(f"  {lost} tunnels of other ASPs lost by it, bar none", not lost)])


def charon(bench: Bench) -> None:
    """Set up a thousand tunnels with charon as responder, for comparison."""
    reason = why_not() or ("" if Path(PROGRAM).exists() else f"there is no {PROGRAM}")
    if reason:
        progress(f"charon is not measured: {reason}")
        return
    load = ike.set_up(ike.theirs(CHARON_TUNNELS, 2), CHARON_TUNNELS, 2)
    bench.report.add(f"charon, {load.up:,} of {CHARON_TUNNELS:,} tunnels", [load.rate], "set-ups/s")
    bench.report.add("  its CPU for each", [load.cpu / max(load.up, 1) * 1e3], "ms")
    bench.report.add("  the chassis with all its tunnels", [bench.rate], "set-ups/s", "charon", load.rate)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what is inside with a TimeoutError after a time."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(report: Report, count: int = TUNNELS) -> None:
    """Measure all of it in one lab. A part that fails is a failed row, and the next one goes on."""
    began = time.monotonic()
    with report.row(f"{count:,} tunnels"), limited(WHOLE_LIMIT), TemporaryDirectory() as folder:
        booted = boot(scale_lab.write(Path(folder), count, AT_ONCE), within=END_LIMIT)
        try:
            lab = booted.client
            bench = Bench(lab, report, count, processes(lab))
            seat = Seat(lab, ROUTER)
            parts: tuple[tuple[str, Callable[[], None]], ...] = (
                ("set-up", lambda: set_up(bench, seat)),
                ("rest", lambda: hold(bench)),
                ("a controller is killed", lambda: controller(bench)),
                ("an ASP is killed", lambda: asp(bench)),
                ("charon", lambda: charon(bench)),
            )
            for name, measure in parts:
                with report.row(f"{count:,} tunnels, {name}"):
                    progress(f"{name}, after {time.monotonic() - began:.0f} s")
                    measure()
            for command, times in bench.asked.items():
                report.within(f"{command}, all the while", times, ANSWER)
        finally:
            try:
                booted.close()
            except BootError as error:
                # So many processes may take longer to end than a lab is given.
                progress(f"the lab ended late: {error}")
    report.add("the whole run", [time.monotonic() - began], "s")


def main() -> int:
    """Run with fewer tunnels: return 1 if a bar was missed."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=TUNNELS, help="tunnels, a multiple of 32")
    report = Report()
    run(report, parser.parse_args().count)
    for text in report.missed:
        print(f"MISSED: {text}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
