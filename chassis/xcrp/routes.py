"""Routes: the candidates of a prefix, their order, and the next hops of those that are up.

A prefix gets candidates from the configuration (connected networks, static routes). A candidate is used while its
port or tunnel is up. One route record holds the next hops of all used candidates, ordered by cost. When a card
fails, line cards skip its next hops by the card's own record, before the route records change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chassis.bus.records import NextHop
from chassis.net.address import MASKS

PrefixKey = tuple[int, int, int]
"""(context number, prefix, length)"""

PortTable = dict[int, set[int]]
"""Prefix length to the prefixes of that length."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible next hop of a prefix. `kind`: local, port, tunnel, discard; `length`: of its network.

    `negotiated`: a peer's network, not a line of the configuration.
    """

    cost: int
    kind: str
    interface: str = ""
    port: str = ""
    address: int = 0
    tunnel: int = 0
    length: int = 0
    distance: int = 0
    negotiated: bool = False

    @property
    def sort_key(self) -> tuple[int | str, ...]:
        name = "" if self.negotiated else self.interface
        return (self.distance, self.cost, _RANK[self.kind], self.negotiated, -self.length, name, self.port)


_RANK = {"local": 0, "tunnel": 1, "port": 2, "discard": 3}


def order(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Order candidates by distance, then by cost. At equal cost the order is local, tunnels by the names of their
    interfaces (S-066), tunnels whose peers negotiated the network as they came, ports, discard."""
    return tuple(sorted(dict.fromkeys(candidates), key=lambda one: one.sort_key))


def next_hops(
    candidates: Iterable[Candidate],
    card_of: Callable[[str], str],
    asp_of: Callable[[int], str],
    port_up: Callable[[str], bool],
    tunnel_up: Callable[[int], bool],
    discard: bool,
) -> tuple[NextHop, ...]:
    """Return the next hops of the candidates that are up, in order; empty if the prefix has no route now.

    With `discard`, packets of a tunnel that is down must not leave by a port of the same or a higher cost: other
    tunnels may carry them, otherwise they are dropped.
    """
    hops: list[NextHop] = []
    withheld: int | None = None
    for candidate in candidates:
        if candidate.kind == "discard":
            # Candidates after a discard are never used.
            hops.append(NextHop("discard", candidate.cost))
            return tuple(dict.fromkeys(hops))
        if candidate.kind == "local":
            hops.append(NextHop("local", candidate.cost))
        elif candidate.kind == "tunnel":
            number = candidate.tunnel
            if tunnel_up(number):
                hops.append(NextHop("tunnel", candidate.cost, asp_of(number), tunnel=number))
            elif discard and withheld is None:
                withheld = candidate.cost
        elif withheld is None and port_up(candidate.port):
            port = candidate.port
            hops.append(NextHop("port", candidate.cost, card_of(port), port, candidate.address))
    if withheld is not None:
        hops.append(NextHop("discard", withheld))
    return tuple(dict.fromkeys(hops))


def egress_to_peer(
    table: PortTable,
    context: int,
    address: int,
    candidates: Callable[[PrefixKey], Iterable[Candidate]],
    usable: Callable[[str], bool],
) -> Candidate | None:
    """Return the next hop of outer packets to `address`: the first usable port of the longest prefix that has one.

    None if no port is usable, or if a discard route of the same prefix comes first.
    """
    for length in sorted(table, reverse=True):
        prefix = address & MASKS[length]
        if prefix in table[length]:
            for candidate in candidates((context, prefix, length)):
                if candidate.kind == "port" and usable(candidate.port):
                    return candidate
                if candidate.kind == "discard":
                    return None
    return None
