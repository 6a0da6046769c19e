"""Connections: the configuration of each negotiated tunnel of an ASP, built from replicated records.

`Connections.apply` takes changed records and returns the tunnels whose `Connection` changed. `config_error` says
why a tunnel cannot be negotiated. Only tunnels that name a changed record are built again: thousands may share a
policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar, cast

from chassis.ase.entry_numbers import entry_number, rules_with_own_sas
from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY, PRFS
from chassis.ase.ike.crypto.diffie_hellman import GROUPS
from chassis.ase.ike.identity import IkeIdentity
from chassis.bus.records import (
    POLICY_KINDS,
    CertificateRecord,
    ContextRecord,
    Key,
    PolicyRecord,
    Record,
    TunnelRecord,
    policy_key,
)
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, TunnelEntry
from chassis.net.address import MASKS


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy entry (`seq` line) of a tunnel, or with IKEv1 one rule of it. Each has its own CHILD SA.

    `rules` select its traffic as in the access list, with the source on our side; `()` selects all. `rule` is the
    number of the one rule, 0 if all rules are negotiated together. `suites` are its proposals in order. `window`
    is that of antireplay (packets).
    """

    seq: int
    policy: str
    suites: tuple[Suite, ...]
    rules: tuple[AclRule, ...]
    window: int
    rule: int = 0

    @property
    def number(self) -> int:
        """Its number in the data engine (`chassis.ase.entry_numbers`)."""
        return entry_number(self.seq, self.rule)

    @property
    def remote_networks(self) -> tuple[tuple[int, int], ...]:
        """The peer's networks: (address, prefix length), each once."""
        rules = self.rules or (AclRule(0),)
        return tuple(dict.fromkeys(rule.destination for rule in rules))


@dataclass(frozen=True, slots=True)
class Connection:
    """A tunnel whose SAs are negotiated. `local` and `remote` are its outer addresses, in `context`.

    `identity` is ours, `expected` the peer's. `psk` is None without a preshared key. `enabled`: the configuration
    is complete. `peer_reachable`: there is a route to the peer. `config_error` says why the tunnel cannot be
    negotiated; empty if it can.

    `on_demand` is the number of the on-demand tunnel whose instance this is, for one authenticated peer; 0 for a
    static tunnel. While the peer has no instance yet, `tunnel` is 0: `policy`, `proposals` and `identity` are then
    those with which it is authenticated. `key_from_aaa`: the policy says `pre-shared-key use-aaa`. `inner_address`
    was assigned to the peer; 0 without one.
    """

    tunnel: int
    name: str
    context: int
    context_name: str
    local: int
    remote: int
    version: int
    policy: IkePolicy
    proposals: tuple[IkeProposal, ...]
    entries: tuple[PolicyEntry, ...]
    identity: IkeIdentity
    expected: IkeIdentity
    psk: bytes | None = field(default=None, repr=False)
    credentials: Credentials | None = field(default=None, repr=False)
    keepalive: bool = False
    enabled: bool = True
    peer_reachable: bool = True
    config_error: str = ""
    on_demand: int = 0
    key_from_aaa: bool = False
    inner_address: int = 0

    @property
    def is_candidate(self) -> bool:
        """Whether this is an on-demand tunnel as it is before a peer has an instance of it."""
        return bool(self.on_demand) and not self.tunnel

    @property
    def lacks_address(self) -> bool:
        """Whether the policy assigns inner addresses, and the peer of this instance has none."""
        return bool(self.on_demand) and self.policy.address_allocation and not self.inner_address

    @property
    def may_initiate(self) -> bool:
        """Whether this end may bring the tunnel up. That of an on-demand peer waits for the peer (guide 9.3)."""
        return not self.on_demand and self.may_renew

    @property
    def may_renew(self) -> bool:
        """Whether this end may negotiate a new IKEv1 phase 1 while there is an IKE SA."""
        return self.policy.connection_type != "responder-only"

    @property
    def may_respond(self) -> bool:
        return self.policy.connection_type != "initiator-only"

    def entry(self, number: int) -> PolicyEntry | None:
        """Return the entry, or the rule of one, with this number; None without one."""
        return next((entry for entry in self.entries if entry.number == number), None)


@dataclass(frozen=True, slots=True)
class ConnectionGroup:
    """Connections of one version between the same two addresses. The peer's identity tells which one it means;
    main mode with preshared keys has to choose before (`single`).

    `proposals` are those of all members, in order, each once. `by_identity` is indexed by `IkeIdentity.key` of the
    peer's expected identity.
    """

    members: tuple[Connection, ...]
    proposals: tuple[IkeProposal, ...]
    by_identity: Mapping[tuple[int, bytes], Sequence[Connection]]

    @property
    def single(self) -> Connection:
        """The first member, used for all of them until the peer's identity is known."""
        return self.members[0]

    def identified(self, identity: IkeIdentity) -> Connection | None:
        """Return the first connection that expects this identity of the peer; None without one."""
        found = self.by_identity.get(identity.key)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Peer:
    """The authenticated peer of an instance: its identity, and its preshared key if AAA gave it."""

    identity: IkeIdentity
    psk: bytes | None = field(default=None, repr=False)


