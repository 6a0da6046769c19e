"""On-demand tunnels (guide 9.3): which one a peer means, by the identity that it claims (B-158, B-160, B-161).

An on-demand tunnel is a candidate: a `Connection` without a tunnel number. Nothing is made of it before a peer is
authenticated; the controller then names the peer's instance. Candidates are few, one for each on-demand tunnel of
the configuration, whatever strangers send.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chassis.ase.ike.connections import Connection, Connections, remote_identity
from chassis.ase.ike.identity import MAX_SHOWN, IkeIdentity
from chassis.ase.ike.payloads.numbers import IdType
from chassis.bus.records import OnDemandRecord
from chassis.model.ike import IkeProposal
from chassis.model.remote_identity import Precision, RemoteIdentity


def peer_name(identity: IkeIdentity) -> str:
    """Return the text by which the controller and AAA know a peer; empty if the identity has none of its own.

    Two identities have one text only if they are the same: a name that reads as an address, one with unprintable
    characters, and one that is too long to be shown have none.
    """
    text = str(identity)
    if identity.id_type == IdType.DER_ASN1_DN:
        return text if len(text) <= MAX_SHOWN and "=" in text else ""
    return text if "=" not in text and IkeIdentity.of(text) == identity else ""


@dataclass(frozen=True, slots=True)
class OnDemandCandidate:
    """An on-demand tunnel that may be meant. `connection.expected` is not used: `expected` may be partial."""

    expected: RemoteIdentity
    connection: Connection

    def expects(self, identity: IkeIdentity) -> bool:
        """Return whether the tunnel takes a peer of this identity."""
        precision, text = self.expected.precision, str(identity)
        if precision is Precision.EXACT:
            return IkeIdentity.of(self.expected.text).same(identity)
        if precision is Precision.PARTIAL:
            return identity.id_type == IdType.FQDN and self.expected.matches(text, is_address=False)
        return self.expected.matches(text, is_address=identity.id_type == IdType.IPV4_ADDR)


@dataclass(frozen=True, slots=True)
class OnDemandGroup:
    """The on-demand tunnels of one local address and IKE version, in the order in which they are matched.

    `proposals` are those of all of them, in order, each once.
    """

    candidates: tuple[OnDemandCandidate, ...]
    proposals: tuple[IkeProposal, ...]

    @classmethod
    def of(cls, candidates: Iterable[OnDemandCandidate]) -> OnDemandGroup:
        """Return the group of these tunnels. Of equal identities the lower number of a tunnel goes first."""
        ordered = tuple(sorted(candidates, key=lambda one: (one.expected.rank, one.connection.on_demand)))
        proposals = {
            proposal.name: proposal for candidate in ordered for proposal in candidate.connection.proposals
        }
        return cls(ordered, tuple(proposals.values()))

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(candidate.connection for candidate in self.candidates)

    def matching(self, identity: IkeIdentity) -> tuple[Connection, ...]:
        """Return the candidates that match an identity best, made to expect it; several if they match equally."""
        if not peer_name(identity):
            return ()
        found = [candidate for candidate in self.candidates if candidate.expects(identity)]
        return tuple(
            replace(candidate.connection, expected=identity)
            for candidate in found
            if candidate.expected.rank == found[0].expected.rank
        )


class OnDemandTunnels:
    """The groups of an ASP, made from the records that its `Connections` holds."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._generation = -1
        self._groups: dict[tuple[int, int, int], OnDemandGroup] = {}
        """By context, local address and version."""

    def group(self, context: int, local: int, version: int) -> OnDemandGroup | None:
        """Return the on-demand tunnels of a local address that can be negotiated; None without any."""
        if self._generation != self._connections.generation:
            self._generation = self._connections.generation
            self._groups = self._read()
        return self._groups.get((context, local, version))

    def _read(self) -> dict[tuple[int, int, int], OnDemandGroup]:
        found: dict[tuple[int, int, int], list[OnDemandCandidate]] = {}
        for record in self._connections.records(OnDemandRecord):
            candidate = self._candidate(record)
            if candidate is not None:
                key = record.outer_context, record.local, candidate.connection.version
                found.setdefault(key, []).append(candidate)
        return {key: OnDemandGroup.of(candidates) for key, candidates in found.items()}

    def _candidate(self, record: OnDemandRecord) -> OnDemandCandidate | None:
        """Return the candidate of a record; None if it is not complete or only initiates."""
        policy = self._connections.ike_policy(record.config.ike_policy, record.outer_context)
        if policy is None or not record.wanted:
            return None
        connection = self._connections.policy_connection(policy, record.outer_context, record.local)
        if connection.config_error or not connection.may_respond:
            return None
        try:
            expected = RemoteIdentity.of(record.config.remote_id or remote_identity(policy))
        except ValueError:
            return None  # The configuration does not allow it.
        return OnDemandCandidate(expected, replace(connection, name=record.config.name, on_demand=record.number))
