"""One ISAKMP SA of version 1 and what is negotiated under it: the `Session` of `chassis.ase.ike.host`.

The states are those of `phase1`; the messages are in `main`, `aggressive`, `quick` and `informational`. Version 1
has no rekeying (B-047): a new phase 1 of the same connection takes the pairs over while they go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final, cast

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.crypto.ikev1 import SkeyId
from chassis.ase.ike.errors import FailureReason, NegotiationError, malformed_v1
from chassis.ase.ike.host import Host, Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, IdV1, MessageV1, NotifyV1, PayloadV1
from chassis.ase.ike.retransmit import DpdState, ReplyCacheV1, Retransmission, message_digest
from chassis.ase.ike.v1 import aggressive_mode, informational, isakmp_sa, main_mode
from chassis.ase.ike.v1.child_sas import DELETE_DELAY, ChildSasV1
from chassis.ase.ike.v1.isakmp_sa import ESTABLISHED_STATES, PHASE_1, Phase1Event, Phase1State, timeout_failure
from chassis.ase.ike.v1.keymat import NO_COOKIE, IncomingMessage, Phase1Negotiation
from chassis.ase.ike.v1.quick_mode import QuickModes
from chassis.net.address import format_address

Handler = Callable[["SessionV1", IncomingMessage], Phase1Event | None]

HANDLERS: Final[dict[tuple[Phase1State, int], Handler]] = {
    (Phase1State.IDLE, ExchangeType.MAIN_MODE): main_mode.on_mm1,
    (Phase1State.MM1_SENT, ExchangeType.MAIN_MODE): main_mode.on_mm2,
    (Phase1State.MM2_SENT, ExchangeType.MAIN_MODE): main_mode.on_mm3,
    (Phase1State.MM3_SENT, ExchangeType.MAIN_MODE): main_mode.on_mm4,
    (Phase1State.MM4_SENT, ExchangeType.MAIN_MODE): main_mode.on_mm5,
    (Phase1State.MM5_SENT, ExchangeType.MAIN_MODE): main_mode.on_mm6,
    (Phase1State.IDLE, ExchangeType.AGGRESSIVE_MODE): aggressive_mode.on_am1,
    (Phase1State.AM1_SENT, ExchangeType.AGGRESSIVE_MODE): aggressive_mode.on_am2,
    (Phase1State.AM2_SENT, ExchangeType.AGGRESSIVE_MODE): aggressive_mode.on_am3,
}
"""Who takes the next message of phase 1; any other is passed over."""

MAX_NOTIFIES_PER_SECOND: Final = 10
"""Notifications, and lines about them, in a second."""
MAX_MESSAGE_IDS: Final = 4096
"""Message IDs that are remembered."""


class SessionV1:
    """See `chassis.ase.ike.host.Session`."""

    def __init__(self, host: Host, path: Path, handshake: Phase1Negotiation, spi: bytes, initiator: bool) -> None:
        self.host = host
        self.path = path
        self.phase1 = handshake
        self.spi = spi
        self.initiator = initiator
        self.version = 1
        self.connection: Connection | None = None
        self.established = False
        self.orphaned = False
        self.closed = False
        self.receives = False
        self.state = Phase1State.IDLE
        self.peer_identity: Identity | None = None
        """The peer's, proved."""
        self.claimed_id: IdV1 | None = None
        """The peer's ID payload in aggressive mode, not proved yet."""
        self.child_sas = ChildSasV1(self)
        self.quick_modes = QuickModes(self)
        self.successor: SessionV1 | None = None
        self.heard = -inf
        """When the last message came in that only the peer can have made."""
        self.pending_successor: SessionV1 | None = None
        self.peer_lost_state = False
        self._reply_cache = ReplyCacheV1()
        self._rejected: list[bytes] = []
        self._retransmission: Retransmission | None = None
        self._pending_failure: FailureReason | None = None
        self._establish_deadline = inf
        self.created_at = 0.0
        """When its first message was sent or came in."""
        self.established_at = inf
        self.soft = self.hard = self.delete_at = self._nat_keepalive_at = inf
        self.first_soft = inf
        """When its successor was first meant to be begun; `soft` is when that is tried next."""
        self.detector: DpdState | None = None
        self.peer_dpd_sequence: int | None = None
        """Number of the peer's last R-U-THERE."""
        self.ids_evicted = False
        """Not every message ID that was used is remembered any more."""
        self._used_ids: dict[int, None] = {}
        self._notify_count = (-1, 0)

    @classmethod
    def initiate(cls, host: Host, connection: Connection, path: Path) -> SessionV1:
        """One that begins; `start` sends its first message."""
        cookie = host.ike_spi()
        mode = ExchangeType.AGGRESSIVE_MODE if connection.policy.mode == "aggressive" else ExchangeType.MAIN_MODE
        session = cls(host, path, Phase1Negotiation(mode, cookie, members=(connection,)), cookie, True)
        session.connection = connection
        return session

    @classmethod
    def respond(cls, host: Host, path: Path, header: Header) -> SessionV1:
        """One for a first message of main or aggressive mode, which `receive` takes next."""
        cookie = host.ike_spi()
        return cls(host, path, Phase1Negotiation(header.exchange, header.spi_i, cookie), cookie, False)

    # --- phase 1 ---

    def start(self, now: float) -> None:
        connection = self.connection
        assert connection is not None
        self.created_at = now
        self._establish_deadline = now + self.host.settings.give_up
        self.host.count("negotiations initiated")
        begin = (
            aggressive_mode.send_am1 if self.phase1.mode == ExchangeType.AGGRESSIVE_MODE else main_mode.send_mm1
        )
        self.transition(begin(self, connection, now))

    def receive(self, data: bytes, header: Header, path: Path, now: float) -> None:
        if self.closed:
            return
        message = IncomingMessage(bytes(data), header, path, now)
        if self.orphaned:
            informational.receive_orphaned(self, message)
            return
        if self._establish_deadline == inf and self.state is Phase1State.IDLE:
            self.created_at = now
            self._establish_deadline = now + self.host.settings.give_up
            self.host.count("negotiations responded")
        try:
            header.check()
        except PayloadError as error:
            self._on_negotiation_error(malformed_v1(error), path, now)
            return
        if header.exchange in (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE):
            self._phase_1(message)
        elif self.phase1.cky_i != header.spi_i:
            self.host.count("decryption failures")
        elif header.exchange == ExchangeType.QUICK_MODE:
            if self.state is Phase1State.AM2_SENT and header.spi_r == self.phase1.cky_r:
                # It has our cookie, hence our message 2, and its message 3 was lost: message 2 brings that again.
                self._reply_cache.resend_reply(self.host, path)
            self.quick_modes.receive(message)
        else:
            informational.receive(self, message)

    def _phase_1(self, message: IncomingMessage) -> None:
        header, now = message.header, message.now
        handshake = self.phase1
        if header.message_id:
            row = ("ikev1-invalid-message-id", {"value": header.message_id})
            text = f"message ID {header.message_id:#x} in phase 1"
            self._on_negotiation_error(
                NegotiationError("malformed", text, rows=(row,), notify=NotifyTypeV1.INVALID_MESSAGE_ID),
                message.path,
                now,
            )
            return
        if message_digest(message.data) in self._rejected or self._reply_cache.is_duplicate(
            self.host, message.data, message.path
        ):
            return
        handler = HANDLERS.get((self.state, header.exchange))
        expected = handshake.cky_r if self.state is not Phase1State.IDLE else NO_COOKIE
        if (
            handler is None
            or header.spi_i != handshake.cky_i
            or (expected != NO_COOKIE and header.spi_r != expected)
            or (self.initiator and header.spi_r == NO_COOKIE)
        ):
            self.host.count("unexpected messages")
            return
        before, self._reply_cache = self._reply_cache, ReplyCacheV1(list(self._reply_cache.handled))
        self._reply_cache.remember(message.data)
        try:
            event = handler(self, message)
        except (PayloadError, NegotiationError) as error:
            # The message is passed over, so that a forged one does not end what the real one would go on with.
            self._reply_cache = before
            self._rejected = [*self._rejected[-7:], message_digest(message.data)]
            stop = malformed_v1(error) if isinstance(error, PayloadError) else error
            self._on_negotiation_error(stop, message.path, now)
            return
        if event is None:
            self._reply_cache = before
            return
        self.transition(event)
        if self.state in ESTABLISHED_STATES:
            self._on_established(now)

    def transition(self, event: Phase1Event) -> None:
        """Go where the table of phase 1 says."""
        self.state, _ = PHASE_1.transition(self.state, event)
        self.established = self.state in ESTABLISHED_STATES
        self.orphaned = self.state is Phase1State.ORPHANED
        # Message 3 of main mode has our cookie in it (RFC 2408 2.5.3).
        self.receives = self.state is Phase1State.MM4_SENT
        self.closed = self.state is Phase1State.CLOSED

    def send_phase_1(
        self, payloads: Sequence[PayloadV1], now: float, *, encrypted: bool = False, wait: bool = False
    ) -> None:
        """The next message of phase 1; with `wait` it is sent again until it is answered, by a responder once."""
        handshake = self.phase1
        header = handshake.header(handshake.mode)
        if encrypted:
            assert handshake.chain is not None
            data, handshake.chain = handshake.chain.encrypt(header, tuple(payloads))
        else:
            data = MessageV1(header, tuple(payloads)).emit()
        self._reply_cache.reply = data
        self._retransmission = None
        if wait:
            self._retransmission = Retransmission.start(self.host.settings, (data,), now, verified=self.initiator)
        self.host.send(self.path, data)

    def set_authenticated(
        self, connection: Connection, identity: Identity, payloads: tuple[PayloadV1, ...]
    ) -> None:
        """The peer proved who it is."""
        self.connection = connection
        self.peer_identity = identity
        self.store_initial_contact(payloads)

    def store_initial_contact(self, payloads: tuple[PayloadV1, ...]) -> None:
        self.phase1.peer_initial_contact |= main_mode.has_initial_contact(payloads)

    def initial_contact_notify(self, connection: Connection) -> tuple[NotifyV1, ...]:
        """INITIAL-CONTACT if it is due."""
        if not self.host.first_contact(connection):
            return ()
        return (NotifyV1(NotifyTypeV1.INITIAL_CONTACT, Protocol.IKE, self.phase1.cky_i + self.phase1.cky_r),)

    def _on_established(self, now: float) -> None:
        """The ISAKMP SA stands."""
        host, handshake, connection = self.host, self.phase1, self.connection
        assert connection is not None
        settings = host.settings
        lifetime = handshake.chosen.lifetime
        rest = self.rekey_margin(lifetime)
        self._retransmission = None
        self._establish_deadline = inf
        self.heard = self.established_at = now
        self.hard = now + lifetime
        self.soft = self.first_soft = self.hard - (rest if self.initiator else rest / 2)
        if handshake.behind_nat:
            self._nat_keepalive_at = now + settings.nat_keepalive
        if connection.keepalive and handshake.dpd:
            self._start_dpd(now)
        host.count("IKE SAs established")
        contact: tuple[NotifyV1, ...] = ()
        if not self.initiator and handshake.mode == ExchangeType.AGGRESSIVE_MODE:
            # Its own message of aggressive mode went out before the peer was known; once it is, none is due.
            contact = self.initial_contact_notify(connection)
        if handshake.peer_initial_contact:
            isakmp_sa.on_initial_contact(self, now)
        isakmp_sa.replace_older_sas(self, now)
        host.up(self, now)
        if self.closed:
            return
        if contact:
            self.send_informational(contact, now)
        self.quick_modes.start_pending(now)

    # --- what goes wrong ---

    def _on_negotiation_error(self, stop: NegotiationError, path: Path, now: float) -> None:
        """A message that came by `path` is not accepted: what is said of it goes back there."""
        for row, values in stop.rows:
            self.log(row, values, now)
        if stop.notify and self.notify_allowed(now):
            if stop.notify_row is not None:
                self.log(*stop.notify_row, now)
            if stop.encrypted:
                spi = self.phase1.cky_i + self.phase1.cky_r
                self.send_informational((NotifyV1(stop.notify, Protocol.IKE, spi),), now, path)
            else:
                self.host.send(path, informational.cleartext_message(self, stop.notify))
        if self.established:
            return
        failure = stop.failure
        if stop.final:
            if stop.encrypted and self.initiator:
                # The responder may hold the SA for established already.
                self.send_informational((informational.isakmp_sa_delete(self),), now, path)
            self.abort(failure, now)
        elif self.state is Phase1State.IDLE:
            self.abort(failure, now)
        else:
            self.fail_after_grace(failure, now)

    def fail_after_grace(self, failure: FailureReason, now: float) -> None:
        """What was heard without proof lets no good come; an answer that is genuine may still, for a moment."""
        if self._pending_failure is None:
            self._pending_failure = failure
            self._retransmission = None
            self._establish_deadline = min(self._establish_deadline, now + 2 * self.host.settings.retransmit)

    def abort(self, failure: FailureReason, now: float) -> None:
        """The negotiation comes to nothing."""
        if self.closed or self.established:
            return
        self.transition(Phase1Event.CLOSE)
        self.host.failed(self, failure, now)
        self.host.down(self, failure.text, now)

    # --- time ---

    def next_timer(self) -> float:
        if self.closed:
            return inf
        if self.orphaned and not self.child_sas.all:
            return -inf
        return min(
            self._establish_deadline,
            self.soft,
            self.hard,
            self.delete_at,
            self._nat_keepalive_at,
            inf if self._retransmission is None else self._retransmission.due,
            inf if self.detector is None else self.detector.due,
            self.quick_modes.next_timer(),
            self.child_sas.next_timer(),
        )

    def on_timer(self, now: float) -> None:
        if self.closed:
            return
        if self.orphaned:
            if now >= self.delete_at:
                self.phase1.keys = self.phase1.chain = None
                self.delete_at = inf
            self.child_sas.on_timer(now)
            if not self.child_sas.all:
                self.close("its last pair is gone", now, tell=False)
            return
        if now >= self._establish_deadline:
            self.abort(self._pending_failure or timeout_failure(self), now)
            return
        resend = self._retransmission
        if resend is not None and now >= resend.due and not resend.retransmit(self.host, self.path, now):
            if self.initiator:
                self.abort(self._pending_failure or timeout_failure(self), now)
                return
            self._retransmission = None  # It is for the peer to ask again, until the deadline.
        if self.established:
            self._established_timers(now)

    def _established_timers(self, now: float) -> None:
        self.child_sas.on_timer(now)
        self.quick_modes.on_timer(now)
        if self.closed:
            return
        if now >= self.hard:
            self.close("its lifetime ended", now, keep=True)
            return
        if now >= self.delete_at:
            if not self.quick_modes.in_progress:
                self.close("succeeded by another IKE SA", now, keep=True)
                return
            self.delete_at = now + 1.0
        if now >= self.soft:
            self.rekey(now)
        if now >= self._nat_keepalive_at:
            self._nat_keepalive_at = now + self.host.settings.nat_keepalive
            self.host.send(self.path, b"")
        if self.detector is not None and now >= self.detector.due:
            self._send_dpd_probe(self.detector, now)

    def _start_dpd(self, now: float) -> None:
        """Dead peer detection begins."""
        settings = self.host.settings
        first = int.from_bytes(self.host.random(4), "big") >> 1
        self.detector = DpdState(settings.dpd_interval, settings.dpd_tries, first)
        self.detector.reset(now)

    def _send_dpd_probe(self, detector: DpdState, now: float) -> None:
        number = detector.next_probe(now)
        if number is None:
            self.on_peer_dead(f"{self.peer} does not answer", now)
            return
        spi = self.phase1.cky_i + self.phase1.cky_r
        self.host.count("DPD probes sent")
        self.send_informational(
            (NotifyV1(NotifyTypeV1.R_U_THERE, Protocol.IKE, spi, number.to_bytes(4, "big")),), now
        )

    def on_peer_dead(self, reason: str, now: float) -> None:
        """Everything that was made with the peer goes; nobody is there to be told."""
        self.peer_lost_state = True
        self.host.count("failed dead peer")
        self.close(reason, now, tell=False)

    # --- what the engine asks ---

    def negotiate(self, line: Line, replaces: int, now: float) -> None:
        if self.closed:
            return
        if self.successor is not None and self.successor.established:
            self.successor.negotiate(line, replaces, now)
            self.host.changed(self.successor)
            return
        self.quick_modes.request(line, replaces, now)

    def rekey(self, now: float) -> None:
        connection = self.connection
        settings = self.host.settings
        if not self.established or connection is None or self.successor is not None:
            self.soft = inf
            return
        self.soft = now + settings.give_up + settings.backoff[0]
        if (
            self.pending_successor is not None
            and not self.pending_successor.closed
            and not self.pending_successor.established
        ):
            return
        if not connection.initiates:
            self.soft = inf
            self.host.say("peer renews", "info", "the peer is to begin the next phase 1", self, self.path, now)
            return
        self.pending_successor = SessionV1.initiate(self.host, connection, self.path)
        self.pending_successor.start(now)
        self.host.adopt(self.pending_successor)

    def drop(self, serial: int, reason: str, now: float) -> None:
        pair = self.child_sas.by_serial(serial)
        if pair is not None:
            self.child_sas.remove(pair, reason, now, tell=True)

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        if self.closed or (keep and self.orphaned):
            return
        if self.established:
            self.quick_modes.abort_all(now)
            isakmp_sa.migrate_on_close(self, now)
            if keep and self.child_sas.all:
                self._orphan(reason, now, tell=tell)
                return
        for pair in list(self.child_sas.all):
            self.child_sas.remove(pair, reason, now, tell=tell)
        if tell and self.established:
            self.send_informational((informational.isakmp_sa_delete(self),), now)
        self.transition(Phase1Event.CLOSE)
        self.host.down(self, reason, now)

    def _orphan(self, reason: str, now: float, *, tell: bool) -> None:
        """The ISAKMP SA goes and no other one stands: its pairs stay, and pass to the next one that does."""
        if tell:
            self.send_informational((informational.isakmp_sa_delete(self),), now)
        self.transition(Phase1Event.ORPHAN)
        self.detector = None
        self.soft = self.hard = self.first_soft = self._nat_keepalive_at = inf
        # What the peer said before may come later: that pairs are deleted, too.
        self.delete_at = now + DELETE_DELAY
        self.host.say("pairs stay", "info", f"{reason}; its IPsec SAs stay", self, self.path, now)
        self.host.down(self, reason, now)

    def expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        pair = self.child_sas.by_serial(serial)
        if pair is None:
            return
        self.child_sas.request_successor(pair, now)
        if hard:
            self.child_sas.remove(pair, reason, now, tell=True)

    def seen(self, serial: int, now: float) -> None:
        self.alive(now)
        self.quick_modes.seen(serial, now)

    def alive(self, now: float) -> None:
        self.heard = now
        if self.detector is not None:
            self.detector.reset(now)

    def configured(self, connection: Connection, now: float) -> None:
        self.connection = connection
        self.quick_modes.configured(connection, now)
        if not connection.keepalive:
            self.detector = None
        elif self.detector is None and self.established and self.phase1.dpd:
            self._start_dpd(now)

    # --- for the exchanges ---

    def sibling_sessions(self) -> list[SessionV1]:
        """Other sessions of the connection that stand, oldest first."""
        return [one for one in self._other_sessions() if one.established]

    def orphaned_sessions(self) -> list[SessionV1]:
        """Sessions of the connection whose pairs wait for one that stands."""
        return [one for one in self._other_sessions() if one.orphaned]

    def _other_sessions(self) -> list[SessionV1]:
        found = [one for one in self.host.siblings(self) if isinstance(one, SessionV1)]
        return [one for one in found if one is not self]

    @property
    def current_session(self) -> SessionV1:
        """The session that holds the connection's pairs: this one, or its successor."""
        found = self
        while found.successor is not None and found.successor.established:
            found = found.successor
        return found

    @property
    def peer(self) -> str:
        return format_address(self.path.remote)

    @property
    def keys(self) -> SkeyId:
        return cast(SkeyId, self.phase1.keys)

    @property
    def nat_detected(self) -> bool:
        return self.phase1.behind_nat or self.phase1.peer_behind_nat

    def rekey_margin(self, lifetime: float) -> float:
        """Seconds that are left of a lifetime when its successor is negotiated."""
        settings = self.host.settings
        share = int.from_bytes(self.host.random(2), "big") / 65_536
        return lifetime * settings.margin * (1 - settings.jitter * share)

    def log(self, row: str, values: Mapping[str, Any], now: float) -> None:
        self.host.log(row, values, self, self.path, now)

    def notify_allowed(self, now: float) -> bool:
        """Whether the budget of this second allows another notification."""
        second, count = self._notify_count
        if second != int(now):
            count = 0
        self._notify_count = (int(now), count + 1)
        return count < MAX_NOTIFIES_PER_SECOND

    def send_informational(self, payloads: Sequence[PayloadV1], now: float, path: Path | None = None) -> None:
        """An informational exchange under the keys, to where the peer is, or back by `path`."""
        if self.phase1.keys is not None and not self.closed and not self.orphaned:
            self.host.send(path or self.path, informational.encrypted_message(self, payloads))

    def send_delete(self, spis: Mapping[int, bytes], now: float) -> None:
        """Tell the peer that we no longer receive by these SPIs."""
        payloads = [DeleteV1(p, (spi,)) for p, spi in spis.items() if p in (Protocol.AH, Protocol.ESP)]
        if payloads and self.established:
            self.send_informational(payloads, now)

    def new_message_id(self) -> int:
        """A fresh one."""
        while True:
            found = int.from_bytes(self.host.random(4), "big")
            if found and found not in self._used_ids:
                self.mark_id_used(found)
                return found

    def mark_id_used(self, message_id: int) -> None:
        self._used_ids[message_id] = None
        if len(self._used_ids) > MAX_MESSAGE_IDS:
            self.ids_evicted = True
            del self._used_ids[next(iter(self._used_ids))]

    def is_id_used(self, message_id: int) -> bool:
        return message_id in self._used_ids

    def on_authentic_message(self, message: IncomingMessage) -> None:
        """A message came in that only the peer can have made; behind a NAT it may come from elsewhere now."""
        if self.established:
            self.alive(message.now)
            if self.phase1.peer_behind_nat and message.path.encapsulated and message.path != self.path:
                self.path = message.path
                self.child_sas.on_peer_moved()

    # --- for people ---

    def describe(self) -> dict[str, Any]:
        return describe_session(self)

    def secrets(self) -> list[dict[str, str]]:
        chain = self.phase1.chain
        if chain is None:
            return []
        return [{"kind": "ikev1", "cookie_i": self.phase1.cky_i.hex(), "key": chain.key.hex()}]


