"""The CHILD SAs of a connection in IKEv1: which one sends, when each is replaced and deleted.

`entry` is a line of the policy, or one rule of its access list.

Make before break: of several CHILD SAs of one entry the newest one sends, as soon as the peer is known to have it.
Quick modes of one entry follow each other in the same order at both ends, so both agree which one is the newest.
The initiator of the newest one deletes the older ones after DELETE_DELAY: it tells the peer, and still receives by
them for RECEIVE_AFTER_DELETE_DELAY. The responder deletes them itself after PEER_DELETE_TIMEOUT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final
from typing import Protocol as Interface

from chassis.ase.entry_numbers import describe_entry
from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection
from chassis.ase.ike.host import SOFT_LIFETIME_REACHED, IkeHost, Session, SessionPart
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike_messages import (
    SaActivateOutbound,
    SaDelete,
    SaExpire,
    SaInstall,
    SaUpdateAddress,
    UdpEncapsulation,
)

DELETE_DELAY: Final = 5.0
"""Time (s) after which the initiator of a successor deletes what it replaces; packets may still be under way."""
RECEIVE_AFTER_DELETE_DELAY: Final = 2.0
"""Time (s) for which a deleted CHILD SA still receives."""
PEER_DELETE_TIMEOUT: Final = 60.0
"""Time (s) that the initiator of a successor has to delete what it replaces, before the responder does."""
REKEY_RETRY_INTERVAL: Final = 10.0
"""Time (s) after which a successor that did not come is requested again."""
MAX_CHILD_SAS: Final = 256
"""CHILD SAs of one connection (count), or four for each entry if that is more. The peer cannot make more."""


@dataclass(slots=True, eq=False)
class ChildSaV1:
    """One CHILD SA. `spis_in` are ours, `spis_out` the peer's, by protocol. Times are the engine's (s).

    `initiator`: this end initiated its quick mode. `encapsulated`: its packets are in UDP. Its keys are with the
    data engine alone.
    """

    child: ChildSa
    initiator: bool
    encapsulated: bool
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
    """When it is removed, after the peer was told."""

    @property
    def due(self) -> float:
        return min(self.soft, self.hard, self.delete_at) if self.remove_at == inf else self.remove_at


def max_child_sas(connection: Connection) -> int:
    """Return how many CHILD SAs a connection may have at once."""
    return max(MAX_CHILD_SAS, 4 * len(connection.entries))


class Deleter(Session, Interface):
    """The ISAKMP SA, as its CHILD SAs know it."""

    def send_delete(self, spis: Mapping[int, bytes], now: float) -> None:
        """Tell the peer that we no longer receive by these SPIs."""


class ChildSasV1(SessionPart[Deleter]):
    """The CHILD SAs that are under one ISAKMP SA, oldest first."""

    __slots__ = ("_host", "all")

    def __init__(self, host: IkeHost, sa: Deleter) -> None:
        super().__init__(sa)
        self._host = host
        self.all: list[ChildSaV1] = []

    def by_serial(self, serial: int) -> ChildSaV1 | None:
        return next((one for one in self.all if one.child.serial == serial), None)

    def newest(self, entry: int) -> ChildSaV1 | None:
        """Return the newest CHILD SA of an entry that is not deleted."""
        return next((one for one in reversed(self.all) if one.child.entry == entry and one.remove_at == inf), None)

    def has_child(self, entry: int) -> bool:
        """Return whether an entry has a CHILD SA that the peer is known to have."""
        return any(one.child.entry == entry and one.confirmed and one.remove_at == inf for one in self.all)

    def add(self, child_sa: ChildSaV1, install: SaInstall, now: float) -> None:
        """Install a new CHILD SA by `install`; it sends at once if the peer is known to have it."""
        host = self._host
        entry = child_sa.child.entry
        self.all.append(child_sa)
        if child_sa.confirmed:
            for other in self.all:
                if other.child.entry == entry:
                    other.sending = False
            child_sa.sending = True
        host.send_to_dataplane(replace(install, send=child_sa.sending))
        host.on_child_installed(self.sa, child_sa.child, now)
        self._activate_newest(entry, now)

    def confirm(self, child_sa: ChildSaV1, now: float) -> None:
        """Mark that the peer has it."""
        if not child_sa.confirmed:
            child_sa.confirmed = True
            self._activate_newest(child_sa.child.entry, now)

    def take_over(self, taken: list[ChildSaV1], now: float) -> None:
        """Take over those of an ISAKMP SA that this one replaces."""
        self.all = taken + self.all
        for child_sa in taken:
            self._host.on_child_installed(self.sa, child_sa.child, now)

    def give_away(self) -> list[ChildSaV1]:
        """Return all, for the ISAKMP SA that takes them over."""
        given, self.all = self.all, []
        return given

    def _activate_newest(self, entry: int, now: float) -> None:
        """Send with the newest confirmed CHILD SA and schedule the deletion of the older ones."""
        live = [one for one in self.all if one.child.entry == entry and one.remove_at == inf]
        sender = next((one for one in reversed(live) if one.confirmed), None)
        if sender is None:
            return
        if not sender.sending:
            for one in self.all:
                if one.child.entry == entry:
                    one.sending = False
            sender.sending = True
            self._host.send_to_dataplane(SaActivateOutbound(sender.child.tunnel, sender.child.serial))
        for one in live[: live.index(sender)]:
            one.soft = inf
            if one.delete_at == inf:
                one.delete_at = now + (DELETE_DELAY if sender.initiator else PEER_DELETE_TIMEOUT)

    def on_peer_moved(self) -> None:
        """Send to the peer's new address and port (RFC 3947 4)."""
        path = self.sa.path
        encapsulation = UdpEncapsulation(path.local_port, path.remote, path.remote_port)
        for child_sa in self.all:
            if child_sa.encapsulated:
                self._host.send_to_dataplane(
                    SaUpdateAddress(child_sa.child.tunnel, child_sa.child.serial, encapsulation)
                )

    def remove(self, child_sa: ChildSaV1, reason: str, now: float, *, tell: bool) -> None:
        """Remove it at once; `tell` the peer.

        If only unconfirmed ones of the entry remain, the newest of them is confirmed: a peer that did not have it
        would not have deleted the one before.
        """
        if child_sa not in self.all:
            return
        if tell and child_sa.remove_at == inf:
            self.sa.send_delete(child_sa.spis_in, now)
        entry = child_sa.child.entry
        others = [
            one for one in self.all if one.child.entry == entry and one.remove_at == inf and one is not child_sa
        ]
        if others and not any(one.confirmed for one in others):
            self.confirm(others[-1], now)
        self.all.remove(child_sa)
        host = self._host
        host.send_to_dataplane(SaDelete(child_sa.child.tunnel, child_sa.child.serial, reason))
        host.release_spis(child_sa.spis_in)
        host.on_child_removed(self.sa, child_sa.child, reason, now)
        self._activate_newest(entry, now)

    def on_delete(self, protocol: int, spi: bytes, now: float) -> None:
        """Remove the CHILD SA by which we send with this SPI: the peer deleted it."""
        for child_sa in self.all:
            if child_sa.spis_out.get(protocol) == spi:
                self.remove(child_sa, "deleted by the peer", now, tell=False)
                return

    def next_timer(self) -> float:
        return min([one.due for one in self.all], default=inf)

    def on_timer(self, now: float) -> None:
        for child_sa in list(self.all):
            if child_sa.due > now or child_sa not in self.all:
                continue
            if child_sa.remove_at <= now:
                self.remove(child_sa, "replaced by another CHILD SA", now, tell=False)
            elif child_sa.hard <= now:
                self.remove(child_sa, "its lifetime ended", now, tell=True)
            elif child_sa.delete_at <= now:
                self.sa.send_delete(child_sa.spis_in, now)
                child_sa.remove_at = now + RECEIVE_AFTER_DELETE_DELAY
            elif child_sa.soft <= now:
                if self.newest(child_sa.child.entry) is child_sa:
                    self._host.send_to_dataplane(
                        SaExpire(child_sa.child.tunnel, child_sa.child.serial, False, SOFT_LIFETIME_REACHED)
                    )
                self.request_successor(child_sa, now)

    def request_successor(self, child_sa: ChildSaV1, now: float) -> None:
        """Request a successor, and again after REKEY_RETRY_INTERVAL if none comes."""
        session = self.sa
        child_sa.soft = now + REKEY_RETRY_INTERVAL
        entry = None if session.connection is None else session.connection.entry(child_sa.child.entry)
        if entry is None:
            child_sa.soft = inf
        elif self.newest(child_sa.child.entry) is child_sa:
            session.negotiate(entry, child_sa.child.serial, now)

    def describe(self) -> list[dict[str, Any]]:
        """Return all for `show`; never a key."""
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
