"""CHILD SAs: offered and accepted, in IKE_AUTH and in CREATE_CHILD_SA (RFC 7296 1.3, 2.9, 2.17, 2.22)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.ase.ike.child_proposals import DEFLATE, LOWEST_SPI, ChildChoiceV2, Suite, choose_v2, offer_v2
from chassis.ase.ike.connection import Line
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.ikev2 import keymat, split_keymat
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import TS, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.v2.child_sa import ChildSaV2
from chassis.ase.ike.v2.narrow import narrow, same, selectors
from chassis.ase.ike.v2.refused import Refused, no_proposal, syntax
from chassis.ase.link import SaInstall
from chassis.bus.records import AclRuleRecord, SaKeys

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2

NAT_REFUSES_AH = "AH cannot pass the NAT between the peers (RFC 3948 carries ESP only)"


@dataclass(frozen=True, slots=True)
class Nonces:
    """Both nonces of an exchange and, with a group of its own, the shared secret."""

    initiator: bytes
    responder: bytes
    shared: bytes = b""

    @property
    def lowest(self) -> bytes:
        return min(self.initiator, self.responder)


@dataclass(frozen=True, slots=True)
class ChildOffer:
    """What we ask for a line. `spis` are ours by protocol, `with_group` says that PFS can be had."""

    line: Line
    suites: tuple[Suite, ...]
    spis: Mapping[int, bytes]
    with_group: bool

    @property
    def group(self) -> int | None:
        return self.suites[0].group if self.with_group else None

    def notifications(self) -> tuple[NotifyV2, ...]:
        return (_ipcomp(self.spis[Protocol.IPCOMP]),) if Protocol.IPCOMP in self.spis else ()

    def sa(self) -> SaV2:
        return offer_v2(self.suites, self.spis, with_group=self.with_group)

    def selectors(self) -> tuple[TS, TS]:
        ours, theirs = selectors(self.line.rules)
        return TS(PayloadTypeV2.TS_I, ours), TS(PayloadTypeV2.TS_R, theirs)


@dataclass(frozen=True, slots=True)
class NewChild:
    """A pair as agreed: the value, what the data engine is to be told, and what the responder answers."""

    child: ChildSaV2
    install: SaInstall
    answer: tuple[PayloadV2, ...] = ()


def usable(session: SessionV2, line: Line) -> tuple[Suite, ...]:
    """Suites of a line that can be had on this way; Refused when a NAT leaves none."""
    suites = tuple(suite for suite in line.suites if not (suite.ah and session.nat.found))
    if line.suites and not suites:
        raise Refused(NotifyTypeV2.NO_PROPOSAL_CHOSEN, NAT_REFUSES_AH)
    if not suites:
        raise Refused(NotifyTypeV2.NO_PROPOSAL_CHOSEN, f"IPsec policy {line.policy} has no proposal")
    return suites


def _protocols(suites: Iterable[Suite]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for suite in suites:
        found.update(dict.fromkeys(int(protocol) for protocol in suite.protocols))
        if suite.ip_comp:
            found[int(Protocol.IPCOMP)] = None
    return tuple(found)


def _ipcomp(cpi: bytes) -> NotifyV2:
    return NotifyV2(NotifyTypeV2.IPCOMP_SUPPORTED, cpi + bytes((DEFLATE,)))


def _cpi(payloads: Iterable[PayloadV2]) -> int:
    """The peer's CPI for DEFLATE, 0 without."""
    for one in payloads:
        if (
            isinstance(one, NotifyV2)
            and one.notify == NotifyTypeV2.IPCOMP_SUPPORTED
            and len(one.data) == 3
            and one.data[2] == DEFLATE
        ):
            return int.from_bytes(one.data[:2], "big")
    return 0


def make_offer(session: SessionV2, line: Line, *, with_group: bool) -> ChildOffer:
    """Take SPIs and offer a line; Refused where nothing can be offered."""
    suites = usable(session, line)
    return ChildOffer(line, suites, session.host.spis(_protocols(suites)), with_group)


