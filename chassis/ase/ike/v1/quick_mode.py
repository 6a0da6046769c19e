"""The states of a quick mode (RFC 2409 section 5.5) as a table, both roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

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
from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev1 import IvChain, after_hash, decrypt_payloads
from chassis.ase.ike.errors import FailureReason, NegotiationError, no_ipsec_proposal_v1
from chassis.ase.ike.host import Child, Path
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import Hash, IdV1, KeV1, NonceV1, NotifyV1, PayloadV1, emit_payloads
from chassis.ase.ike.payloads.v1_sa import AttributeV1, SaV1
from chassis.ase.ike.proposals import NoMatch, seconds
from chassis.ase.ike.retransmit import ReplyCacheV1, Retransmission
from chassis.ase.ike.v1 import informational, selectors
from chassis.ase.ike.v1.child_sas import ChildSaV1, max_child_sas
from chassis.ase.ike.v1.keymat import NONCE_OCTETS, IncomingMessage, exactly_one, first_of_type, is_encrypted
from chassis.ase.link import Encapsulation, SaInstall
from chassis.bus.records import SaKeys
from chassis.state_machine import StateMachine, without_actions

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1


class QuickModeState(Enum):
    IDLE = "idle"
    QM1_SENT = "message 1 sent"
    QM2_SENT = "message 2 sent, the pair receives"
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


SECONDS = 1
KBYTES = 2
MIN_LIFETIME = 20
"""Seconds: no peer may have us negotiate more often than that."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """`kbytes` 0 is no limit."""

    seconds: int
    kbytes: int


def responder_lifetime_notify(unit: int, value: int, protocol: int, spi: bytes) -> NotifyV1:
    """RESPONDER-LIFETIME for one unit (RFC 2407 4.6.3.1)."""
    data = AttributeV1(LIFE_TYPE, unit).emit() + AttributeV1(LIFE_DURATION, seconds(value)).emit()
    return NotifyV1(NotifyTypeV1.RESPONDER_LIFETIME, protocol, spi, data)


def lifetimes_in(data: bytes) -> list[tuple[int, int]]:
    """(unit, value) of each duration in a RESPONDER-LIFETIME; what is no attribute ends the list."""
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
    """What holds, and what the initiator has to be told because it offered more."""
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


def initiator_lifetime(
    session: SessionV1, found: ChildChoiceV1, payloads: Sequence[PayloadV1], now: float
) -> Lifetime:
    """What holds, after what the responder says of its own limits."""
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
            session.log(f"ikev1-p2-responder-lifetime-{name}-notify", {"notify": "RESPONDER_LIFETIME"}, now)
            session.log(f"ikev1-p2-responder-lifetime-{name}", {"notify": "RESPOND_NOTIFY", "value": value}, now)
    return Lifetime(whole, kbytes)


QUICK_MODE_CACHE_TIMEOUT: Final = 90.0
"""Seconds that a quick mode is kept after its end, for messages that come again."""


@dataclass(slots=True, eq=False)
class QuickMode:
    """One quick mode. `spis` are ours by protocol; `pair` is what it installed."""

    message_id: int
    initiator: bool
    chain: IvChain = field(repr=False)
    line: Line | None = None
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
    blocked_exchanges: set[int] = field(default_factory=set)
    """Message IDs of the peer's quick modes that this one kept from being answered."""
    remove_at: float = inf

    def transition(self, event: QuickModeEvent) -> None:
        """Go where the table says."""
        self.state, _ = QUICK_MODE.transition(self.state, event)

    @property
    def pending(self) -> bool:
        return self.state in (QuickModeState.QM1_SENT, QuickModeState.QM2_SENT)

    @property
    def due(self) -> float:
        return min(self.remove_at, self.retransmission.due if self.retransmission is not None else inf)


def usable_suites(session: SessionV1, line: Line) -> tuple[Suite, ...]:
    """Suites that pass on the path to the peer: through a NAT only ESP (RFC 3948).

    Raises:
        NegotiationError: none is left.
    """
    if not session.nat_detected:
        return line.suites
    suites = tuple([one for one in line.suites if not one.ah])
    if not suites:
        raise NegotiationError(
            "NAT",
            "there is a NAT in the way, and AH does not pass through it: RFC 3948 carries ESP only",
            notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
            final=True,
        )
    return suites


