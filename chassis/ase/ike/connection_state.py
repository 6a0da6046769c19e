"""One tunnel as IKE keeps it up: its IKE SAs, its CHILD SAs, what failed, and when the next attempt is due.

Times are those of the engine's clock (s). `chassis.ase.ike.connection_manager` acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.host import Session

HIGHER_ADDRESS_START_DELAY = 0.3
"""Delay (s) before the end with the higher address initiates, if both ends may: simultaneous starts get rare."""


@dataclass(slots=True)
class EntryFailures:
    """Failed negotiations of a policy entry since its last CHILD SA was installed.

    `failures` is their count, `reason` that of the last one, `retry_at` (s) when the next one may start.
    """

    failures: int = 0
    reason: str = ""
    retry_at: float = -inf


@dataclass(slots=True, eq=False)
class ConnectionState:
    """One tunnel. `session` is its established IKE SA, `pending_session` our attempt at one; None without.

    `child_sas` are by serial, oldest first. `due` (s) is when the next attempt starts, or the next negotiation
    of an entry without a CHILD SA. With IKEv1 each rule of an access list counts as an entry of its own.
    Numbers of entries are those of `chassis.ase.entry_numbers`.
    """

    connection: Connection
    session: Session | None = None
    pending_session: Session | None = None
    redundant_sessions: list[Session] = field(default_factory=list)
    """Other established IKE SAs of the tunnel, which will be deleted, and orphaned sessions (IKEv1)."""
    child_sas: dict[int, ChildSa] = field(default_factory=dict)
    current_outbound: dict[int, int] = field(default_factory=dict)
    """Serial of the CHILD SA that sends, by number of the policy entry."""
    established_at: float = -inf
    failures: int = 0
    due: float = inf
    entry_failures: dict[int, EntryFailures] = field(default_factory=dict)
    """By number of the policy entry; only entries whose last negotiation failed."""
    ike_cleared: bool = False
    """Whether an operator cleared an IKE SA that stands until it has a successor; one that is refused ends it."""
    children_cleared: dict[int, int] = field(default_factory=dict)
    """The same of CHILD SAs: their serials, by number of the policy entry."""
    reason: str = ""
    identity: str = ""
    last_report: tuple[object, ...] | None = None

    @property
    def start_delay(self) -> float:
        """The delay (s) before the first attempt."""
        connection = self.connection
        return (
            HIGHER_ADDRESS_START_DELAY if connection.may_respond and connection.local > connection.remote else 0.0
        )

    @property
    def should_initiate(self) -> bool:
        """Whether the tunnel lacks an IKE SA and this end may initiate one."""
        connection = self.connection
        return (
            connection.enabled
            and connection.peer_reachable
            and not connection.config_error
            and connection.may_initiate
            and self.session is None
            and self.pending_session is None
        )

    def failures_of(self, entry: PolicyEntry) -> EntryFailures:
        """Return the failures of an entry; a new object if there are none."""
        return self.entry_failures.get(entry.number, EntryFailures())

    def has_child(self, entry: int) -> bool:
        """Return whether a policy entry, given by its number, has a CHILD SA."""
        return any(child.entry == entry for child in self.child_sas.values())

    @property
    def all_entries_up(self) -> bool:
        """Whether every policy entry has a CHILD SA, at least for one of its rules."""
        wanted = {entry.seq for entry in self.connection.entries}
        return bool(wanted) and wanted <= {entry_and_rule(child.entry)[0] for child in self.child_sas.values()}

    @property
    def missing_entries(self) -> list[PolicyEntry]:
        """Policy entries without a CHILD SA."""
        served = {child.entry for child in self.child_sas.values()}
        return [entry for entry in self.connection.entries if entry.number not in served]

    @property
    def networks(self) -> tuple[int, ...]:
        """The peer's networks of all CHILD SAs, each once: address and prefix length in turn.

        Networks of a rule without a CHILD SA are included, so that its packets take no other route meanwhile. Not
        so for a peer of an on-demand tunnel: peers share the rules, and only what a peer negotiated is its own.
        """
        seen: dict[tuple[int, int], None] = {}
        for child in self.child_sas.values():
            seen.update(dict.fromkeys(child.remote_networks))
        for entry in self.missing_entries:
            if entry.rule and not self.connection.on_demand:
                seen.update(dict.fromkeys(entry.remote_networks))
        return tuple([number for network in sorted(seen) for number in network])

    def newest_child(self, entry: int) -> ChildSa | None:
        """Return the CHILD SA of a policy entry that was installed last; None without one."""
        found = None
        for child in self.child_sas.values():
            if child.entry == entry:
                found = child
        return found

    def sessions(self) -> list[Session]:
        """Return every session of the tunnel, `session` first."""
        serving = [] if self.session is None else [self.session]
        attempt = [] if self.pending_session is None else [self.pending_session]
        return serving + attempt + self.redundant_sessions

    def schedule_retry(self, reason: str, now: float, backoff: tuple[float, float], spread: float) -> None:
        """Schedule the next attempt after a failed one, with exponential back-off.

        `backoff` is (first, longest) in seconds. `spread` is random, 0 to 1.
        """
        self.reason = reason
        first, longest = backoff
        wait = min(first * 2.0 ** min(self.failures, 16), longest)
        self.failures += 1
        self.due = now + wait * (0.75 + 0.5 * spread)
