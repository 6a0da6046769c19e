"""Quick mode (RFC 2409 5.5): negotiates one CHILD SA for one rule of a policy entry.

`QuickMode` is one exchange with its three messages, QM1 to QM3; phase2.py says which run. The shorter lifetime of
both ends holds (RFC 2407 4.5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from chassis.ase.ike import traffic_selectors
from chassis.ase.ike.child_proposals import (
    LIFE_DURATION,
    LIFE_TYPE,
    TUNNEL,
    UDP_TUNNEL,
    ChildChoiceV1,
    Suite,
    choose_v1,
    offer_v1,
)
from chassis.ase.ike.child_sa import ChildSa, key_sizes, sa_install, sa_keys, spi_protocols, suites_for_path
from chassis.ase.ike.connections import PolicyEntry
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev1 import IvChain
from chassis.ase.ike.errors import FailureReason, NegotiationError, no_ipsec_proposal_v1
from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.ike_proposals import NoMatch, seconds
from chassis.ase.ike.payloads.chain import first_of_type
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import Hash, IdV1, KeV1, NonceV1, NotifyV1, PayloadV1, emit_payloads
from chassis.ase.ike.payloads.v1_sa import AttributeV1, SaV1
from chassis.ase.ike.retransmit import ReplyCacheV1, Retransmission
from chassis.ase.ike.v1.child_sas import ChildSaV1, max_child_sas
from chassis.ase.ike.v1.exchanges import Exchange
from chassis.ase.ike.v1.isakmp_sa import IsakmpSa
from chassis.ase.ike.v1.keymat import NONCE_OCTETS, exactly_one
from chassis.ase.ike_messages import UdpEncapsulation
from chassis.model.ipsec import SaKeys
from chassis.state_machine import StateMachine, without_actions

QUICK_MODE_CACHE_TIMEOUT: Final = 90.0
"""Time (s) that a finished quick mode is kept, for messages that come again."""

SECONDS: Final = 1
KBYTES: Final = 2
"""Life types (RFC 2407 4.5)."""
MIN_LIFETIME: Final = 20
"""Shortest lifetime (s): the peer cannot make this end negotiate more often."""


class QuickModeState(Enum):
    IDLE = "idle"
    QM1_SENT = "message 1 sent"
    QM2_SENT = "message 2 sent, the CHILD SA receives"
    DONE = "done"
    """Kept for `QUICK_MODE_CACHE_TIMEOUT` to answer messages that come again."""
    FAILED = "failed"


class QuickModeEvent(Enum):
    BEGIN = "begin"
    QM1_RECEIVED = "message 1"
    QM2_RECEIVED = "message 2"
    CONFIRMED = "message 3, or a packet by the new CHILD SA"
    FAIL = "refused or timed out"


_S, _E = QuickModeState, QuickModeEvent

QUICK_MODE = StateMachine(
    "IKEv1, phase 2: a quick mode",
    QuickModeState,
    QuickModeEvent,
    without_actions(
        {
            _S.IDLE: {_E.BEGIN: _S.QM1_SENT, _E.QM1_RECEIVED: _S.QM2_SENT, _E.FAIL: _S.FAILED},
            _S.QM1_SENT: {_E.QM2_RECEIVED: _S.DONE, _E.FAIL: _S.FAILED},
            _S.QM2_SENT: {_E.CONFIRMED: _S.DONE, _E.FAIL: _S.FAILED},
            _S.DONE: {},
            _S.FAILED: {},
        }
    ),
    partial=True,
    theory="""\
One quick mode, in both roles (RFC 2409 5.5): three messages that make one CHILD SA for one rule of a policy
entry. The initiator sends message 1, and on message 2 installs the CHILD SA, sends by it and sends message 3. The
responder installs on message 1, before it sends message 2, and only receives: the initiator may send at once. It
sends by the new CHILD SA when message 3 or a packet shows that the initiator has it.

