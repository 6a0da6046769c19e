"""Manual SAs that move to another ASP: the old one has released an SA when it reports so, or when it has ended."""

from __future__ import annotations

from math import inf

from chassis.xcrp.node import NodeState


class Handover:
    """Finds out when ASPs have released SAs that were moved to another ASP."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._running: dict[str, int] = {}
        """Boot of the running process of each card, as reported to this controller."""

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

    def _process_ended(self, card: str, boot: int) -> bool:
        if boot < self._node.numbers.asps_holding_moved_sas().get(card, inf):
            return False
        self._node.on_sas_released(card)
        return True
