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
    RESTORED = "restored"
    """Known from the files of the controller before; its process may still run and hold its records."""
    STARTED = "started"
    """The process was started and has not sent a hello."""
    ADMITTED = "admitted"
    """Has sent a hello; gets its welcome when the reconcile window is over."""
    RESUMED = "resumed"
    """As `ADMITTED`, and still holds its epoch and its records."""
    SYNCHRONISING = "synchronising"
    """Welcomed; has not yet reported that it holds its snapshot."""
    USABLE = "usable"
    """Holds its snapshot: other cards send packets to it."""
    FENCED = "fenced"
    """Silent or disconnected: its epoch was raised. What depends on the card is not updated yet."""
    DEAD = "dead"
    """As `FENCED`, and its process has ended, with its SAs."""
    REPLACED = "replaced"
    """As `DEAD`, and another process was started."""
    HUNG = "hung"
    """Silent or disconnected, and everything that depends on the card is updated. A hello admits it again."""
    KILL_PENDING = "kill pending"
    """Stayed hung; the launcher was asked to kill its process."""


GREETED_STATES = frozenset((AdmissionState.ADMITTED, AdmissionState.RESUMED))
"""States of cards that wait for their welcome."""

PENDING_STATES = frozenset((AdmissionState.FENCED, AdmissionState.DEAD, AdmissionState.REPLACED))
"""States of cards whose routes, tunnels and circuits are still to be updated."""


_HUNG_STATES = frozenset((AdmissionState.HUNG, AdmissionState.KILL_PENDING))
_GONE_STATES = PENDING_STATES | _HUNG_STATES | {AdmissionState.ABSENT, AdmissionState.STARTED}
_EXPECTING_STATES = (AdmissionState.USABLE, AdmissionState.SYNCHRONISING, *GREETED_STATES)


class AdmissionEvent(Enum):
    STARTED = "started"
    """The launcher started a process of the card."""
    HELLO_NEW = "hello of a new process"
    HELLO_AGAIN = "hello of the known process"
    HELLO_RESUMED = "hello that resumes an epoch"
    """The known process, under its last epoch and with all its records."""
    RECONCILED = "reconcile window over"
    """Follows a hello at once, or when the controller has a plan."""
    SYNCHRONISED = "snapshot held"
    SILENCE = "heartbeats missed"
    LOST = "connection lost"
    DIED = "died"
    UPDATED = "dependents updated"
    EXPIRED = "stayed hung"


class AdmissionAction(Enum):
    IGNORE = "ignore"
    UPDATE_ONLY = "update only"
    """Only the state changes: no card was admitted, so no record changes."""
    ADMIT = "admit"
    """Raise the epoch."""
    READMIT = "readmit"
    """Keep the epoch that `FENCE` raised."""
    KEEP_EPOCH = "keep epoch"
    """Keep the epoch of the process."""
    WELCOME = "welcome"
    """Send welcome and snapshot."""
    MARK_USABLE = "mark usable"
    FENCE = "fence"
    """Raise the epoch and publish it."""
    FENCE_AND_UNSUBSCRIBE = "fence and unsubscribe"
    """Raise the epoch, publish it, and send the card nothing more."""
    UNSUBSCRIBE = "unsubscribe"
    """Send the card nothing more; its epoch was raised before."""
    UPDATE_DEPENDENTS = "update dependents"
    """Update the routes, tunnels and circuits that depend on the card."""
    KILL = "kill"


_S, _E, _A = AdmissionState, AdmissionEvent, AdmissionAction

_HELLOS = (_E.HELLO_NEW, _E.HELLO_AGAIN, _E.HELLO_RESUMED)
_ALL_BUT_UPDATED = tuple(event for event in _E if event is not _E.UPDATED)

