"""The pairs of SAs that quick modes made: which one sends, when it is succeeded, when it goes.

A line is here one rule of a policy line, where that has an access list.

Make before break. Of several pairs of one line the newest wins; it sends as soon as the peer is known to
have it. Quick modes of one line follow each other in the same order at both ends, so both agree which pair is the
newest. The initiator of the newest one deletes the older ones after `DELETE_DELAY`: it tells the peer, and still
receives by them for `RECEIVE_AFTER_DELETE_DELAY`. The responder deletes them itself after `PEER_DELETE_TIMEOUT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from chassis.ase.entry_numbers import describe_entry
from chassis.ase.ike.connections import Connection
from chassis.ase.ike.host import AGED, Child, Host, Session
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.link import Encapsulation, SaDelete, SaExpiring, SaInstall, SaMove, SaSwitch

DELETE_DELAY: Final = 5.0
RECEIVE_AFTER_DELETE_DELAY: Final = 2.0
PEER_DELETE_TIMEOUT: Final = 60.0
REKEY_RETRY_INTERVAL: Final = 10.0
"""Seconds until a successor that did not come is asked for again."""
MAX_CHILD_SAS: Final = 256
"""Pairs of one connection; a peer that makes more is refused. Of many rules each may have as many as four."""


@dataclass(slots=True, eq=False)
class ChildSaV1:
    """`spis_in` are ours, `spis_out` the peer's, by protocol. Times are `now`'s; infinity is never."""

    child: Child
    install: SaInstall
    spis_in: Mapping[int, bytes]
    spis_out: Mapping[int, bytes]
    suite: str
    confirmed: bool
    """The peer is known to have it."""
    created_at: float
    soft: float
    hard: float
    sending: bool = False
    delete_at: float = inf
    remove_at: float = inf
    """When it is taken away, once the peer was told."""

    @property
    def due(self) -> float:
        return min(self.soft, self.hard, self.delete_at) if self.remove_at == inf else self.remove_at


def max_child_sas(connection: Connection) -> int:
    """How many pairs a connection may have at once."""
    return max(MAX_CHILD_SAS, 4 * len(connection.lines))


class ChildSasV1:
    """The pairs of one session, oldest first."""

    def __init__(
        self, host: Host, session: Session, send_delete: Callable[[Mapping[int, bytes], float], None]
    ) -> None:
        """`send_delete(spis, now)` tells the peer that we no longer receive by these SPIs."""
        self._host = host
        self._session = session
        self._send_delete = send_delete
        self.all: list[ChildSaV1] = []

    def by_serial(self, serial: int) -> ChildSaV1 | None:
        return next((one for one in self.all if one.child.serial == serial), None)

    def newest(self, entry: int) -> ChildSaV1 | None:
        """The pair of a line that has no successor."""
        return next((one for one in reversed(self.all) if one.child.entry == entry and one.remove_at == inf), None)

    def has_child(self, entry: int) -> bool:
        """Whether a line has a pair that the peer is known to have."""
        return any(one.child.entry == entry and one.confirmed and one.remove_at == inf for one in self.all)

    # coming

    def add(self, pair: ChildSaV1, now: float) -> None:
        """Install a new pair; it sends at once if the peer is known to have it."""
        host = self._host
        entry = pair.child.entry
        self.all.append(pair)
        if pair.confirmed:
            for other in self.all:
                if other.child.entry == entry:
                    other.sending = False
            pair.sending = True
        host.emit(replace(pair.install, send=pair.sending))
        host.installed(self._session, pair.child, now)
        self._activate_newest(entry, now)

    def confirm(self, pair: ChildSaV1, now: float) -> None:
        """The peer has it."""
        if not pair.confirmed:
            pair.confirmed = True
            self._activate_newest(pair.child.entry, now)

    def take_over(self, pairs: list[ChildSaV1], now: float) -> None:
        """Pairs of a session that this one succeeds."""
        self.all = pairs + self.all
        for pair in pairs:
            self._host.installed(self._session, pair.child, now)

    def give_away(self) -> list[ChildSaV1]:
        pairs, self.all = self.all, []
        return pairs

    def _activate_newest(self, entry: int, now: float) -> None:
        """The newest pair that the peer has sends, and the older ones are on their way out."""
        live = [one for one in self.all if one.child.entry == entry and one.remove_at == inf]
        sender = next((one for one in reversed(live) if one.confirmed), None)
        if sender is None:
            return
        if not sender.sending:
            for one in self.all:
                if one.child.entry == entry:
                    one.sending = False
            sender.sending = True
            self._host.emit(SaSwitch(sender.child.tunnel, sender.child.serial))
        for one in live[: live.index(sender)]:
            one.soft = inf
            if one.delete_at == inf:
                one.delete_at = now + (DELETE_DELAY if sender.install.initiator else PEER_DELETE_TIMEOUT)

    def on_peer_moved(self) -> None:
        """The peer is reached by another address or port: so are its pairs (RFC 3947 section 4)."""
        path = self._session.path
        way = Encapsulation(path.local_port, path.remote, path.remote_port)
        for pair in self.all:
            if pair.install.encapsulation:
                self._host.emit(SaMove(pair.child.tunnel, pair.child.serial, way))

    # going

    def remove(self, pair: ChildSaV1, reason: str, now: float, *, tell: bool) -> None:
        """Take it away at once; `tell` the peer.

        Where all that is left waits for its confirmation the newest sends now: the peer has it, or it would not
        have deleted the one before.
        """
        if pair not in self.all:
            return
        if tell and pair.remove_at == inf:
            self._send_delete(pair.spis_in, now)
        entry = pair.child.entry
        others = [one for one in self.all if one.child.entry == entry and one.remove_at == inf and one is not pair]
        if others and not any(one.confirmed for one in others):
            self.confirm(others[-1], now)
        self.all.remove(pair)
        host = self._host
        host.emit(SaDelete(pair.child.tunnel, pair.child.serial, reason))
        host.release(pair.spis_in)
        host.removed(self._session, pair.child, reason, now)
        self._activate_newest(entry, now)

    def on_delete(self, protocol: int, spi: bytes, now: float) -> None:
        """The peer deleted the SA that we send by with this SPI."""
        for pair in self.all:
            if pair.spis_out.get(protocol) == spi:
                self.remove(pair, "deleted by the peer", now, tell=False)
                return

    # time

    def next_timer(self) -> float:
        return min([one.due for one in self.all], default=inf)

    def on_timer(self, now: float) -> None:
        for pair in list(self.all):
            if pair.due > now or pair not in self.all:
                continue
            if pair.remove_at <= now:
                self.remove(pair, "succeeded by another pair", now, tell=False)
            elif pair.hard <= now:
                self.remove(pair, "its lifetime ended", now, tell=True)
            elif pair.delete_at <= now:
                self._send_delete(pair.spis_in, now)
                pair.remove_at = now + RECEIVE_AFTER_DELETE_DELAY
            elif pair.soft <= now:
                if self.newest(pair.child.entry) is pair:
                    self._host.emit(SaExpiring(pair.child.tunnel, pair.child.serial, False, AGED))
                self.request_successor(pair, now)

    def request_successor(self, pair: ChildSaV1, now: float) -> None:
        """Have a successor negotiated, again after a while if none comes."""
        session = self._session
        pair.soft = now + REKEY_RETRY_INTERVAL
        line = None if session.connection is None else session.connection.line(pair.child.entry)
        if line is None:
            pair.soft = inf
        elif self.newest(pair.child.entry) is pair:
            session.negotiate(line, pair.child.serial, now)

    def describe(self) -> list[dict[str, Any]]:
        """Never a key."""
        return [
            {
                "serial": one.child.serial,
                **describe_entry(one.child.entry),
                "proposal": one.suite,
                "spi_in": {Protocol(p).name.lower(): spi.hex() for p, spi in one.spis_in.items()},
                "spi_out": {Protocol(p).name.lower(): spi.hex() for p, spi in one.spis_out.items()},
                "sends": one.sending,
                "began": one.created_at,
                "ends": one.hard,
                "leaving": one.delete_at < inf or one.remove_at < inf,
            }
            for one in self.all
        ]
