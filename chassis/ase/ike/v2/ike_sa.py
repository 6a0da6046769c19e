"""The IKE SA of version 2: its states, and its requests and answers one at a time (RFC 7296 1.2, 2.1 to 2.3).

The window is one request each way. Requests of ours wait in a queue as `Task`s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.state_machine import StateMachine, without_actions

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


class IkeSaState(Enum):
    NEW = "new"
    """Nothing was sent."""
    INIT_SENT = "IKE_SA_INIT sent"
    INIT_ANSWERED = "IKE_SA_INIT answered"
    """A responder: half open."""
    AUTH_SENT = "IKE_AUTH sent"
    STANDBY = "standby"
    """Made by an older IKE SA, but not chosen yet to take its children over."""
    ESTABLISHED = "established"
    REKEYING = "rekeying"
    """Our request to replace it is out."""
    REPLACED = "replaced"
    """Its children went to a successor; one of the ends deletes it."""
    DELETING = "deleting"
    """Our delete is to go out, or is out."""
    CLOSED = "closed"


class IkeSaEvent(Enum):
    START = "first message sent"
    AGAIN = "asked for a cookie or another group"
    ANSWERED = "first message answered"
    KEYED = "keys agreed"
    AUTHENTICATED = "peer authenticated"
    STAND_BY = "made by an older IKE SA"
    SUCCEED = "took the children over"
    REKEY = "replacement begun"
    KEEP = "replacement came to nothing"
    REPLACE = "successor took over"
    CLOSE = "to be deleted"
    END = "gone"


_TRANSITIONS: dict[IkeSaState, dict[IkeSaEvent, IkeSaState]] = {
    IkeSaState.NEW: {
        IkeSaEvent.START: IkeSaState.INIT_SENT,
        IkeSaEvent.ANSWERED: IkeSaState.INIT_ANSWERED,
        IkeSaEvent.STAND_BY: IkeSaState.STANDBY,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_SENT: {
        IkeSaEvent.AGAIN: IkeSaState.INIT_SENT,
        IkeSaEvent.KEYED: IkeSaState.AUTH_SENT,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_ANSWERED: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.AUTH_SENT: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.STANDBY: {
        IkeSaEvent.SUCCEED: IkeSaState.ESTABLISHED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.ESTABLISHED: {
        IkeSaEvent.REKEY: IkeSaState.REKEYING,
        IkeSaEvent.REPLACE: IkeSaState.REPLACED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.REKEYING: {
        IkeSaEvent.KEEP: IkeSaState.ESTABLISHED,
        IkeSaEvent.REPLACE: IkeSaState.REPLACED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.REPLACED: {
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.DELETING: {
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.CLOSED: {},
}

IKE_SA = StateMachine(
    "IKEv2, the IKE SA",
    IkeSaState,
    IkeSaEvent,
    without_actions(_TRANSITIONS),
    theory="""\
An IKE SA of either role, from the first message to its end (RFC 7296 1.2, 1.3.2, 2.8, 2.25.2).

The initiator sends IKE_SA_INIT, again where the responder asks for a cookie or another group, derives the keys
and sends IKE_AUTH. The responder answers IKE_SA_INIT and waits for IKE_AUTH. Before the peer is authenticated an
IKE SA is half open and ends at its deadline.
A rekey creates the successor in standby. It is established when the CHILD SAs migrate to it, and then its
predecessor is only waiting to be deleted. If both ends rekey at once, the successor with the lowest nonce is
deleted unused.
An orderly end deletes the CHILD SAs, sends a Delete and waits for the answer; an end without a message is
possible in every state.
""",
    partial=True,
)

ESTABLISHED_STATES = frozenset((IkeSaState.ESTABLISHED, IkeSaState.REKEYING))
"""States in which it carries its children."""

HALF_OPEN_STATES = frozenset(
    (IkeSaState.NEW, IkeSaState.INIT_SENT, IkeSaState.INIT_ANSWERED, IkeSaState.AUTH_SENT)
)
"""States before the peer is authenticated."""


@dataclass(slots=True)
class IkeSa:
    """Where an IKE SA is in its table."""

    state: IkeSaState = IkeSaState.NEW

    def allows(self, event: IkeSaEvent) -> bool:
        """Return whether the event is possible now."""
        return IKE_SA.allows(self.state, event)

    def transition(self, event: IkeSaEvent) -> None:
        """Change the state as the table says.

        Raises:
            IllegalTransition: the event is impossible in this state.
        """
        self.state, _ = IKE_SA.transition(self.state, event)


MAX_TASKS = 64
"""Requests that may wait: eight lines, each with a rekey and deletes, are far below."""

MESSAGE_ID_REKEY_THRESHOLD = 0xFFFF_0000
"""Message IDs from here on ask for a new IKE SA: they never start again from 0 (RFC 7296 2.2)."""


class Task(ABC):
    """One request of ours. `seq` is the policy line that it makes a pair for, 0 for none."""

    exchange: ClassVar[int] = ExchangeType.INFORMATIONAL
    urgent: ClassVar[bool] = False
    """It goes before others that wait."""
    bound: ClassVar[bool] = False
    """It belongs to this IKE SA alone: a successor does not take it over."""

    @property
    def seq(self) -> int:
        return 0

    @abstractmethod
    def begin(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        """What to send; None when there is nothing to ask any more."""

    def answered(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """The peer's answer, authentic and readable."""

    def unreadable(self, session: SessionV2, reason: str, now: float) -> None:
        """The peer's answer is authentic, but no answer to this."""

    def abandoned(self, session: SessionV2) -> None:
        """The IKE SA ends before the answer: give back what was taken."""


