"""`chassisctl cli` and `console`: the router's own CLI, one command of it and a session in this terminal."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path

import click

from chassis.bus.operator import OperatorError
from chassis.cli.session import Action, Ask, Carry, CliSession, Close, Verify, Wake, Write
from launch.client.operator_stream import OperatorStream
from launch.client.running_lab import RunningLab
from launch.ctl.base import main

NO_PASSWORD = "no password is set for this privilege"
"""Answer to every password: the owner of a lab is asked for none."""

NO_URLS = "files of other machines are for sessions over SSH"
"""Answer to every transfer: the owner of a lab has other ways."""

READ_OCTETS = 4096
"""Most octets of keys that are read at once."""


_LAB = click.option("--lab", "own_lab", metavar="NAME", help="The lab; the only one that runs when left out.")


@main.command()
@click.argument("node")
@click.option("-c", "--command", metavar="COMMAND", help="The command; status 1 where it is refused.")
@_LAB
@click.pass_context
def cli(ctx: click.Context, node: str, command: str | None, own_lab: str | None) -> None:
    """Run one command of the router's own CLI, as in `cli a -c 'show tunnel'`.

    `console a` is a session in this terminal, `ssh -F RUN/ssh_config a` one over SSH.
    """
    if command is None:
        raise click.UsageError(f"no command; give one with -c, or use 'chassisctl console {node}' for a session")
    raise SystemExit(_run_one(_socket(own_lab or ctx.obj, node), node, command))


@main.command()
@click.argument("node")
@_LAB
@click.pass_context
def console(ctx: click.Context, node: str, own_lab: str | None) -> None:
    """The router's own CLI in this terminal, as the lab's owner and without a login; `exit` or ^D ends it."""
    path = _socket(own_lab or ctx.obj, node)
    if not sys.stdin.isatty():
        raise click.UsageError("a session needs a terminal; 'chassisctl cli NODE -c COMMAND' needs none")
    with _raw_terminal(sys.stdin.fileno()):
        status = TerminalSession(path, node, sys.stdin.fileno(), sys.stdout.fileno()).run()
    raise SystemExit(status)


def _socket(lab_name: str | None, node: str) -> Path:
    """Return the operator socket of a router.

    Raises:
        OperatorError: the lab or the router is not there.
    """
    lab = RunningLab.find(lab_name)
    if lab.nodes.get(node, {}).get("kind", "smartedge") != "smartedge":
        raise OperatorError(f"{node} is no router")
    return lab.socket(node)


def _session(node: str, terminal: bool, size: os.terminal_size) -> CliSession:
    return CliSession(
        node,
        getpass.getuser(),
        width=size.columns,
        length=size.lines,
        terminal=terminal,
        wall_offset=time.time() - time.monotonic(),
    )


def _run_one(path: Path, node: str, command: str) -> int:
    """Run one command and print its text; return the exit status."""
    session = _session(node, False, os.terminal_size((80, 0)))
    waiting = session.execute(command, time.monotonic())
    with contextlib.closing(OperatorStream(path)) as stream:
        while waiting:
            action = waiting.pop(0)
            match action:
                case Write(text):
                    sys.stdout.buffer.write(text)
                    sys.stdout.flush()
                case Close(status):
                    return status
                case Verify(number):
                    waiting += session.answer(number, {}, NO_PASSWORD, time.monotonic())
                case Carry(number):
                    waiting += session.answer(number, {}, NO_URLS, time.monotonic())
                case Wake(at):
                    time.sleep(max(at - time.monotonic(), 0.0))
                    waiting += session.on_timer(time.monotonic())
                case Ask(number, name, arguments):
                    stream.ask(number, name, arguments)
                    while not (answers := stream.answers(block=True)):
                        pass
                    for answered, result, error in answers:
                        waiting += session.answer(answered, result, error, time.monotonic())
    return 1


@contextlib.contextmanager
def _raw_terminal(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on as it is typed, until the end."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class TerminalSession:
    """A session between a terminal (`keys` in, `screen` out) and a router's operator socket."""

    def __init__(self, path: Path, node: str, keys: int, screen: int) -> None:
        self._keys, self._screen = keys, screen
        self._stream = OperatorStream(path)
        self._session = _session(node, True, os.get_terminal_size(screen))
        self._status: int | None = None
        self._wake_at = inf

    def run(self) -> int:
        """Serve the session until it ends; return its status."""
        waker, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.signal(signal.SIGWINCH, lambda *_: os.write(woken, b"r"))
        try:
            self._do(self._session.start(time.monotonic()))
            self._do(self._session.watch_console(time.monotonic()))
            while self._status is None:
                watched = [self._keys, waker, *self._stream.filenos()]
                rest = None if self._wake_at == inf else max(self._wake_at - time.monotonic(), 0.0)
                ready, _, _ = select.select(watched, [], [], rest)
                if time.monotonic() >= self._wake_at:
                    self._wake_at = inf
                    self._do(self._session.on_timer(time.monotonic()))
                if waker in ready:
                    os.read(waker, 64)
                    size = os.get_terminal_size(self._screen)
                    self._session.resize(size.columns, size.lines)
                if self._keys in ready:
                    keys = os.read(self._keys, READ_OCTETS)
                    if not keys:
                        return 0
                    self._do(self._session.receive(keys, time.monotonic()))
                for number, result, error in self._stream.answers():
                    self._do(self._session.answer(number, result, error, time.monotonic()))
        finally:
            signal.signal(signal.SIGWINCH, before)
            os.close(waker)
            os.close(woken)
            self._stream.close()
        return self._status

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Write(text):
                    _write(self._screen, text)
                case Ask(number, command, arguments):
                    self._stream.ask(number, command, arguments)
                case Verify(number):
                    self._do(self._session.answer(number, {}, NO_PASSWORD, time.monotonic()))
                case Carry(number):
                    self._do(self._session.answer(number, {}, NO_URLS, time.monotonic()))
                case Wake(at):
                    self._wake_at = at
                case Close(status):
                    self._status = status


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
