"""CHILD SAs: offered and accepted, in IKE_AUTH and in CREATE_CHILD_SA (RFC 7296 1.3, 2.9, 2.17, 2.22)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from chassis.ase.ike.child_proposals import DEFLATE, LOWEST_SPI, ChildChoiceV2, Suite, choose_v2, offer_v2
from chassis.ase.ike.connections import Line
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev2 import keymat, split_keymat
from chassis.ase.ike.errors import (
    NegotiationError,
    error_v2,
    find_error_notify,
    no_proposal_v2,
    notify_name_v2,
    notify_payload_v2,
    syntax_error_v2,
)
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2, PayloadTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import TS, KeV2, NonceV2, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.traffic_selectors import equivalent_rules, narrow, to_selectors
from chassis.ase.ike.v2.child_sas import (
    MAX_CHILD_SAS_PER_ENTRY,
    ChildSaEvent,
    ChildSaState,
    ChildSaV2,
)
from chassis.ase.ike.v2.ike_sa import ESTABLISHED_STATES, IkeSa, IkeSaState, Task
from chassis.ase.ike.v2.informational import DeleteChildSpisTask, close_child
from chassis.ase.link import SaInstall
from chassis.bus.records import SaKeys
from chassis.model.acl import AclRule

AH_THROUGH_NAT_TEXT = "AH cannot pass the NAT between the peers (RFC 3948 carries ESP only)"


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

    entry: Line
    suites: tuple[Suite, ...]
    spis: Mapping[int, bytes]
    with_group: bool

    @property
    def group(self) -> int | None:
        return self.suites[0].group if self.with_group else None

    def notify_payloads(self) -> tuple[NotifyV2, ...]:
        return (_ipcomp(self.spis[Protocol.IPCOMP]),) if Protocol.IPCOMP in self.spis else ()

    def sa_payload(self) -> SaV2:
        return offer_v2(self.suites, self.spis, with_group=self.with_group)

    def ts_payloads(self) -> tuple[TS, TS]:
        ours, theirs = to_selectors(self.entry.rules)
        return TS(PayloadTypeV2.TS_I, ours), TS(PayloadTypeV2.TS_R, theirs)


@dataclass(frozen=True, slots=True)
class NewChild:
    """A pair as agreed: the value, what the data engine is to be told, and what the responder answers."""

    child: ChildSaV2
    install: SaInstall
    response: tuple[PayloadV2, ...] = ()


def usable(sa: IkeSa, line: Line) -> tuple[Suite, ...]:
    """Suites of a line that can be had on this way; NegotiationError when a NAT leaves none."""
    suites = tuple(suite for suite in line.suites if not (suite.ah and sa.nat.detected))
    if line.suites and not suites:
        raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, AH_THROUGH_NAT_TEXT)
    if not suites:
        raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, f"IPsec policy {line.policy} has no proposal")
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


def make_offer(sa: IkeSa, line: Line, *, with_group: bool) -> ChildOffer:
    """Take SPIs and offer a line; NegotiationError where nothing can be offered."""
    suites = usable(sa, line)
    return ChildOffer(line, suites, sa.host.spis(_protocols(suites)), with_group)


def accept(
    sa: IkeSa,
    offer: ChildOffer,
    payloads: tuple[PayloadV2, ...],
    nonces: Nonces,
    replaces: int,
    now: float,
) -> NewChild:
    """The initiator's end of an answer that agrees. `nonces.shared` is empty without PFS.

    NegotiationError if it does not fit what we offered: then the SPIs are the caller's to give back.
    """
    sa_payload, tsi, tsr = _parts(payloads)
    choice = choose_v2(sa_payload, offer.suites, offer.spis, with_group=offer.with_group)
    if not isinstance(choice, ChildChoiceV2):
        raise no_proposal_v2(choice, "IPsec")
    rules = narrow(offer.entry.rules, tsi.selectors, tsr.selectors)
    if rules is None:
        raise error_v2(
            NotifyTypeV2.TS_UNACCEPTABLE, "the peer answered with traffic selectors that were not offered"
        )
    cpi = _cpi(payloads) if choice.suite.ip_comp else 0
    return _make(sa, offer.entry, choice, offer.spis, cpi, rules, nonces, replaces, now, initiator=True)


def _parts(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, TS, TS]:
    sa_payload = next((one for one in payloads if isinstance(one, SaV2)), None)
    tsi = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_I), None)
    tsr = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_R), None)
    if sa_payload is None or tsi is None or tsr is None:
        raise syntax_error_v2("a CHILD SA was negotiated without SA or traffic selectors")
    return sa_payload, tsi, tsr


@dataclass(frozen=True, slots=True)
class ChosenEntry:
    """The line that a peer's offer is for, what of it is agreed, and the SPIs that we took for it."""

    entry: Line
    choice: ChildChoiceV2
    spis: Mapping[int, bytes]
    rules: tuple[AclRule, ...]


