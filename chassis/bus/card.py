"""The common part of every card: hello, admission, replication, heartbeats, epochs, fencing, trace stamps.

`CardBase` is the base of the engines of line cards and ASPs. A subclass reports what it holds (`hello_state`),
acts on changed records (`on_records_changed`), and answers requests (`on_request`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import floor, inf

from chassis.bus.arguments import ArgumentError, Spec, fault, given, read
from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.engine import Connect, Disconnect, Exit, Output, Perform, ToController
from chassis.bus.messages import (
    PROTOCOL,
    Attributes,
    Datagrams,
    Delta,
    Goodbye,
    Heartbeat,
    HeldInstances,
    Hello,
    LogRecord,
    Reply,
    Request,
    Snapshot,
    Stamp,
    ToCardMessage,
    TraceStamps,
    Welcome,
)
from chassis.bus.records import CardStateRecord, TunnelRecord
from chassis.bus.replication import MAX_RECORDS_PER_SLICE, RecordChange, Replica

HEARTBEAT_INTERVAL = 0.1
"""Time between heartbeats (s) until a `Welcome` sets another (S-112)."""

HEARTBEAT_MISSES = 5
"""Missed heartbeats after which a card counts as unusable (count; S-112)."""

MAX_INSTANCES_PER_PART = 250
"""Most instances of one part of what follows a hello (count)."""

HELLO_RETRY_INTERVAL = 0.5
HELLO_PART_INTERVAL = 0.1
"""Times after which a card repeats a hello that was not answered (s): the first, or the second for each part of
what follows it, if that is longer. A controller plans with all parts of all cards before it answers."""


ROUNDING = 1e-4
"""Part of an interval by which a time may be before a multiple of it and count as it."""


def next_multiple(now: float, interval: float) -> float:
    """Return the first time after `now` that is a multiple of `interval` (s).

    What processes do at such times wakes them, and those whom they tell, together.
    """
    return (floor(now / interval + ROUNDING) + 1) * interval


class CardBase:
    """One card of a node."""

    kind = "card"
    performs: frozenset[str] = frozenset({"link", "capture", "capture-stop", "inject"})
    """Requests that only the shell can carry out."""
    specs: Mapping[str, Spec] = {}
    """Every request that this kind of card knows (`chassis.bus.requests`)."""

    def __init__(self, card: str, *, pid: int, boot: int, counters: Counters | None = None) -> None:
        self.card = card
        self.pid = pid
        self.boot = boot
        self.epoch = 0
        self.replica = Replica()
        self.interval = HEARTBEAT_INTERVAL
        self.misses = HEARTBEAT_MISSES
        self.settings: Attributes = {}
        self.epochs: dict[str, int] = {}
        """Current epoch of each card of the node. A batch with another epoch is dropped."""
        self.up: dict[str, bool] = {}
        """Whether packets may be sent to a card: it is usable, and its fabric connection is open."""
        self.fenced = False
        """True: this card must not send anything, because it was stalled so long that it may have been
        replaced."""
        self.aligned = False
        """Whether heartbeats come at multiples of their interval: then those of all cards of a machine come
        together, and wake the controller once. In the simulator they come apart, for more orders of events."""
        self.counters = counters or Counters()
        """Counters of this card; `drop CAUSE` counts packets dropped."""
        self._states: dict[str, CardStateRecord] = {}
        self._closed: set[tuple[str, int]] = set()
        self._controller = False
        self._admitted = False
        self._hello_at = inf
        self._beat_at = inf
        self._beats = 0
        self._held_parts: deque[HeldInstances] = deque()
        self._loop_lag = 0.0
        self._stamps: list[Stamp] = []

    # what a subclass adds

    def hello_state(self, hello: Hello) -> Hello:
        """Return the hello with the operational state that this card still holds."""
        return hello

    def held_instances(self) -> tuple[TunnelRecord, ...]:
        """Return the instances of on-demand tunnels that this card has peers of."""
        return ()

    def on_records_changed(self, change: RecordChange, now: float) -> list[Output]:
        """Act on records that a snapshot or delta changed, or on a slice of them."""
        return []

    def on_request(self, request: Request, now: float) -> list[Output] | None:
        """Carry out a request of the controller, whose arguments are checked and complete; return None if there is
        no request of that name.

        Raises:
            ValueError: the request cannot be carried out; the text says why.
        """
        return None

    def on_datagrams(self, message: Datagrams, now: float) -> list[Output]:
        """Send datagrams of the router's own; only a line card can."""
        return [self.log(now, "error", "bus", f"{len(message.datagrams)} datagrams are for a line card")]

    def held_version(self) -> int:
        """Return the version of the records that this card holds and acts on."""
        return self.replica.version

    def parts_due(self) -> float:
        """Return when something that only this kind of card does is due."""
        return inf

    def on_cards_changed(self, now: float) -> list[Output]:
        """The `up` flag of some card changed."""
        return []

    # the engine's calls

    def start(self, now: float) -> list[Output]:
        return []

    def on_connected(self, now: float) -> list[Output]:
        self._controller = True
        return self._hello(now)

    def on_disconnected(self, now: float) -> list[Output]:
        """Continue to forward with the records that are held; send a hello when a controller is back."""
        self._controller = self._admitted = False
        self._hello_at = self._beat_at = inf
        self._held_parts.clear()
        return []

    def receive(self, message: ToCardMessage, now: float) -> list[Output]:
        """Act on a message of the controller, one of the types that go to cards."""
        if isinstance(message, Delta):
            if not self._admitted:
                return []
            change = self.replica.delta(message)
            if change is None:
                return [] if message.to_version <= self.replica.received else self._hello(now)
            if change.more and not change.put and not change.deleted:
                # It waits behind other changes.
                return []
            return self._apply(change, now)
        if isinstance(message, Snapshot):
            change = self.replica.snapshot(message) if self._admitted else None
            if change is None:
                return []
            # The version is held when all slices are applied.
            beat = [] if change.more else [self._heartbeat(now)]
            return [*self._apply(change, now), *beat]
        if isinstance(message, Welcome):
            self._admitted = True
            self._hello_at = inf
            self.epoch = message.epoch
            self.interval, self.misses = message.interval, message.misses
            self.settings = message.settings
            self.fenced = False
            return [self._heartbeat(now)]
        if isinstance(message, Request):
            return self._on_request(message, now)
        if isinstance(message, Datagrams):
            return self.on_datagrams(message, now)
        assert isinstance(message, Goodbye)
        return [Exit(message.reason)]

    def on_fabric_peer(self, card: str, boot: int, up: bool, now: float) -> list[Output]:
        """A closed connection is the first sign that a card has failed: mark it unusable at once."""
        if up:
            self._closed.discard((card, boot))
        else:
            self._closed.add((card, boot))
        return self._update_usable(card, now)

    @property
    def fence_timeout(self) -> float:
        """Stall (s) after which nothing may leave: one interval before the controller fences the card."""
        return self.interval * (self.misses - 1) if self.epoch else inf

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """The loop was stalled for `seconds`. If the controller may have fenced this card meanwhile, let nothing
        leave, not even what already waits in this process, until the controller admits it again."""
        self._loop_lag = max(self._loop_lag, seconds)
        if seconds < self.fence_timeout:
            return []
        self.fenced = True
        return self._hello(now) if self._controller else []

    def on_timer(self, now: float) -> list[Output]:
        outputs: list[Output] = []
        if now >= self._hello_at:
            outputs += self._hello(now)
        elif self._held_parts:
            outputs += self._send_held()
        if now >= self._beat_at:
            outputs.append(self._heartbeat(now))
        if self.replica.waiting:
            outputs += self._apply_waiting(now)
        return [*outputs, *self._flush_stamps()]

    def next_timer(self) -> float:
        return min(self.own_due(), self.parts_due())

    def own_due(self) -> float:
        """Return when something of what all cards do is due."""
        if self._stamps or self._held_parts or self.replica.waiting:
            return -inf
        hello, beat = self._hello_at, self._beat_at
        return hello if hello < beat else beat

    @property
    def beat_at(self) -> float:
        """When the next heartbeat is due."""
        return self._beat_at

    def heartbeat(self, now: float) -> Heartbeat:
        """Return a heartbeat, and count it as sent."""
        self._beats += 1
        if now - self._beat_at > self.interval:
            self._loop_lag = max(self._loop_lag, now - self._beat_at)
        self._beat_at = next_multiple(now, self.interval) if self.aligned else now + self.interval
        late, self._loop_lag = self._loop_lag, 0.0
        return Heartbeat(self.card, self.epoch, self._beats, self.held_version(), late)

    # for subclasses

    @property
    def admitted(self) -> bool:
        """Return whether a controller has admitted this process on the present connection."""
        return self._admitted

    def is_current_sender(self, batch: Batch) -> bool:
        """Return whether a batch comes from the current process of its card; if not, count it as dropped."""
        if self.fenced:
            self.drop("fenced", len(batch))
            return False
        if self.epochs.get(batch.card) != batch.epoch:
            self.drop("stale epoch", len(batch))
            return False
        return True

    def drop(self, cause: str, packets: int = 1) -> None:
        """Count dropped packets, by cause."""
        self.counters.add("drop " + cause, packets)

    def add_stamp(self, batch: Batch, step: str, now: float) -> None:
        """Stamp each traced packet of the batch with `step` and the time."""
        for _, number in batch.marks:
            self._stamps.append(Stamp(number, step, now))

    def log(self, now: float, severity: str, facility: str, text: str, id: str = "") -> Output:
        return ToController(LogRecord(now, severity, facility, id, text, {"card": self.card}))

    # inside

    def _flush_stamps(self) -> list[Output]:
        """Report the stamps that were not reported yet."""
        if not self._stamps:
            return []
        stamps = tuple(self._stamps)
        self._stamps.clear()
        return [ToController(TraceStamps(stamps))]

    def _on_request(self, message: Request, now: float) -> list[Output]:
        """Answer a request, also if it is not valid or fails."""
        spec = self.specs.get(message.name)
        try:
            if spec is not None:
                message = Request(message.number, message.name, given(read(spec, message.arguments)))
                if message.name in self.performs:
                    return [Perform(message)]
                if message.name == "stamps":
                    return [*self._flush_stamps(), ToController(Reply(message.number, {}))]
                answer = self.on_request(message, now)
                if answer is not None:
                    return answer
            why = f"no request {message.name!r} on {self.card}"
        except ArgumentError as error:
            why = f"{message.name}: {error}"
        except ValueError as error:
            why = str(error)
        except Exception as error:
            # A fault of this program: the operator is told, and the card goes on.
            why = f"{message.name}: {fault(error)}"
            return [self.log(now, "error", "operator", why), ToController(Reply(message.number, {}, why))]
        return [ToController(Reply(message.number, {}, why))]

    def _hello(self, now: float) -> list[Output]:
        self._beat_at = inf
        self._admitted = False
        held = self.held_instances()
        cuts = range(0, len(held), MAX_INSTANCES_PER_PART)
        self._hello_at = now + max(HELLO_RETRY_INTERVAL, len(cuts) * HELLO_PART_INTERVAL)
        hello = Hello(
            PROTOCOL,
            self.card,
            self.kind,
            self.pid,
            self.boot,
            self.epoch,
            self.replica.version,
            parts=len(cuts),
        )
        self._held_parts = deque(
            [
                HeldInstances(number, len(cuts), held[at : at + MAX_INSTANCES_PER_PART])
                for number, at in enumerate(cuts, 1)
            ]
        )
        return [ToController(self.hello_state(hello)), *self._send_held()]

    def _send_held(self) -> list[Output]:
        """Send the next part of what follows a hello. The others come with the next turns: a card that encoded all
        of thousands at once would be stalled, and say hello again."""
        return [ToController(self._held_parts.popleft())] if self._held_parts else []

    def _heartbeat(self, now: float) -> Output:
        return ToController(self.heartbeat(now))

    def _apply_waiting(self, now: float) -> list[Output]:
        """Apply some of the changes that wait; the version held is told after the last one."""
        outputs: list[Output] = []
        applied = 0
        while self.replica.waiting and applied < MAX_RECORDS_PER_SLICE:
            change = self.replica.next_slice()
            outputs += self._apply(change, now)
            applied += len(change.put) + len(change.deleted) + 1
        if not self.replica.waiting and self._admitted:
            outputs.append(self._heartbeat(now))
        return outputs

    def _apply(self, change: RecordChange, now: float) -> list[Output]:
        outputs: list[Output] = []
        flags = dict(self.up)
        for record in change.deleted:
            if isinstance(record, CardStateRecord):
                del self._states[record.card], self.epochs[record.card], self.up[record.card]
                outputs.append(Disconnect(record.card))
        for record in change.put:
            if isinstance(record, CardStateRecord):
                outputs += self._card_state(record, now)
        if self.up != flags:
            outputs += self.on_cards_changed(now)
        outputs += self.on_records_changed(change, now)
        return outputs

    def _card_state(self, state: CardStateRecord, now: float) -> list[Output]:
        known = self._states.get(state.card)
        self._states[state.card] = state
        self.epochs[state.card] = state.epoch
        if state.card == self.card:
            self.up[state.card] = state.usable
            # Raised without a Welcome: the controller fenced this process while it was stalled.
            if state.epoch > self.epoch:
                self.fenced = True
                return self._hello(now)
            return []
        outputs: list[Output] = []
        if state.boot and (known is None or known.boot != state.boot):
            self._closed = {(card, boot) for card, boot in self._closed if card != state.card}
            outputs.append(Connect(state.card, state.boot))
        self.up[state.card] = state.usable and (state.card, state.boot) not in self._closed
        return outputs

    def _update_usable(self, card: str, now: float) -> list[Output]:
        state = self._states.get(card)
        if state is None:
            return []
        up = state.usable and (card, state.boot) not in self._closed
        if self.up.get(card) == up:
            return []
        self.up[card] = up
        return self.on_cards_changed(now)

    def set_sender(self, batch: Batch) -> Batch:
        """Write this card's name and epoch into the header of a batch, and return the batch."""
        batch.card, batch.epoch = self.card, self.epoch
        return batch