ADMISSION = StateMachine[AdmissionState, AdmissionEvent, AdmissionAction](
    "Admission of a card",
    AdmissionState,
    AdmissionEvent,
    {
        _S.ABSENT: {
            _E.STARTED: (_S.STARTED, _A.UPDATE_ONLY),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED, _E.RECONCILED, _E.SYNCHRONISED), (_S.ABSENT, _A.IGNORE)),
            **each((_E.SILENCE, _E.LOST, _E.DIED, _E.EXPIRED), (_S.ABSENT, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.RESTORED: {
            _E.STARTED: (_S.REPLACED, _A.FENCE_AND_UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            _E.HELLO_AGAIN: (_S.ADMITTED, _A.READMIT),
            _E.HELLO_RESUMED: (_S.RESUMED, _A.KEEP_EPOCH),
            **each((_E.RECONCILED, _E.SILENCE), (_S.FENCED, _A.FENCE)),
            _E.DIED: (_S.DEAD, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.LOST, _E.EXPIRED), (_S.RESTORED, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.STARTED: {
            _E.STARTED: (_S.STARTED, _A.UPDATE_ONLY),
            **each(_HELLOS, (_S.ADMITTED, _A.ADMIT)),
            _E.DIED: (_S.ABSENT, _A.UPDATE_ONLY),
            **each((_E.RECONCILED, _E.SYNCHRONISED, _E.SILENCE), (_S.STARTED, _A.IGNORE)),
            **each((_E.LOST, _E.EXPIRED), (_S.STARTED, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.ADMITTED: {
            _E.STARTED: (_S.REPLACED, _A.FENCE_AND_UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.ADMITTED, _A.KEEP_EPOCH)),
            _E.RECONCILED: (_S.SYNCHRONISING, _A.WELCOME),
            **each((_E.SILENCE, _E.LOST), (_S.FENCED, _A.FENCE)),
            _E.DIED: (_S.DEAD, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.EXPIRED), (_S.ADMITTED, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.RESUMED: {
            _E.STARTED: (_S.REPLACED, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.HELLO_NEW, _E.HELLO_AGAIN), (_S.ADMITTED, _A.ADMIT)),
            _E.HELLO_RESUMED: (_S.RESUMED, _A.KEEP_EPOCH),
            _E.RECONCILED: (_S.USABLE, _A.WELCOME),
            **each((_E.SILENCE, _E.LOST), (_S.FENCED, _A.FENCE)),
            _E.DIED: (_S.DEAD, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.EXPIRED), (_S.RESUMED, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.SYNCHRONISING: {
            _E.STARTED: (_S.REPLACED, _A.FENCE_AND_UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.ADMITTED, _A.KEEP_EPOCH)),
            _E.SYNCHRONISED: (_S.USABLE, _A.MARK_USABLE),
            **each((_E.SILENCE, _E.LOST), (_S.FENCED, _A.FENCE)),
            _E.DIED: (_S.DEAD, _A.FENCE_AND_UNSUBSCRIBE),
            _E.EXPIRED: (_S.SYNCHRONISING, _A.IGNORE),
            **each((_E.RECONCILED, _E.UPDATED), None),
        },
        _S.USABLE: {
            _E.STARTED: (_S.REPLACED, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.HELLO_NEW, _E.HELLO_AGAIN), (_S.ADMITTED, _A.ADMIT)),
            _E.HELLO_RESUMED: (_S.RESUMED, _A.KEEP_EPOCH),
            **each((_E.SILENCE, _E.LOST), (_S.FENCED, _A.FENCE)),
            _E.DIED: (_S.DEAD, _A.FENCE_AND_UNSUBSCRIBE),
            **each((_E.SYNCHRONISED, _E.EXPIRED), (_S.USABLE, _A.IGNORE)),
            **each((_E.RECONCILED, _E.UPDATED), None),
        },
        _S.FENCED: {_E.UPDATED: (_S.HUNG, _A.UPDATE_DEPENDENTS), **each(_ALL_BUT_UPDATED, None)},
        _S.DEAD: {_E.UPDATED: (_S.ABSENT, _A.UPDATE_DEPENDENTS), **each(_ALL_BUT_UPDATED, None)},
        _S.REPLACED: {_E.UPDATED: (_S.STARTED, _A.UPDATE_DEPENDENTS), **each(_ALL_BUT_UPDATED, None)},
        _S.HUNG: {
            _E.STARTED: (_S.STARTED, _A.UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.ADMITTED, _A.READMIT)),
            _E.DIED: (_S.ABSENT, _A.UNSUBSCRIBE),
            _E.EXPIRED: (_S.KILL_PENDING, _A.KILL),
            **each((_E.RECONCILED, _E.SYNCHRONISED, _E.SILENCE, _E.LOST), (_S.HUNG, _A.IGNORE)),
            _E.UPDATED: None,
        },
        _S.KILL_PENDING: {
            _E.STARTED: (_S.STARTED, _A.UNSUBSCRIBE),
            _E.HELLO_NEW: (_S.ADMITTED, _A.ADMIT),
            _E.DIED: (_S.ABSENT, _A.UNSUBSCRIBE),
            _E.EXPIRED: (_S.KILL_PENDING, _A.KILL),
            **each((_E.HELLO_AGAIN, _E.HELLO_RESUMED), (_S.KILL_PENDING, _A.IGNORE)),
            **each((_E.RECONCILED, _E.SYNCHRONISED, _E.SILENCE, _E.LOST), (_S.KILL_PENDING, _A.IGNORE)),
            _E.UPDATED: None,
        },
    },
    initial=(AdmissionState.ABSENT, AdmissionState.RESTORED),
    ignore=AdmissionAction.IGNORE,
    theory="""\
The controller admits a card on its hello and gives it an epoch; then it sends a welcome and a snapshot of the
records that the card needs: at once, or after a start of the controller when the reconcile window is over. The
card becomes usable when its heartbeat reports the version of that snapshot. A card that is silent or
disconnected loses its epoch at once, so that other cards drop what it still sends. Routes, tunnels and circuits
that depend on it are updated in a second step, because they may be thousands of records and the epochs of
further cards must not wait for them; any other event of the card comes after that. If the card stays hung, the
launcher kills its process. After a restart of the controller a card that still runs keeps its epoch and all
that it holds.""",
)


@dataclass(slots=True)
class CardEntry:
    """One card as the controller sees it. Times are in monotonic seconds.

    `boot` is the newest process that is known of, `admitted_boot` the one that holds, or last held, an epoch.
    `usable_at_version` is the version of its snapshot, `reported_version` the one that it last reported.
    `loop_lag` is by how much the card's loop was late, as it reported (s).
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
    """When the admitted process was admitted; -inf where an earlier controller did it."""
    greeted_at: float = -inf
    """When it sent its first hello in the reconcile window."""
    last_heartbeat: float = -inf
    hung_at: float = inf
    reported_version: int = 0
    loop_lag: float = 0.0
    cpu_wait: float = 0.0
    """Part of its present silence in which it waited for a core (s)."""
    down_reason: str = ""
    """Why it last became unusable."""
    cipher_engine: str = ""
    """What encrypts the ESP of an ASP, as its process said."""
    remarks: tuple[str, ...] = ()
    """What the process told the operator when it was admitted."""

    @property
    def usable(self) -> bool:
        return self.state is AdmissionState.USABLE

    @property
    def failed(self) -> bool:
        """Whether the card was admitted, has failed since, and is not admitted again."""
        return self.state in _GONE_STATES and self.down_reason != ""

    @property
    def expects_heartbeats(self) -> bool:
        return self.state in _EXPECTING_STATES

    def transition(self, event: AdmissionEvent) -> AdmissionAction:
        """Change the state as `ADMISSION` says and return what the controller has to do."""
        self.state, action = ADMISSION.transition(self.state, event)
        return action


MAX_CPU_WAIT_FACTOR = 4
"""Most credit of a silent card for waiting for a core, in multiples of the silence that is allowed to it. On a
machine that has no core for it, its traffic is better off with another card."""


@dataclass(slots=True)
class HeartbeatMonitor:
    """Finds cards that missed their heartbeats, and hung cards to be killed. `silence` and `kill_after` in
    seconds.

    Time in which the controller itself could not run, or in which a card waited for a core, does not count.
    """

    silence: float
    kill_after: float
    cards: dict[str, CardEntry] = field(default_factory=dict)

    def extend_deadlines(self, seconds: float, now: float) -> None:
        """Extend every deadline because the controller could not run."""
        for entry in self.cards.values():
            self._extend(entry, seconds, now)

    def at_risk(self, now: float) -> list[CardEntry]:
        """Return the cards that are half way to missing their heartbeats, or hung."""
        return [
            entry
            for entry in self.cards.values()
            if (entry.expects_heartbeats and now >= entry.last_heartbeat + self.silence / 2)
            or entry.state is AdmissionState.HUNG
        ]

    def next_risk(self) -> float:
        """Return when `at_risk` may next return something."""
        at = inf
        for entry in self.cards.values():
            if entry.expects_heartbeats:
                at = min(at, entry.last_heartbeat + self.silence / 2)
            elif entry.state is AdmissionState.HUNG:
                return -inf
        return at

    def credit_cpu_wait(self, card: str, seconds: float, now: float) -> None:
        """Extend the deadline of a silent card that waited for a core, up to now."""
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
        """Return the cards whose deadline has passed, each with its event."""
        events = []
        for entry in self.cards.values():
            if entry.expects_heartbeats and now >= entry.last_heartbeat + self.silence:
                events.append((entry, AdmissionEvent.SILENCE))
            elif entry.state in _HUNG_STATES and now >= entry.hung_at + self.kill_after:
                events.append((entry, AdmissionEvent.EXPIRED))
        return events

    def next_timer(self) -> float:
        """Return when `pop_expired` may next return something."""
        at = inf
        for entry in self.cards.values():
            if entry.expects_heartbeats:
                at = min(at, entry.last_heartbeat + self.silence)
            elif entry.state in _HUNG_STATES:
                at = min(at, entry.hung_at + self.kill_after)
        return at
