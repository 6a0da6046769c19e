"""The engine of an ASP: a card that holds the SA and policy databases and carries tunnels' packets.

It is a pure state machine: its SAs come from records, their sequence numbers and windows live in a buffer that
outlives it, time and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from math import inf

from chassis.ase.counters import AspCounters
from chassis.ase.ipsec.causes import Drops, Notice, NoticeKind
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaState as StateBuffer
from chassis.ase.ipsec.state import StateError, octets_for
from chassis.ase.messages import DropLog
from chassis.ase.paths import Paths
from chassis.ase.routes import Routes
from chassis.ase.tunnels import TunnelState, TunnelTable
from chassis.bus.batch import Batch, Step
from chassis.bus.card import Card
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import Heartbeat, Hello, LogRecord, SaEvent, TunnelEvent
from chassis.bus.replication import Change
from chassis.fwd.causes import Cause

FACILITY = "ase"

_CHUNK = 1 << 16


def _is_empty(state: memoryview) -> bool:
    """Whether no SA has ever been held in this state; looks at the first one where there is any."""
    octets = state.cast("B")
    return not any(
        bytes(octets[at : at + _CHUNK]).strip(b"\0") for at in range(octets_for(0), len(octets), _CHUNK)
    )


class Asp(Card):
    """One ASP of an ASE card."""

    kind = "asp"

    def __init__(
        self,
        card: str,
        *,
        pid: int,
        boot: int,
        state: memoryview,
        fresh: bool,
        random: Callable[[int], bytes],
        counters: Counters | None = None,
    ) -> None:
        """`state` holds the SAs' numbers and windows and outlives the process; `fresh` says that it is new.
        `random(n)` gives n unpredictable bytes. A state that is damaged is begun anew, which counts as fresh:
        the numbers of its SAs then go on from the controller's leases, their windows start empty.
        """
        super().__init__(card, pid=pid, boot=boot, counters=counters)
        self._damage = ""
        try:
            held = StateBuffer(state)
        except StateError as error:
            self._damage = str(error)
            state.cast("B")[:] = bytes(state.nbytes)
            held = StateBuffer(state)
        # One that was made but never used by a process that died early is as good as new.
        self.fresh = fresh or held.is_fresh or _is_empty(state)
        self.sadb = Sadb(held)
        self.tunnels = TunnelTable(card, self.sadb)
        self.routes = Routes(card, self.up, self.tunnels.records)
        self._counts = AspCounters(self.counters)
        self._log = DropLog(card)
        self.paths = Paths(self, self.sadb, self.tunnels, self.routes, self._counts, random)
        self._asked: dict[tuple[int, int], tuple[SaEvent, int]] = {}
        """Leases asked for and not had yet, with the end of the lease that was running out."""
        self._complete = 0
        """The version of the records whose SAs are all in place."""
        self._behind = False
        """The controller may not know of tunnels without SAs and of leases asked for: it is told once more."""

    # what every card does

    def held(self, hello: Hello) -> Hello:
        """Adds the SAs held, and until the first snapshot that their numbers are unknown, where they are."""
        sas = tuple(chain.from_iterable([state.sas for state in self.tunnels.states.values()]))
        return replace(hello, fresh=self.fresh and self.replica.version == 0, sas=sas)

    def connected(self, now: float) -> list[Output]:
        self._behind = True
        return super().connected(now)

    def changed(self, change: Change, now: float) -> list[Output]:
        # Old decisions end with the old records, before a packet can meet the new ones.
        self.tunnels.apply(change)
        self.routes.apply(change)
        outputs: list[Output] = []
        if self._behind:
            self._behind = False
            outputs += self._events(state for state in self.tunnels.states.values() if state.told and not state.up)
            outputs += [ToController(event) for event, _ in self._asked.values()]
            if self._damage:
                outputs.append(self.log(now, "error", FACILITY, f"SA state begun anew: {self._damage}"))
                self._damage = ""
        return outputs + self._install()

    def _install(self) -> list[Output]:
        """Go on with what changed records want; report what came of it."""
        outputs = self._events(self.tunnels.install())
        if not self.tunnels.pending:
            self._complete = self.replica.version
        for key in [key for key, (_, limit) in self._asked.items() if not self._ends_at(key, limit)]:
            del self._asked[key]
        return outputs

    def cards_changed(self, now: float) -> list[Output]:
        self.routes.decider.invalidate()
        return []

    # the data path

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """A batch of another card: packets to protect or to open."""
        self._counts.values[self._counts.received] += len(batch.lengths)
        if not self.accepts(batch):
            return []
        step = batch.step
        if step is Step.PROTECT:
            act = self.paths.protect
        elif step is Step.OPEN:
            act = self.paths.open
        else:
            self.drop(Cause.WRONG_STEP, len(batch.lengths))
            return []
        if not batch.marks:
            return act(batch, now)
        outputs: list[Output] = []
        for part in batch.split_marked():
            outputs += act(part, now)
        return outputs

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """An ASP has no port; nothing comes in by one."""
        self._counts.values[self._counts.received] += len(batch.lengths)
        self.drop(Cause.NO_PORT, len(batch.lengths))
        return []

    def carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """An ASP has no port, so no carrier either."""
        return []

    # time

    def on_timer(self, now: float) -> list[Output]:
        outputs = super().on_timer(now) + _records(self._log.flush(now))
        if self.tunnels.pending:
            outputs += self._install()
            if not self.tunnels.pending:
                outputs.append(self._heartbeat(now))
        return outputs

    def wake(self) -> float:
        if self.tunnels.pending:
            return -inf
        return min(super().wake(), self._log.wake())

    def _heartbeat(self, now: float) -> Output:
        """Says which version is in force here: packets are sent to an ASP once it has what the controller sent."""
        beat = super()._heartbeat(now)
        if self.tunnels.pending and isinstance(beat, ToController) and isinstance(beat.message, Heartbeat):
            return ToController(replace(beat.message, version=self._complete))
        return beat

    # what the packet engine has to say

    def dropped(self, drops: Drops, now: float) -> list[Output]:
        """Count packets that the packet engine dropped; the log records that are due."""
        for cause, count in drops.counts.items():
            self.drop(cause, count)
        return _records(self._log.note(drops, now))

    def noticed(self, notices: tuple[Notice, ...], now: float) -> list[Output]:
        """Ask the controller for more numbers, or say that there are none left."""
        outputs: list[Output] = []
        for notice in notices:
            state = self.tunnels.states.get(notice.tunnel)
            if state is None:
                continue
            exhausted = notice.kind is NoticeKind.SEQUENCE_EXHAUSTED
            for sa in state.sas:
                if sa.serial != notice.serial or sa.direction != "out":
                    continue
                event = SaEvent(sa, "exhausted" if exhausted else "lease", str(notice.kind), notice.next_number)
                outputs.append(ToController(event))
                if not exhausted:
                    self._asked[notice.tunnel, notice.serial] = (event, notice.limit)
                break
            if exhausted and self.tunnels.exhausted(notice.tunnel):
                outputs += self._events([state])
        return outputs

    # inside

    def _ends_at(self, key: tuple[int, int], limit: int) -> bool:
        """Whether an SA is there and still has the lease that ends at `limit`."""
        protector = self.sadb.outbound.get(key)
        return protector is not None and protector.limit == limit

    def _events(self, states: Iterable[TunnelState]) -> list[Output]:
        outputs: list[Output] = []
        for state in states:
            state.told = (state.reason, state.sas)
            event = TunnelEvent(state.record.number, state.up, state.reason, state.record.remote, sas=state.sas)
            outputs.append(ToController(event))
        return outputs


def _records(records: list[LogRecord]) -> list[Output]:
    return [ToController(record) for record in records]
