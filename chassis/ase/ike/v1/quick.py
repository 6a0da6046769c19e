"""Quick mode (RFC 2409 5.5): one pair of SAs for one rule of a policy line, with its states in `phase2`.

Both ends may begin one for the same line at once. Then the one with the lower message ID stays: its responder
answers it and gives its own up, its initiator does not answer the other. While a pair waits for its confirmation
no successor is begun. So quick modes of a line follow each other in one order that both ends see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.child_proposals import (
    TUNNEL,
    UDP_TUNNEL,
    ChildChoiceV1,
    Suite,
    choose_v1,
    offer_v1,
)
from chassis.ase.ike.connection import Line
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, GroupError, KeyPair
from chassis.ase.ike.crypto.ikev1 import Chain
from chassis.ase.ike.host import Blame, Child, Path
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import Hash, IdV1, KeV1, NonceV1, NotifyV1, PayloadV1, emit_payloads
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.ase.ike.proposals import Refusal
from chassis.ase.ike.v1 import lifetimes, selectors
from chassis.ase.ike.v1.faults import Stop, refused_phase_2
from chassis.ase.ike.v1.handshake import NONCE_OCTETS, maybe, only
from chassis.ase.ike.v1.pairs import Pair, most_pairs
from chassis.ase.ike.v1.phase2 import QUICK_MODE_TRANSITIONS, QuickModeEvent, QuickModeState
from chassis.ase.ike.v1.resending import Answered, Resend
from chassis.ase.link import Encapsulation, SaInstall
from chassis.bus.records import SaKeys

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

QUICK_MODE_CACHE_TIMEOUT: Final = 90.0
"""Seconds that a quick mode is kept after its end, for messages that come again."""


@dataclass(slots=True, eq=False)
class Quick:
    """One quick mode. `spis` are ours by protocol; `pair` is what it installed."""

    message_id: int
    initiator: bool
    chain: Chain = field(repr=False)
    line: Line | None = None
    replaces: int = 0
    state: QuickModeState = QuickModeState.IDLE
    suites: tuple[Suite, ...] = ()
    spis: dict[int, bytes] = field(default_factory=dict)
    own: KeyPair | None = field(default=None, repr=False)
    ni: bytes = b""
    nr: bytes = b""
    resend: Resend | None = None
    answered: Answered = field(default_factory=Answered)
    pair: Pair | None = None
    rivals: set[int] = field(default_factory=set)
    """Message IDs of the peer's quick modes that this one kept from being answered."""
    forget: float = inf

    def take(self, event: QuickModeEvent) -> None:
        """Go where the table says."""
        self.state = QUICK_MODE_TRANSITIONS[self.state][event]

    @property
    def pending(self) -> bool:
        return self.state in (QuickModeState.OFFERED, QuickModeState.ANSWERED)

    @property
    def due(self) -> float:
        return min(self.forget, self.resend.due if self.resend is not None else inf)


def usable_suites(session: SessionV1, line: Line) -> tuple[Suite, ...]:
    """Suites that the way to the peer carries: through a NAT only ESP (RFC 3948); Stop when none is left."""
    if not session.natted:
        return line.suites
    suites = tuple([one for one in line.suites if not one.ah])
    if not suites:
        raise Stop(
            "NAT",
            "there is a NAT in the way, and AH does not pass through it: RFC 3948 carries ESP only",
            notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
            certain=True,
        )
    return suites


def protocols(suites: Sequence[Suite]) -> tuple[int, ...]:
    """Every protocol that one of the suites needs an SPI for."""
    found = dict.fromkeys([protocol for suite in suites for protocol in suite.protocols])
    if any(suite.ip_comp for suite in suites):
        found[Protocol.IPCOMP] = None
    return tuple(found)


def _protected(session: SessionV1, quick: Quick, payloads: Sequence[PayloadV1], digest: bytes) -> bytes:
    header = session.handshake.header(ExchangeType.QUICK_MODE, quick.message_id)
    message, quick.chain = quick.chain.seal(header, (Hash(digest), *payloads))
    return message


def _octets(payloads: Sequence[PayloadV1]) -> bytes:
    """What a HASH before these payloads covers."""
    return emit_payloads(payloads)[1]


# --- initiator ---


