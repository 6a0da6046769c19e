"""Tunnels of an ASP: from records to SAs, and the state that the ASP reports of each tunnel.

A negotiated tunnel has its SPD entries from records and its SAs from IKE (`chassis.ase.negotiated_sas`); it has no
SAs in a new process of the ASP. An entry of a manual tunnel has one SA in each direction, whose serial is the
number of the entry. The ASP reports a tunnel as up if every entry has both SAs and none has used its last sequence
number. The controller's state of the tunnel (`TunnelRecord.up`) only decides whether packets are encapsulated.
Inbound packets are decapsulated as long as the SA exists, because a peer may not know yet that the tunnel is down.

A change of records touches only the SAs that differ. Sequence numbers and windows belong to the SPI, so they
continue if the keys, the access list or the tunnel of an SA change. A manual SA whose keys, algorithms or window
are others now goes on with those that it has, until it is cleared (guide 11); access lists act at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from chassis.ase.counters import AnyCause
from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike_messages import IkeTunnelState
from chassis.ase.ipsec.encapsulate import Encapsulator
from chassis.ase.ipsec.sa import SaError, SequenceLease
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from chassis.ase.ipsec.state import StateError
from chassis.ase.sa_builder import (
    NEGOTIATED,
    SEQUENCE_END,
    Incomplete,
    SaPair,
    df_policy,
    manual_pair,
    sa_reports,
    spd_entries,
)
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import SaReport, TunnelEvent
from chassis.bus.records import Key, Policy, PolicyRecord, Record, TunnelRecord, policy_key
from chassis.bus.replication import RecordChange
from chassis.fwd.decision import Decision
from chassis.fwd.mtu import MtuLimits
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy
from chassis.model.ipsec import ManualSa

MAX_TUNNELS_PER_SLICE = 200
"""Tunnels that one call installs, which takes a few hundredths of a second."""

EXHAUSTED = "sequence numbers used up"
NO_SA_PAIR = "tunnel without sa"
COUNT_UNKNOWN = "next sequence number is unknown; configure another SPI"
NOT_NEGOTIATED = "not negotiated yet"

TunnelReport = tuple[str, tuple[SaReport, ...], str, tuple[int, ...]]
"""Reason, SAs, the peer's identity and the networks behind the peer, as reported to the controller."""


Way = tuple[int, str, str, int]
"""Context of the outer packets, card, port, next hop. The port is empty for circuit-based tunnels."""


@dataclass(frozen=True, slots=True)
class TunnelEgress:
    """Where a tunnel's outer packets go. It is valid while the forwarding decisions have the same `generation`.

    `cause` is the reason why they cannot be sent; `decision` is the forwarding decision for outer packets of an
    economical tunnel (None for a circuit-based one).
    """

    generation: int
    limits: MtuLimits
    cause: AnyCause | None = None
    decision: Decision | None = None
    way: Way | None = None
    """Outer packets of tunnels that have this in common go together; None: each tunnel's go alone, or nowhere."""
    smallest: int = 0
    """Octets of inner packets that are sent as they are (`MtuLimits.smallest`)."""
    inward: tuple[str, int] | None = None
    """Card and context of the inner packets that come out; no card: they are looked up here. None: nowhere, for
    `cause`."""


