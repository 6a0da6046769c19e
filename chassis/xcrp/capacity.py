"""Capacity: how many IPsec tunnel sessions ASE cards and the router hold (guide 2, S-071).

Static tunnels and peers of on-demand tunnels count, IKEv1 and IKEv2 alike; manual tunnels do not. The ASPs of a
card share what it holds. A commit of a static tunnel more is refused. A card whose ASP takes the place of another
one may have more than it holds: it is filled, and the rest is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from chassis.model.router import Config, Tunnel
from chassis.xcrp.placement import Place, group_of, place
from chassis.xcrp.spares import Seats

CAPACITY: Final = "capacity"
"""Begins the reason of what finds no room."""


ROUTER: Final = "router"
"""The router among the places that hold sessions; the others are its ASE cards, such as `ase 2`."""

CARD_CAPACITY: Final = 8_000
ROUTER_CAPACITY: Final = 32_000


@dataclass(frozen=True, slots=True)
class Capacity:
    """Most sessions of one ASE card and of the whole router (count)."""

    card: int = CARD_CAPACITY
    router: int = ROUTER_CAPACITY


@dataclass(slots=True)
class SessionCount:
    """What cards and router hold so far, against their capacity."""

    most: Capacity
    by_card: Counter[str] = field(default_factory=Counter)
    total: int = 0

    @classmethod
    def of(cls, sessions: Mapping[str, int], most: Capacity) -> SessionCount:
        """Return the count of the sessions of each ASP."""
        count = cls(most)
        for asp, number in sessions.items():
            count.add(asp, number)
        return count

    def lacking(self, asp: str) -> str:
        """Return why an ASP has no room for one more session, or empty."""
        place = self.full_at(asp)
        if place == ROUTER:
            return f"{CAPACITY}: the router holds {self.most.router} tunnels"
        return f"{CAPACITY}: card {card_of(asp)} holds {self.most.card} tunnels" if place else ""

    def full_at(self, asp: str) -> str:
        """Return what has no room for one more session of an ASP: its card, else the router; or empty."""
        card = f"ase {card_of(asp)}"
        return next((place for place in (card, ROUTER) if self.is_full(place)), "")

    def is_full(self, place: str) -> bool:
        """Return whether an ASE card, such as `ase 2`, or the router has no room for one more session."""
        if place == ROUTER:
            return self.total >= self.most.router
        return self.by_card[card_of(place)] >= self.most.card

    def add(self, asp: str, count: int = 1) -> None:
        self.by_card[card_of(asp)] += count
        self.total += count


def card_of(asp: str) -> str:
    """Return the slot of an ASE card or of one of its ASPs, such as `ase 2` or `asp 2/1`."""
    return asp.rpartition(" ")[2].partition("/")[0]


def surplus(
    config: Config, was: Config, placed: Mapping[Place, str], seats: Seats, most: Capacity
) -> Iterator[tuple[Tunnel, str]]:
    """Return the static tunnels that a commit brings and that find no room, with the reason.

    `was` is the configuration in force, whose tunnels have their room already. They are counted where they are
    configured, wherever a spare has taken them: what was accepted once stays acceptable.
    """
    if len(config.tunnels) <= min(most.card, most.router):
        return
    homes = place(config, {at: home(config, at, asp, seats) for at, asp in placed.items()})
    room = SessionCount(most)
    new: list[tuple[Tunnel, str]] = []
    for tunnel in config.tunnels.values():
        asp = homes.get((tunnel.context, tunnel.local or ""), "")
        if tunnel.kind != "static" or not asp:
            continue
        before = was.tunnels.get(tunnel.name)
        if before is not None and _where(before) == _where(tunnel):
            room.add(asp)
        else:
            new.append((tunnel, asp))
    for tunnel, asp in new:
        lacking = room.lacking(asp)
        if lacking:
            yield tunnel, lacking
        else:
            room.add(asp)


def _where(tunnel: Tunnel) -> tuple[str, str, str | None]:
    return tunnel.kind, tunnel.context, tunnel.local


def home(config: Config, at: Place, asp: str, seats: Seats) -> str:
    """Return the ASP in whose place an ASP is for a local end."""
    for seat, name in seats.get(group_of(config, at[0]), {}).items():
        if asp == f"asp {name}":
            return f"asp {seat}"
    return asp
