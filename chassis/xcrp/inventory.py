"""Inventory: the processes that a configuration needs, and the card of each port."""

from __future__ import annotations

from chassis.model.router import MANAGEMENT, Config

CONTROLLER = "xcrp"
LINE_CARD = "linecard"
ASP = "asp"
MANAGEMENT_PORTS = ("7/1", MANAGEMENT)
"""Names of the controller's port. It belongs to no line card, and packets do not transit it (S-103)."""


def line_card(slot: int) -> str:
    return f"lc {slot}"


def asp(name: str) -> str:
    """Return the card name of the ASP that a configuration calls `1/1`."""
    return f"asp {name}"


def cards_of(config: Config) -> tuple[tuple[str, str], ...]:
    """Return (card, kind) of every process, in order of slots.

    A port card is one line card, an ASE card two ASPs. An ASP in a pool implies its card if no line configures
    that slot (S-101, S-102).
    """
    kinds: dict[int, str] = {}
    for slot, card in config.cards.items():
        if card.is_ase:
            kinds[slot] = ASP
        elif card.is_line_card:
            kinds[slot] = LINE_CARD
    for pool in config.pools.values():
        for name in pool.asps:
            slot = int(name.split("/")[0])
            if slot not in config.cards:
                kinds[slot] = ASP
    found: list[tuple[str, str]] = []
    for slot, kind in sorted(kinds.items()):
        if kind == LINE_CARD:
            found.append((line_card(slot), LINE_CARD))
        else:
            found += [(asp(f"{slot}/{number}"), ASP) for number in (1, 2)]
    return tuple(found)


def is_shut(config: Config, card: str) -> bool:
    """Return whether the configuration has shut down a line card or an ASP, alone or with its whole card."""
    slot, _, number = card.rpartition(" ")[2].partition("/")
    configured = config.cards.get(int(slot)) if slot.isdigit() else None
    if configured is None:
        return False
    return configured.shutdown or (number != "" and int(number) in configured.shut_asps)


def rate_of(config: Config, card: str) -> str | None:
    """Return the rate of an ASP: that of the first pool that has the ASP; None without one."""
    name = card.rpartition(" ")[2]
    return next((pool.rate for pool in config.pools.values() if name in pool.asps), None)


def card_of_port(config: Config, port: str) -> str:
    """Return the card of a port; empty if its slot has no port card."""
    if port in MANAGEMENT_PORTS:
        return CONTROLLER
    slot = int(port.split("/")[0])
    card = config.cards.get(slot)
    return line_card(slot) if card is not None and card.is_line_card else ""
