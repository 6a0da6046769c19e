"""Admission of cards: the state machine of a card at the controller, and the monitor of heartbeats."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf

from chassis.state_machine import StateMachine, each


class AdmissionState(Enum):
    """State of a card at the controller."""

    ABSENT = "absent"
    """No process of the card is known to run."""
    RESTORED = "remembered"
    """Known from the files of the controller before; its process may still run and hold its records."""
    STARTED = "started"
    """The process was started and has not sent a hello."""
    SYNCHRONISING = "synchronising"
    """Admitted; has not yet reported that it holds its snapshot."""
    USABLE = "usable"
    """Admitted, and holds its snapshot: other cards send packets to it."""
    HUNG = "hung"
    """Silent or disconnected: its epoch was raised. A hello admits it again."""
    KILL_PENDING = "doomed"
    """Stayed hung; the launcher was asked to kill its process."""


class AdmissionEvent(Enum):
    STARTED = "started"
    """The launcher started a process of the card."""
    HELLO_NEW = "hello of a new process"
    HELLO_AGAIN = "hello of the known process"
    HELLO_RESUMED = "hello that resumes an epoch"
    """The known process, under its last epoch and with all its records."""
    SYNCHRONISED = "snapshot held"
    SILENCE = "heartbeats missed"
    LOST = "connection lost"
    DIED = "died"
    EXPIRED = "stayed hung"


class AdmissionAction(Enum):
    IGNORE = "ignore"
    UPDATE_ONLY = "update only"
    """Only the state changes: no card was admitted, so no record changes."""
    ADMIT = "admit"
    """Raise the epoch, then send welcome and snapshot."""
    WELCOME = "welcome"
    """Keep the epoch; send welcome and snapshot."""
    READMIT = "readmit"
    """Keep the epoch that `FENCE` raised; send welcome and snapshot."""
    MARK_USABLE = "mark usable"
    FENCE = "fence"
    """Raise the epoch and publish it."""
    FENCE_AND_UNSUBSCRIBE = "fence and unsubscribe"
    """Raise the epoch, publish it, and send the card nothing more."""
    UNSUBSCRIBE = "unsubscribe"
    """Send the card nothing more; its epoch was raised before."""
    KILL = "kill"


_S, _E, _A = AdmissionState, AdmissionEvent, AdmissionAction

ADMISSION = StateMachine(
    "Admission of a card",
    AdmissionState,
    AdmissionEvent,
    {
        _S.ABSENT: {
            _E.STARTED: (_S.STARTED, _A.UPDATE_ONLY),
            _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED, _E.SYNCHRONISED), (_S.ABSENT, _A.IGNORE)),
            **each((_E.SILENCE, _E.LOST, _E.DIED, _E.EXPIRED), (_S.ABSENT, _A.IGNORE)),
        },
        _S.RESTORED: {
            _E.STARTED: (_S.STARTED, _A.FENCE_AND_UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
            _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.READMIT),
            _E.HELLO_RESUMED: (_S.USABLE, _A.WELCOME),
            _E.SILENCE: (_S.HUNG, _A.FENCE),
            _E.DIED: (_S.ABSENT, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.LOST, _E.EXPIRED), (_S.RESTORED, _A.IGNORE)),
        },
        _S.STARTED: {
            _E.STARTED: (_S.STARTED, _A.UPDATE_ONLY),
            **each((_E.HELLO_NEW, _E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.SYNCHRONISING, _A.ADMIT)),
            _E.DIED: (_S.ABSENT, _A.UPDATE_ONLY),
            **each((_E.SYNCHRONISED, _E.SILENCE, _E.LOST, _E.EXPIRED), (_S.STARTED, _A.IGNORE)),
        },
        _S.SYNCHRONISING: {
            _E.STARTED: (_S.STARTED, _A.FENCE_AND_UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.SYNCHRONISING, _A.WELCOME)),
            _E.SYNCHRONISED: (_S.USABLE, _A.MARK_USABLE),
            **each((_E.SILENCE, _E.LOST), (_S.HUNG, _A.FENCE)),
            _E.DIED: (_S.ABSENT, _A.FENCE_AND_UNSUBSCRIBE),
            _E.EXPIRED: (_S.SYNCHRONISING, _A.IGNORE),
        },
        _S.USABLE: {
            _E.STARTED: (_S.STARTED, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.HELLO_NEW, _E.HELLO_AGAIN), (_S.SYNCHRONISING, _A.ADMIT)),
            _E.HELLO_RESUMED: (_S.USABLE, _A.WELCOME),
            **each((_E.SILENCE, _E.LOST), (_S.HUNG, _A.FENCE)),
            _E.DIED: (_S.ABSENT, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.EXPIRED), (_S.USABLE, _A.IGNORE)),
        },
        _S.HUNG: {
            _E.STARTED: (_S.STARTED, _A.UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.SYNCHRONISING, _A.READMIT)),
            _E.DIED: (_S.ABSENT, _A.UNSUBSCRIBE),
            _E.EXPIRED: (_S.KILL_PENDING, _A.KILL),
            **each((_E.SYNCHRONISED, _E.SILENCE, _E.LOST), (_S.HUNG, _A.IGNORE)),
        },
        _S.KILL_PENDING: {
            _E.STARTED: (_S.STARTED, _A.UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
            _E.DIED: (_S.ABSENT, _A.UNSUBSCRIBE),
            _E.EXPIRED: (_S.KILL_PENDING, _A.KILL),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.KILL_PENDING, _A.IGNORE)),
            **each((_E.SYNCHRONISED, _E.SILENCE, _E.LOST), (_S.KILL_PENDING, _A.IGNORE)),
        },
    },
    initial=(AdmissionState.ABSENT, AdmissionState.RESTORED),
    ignore=AdmissionAction.IGNORE,
    theory="""\
