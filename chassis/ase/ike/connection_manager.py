"""Keeps every configured tunnel up: attempts with back-off, missing CHILD SAs, redundant IKE SAs.

`ConnectionState` is one tunnel: its IKE SA, its CHILD SAs and when the next attempt is due. `ConnectionManager`
acts on what sessions report (`chassis.ase.ike.host`), on changed configuration, and on operators' commands.
Times are those of the engine's clock (s); `next_timer` says when `on_timer` is to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import IkeHost, NetworkPath, Session
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike_messages import IkeTunnelState, SaActivateOutbound
from chassis.net.address import format_address
from chassis.net.udp import IKE_PORT

Initiate = Callable[[IkeHost, Connection, NetworkPath], Session]
"""Makes an initiator's session for a connection; `start` sends its first message."""

HIGHER_ADDRESS_START_DELAY = 0.3
"""Delay (s) before the end with the higher address initiates, if both ends may: simultaneous starts get rare."""

SIMULTANEOUS_START_INTERVAL = 1.0
"""Largest network delay (s) of a first message. IKE SAs of both ends count as simultaneous if one began at most
this long after the other was established."""

BACKOFF_RESET_DELAY = 30.0
"""Time (s) after which an established IKE SA resets the back-off."""


@dataclass(slots=True)
class EntryFailures:
    """What came of the tries at a line's pair since one was installed: how many failed, why the last one did, and
    when the next one may be made."""

    failures: int = 0
    reason: str = ""
    retry_at: float = -inf


@dataclass(slots=True, eq=False)
class ConnectionState:
    """`session` serves the tunnel, `attempt` is our own that does not stand yet; `pairs` by serial, oldest first.

    `due` is when the next attempt, or the next try at a missing line, is to be made. What is said of lines here
    holds for each rule of one where IKEv1 negotiates them apart: numbers are those of `chassis.ase.entry_numbers`.
    """

    connection: Connection
    session: Session | None = None
    pending_session: Session | None = None
    redundant_sessions: list[Session] = field(default_factory=list)
    """Further IKE SAs of the tunnel that stand and are on their way out, and one that left its pairs behind."""
    child_sas: dict[int, ChildSa] = field(default_factory=dict)
    current_outbound: dict[int, int] = field(default_factory=dict)
    """Serial of the pair that sends, by line."""
    established_at: float = -inf
    failures: int = 0
    due: float = inf
    entry_failures: dict[int, EntryFailures] = field(default_factory=dict)
    """Of the lines that failed."""
    reason: str = ""
    identity: str = ""
    last_report: tuple[object, ...] | None = None

    @property
    def start_delay(self) -> float:
        """Seconds before a first attempt."""
        connection = self.connection
        return (
            HIGHER_ADDRESS_START_DELAY if connection.may_respond and connection.local > connection.remote else 0.0
        )

    @property
    def should_initiate(self) -> bool:
        """Whether an IKE SA should stand and this end is to begin."""
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
        """How a line failed, if it did."""
        return self.entry_failures.get(entry.number, EntryFailures())

    def has_child(self, entry: int) -> bool:
        """Whether a policy line has a pair."""
        return any(child.entry == entry for child in self.child_sas.values())

    @property
    def all_entries_up(self) -> bool:
        """Whether every `seq` line has a pair, at least for one of its rules."""
        wanted = {entry.seq for entry in self.connection.entries}
        return bool(wanted) and wanted <= {entry_and_rule(child.entry)[0] for child in self.child_sas.values()}

    @property
    def missing_entries(self) -> list[PolicyEntry]:
        """What has no pair."""
        served = {child.entry for child in self.child_sas.values()}
        return [entry for entry in self.connection.entries if entry.number not in served]

    @property
    def networks(self) -> tuple[int, ...]:
        """The peer's networks over all pairs, each once: address and prefix length in turn.

        Those of a rule that waits for its pair belong to them: its packets must not take another way meanwhile.
        """
        seen: dict[tuple[int, int], None] = {}
        for child in self.child_sas.values():
            seen.update(dict.fromkeys(child.remote_networks))
        for entry in self.missing_entries:
            if entry.rule:
                seen.update(dict.fromkeys(entry.remote_networks))
        return tuple([number for network in sorted(seen) for number in network])

    def newest_child(self, entry: int) -> ChildSa | None:
        """The pair of a line that was installed last."""
        found = None
        for child in self.child_sas.values():
            if child.entry == entry:
                found = child
        return found

    def sessions(self) -> list[Session]:
        """Every session of the tunnel, the serving one first."""
        serving = [] if self.session is None else [self.session]
        attempt = [] if self.pending_session is None else [self.pending_session]
        return serving + attempt + self.redundant_sessions

    def schedule_retry(self, reason: str, now: float, backoff: tuple[float, float], spread: float) -> None:
        """An attempt came to nothing: the next one is due later each time. `spread` is random, 0 to 1."""
        self.reason = reason
        first, longest = backoff
        wait = min(first * 2.0 ** min(self.failures, 16), longest)
        self.failures += 1
        self.due = now + wait * (0.75 + 0.5 * spread)


