"""The controller's process: the control bus, the operators' socket, the state folder and the launcher."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import zmq

from chassis.bus import codec, endpoints, recording, requests, storage
from chassis.bus.arguments import ArgumentError, read
from chassis.bus.card import next_multiple
from chassis.bus.card_shell import CONTROL_QUEUE
from chassis.bus.connection import receive_frames
from chassis.bus.engine import (
    Append,
    Exit,
    Output,
    Persist,
    ToCard,
    ToFlash,
    ToLauncher,
    ToOperator,
    WriteLog,
)
from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.messages import Goodbye, Heartbeat, Hello, Message, Reply, Request
from chassis.bus.operator_loop import OperatorSocket
from chassis.bus.scheduling import CpuSample, cpu_wait, sample_threads
from chassis.net.errors import DecodeError
from chassis.xcrp.background import Background
from chassis.xcrp.engine import ControllerEngine
from chassis.xcrp.flash import FlashFile
from chassis.xcrp.flash_folder import FlashFolder, fill, read_folder
from chassis.xcrp.flash_operations import FlashAnswer
from chassis.xcrp.flash_paths import FLASH
from chassis.xcrp.send_turns import SendTurns

ALIVE_INTERVAL, MAX_ALIVE_DELAY = 0.5, 0.1
"""Time (s) between heartbeats to the launcher, which ends a controller that is stopped; and for how much longer
one may wait for a turn in which there is something else to do."""

KNOWN_DUE = 0.12
"""Time (s) before something is due from which it is looked again whether it still is: heartbeats move it on. It is
longer than the time between two of them, so that no turn is made for that."""

CLOCK_INTERVAL, MIN_CLOCK_STEP = 0.1, 0.001
"""Time (s) between two looks at the clock of the day, and the difference (s) that is told to the engine."""

SAMPLE_INTERVAL = 0.1
"""Time (s) between two samples of the processes of silent cards."""

MAX_MESSAGES_PER_TURN = 64
"""Most control messages handled before timers and operators (count)."""

OTHER_SUFFIXES = (".sa", ".tmp")
"""Suffixes of files of the state folder that the controller does not read."""


class ControllerShell:
    """Runs the controller's engine until it is told to end."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.loop = Loop()
        self.context: zmq.Context[Any] = zmq.Context()
        self._router: zmq.Socket[bytes] = self.context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.SNDHWM, CONTROL_QUEUE)
        self._router.setsockopt(zmq.RCVHWM, CONTROL_QUEUE)
        self._identities: dict[str, bytes] = {}
        self._cards: dict[bytes, str] = {}
        self._boots: dict[str, int] = {}
        self._unreachable: list[str] = []
        self._turns = SendTurns()
        self._flash_folder = FlashFolder(env.state / FLASH)
        self._flash_folder.remove_unfinished()
        self._background = Background(self.loop, self._worked)
        now = time.monotonic()
        self.engine = ControllerEngine(
            env.node,
            boot=env.boot,
            files=_state_files(env.state),
            startup=env.startup,
            settings=dict(env.settings),
            now=now,
            flash=self._flash(),
            wall_offset=time.time() - now,
            random=os.urandom,
            read_flash=lambda path: self._flash_folder.perform(ToFlash(0, "read", path)),
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            ToCard: self._to_card,
            ToOperator: self._answer,
            ToLauncher: lambda output: self._send_to_launcher({"what": output.request, **output.values}),
            Exit: lambda output: self.loop.stop(),
        }
        self._operators = OperatorSocket(self.loop, endpoints.operator(env.run, env.node), self._command)
        self._watchers: dict[int, set[str]] = {}
        self._alive_at = self._sample_at = now
        self._due = self._risk = -inf
        """When the engine wants to be called, and when processes are to be sampled; or earlier."""
        self._changed = True
        """Whether these may come earlier than that, because of something that the engine was told."""
        self._clock_at = self._wall_offset = -inf
        self._samples: dict[str, CpuSample] = {}
        self._launcher_buffer = b""
        if env.launcher is not None:
            env.launcher.setblocking(False)
            self.loop.add(env.launcher.fileno(), self._on_launcher_message)
        self.loop.on_stall = lambda seconds, now: self.perform(self.engine.on_stall(seconds, now))

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.loop.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        began = time.monotonic()
        # Plan and records of thousands of tunnels are a million objects: collections that looked at all of them
        # would take longer than a commit, and nearly as long as the first plan.
        gc.disable()
        self.perform(self.engine.start(began))
        self._router.bind(endpoints.control(self.env.run, self.env.node))
        # Reading a configuration of thousands of tunnels takes a while, and no message was read meanwhile.
        now = time.monotonic()
        self.perform(self.engine.on_stall(now - began, now))
        self.loop.add(self._router, self._on_card_messages)
        try:
            self.loop.run(self._next_timer, self._on_timer)
        finally:
            self.perform(self.engine.end())
            self._operators.close()
            self.context.destroy(linger=0)
        return 0

    def perform(self, outputs: list[Output]) -> None:
        """Carry out what a call of the engine returned."""
        self._changed = True
        stored: list[tuple[str, str]] = []
        worked: list[tuple[int, FlashAnswer]] = []
        logged: list[str] = []
        missing = False
        for output in outputs:
            if isinstance(output, (Persist, Append)):
                error = self._write_file(output)
                missing = missing or bool(error)
                stored.append((output.file, error))
            elif isinstance(output, WriteLog):
                logged.append(self._write_log(output))
            elif isinstance(output, ToFlash):
                if output.operation == "key-pair":
                    self._background.do(output.number, partial(self._flash_folder.perform, output))
                else:
                    worked.append((output.number, self._flash_folder.perform(output)))
            elif not missing or not isinstance(output, ToCard):
                # A message to a card may use numbers that must be on disk before.
                self._handlers[type(output)](output)
        for file, error in stored:
            self.perform(self.engine.on_stored(file, error, time.monotonic()))
        for error in logged:
            self.engine.on_log_written(error, time.monotonic())
        for number, answer in worked:
            self.perform(self.engine.on_flash(number, answer, time.monotonic()))
        # Report lost connections after the queued outputs are sent, so that messages stay in order.
        while self._unreachable:
            self.perform(self.engine.on_connection_lost(self._unreachable.pop(0), time.monotonic()))

    def _worked(self, number: int, answer: FlashAnswer) -> None:
        self.perform(self.engine.on_flash(number, answer, time.monotonic()))

    def _write_file(self, output: Persist | Append) -> str:
        """Write to the state folder; return why the file is not on disk, or an empty text."""
        write = storage.replace if isinstance(output, Persist) else storage.append
        try:
            write(self.env.state / output.file, output.data)
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    def _write_log(self, output: WriteLog) -> str:
        """Write to the file of the log; return why it is not written, or an empty text."""
        try:
            storage.write_unsynced(self.env.state / output.file, output.data, whole=output.whole)
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    def _next_timer(self) -> float:
        now = time.monotonic()
        self._follow_clock(now)
        if self._turns:
            return -inf
        soon = now + KNOWN_DUE
        if self._changed or self._risk < soon or self._samples:
            self._risk = self._sample_due()
        if self._changed or self._due < soon:
            self._due = self.engine.next_timer()
        self._changed = False
        return min(self._due, self._risk, self._alive_at + MAX_ALIVE_DELAY)

    def _on_timer(self, now: float) -> None:
        self._changed = True
        if now >= self._sample_due():
            self._sample_at = now + SAMPLE_INTERVAL
            self._sample_cards_at_risk(now)
        if now >= self._alive_at:
            self._send_alive(now)
        if self.engine.next_timer() <= now:
            self.perform(self.engine.on_timer(now))
        if self._turns:
            for card, message in self._turns.take():
                self._send(card, message)
            self.perform([])

    def _send_alive(self, now: float) -> None:
        self._alive_at = next_multiple(now, ALIVE_INTERVAL)
        self._send_to_launcher({"what": "alive"})
        if not gc.isenabled() and self.engine.state.reconciled:
            gc.freeze()
            gc.enable()

    def _follow_clock(self, now: float) -> None:
        """Tell the engine if the clock of the day was set."""
        if now < self._clock_at:
            return
        self._clock_at = now + CLOCK_INTERVAL
        offset = time.time() - now
        if abs(offset - self._wall_offset) >= MIN_CLOCK_STEP:
            self._wall_offset, self._changed = offset, True
            self.engine.set_clock(offset)

    def _sample_due(self) -> float:
        """Return when the processes of silent cards are to be sampled."""
        return self._sample_at if self._samples else self.engine.next_risk()

    def _sample_cards_at_risk(self, now: float) -> None:
        """Report to the engine how long silent cards waited for a core."""
        turns = {card: sample_threads(pid, now) for card, pid in self.engine.cards_at_risk(now)}
        for card, look in turns.items():
            if card in self._samples and (seconds := cpu_wait(self._samples[card], look)):
                self.engine.on_cpu_wait(card, seconds, now)
        self._samples = turns

    # cards

    def _on_card_messages(self, now: float) -> None:
        handled = 0
        while handled < MAX_MESSAGES_PER_TURN and (message := receive_frames(self._router)):
            handled += len(message)
            identity = message[0].bytes
            for frame in message[1:]:
                self._on_card_message(identity, frame.bytes, now)
        if now >= self._alive_at:
            self._send_alive(now)

    def _on_card_message(self, identity: bytes, data: bytes, now: float) -> None:
        try:
            message = codec.decode(data)
        except DecodeError as error:
            self.perform(self.engine.on_undecodable(self._cards.get(identity, ""), str(error), now))
            return
        if isinstance(message, Hello):
            # A late hello of an earlier process must not replace the connection of the current one.
            if message.boot < self._boots.get(message.card, 0):
                return
            self._boots[message.card] = message.boot
            before = self._identities.get(message.card, b"")
            if before != identity:
                self._turns.drop(message.card)
            self._cards.pop(before, None)
            self._identities[message.card] = identity
            self._cards[identity] = message.card
        card = self._cards.get(identity)
        # Before a hello on this connection the sender is not known.
        if card is None:
            return
        if self._watchers:
            self._send_to_watchers(card, "to-controller", message)
        if not isinstance(message, Heartbeat) or not self.engine.is_still(card, message, now):
            self.perform(self.engine.receive(card, message, now))

    def _to_card(self, output: ToCard) -> None:
        if not self._turns.keep(output.card, output.message):
            self._send(output.card, output.message)

    def _send(self, card: str, message: Message) -> None:
        identity = self._identities.get(card)
        if identity is None:
            return
        try:
            data = codec.encode(message)
        except codec.EncodeError as error:
            self._on_unsendable(card, message, str(error))
            return
        if self._watchers:
            self._send_to_watchers(card, "to-card", message)
        try:
            self._router.send_multipart((identity, data), zmq.DONTWAIT)
        except zmq.ZMQError:
            # The card is gone, or its queue is full: it must send a hello, and gets a snapshot first.
            self._turns.drop(card)
            self._identities.pop(card, None)
            self._cards.pop(identity, None)
            self._unreachable.append(card)
            return
        if isinstance(message, Goodbye):
            self._identities.pop(card, None)
            self._cards.pop(identity, None)

    def _on_unsendable(self, card: str, message: Message, why: str) -> None:
        """Drop a message that cannot be encoded; answer a request in the card's place."""
        now = time.monotonic()
        self.engine.on_unsendable(card, why, now)
        if isinstance(message, Request):
            self.perform(self.engine.receive(card, Reply(message.number, {}, why), now))

    # operators

    def _command(self, number: int, command: str, arguments: dict[str, Any]) -> None:
        if command == "bus":
            try:
                self._watchers[number] = set(read(requests.CONTROLLER["bus"], arguments)["types"])
            except ArgumentError as error:
                self._operators.answer(number, {}, f"bus: {error}")
            return
        if command in ("apply", "commit", "rollback", "reload"):
            # A commit uses the certificates that are there now.
            self.perform(self.engine.on_flash_changed(self._flash(), time.monotonic()))
        self.perform(self.engine.on_operator_command(number, command, arguments, time.monotonic()))

    def _flash(self) -> tuple[FlashFile, ...]:
        """Read the PKI files, after the first start made the flash."""
        folder = self._flash_folder.folder
        try:
            fill(folder, self.env.flash)
        except OSError as error:
            return (FlashFile(".", error=f"the flash can't be made: {error.strerror or type(error).__name__}"),)
        return read_folder(folder)

    def _answer(self, output: ToOperator) -> None:
        self._operators.answer(output.number, output.result, output.error, output.last)

    def _send_to_watchers(self, card: str, direction: str, message: Message) -> None:
        """Send a control message, without keys, to the operators who watch the bus."""
        name = type(message).__name__
        watching = [number for number, types in self._watchers.items() if not types or name in types]
        if not watching:
            return
        line = recording.describe_message(time.time(), self.env.node, card, direction, message)
        for number in watching:
            if not self._operators.answer(number, line, last=False):
                del self._watchers[number]

    # launcher

    def _send_to_launcher(self, values: dict[str, Any]) -> None:
        if self.env.launcher is not None:
            with contextlib.suppress(OSError):
                self.env.launcher.send(json.dumps(values, default=str).encode() + b"\n")

    def _on_launcher_message(self, now: float) -> None:
        assert self.env.launcher is not None
        try:
            data = self.env.launcher.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # The launcher has ended, and the lab with it.
            self.loop.stop()
            return
        *lines, self._launcher_buffer = (self._launcher_buffer + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said["what"] == "died":
                self.perform(self.engine.on_card_died(said["card"], said["boot"], now))
            elif said["what"] == "started":
                self.perform(self.engine.on_card_started(said["card"], said["boot"], said["pid"], now))


def _state_files(state: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in state.iterdir()
        if path.is_file() and path.suffix not in OTHER_SUFFIXES and path.name != "boots.json"
    }


def run(env: Environment) -> int:
    """Run the controller's process; return its exit status."""
    return ControllerShell(env).run()
