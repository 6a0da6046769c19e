"""Connections: the configuration of each negotiated tunnel of an ASP, built from replicated records.

`Connections.apply` takes changed records and returns the tunnels whose `Connection` changed. `config_error` says
why a tunnel cannot be negotiated. Only tunnels that name a changed record are built again: thousands may share a
policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

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

    @property
    def may_initiate(self) -> bool:
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


STATIC = "static"
_PROPOSALS = frozenset({POLICY_KINDS[IkeProposal], POLICY_KINDS[IpsecProposal]})
_ELSEWHERE: dict[str, Any] = {
    "proposals": (), "pre_shared_key": None, "identity_local": None, "identity_remote": None,
}  # fmt: skip
"""Fields of a policy that are empty there, because a `Connection` has them itself."""
_P = TypeVar("_P")
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

    # inside

    def _apply_record(self, key: Key, record: Record | None, touched: dict[int, None], contexts: set[int]) -> None:
        kind = key[0]
        if kind == TunnelRecord.TYPE:
            number = int(key[1])
            known = number in self._tunnels
            if isinstance(record, TunnelRecord) and record.config.kind == STATIC:
                self._tunnels[number] = record
                self._use(number, _needs(record))
            elif known:
                del self._tunnels[number]
                self._use(number, frozenset())
            else:
                return
            touched[number] = None
            return
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
            key = _group_key(before)
            del self.by_tunnel[before.tunnel]
            del self._members[key][before.tunnel]
            if not self._members[key]:
                del self._members[key]
            self._groups.pop(key, None)
        if after is not None:
            key = _group_key(after)
            self.by_tunnel[after.tunnel] = after
            self._members.setdefault(key, {})[after.tunnel] = None
            self._groups.pop(key, None)

    def _connection(self, number: int) -> Connection | None:
        record = self._tunnels.get(number)
        if record is None:
            return None
        context = self._records.get((ContextRecord.TYPE, record.outer_context))
        context_name = context.name if isinstance(context, ContextRecord) else str(record.outer_context)
        policy = self._policy(IkePolicy, record.config.ike_policy or "", record.outer_context)
        if policy is None:
            return None
        proposals = tuple(
            one
            for one in (self._policy(IkeProposal, ref.name) for ref in policy.proposals)
            if one is not None and one.version == policy.version and one.exists
        )
        entries: tuple[PolicyEntry, ...] = ()
        config_error = ""
        try:
            if not proposals:
                raise ConfigError(f"IKE policy {policy.name} has no proposal")
            _check(proposals)
            entries = tuple(
                part
                for entry in record.config.entries
                for part in _negotiated_parts(self._entry(record, entry), policy.version)
            )
            if not entries:
                raise ConfigError("no IPsec policy")
        except ConfigError as error:
            config_error = str(error)
        own, peer = policy.identity_local, policy.identity_remote
        expected = record.config.remote_id or (peer.value if peer is not None else "")
        return Connection(
            tunnel=record.number,
            name=record.config.name,
            context=record.outer_context,
            context_name=context_name,
            local=record.local,
            remote=record.remote,
            version=policy.version,
            policy=replace(policy, **_ELSEWHERE),
            proposals=proposals,
            entries=entries,
            identity=IkeIdentity.of(own.value) if own is not None else IkeIdentity.address(record.local),
            expected=IkeIdentity.of(expected) if expected else IkeIdentity.address(record.remote),
            psk=policy.psk,
            credentials=self._credentials.get(record.outer_context),
            keepalive=isinstance(context, ContextRecord) and context.keepalive,
            enabled=record.wanted,
            peer_reachable=record.up,
            config_error=config_error,
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
        return PolicyEntry(entry.seq, policy.name, suites, rules, policy.window)


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


def _check(proposals: tuple[IkeProposal, ...]) -> None:
    for proposal in proposals:
        known = (
            proposal.encryption_algorithm in CIPHERS
            and proposal.authentication_algorithm in INTEGRITY
            and proposal.prf in PRFS
            and proposal.dh_group in GROUPS
        )
        if not known:
            raise ConfigError(f"IKE proposal {proposal.name} names an unknown algorithm")
