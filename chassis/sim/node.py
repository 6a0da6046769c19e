"""A simulated router: its controller, its cards, its files, and its launcher.

The processes model `chassis.bus.card_shell`, `chassis.xcrp.shell` and `chassis.bus.fabric`. The launcher notices
the death of a process, starts the next boot of it after the lab's delay, kills the processes that the controller
asks it to kill, and ends a controller that is stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chassis.bus import batch as batches
from chassis.bus import codec
from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.engine import (
    Append,
    Connect,
    Disconnect,
    Exit,
    FlashPath,
    Output,
    Perform,
    Persist,
    ToCard,
    ToController,
    ToFabric,
    ToFlash,
    ToIke,
    ToLauncher,
    ToOperator,
    ToWire,
    WriteLog,
)
from chassis.bus.messages import Delta, Heartbeat, Hello, Reply, Snapshot, Welcome
from chassis.bus.records import Record
from chassis.sim.connection import SimConnection, Waiting
from chassis.sim.disk import BOOTS, Disk
from chassis.sim.ike_process_model import IkeProcessModel
from chassis.sim.process import CONTROL, EVENT, FABRIC, Halt, Process
from chassis.sim.wires import RECONNECT_INTERVAL, WireEnd
from chassis.sim.world import Simulation
from chassis.xcrp.flash import FlashFile
from chassis.xcrp.flash_operations import FlashAnswer

FABRIC_QUEUE = 192
"""Most batches on a fabric connection (count): the real one's two queues of 64, and the coalesced batches that
wait at the sender."""

MAX_BATCHES_PER_TURN = 64
"""Most batches that a card handles between two control messages (count): about 10 ms of work."""

CONTROL_QUEUE = 20_000

BOOT_DELAYS = (0.01, 0.06)
"""Least and most time (s) from the fork of a process to its first output."""

DETECT_DELAYS = (0.0003, 0.005)
"""Least and most time (s) until the launcher notices a death."""

START_RETRY_INTERVAL = 1.0
"""Time (s) after which the launcher tries again to start a process."""

CONTROLLER_SILENCE_TIMEOUT = 2.0
"""Silence (s) of a controller after which the launcher kills it."""


@dataclass(slots=True)
class CardStart:
    """Arguments of a card's engine. `memory` is its mapped memory, all zero if `fresh`."""

    node: str
    card: str
    pid: int
    boot: int
    memory: memoryview
    fresh: bool
    counters: Counters
    random: Callable[[int], bytes]
    others: Callable[[], list[memoryview]] = list
    """Mapped memory of the node's other cards, by card."""


@dataclass(slots=True)
class ControllerStart:
    """Arguments of a controller's engine: its state folder, the time, the reader of its flash, randomness, and the
    flash's PKI files."""

    node: str
    boot: int
    files: Mapping[str, bytes]
    now: float
    read_flash: Callable[[FlashPath], FlashAnswer]
    random: Callable[[int], bytes]
    store: tuple[FlashFile, ...] = ()


