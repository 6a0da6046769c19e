"""A lab under load for a long time: rekeys, kills of ASPs, replays of what was captured; and then the books."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab_wire as wire

from chassis.bus.fabric import BACKLOG, QUEUE
from launch.scenario_lab import LabTimeout

if TYPE_CHECKING:
    from launch.balance import Ledger
    from launch.scenario_lab import LabClient

ENDS = {"a": ("asp 1/1", "3/11"), "b": ("asp 1/2", "3/12")}
"""Each router's ASP of the tunnel and its port to the other router."""
TUNNELS = {"a": "rec_1_1", "b": "rec_2_1"}
FLOWS = ("forward", "reverse")
WINDOW = (0.3, 1.0)
"""Seconds before and after a kill, and after the return from it, in which the wire is captured."""
LOOK = 2.0
"""Seconds between two looks at the memory of all processes."""
BACK_WITHIN = 20.0
CARDS = 4
"""Most processes that have a queue towards a card: those of its router."""
PACKETS_OF_BATCH = 64
TAKEN_BY_A_KILL = CARDS * (QUEUE * PACKETS_OF_BATCH + BACKLOG) + PACKETS_OF_BATCH
"""Most packets that a process can take with it: what waits for it and what it has in hand."""


@dataclass(slots=True)
class Soaked:
    """What a soak came to. `memory` is by process: resident bytes at each look; `outages` are in seconds, from a
    kill until the tunnel was up at both ends."""

    seconds: float
    kills: int = 0
    rekeys: int = 0
    injected: int = 0
    outages: list[float] = field(default_factory=list)
    captured: int = 0
    clear: int = 0
    used_twice: int = 0
    memory: dict[str, list[int]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    leaks: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    """Packets that testers received twice or damaged: among them every replay that was let through."""
    ledger: Ledger | None = None

    def growth(self) -> dict[str, float]:
        """By how much each card's processes were larger in the last third of the time than in the first.

        It is the largest that counts: those that are killed begin small again.
        """
        third = min(map(len, self.memory.values())) // 3
        return {name: max(sizes[-third:]) - max(sizes[: third + 1]) for name, sizes in self.memory.items()}


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
    """Run the flows (each with `rate` packets a second, where it is given) for `seconds`."""
    result = Soaked(seconds)
    options = {} if rate is None else {"rate": rate}
    lab.wait_until("tunnels up")
    began = lab.start(*FLOWS, **options)
    for name in FLOWS:
        lab.wait_until(f"flow {name} received >= 100")
    rekey_at, kill_at, look_at = began + rekey_every, began + kill_every, began
    while (now := lab.clock()) < began + seconds:
        if now >= look_at:
            look_at += LOOK
            _look(lab, result)
        if now >= rekey_at:
            rekey_at += rekey_every
            _rekey(lab, result)
        if now >= kill_at:
            kill_at += kill_every
            _kill(lab, folder, result)
            tell(f"{now - began:.0f} s: killed and back after {result.outages[-1]:.2f} s")
        lab.wait(0.05)
    lab.wait_until("tunnels up")
    lab.stop(*FLOWS)
    lab.drain()
    # The last messages of IKE and what answers them come to rest too.
    with suppress(LabTimeout):
        lab.wait_until(lambda: not lab.balance().unexplained, 5)
    result.ledger = lab.balance()
    for name in FLOWS:
        report = result.reports[name] = lab.report(name, final=True)
        result.accepted += report["duplicated"] + report["corrupted"]
    result.leaks = lab.leaks()
    return result


def _rekey(lab: LabClient, result: Soaked) -> None:
    node = list(ENDS)[result.rekeys % 2]
    lab.wait_until("tunnels up", BACK_WITHIN)
    lab.node(node).call("rekey", tunnel=TUNNELS[node])
    result.rekeys += 1


def _kill(lab: LabClient, folder: Path, result: Soaked) -> None:
    """Kill one end's ASP, the wire captured at both ends; then give the other end what it has had already."""
    node = list(ENDS)[result.kills % 2]
    files = {end: folder / f"{end}-{result.kills}.pcapng" for end in ENDS}
    for end, file in files.items():
        lab.capture(end, f"port {ENDS[end][1]}", file)
    lab.wait(WINDOW[0])
    asp = ENDS[node][0]
    boot = lab.node(node).card(asp)["boot"]
    killed = lab.kill(node, asp)
    result.kills += 1
    lab.wait_until(lambda: _stands(lab, node, asp, boot), BACK_WITHIN)
    lab.wait_until("tunnels up", BACK_WITHIN)
    result.outages.append(lab.clock() - killed)
    lab.wait(WINDOW[1])
    for end, file in files.items():
        lab.capture_stop(end, f"port {ENDS[end][1]}", file)
        result.captured += len(list(wire.packets(file)))
        result.clear += len(wire.neither_protected_nor_ike(file))
        result.used_twice += len(wire.used_twice(file))
    for end, file in files.items():
        result.injected += lab.inject(f"{end}:{ENDS[end][1]}", file, 0.2)
        file.unlink()


def _stands(lab: LabClient, node: str, asp: str, boot: int) -> bool:
    card = lab.node(node).card(asp)
    return bool(card["boot"] > boot and card["usable"])


def _look(lab: LabClient, result: Soaked) -> None:
    for row in lab.ask("", "ps", {})["processes"]:
        if row.get("memory"):
            result.memory.setdefault(f"{row['node']} {row['card']}", []).append(row["memory"])


def judged(result: Soaked, most_growth: int = 8 << 20) -> list[str]:
    """What is wrong with the result; nothing, if all is well. `most_growth` is by how many octets a process may be
    larger in its last third than in its first."""
    ledger = result.ledger
    assert ledger is not None
    wrong = []
    if ledger.unexplained or ledger.remainder:
        wrong.append(f"the books do not balance: {ledger.plain()}")
    taken = sum(map(abs, ledger.with_process.values()))
    if taken > result.kills * TAKEN_BY_A_KILL:
        wrong.append(f"{taken:,} packets went with {result.kills} processes: more than their queues hold")
    for what, number in (("clear packets on the wire", result.clear), ("numbers used twice", result.used_twice)):
        if number:
            wrong.append(f"{number} {what}, of {result.captured:,} captured")
    if result.accepted:
        wrong.append(
            f"{result.accepted} packets were received twice or damaged; {result.injected:,} were injected"
        )
    if result.leaks:
        wrong.append(f"testers got what nobody sent: {result.leaks}")
    growth = {name: octets for name, octets in result.growth().items() if octets > most_growth}
    if growth:
        wrong.append(f"memory grew by {growth} octets")
    if not (result.captured and result.injected and result.rekeys and result.kills):
        wrong.append(
            f"nothing was tried: {result.rekeys} rekeys, {result.kills} kills, {result.injected} injected"
        )
    for name, report in result.reports.items():
        if report["received"] < report["sent"] / 2:
            wrong.append(f"flow {name}: of {report['sent']:,} packets only {report['received']:,} were received")
    return wrong
