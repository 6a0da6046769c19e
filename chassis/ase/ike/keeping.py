"""Keeping every configured tunnel up: attempts with back-off, lines that are missing, two IKE SAs for one tunnel.

Here is what the sessions' reports (`chassis.ase.ike.host.Host`) lead to.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import IKE_PORT, Child, Path, Session
from chassis.ase.ike.keeper import SIMULTANEOUS, STEADY, Keeper, Setback
from chassis.ase.link import IkeState, SaSwitch
from chassis.net.address import format_address

if TYPE_CHECKING:
    from chassis.ase.ike.engine import Ike

ATTEMPTS = 64
"""Own attempts under way at once: with more, answers would wait for our own arithmetic until they time out."""

GRACE = 1.0
"""Seconds from the moment that one of two IKE SAs is found to be one too many until who began it deletes it."""

PATIENCE = 10.0
"""Seconds that the other end has for it."""


class Keeping:
    """The keepers of all tunnels of one ASP."""

    def __init__(self, ike: Ike) -> None:
        self._ike = ike
        self.keepers: dict[int, Keeper] = {}
        self._due: list[tuple[float, int]] = []
        self._waiting: dict[int, None] = {}
        """Tunnels whose attempt is due and waits for others to end."""
        self._leaving: list[tuple[float, int, Session]] = []
        self._left = 0

    # time

    def on_timer(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            _, _, session = heappop(self._leaving)
            if not session.closed and not session.orphaned:
                self._close(session, "another IKE SA serves the tunnel", now)
        while self._due and self._due[0][0] <= now:
            at, tunnel = heappop(self._due)
            keeper = self.keepers.get(tunnel)
            if keeper is not None and keeper.due == at:
                keeper.due = inf
                self._try(keeper, now)
        while self._waiting and self._room:
            tunnel = next(iter(self._waiting))
            del self._waiting[tunnel]
            keeper = self.keepers.get(tunnel)
            if keeper is not None and keeper.wants:
                self._begin(keeper, now)

    def next_timer(self) -> float:
        if self._waiting and self._room:
            return -inf
        while self._due:
            at, tunnel = self._due[0]
            keeper = self.keepers.get(tunnel)
            if keeper is not None and keeper.due == at:
                break
            heappop(self._due)
        return min(self._due[0][0] if self._due else inf, self._leaving[0][0] if self._leaving else inf)

    # configuration

    def configure(self, tunnel: int, before: Connection | None, after: Connection | None, now: float) -> None:
        """A tunnel is not what it was."""
        if after is None:
            keeper = self.keepers.get(tunnel)
            if keeper is not None:
                self._end(keeper, "the tunnel is not configured", now)
                del self.keepers[tunnel]
                self._ike.statistics.forget(tunnel)
            return
        keeper = self.keepers.get(tunnel)
        if keeper is None:
            keeper = self.keepers[tunnel] = Keeper(after)
            before = None
        keeper.connection = after
        if not after.wanted or after.flaw:
            self._end(keeper, after.flaw or "the tunnel is not configured", now)
            keeper.reason = after.flaw or "not configured"
        else:
            self._reconfigure(keeper, before, now)
        self.tell(keeper)

    def _end(self, keeper: Keeper, reason: str, now: float) -> None:
        for session in keeper.sessions():
            self._close(session, reason, now)
        keeper.due = inf
        self._waiting.pop(keeper.connection.tunnel, None)

    def _reconfigure(self, keeper: Keeper, before: Connection | None, now: float) -> None:
        after = keeper.connection
        if before is not None and after.ready and not before.ready:
            keeper.reason = ""
        if before is not None and _elsewhere(before, after):
            for session in keeper.sessions():
                self._close(session, "the tunnel has other end points", now)
        for session in keeper.sessions():
            if session.established or session.orphaned:
                self._ike.run(session, session.configured, after, now)
            elif before is not None and _negotiated(before) != _negotiated(after):
                # It was begun by what is no longer configured; the next one knows better.
                self._close(session, "the configuration changed", now, tell=False)
        if before is not None and (keeper.pairs or keeper.session is not None):
            self._changed_lines(keeper, before, now)
        if keeper.session is None and keeper.attempt is None:
            if before is None or _negotiated(before) != _negotiated(after) or before.ready != after.ready:
                keeper.failures = 0
                self._set_due(keeper, now + keeper.first if keeper.wants else inf)
            if not after.ready:
                keeper.reason = "no way to the peer"

    def _changed_lines(self, keeper: Keeper, before: Connection, now: float) -> None:
        """Lines and rules that are gone lose their pairs; one that is another now is negotiated anew (S-064)."""
        seqs = {line.seq for line in keeper.connection.lines}
        for number in list(keeper.setbacks):
            if before.line(number) != keeper.connection.line(number):
                del keeper.setbacks[number]
        for pair in list(keeper.pairs.values()):
            old, new = before.line(pair.entry), keeper.connection.line(pair.entry)
            owner = self._ike.registry.owners.get((pair.tunnel, pair.serial))
            if owner is None:
                continue
            session = keeper.session or owner
            if new is None:
                gone = "the rule is gone" if entry_and_rule(pair.entry)[0] in seqs else "the policy line is gone"
                self._ike.run(owner, owner.drop, pair.serial, gone, now)
            elif old is not None and old.rules != new.rules and keeper.newest(pair.entry) is pair:
                self._ike.run(session, session.negotiate, new, pair.serial, now)
        self._ask(keeper, now)

    # what sessions report

    def up(self, session: Session, now: float) -> None:
        keeper = self._keeper(session)
        if keeper is None:
            session.close("the tunnel is not configured", now)
            return
        if keeper.attempt is session:
            keeper.attempt = None
        keeper.setbacks.clear()
        before, keeper.session = keeper.session, session
        if before is not None and before is not session and not before.closed:
            self._choose(keeper, session, before, now)
        keeper.stood_since = now
        attempt = keeper.attempt
        if attempt is not None and keeper.connection.local > keeper.connection.remote:
            # Both began at once, and the one of the end with the lower address stays.
            self._close(attempt, "the peer began at the same time", now)
        self._ask(keeper, now)

    def _choose(self, keeper: Keeper, new: Session, old: Session, now: float) -> None:
        """Two IKE SAs stand for one tunnel: both ends have to keep the same one, and no RFC has a rule for it.

        Begun at the same time by both, the one that the end with the lower address began stays. Else the newer one
        stays: the peer began anew, so it has lost the older.
        """
        began = self._ike.registry.began.get(new.spi, now)
        simultaneous = new.initiator != old.initiator and began <= keeper.stood_since + SIMULTANEOUS
        if new.version == 1 and not simultaneous:
            # A new phase 1 beside the old one is how version 1 goes on; the old one ends by its lifetime.
            keeper.rivals.append(old)
            return
        lower_is_ours = keeper.connection.local < keeper.connection.remote
        loser = old if not simultaneous or new.initiator == lower_is_ours else new
        keeper.session = new if loser is old else old
        keeper.rivals.append(loser)
        wait = GRACE if loser.initiator or not simultaneous else PATIENCE
        self._left += 1
        heappush(self._leaving, (now + wait, self._left, loser))

    def installed(self, session: Session, child: Child) -> None:
        self._ike.registry.owners[child.tunnel, child.serial] = session
        keeper = self.keepers.get(child.tunnel)
        if keeper is None:
            return
        keeper.pairs[child.serial] = child
        keeper.setbacks.pop(child.entry, None)
        keeper.failures = 0
        if keeper.complete:
            keeper.reason = ""
        self.tell(keeper)

    def removed(self, session: Session, child: Child, reason: str, now: float) -> None:
        self._ike.registry.owners.pop((child.tunnel, child.serial), None)
        keeper = self.keepers.get(child.tunnel)
        if keeper is None or keeper.pairs.pop(child.serial, None) is None:
            return
        newest = keeper.newest(child.entry)
        if newest is not None:
            if keeper.sending.get(child.entry) == child.serial:
                # One of two IKE SAs went with the pair that sent: the newest of those left is kept longest.
                self._ike.emit(SaSwitch(child.tunnel, newest.serial))
            return
        keeper.sending.pop(child.entry, None)
        keeper.reason = reason
        self.tell(keeper)
        serving = keeper.session
        if session.closed:
            return
        if serving is not None and serving.established and not serving.closed:
            # Other lines may wait for their next try much longer.
            self._set_due(keeper, min(keeper.due, now + self._soon(keeper)))
        else:
            self._again(keeper, now)

    def failed(self, session: Session, failure: FailureReason, now: float, line: Line | None) -> None:
        keeper = self._keeper(session)
        if keeper is None:
            return
        spread = self._ike.random(1)[0] / 255
        if line is not None:
            _, longest = self._ike.settings.backoff
            if not keeper.pairs:
                keeper.failures += 1
            setback = keeper.setbacks.setdefault(line.number, Setback())
            setback.failures += 1
            setback.reason = failure.text
            wait = min(2.0 ** min(setback.failures, 16), longest) * (0.75 + 0.5 * spread)
            setback.at = now + wait
            if not keeper.has(line.number):
                keeper.reason = failure.text
                self.tell(keeper)
            self._set_due(keeper, min(keeper.due, now + wait))
            return
        if keeper.attempt is session:
            keeper.attempt = None
            keeper.fail(failure.text, now, self._ike.settings.backoff, spread)
            self._set_due(keeper, keeper.due)
            if failure.cause == "timeout" and keeper.connection.keepalive:
                self._peer_is_silent(keeper, failure.text, now)
        elif keeper.attempt is None and not keeper.complete:
            keeper.reason = failure.text
        self.tell(keeper)

    def _peer_is_silent(self, keeper: Keeper, reason: str, now: float) -> None:
        """Where dead peers are to be noticed, pairs without an IKE SA to probe by do not outlive their peer."""
        settings = self._ike.settings
        for one in [one for one in keeper.rivals if one.orphaned]:
            if now - one.heard >= settings.dpd_interval * settings.dpd_tries:
                self._close(one, reason, now, tell=False)

    def down(self, session: Session, reason: str, now: float) -> None:
        keeper = self._keeper(session)
        if keeper is None:
            return
        if session in keeper.rivals:
            keeper.rivals.remove(session)
        if session.orphaned:
            keeper.rivals.append(session)
        if keeper.attempt is session:
            keeper.attempt = None
            keeper.reason = keeper.reason or reason
            self._again(keeper, now)
        elif keeper.session is session:
            others = [one for one in keeper.rivals if not one.closed and not one.orphaned]
            keeper.session = others[-1] if others else None
            if keeper.session is not None:
                keeper.rivals.remove(keeper.session)
            else:
                keeper.reason = reason
                if now - keeper.stood_since > STEADY:
                    keeper.failures = 0
                self._again(keeper, now)
        self.tell(keeper)

    def sends(self, tunnel: int, entry: int, serial: int) -> None:
        """A pair sends for its line from now on."""
        keeper = self.keepers.get(tunnel)
        if keeper is not None:
            keeper.sending[entry] = serial

    def switched(self, tunnel: int, serial: int) -> None:
        """As `sends`, for a pair that was installed before."""
        keeper = self.keepers.get(tunnel)
        pair = None if keeper is None else keeper.pairs.get(serial)
        if pair is not None:
            self.sends(tunnel, pair.entry, serial)

    def contacted(self, session: Session, now: float) -> None:
        keeper = self._keeper(session)
        if keeper is None:
            return
        for other in keeper.sessions():
            if other is not session and other.established:
                self._close(other, "the peer began anew", now, tell=False)

    def siblings(self, session: Session) -> list[Session]:
        """Other sessions of the same tunnel that stand or have pairs still, oldest first."""
        keeper = self._keeper(session)
        if keeper is None:
            return []
        serving = [] if keeper.session is None else [keeper.session]
        others = [one for one in keeper.rivals + serving if one is not session and not one.closed]
        return [one for one in others if one.established or one.orphaned]

    def succeeded(self, old: Session, new: Session) -> None:
        """A session made its own successor, which serves from now on."""
        keeper = self._keeper(new)
        if keeper is None:
            return
        owners = self._ike.registry.owners
        for tunnel, serial in [(pair.tunnel, pair.serial) for pair in keeper.pairs.values()]:
            if owners.get((tunnel, serial)) is old:
                owners[tunnel, serial] = new
        if keeper.session is old:
            keeper.session = new
            keeper.rivals.append(old)

    # the data engine and the operator

    def seen(self, tunnel: int, now: float) -> None:
        """Packets of the peer came in by a tunnel's pairs."""
        keeper = self.keepers.get(tunnel)
        if keeper is None:
            return
        for session in (keeper.session, *keeper.rivals):
            if session is not None and (session is keeper.session or session.orphaned):
                self._ike.run(session, session.alive, now)

    def wanted(self, tunnel: int, entry: int, now: float) -> None:
        """A packet waits for a pair of a line."""
        keeper = self.keepers.get(tunnel)
        if keeper is None:
            return
        line, session = keeper.connection.line(entry), keeper.session
        if session is not None and session.established and not session.closed:
            if line is not None and not keeper.has(entry) and keeper.setback(line).at <= now:
                self._ike.run(session, session.negotiate, line, 0, now)
        elif keeper.wants and keeper.due == inf and tunnel not in self._waiting:
            self._try(keeper, now)

    def clear(self, tunnel: int, now: float) -> None:
        """Delete all SAs of a tunnel; they are negotiated anew at once (guide chapter 11)."""
        keeper = self.keepers[tunnel]
        for session in keeper.sessions():
            self._close(session, "cleared by the operator", now)
        self._at_once(keeper, now)

    def clear_ike(self, tunnel: int, now: float) -> None:
        """Have the IKE SA of a tunnel made anew, by what is configured now (guide chapter 11).

        In version 1 its pairs stay. The new one stands before the old one is deleted, for the sake of peers that
        drop their pairs with it; an end that only answers has to delete it first, and its peer begins. In version
        2 the pairs end with it (RFC 7296 1.4.1) and are made anew.
        """
        keeper = self.keepers[tunnel]
        if keeper.connection.version == 2:
            self.clear(tunnel, now)
            return
        session = keeper.session
        if session is not None and keeper.connection.initiates:
            self._ike.run(session, session.rekey, now)
        elif session is not None:
            self._close(session, "cleared by the operator", now, keep=True)
        elif keeper.attempt is not None:
            self._close(keeper.attempt, "cleared by the operator", now)
        self._at_once(keeper, now)

    def clear_pairs(self, tunnel: int, now: float) -> None:
        """Have the pairs of a tunnel made anew, each new one before its old one goes (guide chapter 11).

        IKE SAs stay. Where none stands one is begun, and with it come the pairs.
        """
        keeper = self.keepers[tunnel]
        keeper.setbacks.clear()
        for line in keeper.connection.lines:
            newest = keeper.newest(line.number)
            serial = 0 if newest is None else newest.serial
            session = keeper.session or self._ike.registry.owners.get((tunnel, serial))
            if session is not None:
                self._ike.run(session, session.negotiate, line, serial, now)
        self._at_once(keeper, now)

    def _at_once(self, keeper: Keeper, now: float) -> None:
        """An IKE SA that is missing is begun now, whatever failed before."""
        keeper.failures = 0
        if keeper.wants:
            self._set_due(keeper, now)

    def rekey(self, tunnel: int, ike: bool, now: float) -> int:
        """Negotiate successors of all pairs of a tunnel, or of its IKE SA; how many were begun."""
        keeper = self.keepers[tunnel]
        session = keeper.session
        if session is None or not session.established or session.closed:
            return 0
        if ike:
            self._ike.run(session, session.rekey, now)
            return 1
        begun = 0
        for line in keeper.connection.lines:
            newest = keeper.newest(line.number)
            if newest is not None:
                self._ike.run(session, session.negotiate, line, newest.serial, now)
                begun += 1
        return begun

    # inside

    def _keeper(self, session: Session) -> Keeper | None:
        connection = session.connection
        return None if connection is None else self.keepers.get(connection.tunnel)

    def _close(self, session: Session, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        self._ike.run(session, lambda: session.close(reason, now, tell=tell, keep=keep))

    @property
    def _room(self) -> bool:
        return len(self._ike.registry.own) < ATTEMPTS

    def _try(self, keeper: Keeper, now: float) -> None:
        """What is due for a tunnel: an attempt at an IKE SA, or lines that are missing."""
        if keeper.wants:
            if self._room:
                self._begin(keeper, now)
            else:
                self._waiting[keeper.connection.tunnel] = None
        elif keeper.session is not None:
            self._ask(keeper, now)

    def _begin(self, keeper: Keeper, now: float) -> None:
        connection = keeper.connection
        path = Path(connection.context, connection.local, IKE_PORT, connection.remote, IKE_PORT)
        session = self._ike.initiate(connection, path)
        keeper.attempt = session
        self._ike.registry.add(session, now)
        self._ike.run(session, session.start, now)
        self.tell(keeper)

    def _again(self, keeper: Keeper, now: float) -> None:
        """Have the next attempt made: soon after something that stood, later after something that failed."""
        if keeper.due < inf or not (keeper.wants or keeper.session is not None):
            return
        if keeper.failures:
            keeper.fail(keeper.reason, now, self._ike.settings.backoff, self._ike.random(1)[0] / 255)
        else:
            keeper.failures = 1
            keeper.due = now + self._soon(keeper)
        self._set_due(keeper, keeper.due)

    def _soon(self, keeper: Keeper) -> float:
        """Seconds until what stood and is gone is made anew."""
        return min(self._ike.settings.backoff[0], 0.1) + keeper.first

    def _ask(self, keeper: Keeper, now: float) -> None:
        """Have the session make the pairs that are missing; only who began the IKE SA does that unasked."""
        session = keeper.session
        if session is None or session.closed or not session.established or not session.initiator:
            return
        owners = self._ike.registry.owners
        served = {
            pair.entry
            for pair in keeper.pairs.values()
            if session.version == 1 or owners.get((pair.tunnel, pair.serial)) not in keeper.rivals
        }
        later = inf
        for line in keeper.connection.lines:
            if line.number in served:
                continue
            at = keeper.setback(line).at
            if at <= now:
                self._ike.run(session, session.negotiate, line, 0, now)
            else:
                later = min(later, at)
        self._set_due(keeper, later)

    def _set_due(self, keeper: Keeper, at: float) -> None:
        keeper.due = at
        if at < inf:
            heappush(self._due, (at, keeper.connection.tunnel))

    def tell(self, keeper: Keeper) -> None:
        """Say how the tunnel is, if that is news."""
        connection = keeper.connection
        up = keeper.complete
        reason = self.reason(keeper)
        identity = str(connection.expected) if up else ""
        networks = keeper.networks if up else ()
        told = (up, reason, identity, networks)
        if told != keeper.told:
            keeper.told = told
            self._ike.emit(IkeState(connection.tunnel, up, reason, identity, networks))

    @staticmethod
    def reason(keeper: Keeper) -> str:
        """Why a tunnel is down; empty for one that is up, whatever was the matter with it before."""
        connection = keeper.connection
        if keeper.complete:
            return ""
        if keeper.reason:
            return keeper.reason
        peer = format_address(connection.remote)
        if keeper.session is None and keeper.attempt is None and not connection.initiates:
            return f"waiting for {peer} to begin"
        return f"negotiating with {peer}"


def _elsewhere(before: Connection, after: Connection) -> bool:
    """Whether a tunnel's end points moved, so that none of its SAs fits any more."""
    return (before.context, before.local, before.remote, before.version) != (
        after.context,
        after.local,
        after.remote,
        after.version,
    )


def _negotiated(connection: Connection) -> tuple[object, ...]:
    """What an attempt that is under way was begun with."""
    return (
        connection.policy,
        connection.proposals,
        connection.lines,
        connection.identity,
        connection.expected,
        connection.psk,
        connection.credentials,
    )
