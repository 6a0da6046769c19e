"""The processes of a node of peers: one alone, or one with the port that forks the others, its members.

A member is fed through a socket pair and ends with the process that forked it; that one ends if a member does, and
the launcher starts all of them again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import zmq
from setproctitle import setproctitle

from chassis.ase.ike_process import Pipe, PipeClosed
from chassis.bus.codec import carrier
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToWire
from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.parent_death import die_with_parent
from chassis.bus.scheduling import COMPUTE_SLICE, ask_for_slice
from chassis.peers.engine import PeersEngine
from chassis.peers.group import (
    FromMember,
    MemberCarrier,
    MemberCommand,
    MemberFrames,
    PeersGroup,
    ToMember,
    batch_of,
    frames_message,
    run_command,
)
from chassis.peers.spec import read_spec
from chassis.tester.shell import TesterShell

_encode_to, _decode_to = carrier(ToMember)
_encode_from, _decode_from = carrier(FromMember)

DROPPED: Final = "drop member busy"
"""Counter of batches that a member, or the process with the port, did not take."""


class MemberLink:
    """A pipe in a loop: hands over what comes, and waits while the other end takes no more."""

    def __init__(
        self, loop: Loop, pipe: Pipe, receive: Callable[[Any], None], on_closed: Callable[[], None]
    ) -> None:
        self._loop, self._pipe = loop, pipe
        self._receive, self._on_closed = receive, on_closed
        self._writing = False
        loop.add(pipe.socket.fileno(), self._ready)

    def send(self, message: ToMember | FromMember) -> bool:
        """Send a message; return whether it was not dropped."""
        dropped = self._pipe.dropped
        try:
            self._pipe.send(message)
        except PipeClosed:
            self._on_closed()
        self._watch()
        return self._pipe.dropped == dropped

    def _ready(self, now: float) -> None:
        try:
            self._pipe.flush()
            messages = self._pipe.receive()
        except PipeClosed:
            self._on_closed()
            return
        for message in messages:
            self._receive(message)
        self._watch()

    def _watch(self) -> None:
        if self._pipe.pending == self._writing:
            return
        self._writing = self._pipe.pending
        self._loop.remove(self._pipe.socket.fileno())
        flags = zmq.POLLIN | zmq.POLLOUT if self._writing else zmq.POLLIN
        self._loop.add(self._pipe.socket.fileno(), self._ready, flags)


def run(env: Environment) -> int:
    """Run the process of a node of peers, a tester's shell around its engine; return its exit status."""
    spec = read_spec(env.peers)[0]
    if spec is None or len(spec.split()) == 1:
        counters = env.counters()
        engine = _engine(env, counters, None)
        return TesterShell(env, engine, counters).run()
    # Fork before any socket or thread exists, because members would inherit them.
    pipes = [_fork(env, part) for part in range(len(spec.split()))]
    counters = env.counters()
    links: list[MemberLink] = []
    ((port, values),) = env.ports.items()

    def post(member: int, message: ToMember) -> None:
        if not links[member].send(message):
            counters.add(DROPPED)

    group = PeersGroup(port, values, spec, counters, post)
    shell = TesterShell(env, group, counters)

    def lost(member: int) -> None:
        print(f"{env.node} lost its process {member + 1}", file=sys.stderr)
        sys.exit(1)

    for member, pipe in enumerate(pipes):
        links.append(
            MemberLink(
                shell.loop,
                pipe,
                lambda message, member=member: shell.perform(group.from_member(member, message)),  # type: ignore[misc]
                lambda member=member: lost(member),  # type: ignore[misc]
            )
        )
    return shell.run()


def _engine(env: Environment, counters: Counters, part: int | None) -> PeersEngine:
    return PeersEngine(
        env.node,
        ports=env.ports,
        peers=env.peers,
        random=os.urandom,
        settings=dict(env.settings),
        counters=counters,
        part=part,
        wall=time.time,
    )


def _fork(env: Environment, part: int) -> Pipe:
    """Fork a member; return the pipe to it."""
    ours, its = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        status = 1
        try:
            die_with_parent(parent)
            ours.close()
            status = _run_member(env, part, Pipe(its, _encode_from, _decode_to, MemberFrames))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    its.close()
    return Pipe(ours, _encode_to, _decode_from, MemberFrames)


def _run_member(env: Environment, part: int, pipe: Pipe) -> int:
    setproctitle(f"chassis {env.node} {env.card} {part + 1}")
    ask_for_slice(COMPUTE_SLICE)
    # The process ends when the one that forked it closes its end of the pipe.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = _engine(env, Counters(), part)
    ((port, _),) = env.ports.items()
    loop = Loop()

    def perform(outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToWire) and not link.send(frames_message(output.batch)):
                engine.counters.add(DROPPED)

    def receive(message: ToMember) -> None:
        now = time.monotonic()
        if isinstance(message, MemberFrames):
            perform(engine.receive_frames(port, batch_of(message), now))
        elif isinstance(message, MemberCarrier):
            perform(engine.on_carrier(port, message.up, now))
        elif isinstance(message, MemberCommand):
            outputs, answer = run_command(engine, message, now)
            perform(outputs)
            link.send(answer)

    link = MemberLink(loop, pipe, receive, loop.stop)
    perform(engine.start(time.monotonic()))
    loop.run(engine.next_timer, lambda now: perform(engine.on_timer(now)))
    return 0