def protocols(suites: Sequence[Suite]) -> tuple[int, ...]:
    """Every protocol that one of the suites needs an SPI for."""
    found = dict.fromkeys([protocol for suite in suites for protocol in suite.protocols])
    if any(suite.ip_comp for suite in suites):
        found[Protocol.IPCOMP] = None
    return tuple(found)


def _protected(session: SessionV1, quick: QuickMode, payloads: Sequence[PayloadV1], digest: bytes) -> bytes:
    header = session.phase1.header(ExchangeType.QUICK_MODE, quick.message_id)
    message, quick.chain = quick.chain.encrypt(header, (Hash(digest), *payloads))
    return message


def _octets(payloads: Sequence[PayloadV1]) -> bytes:
    """What a HASH before these payloads covers."""
    return emit_payloads(payloads)[1]


# --- initiator ---


def send_qm1(session: SessionV1, line: Line, replaces: int, now: float) -> QuickMode:
    """Message 1; raises NegotiationError when nothing can be offered."""
    suites = usable_suites(session, line)
    message_id = session.new_message_id()
    quick = QuickMode(message_id, True, session.phase1.exchange_chain(message_id), line, replaces, suites=suites)
    quick.spis = session.host.spis(protocols(suites))
    quick.ni = session.host.random(NONCE_OCTETS)
    mode = UDP_TUNNEL if session.nat_detected else TUNNEL
    payloads: list[PayloadV1] = [offer_v1(suites, quick.spis, mode), NonceV1(quick.ni)]
    group = suites[0].group
    if group is not None:
        quick.dh_key = GROUPS[group].private(session.host.random(GROUPS[group].random_octets))
        payloads.append(KeV1(quick.dh_key.public))
    ours, peers = selectors.identities(line)
    payloads += [ours, peers]
    session.log("ikev1-p2-selectors-sent-initiator", selectors.words(ours), now)
    session.log("ikev1-p2-selectors-sent-responder", selectors.words(peers), now)
    digest = ikev1.quick_hash_1(session.keys, message_id, _octets(payloads))
    message = _protected(session, quick, payloads, digest)
    quick.transition(QuickModeEvent.BEGIN)
    quick.retransmission = Retransmission.start(session.host.settings, (message,), now)
    session.host.send(session.path, message)
    return quick


def on_qm2(session: SessionV1, quick: QuickMode, payloads: tuple[PayloadV1, ...], now: float) -> None:
    """Message 2, whose HASH was right: the pair is made, and message 3 says so.

    Raises:
        NegotiationError: the message is not accepted.
    """
    assert quick.line is not None
    quick.nr = exactly_one(payloads, NonceV1).value
    offer = exactly_one(payloads, SaV1)
    found = choose_v1(offer, quick.suites, quick.spis)
    if isinstance(found, NoMatch):
        raise NegotiationError(
            "no proposal chosen",
            "the peer chose what was not offered",
            notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX,
            final=True,
        )
    ids = [one for one in payloads if isinstance(one, IdV1)]
    ours, peers = selectors.identities(quick.line)
    if ids and not (len(ids) == 2 and selectors.same(ids[0], ours) and selectors.same(ids[1], peers)):
        raise NegotiationError(
            "selectors",
            "the peer answered with other selectors",
            rows=(("ikev1-p2-selectors-no-match", {}),),
            notify=NotifyTypeV1.INVALID_ID_INFORMATION,
            final=True,
        )
    secret = _secret(quick, found, payloads)
    life = initiator_lifetime(session, found, payloads, now)
    digest = ikev1.quick_hash_3(session.keys, quick.message_id, quick.ni, quick.nr)
    message = _protected(session, quick, (), digest)
    quick.transition(QuickModeEvent.QM2_RECEIVED)
    quick.retransmission = None
    quick.remove_at = now + QUICK_MODE_CACHE_TIMEOUT
    quick.child_sa = _install(session, quick, found, life, secret, now)
    quick.reply_cache.reply = message
    session.host.send(session.path, message)


# --- responder ---


