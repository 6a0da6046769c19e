"""Manual SAs that move to another ASP: the old one has released an SA when it reports so, or when it has ended.

What an ASP sends that hangs and is not known to have ended reaches nobody once every card knows its new epoch.
Its SAs then go on at the other ASP too, from the next lease, and no number that it may have taken is taken there.
"""

from __future__ import annotations

from math import inf
from typing import Final

from chassis.xcrp.cards import AdmissionState
from chassis.xcrp.inventory import ASP
from chassis.xcrp.node import NodeState

END_TIME: Final = 3.0
"""Time (s) that a process which is to be killed has to end. The window goes on as it was where it has ended."""

_FENCED: Final = (AdmissionState.HUNG, AdmissionState.KILL_PENDING)
_WITHOUT_RECORDS: Final = (AdmissionState.ABSENT, AdmissionState.STARTED)


class Handover:
    """Finds out when ASPs have released SAs that were moved to another ASP."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._running: dict[str, int] = {}
        """Boot of the running process of each card, as reported to this controller."""
        self._hanging: dict[str, tuple[float, int]] = {}
        """ASPs that hang and may hold moved SAs: since when (s), and a version that has their new epochs."""
        self._look_at = inf

    def on_card_runs(self, card: str, boot: int) -> bool:
        """This boot of a card runs, so every earlier one has ended. Return whether that releases SAs."""
        self._running[card] = boot
        return self._process_ended(card, boot - 1)

    def on_card_died(self, card: str, boot: int) -> bool:
        """This boot of a card has ended. Return whether that releases SAs."""
        self._running.pop(card, None)
        return self._process_ended(card, boot)

    def on_version_held(self, card: str, version: int) -> bool:
        """A card reported the version that it holds. Return whether it has released SAs by that."""
        if version < self._node.releasing.get(card, inf):
            return False
        self._node.on_sas_released(card)
        return True

    def on_all_met(self) -> None:
        """The reconcile window is over: cards without process and configuration have released their SAs."""
        for asp in self._node.numbers.asps_holding_moved_sas():
            if asp not in self._node.cards and asp not in self._running:
                self._node.numbers.release_moved_sas(asp)

    def next_timer(self) -> float:
        return self._look_at

    def on_timer(self, now: float) -> list[str]:
        """Release the SAs of ASPs that hang, are not known to have ended, and can reach nobody. Return history
        lines."""
        node = self._node
        hanging = [card.card for card in node.cards.values() if card.kind == ASP and card.state in _FENCED]
        if not hanging:
            self._hanging, self._look_at = {}, inf
            return []
        if now < self._look_at < inf:
            return []
        holding = node.numbers.asps_holding_moved_sas()
        since = (now, node.publisher.version)
        self._hanging = {asp: self._hanging.get(asp, since) for asp in hanging if asp in holding}
        self._look_at = now + node.settings.heartbeat_interval if self._hanging else inf
        lines = []
        for asp, (began, version) in self._hanging.items():
            if now >= began + END_TIME and self._all_know(version, asp):
                node.on_sas_released(asp, ended=False)
                lines.append(f"{asp} is not known to have ended: manual SAs that it had go on with closed windows")
        return lines

    def _all_know(self, version: int, asp: str) -> bool:
        """Return whether every other process that could pass on what an ASP sends holds a version."""
        return all(
            card.reported_version >= version if card.expects_heartbeats else card.state in _WITHOUT_RECORDS
            for card in self._node.cards.values()
            if card.card != asp
        )

    def _process_ended(self, card: str, boot: int) -> bool:
        if boot < self._node.numbers.asps_holding_moved_sas().get(card, inf):
            return False
        self._node.on_sas_released(card)
        return True
