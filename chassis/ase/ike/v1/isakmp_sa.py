"""The ISAKMP SA of IKEv1 (RFC 2408, RFC 2409): its states, and what its exchanges ask of it.

`IsakmpSa` holds the state, sends messages, and replaces or ends the SA; `SessionV1` adds what the engine calls.
The exchanges act on an `IsakmpSa`, which does not know them: main_mode.py, aggressive_mode.py, quick_mode.py, and
informational.py for what informational exchanges bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import inf
from typing import Any, Final, cast

from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import IkeHost, NetworkPath, Session
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1, MessageV1, NotifyV1, PayloadV1
from chassis.ase.ike.retransmit import DpdState, ReplyCacheV1, Retransmission
from chassis.ase.ike.v1.child_sas import (
    DELETE_DELAY,
    PEER_DELETE_TIMEOUT,
    REKEY_RETRY_INTERVAL,
    ChildSasV1,
)
from chassis.ase.ike.v1.exchanges import Exchanges, UsedMessageIds
from chassis.ase.ike.v1.keymat import IncomingMessage, Phase1Negotiation
from chassis.net.address import format_address
from chassis.state_machine import StateMachine, without_actions

MAX_NOTIFIES_PER_SECOND: Final = 10
"""Notifications that are sent or logged in one second (count)."""


PSK_MISMATCH_TEXT: Final = "the preshared keys of the two ends probably differ"

PSK_MISMATCH_NOTIFIES: Final = frozenset(
    ("UNEQUAL_PAYLOAD_LENGTHS", "PAYLOAD_MALFORMED", "INVALID_HASH_INFORMATION", "AUTHENTICATION_FAILED")
)
"""Notifications with which peers refuse an authentication that does not decrypt under their key."""


class Phase1State(Enum):
    IDLE = "idle"
    """No message was sent or received yet."""
    MM1_SENT = "main mode: SA sent"
    MM3_SENT = "main mode: KE and nonce sent"
    MM5_SENT = "main mode: identity and proof sent"
    MM2_SENT = "main mode: SA answered"
    MM4_SENT = "main mode: KE and nonce answered"
    AM1_SENT = "aggressive mode: SA, KE and identity sent"
    KEY_ASKED = "aggressive mode: waits for the peer's key"
    """The controller was asked for the preshared key of the identity in AM1."""
    AM2_SENT = "aggressive mode: answered with proof"
    ADMISSION_ASKED = "aggressive mode: waits for the peer's tunnel"
    """The peer is authenticated, and the controller was asked for its instance of an on-demand tunnel."""
    ESTABLISHED = "established"
    REPLACED = "established, with a successor"
    """A newer ISAKMP SA of the same connection has its CHILD SAs; this one is deleted after a delay."""
    ORPHANED = "deleted, its CHILD SAs stay"
    """Deleted; its CHILD SAs wait for another ISAKMP SA of the connection (RFC 2408 3.15)."""
    CLOSED = "closed"


class Phase1Event(Enum):
    BEGIN_MAIN = "begin main mode"
    BEGIN_AGGRESSIVE = "begin aggressive mode"
    MM1_RECEIVED = "message 1 of main mode"
    MM2_RECEIVED = "message 2 of main mode"
    KE_RECEIVED = "message 3 or 4 of main mode"
    AUTH_RECEIVED = "last message of the peer"
    """Message 5 or 6 of main mode, or 3 of aggressive mode, and the peer is authenticated."""
    AM1_RECEIVED = "message 1 of aggressive mode"
    AM2_RECEIVED = "message 2 of aggressive mode"
    KEY_ASKED = "key asked for"
    ADMISSION_ASKED = "tunnel asked for"
    SUCCESSOR_ESTABLISHED = "successor established"
    SUCCESSOR_GONE = "successor gone"
    ORPHAN = "deleted or expired, CHILD SAs stay"
    CLOSE = "failed, deleted or expired"


_S, _E = Phase1State, Phase1Event

PHASE_1 = StateMachine(
    "IKEv1, phase 1",
    Phase1State,
    Phase1Event,
    without_actions(
        {
            _S.IDLE: {
                _E.BEGIN_MAIN: _S.MM1_SENT,
                _E.BEGIN_AGGRESSIVE: _S.AM1_SENT,
                _E.MM1_RECEIVED: _S.MM2_SENT,
                _E.AM1_RECEIVED: _S.AM2_SENT,
                _E.KEY_ASKED: _S.KEY_ASKED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.KEY_ASKED: {_E.AM1_RECEIVED: _S.AM2_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM1_SENT: {_E.MM2_RECEIVED: _S.MM3_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM3_SENT: {_E.KE_RECEIVED: _S.MM5_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM5_SENT: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.MM2_SENT: {_E.KE_RECEIVED: _S.MM4_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM4_SENT: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.AM1_SENT: {_E.AM2_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.AM2_SENT: {
                _E.AUTH_RECEIVED: _S.ESTABLISHED,
                _E.ADMISSION_ASKED: _S.ADMISSION_ASKED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.ADMISSION_ASKED: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.ESTABLISHED: {
                _E.SUCCESSOR_ESTABLISHED: _S.REPLACED,
                _E.ORPHAN: _S.ORPHANED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.REPLACED: {
                _E.SUCCESSOR_GONE: _S.ESTABLISHED,
                _E.SUCCESSOR_ESTABLISHED: _S.REPLACED,
                _E.ORPHAN: _S.ORPHANED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.ORPHANED: {_E.CLOSE: _S.CLOSED},
            _S.CLOSED: {},
        }
    ),
    partial=True,
    theory="""\
