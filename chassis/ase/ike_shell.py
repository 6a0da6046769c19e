"""The IKE process of an ASP: forked by it, fed by it, and gone with it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback

import zmq
from setproctitle import setproctitle

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.link import FromIke, LeftOut, ToIke
from chassis.ase.pipe import Pipe, PipeClosed
from chassis.bus.codec import carrier
from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.parent_death import die_with_parent
from chassis.bus.scheduling import COMPUTE_SLICE, ask_for_slice

NICE = 5
"""The arithmetic of key exchanges yields to packets and heartbeats where they want the same core."""

_encode_to, _decode_to = carrier(ToIke)
_encode_from, _decode_from = carrier(FromIke)


def start(env: Environment) -> Pipe:
    """Fork the process; the data engine's end of the pipe."""
    ours, its = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        status = 1
        try:
            die_with_parent(parent)
            ours.close()
            status = _run(env, Pipe(its, _encode_from, _decode_to))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    its.close()
    return Pipe(ours, _encode_to, _decode_from)


def _run(env: Environment, pipe: Pipe) -> int:
    setproctitle(f"chassis {env.node} {env.card} ike")
    os.nice(NICE)
    ask_for_slice(COMPUTE_SLICE)
    # The data engine's end of the pipe tells when to go.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = IkeEngine(env.card, random=os.urandom)
    loop = Loop()
    writing = False

    def watch() -> None:
        nonlocal writing
        if pipe.pending == writing:
            return
        writing = pipe.pending
        loop.remove(pipe.socket.fileno())
        loop.add(pipe.socket.fileno(), ready, zmq.POLLIN | zmq.POLLOUT if writing else zmq.POLLIN)

    def send(messages: list[FromIke]) -> None:
        for message in messages:
            left = pipe.send(message)
            if left is not None:
                send(engine.on_message_dropped(left.text, left.number, time.monotonic()))
        watch()

    def ready(now: float) -> None:
        pipe.flush()
        for message in pipe.receive():
            now = time.monotonic()
            if isinstance(message, LeftOut):
                send(engine.on_message_dropped(message.text, message.number, now))
            else:
                send(engine.receive(message, now, time.time()))
            # Who carries packets would wait for a whole tick of the scheduler otherwise, whatever `NICE` says.
            os.sched_yield()
        watch()

    try:
        loop.add(pipe.socket.fileno(), ready)
        send(engine.start(time.monotonic()))
        loop.run(engine.next_timer, lambda now: send(engine.on_timer(now)))
    except PipeClosed:
        return 0
    return 0
