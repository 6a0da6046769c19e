"""Messages of the control bus, card to controller and back.

Other types do not decode. Times are in seconds of the machine's monotonic clock.
`docs/bus.md` is printed from these types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chassis.bus.records import Key, Record, TunnelRecord

PROTOCOL = 3
"""Version of the control protocol, sent in the `Hello`; a controller refuses another one with `Goodbye`."""

Value = str | int | float | bool | bytes | None
Attributes = dict[str, "Value | list[Value] | list[dict[str, Value]] | dict[str, Value]"]


@dataclass(frozen=True, slots=True)
class SaReport:
    """An SA as its ASP reports it, without keys."""

    tunnel: int
    serial: int
    direction: str
    protocol: str
    spi: int
    peer: int
    algorithms: str = ""
    window: int = 0


@dataclass(frozen=True, slots=True)
class PeerNetworks:
    """The networks behind a tunnel's peer, as its ASP has negotiated them: address and prefix length in turn."""

    tunnel: int
    networks: tuple[int, ...]


# both ways

MAX_DATAGRAM = 4096
"""Octets (count) of the longest payload of a `Datagram`: that of RADIUS."""

MAX_DATAGRAMS = 64
"""Most datagrams in one message (count)."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram (RFC 768) of the router itself, sent or received in a context.

    `source` is 0 if the line card is to choose the address. The payload may hold secrets of the service.
    """

    context: int
    source: int
    destination: int
    source_port: int
    destination_port: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Datagrams:
    """From the controller, datagrams that a line card is to send; from a line card, those that came in for a port
    of `UdpPortRecord`.

    At most 64, with at most 4,096 octets each. Nobody acknowledges them: like any datagram they may be lost, with
    their card too.
    """

    datagrams: tuple[Datagram, ...]


# card to controller


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a card on every connection: its name and boot, and the state that it holds.

    `epoch` and `version` are 0 in a new process. `fresh`: the ASP found no mapped SA state, so its sequence
    numbers must continue from the controller's lease. `parts` `HeldInstances` follow it. `cipher_engine` is what
    encrypts the ESP of an ASP; `remarks` are lines for the operator.
    """

    protocol: int
    card: str
    kind: str
    pid: int
    boot: int
    epoch: int
    version: int
    fresh: bool = False
    sas: tuple[SaReport, ...] = ()
    ports: tuple[str, ...] = ()
    networks: tuple[PeerNetworks, ...] = ()
    parts: int = 0
    cipher_engine: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldInstances:
    """Part `part` of `parts` of the instances of on-demand tunnels that an ASP has peers of, as it holds their
    records. They follow the hello at once; it counts when the last one is there."""

    part: int
    parts: int
    instances: tuple[TunnelRecord, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`loop_lag` is the delay (s) of the sender's loop; `version` is that of the records that it holds."""

    card: str
    epoch: int
    sequence: int
    version: int
    loop_lag: float = 0.0


@dataclass(frozen=True, slots=True)
class PortEvent:
    port: str
    up: bool
    reason: str
    speed: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class NeighbourEvent:
    """A neighbour was resolved (6-byte `mac`) or lost (empty `mac`).

    Any host can claim addresses, so a card limits these reports per second, and counts the others.
    """

    port: str
    address: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class TunnelEvent:
    """An ASP's report about a tunnel: whether its SAs can carry packets, and if not, why.

    For a negotiated tunnel, `identity` is the authenticated identity of the peer, and `selectors` are the peer's
    negotiated networks for traffic-selector routes: address and prefix length in turn.
    """

    tunnel: int
    up: bool
    reason: str
    peer: int
    identity: str = ""
    sas: tuple[SaReport, ...] = ()
    selectors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerQuestion:
    """An ASP asks about a peer of an on-demand tunnel (guide 7, 9.3); answered by the `PeerAnswer` of that number.

    `step` "key": the peer claims `identity` and is not authenticated; AAA has its preshared key. `step`
    "admit": the peer is authenticated; it asks for its tunnel. `after` is then the number of the question about
    its key, 0 for none. `on_demand` is the number of the on-demand tunnel; `peer` and `peer_port` are the
    peer's as seen from here. `wants_address`: the peer asks for an inner address (RFC 7296 2.19). Numbers begin
    at 1 with each boot of the ASP.
    """

    number: int
    step: Literal["key", "admit"]
    on_demand: int
    identity: str
    local: int
    peer: int
    peer_port: int
    after: int = 0
    wants_address: bool = False


@dataclass(frozen=True, slots=True)
class PeerDropped:
    """The peer of a question is gone before it was answered, or its last IKE SA and SAs are.

    `question` is that of the question, 0 for none; `tunnel` the number of the instance, 0 for none.
    """

    question: int
    tunnel: int
    reason: str


@dataclass(frozen=True, slots=True)
class TunnelUsage:
    """Inner packets and octets that came out of a tunnel and went into it, since it was made."""

    tunnel: int
    packets_in: int
    octets_in: int
    packets_out: int
    octets_out: int


@dataclass(frozen=True, slots=True)
class PeerUsage:
    """What peers of on-demand tunnels with an accounting session have used, from time to time and at their end."""

    tunnels: tuple[TunnelUsage, ...]


@dataclass(frozen=True, slots=True)
class SaEvent:
    """`event`: installed, rekeyed, deleted, expiring, exhausted or lease (more sequence numbers are wanted)."""

    sa: SaReport
    event: str
    reason: str = ""
    next_sequence: int = 0


@dataclass(frozen=True, slots=True)
class LogRecord:
    """`text` is final; `id` names a row of the guide's tables or a kind of this program. No field has a key."""

    time: float
    severity: str
    facility: str
    id: str
    text: str
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Trace number, printed step (`3/1 in`, `1/1 encapsulate`), and time (s)."""

    number: int
    step: str
    time: float


@dataclass(frozen=True, slots=True)
class TraceStamps:
    stamps: tuple[Stamp, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to the `Request` of that number. `error` is empty after success; `last` ends the request."""

    number: int
    result: Attributes
    error: str = ""
    last: bool = True


# controller to card


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """Answer to a `PeerQuestion`. `error` is empty if the peer may go on, else the reason for the log.

    To "key": `key` is the preshared key. To "admit": `tunnel` is the number of the instance, whose
    `TunnelRecord` the controller has sent before; `address`, `netmask` and `dns` are for the peer, 0 and empty
    without.
    """

    number: int
    error: str = ""
    key: bytes = field(default=b"", repr=False)
    tunnel: int = 0
    address: int = 0
    netmask: int = 0
    dns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """Admits a card with an epoch. The interval is in seconds; after `misses` intervals without a heartbeat it
    fails."""

    epoch: int
    version: int
    interval: float
    misses: int
    settings: Attributes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Part `part` (from 1) of `parts` of all records that the card needs at `version`."""

    version: int
    part: int
    parts: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    from_version: int
    to_version: int
    put: tuple[Record, ...]
    delete: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Request:
    number: int
    name: str
    arguments: Attributes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The configuration does not have the card (any more); its process ends."""

    reason: str


FromCard = (
    Hello
    | HeldInstances
    | Heartbeat
    | PortEvent
    | NeighbourEvent
    | TunnelEvent
    | SaEvent
    | PeerQuestion
    | PeerDropped
    | PeerUsage
    | LogRecord
    | TraceStamps
    | Reply
    | Datagrams
)
ToCardMessage = PeerAnswer | Welcome | Snapshot | Delta | Request | Goodbye | Datagrams
Message = FromCard | ToCardMessage
