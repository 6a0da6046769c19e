"""The plan: a configuration in numbers, with indices of dependent objects.

The controller makes it at each commit (`chassis.xcrp.planner`). It does not contain the state of the running
router (carrier, cards, SAs). Its indices return the tunnels and prefixes that depend on such state, so that only
these are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from chassis.bus.records import Instance, Key
from chassis.model.router import Config, Interface, Tunnel
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.inventory import CONTROLLER
from chassis.xcrp.routes import Candidate, PortTable, PrefixKey

_K = TypeVar("_K")


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
    `instance` is set for one peer of an on-demand tunnel; `config` is then that of its record.
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
    instance: Instance | None = None

    @property
    def label(self) -> str:
        """Return what the history and the log call the tunnel."""
        return self.config.name if self.instance is None else f"{self.config.name} ({self.instance.identity})"


@dataclass(slots=True)
class Plan:
    """The whole configuration in numbers, with indices. Plans may share parts.

    A plan is not changed after it was made, but for its instances: peers of on-demand tunnels, which are added and
    removed as they come and go. They are among `tunnels`, and in the indices by ASP, peer and port.
    """

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
    """Static and manual tunnels."""
    on_demand: dict[int, TunnelPlan] = field(default_factory=dict)
    """On-demand tunnels, without a remote end."""
    on_demand_by_name: dict[str, int] = field(default_factory=dict)
    instances: dict[int, dict[int, None]] = field(default_factory=dict)
    """Numbers of the instances of each on-demand tunnel that has some, in order of their start."""
    prefixes: dict[PrefixKey, tuple[Candidate, ...]] = field(default_factory=dict)
    port_tables: dict[int, PortTable] = field(default_factory=dict)
    """By context: prefixes that leave by a line card's port, or are discarded; for routes to tunnels' peers."""
    local: dict[tuple[int, int], str] = field(default_factory=dict)
    """ASP that owns an address of the router, or empty, by (context, address)."""
    prefixes_by_port: dict[str, set[PrefixKey]] = field(default_factory=dict)
    prefixes_by_tunnel: dict[int, set[PrefixKey]] = field(default_factory=dict)
    tunnels_by_asp: dict[str, dict[int, None]] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    """Tunnels of each ASP that count against the capacity: not manual ones, nor those in `surplus`."""
    surplus: frozenset[int] = frozenset()
    """Static tunnels for which their card or the router has no room."""
    tunnels_by_peer: dict[int, dict[int, dict[int, None]]] = field(default_factory=dict)
    """Tunnels by outer context and by address of the peer."""
    tunnels_by_port: dict[str, dict[int, None]] = field(default_factory=dict)
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

    def index(self, tunnel_plan: TunnelPlan) -> None:
        """Add a tunnel to the indices by ASP, port and peer, and an instance to those of its on-demand tunnel."""
        number = tunnel_plan.number
        if tunnel_plan.asp:
            self.tunnels_by_asp.setdefault(tunnel_plan.asp, {})[number] = None
            if tunnel_plan.config.kind != "manual" and number not in self.surplus:
                self.sessions[tunnel_plan.asp] = self.sessions.get(tunnel_plan.asp, 0) + 1
        for port in tunnel_plan.local_ports:
            self.tunnels_by_port.setdefault(port, {})[number] = None
        if tunnel_plan.outer and tunnel_plan.remote:
            peers = self.tunnels_by_peer.setdefault(tunnel_plan.outer, {})
            peers.setdefault(tunnel_plan.remote, {})[number] = None
        if tunnel_plan.instance is not None:
            self.instances.setdefault(tunnel_plan.instance.on_demand, {})[number] = None

    def remove_instance(self, number: int) -> TunnelPlan:
        """Take an instance out of the plan, and return it."""
        gone = self.tunnels.pop(number)
        assert gone.instance is not None
        _discard(self.tunnels_by_asp, gone.asp, number)
        self.sessions[gone.asp] -= 1
        if not self.sessions[gone.asp]:
            del self.sessions[gone.asp]
        for port in gone.local_ports:
            _discard(self.tunnels_by_port, port, number)
        peers = self.tunnels_by_peer.get(gone.outer, {})
        _discard(peers, gone.remote, number)
        if not peers:
            self.tunnels_by_peer.pop(gone.outer, None)
        _discard(self.instances, gone.instance.on_demand, number)
        return gone


def _discard(index: dict[_K, dict[int, None]], key: _K, number: int) -> None:
    held = index.get(key, {})
    held.pop(number, None)
    if not held:
        index.pop(key, None)
