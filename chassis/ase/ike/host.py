"""What IKE's sessions and the engine around them ask of each other, and the settings of both.

Sessions of both versions (`chassis.ase.ike.v1`, `.v2`) are written against this file alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, ConnectionGroup, PolicyEntry
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike_messages import FromIke
from chassis.net.udp import IKE_PORT, NAT_PORT

SOFT_LIFETIME_REACHED = "soft limit of seconds"
"""Why a pair expires whose successor is negotiated before its lifetime ends."""


@dataclass(frozen=True, slots=True)
class IkeSettings:
    """What a lab may set of IKE; times in seconds. The guide gives none of these (S-089, S-112).

    `retransmit_timeout` (s) is the first wait, doubled `retransmit_tries` times up to `longest`. A session that
    has not authenticated its peer ends after `half_open_timeout` (s). `backoff` (first, longest; s) is the pause
    between an initiator's attempts. `rekey_margin_factor` is the part of a lifetime that is left when its
    successor is negotiated, `rekey_jitter_factor` the random part of that margin. An IKE message longer than
    `fragment_size` (octets) is fragmented (RFC 7383). Above `cookie_threshold` half-open negotiations, strangers
    must return a cookie; `half_open_limit` bounds all of them, `half_open_limit_per_peer` those of one address
    without a cookie, and as many again with one.
    """

    dpd_interval: float = 10.0
    dpd_retries: int = 3
    strict_lifetime: bool = True
    modern: bool = False
    retransmit_timeout: float = 0.5
    retransmit_tries: int = 5
    longest: float = 16.0
    half_open_timeout: float = 30.0
    backoff: tuple[float, float] = (1.0, 60.0)
    rekey_margin_factor: float = 0.1
    rekey_jitter_factor: float = 0.3
    nat_keepalive_interval: float = 20.0
    fragment_size: int = 1280
    cookie_threshold: int = 200
    half_open_limit: int = 4000
    half_open_limit_per_peer: int = 100


@dataclass(frozen=True, slots=True)
class NetworkPath:
    """The way that the messages of a negotiation take: our address and port, the peer's as seen from here."""

    context: int
    local: int
    local_port: int
    remote: int
    remote_port: int

    @property
    def on_nat_port(self) -> bool:
        """Whether this is the port for traffic through NAT."""
        return self.local_port == NAT_PORT

    def floated(self) -> NetworkPath:
        """The same way on port 4500."""
        port = NAT_PORT if self.remote_port == IKE_PORT else self.remote_port
        return replace(self, local_port=NAT_PORT, remote_port=port)


class Session(Protocol):
    """One IKE SA, or the attempt at one, of either version. It keeps its own timers; the engine sorts them.

    After `closed` became true the engine forgets it; nothing is sent afterwards. No method raises for what a peer
    does.
    """

    version: int
    spi: bytes
    """Our SPI (cookie): messages find their session by it."""
    connection: Connection | None
    """None while a responder does not know yet which one the peer means."""
    established: bool
    orphaned: bool
    """Version 1: its IKE SA is gone, and its pairs live on here until another session takes them over."""
    closed: bool
    initiator: bool
    """Whether we began it."""
    last_received: float
    """When the last sign of life came in that only the peer can have given."""
    receives: bool
    """While it is half open: the peer has shown that it receives what is sent to its address."""
    path: NetworkPath

    def start(self, now: float) -> None:
        """An initiator's first message."""

    def receive(self, data: bytes, header: Header, path: NetworkPath, now: float) -> None:
        """A whole message whose header was parsed and whose SPI is ours."""

    def next_timer(self) -> float:
        """When `on_timer` wants to be called; infinity for never."""

    def on_timer(self, now: float) -> None: ...

    def negotiate(self, entry: PolicyEntry, replaces: int, now: float) -> None:
        """Make a pair for a line of the connection: `replaces` is the serial of the one that it succeeds, or 0.

        Kept until the IKE SA stands; asked again for a line that is being negotiated it does nothing.
        """

    def rekey(self, now: float) -> None:
        """Replace this IKE SA (version 1: negotiate phase 1 anew), keeping its children."""

    def delete_child(self, serial: int, reason: str, now: float) -> None:
        """Delete one pair, and tell the peer."""

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        """Delete the IKE SA and all its pairs; `tell` the peer (where there is somebody to tell).

        With `keep` its pairs stay in version 1; in version 2 they end with it all the same (RFC 7296 1.4.1).
        """

    def on_child_expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        """The data engine says that a pair has carried its kilobytes or used up its numbers."""

    def on_peer_uses_sa(self, serial: int, now: float) -> None:
        """The peer sends by a pair that we did not send by yet."""

    def on_inbound_traffic(self, now: float) -> None:
        """Packets of the peer came in by one of its pairs: dead peer detection may rest."""

    def on_configuration(self, connection: Connection, now: float) -> None:
        """The connection was changed in a way that lets its SAs live (guide chapter 11): for new SAs."""

    def describe(self) -> dict[str, Any]:
        """For `show` and `--json`: never a key."""

    def secrets(self) -> list[dict[str, str]]:
        """Rows of a decryption file for Wireshark, when the operator asked for one: kind and columns."""


