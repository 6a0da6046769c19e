"""Tunnels of an ASP: from records to security associations, and back to the controller's questions.

A manual tunnel's line is one SA in each direction, whose serial is the number of the line. A tunnel is up, as far
as the ASP is concerned, when every line has both and none has used up its numbers; the controller's own word
(`Tunnel.up`) only decides whether packets are protected. Inbound packets are accepted as long as the SA is there:
a peer that has not noticed yet that the tunnel is down loses nothing that this end can still deliver.

A change touches only the SAs that differ. Sequence numbers and windows of an SA stay where they are when its keys,
its access list or its tunnel change, because they belong to what the wire names it by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from chassis.ase.counters import AnyCause
from chassis.ase.ipsec.policy import PolicyEntry
from chassis.ase.ipsec.sa import LAST_SEQUENCE, Ah, DfPolicy, Esp, InboundSa, Lease, OutboundSa, SaError
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.selectors import Rule
from chassis.ase.ipsec.state import StateError
from chassis.ase.sizes import Limits
from chassis.bus.messages import SaState
from chassis.bus.records import Acl, AclRule, Key, ManualSa, Record, SaKeys, Tunnel, TunnelEntry
from chassis.bus.replication import Change
from chassis.fwd.decide import Decision

END = LAST_SEQUENCE + 1

SLICE = 200
"""Tunnels that are installed in one go: a few hundredths of a second."""

EXHAUSTED = "sequence numbers used up"


class _Incomplete(Exception):
    """A tunnel that cannot have its SAs; the text is the reason that the operator reads."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The SAs of one line of a tunnel."""

    outbound: OutboundSa
    inbound: InboundSa
    lease: Lease
    policy: PolicyEntry


@dataclass(frozen=True, slots=True)
class Path:
    """How a tunnel's packets go on, as decided in a generation of the forwarding decisions and void in the next.

    `cause` says why they cannot; `way` is the decision for protected packets of an economical tunnel.
    """

    generation: int
    limits: Limits
    cause: AnyCause | None = None
    way: Decision | None = None


@dataclass(slots=True, eq=False)
class TunnelState:
    """One tunnel that ends at this ASP: its record, its SAs, and how its packets go on at the moment."""

    record: Tunnel
    pairs: tuple[Pair, ...] = ()
    reason: str = ""
    """Why it has no SAs, or none that can send; empty when all is well."""
    sas: tuple[SaState, ...] = ()
    told: tuple[str, tuple[SaState, ...]] | None = None
    """Reason and SAs as last reported."""
    needs: frozenset[Key] = frozenset()
    """Keys of the records that its lines name."""
    path: Path | None = None

    @property
    def up(self) -> bool:
        """Whether its SAs can carry packets."""
        return bool(self.pairs) and not self.reason

    @property
    def overhead(self) -> int:
        """The most octets that its SAs add to a packet."""
        return max([pair.outbound.worst_overhead() for pair in self.pairs], default=0)


@dataclass(frozen=True, slots=True)
class _Plan:
    pairs: tuple[Pair, ...] = ()
    reason: str = ""


def _substance(record: Tunnel) -> tuple[object, ...]:
    """What of a tunnel its SAs are made from: all else may change without touching them."""
    return (
        record.local,
        record.remote,
        record.context,
        record.outer_context,
        record.df_bit,
        record.entries,
    )


def _needs(record: Tunnel) -> frozenset[Key]:
    sas: set[Key] = {(ManualSa.TYPE, entry.sa) for entry in record.entries if entry.sa}
    acls: set[Key] = {(Acl.TYPE, record.context, entry.acl) for entry in record.entries if entry.acl}
    return frozenset(sas | acls)


def _esp(keys: SaKeys) -> Esp | None:
    if not keys.esp_spi:
        return None
    return Esp(
        keys.esp_spi,
        keys.esp_cipher,
        keys.esp_cipher_key,
        keys.esp_integrity or None,
        keys.esp_integrity_key,
    )


def _ah(keys: SaKeys) -> Ah | None:
    return Ah(keys.ah_spi, keys.ah_integrity, keys.ah_key) if keys.ah_spi else None


def _rule(rule: AclRule) -> Rule:
    return Rule(
        protocol=None if rule.protocol < 0 else rule.protocol,
        source=(rule.source, rule.source_length),
        source_port=None if rule.source_port < 0 else rule.source_port,
        destination=(rule.destination, rule.destination_length),
        destination_port=None if rule.destination_port < 0 else rule.destination_port,
    )


