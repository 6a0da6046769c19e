"""The typed configuration of one router: what a file of commands means.

Everything here is a frozen value. A field holds the value *in force*: where the guide gives a default the field
has it, so a reader of the configuration never asks "and if it was not typed?". Three kinds of fields do not take
part in comparisons: `line` (where the object was opened in its file, 1-based, 0 when it came from elsewhere),
`written` and the `*_written` flags (only the rendering cares whether a word that changes nothing was typed), and
the form in which a key was typed.

Keys are never part of a `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MANAGEMENT, MANAGEMENT_SLOT = "management", 7
"""The controller's own port by its other name, and the slot whose first port it is."""

NULL0 = "null0"
"""The interface that discards."""

LOCAL = "local"
"""The context that always exists, and that is meant where none is named (guide 9.2.1)."""


def _line() -> int:
    return field(default=0, compare=False, repr=False)


def _written() -> bool:
    return field(default=False, compare=False, repr=False)


def _kept() -> tuple[Kept, ...]:
    return field(default=(), repr=False)


def _typed() -> frozenset[str]:
    """The commands, with `no ` for their no forms, that were typed though they may say what is so without them."""
    return field(default=frozenset(), compare=False, repr=False)


# --- lines that are no commands of the grammar ---


@dataclass(frozen=True, slots=True)
class Kept:
    """Lines without effect, word for word: one and the block under it, with the block's indentation below it.

    `after` names the line of the same object that they follow, empty for its opening line; see `config.kept`. No
    part of a `repr`: nobody knows what such a line holds.
    """

    lines: tuple[str, ...] = field(repr=False)
    after: tuple[str | int, ...] = ()


# --- keys ---


@dataclass(frozen=True, slots=True)
class Key:
    """Key material as bytes; `hexadecimal` says how it was typed and is printed back."""

    value: bytes = field(repr=False)
    hexadecimal: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Keyed:
    """An algorithm with its manual key (guide 8.3.1); `algorithm` is None where the line left it out.

    `Spi` has the algorithms in force. The cipher null is `Keyed("null", Key(b""))`.
    """

    algorithm: str | None
    key: Key


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """Pre-shared key of an IKE policy: characters, hexadecimal, or asked from AAA (then `value` is empty)."""

    form: Literal["ascii", "hex", "aaa"]
    value: bytes = field(default=b"", repr=False)


# --- cards, ports and ASPs ---


@dataclass(frozen=True, slots=True)
class Card:
    """`card TYPE SLOT`. `ports` is the number in a name such as ge-10-port; 0 for ase and every other type."""

    type: str
    slot: int
    ports: int = 0
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def is_ase(self) -> bool:
        return self.type == "ase"

    @property
    def is_line_card(self) -> bool:
        return self.ports > 0


@dataclass(frozen=True, slots=True)
class Port:
    """`port ethernet SLOT/PORT`, keyed by "3/11"; "management" is the controller's. A port starts shut down."""

    name: str
    description: str | None = None
    shutdown: bool = True
    interface: str | None = None
    context: str | None = None
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def slot(self) -> int:
        return MANAGEMENT_SLOT if self.name == MANAGEMENT else int(self.name.split("/")[0])

    @property
    def number(self) -> int:
        return 1 if self.name == MANAGEMENT else int(self.name.split("/")[1])


@dataclass(frozen=True, slots=True)
class AspPool:
    """`asp pool NAME service security`; `asps` in the order typed, each like "1/1"."""

    name: str
    asps: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class AspGroup:
    """`asp group NAME`; the working ASPs are the first `asp_count` ones of the pools, in order."""

    name: str
    pools: tuple[str, ...] = ()
    asp_count: int = 1
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


# --- contexts ---


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
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

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
    cost_written: bool = _written()
    distance_written: bool = _written()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Administrator:
    """`administrator NAME encrypted 1 HASH` (MD5-crypt) or `encrypted 2`; `idle_timeout` in minutes, 0: never."""

    name: str
    password_hash: str = field(default="", repr=False)
    hash_type: int = 1
    privilege_start: int | None = None
    privilege_max: int | None = None
    idle_timeout: int | None = None
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


MOST_RULES: Final = 64
"""Rules of a tunnel's line that IKEv1 negotiates, each with SAs of its own."""


