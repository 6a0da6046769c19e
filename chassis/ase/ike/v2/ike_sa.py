"""The IKE SA of version 2: its states, and its requests and answers one at a time (RFC 7296 1.2, 2.1 to 2.3).

The window is one request each way. Requests of ours wait in a queue as `Task`s.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final

from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.errors import FailureReason, NegotiationError
from chassis.ase.ike.host import IkeHost, IkeSettings, NetworkPath, Session
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import INITIATOR, RESPONSE, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, ignored_attributes, refuse_critical
from chassis.ase.ike.retransmit import ReplyCacheV2, Retransmission
from chassis.ase.ike.v2.child_sas import ChildSaEvent, ChildSaState, ChildSasV2, ChildSaV2
from chassis.ase.ike.v2.keymat import Assembly, IkeSaKeymat, encrypt_message
from chassis.ase.ike_messages import SaActivateOutbound, SaDelete, SaInstall, SaUpdateAddress, UdpEncapsulation
from chassis.bus.messages import PeerAnswer
from chassis.net.address import format_address
from chassis.state_machine import StateMachine, without_actions


class IkeSaState(Enum):
    CREATED = "new"
    """No message was sent."""
    INIT_SENT = "IKE_SA_INIT sent"
    INIT_RECEIVED = "IKE_SA_INIT answered"
    """The responder waits for IKE_AUTH."""
    AUTH_SUSPENDED = "IKE_AUTH waits for the controller"
    """The peer of an on-demand tunnel sent IKE_AUTH: its preshared key or its tunnel was asked for."""
    AUTH_SENT = "IKE_AUTH sent"
    STANDBY = "standby"
    """Created by a rekey; the CHILD SAs did not migrate to it yet."""
    ESTABLISHED = "established"
    REKEYING = "rekeying"
    """Our request to rekey it is pending."""
    REKEYED = "replaced"
    """Its CHILD SAs migrated to the successor; one of the ends deletes it."""
    DELETING = "deleting"
    """Our Delete is queued or pending."""
    CLOSED = "closed"


class IkeSaEvent(Enum):
    START = "IKE_SA_INIT sent"
    RETRY_REQUESTED = "cookie or another group requested"
    INIT_RECEIVED = "IKE_SA_INIT responded"
    KEYS_DERIVED = "keys derived"
    SUSPENDED = "key or tunnel asked for"
    AUTHENTICATED = "peer authenticated"
    STAND_BY = "created by a rekey"
    CHILDREN_MIGRATED = "CHILD SAs migrated"
    REKEY = "rekey started"
    REKEY_FAILED = "rekey failed"
    REKEY_DONE = "successor established"
    DELETE_STARTED = "delete started"
    DELETED = "deleted"


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
        IkeSaEvent.SUSPENDED: IkeSaState.AUTH_SUSPENDED,
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.DELETED: IkeSaState.CLOSED,
    },
    IkeSaState.AUTH_SUSPENDED: {
        IkeSaEvent.SUSPENDED: IkeSaState.AUTH_SUSPENDED,
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
IKE SA is half open and ends at its deadline. For a peer of an on-demand tunnel the responder asks the controller
before it answers IKE_AUTH: for the preshared key, if AAA has it, and for the tunnel of the authenticated peer.
A rekey creates the successor in standby. It is established when the CHILD SAs migrate to it, and then its
predecessor is only waiting to be deleted. If both ends rekey at once, the successor with the lowest nonce is
deleted unused.
An orderly end deletes the CHILD SAs, sends a Delete and waits for the answer; an end without a message is
possible in every state.
""",
    partial=True,
)

ESTABLISHED_STATES = frozenset((IkeSaState.ESTABLISHED, IkeSaState.REKEYING))
"""States in which the IKE SA has CHILD SAs."""

HALF_OPEN_STATES = frozenset(
    (
        IkeSaState.CREATED,
        IkeSaState.INIT_SENT,
        IkeSaState.INIT_RECEIVED,
        IkeSaState.AUTH_SUSPENDED,
        IkeSaState.AUTH_SENT,
    )
)
"""States in which the peer is not authenticated, or not admitted."""


MAX_TASKS = 64
"""Queued requests (count): a rekey and Deletes of each of eight policy entries are far fewer."""

MESSAGE_ID_REKEY_THRESHOLD = 0xFFFF_0000
"""Message ID from which on the IKE SA is rekeyed, because message IDs never wrap (RFC 7296 2.2)."""