def choose_entry(
    sa: IkeSa, payloads: tuple[PayloadV2, ...], lines: Iterable[Line], *, with_group: bool
) -> ChosenEntry:
    """The responder's choice: the line whose traffic the selectors are for, and its first suite that fits.

    A line without a pair comes before one that has one, one that is not narrowed before one that is.
    """
    sa_payload, tsi, tsr = _parts(payloads)
    found: list[tuple[tuple[bool, bool], Line, tuple[AclRule, ...]]] = []
    for line in lines:
        rules = narrow(line.rules, tsr.selectors, tsi.selectors)
        if rules is not None:
            found.append(
                ((sa.child_sas.has_child(line.seq), not equivalent_rules(rules, line.rules)), line, rules)
            )
    if not found:
        raise error_v2(
            NotifyTypeV2.TS_UNACCEPTABLE, "no policy line has the traffic selectors that the peer offers"
        )
    first: NegotiationError | None = None
    for _, line, rules in sorted(found, key=lambda entry: entry[0]):
        try:
            suites = usable(sa, line)
        except NegotiationError as refused:
            first = first or refused
            continue
        spis = sa.host.spis(_protocols(suites))
        choice = choose_v2(sa_payload, suites, spis, with_group=with_group)
        if isinstance(choice, ChildChoiceV2) and _spis_valid(choice):
            return ChosenEntry(line, choice, spis, rules)
        sa.host.release(spis)
        if first is None and not isinstance(choice, ChildChoiceV2):
            first = no_proposal_v2(choice, "IPsec")
    raise first or syntax_error_v2("the peer offers reserved SPIs")


def _spis_valid(choice: ChildChoiceV2) -> bool:
    """Whether the peer's SPIs are none of the reserved ones (RFC 4303 2.1)."""
    return all(int.from_bytes(spi, "big") >= LOWEST_SPI for spi in choice.peer_spis.values())


def answer(
    sa: IkeSa,
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
        sa,
        picked.entry,
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
    ours, theirs = to_selectors(picked.rules)
    notifications = (_ipcomp(picked.spis[Protocol.IPCOMP]),) if cpi else ()
    reply = (*notifications, picked.choice.answer, TS(PayloadTypeV2.TS_I, theirs), TS(PayloadTypeV2.TS_R, ours))
    return NewChild(made.child, made.install, reply)


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
    sa: IkeSa,
    line: Line,
    choice: ChildChoiceV2,
    spis: Mapping[int, bytes],
    cpi: int,
    rules: tuple[AclRule, ...],
    nonces: Nonces,
    replaces: int,
    now: float,
    *,
    initiator: bool,
    send: bool = True,
) -> NewChild:
    if not _spis_valid(choice):
        raise syntax_error_v2("the peer answered with reserved SPIs")
    suite = choice.suite
    ring = sa.ike_keymat
    sizes = _sizes(suite)
    material = keymat(
        ring.choice.prf, ring.keys.d, nonces.initiator, nonces.responder, 2 * sum(sizes), nonces.shared
    )
    first, second = split_keymat(material, sizes)
    outbound, inbound = (first, second) if initiator else (second, first)
    wanted = {*suite.protocols, *((Protocol.IPCOMP,) if cpi else ())}
    kept = {protocol: spi for protocol, spi in spis.items() if protocol in wanted}
    sa.host.release({protocol: spi for protocol, spi in spis.items() if protocol not in wanted})
    soft, hard = sa.expiry_times(suite.seconds, now) if suite.seconds else (math.inf, math.inf)
    child = ChildSaV2(
        line,
        sa.host.serial(sa.tunnel),
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
        sa.tunnel,
        child.serial,
        line.seq,
        sa.path.local,
        sa.path.remote,
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
        int(kbytes * (1 - sa.host.settings.margin)),
        sa.udp_encapsulation,
        initiator,
        replaces,
    )
    return NewChild(child, install, ())


