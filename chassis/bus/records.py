"""Records: the items of the controller's replicated state.

The controller has one set of records and sends each card the part that it needs, as a snapshot and then as deltas
(`chassis.bus.replication`). A record is a value: it is replaced as a whole, by key, and never changed in place.

Addresses are unsigned 32-bit numbers, prefixes an address and a length, context, circuit and tunnel numbers
are the controller's. Keys of SAs never appear in a `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, ManualSa
from chassis.model.router import Tunnel

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CardStateRecord:
    """One card of the node: its admitted boot, and whether packets may be sent to it."""

    card: str
    kind: str
    boot: int
    epoch: int
    usable: bool
    pid: int = 0

    TYPE: ClassVar[str] = "card"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.card)


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A routing context. `discard`: a withdrawn tunnel route becomes a discard route (asked for by a lab).
    `keepalive`: dead peer detection for the IKE peers of the context (guide 6.3)."""

    number: int
    name: str
    discard: bool = False
    keepalive: bool = False

    TYPE: ClassVar[str] = "context"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRecord:
    """An IP interface. `kind`: numbered, loopback, ipsec or multibind. `port` or `tunnel` is what binds it."""

    context: int
    name: str
    kind: str
    address: int
    prefix_length: int
    port: str = ""
    tunnel: int = 0
    mtu: int = 1500

    TYPE: ClassVar[str] = "interface"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.context, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRecord:
    """An Ethernet port: its card, the interface bound to it, its hardware address, its MTU (of the IP packet).

    `secondary` has further addresses of the interface and their prefix lengths, in turn. `descriptor` is the
    priority descriptor (PD) that packets get as they come in; below 0: none.
    """

    port: str
    card: str
    enabled: bool
    context: int
    interface: str
    address: int
    prefix_length: int
    mac: bytes
    circuit: int = 0
    mtu: int = 1500
    secondary: tuple[int, ...] = ()
    descriptor: int = -1

    TYPE: ClassVar[str] = "port"

    @property
    def networks(self) -> tuple[tuple[int, int], ...]:
        """Return (address, prefix length) of each address, the primary one first."""
        others = tuple(zip(self.secondary[::2], self.secondary[1::2], strict=False))
        return ((self.address, self.prefix_length), *others) if self.address else others

    def address_towards(self, other: int) -> int:
        """Return the address of the port in the same network as another address; otherwise the primary one."""
        for own, length in self.networks:
            if (own ^ other) >> (32 - length) == 0:
                return own
        return self.address

    @property
    def key(self) -> Key:
        return (self.TYPE, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRecord:
    """A circuit and the line card that is its home. `kind`: port or tunnel; `context` is the inner one.

    `temporary`: its tunnel is an instance of an on-demand tunnel, and its counters go with it.
    """

    number: int
    kind: str
    card: str
    context: int
    interface: str
    port: str = ""
    tunnel: int = 0
    temporary: bool = False

    TYPE: ClassVar[str] = "circuit"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.number)


@dataclass(frozen=True, slots=True)
class NextHop:
    """One next hop of a route.

    `kind`: port (with `card`, `port` and `address`; address 0 means the destination itself, a connected
    network), tunnel (with `tunnel`), local, or discard. Lower cost is tried first.
    """

    kind: str
    cost: int = 0
    card: str = ""
    port: str = ""
    address: int = 0
    tunnel: int = 0


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """A prefix of a context and its next hops, ordered by cost: the first usable one carries the packet."""

    context: int
    prefix: int
    length: int
    next_hops: tuple[NextHop, ...]

    TYPE: ClassVar[str] = "route"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.context, self.prefix, self.length)