@dataclass(slots=True, eq=False)
class AspTunnel:
    """One tunnel that ends at this ASP: its record, its SAs, and the present egress."""

    record: TunnelRecord
    pairs: tuple[SaPair, ...] = ()
    reason: str = ""
    """Why the tunnel has no SAs, or none that can send; empty if it is up."""
    sas: tuple[SaReport, ...] = ()
    last_report: TunnelReport | None = None
    needs: frozenset[Key] = frozenset()
    """Keys of the records that its entries name."""
    egress: TunnelEgress | None = None
    only_sa: tuple[int, Encapsulator | None] = (-1, None)
    """The outbound SA of all packets (`Sadb.only_outbound`), and the version of the SPD for which that holds."""
    ike: IkeTunnelState | None = None
    """IKE's last report of a negotiated tunnel."""
    spd_entries: tuple[SpdEntry, ...] = ()
    """SPD entries of a negotiated tunnel, with or without SAs."""
    config_error: str = ""
    """Why a negotiated tunnel has no SPD entries; empty if it has."""

    @property
    def negotiated(self) -> bool:
        """Whether IKE makes the tunnel's SAs."""
        return self.record.config.kind in NEGOTIATED

    @property
    def peer(self) -> int:
        """Destination of outer packets. A peer behind a NAT may have another address than the record."""
        return self.pairs[-1].outbound.destination if self.pairs else self.record.remote

    @property
    def pending_report(self) -> TunnelReport:
        """The report of the present state."""
        if self.ike is None:
            return (self.reason, self.sas, "", ())
        return (self.reason, self.sas, self.ike.identity, self.ike.selectors)

    def evaluate(self) -> None:
        """Recompute `reason` and `sas` of a negotiated tunnel. Call it after its SAs, its entries or IKE's report
        changed."""
        self.egress = None
        self.sas = sa_reports(self.pairs)
        if self.config_error:
            self.reason = self.config_error
        elif self.ike is None:
            self.reason = NOT_NEGOTIATED
        elif not self.ike.up:
            self.reason = self.ike.reason or NOT_NEGOTIATED
        else:
            self.reason = "" if self.pairs else NO_SA_PAIR

    def report(self) -> Output:
        """Return the event that tells the controller how the tunnel is now, and remember it as the last report."""
        self.last_report = reason, sas, identity, selectors = self.pending_report
        record = self.record
        return ToController(TunnelEvent(record.number, self.up, reason, record.remote, identity, sas, selectors))

    @property
    def up(self) -> bool:
        """Whether the tunnel's SAs can carry packets."""
        return bool(self.pairs) and not self.reason

    @property
    def overhead(self) -> int:
        """The most octets that the tunnel's SAs add to a packet."""
        return max([pair.outbound.max_overhead() for pair in self.pairs], default=0)


@dataclass(frozen=True, slots=True)
class _WantedSas:
    pairs: tuple[SaPair, ...] = ()
    reason: str = ""


def _sa_inputs(record: TunnelRecord) -> tuple[object, ...]:
    """Return the fields of a record that its SAs are made from. Other fields may change without touching the
    SAs."""
    return (
        record.local,
        record.remote,
        record.context,
        record.outer_context,
        record.config.df_bit,
        record.config.entries,
        record.leases,
        record.config.kind,
        record.config.ike_policy,
    )


def _needs(record: TunnelRecord) -> frozenset[Key]:
    names = tuple([(entry.sa, entry.acl) for entry in record.config.entries])
    return _keys(names, record.context, _ike_policy(record) if record.config.ike_policy else None)


@lru_cache(maxsize=1024)
def _keys(names: tuple[tuple[str | None, str | None], ...], context: int, policy: Key | None) -> frozenset[Key]:
    """Return the keys of manual SAs and access lists, given by name, and of a policy. Many share the result."""
    sas: set[Key] = {policy_key(ManualSa, sa) for sa, _ in names if sa}
    acls: set[Key] = {policy_key(Acl, acl, context) for _, acl in names if acl}
    return frozenset(sas | acls | ({policy} if policy else set()))


def _ike_policy(record: TunnelRecord) -> Key:
    return policy_key(IkePolicy, record.config.ike_policy or "", record.outer_context)


def _put(table: dict[Any, Any], key: object, value: object, deleted: bool) -> None:
    if deleted:
        table.pop(key, None)
    else:
        table[key] = value


def _continued(pair: SaPair, held: SaPair | None) -> SaPair:
    """Return a pair with the keys, algorithms and window of the one that is held, if it is the same SAs."""
    if held is None or _identity(held) != _identity(pair):
        return pair
    outbound, inbound = held.outbound, held.inbound
    return replace(
        pair,
        outbound=replace(pair.outbound, esp=outbound.esp, ah=outbound.ah, ip_comp=outbound.ip_comp),
        inbound=replace(
            pair.inbound, esp=inbound.esp, ah=inbound.ah, ip_comp=inbound.ip_comp, window=inbound.window
        ),
    )


def _identity(pair: SaPair) -> tuple[object, ...]:
    """Return what names the SAs of a pair: ends, context, SPIs, and their assignment to this ASP."""
    outbound, inbound = pair.outbound, pair.inbound
    return (
        (outbound.source, outbound.destination, outbound.context, outbound.protocols, outbound.assignment),
        (inbound.source, inbound.destination, inbound.context, inbound.protocols, inbound.assignment),
    )