STATIC = "static"
_PROPOSALS = frozenset({POLICY_KINDS[IkeProposal], POLICY_KINDS[IpsecProposal]})
_ELSEWHERE: dict[str, Any] = {
    "proposals": (), "pre_shared_key": None, "identity_local": None, "identity_remote": None,
}  # fmt: skip
"""Fields of a policy that are empty there, because a `Connection` has them itself."""
_P = TypeVar("_P")
R = TypeVar("R")
NOBODY: Final = IkeIdentity.address(0)
"""Who is expected by a connection that has no peer yet."""
GroupKey = tuple[int, int, int, int]
"""(context, local address, remote address, version)."""


class ConfigError(Exception):
    """A tunnel cannot be negotiated. The text is the reason, for the operator."""


class Connections:
    """The connections of one ASP, by tunnel number and by the addresses of both ends."""

    def __init__(self) -> None:
        self.by_tunnel: dict[int, Connection] = {}
        self._records: dict[Key, Record] = {}
        self._tunnels: dict[int, TunnelRecord] = {}
        self._users: dict[Key, set[int]] = {}
        self._needs: dict[int, frozenset[Key]] = {}
        self._members: dict[GroupKey, dict[int, None]] = {}
        self._groups: dict[GroupKey, ConnectionGroup] = {}
        self._credentials: dict[int, Credentials] = {}
        self._certificates: dict[int, dict[Key, CertificateRecord]] = {}
        self._peers: dict[int, Peer] = {}
        """The peers of instances that were authenticated here, by tunnel."""
        self.generation = 0
        """It changes with every record that is not a tunnel's."""
        self._shared: dict[object, object] = {}
        """What many connections have in common, by itself, so that there is one of it. Emptied with each change of
        `generation`."""
        self.problems: list[str] = []
        """Errors in certificates since the caller last cleared this list."""

    def apply(
        self, put: Iterable[Record], delete: Iterable[Key], full: bool = False
    ) -> dict[int, tuple[Connection | None, Connection | None]]:
        """Apply changed records; return (before, after) of each changed connection, by tunnel.

        With `full` delete all records that are not in `put`.
        """
        touched: dict[int, None] = {}
        contexts: set[int] = set()
        if full:
            delete = [*self._records, *((TunnelRecord.TYPE, number) for number in self._tunnels)]
            kept = {record.key for record in put}
            delete = [key for key in delete if key not in kept]
        for key in delete:
            self._apply_record(key, None, touched, contexts)
        for record in put:
            self._apply_record(record.key, record, touched, contexts)
        for context in contexts:
            found = self._certificates.get(context, {})
            self._credentials[context], problems = Credentials.read(found.values())
            self.problems += problems
        changes: dict[int, tuple[Connection | None, Connection | None]] = {}
        for number in touched:
            before, after = self.by_tunnel.get(number), self._connection(number)
            if before == after:
                continue
            changes[number] = (before, after)
            self._index(before, after)
        return changes

    def group(self, context: int, local: int, remote: int, version: int) -> ConnectionGroup | None:
        """Return the connections of a version between two addresses; None without any."""
        key = (context, local, remote, version)
        group = self._groups.get(key)
        if group is not None:
            return group
        numbers = self._members.get(key)
        if not numbers:
            return None
        members = tuple(self.by_tunnel[number] for number in sorted(numbers))
        by_identity: dict[tuple[int, bytes], list[Connection]] = {}
        proposals: dict[str, IkeProposal] = {}
        for member in members:
            by_identity.setdefault(member.expected.key, []).append(member)
            for proposal in member.proposals:
                proposals.setdefault(proposal.name, proposal)
        group = ConnectionGroup(members, tuple(proposals.values()), by_identity)
        self._groups[key] = group
        return group

    def set_peer(self, tunnel: int, peer: Peer) -> Connection:
        """Store who the peer of an instance is, and return the instance's connection.

        Raises:
            KeyError: there is no such tunnel.
        """
        self._peers[tunnel] = peer
        after = replace(self.by_tunnel[tunnel], expected=peer.identity)
        if peer.psk is not None:
            after = replace(after, psk=peer.psk)
        self.by_tunnel[tunnel] = after
        return after

    def records(self, kind: type[R]) -> list[R]:
        """Return the records of a type that is not a tunnel's."""
        return [record for record in self._records.values() if isinstance(record, kind)]

    # inside

    def _apply_record(self, key: Key, record: Record | None, touched: dict[int, None], contexts: set[int]) -> None:
        kind = key[0]
        if kind == TunnelRecord.TYPE:
            number = int(key[1])
            known = number in self._tunnels
            if isinstance(record, TunnelRecord) and (record.config.kind == STATIC or record.instance is not None):
                self._tunnels[number] = record
                self._use(number, self._one(_needs(record)))
            elif known:
                del self._tunnels[number]
                self._peers.pop(number, None)
                self._use(number, frozenset())
            else:
                return
            touched[number] = None
            return
        self.generation += 1
        self._shared.clear()
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record
        if kind == CertificateRecord.TYPE:
            context = int(key[1])
            store = self._certificates.setdefault(context, {})
            if isinstance(record, CertificateRecord):
                store[key] = record
            else:
                store.pop(key, None)
            contexts.add(context)
            touched.update(
                dict.fromkeys(number for number, one in self._tunnels.items() if one.outer_context == context)
            )
        elif kind in _PROPOSALS:
            for policy in [one for one in self._records.values() if _lists(one, key[1])]:
                touched.update(dict.fromkeys(sorted(self._users.get(policy.key, ()))))
        else:
            touched.update(dict.fromkeys(sorted(self._users.get(key, ()))))

    def _use(self, number: int, needs: frozenset[Key]) -> None:
        before = self._needs.get(number, frozenset())
        for key in before - needs:
            self._users[key].discard(number)
            if not self._users[key]:
                del self._users[key]
        for key in needs - before:
            self._users.setdefault(key, set()).add(number)
        if needs:
            self._needs[number] = needs
        else:
            self._needs.pop(number, None)

    def _index(self, before: Connection | None, after: Connection | None) -> None:
        if before is not None:
            del self.by_tunnel[before.tunnel]
            if not before.on_demand:
                key = _group_key(before)
                del self._members[key][before.tunnel]
                if not self._members[key]:
                    del self._members[key]
                self._groups.pop(key, None)
        if after is not None:
            self.by_tunnel[after.tunnel] = after
            if not after.on_demand:
                # The peer of an instance is found by its identity alone, never by its address.
                key = _group_key(after)
                self._members.setdefault(key, {})[after.tunnel] = None
                self._groups.pop(key, None)

    def _connection(self, number: int) -> Connection | None:
        record = self._tunnels.get(number)
        if record is None:
            return None
        policy = self.ike_policy(record.config.ike_policy, record.outer_context)
        if policy is None:
            return None
        ends = self.policy_connection(policy, record.outer_context, record.local)
        entries: tuple[PolicyEntry, ...] = ()
        config_error = ends.config_error
        try:
            if not config_error:
                entries = tuple(
                    part
                    for entry in record.config.entries
                    for part in _negotiated_parts(self._entry(record, entry), ends.version)
                )
                if not entries:
                    raise ConfigError("no IPsec policy")
        except ConfigError as error:
            config_error = str(error)
        instance = record.instance
        if instance is not None and instance.address:
            entries = _for_address(entries, instance.address)
        expected = record.config.remote_id or remote_identity(policy)
        found = replace(
            ends,
            tunnel=record.number,
            name=record.config.name,
            remote=record.remote,
            entries=entries,
            expected=IkeIdentity.of(expected) if expected else IkeIdentity.address(record.remote),
            enabled=record.wanted,
            peer_reachable=record.up,
            config_error=config_error,
            on_demand=0 if instance is None else instance.on_demand,
            inner_address=0 if instance is None else instance.address,
        )
        peer = self._peers.get(number)
        if peer is None:
            return found
        return replace(found, expected=peer.identity, psk=found.psk if peer.psk is None else peer.psk)

    def ike_policy(self, name: str | None, context: int) -> IkePolicy | None:
        """Return an IKE policy of a context; None if it does not exist."""
        return self._policy(IkePolicy, name or "", context)

    def policy_connection(self, policy: IkePolicy, context: int, local: int) -> Connection:
        """Return what a policy says of a connection of `local` in a context; what a tunnel adds is empty."""
        record = self._records.get((ContextRecord.TYPE, context))
        found = (self._policy(IkeProposal, ref.name) for ref in policy.proposals)
        proposals = tuple(one for one in found if one is not None and one.version == policy.version and one.exists)
        own, key = policy.identity_local, policy.pre_shared_key
        return Connection(
            tunnel=0,
            name="",
            context=context,
            context_name=record.name if isinstance(record, ContextRecord) else str(context),
            local=local,
            remote=0,
            version=policy.version,
            policy=self._one(replace(policy, **_ELSEWHERE)),
            proposals=self._one(proposals),
            entries=(),
            identity=self._one(IkeIdentity.of(own.value) if own is not None else IkeIdentity.address(local)),
            expected=NOBODY,
            psk=policy.psk,
            credentials=self._credentials.get(context),
            keepalive=isinstance(record, ContextRecord) and record.keepalive,
            config_error=_error_in(policy, proposals),
            key_from_aaa=key is not None and key.form == "aaa",
        )

    def _policy(self, kind: type[_P], name: str, context: int = 0) -> _P | None:
        record = self._records.get(policy_key(kind, name, context))
        value = record.value if isinstance(record, PolicyRecord) else None
        return value if isinstance(value, kind) else None

    def _entry(self, record: TunnelRecord, entry: TunnelEntry) -> PolicyEntry:
        policy = self._policy(IpsecPolicy, entry.policy or "")
        if policy is None:
            raise ConfigError(f"IPsec policy {entry.policy} does not exist")
        found = (self._policy(IpsecProposal, ref.name) for ref in policy.proposals)
        suites = tuple(Suite(one, policy.pfs_group, policy.esn) for one in found if one is not None)
        if not suites:
            raise ConfigError(f"IPsec policy {policy.name} has no proposal")
        for suite in suites:
            if suite.without_protection:
                raise ConfigError(f"IPsec proposal {suite.proposal.name} has neither cipher nor integrity")
        rules: tuple[AclRule, ...] = ()
        if entry.acl:
            acl = self._policy(Acl, entry.acl, record.context)
            if acl is None:
                raise ConfigError(f"access list {entry.acl} does not exist")
            if not acl.rules:
                raise ConfigError(f"access list {entry.acl} has no rule")
            rules = acl.rules
        return self._one(PolicyEntry(entry.seq, policy.name, suites, rules, policy.window))

    def _one(self, value: _P) -> _P:
        """Return an equal value that another connection has, or this one."""
        return cast(_P, self._shared.setdefault(value, value))


