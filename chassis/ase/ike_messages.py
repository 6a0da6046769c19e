"""Messages inside an ASP, between its data engine and its IKE process (`docs/bus.md` prints them too).

The two are engines of their own: IKE's arithmetic must not hold up packets or heartbeats. The data engine owns
sequence numbers, windows and octet counts; IKE owns keys in the making, lifetimes in seconds, and the decision
which SA sends. Addresses are numbers, contexts are the controller's, times are seconds of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.bus.messages import Attributes, LogRecord, Value
from chassis.bus.records import Key, Record
from chassis.model.acl import AclRule
from chassis.model.ipsec import SaKeys


@dataclass(frozen=True, slots=True)
class IkePacket:
    """A UDP datagram of IKE, either way. On port 4500 `data` is without the non-ESP marker (RFC 3948 2.2): the
    data engine takes it off and puts it on. An empty `data` from IKE is a NAT keepalive, one octet on the wire.
    """

    context: int
    local: int
    local_port: int
    remote: int
    remote_port: int
    data: bytes = field(repr=False)


# data engine to IKE


@dataclass(frozen=True, slots=True)
class Configure:
    """Records that changed, as the controller replicates them; `whole`: everything held before is void.

    `settings` are the node's, from the `Welcome`; empty in all but the first. A change of many records comes in
    parts, of which all but the last say that there is `more`: it takes effect with the last.
    """

    put: tuple[Record, ...]
    delete: tuple[Key, ...] = ()
    full: bool = False
    settings: Attributes = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class SaExpire:
    """An SA has carried its kilobytes or has used up its numbers: `hard` means that it stopped.

    The other way, never `hard`: its lifetime in seconds has IKE negotiate its successor.
    """

    tunnel: int
    serial: int
    hard: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PeerUsesSa:
    """The first packet came in by an SA that did not send yet: the peer has it."""

    tunnel: int
    serial: int


@dataclass(frozen=True, slots=True)
class PeerAlive:
    """Tunnels by which packets of the peer came in since the last such message (for DPD)."""

    tunnels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NatMappingChanged:
    """UDP-encapsulated packets of an SA now come from another address or port (RFC 3948, RFC 7296 2.23)."""

    tunnel: int
    serial: int
    remote: int
    remote_port: int


@dataclass(frozen=True, slots=True)
class Acquire:
    """A packet wanted to go through a policy line that has no SA; said at most once a second for each.

    `entry` is the number of the line, or of one rule of it (`chassis.ase.entry_numbers`).
    """

    tunnel: int
    entry: int


@dataclass(frozen=True, slots=True)
class IkeRequest:
    """An operator's command for IKE: `clear`, `rekey`, `statistics`, `sas`, `keys`; answered by `IkeReply`."""

    number: int
    name: str
    arguments: Attributes


# IKE to data engine


@dataclass(frozen=True, slots=True)
class UdpEncapsulation:
    """UDP encapsulation of ESP (RFC 3948): our port and the peer's address and port as seen from here."""

    local_port: int
    remote: int
    remote_port: int


@dataclass(frozen=True, slots=True)
class SaInstall:
    """A pair of SAs for one policy line of a tunnel, or for one rule of the line: `entry` is the number of either
    (`chassis.ase.entry_numbers`). `outbound` has the peer's SPIs, `inbound` ours.

    `serial` is never used again for the tunnel in one life of the ASP. `rules` are what goes in (as an access list
    of this end says it), already narrowed; none means everything. `send`: it sends for its line from now on. Where
    it is false the pair only receives until `SaActivateOutbound`. `kbytes` 0 is no limit; the soft one is
    `soft_kbytes`. `seconds` is for people: IKE itself ends it. `cpi_out` and `cpi_in` are IPComp's, 0 without.
    `initiator`: this end began the negotiation.
    """

    tunnel: int
    serial: int
    entry: int
    local: int
    remote: int
    outbound: SaKeys
    inbound: SaKeys
    window: int
    send: bool
    rules: tuple[AclRule, ...] = ()
    esn: bool = False
    cpi_out: int = 0
    cpi_in: int = 0
    seconds: int = 0
    kbytes: int = 0
    soft_kbytes: int = 0
    encapsulation: tuple[UdpEncapsulation, ...] = ()
    """One or none."""
    initiator: bool = False
    replaces: int = 0
    """Serial of the pair that this one succeeds, 0 for none."""


@dataclass(frozen=True, slots=True)
class SaActivateOutbound:
    """This pair sends for its policy line from now on."""

    tunnel: int
    serial: int


@dataclass(frozen=True, slots=True)
class SaDelete:
    """The pair is gone, keys and all."""

    tunnel: int
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class SaUpdateAddress:
    """The peer of a pair is elsewhere now: its packets go there."""

    tunnel: int
    serial: int
    encapsulation: UdpEncapsulation


@dataclass(frozen=True, slots=True)
class IkeTunnelState:
    """IKE's word on a tunnel: `up` when every policy line has a pair, at least for one of its rules; if not, why.

    `identity` is the peer's as it proved it; `selectors` are the peer's networks as negotiated, for
    traffic-selector routes: address and prefix length in turn.
    """

    tunnel: int
    up: bool
    reason: str
    identity: str = ""
    selectors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class IkeLog:
    """A log line of IKE, complete."""

    record: LogRecord


@dataclass(frozen=True, slots=True)
class IkeReply:
    number: int
    result: Attributes
    error: str = ""


@dataclass(frozen=True, slots=True)
class IkeHeartbeat:
    """IKE's loop turns; `counts` are its statistics as the counters name them."""

    loop_lag: float
    counts: dict[str, Value]


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A message between the two that was not carried, and why; it is none itself. `number` is that of the command
    which it was for, 0 for none."""

    text: str
    number: int = 0


ToIke = Configure | IkePacket | SaExpire | PeerUsesSa | PeerAlive | NatMappingChanged | Acquire | IkeRequest
FromIke = (
    SaInstall
    | SaActivateOutbound
    | SaDelete
    | SaUpdateAddress
    | SaExpire
    | IkePacket
    | IkeTunnelState
    | IkeLog
    | IkeReply
    | IkeHeartbeat
)
