"""`chassisctl bus`: print the messages of the control bus live, or from a record (docs/bus.md)."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chassis.bus import codec, recording, regular_files
from chassis.bus.operator import OperatorError, OperatorGone
from chassis.bus.recording import RecordedMessage, RecordError
from launch.client.running_lab import RunningLab
from launch.ctl.base import PACKETS, CheckedParam, lab_command
from launch.ctl.bus_filter import Filter
from launch.lab.yaml_source import nearest

if TYPE_CHECKING:
    from launch.ctl.bus_replay import Answer

RECONNECT_INTERVAL = 0.02
"""Time (s) between two attempts to reconnect to a controller."""

ARROWS: Mapping[str, str] = {"to-controller": "->", "to-card": "<-", "": "--"}
SIGNS: Mapping[str, str] = {"in": "<-", "same": "=", "recorded": "-", "engine": "+", "note": "--"}

TYPES = tuple(kind.__name__ for kind in codec.MESSAGE_TYPES)


def _type(word: str) -> str:
    if word in TYPES:
        return word
    close = nearest(word, TYPES)
    hint = f"did you mean {close}? " if close else ""
    raise ValueError(f"{word!r} is not a message type; {hint}types: {', '.join(TYPES)}")


Line = tuple[Mapping[str, Any], RecordedMessage]


@lab_command(unless="from_file")
@click.argument("nodes", nargs=-1)
@click.option(
    "--type",
    "types",
    multiple=True,
    type=CheckedParam("type", _type),
    help="Only messages of this type, such as TunnelEvent; repeatable.",
)
@click.option("--card", help="Only messages to and from this card, such as 'asp 1/1'.")
@click.option("--tunnel", metavar="NAME", help="Only messages about this tunnel, by its name or its number.")
@click.option("--text", "contains", help="Only messages with this in them.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write them to a new file, one JSON object a line, without keys. A file of yours of that "
    "name is replaced.",
)
@click.option(
    "--replay",
    "from_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Print the messages of a record, without any lab.",
)
@click.option("--engine", is_flag=True, help="Give a card's messages of the record to a new engine (see above).")
@click.option("--count", type=PACKETS, help="End after so many messages.")
def bus(
    lab: RunningLab | None,
    nodes: tuple[str, ...],
    types: tuple[str, ...],
    card: str | None,
    tunnel: str | None,
    contains: str | None,
    record: Path | None,
    from_file: Path | None,
    engine: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print the control messages of routers, decoded, as they pass; of all routers if none is named.

    The command continues when a controller is killed and restarted, and notes both.

    \b
    chassisctl bus a --type TunnelEvent
    chassisctl bus --tunnel t1
    chassisctl bus a --record seen.jsonl
    chassisctl bus --replay seen.jsonl a --card 'lc 3'
    chassisctl bus --replay seen.jsonl a --card 'lc 3' --engine

    With --engine a new engine of the card's kind gets the messages to a line card or an ASP (<-) at the recorded
    times. Its answers are compared with the recorded ones: the same (=), in the record only (-), from the engine
    only (+). Heartbeats and trace stamps are left out. Answers that depend on packets or on IKE differ, because a
    record has neither. Keys of manual SAs are zeros in it. Record without --type, --tunnel and --text, and from
    before the card's start (restart it), so that nothing is missing.
    """
    chosen = Filter(types, card, tunnel, contains)
    if from_file is not None:
        if record is not None:
            raise click.UsageError("--record and --replay exclude each other: --record writes live messages")
        _replayed(from_file, nodes, chosen, engine, count, as_json)
        return
    if engine:
        raise click.UsageError("--engine needs a record; give its file with --replay")
    assert lab is not None
    names = nodes or tuple(lab.routers())
    _known(lab, names, chosen)
    with ExitStack() as stack:
        file = None
        if record is not None:
            try:
                file = stack.enter_context(open(regular_files.create(record), "w", buffering=1))
            except OSError as error:
                raise OperatorError(f"{record}: {error.strerror}") from None
            file.write(json.dumps(recording.header()) + "\n")
        shown = 0
        try:
            for values, entry in _passing(lab, names, chosen):
                if entry.note:
                    click.echo(_text(entry), err=True)
                if file is not None:
                    file.write(json.dumps(values) + "\n")
                if not entry.note:
                    click.echo(json.dumps(values) if as_json else _text(entry))
                    shown += 1
                if shown == count:
                    return
        except KeyboardInterrupt:
            return


def _text(entry: RecordedMessage) -> str:
    said = entry.note if entry.message is None else repr(entry.message)
    return f"{entry.node} {entry.card:8} {ARROWS[entry.direction]} {said}"


# live


def _known(lab: RunningLab, nodes: tuple[str, ...], chosen: Filter) -> None:
    """Reject a card or a tunnel that no router has, because no message would ever match."""
    if chosen.card is not None:
        cards = [row["card"] for row in lab.launcher("ps")["processes"] if row["node"] in nodes]
        if chosen.card not in cards:
            raise OperatorError(
                f"{', '.join(nodes)}: no {chosen.card}; there are {', '.join(dict.fromkeys(cards))}"
            )
    if chosen.tunnel is None:
        return
    names: list[str] = []
    for node in nodes:
        try:
            names += _learn(lab, node, chosen)
        except OperatorGone:
            # A router whose controller is away cannot list its cards and tunnels.
            return
    if not chosen.knows_tunnel():
        close = nearest(chosen.tunnel, names)
        hint = f"did you mean {close!r}?" if close else f"tunnels: {', '.join(dict.fromkeys(names)) or 'none'}"
        raise OperatorError(f"{', '.join(nodes)}: no tunnel {chosen.tunnel!r}; {hint}")