@dataclass(frozen=True, slots=True)
class CardModel:
    """A card of a router: the function that makes its engine, its ports, the octets of its mapped memory (0:
    none).

    `ike_engine` makes the engine of the IKE process of an ASP.
    """

    card: str
    make: Callable[[CardStart], Any]
    ports: tuple[str, ...] = ()
    memory: int = 0
    ike_engine: Callable[[CardStart], Any] | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A configuration that is applied during a run. `marks` returns whether a record belongs to this variant
    (True), to another one (False), or to all (None)."""

    text: str
    marks: Callable[[Record], bool | None]


@dataclass(frozen=True, slots=True)
class NodeModel:
    """A router. `restart_delay` is in seconds (None: never); `module` is the file of the code that writes mapped
    memory.

    `variants` are its first configuration and the others, which are applied in turn. `flash` has the files that a
    new flash holds.
    """

    name: str
    controller: Callable[[ControllerStart], Any]
    cards: tuple[CardModel, ...]
    restart_delay: float | None = 1.0
    heartbeat: float = 0.1
    misses: int = 5
    module: str = ""
    variants: tuple[Variant, ...] = ()
    flash: Mapping[FlashPath, bytes] = field(default_factory=dict)


class CardProcess(Process):
    """A line card or an ASP."""

    def __init__(self, home: SimNode, model: CardModel, boot: int, pid: int) -> None:
        super().__init__(home.world, home.model.name, model.card, boot, pid)
        self.home = home
        self.model = model
        self.control: SimConnection | None = None
        """The connection to the controller; None while it does not exist."""
        self.peers: dict[str, SimConnection] = {}
        self.connected_to: Process | None = None
        self.ike_process: IkeProcessModel | None = None
        self.fenced_by_stall = False
        """The process was stalled so long that it must not send anything until its next welcome."""
        self.stall_seconds = 0.0
        self.handles_stale_batch = False
        """The process handles a batch with an epoch that it knows to be over."""
        self.handlers |= {
            ToController: self._to_controller,
            ToFabric: self._to_fabric,
            ToWire: self._to_wire,
            Connect: self._connect,
            Disconnect: self._disconnect,
            Perform: self._perform_request,
            ToIke: self._to_ike,
            Exit: lambda output: self.kill(),
        }

    # input

    def on_control(self, message: Any) -> None:
        engine = self.engine
        kind = type(message)
        if kind is Welcome:
            self.fenced_by_stall = False
        outputs = engine.receive(message, self.world.now)
        if kind is Delta or kind is Snapshot:
            self.home.on_replicated(self)
        self.finish_call(outputs)

    def on_batch(self, batch: Batch) -> None:
        engine = self.engine
        self.handles_stale_batch = engine.epochs.get(batch.card) != batch.epoch
        try:
            self.finish_call(engine.receive_batch(batch, self.world.now))
        finally:
            self.handles_stale_batch = False

    # output

    def _to_controller(self, output: ToController) -> None:
        if self.control is not None:
            message = output.message
            if self.home.codec:
                message = codec.decode(codec.encode(message))  # type: ignore[assignment]
            self.control.send(message)

    def _to_fabric(self, output: ToFabric) -> None:
        if self.handles_stale_batch or self.fenced_by_stall:
            self._stale_sending(f"{len(output.batch)} packets to {output.card}", output.batch)
        peer = self.peers.get(output.card)
        if peer is not None:
            batch = output.batch
            if self.home.codec:
                batch = batches.decode(batches.encode_header(batch), bytearray(batch.body))
            peer.send(batch)

    def _to_wire(self, output: ToWire) -> None:
        if self.stall_seconds >= self.home.silence:
            # The real shell compares the time before it sends: a process may be stopped between two outputs.
            return
        if self.handles_stale_batch or self.fenced_by_stall:
            self._stale_sending(f"{len(output.batch)} frames out of {output.port}", output.batch)
        end = self.home.ends.get(output.port)
        if end is not None:
            end.send(output.batch)

    def _to_ike(self, output: ToIke) -> None:
        if self.ike_process is not None:
            self.ike_process.take(output.message)

    def _stale_sending(self, what: str, batch: Batch) -> None:
        why = "after it stood still" if self.fenced_by_stall else "of an epoch that it knows is over"
        raise self.world.violation("stale epoch", f"{self.name} sends {what} {why}")

    def _connect(self, output: Connect) -> None:
        self._disconnect(output)
        self.world.after(self.world.delay(), self._connect_peer, output)

    def _connect_peer(self, output: Connect) -> None:
        peer = self.home.cards.get(output.card)
        if not self.alive or peer is None or peer.boot != output.boot or not peer.alive:
            return
        if self.stopped or peer.stopped:
            self.world.after(RECONNECT_INTERVAL, self._connect_peer, output)
            return
        self.peers[output.card] = SimConnection(
            self.world, f"{self.name} to {output.card}", peer, peer.on_batch, FABRIC, FABRIC_QUEUE
        )
        self.notify_engine(self._on_fabric_peer, (output.card, output.boot, True))

    def _on_fabric_peer(self, item: tuple[str, int, bool]) -> list[Output]:
        outputs: list[Output] = self.engine.on_fabric_peer(*item, self.world.now)
        return outputs

    def _disconnect(self, output: Connect | Disconnect) -> None:
        peer = self.peers.pop(output.card, None)
        if peer is not None:
            peer.cut()

    def _perform_request(self, output: Perform) -> None:
        text = f"{output.request.name} is not simulated"
        self._to_controller(ToController(Reply(output.request.number, {}, text)))

    # stalls

    def on_resumed(self, seconds: float) -> None:
        self.stall_seconds = seconds if self.engine.epoch else 0.0

    def on_stall(self, seconds: float) -> None:
        self.stall_seconds = 0.0
        if seconds >= self.home.silence and self.engine.epoch:
            self.fenced_by_stall = True
        super().on_stall(seconds)

    def handling_order(self, waiting: list[Waiting]) -> list[Waiting]:
        """A fenced process drops all batches before it handles messages. Another one alternates, as the real loop
        does: some batches, one message, batches again."""
        if self.engine.fenced:
            return waiting
        packets = deque(entry for entry in waiting if entry[0] == FABRIC)
        taken: list[Waiting] = []
        for entry in waiting[len(packets) :]:
            for _ in range(min(len(packets), 1 + int(MAX_BATCHES_PER_TURN * self.world.chance()))):
                taken.append(packets.popleft())
            taken.append(entry)
        return taken + list(packets)

    def on_inbox_empty(self) -> None:
        self.stall_seconds = 0.0

    def on_controller_up(self, _: Any) -> list[Output]:
        outputs: list[Output] = self.engine.on_connected(self.world.now)
        return outputs

    def on_controller_down(self, _: Any) -> list[Output]:
        outputs: list[Output] = self.engine.on_disconnected(self.world.now)
        return outputs


@dataclass(frozen=True, slots=True)
class _Stored:
    """Among outputs: the controller's engine gets the result of a write."""

    file: str
    error: str


