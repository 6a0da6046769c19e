"""Commands of `chassis-launch`: start, list, end, check and test labs (docs/labs.md)."""

from __future__ import annotations

import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from launch.lab.model import Lab
    from launch.run_folders import Running

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

UP = "up\n"
"""What the background process of a lab reports first when the lab is up; lines for people follow."""

END_TIMEOUT = 30.0
"""Time (s) that a lab has to end after `destroy`."""


class _Launch(click.Group):
    """A group in which a file's name stands for `run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "FILE [OPTIONS]  |  COMMAND [ARGS]...")


@click.group(cls=_Launch)
@click.version_option(package_name="smartedge-chassis", prog_name="chassis-launch")
def main() -> None:
    """Run SmartEdge routers as processes.

    FILE is a lab (YAML: routers, the wires between their ports, testers, Linux nodes) or the configuration of
    one router (.cfg). `chassis-launch FILE` boots it and shows its live status until Ctrl-C. Use chassisctl to
    look at it and act on it.

    \b
    chassis-launch examples manual-keys
    chassis-launch manual-keys/lab.yaml
    chassis-launch manual-keys/lab.yaml --detach
    chassis-launch check my-router.cfg
    """


@main.command()
@click.argument("file", type=FILE)
@click.option(
    "--detach", is_flag=True, help="Boot in the background; return when it is up, or report why it is not."
)
@click.option("--name", help="Name of the running lab, instead of the one in the file.")
@click.option("--strict", is_flag=True, help="Refuse to start when there is a warning or an error.")
@click.option("--once", is_flag=True, help="Print one status when the flows run, and end.")
@click.option("--quiet", is_flag=True, help="No live status, even in a terminal.")
@click.option("--with-pid", type=int, hidden=True, help="End when this process does.")
@click.option("--changes", type=FILE, hidden=True, help="Values in place of the lab's own, as JSON.")
def run(
    file: Path,
    detach: bool,
    name: str | None,
    strict: bool,
    once: bool,
    quiet: bool,
    with_pid: int | None,
    changes: Path | None,
) -> None:
    """Boot a lab, or a single router from its configuration."""
    from launch.supervisor.start import StartError, prepare, start

    try:
        lab, startup = prepare(file, name, strict, lambda text: click.echo(text, err=True), changes)
    except StartError as error:
        raise click.ClickException(str(error)) from None
    if detach:
        raise SystemExit(_detached(lab, startup, with_pid))

    def booted(problem: str, access: list[str]) -> None:
        if problem:
            click.echo(f"lab {lab.name} is not all up: {problem}", err=True)
        elif not live and not once:
            click.echo(f"lab {lab.name} is up; Ctrl-C ends it, chassisctl looks at it", err=True)
            click.echo("".join(f"  {line}\n" for line in access), err=True, nl=False)

    live = sys.stdout.isatty() and not quiet and not once
    try:
        status = start(lab, startup, booted, with_pid=with_pid, show="once" if once else "live" if live else "")
    except StartError as error:
        raise click.ClickException(str(error)) from None
    raise SystemExit(status)


def _detached(lab: Lab, startup: Any, with_pid: int | None) -> int:
    """Start the lab in a background process. Return 0 when it is up; the child reports over a pipe."""
    from launch.supervisor.start import StartError, start

    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader) as answer:
            problem = answer.read()
        if problem.startswith(UP):
            click.echo(f"lab {lab.name} is up")
            click.echo(problem.removeprefix(UP), nl=False)
            return 0
        click.echo(f"lab {lab.name}: {problem or 'the launcher ended without a report'}", err=True)
        return 1
    os.close(reader)
    # A process group of its own is enough to outlive a terminal: a hangup goes to the session's leader and to the
    # foreground group. Do not make a new session: Linux may share the cores among sessions first (autogroup). With
    # several sessions, a process that wakes alone on a core of a busy session waited for most of a second in a
    # measurement, longer than a card may be silent.
    os.setpgrp()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)

    def tell(text: str) -> None:
        nonlocal writer
        if writer >= 0:
            os.write(writer, text.encode())
            os.close(writer)
            writer = -1

    def booted(problem: str, access: list[str]) -> None:
        tell(problem or UP + "".join(f"  {line}\n" for line in access))

    status = 1
    try:
        status = start(lab, startup, booted, with_pid=with_pid, background=True)
    except StartError as error:
        tell(str(error))
    except BaseException:
        # A bug of this program: send it over the pipe to the foreground command, which prints it.
        tell(traceback.format_exc())
    finally:
        os._exit(status)


def _running() -> list[Running]:
    from launch.run_folders import FolderError, running

    try:
        return running()
    except FolderError as error:
        raise click.ClickException(str(error)) from None


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_labs(as_json: bool) -> None:
    """List the running labs."""
    labs = _running()
    if as_json:
        click.echo(json.dumps([{"name": lab.name, "run": str(lab.run), **lab.facts} for lab in labs], indent=2))
        return
    if not labs:
        click.echo("no lab runs")
    for lab in labs:
        kinds = [node["kind"] for node in lab.facts["nodes"].values()]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        click.echo(f"{lab.name:24} launcher {lab.facts['launcher']:<8} {counts:40} {lab.facts['file']}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every lab that runs.")
@click.option("--keep-state", is_flag=True, help="Keep the nodes' state folders for a later start.")
def destroy(names: tuple[str, ...], everything: bool, keep_state: bool) -> None:
    """End labs and delete their nodes' state: journals, placement, sequence numbers of manual keys.

    NAMES are names of labs; a lab's file or its folder also names the lab. Only what chassis made is deleted, and
    never the state of a running lab.
    """
    from chassis.bus.operator import OperatorClient, OperatorError
    from launch.lab_lookup import LabLookupError, find_lab_name
    from launch.run_folders import FolderError, delete_state

    labs = {lab.name: lab for lab in _running()}
    if not names and not everything:
        if len(labs) != 1:
            raise click.UsageError(f"no lab given; expected NAMES or --all; running: {', '.join(labs) or 'none'}")
        names = tuple(labs)
    try:
        wanted = [*(find_lab_name(name, labs) for name in names), *(labs if everything else ())]
    except LabLookupError as error:
        raise click.ClickException(str(error)) from None
    failed = False
    for name in dict.fromkeys(wanted):
        lab = labs.get(name)
        if lab is None:
            try:
                deleted = not keep_state and delete_state(name)
            except FolderError as error:
                click.echo(f"{name}: {error}", err=True)
                failed = True
                continue
            if deleted:
                click.echo(f"{name}: was not running; its state is deleted")
            else:
                click.echo(f"{name}: no such lab runs", err=True)
                failed = True
            continue
        try:
            pidfd = os.pidfd_open(lab.facts["launcher"])
            with OperatorClient(lab.socket, END_TIMEOUT) as client:
                client.call("destroy", keep_state=keep_state)
            ended = bool(select.select([pidfd], [], [], END_TIMEOUT)[0])
            os.close(pidfd)
        except (OSError, OperatorError) as error:
            ended = not lab.lives()
            if not ended:
                click.echo(f"{name}: {error}", err=True)
        failed = failed or not ended
        click.echo(f"{name}: {'ended' if ended else 'does not end'}")
    raise SystemExit(1 if failed else 0)


@main.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="A list of {severity, code, name, file, line, column, ...}.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
def check(file: Path, as_json: bool, strict: bool) -> None:
    """Check a configuration or a lab and print every problem. Start nothing.

    Exit with status 1 if there is an error.
    """
    from launch import checking

    diagnostics = checking.check(file)
    if strict:
        diagnostics = checking.strict(diagnostics)
    if as_json:
        click.echo(checking.as_json(diagnostics))
    else:
        for diagnostic in diagnostics:
            click.echo(str(diagnostic))
        click.echo(f"{file}: {checking.summary(diagnostics)}")
    raise SystemExit(1 if any(d.severity == "error" for d in diagnostics) else 0)


@main.command()
@click.argument("lab", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit file.")
def test(lab: Path, as_json: bool, junit: Path | None) -> None:
    """Boot LAB, run its scenario, and check everything that it expects.

    Exit with status 0 only if every expectation held. Logs and captures of a failed run are kept.
    """
    from chassis.bus import regular_files
    from launch.scenario.command import run_file

    if junit is not None:
        # Open the file before the scenario runs, so that its result is not lost at the end.
        try:
            junit.parent.mkdir(parents=True, exist_ok=True)
            regular_files.check(junit)
        except OSError as error:
            raise click.ClickException(f"{junit}: {error.strerror}") from None
    raise SystemExit(run_file(lab, as_json, junit))


@main.command("load")
@click.argument("lab", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="What it took as JSON on standard output.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True, max=10_000), help="Peers that begin in a second."
)
@click.option(
    "--within", metavar="TIME", help="Time that the peers have to come up; default: 60s and what the rate takes."
)
@click.option("--hold", metavar="TIME", default="0s", help="Keep them up for this time; none may be lost.")
@click.option(
    "--churn",
    type=click.FloatRange(min=0, min_open=True, max=10_000),
    help="Meanwhile so many peers of each node go in a second, and come again.",
)
@click.option("--processes", type=click.IntRange(1, 64), help="Processes that share the peers of each node.")
def load_peers(
    lab: Path,
    as_json: bool,
    rate: float | None,
    within: str | None,
    hold: str,
    churn: float | None,
    processes: int | None,
) -> None:
    """Boot LAB, bring up all its remote peers, print what it took, and take them down.

    Exit with status 0 only if all came up, none was lost, and all went.
    """
    from chassis.net.units import parse_duration
    from launch.load import Load, run_file

    try:
        times = [parse_duration(text) for text in (within or "0s", hold)]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if churn is not None and not times[1]:
        raise click.UsageError("--churn needs --hold, the time of the coming and going")
    asked = Load(rate, times[0] or None, times[1], churn or 0.0, processes)
    raise SystemExit(run_file(lab, asked, as_json=as_json))


@main.command("gateway-config")
@click.argument("lab", type=FILE)
@click.option("--outer", default="public", show_default=True, help="Context of the tunnels' local ends.")
@click.option("--inner", default="private", show_default=True, help="Context of the tunnels' interfaces.")
@click.option(
    "--forwarding",
    type=click.Choice(["circuit-based", "economical", "both"]),
    default="both",
    show_default=True,
    help="How the tunnels forward; both: by turns.",
)
def gateway_config(lab: Path, outer: str, inner: str, forwarding: str) -> None:
    """Print the lines of a router that has a static tunnel for each remote peer of LAB.

    The rest of its configuration goes before them: cards, ports, contexts, an ASP group, its addresses, routes.
    """
    from launch.lab.yaml_source import LabError
    from launch.load import gateway_config as made

    try:
        click.echo(made(lab, outer, inner, forwarding), nl=False)
    except LabError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.ClickException(f"{lab}: {error}") from None


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run LAB on a fake clock under schedules of faults, each replayable from its seed."""
    from launch import simulate as simulation

    simulation.command.main(list(arguments), prog_name=f"{ctx.parent.command_path if ctx.parent else ''} simulate")