Both ends retransmit until they are answered. A message that fails its HASH is dropped and changes no state. A
finished quick mode is kept for a while: a lost message 3 is sent again when message 2 comes again. If both ends
begin one for the same rule at once, the one with the lower message ID goes on: its responder answers it and
aborts its own, its initiator does not answer the other. While one waits for its confirmation, no successor of
its CHILD SA is begun. So both ends see the quick modes of a rule in the same order.""",
)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Lifetime of an IPsec SA in seconds, and in kilobytes (0: no limit)."""

    seconds: int
    kbytes: int


def responder_lifetime_notify(unit: int, value: int, protocol: int, spi: bytes) -> NotifyV1:
    """Return RESPONDER-LIFETIME for one unit (RFC 2407 4.6.3.1)."""
    data = AttributeV1(LIFE_TYPE, unit).emit() + AttributeV1(LIFE_DURATION, seconds(value)).emit()
    return NotifyV1(NotifyTypeV1.RESPONDER_LIFETIME, protocol, spi, data)


def lifetimes_in(data: bytes) -> list[tuple[int, int]]:
    """Return (unit, value) of each duration in a RESPONDER-LIFETIME; a truncated attribute ends the list."""
    found: list[tuple[int, int]] = []
    unit = at = 0
    while at + 4 <= len(data):
        kind, value = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        if not kind & 0x8000:
            octets, at = data[at : at + value], at + value
            value = int.from_bytes(octets, "big")
        if kind & 0x7FFF == LIFE_TYPE:
            unit = value
        elif kind & 0x7FFF == LIFE_DURATION:
            found.append((unit, value))
    return found


def responder_lifetime(found: ChildChoiceV1, spis: Mapping[int, bytes]) -> tuple[Lifetime, tuple[NotifyV1, ...]]:
    """Return the lifetime, and the notifications for an initiator that offered more."""
    suite = found.suite
    protocol = suite.protocols[0]
    notifies: list[NotifyV1] = []
    whole, kbytes = suite.seconds, suite.kbytes or 0
    if found.peer_seconds is None or found.peer_seconds > whole:
        notifies.append(responder_lifetime_notify(SECONDS, whole, protocol, spis[protocol]))
    else:
        whole = max(found.peer_seconds, MIN_LIFETIME)
    if kbytes and (not found.peer_kbytes or found.peer_kbytes > kbytes):
        notifies.append(responder_lifetime_notify(KBYTES, kbytes, protocol, spis[protocol]))
    elif found.peer_kbytes:
        kbytes = found.peer_kbytes
    return Lifetime(whole, kbytes), tuple(notifies)


