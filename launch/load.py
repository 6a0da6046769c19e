"""`chassis-launch load`: boot a lab, bring up its peers, print what it took, take them down, end the lab."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from chassis.bus.operator import OperatorError
from chassis.peers.gateway import GatewayConfig, gateway_lines
from chassis.peers.spec import read_spec
from launch.client.lab_client import LabClient, LabTimeout
from launch.client.status_view import peers_view
from launch.ctl.base import print_answer
from launch.lab.model import Lab
from launch.lab.parser import load
from launch.lab.yaml_source import LabError, Reporter, read
from launch.scenario.boot import BootError, boot

PATIENCE = 60.0
"""Time (s) that the peers have beyond what their rate takes, unless `--within` says another."""

PROGRESS_INTERVAL = 1.0
"""Time (s) between two lines of progress."""

Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the peers. `rate` (peers/s) and `processes` replace those of each node; None: its own.

    `within` (s) is the time that they have to come up, and again to go. They are kept up for `hold` (s); meanwhile
    `churn` peers of each node go in a second and come again, 0 for none.
    """

    rate: float | None = None
    within: float | None = None
    hold: float = 0.0
    churn: float = 0.0
    processes: int | None = None


def run_file(path: Path, asked: Load, *, as_json: bool) -> int:
    """Bring up the peers of a lab, keep them up for a time, take them down; print what it took.

    Return 0 if all came up, none was lost, and all went; 1 if not; 2 if the file is wrong or has no peers, or the
    lab did not start.
    """
    try:
        lab = load(path)[0]
        if not lab.peers():
            click.echo(f"{path}: no node is of kind peers", err=True)
            return 2
        nodes = {} if asked.processes is None else _shared(path, asked.processes)
        booted = boot(path, nodes=nodes)
    except LabError as error:
        click.echo(str(error), err=True)
        return 2
    except BootError as error:
        click.echo(f"{path}: the lab did not start: {error}", err=True)
        return 2
    try:
        result = _load(booted.client, lab, asked)
    except OperatorError as error:
        click.echo(f"{path}: {error}", err=True)
        return 1
    finally:
        booted.close()
    views: list[RenderableType] = [peers_view(result["peers"])]
    if asked.churn:
        # What it took to come up is told apart from what came and went since.
        views = [peers_view(result["came_up"]), Text(""), *views]
    print_answer(as_json, result, Group(*views))
    for problem in result["problems"]:
        click.echo(problem, err=True)
    return 0 if result["passed"] else 1


def gateway_config(path: Path, outer: str, inner: str, forwarding: str) -> str:
    """Return the lines of a router's configuration that are the static tunnels of all peers of a lab.

    `outer` and `inner` are the router's contexts of the tunnels' local ends and of their interfaces; `forwarding`
    is one of `chassis.peers.gateway.PATHS`.

    Raises:
        LabError: the file is wrong.
        ValueError: it has no peers, or `forwarding` is not one of these.
    """
    nodes = [(node.name, read_spec(node.values)[0]) for node in load(path)[0].peers()]
    made = [(GatewayConfig(name, outer, inner, forwarding), spec) for name, spec in nodes if spec is not None]
    if not made:
        raise ValueError("no node is of kind peers")
    return "".join(f"{line}\n" for line in gateway_lines(made))


def _shared(path: Path, processes: int) -> dict[str, dict[str, int]]:
    """Return the changes of the nodes of peers, by their names in the file: one may stand for several nodes."""
    nodes = read(path, Reporter(str(path))).plain()["topology"]["nodes"]
    return {name: {"processes": processes} for name, values in nodes.items() if values["kind"] == "peers"}


def _time_for(lab: Lab, rate: float | None) -> float:
    specs = [read_spec(node.values)[0] for node in lab.peers()]
    return PATIENCE + max(spec.count / (rate or spec.rate) for spec in specs if spec is not None)


def _load(client: LabClient, lab: Lab, asked: Load) -> dict[str, Any]:
    within = asked.within or _time_for(lab, asked.rate)
    names = [node.name for node in lab.peers()]
    arguments = {} if asked.rate is None else {"rate": asked.rate}
    reports: dict[str, dict[str, Any]] = {name: client.ask(name, "start", arguments) for name in names}
    problems: list[str] = []

    def wait(done: Callable[[Mapping[str, Any]], bool], longest: float = within) -> bool:
        """Return whether all nodes came to hold what `done` says; `reports` are the last ones."""
        shown = time.monotonic()

        def holds() -> bool:
            nonlocal shown
            reports.update({name: client.ask(name, "status", {}) for name in names})
            if time.monotonic() - shown >= PROGRESS_INTERVAL:
                shown = time.monotonic()
                click.echo(_progress(reports), err=True)
            return all(done(report) for report in reports.values())

        try:
            client.wait_until(holds, longest)
        except LabTimeout:
            return False
        return True

    def come_up() -> None:
        if not wait(lambda report: report["up"] == report["peers"]):
            problems.append(f"not all peers are up after {within:g} s: {_progress(reports)}")

    come_up()
    came_up = json.loads(json.dumps(reports))
    if asked.hold:
        if asked.churn:
            for name in names:
                client.ask(name, "churn", {"rate": asked.churn})
        wait(lambda report: False, asked.hold)
        if asked.churn:
            for name in names:
                client.ask(name, "start", arguments)
            come_up()
    reports.update({name: client.ask(name, "status", {}) for name in names})
    problems += [
        f"{name}: {report['lost']} times a peer was lost" for name, report in reports.items() if report["lost"]
    ]
    problems += [
        f"{name}: none of {report['traffic']['sent']} packets came back"
        for name, report in reports.items()
        if report.get("traffic", {}).get("sent") and not report["traffic"]["received"]
    ]
    measured = json.loads(json.dumps(reports))
    began = time.monotonic()
    for name in names:
        client.ask(name, "down", {})
    if not wait(lambda report: report["state"] == "stopped"):
        problems.append(f"not all peers are gone after {within:g} s: {_progress(reports)}")
    return {
        "lab": lab.name,
        "passed": not problems,
        "problems": problems,
        "came_up": came_up,
        "peers": measured,
        "down_seconds": round(time.monotonic() - began, 3),
    }


def _progress(reports: Reports) -> str:
    return ", ".join(f"{name}: {_of_node(report)}" for name, report in reports.items())


def _of_node(report: Mapping[str, Any]) -> str:
    parts = [f"{report['up']} of {report['peers']} up ({report['state']})"]
    if report["latency"]:
        parts.append(f"{report['setups_per_second']:g}/s, p99 {report['latency']['p99_ms']:.0f} ms")
    failures = sum(report["failures"].values())
    if failures:
        parts.append(f"{failures} failures")
    traffic = report.get("traffic")
    if traffic and traffic["sent"]:
        parts.append(f"{traffic['received']} of {traffic['sent']} packets")
    return ", ".join(parts)
