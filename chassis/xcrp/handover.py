"""SAs that change hands: an ASP has let go of one when it says so, or when its process has ended."""

from __future__ import annotations

from math import inf

from chassis.xcrp.node import NodeState


class Handover:
    """What tells whether an ASP still has SAs that are no more its own."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._running: dict[str, int] = {}
        """Cards that run, as far as this controller was told, by boot number."""

    def on_card_runs(self, card: str, boot: int) -> bool:
        """This start of a card runs, so that every one before has ended; whether that frees SAs."""
        self._running[card] = boot
        return self._process_ended(card, boot - 1)

    def on_card_died(self, card: str, boot: int) -> bool:
        """This start of a card has ended; whether that frees SAs."""
        self._running.pop(card, None)
        return self._process_ended(card, boot)

    def on_version_held(self, card: str, version: int) -> bool:
        """A card says which version is in force there; whether it has let go of SAs with it."""
        if version < self._node.releasing.get(card, inf):
            return False
        self._node.on_sas_released(card)
        return True

    def on_all_met(self) -> None:
        """All that run have been met: of the others, those that the configuration does not have are no more."""
        for asp in self._node.numbers.asps_holding_moved_sas():
            if asp not in self._node.cards and asp not in self._running:
                self._node.numbers.release_moved_sas(asp)

    def _process_ended(self, card: str, boot: int) -> bool:
        if boot < self._node.numbers.asps_holding_moved_sas().get(card, inf):
            return False
        self._node.on_sas_released(card)
        return True
