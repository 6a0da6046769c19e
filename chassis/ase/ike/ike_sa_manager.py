"""IKE SA table: lookup by SPI, by first message and by CHILD SA, and a timer heap; counters of IKE."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf

from chassis.ase.ike.host import Path, Session

First = tuple[int, int, int, int, bytes]
"""(context, our address, the peer's address and port, mark) of a message that begins an IKE SA."""


STALE = 256
"""Timers that may be kept for nothing, beside three for each that holds."""


class IkeSaTable:
    """No session is held twice; one that closed is let go at the next `settle`."""

    def __init__(self) -> None:
        self.by_spi: dict[bytes, Session] = {}
        self.owners: dict[tuple[int, int], Session] = {}
        """The session of each pair, by (tunnel, serial)."""
        self.own: dict[bytes, None] = {}
        """Our own attempts that do not stand yet."""
        self.began: dict[bytes, float] = {}
        """When each session began, by our SPI."""
        self._first: dict[First, Session] = {}
        self._began: dict[bytes, First] = {}
        self._half_open: dict[bytes, int] = {}
        """By our SPI, oldest first: where the peer says it is."""
        self._from: dict[int, dict[bytes, None]] = {}
        """The same by that address."""
        self._timers: list[tuple[float, bytes]] = []
        """By SPI, so that no session that ended is held until the time that it wanted to be woken at."""
        self._set: dict[bytes, float] = {}

    def add(self, session: Session, now: float) -> None:
        """A session that began here, or that succeeds another."""
        self.by_spi[session.spi] = session
        self.began.setdefault(session.spi, now)
        if session.initiator and not session.established:
            self.own[session.spi] = None

    def answer(self, session: Session, path: Path, mark: bytes, now: float) -> None:
        """A session that answers a peer's first message, which is known again by `mark`."""
        self.began[session.spi] = now
        first = (path.context, path.local, path.remote, path.remote_port, mark)
        self.by_spi[session.spi] = session
        self._first[first] = session
        self._began[session.spi] = first
        self._half_open[session.spi] = path.remote
        self._from.setdefault(path.remote, {})[session.spi] = None

    def first(self, path: Path, mark: bytes) -> Session | None:
        """Who answered this first message before."""
        return self._first.get((path.context, path.local, path.remote, path.remote_port, mark))

    def proved(self, session: Session) -> None:
        """The peer has authenticated itself: the session no longer counts as half open."""
        self.own.pop(session.spi, None)
        remote = self._half_open.pop(session.spi, None)
        if remote is not None:
            here = self._from[remote]
            del here[session.spi]
            if not here:
                del self._from[remote]

    @property
    def half_open(self) -> int:
        return len(self._half_open)

    def half_open_from(self, remote: int) -> int:
        return len(self._from.get(remote, ()))

    def unproved(self, remote: int | None = None) -> Session | None:
        """The oldest half-open session, of one address or of all, whose peer has not shown that it receives."""
        spis: Iterable[bytes] = self._half_open if remote is None else self._from.get(remote, ())
        return next((one for one in map(self.by_spi.__getitem__, spis) if not one.receives), None)

    def settle(self, session: Session) -> None:
        """After anything that was done with a session: its next timer, or its end."""
        spi = session.spi
        if session.closed:
            if self.by_spi.get(spi) is session:
                del self.by_spi[spi]
                self._set.pop(spi, None)
                self.began.pop(spi, None)
            self.proved(session)
            first = self._began.pop(spi, None)
            if first is not None and self._first.get(first) is session:
                del self._first[first]
            return
        at = session.next_timer()
        if self._set.get(spi) == at:
            return
        if at == inf:
            self._set.pop(spi, None)
            return
        self._set[spi] = at
        heappush(self._timers, (at, spi))
        if len(self._timers) > STALE + 4 * len(self._set):
            self._clear_timers()

    def _clear_timers(self) -> None:
        """Let go of timers that no longer hold: a lifetime may be a day ahead, and who has the keys makes IKE SAs
        and deletes them as fast as it likes."""
        self._set = {spi: at for spi, at in self._set.items() if spi in self.by_spi}
        self._timers = [(at, spi) for spi, at in self._set.items()]
        heapify(self._timers)

    def due(self, now: float) -> Session | None:
        """A session whose time has come; it has to be settled afterwards."""
        while self.next_timer() <= now:
            _, spi = heappop(self._timers)
            del self._set[spi]
            return self.by_spi[spi]
        return None

    def next_timer(self) -> float:
        timers = self._timers
        while timers:
            at, spi = timers[0]
            if self._set.get(spi) == at and spi in self.by_spi:
                return at
            heappop(timers)
        return inf


VERSIONS = {0: "", 1: "v1 ", 2: "v2 "}


class Statistics:
    """Numbers by name. A name is in the words that people read: `begun`, `done`, `failed no answer`."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        """Of the ASP, each name once with its version before it (`v2 negotiations initiated`) where it has one."""
        self.tunnels: dict[int, dict[str, int]] = {}
        self._unnamed: dict[bytes, dict[str, int]] = {}
        """Of negotiations whose tunnel is not known yet, by our SPI."""

    def count(self, name: str, version: int, tunnel: int, number: int = 1, spi: bytes = b"") -> None:
        """Where the `tunnel` is not known (0) the negotiation with our `spi` keeps it until it is."""
        key = VERSIONS.get(version, "") + name
        self.total[key] = self.total.get(key, 0) + number
        if tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
        elif spi:
            counts = self._unnamed.setdefault(spi, {})
        else:
            return
        counts[name] = counts.get(name, 0) + number

    def credit(self, spi: bytes, tunnel: int) -> None:
        """A negotiation is this tunnel's, as is now known; 0: it ended without being any one's."""
        kept = self._unnamed.pop(spi, None)
        if kept is not None and tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
            for name, number in kept.items():
                counts[name] = counts.get(name, 0) + number

    @property
    def held(self) -> int:
        """Negotiations whose tunnel is not known yet."""
        return len(self._unnamed)

    def forget(self, tunnel: int) -> None:
        """The tunnel is gone; the ASP's numbers stay."""
        self.tunnels.pop(tunnel, None)
