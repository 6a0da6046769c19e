"""The plan: a configuration in numbers, with indices of dependent objects.

The controller makes it at each commit (`chassis.xcrp.planner`). It does not contain the state of the running
router (carrier, cards, SAs). Its indices return the tunnels and prefixes that depend on such state, so that only
these are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from chassis.bus.records import Key
from chassis.model.router import Config, Interface, Tunnel
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.inventory import CONTROLLER
from chassis.xcrp.routes import Candidate, PortTable, PrefixKey


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A configured Ethernet port. `enabled`: not shut down, and bound to an interface that exists.

    `shut`: its card is shut down. `descriptor`: the PD of what comes in, below 0: none.
    """

    name: str
    card: str
    context: int
    interface: str
    address: int
    length: int
    secondary: tuple[tuple[int, int], ...]
    mac: bytes
    circuit: int
    enabled: bool
    shut: bool = False
    descriptor: int = -1

    @property
    def management(self) -> bool:
        return self.card == CONTROLLER


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """A tunnel in numbers. `config_error` is the first condition that the configuration leaves unmet, or empty.

    `local_ports` are the ports of which one must be up for the local end point to be up; empty for a loopback.
    """

    number: int
    config: Tunnel
    asp: str
    context: int
    outer: int
    local: int
    remote: int
    queues: int
    config_error: str
    local_ports: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """The whole configuration in numbers, with indices; not changed after it was made. Plans may share parts."""

    config: Config
    flash: PkiStore = field(default_factory=PkiStore)
    cards: tuple[tuple[str, str], ...] = ()
    contexts: dict[str, int] = field(default_factory=dict)
    ports: dict[str, PortPlan] = field(default_factory=dict)
    bound_ports: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Enabled ports by the (context, interface) that they are bound to."""
    bound_tunnels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Tunnels by the (context, interface) that they are bound to. An interface takes one: the first that is
    configured has it (B-019)."""
    tunnels: dict[int, TunnelPlan] = field(default_factory=dict)
    by_name: dict[str, int] = field(default_factory=dict)
    prefixes: dict[PrefixKey, tuple[Candidate, ...]] = field(default_factory=dict)
    port_tables: dict[int, PortTable] = field(default_factory=dict)
    """By context: prefixes that leave by a line card's port, or are discarded; for routes to tunnels' peers."""
    local: dict[tuple[int, int], str] = field(default_factory=dict)
    """ASP that owns an address of the router, or empty, by (context, address)."""
    prefixes_by_port: dict[str, set[PrefixKey]] = field(default_factory=dict)
    prefixes_by_tunnel: dict[int, set[PrefixKey]] = field(default_factory=dict)
    tunnels_by_asp: dict[str, list[int]] = field(default_factory=dict)
    tunnels_by_peer: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    """Tunnels by outer context and by address of the peer."""
    tunnels_by_port: dict[str, list[int]] = field(default_factory=dict)
    """Tunnels with a local end at an address of a port, by port."""
    asps_with_fib: frozenset[str] = frozenset()
    """ASPs with an economical tunnel: they look up routes themselves, and a route may lead into any tunnel."""
    records_by_asp: dict[str, dict[Key, int]] = field(default_factory=dict)
    """Keys of the SAs, policies, proposals, certificates and ACLs that the tunnels of an ASP use, by ASP: to each
    the number of uses."""
    leases: set[tuple[int, int]] = field(default_factory=set)
    """Number and `seq` of the entries that have a lease of sequence numbers."""

    @property
    def has_line_cards(self) -> bool:
        return any(kind == "linecard" for _, kind in self.cards)

    def interfaces(self) -> Iterator[tuple[str, Interface]]:
        for name, context in self.config.contexts.items():
            for interface in context.interfaces.values():
                yield name, interface

    def on_demand(self) -> Iterator[Tunnel]:
        """Return the on-demand tunnels. They have no number."""
        return (tunnel for name, tunnel in self.config.tunnels.items() if name not in self.by_name)
