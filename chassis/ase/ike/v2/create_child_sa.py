"""CREATE_CHILD_SA for CHILD SAs, and their negotiation in IKE_AUTH (RFC 7296 1.3, 2.8, 2.9, 2.17, 2.22, 2.25.1).

If both ends rekey a CHILD SA at once there are two successors. The one with the lowest of the four nonces is
redundant: the end that initiated it deletes it (RFC 7296 2.8.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from chassis.ase.ike.child_proposals import DEFLATE, ChildChoiceV2, Suite, choose_v2, offer_v2
from chassis.ase.ike.child_sa import key_sizes, sa_install, sa_keys, spi_protocols, suites_for_path
from chassis.ase.ike.connections import PolicyEntry
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair
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
from chassis.ase.ike.payloads.chain import first_of_type
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2, PayloadTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import PayloadV2, find_notify
from chassis.ase.ike.payloads.v2_payloads import TS, KeV2, NonceV2, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.traffic_selectors import equivalent_rules, narrow, to_selectors
from chassis.ase.ike.v2.child_sas import (
    MAX_CHILD_SAS_PER_ENTRY,
    ChildSaEvent,
    ChildSaState,
    ChildSaV2,
)
from chassis.ase.ike.v2.ike_sa import ESTABLISHED_STATES, NO_DELETES, IkeSa, IkeSaState, Task
from chassis.ase.ike.v2.informational import DeleteChildSpisTask, close_child
from chassis.ase.ike.v2.inner_address import check_address
from chassis.ase.ike.v2.keymat import NONCE_OCTETS, shared_secret
from chassis.ase.ike_messages import SaInstall
from chassis.ase.ipsec.sa import MIN_SPI
from chassis.model.acl import AclRule

AH_THROUGH_NAT_TEXT = "AH cannot pass the NAT between the peers (RFC 3948 carries ESP only)"


@dataclass(frozen=True, slots=True)
class Nonces:
    """Both nonces of an exchange; `shared` is g^ir if the exchange has a DH group of its own (PFS), else empty."""

    initiator: bytes
    responder: bytes
    shared: bytes = b""

    @property
    def lowest(self) -> bytes:
        return min(self.initiator, self.responder)


@dataclass(frozen=True, slots=True)
class ChildOffer:
    """What we offer for a policy entry. `spis` are our inbound ones. IKE_AUTH has no DH group of its own."""

    entry: PolicyEntry
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
    """A negotiated CHILD SA, the message that installs it, and the responder's payloads without nonce and KE."""

    child: ChildSaV2
    install: SaInstall
    response: tuple[PayloadV2, ...] = ()


def _ipcomp(cpi: bytes) -> NotifyV2:
    return NotifyV2(NotifyTypeV2.IPCOMP_SUPPORTED, cpi + bytes((DEFLATE,)))


def _cpi(payloads: Iterable[PayloadV2], suite: Suite) -> int:
    """Return the peer's CPI for DEFLATE; 0 without one, or if the suite has no IPComp."""
    for one in payloads if suite.ip_comp else ():
        if (
            isinstance(one, NotifyV2)
            and one.notify == NotifyTypeV2.IPCOMP_SUPPORTED
            and len(one.data) == 3
            and one.data[2] == DEFLATE
        ):
            return int.from_bytes(one.data[:2], "big")
    return 0


def _parts(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, TS, TS]:
    """Return SA, TSi and TSr.

    Raises:
        NegotiationError: one of them is missing.
    """
    sa_payload = first_of_type(payloads, SaV2)
    tsi = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_I), None)
    tsr = next((one for one in payloads if isinstance(one, TS) and one.type == PayloadTypeV2.TS_R), None)
    if sa_payload is None or tsi is None or tsr is None:
        raise syntax_error_v2("a CHILD SA was negotiated without SA or traffic selectors")
    return sa_payload, tsi, tsr


