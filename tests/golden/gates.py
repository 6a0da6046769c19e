"""What the product does, recorded: a commit that only moves or renames things changes none of it.

    python tests/golden/gates.py            compares everything and prints what differs (`make gates`)
    python tests/golden/gates.py --renew    writes it anew (`make gates-renew`)

Two gates, each a file beside this one:

- `labs.json`: runs of the labs of `configs/` in the simulator, each by its lab, seed and simulated minutes: how
  many events were asked for and the state of the random source, then packets sent, delivered, and looked at
  between routers. Where a seed tears memory is counted in lines of `chassis/ase/ipsec/state.py`: a change of its
  layout is a change here.
- `transcripts.json`: what pairs of IKE engines say (`ike_cases.py`), in digests (`transcripts.py`).

The suite compares a part of both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from chassis.sim.lab import LabModel
from chassis.sim.run import simulate
from launch.lab.model import Lab
from launch.lab.parser import load
from launch.simulate import model
from tests.golden.ike_cases import Case, all_cases
from tests.golden.transcripts import PARTS

FOLDER = Path(__file__).resolve().parent
CONFIGS = FOLDER.parents[1] / "configs"
RECORDED = {"labs": FOLDER / "labs.json", "transcripts": FOLDER / "transcripts.json"}

SHORT, LONG = 0.5, 2.0
"""Simulated minutes of the runs of `make gates`; short ones are in the suite too."""
FEW, MANY = 3, 20
"""Seeds of a lab, of short runs and of long ones."""
IN_SUITE = 1
"""Seeds of a lab in the suite: a change shows in most labs."""
EVERY = 13
"""The suite takes one case in so many of IKE."""

RULE = (
    "Moves and renames change none of it. A commit that means to change behaviour renews the records with "
    "`make gates-renew` and says why."
)

LAB_PARTS = ("way of events", "packets sent", "delivered", "between routers")


@dataclass(frozen=True)
class Check:
    """One row of a record: how to make it, and whether the suite does too."""

    gate: str
    name: str
    make: Callable[[], str]
    in_suite: bool


def can_be_simulated(lab: Lab) -> bool:
    return not lab.linux() and not lab.peers()


@cache
def labs() -> tuple[str, ...]:
    """The labs that can be simulated, by the names of their folders."""
    files = sorted(CONFIGS.glob("*/lab.yaml"))
    return tuple(path.parent.name for path in files if can_be_simulated(load(path)[0]))


@cache
def lab_model(name: str) -> LabModel:
    return model(CONFIGS / name / "lab.yaml")


def run_of(lab: str, seed: int, minutes: float) -> str:
    """What a run came to, in numbers that no name is part of."""
    outcome = simulate(lab_model(lab), seed, minutes)
    return f"{outcome.fingerprint} {outcome.sent} {outcome.delivered} {outcome.protected}"


def _run(lab: str, seed: int, minutes: float) -> Check:
    title = f"{lab}, seed {seed}, {minutes:g} minutes"
    return Check("labs", title, lambda: run_of(lab, seed, minutes), minutes == SHORT and seed <= IN_SUITE)


def _transcript(number: int, case: Case) -> Check:
    return Check("transcripts", case.name, case.run, number % EVERY == 0)


def checks() -> list[Check]:
    """All of both gates, in the order in which they are recorded."""
    found = []
    for lab in labs():
        found += [_run(lab, seed, SHORT) for seed in range(1, FEW + 1)]
        found += [_run(lab, seed, LONG) for seed in range(1, MANY + 1)]
    return found + [_transcript(number, case) for number, case in enumerate(all_cases())]


def recorded(gate: str) -> dict[str, str]:
    """A record as it was written; empty where there is none."""
    path = RECORDED[gate]
    return dict(json.loads(path.read_text())) if path.exists() else {}


def difference(gate: str, name: str, before: str | None, now: str | None) -> str:
    """A line that says what differs; empty where nothing does."""
    if before == now:
        return ""
    if before is None or now is None:
        return (
            f"{gate}: {name}: {'is not recorded' if before is None else 'is recorded, but there is no such case'}"
        )
    parts = LAB_PARTS if gate == "labs" else PARTS
    changed = [part for part, one, other in zip(parts, before.split(), now.split(), strict=True) if one != other]
    return f"{gate}: {name}: {', '.join(changed)} differ: {before} recorded, now {now}"


_checks: list[Check] = []


def _make(number: int) -> tuple[int, str]:
    return number, _checks[number].make()


def made(which: list[Check], jobs: int) -> Iterator[tuple[int, str]]:
    """What each check gives now, by its number, as they come."""
    _checks[:] = which
    if jobs == 1:
        yield from map(_make, range(len(which)))
        return
    # Forked: what a check calls could not be sent to another process.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_make, range(len(which)))


def write(gate: str, rows: dict[str, str]) -> None:
    RECORDED[gate].write_text(json.dumps(rows, indent=0) + "\n")


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description="Compare what the product does with what was recorded.")
    parser.add_argument("--renew", action="store_true", help="write the records anew")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes to use")
    parser.add_argument("--only", default="", metavar="TEXT", help="compare only what has this in its name")
    asked = parser.parse_args(list(arguments))
    if asked.renew and asked.only:
        parser.error("--renew writes everything: it does not go with --only")
    which = [check for check in checks() if asked.only in f"{check.gate}: {check.name}"]
    now = dict(made(which, max(asked.jobs, 1)))
    lines = []
    for gate in RECORDED:
        before = recorded(gate)
        rows = {check.name: now[number] for number, check in enumerate(which) if check.gate == gate}
        names = dict.fromkeys([*rows, *(name for name in before if asked.only in f"{gate}: {name}")])
        lines += [difference(gate, name, before.get(name), rows.get(name)) for name in names]
        if asked.renew:
            write(gate, rows)
    lines = [line for line in lines if line]
    for line in lines:
        print(line)
    print(f"{len(which)} compared with what was recorded: {len(lines) or 'none'} differ")
    if asked.renew:
        print("the records were written anew: the commit says why")
        return 0
    if lines:
        print(RULE)
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