@main.command()
@click.argument("lab", type=FILE)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File; else standard output."
)
def graph(lab: Path, output: Path | None) -> None:
    """Draw LAB as SVG: nodes, ports and the wires between them."""
    from chassis.bus import regular_files
    from launch.lab.graph import svg
    from launch.lab.parser import load
    from launch.lab.yaml_source import LabError

    try:
        text = svg(load(lab)[0])
    except LabError as error:
        raise click.ClickException(str(error)) from None
    if output is None:
        click.echo(text)
        return
    try:
        regular_files.write(output, text.encode(), regular_files.PLAIN)
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from None


@main.command("examples")
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def copy_example(name: str | None, folder: Path | None, as_json: bool) -> None:
    """List the labs that come with chassis; with a NAME, copy that one into FOLDER (default ./NAME)."""
    from launch.examples import ExampleError, copy, examples

    if name is not None:
        try:
            file = copy(name, folder or Path(name))
        except ExampleError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"{file}: boot it with 'chassis-launch {file}'")
        return
    found = examples()
    if as_json:
        click.echo(json.dumps([{"name": one.name, "about": one.about} for one in found], indent=2))
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        click.echo(f"{one.name:{width}}  {one.about}")


@main.command()
def schema() -> None:
    """Print the JSON Schema of lab files, for editors that complete and check them.

    \b
    chassis-launch schema > lab.schema.json
    """
    from launch.lab.schema import schema as made

    click.echo(json.dumps(made(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