MAX_PARALLEL_ATTEMPTS = 64
"""Own attempts at once (count): with more, our Diffie-Hellman computations delay answers until they time out."""

REDUNDANT_DELETE_DELAY = 1.0
"""Delay (s) before the initiator of a redundant IKE SA deletes it."""

PEER_REDUNDANT_DELETE_TIMEOUT = 10.0
"""Time (s) that the peer has to delete its redundant IKE SA before we delete it."""


class ConnectionManager:
    """The states of all connections of one ASP; what sessions report comes here (`IkeReports`)."""

    def __init__(self, manager: IkeSaManager, initiate: Mapping[int, Initiate]) -> None:
        """`initiate` makes an initiator's session, by IKE version."""
        self._manager = manager
        self._initiate_session = initiate
        self.by_tunnel: dict[int, ConnectionState] = {}
        self._due: list[tuple[float, int]] = []
        self._waiting_tunnels: dict[int, None] = {}
        """Tunnels whose attempt is due and waits for others to end."""
        self._to_delete: list[tuple[float, int, Session]] = []
        self._delete_count = 0

    # time

    def on_timer(self, now: float) -> None:
        while self._to_delete and self._to_delete[0][0] <= now:
            _, _, session = heappop(self._to_delete)
            if not session.closed and not session.orphaned:
                self._close(session, "another IKE SA serves the tunnel", now)
        while self._due and self._due[0][0] <= now:
            at, tunnel = heappop(self._due)
            state = self.by_tunnel.get(tunnel)
            if state is not None and state.due == at:
                state.due = inf
                self._run_due(state, now)
        while self._waiting_tunnels and self._may_initiate:
            tunnel = next(iter(self._waiting_tunnels))
            del self._waiting_tunnels[tunnel]
            state = self.by_tunnel.get(tunnel)
            if state is not None and state.should_initiate:
                self._initiate(state, now)

    def next_timer(self) -> float:
        if self._waiting_tunnels and self._may_initiate:
            return -inf
        while self._due:
            at, tunnel = self._due[0]
            state = self.by_tunnel.get(tunnel)
            if state is not None and state.due == at:
                break
            heappop(self._due)
        return min(self._due[0][0] if self._due else inf, self._to_delete[0][0] if self._to_delete else inf)

    # configuration

    def configure(self, tunnel: int, before: Connection | None, after: Connection | None, now: float) -> None:
        """Apply a changed, new or removed connection of one tunnel."""
        if after is None:
            state = self.by_tunnel.get(tunnel)
            if state is not None:
                self._end(state, "the tunnel is not configured", now)
                del self.by_tunnel[tunnel]
                self._manager.statistics.remove(tunnel)
            return
        state = self.by_tunnel.get(tunnel)
        if state is None:
            state = self.by_tunnel[tunnel] = ConnectionState(after)
            before = None
        state.connection = after
        if not after.enabled or after.config_error:
            self._end(state, after.config_error or "the tunnel is not configured", now)
            state.reason = after.config_error or "not configured"
        else:
            self._reconfigure(state, before, now)
        self.report(state)

    def _end(self, state: ConnectionState, reason: str, now: float) -> None:
        for session in state.sessions():
            self._close(session, reason, now)
        state.due = inf
        self._waiting_tunnels.pop(state.connection.tunnel, None)

    def _reconfigure(self, state: ConnectionState, before: Connection | None, now: float) -> None:
        after = state.connection
        if before is not None and after.peer_reachable and not before.peer_reachable:
            state.reason = ""
        if before is not None and _endpoints_changed(before, after):
            for session in state.sessions():
                self._close(session, "the tunnel has other end points", now)
        for session in state.sessions():
            if session.established or session.orphaned:
                self._manager.run(session, session.on_configuration, after, now)
            elif before is not None and _negotiation_parameters(before) != _negotiation_parameters(after):
                # This attempt uses the old configuration. Abort it silently; the next attempt uses the new one.
                self._close(session, "the configuration changed", now, tell=False)
        if before is not None and (state.child_sas or state.session is not None):
            self._apply_changed_entries(state, before, now)
        if state.session is None and state.pending_session is None:
            if (
                before is None
                or _negotiation_parameters(before) != _negotiation_parameters(after)
                or before.peer_reachable != after.peer_reachable
            ):
                state.failures = 0
                self._set_due(state, now + state.start_delay if state.should_initiate else inf)
            if not after.peer_reachable:
                state.reason = "no route to the peer"

    def _apply_changed_entries(self, state: ConnectionState, before: Connection, now: float) -> None:
        """Lines and rules that are gone lose their pairs; one that is another now is negotiated anew (S-064)."""
        seqs = {entry.seq for entry in state.connection.entries}
        for number in list(state.entry_failures):
            if before.entry(number) != state.connection.entry(number):
                del state.entry_failures[number]
        for child in list(state.child_sas.values()):
            old, new = before.entry(child.entry), state.connection.entry(child.entry)
            owner = self._manager.table.child_owner.get((child.tunnel, child.serial))
            if owner is None:
                continue
            session = state.session or owner
            if new is None:
                gone = "the rule is gone" if entry_and_rule(child.entry)[0] in seqs else "the policy line is gone"
                self._manager.run(owner, owner.delete_child, child.serial, gone, now)
            elif old is not None and old.rules != new.rules and state.newest_child(child.entry) is child:
                self._manager.run(session, session.negotiate, new, child.serial, now)
        self._request_missing_children(state, now)

    # what sessions report

    def on_established(self, session: Session, now: float) -> None:
        state = self._state_of(session)
        if state is None:
            session.close("the tunnel is not configured", now)
            return
        if state.pending_session is session:
            state.pending_session = None
        state.entry_failures.clear()
        before, state.session = state.session, session
        if before is not None and before is not session and not before.closed:
            self._resolve_duplicate(state, session, before, now)
        state.established_at = now
        attempt = state.pending_session
        if attempt is not None and state.connection.local > state.connection.remote:
            # Both began at once, and the one of the end with the lower address stays.
            self._close(attempt, "the peer began at the same time", now)
        self._request_missing_children(state, now)

    def _resolve_duplicate(self, state: ConnectionState, new: Session, old: Session, now: float) -> None:
        """Two IKE SAs stand for one tunnel: both ends have to keep the same one, and no RFC has a rule for it.

        Begun at the same time by both, the one that the end with the lower address began stays. Else the newer one
        stays: the peer began anew, so it has lost the older.
        """
        began = self._manager.table.started_at.get(new.spi, now)
        simultaneous = (
            new.initiator != old.initiator and began <= state.established_at + SIMULTANEOUS_START_INTERVAL
        )
        if new.version == 1 and not simultaneous:
            # A new phase 1 beside the old one is how version 1 goes on; the old one ends by its lifetime.
            state.redundant_sessions.append(old)
            return
        lower_is_ours = state.connection.local < state.connection.remote
        loser = old if not simultaneous or new.initiator == lower_is_ours else new
        state.session = new if loser is old else old
        state.redundant_sessions.append(loser)
        wait = REDUNDANT_DELETE_DELAY if loser.initiator or not simultaneous else PEER_REDUNDANT_DELETE_TIMEOUT
        self._delete_count += 1
        heappush(self._to_delete, (now + wait, self._delete_count, loser))

    def on_child_installed(self, session: Session, child: ChildSa) -> None:
        self._manager.table.child_owner[child.tunnel, child.serial] = session
        state = self.by_tunnel.get(child.tunnel)
        if state is None:
            return
        state.child_sas[child.serial] = child
        state.entry_failures.pop(child.entry, None)
        state.failures = 0
        if state.all_entries_up:
            state.reason = ""
        self.report(state)

    def on_child_removed(self, session: Session, child: ChildSa, reason: str, now: float) -> None:
        self._manager.table.child_owner.pop((child.tunnel, child.serial), None)
        state = self.by_tunnel.get(child.tunnel)
        if state is None or state.child_sas.pop(child.serial, None) is None:
            return
        newest = state.newest_child(child.entry)
        if newest is not None:
            if state.current_outbound.get(child.entry) == child.serial:
                # One of two IKE SAs went with the pair that sent: the newest of those left is kept longest.
                self._manager.send_to_dataplane(SaActivateOutbound(child.tunnel, newest.serial))
            return
        state.current_outbound.pop(child.entry, None)
        state.reason = reason
        self.report(state)
        serving = state.session
        if session.closed:
            return
        if serving is not None and serving.established and not serving.closed:
            # Other lines may wait for their next try much longer.
            self._set_due(state, min(state.due, now + self._short_delay(state)))
        else:
            self._schedule_retry(state, now)

    def on_failed(self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None) -> None:
        state = self._state_of(session)
        if state is None:
            return
        spread = self._manager.random(1)[0] / 255
        if entry is not None:
            _, longest = self._manager.settings.backoff
            if not state.child_sas:
                state.failures += 1
            setback = state.entry_failures.setdefault(entry.number, EntryFailures())
            setback.failures += 1
            setback.reason = failure.text
            wait = min(2.0 ** min(setback.failures, 16), longest) * (0.75 + 0.5 * spread)
            setback.retry_at = now + wait
            if not state.has_child(entry.number):
                state.reason = failure.text
                self.report(state)
            self._set_due(state, min(state.due, now + wait))
            return
        if state.pending_session is session:
            state.pending_session = None
            state.schedule_retry(failure.text, now, self._manager.settings.backoff, spread)
            self._set_due(state, state.due)
            if failure.cause == "timeout" and state.connection.keepalive:
                self._peer_is_silent(state, failure.text, now)
        elif state.pending_session is None and not state.all_entries_up:
            state.reason = failure.text
        self.report(state)

    def _peer_is_silent(self, state: ConnectionState, reason: str, now: float) -> None:
        """Where dead peers are to be noticed, pairs without an IKE SA to probe by do not outlive their peer."""
        settings = self._manager.settings
        for one in [one for one in state.redundant_sessions if one.orphaned]:
            if now - one.last_received >= settings.dpd_interval * settings.dpd_retries:
                self._close(one, reason, now, tell=False)

    def on_closed(self, session: Session, reason: str, now: float) -> None:
        state = self._state_of(session)
        if state is None:
            return
        if session in state.redundant_sessions:
            state.redundant_sessions.remove(session)
        if session.orphaned:
            state.redundant_sessions.append(session)
        if state.pending_session is session:
            state.pending_session = None
            state.reason = state.reason or reason
            self._schedule_retry(state, now)
        elif state.session is session:
            others = [one for one in state.redundant_sessions if not one.closed and not one.orphaned]
            state.session = others[-1] if others else None
            if state.session is not None:
                state.redundant_sessions.remove(state.session)
            else:
                state.reason = reason
                if now - state.established_at > BACKOFF_RESET_DELAY:
                    state.failures = 0
                self._schedule_retry(state, now)
        self.report(state)

    def on_child_sends(self, tunnel: int, entry: int, serial: int) -> None:
        """A pair sends for its line from now on."""
        state = self.by_tunnel.get(tunnel)
        if state is not None:
            state.current_outbound[entry] = serial

    def on_outbound_activated(self, tunnel: int, serial: int) -> None:
        """As `sends`, for a pair that was installed before."""
        state = self.by_tunnel.get(tunnel)
        child = None if state is None else state.child_sas.get(serial)
        if child is not None:
            self.on_child_sends(tunnel, child.entry, serial)

    def on_initial_contact(self, session: Session, now: float) -> None:
        state = self._state_of(session)
        if state is None:
            return
        for other in state.sessions():
            if other is not session and other.established:
                self._close(other, "the peer began anew", now, tell=False)

    def sibling_sessions(self, session: Session) -> list[Session]:
        """Other sessions of the same tunnel that stand or have pairs still, oldest first."""
        state = self._state_of(session)
        if state is None:
            return []
        serving = [] if state.session is None else [state.session]
        others = [one for one in state.redundant_sessions + serving if one is not session and not one.closed]
        return [one for one in others if one.established or one.orphaned]

    def on_rekeyed(self, old: Session, new: Session) -> None:
        """A session made its own successor, which serves from now on."""
        state = self._state_of(new)
        if state is None:
            return
        owners = self._manager.table.child_owner
        for tunnel, serial in [(child.tunnel, child.serial) for child in state.child_sas.values()]:
            if owners.get((tunnel, serial)) is old:
                owners[tunnel, serial] = new
        if state.session is old:
            state.session = new
            state.redundant_sessions.append(old)

    # the data engine and the operator

    def on_peer_alive(self, tunnel: int, now: float) -> None:
        """Packets of the peer came in by a tunnel's pairs."""
        state = self.by_tunnel.get(tunnel)
        if state is None:
            return
        for session in (state.session, *state.redundant_sessions):
            if session is not None and (session is state.session or session.orphaned):
                self._manager.run(session, session.on_inbound_traffic, now)

    def on_acquire(self, tunnel: int, number: int, now: float) -> None:
        """A packet waits for a pair of a line."""
        state = self.by_tunnel.get(tunnel)
        if state is None:
            return
        entry, session = state.connection.entry(number), state.session
        if session is not None and session.established and not session.closed:
            if entry is not None and not state.has_child(number) and state.failures_of(entry).retry_at <= now:
                self._manager.run(session, session.negotiate, entry, 0, now)
        elif state.should_initiate and state.due == inf and tunnel not in self._waiting_tunnels:
            self._run_due(state, now)

    def clear(self, tunnel: int, now: float) -> None:
        """Delete all SAs of a tunnel; they are negotiated anew at once (guide chapter 11)."""
        state = self.by_tunnel[tunnel]
        for session in state.sessions():
            self._close(session, "cleared by the operator", now)
        self._at_once(state, now)

    def clear_ike(self, tunnel: int, now: float) -> None:
        """Have the IKE SA of a tunnel made anew, by what is configured now (guide chapter 11).

        In version 1 its pairs stay. The new one stands before the old one is deleted, for the sake of peers that
        drop their pairs with it; an end that only answers has to delete it first, and its peer begins. In version
        2 the pairs end with it (RFC 7296 1.4.1) and are made anew.
        """
        state = self.by_tunnel[tunnel]
        if state.connection.version == 2:
            self.clear(tunnel, now)
            return
        session = state.session
        if session is not None and state.connection.may_initiate:
            self._manager.run(session, session.rekey, now)
        elif session is not None:
            self._close(session, "cleared by the operator", now, keep=True)
        elif state.pending_session is not None:
            self._close(state.pending_session, "cleared by the operator", now)
        self._at_once(state, now)

    def clear_child_sas(self, tunnel: int, now: float) -> None:
        """Have the pairs of a tunnel made anew, each new one before its old one goes (guide chapter 11).

        IKE SAs stay. Where none stands one is begun, and with it come the pairs.
        """
        state = self.by_tunnel[tunnel]
        state.entry_failures.clear()
        for entry in state.connection.entries:
            newest = state.newest_child(entry.number)
            serial = 0 if newest is None else newest.serial
            session = state.session or self._manager.table.child_owner.get((tunnel, serial))
            if session is not None:
                self._manager.run(session, session.negotiate, entry, serial, now)
        self._at_once(state, now)

    def _at_once(self, state: ConnectionState, now: float) -> None:
        """An IKE SA that is missing is begun now, whatever failed before."""
        state.failures = 0
        if state.should_initiate:
            self._set_due(state, now)

    def rekey(self, tunnel: int, ike: bool, now: float) -> int:
        """Negotiate successors of all pairs of a tunnel, or of its IKE SA; how many were begun."""
        state = self.by_tunnel[tunnel]
        session = state.session
        if session is None or not session.established or session.closed:
            return 0
        if ike:
            self._manager.run(session, session.rekey, now)
            return 1
        begun = 0
        for entry in state.connection.entries:
            newest = state.newest_child(entry.number)
            if newest is not None:
                self._manager.run(session, session.negotiate, entry, newest.serial, now)
                begun += 1
        return begun

    # inside

    def _state_of(self, session: Session) -> ConnectionState | None:
        connection = session.connection
        return None if connection is None else self.by_tunnel.get(connection.tunnel)

    def _close(self, session: Session, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        self._manager.run(session, lambda: session.close(reason, now, tell=tell, keep=keep))

    @property
    def _may_initiate(self) -> bool:
        return len(self._manager.table.initiating) < MAX_PARALLEL_ATTEMPTS

    def _run_due(self, state: ConnectionState, now: float) -> None:
        """What is due for a tunnel: an attempt at an IKE SA, or lines that are missing."""
        if state.should_initiate:
            if self._may_initiate:
                self._initiate(state, now)
            else:
                self._waiting_tunnels[state.connection.tunnel] = None
        elif state.session is not None:
            self._request_missing_children(state, now)

    def _initiate(self, state: ConnectionState, now: float) -> None:
        connection = state.connection
        path = NetworkPath(connection.context, connection.local, IKE_PORT, connection.remote, IKE_PORT)
        session = self._initiate_session[connection.version](self._manager, connection, path)
        state.pending_session = session
        self._manager.table.add(session, now)
        self._manager.run(session, session.start, now)
        self.report(state)

    def _schedule_retry(self, state: ConnectionState, now: float) -> None:
        """Have the next attempt made: soon after something that stood, later after something that failed."""
        if state.due < inf or not (state.should_initiate or state.session is not None):
            return
        if state.failures:
            state.schedule_retry(
                state.reason, now, self._manager.settings.backoff, self._manager.random(1)[0] / 255
            )
        else:
            state.failures = 1
            state.due = now + self._short_delay(state)
        self._set_due(state, state.due)

    def _short_delay(self, state: ConnectionState) -> float:
        """Seconds until what stood and is gone is made anew."""
        return min(self._manager.settings.backoff[0], 0.1) + state.start_delay

    def _request_missing_children(self, state: ConnectionState, now: float) -> None:
        """Have the session make the pairs that are missing; only who began the IKE SA does that unasked."""
        session = state.session
        if session is None or session.closed or not session.established or not session.initiator:
            return
        owners = self._manager.table.child_owner
        served = {
            child.entry
            for child in state.child_sas.values()
            if session.version == 1 or owners.get((child.tunnel, child.serial)) not in state.redundant_sessions
        }
        later = inf
        for entry in state.connection.entries:
            if entry.number in served:
                continue
            at = state.failures_of(entry).retry_at
            if at <= now:
                self._manager.run(session, session.negotiate, entry, 0, now)
            else:
                later = min(later, at)
        self._set_due(state, later)

    def _set_due(self, state: ConnectionState, at: float) -> None:
        state.due = at
        if at < inf:
            heappush(self._due, (at, state.connection.tunnel))

    def report(self, state: ConnectionState) -> None:
        """Say how the tunnel is, if that is news."""
        connection = state.connection
        up = state.all_entries_up
        reason = self.reason(state)
        identity = str(connection.expected) if up else ""
        networks = state.networks if up else ()
        told = (up, reason, identity, networks)
        if told != state.last_report:
            state.last_report = told
            self._manager.send_to_dataplane(IkeTunnelState(connection.tunnel, up, reason, identity, networks))

    @staticmethod
    def reason(state: ConnectionState) -> str:
        """Why a tunnel is down; empty for one that is up, whatever was the matter with it before."""
        connection = state.connection
        if state.all_entries_up:
            return ""
        if state.reason:
            return state.reason
        peer = format_address(connection.remote)
        if state.session is None and state.pending_session is None and not connection.may_initiate:
            return f"waiting for {peer} to begin"
        return f"negotiating with {peer}"


def _endpoints_changed(before: Connection, after: Connection) -> bool:
    """Whether a tunnel's end points moved, so that none of its SAs fits any more."""
    return (before.context, before.local, before.remote, before.version) != (
        after.context,
        after.local,
        after.remote,
        after.version,
    )


def _negotiation_parameters(connection: Connection) -> tuple[object, ...]:
    """What an attempt that is under way was begun with."""
    return (
        connection.policy,
        connection.proposals,
        connection.entries,
        connection.identity,
        connection.expected,
        connection.psk,
        connection.credentials,
    )