class Task(ABC):
    """One request of ours, from the queue to its response."""

    exchange_type: ClassVar[int] = ExchangeType.INFORMATIONAL
    urgent: ClassVar[bool] = False
    """It is sent before the others in the queue."""
    bound_to_ike_sa: ClassVar[bool] = False
    """It is about this IKE SA itself: a successor does not take it over."""
    replaces_ike_sa: ClassVar[bool] = False
    """It rekeys the IKE SA."""
    about_child: ClassVar[bool] = False
    """It negotiates or deletes a CHILD SA: no IKE SA rekey of the peer is accepted meanwhile (RFC 7296 2.25.2)."""
    liveness_check: ClassVar[bool] = False
    """It is retransmitted at the interval of dead peer detection; any packet of the peer is a sign of life."""

    @property
    def seq(self) -> int:
        """The policy entry that it negotiates a CHILD SA for; 0 for none."""
        return 0

    @abstractmethod
    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        """Return the payloads to send; None if the request is no longer needed."""

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Handle the response, which is authentic and decoded."""

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        """Handle a response that is authentic but does not decode."""

    def cancel(self, sa: IkeSa) -> None:
        """Release the SPIs of a request that gets no response, because the IKE SA ends or the queue is full."""


@dataclass(slots=True)
class PendingRequest:
    """The request that waits for its response."""

    message_id: int
    task: Task
    retransmission: Retransmission


class TaskManager:
    """Requests of one IKE SA: queued ones, the pending one, message IDs of both directions (RFC 7296 2.2, 2.3)."""

    __slots__ = (
        "_settings", "expected_message_id", "last_response", "next_message_id", "pending_request", "queue",
    )  # fmt: skip

    def __init__(self, settings: IkeSettings) -> None:
        self._settings = settings
        self.next_message_id = 0
        self.expected_message_id = 0
        self.pending_request: PendingRequest | None = None
        self.last_response: ReplyCacheV2 | None = None
        self.queue: list[Task] = []

    @property
    def message_ids_low(self) -> bool:
        """Whether the IKE SA must be rekeyed because its message IDs end."""
        return max(self.next_message_id, self.expected_message_id) >= MESSAGE_ID_REKEY_THRESHOLD

    def enqueue(self, task: Task) -> bool:
        """Queue a request; return False if the queue is full."""
        if len(self.queue) >= MAX_TASKS:
            return False
        if task.urgent:
            self.queue.insert(0, task)
        else:
            self.queue.append(task)
        return True

    def on_sent(self, task: Task, datagrams: tuple[bytes, ...], now: float) -> None:
        """Start to retransmit a request that was just sent."""
        retransmission = Retransmission.start(self._settings, datagrams, now)
        if task.liveness_check:
            retransmission.set_fixed_interval(self._settings.dpd_interval, self._settings.dpd_retries, now)
        self.pending_request = PendingRequest(self.next_message_id, task, retransmission)

    def complete(self) -> Task:
        """Return the task of the pending request, whose response was received."""
        pending, self.pending_request = self.pending_request, None
        assert pending is not None
        self.next_message_id = pending.message_id + 1
        return pending.task

    def tasks(self) -> list[Task]:
        """Return the task of the pending request and those in the queue."""
        first = [] if self.pending_request is None else [self.pending_request.task]
        return [*first, *self.queue]

    def clear_queue(self) -> list[Task]:
        """Empty the queue and return what it contained."""
        waiting = list(self.queue)
        self.queue.clear()
        return waiting


@dataclass(frozen=True, slots=True)
class NatStatus:
    """Which end is behind a NAT, by the peer's NAT detection (RFC 7296 2.23)."""

    local_behind_nat: bool = False
    peer_behind_nat: bool = False

    @property
    def detected(self) -> bool:
        return self.local_behind_nat or self.peer_behind_nat


NO_NAT: Final = NatStatus()
NO_DELETES: Final[frozenset[tuple[int, bytes]]] = frozenset()


@dataclass(slots=True)
class CurrentRequest:
    """The peer's request that is being handled: its path, its exchange, its octets if it was received in clear."""

    path: NetworkPath
    exchange_type: int = ExchangeType.INFORMATIONAL
    cleartext: bytes = field(default=b"", repr=False)


PeerAnswerHandler = Callable[[PeerAnswer, float], None]
"""Takes the controller's answer to a question about the peer, and the time."""