def on_qm1(session: SessionV1, quick: QuickMode, payloads: tuple[PayloadV1, ...], path: Path, now: float) -> None:
    """Message 1, whose HASH was right: the pair is made and receives; message 2, back by `path`.

    Raises:
        NegotiationError: the message is not accepted.
    """
    assert session.connection is not None
    quick.ni = exactly_one(payloads, NonceV1).value
    offered = exactly_one(payloads, SaV1)
    ids = [one for one in payloads if isinstance(one, IdV1)] or [
        IdV1.address(session.path.remote),
        IdV1.address(session.path.local),
    ]
    for name, one in zip(("initiator", "responder"), ids, strict=False):
        session.log(f"ikev1-p2-selectors-received-{name}", selectors.words(one), now)
    lines = selectors.matching(session.connection.lines, ids[1], ids[0]) if len(ids) == 2 else ()
    if not lines:
        raise NegotiationError(
            "selectors",
            "no policy line has the selectors that the peer asks for",
            rows=(("ikev1-p2-selectors-no-match", {}),),
            notify=NotifyTypeV1.INVALID_ID_INFORMATION,
            final=True,
        )
    if len(session.current_session.child_sas.all) >= max_child_sas(session.connection):
        raise NegotiationError(
            "limit", "the peer makes too many pairs", notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN, final=True
        )
    found = _choose(session, quick, offered, lines)
    secret_pair = quick.dh_key
    assert quick.line is not None
    secret = _secret(quick, found, payloads)
    quick.nr = session.host.random(NONCE_OCTETS)
    life, announced = responder_lifetime(found, quick.spis)
    reply: list[PayloadV1] = [found.answer, NonceV1(quick.nr)]
    if secret_pair is not None:
        reply.append(KeV1(secret_pair.public))
    reply += [*ids, *announced]
    digest = ikev1.quick_hash_2(session.keys, quick.message_id, quick.ni, _octets(reply))
    message = _protected(session, quick, reply, digest)
    quick.transition(QuickModeEvent.QM1_RECEIVED)
    newest = session.current_session.child_sas.newest(quick.line.number)
    quick.replaces = 0 if newest is None else newest.child.serial
    # It receives before the peer can send by it.
    quick.child_sa = _install(session, quick, found, life, secret, now)
    quick.reply_cache.reply = message
    quick.retransmission = Retransmission.start(session.host.settings, (message,), now)
    session.host.send(path, message)


def mark_confirmed(session: SessionV1, quick: QuickMode, now: float) -> None:
    """The initiator is known to have the pair: by message 3, whose HASH was right, or by a packet."""
    quick.transition(QuickModeEvent.CONFIRMED)
    quick.retransmission = None
    quick.remove_at = now + QUICK_MODE_CACHE_TIMEOUT
    quick.reply_cache.reply = None
    if quick.child_sa is not None:
        session.current_session.child_sas.confirm(quick.child_sa, now)


def _choose(session: SessionV1, quick: QuickMode, offered: SaV1, lines: Sequence[Line]) -> ChildChoiceV1:
    """The first line that has what is offered; its number, our SPIs and our value go into `quick`."""
    host = session.host
    refusal: NoMatch | None = None
    for line in lines:
        suites = usable_suites(session, line)
        spis = host.spis(protocols(suites))
        found = choose_v1(offered, suites, spis)
        if isinstance(found, NoMatch):
            host.release(spis)
            refusal = refusal or found
            continue
        if found.encapsulation != (UDP_TUNNEL if session.nat_detected else TUNNEL):
            host.release(spis)
            raise NegotiationError(
                "encapsulation",
                f"the peer wants encapsulation mode {found.encapsulation}"
                f" {'through' if session.nat_detected else 'without'} a NAT",
                notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
                final=True,
            )
        needed = set(protocols((found.suite,)))
        host.release({protocol: spi for protocol, spi in spis.items() if protocol not in needed})
        quick.spis = {protocol: spi for protocol, spi in spis.items() if protocol in needed}
        quick.line, quick.suites = line, suites
        if found.suite.group is not None:
            group = GROUPS[found.suite.group]
            quick.dh_key = group.private(host.random(group.random_octets))
        return found
    assert refusal is not None
    raise no_ipsec_proposal_v1(refusal)


# --- both ---


