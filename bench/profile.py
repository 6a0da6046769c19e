"""`make profile`: where the processes of a lab spend their time at a given load.

Boots the lab, offers `--rate` packets/s of a flow, and samples the stacks of the busy processes with py-spy.
Output, in `build/profile`: `stacks.txt`, collapsed stacks of all processes; `speedscope.json`, the same as flame
graphs for https://www.speedscope.app; and `perf.txt`, the costs by process and hop in the seconds before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from launch.client.perf import Performance, performance, take_sample
from launch.ctl.perf_command import view
from launch.scenario.boot import BootedLab, boot, load

OUTPUT = Path("build/profile")
WARM_UP = 1.0
SAMPLES = 100
"""Samples a second of each process. Each stops the process for about 0.1 ms."""
BUSY = 0.02
"""Use of a core (cores) from which a process is sampled."""
TOP = 12
"""Functions (count) that are printed for each process."""

Stacks = Counter[tuple[str, ...]]
"""Samples by stack, the outermost function first."""


class ProfileError(Exception):
    """The processes could not be sampled; the text says why and what to do."""


def read_stacks(text: str) -> Stacks:
    """Return the stacks of py-spy's raw format: `outermost;...;innermost count` in each line."""
    stacks: Stacks = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[tuple(stack.split(";"))] += int(count)
    return stacks


def speedscope(profiles: Mapping[str, Stacks]) -> dict[str, object]:
    """Return a file of speedscope with a profile for each process."""
    frames: dict[str, int] = {}
    made = []
    for name, stacks in profiles.items():
        made.append(
            {
                "type": "sampled",
                "name": name,
                "unit": "seconds",
                "startValue": 0,
                "endValue": stacks.total() / SAMPLES,
                "samples": [[frames.setdefault(frame, len(frames)) for frame in stack] for stack in stacks],
                "weights": [count / SAMPLES for count in stacks.values()],
            }
        )
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": made,
    }


def top(stacks: Stacks) -> list[tuple[str, float]]:
    """Return the functions with the most samples of their own, each with its share of the process."""
    own: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
    return [(name, count / max(stacks.total(), 1)) for name, count in own.most_common(TOP)]


def _sampled(pids: Mapping[str, int], seconds: float, native: bool) -> dict[str, Stacks]:
    """Sample all these processes at the same time."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise ProfileError("py-spy is not installed; install it with: pip install py-spy")
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for name, pid in pids.items():
            output = Path(folder) / f"{pid}.txt"
            command = [program, "record", "--pid", str(pid), "--format", "raw", "--output", str(output)]
            command += ["--rate", str(SAMPLES), "--duration", str(round(seconds)), "--function"]
            command += ["--native"] if native else []
            running[name] = (
                output,
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True),
            )
        found: dict[str, Stacks] = {}
        for name, (output, process) in running.items():
            said, _ = process.communicate()
            if process.returncode or not output.exists():
                raise ProfileError(
                    f"py-spy cannot sample {name}: {said.strip()}\n"
                    "It needs ptrace: run as root, or allow it with: sudo sysctl kernel.yama.ptrace_scope=0"
                )
            found[name] = read_stacks(output.read_text())
    return found


def _pids(lab: BootedLab, measured: Performance) -> dict[str, int]:
    rows = {(row["node"], row["card"]): row["pid"] for row in lab.ask("", "ps", {})["processes"]}
    return {
        f"{one.node} {one.card}": rows[one.node, one.card]
        for one in measured.processes
        if one.cpu >= BUSY and rows.get((one.node, one.card))
    }


def _measured(lab: BootedLab, seconds: float) -> Performance:
    before = take_sample(lab.run, lab.ask("", "ps", {})["processes"])
    lab.client.wait(seconds)
    return performance(before, take_sample(lab.run, lab.ask("", "ps", {})["processes"]))


def profiled(
    file: Path, flow: str, rate: float, size: int | None, seconds: float, native: bool = False
) -> tuple[dict[str, Stacks], Performance]:
    """Boot a lab, offer a load, and return the stacks of its busy processes, and what they cost without py-spy.

    `flow` "" is the first flow of the lab; `size` (octets) None is its own.

    Raises:
        ProfileError: the lab has no such flow, or the processes cannot be sampled.
    """
    known = list(load(file)[0].flows)
    name = flow or next(iter(known), "")
    if name not in known:
        raise ProfileError(f"{file} has no flow {name!r}; flows: {', '.join(known) or 'none'}")
    booted = boot(file, flows=None if size is None else {name: {"size": size}})
    try:
        if booted.client.file.routers():
            booted.client.wait_until("tunnels up", 60)
        for other in known:
            booted.client.stop(other)
        booted.client.start(name, rate=rate)
        booted.client.wait(WARM_UP)
        measured = _measured(booted, min(seconds, 5.0))
        return _sampled(_pids(booted, measured), seconds, native), measured
    finally:
        booted.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("lab", type=Path, help="a lab file, or a folder with a lab.yaml")
    parser.add_argument("--rate", type=float, required=True, help="packets/s")
    parser.add_argument("--flow", default="", help="a flow of the lab; the first one by default")
    parser.add_argument("--size", type=int, help="octets of a packet; the flow's own by default")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--native", action="store_true", help="with functions of C libraries, such as libzmq")
    given = parser.parse_args(arguments)
    file = given.lab / "lab.yaml" if given.lab.is_dir() else given.lab
    try:
        profiles, measured = profiled(file, given.flow, given.rate, given.size, given.seconds, given.native)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 1
    OUTPUT.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{';'.join((name, *stack))} {count}"
        for name, stacks in profiles.items()
        for stack, count in stacks.items()
    ]
    (OUTPUT / "stacks.txt").write_text("".join(f"{line}\n" for line in lines))
    (OUTPUT / "speedscope.json").write_text(json.dumps(speedscope(profiles)))
    with (OUTPUT / "perf.txt").open("w") as output:
        Console(file=output, width=160).print(view(measured))
    print((OUTPUT / "perf.txt").read_text())
    for name, stacks in profiles.items():
        print(f"{name}: {stacks.total() / SAMPLES:.2f} s on a core; functions by their own time:")
        for function, share in top(stacks):
            print(f"  {share:6.1%}  {function}")
    print(f"{OUTPUT}/speedscope.json has the flame graphs: open it at https://www.speedscope.app")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
