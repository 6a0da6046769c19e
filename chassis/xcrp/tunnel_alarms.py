"""Alarms of tunnels: of one that was up, is not shut down, and is down for a reason of its own.

A tunnel that never was up since it was configured or last shut down has no alarm. One that is down because its
ASP, its line card or its port is down has none either: theirs stands for it, and it has `RETURN_TIME` to come up
after them, at a spare, or after a start of the controller. An alarm that stands stays until the tunnel is up, shut
down or removed, whatever fails meanwhile. A peer of an on-demand tunnel that is gone is no fault. The rules are
ours; name, severity and causes are those of RBN-IP-SECURITY-MIB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, KeysView
from math import inf
from typing import Any, Final

from chassis.xcrp import tunnels
from chassis.xcrp.alarms import MAJOR, Alarm, AlarmKey
from chassis.xcrp.capacity import CAPACITY
from chassis.xcrp.hardware_alarms import HardwareAlarms
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.tunnels import ControllerTunnel

KIND: Final = "tunnel"
"""Kind of the places of these alarms."""

NAME: Final = "ipsecTunnelDown"

RETURN_TIME: Final = 60.0
"""Time (s) that tunnels have to come up again after their card or port: thousands may have to negotiate."""

MAX_TUNNELS: Final = 1_000_000
"""Most numbers that are read from a file (count)."""

_CAUSES: Final = (
    (tunnels.ROUTE, "noRoute"),
    (tunnels.LINE_CARD, "ppaHomingFailure"),
    (tunnels.NO_LINE_CARD, "ppaHomingFailure"),
    (tunnels.SERVICE, "aspHomingFailure"),
    (f"{tunnels.ASP}:", "aspHomingFailure"),
    (CAPACITY, "aspHomingFailure"),
)
"""Causes by the beginning of the reason."""

_IKE_CAUSES: Final = (
    ("does not answer", "keepaliveFailure"),
    ("deleted by the peer", "downByPeer"),
    ("INITIAL-CONTACT", "downByPeer"),
    ("lifetime", "rekeyFailure"),
)
"""Causes by words of IKE's reason."""


class TunnelAlarms:
    """Finds the alarms of tunnels, each only when something of it has changed.

    `been_up` are the numbers of the tunnels that were up since they were configured or last shut down. `due` is
    when (s) time alone next makes an alarm.
    """

    def __init__(self, node: NodeState, hardware: HardwareAlarms) -> None:
        self._node, self._hardware = node, hardware
        self.been_up: set[int] = set()
        self.been_up_changed = False
        self.due = inf
        self._excused: dict[int, str] = {}
        """Tunnels that were up and are down without an alarm: to each the place that is down, or nothing while it
        has time to come up."""
        self._homes: dict[int, tuple[str, float]] = {}
        """The ASP of each tunnel, and since when (s) it is known to be there."""

    def find(
        self, numbers: Iterable[int], standing: Container[AlarmKey], now: float
    ) -> tuple[list[Alarm], list[AlarmKey]]:
        """Return new alarms, and keys of alarms that are over if they stand, of these tunnels."""
        raised, over = [], []
        wanted = set(numbers)
        if now >= self.due:
            wanted.update(self._excused)
            self.due = inf
        for number in sorted(wanted):
            plan, state = self._node.plan.tunnels.get(number), self._node.tunnels.get(number)
            self._excused.pop(number, None)
            if plan is None or state is None or plan.instance is not None:
                # An alarm of a tunnel that is gone `gone` finds.
                self._set_been_up(number, False)
                self._homes.pop(number, None)
                continue
            if self._homes.get(number, ("",))[0] != plan.asp:
                self._homes[number] = plan.asp, now
            key = f"{KIND} {plan.config.name}", NAME
            if self._is_well(plan, state):
                over.append(key)
            elif key not in standing:
                place = self._place_down(plan, state)
                until = inf if place else self._return_by(plan, state)
                if now < until:
                    self._excused[number] = place
                    self.due = min(self.due, until)
                else:
                    reason = state.reason(plan.asp, self._node.asp_usable(plan.asp))
                    raised.append(Alarm(MAJOR, *key, reason, _cause(reason)))
        return raised, over

    def gone(self, standing: Iterable[AlarmKey]) -> list[AlarmKey]:
        """Return those of the alarms that are of tunnels which are no longer configured."""
        by_name = self._node.plan.by_name
        return [key for key in standing if key[0].removeprefix(f"{KIND} ") not in by_name]

    def adopt(self, standing: Iterable[AlarmKey]) -> None:
        """These alarms stood when the controller started: their tunnels were up once."""
        numbers = (self._node.plan.by_name.get(place.removeprefix(f"{KIND} ")) for place, _ in standing)
        self.been_up.update(number for number in numbers if number is not None)

    @property
    def excused(self) -> KeysView[int]:
        """The tunnels that are to be looked at again when a card or port has changed."""
        return self._excused.keys()

    def down_with(self) -> Counter[str]:
        """Return how many tunnels are down with each place."""
        return Counter(filter(None, self._excused.values()))

    def _is_well(self, plan: TunnelPlan, state: ControllerTunnel) -> bool:
        """Return whether a tunnel is up, or is meant to be down, or never was up."""
        if state.up:
            self._set_been_up(plan.number, True)
            return True
        if state.unmet_condition.startswith(tunnels.SHUTDOWN):
            self._set_been_up(plan.number, False)
        return plan.number not in self.been_up

    def _set_been_up(self, number: int, been_up: bool) -> None:
        if (number in self.been_up) is not been_up:
            (self.been_up.add if been_up else self.been_up.discard)(number)
            self.been_up_changed = True

    def _place_down(self, plan: TunnelPlan, state: ControllerTunnel) -> str:
        """Return the ASP, line card or port that is down and the tunnel with it, or empty."""
        node = self._node
        if plan.config_error:
            return ""
        if not node.asp_usable(plan.asp):
            return plan.asp
        if not state.unmet_condition:
            return ""
        port = node.lost_port(plan)
        if not port:
            return ""
        card = node.cards.get(node.plan.ports[port].card)
        return f"port {port}" if card is None or card.usable else card.card

    def _return_by(self, plan: TunnelPlan, state: ControllerTunnel) -> float:
        """Return up to when (s) a tunnel has time to come up; -inf if that is not what it waits for."""
        if state.unmet_condition:
            return -inf
        node, ended = self._node, self._hardware.ended
        ports = [*plan.local_ports, *filter(None, (node.port_to_peer(plan),))]
        cards = [plan.asp, *(node.plan.ports[port].card for port in ports if port in node.plan.ports)]
        began = [node.cards[card].since for card in cards if card in node.cards]
        began.append(self._homes[plan.number][1])
        places = (*cards, *(f"port {port}" for port in ports))
        return max(*began, *(ended.get(place, -inf) for place in places)) + RETURN_TIME


def _cause(reason: str) -> str:
    """Return the cause that stands for a reason."""
    found = (cause for begin, cause in _CAUSES if reason.startswith(begin))
    said = (cause for words, cause in _IKE_CAUSES if reason.startswith(tunnels.IKE) and words in reason)
    return next(found, "") or next(said, "general")


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges (first, last)."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def numbers_of(rows: Iterable[Any]) -> set[int]:
    """Return the numbers of ranges.

    Raises:
        ValueError, TypeError: they are none, or too many.
    """
    found = [(int(first), int(last)) for first, last in rows]
    if any(last < first for first, last in found) or sum(last - first for first, last in found) > MAX_TUNNELS:
        raise ValueError("no ranges, or too many numbers of tunnels")
    return {number for first, last in found for number in range(first, last + 1)}
