"""The alarms of a router: looks where something has changed, keeps the table, says what was raised and cleared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Final

from chassis.bus.engine import Output, Persist
from chassis.xcrp import capacity_alarms, hardware_alarms, tunnel_alarms
from chassis.xcrp.alarms import ALARMS_FILE, Alarm, AlarmKey, AlarmTable, read_file
from chassis.xcrp.capacity_alarms import CapacityAlarms
from chassis.xcrp.certificate_alarms import CertificateAlarms
from chassis.xcrp.hardware_alarms import HardwareAlarms
from chassis.xcrp.log import LogEntry
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import Plan
from chassis.xcrp.tunnel_alarms import TunnelAlarms, numbers_of, ranges

WRITE_DELAY: Final = 0.5
"""Time (s) until the file is written: the log is on disk before."""

RETRY_INTERVAL: Final = 5.0
"""Time (s) until the file is written again after a failed write."""

CERTIFICATE_KINDS: Final = ("context", "certificate")
"""Kinds of the places of alarms of certificates."""


class AlarmWatch:
    """The alarms that stand, as they were told. Looks only at what has changed since it looked last."""

    def __init__(self, node: NodeState, wall_offset: float) -> None:
        """`wall_offset`: what the clock of the day (s since 1970) shows more than the engine's."""
        self._node, self._wall_offset = node, wall_offset
        self.table = AlarmTable()
        self._hardware = HardwareAlarms(node)
        self._tunnels = TunnelAlarms(node, self._hardware)
        self.capacity = CapacityAlarms(node)
        self._certificates = CertificateAlarms(node, wall_offset)
        self._plan: Plan | None = None
        """The plan when tunnels were looked at last; None before the first time."""
        self._write_at = inf

    def restore(self, file: bytes, log: Iterable[LogEntry]) -> None:
        """Learn what controllers before this one told: from `ALARMS_FILE`, where it can be read, and the log."""
        said, entries = read_file(file), tuple(log)
        try:
            self.table.restore(said["alarms"], int(said["log"]), entries)
            self._tunnels.been_up = numbers_of(said["up"])
        except (KeyError, ValueError, TypeError, OverflowError):
            self.table.standing.clear()
            self.table.restore((), 0, entries)

    def set_clock(self, wall_offset: float) -> None:
        """The clock of the day shows so much more (s) than the engine's."""
        self._wall_offset = wall_offset
        self._certificates.set_clock(wall_offset)

    def next_timer(self) -> float:
        if self._plan is None or self._node.changes:
            return -inf
        parts = (self._hardware, self._tunnels, self.capacity, self._certificates)
        return min(self._write_at, *(part.due for part in parts))

    def check(self, now: float) -> list[Alarm]:
        """Return the alarms that are new, and those that are over with the severity `CLEARED`, in order."""
        if now < self.next_timer():
            return []
        told: list[Alarm] = []
        hardware, touched = self._node.changes.take()
        first = self._plan is None
        if first:
            self._tunnels.adopt(self.table.of_kinds((tunnel_alarms.KIND,)))
            touched |= self._node.tunnels.keys()
        if first or hardware or now >= self._hardware.due:
            found = self._hardware.find(self.table.standing, now)
            told += self._replace(hardware_alarms.KINDS, found, now)
            touched |= self._tunnels.excused
        told += self._check_tunnels(touched, now)
        if now >= self.capacity.due:
            told += self._replace(capacity_alarms.KINDS, self.capacity.find(self.table.standing, now), now)
        if now >= self._certificates.due:
            told += self._replace(CERTIFICATE_KINDS, self._certificates.find(now), now)
        if told or self._tunnels.been_up_changed:
            self._tunnels.been_up_changed = False
            self._write_at = min(self._write_at, now + WRITE_DELAY)
        return told

    def down_with(self) -> Counter[str]:
        """Return how many tunnels are down with each card and port, and have no alarm of their own."""
        return self._tunnels.down_with()

    def write(self, number: int, now: float) -> list[Output]:
        """Return the file, where it is time to write it; `number` is that of the last record of the log."""
        if now < self._write_at:
            return []
        self._write_at = inf
        said = {"log": number, "alarms": self.table.rows(), "up": ranges(self._tunnels.been_up)}
        return [Persist(ALARMS_FILE, json.dumps(said, separators=(",", ":")).encode())]

    def on_unwritten(self, now: float) -> None:
        """The file could not be written."""
        self._write_at = now + RETRY_INTERVAL

    def _check_tunnels(self, numbers: set[int], now: float) -> list[Alarm]:
        node, table = self._node, self.table
        raised, over = self._tunnels.find(numbers, table.standing, now)
        if node.plan is not self._plan:
            self._plan = node.plan
            over += self._tunnels.gone(table.of_kinds((tunnel_alarms.KIND,)))
        return self._change(raised, over, now)

    def _replace(self, kinds: tuple[str, ...], found: Iterable[Alarm], now: float) -> list[Alarm]:
        """These alarms of places of these kinds stand now, and no others."""
        alarms = {alarm.key: alarm for alarm in found}
        over = [key for key in self.table.of_kinds(kinds) if key not in alarms]
        return self._change(alarms.values(), over, now)

    def _change(self, alarms: Iterable[Alarm], over: Iterable[AlarmKey], now: float) -> list[Alarm]:
        wall = now + self._wall_offset
        cleared = [alarm for key in over if (alarm := self.table.clear(key)) is not None]
        return [*(alarm for alarm in alarms if self.table.put(alarm, wall)), *cleared]
