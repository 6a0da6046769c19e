"""One IKE SA of version 2, or the attempt at one: what comes in is opened and handed on, what is due is done.

The subjects have files of their own: `sa_init`, `ike_auth`, `negotiate` (pairs), `rekey` (the IKE SA itself),
`informational`; states are in `ike_sa` and `child_sa`, times in `timers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.crypto.ikev2 import IntegrityError
from chassis.ase.ike.errors import NegotiationError, error_v2
from chassis.ase.ike.host import AGED, Host, Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import INITIATOR, RESPONSE, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, parse_payloads, refuse_critical, remarks
from chassis.ase.ike.payloads.v2_payloads import Encrypted, EncryptedFragment, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.retransmit import ReplyCacheV2
from chassis.ase.ike.v2 import create_child_sa, ike_auth, ike_sa_init, informational, rekey_ike_sa
from chassis.ase.ike.v2.child_sas import (
    ChildSaEvent,
    ChildSaState,
    ChildSasV2,
    ChildSaV2,
    moved,
    remove,
    remove_all,
    switch,
)
from chassis.ase.ike.v2.create_child_sa import lifetimes
from chassis.ase.ike.v2.ike_sa import (
    ESTABLISHED_STATES,
    HALF_OPEN_STATES,
    IkeSa,
    IkeSaEvent,
    IkeSaState,
    Task,
    TaskManager,
)
from chassis.ase.ike.v2.ike_sa_init import NatStatus
from chassis.ase.ike.v2.keymat import Assembly, IkeSaKeymat, encrypt_message
from chassis.ase.link import Encapsulation, SaExpiring
from chassis.net.address import format_address

if TYPE_CHECKING:
    pass  # import dropped


class SessionV2:
    """See `chassis.ase.ike.host.Session`."""

    version: int = 2
    orphaned: bool = False

    def __init__(
        self, host: Host, path: Path, connection: Connection | None, initiator: bool, spi: bytes, peer_spi: bytes
    ) -> None:
        self.host = host
        self.path = path
        self.connection = connection
        self.initiator = initiator
        self.spi = spi
        self.peer_spi = peer_spi
        self.established = False
        self.closed = False
        self.receives = False
        self.sa = IkeSa()
        self.task_manager = TaskManager(host.settings)
        self.child_sas = ChildSasV2()
        self.keymat: IkeSaKeymat | None = None
        self.nat = NatStatus()
        self.fragmentation = False
        self.signature_hashes: tuple[int, ...] = ()
        self.nonces = (b"", b"")
        self.lowest_nonce = b""
        self.first_message_sent = b""
        self.first_message_received = b""
        self.peer_identity: Identity | None = None
        self.colliding_successor: SessionV2 | None = None
        """What the peer replaced this IKE SA with while our own request to do so is out."""
        self.pending_entries: dict[int, None] = {}
        """Lines asked for before the IKE SA stands."""
        self.first_child_entry = 0
        """The line whose first pair is made with the IKE SA itself."""
        self.unknown_deletes: set[tuple[int, bytes]] = set()
        """SPIs of deletes that named no pair of ours, since our last request for one left."""
        self.delete_reason = ""
        """Why it is being deleted."""
        self.postponed_tasks: list[tuple[float, Task]] = []
        self.created_at = 0.0
        self.soft = math.inf
        self.hard = math.inf
        self.deadline = math.inf
        """When a state that must not last is over."""
        self.heard = 0.0
        self.last_sent = 0.0
        self.last_cleartext_error = -math.inf
        self.assemblies = {False: Assembly(), True: Assembly()}
        """Fragments of a request of the peer, and of an answer of it."""
        self.current_request = CurrentRequest(path)

    @classmethod
    def initiate(cls, host: Host, connection: Connection, path: Path) -> SessionV2:
        """We begin."""
        return cls(host, path, connection, True, host.ike_spi(), bytes(8))

    @classmethod
    def respond(cls, host: Host, path: Path, header: Header) -> SessionV2:
        """The peer begins: `header` is of its IKE_SA_INIT request, which is to be given to `receive` next."""
        return cls(host, path, None, False, host.ike_spi(), header.spi_i)

    # what the engine asks

    def start(self, now: float) -> None:
        self.created_at = now
        self.deadline = now + self.host.settings.give_up
        self.host.count("negotiations initiated")
        self.transition(IkeSaEvent.START)
        self.enqueue_task(ike_sa_init.IkeSaInitTask())
        self.send_next_request(now)

    def receive(self, data: bytes, header: Header, path: Path, now: float) -> None:
        if not self.closed:
            receive(self, data, path, now)
            if self.sa.state is IkeSaState.CREATED:
                # What looked like a first message was none: nothing is held for its sender.
                self.terminate("no first message", now)
            self.send_next_request(now)

    def next_timer(self) -> float:
        return next_timer(self)

    def on_timer(self, now: float) -> None:
        run(self, now)
        self.send_next_request(now)

    def negotiate(self, line: Line, replaces: int, now: float) -> None:
        if self.closed:
            return
        if self.sa.state in HALF_OPEN_STATES:
            self.pending_entries[line.seq] = None
            return
        old = self.child_sas.by_serial.get(replaces)
        if self.is_negotiating(line.seq) or (old is None and self.child_sas.has_child(line.seq)):
            return
        self.enqueue_task(create_child_sa.CreateChildTask(line, old))
        self.send_next_request(now)

    def rekey(self, now: float) -> None:
        if self.sa.state is IkeSaState.ESTABLISHED and not self.is_rekeying:
            self.enqueue_task(rekey_ike_sa.RekeyIkeSaTask())
            self.send_next_request(now)

    def drop(self, serial: int, reason: str, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is not None and not self.closed:
            informational.close_child(self, child, reason)
            self.send_next_request(now)

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        if self.closed:
            return
        if self.colliding_successor is not None and not self.colliding_successor.closed:
            self.colliding_successor.close(reason, now, tell=tell)
            self.host.adopt(self.colliding_successor)
            self.colliding_successor = None
        if not tell or not self.sa.allows(IkeSaEvent.DELETE_STARTED):
            if not tell or self.sa.state is not IkeSaState.DELETING:
                self.terminate(reason, now)
            return
        remove_all(self, reason, now)
        self.transition(IkeSaEvent.DELETE_STARTED)
        self.delete_reason = reason
        self.deadline = now + self.host.settings.give_up
        for task in self.task_manager.clear_queue():
            task.cancel(self)
        self.postponed_tasks.clear()
        self.enqueue_task(informational.DeleteIkeSaTask(reason))
        self.send_next_request(now)

    def expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is None or self.closed:
            return
        if hard:
            self.expire_child(child, reason, now)
        else:
            self.rekey_child(child, now)
        self.send_next_request(now)

    def seen(self, serial: int, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is not None and child.state is ChildSaState.INBOUND_INSTALLED:
            switch(self, child)
        self.alive(now)

    def alive(self, now: float) -> None:
        self.heard = max(self.heard, now)

    def configured(self, connection: Connection, now: float) -> None:
        self.connection = connection

    def describe(self) -> dict[str, Any]:
        return describe(self)

    def secrets(self) -> list[dict[str, str]]:
        return [] if self.keymat is None else self.keymat.wireshark_rows(self.spi_i, self.spi_r)

    # what the parts of a session ask of each other

    @property
    def tunnel(self) -> int:
        return 0 if self.connection is None else self.connection.tunnel

    @property
    def spi_i(self) -> bytes:
        return self.spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        return self.peer_spi if self.initiator else self.spi

    @property
    def ike_keymat(self) -> IkeSaKeymat:
        assert self.keymat is not None
        return self.keymat

    @property
    def udp_encapsulation(self) -> tuple[Encapsulation, ...]:
        """UDP encapsulation of ESP, where a NAT makes it necessary."""
        if not self.nat.detected:
            return ()
        return (Encapsulation(self.path.local_port, self.path.remote, self.path.remote_port),)

    @property
    def is_rekeying(self) -> bool:
        """Whether our request to replace the IKE SA is out, or waits."""
        waiting = [task for _, task in self.postponed_tasks]
        return any(isinstance(task, rekey_ike_sa.RekeyIkeSaTask) for task in self.task_manager.tasks() + waiting)

    @property
    def child_exchange_pending(self) -> bool:
        """Whether a request of ours about a pair is out (RFC 7296 2.25.2)."""
        outstanding = self.task_manager.pending_request
        busy = (create_child_sa.CreateChildTask, informational.DeleteChildTask, informational.DeleteChildSpisTask)
        return outstanding is not None and isinstance(outstanding.task, busy)

    def is_negotiating(self, seq: int) -> bool:
        """Whether a pair for this line is being made, or is about to be."""
        waiting = [task for _, task in self.postponed_tasks]
        return seq == self.first_child_entry or any(
            task.seq == seq for task in self.task_manager.tasks() + waiting
        )

    def transition(self, event: IkeSaEvent) -> None:
        """The IKE SA goes where its table says."""
        self.sa.transition(event)
        self.established = self.sa.state in ESTABLISHED_STATES
        self.closed = self.sa.state is IkeSaState.CLOSED

    def enqueue_task(self, task: Task) -> None:
        """Queue a request; it leaves with the next `pump`."""
        if not self.task_manager.enqueue(task):
            self.host.count("request queue full")
            task.cancel(self)

    def retry_task_later(self, task: Task, now: float) -> None:
        """Ask again soon, at a moment that the other end does not choose too."""
        part = int.from_bytes(self.host.random(2), "big") / 65535
        self.postponed_tasks.append((now + self.host.settings.retransmit * (0.5 + part), task))

    def send_next_request(self, now: float) -> None:
        """Send the next request if none is out."""
        exchanges = self.task_manager
        while exchanges.pending_request is None and exchanges.queue and not self.closed:
            task = exchanges.queue.popleft()
            payloads = task.build_request(self, now)
            if payloads is None or self.closed:
                continue
            datagrams = self._pack(task.exchange_type, exchanges.next_message_id, payloads, 0)
            exchanges.sent(task, datagrams, now)
            if isinstance(task, informational.DpdTask):
                settings = self.host.settings
                exchanges.steady(settings.dpd_interval, settings.dpd_tries, now)
                self.host.count("DPD probes sent")
            self.host.count("requests sent")
            self.send_datagrams(datagrams, self.path, now)

    def send_datagrams(self, datagrams: tuple[bytes, ...], path: Path, now: float) -> None:
        for datagram in datagrams:
            self.host.send(path, datagram)
        self.last_sent = now

    def reply(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Answer the request that is being handled."""
        message_id = self.task_manager.expected_message_id
        datagrams = self._pack(self.current_request.exchange_type, message_id, payloads, RESPONSE)
        self.task_manager.last_response = ReplyCacheV2(message_id, self.current_request.cleartext, datagrams)
        self.task_manager.expected_message_id = message_id + 1
        self.send_datagrams(datagrams, self.current_request.path, now)

    def log_payload_error(self, error: PayloadError, now: float) -> None:
        """Log what is wrong with a message."""
        if error.log:
            self.host.log(error.log, error.values, self, self.path, now)
        else:
            self.host.say("malformed", "debug", str(error), self, self.path, now)

    def check_payloads(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Log what is passed over in a message; PayloadError for what must not be."""
        refuse_critical(payloads)
        for id, values in remarks(payloads):
            self.host.log(id, values, self, self.path, now)

    def log_mismatches(self, refused: NegotiationError, now: float) -> None:
        """The guide's lines for the values that stood in the way."""
        for id, values in refused.rows:
            self.host.log(id, values, self, self.path, now)

    def report_entry_failure(self, line: Line, refused: NegotiationError, now: float) -> None:
        """A line got no pair; the IKE SA stands."""
        self.log_mismatches(refused, now)
        self.host.failed(self, refused.failure, now, line)

    def report_failure(self, refused: NegotiationError, now: float) -> None:
        """The IKE SA does not come to stand."""
        self.log_mismatches(refused, now)
        self.host.failed(self, refused.failure, now)

    def abort(self, refused: NegotiationError, now: float) -> None:
        """The attempt is over."""
        self.report_failure(refused, now)
        self.terminate(refused.text, now)

    def on_authenticated(self, now: float, making: int) -> None:
        """The IKE SA stands. `making` is the line whose pair comes with it."""
        self.first_child_entry = making
        self.transition(IkeSaEvent.AUTHENTICATED)
        self.deadline = math.inf
        self.start_lifetime(now)
        self.first_message_sent = self.first_message_received = b""
        self.host.count("IKE SAs established")
        self.host.up(self, now)
        if self.closed or self.connection is None:
            return
        seqs = [line.seq for line in self.connection.lines] if self.initiator else list(self.pending_entries)
        self.pending_entries.clear()
        for seq in seqs:
            line = self.connection.line(seq)
            if line is not None and not self.is_negotiating(seq) and not self.child_sas.has_child(seq):
                self.enqueue_task(create_child_sa.CreateChildTask(line, None))

    def start_lifetime(self, now: float) -> None:
        """Set the times of an IKE SA that begins to live."""
        self.created_at = self.heard = self.last_sent = now
        if self.connection is not None:
            self.soft, self.hard = lifetimes(self, self.connection.policy.lifetime, now)

    def rekey_child(self, child: ChildSaV2, now: float) -> None:
        """Have a pair succeeded, if that is not under way."""
        child.soft = math.inf
        if child.allows(ChildSaEvent.REKEY) and not self.is_negotiating(child.entry.seq):
            self.enqueue_task(create_child_sa.CreateChildTask(child.entry, child))

    def postpone_rekey(self, child: ChildSaV2, now: float) -> None:
        """No successor was to be had: try again before the pair ends."""
        child.soft = now + max((min(child.hard, now + 240.0) - now) / 4, 1.0)

    def set_delete_deadline(self, child: ChildSaV2, now: float) -> None:
        """A pair that the peer is to delete does not stay for ever."""
        child.soft = math.inf
        child.hard = min(child.hard, now + self.host.settings.give_up)

    def expire_child(self, child: ChildSaV2, reason: str, now: float) -> None:
        """A pair is over: it stops here at once, and the peer is told."""
        inbound: Mapping[int, bytes] = child.spis_in
        remove(self, child, reason, now)
        self.enqueue_task(informational.DeleteChildSpisTask(inbound))

    def terminate(self, reason: str, now: float) -> None:
        """It is over; nothing is sent any more."""
        if self.closed:
            return
        waiting = [task for _, task in self.postponed_tasks]
        for task in self.task_manager.tasks() + waiting:
            task.cancel(self)
        self.task_manager.clear_queue()
        self.task_manager.pending_request = None
        self.postponed_tasks.clear()
        self.transition(IkeSaEvent.DELETED)
        remove_all(self, reason, now)
        self.host.down(self, reason, now)

    def on_no_response(self, now: float) -> None:
        """The peer does not answer any more."""
        if self.sa.state in HALF_OPEN_STATES:
            failure = ike_auth.blame_silence(self)
            self.host.failed(self, failure, now)
            self.terminate(failure.text, now)
        elif self.sa.state is IkeSaState.DELETING:
            self.terminate(self.delete_reason, now)
        else:
            self.host.count("failed dead peer")
            self.close("the peer does not answer", now, tell=False)

    # inside

    def _pack(
        self, exchange: int, message_id: int, payloads: tuple[PayloadV2, ...], response: int
    ) -> tuple[bytes, ...]:
        """The datagrams of a message."""
        flags = response | (INITIATOR if self.initiator else 0)
        in_clear = exchange == ExchangeType.IKE_SA_INIT
        refusing = in_clear and response and self.keymat is None and self.sa.state is IkeSaState.CREATED
        spi_r = bytes(8) if refusing else self.spi_r
        header = Header(self.spi_i, spi_r, 0, VERSION_2, exchange, flags, message_id, 0)
        if in_clear:
            self.first_message_sent = MessageV2(header, payloads).emit()
            return (self.first_message_sent,)
        room = self.host.settings.fragment
        return encrypt_message(
            self.ike_keymat, header, payloads, room, self.host.random, fragment=self.fragmentation
        )


@dataclass(slots=True)
class CurrentRequest:
    """The request that is being handled: where it came from, its exchange, its octets if it came in clear."""

    path: Path
    exchange_type: int = ExchangeType.INFORMATIONAL
    cleartext: bytes = field(default=b"", repr=False)


def receive(session: SessionV2, data: bytes, path: Path, now: float) -> None:
    """One message whose SPI is ours."""
    try:
        message = MessageV2.parse(data)
    except PayloadError as error:
        session.host.count("messages malformed")
        session.log_payload_error(error, now)
        if session.sa.state is IkeSaState.CREATED:
            session.current_request = CurrentRequest(path, ExchangeType.IKE_SA_INIT, data)
            ike_sa_init.unreadable(session, error, path, now)
        return
    header = message.header
    if header.exchange == ExchangeType.IKE_SA_INIT:
        _first(session, message, data, path, now)
    elif (
        session.keymat is None
        or (header.spi_i, header.spi_r) != (session.spi_i, session.spi_r)
        or header.from_initiator == session.initiator
    ):
        session.host.count("messages dropped")
    elif header.is_response and all(isinstance(one, NotifyV2) for one in message.payloads):
        _hint(session, now)
    elif header.is_response:
        _response(session, message, data, path, now)
    else:
        _incoming(session, message, data, path, now)


def _hint(session: SessionV2, now: float) -> None:
    """An error in clear proves nothing (RFC 7296 2.21.4), but a peer that is watched is asked sooner for it."""
    session.host.count("cleartext errors")
    interval = session.host.settings.dpd_interval
    if now - session.last_cleartext_error >= interval:
        session.last_cleartext_error = now
        session.heard = min(session.heard, now - interval)


def _first(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """A message of IKE_SA_INIT, in clear: it has no say once there are keys."""
    header, outstanding = message.header, session.task_manager.pending_request
    if header.is_response:
        ours = header.spi_i == session.spi and session.initiator and header.message_id == 0
        task = None if outstanding is None else outstanding.task
        if ours and isinstance(task, ike_sa_init.IkeSaInitTask):
            task.on_init_response(session, message, data, path, now)
        else:
            session.host.count("messages dropped")
        return
    if session.initiator or header.message_id or not header.from_initiator or header.spi_i != session.peer_spi:
        session.host.count("messages dropped")
        return
    if _repeated(session, message, data, path, now):
        return
    if session.sa.state is not IkeSaState.CREATED:
        session.host.count("messages dropped")
        return
    session.created_at = now
    session.deadline = now + session.host.settings.give_up
    session.host.count("negotiations responded")
    session.current_request = CurrentRequest(path, header.exchange, data)
    ike_sa_init.respond_to_init(session, message, data, path, now)


def _repeated(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> bool:
    """Whether this request was answered before; one that comes again is answered again."""
    last = session.task_manager.last_response
    if last is None or message.header.message_id != last.message_id:
        return False
    if data == last.clear or (not last.clear and _comes_again(session, message, data)):
        session.host.count("responses resent")
        session.send_datagrams(last.datagrams, path, now)
    else:
        session.host.count("messages dropped")
    return True


def _comes_again(session: SessionV2, message: MessageV2, data: bytes) -> bool:
    """Whether this is the peer's, with a message ID that was answered: whole, or the first fragment of any cut.

    It may be cut in another way than what was answered; the other fragments are passed over (RFC 7383 2.6.1).
    """
    payload = message.payloads[-1] if message.payloads else None
    if isinstance(payload, EncryptedFragment):
        if payload.number != 1 or not session.fragmentation:
            return False
    elif not isinstance(payload, Encrypted):
        return False
    try:
        session.ike_keymat.receiving.decrypt_payload(data, payload)
    except IntegrityError:
        session.host.count("integrity failures")
        return False
    except PayloadError:
        pass  # Authentic, and answered as what it is.
    return True


def _open(session: SessionV2, message: MessageV2, data: bytes) -> tuple[int, bytes] | None:
    """(first type, plaintext) of a message that is whole now. IntegrityError, and PayloadError for an authentic
    one that is wrong inside."""
    header = message.header
    payload = message.payloads[-1] if message.payloads else None
    if isinstance(payload, Encrypted):
        return payload.first, session.ike_keymat.receiving.decrypt_payload(data, payload)
    if not isinstance(payload, EncryptedFragment) or not session.fragmentation:
        raise IntegrityError("payload", "missing")
    assembly = session.assemblies[header.is_response]
    if not assembly.needs(header.message_id, payload):
        return None
    return assembly.add(header.message_id, payload, session.ike_keymat.receiving.decrypt_payload(data, payload))


def _read(
    session: SessionV2, message: MessageV2, data: bytes, now: float
) -> tuple[PayloadV2, ...] | PayloadError | None:
    """The payloads of an authentic message, what is wrong with them, or None for what is not to be heeded."""
    try:
        opened = _open(session, message, data)
        if opened is None:
            return None
        payloads = parse_payloads(opened[0], memoryview(opened[1]), inside=True)
        session.check_payloads(payloads, now)
    except IntegrityError:
        session.host.count("integrity failures")
        return None
    except PayloadError as error:
        session.host.count("messages malformed")
        session.heard = now
        session.log_payload_error(error, now)
        return error
    session.heard = now
    return payloads


def _response(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    header, outstanding = message.header, session.task_manager.pending_request
    if (
        outstanding is None
        or header.message_id != outstanding.message_id
        or header.exchange != outstanding.task.exchange_type
    ):
        session.host.count("messages dropped")
        return
    payloads = _read(session, message, data, now)
    if payloads is None:
        return
    _follow(session, path, half_open=False)
    task = session.task_manager.complete()
    if isinstance(payloads, PayloadError):
        task.on_malformed_response(session, str(payloads), now)
    else:
        task.on_response(session, payloads, now)


def _incoming(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """A request of the peer, protected."""
    header = message.header
    if _repeated(session, message, data, path, now):
        return
    half_open = session.sa.state is IkeSaState.INIT_RECEIVED
    early = session.sa.state in HALF_OPEN_STATES and not half_open
    if (
        header.message_id != session.task_manager.expected_message_id
        or early
        or (half_open and header.exchange != ExchangeType.IKE_AUTH)
    ):
        session.host.count("messages dropped")
        return
    payloads = _read(session, message, data, now)
    if payloads is None:
        return
    session.current_request = CurrentRequest(path, header.exchange)
    _follow(session, path, half_open=half_open)
    if isinstance(payloads, PayloadError):
        session.reply((NotifyV2(payloads.notify or NotifyTypeV2.INVALID_SYNTAX, payloads.data),), now)
        if half_open:
            session.report_failure(error_v2(payloads.notify or NotifyTypeV2.INVALID_SYNTAX, str(payloads)), now)
            session.terminate(str(payloads), now)
    elif header.exchange == ExchangeType.IKE_AUTH and half_open:
        ike_auth.respond(session, payloads, now)
    elif header.exchange == ExchangeType.INFORMATIONAL:
        informational.handle(session, payloads, now)
    elif header.exchange == ExchangeType.CREATE_CHILD_SA:
        sa = next((one for one in payloads if isinstance(one, SaV2)), None)
        if sa is not None and sa.proposals[0].protocol == Protocol.IKE:
            rekey_ike_sa.respond(session, payloads, now)
        else:
            create_child_sa.respond(session, payloads, now)
    else:
        session.reply((NotifyV2(NotifyTypeV2.INVALID_SYNTAX),), now)


def _follow(session: SessionV2, path: Path, *, half_open: bool) -> None:
    """The peer may float to port 4500 with IKE_AUTH. Behind a NAT it may be moved at any time, and what it just
    made shows where it is (RFC 7296 2.23)."""
    if path == session.path or not (
        half_open or (session.nat.peer_behind_nat and not session.nat.local_behind_nat)
    ):
        return
    session.path = path
    moved(session)


def _probe_at(session: SessionV2) -> float:
    """When the peer has been silent long enough to be asked; any request that is out asks already."""
    connection = session.connection
    if connection is None or not connection.keepalive or session.task_manager.pending_request is not None:
        return math.inf
    return session.heard + session.host.settings.dpd_interval


def _keepalive_at(session: SessionV2) -> float:
    return session.last_sent + session.host.settings.nat_keepalive if session.nat.local_behind_nat else math.inf


def next_timer(session: SessionV2) -> float:
    """When `run` has something to do."""
    if session.closed:
        return math.inf
    at = session.deadline
    if session.task_manager.pending_request is not None:
        at = min(at, session.task_manager.pending_request.retransmission.due)
    if session.sa.state in ESTABLISHED_STATES:
        at = min(at, session.hard, _probe_at(session), _keepalive_at(session))
        if session.sa.state is IkeSaState.ESTABLISHED:
            at = min(at, session.soft)
        for due, _ in session.postponed_tasks:
            at = min(at, due)
        for child in session.child_sas.by_serial.values():
            at = min(at, child.hard)
            if child.allows(ChildSaEvent.REKEY):
                at = min(at, child.soft)
    return at


def run(session: SessionV2, now: float) -> None:
    """Do what is due."""
    if session.closed:
        return
    if now >= session.deadline:
        _overdue(session, now)
        return
    outstanding = session.task_manager.pending_request
    if outstanding is not None and now >= outstanding.retransmission.due and not _again(session, now):
        return
    if session.sa.state not in ESTABLISHED_STATES:
        return
    if now >= session.hard:
        session.close("the lifetime of the IKE SA is over", now)
        return
    _lifetimes(session, now)
    if now >= _probe_at(session):
        session.enqueue_task(informational.DpdTask())
    if now >= _keepalive_at(session):
        session.send_datagrams((b"",), session.path, now)


def _overdue(session: SessionV2, now: float) -> None:
    """A state that must not last has lasted too long."""
    state = session.sa.state
    if state in HALF_OPEN_STATES or state is IkeSaState.DELETING:
        session.on_no_response(now)
    else:
        session.close(session.delete_reason or "the peer left it behind", now)


def _again(session: SessionV2, now: float) -> bool:
    """Send the request that is out once more; False when the session ended over it."""
    outstanding = session.task_manager.pending_request
    assert outstanding is not None
    retransmission = outstanding.retransmission
    if not retransmission.advance(now):
        if not isinstance(
            outstanding.task, informational.DpdTask
        ) or session.heard < outstanding.retransmission.due - (
            session.host.settings.dpd_interval * session.host.settings.dpd_tries
        ):
            session.on_no_response(now)
            return False
        # Its packets came in meanwhile, so it lives, and only the answer is missing.
        retransmission.set_fixed_interval(session.host.settings.dpd_interval, session.host.settings.dpd_tries, now)
    session.host.count("retransmissions")
    session.send_datagrams(retransmission.datagrams, session.path, now)
    return True


def _lifetimes(session: SessionV2, now: float) -> None:
    due = [task for at, task in session.postponed_tasks if at <= now]
    session.postponed_tasks = [(at, task) for at, task in session.postponed_tasks if at > now]
    for task in due:
        session.enqueue_task(task)
    for child in list(session.child_sas.by_serial.values()):
        if now >= child.hard:
            session.expire_child(child, child.reason or "its lifetime is over", now)
        elif now >= child.soft and child.allows(ChildSaEvent.REKEY):
            session.host.emit(SaExpiring(session.tunnel, child.serial, False, AGED))
            session.rekey_child(child, now)
    if session.task_manager.message_ids_low:
        session.soft = min(session.soft, now)
    if now >= session.soft and session.sa.state is IkeSaState.ESTABLISHED:
        session.soft = math.inf
        if not session.is_rekeying:
            session.enqueue_task(rekey_ike_sa.RekeyIkeSaTask())


def _time(at: float) -> float | None:
    return None if math.isinf(at) else at


def describe(session: SessionV2) -> dict[str, Any]:
    """Times are of the monotonic clock."""
    path, ring = session.path, session.keymat
    algorithms: dict[str, Any] = {}
    if ring is not None:
        choice = ring.choice
        algorithms = {
            "cipher": choice.cipher.name,
            "integrity": None if choice.integrity is None else choice.integrity.name,
            "prf": choice.prf.name,
            "group": choice.group,
        }
    return {
        "version": 2,
        "state": session.sa.state.value,
        "initiator": session.initiator,
        "spi_i": session.spi_i.hex(),
        "spi_r": session.spi_r.hex(),
        "tunnel": session.tunnel,
        "local": format_address(path.local),
        "local_port": path.local_port,
        "remote": format_address(path.remote),
        "remote_port": path.remote_port,
        "identity": str(session.connection.identity) if session.connection is not None else "",
        "peer_identity": "" if session.peer_identity is None else str(session.peer_identity),
        "nat_here": session.nat.local_behind_nat,
        "nat_there": session.nat.peer_behind_nat,
        "fragmentation": session.fragmentation,
        "algorithms": algorithms,
        "since": session.created_at,
        "rekey": _time(session.soft),
        "expires": _time(session.hard),
        "children": [_child(child) for child in session.child_sas.by_serial.values()],
    }


def _child(child: ChildSaV2) -> dict[str, Any]:
    suite = child.suite
    return {
        "serial": child.serial,
        "entry": child.entry.seq,
        "state": child.state.value,
        "initiator": child.initiator,
        "ah": suite.ah,
        "cipher": suite.cipher,
        "integrity": suite.esp_integrity,
        "esn": suite.esn,
        "group": suite.group,
        "ipcomp": child.cpi_out != 0,
        "inbound": {Protocol(number).name: spi.hex() for number, spi in child.spis_in.items()},
        "outbound": {Protocol(number).name: spi.hex() for number, spi in child.spis_out.items()},
        "since": child.created_at,
        "rekey": _time(child.soft),
        "expires": _time(child.hard),
    }
