"""The IKE SA of version 2: its states, and its requests and answers one at a time (RFC 7296 1.2, 2.1 to 2.3).

The window is one request each way. Requests of ours wait in a queue as `Task`s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.retransmit import ReplyCacheV2, Retransmission
from chassis.state_machine import StateMachine, without_actions

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


class IkeSaState(Enum):
    CREATED = "new"
    """Nothing was sent."""
    INIT_SENT = "IKE_SA_INIT sent"
    INIT_RECEIVED = "IKE_SA_INIT answered"
    """A responder: half open."""
    AUTH_SENT = "IKE_AUTH sent"
    STANDBY = "standby"
    """Made by an older IKE SA, but not chosen yet to take its children over."""
    ESTABLISHED = "established"
    REKEYING = "rekeying"
    """Our request to replace it is out."""
    REKEYED = "replaced"
    """Its children went to a successor; one of the ends deletes it."""
    DELETING = "deleting"
    """Our delete is to go out, or is out."""
    CLOSED = "closed"


class IkeSaEvent(Enum):
    START = "first message sent"
    RETRY_REQUESTED = "asked for a cookie or another group"
    INIT_RECEIVED = "first message answered"
    KEYS_DERIVED = "keys agreed"
    AUTHENTICATED = "peer authenticated"
    STAND_BY = "made by an older IKE SA"
    CHILDREN_MIGRATED = "took the children over"
    REKEY = "replacement begun"
    REKEY_FAILED = "replacement came to nothing"
    REKEY_DONE = "successor took over"
    DELETE_STARTED = "to be deleted"
    DELETED = "gone"


_TRANSITIONS: dict[IkeSaState, dict[IkeSaEvent, IkeSaState]] = {
    IkeSaState.CREATED: {
        IkeSaEvent.START: IkeSaState.INIT_SENT,
        IkeSaEvent.INIT_RECEIVED: IkeSaState.INIT_RECEIVED,
        IkeSaEvent.STAND_BY: IkeSaState.STANDBY,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_SENT: {
        IkeSaEvent.RETRY_REQUESTED: IkeSaState.INIT_SENT,
        IkeSaEvent.KEYS_DERIVED: IkeSaState.AUTH_SENT,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_RECEIVED: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.AUTH_SENT: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.DELETE_STARTED: IkeSaState.DELETING,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.STANDBY: {
        IkeSaEvent.CHILDREN_MIGRATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.DELETE_STARTED: IkeSaState.DELETING,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.ESTABLISHED: {
        IkeSaEvent.REKEY: IkeSaState.REKEYING,
        IkeSaEvent.REKEY_DONE: IkeSaState.REKEYED,
        IkeSaEvent.DELETE_STARTED: IkeSaState.DELETING,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.REKEYING: {
        IkeSaEvent.REKEY_FAILED: IkeSaState.ESTABLISHED,
        IkeSaEvent.REKEY_DONE: IkeSaState.REKEYED,
        IkeSaEvent.DELETE_STARTED: IkeSaState.DELETING,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.REKEYED: {
        IkeSaEvent.DELETE_STARTED: IkeSaState.DELETING,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.DELETING: {
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
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
    (IkeSaState.CREATED, IkeSaState.INIT_SENT, IkeSaState.INIT_RECEIVED, IkeSaState.AUTH_SENT)
)
"""States before the peer is authenticated."""


@dataclass(slots=True)
class IkeSa:
    """Where an IKE SA is in its table."""

    state: IkeSaState = IkeSaState.CREATED

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

    exchange_type: ClassVar[int] = ExchangeType.INFORMATIONAL
    urgent: ClassVar[bool] = False
    """It goes before others that wait."""
    bound_to_ike_sa: ClassVar[bool] = False
    """It belongs to this IKE SA alone: a successor does not take it over."""

    @property
    def seq(self) -> int:
        return 0

    @abstractmethod
    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        """What to send; None when there is nothing to ask any more."""

    def on_response(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """The peer's answer, authentic and readable."""

    def on_malformed_response(self, session: SessionV2, reason: str, now: float) -> None:
        """The peer's answer is authentic, but no answer to this."""

    def cancel(self, session: SessionV2) -> None:
        """The IKE SA ends before the answer: give back what was taken."""


@dataclass(slots=True)
class PendingRequest:
    """The request that waits for its answer."""

    message_id: int
    task: Task
    retransmission: Retransmission


class TaskManager:
    """Both directions of one IKE SA."""

    def __init__(self, settings: IkeSettings) -> None:
        self._settings = settings
        self.next_message_id = 0
        self.expected_message_id = 0
        self.pending_request: PendingRequest | None = None
        self.last_response: ReplyCacheV2 | None = None
        self.queue: deque[Task] = deque()

    @property
    def message_ids_low(self) -> bool:
        return max(self.next_message_id, self.expected_message_id) >= MESSAGE_ID_REKEY_THRESHOLD

    def enqueue(self, task: Task) -> bool:
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
        retransmission = Retransmission.start(self._settings, datagrams, now)
        self.pending_request = PendingRequest(self.next_message_id, task, retransmission)

    def steady(self, interval: float, tries: int, now: float) -> None:
        """The request that has just left is sent `tries` times in all, `interval` seconds apart."""
        if self.pending_request is not None:
            self.pending_request.retransmission.set_fixed_interval(interval, tries, now)

    def complete(self) -> Task:
        """The answer came."""
        outstanding, self.pending_request = self.pending_request, None
        assert outstanding is not None
        self.next_message_id = outstanding.message_id + 1
        return outstanding.task

    def tasks(self) -> list[Task]:
        """Everything that is being asked or waits to be."""
        first = [] if self.pending_request is None else [self.pending_request.task]
        return [*first, *self.queue]

    def clear_queue(self) -> list[Task]:
        """Forget what waits."""
        waiting = list(self.queue)
        self.queue.clear()
        return waiting
