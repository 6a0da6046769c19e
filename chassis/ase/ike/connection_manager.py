"""Keeps every configured tunnel up: attempts with back-off, missing CHILD SAs, redundant IKE SAs.

`ConnectionManager` acts on what sessions report (`chassis.ase.ike.host`), on changed configuration, and on
operators' commands. Times are those of the engine's clock (s); `next_timer` says when `on_timer` is to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from math import inf

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connection_state import ConnectionState, EntryFailures
from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import IkeHost, NetworkPath, Session
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.instances import InstanceWatch
from chassis.ase.ike_messages import IkeTunnelState, SaActivateOutbound
from chassis.net.address import format_address
from chassis.net.udp import IKE_PORT

Report = tuple[bool, str, str, tuple[int, ...]]
"""What the data engine knows of a tunnel: whether it is up, why not, the peer's identity and networks."""

Initiate = Callable[[IkeHost, Connection, NetworkPath], Session]
"""Makes the initiator's session of a connection; the caller then calls `start`, which sends its first message."""

NOT_CONFIGURED = "the tunnel is not configured"
"""Why the SAs of a tunnel end that was deleted or is not complete."""

SIMULTANEOUS_START_INTERVAL = 1.0
"""Largest network delay (s) of a first message. IKE SAs of both ends count as simultaneous if one was
initiated at most this long after the other was established."""

BACKOFF_RESET_DELAY = 30.0
"""Time (s) after which an established IKE SA resets the back-off."""

MAX_PARALLEL_ATTEMPTS = 64
"""Own attempts at once (count): with more, our Diffie-Hellman computations delay answers until they time out."""

REDUNDANT_DELETE_DELAY = 1.0
"""Delay (s) before the initiator of a redundant IKE SA deletes it."""

PEER_REDUNDANT_DELETE_TIMEOUT = 10.0
"""Time (s) that the peer has to delete its redundant IKE SA before we delete it."""


