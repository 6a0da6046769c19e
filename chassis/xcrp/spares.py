"""Spares: which ASPs of a group work, which wait, and which one takes the place of a dead one (S-108).

A group works with the first `asp-count` ASPs of its pools in order; those that work for no group are spares. A
spare that is ready takes the place of an ASP that fails: the two change places in the order of each group that has
both, and stay there, so the one that returns is the spare from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from chassis.model.router import Config

Seats = Mapping[str, Mapping[str, str]]
"""By group: the ASPs that are in another one's place, by that one, each like "1/1". A group's mapping is a
permutation."""

NO_SEATS: Final[Seats] = {}

Takeovers = Mapping[tuple[str, str], str]
"""The ASP that takes a place, by (group, ASP that had it)."""


def members(config: Config, group: str) -> tuple[str, ...]:
    """Return the ASPs of a group's pools, in the order of the configuration; pools that are not defined have
    none."""
    pools = [config.pools[name] for name in config.groups[group].pools if name in config.pools]
    return tuple(dict.fromkeys(name for pool in pools for name in pool.asps))


def in_order(config: Config, group: str, seats: Seats) -> tuple[str, ...]:
    """Return the ASPs of a group in the order in which it works with them."""
    found = members(config, group)
    return tuple(_occupant(name, found, seats.get(group, {})) for name in found)


def working(config: Config, group: str, seats: Seats) -> tuple[str, ...]:
    """Return the ASPs that a group works with."""
    return in_order(config, group, seats)[: config.groups[group].asp_count]


def take_over(
    config: Config, seats: Seats, failed: Callable[[str], bool], ready: Callable[[str], bool]
) -> tuple[Seats, Takeovers]:
    """Let each ASP that is `ready` and works for no group take the place of one that has `failed`. Return the
    seats from then on, and who took which place. Of several that failed the first in order is served first."""
    orders = {name: list(in_order(config, name, seats)) for name in config.groups}
    taken: dict[tuple[str, str], str] = {}
    while (found := next(_pairs(config, orders, failed, ready), None)) is not None:
        gone, spare = found
        for name, order in orders.items():
            if gone in order and spare in order:
                at, other = order.index(gone), order.index(spare)
                if at < config.groups[name].asp_count:
                    taken[name, gone] = spare
                order[at], order[other] = spare, gone
    if not taken:
        return _fitting(config, seats), taken
    return _fitting(config, {name: _seats(config, name, order) for name, order in orders.items()}), taken


def _pairs(
    config: Config, orders: Mapping[str, list[str]], failed: Callable[[str], bool], ready: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Return each ASP that works and has failed, with a spare that is ready for it."""
    busy = {name for group in config.groups.values() for name in orders[group.name][: group.asp_count]}
    for group in config.groups.values():
        order = orders[group.name]
        spares = [name for name in order[group.asp_count :] if name not in busy and ready(name)]
        for name in order[: group.asp_count] if spares else ():
            if failed(name):
                yield name, spares[0]


def _fitting(config: Config, seats: Seats) -> Seats:
    """Return the seats that differ from the order of the configuration, without ASPs that it no longer has."""
    kept = {name: _seats(config, name, in_order(config, name, seats)) for name in config.groups if name in seats}
    return {name: held for name, held in kept.items() if held}


def _seats(config: Config, group: str, order: tuple[str, ...] | list[str]) -> dict[str, str]:
    return {seat: name for seat, name in zip(members(config, group), order, strict=True) if seat != name}


def _occupant(seat: str, there: tuple[str, ...], held: Mapping[str, str]) -> str:
    """Return the ASP in a place. An ASP that is no longer there has left it to the one in its own place."""
    found = held.get(seat, seat)
    while found not in there:
        found = held[found]
    return found
