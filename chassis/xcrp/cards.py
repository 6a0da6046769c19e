"""Admission of cards: one table says what every event does to a card in every state.

The table is the whole of it: a first boot, a killed process, a hung one and a card that outlived its controller
take different ways through the same few actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf


class State(Enum):
    """Where a card stands with the controller."""

    ABSENT = "absent"
    """No process of it is known to run."""
    REMEMBERED = "remembered"
    """This controller is new and knows it from its files; it may run and hold all that it held."""
    STARTED = "started"
    """Its process was started and has not said hello."""
    SYNCHRONISING = "synchronising"
    """Admitted; it has not yet reported that it holds its snapshot."""
    USABLE = "usable"
    HUNG = "hung"
    """Silent or disconnected: its epoch was raised. If it says hello it is admitted again."""
    DOOMED = "doomed"
    """It stayed hung; the launcher was asked to kill it."""


class Event(Enum):
    STARTED = "started"
    """The launcher started a process of it."""
    HELLO_NEW = "hello of a new start"
    HELLO_AGAIN = "hello of the known start"
    HELLO_HELD = "hello of the known start under its epoch, with all that it held"
    SYNCHRONISED = "reported its snapshot's version"
    SILENCE = "missed its heartbeats"
    LOST = "connection lost"
    DIED = "died"
    EXPIRED = "stayed hung"


class Action(Enum):
    IGNORE = "ignore"
    NOTE = "note"
    """Nothing was admitted, so nothing has to be told to anyone."""
    ADMIT = "admit"
    """A new epoch, then welcome and snapshot."""
    WELCOME = "welcome"
    """The epoch that it has, then welcome and snapshot."""
    READMIT = "readmit"
    """The epoch that was raised when it was given up, then welcome and snapshot."""
    USE = "use"
    FENCE = "fence"
    """Raise the epoch and tell all."""
    FENCE_LATE = "fence, forget"
    """Raise the epoch and tell all; nothing more is sent to it."""
    FORGET = "forget"
    """Nothing more is sent to it; its epoch was raised before."""
    KILL = "kill"


_S, _E, _A = State, Event, Action

TABLE: dict[State, dict[Event, tuple[State, Action]]] = {
    _S.ABSENT: {
        _E.STARTED: (_S.STARTED, _A.NOTE),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.ABSENT, _A.IGNORE),
        _E.HELLO_HELD: (_S.ABSENT, _A.IGNORE),
        _E.SYNCHRONISED: (_S.ABSENT, _A.IGNORE),
        _E.SILENCE: (_S.ABSENT, _A.IGNORE),
        _E.LOST: (_S.ABSENT, _A.IGNORE),
        _E.DIED: (_S.ABSENT, _A.IGNORE),
        _E.EXPIRED: (_S.ABSENT, _A.IGNORE),
    },
    _S.REMEMBERED: {
        _E.STARTED: (_S.STARTED, _A.FENCE_LATE),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.READMIT),
        _E.HELLO_HELD: (_S.USABLE, _A.WELCOME),
        _E.SYNCHRONISED: (_S.REMEMBERED, _A.IGNORE),
        _E.SILENCE: (_S.HUNG, _A.FENCE),
        _E.LOST: (_S.REMEMBERED, _A.IGNORE),
        _E.DIED: (_S.ABSENT, _A.FENCE_LATE),
        _E.EXPIRED: (_S.REMEMBERED, _A.IGNORE),
    },
    _S.STARTED: {
        _E.STARTED: (_S.STARTED, _A.NOTE),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_HELD: (_S.SYNCHRONISING, _A.ADMIT),
        _E.SYNCHRONISED: (_S.STARTED, _A.IGNORE),
        _E.SILENCE: (_S.STARTED, _A.IGNORE),
        _E.LOST: (_S.STARTED, _A.IGNORE),
        _E.DIED: (_S.ABSENT, _A.NOTE),
        _E.EXPIRED: (_S.STARTED, _A.IGNORE),
    },
    _S.SYNCHRONISING: {
        _E.STARTED: (_S.STARTED, _A.FENCE_LATE),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.WELCOME),
        _E.HELLO_HELD: (_S.SYNCHRONISING, _A.WELCOME),
        _E.SYNCHRONISED: (_S.USABLE, _A.USE),
        _E.SILENCE: (_S.HUNG, _A.FENCE),
        _E.LOST: (_S.HUNG, _A.FENCE),
        _E.DIED: (_S.ABSENT, _A.FENCE_LATE),
        _E.EXPIRED: (_S.SYNCHRONISING, _A.IGNORE),
    },
    _S.USABLE: {
        _E.STARTED: (_S.STARTED, _A.FENCE_LATE),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_HELD: (_S.USABLE, _A.WELCOME),
        _E.SYNCHRONISED: (_S.USABLE, _A.IGNORE),
        _E.SILENCE: (_S.HUNG, _A.FENCE),
        _E.LOST: (_S.HUNG, _A.FENCE),
        _E.DIED: (_S.ABSENT, _A.FENCE_LATE),
        _E.EXPIRED: (_S.USABLE, _A.IGNORE),
    },
    _S.HUNG: {
        _E.STARTED: (_S.STARTED, _A.FORGET),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.SYNCHRONISING, _A.READMIT),
        _E.HELLO_HELD: (_S.SYNCHRONISING, _A.READMIT),
        _E.SYNCHRONISED: (_S.HUNG, _A.IGNORE),
        _E.SILENCE: (_S.HUNG, _A.IGNORE),
        _E.LOST: (_S.HUNG, _A.IGNORE),
        _E.DIED: (_S.ABSENT, _A.FORGET),
        _E.EXPIRED: (_S.DOOMED, _A.KILL),
    },
    _S.DOOMED: {
        _E.STARTED: (_S.STARTED, _A.FORGET),
        _E.HELLO_NEW: (_S.SYNCHRONISING, _A.ADMIT),
        _E.HELLO_AGAIN: (_S.DOOMED, _A.IGNORE),
        _E.HELLO_HELD: (_S.DOOMED, _A.IGNORE),
        _E.SYNCHRONISED: (_S.DOOMED, _A.IGNORE),
        _E.SILENCE: (_S.DOOMED, _A.IGNORE),
        _E.LOST: (_S.DOOMED, _A.IGNORE),
        _E.DIED: (_S.ABSENT, _A.FORGET),
        _E.EXPIRED: (_S.DOOMED, _A.KILL),
    },
}


@dataclass(slots=True)
class CardEntry:
    """One card as the controller sees it.

    `boot` is the newest start that is known of, `admitted` the one that holds (or last held) an epoch: the
    card's records speak of that one. `synchronised` is the version that makes it usable. Times are monotonic
    seconds; `late` is how far behind its own schedule the card's loop said it was.
    """

    card: str
    kind: str
    state: State = State.ABSENT
    boot: int = 0
    admitted: int = 0
    pid: int = 0
    epoch: int = 0
    synchronised: int = 0
    since: float = -inf
    """When that start was admitted, where this controller saw it."""
    heard: float = -inf
    hung_at: float = inf
    held: int = 0
    """Version that it last said it holds."""
    late: float = 0.0
    waited: float = 0.0
    """Seconds of its silence in which it waited for a core."""
    why: str = ""
    """What last made it unusable."""

    @property
    def usable(self) -> bool:
        return self.state is State.USABLE

    @property
    def listening(self) -> bool:
        """Whether its heartbeats are expected."""
        return self.state in (State.SYNCHRONISING, State.USABLE)

    def take(self, event: Event) -> Action:
        """Go where the table says and return what is to be done."""
        self.state, action = TABLE[self.state][event]
        return action


PATIENCE = 4
"""How many times as long as a silent card has anyway it is given at most because it waits for a core: on a machine
that has none for it, its traffic is better off with another card."""


@dataclass(slots=True)
class Watch:
    """Who has been silent for too long, with allowance for the watcher's own lateness and for crowded machines.

    While the controller itself stood still it heard nobody: that time counts against no card. Nor does the time in
    which a card could have spoken if the machine had given it a core.
    """

    silence: float
    kill_after: float
    cards: dict[str, CardEntry] = field(default_factory=dict)

    def allow(self, seconds: float, now: float) -> None:
        """The watcher was late by this much."""
        for entry in self.cards.values():
            self._allow(entry, seconds, now)

    def silent(self, now: float) -> list[CardEntry]:
        """The cards that are half way to being given up, or to being killed."""
        return [
            entry
            for entry in self.cards.values()
            if (entry.listening and now >= entry.heard + self.silence / 2) or entry.state is State.HUNG
        ]

    def wait(self, card: str, seconds: float, now: float) -> None:
        """A silent card waited for a core this long, up to now."""
        entry = self.cards[card]
        seconds = min(seconds, PATIENCE * self.silence - entry.waited)
        if seconds > 0:
            entry.waited += seconds
            self._allow(entry, seconds, now)

    def _allow(self, entry: CardEntry, seconds: float, now: float) -> None:
        entry.heard = max(entry.heard, min(entry.heard + seconds, now))
        if entry.hung_at != inf:
            entry.hung_at = max(entry.hung_at, min(entry.hung_at + seconds, now))

    def due(self, now: float) -> list[tuple[CardEntry, Event]]:
        """What time alone has brought about."""
        events = []
        for entry in self.cards.values():
            if entry.listening and now >= entry.heard + self.silence:
                events.append((entry, Event.SILENCE))
            elif entry.state in (State.HUNG, State.DOOMED) and now >= entry.hung_at + self.kill_after:
                events.append((entry, Event.EXPIRED))
        return events

    def wake(self) -> float:
        """When `due` may next have something."""
        at = inf
        for entry in self.cards.values():
            if entry.listening:
                at = min(at, entry.heard + self.silence)
            elif entry.state in (State.HUNG, State.DOOMED):
                at = min(at, entry.hung_at + self.kill_after)
        return at
