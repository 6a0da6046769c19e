"""The process of an ASP: the card's shell, the mapped file with its SA state, and the IKE process under it."""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import zmq

from chassis.ase import ike_process
from chassis.ase.datapath import SIDES
from chassis.ase.engine import AspEngine
from chassis.ase.ike_messages import MessageDropped
from chassis.ase.ike_process import Pipe, PipeClosed
from chassis.ase.ipsec.ipsec_mb import choose_engine
from chassis.ase.ipsec.state import FILE_SIZE, StateError
from chassis.bus import endpoints
from chassis.bus.capture import Capture
from chassis.bus.card_shell import CardRequestError, CardShell
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToIke
from chassis.bus.environment import Environment
from chassis.bus.storage import map_file
from chassis.model.ipsec import CIPHER_ENGINES
from chassis.net.ethernet import HEADROOM


class AspShell(CardShell):
    """Carries messages between the data engine and IKE. The process ends if its IKE process ends."""

    def __init__(self, env: Environment, engine: AspEngine, counters: Counters, pipe: Pipe) -> None:
        super().__init__(env, engine, counters)
        self._asp = engine
        self._pipe = pipe
        self._ike_connected = False
        self._watching_writable = False
        self.handlers[ToIke] = self._to_ike
        self.loop.add(pipe.socket.fileno(), self._on_pipe_ready)

    def tap(self, what: str, capture: Capture | None) -> None:
        """Capture a side of the ASP, one of `SIDES`, beside its `fabric`."""
        if what == "fabric":
            super().tap(what, capture)
            return
        if what not in SIDES:
            points = ", ".join(("fabric", *SIDES))
            raise CardRequestError(f"{self.env.card} has no {what!r} to capture; it has {points}")
        taps = self._asp.datapath.taps
        taps.pop(what, None)
        if capture is not None:
            kept, place = capture, f"{self.env.node} {self.env.card} {what}"
            taps[what] = lambda step, batch: kept.write(f"{place} {step}", batch)

    def headroom(self, what: str) -> int:
        """Return the octets of link header before each captured packet."""
        return HEADROOM

    def perform(self, outputs: list[Output]) -> None:
        super().perform(outputs)
        if self._pipe.pending and not self._watching_writable:
            try:
                self._pipe.flush()
            except PipeClosed as error:
                self._exit_without_ike(error)
            self._watch_pipe()

    def _to_ike(self, output: ToIke) -> None:
        dropped = self._pipe.dropped
        try:
            left = self._pipe.enqueue(output.message)
        except PipeClosed as error:
            self._exit_without_ike(error)
        if left is not None:
            self.perform(self._asp.ike.on_message_dropped(left, time.monotonic()))
        if self._pipe.dropped != dropped:
            self.counters.add("drop ike busy")

    def _on_pipe_ready(self, now: float) -> None:
        try:
            self._pipe.flush()
            messages = self._pipe.receive()
        except PipeClosed as error:
            self._exit_without_ike(error)
        if messages and not self._ike_connected:
            self._ike_connected = True
            self.perform(self._asp.ike_connected(now))
        outputs: list[Output] = []
        for message in messages:
            if isinstance(message, MessageDropped):
                outputs += self._asp.ike.on_message_dropped(message, now)
            else:
                outputs += self._asp.from_ike(message, now)
        self.perform(outputs)
        self._watch_pipe()

    def _watch_pipe(self) -> None:
        """Wait for the pipe to accept more while messages for it are pending."""
        if self._pipe.pending == self._watching_writable:
            return
        self._watching_writable = self._pipe.pending
        self.loop.remove(self._pipe.socket.fileno())
        flags = zmq.POLLIN | zmq.POLLOUT if self._watching_writable else zmq.POLLIN
        self.loop.add(self._pipe.socket.fileno(), self._on_pipe_ready, flags)

    def _exit_without_ike(self, error: PipeClosed) -> NoReturn:
        print(f"{self.env.card} lost its IKE process: {error}", file=sys.stderr)
        sys.exit(1)


def map_other_states(folder: Path, own: str) -> list[memoryview]:
    """Return the SA states of the router's other ASPs that exist now, mapped for reading.

    Raises:
        StateError: one of them cannot be read.
    """
    states = []
    try:
        for path in sorted(folder.glob("*.sa")):
            if path.name != own and path.stat().st_size:
                with path.open("rb") as file:
                    states.append(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise StateError(f"the SA state of another ASP cannot be read: {error}") from None
    return states


def run(env: Environment) -> int:
    """Run the process of an ASP; return its exit status."""
    # Fork before any socket or thread exists, because the child would inherit them.
    pipe = ike_process.start(env)
    own = f"{endpoints.compact(env.card)}.sa"
    state, fresh = map_file(env.state / own, FILE_SIZE)
    counters = env.counters()
    cipher, remarks = choose_engine(env.settings.get("cipher-engine", CIPHER_ENGINES[0]))
    engine = AspEngine(
        env.card,
        pid=os.getpid(),
        boot=env.boot,
        counters=counters,
        state=state,
        fresh=fresh,
        random=os.urandom,
        others=lambda: map_other_states(env.state, own),
        engine=cipher,
        remarks=remarks,
    )
    return AspShell(env, engine, counters, pipe).run()