class IkeHost(Protocol):
    """The engine as its sessions see it. Everything is carried out in the order in which it is asked."""

    settings: IkeSettings
    asp: str

    @property
    def wall_clock(self) -> float:
        """Time of day when the message came in that is being dealt with, in seconds since 1970: for the dates of
        certificates."""

    def random(self, octets: int) -> bytes: ...

    def send(self, path: NetworkPath, data: bytes) -> None:
        """A message to the peer; the non-ESP marker is not the session's business."""

    def send_to_dataplane(self, message: FromIke) -> None:
        """`SaInstall`, `SaActivateOutbound`, `SaDelete`, `SaUpdateAddress` or `SaExpire` to the data engine."""

    def log(
        self, id: str, values: Mapping[str, Any], session: Session | None, path: NetworkPath, now: float
    ) -> None:
        """A line of the guide's tables 5 and 6, by its id in `log.TEMPLATES`."""

    def log_own(
        self, kind: str, severity: str, text: str, session: Session | None, path: NetworkPath, now: float
    ) -> None:
        """A line of our own: debug, info, warning or error. Never a key. Lines are limited by their `kind`, of
        which there is a fixed number: nothing of it comes from a peer."""

    def count(self, name: str, number: int = 1) -> None:
        """Statistics, by names that mean one thing in both versions.

        `negotiations initiated` and `negotiations responded` count IKE SAs by who sent the first message, `IKE SAs
        established` those whose peer is authenticated, `IKE SAs rekeyed` those that a successor replaced.
        `retransmissions` are messages sent again by a timer, `responses resent` replies to repeated messages.
        CHILD SAs count when they are installed.
        """

    def group(self, context: int, local: int, remote: int, version: int) -> ConnectionGroup | None:
        """Connections that a peer at this address may mean."""

    def new_ike_spi(self) -> bytes:
        """Eight fresh octets, not zero and unknown here."""

    def allocate_spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        """A fresh inbound SPI for each protocol: four octets for AH and ESP, two for IPComp (a CPI)."""

    def release_spis(self, spis: Mapping[int, bytes]) -> None:
        """Release inbound SPIs of a failed negotiation or a deleted SA."""

    def new_serial(self, tunnel: int) -> int:
        """A serial for a pair of SAs: never given twice in this life."""

    def register_session(self, session: Session) -> None:
        """A session that another one made (a rekeyed IKE SA): messages find it from now on.

        Asked again, with `established`, when it takes the older one's pairs over; `installed` was then said again
        of each of them, by the new session. Asked again, too, when anything else was done with it from outside.
        """

    def sibling_sessions(self, session: Session) -> Sequence[Session]:
        """Other sessions of the same connection that stand or are orphaned, oldest first: in version 1 pairs
        outlive their IKE SA and pass to the one that stands."""

    def reschedule(self, session: Session) -> None:
        """A session did something to this other one: its timer is to be asked for anew, or it is closed."""

    def on_established(self, session: Session, now: float) -> None:
        """The IKE SA stands, its peer is authenticated, `session.connection` is known."""

    def on_child_installed(self, session: Session, child: ChildSa, now: float) -> None:
        """A pair was installed (after its `SaInstall` was emitted), or has passed to `session` from another."""

    def on_child_removed(self, session: Session, child: ChildSa, reason: str, now: float) -> None:
        """A pair is gone (after its `SaDelete` was emitted)."""

    def on_failed(
        self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None = None
    ) -> None:
        """The negotiation of the IKE SA, or of a line's pair, came to nothing."""

    def on_closed(self, session: Session, reason: str, now: float) -> None:
        """The session closed, its children were `removed` before; or it is orphaned, and has them still."""

    def may_send_initial_contact(self, connection: Connection) -> bool:
        """Whether an INITIAL-CONTACT is due: once for a pair of identities after a boot."""

    def on_initial_contact(self, session: Session, now: float) -> None:
        """The peer said INITIAL-CONTACT in `session`, authenticated: older ones with it are void."""