def describe_session(session: SessionV1) -> dict[str, Any]:
    """`ends` and the times of children are of the engine's clock, `lifetime` is in seconds."""
    handshake, connection = session.phase1, session.connection
    chosen = handshake.choice
    result: dict[str, Any] = {
        "version": 1,
        "mode": "aggressive" if handshake.mode == ExchangeType.AGGRESSIVE_MODE else "main",
        "state": session.state.value,
        "initiator": session.initiator,
        "cookie_i": handshake.cky_i.hex(),
        "cookie_r": handshake.cky_r.hex(),
        "nat": {"local": handshake.behind_nat, "remote": handshake.peer_behind_nat},
        "dpd": session.detector is not None,
    }
    if connection is not None:
        result["tunnel"] = connection.name
        result["identity_local"] = str(connection.identity)
    if session.peer_identity is not None:
        result["identity_remote"] = str(session.peer_identity)
    if chosen is not None:
        proposal = chosen.proposal
        result["algorithms"] = {
            "cipher": proposal.encryption_algorithm,
            "integrity": proposal.authentication_algorithm,
            "group": proposal.dh_group,
            "authentication": proposal.authentication,
        }
    if session.established and chosen is not None:
        result["lifetime"] = chosen.lifetime
        result["ends"] = session.hard
    if session.established or session.orphaned:
        result["children"] = session.child_sas.describe()
    return result
