"""`chassis-launch test`: boot a lab, run its scenario, and print whether every expectation held."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from chassis.bus.capture import MIN_RING_OCTETS
from chassis.bus.operator import OperatorError
from launch.lab.model import RouterNode
from launch.lab.yaml_source import LabError
from launch.scenario import report
from launch.scenario.boot import BootedLab, BootError, boot
from launch.scenario.runner import Runner, ScenarioOutcome

RESULTS = Path("build", "failed-labs")
"""Parent, below the current folder, of the folders of failed runs."""

CAPTURED_RATE = 20_000
"""Largest rate (packets/s) of all flows at which every wire of a router is captured during a scenario."""

CAPTURED = 64 << 20
"""Packets kept (octets) of all wires together: the last ones of each."""


def run_file(path: Path, json: bool = False, junit: Path | None = None) -> int:
    """Run a lab's scenario and print the result.

    Return 0 if every expectation held, 1 if one failed, 2 if the file is wrong or the lab did not start. Keep
    logs, captures and the result of a failed run in a folder and print its name. With `json`, print only the
    result to standard output.
    """

    def tell(line: str) -> None:
        click.echo(line, err=json)

    try:
        booted = boot(path)
    except LabError as error:
        click.echo(str(error), err=True)
        return 2
    except BootError as error:
        click.echo(f"{path}: the lab did not start: {error}", err=True)
        return 2
    began = time.monotonic()
    try:
        tell(f"lab {booted.lab.name} is up after {booted.boot_ms:.0f} ms")
        _capture(booted)
        outcome = Runner(booted.client, booted.scenario, tell).run()
        outcome.boot_ms = booted.boot_ms
        kept = None if outcome.passed else _keep(booted, outcome)
    finally:
        booted.close()
    if json:
        sys.stdout.write(report.as_json(outcome) + "\n")
    for line in report.as_text(outcome):
        tell(line)
    if not outcome.expectations:
        click.echo(f"warning: {path} has no expectations: only its start was checked", err=True)
    if junit is not None:
        try:
            report.write_junit(outcome, booted.lab.name, str(path), time.monotonic() - began, junit)
        except OSError as error:
            click.echo(f"{junit}: {error.strerror}", err=True)
            return 1
    if kept is not None:
        tell(f"logs and captures are in {kept}")
    return 0 if outcome.passed else 1


def _capture(booted: BootedLab) -> None:
    """Capture every wire between routers at one of its ends, unless the flows are too fast.

    The kept octets are limited for any length of scenario, because the disk also has the labs' state.
    """
    if sum(flow.rate for flow in booted.lab.flows.values()) > CAPTURED_RATE:
        return
    ring = max(CAPTURED // max(len(booted.lab.links), 1), MIN_RING_OCTETS)
    for link in booted.lab.links:
        for end in link.ends:
            if isinstance(booted.lab.nodes[end.node], RouterNode):
                file = booted.folder / f"{end.node}.{end.port.replace('/', '-')}.pcapng"
                try:
                    booted.client.capture(end.node, f"port {end.port}", file, ring=ring)
                except OperatorError:
                    continue
                break


def _keep(booted: BootedLab, outcome: ScenarioOutcome) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = RESULTS / f"{booted.lab.name}-{stamp}"
    number = 1
    while target.exists():
        number += 1
        target = RESULTS / f"{booted.lab.name}-{stamp}-{number}"
    booted.keep(target)
    (target / "result.json").write_text(report.as_json(outcome))
    if booted.lab.file.is_file():
        shutil.copy2(booted.lab.file, target / booted.lab.file.name)
    return target
