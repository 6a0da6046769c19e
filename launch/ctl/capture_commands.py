"""`chassisctl capture`: capture packets into a pcapng file, or live into a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from chassis.bus.capture import MIN_RING_OCTETS
from chassis.bus.operator import OperatorError
from launch.client.running_lab import RunningLab
from launch.ctl.base import lab_command, option, print_answer

PIPE = 1 << 20
"""Octets that the reader of a live capture may lag before packets are left out."""

READ_SIZE = 1 << 16


@lab_command()
@click.argument("node")
@click.argument("what", nargs=-1, required=True)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="End after this time (default: at Ctrl-C)."
)
@option("controller", "capture", "snaplen")
@click.option(
    "--ring",
    type=click.IntRange(min=MIN_RING_OCTETS),
    help="Keep only the last so many octets: the newest in FILE, earlier ones in its .older.",
)
def capture(
    lab: RunningLab,
    node: str,
    what: tuple[str, ...],
    file: Path,
    seconds: float | None,
    snaplen: int,
    ring: int | None,
    as_json: bool,
) -> None:
    """Capture packets at a port, at either side of an ASP, or on the fabric, into a pcapng file; live if FILE is
    -.

    \b
    chassisctl capture a port 3/11 wire.pcapng
    chassisctl capture a asp 1/1 inner inner.pcapng
    chassisctl capture a asp 1/1 outer - | wireshark -k -i -
    chassisctl capture a asp 1/1 both.pcapng
    chassisctl capture a fabric lc 3 fabric.pcapng

    The inner side of an ASP has packets before encapsulation and after decapsulation; the outer side has the same
    packets to and from the wire, and IKE. The file is new and only its owner can read it: a file of yours of that
    name is replaced, a file of another user or a link is refused.
    """
    point = " ".join(what)
    # Every signal that ends this command must end the capture. A shell lets a script's `&` jobs ignore Ctrl-C, so
    # `kill -INT` must work there; under nohup a hangup stays ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    if str(file) == "-":
        if as_json:
            raise click.UsageError("--json and FILE - both write to standard output; give one of them")
        with _pipe() as (path, source):
            with _capturing(lab, node, point, path, snaplen, 0) as stop:
                if seconds is None:
                    click.echo(f"capturing {node} {point}; Ctrl-C ends it", err=True)
                with contextlib.suppress(KeyboardInterrupt):
                    _copy(source, sys.stdout.fileno(), seconds)
                answer = stop()
            _copy(source, sys.stdout.fileno(), 0)
        if answer.get("interrupted") and not answer["error"]:
            answer["error"] = f"the card of {point} died"
        _warn(answer)
        return
    path = file.absolute()
    with _capturing(lab, node, point, path, snaplen, ring or 0) as stop:
        if seconds is None:
            click.echo(f"capturing {node} {point} into {file}; Ctrl-C ends it", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            _sleep(seconds)
        answer = stop()
    if answer.get("interrupted"):
        click.echo(
            f"the card of {point} died {answer['interrupted']} times: its next start went on with the file",
            err=True,
        )
    _warn(answer)
    size = file.stat().st_size
    said = {
        "file": str(path),
        "size": size,
        "missed": answer.get("missed", 0),
        "interrupted": answer.get("interrupted", 0),
    }
    print_answer(as_json, said, f"{file}: {size} bytes")


@contextlib.contextmanager
def _capturing(
    lab: RunningLab, node: str, point: str, path: Path, snaplen: int, ring: int
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a capture and yield the function that ends it; end it on every exit."""
    lab.node(node, "capture", what=point, file=str(path), snaplen=snaplen, ring=ring)
    answer: list[dict[str, Any]] = []

    def stop() -> dict[str, Any]:
        if not answer:
            answer.append({"missed": 0, "error": "stopped"})
            answer[0] = lab.node(node, "capture-stop", what=point, file=str(path))
        return answer[0]

    try:
        yield stop
    finally:
        stop()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[Path, int]]:
    """Create a named pipe that only this user can open, and open its reading end."""
    with tempfile.TemporaryDirectory(prefix="chassis-") as folder:
        path = Path(folder) / "capture"
        os.mkfifo(path, 0o600)
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # The system may limit the size of pipes: capture with the default size then.
            with contextlib.suppress(OSError):
                fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, PIPE)
            yield path, source
        finally:
            os.close(source)


def _copy(source: int, target: int, seconds: float | None) -> None:
    """Copy until the writer or the reader closes, or for this time (s); always copy what is already in the
    pipe."""
    end = None if seconds is None else time.monotonic() + seconds
    poll = select.poll()
    poll.register(source, select.POLLIN)
    # Without a requested event, poll still reports that the reader closed.
    poll.register(target, 0)
    while True:
        left = None if end is None else max(end - time.monotonic(), 0) * 1000
        ready = dict(poll.poll(left))
        if target in ready or not ready:
            return
        try:
            data = os.read(source, READ_SIZE)
            if not data:
                return
            while data:
                data = data[os.write(target, data) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            return


def _warn(answer: dict[str, Any]) -> None:
    if answer.get("missed"):
        click.echo(f"{answer['missed']} packets are missing: the reader was too slow", err=True)
    if answer.get("error"):
        raise OperatorError(f"the capture ended early: {answer['error']}")


def _sleep(seconds: float | None) -> None:
    if seconds is None:
        while True:
            time.sleep(3600)
    time.sleep(seconds)