@dataclass(frozen=True, slots=True)
class ChosenEntry:
    """The policy entry that the peer means, what of its offer we accept, and the SPIs allocated for it."""

    entry: PolicyEntry
    choice: ChildChoiceV2
    spis: Mapping[int, bytes]
    rules: tuple[AclRule, ...]


def _spis_valid(choice: ChildChoiceV2) -> bool:
    """Return whether none of the peer's SPIs is reserved (RFC 4303 2.1)."""
    return all(int.from_bytes(spi, "big") >= MIN_SPI for spi in choice.peer_spis.values())


class ChildNegotiation:
    """Offers, choices and answers about CHILD SAs of one IKE SA, in IKE_AUTH and in CREATE_CHILD_SA."""

    def __init__(self, sa: IkeSa) -> None:
        self._sa = sa

    def offer(self, entry: PolicyEntry, *, with_group: bool) -> ChildOffer:
        """Return an offer for a policy entry, with SPIs that the caller releases if the negotiation fails.

        Raises:
            NegotiationError: the entry has no usable proposal.
        """
        suites = self._usable_suites(entry)
        return ChildOffer(entry, suites, self._sa.host.allocate_spis(spi_protocols(suites)), with_group)

    def accept(
        self, offer: ChildOffer, payloads: tuple[PayloadV2, ...], nonces: Nonces, replaces: int, now: float
    ) -> NewChild:
        """Return the initiator's CHILD SA from the peer's response; `replaces` is the serial of the old one or 0.

        Raises:
            NegotiationError: the response is not an answer to our offer; the caller releases the SPIs.
        """
        sa_payload, tsi, tsr = _parts(payloads)
        choice = choose_v2(sa_payload, offer.suites, offer.spis, with_group=offer.with_group)
        if not isinstance(choice, ChildChoiceV2):
            raise no_proposal_v2(choice, "IPsec")
        rules = narrow(offer.entry.rules, tsi.selectors, tsr.selectors)
        if rules is None:
            text = "the peer answered with traffic selectors that were not offered"
            raise error_v2(NotifyTypeV2.TS_UNACCEPTABLE, text)
        chosen = ChosenEntry(offer.entry, choice, offer.spis, rules)
        return self._create(chosen, _cpi(payloads, choice.suite), nonces, replaces, now, initiator=True, send=True)

    def choose_entry(
        self, payloads: tuple[PayloadV2, ...], entries: Iterable[PolicyEntry], *, with_group: bool
    ) -> ChosenEntry:
        """Return the policy entry that the peer's selectors are for, and its first suite that matches.

        An entry without a CHILD SA comes before one that has one, one that is not narrowed before one that is. The
        caller releases the SPIs if the negotiation fails.

        Raises:
            NegotiationError: no entry has the selectors, or none of those that have them has a matching suite.
        """
        sa = self._sa
        sa_payload, tsi, tsr = _parts(payloads)
        found: list[tuple[tuple[bool, bool], PolicyEntry, tuple[AclRule, ...]]] = []
        for entry in entries:
            rules = narrow(entry.rules, tsr.selectors, tsi.selectors)
            if rules is not None:
                rank = sa.child_sas.has_child(entry.seq), not equivalent_rules(rules, entry.rules)
                found.append((rank, entry, rules))
        if not found:
            text = "no policy entry has the traffic selectors that the peer offers"
            raise error_v2(NotifyTypeV2.TS_UNACCEPTABLE, text)
        first: NegotiationError | None = None
        for _, entry, rules in sorted(found, key=lambda one: one[0]):
            try:
                suites = self._usable_suites(entry)
            except NegotiationError as error:
                first = first or error
                continue
            spis = sa.host.allocate_spis(spi_protocols(suites))
            choice = choose_v2(sa_payload, suites, spis, with_group=with_group)
            if isinstance(choice, ChildChoiceV2) and _spis_valid(choice):
                return ChosenEntry(entry, choice, spis, rules)
            sa.host.release_spis(spis)
            if first is None and not isinstance(choice, ChildChoiceV2):
                first = no_proposal_v2(choice, "IPsec")
        raise first or syntax_error_v2("the peer offers reserved SPIs")

    def answer(
        self,
        chosen: ChosenEntry,
        payloads: tuple[PayloadV2, ...],
        nonces: Nonces,
        replaces: int,
        now: float,
        *,
        send: bool,
    ) -> NewChild:
        """Return the responder's CHILD SA and response; `replaces` is the serial of the old one or 0.

        Raises:
            NegotiationError: the peer's SPIs are invalid; the caller releases ours.
        """
        cpi = _cpi(payloads, chosen.choice.suite)
        created = self._create(chosen, cpi, nonces, replaces, now, initiator=False, send=send)
        ours, theirs = to_selectors(chosen.rules)
        ipcomp = (_ipcomp(chosen.spis[Protocol.IPCOMP]),) if cpi else ()
        selectors = TS(PayloadTypeV2.TS_I, theirs), TS(PayloadTypeV2.TS_R, ours)
        return NewChild(created.child, created.install, (*ipcomp, chosen.choice.answer, *selectors))

    def _usable_suites(self, entry: PolicyEntry) -> tuple[Suite, ...]:
        """Return the suites of a policy entry that pass on the path to the peer.

        Raises:
            NegotiationError: there is none.
        """
        suites = suites_for_path(entry.suites, nat=self._sa.nat.detected)
        if entry.suites and not suites:
            raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, AH_THROUGH_NAT_TEXT)
        if not suites:
            raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, f"IPsec policy {entry.policy} has no proposal")
        return suites

    def _create(
        self,
        chosen: ChosenEntry,
        cpi: int,
        nonces: Nonces,
        replaces: int,
        now: float,
        *,
        initiator: bool,
        send: bool,
    ) -> NewChild:
        """Derive the keys (RFC 7296 2.17) and return the CHILD SA; release the SPIs that it does not use.

        `cpi` is the peer's, 0 without IPComp. `send`: its outbound SA is used at once.

        Raises:
            NegotiationError: the peer's SPIs are reserved.
        """
        sa, entry, choice = self._sa, chosen.entry, chosen.choice
        connection = sa.connection
        assert connection is not None
        if not _spis_valid(choice):
            raise syntax_error_v2("the peer answered with reserved SPIs")
        suite, ike = choice.suite, sa.ike_keymat
        sizes = key_sizes(suite)
        octets = 2 * sum(sizes)
        material = keymat(ike.choice.prf, ike.keys.d, nonces.initiator, nonces.responder, octets, nonces.shared)
        from_initiator, from_responder = split_keymat(material, sizes)
        outbound, inbound = (from_initiator, from_responder) if initiator else (from_responder, from_initiator)
        used = {*suite.protocols, *((Protocol.IPCOMP,) if cpi else ())}
        spis_in = {protocol: spi for protocol, spi in chosen.spis.items() if protocol in used}
        sa.host.release_spis({protocol: spi for protocol, spi in chosen.spis.items() if protocol not in used})
        soft, hard = sa.expiry_times(suite.seconds, now) if suite.seconds else (math.inf, math.inf)
        child = ChildSaV2(
            entry=entry,
            serial=sa.host.new_serial(sa.tunnel),
            suite=suite,
            spis_in=spis_in,
            spis_out=choice.peer_spis,
            rules=chosen.rules,
            initiator=initiator,
            lowest_nonce=nonces.lowest,
            replaces=replaces,
            cpi_out=cpi,
            created_at=now,
            soft=soft,
            hard=hard,
        )
        install = sa_install(
            sa.child_report(child),
            entry,
            suite,
            outer=(connection.local, connection.remote),
            outbound=sa_keys(suite, choice.peer_spis, outbound),
            inbound=sa_keys(suite, spis_in, inbound),
            rules=chosen.rules,
            cpis=(cpi, int.from_bytes(spis_in.get(Protocol.IPCOMP, b""), "big")),
            seconds=suite.seconds,
            kbytes=suite.kbytes or 0,
            margin_factor=sa.host.settings.rekey_margin_factor,
            encapsulation=sa.udp_encapsulation,
            send=send,
            initiator=initiator,
        )
        return NewChild(child, install)


