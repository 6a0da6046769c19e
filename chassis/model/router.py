"""The configuration of one router: cards, ports, contexts, tunnels and the whole.

Every object is a frozen value, as in the other modules of `chassis.model`. A field holds the value *in force*:
where the guide gives a default the field has it. Names refer to other objects by name, whether these exist or not.
A key is never part of a `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from chassis.model.aaa import IpPool, RadiusServer
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, Key, ManualSa, Profile, QosPolicy, TunnelEntry
from chassis.model.qos import PolicingPolicy
from chassis.model.source import Kept, kept_field, line_field, written_field, written_flag

MANAGEMENT, MANAGEMENT_SLOT = "management", 7
"""The controller's own port by its other name, and the slot whose first port it is."""


NULL0 = "null0"
"""The interface that discards."""


LOCAL = "local"
"""The context that always exists, and that is meant where none is named (guide 9.2.1)."""


@dataclass(frozen=True, slots=True)
class Card:
    """`card TYPE SLOT`. `ports` is the number in a name such as ge-10-port; 0 for ase and every other type.

    `shutdown` is of the whole card, `shut_asps` has the numbers of its ASPs that are shut down alone.
    """

    type: str
    slot: int
    ports: int = 0
    shutdown: bool = False
    shut_asps: tuple[int, ...] = ()
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def is_ase(self) -> bool:
        return self.type == "ase"

    @property
    def is_line_card(self) -> bool:
        return self.ports > 0


@dataclass(frozen=True, slots=True)
class Port:
    """`port ethernet SLOT/PORT`, keyed by "3/11"; "management" is the controller's. A port starts shut down.

    `policing_policy` is the QoS policy that marks what comes in; `acl_counters` is an option of it without effect.
    """

    name: str
    description: str | None = None
    shutdown: bool = True
    interface: str | None = None
    context: str | None = None
    policing_policy: str | None = None
    acl_counters: str | None = None
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def slot(self) -> int:
        return MANAGEMENT_SLOT if self.name == MANAGEMENT else int(self.name.split("/")[0])

    @property
    def number(self) -> int:
        return 1 if self.name == MANAGEMENT else int(self.name.split("/")[1])