@dataclass(frozen=True, slots=True)
class _Worked:
    """Among outputs: the controller's engine gets what came of an operation on the flash."""

    number: int
    answer: FlashAnswer


class ControllerProcess(Process):
    """The controller, with the connection of each card, as its shell keeps them."""

    def __init__(self, home: SimNode, boot: int, pid: int) -> None:
        super().__init__(home.world, home.model.name, "xcrp", boot, pid)
        self.home = home
        self.cards: dict[str, SimConnection] = {}
        self._processes: dict[str, CardProcess] = {}
        self.handlers |= {
            ToCard: self._to_card,
            ToOperator: lambda output: home.on_operator_answer(self, output),
            ToLauncher: self._to_launcher,
            _Stored: self._stored,
            _Worked: self._worked,
            Exit: lambda output: self.kill(),
        }

    def perform(self, outputs: list[Any] | tuple[Any, ...]) -> None:
        """Carry out outputs as the real shell does: no message to a card after a failed write, and the results of
        the writes last."""
        answers: list[_Stored | _Worked] = []
        missing = False
        for output in outputs:
            if isinstance(output, (Persist, Append)):
                error = self.home.disk.write(output)
                missing = missing or bool(error)
                answers.append(_Stored(output.file, error))
            elif isinstance(output, WriteLog):
                self.engine.on_log_written(self.home.disk.write_log(output), self.world.now)
            elif isinstance(output, ToFlash):
                answers.append(_Worked(output.number, self.home.disk.work(output)))
            elif isinstance(output, Halt):
                rest = [later for later in output.rest if not missing or type(later) is not ToCard]
                self.handlers[Halt](Halt(output.seconds, (*rest, *answers)))
                return
            elif not missing or not isinstance(output, ToCard):
                self.handlers[type(output)](output)
        if self.alive:
            for answer in answers:
                self.handlers[type(answer)](answer)

    def _stored(self, answer: _Stored) -> None:
        self.perform(self.engine.on_stored(answer.file, answer.error, self.world.now))

    def _worked(self, answer: _Worked) -> None:
        self.perform(self.engine.on_flash(answer.number, answer.answer, self.world.now))

    def stop(self) -> None:
        super().stop()
        self.home.watch_stopped(self)

    def on_card_message(self, process: CardProcess, message: Any) -> None:
        """Handle a message of a card, from the connection of one of its processes."""
        if type(message) is Hello:
            self._processes[process.card] = process
            self.cards[process.card] = SimConnection(
                self.world, f"{self.name} to {process.name}", process, process.on_control, CONTROL, CONTROL_QUEUE
            )
        elif self._processes.get(process.card) is not process:
            return
        outputs = self.engine.receive(process.card, message, self.world.now)
        # A heartbeat without outputs can only postpone the timer.
        if outputs or type(message) is not Heartbeat:
            self.finish_call(outputs)

    def on_operator_command(self, item: tuple[int, str, dict[str, Any]]) -> None:
        self.finish_call(self.engine.on_operator_command(*item, self.world.now))

    def on_launcher_message(self, item: tuple[str, tuple[Any, ...]]) -> None:
        what, arguments = item
        self.finish_call(getattr(self.engine, what)(*arguments, self.world.now))

    def _to_card(self, output: ToCard) -> None:
        connection = self.cards.get(output.card)
        if connection is None:
            return
        message = output.message
        if self.home.codec:
            message = codec.decode(codec.encode(message))  # type: ignore[assignment]
        if (not connection.to.alive and self.world.chance() < 0.5) or not connection.send(message):
            # The router socket reports an unknown peer as soon as it has noticed.
            del self.cards[output.card]
            self._processes.pop(output.card, None)
            self.perform(self.engine.on_connection_lost(output.card, self.world.now))

    def _to_launcher(self, output: ToLauncher) -> None:
        self.home.on_launcher_request(output)