@dataclass(slots=True, eq=False)
class QuickMode(Exchange):
    """One quick mode under the ISAKMP SA `sa`.

    `chain` encrypts the next message. `spis` are our inbound SPIs by protocol, until they are installed in
    `child_sa`. `replaces` is the serial of the CHILD SA that the new one replaces (0: none).
    """

    sa: IsakmpSa = field(repr=False)
    message_id: int
    initiator: bool
    chain: IvChain = field(repr=False)
    entry: PolicyEntry | None = None
    replaces: int = 0
    state: QuickModeState = QuickModeState.IDLE
    suites: tuple[Suite, ...] = ()
    spis: dict[int, bytes] = field(default_factory=dict)
    dh_key: DhKeyPair | None = field(default=None, repr=False)
    ni: bytes = b""
    nr: bytes = b""
    retransmission: Retransmission | None = None
    reply_cache: ReplyCacheV1 = field(default_factory=ReplyCacheV1)
    child_sa: ChildSaV1 | None = None
    blocked_exchanges: tuple[int, ...] = ()
    """Message IDs of quick modes of the peer that were not answered because of this one."""
    remove_at: float = inf

    @classmethod
    def start(cls, sa: IsakmpSa, entry: PolicyEntry, replaces: int, now: float) -> QuickMode:
        """Send message 1 and return the exchange.

        Raises:
            NegotiationError: nothing can be offered.
        """
        suites = usable_suites(sa, entry)
        message_id = sa.new_message_id(quick=True)
        quick = cls(sa, message_id, True, sa.phase1.exchange_chain(message_id), entry, replaces, suites=suites)
        quick._send_qm1(entry, now)
        return quick

    def transition(self, event: QuickModeEvent) -> None:
        """Change the state by the table."""
        self.state, _ = QUICK_MODE.transition(self.state, event)

    @property
    def pending(self) -> bool:
        return self.state in (QuickModeState.QM1_SENT, QuickModeState.QM2_SENT)

    @property
    def due(self) -> float:
        return min(self.remove_at, self.retransmission.due if self.retransmission is not None else inf)

    # --- initiator ---

    def _send_qm1(self, entry: PolicyEntry, now: float) -> None:
        """Message 1: SA, nonce, KE with PFS, and the selectors of the rule as ID payloads."""
        sa = self.sa
        self.spis = sa.host.allocate_spis(spi_protocols(self.suites))
        self.ni = sa.host.random(NONCE_OCTETS)
        mode = UDP_TUNNEL if sa.nat_detected else TUNNEL
        payloads: list[PayloadV1] = [offer_v1(self.suites, self.spis, mode), NonceV1(self.ni)]
        group = self.suites[0].group
        if group is not None:
            self.dh_key = GROUPS[group].private(sa.host.random(GROUPS[group].random_octets))
            payloads.append(KeV1(self.dh_key.public))
        ours, peers = traffic_selectors.id_payloads_v1(entry)
        payloads += [ours, peers]
        sa.log("ikev1-p2-selectors-sent-initiator", traffic_selectors.log_values(ours), now)
        sa.log("ikev1-p2-selectors-sent-responder", traffic_selectors.log_values(peers), now)
        digest = ikev1.quick_hash_1(sa.keys, self.message_id, _octets(payloads))
        message = self._encrypt(digest, payloads)
        self.transition(QuickModeEvent.BEGIN)
        self.retransmission = Retransmission.start(sa.host.settings, (message,), now)
        sa.host.send(sa.path, message)

    def on_qm2(self, payloads: tuple[PayloadV1, ...], now: float) -> None:
        """Message 2, whose HASH is valid: install the CHILD SA and send message 3.

        Raises:
            NegotiationError: the peer's choice is not acceptable.
        """
        assert self.entry is not None
        sa = self.sa
        self.nr = exactly_one(payloads, NonceV1).value
        offer = exactly_one(payloads, SaV1)
        found = choose_v1(offer, self.suites, self.spis)
        if isinstance(found, NoMatch):
            raise NegotiationError(
                "no proposal chosen",
                "the peer chose what was not offered",
                notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX,
                final=True,
            )
        ids = [one for one in payloads if isinstance(one, IdV1)]
        ours, peers = traffic_selectors.id_payloads_v1(self.entry)
        if ids and not (
            len(ids) == 2
            and traffic_selectors.equivalent_ids(ids[0], ours)
            and traffic_selectors.equivalent_ids(ids[1], peers)
        ):
            raise NegotiationError(
                "traffic selectors",
                "the peer answered with other selectors",
                rows=(("ikev1-p2-selectors-no-match", {}),),
                notify=NotifyTypeV1.INVALID_ID_INFORMATION,
                final=True,
            )
        secret = self._shared_secret(found, payloads)
        lifetime = self._initiator_lifetime(found, payloads, now)
        digest = ikev1.quick_hash_3(sa.keys, self.message_id, self.ni, self.nr)
        message = self._encrypt(digest, ())
        self.transition(QuickModeEvent.QM2_RECEIVED)
        self._install(found, lifetime, secret, now)
        self._settle(now)
        self.reply_cache.reply = message
        sa.host.send(sa.path, message)

    def _initiator_lifetime(self, found: ChildChoiceV1, payloads: Sequence[PayloadV1], now: float) -> Lifetime:
        """Return the lifetime after the responder's RESPONDER-LIFETIME, and log that."""
        suite = found.suite
        whole, kbytes = suite.seconds, suite.kbytes or 0
        for one in payloads:
            if not isinstance(one, NotifyV1) or one.notify != NotifyTypeV1.RESPONDER_LIFETIME:
                continue
            for unit, value in lifetimes_in(one.data):
                if unit == SECONDS and value:
                    name = "seconds"
                    whole = min(whole, max(value, MIN_LIFETIME))
                elif unit == KBYTES and value:
                    name = "kbytes"
                    kbytes = min(kbytes, value) if kbytes else value
                else:
                    continue
                row = f"ikev1-p2-responder-lifetime-{name}"
                self.sa.log(f"{row}-notify", {"notify": "RESPONDER_LIFETIME"}, now)
                self.sa.log(row, {"notify": "RESPOND_NOTIFY", "value": value}, now)
        return Lifetime(whole, kbytes)

    # --- responder ---

    def on_qm1(self, payloads: tuple[PayloadV1, ...], path: NetworkPath, now: float) -> None:
        """Message 1, whose HASH is valid: install the CHILD SA, which only receives, and send message 2 by `path`.

        Raises:
            NegotiationError: no policy entry and proposal fit, or the connection has too many CHILD SAs.
        """
        sa = self.sa
        assert sa.connection is not None
        self.ni = exactly_one(payloads, NonceV1).value
        offered = exactly_one(payloads, SaV1)
        ids = [one for one in payloads if isinstance(one, IdV1)] or [
            IdV1.address(sa.path.remote),
            IdV1.address(sa.path.local),
        ]
        for name, one in zip(("initiator", "responder"), ids, strict=False):
            sa.log(f"ikev1-p2-selectors-received-{name}", traffic_selectors.log_values(one), now)
        entries = (
            traffic_selectors.matching_entries(sa.connection.entries, ids[1], ids[0]) if len(ids) == 2 else ()
        )
        if not entries:
            raise NegotiationError(
                "traffic selectors",
                "no policy entry has the selectors that the peer proposes",
                rows=(("ikev1-p2-selectors-no-match", {}),),
                notify=NotifyTypeV1.INVALID_ID_INFORMATION,
                final=True,
            )
        child_sas = sa.current_session.child_sas
        if len(child_sas.all) >= max_child_sas(sa.connection):
            raise NegotiationError(
                "sa limit", "the peer makes too many CHILD SAs", notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN, final=True
            )
        found = self._choose(offered, entries)
        assert self.entry is not None
        secret = self._shared_secret(found, payloads)
        self.nr = sa.host.random(NONCE_OCTETS)
        lifetime, announced = responder_lifetime(found, self.spis)
        reply: list[PayloadV1] = [found.answer, NonceV1(self.nr)]
        if self.dh_key is not None:
            reply.append(KeV1(self.dh_key.public))
        reply += [*ids, *announced]
        digest = ikev1.quick_hash_2(sa.keys, self.message_id, self.ni, _octets(reply))
        message = self._encrypt(digest, reply)
        self.transition(QuickModeEvent.QM1_RECEIVED)
        newest = child_sas.newest(self.entry.number)
        self.replaces = 0 if newest is None else newest.child.serial
        # Receive before the peer can send by it.
        self.child_sa = self._install(found, lifetime, secret, now)
        self.reply_cache.reply = message
        self.retransmission = Retransmission.start(sa.host.settings, (message,), now)
        sa.host.send(path, message)

    def mark_confirmed(self, now: float) -> None:
        """Let the CHILD SA send: the initiator has it, as message 3 (its HASH is valid) or a packet shows."""
        self.transition(QuickModeEvent.CONFIRMED)
        self.reply_cache.reply = None
        child_sa = self.child_sa
        self._settle(now)
        if child_sa is not None:
            self.sa.current_session.child_sas.confirm(child_sa, now)

    def _settle(self, now: float) -> None:
        """Forget what only the negotiation needed: from now on it answers messages that come again, no more."""
        self.retransmission = self.dh_key = self.child_sa = None
        self.suites, self.ni, self.nr = (), b"", b""
        self.remove_at = now + QUICK_MODE_CACHE_TIMEOUT

    def _choose(self, offered: SaV1, entries: Sequence[PolicyEntry]) -> ChildChoiceV1:
        """Choose the first entry with a proposal that is offered; store it, our SPIs and our DH key.

        Raises:
            NegotiationError: none has one.
        """
        host, nat = self.sa.host, self.sa.nat_detected
        refusal: NoMatch | None = None
        for entry in entries:
            suites = usable_suites(self.sa, entry)
            spis = host.allocate_spis(spi_protocols(suites))
            found = choose_v1(offered, suites, spis)
            if isinstance(found, NoMatch):
                host.release_spis(spis)
                refusal = refusal or found
                continue
            if found.encapsulation != (UDP_TUNNEL if nat else TUNNEL):
                host.release_spis(spis)
                place = "through" if nat else "without"
                raise NegotiationError(
                    "encapsulation",
                    f"the peer wants encapsulation mode {found.encapsulation} {place} a NAT",
                    notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
                    final=True,
                )
            needed = set(spi_protocols((found.suite,)))
            host.release_spis({protocol: spi for protocol, spi in spis.items() if protocol not in needed})
            self.spis = {protocol: spi for protocol, spi in spis.items() if protocol in needed}
            self.entry, self.suites = entry, suites
            if found.suite.group is not None:
                group = GROUPS[found.suite.group]
                self.dh_key = group.private(host.random(group.random_octets))
            return found
        assert refusal is not None
        raise no_ipsec_proposal_v1(refusal)

    # --- both ---

    def verify(self, payloads: tuple[PayloadV1, ...], covered: bytes) -> None:
        """Check the HASH of message 2 or 3 over `covered`, the payloads after it.

        Raises:
            NegotiationError: the message is not the peer's.
        """
        keys, message_id = self.sa.keys, self.message_id
        if self.state is QuickModeState.QM1_SENT:
            number, right = 2, ikev1.quick_hash_2(keys, message_id, self.ni, covered)
        else:
            number, right = 3, ikev1.quick_hash_3(keys, message_id, self.ni, self.nr)
        if not ikev1.equal(exactly_one(payloads, Hash).value, right):
            raise NegotiationError("authentication", f"HASH({number}) of a quick mode does not verify")

    def _encrypt(self, digest: bytes, payloads: Sequence[PayloadV1]) -> bytes:
        """Return the next message, with `digest` as its HASH."""
        header = self.sa.phase1.header(ExchangeType.QUICK_MODE, self.message_id)
        message, self.chain = self.chain.encrypt(header, (Hash(digest), *payloads))
        return message

    def _shared_secret(self, found: ChildChoiceV1, payloads: Sequence[PayloadV1]) -> bytes:
        """Return the Diffie-Hellman secret of PFS; empty without PFS.

        Raises:
            NegotiationError: the KE payload is missing or not a value of the group.
        """
        group = found.suite.group
        received = first_of_type(payloads, KeV1)
        if group is None:
            return b""
        if received is None or self.dh_key is None:
            raise NegotiationError(
                "key exchange", "KE is missing", notify=NotifyTypeV1.INVALID_KEY_INFORMATION, final=True
            )
        try:
            return GROUPS[group].shared(self.dh_key, received.public)
        except GroupError as error:
            raise NegotiationError(
                "key exchange", str(error), notify=NotifyTypeV1.INVALID_KEY_INFORMATION, final=True
            ) from error

    def _keys(self, suite: Suite, spis: Mapping[int, bytes], secret: bytes) -> SaKeys:
        """Return the keys of one direction (RFC 2409 5.5), for the SPIs of its receiver.

        KEYMAT gives the key of the cipher first, then the key of integrity.
        """

        def material(protocol: int, octets: int) -> bytes:
            return ikev1.keymat(self.sa.keys, protocol, spis[protocol], self.ni, self.nr, octets, secret)

        ah_octets, cipher_octets, integrity_octets = key_sizes(suite)
        esp = material(Protocol.ESP, cipher_octets + integrity_octets) if suite.cipher else b""
        ah = material(Protocol.AH, ah_octets) if suite.ah else b""
        return sa_keys(suite, spis, (ah, esp[:cipher_octets], esp[cipher_octets:]))

    def _install(self, found: ChildChoiceV1, lifetime: Lifetime, secret: bytes, now: float) -> ChildSaV1:
        """Install the negotiated CHILD SA in both directions; an initiator's sends at once."""
        sa, entry, suite = self.sa, self.entry, found.suite
        connection, path, host = sa.connection, sa.path, sa.host
        assert connection is not None
        assert entry is not None
        needed = set(spi_protocols((suite,)))
        spare = {protocol: spi for protocol, spi in self.spis.items() if protocol not in needed}
        host.release_spis(spare)
        ours = {protocol: spi for protocol, spi in self.spis.items() if protocol in needed}
        self.spis = {}
        peers = dict(found.peer_spis)
        serial = host.new_serial(connection.tunnel)
        child = ChildSa(connection.tunnel, serial, entry.number, entry.remote_networks, self.replaces)
        install = sa_install(
            child,
            entry,
            suite,
            outer=(connection.local, connection.remote),
            outbound=self._keys(suite, peers, secret),
            inbound=self._keys(suite, ours, secret),
            rules=entry.rules,
            # A CPI may come in four octets, of which the first two are to be ignored (RFC 3173 4.1).
            cpis=(
                int.from_bytes(peers.get(Protocol.IPCOMP, b"")[-2:], "big"),
                int.from_bytes(ours.get(Protocol.IPCOMP, b""), "big"),
            ),
            seconds=lifetime.seconds,
            kbytes=lifetime.kbytes,
            margin_factor=host.settings.rekey_margin_factor,
            encapsulation=(UdpEncapsulation(path.local_port, path.remote, path.remote_port),)
            if sa.nat_detected
            else (),
            send=self.initiator,
            initiator=self.initiator,
        )
        margin = sa.rekey_margin(lifetime.seconds)
        # The responder rekeys half a margin later than the initiator, so that normally only one end does.
        hard = now + lifetime.seconds
        soft = hard - (margin if self.initiator else margin / 2)
        child_sa = ChildSaV1(
            child, self.initiator, bool(install.encapsulation), ours, peers, suite.proposal.name, self.initiator,
            now, soft, hard,
        )  # fmt: skip
        sa.current_session.child_sas.add(child_sa, install, now)
        return child_sa

    def abort(self, failure: FailureReason | None, now: float) -> None:
        """Abort: release the SPIs, remove a CHILD SA that only receives, report `failure`."""
        if not self.pending and self.state is not QuickModeState.IDLE:
            return
        self.transition(QuickModeEvent.FAIL)
        self.sa.host.release_spis(self.spis)
        self.spis = {}
        child_sa = self.child_sa
        self._settle(now)
        if child_sa is not None:
            child_sas = self.sa.current_session.child_sas
            child_sas.remove(child_sa, "the peer did not confirm it", now, tell=True)
        if failure is not None:
            self.sa.host.on_failed(self.sa, failure, now, self.entry)

    def refuse(self, offered: SaV1 | None, error: NegotiationError, path: NetworkPath, now: float) -> None:
        """Log the error and send its notification by `path`; `offered` is the peer's offer, if it has one here."""
        for row, values in error.rows:
            self.sa.log(row, values, now)
        if error.notify:
            data = self.sa.encrypted_message((refusal_notify(offered, error.notify),))
            self.reply_cache.reply = data
            # Above the budget of this second, the peer gets the notification when it asks again. It must get it at
            # last: a peer with many rules that we do not have would else take us for dead.
            if self.sa.notify_allowed(now):
                self.sa.host.send(path, data)


def usable_suites(sa: IsakmpSa, entry: PolicyEntry) -> tuple[Suite, ...]:
    """Return the suites that pass on the path to the peer: through a NAT only ESP (RFC 3948).

    Raises:
        NegotiationError: none is left.
    """
    if not sa.nat_detected:
        return entry.suites
    suites = suites_for_path(entry.suites, nat=True)
    if not suites:
        raise NegotiationError(
            "NAT",
            "there is a NAT in the way, and AH does not pass through it: RFC 3948 carries ESP only",
            notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
            final=True,
        )
    return suites


def refusal_notify(offered: SaV1 | None, notify: int) -> NotifyV1:
    """Return the notification that refuses a quick mode, with the initiator's SPI: by that the peer finds it."""
    proposal = None if offered is None or not offered.proposals else offered.proposals[0]
    if proposal is None:
        return NotifyV1(notify)
    return NotifyV1(notify, proposal.protocol, proposal.spi)


def _octets(payloads: Sequence[PayloadV1]) -> bytes:
    """Return what a HASH before these payloads covers."""
    return emit_payloads(payloads)[1]
