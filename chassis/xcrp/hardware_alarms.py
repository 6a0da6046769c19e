"""Alarms of cards and ports: what is configured, not shut down, and does not work.

The names are those of RBN-ALARM-TC where it has one. An ASE card has no alarm beside those of its two ASPs. An
alarm that stands is over only when its object is well again, shut down or no longer configured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from chassis.xcrp.alarms import MAJOR, WARNING, Alarm, AlarmKey, StandingAlarm
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.inventory import ASP, asp, is_shut
from chassis.xcrp.node import NodeState

KINDS: Final = ("lc", "asp", "port")
"""Kinds of the places of these alarms."""

START_TIME: Final = 60.0
"""Time (s) that a card has to come up for the first time; one that fails later raises its alarm at once. Ours."""

CARRIER_TIME: Final = 2.0
"""Time (s) for which a port must be down: far ends that start again cost less. Ours."""


class HardwareAlarms:
    """Finds the alarms of cards and ports.

    `ended` has when (s) a place was last well again, and `due` when time alone next makes an alarm.
    """

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self.ended: dict[str, float] = {}
        self.due = inf
        self._since: dict[AlarmKey, float] = {}
        """Since when there is a fault, whether or not it is an alarm yet."""

    def find(self, standing: Mapping[AlarmKey, StandingAlarm], now: float) -> list[Alarm]:
        """Return the alarms of this moment, where these stand."""
        found, since = [], {}
        self.due = inf
        for alarm, wait in (*self._cards(standing), *self._ports(standing)):
            key = alarm.key
            since[key] = begin = self._since.get(key, now)
            held = standing.get(key)
            if held is not None or now >= begin + wait:
                found.append(alarm if held is None else held.alarm)
            else:
                self.due = min(self.due, begin + wait)
        for place, name in self._since:
            if (place, name) not in since:
                self.ended[place] = now
        self._since = since
        return found

    def _cards(self, standing: Mapping[AlarmKey, StandingAlarm]) -> Iterator[tuple[Alarm, float]]:
        """Return the faults of cards, each with the time (s) after which it is an alarm."""
        config = self._node.plan.config
        served = {asp(name) for pool in config.pools.values() for name in pool.asps}
        for entry in self._node.cards.values():
            if is_shut(config, entry.card):
                continue
            if not entry.usable:
                name = f"aseAsp{entry.card[-1]}Down" if entry.kind == ASP else "cardDown"
                text = entry.down_reason or f"has not come up: {entry.state.value}"
                yield Alarm(MAJOR, entry.card, name, text), 0.0 if _failed(entry) else START_TIME
            if entry.kind == ASP and entry.card not in served:
                alarm = Alarm(WARNING, entry.card, f"asp{entry.card[-1]}MissingServiceAssoc", "in no pool")
                if entry.usable or alarm.key in standing:
                    yield alarm, 0.0

    def _ports(self, standing: Mapping[AlarmKey, StandingAlarm]) -> Iterator[tuple[Alarm, float]]:
        """Return the faults of ports, in the same way. Those of a card that is down have none of their own."""
        for port in self._node.plan.ports.values():
            if port.enabled and not port.shut and not self._node.port_up(port.name):
                card = self._node.cards.get(port.card)
                alarm = Alarm(MAJOR, f"port {port.name}", "portDown", "no carrier")
                if card is None or card.usable or alarm.key in standing:
                    yield alarm, CARRIER_TIME


def _failed(entry: CardEntry) -> bool:
    """Return whether a card was in service or about to be, and no other process of it has been admitted since."""
    return bool(entry.down_reason)