The controller admits a card on its hello: it gives the card an epoch, a welcome and a snapshot of the records
that the card needs. The card becomes usable when its heartbeat reports the version of that snapshot. A card
that is silent or disconnected loses its epoch at once, so that other cards drop what it still sends; if it
stays hung, the launcher kills its process. After a restart of the controller a card that still runs keeps its
epoch and all that it holds.""",
)


@dataclass(slots=True)
class CardEntry:
    """One card as the controller sees it.

    `boot` is the newest start that is known of, `admitted` the one that holds (or last held) an epoch: the
    card's records speak of that one. `synchronised` is the version that makes it usable. Times are monotonic
    seconds; `late` is how far behind its own schedule the card's loop said it was.
    """

    card: str
    kind: str
    state: AdmissionState = AdmissionState.ABSENT
    boot: int = 0
    admitted_boot: int = 0
    pid: int = 0
    epoch: int = 0
    usable_at_version: int = 0
    since: float = -inf
    """When that start was admitted, where this controller saw it."""
    last_heartbeat: float = -inf
    hung_at: float = inf
    reported_version: int = 0
    """Version that it last said it holds."""
    loop_lag: float = 0.0
    cpu_wait: float = 0.0
    """Seconds of its silence in which it waited for a core."""
    down_reason: str = ""
    """What last made it unusable."""

    @property
    def usable(self) -> bool:
        return self.state is AdmissionState.USABLE

    @property
    def expects_heartbeats(self) -> bool:
        """Whether its heartbeats are expected."""
        return self.state in (AdmissionState.SYNCHRONISING, AdmissionState.USABLE)

    def transition(self, event: AdmissionEvent) -> AdmissionAction:
        """Change the state as `ADMISSION` says and return what the controller has to do."""
        self.state, action = ADMISSION.transition(self.state, event)
        return action


MAX_CPU_WAIT_FACTOR = 4
"""How many times as long as a silent card has anyway it is given at most because it waits for a core: on a
machine that has none for it, its traffic is better off with another card."""


@dataclass(slots=True)
class HeartbeatMonitor:
    """Who has been silent for too long, with allowance for the watcher's own lateness and for crowded machines.

    While the controller itself stood still it heard nobody: that time counts against no card. Nor does the time
    in which a card could have spoken if the machine had given it a core.
    """

    silence: float
    kill_after: float
    cards: dict[str, CardEntry] = field(default_factory=dict)

    def extend_deadlines(self, seconds: float, now: float) -> None:
        """The watcher was late by this much."""
        for entry in self.cards.values():
            self._extend(entry, seconds, now)

    def at_risk(self, now: float) -> list[CardEntry]:
        """The cards that are half way to being given up, or to being killed."""
        return [
            entry
            for entry in self.cards.values()
            if (entry.expects_heartbeats and now >= entry.last_heartbeat + self.silence / 2)
            or entry.state is AdmissionState.HUNG
        ]

    def credit_cpu_wait(self, card: str, seconds: float, now: float) -> None:
        """A silent card waited for a core this long, up to now."""
        entry = self.cards[card]
        seconds = min(seconds, MAX_CPU_WAIT_FACTOR * self.silence - entry.cpu_wait)
        if seconds > 0:
            entry.cpu_wait += seconds
            self._extend(entry, seconds, now)

    def _extend(self, entry: CardEntry, seconds: float, now: float) -> None:
        entry.last_heartbeat = max(entry.last_heartbeat, min(entry.last_heartbeat + seconds, now))
        if entry.hung_at != inf:
            entry.hung_at = max(entry.hung_at, min(entry.hung_at + seconds, now))

    def pop_expired(self, now: float) -> list[tuple[CardEntry, AdmissionEvent]]:
        """What time alone has brought about."""
        events = []
        for entry in self.cards.values():
            if entry.expects_heartbeats and now >= entry.last_heartbeat + self.silence:
                events.append((entry, AdmissionEvent.SILENCE))
            elif (
                entry.state in (AdmissionState.HUNG, AdmissionState.KILL_PENDING)
                and now >= entry.hung_at + self.kill_after
            ):
                events.append((entry, AdmissionEvent.EXPIRED))
        return events

    def next_timer(self) -> float:
        """When `due` may next have something."""
        at = inf
        for entry in self.cards.values():
            if entry.expects_heartbeats:
                at = min(at, entry.last_heartbeat + self.silence)
            elif entry.state in (AdmissionState.HUNG, AdmissionState.KILL_PENDING):
                at = min(at, entry.hung_at + self.kill_after)
        return at
