"""`SessionV1`: one ISAKMP SA of IKEv1 as the engine calls it (`chassis.ase.ike.host.Session`).

Received messages go to the exchange that they belong to; timers, commands of the operator and reports of the data
engine come in here. IKEv1 cannot rekey an ISAKMP SA: `rekey` starts a new phase 1 of the same connection, which
takes over the CHILD SAs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.errors import NegotiationError, malformed_v1
from chassis.ase.ike.host import IkeHost, NetworkPath
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import NotifyV1
from chassis.ase.ike.retransmit import DpdState, ReplyCacheV1, message_digest
from chassis.ase.ike.v1.aggressive_mode import AggressiveMode
from chassis.ase.ike.v1.informational import Informational
from chassis.ase.ike.v1.isakmp_sa import ESTABLISHED_STATES, IsakmpSa, Phase1State
from chassis.ase.ike.v1.keymat import NO_COOKIE, IncomingMessage, Phase1Negotiation, is_encrypted
from chassis.ase.ike.v1.main_mode import MainMode
from chassis.ase.ike.v1.phase1_exchange import Phase1Exchange
from chassis.ase.ike.v1.phase2 import QuickModes
from chassis.bus.messages import PeerAnswer

PHASE_1_EXCHANGES: Final[Mapping[int, type[Phase1Exchange]]] = MappingProxyType(
    {ExchangeType.MAIN_MODE: MainMode, ExchangeType.AGGRESSIVE_MODE: AggressiveMode}
)
"""The exchange of phase 1 by its type."""

MAX_HELD_MESSAGES: Final = 8
"""Messages of a peer that are kept until it is admitted (count): a quick mode for each of a few rules."""
MAX_HELD_OCTETS: Final = 16_384
"""Octets of these messages together."""


class SessionV1(IsakmpSa):
    """An ISAKMP SA as the engine calls it; see `chassis.ase.ike.host.Session`."""

    __slots__ = ("_informational", "_phase_1", "_rejected", "quick_modes")

    def __init__(
        self, host: IkeHost, path: NetworkPath, phase1: Phase1Negotiation, spi: bytes, initiator: bool
    ) -> None:
        super().__init__(host, path, phase1, spi, initiator)
        self.quick_modes = QuickModes(self)
        self._informational = Informational(self)
        # A first message of any other exchange type is refused before it is handled.
        self._phase_1 = PHASE_1_EXCHANGES.get(phase1.mode, MainMode)(self)
        self._rejected: list[bytes] = []
        """Digests of the last messages of phase 1 that were rejected."""

    @classmethod
    def initiate(cls, host: IkeHost, connection: Connection, path: NetworkPath) -> SessionV1:
        """Return an initiator's session; `start` sends its first message."""
        cookie = host.new_ike_spi()
        mode = ExchangeType.AGGRESSIVE_MODE if connection.policy.mode == "aggressive" else ExchangeType.MAIN_MODE
        session = cls(host, path, Phase1Negotiation(mode, cookie, members=(connection,)), cookie, True)
        session.connection = connection
        return session

    @classmethod
    def respond(cls, host: IkeHost, path: NetworkPath, header: Header) -> SessionV1:
        """Return a responder's session for a first message, which the caller gives to `receive` next."""
        cookie = host.new_ike_spi()
        return cls(host, path, Phase1Negotiation(header.exchange, header.spi_i, cookie), cookie, False)

    # --- phase 1 ---

    def start(self, now: float) -> None:
        connection = self.connection
        assert connection is not None
        self.created_at = now
        self._establish_deadline = now + self.host.settings.half_open_timeout
        self.host.count("negotiations initiated")
        self.transition(self._phase_1.start(connection, now))

    def receive(self, data: bytes, header: Header, path: NetworkPath, now: float) -> None:
        if self.closed:
            return
        message = IncomingMessage(bytes(data), header, path, now)
        if self.orphaned:
            self._informational.receive_orphaned(message)
            return
        if self._establish_deadline == inf and self.state is Phase1State.IDLE:
            self.created_at = now
            self._establish_deadline = now + self.host.settings.half_open_timeout
            self.host.count("negotiations responded")
        try:
            header.check()
        except PayloadError as error:
            self._on_negotiation_error(malformed_v1(error), path, now)
            return
        if header.exchange in (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE):
            self._receive_phase_1(message)
        elif self.phase1.cky_i != header.spi_i:
            self.host.count("decryption failures")
        elif self.state is Phase1State.ADMISSION_ASKED:
            self._hold(message)
        elif header.exchange == ExchangeType.QUICK_MODE:
            if self.state is Phase1State.AM2_SENT and header.spi_r == self.phase1.cky_r:
                # The peer has our cookie from AM2, and its AM3 was lost: AM2 makes it send AM3 again.
                self._reply_cache.resend_reply(self.host, path)
            self.quick_modes.receive(message)
        else:
            self._informational.receive(message)

    def _receive_phase_1(self, message: IncomingMessage) -> None:
        """Give a message of phase 1 to its handler, if it is the one that is due.

        A message that fails changes no state: a forged one must not end the exchange with the real peer.
        """
        header, now = message.header, message.now
        phase1 = self.phase1
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
        handler = self._phase_1.handlers().get(self.state)
        expected = phase1.cky_r if self.state is not Phase1State.IDLE else NO_COOKIE
        if (
            handler is None
            or header.exchange != phase1.mode
            or header.spi_i != phase1.cky_i
            or (expected != NO_COOKIE and header.spi_r != expected)
            or (self.initiator and header.spi_r == NO_COOKIE)
        ):
            self.host.count("unexpected messages")
            return
        before, self._reply_cache = self._reply_cache, ReplyCacheV1(list(self._reply_cache.handled))
        self._reply_cache.remember(message.data)
        try:
            event = handler(message)
        except (PayloadError, NegotiationError) as error:
            self._reply_cache = before
            self._rejected = [*self._rejected[-7:], message_digest(message.data)]
            failed = malformed_v1(error) if isinstance(error, PayloadError) else error
            self._on_negotiation_error(failed, message.path, now)
            return
        if event is None:
            self._reply_cache = before
            return
        self.transition(event)
        if self.state in ESTABLISHED_STATES:
            self._on_established(now)

    def _hold(self, message: IncomingMessage) -> None:
        """Keep a message under the keys until the peer is admitted; it repeats what is too much."""
        held = self._held
        if any(message.data == one.data for one in held):
            return
        octets = len(message.data) + sum([len(one.data) for one in held])
        encrypted = is_encrypted(message) and message.header.spi_r == self.phase1.cky_r
        if encrypted and len(held) < MAX_HELD_MESSAGES and octets <= MAX_HELD_OCTETS:
            held.append(message)
        else:
            self.host.count("unexpected messages")

    def on_peer_answer(self, answer: PeerAnswer, now: float) -> None:
        if self.closed:
            return
        try:
            self.transition(self._phase_1.on_peer_answer(answer, now))
        except NegotiationError as error:
            self._on_negotiation_error(error, self.path, now)
            self.abort(error.failure, now)
            return
        if self.state not in ESTABLISHED_STATES:
            return
        self._on_established(now)
        held, self._held = self._held, []
        for message in held:
            self.receive(message.data, message.header, message.path, now)

    def _on_established(self, now: float) -> None:
        """Start the lifetime, replace older ISAKMP SAs, report, and start the quick modes that wait."""
        host, phase1, connection = self.host, self.phase1, self.connection
        assert connection is not None
        settings = host.settings
        phase1.settle()
        lifetime = phase1.chosen.lifetime
        rest = self.rekey_margin(lifetime)
        self._retransmission = None
        self._establish_deadline = inf
        self.last_received = self.established_at = now
        self.hard = now + lifetime
        self.soft = self.first_soft = self.hard - (rest if self.initiator else rest / 2)
        if phase1.behind_nat:
            self._nat_keepalive_at = now + settings.nat_keepalive_interval
        if connection.keepalive and phase1.dpd:
            self.start_dpd(now)
        host.count("IKE SAs established")
        contact: tuple[NotifyV1, ...] = ()
        if not self.initiator and phase1.mode == ExchangeType.AGGRESSIVE_MODE:
            # AM2 could not carry it: at that time the peer was not authenticated.
            contact = self.initial_contact_notify(connection)
        if phase1.peer_initial_contact:
            self.on_initial_contact(now)
        self.replace_older_sas(now)
        host.on_established(self, now)
        if self.closed:
            return
        if contact:
            self.send_informational(contact, now)
        self.quick_modes.start_pending(now)

    def _on_negotiation_error(self, error: NegotiationError, path: NetworkPath, now: float) -> None:
        """Log and notify why a message that came by `path` is not accepted; before the SA is established, fail."""
        for row, values in error.rows:
            self.log(row, values, now)
        if error.notify and self.notify_allowed(now):
            if error.notify_row is not None:
                self.log(*error.notify_row, now)
            if error.encrypted:
                self.send_informational((NotifyV1(error.notify, Protocol.IKE, self.phase1.cookies),), now, path)
            else:
                self.host.send(path, self.cleartext_message(error.notify))
        if self.established:
            return
        if error.final:
            if error.encrypted and self.initiator:
                # The responder may have established the SA already.
                self.send_informational((self.isakmp_sa_delete(),), now, path)
            self.abort(error.failure, now)
        elif self.state is Phase1State.IDLE:
            self.abort(error.failure, now)
        else:
            self.fail_after_grace(error.failure, now)

    @property
    def known_messages(self) -> tuple[Any, ...]:
        """By what messages of phase 1 that come again are known, and the reply, for `restore_messages`."""
        cache = self._reply_cache
        return cache.handled, cache.reply, cache.resends, self._rejected

    def restore_messages(self, known: tuple[Any, ...]) -> None:
        """Take what another object of this SA gave."""
        handled, reply, resends, rejected = known
        self._reply_cache, self._rejected = ReplyCacheV1(list(handled), reply, resends), list(rejected)

    # --- time ---

    def next_timer(self) -> float:
        if self.closed:
            return inf
        if self.orphaned and not self.child_sas.all:
            return -inf
        return min(self.rests_until(), self.exchanges.next_timer())

    def rests_until(self) -> float:
        """As `next_timer`, for an SA without a pending exchange, of which finished ones need not be forgotten in
        time."""
        return min(
            self._establish_deadline,
            self.soft,
            self.hard,
            self.delete_at,
            self._nat_keepalive_at,
            inf if self._retransmission is None else self._retransmission.due,
            inf if self.detector is None else self.detector.due,
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
                self.close("its last CHILD SA was deleted", now, tell=False)
            return
        if now >= self._establish_deadline:
            self.abort(self._pending_failure or self.timeout_failure(), now)
            return
        waiting = self._retransmission
        if waiting is not None and now >= waiting.due and not waiting.retransmit(self.host, self.path, now):
            if self.initiator:
                self.abort(self._pending_failure or self.timeout_failure(), now)
                return
            self._retransmission = None  # The peer retransmits, until the deadline.
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
            if not self.exchanges.pending:
                self.close("replaced by another IKE SA", now, keep=True)
                return
            self.delete_at = now + 1.0
        if now >= self.soft:
            self.rekey(now)
        if now >= self._nat_keepalive_at:
            self._nat_keepalive_at = now + self.host.settings.nat_keepalive_interval
            self.host.send(self.path, b"")
        if self.detector is not None and now >= self.detector.due:
            self._send_dpd_probe(self.detector, now)

    def _send_dpd_probe(self, detector: DpdState, now: float) -> None:
        number = detector.next_probe(now)
        if number is None:
            self.on_peer_dead(f"{self.peer} does not answer", now)
            return
        self.host.count("DPD probes sent")
        data = number.to_bytes(4, "big")
        self.send_informational((NotifyV1(NotifyTypeV1.R_U_THERE, Protocol.IKE, self.phase1.cookies, data),), now)

    # --- what the engine asks ---

    def negotiate(self, entry: PolicyEntry, replaces: int, now: float) -> None:
        if self.closed:
            return
        if self.successor is not None and self.successor.established:
            self.successor.negotiate(entry, replaces, now)
            self.host.reschedule(self.successor)
            return
        self.quick_modes.request(entry, replaces, now)

    def rekey(self, now: float) -> None:
        connection = self.connection
        settings = self.host.settings
        if not self.established or connection is None or self.successor is not None:
            self.soft = inf
            return
        self.soft = now + settings.half_open_timeout + settings.backoff[0]
        pending = self.pending_successor
        if pending is not None and not pending.closed and not pending.established:
            return
        if not connection.may_renew:
            self.soft = inf
            text = "the peer must initiate the next phase 1"
            self.host.log_own("peer renews", "info", text, self, self.path, now)
            return
        successor = SessionV1.initiate(self.host, connection, self.path)
        self.pending_successor = successor
        successor.start(now)
        self.host.register_session(successor)

    def delete_child(self, serial: int, reason: str, now: float) -> None:
        child_sa = self.child_sas.by_serial(serial)
        if child_sa is not None:
            self.child_sas.remove(child_sa, reason, now, tell=True)

    def on_child_expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        child_sa = self.child_sas.by_serial(serial)
        if child_sa is None:
            return
        self.child_sas.request_successor(child_sa, now)
        if hard:
            self.child_sas.remove(child_sa, reason, now, tell=True)

    def on_peer_uses_sa(self, serial: int, now: float) -> None:
        self.on_inbound_traffic(now)
        self.quick_modes.on_peer_uses_sa(serial, now)

    def on_invalid_spi(self, spi: bytes, now: float) -> None:
        """If dead peer detection is on, send the next probe now, at most once per interval."""
        detector = self.detector
        if detector is None or not any(spi in child.spis_out.values() for child in self.child_sas.all):
            return
        self.host.count("cleartext errors")
        if now >= self.invalid_spi_until:
            self.invalid_spi_until = now + detector.interval
            detector.due = min(detector.due, now)

    def on_configuration(self, connection: Connection, now: float) -> None:
        self.connection = connection
        self.quick_modes.on_configured(connection, now)
        if not connection.keepalive:
            self.detector = None
        elif self.detector is None and self.established and self.phase1.dpd:
            self.start_dpd(now)

    # --- for people ---

    def describe(self) -> dict[str, Any]:
        """`ends` and the times of children are of the engine's clock, `lifetime` is in seconds."""
        phase1, connection = self.phase1, self.connection
        chosen = phase1.choice
        result: dict[str, Any] = {
            "version": 1,
            "mode": "aggressive" if phase1.mode == ExchangeType.AGGRESSIVE_MODE else "main",
            "state": self.state.value,
            "initiator": self.initiator,
            "cookie_i": phase1.cky_i.hex(),
            "cookie_r": phase1.cky_r.hex(),
            "nat": {"local": phase1.behind_nat, "remote": phase1.peer_behind_nat},
            "dpd": self.detector is not None,
        }
        if connection is not None:
            result["tunnel"] = connection.name
            result["identity_local"] = str(connection.identity)
        if self.peer_identity is not None:
            result["identity_remote"] = str(self.peer_identity)
        if chosen is not None:
            proposal = chosen.proposal
            result["algorithms"] = {
                "cipher": proposal.encryption_algorithm,
                "integrity": proposal.authentication_algorithm,
                "group": proposal.dh_group,
                "authentication": proposal.authentication,
            }
        if self.established and chosen is not None:
            result["lifetime"] = chosen.lifetime
            result["ends"] = self.hard
        if self.established or self.orphaned:
            result["children"] = self.child_sas.describe()
        return result

    def secrets(self) -> list[dict[str, str]]:
        chain = self.phase1.chain
        if chain is None:
            return []
        return [{"kind": "ikev1", "cookie_i": self.phase1.cky_i.hex(), "key": chain.key.hex()}]