def accept(
    session: SessionV2,
    offer: ChildOffer,
    payloads: tuple[PayloadV2, ...],
    nonces: Nonces,
    replaces: int,
    now: float,
) -> NewChild:
    """The initiator's end of an answer that agrees. `nonces.shared` is empty without PFS.

    Refused if it does not fit what we offered: then the SPIs are the caller's to give back.
    """
    sa, tsi, tsr = _parts(payloads)
    choice = choose_v2(sa, offer.suites, offer.spis, with_group=offer.with_group)
    if not isinstance(choice, ChildChoiceV2):
        raise no_proposal(choice, "IPsec")
    rules = narrow(offer.line.rules, tsi.selectors, tsr.selectors)
    if rules is None:
        raise Refused(
            NotifyTypeV2.TS_UNACCEPTABLE, "the peer answered with traffic selectors that were not offered"
        )
    cpi = _cpi(payloads) if choice.suite.ip_comp else 0
    return _make(session, offer.line, choice, offer.spis, cpi, rules, nonces, replaces, now, initiator=True)


def _parts(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, TS, TS]:
    sa = next((one for one in payloads if isinstance(one, SaV2)), None)
    tsi = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_I), None)
    tsr = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_R), None)
    if sa is None or tsi is None or tsr is None:
        raise syntax("a CHILD SA was negotiated without SA or traffic selectors")
    return sa, tsi, tsr


@dataclass(frozen=True, slots=True)
class ChosenEntry:
    """The line that a peer's offer is for, what of it is agreed, and the SPIs that we took for it."""

    line: Line
    choice: ChildChoiceV2
    spis: Mapping[int, bytes]
    rules: tuple[AclRuleRecord, ...]


def choose_entry(
    session: SessionV2, payloads: tuple[PayloadV2, ...], lines: Iterable[Line], *, with_group: bool
) -> ChosenEntry:
    """The responder's choice: the line whose traffic the selectors are for, and its first suite that fits.

    A line without a pair comes before one that has one, one that is not narrowed before one that is.
    """
    sa, tsi, tsr = _parts(payloads)
    found: list[tuple[tuple[bool, bool], Line, tuple[AclRuleRecord, ...]]] = []
    for line in lines:
        rules = narrow(line.rules, tsr.selectors, tsi.selectors)
        if rules is not None:
            found.append(((session.children.served(line.seq), not same(rules, line.rules)), line, rules))
    if not found:
        raise Refused(
            NotifyTypeV2.TS_UNACCEPTABLE, "no policy line has the traffic selectors that the peer offers"
        )
    first: Refused | None = None
    for _, line, rules in sorted(found, key=lambda entry: entry[0]):
        try:
            suites = usable(session, line)
        except Refused as refused:
            first = first or refused
            continue
        spis = session.host.spis(_protocols(suites))
        choice = choose_v2(sa, suites, spis, with_group=with_group)
        if isinstance(choice, ChildChoiceV2) and _spis_valid(choice):
            return ChosenEntry(line, choice, spis, rules)
        session.host.release(spis)
        if first is None and not isinstance(choice, ChildChoiceV2):
            first = no_proposal(choice, "IPsec")
    raise first or syntax("the peer offers reserved SPIs")


def _spis_valid(choice: ChildChoiceV2) -> bool:
    """Whether the peer's SPIs are none of the reserved ones (RFC 4303 2.1)."""
    return all(int.from_bytes(spi, "big") >= LOWEST_SPI for spi in choice.peer_spis.values())


def answer(
    session: SessionV2,
    picked: ChosenEntry,
    payloads: tuple[PayloadV2, ...],
    nonces: Nonces,
    replaces: int,
    now: float,
    *,
    send: bool,
) -> NewChild:
    """The responder's end: the pair, and the payloads that agree to it (without nonce and key exchange)."""
    cpi = _cpi(payloads) if picked.choice.suite.ip_comp else 0
    made = _make(
        session,
        picked.line,
        picked.choice,
        picked.spis,
        cpi,
        picked.rules,
        nonces,
        replaces,
        now,
        initiator=False,
        send=send,
    )
    ours, theirs = selectors(picked.rules)
    notifications = (_ipcomp(picked.spis[Protocol.IPCOMP]),) if cpi else ()
    reply = (*notifications, picked.choice.answer, TS(PayloadTypeV2.TS_I, theirs), TS(PayloadTypeV2.TS_R, ours))
    return NewChild(made.child, made.install, reply)