def _place(entry: SpdEntry) -> tuple[int, int]:
    return entry_and_rule(entry.number)


class TunnelTable:
    """The tunnels of one ASP by number, and the records of all other tunnels that routes may lead into."""

    def __init__(self, card: str, sadb: Sadb) -> None:
        self._card = card
        self._sadb = sadb
        self.local: dict[int, AspTunnel] = {}
        """The tunnels that end at this ASP, by number."""
        self.records: dict[int, TunnelRecord] = {}
        """Every tunnel of the router that this card has a record of."""
        self._sas: dict[str, ManualSa] = {}
        self._acls: dict[tuple[int, str], Acl] = {}
        self._versions: dict[Key, int] = {}
        """Of IKE policies."""
        self._users: dict[Key, set[int]] = {}
        """Tunnels by the key of a record that they name, whether it exists or not."""
        self._pending: dict[int, None] = {}
        """Tunnels whose SAs are to be brought to what the records say, in order."""
        self._refused: set[int] = set()
        """Tunnels whose SAs the database refused. They are retried when another tunnel releases SAs."""

    def name_of(self, number: int) -> str | None:
        """Return the name of a tunnel; None if there is no record of it."""
        record = self.records.get(number)
        return None if record is None else record.config.name

    def apply(self, change: RecordChange) -> None:
        """Apply changed records: remove the SAs that are no longer wanted; `install_pending` installs the others.

        All removals come before any installation, so an SPI that one tunnel releases can be used by another.
        """
        affected: dict[int, None] = {}
        for record in change.deleted:
            self._apply_record(record, True, affected)
        for record in change.put:
            self._apply_record(record, False, affected)
        self._sadb.state.reread_others()
        freed = False
        for number in affected:
            self._sadb.table.forget(number)
            state = self.local[number]
            wanted = self.records.get(number)
            if wanted is None or wanted.asp != self._card:
                freed |= self._remove_unwanted(state, ())
                self._set_needs(state, frozenset())
                self._sadb.spd.remove(number)
                self._refused.discard(number)
                self._pending.pop(number, None)
                del self.local[number]
                continue
            self._set_needs(state, _needs(wanted))
            if state.spd_entries and not state.negotiated:
                # The tunnel has manual keys now.
                self._sadb.spd.remove(number)
                state.spd_entries, state.ike = (), None
            if state.pairs:
                if state.negotiated:
                    freed |= self._remove_moved(state)
                else:
                    freed |= self._remove_unwanted(state, self._wanted_sas(wanted, state.pairs).pairs)
            self._pending[number] = None
        if freed:
            self._pending.update(dict.fromkeys(sorted(self._refused)))

    @property
    def pending(self) -> bool:
        """Whether `install_pending` has work left."""
        return bool(self._pending)

    def install_pending(self) -> list[Output]:
        """Install the SAs of the next `MAX_TUNNELS_PER_SLICE` tunnels; return the reports of those that changed.

        Thousands of tunnels take longer than a heartbeat may wait. Call it again while `pending`.
        """
        pending = self._pending
        outputs: list[Output] = []
        for number in list(islice(pending, MAX_TUNNELS_PER_SLICE)):
            del pending[number]
            state = self.local[number]
            if state.negotiated:
                self._apply_entries(state)
            else:
                plan = self._wanted_sas(state.record, state.pairs)
                self._remove_unwanted(state, plan.pairs)
                self._install(state, plan)
            if state.last_report != state.pending_report:
                outputs.append(state.report())
        return outputs

    def reinstall(self, number: int) -> list[Output]:
        """Remove and install the SAs of a manual tunnel; their numbers and windows continue. Return its report if
        it changed."""
        state = self.local[number]
        self._remove_unwanted(state, ())
        self._install(state, self._wanted_sas(state.record))
        return [state.report()] if state.last_report != state.pending_report else []

    def mark_exhausted(self, number: int) -> list[Output]:
        """Set the tunnel down, because an SA has used its last sequence number; return its report if it was up."""
        state = self.local.get(number)
        if state is None or not state.up:
            return []
        state.reason = EXHAUSTED
        return [state.report()]

    def _apply_record(self, record: Record, deleted: bool, affected: dict[int, None]) -> None:
        if isinstance(record, TunnelRecord):
            number = record.number
            if deleted:
                self.records.pop(number, None)
            else:
                self.records[number] = record
            state = self.local.get(number)
            if deleted or record.asp != self._card:
                if state is not None:
                    affected[number] = None
                return
            if state is None:
                self.local[number] = AspTunnel(record)
                affected[number] = None
                return
            if _sa_inputs(state.record) != _sa_inputs(record):
                affected[number] = None
            state.record = record
            self._sadb.table.forget(number)
        elif isinstance(record, PolicyRecord) and self._apply_policy(record.context, record.value, deleted):
            affected.update(dict.fromkeys(sorted(self._users.get(record.key, ()))))

    def _apply_policy(self, context: int, value: Policy, deleted: bool) -> bool:
        """Store a manual SA, an access list or the version of an IKE policy.

        Return whether tunnels that name it may change.
        """
        match value:
            case ManualSa():
                _put(self._sas, value.name, value, deleted)
            case Acl():
                _put(self._acls, (context, value.name), value, deleted)
            case IkePolicy():
                key = policy_key(IkePolicy, value.name, context)
                before = self._versions.get(key)
                _put(self._versions, key, value.version, deleted)
                return self._versions.get(key) != before
            case _:
                return False
        return True

    def _wanted_sas(self, record: TunnelRecord, held: Iterable[SaPair] = ()) -> _WantedSas:
        """Return the SA pairs of a tunnel with manual keys; those that are `held` go on as they are."""
        standing = {pair.outbound.serial: pair for pair in held if not pair.outbound.negotiated}
        try:
            if not record.config.entries:
                raise Incomplete(NO_SA_PAIR)
            pairs = [manual_pair(record, entry, self._sas, self._acls) for entry in record.config.entries]
            return _WantedSas(tuple([_continued(pair, standing.get(pair.outbound.serial)) for pair in pairs]))
        except (Incomplete, SaError) as error:
            return _WantedSas((), str(error))

    def _remove_unwanted(self, state: AspTunnel, wanted: tuple[SaPair, ...]) -> bool:
        """Remove the SAs that are not among `wanted`; return whether there were any."""
        sadb = self._sadb
        number = state.record.number
        outbound = {pair.outbound.serial: pair.outbound for pair in wanted}
        inbound = {pair.inbound.serial: pair.inbound for pair in wanted}
        removed = False
        for pair in state.pairs:
            serial = pair.outbound.serial
            if outbound.get(serial) != pair.outbound:
                removed |= sadb.remove_outbound(number, serial)
            if inbound.get(serial) != pair.inbound and sadb.remove_inbound(number, serial):
                removed = True
        return removed

    def _install(self, state: AspTunnel, plan: _WantedSas) -> None:
        sadb = self._sadb
        number = state.record.number
        self._refused.discard(number)
        held, reason = state.pairs, plan.reason
        state.pairs = plan.pairs
        exhausted = False
        try:
            for pair in plan.pairs:
                exhausted |= self._install_outbound(pair)
                sadb.install_inbound(pair.inbound)
        except (SaError, StateError) as error:
            # All or nothing: an entry without its SA would drop packets that later entries might match.
            reason = str(error)
            self._refused.add(number)
            self._remove_unwanted(state, ())
            state.pairs = ()
        if not state.pairs:
            sadb.spd.remove(number)
        elif sadb.spd.classifier(number) is None or [pair.spd_entry for pair in state.pairs] != [
            pair.spd_entry for pair in held
        ]:
            sadb.spd.set_entries(number, [pair.spd_entry for pair in state.pairs])
        state.reason = reason or (EXHAUSTED if exhausted else "")
        state.sas = sa_reports(state.pairs)
        state.egress = None
        sadb.table.forget(number)

    def _remove_moved(self, state: AspTunnel) -> bool:
        """Remove the SAs of a negotiated tunnel that were made between other addresses; return whether there were
        any."""
        record, sadb = state.record, self._sadb
        ends = (record.local, record.remote, record.outer_context, True)
        kept = []
        for pair in state.pairs:
            sa = pair.inbound
            if (sa.destination, sa.source, sa.context, sa.negotiated) == ends:
                kept.append(pair)
        if not kept:
            state.ike = None
        freed = self._remove_unwanted(state, tuple(kept))
        state.pairs = tuple(kept)
        try:
            df = df_policy(record)
        except Incomplete:
            return freed
        if any(pair.outbound.df != df for pair in kept):
            state.pairs = tuple([replace(pair, outbound=replace(pair.outbound, df=df)) for pair in kept])
            for pair in state.pairs:
                sadb.update_outbound(pair.outbound)
        return freed

    def _apply_entries(self, state: AspTunnel) -> None:
        """Set the SPD entries of a negotiated tunnel from its records, and those of removed policy lines that have
        SAs still. The inbound SAs accept what both their selectors and the entries match."""
        number = state.record.number
        state.config_error = ""
        policy: tuple[SpdEntry, ...] = ()
        try:
            df_policy(state.record)
            policy = spd_entries(state.record, self._acls, self._per_rule(state.record))
            held = self._held_entries(state)
            policy = tuple(sorted((*policy, *held), key=_place)) if held else policy
        except Incomplete as error:
            state.config_error = str(error)
        if not policy:
            self._sadb.spd.remove(number)
        elif policy != state.spd_entries or self._sadb.spd.classifier(number) is None:
            self._sadb.spd.set_entries(number, policy)
        state.spd_entries = policy
        for pair in state.pairs:
            self._sadb.restrict_selectors(number, pair.inbound.serial)
        self._sadb.table.forget(number)
        state.evaluate()

    def _held_entries(self, state: AspTunnel) -> list[SpdEntry]:
        """Return the entries of policy lines that were removed and have SAs still (guide 11)."""
        seqs = {entry.seq for entry in state.record.config.entries}
        numbers = {pair.outbound.entry for pair in state.pairs}
        return [
            entry
            for entry in state.spd_entries
            if entry.number in numbers and entry_and_rule(entry.number)[0] not in seqs
        ]

    def drop_removed_entries(self, state: AspTunnel) -> None:
        """SAs of a negotiated tunnel were removed: remove the entries of removed policy lines that have none
        now."""
        seqs = {entry.seq for entry in state.record.config.entries}
        if any(entry_and_rule(entry.number)[0] not in seqs for entry in state.spd_entries):
            self._apply_entries(state)

    def _per_rule(self, record: TunnelRecord) -> bool:
        """Whether each rule of the tunnel's entries has SAs of its own (IKEv1)."""
        return self._versions.get(_ike_policy(record)) == 1

    def _install_outbound(self, pair: SaPair) -> bool:
        """Install the outbound SA, or renew its lease; return whether it has no sequence number left."""
        sa, lease = pair.outbound, pair.lease
        running = self._sadb.outbound.get((sa.tunnel, sa.serial))
        if lease is None:
            return self._resume_outbound(pair, running)
        if running is None:
            return self._sadb.install_outbound(sa, lease).next_number >= SEQUENCE_END
        if running.limit != lease.limit or running.next_number < lease.first:
            # Half of a renewed lease counts from the SA's next number.
            first = min(max(running.next_number, lease.first), SEQUENCE_END)
            running.renew_lease(SequenceLease(first, max(first, lease.limit)))
        return running.next_number >= SEQUENCE_END

    def _resume_outbound(self, pair: SaPair, running: Encapsulator | None) -> bool:
        """Install an outbound SA whose next number the controller does not know; return whether it has no number
        left.

        It continues from the stored number, and may use none until the controller grants a lease.

        Raises:
            SaError: no ASP of the router has a stored number.
        """
        sa = pair.outbound
        if running is None:
            running = self._sadb.install_outbound(sa, SequenceLease(1, 1))
        if running.next_number <= 1:
            self._sadb.remove_outbound(sa.tunnel, sa.serial)
            raise SaError(COUNT_UNKNOWN)
        return running.next_number >= SEQUENCE_END

    def _set_needs(self, state: AspTunnel, needs: frozenset[Key]) -> None:
        """Set the records that the tunnel depends on."""
        users = self._users
        number = state.record.number
        for key in state.needs - needs:
            users[key].discard(number)
            if not users[key]:
                del users[key]
        for key in needs - state.needs:
            users.setdefault(key, set()).add(number)
        state.needs = needs