NONCE_OCTETS = 32
"""Octets of our nonces: at least half of any PRF's key (RFC 7296 2.10)."""

MAX_TEMPORARY_FAILURES = 8
"""How often a request is made again that meets a temporary failure, where there is no old pair to wait with."""


class CreateChildTask(Task):
    """Make a pair for `line`; `old` is the one that it succeeds. `rival` is what the peer made for the same line
    in the meantime, where there is no old one that knows it."""

    exchange_type: ClassVar[int] = ExchangeType.CREATE_CHILD_SA
    about_child: ClassVar[bool] = True

    def __init__(self, line: Line, old: ChildSaV2 | None, tries: int = 0) -> None:
        self.entry = line
        self.old = old
        self.colliding_child: ChildSaV2 | None = None
        self._attempts = tries
        self._offer: ChildOffer | None = None
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None

    @property
    def seq(self) -> int:
        return self.entry.seq

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        line = None if sa.connection is None else sa.connection.line(self.entry.seq)
        if line is None:
            return None
        if self.old is None:
            if sa.child_sas.has_child(line.seq):
                return None
        elif not self.old.allows(ChildSaEvent.REKEY):
            return None
        self.entry = line
        try:
            self._offer = offer = make_offer(sa, line, with_group=True)
        except NegotiationError as refused:
            self._failed(sa, refused, now)
            return None
        sa.unknown_deletes.clear()
        random = sa.host.random
        self._nonce = random(NONCE_OCTETS)
        payloads: list[PayloadV2] = []
        if self.old is not None:
            self.old.transition(ChildSaEvent.REKEY)
            protocol = self.old.protocols[0]
            payloads.append(NotifyV2(NotifyTypeV2.REKEY_SA, b"", protocol, self.old.spis_in[protocol]))
        payloads += [*offer.notify_payloads(), offer.sa_payload(), NonceV2(self._nonce)]
        if offer.group is not None:
            group = GROUPS[offer.group]
            self._dh_key = group.private(random(group.random_octets))
            payloads.append(KeV2(offer.group, self._dh_key.public))
        return (*payloads, *offer.ts_payloads())

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        offer = self._offer
        assert offer is not None
        error = find_error_notify(payloads)
        if error is not None and not any(isinstance(one, NonceV2) for one in payloads):
            self.cancel(sa)
            self._on_error_notify(sa, error.notify, now)
            return
        old = self.old
        try:
            replaces = 0 if old is None else old.serial
            made = accept(sa, offer, payloads, self._nonces(payloads), replaces, now)
        except NegotiationError as refused:
            self._delete_and_fail(sa, refused, now)
            return
        if sa.state not in ESTABLISHED_STATES:
            sa.host.release(made.child.spis_in)
            return
        child, rival = made.child, self.colliding_child if old is None else old.colliding_child
        if sa.unknown_deletes & child.spis_out.items():
            # The peer's delete overtook its answer: what we would install is gone there already.
            sa.host.release(child.spis_in)
            self._resume_old(sa, now)
            return
        if (
            rival is not None
            and rival.state is not ChildSaState.DELETED
            and child.lowest_nonce < rival.lowest_nonce
        ):
            # Ours has the lowest of the four nonces, so it is the redundant one, and ours to delete.
            sa.host.count("rekey collisions lost")
            sa.host.release(child.spis_in)
            sa.enqueue_task(DeleteChildSpisTask(child.spis_in))
            self._resume_old(sa, now)
            return
        sa.install_child(child, made.install, now)
        if rival is not None and rival.allows(ChildSaEvent.REKEY_DONE):
            rival.transition(ChildSaEvent.REKEY_DONE)
            sa.set_delete_deadline(rival, now)
        if old is not None and old.state is ChildSaState.REKEYING:
            old.transition(ChildSaEvent.REKEY_DONE)
            close_child(sa, old, "rekeyed")

    def _nonces(self, payloads: tuple[PayloadV2, ...]) -> Nonces:
        nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
        if nonce is None:
            raise syntax_error_v2("the peer answered without a nonce")
        if self._dh_key is None:
            return Nonces(self._nonce, nonce.value)
        ke = next((one for one in payloads if isinstance(one, KeV2)), None)
        if ke is None or ke.group != self._dh_key.group:
            raise syntax_error_v2("the peer answered without a public value of our group")
        try:
            return Nonces(self._nonce, nonce.value, GROUPS[ke.group].shared(self._dh_key, ke.public))
        except GroupError as error:
            raise syntax_error_v2(str(error)) from error

    def _delete_and_fail(self, sa: IkeSa, refused: NegotiationError, now: float) -> None:
        """The peer believes in a pair that we cannot use."""
        assert self._offer is not None
        sa.enqueue_task(DeleteChildSpisTask(self._offer.spis))
        self.cancel(sa)
        self._failed(sa, refused, now)

    def _on_error_notify(self, sa: IkeSa, notify: int, now: float) -> None:
        old = self.old
        if notify == NotifyTypeV2.TEMPORARY_FAILURE:
            self._resume_old(sa, now)
            if old is None and self._attempts >= MAX_TEMPORARY_FAILURES:
                self._failed(sa, error_v2(notify, "the peer has no time for a CHILD SA"), now)
            elif old is None or old.allows(ChildSaEvent.REKEY):
                sa.retry_task_later(CreateChildTask(self.entry, old, self._attempts + 1), now)
            return
        if notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and old is not None:
            self._resume_old(sa, now)
            if old.state is ChildSaState.INSTALLED:
                sa.remove_child(old, "unknown to the peer", now)
                sa.enqueue_task(CreateChildTask(self.entry, None))
            return
        self._failed(sa, error_v2(notify, f"the peer refuses a CHILD SA: {notify_name_v2(notify)}"), now)

    def _failed(self, sa: IkeSa, refused: NegotiationError, now: float) -> None:
        self._resume_old(sa, now)
        old = self.old
        if old is not None and old.live:
            sa.postpone_rekey(old, now)
        if old is None or old.state is not ChildSaState.DELETED:
            sa.report_entry_failure(self.entry, refused, now)

    def _resume_old(self, sa: IkeSa, now: float) -> None:
        """Our attempt is over without a pair: the old one goes on, or the peer's successor does."""
        old = self.old
        if old is None or old.state is not ChildSaState.REKEYING:
            return
        if old.colliding_child is not None and old.colliding_child.live:
            old.transition(ChildSaEvent.REKEY_DONE)
            sa.set_delete_deadline(old, now)
        else:
            old.transition(ChildSaEvent.REKEY_FAILED)

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        self._delete_and_fail(sa, syntax_error_v2(reason), now)

    def cancel(self, sa: IkeSa) -> None:
        if self._offer is not None:
            sa.host.release(self._offer.spis)


