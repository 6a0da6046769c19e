"""The controller's table of SAs, from the reports of ASPs. It holds no keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chassis.bus.messages import SaEvent, SaReport

MAX_SAS_PER_TUNNEL: Final = 128
"""Most SAs of one tunnel (count): 8 entries, 2 protocols, 2 directions, 4 generations while they are rekeyed."""

_Key = tuple[int, str, str]
"""(serial, direction, protocol)"""


@dataclass(frozen=True, slots=True)
class ReportedSa:
    """An SA and its last reported event: `installed`, `rekeyed` (it has a successor) or `expiring`. `since` is
    when it was reported first."""

    sa: SaReport
    event: str
    since: float


class SaTable:
    """SAs by tunnel. The oldest are removed if an ASP reports too many."""

    def __init__(self) -> None:
        self._tunnels: dict[int, dict[_Key, ReportedSa]] = {}

    def of(self, tunnel: int) -> list[ReportedSa]:
        return list(self._tunnels.get(tunnel, {}).values())

    def update(self, event: SaEvent, now: float) -> None:
        """One SA was installed, rekeyed, deleted, or is about to expire."""
        sa = event.sa
        table = self._tunnels.setdefault(sa.tunnel, {})
        key = (sa.serial, sa.direction, sa.protocol)
        if event.event in ("deleted", "exhausted"):
            table.pop(key, None)
        else:
            held = table.get(key)
            table[key] = ReportedSa(sa, event.event, now if held is None else held.since)
            if len(table) > MAX_SAS_PER_TUNNEL:
                del table[next(iter(table))]
        if not table:
            del self._tunnels[sa.tunnel]

    def replace(self, tunnel: int, sas: Iterable[SaReport], now: float) -> None:
        """Replace all SAs of a tunnel."""
        before = self._tunnels.pop(tunnel, {})
        table: dict[_Key, ReportedSa] = {}
        for sa in sas:
            key = (sa.serial, sa.direction, sa.protocol)
            held = before.get(key)
            if len(table) < MAX_SAS_PER_TUNNEL:
                table[key] = (
                    ReportedSa(sa, "installed", now) if held is None else ReportedSa(sa, held.event, held.since)
                )
        if table:
            self._tunnels[tunnel] = table

    def remove(self, tunnel: int) -> None:
        self._tunnels.pop(tunnel, None)