def lifetimes(session: SessionV2, seconds: float, now: float) -> tuple[float, float]:
    """(when a successor is due, when it is over): the margin is random in part, so that the ends differ."""
    settings = session.host.settings
    part = int.from_bytes(session.host.random(2), "big") / 65535
    left = seconds * settings.margin * (1 - settings.jitter * part)
    return now + seconds - left, now + seconds


def _sizes(suite: Suite) -> tuple[int, ...]:
    """Octets of the keys of one direction, in KEYMAT's order."""
    sizes: list[int] = []
    if suite.ah:
        sizes.append(INTEGRITY[suite.ah].key_octets)
    if suite.cipher:
        cipher = CIPHERS[suite.cipher]
        sizes.append(cipher.key_octets)
        sizes.append(INTEGRITY[suite.esp_integrity].key_octets if suite.esp_integrity and not cipher.aead else 0)
    return tuple(sizes)


def _keys(suite: Suite, spis: Mapping[int, bytes], keys: tuple[bytes, ...]) -> SaKeys:
    rest = list(keys)
    ah_key = rest.pop(0) if suite.ah else b""
    aead = suite.cipher is not None and CIPHERS[suite.cipher].aead
    return SaKeys(
        esp_spi=int.from_bytes(spis.get(Protocol.ESP, b""), "big") if suite.cipher else 0,
        esp_integrity="" if aead else suite.esp_integrity or "",
        esp_integrity_key=rest[1] if suite.cipher else b"",
        esp_cipher=suite.cipher or "null",
        esp_cipher_key=rest[0] if suite.cipher else b"",
        ah_spi=int.from_bytes(spis.get(Protocol.AH, b""), "big") if suite.ah else 0,
        ah_integrity=suite.ah or "",
        ah_key=ah_key,
    )


def _make(
    session: SessionV2,
    line: Line,
    choice: ChildChoiceV2,
    spis: Mapping[int, bytes],
    cpi: int,
    rules: tuple[AclRuleRecord, ...],
    nonces: Nonces,
    replaces: int,
    now: float,
    *,
    initiator: bool,
    send: bool = True,
) -> NewChild:
    if not _spis_valid(choice):
        raise syntax("the peer answered with reserved SPIs")
    suite = choice.suite
    ring = session.ring
    sizes = _sizes(suite)
    material = keymat(
        ring.choice.prf, ring.keys.d, nonces.initiator, nonces.responder, 2 * sum(sizes), nonces.shared
    )
    first, second = split_keymat(material, sizes)
    outbound, inbound = (first, second) if initiator else (second, first)
    wanted = {*suite.protocols, *((Protocol.IPCOMP,) if cpi else ())}
    kept = {protocol: spi for protocol, spi in spis.items() if protocol in wanted}
    session.host.release({protocol: spi for protocol, spi in spis.items() if protocol not in wanted})
    soft, hard = lifetimes(session, suite.seconds, now) if suite.seconds else (math.inf, math.inf)
    child = ChildSaV2(
        line,
        session.host.serial(session.tunnel),
        suite,
        kept,
        choice.peer_spis,
        rules,
        initiator,
        nonces.lowest,
        replaces,
        cpi,
        now,
        soft,
        hard,
    )
    kbytes = suite.kbytes or 0
    install = SaInstall(
        session.tunnel,
        child.serial,
        line.seq,
        session.path.local,
        session.path.remote,
        _keys(suite, choice.peer_spis, outbound),
        _keys(suite, kept, inbound),
        line.window,
        send,
        rules,
        suite.esn,
        cpi,
        int.from_bytes(kept.get(Protocol.IPCOMP, b""), "big"),
        suite.seconds,
        kbytes,
        int(kbytes * (1 - session.host.settings.margin)),
        session.encapsulation,
        initiator,
        replaces,
    )
    return NewChild(child, install, ())