class SimNode:
    """One router."""

    def __init__(
        self,
        world: Simulation,
        model: NodeModel,
        on_replicated: Callable[[CardProcess], None],
        *,
        codec: bool = False,
    ) -> None:
        """`on_replicated` is called after a card applied a snapshot or delta."""
        self.world = world
        self.model = model
        self.on_replicated = on_replicated
        self.codec = codec
        """True: every message on this node's bus is encoded and decoded."""
        self.silence = model.heartbeat * (model.misses - 1)
        self.controller: ControllerProcess | None = None
        self.cards: dict[str, CardProcess] = {}
        self.models = {card.card: card for card in model.cards}
        self.disk = Disk(model.flash)
        self.events: list[str] = []
        """Events of this router, from its controller and the launcher."""
        self.memory = {card.card: memoryview(bytearray(card.memory)) for card in model.cards}
        self.ends: dict[str, WireEnd] = {}
        self.restarts = 0
        self._boots: dict[str, int] = {}
        self._pid = 1000
        self._counters: dict[str, Counters] = {}
        self._launcher: SimConnection | None = None
        self._pending_notices: list[tuple[str, tuple[Any, ...]]] = []
        """Notices of the launcher for a controller that was forked and does not read yet."""
        self._operators: dict[int, Callable[[dict[str, Any], str], None]] = {}
        self._commands = 0

    def boot(self) -> None:
        """Start all processes; random delays give the order."""
        self._fork_controller()
        for card in self.models:
            self._fork(card)

    def start_again(self, card: str) -> None:
        """Start the process of a card or the controller (`xcrp`) that does not run, where none is to come by
        itself."""
        if card == "xcrp":
            self._fork_controller()
        else:
            self._fork(card)

    def process(self, card: str) -> Process | None:
        """Return the running process of a card; None if it does not run."""
        return self.controller if card == "xcrp" else self.cards.get(card)

    # the launcher

    def on_launcher_request(self, output: ToLauncher) -> None:
        """Carry out a request of the controller to the launcher."""
        if output.request == "event":
            self.events.append(str(output.values["text"]))
        if output.request in ("restart", "reload"):
            self.world.after(self._random_delay(DETECT_DELAYS), self._restart, output.values)
        if output.request == "kill":
            self.world.after(self._random_delay(DETECT_DELAYS), self._kill, output.values)

    def watch_stopped(self, process: Process) -> None:
        """End a controller that stays stopped for `CONTROLLER_SILENCE_TIMEOUT`."""
        self.world.after(CONTROLLER_SILENCE_TIMEOUT, self._kill_silent, process)

    def _kill_silent(self, process: Process) -> None:
        if process.stopped and self.world.now - process.stopped_at >= CONTROLLER_SILENCE_TIMEOUT - 1e-6:
            process.kill()

    def _restart(self, values: Mapping[str, Any]) -> None:
        """End a card, or without one every process; each starts again as after any other end."""
        for process in [process for card, process in self.cards.items() if values.get("card", card) == card]:
            process.kill()
        if "card" not in values and self.controller is not None:
            self.controller.kill()

    def _kill(self, values: Mapping[str, Any]) -> None:
        process = self.cards.get(values["card"])
        if process is not None and values.get("boot", process.boot) == process.boot:
            process.kill()

    def _random_delay(self, bounds: tuple[float, float]) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * self.world.chance()

    def _next_boot(self, card: str, fork: Callable[[Any], None]) -> tuple[int, int] | None:
        """Return boot and pid of a card's next process; None if the boot cannot be stored: `fork` is called again
        later."""
        self._boots[card] = boot = self._boots.get(card, 0) + 1
        if error := self.disk.write(Persist(BOOTS, str(self._boots).encode())):
            self.events.append(f"{card} can't be started ({error}): it is tried again")
            self.world.after(START_RETRY_INTERVAL, fork, card)
            return None
        self._pid += 1
        return boot, self._pid

    def _fork_controller(self, _: Any = None) -> None:
        """Fork a controller. The launcher sends it a notice of every running process before it reads."""
        start_of = self._next_boot("xcrp", self._fork_controller)
        if start_of is None:
            return
        self._pending_notices = [
            ("on_card_started", (card.card, card.boot, card.pid)) for card in self.cards.values() if card.alive
        ]
        self.world.after(self._random_delay(BOOT_DELAYS), self._start_controller, start_of)

    def _fork(self, card: str) -> None:
        start_of = self._next_boot(card, self._fork)
        if start_of is None:
            return
        boot, pid = start_of
        self._notify_controller("on_card_started", card, boot, pid)
        self.world.after(self._random_delay(BOOT_DELAYS), self._start_card, (card, boot, pid))

    def _start_controller(self, start_of: tuple[int, int]) -> None:
        boot, pid = start_of
        process = ControllerProcess(self, boot, pid)
        process.on_death.append(self._on_controller_died)
        self.controller = process
        self._launcher = SimConnection(
            self.world, f"launcher to {process.name}", process, process.on_launcher_message, EVENT, 1 << 30
        )
        for said in self._pending_notices:
            self._launcher.send(said)
        self._pending_notices = []
        disk, random = self.disk, self.world.random.randbytes
        start = ControllerStart(
            self.model.name, boot, disk.state(), self.world.now, disk.read, random, disk.store()
        )
        process.begin(self.model.controller(start))
        for card in self.cards.values():
            self.world.after(
                self.world.delay() + RECONNECT_INTERVAL * self.world.chance(), self._connect_card, card
            )

    def _start_card(self, start_of: tuple[str, int, int]) -> None:
        card, boot, pid = start_of
        model = self.models[card]
        process = CardProcess(self, model, boot, pid)
        process.on_death.append(self._on_card_died)
        self.cards[card] = process
        memory = self.memory[card]
        fresh = boot == 1
        start = CardStart(
            self.model.name,
            card,
            pid,
            boot,
            memory,
            fresh,
            self._counters_of(card),
            self.world.random.randbytes,
            lambda: [held.toreadonly() for name, held in self.memory.items() if name != card and len(held)],
        )
        engine = model.make(start)
        for port in model.ports:
            if port in self.ends:
                self.ends[port].attach(process)
        process.begin(engine)
        if model.ike_engine is not None:
            process.ike_process = ike = IkeProcessModel(process, model.ike_engine(start))
            ike.begin(ike.engine)
            process.notify_engine(engine.ike_connected, self.world.now)
        self.world.after(self.world.delay(), self._connect_card, process)

    def _counters_of(self, card: str) -> Counters:
        if card not in self._counters:
            self._counters[card] = Counters()
        return self._counters[card]

    def _notify_controller(self, what: str, *arguments: Any) -> None:
        if self._launcher is not None:
            self._launcher.send((what, arguments))
        else:
            self._pending_notices.append((what, arguments))

    def _on_card_died(self, process: Process) -> None:
        assert isinstance(process, CardProcess)
        del self.cards[process.card]
        self.restarts += 1
        if process.control is not None:
            process.control.cut()
        for connection in process.peers.values():
            connection.cut()
        for other in self.cards.values():
            connection_to = other.peers.get(process.card)
            if connection_to is not None and connection_to.to is process:
                connection_to.open = False
                other.notify_engine(other._on_fabric_peer, (process.card, process.boot, False))
        noticed = self._random_delay(DETECT_DELAYS)
        self.world.after(noticed, partial(self._on_death_noticed, process.card, process.boot))
        if self.model.restart_delay is not None:
            self.world.after(noticed + self.model.restart_delay, self._fork, process.card)

    def _on_death_noticed(self, card: str, boot: int, _: Any) -> None:
        self._notify_controller("on_card_died", card, boot)

    def _on_controller_died(self, process: Process) -> None:
        self.controller = self._launcher = None
        self.restarts += 1
        assert isinstance(process, ControllerProcess)
        for connection in process.cards.values():
            connection.cut()
        for card in self.cards.values():
            if card.connected_to is process:
                card.connected_to = card.control = None
                card.notify_engine(card.on_controller_down, None)
        if self.model.restart_delay is not None:
            self.world.after(self._random_delay(DETECT_DELAYS) + self.model.restart_delay, self._fork_controller)

    def _connect_card(self, card: CardProcess) -> None:
        """Connect a card to the controller if both run."""
        controller = self.controller
        if not card.alive or controller is None or card.connected_to is controller:
            return
        if card.stopped or controller.stopped:
            self.world.after(RECONNECT_INTERVAL, self._connect_card, card)
            return
        card.connected_to = controller
        card.control = SimConnection(
            self.world,
            f"{card.name} to xcrp",
            controller,
            partial(controller.on_card_message, card),
            CONTROL,
            CONTROL_QUEUE,
        )
        card.notify_engine(card.on_controller_up, None)

    # the operator

    def operate(
        self, command: str, arguments: dict[str, Any], answered: Callable[[dict[str, Any], str], None]
    ) -> bool:
        """Give the controller a command; return False if it does not run. A killed controller never answers."""
        controller = self.controller
        if controller is None:
            return False
        self._commands += 1
        self._operators[self._commands] = answered
        SimConnection(
            self.world, f"operator to {controller.name}", controller, controller.on_operator_command, EVENT, 1
        ).send((self._commands, command, arguments))
        return True

    def on_operator_answer(self, controller: ControllerProcess, output: ToOperator) -> None:
        if output.last:
            answered = self._operators.pop(output.number, None)
            if answered is not None:
                answered(output.result, output.error)