MAX_TEMPORARY_FAILURES = 8
"""Retries after TEMPORARY_FAILURE (count) if no older CHILD SA carries the traffic (RFC 7296 2.25)."""


class CreateChildTask(Task):
    """Create a CHILD SA for a policy entry, or rekey `old`.

    `colliding_child` is what the peer created for the same entry meanwhile; a rekeyed one keeps it itself.
    """

    exchange_type: ClassVar[int] = ExchangeType.CREATE_CHILD_SA
    about_child: ClassVar[bool] = True

    def __init__(self, entry: PolicyEntry, old: ChildSaV2 | None, attempts: int = 0) -> None:
        self.entry = entry
        self.old = old
        self.colliding_child: ChildSaV2 | None = None
        self._attempts = attempts
        self._offer: ChildOffer | None = None
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None

    @property
    def seq(self) -> int:
        return self.entry.seq

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        entry = None if sa.connection is None else sa.connection.entry(self.entry.seq)
        if entry is None:
            return None
        if self.old is None:
            if sa.child_sas.has_child(entry.seq):
                return None
        elif not self.old.allows(ChildSaEvent.REKEY):
            return None
        self.entry = entry
        try:
            self._offer = offer = ChildNegotiation(sa).offer(entry, with_group=True)
        except NegotiationError as error:
            self._fail(sa, error, now)
            return None
        sa.unknown_deletes = NO_DELETES
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
        offer, old = self._offer, self.old
        assert offer is not None
        error = find_error_notify(payloads)
        if error is not None and first_of_type(payloads, NonceV2) is None:
            self.cancel(sa)
            self._on_error_notify(sa, error.notify, now)
            return
        try:
            replaces = 0 if old is None else old.serial
            created = ChildNegotiation(sa).accept(offer, payloads, self._nonces(payloads), replaces, now)
        except NegotiationError as failed:
            self._delete_and_fail(sa, failed, now)
            return
        child, peers = created.child, self.colliding_child if old is None else old.colliding_child
        if sa.state not in ESTABLISHED_STATES:
            sa.host.release_spis(child.spis_in)
            return
        if sa.unknown_deletes & child.spis_out.items():
            # The peer's Delete overtook its response: the CHILD SA no longer exists there.
            sa.host.release_spis(child.spis_in)
            self._resume_old(sa, now)
            return
        if (
            peers is not None
            and peers.state is not ChildSaState.DELETED
            and child.lowest_nonce < peers.lowest_nonce
        ):
            # Ours has the lowest of the four nonces, so it is redundant, and ours to delete.
            sa.host.count("rekey collisions lost")
            sa.host.release_spis(child.spis_in)
            sa.enqueue_task(DeleteChildSpisTask(child.spis_in))
            self._resume_old(sa, now)
            return
        sa.install_child(child, created.install, now)
        if peers is not None and peers.allows(ChildSaEvent.REKEY_DONE):
            peers.transition(ChildSaEvent.REKEY_DONE)
            sa.set_delete_deadline(peers, now)
        if old is not None and old.state is ChildSaState.REKEYING:
            old.transition(ChildSaEvent.REKEY_DONE)
            close_child(sa, old, "rekeyed")

    def _nonces(self, payloads: tuple[PayloadV2, ...]) -> Nonces:
        """Return both nonces, and the shared secret if we sent a public value.

        Raises:
            NegotiationError: nonce or public value is missing or invalid.
        """
        nonce = first_of_type(payloads, NonceV2)
        if nonce is None:
            raise syntax_error_v2("the peer answered without a nonce")
        if self._dh_key is None:
            return Nonces(self._nonce, nonce.value)
        ke = first_of_type(payloads, KeV2)
        if ke is None or ke.group != self._dh_key.group:
            raise syntax_error_v2("the peer answered without a public value of our group")
        return Nonces(self._nonce, nonce.value, shared_secret(self._dh_key, ke))

    def _delete_and_fail(self, sa: IkeSa, error: NegotiationError, now: float) -> None:
        """Delete the CHILD SA that the peer installed and we cannot use."""
        assert self._offer is not None
        sa.enqueue_task(DeleteChildSpisTask(self._offer.spis))
        self.cancel(sa)
        self._fail(sa, error, now)

    def _on_error_notify(self, sa: IkeSa, notify: int, now: float) -> None:
        """Handle the peer's refusal: try again later, create instead of rekey, or fail (RFC 7296 2.25)."""
        old = self.old
        if notify == NotifyTypeV2.TEMPORARY_FAILURE:
            self._resume_old(sa, now)
            if old is None and self._attempts >= MAX_TEMPORARY_FAILURES:
                self._fail(
                    sa, error_v2(notify, "the peer refuses a CHILD SA: TEMPORARY_FAILURE at each attempt"), now
                )
            elif old is None or old.allows(ChildSaEvent.REKEY):
                sa.retry_task_later(CreateChildTask(self.entry, old, self._attempts + 1), now)
            return
        if notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and old is not None:
            self._resume_old(sa, now)
            if old.state is ChildSaState.INSTALLED:
                sa.remove_child(old, "unknown to the peer", now)
                sa.enqueue_task(CreateChildTask(self.entry, None))
            return
        self._fail(sa, error_v2(notify, f"the peer refuses a CHILD SA: {notify_name_v2(notify)}"), now)

    def _fail(self, sa: IkeSa, error: NegotiationError, now: float) -> None:
        """Keep the old CHILD SA, rekey it later, and report the failure."""
        self._resume_old(sa, now)
        old = self.old
        if old is not None and old.live:
            sa.postpone_rekey(old, now)
        if old is None or old.state is not ChildSaState.DELETED:
            sa.report_entry_failure(self.entry, error, now)

    def _resume_old(self, sa: IkeSa, now: float) -> None:
        """End the rekey without a CHILD SA of ours: the old one stays in use unless the peer replaced it."""
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
            sa.host.release_spis(self._offer.spis)