def rekey_child(sa: IkeSa, child: ChildSaV2) -> None:
    """Queue the rekey of a CHILD SA, unless its policy entry is being negotiated."""
    child.soft = math.inf
    if child.allows(ChildSaEvent.REKEY) and not sa.is_negotiating(child.entry.seq):
        sa.enqueue_task(CreateChildTask(child.entry, child))


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """The peer wants a pair."""
    wanted = next(
        (one for one in payloads if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.REKEY_SA), None
    )
    line: Line | None = None
    try:
        if sa.state is not IkeSaState.ESTABLISHED:
            raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is being replaced or deleted")
        old = None if wanted is None else _find_replaced(sa, wanted)
        line = None if old is None else old.entry
        _create_child(sa, payloads, old, now)
    except NegotiationError as refused:
        data = notify_payload_v2(refused)
        if refused.notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and wanted is not None:
            data = NotifyV2(refused.notify, b"", wanted.protocol, wanted.spi)
        sa.reply((data,), now)
        sa.host.count(f"refused {refused.failure.cause}")
        if refused.notify in (NotifyTypeV2.NO_PROPOSAL_CHOSEN, NotifyTypeV2.TS_UNACCEPTABLE):
            lines = () if sa.connection is None else sa.connection.lines
            if line is not None or lines:
                sa.report_entry_failure(line or lines[0], refused, now)