def _negotiated_parts(entry: PolicyEntry, version: int) -> Iterable[PolicyEntry]:
    """Return the parts of an entry that are negotiated apart: with IKEv1 each rule, with IKEv2 the whole entry."""
    if version != 1 or not entry.rules:
        return (entry,)
    return [replace(entry, rules=(rule,), rule=rule.seq) for rule in rules_with_own_sas(entry.rules)]


def _lists(record: Record, proposal: object) -> bool:
    """Return whether a record is a policy that names a proposal."""
    value = record.value if isinstance(record, PolicyRecord) else None
    return isinstance(value, IkePolicy | IpsecPolicy) and any(ref.name == proposal for ref in value.proposals)


def _group_key(connection: Connection) -> GroupKey:
    return (connection.context, connection.local, connection.remote, connection.version)


def _needs(record: TunnelRecord) -> frozenset[Key]:
    keys: set[Key] = {
        (ContextRecord.TYPE, record.outer_context),
        policy_key(IkePolicy, record.config.ike_policy or "", record.outer_context),
    }
    for entry in record.config.entries:
        keys.add(policy_key(IpsecPolicy, entry.policy or ""))
        if entry.acl:
            keys.add(policy_key(Acl, entry.acl, record.context))
    return frozenset(keys)


def _error_in(policy: IkePolicy, proposals: tuple[IkeProposal, ...]) -> str:
    """Return why a policy with these proposals cannot be used; empty if it can."""
    if not proposals:
        return f"IKE policy {policy.name} has no proposal"
    for proposal in proposals:
        known = (
            proposal.encryption_algorithm in CIPHERS
            and proposal.authentication_algorithm in INTEGRITY
            and proposal.prf in PRFS
            and proposal.dh_group in GROUPS
        )
        if not known:
            return f"IKE proposal {proposal.name} names an unknown algorithm"
    return ""


def remote_identity(policy: IkePolicy) -> str:
    """Return the identity of peers that a policy expects; empty if it says nothing."""
    return "" if policy.identity_remote is None else policy.identity_remote.value


def _for_address(entries: tuple[PolicyEntry, ...], address: int) -> tuple[PolicyEntry, ...]:
    """Return the entries with the peer's side cut to the address that was assigned to it (RFC 7296 2.19)."""
    cut: list[PolicyEntry] = []
    for entry in entries:
        rules = tuple(
            replace(rule, destination=(address, 32))
            for rule in entry.rules or (AclRule(0),)
            if not (rule.destination[0] ^ address) & MASKS[rule.destination[1]]
        )
        if rules:
            cut.append(replace(entry, rules=rules))
    return tuple(cut)