class IkeReports(Protocol):
    """What the manager of IKE SAs tells the connection manager of the sessions' doings."""

    def on_established(self, session: Session, now: float) -> None:
        """As `IkeHost.on_established`."""

    def on_child_installed(self, session: Session, child: ChildSa) -> None:
        """As `IkeHost.on_child_installed`."""

    def on_child_removed(self, session: Session, child: ChildSa, reason: str, now: float) -> None:
        """As `IkeHost.on_child_removed`."""

    def on_failed(self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None) -> None:
        """As `IkeHost.on_failed`."""

    def on_closed(self, session: Session, reason: str, now: float) -> None:
        """As `IkeHost.on_closed`."""

    def on_initial_contact(self, session: Session, now: float) -> None:
        """As `IkeHost.on_initial_contact`."""

    def sibling_sessions(self, session: Session) -> Sequence[Session]:
        """As `IkeHost.sibling_sessions`."""

    def on_rekeyed(self, old: Session, new: Session) -> None:
        """`new`, which `old` made, serves the tunnel from now on."""

    def on_child_sends(self, tunnel: int, entry: int, serial: int) -> None:
        """A CHILD SA was installed and sends for its entry from now on."""

    def on_outbound_activated(self, tunnel: int, serial: int) -> None:
        """A CHILD SA that was installed before sends from now on."""


_SECONDS = {
    "dpd-interval": "dpd_interval",
    "ike-retransmit-timeout": "retransmit_timeout",
    "half-open-timeout": "half_open_timeout",
    "nat-keepalive-interval": "nat_keepalive_interval",
}
_NUMBERS = {
    "dpd-retries": "dpd_retries",
    "ike-retransmit-tries": "retransmit_tries",
    "ike-fragment-size": "fragment_size",
    "cookie-threshold": "cookie_threshold",
    "half-open-limit": "half_open_limit",
    "half-open-limit-per-peer": "half_open_limit_per_peer",
}
_PARTS = {"rekey-margin-factor": "rekey_margin_factor", "rekey-jitter-factor": "rekey_jitter_factor"}
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        for unit, factor in _UNITS.items():
            if value.endswith(unit) and value[: -len(unit)].replace(".", "", 1).isdigit():
                return float(value[: -len(unit)]) * factor
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError(f"{value!r} is no duration such as 500ms or 10s")


def read_settings(given: Mapping[str, Any]) -> tuple[IkeSettings, list[str]]:
    """The settings, and what is wrong with them; a wrong value leaves the default."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, attribute in _SECONDS.items():
        if name in given:
            try:
                values[attribute] = _seconds(given[name])
            except ValueError as error:
                problems.append(f"setting {name}: {error}")
    for name, attribute in _NUMBERS.items():
        value = given.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            values[attribute] = value
        elif value is not None:
            problems.append(f"setting {name}: {value!r} is no number from 1 on")
    for name, attribute in _PARTS.items():
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
            values[attribute] = float(value)
        elif value is not None:
            problems.append(f"setting {name}: {value!r} is no part from 0 to 1")
    if "ike-retry-delay" in given:
        try:
            first = _seconds(given["ike-retry-delay"])
            values["backoff"] = (first, max(first, IkeSettings().backoff[1]))
        except ValueError as error:
            problems.append(f"setting ike-retry-delay: {error}")
    strict = given.get("strict-lifetime")
    if isinstance(strict, bool):
        values["strict_lifetime"] = strict
    elif strict is not None:
        problems.append(f"setting strict-lifetime: {strict!r} is neither true nor false")
    return IkeSettings(**values), problems