class IkeSa(Session):
    """One IKE SA of version 2: its state, and what the tasks and responders of exchanges ask of it.

    It knows no exchange: `chassis.ase.ike.v2.session.SessionV2` dispatches to them and adds what the engine calls.
    """

    __slots__ = (
        "assemblies", "child_sas", "closed", "colliding_successor", "connection", "created_at", "current_request",
        "deadline", "delete_reason", "established", "first_child_entry", "first_message_received",
        "first_message_sent", "fragmentation", "hard", "host", "initiator", "keymat", "last_cleartext_error",
        "last_received", "last_sent", "lowest_nonce", "nat", "nonces", "path", "peer_identity", "peer_spi",
        "pending_entries", "postponed_tasks", "receives", "signature_hashes", "soft", "spi", "state", "suspended",
        "task_manager", "unknown_deletes",
    )  # fmt: skip

    version: int = 2
    orphaned: bool = False

    def __init__(
        self,
        host: IkeHost,
        path: NetworkPath,
        connection: Connection | None,
        initiator: bool,
        spi: bytes,
        peer_spi: bytes,
    ) -> None:
        self.host = host
        self.path = path
        self.connection = connection
        self.initiator = initiator
        self.spi = spi
        self.peer_spi = peer_spi
        self.state = IkeSaState.CREATED
        self.established = False
        self.closed = False
        self.receives = False
        self.task_manager = TaskManager(host.settings)
        self.child_sas = ChildSasV2()
        self.keymat: IkeSaKeymat | None = None
        self.nat = NO_NAT
        self.fragmentation = False
        """Both ends fragment (RFC 7383 2.3)."""
        self.signature_hashes: tuple[int, ...] = ()
        """Hash algorithms of RFC 7427 that both ends have, in our order of preference."""
        self.nonces = (b"", b"")
        """Of the initiator and of the responder in IKE_SA_INIT."""
        self.lowest_nonce = b""
        """The lower of the two nonces of the rekey that created this IKE SA (RFC 7296 2.8.2)."""
        self.first_message_sent = b""
        self.first_message_received = b""
        """The last IKE_SA_INIT message of each end: its AUTH payload signs it (RFC 7296 2.15)."""
        self.peer_identity: IkeIdentity | None = None
        self.colliding_successor: IkeSa | None = None
        """The IKE SA with which the peer replaced this one while our own request to rekey it was pending."""
        self.pending_entries: dict[int, None] = {}
        """Policy entries for which a CHILD SA was requested before the IKE SA was established, in that order."""
        self.first_child_entry = 0
        """The policy entry whose CHILD SA is negotiated in IKE_AUTH; 0 for none."""
        self.unknown_deletes = NO_DELETES
        """(protocol, SPI) of Deletes that matched no CHILD SA, since our last CREATE_CHILD_SA request."""
        self.suspended: PeerAnswerHandler | None = None
        """What goes on with IKE_AUTH when the controller answers."""
        self.delete_reason = ""
        """Why the IKE SA is being deleted."""
        self.postponed_tasks: list[tuple[float, Task]] = []
        """(time at which to enqueue it, task)."""
        self.created_at = 0.0
        self.soft = math.inf
        """Time at which to rekey."""
        self.hard = math.inf
        """Time at which the lifetime ends."""
        self.deadline = math.inf
        """Time at which a transient state ends: half open, standby, rekeyed, deleting."""
        self.last_received = 0.0
        self.last_sent = 0.0
        self.last_cleartext_error = -math.inf
        self.assemblies: dict[bool, Assembly] = {}
        """Fragments of the peer's request (False) and of its response (True), while some are missing."""
        self.current_request = CurrentRequest(path)

    # --- state ---

    def allows(self, event: IkeSaEvent) -> bool:
        """Return whether the event is possible now."""
        return IKE_SA.allows(self.state, event)

    def transition(self, event: IkeSaEvent) -> None:
        """Change the state as the table says.

        Raises:
            IllegalTransition: the event is impossible in this state.
        """
        self.state, _ = IKE_SA.transition(self.state, event)
        self.established = self.state in ESTABLISHED_STATES
        self.closed = self.state is IkeSaState.CLOSED

    @property
    def tunnel(self) -> int:
        """The number of the tunnel; 0 while the responder does not know it."""
        return 0 if self.connection is None else self.connection.tunnel

    @property
    def spi_i(self) -> bytes:
        return self.spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        return self.peer_spi if self.initiator else self.spi

    @property
    def ike_keymat(self) -> IkeSaKeymat:
        """The keys, which exist from IKE_SA_INIT on."""
        assert self.keymat is not None
        return self.keymat

    @property
    def udp_encapsulation(self) -> tuple[UdpEncapsulation, ...]:
        """UDP encapsulation of ESP if there is a NAT (RFC 3948); else empty."""
        if not self.nat.detected:
            return ()
        return (UdpEncapsulation(self.path.local_port, self.path.remote, self.path.remote_port),)

    def expiry_times(self, seconds: float, now: float) -> tuple[float, float]:
        """Return (time to rekey, end of lifetime). The margin between them is random in part, so that the ends
        differ."""
        settings = self.host.settings
        part = int.from_bytes(self.host.random(2), "big") / 65535
        left = seconds * settings.rekey_margin_factor * (1 - settings.rekey_jitter_factor * part)
        return now + seconds - left, now + seconds

    def start_lifetime(self, now: float) -> None:
        """Set the times of an IKE SA that is established or in standby."""
        self.created_at = self.last_received = self.last_sent = now
        if self.connection is not None:
            self.soft, self.hard = self.expiry_times(self.connection.policy.lifetime, now)

    def suspend(self, handler: PeerAnswerHandler) -> None:
        """Wait for the controller's answer to a question about the peer; the peer has shown that it receives."""
        self.transition(IkeSaEvent.SUSPENDED)
        self.suspended = handler
        self.receives = True

    # --- requests and responses ---

    @property
    def is_rekeying(self) -> bool:
        """Whether our request to replace the IKE SA is pending or queued."""
        return any(task.replaces_ike_sa for task in self._all_tasks())

    @property
    def child_exchange_pending(self) -> bool:
        """Whether a request of ours about a CHILD SA is pending (RFC 7296 2.25.2)."""
        pending = self.task_manager.pending_request
        return pending is not None and pending.task.about_child

    def is_negotiating(self, seq: int) -> bool:
        """Return whether a CHILD SA of this policy entry is being negotiated, or queued to be."""
        return seq == self.first_child_entry or any(task.seq == seq for task in self._all_tasks())

    def _all_tasks(self) -> list[Task]:
        return self.task_manager.tasks() + [task for _, task in self.postponed_tasks]

    def enqueue_task(self, task: Task) -> None:
        """Queue a request, which `send_next_request` sends; cancel it if the queue is full."""
        if not self.task_manager.enqueue(task):
            self.host.count("request queue full")
            task.cancel(self)

    def retry_task_later(self, task: Task, now: float) -> None:
        """Queue a request again after 0.5 to 1.5 retransmit intervals, so that the ends do not collide again."""
        part = int.from_bytes(self.host.random(2), "big") / 65535
        self.postponed_tasks.append((now + self.host.settings.retransmit_timeout * (0.5 + part), task))

    def send_next_request(self, now: float) -> None:
        """Send the next queued request if none is pending."""
        manager = self.task_manager
        while manager.pending_request is None and manager.queue and not self.closed:
            task = manager.queue.pop(0)
            payloads = task.build_request(self, now)
            if payloads is None or self.closed:
                continue
            datagrams = self._pack(task.exchange_type, manager.next_message_id, payloads, 0)
            manager.on_sent(task, datagrams, now)
            if task.liveness_check:
                self.host.count("DPD probes sent")
            self.host.count("requests sent")
            self.send_datagrams(datagrams, self.path, now)

    def send_datagrams(self, datagrams: tuple[bytes, ...], path: NetworkPath, now: float) -> None:
        for datagram in datagrams:
            self.host.send(path, datagram)
        self.last_sent = now

    def reply(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Send the response to the current request, and keep it for retransmissions of the request."""
        message_id = self.task_manager.expected_message_id
        datagrams = self._pack(self.current_request.exchange_type, message_id, payloads, RESPONSE)
        self.task_manager.last_response = ReplyCacheV2(message_id, self.current_request.cleartext, datagrams)
        self.task_manager.expected_message_id = message_id + 1
        self.send_datagrams(datagrams, self.current_request.path, now)

    def _pack(
        self, exchange: int, message_id: int, payloads: tuple[PayloadV2, ...], response: int
    ) -> tuple[bytes, ...]:
        """Return the datagrams of a message; IKE_SA_INIT is in clear, everything else encrypted."""
        flags = response | (INITIATOR if self.initiator else 0)
        in_clear = exchange == ExchangeType.IKE_SA_INIT
        refusing = in_clear and response and self.keymat is None and self.state is IkeSaState.CREATED
        spi_r = bytes(8) if refusing else self.spi_r
        header = Header(self.spi_i, spi_r, 0, VERSION_2, exchange, flags, message_id, 0)
        if in_clear:
            self.first_message_sent = MessageV2(header, payloads).emit()
            return (self.first_message_sent,)
        room = self.host.settings.fragment_size
        return encrypt_message(
            self.ike_keymat, header, payloads, room, self.host.random, fragment=self.fragmentation
        )

    # --- reports and logs ---

    def log_payload_error(self, error: PayloadError, now: float) -> None:
        """Log a message that does not decode: the guide's line if there is one, else one of our own."""
        if error.log:
            self.host.log(error.log, error.values, self, self.path, now)
        else:
            self.host.log_own("malformed", "debug", str(error), self, self.path, now)

    def check_payloads(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Log what a message has that is ignored.

        Raises:
            PayloadError: an unknown payload is critical (RFC 7296 2.5).
        """
        refuse_critical(payloads)
        for id, values in ignored_attributes(payloads):
            self.host.log(id, values, self, self.path, now)

    def log_mismatches(self, error: NegotiationError, now: float) -> None:
        """Log the guide's lines about the values that did not match."""
        for id, values in error.rows:
            self.host.log(id, values, self, self.path, now)

    def report_entry_failure(self, entry: PolicyEntry, error: NegotiationError, now: float) -> None:
        """Log the mismatches and report that a policy entry got no CHILD SA; the IKE SA stays established."""
        self.log_mismatches(error, now)
        self.host.on_failed(self, error.failure, now, entry)

    def report_failure(self, error: NegotiationError, now: float) -> None:
        """Log the mismatches and report that the IKE SA could not be established."""
        self.log_mismatches(error, now)
        self.host.on_failed(self, error.failure, now)

    # --- CHILD SAs ---

    def install_child(self, child: ChildSaV2, message: SaInstall, now: float) -> None:
        """Install a CHILD SA; `message.send` says whether its outbound SA is used at once."""
        self.child_sas.by_serial[child.serial] = child
        if message.send:
            child.transition(ChildSaEvent.INSTALL)
            self.child_sas.current_outbound[child.entry.seq] = child
        else:
            child.transition(ChildSaEvent.INSTALL_INBOUND)
        self.host.send_to_dataplane(message)
        self.host.on_child_installed(self, self.child_report(child), now)

    def child_report(self, child: ChildSaV2) -> ChildSa:
        """Return what the engine keeps of a CHILD SA."""
        return ChildSa(self.tunnel, child.serial, child.entry.seq, child.remote_networks, child.replaces)

    def activate_outbound(self, child: ChildSaV2) -> None:
        """Send by a CHILD SA that only received until now."""
        child.transition(ChildSaEvent.ACTIVATE_OUTBOUND)
        self._make_current(child)

    def _make_current(self, child: ChildSaV2) -> None:
        self.child_sas.current_outbound[child.entry.seq] = child
        self.host.send_to_dataplane(SaActivateOutbound(self.tunnel, child.serial))

    def remove_child(self, child: ChildSaV2, reason: str, now: float) -> None:
        """Remove a CHILD SA without a message to the peer; if it sent, another one of its entry sends first."""
        child_sas, seq = self.child_sas, child.entry.seq
        if child_sas.by_serial.pop(child.serial, None) is None:
            return
        if child_sas.current_outbound.get(seq) is child:
            del child_sas.current_outbound[seq]
            self._replace_outbound(seq)
        child.transition(ChildSaEvent.DELETED)
        self.host.send_to_dataplane(SaDelete(self.tunnel, child.serial, reason))
        self.host.release_spis(child.spis_in)
        self.host.on_child_removed(self, self.child_report(child), reason, now)

    def _replace_outbound(self, seq: int) -> None:
        """Send by the newest CHILD SA that a policy entry has left, if any: one that only received comes first,
        a rekeyed one last."""
        left = self.child_sas.of_entry(seq)[::-1]
        child = next((one for one in left if one.state is ChildSaState.INBOUND_INSTALLED), None)
        if child is not None:
            self.activate_outbound(child)
            return
        child = next((one for one in left if one.live), None)
        if child is None:
            child = next((one for one in left if one.allows(ChildSaEvent.REKEY_UNDONE)), None)
            if child is None:
                return
            child.transition(ChildSaEvent.REKEY_UNDONE)
        self._make_current(child)

    def remove_children(self, reason: str, now: float) -> None:
        """Remove all CHILD SAs, without another one to send instead."""
        self.child_sas.current_outbound.clear()
        for child in list(self.child_sas.by_serial.values()):
            self.remove_child(child, reason, now)

    def migrate_children(self, successor: IkeSa, now: float) -> None:
        """Move the CHILD SAs and the queued requests to the successor, which is established by it."""
        successor.path, successor.connection = self.path, self.connection
        successor.transition(IkeSaEvent.CHILDREN_MIGRATED)
        successor.deadline = math.inf
        successor.ike_keymat.settle()
        successor.child_sas, self.child_sas = self.child_sas, ChildSasV2()
        for task in self.task_manager.clear_queue():
            if not task.bound_to_ike_sa:
                successor.task_manager.enqueue(task)
        successor.postponed_tasks, self.postponed_tasks = self.postponed_tasks, []
        self.colliding_successor = None
        self.transition(IkeSaEvent.REKEY_DONE)
        self.host.count("IKE SAs rekeyed")
        self.delete_reason = "rekeyed"
        self.deadline = now + self.host.settings.half_open_timeout
        for child in successor.child_sas.by_serial.values():
            self.host.on_child_installed(successor, successor.child_report(child), now)
        successor.send_next_request(now)
        self.host.register_session(successor)

    def change_path(self, path: NetworkPath) -> None:
        """Send to another address or port of the peer from now on, by the CHILD SAs too."""
        self.path = path
        for encapsulation in self.udp_encapsulation:
            for serial in self.child_sas.by_serial:
                self.host.send_to_dataplane(SaUpdateAddress(self.tunnel, serial, encapsulation))

    def postpone_rekey(self, child: ChildSaV2, now: float) -> None:
        """After a failed rekey, try again in a quarter of the remaining lifetime: at least 1 s, at most 60 s."""
        child.soft = now + max((min(child.hard, now + 240.0) - now) / 4, 1.0)

    def set_delete_deadline(self, child: ChildSaV2, now: float) -> None:
        """Bound the time in which the peer has to delete a replaced CHILD SA."""
        child.soft = math.inf
        child.hard = min(child.hard, now + self.host.settings.half_open_timeout)

    # --- end ---

    def abort(self, error: NegotiationError, now: float) -> None:
        """End an IKE SA that could not be established, and report it."""
        self.report_failure(error, now)
        self.terminate(error.text, now)

    def close_silently(self, reason: str, now: float) -> None:
        """End the IKE SA and the one with which the peer replaced it, without a message to the peer."""
        if self.closed:
            return
        successor, self.colliding_successor = self.colliding_successor, None
        if successor is not None and not successor.closed:
            successor.close_silently(reason, now)
            self.host.register_session(successor)
        self.terminate(reason, now)

    def terminate(self, reason: str, now: float) -> None:
        """End this IKE SA alone: remove its CHILD SAs, cancel its requests; nothing is sent afterwards."""
        if self.closed:
            return
        for task in self._all_tasks():
            task.cancel(self)
        self.task_manager.clear_queue()
        self.task_manager.pending_request = None
        self.postponed_tasks.clear()
        self.suspended = None
        self.transition(IkeSaEvent.DELETED)
        self.remove_children(reason, now)
        self.host.on_closed(self, reason, now)

    def on_no_response(self, now: float) -> None:
        """End the IKE SA because the peer did not respond to the last retransmission, or in time."""
        if self.state in HALF_OPEN_STATES:
            peer = format_address(self.path.remote)
            text = f"{peer} does not answer" if self.initiator else f"{peer} sent no IKE_AUTH"
            if self.suspended is not None:
                text = f"nothing was answered about {peer} in time"
            failure = FailureReason("no response", text)
            self.host.on_failed(self, failure, now)
            self.terminate(failure.text, now)
        elif self.state is IkeSaState.DELETING:
            self.terminate(self.delete_reason, now)
        else:
            self.host.count("failed dead peer")
            self.close_silently("the peer does not answer", now)