One ISAKMP SA, in both roles. Phase 1 is main mode or aggressive mode (RFC 2409 5.1, 5.4): a state is named for
the message that was sent last, and the next message of the peer leads to the next state. A message that is not
due in a state, or that fails a check, changes no state: it is dropped, so that a forged message does not end
the exchange of the real peer. The responder of main mode computes no Diffie-Hellman secret before message 5.
For a peer of an on-demand tunnel the responder of aggressive mode waits twice for the controller: after message 1
for the preshared key, if AAA has it, and after message 3 for the tunnel. The peer may send quick modes meanwhile.

An ISAKMP SA is established when the peer is authenticated. Quick modes and informational exchanges follow. IKEv1
cannot rekey it: a new phase 1 of the same connection replaces it, and takes over its CHILD SAs and the requests
that wait. The initiator of the new one deletes the old one after a delay; if the new one goes first, the old one
is established again. If an ISAKMP SA ends and no other of its connection is established, its CHILD SAs stay, and
pass to the next one that is established (RFC 2408 3.15, RFC 2409 5.5). CLOSE ends everything in any state.""",
)

ESTABLISHED_STATES: Final = frozenset((Phase1State.ESTABLISHED, Phase1State.REPLACED))
"""States in which the peer is authenticated and phase 2 is allowed."""


class IsakmpSa(Session):
    """One ISAKMP SA, or the negotiation of one. Times are the engine's (s); infinity is never."""

    __slots__ = (
        "__weakref__",
        "_establish_deadline", "_held", "_nat_keepalive_at", "_notify_count", "_pending_failure", "_reply_cache",
        "_retransmission", "child_sas", "closed", "connection", "created_at", "delete_at", "detector",
        "established", "established_at", "exchanges", "first_soft", "hard", "host", "initiator",
        "invalid_spi_until", "last_received", "orphaned", "path", "peer_dpd_sequence", "peer_identity",
        "peer_lost_state", "pending_successor", "phase1", "receives", "soft", "spi", "state", "successor",
        "used_ids", "version", "wanted",
    )  # fmt: skip

    def __init__(
        self, host: IkeHost, path: NetworkPath, phase1: Phase1Negotiation, spi: bytes, initiator: bool
    ) -> None:
        self.host = host
        self.path = path
        self.phase1 = phase1
        self.spi = spi
        self.initiator = initiator
        self.version = 1
        self.connection: Connection | None = None
        self.established = False
        self.orphaned = False
        self.closed = False
        self.receives = False
        self.state = Phase1State.IDLE
        self.peer_identity: IkeIdentity | None = None
        """The authenticated identity of the peer."""
        self.child_sas = ChildSasV1(host, self)
        self.exchanges = Exchanges()
        self.wanted: dict[int, tuple[PolicyEntry, int]] = {}
        """Quick modes that wait: by the entry's number, the entry and the serial of the CHILD SA to replace."""
        self.successor: IsakmpSa | None = None
        """The ISAKMP SA that has replaced this one."""
        self.pending_successor: IsakmpSa | None = None
        """The one that this end negotiates to replace this one."""
        self.last_received = -inf
        """When the last authentic message of the peer was received (s)."""
        self.peer_lost_state = False
        """The peer no longer has this SA: it is dead, or sent INITIAL-CONTACT."""
        self._reply_cache = ReplyCacheV1()
        self._retransmission: Retransmission | None = None
        self._pending_failure: FailureReason | None = None
        self._establish_deadline = inf
        self.created_at = 0.0
        """When its first message was sent or received (s)."""
        self.established_at = inf
        self.soft = self.hard = inf
        """Soft lifetime: when a successor is next attempted. Hard lifetime: when this SA ends."""
        self.first_soft = inf
        """When a successor was first to be attempted."""
        self.delete_at = inf
        """When a replaced SA is deleted, or an orphaned one loses its keys."""
        self._nat_keepalive_at = inf
        self.detector: DpdState | None = None
        self.invalid_spi_until = -inf
        self.peer_dpd_sequence: int | None = None
        """Sequence number of the peer's last R-U-THERE."""
        self.used_ids = UsedMessageIds()
        self._held: list[IncomingMessage] = []
        """What the peer sent under the keys before it was admitted, MAX_HELD_MESSAGES at most."""
        self._notify_count = (-1, 0)
        """The second (s) and the number of notifications in it."""

    def transition(self, event: Phase1Event) -> None:
        """Change the state by the table of phase 1."""
        self.state, _ = PHASE_1.transition(self.state, event)
        self.established = self.state in ESTABLISHED_STATES
        self.orphaned = self.state is Phase1State.ORPHANED
        # Message 3 of either mode has our cookie in it (RFC 2408 2.5.3).
        self.receives = self.state in (Phase1State.MM4_SENT, Phase1State.ADMISSION_ASKED)
        self.closed = self.state is Phase1State.CLOSED

    @property
    def peer(self) -> str:
        """The peer's address, for texts."""
        return format_address(self.path.remote)

    @property
    def keys(self) -> ikev1.SkeyId:
        """The keys; call it only after they were derived."""
        return cast(ikev1.SkeyId, self.phase1.keys)

    @property
    def nat_detected(self) -> bool:
        """Whether there is a NAT before either end."""
        return self.phase1.behind_nat or self.phase1.peer_behind_nat

    def log(self, row: str, values: Mapping[str, Any], now: float) -> None:
        """Log a line of the guide by its id."""
        self.host.log(row, values, self, self.path, now)

    def rekey_margin(self, lifetime: float) -> float:
        """Return how long before the end of a lifetime (s) its successor is negotiated: random, so that SAs that
        were made together are not rekeyed together."""
        settings = self.host.settings
        share = int.from_bytes(self.host.random(2), "big") / 65_536
        return lifetime * settings.rekey_margin_factor * (1 - settings.rekey_jitter_factor * share)

    @property
    def kept(self) -> tuple[float, ...]:
        """The points in time of an established SA (s), and its notifications of this second, to be kept apart."""
        return (
            self.last_received, self.created_at, self.established_at, self.soft, self.hard, self.first_soft,
            self._nat_keepalive_at, self.invalid_spi_until, *self._notify_count,
        )  # fmt: skip

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Establish a new object as the SA of which another one gave `kept`; the caller sets the rest."""
        (
            self.last_received, self.created_at, self.established_at, self.soft, self.hard, self.first_soft,
            self._nat_keepalive_at, self.invalid_spi_until, *count,
        ) = kept  # fmt: skip
        self._notify_count = (count[0], count[1])
        self.state, self.established = Phase1State.ESTABLISHED, True

    # --- phase 1 ---

    def send_phase_1(
        self, payloads: Sequence[PayloadV1], now: float, *, encrypted: bool = False, wait: bool = False
    ) -> None:
        """Send the next message of phase 1. With `wait` it is retransmitted until it is answered, by a responder
        once: the peer has not shown that it receives."""
        header = self.phase1.header(self.phase1.mode)
        if encrypted:
            assert self.phase1.chain is not None
            data, self.phase1.chain = self.phase1.chain.encrypt(header, tuple(payloads))
        else:
            data = MessageV1(header, tuple(payloads)).emit()
        self._reply_cache.reply = data
        self._retransmission = None
        if wait:
            self._retransmission = Retransmission.start(self.host.settings, (data,), now, verified=self.initiator)
        self.host.send(self.path, data)

    def on_admission_asked(self) -> None:
        """The peer sent message 3 of aggressive mode: stop to repeat message 2, and keep what it sends next."""
        self._retransmission = None
        self._held = []

    def initial_contact_notify(self, connection: Connection) -> tuple[NotifyV1, ...]:
        """Return INITIAL-CONTACT if it is due, else nothing."""
        if not self.host.may_send_initial_contact(connection):
            return ()
        return (NotifyV1(NotifyTypeV1.INITIAL_CONTACT, Protocol.IKE, self.phase1.cookies),)

    def abort(self, failure: FailureReason, now: float) -> None:
        """Abort phase 1 and report the failure; no effect once the SA is established."""
        if self.closed or self.established:
            return
        self.transition(Phase1Event.CLOSE)
        self.host.on_failed(self, failure, now)
        self.host.on_closed(self, failure.text, now)

    def fail_after_grace(self, failure: FailureReason, now: float) -> None:
        """Fail with this reason after two retransmit intervals, unless a genuine answer comes before.

        Call it for an unauthenticated message that says that the peer refuses: it may be forged.
        """
        if self._pending_failure is None:
            self._pending_failure = failure
            self._retransmission = None
            self._establish_deadline = min(
                self._establish_deadline, now + 2 * self.host.settings.retransmit_timeout
            )

    def psk_may_differ(self) -> bool:
        """Return whether only the peer's answer to our authentication is missing, which the peer can decrypt only
        with the same preshared key (RFC 2409 5.4)."""
        return self.state is Phase1State.MM5_SENT and self.phase1.by_psk

    def refusal_failure(self, notify: str) -> FailureReason:
        """Return why phase 1 fails if the peer refused by a notification in clear."""
        text = f"the peer refuses: {notify}"
        if self.psk_may_differ() and notify in PSK_MISMATCH_NOTIFIES:
            return FailureReason("preshared key", f"{text}; {PSK_MISMATCH_TEXT}")
        return FailureReason("refused by the peer", text)

    def timeout_failure(self) -> FailureReason:
        """Return why phase 1 fails if the peer did not answer in time."""
        if self.host.is_asking(self):
            return FailureReason("no answer about the peer", f"nothing was answered about {self.peer} in time")
        text = f"{self.peer} does not answer"
        if self.psk_may_differ():
            text += " our authentication; the preshared keys of the two ends may differ"
        return FailureReason("timeout", text)

    # --- messages under the keys, and in clear ---

    def send_informational(
        self, payloads: Sequence[PayloadV1], now: float, path: NetworkPath | None = None
    ) -> None:
        """Send an informational exchange under the keys, by `path` if given; no effect without keys."""
        if self.phase1.keys is not None and not self.closed and not self.orphaned:
            self.host.send(path or self.path, self.encrypted_message(payloads))

    def encrypted_message(self, payloads: Sequence[PayloadV1]) -> bytes:
        """Return an informational message under the keys (RFC 2409 5.7)."""
        return self.phase1.informational(self.new_message_id(), payloads)

    def cleartext_message(self, notify: int) -> bytes:
        """Return a notification in clear, for a peer that has no keys with us."""
        header = self.phase1.header(ExchangeType.INFORMATIONAL_V1, self.new_message_id())
        return MessageV1(header, (NotifyV1(notify, Protocol.IKE, self.phase1.cookies, b""),)).emit()

    def send_delete(self, spis: Mapping[int, bytes], now: float) -> None:
        """Tell the peer that we no longer receive by these SPIs, given by protocol."""
        payloads = [DeleteV1(p, (spi,)) for p, spi in spis.items() if p in (Protocol.AH, Protocol.ESP)]
        if payloads and self.established:
            self.send_informational(payloads, now)

    def isakmp_sa_delete(self) -> DeleteV1:
        """Return the Delete payload for this ISAKMP SA."""
        return DeleteV1(Protocol.IKE, (self.phase1.cookies,))

    def notify_allowed(self, now: float) -> bool:
        """Return whether this second allows one more notification, and count it."""
        second, count = self._notify_count
        if second != int(now):
            count = 0
        self._notify_count = (int(now), count + 1)
        return count < MAX_NOTIFIES_PER_SECOND

    def new_message_id(self, *, quick: bool = False) -> int:
        """Return a random message ID that was not used before, and mark it used."""
        return self.used_ids.new(self.host.random, quick=quick)

    def mark_id_used(self, message_id: int, *, quick: bool) -> None:
        """Refuse later messages with this message ID as replayed. `quick`: it is that of a quick mode."""
        self.used_ids.add(message_id, quick=quick)

    @property
    def ids_evicted(self) -> bool:
        """Whether not every used message ID is known any more."""
        return self.used_ids.evicted

    def is_id_used(self, message_id: int) -> bool:
        """Return whether the message ID is known to be used."""
        return message_id in self.used_ids

    def on_authentic_message(self, message: IncomingMessage) -> None:
        """Count a message that only the peer can have made as a sign of life; follow a peer whose NAT gave it
        another address or port."""
        if self.established:
            self.on_inbound_traffic(message.now)
            if self.phase1.peer_behind_nat and message.path.on_nat_port and message.path != self.path:
                self.path = message.path
                self.child_sas.on_peer_moved()

    # --- dead peer detection ---

    def start_dpd(self, now: float) -> None:
        """Begin to probe the peer after silence (RFC 3706)."""
        settings = self.host.settings
        first = int.from_bytes(self.host.random(4), "big") >> 1
        self.detector = DpdState(settings.probe_interval(self.spi), settings.dpd_retries, first)
        self._reset_detector(self.detector, now)

    def on_inbound_traffic(self, now: float) -> None:
        self.last_received = now
        if self.detector is not None:
            self._reset_detector(self.detector, now)

    def _reset_detector(self, detector: DpdState, now: float) -> None:
        detector.reset(self.host.settings.probe_due(self.spi, now, self.host.probe_phase))

    def on_peer_dead(self, reason: str, now: float) -> None:
        """Delete this ISAKMP SA and all its CHILD SAs without Deletes: the peer is dead (RFC 3706)."""
        self.peer_lost_state = True
        self.host.count("failed dead peer")
        self.close(reason, now, tell=False)

    # --- the end ---

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        if self.closed or (keep and self.orphaned):
            return
        if self.established:
            self.wanted.clear()
            self.exchanges.abort_all(now)
            self._migrate_on_close(now)
            if keep and self.child_sas.all:
                self._orphan(reason, now, tell=tell)
                return
        for child_sa in list(self.child_sas.all):
            self.child_sas.remove(child_sa, reason, now, tell=tell)
        if tell and self.established:
            self.send_informational((self.isakmp_sa_delete(),), now)
        self.transition(Phase1Event.CLOSE)
        self.host.on_closed(self, reason, now)

    def _orphan(self, reason: str, now: float, *, tell: bool) -> None:
        """Delete the ISAKMP SA, but keep its CHILD SAs for the next one of the connection."""
        if tell:
            self.send_informational((self.isakmp_sa_delete(),), now)
        self.transition(Phase1Event.ORPHAN)
        self.detector = None
        self.soft = self.hard = self.first_soft = self._nat_keepalive_at = inf
        # Keep the keys for a moment: a Delete for the CHILD SAs that the peer sent before may come later.
        self.delete_at = now + DELETE_DELAY
        self.host.log_own("IPsec SAs stay", "info", f"{reason}; its IPsec SAs stay", self, self.path, now)
        self.host.on_closed(self, reason, now)

    # --- replacement: in IKEv1 the CHILD SAs outlive the ISAKMP SA and move to the new one ---

    def sibling_sessions(self) -> list[IsakmpSa]:
        """Return the other established ISAKMP SAs of the connection, oldest first."""
        return [one for one in self._other_sessions() if one.established]

    def orphaned_sessions(self) -> list[IsakmpSa]:
        """Return the deleted ISAKMP SAs of the connection whose CHILD SAs wait for an established one."""
        return [one for one in self._other_sessions() if one.orphaned]

    def _other_sessions(self) -> list[IsakmpSa]:
        found = [one for one in self.host.sibling_sessions(self) if isinstance(one, IsakmpSa)]
        return [one for one in found if one is not self]

    @property
    def current_session(self) -> IsakmpSa:
        """The ISAKMP SA that has the CHILD SAs of the connection: this one, or its last successor."""
        found = self
        while found.successor is not None and found.successor.established:
            found = found.successor
        return found

    def replace_older_sas(self, now: float) -> None:
        """Take over the CHILD SAs of the connection's other ISAKMP SAs, now that this one is established.

        If both ends initiated at the same time, the SA that the end with the lower address initiated stays.
        """
        for older in self.sibling_sessions():
            at_once = older.initiator != self.initiator and older.established_at >= self.created_at
            if at_once and self.initiator != (self.path.local < self.path.remote):
                self._be_replaced_by(older, now)
            else:
                if not at_once and older.successor is None:
                    self.host.count("IKE SAs rekeyed")
                older._be_replaced_by(self, now)
        for orphan in self.orphaned_sessions():
            orphan._migrate_children(self.current_session, now)
            orphan.close("another IKE SA took over its CHILD SAs", now, tell=False)
            self.host.reschedule(orphan)

    def _be_replaced_by(self, successor: IsakmpSa, now: float) -> None:
        """Give the CHILD SAs to `successor`, or to what has replaced that, and delete this SA later.

        The initiator of the successor deletes this SA after DELETE_DELAY. The responder deletes it only after one
        to two PEER_DELETE_TIMEOUT (random).
        """
        successor = successor.current_session
        if successor is self:
            return  # This SA already replaces `successor`: no circle.
        self.successor = successor
        self.pending_successor = None
        self.soft = inf
        spread = self.host.random(1)[0] / 255
        self.delete_at = now + (DELETE_DELAY if successor.initiator else PEER_DELETE_TIMEOUT * (1 + spread))
        self.transition(Phase1Event.SUCCESSOR_ESTABLISHED)
        self._migrate_children(successor, now)
        self.host.reschedule(self)

    def _migrate_children(self, successor: IsakmpSa, now: float) -> None:
        """Give another ISAKMP SA the CHILD SAs, and the quick modes that wait."""
        successor.child_sas.take_over(self.child_sas.give_away(), now)
        for number, wanted in self.wanted.items():
            successor.wanted.setdefault(number, wanted)
        self.wanted.clear()
        successor.host.reschedule(successor)

    def _migrate_on_close(self, now: float) -> None:
        """Give the CHILD SAs to another established ISAKMP SA, and those that this one replaced to its successor.

        An SA that this one replaced is established again if there is no other successor.
        """
        siblings = self.sibling_sessions()
        if not self.peer_lost_state:
            other = next((one for one in reversed(siblings) if not one.peer_lost_state), None)
            if other is not None:
                self._migrate_children(other, now)
        successor = self.successor if self.successor is not None and self.successor.established else None
        for one in siblings:
            if one.successor is not self:
                continue
            one.successor = successor if successor is not one else None
            if one.successor is None:
                # Its own lifetime goes on.
                one.delete_at = inf
                one.soft = max(one.first_soft, now + REKEY_RETRY_INTERVAL)
                one.transition(Phase1Event.SUCCESSOR_GONE)
                one.host.reschedule(one)

    def on_initial_contact(self, now: float) -> None:
        """Delete SAs that are older than this one: the peer sent INITIAL-CONTACT, so it has lost them.

        If both ends initiate at the same time, both may send it: SAs that were established after the first message
        of this one are kept.
        """
        younger = False
        for older in (*self.sibling_sessions(), *self.orphaned_sessions()):
            if older.established_at < self.created_at:
                older.peer_lost_state = True
                older.close("the peer sent INITIAL-CONTACT", now, tell=False)
                self.host.reschedule(older)
            else:
                younger = True
        for child_sa in [one for one in self.child_sas.all if one.created_at < self.created_at]:
            self.child_sas.remove(child_sa, "the peer sent INITIAL-CONTACT", now, tell=False)
        if not younger:
            self.host.on_initial_contact(self, now)

    def on_isakmp_sa_delete(self, cookies: bytes, now: float) -> None:
        """Delete this ISAKMP SA, or the other one of the connection that has these cookies: the peer did. The
        Delete says nothing about CHILD SAs, so these stay."""
        for one in (self, *self.sibling_sessions()):
            if one.phase1.cookies == cookies:
                one.close("deleted by the peer", now, tell=False, keep=True)
                if one is not self:
                    self.host.reschedule(one)
                return

    def on_child_sa_delete(self, protocol: int, spi: bytes, now: float) -> None:
        """Delete the CHILD SA by which we send with this SPI, under whichever ISAKMP SA it is: the peer did."""
        for one in (self, *self.sibling_sessions()):
            one.child_sas.on_delete(protocol, spi, now)
