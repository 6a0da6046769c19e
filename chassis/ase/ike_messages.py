"""Messages inside an ASP, between its data engine and its IKE process (`docs/bus.md` prints them too).

They are two processes, so that IKE's arithmetic does not delay packets or heartbeats. The data engine owns
sequence numbers, replay windows and octet counts. IKE owns the keys of negotiations, lifetimes in seconds, and the
decision which SA sends. Contexts are the controller's numbers. Times are of the monotonic clock (s).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.bus.messages import Attributes, LogRecord, PeerAnswer, PeerDropped, PeerQuestion, Value
from chassis.bus.records import Key, Record
from chassis.model.acl import AclRule
from chassis.model.ipsec import SaKeys


@dataclass(frozen=True, slots=True)
class IkePacket:
    """A UDP datagram of IKE, sent or received. On port 4500 `data` is without the non-ESP marker (RFC 3948 2.2),
    which the data engine removes and adds. Empty `data` from IKE is a NAT keepalive, one octet on the wire.
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
    """Records that changed, as the controller replicates them. With `full`, all other records are deleted.

    `settings` are the node's, from the `Welcome`; empty if they are unchanged. A change of many records comes in
    several messages, all but the last with `more`. It takes effect with the last one.
    """

    put: tuple[Record, ...]
    delete: tuple[Key, ...] = ()
    full: bool = False
    settings: Attributes = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class SaExpire:
    """An SA reached its limit of kilobytes or of sequence numbers. With `hard` it no longer carries packets.

    From IKE, never `hard`: its lifetime in seconds ends soon, and IKE negotiates its successor.
    """

    tunnel: int
    serial: int
    hard: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PeerUsesSa:
    """The first packet was received on a CHILD SA that does not send yet: the peer has installed it."""

    tunnel: int
    serial: int


@dataclass(frozen=True, slots=True)
class PeerAlive:
    """Numbers of the tunnels that received packets of the peer since the last such message (for DPD)."""

    tunnels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NatMappingChanged:
    """UDP-encapsulated packets of an SA come from a new address or port (RFC 3948, RFC 7296 2.23)."""

    tunnel: int
    serial: int
    remote: int
    remote_port: int


@dataclass(frozen=True, slots=True)
class UnknownSpi:
    """A packet came for an SA that is not here. Addresses and ports are as in `IkePacket`, those by which IKE
    reaches its sender. `protocol` is 2 for AH and 3 for ESP. Of many such packets IKE is told of some.
    """

    context: int
    local: int
    local_port: int
    remote: int
    remote_port: int
    protocol: int
    spi: int


@dataclass(frozen=True, slots=True)
class Acquire:
    """A packet matched a policy entry that has no SA. Sent at most once a second for each entry.

    `entry` is the number of the entry, or of one of its rules (`chassis.ase.entry_numbers`).
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
    """Install a CHILD SA for a policy entry of a tunnel, or for one of its rules (IKEv1). `entry` is the number of
    either (`chassis.ase.entry_numbers`). `outbound` has the peer's SPIs, `inbound` ours.

    `serial` is used once for a tunnel by an ASP process. `rules` select the outbound traffic, already narrowed;
    `()` selects all. With `send` false the CHILD SA only receives until `SaActivateOutbound`. `kbytes` is the hard
    limit and `soft_kbytes` the soft one, 0 for none. `seconds` is the lifetime (s), for display: IKE deletes the
    SA. `cpi_out` and `cpi_in` are 0 without IPComp. `initiator`: this end initiated the negotiation.
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
    """Serial of the predecessor, 0 for none."""


@dataclass(frozen=True, slots=True)
class SaActivateOutbound:
    """Send with this CHILD SA for its policy entry from now on."""

    tunnel: int
    serial: int


@dataclass(frozen=True, slots=True)
class SaDelete:
    """Delete a CHILD SA and its keys."""

    tunnel: int
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class SaUpdateAddress:
    """Send the packets of a CHILD SA to a new address or port of the peer (RFC 7296 2.23)."""

    tunnel: int
    serial: int
    encapsulation: UdpEncapsulation


@dataclass(frozen=True, slots=True)
class IkeTunnelState:
    """The state of a tunnel: `up` if every policy entry has a CHILD SA, at least for one of its rules.

    `reason` says why it is down. `identity` is the authenticated one of the peer. `selectors` are the peer's
    networks as negotiated, for traffic-selector routes: address and prefix length in turn.
    """

    tunnel: int
    up: bool
    reason: str
    identity: str = ""
    selectors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class IkeLog:
    """A log record of IKE, which the data engine passes on."""

    record: LogRecord


@dataclass(frozen=True, slots=True)
class IkeReply:
    """The answer to the `IkeRequest` with the same number. `error` is empty if the command was carried out."""

    number: int
    result: Attributes
    error: str = ""


@dataclass(frozen=True, slots=True)
class IkeHeartbeat:
    """A sign of life. `loop_lag` (s) is how late it is sent; `counts` are statistics by counter name."""

    loop_lag: float
    counts: dict[str, Value]


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A message that was dropped, and why. Each end makes this value for itself; it is not sent.

    `number` is that of the command to which the message belongs, 0 for none.
    """

    text: str
    number: int = 0


ToIke = (
    Configure
    | IkePacket
    | SaExpire
    | PeerUsesSa
    | PeerAlive
    | NatMappingChanged
    | UnknownSpi
    | Acquire
    | IkeRequest
    | PeerAnswer
)
SaMessage = SaInstall | SaActivateOutbound | SaDelete | SaUpdateAddress | SaExpire | IkeTunnelState
"""What IKE says of the SAs of tunnels."""

FromIke = SaMessage | IkePacket | IkeLog | PeerQuestion | PeerDropped | IkeReply | IkeHeartbeat
