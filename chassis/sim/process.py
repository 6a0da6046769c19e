"""A simulated process: an engine, its inbox, and its end.

The engine runs in no simulated time. The process carries out its outputs in order, and can be killed or stopped
between any two of them (`chassis.sim.failpoints` puts `Halt` and `Die` among the outputs). A stopped process
handles nothing. When it is resumed it follows the order of the real loop: the interrupted outputs, then the report
of the stall to the engine, then batches, the controller's messages, closed connections, and frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from chassis.bus.engine import MAX_POLL_TIMEOUT, STALL_TIMEOUT, Output
from chassis.sim.connection import SimConnection, Waiting
from chassis.sim.world import Simulation

MAX_TIMER_CALLS = 200
"""Timer calls at the same time after which an engine counts as spinning (count)."""

FABRIC, CONTROL, EVENT, FRAMES = range(4)
"""Ranks of items in the inbox of a stopped process; lower ones are handled first when it is resumed."""


@dataclass(frozen=True, slots=True)
class Die:
    """Among outputs: the process is killed here."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Among outputs: the process is stopped here for `seconds`; it carries out `rest` when it is resumed."""

    seconds: float
    rest: tuple[Any, ...]


class TimedEngine(Protocol):
    """The part of the interface that all engines have."""

    def start(self, now: float) -> list[Output]: ...

    def on_timer(self, now: float) -> list[Output]: ...

    def next_timer(self) -> float: ...


class Process:
    """One boot of one engine. `handlers` has the function that carries out each type of output."""

    def __init__(self, world: Simulation, node: str, card: str, boot: int, pid: int) -> None:
        self.world = world
        self.node = node
        self.card = card
        self.boot = boot
        self.pid = pid
        self.name = f"{node} {card}"
        self.engine: Any = None
        self.alive = True
        self.stopped = False
        self.stopped_at = inf
        self.inbox: list[Waiting] = []
        self.handlers: dict[type, Callable[[Any], None]] = {Die: self._die, Halt: self._halt}
        self.on_death: list[Callable[[Process], None]] = []
        self.events = SimConnection(world, f"{self.name} event", self, self._on_notice, EVENT, 1 << 30)
        self._timer_at = inf
        self._spins = 0
        self._spun_at = 0.0
        self._interrupted_outputs: tuple[Any, ...] = ()
        self._in_round = False

    def __repr__(self) -> str:
        return self.name

    def begin(self, engine: TimedEngine) -> None:
        """Start the engine."""
        self.engine = engine
        self.world.log_event(f"{self.name} starts (boot {self.boot})")
        self.finish_call(engine.start(self.world.now))

    def finish_call(self, outputs: list[Output]) -> None:
        """Carry out the outputs of a call of the engine, and set its timer. Call it after every call."""
        if outputs:
            self.perform(outputs)
            if not self.alive or self.stopped:
                return
        self.rearm()

    def perform(self, outputs: list[Output] | tuple[Any, ...]) -> None:
        do = self.handlers
        for output in outputs:
            do[type(output)](output)

    def rearm(self) -> None:
        """Set the timer. A timer that is set for an earlier time stays, and is set again when it fires."""
        next_timer = self.engine.next_timer()
        if next_timer >= self._timer_at:
            return
        world = self.world
        when = next_timer if next_timer > world.now else world.now
        self._timer_at = when
        world.at(when, self._timer, when)

    def kill(self) -> None:
        """SIGKILL: the process carries out nothing more."""
        if not self.alive:
            return
        self.alive = False
        self.world.log_event(f"{self.name} is killed (boot {self.boot})")
        self.inbox.clear()
        for call in self.on_death:
            call(self)

    def stop(self) -> None:
        """SIGSTOP: messages wait in the inbox, timers are skipped."""
        if self.alive and not self.stopped:
            self.stopped = True
            self.stopped_at = self.world.now
            self.world.log_event(f"{self.name} is stopped")

    def resume(self) -> None:
        """SIGCONT."""
        if self.alive and self.stopped:
            self._continue()

    def _continue(self) -> None:
        world = self.world
        seconds = world.now - self.stopped_at
        world.log_event(f"{self.name} goes on after {seconds:.3f} s")
        self.stopped = False
        self.on_resumed(seconds)
        rest, self._interrupted_outputs = self._interrupted_outputs, ()
        self.perform(rest)
        waiting, self.inbox = self.inbox, []
        waiting.sort(key=_rank)
        taken = 0
        if self._in_round:
            # If it was stopped inside a round of its loop, it ends that round before it notices the stall.
            self._in_round = False
            most = int(32 * world.chance())
            while taken < min(most, len(waiting)) and waiting[taken][0] == FABRIC:
                taken += self._handle(waiting[taken])
        if self._is_running() and seconds > STALL_TIMEOUT:
            # The wait of the poll that was interrupted counts too.
            self.on_stall(seconds + MAX_POLL_TIMEOUT * world.chance())
        waiting = self.handling_order(waiting[taken:])
        taken = 0
        while self._is_running() and taken < len(waiting):
            taken += self._handle(waiting[taken])
        if self._is_running():
            self.on_inbox_empty()
            self.rearm()
        elif self.alive:
            self.inbox = waiting[taken:] + self.inbox

    def on_stall(self, seconds: float) -> None:
        """Report a stall to the engine."""
        self.perform(self.engine.on_stall(seconds, self.world.now))

    def on_resumed(self, seconds: float) -> None:
        """The process was resumed and has handled nothing yet; for subclasses."""

    def handling_order(self, waiting: list[Waiting]) -> list[Waiting]:
        """Return the order in which waiting items are handled; they are given in order of rank."""
        return waiting

    def on_inbox_empty(self) -> None:
        """All waiting items have been handled; for subclasses."""

    def notify_engine(self, call: Callable[[Any], list[Output]], argument: Any) -> None:
        """Call an engine after a random delay, in order with other notices of its shell."""
        self.events.send((call, argument))

    def _on_notice(self, item: tuple[Callable[[Any], list[Output]], Any]) -> None:
        call, argument = item
        self.finish_call(call(argument))

    def _handle(self, entry: Waiting) -> int:
        _, handle, item = entry
        handle(item)
        return 1

    def _is_running(self) -> bool:
        return self.alive and not self.stopped

    def _timer(self, when: float) -> None:
        if when != self._timer_at or not self.alive:
            return
        self._timer_at = inf
        if self.stopped:
            return
        engine, now = self.engine, self.world.now
        if engine.next_timer() <= now:
            if self._spun_at == now:
                self._spins += 1
                if self._spins > MAX_TIMER_CALLS:
                    raise self.world.violation("no spinning", f"{self.name} calls its timer without end")
            else:
                self._spun_at, self._spins = now, 0
            outputs = engine.on_timer(now)
            if outputs:
                self.perform(outputs)
                if not self.alive or self.stopped:
                    return
        self.rearm()

    def _die(self, output: Die) -> None:
        self.kill()

    def _halt(self, output: Halt) -> None:
        self._interrupted_outputs = output.rest
        self._in_round = True
        self.stop()
        self.world.after(output.seconds, self._on_halt_over)

    def _on_halt_over(self, _: Any) -> None:
        self.resume()


def _rank(entry: Waiting) -> int:
    return entry[0]
