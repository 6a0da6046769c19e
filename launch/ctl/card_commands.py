"""Commands of `chassisctl` for cards, links and configurations, and for the state of a lab."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from chassis.bus import regular_files
from chassis.bus.operator import OperatorError
from chassis.cli.views import interfaces, system
from chassis.cli.views.layout import Scope
from launch.client import status_view
from launch.client.running_lab import RunningLab
from launch.ctl.base import DURATION, RATE, SHARE, lab_command, option, print_answer


@lab_command()
@click.option("--once", is_flag=True, help="One status, even in a terminal.")
def status(lab: RunningLab, as_json: bool, once: bool) -> None:
    """Show cards, ASPs, tunnels, flows, loss and the last events; live in a terminal."""
    if as_json:
        seen = lab.launcher("status")
        click.echo(
            json.dumps({**seen, "flows": status_view.flows(seen), "events": status_view.events(seen)}, indent=2)
        )
    elif once or not sys.stdout.isatty():
        status_view.print_once(lab.launcher("status"))
    else:
        status_view.live(lab.run)


@lab_command()
def ps(lab: RunningLab, as_json: bool) -> None:
    """List the processes with their CPU time."""
    answer = lab.launcher("ps")
    grid = status_view.table(
        "node", "card", "pid", "boot", "state", "CPU", "memory", "last end", "SSH", right=("pid", "boot", "CPU")
    )
    for row in answer["processes"]:
        memory = f"{row['memory'] >> 20} MB" if "memory" in row else ""
        ssh = row.get("ssh")
        cpu = f"{row['cpu']:.2f} s" if "cpu" in row else ""
        grid.add_row(
            row["node"],
            row["card"],
            str(row["pid"] or ""),
            str(row["boot"]),
            row["state"],
            cpu,
            memory,
            row.get("ended", ""),
            f"{ssh['address']} port {ssh['port']}" if ssh else "",
        )
    print_answer(as_json, answer, grid)


def _card_command(name: str, help_text: str, done: str) -> None:
    @lab_command(name, help=help_text)
    @click.argument("node")
    @click.argument("card", nargs=-1)
    def act(lab: RunningLab, node: str, card: tuple[str, ...], as_json: bool) -> None:
        answer = lab.launcher(name, node=node, card=" ".join(card))
        print_answer(
            as_json,
            answer,
            f"{done} {answer['node']} {answer['card']}: boot {answer['boot']}, pid {answer['pid']}",
        )


_card_command(
    "kill", "Kill a card's process (SIGKILL), as in `kill a asp 1/1`. The launcher restarts it.", "killed"
)
_card_command("stop", "Make a card hang (SIGSTOP).", "stopped")
_card_command("continue", "Continue a hung card (SIGCONT).", "continued")
_card_command("restart", "Kill a card and start it again at once.", "restarted")


@lab_command()
@click.argument("end")
@click.option("--down/--up", "down", default=None, help="Take the link down, or up again.")
@option("controller", "link", "loss", type=SHARE)
@option("controller", "link", "delay", type=DURATION)
@option("controller", "link", "jitter", type=DURATION)
@option("controller", "link", "reorder", type=SHARE)
@option("controller", "link", "duplicate", type=SHARE)
@option("controller", "link", "rate", type=RATE, help="Bits a second, such as 100M; none for no limit.")
@option("controller", "link", "seed")
@click.option("--clear", is_flag=True, help="End every fault.")
@click.option("--one-way", is_flag=True, help="Only for packets that leave by this end.")
def link(lab: RunningLab, end: str, as_json: bool, one_way: bool, clear: bool, **faults: Any) -> None:
    """Set faults on the link of a port, as in `link a:3/11 --loss 1%`, in both directions.

    Without an option, print the faults in force.
    """
    lab.split(end)
    settings = {name: value for name, value in faults.items() if value is not None}
    if clear:
        settings["clear"] = True
    answers: dict[str, Any] = {}
    far_end = lab.far_end(end)
    for one, other in ((end, far_end),) if one_way else ((end, far_end), (far_end, end)):
        node, port = lab.split(one)
        if lab.nodes[node]["kind"] != "linux":
            answers[one] = lab.node(node, "link", port=port, **settings)
            continue
        # A Linux device cannot make faults: the port at its other end makes them.
        node, port = lab.split(other)
        if lab.nodes[node]["kind"] == "linux":
            raise OperatorError(
                f"{end} and {far_end} are both Linux devices, which cannot have faults; use tc in them"
            )
        answers[one] = lab.node(node, "link", port=port, far=True, **settings)
    lines = [f"{one}: {_faults(answer)}" for one, answer in answers.items()]
    print_answer(as_json, answers, "\n".join(lines))


def _faults(settings: Mapping[str, Any]) -> str:
    said = [f"{name} {value}" for name, value in settings.items() if value]
    return ", ".join(said) or "no faults"


@lab_command()
@click.argument("node")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check, and print what would change.")
def apply(lab: RunningLab, node: str, file: Path, dry_run: bool, as_json: bool) -> None:
    """Commit a configuration file in a running router, completely or not at all."""
    try:
        text = regular_files.read_text(file, errors="replace")
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from None
    # A file name that is not UTF-8 has surrogates, which a request cannot carry.
    name = os.fsencode(file).decode(errors="replace")
    answer = lab.node(node, "apply", text=text, file=name, dry=dry_run, user=_user())
    lines = [_diagnostic(found) for found in answer["diagnostics"]]
    lines += [_change(change) for change in answer["changes"]]
    refused = not answer["applied"] and not dry_run
    lines.append("refused: nothing changed" if refused else "applied" if answer["applied"] else "not applied")
    print_answer(as_json, answer, "\n".join(lines))
    errors = any(isinstance(found, dict) and found.get("severity") == "error" for found in answer["diagnostics"])
    raise SystemExit(1 if refused or errors else 0)


def _user() -> str:
    """Return the name of the user at the machine, for the history of commits; empty without one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _change(change: Mapping[str, Any]) -> str:
    lines = [f"{change['kind']}: {' '.join(change['path'])}", *(f"    {line}" for line in change["lines"])]
    return "\n".join(lines)