@dataclass(slots=True)
class Outstanding:
    """The request that waits for its answer. `wait` is the pause after the last sending, which with `steady` does
    not grow, `left` how often it may still be sent again."""

    message_id: int
    task: Task
    datagrams: tuple[bytes, ...] = field(repr=False)
    due: float
    wait: float
    left: int
    steady: bool = False


@dataclass(slots=True)
class Answered:
    """The last answer that we gave: a request that comes again gets it again, octet for octet.

    A request under the keys is known again by its message ID, once it has turned out authentic.
    """

    message_id: int
    clear: bytes = field(repr=False)
    """The request as it came where it was in clear, which only its octets tell from others; else empty."""
    datagrams: tuple[bytes, ...] = field(repr=False)


class TaskManager:
    """Both directions of one IKE SA."""

    def __init__(self, settings: IkeSettings) -> None:
        self._settings = settings
        self.next_id = 0
        self.expected = 0
        self.outstanding: Outstanding | None = None
        self.last: Answered | None = None
        self.queue: deque[Task] = deque()

    @property
    def worn(self) -> bool:
        return max(self.next_id, self.expected) >= MESSAGE_ID_REKEY_THRESHOLD

    def put(self, task: Task) -> bool:
        """Queue a request; False when too many wait."""
        if len(self.queue) >= MAX_TASKS:
            return False
        if task.urgent:
            self.queue.appendleft(task)
        else:
            self.queue.append(task)
        return True

    def sent(self, task: Task, datagrams: tuple[bytes, ...], now: float) -> None:
        """A request left."""
        wait = self._settings.retransmit
        self.outstanding = Outstanding(self.next_id, task, datagrams, now + wait, wait, self._settings.retries)

    def again(self, now: float) -> tuple[bytes, ...] | None:
        """What is due to be sent again; None when it was sent often enough."""
        outstanding = self.outstanding
        assert outstanding is not None
        if outstanding.left <= 0:
            return None
        outstanding.left -= 1
        if not outstanding.steady:
            outstanding.wait = min(2 * outstanding.wait, self._settings.longest)
        outstanding.due = now + outstanding.wait
        return outstanding.datagrams

    def steady(self, interval: float, tries: int, now: float) -> None:
        """The request that has just left is sent `tries` times in all, `interval` seconds apart."""
        if self.outstanding is not None:
            self.outstanding.wait = interval
            self.outstanding.due = now + interval
            self.outstanding.left = tries - 1
            self.outstanding.steady = True

    def complete(self) -> Task:
        """The answer came."""
        outstanding, self.outstanding = self.outstanding, None
        assert outstanding is not None
        self.next_id = outstanding.message_id + 1
        return outstanding.task

    def tasks(self) -> list[Task]:
        """Everything that is being asked or waits to be."""
        first = [] if self.outstanding is None else [self.outstanding.task]
        return [*first, *self.queue]

    def empty(self) -> list[Task]:
        """Forget what waits."""
        waiting = list(self.queue)
        self.queue.clear()
        return waiting