def verify(session: SessionV1, quick: QuickMode, payloads: tuple[PayloadV1, ...], covered: bytes) -> None:
    """Message 2 or 3 is the peer's: its HASH covers what stands after it.

    Raises:
        NegotiationError: the message is not accepted.
    """
    keys, message_id = session.keys, quick.message_id
    if quick.state is QuickModeState.QM1_SENT:
        number, right = 2, ikev1.quick_hash_2(keys, message_id, quick.ni, covered)
    else:
        number, right = 3, ikev1.quick_hash_3(keys, message_id, quick.ni, quick.nr)
    if not ikev1.equal(exactly_one(payloads, Hash).value, right):
        raise NegotiationError("authentication", f"HASH({number}) of a quick mode does not verify")


def _secret(quick: QuickMode, found: ChildChoiceV1, payloads: Sequence[PayloadV1]) -> bytes:
    """The shared secret with PFS, nothing without."""
    group = found.suite.group
    received = first_of_type(payloads, KeV1)
    if group is None:
        return b""
    if received is None or quick.dh_key is None:
        raise NegotiationError(
            "key exchange", "KE is missing", notify=NotifyTypeV1.INVALID_KEY_INFORMATION, final=True
        )
    try:
        return GROUPS[group].shared(quick.dh_key, received.public)
    except GroupError as error:
        raise NegotiationError(
            "key exchange", str(error), notify=NotifyTypeV1.INVALID_KEY_INFORMATION, final=True
        ) from error


def _keys(session: SessionV1, quick: QuickMode, suite: Suite, spis: Mapping[int, bytes], secret: bytes) -> SaKeys:
    """Keys of one direction, for the SPIs of its receiver (RFC 2409 5.5): the cipher's first, then integrity's."""

    def material(protocol: int, octets: int) -> bytes:
        return ikev1.keymat(session.keys, protocol, spis[protocol], quick.ni, quick.nr, octets, secret)

    result: dict[str, int | str | bytes] = {}
    if suite.cipher:
        cipher = CIPHERS[suite.cipher]
        integrity = None if cipher.aead or not suite.esp_integrity else INTEGRITY[suite.esp_integrity]
        key = material(Protocol.ESP, cipher.key_octets + (integrity.key_octets if integrity else 0))
        result["esp_spi"] = int.from_bytes(spis[Protocol.ESP], "big")
        result["esp_cipher"] = suite.cipher
        result["esp_cipher_key"] = key[: cipher.key_octets]
        result["esp_integrity"] = integrity.name if integrity else ""
        result["esp_integrity_key"] = key[cipher.key_octets :]
    if suite.ah:
        result["ah_spi"] = int.from_bytes(spis[Protocol.AH], "big")
        result["ah_integrity"] = suite.ah
        result["ah_key"] = material(Protocol.AH, INTEGRITY[suite.ah].key_octets)
    return SaKeys(**result)  # type: ignore[arg-type]


def _install(
    session: SessionV1, quick: QuickMode, found: ChildChoiceV1, life: Lifetime, secret: bytes, now: float
) -> ChildSaV1:
    connection, line, suite = session.connection, quick.line, found.suite
    assert connection is not None
    assert line is not None
    host = session.host
    needed = set(protocols((suite,)))
    spare = {protocol: spi for protocol, spi in quick.spis.items() if protocol not in needed}
    host.release(spare)
    ours = {protocol: spi for protocol, spi in quick.spis.items() if protocol in needed}
    quick.spis = {}
    peers = dict(found.peer_spis)
    path = session.path
    margin = host.settings.margin
    serial = host.serial(connection.tunnel)
    install = SaInstall(
        tunnel=connection.tunnel,
        serial=serial,
        entry=line.number,
        local=path.local,
        remote=path.remote,
        outbound=_keys(session, quick, suite, peers, secret),
        inbound=_keys(session, quick, suite, ours, secret),
        window=line.window,
        send=quick.initiator,
        rules=line.rules,
        esn=suite.esn,
        # A CPI may come in four octets, of which the first two are to be ignored (RFC 3173 4.1).
        cpi_out=int.from_bytes(peers.get(Protocol.IPCOMP, b"")[-2:], "big"),
        cpi_in=int.from_bytes(ours.get(Protocol.IPCOMP, b""), "big"),
        seconds=life.seconds,
        kbytes=life.kbytes,
        soft_kbytes=int(life.kbytes * (1 - margin)),
        encapsulation=(Encapsulation(path.local_port, path.remote, path.remote_port),)
        if session.nat_detected
        else (),
        initiator=quick.initiator,
        replaces=quick.replaces,
    )
    child = Child(connection.tunnel, serial, line.number, line.remote_networks, quick.replaces)
    rest = session.rekey_margin(life.seconds)
    # Who answered begins the successor only if the other does not: two that begin at once are one too many.
    soft = now + life.seconds - (rest if quick.initiator else rest / 2)
    pair = ChildSaV1(
        child, install, ours, peers, suite.proposal.name, quick.initiator, now, soft, now + life.seconds
    )
    session.current_session.child_sas.add(pair, now)
    return pair


