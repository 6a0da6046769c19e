"""The keeper of one tunnel: which IKE SA serves it, which pairs it has, and when the next attempt is due.

It has no timers of its own: `due` says when, the engine asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.host import Child, Session

SHY = 0.3
"""Seconds that the end with the higher address waits before it begins: two that may both begin rarely collide."""

SIMULTANEOUS = 1.0
"""Seconds for which the first message of the peer may have been under way: an IKE SA that was begun no later after
another one stood was begun without knowing of it."""

STEADY = 30.0
"""Seconds that an IKE SA has to stand for the next attempt after it to be a first one again."""


@dataclass(slots=True)
class Setback:
    """What came of the tries at a line's pair since one was installed: how many failed, why the last one did, and
    when the next one may be made."""

    failures: int = 0
    reason: str = ""
    at: float = -inf


@dataclass(slots=True, eq=False)
class Keeper:
    """`session` serves the tunnel, `attempt` is our own that does not stand yet; `pairs` by serial, oldest first.

    `due` is when the next attempt, or the next try at a missing line, is to be made. What is said of lines here
    holds for each rule of one where IKEv1 negotiates them apart: numbers are those of `chassis.ase.entry_numbers`.
    """

    connection: Connection
    session: Session | None = None
    attempt: Session | None = None
    rivals: list[Session] = field(default_factory=list)
    """Further IKE SAs of the tunnel that stand and are on their way out, and one that left its pairs behind."""
    pairs: dict[int, Child] = field(default_factory=dict)
    sending: dict[int, int] = field(default_factory=dict)
    """Serial of the pair that sends, by line."""
    stood_since: float = -inf
    failures: int = 0
    due: float = inf
    setbacks: dict[int, Setback] = field(default_factory=dict)
    """Of the lines that failed."""
    reason: str = ""
    identity: str = ""
    told: tuple[object, ...] | None = None

    @property
    def first(self) -> float:
        """Seconds before a first attempt."""
        connection = self.connection
        return SHY if connection.responds and connection.local > connection.remote else 0.0

    @property
    def wants(self) -> bool:
        """Whether an IKE SA should stand and this end is to begin."""
        connection = self.connection
        return (
            connection.wanted
            and connection.ready
            and not connection.flaw
            and connection.initiates
            and self.session is None
            and self.attempt is None
        )

    def setback(self, line: Line) -> Setback:
        """How a line failed, if it did."""
        return self.setbacks.get(line.number, Setback())

    def has(self, entry: int) -> bool:
        """Whether a policy line has a pair."""
        return any(pair.entry == entry for pair in self.pairs.values())

    @property
    def complete(self) -> bool:
        """Whether every `seq` line has a pair, at least for one of its rules."""
        wanted = {line.seq for line in self.connection.lines}
        return bool(wanted) and wanted <= {entry_and_rule(pair.entry)[0] for pair in self.pairs.values()}

    @property
    def missing(self) -> list[Line]:
        """What has no pair."""
        served = {pair.entry for pair in self.pairs.values()}
        return [line for line in self.connection.lines if line.number not in served]

    @property
    def networks(self) -> tuple[int, ...]:
        """The peer's networks over all pairs, each once: address and prefix length in turn.

        Those of a rule that waits for its pair belong to them: its packets must not take another way meanwhile.
        """
        seen: dict[tuple[int, int], None] = {}
        for pair in self.pairs.values():
            seen.update(dict.fromkeys(pair.remote_networks))
        for line in self.missing:
            if line.rule:
                seen.update(dict.fromkeys(line.remote_networks))
        return tuple([number for network in sorted(seen) for number in network])

    def newest(self, entry: int) -> Child | None:
        """The pair of a line that was installed last."""
        found = None
        for pair in self.pairs.values():
            if pair.entry == entry:
                found = pair
        return found

    def sessions(self) -> list[Session]:
        """Every session of the tunnel, the serving one first."""
        serving = [] if self.session is None else [self.session]
        attempt = [] if self.attempt is None else [self.attempt]
        return serving + attempt + self.rivals

    def fail(self, reason: str, now: float, backoff: tuple[float, float], spread: float) -> None:
        """An attempt came to nothing: the next one is due later each time. `spread` is random, 0 to 1."""
        self.reason = reason
        first, longest = backoff
        wait = min(first * 2.0 ** min(self.failures, 16), longest)
        self.failures += 1
        self.due = now + wait * (0.75 + 0.5 * spread)
