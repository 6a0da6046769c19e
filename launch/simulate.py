"""`chassis-launch simulate`: run a lab's engines on a fake clock under schedules of faults drawn from seeds.

Input: a lab file and seeds. Output: an outcome for each seed. As a library: `model(path)` makes the input of
`chassis.sim.run.simulate`, `campaign` runs many seeds in several processes. A seed repeats its schedule event by
event.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from struct import Struct

import click

from chassis.ase.engine import AspEngine
from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ipsec import state
from chassis.bus import records, regular_files
from chassis.bus.engine import FlashPath
from chassis.bus.records import Record
from chassis.bus.requests import MAX_CONFIGURATION
from chassis.config.render import render
from chassis.config.secrets import SECRET_FILE, RouterSecret
from chassis.linecard.engine import LineCardEngine
from chassis.model.ipsec import ManualSa
from chassis.model.router import Config
from chassis.net.ethernet import HEADROOM
from chassis.sim.faults import MIN_RUN_TIME, Faults
from chassis.sim.ike_process_model import WALL
from chassis.sim.lab import LabModel
from chassis.sim.node import CardModel, CardStart, ControllerStart, NodeModel, Variant
from chassis.sim.run import SimOutcome, simulate
from chassis.sim.testers import TesterModel
from chassis.tester.engine import TesterEngine
from chassis.tester.flow import MAGIC, OVERHEAD
from chassis.xcrp import configuration, inventory
from chassis.xcrp.engine import ControllerEngine
from launch.lab import model as labs
from launch.lab.parser import load
from launch.lab.yaml_source import LabError

SECRET = "secret-of-simulated-routers"
"""The secret of a router whose lab gives none."""

SA_SLOTS = 64
"""SAs (count) that a simulated ASP can hold: few, because each start reads the whole file."""

OTHER_MTU = 1300
OTHER_WINDOW = 128
OTHER_MOST = 1000
"""Values of the second configuration of a router, in every tunnel and every manual SA."""

_FLOW = Struct(f"!{len(MAGIC)}sIIQ")
_FLOW_AT = HEADROOM + OVERHEAD


def identify(body: bytes | bytearray | memoryview, at: int) -> tuple[int, int, int] | None:
    """Return (flow, start, sequence number) of the frame at an offset; None if the frame is not of a flow."""
    at += _FLOW_AT
    if len(body) < at + _FLOW.size:
        return None
    magic, flow, run, sequence = _FLOW.unpack_from(body, at)
    return (flow, run, sequence) if magic == MAGIC else None


def model(path: Path) -> LabModel:
    """Build the simulator's model of a lab file.

    Raises:
        LabError: the file, or a configuration that it names, has errors.
        ValueError: the lab has nodes that cannot be simulated.
    """
    lab, _ = load(path)
    nodes: list[labs.Node] = [*lab.linux(), *lab.peers()]
    for node in nodes:
        raise ValueError(f"{node.name}: a node of kind {node.kind} cannot be simulated")
    return LabModel(
        lab.name,
        tuple(_router(node) for node in lab.routers()),
        tuple(_tester(lab, node) for node in lab.testers()),
        tuple(
            ((link.ends[0].node, link.ends[0].port), (link.ends[1].node, link.ends[1].port)) for link in lab.links
        ),
        identify,
    )


def _router(node: labs.RouterNode) -> NodeModel:
    text = regular_files.read_text(node.config, errors="replace")
    secret = RouterSecret((node.secret or SECRET,))
    checked = configuration.check(text, node.config.name, modern=node.modern, secret=secret)
    if checked.refused and node.settings.refuse_errors:
        raise LabError(checked.diagnostics)
    config = checked.config
    settings = node.to_settings()

    def controller(start: ControllerStart) -> ControllerEngine:
        return ControllerEngine(
            node.name,
            boot=start.boot,
            files={SECRET_FILE: secret.write(), **start.files},
            startup=(text, node.config.name),
            settings=settings,
            now=start.now,
            flash=start.store,
            wall_offset=WALL,
            random=start.random,
            read_flash=start.read_flash,
        )

    return NodeModel(
        node.name,
        controller,
        tuple(_card(card, kind, config) for card, kind in inventory.cards_of(config)),
        restart_delay=node.settings.restart_delay,
        heartbeat=node.settings.heartbeat_interval,
        misses=node.settings.heartbeat_misses,
        module=state.__file__,
        variants=(Variant(text, _marks(config)), _second(config)),
        flash=_flash(node.flash) if node.flash is not None else {},
    )


def _flash(folder: Path) -> dict[FlashPath, bytes]:
    """Return the files that a flash is filled with; the check of the lab has said what can't be read."""
    found: dict[FlashPath, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with contextlib.suppress(OSError):
                found[path.relative_to(folder).parts] = regular_files.read_bytes(path, MAX_CONFIGURATION)
    return found


def _card(card: str, kind: str, config: Config) -> CardModel:
    if kind == inventory.LINE_CARD:
        ports = tuple(port for port in config.ports if inventory.card_of_port(config, port) == card)
        return CardModel(card, _line_card, ports)
    return CardModel(card, _asp, memory=state.octets_for(SA_SLOTS), ike_engine=_ike)


def _line_card(start: CardStart) -> LineCardEngine:
    return LineCardEngine(start.card, pid=start.pid, boot=start.boot, counters=start.counters)


def _asp(start: CardStart) -> AspEngine:
    return AspEngine(
        start.card,
        pid=start.pid,
        boot=start.boot,
        counters=start.counters,
        state=start.memory,
        fresh=start.fresh,
        random=start.random,
        others=start.others,
    )


def _ike(start: CardStart) -> IkeEngine:
    return IkeEngine(start.card, random=start.random)


def _tester(lab: labs.Lab, node: labs.TesterNode) -> TesterModel:
    ports = {port: values.plain() for port, values in node.ports.items()}
    flows = {name: {**flow.plain(), "start": "manual"} for name, flow in lab.flows.items()}

    def make() -> TesterEngine:
        return TesterEngine(node.name, ports=ports, flows=flows, settings=node.settings.to_json())

    begins = tuple(name for name, flow in lab.flows.items() if flow.origin.node == node.name)
    return TesterModel(node.name, make, tuple(ports), begins)


def _second(config: Config) -> Variant:
    """Return a configuration that differs in many values, so that a partial commit is detected."""
    tunnels = {
        name: replace(tunnel, max_tunnels=OTHER_MOST)
        if tunnel.kind == "on-demand"
        else replace(tunnel, mtu=OTHER_MTU)
        for name, tunnel in config.tunnels.items()
    }
    sas = {name: replace(sa, window=OTHER_WINDOW) for name, sa in config.manual_sas.items()}
    other = replace(config, tunnels=tunnels, manual_sas=sas)
    return Variant(render(other), _marks(other))


def _marks(config: Config) -> Callable[[Record], bool | None]:
    mtus = {name: tunnel.mtu for name, tunnel in config.tunnels.items()}
    most = {name: tunnel.max_tunnels for name, tunnel in config.tunnels.items()}
    windows = {name: sa.replay_window for name, sa in config.manual_sas.items()}

    def marks(record: Record) -> bool | None:
        if isinstance(record, records.OnDemandRecord):
            return record.config.max_tunnels == most.get(record.config.name)
        if isinstance(record, records.TunnelRecord) and record.instance is None:
            return record.config.mtu == mtus.get(record.config.name)
        if isinstance(record, records.PolicyRecord) and isinstance(record.value, ManualSa):
            return record.value.replay_window == windows.get(record.value.name)
        return None

    return marks


# many seeds

_job: tuple[LabModel, float, Faults]


def _adopt(lab: LabModel, minutes: float, faults: Faults) -> None:
    global _job
    _job = (lab, minutes, faults)


def _one(seed: int) -> SimOutcome:
    lab, minutes, faults = _job
    return simulate(lab, seed, minutes, faults)


def campaign(
    lab: LabModel,
    seeds: Iterable[int],
    minutes: float = 5.0,
    faults: Faults | None = None,
    workers: int | None = None,
) -> Iterator[SimOutcome]:
    """Yield the outcome of each seed as it ends; use `workers` processes, by default one for each core."""
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    _adopt(lab, minutes, faults or Faults())
    if count <= 1:
        yield from map(_one, seeds)
        return
    # Fork the workers: engines are made by closures, which cannot be pickled.
    with multiprocessing.get_context("fork").Pool(count) as pool:
        yield from pool.imap_unordered(_one, seeds)


@click.command("simulate")
@click.argument("lab", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--seeds", type=click.IntRange(min=1), default=200, show_default=True, help="Number of seeds to run."
)
@click.option("--from", "start", type=click.IntRange(min=1), default=1, show_default=True, help="First seed.")
@click.option("--minutes", default=5.0, show_default=True, help="Simulated minutes of each run.")
@click.option("--seed", type=int, help="Run this one seed only: the replay of a schedule.")
@click.option("--trace", is_flag=True, help="Print every event of the run (with --seed).")
@click.option("--first", is_flag=True, help="End at the first schedule that goes wrong.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use; one for each core when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def command(
    lab: Path,
    seeds: int,
    start: int,
    minutes: float,
    seed: int | None,
    trace: bool,
    first: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Run LAB on a fake clock under schedules of faults, each drawn from its seed.

    Exit with status 1 if a schedule violated a rule.
    """
    if not MIN_RUN_TIME <= minutes * 60 < inf:
        raise click.BadParameter(f"a run takes {MIN_RUN_TIME / 60:.2g} minutes or more", param_hint="--minutes")
    try:
        made = model(lab)
    except (LabError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if seed is not None:
        tell = (lambda time, line: click.echo(f"{time:12.6f} {line}", err=as_json)) if trace else None
        outcomes: Iterable[SimOutcome] = iter([simulate(made, seed, minutes, trace=tell)])
    elif trace:
        raise click.UsageError("--trace needs one schedule; give it with --seed")
    else:
        outcomes = campaign(made, range(start, start + seeds), minutes, workers=workers)
    done: list[SimOutcome] = []
    for outcome in outcomes:
        done.append(outcome)
        if not as_json and not outcome.passed:
            click.echo(f"seed {outcome.seed}: {outcome.rule}: {outcome.what}")
            if outcome.details and seed is not None:
                click.echo(outcome.details)
            click.echo(f"  after {outcome.time:.6f} s; again: {_again(lab, outcome.seed, minutes)}")
        if first and not outcome.passed:
            break
    failed = [outcome for outcome in done if not outcome.passed]
    if as_json:
        runs = [{**asdict(outcome), "again": _again(lab, outcome.seed, minutes)} for outcome in done]
        click.echo(json.dumps({"passed": not failed, "minutes": minutes, "runs": runs}))
    else:
        click.echo(_summary(done, minutes, len(failed)))
        # A lab may intend this (a router without its peers); report that these tunnels were not checked.
        for tunnel in dict.fromkeys(tunnel for outcome in done for tunnel in outcome.down):
            click.echo(f"not checked, because it was down before the first fault: tunnel {tunnel}")
    raise SystemExit(1 if failed else 0)


def _again(lab: Path, seed: int, minutes: float) -> str:
    return f"chassis-launch simulate {lab} --minutes {minutes:g} --seed {seed} --trace"


def _summary(done: list[SimOutcome], minutes: float, failed: int) -> str:
    total = {
        name: sum(getattr(outcome, name) for outcome in done)
        for name in ("kills", "stops", "commits", "sent", "delivered", "events")
    }
    return (
        f"{len(done)} schedules of {minutes:g} simulated minutes: {total['kills']} kills, {total['stops']} stops, "
        f"{total['commits']} commits, {total['sent']} packets sent and {total['delivered']} delivered, "
        f"{total['events']} events; {failed or 'none'} went wrong"
    )