def _diagnostic(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found)
    place = f"{found.get('file') or ''}:{found.get('line')}:{found.get('column')}"
    return f"{place}: {found.get('severity')} {found.get('code')}: {found.get('message')}"


@lab_command()
@click.argument("node")
@option("controller", "routes", "context")
def routes(lab: RunningLab, node: str, context: str, as_json: bool) -> None:
    """Print the routes of a router's context, as its `show ip route` does, and inactive ones with the reason."""
    answer = lab.node(node, "routes", context=context)
    lines = interfaces.routes.lines(answer, Scope(node=node, context=context))
    print_answer(as_json, answer, "\n".join(lines))


@lab_command()
@click.argument("node")
@option("controller", "log", "since")
@option("controller", "log", "from")
@option("controller", "log", "level")
@option("controller", "log", "facility")
@option("controller", "log", "tunnel")
@option("controller", "log", "context")
@option("controller", "log", "last")
@click.option("--explain", is_flag=True, help="With what the guide recommends.")
def log(lab: RunningLab, node: str, explain: bool, as_json: bool, **given: Any) -> None:
    """Print the log of a router, as its `show log` does, with tunnel and peer; as JSON one record in each line."""
    scope = Scope({"explain": "explain"} if explain else {}, node=node)
    records = system.log.select(lab.node(node, "log", **given), scope)
    if as_json:
        for record in records:
            click.echo(json.dumps(record))
        return
    for record in records:
        line, *action = system.log.lines([record], scope)
        click.echo("\n".join([f"{line}{_about(record['values'])}", *action]))
    if not records:
        click.echo("nothing is logged")


def _about(values: Mapping[str, Any]) -> str:
    """Print the tunnel, context and peer of an IKE log line, if it has them."""
    said = [f"{name} {values[name]}" for name in ("tunnel", "context", "peer") if values.get(name)]
    return f" [{', '.join(said)}]" if said else ""


@lab_command()
@option("controller", "events", "since")
def events(lab: RunningLab, since: float, as_json: bool) -> None:
    """Print events: starts and deaths of cards, tunnels up and down, configurations."""
    seen = lab.launcher("status")
    # The status has only the last events.
    seen["events"] = lab.launcher("events", since=since)["events"]
    for name in lab.routers():
        if seen["nodes"][name]["status"]:
            seen["nodes"][name]["status"]["events"] = lab.node(name, "events", since=since)["events"]
    found = [event for event in status_view.events(seen) if event["time"] >= since]
    lines = [f"{event['time']:12.3f} {event['node']:12} {event['text']}" for event in found]
    print_answer(as_json, found, "\n".join(lines))


@lab_command()
@click.argument("node")
@click.option("--keys", is_flag=True, help="Print the keys in clear; the router logs it.")
def config(lab: RunningLab, node: str, keys: bool, as_json: bool) -> None:
    """Print the configuration in force in a router, as a file that loads again where its secret is."""
    answer = lab.node(node, "config", keys=keys)
    print_answer(as_json, answer, answer["text"].rstrip("\n"))


@lab_command()
@click.argument("node")
def secret(lab: RunningLab, node: str, as_json: bool) -> None:
    """Print the secret of a router, for `secret:` of another lab; the router logs it.

    A router with the same secret reads the encrypted keys that this one prints.
    """
    answer = lab.node(node, "secret")
    print_answer(as_json, answer, answer["secret"])


@lab_command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("node")
@click.argument("command", nargs=-1, required=True)
def execute(lab: RunningLab, node: str, command: tuple[str, ...], as_json: bool) -> None:
    """Run a command in a Linux node: a program with its arguments, or one text for the node's shell.

    \b
    chassisctl exec h ping -c 1 10.0.0.1
    chassisctl exec h sh -c 'echo one; echo two'
    chassisctl exec h 'ip route | grep default'
    """
    answer = lab.launcher("exec", node=node, command=command[0] if len(command) == 1 else list(command))
    print_answer(as_json, answer, answer["output"].rstrip("\n"))
    raise SystemExit(int(answer["code"]) & 0xFF)