class ConnectionManager:
    """The states of all connections of one ASP. Receives the reports of sessions (`IkeReports`)."""

    def __init__(self, manager: IkeSaManager, initiate: Mapping[int, Initiate]) -> None:
        """`initiate` makes an initiator's session, by IKE version."""
        self._manager = manager
        self._initiate_session = initiate
        self.by_tunnel: dict[int, ConnectionState] = {}
        self._due: list[tuple[float, int]] = []
        self._waiting_tunnels: dict[int, None] = {}
        """Tunnels whose attempt is due, but MAX_PARALLEL_ATTEMPTS are in progress."""
        self._to_delete: list[tuple[float, int, Session]] = []
        self._delete_count = 0
        self._instances = InstanceWatch(manager)

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
        while (idle := self._instances.pop_due(now)) is not None:
            self._end_instance(self.by_tunnel[idle], now)
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
        due = self._due[0][0] if self._due else inf
        return min(due, self._to_delete[0][0] if self._to_delete else inf, self._instances.next_timer())

    # configuration

    def configure(self, tunnel: int, before: Connection | None, after: Connection | None, now: float) -> None:
        """Apply a changed, new or removed connection of one tunnel."""
        if after is None:
            state = self.by_tunnel.get(tunnel)
            if state is not None:
                gone = "the on-demand tunnel was taken down" if state.connection.on_demand else NOT_CONFIGURED
                self._instances.on_deleting(tunnel)
                self._end(state, gone, now)
                self._instances.on_deleted(tunnel)
                del self.by_tunnel[tunnel]
                self._manager.statistics.remove(tunnel)
            return
        state = self.by_tunnel.get(tunnel)
        if state is None:
            state = self.by_tunnel[tunnel] = ConnectionState(after)
            before = None
            if after.on_demand:
                self._instances.on_idle(tunnel, now)
        state.connection = after
        if not after.enabled or after.config_error:
            self._end(state, after.config_error or NOT_CONFIGURED, now)
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
                self._close(session, "the end points of the tunnel changed", now)
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
        """Delete CHILD SAs of removed rules; rekey those whose rules changed (S-064). Those of a removed policy
        line stay until they end or are cleared (guide chapter 11)."""
        seqs = {entry.seq for entry in state.connection.entries}
        for number in list(state.entry_failures):
            if before.entry(number) != state.connection.entry(number):
                del state.entry_failures[number]
        for child in list(state.child_sas.values()):
            old, new = before.entry(child.entry), state.connection.entry(child.entry)
            session = state.session or self._manager.table.child_owner.get((child.tunnel, child.serial))
            if session is None:
                continue
            if new is None:
                if entry_and_rule(child.entry)[0] in seqs:
                    self._delete_child(child, "the rule was removed", now)
            elif old is not None and old.rules != new.rules and state.newest_child(child.entry) is child:
                self._manager.run(session, session.negotiate, new, child.serial, now)
        self._request_missing_children(state, now)

    # what sessions report

    def on_admitted(self, connection: Connection) -> None:
        self.by_tunnel[connection.tunnel].connection = connection
        self._instances.on_admitted(connection.tunnel)

    def _end_instance(self, state: ConnectionState, now: float) -> None:
        """Delete the IKE SAs of an instance that was without a CHILD SA for too long."""
        reason = state.reason or "the peer negotiated no CHILD SA"
        self._end(state, reason, now)
        self._check_instance(state, reason, now)

    def _check_instance(self, state: ConnectionState, reason: str, now: float) -> None:
        """Notice that an instance lost its last CHILD SA, or everything."""
        if not state.connection.on_demand or state.child_sas:
            return
        if any(not session.closed for session in state.sessions()):
            self._instances.on_idle(state.connection.tunnel, now)
        else:
            self._instances.on_gone(state.connection.tunnel, reason, now)

    def on_established(self, session: Session, now: float) -> None:
        state = self._state_of(session)
        if state is None:
            session.close(NOT_CONFIGURED, now)
            return
        if state.pending_session is session:
            state.pending_session = None
        state.entry_failures.clear()
        state.ike_cleared = False
        if state.connection.on_demand:
            self._instances.on_established(state.connection.tunnel, now, busy=bool(state.child_sas))
        before, state.session = state.session, session
        if before is not None and before is not session and not before.closed:
            self._resolve_duplicate(state, session, before, now)
        state.established_at = now
        attempt = state.pending_session
        if attempt is not None and state.connection.local > state.connection.remote:
            # Both ends initiated at the same time: keep the IKE SA of the end with the lower address.
            self._close(attempt, "the peer initiated at the same time", now)
        self._request_missing_children(state, now)

    def _resolve_duplicate(self, state: ConnectionState, new: Session, old: Session, now: float) -> None:
        """Choose which of two IKE SAs of one tunnel to keep, so that both ends keep the same (no RFC has a rule).

        If both ends initiated at the same time, keep the one that the end with the lower address initiated. Else
        keep the newer one: the peer initiated again, so it has lost the older one.
        """
        started_at = self._manager.table.started_at.get(new.spi, now)
        simultaneous = (
            new.initiator != old.initiator and started_at <= state.established_at + SIMULTANEOUS_START_INTERVAL
        )
        if new.version == 1 and not simultaneous:
            # IKEv1 rekeys by a new phase 1 next to the old one, which ends by its lifetime.
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
        self._instances.on_busy(child.tunnel)
        state.entry_failures.pop(child.entry, None)
        state.children_cleared.pop(child.entry, None)
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
                # The CHILD SA that sent ended with one of two IKE SAs: the newest of the others is kept longest.
                self._manager.send_to_dataplane(SaActivateOutbound(child.tunnel, newest.serial))
            return
        state.current_outbound.pop(child.entry, None)
        state.reason = reason
        self.report(state)
        self._check_instance(state, reason, now)
        serving = state.session
        if session.closed:
            return
        if serving is not None and serving.established and not serving.closed:
            # Other entries may have a much later retry time.
            self._set_due(state, min(state.due, now + self._short_delay(state)))
        else:
            self._schedule_retry(state, now)

    def on_failed(self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None) -> None:
        state = self._state_of(session)
        if state is None:
            return
        spread = self._manager.random(1)[0] / 255
        refused = failure.cause != "timeout"
        if entry is not None:
            cleared = state.child_sas.get(state.children_cleared.get(entry.number, 0))
            if refused and cleared is not None:
                self._delete_child(cleared, failure.text, now)
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
            if not refused and state.connection.keepalive:
                self._peer_is_silent(state, failure.text, now)
        elif state.ike_cleared and session.initiator and refused:
            for one in state.sessions():
                self._close(one, failure.text, now)
        elif state.pending_session is None and not state.all_entries_up:
            state.reason = failure.text
        self.report(state)

    def _peer_is_silent(self, state: ConnectionState, reason: str, now: float) -> None:
        """Close orphaned sessions of a peer that does not respond: without an IKE SA they cannot probe it."""
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
        self._check_instance(state, reason, now)

    def on_child_sends(self, tunnel: int, entry: int, serial: int) -> None:
        """Remember that a CHILD SA sends for its policy entry from now on."""
        state = self.by_tunnel.get(tunnel)
        if state is not None:
            state.current_outbound[entry] = serial

    def on_outbound_activated(self, tunnel: int, serial: int) -> None:
        """As `on_child_sends`, for a CHILD SA that was installed before."""
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
                self._close(other, "the peer sent INITIAL-CONTACT", now, tell=False)

    def sibling_sessions(self, session: Session) -> list[Session]:
        """Return other sessions of the same tunnel that are established or orphaned, oldest first."""
        state = self._state_of(session)
        if state is None:
            return []
        serving = [] if state.session is None else [state.session]
        others = [one for one in state.redundant_sessions + serving if one is not session and not one.closed]
        return [one for one in others if one.established or one.orphaned]

    def on_rekeyed(self, old: Session, new: Session) -> None:
        """Replace a session by its successor, which owns its CHILD SAs from now on."""
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
        """Tell the sessions of a tunnel that its CHILD SAs received packets of the peer."""
        state = self.by_tunnel.get(tunnel)
        if state is None:
            return
        for session in (state.session, *state.redundant_sessions):
            if session is not None and (session is state.session or session.orphaned):
                self._manager.run(session, session.on_inbound_traffic, now)

    def on_invalid_spi(self, path: NetworkPath, version: int, spi: bytes, now: float) -> None:
        """Somebody says in the name of a peer that it has no SA with this SPI: tell the IKE SAs with the peer."""
        group = self._manager.group(path.context, path.local, path.remote, version)
        for connection in group.members if group is not None else ():
            state = self.by_tunnel.get(connection.tunnel)
            session = state.session if state is not None else None
            if session is not None and session.established and not session.closed:
                self._manager.run(session, session.on_invalid_spi, spi, now)

    def on_acquire(self, tunnel: int, number: int, now: float) -> None:
        """Negotiate a CHILD SA for a packet that has none; `number` is that of its policy entry."""
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
        """Delete all SAs of a tunnel and negotiate them again at once (guide chapter 11)."""
        state = self.by_tunnel[tunnel]
        for session in state.sessions():
            self._close(session, "cleared by the operator", now)
        self._at_once(state, now)

    def clear_ike(self, tunnel: int, now: float) -> None:
        """Negotiate the IKE SA of a tunnel again, with the present configuration (guide chapter 11).

        With IKEv1 its CHILD SAs stay, and the new IKE SA is established before the old one is deleted: some peers
        delete their CHILD SAs with it. If either end refuses the new one, all SAs of the tunnel end. An end that
        may not initiate deletes the old one first, and the peer initiates. With IKEv2 the CHILD SAs end with the
        IKE SA (RFC 7296 1.4.1) and are negotiated again.
        """
        state = self.by_tunnel[tunnel]
        if state.connection.version == 2:
            self.clear(tunnel, now)
            return
        session = state.session
        if session is not None and state.connection.may_renew:
            state.ike_cleared = True
            self._manager.run(session, session.rekey, now)
        elif session is not None:
            self._close(session, "cleared by the operator", now, keep=True)
        elif state.pending_session is not None:
            self._close(state.pending_session, "cleared by the operator", now)
        self._at_once(state, now)

    def clear_child_sas(self, tunnel: int, now: float) -> None:
        """Rekey the CHILD SAs of a tunnel, each before its predecessor is deleted (guide chapter 11).

        Those of removed policy lines, and those whose successor is refused, are deleted. IKE SAs stay. Without an
        established one, initiate it; the CHILD SAs follow.
        """
        state = self.by_tunnel[tunnel]
        state.entry_failures.clear()
        for child in list(state.child_sas.values()):
            if state.connection.entry(child.entry) is None:
                self._delete_child(child, "cleared by the operator", now)
        for entry in state.connection.entries:
            newest = state.newest_child(entry.number)
            serial = 0 if newest is None else newest.serial
            session = state.session or self._manager.table.child_owner.get((tunnel, serial))
            if session is not None:
                state.children_cleared[entry.number] = serial
                self._manager.run(session, session.negotiate, entry, serial, now)
        self._at_once(state, now)

    def _at_once(self, state: ConnectionState, now: float) -> None:
        """Initiate a missing IKE SA now and reset the back-off."""
        state.failures = 0
        if state.should_initiate:
            self._set_due(state, now)

    def rekey(self, tunnel: int, ike: bool, now: float) -> int:
        """Rekey all CHILD SAs of a tunnel, or with `ike` its IKE SA; return how many rekeys were started."""
        state = self.by_tunnel[tunnel]
        session = state.session
        if session is None or not session.established or session.closed:
            return 0
        if ike:
            self._manager.run(session, session.rekey, now)
            return 1
        started = 0
        for entry in state.connection.entries:
            newest = state.newest_child(entry.number)
            if newest is not None:
                self._manager.run(session, session.negotiate, entry, newest.serial, now)
                started += 1
        return started

    # inside

    def _state_of(self, session: Session) -> ConnectionState | None:
        connection = session.connection
        return None if connection is None else self.by_tunnel.get(connection.tunnel)

    def _delete_child(self, child: ChildSa, reason: str, now: float) -> None:
        owner = self._manager.table.child_owner.get((child.tunnel, child.serial))
        if owner is not None:
            self._manager.run(owner, owner.delete_child, child.serial, reason, now)

    def _close(self, session: Session, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        self._manager.run(session, lambda: session.close(reason, now, tell=tell, keep=keep))

    @property
    def _may_initiate(self) -> bool:
        return len(self._manager.table.initiating) < MAX_PARALLEL_ATTEMPTS

    def _run_due(self, state: ConnectionState, now: float) -> None:
        """Initiate an IKE SA for a tunnel, or negotiate its missing CHILD SAs."""
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
        """Schedule the next attempt: soon if an IKE SA was established before, with back-off after a failure."""
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
        """Return the delay (s) before an SA that ended is negotiated again."""
        return min(self._manager.settings.backoff[0], 0.1) + state.start_delay

    def _request_missing_children(self, state: ConnectionState, now: float) -> None:
        """Negotiate missing CHILD SAs, if this end initiated the IKE SA. A responder waits for `on_acquire`."""
        session = state.session
        if session is None or session.closed or not session.established or not session.initiator:
            return
        if state.connection.on_demand:
            return  # Only the peer knows which entries it wants.
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
        """Report the state of a tunnel to the data engine, if it changed."""
        told = self._present_report(state)
        if told != state.last_report:
            state.last_report = told
            self._manager.send_to_dataplane(IkeTunnelState(state.connection.tunnel, *told))

    def _present_report(self, state: ConnectionState) -> Report:
        up = state.all_entries_up
        identity = str(state.connection.expected) if up else ""
        return up, self.reason(state), identity, state.networks if up else ()

    # tunnels at rest (`chassis.ase.ike.parking`)

    def is_at_rest(self, state: ConnectionState) -> bool:
        """Return whether a static tunnel is up, and nothing is to be done about it."""
        connection = state.connection
        return (
            state.session is not None
            and state.pending_session is None
            and not state.redundant_sessions
            and state.due == inf
            and not state.entry_failures
            and not state.ike_cleared
            and not state.children_cleared
            and not connection.on_demand
            and connection.enabled
            and not connection.config_error
            and connection.tunnel not in self._waiting_tunnels
            and state.all_entries_up
            and state.last_report == self._present_report(state)
        )

    def put_back(self, state: ConnectionState) -> None:
        """Take a tunnel that was at rest, and of which everything was reported."""
        self.by_tunnel[state.connection.tunnel] = state
        state.last_report = self._present_report(state)

    @staticmethod
    def reason(state: ConnectionState) -> str:
        """Return why a tunnel is down; empty if it is up."""
        connection = state.connection
        if state.all_entries_up:
            return ""
        if state.reason:
            return state.reason
        peer = format_address(connection.remote)
        if state.session is None and state.pending_session is None and not connection.may_initiate:
            return f"waiting for {peer} to initiate"
        return f"negotiating with {peer}"


def _endpoints_changed(before: Connection, after: Connection) -> bool:
    """Return whether the end points or the IKE version changed, so that all SAs have to be negotiated again."""
    return (before.context, before.local, before.remote, before.version) != (
        after.context,
        after.local,
        after.remote,
        after.version,
    )


def _negotiation_parameters(connection: Connection) -> tuple[object, ...]:
    """Return the parts of the configuration that a negotiation in progress depends on."""
    return (
        connection.policy,
        connection.proposals,
        connection.entries,
        connection.identity,
        connection.expected,
        connection.psk,
        connection.credentials,
    )
