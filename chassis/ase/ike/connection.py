"""What IKE knows of a tunnel: the configured connection, whole, in the form that the negotiations use.

Built from records by `chassis.ase.ike.connections`; a change of any part makes a new value. It has no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chassis.ase.entry_numbers import entry_number
from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.identity import Identity
from chassis.bus.records import AclRuleRecord
from chassis.model.ike import IkePolicy, IkeProposal


@dataclass(frozen=True, slots=True)
class Line:
    """What one CHILD SA, or one quick mode, is for: a `seq` line of a tunnel, or with IKEv1 one rule of the line.

    `rules` select its traffic (none: all), as the access list says them: source is our side. `rule` is the number
    of the one rule, 0 where all rules of the list are negotiated together. `suites` are its proposals in order,
    `window` is of antireplay, in packets.
    """

    seq: int
    policy: str
    suites: tuple[Suite, ...]
    rules: tuple[AclRuleRecord, ...]
    window: int
    rule: int = 0

    @property
    def number(self) -> int:
        """What the data engine knows it by."""
        return entry_number(self.seq, self.rule)

    @property
    def remote_networks(self) -> tuple[tuple[int, int], ...]:
        """The peer's networks: (address, prefix length), each once."""
        rules = self.rules or (AclRuleRecord(0),)
        return tuple(dict.fromkeys((rule.destination, rule.destination_length) for rule in rules))


@dataclass(frozen=True, slots=True)
class Connection:
    """A tunnel whose SAs are negotiated. `local` and `remote` are its outer addresses, in `context`.

    `identity` is ours, `expected` the peer's. `psk` is None without a preshared key. `wanted`: the configuration
    is complete; `ready`: there is also a way to the peer at the moment. `flaw` says why it cannot be negotiated.
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
    lines: tuple[Line, ...]
    identity: Identity
    expected: Identity
    psk: bytes | None = field(default=None, repr=False)
    credentials: Credentials | None = field(default=None, repr=False)
    keepalive: bool = False
    wanted: bool = True
    ready: bool = True
    flaw: str = ""

    @property
    def initiates(self) -> bool:
        return self.policy.connection_type != "responder-only"

    @property
    def responds(self) -> bool:
        return self.policy.connection_type != "initiator-only"

    def line(self, number: int) -> Line | None:
        """The line, or the rule of one, that has this number."""
        return next((line for line in self.lines if line.number == number), None)


@dataclass(frozen=True, slots=True)
class Group:
    """Connections of one version between the same two addresses: which one a peer means is known when it has said
    its identity (main mode with preshared keys cannot wait for that: `only`).

    `proposals` is the union of the members' in order, each once; `by_identity` is indexed by `Identity.key` of
    what a member expects of its peer.
    """

    members: tuple[Connection, ...]
    proposals: tuple[IkeProposal, ...]
    by_identity: Mapping[tuple[int, bytes], Sequence[Connection]]

    @property
    def only(self) -> Connection:
        """The first member: it stands for all until an identity tells them apart."""
        return self.members[0]

    def identified(self, identity: Identity) -> Connection | None:
        found = self.by_identity.get(identity.key)
        return found[0] if found else None