def _find_replaced(sa: IkeSa, wanted: NotifyV2) -> ChildSaV2:
    """The pair that a request replaces."""
    old = sa.child_sas.find_by_outbound_spi(wanted.protocol, wanted.spi)
    if old is None:
        raise error_v2(NotifyTypeV2.CHILD_SA_NOT_FOUND, "no such CHILD SA")
    if old.state is ChildSaState.INBOUND_INSTALLED:
        sa.activate_outbound(old)
    if old.state not in (ChildSaState.INSTALLED, ChildSaState.REKEYING) or old.colliding_child is not None:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the CHILD SA is replaced already, or being deleted")
    return old


def _create_child(sa: IkeSa, payloads: tuple[PayloadV2, ...], old: ChildSaV2 | None, now: float) -> None:
    connection = sa.connection
    assert connection is not None
    nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
    if nonce is None:
        raise syntax_error_v2("a CHILD SA is asked for without a nonce")
    lines = connection.lines
    if old is not None:
        lines = tuple(line for line in lines if line.seq == old.entry.seq) or (old.entry,)
    picked = choose_entry(sa, payloads, lines, with_group=True)
    try:
        if len(sa.child_sas.of_entry(picked.entry.seq)) >= MAX_CHILD_SAS_PER_ENTRY:
            raise error_v2(NotifyTypeV2.NO_ADDITIONAL_SAS, "the policy line has pairs enough")
        ours = sa.host.random(NONCE_OCTETS)
        said: tuple[PayloadV2, ...] = (NonceV2(ours),)
        shared = b""
        if picked.choice.suite.group is not None:
            shared, ke = _exchange_keys(sa, picked.choice.suite.group, payloads)
            said = (NonceV2(ours), ke)
        replaces = 0 if old is None else old.serial
        nonces = Nonces(nonce.value, ours, shared)
        # Both ends may have asked at once: the pair that sends goes on until the peer shows that it has this one.
        send = old is None and not sa.child_sas.has_child(picked.entry.seq)
        made = answer(sa, picked, payloads, nonces, replaces, now, send=send)
    except NegotiationError:
        sa.host.release(picked.spis)
        raise
    position = 1 + next(at for at, one in enumerate(made.response) if one is picked.choice.answer)
    reply = (*made.response[:position], *said, *made.response[position:])
    child = made.child
    if old is None:
        rival = sa.task_manager.pending_request
        if rival is not None and isinstance(rival.task, CreateChildTask) and rival.task.seq == child.entry.seq:
            rival.task.colliding_child = child
        sa.reply(reply, now)
        sa.install_child(child, made.install, now)
        return
    sa.install_child(child, made.install, now)
    if old.state is ChildSaState.REKEYING:
        old.colliding_child = child
    else:
        old.transition(ChildSaEvent.REKEY_DONE)
        sa.set_delete_deadline(old, now)
    sa.reply(reply, now)


def _exchange_keys(sa: IkeSa, number: int, payloads: tuple[PayloadV2, ...]) -> tuple[bytes, KeV2]:
    """(shared secret, our public value) of a group of its own."""
    ke = next((one for one in payloads if isinstance(one, KeV2)), None)
    if ke is None:
        raise syntax_error_v2("a CHILD SA with PFS is asked for without a public value")
    if ke.group != number:
        raise error_v2(
            NotifyTypeV2.INVALID_KE_PAYLOAD, f"group {ke.group} for group {number}", number.to_bytes(2, "big")
        )
    group = GROUPS[number]
    pair = group.private(sa.host.random(group.random_octets))
    try:
        return group.shared(pair, ke.public), KeV2(number, pair.public)
    except GroupError as error:
        raise syntax_error_v2(str(error)) from error