def abort(session: SessionV1, quick: QuickMode, failure: FailureReason | None, now: float) -> None:
    """It came to nothing: SPIs go back, a pair that only received goes, and `failure` is told."""
    if not quick.pending and quick.state is not QuickModeState.IDLE:
        return
    quick.transition(QuickModeEvent.FAIL)
    quick.retransmission = None
    quick.remove_at = now + QUICK_MODE_CACHE_TIMEOUT
    session.host.release(quick.spis)
    quick.spis = {}
    if quick.child_sa is not None:
        session.current_session.child_sas.remove(quick.child_sa, "the peer did not confirm it", now, tell=True)
    if failure is not None:
        session.host.failed(session, failure, now, quick.line)


def refusal_notify(offered: SaV1 | None, notify: int) -> NotifyV1:
    """The notification for a quick mode that is refused: it names the initiator's SPI, by which it finds it."""
    proposal = None if offered is None or not offered.proposals else offered.proposals[0]
    if proposal is None:
        return NotifyV1(notify)
    return NotifyV1(notify, proposal.protocol, proposal.spi)


MAX_OWN_QUICK_MODES: Final = 8
"""Quick modes of ours under way at once; the others wait."""
MAX_PEER_QUICK_MODES: Final = 32
"""Quick modes of the peer under way at once; one more is not answered yet."""
MAX_QUICK_MODES: Final = 256
"""Quick modes that are remembered in all."""