def _lease(entry: TunnelEntry) -> Lease:
    first = min(max(entry.lease_start, 1), END)
    return Lease(first, min(max(entry.lease_end, first), END))


def _states(pairs: Iterable[Pair]) -> tuple[SaState, ...]:
    states = []
    for pair in pairs:
        for sa, direction, peer, window in (
            (pair.outbound, "out", pair.outbound.destination, 0),
            (pair.inbound, "in", pair.inbound.source, pair.inbound.window),
        ):
            if sa.ah is not None:
                states.append(
                    SaState(sa.tunnel, sa.serial, direction, "ah", sa.ah.spi, peer, sa.ah.integrity, window)
                )
            if sa.esp is not None:
                integrity = sa.esp.integrity
                names = f"{sa.esp.cipher} {integrity}" if integrity else sa.esp.cipher
                # Without integrity there is no window (RFC 4303 3.4.3).
                kept = window if integrity else 0
                states.append(SaState(sa.tunnel, sa.serial, direction, "esp", sa.esp.spi, peer, names, kept))
    return tuple(states)


class TunnelTable:
    """The tunnels of one ASP by number, and all others of the node that its routes may lead into."""

    def __init__(self, card: str, sadb: Sadb) -> None:
        self._card = card
        self._sadb = sadb
        self.states: dict[int, TunnelState] = {}
        self.records: dict[int, Tunnel] = {}
        """Every tunnel of the node that this card was told of."""
        self._sas: dict[str, ManualSa] = {}
        self._acls: dict[tuple[int, str], Acl] = {}
        self._users: dict[Key, set[int]] = {}
        """Tunnels by the key of a record that they name, whether it exists or not."""
        self._pending: dict[int, None] = {}
        """Tunnels whose SAs are to be brought to what the records say, in order."""
        self._refused: set[int] = set()
        """Tunnels whose SAs the database refused: tried again when another gives something back."""

    def apply(self, change: Change) -> None:
        """Act on changed records: take away the SAs that are no more wanted, and note the tunnels for `install`.

        All removals come before any installation, so that what one tunnel gives up another can have.
        """
        affected: dict[int, None] = {}
        for record in change.deleted:
            self._take(record, True, affected)
        for record in change.put:
            self._take(record, False, affected)
        freed = False
        for number in affected:
            state = self.states[number]
            wanted = self.records.get(number)
            if wanted is None or wanted.asp != self._card:
                freed |= self._keep(state, ())
                self._use(state, frozenset())
                self._sadb.policies.remove(number)
                self._refused.discard(number)
                self._pending.pop(number, None)
                del self.states[number]
                continue
            self._use(state, _needs(wanted))
            if state.pairs:
                freed |= self._keep(state, self._plan(wanted).pairs)
            self._pending[number] = None
        if freed:
            self._pending.update(dict.fromkeys(sorted(self._refused)))

    @property
    def pending(self) -> bool:
        """Whether `install` has work left."""
        return bool(self._pending)

    def install(self) -> list[TunnelState]:
        """Bring the next `SLICE` tunnels to what the records say; those of which there is news to report.

        Thousands of tunnels take longer than a heartbeat may wait, so the caller comes back for the rest.
        """
        pending = self._pending
        news = []
        for number in list(islice(pending, SLICE)):
            del pending[number]
            state = self.states[number]
            plan = self._plan(state.record)
            self._keep(state, plan.pairs)
            self._install(state, plan)
            if state.told != (state.reason, state.sas):
                news.append(state)
        return news

    def exhausted(self, number: int) -> TunnelState | None:
        """An SA of the tunnel has used its last number: the tunnel as it is now, if that is news."""
        state = self.states.get(number)
        if state is None or not state.up:
            return None
        state.reason = EXHAUSTED
        return state

    def _take(self, record: Record, deleted: bool, affected: dict[int, None]) -> None:
        if isinstance(record, Tunnel):
            number = record.number
            if deleted:
                self.records.pop(number, None)
            else:
                self.records[number] = record
            state = self.states.get(number)
            if deleted or record.asp != self._card:
                if state is not None:
                    affected[number] = None
                return
            if state is None:
                self.states[number] = TunnelState(record)
                affected[number] = None
                return
            if _substance(state.record) != _substance(record):
                affected[number] = None
            state.record = record
        elif isinstance(record, ManualSa):
            if deleted:
                self._sas.pop(record.name, None)
            else:
                self._sas[record.name] = record
            affected.update(dict.fromkeys(sorted(self._users.get(record.key, ()))))
        elif isinstance(record, Acl):
            if deleted:
                self._acls.pop((record.context, record.name), None)
            else:
                self._acls[record.context, record.name] = record
            affected.update(dict.fromkeys(sorted(self._users.get(record.key, ()))))

    def _plan(self, record: Tunnel) -> _Plan:
        try:
            if not record.entries:
                raise _Incomplete("no security association")
            return _Plan(tuple([self._pair(record, entry) for entry in record.entries]))
        except (_Incomplete, SaError) as error:
            return _Plan((), str(error))

    def _pair(self, record: Tunnel, entry: TunnelEntry) -> Pair:
        if not entry.sa:
            raise _Incomplete(f"seq {entry.seq} names no security association")
        sa = self._sas.get(entry.sa)
        if sa is None:
            raise _Incomplete(f"security association {entry.sa} is not there")
        rules: tuple[Rule, ...] = ()
        if entry.acl:
            acl = self._acls.get((record.context, entry.acl))
            if acl is None:
                raise _Incomplete(f"access list {entry.acl} is not there")
            if not acl.rules:
                raise _Incomplete(f"access list {entry.acl} has no rule")
            try:
                # On a manual tunnel only the first rule filters (guide 8.4).
                rules = (_rule(acl.rules[0]),)
            except ValueError as error:
                raise _Incomplete(f"access list {entry.acl}: {error}") from None
        try:
            df = DfPolicy(record.df_bit)
        except ValueError:
            raise _Incomplete(f"no such df-bit: {record.df_bit}") from None
        try:
            return Pair(
                OutboundSa(
                    tunnel=record.number,
                    serial=entry.seq,
                    source=record.local,
                    destination=record.remote,
                    entry=entry.seq,
                    context=record.outer_context,
                    esp=_esp(sa.outbound),
                    ah=_ah(sa.outbound),
                    df=df,
                    ip_comp=sa.ip_comp,
                ),
                InboundSa(
                    tunnel=record.number,
                    serial=entry.seq,
                    source=record.remote,
                    destination=record.local,
                    context=record.outer_context,
                    esp=_esp(sa.inbound),
                    ah=_ah(sa.inbound),
                    window=sa.window,
                    selectors=tuple([rule.mirrored() for rule in rules]),
                    ip_comp=sa.ip_comp,
                ),
                _lease(entry),
                PolicyEntry(entry.seq, rules),
            )
        except SaError as error:
            raise _Incomplete(f"security association {entry.sa}: {error}") from None

    def _keep(self, state: TunnelState, wanted: tuple[Pair, ...]) -> bool:
        """Remove the SAs that are not among those wanted; whether there were any."""
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

    def _install(self, state: TunnelState, plan: _Plan) -> None:
        sadb = self._sadb
        number = state.record.number
        self._refused.discard(number)
        held, reason = state.pairs, plan.reason
        state.pairs = plan.pairs
        exhausted = False
        try:
            for pair in plan.pairs:
                exhausted |= self._send_by(pair)
                sadb.install_inbound(pair.inbound)
        except (SaError, StateError) as error:
            # All or nothing: a line without its SA would drop what the lines after it might carry.
            reason = str(error)
            self._refused.add(number)
            self._keep(state, ())
            state.pairs = ()
        if not state.pairs:
            sadb.policies.remove(number)
        elif [pair.policy for pair in state.pairs] != [pair.policy for pair in held]:
            sadb.policies.put(number, [pair.policy for pair in state.pairs])
        state.reason = reason or (EXHAUSTED if exhausted else "")
        state.sas = _states(state.pairs)

    def _send_by(self, pair: Pair) -> bool:
        """Install the outbound SA, or renew its lease; whether it has no number left."""
        sa, lease = pair.outbound, pair.lease
        running = self._sadb.outbound.get((sa.tunnel, sa.serial))
        if running is None:
            return self._sadb.install_outbound(sa, lease).next_number >= END
        if running.limit != lease.limit or running.next_number < lease.first:
            # Half of a renewed lease counts from where the SA is now.
            first = min(max(running.next_number, lease.first), END)
            running.renew(Lease(first, max(first, lease.limit)))
        return running.next_number >= END

    def _use(self, state: TunnelState, needs: frozenset[Key]) -> None:
        """Note which records the tunnel depends on."""
        users = self._users
        number = state.record.number
        for key in state.needs - needs:
            users[key].discard(number)
            if not users[key]:
                del users[key]
        for key in needs - state.needs:
            users.setdefault(key, set()).add(number)
        state.needs = needs