def rekey_child(sa: IkeSa, child: ChildSaV2) -> None:
    """Queue the rekey of a CHILD SA, unless its policy entry is being negotiated, or is no longer configured."""
    child.soft = math.inf
    if sa.connection is not None and sa.connection.entry(child.entry.number) is None:
        return
    if child.allows(ChildSaEvent.REKEY) and not sa.is_negotiating(child.entry.seq):
        sa.enqueue_task(CreateChildTask(child.entry, child))


class _CreateChildResponder:
    """The responder's side: the peer creates or rekeys a CHILD SA."""

    def __init__(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        self._sa = sa
        self._payloads = payloads
        self._now = now

    def respond(self) -> None:
        sa, now = self._sa, self._now
        rekeyed = find_notify(self._payloads, NotifyTypeV2.REKEY_SA)
        entry: PolicyEntry | None = None
        try:
            if sa.state is not IkeSaState.ESTABLISHED:
                raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is being replaced or deleted")
            old = None if rekeyed is None else self._find_old(rekeyed)
            entry = None if old is None else old.entry
            self._create(old)
        except NegotiationError as refused:
            notify = notify_payload_v2(refused)
            if refused.notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and rekeyed is not None:
                notify = NotifyV2(refused.notify, b"", rekeyed.protocol, rekeyed.spi)
            sa.reply((notify,), now)
            sa.host.count(f"refused {refused.failure.cause}")
            if refused.notify in (NotifyTypeV2.NO_PROPOSAL_CHOSEN, NotifyTypeV2.TS_UNACCEPTABLE):
                entries = () if sa.connection is None else sa.connection.entries
                if entry is not None or entries:
                    sa.report_entry_failure(entry or entries[0], refused, now)

    def _find_old(self, rekeyed: NotifyV2) -> ChildSaV2:
        """Return the CHILD SA that the request replaces. The peer sends by it, so it is ours to send by too.

        Raises:
            NegotiationError: there is none, or it is being replaced or deleted.
        """
        old = self._sa.child_sas.find_by_outbound_spi(rekeyed.protocol, rekeyed.spi)
        if old is None:
            raise error_v2(NotifyTypeV2.CHILD_SA_NOT_FOUND, "no such CHILD SA")
        if old.state is ChildSaState.INBOUND_INSTALLED:
            self._sa.activate_outbound(old)
        if old.state not in (ChildSaState.INSTALLED, ChildSaState.REKEYING) or old.colliding_child is not None:
            raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the CHILD SA is replaced already, or being deleted")
        return old

    def _create(self, old: ChildSaV2 | None) -> None:
        """Create and install the CHILD SA, and respond.

        Raises:
            NegotiationError: the offer is not acceptable.
        """
        sa, payloads, now = self._sa, self._payloads, self._now
        connection, negotiation = sa.connection, ChildNegotiation(sa)
        assert connection is not None
        nonce = first_of_type(payloads, NonceV2)
        if nonce is None:
            raise syntax_error_v2("a CHILD SA is asked for without a nonce")
        entries = connection.entries
        if old is not None:
            entries = tuple(one for one in entries if one.seq == old.entry.seq) or (old.entry,)
        check_address(connection, asked=False)
        chosen = negotiation.choose_entry(payloads, entries, with_group=True)
        try:
            if len(sa.child_sas.of_entry(chosen.entry.seq)) >= MAX_CHILD_SAS_PER_ENTRY:
                raise error_v2(
                    NotifyTypeV2.NO_ADDITIONAL_SAS,
                    f"the policy entry has {MAX_CHILD_SAS_PER_ENTRY} CHILD SAs already",
                )
            ours = sa.host.random(NONCE_OCTETS)
            key_exchange: tuple[PayloadV2, ...] = (NonceV2(ours),)
            g_ir = b""
            if chosen.choice.suite.group is not None:
                g_ir, ke = self._exchange_keys(chosen.choice.suite.group)
                key_exchange = (NonceV2(ours), ke)
            replaces = 0 if old is None else old.serial
            nonces = Nonces(nonce.value, ours, g_ir)
            # Do not send by a successor, or beside another CHILD SA, before the peer shows that it has it.
            send = old is None and not sa.child_sas.has_child(chosen.entry.seq)
            created = negotiation.answer(chosen, payloads, nonces, replaces, now, send=send)
        except NegotiationError:
            sa.host.release_spis(chosen.spis)
            raise
        position = 1 + next(at for at, one in enumerate(created.response) if one is chosen.choice.answer)
        response = (*created.response[:position], *key_exchange, *created.response[position:])
        child = created.child
        if old is None:
            pending = sa.task_manager.pending_request
            task = None if pending is None else pending.task
            if isinstance(task, CreateChildTask) and task.seq == child.entry.seq:
                task.colliding_child = child
            sa.reply(response, now)
            sa.install_child(child, created.install, now)
            return
        sa.install_child(child, created.install, now)
        if old.state is ChildSaState.REKEYING:
            old.colliding_child = child
        else:
            old.transition(ChildSaEvent.REKEY_DONE)
            sa.set_delete_deadline(old, now)
        sa.reply(response, now)

    def _exchange_keys(self, number: int) -> tuple[bytes, KeV2]:
        """Return (shared secret, our KE payload) in a DH group.

        Raises:
            NegotiationError: the peer's public value is missing, invalid or of another group.
        """
        ke = first_of_type(self._payloads, KeV2)
        if ke is None:
            raise syntax_error_v2("a CHILD SA with PFS is asked for without a public value")
        if ke.group != number:
            text = f"group {ke.group} for group {number}"
            raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, number.to_bytes(2, "big"))
        group = GROUPS[number]
        dh_key = group.private(self._sa.host.random(group.random_octets))
        return shared_secret(dh_key, ke), KeV2(number, dh_key.public)


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """Respond to the peer's request to create or rekey a CHILD SA."""
    _CreateChildResponder(sa, payloads, now).respond()