class QuickModes:
    """By message ID."""

    def __init__(self, session: SessionV1) -> None:
        self._session = session
        self._all: dict[int, QuickMode] = {}
        self._wanted: dict[int, tuple[Line, int]] = {}
        """By line: what is to be begun, and the serial of the pair that it succeeds."""
        self._live: list[QuickMode] = []
        """Those under way, and some that have just ended; the ended ones are many more."""
        self._remove_at = inf
        """When the first of the ended ones is to be forgotten."""

    @property
    def pending(self) -> list[QuickMode]:
        live = [one for one in self._live if one.pending]
        if len(live) < len(self._live):
            self._remove_at = min(self._remove_at, *[one.remove_at for one in self._live if not one.pending])
            self._live = live
        return list(live)

    @property
    def in_progress(self) -> bool:
        return bool(self.pending)

    # --- our own ---

    def request(self, line: Line, replaces: int, now: float) -> None:
        """Begin one for a line, as soon as there is room and nothing of the line is under way."""
        if any(one.initiator and one.line is not None and one.line.number == line.number for one in self.pending):
            return
        self._wanted[line.number] = (line, replaces)
        self.start_pending(now)

    def start_pending(self, now: float) -> None:
        """Begin what may begin."""
        session = self._session
        if not session.established:
            return
        for number, (line, replaces) in list(self._wanted.items()):
            pending = self.pending
            if sum([one.initiator for one in pending]) >= MAX_OWN_QUICK_MODES:
                return
            if any(one.line is not None and one.line.number == number for _, one in self._all_in_progress()):
                continue  # The peer's for this line comes first: it may make ours needless.
            del self._wanted[number]
            configured = None if session.connection is None else session.connection.line(number)
            if configured is None:
                continue
            line = configured
            try:
                one = send_qm1(session, line, replaces, now)
            except NegotiationError as error:
                session.host.failed(session, error.failure, now, line)
                continue
            self._add(one)

    def _add(self, one: QuickMode) -> None:
        self._all[one.message_id] = one
        self._live.append(one)
        if len(self._all) > MAX_QUICK_MODES:
            done = next((key for key, old in self._all.items() if not old.pending), None)
            if done is not None:
                del self._all[done]

    def configured(self, connection: Connection, now: float) -> None:
        """Give up what was offered for lines that select otherwise now; whoever keeps the tunnel asks anew."""
        for one in self.pending:
            line = one.line
            if one.state is QuickModeState.QM1_SENT and line is not None:
                wanted = connection.line(line.number)
                if wanted is None or wanted.rules != line.rules:
                    abort(self._session, one, None, now)

    def take_over_wanted(self, elder: QuickModes) -> None:
        """What an older session was asked for and has not begun."""
        for number, asked in elder._wanted.items():
            self._wanted.setdefault(number, asked)
        elder._wanted.clear()

    def abort_all(self, now: float) -> None:
        """The session ends."""
        self._wanted.clear()
        for one in self.pending:
            abort(self._session, one, None, now)
        self._all.clear()
        self._live.clear()
        self._remove_at = inf

    # --- messages ---

    def receive(self, message: IncomingMessage) -> None:
        """A message of some quick mode."""
        session, header, now = self._session, message.header, message.now
        host = session.host
        cookies = (session.phase1.cky_i, session.phase1.cky_r)
        if (
            not session.established
            or not is_encrypted(message)
            or not header.message_id
            or (header.spi_i, header.spi_r) != cookies
        ):
            host.count("unexpected messages")
            return
        one = self._all.get(header.message_id)
        if one is not None and one.reply_cache.is_duplicate(host, message.data, message.path):
            return
        fresh = one is None
        if one is None:
            answering = sum([not other.initiator for other in self.pending])
            if session.is_id_used(header.message_id) or answering >= MAX_PEER_QUICK_MODES:
                host.count("unexpected messages")
                return
            one = QuickMode(header.message_id, False, session.phase1.exchange_chain(header.message_id))
        elif not one.pending:
            return
        try:
            payloads, plain, after = decrypt_payloads(one.chain, message.data, header)
        except PayloadError:
            host.count("decryption failures")
            return
        if not payloads or not isinstance(payloads[0], Hash):
            host.count("decryption failures")
            return
        covered = after_hash(plain)
        if fresh:
            self._on_qm1(one, message, payloads, covered, after)
            return
        before, one.chain = (one.chain, one.reply_cache), after
        one.reply_cache = ReplyCacheV1(list(one.reply_cache.handled))
        one.reply_cache.remember(message.data)
        try:
            verify(session, one, payloads, covered)
            session.on_authentic_message(message)
            if one.state is QuickModeState.QM1_SENT:
                on_qm2(session, one, payloads, now)
                for rival in one.blocked_exchanges:
                    session.mark_id_used(rival)
            else:
                mark_confirmed(session, one, now)
        except NegotiationError as error:
            if not error.final:
                # Not the peer's, so what it has to say is still to come.
                one.chain, one.reply_cache = before
                host.count("decryption failures")
                return
            self._send_refusal(one, None, error, message.path, now)
            abort(session, one, error.failure, now)
        self._on_finished(one, now)

    def _on_finished(self, one: QuickMode, now: float) -> None:
        """Something ended; what was asked for its line meanwhile is there now."""
        if one.state is QuickModeState.DONE and one.line is not None:
            self._wanted.pop(one.line.number, None)
        self.start_pending(now)

    def _on_qm1(
        self,
        one: QuickMode,
        message: IncomingMessage,
        payloads: tuple[PayloadV1, ...],
        covered: bytes,
        after: IvChain,
    ) -> None:
        session, now = self._session, message.now
        digest = ikev1.quick_hash_1(session.keys, one.message_id, covered)
        first = payloads[0]
        if not isinstance(first, Hash) or not ikev1.equal(first.value, digest):
            session.host.count("decryption failures")
            return
        if not session.ids_evicted:
            # Else it may be one from long ago; what follows it shows that the peer is there.
            session.on_authentic_message(message)
        rivals = self._colliding(payloads)
        stronger = [other for _, other in rivals if other.message_id < one.message_id]
        if stronger:
            # Both ends began at once, and ours stays: the peer answers it and gives this one up.
            for other in stronger:
                other.blocked_exchanges.add(one.message_id)
            return
        session.mark_id_used(one.message_id)
        one.reply_cache.remember(message.data)
        one.chain = after
        try:
            on_qm1(session, one, payloads, message.path, now)
        except NegotiationError as error:
            # No line of ours failed: what the peer asks for does not put off what is asked for here.
            session.host.failed(session, error.failure, now)
            session.host.release(one.spis)
            one.spis = {}
            one.transition(QuickModeEvent.FAIL)
            one.remove_at = now + QUICK_MODE_CACHE_TIMEOUT
            self._send_refusal(one, first_of_type(payloads, SaV1), error, message.path, now)
        else:
            for owner, other in rivals:
                abort(owner, other, None, now)
        self._add(one)

    def _all_in_progress(self) -> list[tuple[SessionV1, QuickMode]]:
        """What is under way for the connection, under whichever of its ISAKMP SAs."""
        sessions = (self._session, *self._session.sibling_sessions())
        return [(session, one) for session in sessions for one in session.quick_modes.pending]

    def _colliding(self, payloads: tuple[PayloadV1, ...]) -> list[tuple[SessionV1, QuickMode]]:
        """Quick modes of ours without an answer, for a line that the peer now begins one for."""
        ids = [one for one in payloads if isinstance(one, IdV1)]
        if len(ids) != 2:
            return []
        return [
            (session, one)
            for session, one in self._all_in_progress()
            if one.state is QuickModeState.QM1_SENT
            and one.line
            and selectors.matching((one.line,), ids[1], ids[0])
        ]

    def _send_refusal(
        self, one: QuickMode, offered: SaV1 | None, error: NegotiationError, path: Path, now: float
    ) -> None:
        session = self._session
        for row, values in error.rows:
            session.log(row, values, now)
        if error.notify:
            data = informational.encrypted_message(session, (refusal_notify(offered, error.notify),))
            one.reply_cache.reply = data
            # Beyond the budget of this second it is said when the peer asks again: a peer with many rules that we
            # don't have would else take us for dead.
            if session.notify_allowed(now):
                session.host.send(path, data)

    def on_refused(self, spi: bytes, failure: FailureReason, now: float) -> None:
        """The peer refuses a quick mode of ours: the one with this SPI, or the only one."""
        waiting = [one for one in self.pending if one.state is QuickModeState.QM1_SENT]
        found = [one for one in waiting if spi and spi in one.spis.values()]
        if not found and len(waiting) == 1:
            found = waiting
        for one in found:
            abort(self._session, one, failure, now)
        if found:
            self.start_pending(now)

    def seen(self, serial: int, now: float) -> None:
        """The peer sends by a pair that waits for message 3: it has it."""
        for session, one in self._all_in_progress():
            if (
                one.state is QuickModeState.QM2_SENT
                and one.child_sa is not None
                and one.child_sa.child.serial == serial
            ):
                mark_confirmed(session, one, now)
                session.quick_modes._on_finished(one, now)
                session.host.changed(session)
                return
        pair = self._session.child_sas.by_serial(serial)
        if pair is not None:
            self._session.child_sas.confirm(pair, now)

    # --- time ---

    def next_timer(self) -> float:
        live = min([one.due for one in self.pending], default=inf)
        return min(live, self._remove_at)

    def on_timer(self, now: float) -> None:
        session = self._session
        if self._remove_at <= now:
            ended = [one for one in self._all.values() if not one.pending]
            for one in ended:
                if one.remove_at <= now:
                    del self._all[one.message_id]
            self._remove_at = min([one.remove_at for one in ended if one.remove_at > now], default=inf)
        for one in self.pending:
            resend = one.retransmission
            if resend is None or resend.due > now:
                continue
            if resend.retransmit(session.host, session.path, now):
                continue
            if one.initiator:
                abort(session, one, FailureReason("timeout", f"{session.peer} does not answer a quick mode"), now)
                if session.heard < now - _retransmit_timeout(session):
                    # Not a word in all that time: the peer has lost this SA, or is gone.
                    session.on_peer_dead(f"{session.peer} does not answer", now)
                    return
            else:
                # The peer may have given it up for one that crossed it: then the line has what it needs.
                served = one.line is not None and session.current_session.child_sas.has_child(one.line.number)
                failure = (
                    None if served else FailureReason("timeout", f"{session.peer} did not confirm a quick mode")
                )
                abort(session, one, failure, now)
            self.start_pending(now)


def _retransmit_timeout(session: SessionV1) -> float:
    """Seconds that a message is sent again for."""
    settings = session.host.settings
    waits = [min(settings.retransmit * 2.0**step, settings.longest) for step in range(settings.retries + 1)]
    return sum(waits) - settings.retransmit