@dataclass(frozen=True, slots=True)
class LocalAddressRecord:
    """An address of the router itself: `owner` is the ASP that terminates IPsec there, or empty."""

    context: int
    address: int
    owner: str = ""

    TYPE: ClassVar[str] = "local"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.context, self.address)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the controller grants to one `seq` entry of a tunnel with manual keys.

    `start` and `end` limit the sequence numbers that the ASP may send without another lease. An ASP without mapped
    SA state continues from `start`. A `start` of 0: the controller does not know the next number, only the mapped
    SA state of the node's ASPs has it.

    `assignment` is the number of the SA's assignment to an ASP; it changes with ASP, context, address and SPI.
    `hold` is the reason why the SA must not be used there; empty if it may be used. `closed`: the process that had
    the SA before may not have ended. An ASP that takes the SA over accepts no number up to the edge of its window.
    """

    seq: int
    start: int = 1
    end: int = 1 << 20
    assignment: int = 0
    hold: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What makes a tunnel an instance of an on-demand tunnel (guide 9.3): one authenticated peer.

    `on_demand` is the number of the on-demand tunnel, `identity` the authenticated identity of the peer,
    `profile` the name of the IPsec profile. `address` and `prefix_length` were assigned to the peer (0: none),
    `pool` is the address pool that gave them, empty if AAA did. `session` is the Acct-Session-Id (RFC 2866
    5.5), empty if the session is not reported, and `since` the Unix time (s) at which the peer came up. AAA said
    the rest: `interim` is the interval of interim updates (s; 0: none), `ends` the Unix time (s) at which the
    session is over (0: never), and `classes` come back to it in accounting (RFC 2865 5.25).
    """

    on_demand: int
    identity: str
    profile: str
    address: int = 0
    prefix_length: int = 0
    pool: str = ""
    session: str = ""
    since: float = 0.0
    interim: int = 0
    ends: float = 0.0
    classes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandRecord:
    """An on-demand tunnel of the configuration for the ASP at which its peers arrive (guide 9.3).

    `config` is as configured; its peers' tunnels are `TunnelRecord`s with an `instance`. `context` is that of the
    bound interface, `outer_context` that of `local`. `wanted`: the configuration is complete and not shut down;
    `reason` is the first thing that it lacks.
    """

    number: int
    config: Tunnel
    asp: str
    context: int
    outer_context: int
    local: int
    wanted: bool = True
    reason: str = ""

    TYPE: ClassVar[str] = "on-demand"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelRecord:
    """A tunnel for its ASP: its configuration, its cards, and whether it can be used.

    `circuit` is 0 for an economical tunnel and for a circuit-based one without a home; `home` is the line card
    that holds the circuit. `context`, `outer_context`, `local` and `remote` are the numbers of what `config`
    names: inner packets are looked up in `context`, outer ones in `outer_context`. `leases` belong to the entries
    that have one. `up`: the controller found all conditions met; `reason` is the first unmet one.

    `wanted`: the configuration is complete and not shut down. The SAs of a static tunnel are kept while the peer
    has no route (`up` false), and deleted when the tunnel is no longer wanted.

    `instance` is set for one peer of an on-demand tunnel: `config` is then that tunnel's with the entries, DF
    bit and MTU of the profile, `remote` the address from which the peer came, and `config.remote_id` its
    identity.
    """

    number: int
    config: Tunnel
    asp: str
    circuit: int
    home: str
    context: int
    outer_context: int
    local: int
    remote: int
    queues: int
    leases: tuple[LeaseRecord, ...] = ()
    up: bool
    reason: str = ""
    wanted: bool = True
    instance: Instance | None = None

    def lease(self, seq: int) -> LeaseRecord:
        """Return the lease of an entry; the default one if the entry has none, as with negotiated SAs."""
        return next((lease for lease in self.leases if lease.seq == seq), LeaseRecord(seq))

    @property
    def hop(self) -> TunnelHopRecord:
        """Return the tunnel as a next hop of routes."""
        return TunnelHopRecord(
            self.number,
            self.asp,
            self.up,
            self.config.economical,
            self.home,
            self.remote,
            self.context,
            (self.config.interface or "") if self.instance is not None else "",
        )

    TYPE: ClassVar[str] = "tunnel"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.number)


@dataclass(frozen=True, slots=True)
class TunnelHopRecord:
    """A tunnel as a next hop of routes, for every card that looks routes up.

    `asp` encapsulates for it, and `up` is that of the tunnel's `TunnelRecord`. `home` is the line card that holds
    its circuit, empty without one; an `economical` tunnel needs none. `remote` is the peer's address. `interface`
    is that of `context` whose address an instance of an on-demand tunnel borrows, empty for other tunnels.
    """

    number: int
    asp: str
    up: bool
    economical: bool
    home: str
    remote: int
    context: int
    interface: str = ""

    TYPE: ClassVar[str] = "tunnel-hop"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.number)


Policy = Acl | IkeProposal | IkePolicy | IpsecProposal | IpsecPolicy | ManualSa
"""Types of the value of a `PolicyRecord`."""

POLICY_KINDS: dict[type, str] = {
    Acl: "acl",
    IkeProposal: "ike-proposal",
    IkePolicy: "ike-policy",
    IpsecProposal: "ipsec-proposal",
    IpsecPolicy: "ipsec-policy",
    ManualSa: "manual-sa",
}
"""The first part of a key, by the type of the value."""

_OF_CONTEXT = frozenset({Acl, IkePolicy})


def policy_key(kind: type, name: str, context: int = 0) -> Key:
    """Return the key of the record of a policy; `context` counts only for kinds that a context has."""
    word = POLICY_KINDS[kind]
    return (word, context, name) if kind in _OF_CONTEXT else (word, name)


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """An access list, proposal, policy or manual SA of the configuration (`chassis.model`), without the fields
    that only its text needs. `context` is 0 for an object of the whole router."""

    context: int
    value: Policy

    @property
    def key(self) -> Key:
        return policy_key(type(self.value), self.value.name, self.context)


@dataclass(frozen=True, slots=True)
class AspRateRecord:
    """What an ASP can encapsulate in a second, by the configuration: a text for `chassis.net.rate.Rate`."""

    card: str
    rate: str

    TYPE: ClassVar[str] = "asp-rate"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.card)


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """An object of a context's PKI store: `kind` is trusted, self or key; `pem` is the file. A self certificate
    belongs to the key of the same name."""

    context: int
    name: str
    kind: str
    pem: bytes = field(repr=False)

    TYPE: ClassVar[str] = "certificate"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.context, self.kind, self.name)


@dataclass(frozen=True, slots=True)
class UdpPeer:
    """An address and port in a context, from which datagrams of one of the router's services come."""

    context: int
    address: int
    port: int


@dataclass(frozen=True, slots=True)
class UdpPortRecord:
    """A UDP port that a service of the router listens to, at every address of the router. Line cards give the
    controller only datagrams for such ports. `peers` are the only ones who may send; none: anybody may."""

    port: int
    peers: tuple[UdpPeer, ...] = ()

    TYPE: ClassVar[str] = "udp-port"

    @property
    def key(self) -> Key:
        return (self.TYPE, self.port)


Record = (
    CardStateRecord
    | ContextRecord
    | InterfaceRecord
    | PortRecord
    | CircuitRecord
    | RouteRecord
    | LocalAddressRecord
    | TunnelRecord
    | TunnelHopRecord
    | OnDemandRecord
    | PolicyRecord
    | AspRateRecord
    | CertificateRecord
    | UdpPortRecord
)
