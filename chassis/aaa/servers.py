"""One RADIUS server as its client sees it: whether it replies, which identifiers are in use, what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Generic, Literal, TypeVar

from chassis.aaa.settings import AaaSettings, ServerAddress
from chassis.state_machine import StateMachine

Role = Literal["authentication", "accounting"]

IDENTIFIERS = 256
"""Requests that can wait for replies of one server at one source port (RFC 2865 2.5)."""

_R = TypeVar("_R")


class ServerState(Enum):
    UP = "up"
    DEAD = "dead"
    ON_TRIAL = "on trial"


class ServerEvent(Enum):
    REPLIED = "replied"
    SILENT = "silent"
    DEAD_TIME_OVER = "dead time over"


class ServerChange(Enum):
    """What a change of state is worth saying."""

    NOTHING = "nothing"
    DIED = "died"
    RETURNED = "returned"
    STILL_DEAD = "still dead"
    TRIED_AGAIN = "tried again"


RADIUS_SERVER: StateMachine[ServerState, ServerEvent, ServerChange] = StateMachine(
    "RADIUS server",
    ServerState,
    ServerEvent,
    {
        ServerState.UP: {
            ServerEvent.REPLIED: (ServerState.UP, ServerChange.NOTHING),
            ServerEvent.SILENT: (ServerState.DEAD, ServerChange.DIED),
            ServerEvent.DEAD_TIME_OVER: None,
        },
        ServerState.DEAD: {
            ServerEvent.REPLIED: (ServerState.UP, ServerChange.RETURNED),
            ServerEvent.SILENT: (ServerState.DEAD, ServerChange.NOTHING),
            ServerEvent.DEAD_TIME_OVER: (ServerState.ON_TRIAL, ServerChange.TRIED_AGAIN),
        },
        ServerState.ON_TRIAL: {
            ServerEvent.REPLIED: (ServerState.UP, ServerChange.RETURNED),
            ServerEvent.SILENT: (ServerState.DEAD, ServerChange.STILL_DEAD),
            ServerEvent.DEAD_TIME_OVER: None,
        },
    },
    theory="""
One server of a context, for questions or for accounting (guide 9.3). A request that it left without a reply in all
transmissions, while it replied to no other either, makes it dead: it is passed over until its dead time is over.
Then it is asked again. A late reply of a dead server counts as well. """,
    ignore=ServerChange.NOTHING,
)


class Identifiers(Generic[_R]):
    """The requests under way to one (context, address, port) from one source port, by identifier.

    Identifiers are given out in turn, so that a late reply to one request does not meet the next.
    """

    def __init__(self, first: int) -> None:
        self._next = first % IDENTIFIERS
        self.used: dict[int, _R] = {}

    def take(self) -> int | None:
        """Return an identifier that is free; None if all are in use."""
        if self.full:
            return None
        while self._next in self.used:
            self._next = (self._next + 1) % IDENTIFIERS
        taken, self._next = self._next, (self._next + 1) % IDENTIFIERS
        return taken

    @property
    def full(self) -> bool:
        return len(self.used) >= IDENTIFIERS


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server for who looks: `counters` has the names of RFC 4668 and RFC 4670 in plain words."""

    role: Role
    context: str
    address: str
    port: int
    state: ServerState
    outstanding: int
    waiting: int
    counters: Mapping[str, int]


@dataclass(eq=False, slots=True)
class Server(Generic[_R]):
    """A server of a context. `outstanding` counts requests of which it owes a reply; `waiting` are those that
    wait until one less is outstanding. `heard` is when its last genuine reply came. `identifiers` may be shared
    with another server of this address and port."""

    role: Role
    context: str
    address: ServerAddress
    settings: AaaSettings
    source_port: int
    identifiers: Identifiers[_R]
    state: ServerState = ServerState.UP
    dead_until: float = -inf
    heard: float = -inf
    complained: float = -inf
    outstanding: int = 0
    waiting: dict[_R, None] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    def transition(self, event: ServerEvent) -> ServerChange:
        self.state, change = RADIUS_SERVER.transition(self.state, event)
        return change

    def passed_over(self, now: float) -> bool:
        """Return whether it is dead; its dead time is over when it is."""
        if self.state is ServerState.DEAD and now >= self.dead_until:
            self.transition(ServerEvent.DEAD_TIME_OVER)
        return self.state is ServerState.DEAD

    @property
    def full(self) -> bool:
        """Return whether one more request has to wait."""
        return self.outstanding >= self.settings.outstanding or self.identifiers.full

    def status(self) -> ServerStatus:
        counters = {name: count for name, count in self.counters.items() if count}
        return ServerStatus(
            self.role,
            self.context,
            self.address.address,
            self.address.port,
            self.state,
            self.outstanding,
            len(self.waiting),
            counters,
        )

    def __str__(self) -> str:
        what = "RADIUS server" if self.role == "authentication" else "RADIUS accounting server"
        return f"{what} {self.address.address} port {self.address.port} of context {self.context}"