def _learn(lab: RunningLab, node: str, chosen: Filter) -> list[str]:
    """Ask the controller for the tunnel's number and store it. Return the names of all tunnels."""
    rows = lab.node(node, "status")["tunnels"]
    for row in rows:
        chosen.learn(node, row["name"], row["number"])
    return [row["name"] for row in rows]


def _passing(lab: RunningLab, nodes: tuple[str, ...], chosen: Filter) -> Iterator[Line]:
    """Yield matching messages, and notes on controllers that ended or restarted, until the lab ends.

    Ctrl-C ends it between two messages, so that each is both printed and recorded or neither; a second one ends it
    at once.
    """
    # SimpleQueue.put is reentrant, which a signal handler needs.
    lines: queue.SimpleQueue[Line | Exception | None] = queue.SimpleQueue()
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        lines.put(None)

    before = signal.signal(signal.SIGINT, end)
    try:
        for node in nodes:
            threading.Thread(target=_watch, args=(lab, node, chosen, lines), daemon=True).start()
        while (line := lines.get()) is not None and not ended:
            if isinstance(line, Exception):
                raise line
            yield line
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(lab: RunningLab, node: str, chosen: Filter, lines: queue.SimpleQueue[Line | Exception | None]) -> None:
    """Put the messages of one router into the queue; put an exception when no more will come."""

    def note(text: str) -> None:
        values = recording.note(time.time(), node, text)
        lines.put((values, recording.entry(values)))

    away = False
    try:
        while lab.runs():
            try:
                with lab.open(node) as client:
                    fresh = True
                    messages = client.stream("bus", types=list(chosen.types))
                    if away:
                        note("the controller is back: what passed before this moment is missing")
                    away = False
                    for values in messages:
                        if fresh and chosen.tunnel is not None:
                            # Learn the number after the watch has begun, so that no message is missed in between.
                            _learn(lab, node, chosen)
                        fresh = False
                        entry = recording.entry(values)
                        if chosen.takes(entry):
                            lines.put((values, entry))
            except OperatorGone:
                if not away:
                    note("the controller went away")
                away = True
                time.sleep(RECONNECT_INTERVAL)
        lines.put(OperatorError(f"lab {lab.name} has ended"))
    except (OperatorError, RecordError) as error:
        lines.put(error if isinstance(error, OperatorError) else OperatorError(str(error)))


# from a record


def _replayed(
    file: Path, nodes: tuple[str, ...], chosen: Filter, engine: bool, count: int | None, as_json: bool
) -> None:
    try:
        with open(regular_files.open_regular(file), encoding="utf-8", errors="replace") as lines:
            if engine:
                _answers(recording.read(lines), nodes, chosen, count, as_json)
            else:
                _printed(recording.read(lines), nodes, chosen, count, as_json)
    except RecordError as error:
        raise OperatorError(f"{file}: {error}") from None
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from None


def _printed(
    lines: Iterator[Line], nodes: tuple[str, ...], chosen: Filter, count: int | None, as_json: bool
) -> None:
    seen: dict[str, set[str]] = {}
    shown = 0
    for values, entry in lines:
        seen.setdefault(entry.node, set()).add(entry.card)
        if nodes and entry.node not in nodes:
            continue
        if entry.note and not as_json:
            click.echo(_text(entry), err=True)
        if not chosen.takes(entry):
            continue
        click.echo(json.dumps(values) if as_json else _text(entry))
        shown += 1
        if shown == count:
            return
    if not shown:
        raise OperatorError(f"no message of the record matches; {_has(seen)}")


def _answers(
    lines: Iterator[Line], nodes: tuple[str, ...], chosen: Filter, count: int | None, as_json: bool
) -> None:
    # Engines take long to import, and no other command needs them.
    from launch.ctl.bus_replay import replay

    if chosen.card is None:
        raise click.UsageError("--engine needs a card; give one with --card, such as --card 'lc 3'")
    if not chosen.card.startswith(("lc ", "asp ")):
        raise click.UsageError(f"{chosen.card!r} is not a card for --engine; expected lc N or asp N/M")
    entries = [entry for _, entry in lines if not nodes or entry.node in nodes]
    seen: dict[str, set[str]] = {}
    for entry in entries:
        seen.setdefault(entry.node, set()).add(entry.card)
    having = [node for node, cards in seen.items() if chosen.card in cards]
    if len(having) != 1:
        what = f"{', '.join(having)} have {chosen.card}: give the router" if having else f"no {chosen.card} in it"
        raise OperatorError(f"{what}; {_has(seen)}")
    answers, summary = replay([entry for entry in entries if entry.node == having[0]], chosen.card)
    for entry in entries:
        chosen.takes(entry)
    began = answers[0].time if answers else 0.0
    shown = 0
    for answer in answers:
        if answer.message is not None and not chosen.fits(having[0], answer.message):
            continue
        click.echo(json.dumps(answer.to_json()) if as_json else _answer(answer, began))
        shown += 1
        if shown == count:
            return
    click.echo(summary, err=as_json)


def _answer(answer: Answer, began: float) -> str:
    return f"{answer.time - began:10.3f} {SIGNS[answer.what]:2} {answer.text}"


def _has(seen: Mapping[str, set[str]]) -> str:
    cards = "; ".join(f"{node}: {', '.join(sorted(cards))}" for node, cards in seen.items())
    return f"it has {cards or 'none'}"