def send_qm1(session: SessionV1, line: Line, replaces: int, now: float) -> Quick:
    """Message 1; raises Stop when nothing can be offered."""
    suites = usable_suites(session, line)
    message_id = session.message_id()
    quick = Quick(message_id, True, session.handshake.exchange_chain(message_id), line, replaces, suites=suites)
    quick.spis = session.host.spis(protocols(suites))
    quick.ni = session.host.random(NONCE_OCTETS)
    mode = UDP_TUNNEL if session.natted else TUNNEL
    payloads: list[PayloadV1] = [offer_v1(suites, quick.spis, mode), NonceV1(quick.ni)]
    group = suites[0].group
    if group is not None:
        quick.own = GROUPS[group].private(session.host.random(GROUPS[group].random_octets))
        payloads.append(KeV1(quick.own.public))
    ours, peers = selectors.identities(line)
    payloads += [ours, peers]
    session.log("ikev1-p2-selectors-sent-initiator", selectors.words(ours), now)
    session.log("ikev1-p2-selectors-sent-responder", selectors.words(peers), now)
    digest = ikev1.quick_hash_1(session.keys, message_id, _octets(payloads))
    message = _protected(session, quick, payloads, digest)
    quick.take(QuickModeEvent.BEGIN)
    quick.resend = Resend.begin(session.host.settings, message, now)
    session.host.send(session.path, message)
    return quick


def on_qm2(session: SessionV1, quick: Quick, payloads: tuple[PayloadV1, ...], now: float) -> None:
    """Message 2, whose HASH was right: the pair is made, and message 3 says so. Raises Stop."""
    assert quick.line is not None
    quick.nr = only(payloads, NonceV1).value
    offer = only(payloads, SaV1)
    found = choose_v1(offer, quick.suites, quick.spis)
    if isinstance(found, Refusal):
        raise Stop(
            "no proposal chosen",
            "the peer chose what was not offered",
            notify=NotifyTypeV1.BAD_PROPOSAL_SYNTAX,
            certain=True,
        )
    ids = [one for one in payloads if isinstance(one, IdV1)]
    ours, peers = selectors.identities(quick.line)
    if ids and not (len(ids) == 2 and selectors.same(ids[0], ours) and selectors.same(ids[1], peers)):
        raise Stop(
            "selectors",
            "the peer answered with other selectors",
            rows=(("ikev1-p2-selectors-no-match", {}),),
            notify=NotifyTypeV1.INVALID_ID_INFORMATION,
            certain=True,
        )
    secret = _secret(quick, found, payloads)
    life = lifetimes.initiator_lifetime(session, found, payloads, now)
    digest = ikev1.quick_hash_3(session.keys, quick.message_id, quick.ni, quick.nr)
    message = _protected(session, quick, (), digest)
    quick.take(QuickModeEvent.ANSWER)
    quick.resend = None
    quick.forget = now + QUICK_MODE_CACHE_TIMEOUT
    quick.pair = _install(session, quick, found, life, secret, now)
    quick.answered.sent(message)
    session.host.send(session.path, message)


# --- responder ---


def on_qm1(session: SessionV1, quick: Quick, payloads: tuple[PayloadV1, ...], path: Path, now: float) -> None:
    """Message 1, whose HASH was right: the pair is made and receives; message 2, back by `path`. Raises Stop."""
    assert session.connection is not None
    quick.ni = only(payloads, NonceV1).value
    offered = only(payloads, SaV1)
    ids = [one for one in payloads if isinstance(one, IdV1)] or [
        IdV1.address(session.path.remote),
        IdV1.address(session.path.local),
    ]
    for name, one in zip(("initiator", "responder"), ids, strict=False):
        session.log(f"ikev1-p2-selectors-received-{name}", selectors.words(one), now)
    lines = selectors.matching(session.connection.lines, ids[1], ids[0]) if len(ids) == 2 else ()
    if not lines:
        raise Stop(
            "selectors",
            "no policy line has the selectors that the peer asks for",
            rows=(("ikev1-p2-selectors-no-match", {}),),
            notify=NotifyTypeV1.INVALID_ID_INFORMATION,
            certain=True,
        )
    if len(session.holder.pairs.all) >= most_pairs(session.connection):
        raise Stop("limit", "the peer makes too many pairs", notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN, certain=True)
    found = _choose(session, quick, offered, lines)
    secret_pair = quick.own
    assert quick.line is not None
    secret = _secret(quick, found, payloads)
    quick.nr = session.host.random(NONCE_OCTETS)
    life, announced = lifetimes.responder_lifetime(found, quick.spis)
    reply: list[PayloadV1] = [found.answer, NonceV1(quick.nr)]
    if secret_pair is not None:
        reply.append(KeV1(secret_pair.public))
    reply += [*ids, *announced]
    digest = ikev1.quick_hash_2(session.keys, quick.message_id, quick.ni, _octets(reply))
    message = _protected(session, quick, reply, digest)
    quick.take(QuickModeEvent.OFFER)
    newest = session.holder.pairs.newest(quick.line.number)
    quick.replaces = 0 if newest is None else newest.child.serial
    # It receives before the peer can send by it.
    quick.pair = _install(session, quick, found, life, secret, now)
    quick.answered.sent(message)
    quick.resend = Resend.begin(session.host.settings, message, now)
    session.host.send(path, message)


def mark_confirmed(session: SessionV1, quick: Quick, now: float) -> None:
    """The initiator is known to have the pair: by message 3, whose HASH was right, or by a packet."""
    quick.take(QuickModeEvent.CONFIRM)
    quick.resend = None
    quick.forget = now + QUICK_MODE_CACHE_TIMEOUT
    quick.answered.reply = None
    if quick.pair is not None:
        session.holder.pairs.confirm(quick.pair, now)


