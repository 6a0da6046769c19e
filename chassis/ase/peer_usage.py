"""What the peers of on-demand tunnels have used, for accounting: now and then, and once more at their end.

Only instances with an accounting session are reported. The controller keeps the last figures, so that it can close
a session whose ASP has died.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AspCounters
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import PeerUsage, TunnelUsage
from chassis.bus.records import TunnelRecord
from chassis.bus.replication import RecordChange

USAGE_INTERVAL: Final = 10.0
"""Time between two reports (s)."""

MAX_USAGES: Final = 500
"""Tunnels of one message (count)."""


class UsageReports:
    """The reports of one ASP."""

    def __init__(self, card: str, counts: AspCounters) -> None:
        self._card, self._counts = card, counts
        self._reported: dict[int, TunnelUsage] = {}
        """The last report of each instance with a session."""
        self._due = inf

    def apply_records(self, change: RecordChange, now: float) -> list[Output]:
        """Begin to report of new instances; return the last report of those that end."""
        last = []
        for record in change.deleted:
            if isinstance(record, TunnelRecord) and self._reported.pop(record.number, None) is not None:
                last.append(self._usage(record.number))
        for record in change.put:
            if (
                isinstance(record, TunnelRecord)
                and record.asp == self._card
                and record.instance is not None
                and record.instance.session
            ):
                self._reported.setdefault(record.number, TunnelUsage(record.number, 0, 0, 0, 0))
                self._due = min(self._due, now + USAGE_INTERVAL)
        return _messages(last)

    def repeat(self) -> list[Output]:
        """A controller may know nothing: return the report of every instance with a session."""
        return self._report(everything=True)

    def next_timer(self) -> float:
        return self._due

    def on_timer(self, now: float) -> list[Output]:
        """Return the reports of instances that have used something since the last ones."""
        if now < self._due:
            return []
        self._due = now + USAGE_INTERVAL if self._reported else inf
        return self._report()

    def _report(self, *, everything: bool = False) -> list[Output]:
        changed = []
        for number, before in self._reported.items():
            usage = self._usage(number)
            if everything or usage != before:
                changed.append(usage)
        self._reported.update((usage.tunnel, usage) for usage in changed)
        return _messages(changed)

    def _usage(self, number: int) -> TunnelUsage:
        came, went = (
            self._counts.tunnel_total(number, DECAPSULATED),
            self._counts.tunnel_total(number, ENCAPSULATED),
        )
        return TunnelUsage(number, *came, *went)


def _messages(usages: Iterable[TunnelUsage]) -> list[Output]:
    found = tuple(usages)
    return [ToController(PeerUsage(found[at : at + MAX_USAGES])) for at in range(0, len(found), MAX_USAGES)]