@dataclass(frozen=True, slots=True)
class AclRule:
    """One rule of an IPsec ACL; None matches anything. Networks are "a.b.c.d/len"."""

    seq: int
    protocol: int | None = None
    source: str | None = None
    source_port: int | None = None
    destination: str | None = None
    destination_port: int | None = None
    source_written: bool = _written()
    destination_written: bool = _written()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Acl:
    """`ipsec access-list`: rules in order of their sequence numbers."""

    name: str
    description: str | None = None
    rules: tuple[AclRule, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Identity:
    """An IKE identity given as an address or as a name."""

    kind: Literal["address", "fqdn"]
    value: str


@dataclass(frozen=True, slots=True)
class ProposalRef:
    """`seq N proposal NAME` of an IKE or IPsec policy."""

    seq: int
    name: str
    line: int = _line()


@dataclass(frozen=True, slots=True)
class IkePolicy:
    """`ike policy` (version 1) or `ike2 policy` (version 2); names are unique over both in a context.

    `mode` belongs to version 1; `authentication`, `lifetime` (seconds) and `address_allocation` to version 2.
    """

    name: str
    version: Literal[1, 2] = 1
    description: str | None = None
    connection_type: Literal["initiator-only", "responder-only", "both"] = "both"
    identity_local: Identity | None = None
    identity_remote: Identity | None = None
    mode: Literal["main", "aggressive"] = "main"
    authentication: Literal["pre-shared-key", "rsa-signature"] = "pre-shared-key"
    validate_certificate_identity: bool = False
    address_allocation: bool = False
    pre_shared_key: PreSharedKey | None = None
    lifetime: int = 86400
    proposals: tuple[ProposalRef, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """`seq N ...` of a tunnel or a profile: an IPsec policy, or a manual SA (then `policy` means nothing)."""

    seq: int
    policy: str | None = None
    sa: str | None = None
    acl: str | None = None
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Profile:
    """`ipsec profile`, for on-demand tunnels of the same name. `df_bit` None copies the inner bit."""

    name: str
    df_bit: Literal["set", "clear"] | None = None
    mtu: int | None = None
    entries: tuple[TunnelEntry, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Context:
    """A routing context. `asp_group` is the group that gives it the Security service, None without one.

    `vpn_rd` is the route distinguisher that its opening line had; it has no effect here.
    """

    name: str
    vpn_rd: str | None = None
    domain_lookup: bool | None = None
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    logging_console: bool | None = None
    administrators: Mapping[str, Administrator] = field(default_factory=dict)
    routes: tuple[StaticRoute, ...] = ()
    asp_group: str | None = None
    keepalive: bool = False
    ike_policies: Mapping[str, IkePolicy] = field(default_factory=dict)
    acls: Mapping[str, Acl] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


# --- global IKE and IPsec objects ---


@dataclass(frozen=True, slots=True)
class IkeProposal:
    """`ike proposal` (version 1) or `ike2 proposal` (version 2); names are unique over both (guide table 1).

    `authentication` and `lifetime` (seconds) belong to version 1, `prf` to version 2.
    """

    name: str
    version: Literal[1, 2] = 1
    description: str | None = None
    dh_group: int = 1
    authentication_algorithm: str = "hmac-sha1-96"
    encryption_algorithm: str = "aes-128-cbc"
    authentication: Literal["pre-shared-key", "rsa-signature"] = "pre-shared-key"
    lifetime: int = 86400
    prf: str = "hmac-sha1"
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def exists(self) -> bool:
        """Whether its version has its cipher: AES-GCM protects messages of version 2 only (RFC 5282)."""
        return self.version == 2 or not self.encryption_algorithm.endswith("-gcm")


@dataclass(frozen=True, slots=True)
class IpsecProposal:
    """`ipsec proposal`. The three algorithm fields hold the lines that were typed; the properties what they mean.

    Without any of the three lines a proposal stands for ESP hmac-sha1-96 with aes-128-cbc; as soon as one line
    exists only the lines count.
    """

    name: str
    description: str | None = None
    ip_comp: bool = False
    ah: str | None = None
    esp_authentication: str | None = None
    esp_encryption: str | None = None
    lifetime_seconds: int = 86400
    lifetime_kbytes: int | None = None
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def is_default_pair(self) -> bool:
        return self.ah is None and self.esp_authentication is None and self.esp_encryption is None

    @property
    def esp_integrity(self) -> str | None:
        """Integrity algorithm of ESP in force, None for none (or no ESP at all)."""
        return "hmac-sha1-96" if self.is_default_pair else self.esp_authentication

    @property
    def esp_cipher(self) -> str | None:
        """Cipher of ESP in force ("null" counts), None when the proposal has no ESP."""
        if self.is_default_pair:
            return "aes-128-cbc"
        if self.esp_encryption is None and self.esp_authentication is not None:
            return "null"
        return self.esp_encryption


@dataclass(frozen=True, slots=True)
class IpsecPolicy:
    """`ipsec policy`; `window` in packets, `pfs_group` None when PFS is off."""

    name: str
    description: str | None = None
    window: int = 64
    pfs_group: int | None = None
    proposals: tuple[ProposalRef, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


@dataclass(frozen=True, slots=True)
class Spi:
    """The attributes of a manual SA in one direction (or in both): guide 8.3.1, SPI configuration mode."""

    esp_spi: int | None = None
    esp_auth: Keyed | None = None
    esp_encryption: Keyed | None = None
    ah_spi: int | None = None
    ah: Keyed | None = None
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def esp_integrity(self) -> str | None:
        """Integrity algorithm of ESP in force, None without an `esp authentication` line."""
        return None if self.esp_auth is None else self.esp_auth.algorithm or "hmac-sha1-96"

    @property
    def esp_cipher(self) -> str | None:
        """Cipher of ESP in force; "null" without an `esp encryption` line; None without ESP."""
        if self.esp_encryption is not None:
            return self.esp_encryption.algorithm or "aes-128-cbc"
        return "null" if self.esp_auth is not None else None

    @property
    def ah_integrity(self) -> str | None:
        """Algorithm of AH in force, None without AH."""
        return None if self.ah is None else self.ah.algorithm or "hmac-sha1-96"

    @property
    def has_esp(self) -> bool:
        return self.esp_spi is not None or self.esp_auth is not None or self.esp_encryption is not None

    @property
    def has_ah(self) -> bool:
        return self.ah_spi is not None or self.ah is not None

    @property
    def complete(self) -> bool:
        """Whether every protocol that is begun has both its SPI and a key (cipher null alone is no key)."""
        if not self.has_esp and not self.has_ah:
            return False
        keyed = self.esp_auth is not None or (
            self.esp_encryption is not None and self.esp_encryption.algorithm != "null"
        )
        if self.has_esp and (self.esp_spi is None or not keyed):
            return False
        return not self.has_ah or (self.ah_spi is not None and self.ah is not None)


@dataclass(frozen=True, slots=True)
class ManualSa:
    """`ipsec security-association`. `both` excludes `inbound` and `outbound`, which come as a pair.

    `window` is None where no line gives it; 64 packets are meant then.
    """

    name: str
    description: str | None = None
    window: int | None = None
    ip_comp: bool = False
    both: Spi | None = None
    inbound: Spi | None = None
    outbound: Spi | None = None
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()

    @property
    def receive(self) -> Spi | None:
        """What protects the packets that come in."""
        return self.both or self.inbound

    @property
    def send(self) -> Spi | None:
        """What protects the packets that go out."""
        return self.both or self.outbound

    @property
    def complete(self) -> bool:
        """Whether both directions are there, complete, and of the same protocols."""
        receive, send = self.receive, self.send
        if receive is None or send is None or not receive.complete or not send.complete:
            return False
        return receive.has_esp == send.has_esp and receive.has_ah == send.has_ah


@dataclass(frozen=True, slots=True)
class QosPolicy:
    """`ipsec qos policy NAME pq`; `num_queues` 1 or 4, None where no line gives it (1 is meant)."""

    name: str
    num_queues: int | None = None
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


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
    interface_context_written: bool = _written()
    context_written: bool = _written()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
    line: int = _line()


# --- the whole ---


def _contexts() -> dict[str, Context]:
    return {LOCAL: Context(LOCAL)}


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one router; every mapping is keyed by the object's name and must not be changed.

    `accepted` holds lines without effect here, in their settled spelling, to be printed back.
    """

    hostname: str = "Redback"
    pools: Mapping[str, AspPool] = field(default_factory=dict)
    groups: Mapping[str, AspGroup] = field(default_factory=dict)
    contexts: Mapping[str, Context] = field(default_factory=_contexts)
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    ike_proposals: Mapping[str, IkeProposal] = field(default_factory=dict)
    ipsec_proposals: Mapping[str, IpsecProposal] = field(default_factory=dict)
    ipsec_policies: Mapping[str, IpsecPolicy] = field(default_factory=dict)
    manual_sas: Mapping[str, ManualSa] = field(default_factory=dict)
    qos_policies: Mapping[str, QosPolicy] = field(default_factory=dict)
    cards: Mapping[int, Card] = field(default_factory=dict)
    ports: Mapping[str, Port] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = _kept()
    written: frozenset[str] = _typed()