def _choose(session: SessionV1, quick: Quick, offered: SaV1, lines: Sequence[Line]) -> ChildChoiceV1:
    """The first line that has what is offered; its number, our SPIs and our value go into `quick`."""
    host = session.host
    refusal: Refusal | None = None
    for line in lines:
        suites = usable_suites(session, line)
        spis = host.spis(protocols(suites))
        found = choose_v1(offered, suites, spis)
        if isinstance(found, Refusal):
            host.release(spis)
            refusal = refusal or found
            continue
        if found.encapsulation != (UDP_TUNNEL if session.natted else TUNNEL):
            host.release(spis)
            raise Stop(
                "encapsulation",
                f"the peer wants encapsulation mode {found.encapsulation}"
                f" {'through' if session.natted else 'without'} a NAT",
                notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
                certain=True,
            )
        needed = set(protocols((found.suite,)))
        host.release({protocol: spi for protocol, spi in spis.items() if protocol not in needed})
        quick.spis = {protocol: spi for protocol, spi in spis.items() if protocol in needed}
        quick.line, quick.suites = line, suites
        if found.suite.group is not None:
            group = GROUPS[found.suite.group]
            quick.own = group.private(host.random(group.random_octets))
        return found
    assert refusal is not None
    raise refused_phase_2(refusal)


# --- both ---


def verify(session: SessionV1, quick: Quick, payloads: tuple[PayloadV1, ...], covered: bytes) -> None:
    """Message 2 or 3 is the peer's: its HASH covers what stands after it. Raises Stop."""
    keys, message_id = session.keys, quick.message_id
    if quick.state is QuickModeState.OFFERED:
        number, right = 2, ikev1.quick_hash_2(keys, message_id, quick.ni, covered)
    else:
        number, right = 3, ikev1.quick_hash_3(keys, message_id, quick.ni, quick.nr)
    if not ikev1.equal(only(payloads, Hash).value, right):
        raise Stop("authentication", f"HASH({number}) of a quick mode does not verify")


def _secret(quick: Quick, found: ChildChoiceV1, payloads: Sequence[PayloadV1]) -> bytes:
    """The shared secret with PFS, nothing without."""
    group = found.suite.group
    received = maybe(payloads, KeV1)
    if group is None:
        return b""
    if received is None or quick.own is None:
        raise Stop("key exchange", "KE is missing", notify=NotifyTypeV1.INVALID_KEY_INFORMATION, certain=True)
    try:
        return GROUPS[group].shared(quick.own, received.public)
    except GroupError as error:
        raise Stop(
            "key exchange", str(error), notify=NotifyTypeV1.INVALID_KEY_INFORMATION, certain=True
        ) from error


def _keys(session: SessionV1, quick: Quick, suite: Suite, spis: Mapping[int, bytes], secret: bytes) -> SaKeys:
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
    session: SessionV1, quick: Quick, found: ChildChoiceV1, life: lifetimes.Lifetime, secret: bytes, now: float
) -> Pair:
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
        encapsulation=(Encapsulation(path.local_port, path.remote, path.remote_port),) if session.natted else (),
        initiator=quick.initiator,
        replaces=quick.replaces,
    )
    child = Child(connection.tunnel, serial, line.number, line.remote_networks, quick.replaces)
    rest = session.rest(life.seconds)
    # Who answered begins the successor only if the other does not: two that begin at once are one too many.
    soft = now + life.seconds - (rest if quick.initiator else rest / 2)
    pair = Pair(child, install, ours, peers, suite.proposal.name, quick.initiator, now, soft, now + life.seconds)
    session.holder.pairs.add(pair, now)
    return pair


def abort(session: SessionV1, quick: Quick, blame: Blame | None, now: float) -> None:
    """It came to nothing: SPIs go back, a pair that only received goes, and `blame` is told."""
    if not quick.pending and quick.state is not QuickModeState.IDLE:
        return
    quick.take(QuickModeEvent.FAIL)
    quick.resend = None
    quick.forget = now + QUICK_MODE_CACHE_TIMEOUT
    session.host.release(quick.spis)
    quick.spis = {}
    if quick.pair is not None:
        session.holder.pairs.remove(quick.pair, "the peer did not confirm it", now, tell=True)
    if blame is not None:
        session.host.failed(session, blame, now, quick.line)


def refusal_notify(offered: SaV1 | None, notify: int) -> NotifyV1:
    """The notification for a quick mode that is refused: it names the initiator's SPI, by which it finds it."""
    proposal = None if offered is None or not offered.proposals else offered.proposals[0]
    if proposal is None:
        return NotifyV1(notify)
    return NotifyV1(notify, proposal.protocol, proposal.spi)