@dataclass(frozen=True, slots=True)
class AspPool:
    """`asp pool NAME service security`; `asps` in the order typed, each like "1/1".

    `rate` is what each of them can encapsulate in a second, such as "50M" (bits) or "20kpps"; None: no limit.
    """

    name: str
    asps: tuple[str, ...] = ()
    rate: str | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class AspGroup:
    """`asp group NAME`; the working ASPs are the first `asp_count` ones of the pools, in order."""

    name: str
    pools: tuple[str, ...] = ()
    asp_count: int = 1
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a context. `address` is dotted, `prefix_len` 0 without an address.

    `kind`: "numbered" (ports bind to it, or a tunnel), "loopback", "ipsec" (a tunnel interface that says so) or
    "multibind" (unnumbered, for on-demand tunnels). `secondary` has further addresses, each "a.b.c.d/len".
    """

    name: str
    kind: Literal["numbered", "loopback", "ipsec", "multibind"] = "numbered"
    description: str | None = None
    address: str | None = None
    prefix_len: int = 0
    secondary: tuple[str, ...] = ()
    unnumbered: str | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Every address with its prefix length, the primary one first."""
        others = (text.partition("/") for text in self.secondary)
        primary = () if self.address is None else ((self.address, self.prefix_len),)
        return (*primary, *((address, int(length)) for address, _, length in others))


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """`ip route`: to a `next_hop` (dotted) or into an `interface`, exactly one of them. Lower cost is better.

    Into the interface "null0" packets are discarded. `context` is another context in which the next hop or
    interface is, or that looks the packet up where neither is given: no packet crosses contexts here (S-104), so
    such a route stays down. Before the cost the lower `distance` is better. `tag` and `permanent` have no effect.
    """

    prefix: str
    next_hop: str | None = None
    interface: str | None = None
    cost: int = 1
    context: str | None = None
    description: str | None = None
    distance: int = 1
    tag: int | None = None
    permanent: str | None = None
    cost_written: bool = written_flag()
    distance_written: bool = written_flag()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Administrator:
    """`administrator NAME encrypted 1 HASH` (MD5-crypt) or `encrypted 2`; `idle_timeout` in minutes, 0: never.

    `public_keys` are in OpenSSH's form.
    """

    name: str
    password_hash: str = field(default="", repr=False)
    hash_type: int = 1
    privilege_start: int | None = None
    privilege_max: int | None = None
    idle_timeout: int | None = None
    public_keys: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Context:
    """A routing context. `asp_group` is the group that gives it the Security service, None without one.

    `syslog` is the server that gets the log lines of the context, as `syslog_facility`, else local7. `vpn_rd` is
    the route distinguisher that its opening line had; it has no effect here. `enable_hash` is the password hash
    of `enable encrypted`, None without that line.

    RADIUS: `radius_timeout` in seconds, `radius_deadtime` in minutes; None is what `chassis.aaa.settings` has by
    default. `radius_nas_interface` lends its address to NAS-IP-Address. `aaa_fallback`: servers of context local
    come next. `aaa_password` is that of questions about peers; with `aaa_accounting` their sessions are reported.
    """

    name: str
    vpn_rd: str | None = None
    domain_lookup: bool | None = None
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    logging_console: bool | None = None
    syslog: str | None = None
    syslog_facility: str | None = None
    administrators: Mapping[str, Administrator] = field(default_factory=dict)
    enable_type: int | None = None
    enable_hash: str | None = field(default=None, repr=False)
    routes: tuple[StaticRoute, ...] = ()
    asp_group: str | None = None
    aaa_authentication: str | None = None
    aaa_fallback: str | None = None
    aaa_accounting: str | None = None
    aaa_password: Key | None = None
    radius_servers: tuple[RadiusServer, ...] = ()
    accounting_servers: tuple[RadiusServer, ...] = ()
    radius_timeout: int | None = None
    radius_max_retries: int | None = None
    radius_deadtime: int | None = None
    radius_algorithm: Literal["first", "round-robin"] | None = None
    radius_max_outstanding: int | None = None
    radius_source_port: int | None = None
    radius_nas_interface: str | None = None
    ip_pools: tuple[IpPool, ...] = ()
    keepalive: bool = False
    ike_policies: Mapping[str, IkePolicy] = field(default_factory=dict)
    acls: Mapping[str, Acl] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """`tunnel ipsec NAME`. The inner packet lives in `interface_context`, the outer one in `context`.

    `entries` are in order of their sequence numbers: policies of a static tunnel, SAs of a manual one.
    `mtu` limits the inner packet in bytes; None leaves it to the egress port.
    """

    name: str
    kind: Literal["static", "on-demand", "manual"] = "static"
    economical: bool = False
    interface: str | None = None
    interface_context: str = LOCAL
    local: str | None = None
    remote: str | None = None
    context: str = LOCAL
    df_bit: Literal["propagate", "set", "clear"] = "propagate"
    mtu: int | None = None
    qos_policy: str | None = None
    ike_policy: str | None = None
    remote_id: str | None = None
    traffic_selector_routes: bool = False
    max_tunnels: int | None = None
    shutdown: bool = False
    entries: tuple[TunnelEntry, ...] = ()
    interface_context_written: bool = written_flag()
    context_written: bool = written_flag()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


def _contexts() -> dict[str, Context]:
    return {LOCAL: Context(LOCAL)}


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one router; every mapping is keyed by the object's name and must not be changed.

    `log_filter_...` are the highest syslog levels that go to consoles, to syslog servers and into the log's file;
    `log_ring_size` lines of each class are kept, in a file too unless `log_file` is False. `accepted` holds lines
    without effect here, in their settled spelling, to be printed back.
    """

    hostname: str = "Redback"
    log_file: bool | None = None
    log_ring_size: int = 2500
    log_filter_console: int = 7
    log_filter_syslog: int = 6
    log_filter_file: int = 7
    pools: Mapping[str, AspPool] = field(default_factory=dict)
    groups: Mapping[str, AspGroup] = field(default_factory=dict)
    contexts: Mapping[str, Context] = field(default_factory=_contexts)
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    ike_proposals: Mapping[str, IkeProposal] = field(default_factory=dict)
    ipsec_proposals: Mapping[str, IpsecProposal] = field(default_factory=dict)
    ipsec_policies: Mapping[str, IpsecPolicy] = field(default_factory=dict)
    manual_sas: Mapping[str, ManualSa] = field(default_factory=dict)
    qos_policies: Mapping[str, QosPolicy] = field(default_factory=dict)
    policing_policies: Mapping[str, PolicingPolicy] = field(default_factory=dict)
    cards: Mapping[int, Card] = field(default_factory=dict)
    ports: Mapping[str, Port] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
