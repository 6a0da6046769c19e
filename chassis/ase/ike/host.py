"""The interfaces between sessions (one IKE SA each) and the IKE engine, and the settings of both.

Sessions of both versions (`chassis.ase.ike.v1`, `.v2`) are written against this file alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import ref

from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, ConnectionGroup, Peer, PolicyEntry
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.on_demand import OnDemandGroup
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike_messages import FromIke
from chassis.bus.messages import PeerAnswer
from chassis.net.udp import IKE_PORT, NAT_PORT

SOFT_LIFETIME_REACHED = "soft limit of seconds"
"""Reason of an `SaExpire` that IKE sends: the successor is negotiated before the lifetime (s) ends."""


PROBE_SPREAD, PROBE_SPREAD_FROM = 0.2, 20.0
"""Part by which the DPD interval of an IKE SA is shorter at most, of what it has above a time (s)."""

PROBE_STEP: Final = 1.0
"""Time (s) between two rounds of probes where the interval is above `PROBE_SPREAD_FROM`."""


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

    def probe_interval(self, spi: bytes) -> float:
        """Return how long (s) the peer of an IKE SA, by our SPI, may be silent until it is probed.

        A long interval is up to `PROBE_SPREAD` shorter, by the SPI: IKE SAs that came up together do not probe
        together.
        """
        spread = max(self.dpd_interval - PROBE_SPREAD_FROM, 0.0) * PROBE_SPREAD
        return self.dpd_interval - spread * spi[-1] / 255

    def probe_due(self, spi: bytes, heard: float, phase: float) -> float:
        """Return when to probe the peer of an IKE SA that was last heard at a time (s).

        Where the interval is long, this is the round before the interval is over, a whole number of `PROBE_STEP`
        after `phase` (s): what a thousand tunnels send one by one costs several times what they send together.
        """
        if self.dpd_interval <= PROBE_SPREAD_FROM:
            return heard + self.dpd_interval
        return phase + floor((heard + self.probe_interval(spi) - phase) / PROBE_STEP) * PROBE_STEP


@dataclass(frozen=True, slots=True)
class NetworkPath:
    """Our address and port and the peer's, as seen from here, for the messages of a negotiation."""

    context: int
    local: int
    local_port: int
    remote: int
    remote_port: int

    @property
    def on_nat_port(self) -> bool:
        """Whether our port is 4500, that of NAT traversal (RFC 3948)."""
        return self.local_port == NAT_PORT

    def floated(self) -> NetworkPath:
        """Return the same path on port 4500 (RFC 3947 4, RFC 7296 2.23)."""
        port = NAT_PORT if self.remote_port == IKE_PORT else self.remote_port
        return replace(self, local_port=NAT_PORT, remote_port=port)


NO_SLOTS: Final[tuple[str, ...]] = ()
"""The slots of `Session`, of which each class that has its attributes has them in slots of its own."""


class Session(Protocol):
    """One IKE SA of either version, established or being negotiated. It has its own timers; the engine sorts them.

    Once `closed` is true the engine removes the session, which sends nothing more. No method raises an error for
    what the peer sends.
    """

    __slots__ = NO_SLOTS

    version: int
    spi: bytes
    """Our SPI (IKEv1: cookie), by which the receiver finds the session of a message."""
    connection: Connection | None
    """None while a responder does not know the peer's identity yet; a candidate while it waits for the instance of
    an on-demand peer."""
    established: bool
    orphaned: bool
    """IKEv1: the ISAKMP SA was deleted; the session holds its CHILD SAs until another one takes them over."""
    closed: bool
    initiator: bool
    """Whether this end initiated the IKE SA."""
    last_received: float
    """When the last authenticated message or packet of the peer was received (s)."""
    receives: bool
    """Whether a half-open peer has shown that it receives messages at its address."""
    path: NetworkPath

    def start(self, now: float) -> None:
        """Send the initiator's first message."""

    def receive(self, data: bytes, header: Header, path: NetworkPath, now: float) -> None:
        """Handle a message. The caller has parsed and checked its header."""

    def next_timer(self) -> float:
        """Return when `on_timer` has to be called (s); infinity for never."""

    def on_timer(self, now: float) -> None: ...

    def negotiate(self, entry: PolicyEntry, replaces: int, now: float) -> None:
        """Negotiate a CHILD SA for a policy entry. `replaces` is the serial of its predecessor, 0 for none.

        The call is stored until the IKE SA is established. It does nothing while the entry is being negotiated.
        """

    def rekey(self, now: float) -> None:
        """Rekey this IKE SA (IKEv1: negotiate phase 1 again); its CHILD SAs move to the new one."""

    def delete_child(self, serial: int, reason: str, now: float) -> None:
        """Delete one CHILD SA and send the peer a Delete."""

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        """Delete the IKE SA and all its CHILD SAs; with `tell`, send Deletes if the IKE SA is established.

        With `keep` the CHILD SAs of IKEv1 stay; those of IKEv2 always end with the IKE SA (RFC 7296 1.4.1).
        """

    def on_child_expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        """Handle the end of a CHILD SA's kilobytes or sequence numbers; `hard`: the SA has stopped."""

    def on_peer_uses_sa(self, serial: int, now: float) -> None:
        """Handle the first packet of the peer on a CHILD SA that only receives so far."""

    def on_inbound_traffic(self, now: float) -> None:
        """Restart dead peer detection: a CHILD SA received packets of the peer."""

    def on_invalid_spi(self, spi: bytes, now: float) -> None:
        """Somebody says in clear that the peer has no SA with this SPI. If it is ours, look after the peer."""

    def on_peer_answer(self, answer: PeerAnswer, now: float) -> None:
        """Go on with the controller's answer to the question that this session asked last."""

    def on_configuration(self, connection: Connection, now: float) -> None:
        """Use a changed connection for new SAs; the existing SAs stay (guide chapter 11)."""

    def describe(self) -> dict[str, Any]:
        """Return the state for `show` and `--json`, without keys."""

    def secrets(self) -> list[dict[str, str]]:
        """Return rows of a decryption file for Wireshark, which the operator requested: kind and columns."""


Owner = TypeVar("Owner")


class SessionPart(Generic[Owner]):
    """A part of a session. It holds its session by a weak reference: so one that ended is freed at once, with its
    keys, and not with the next search for cycles."""

    __slots__ = ("_owner",)

    def __init__(self, sa: Owner) -> None:
        self._owner = ref(sa)

    @property
    def sa(self) -> Owner:
        """The session, which is there as long as its parts are called."""
        sa = self._owner()
        assert sa is not None
        return sa


class IkeHost(Protocol):
    """What sessions call in the engine. Outputs keep the order of the calls."""

    settings: IkeSettings
    asp: str
    probe_phase: float
    """When the rounds of probes are, of this engine alone (s, below PROBE_STEP)."""

    @property
    def wall_clock(self) -> float:
        """Time of day when the present message was received (s since 1970), for the validity of certificates."""

    def random(self, octets: int) -> bytes: ...

    def send(self, path: NetworkPath, data: bytes) -> None:
        """Send a message to the peer, without the non-ESP marker, which the data engine adds."""

    def send_to_dataplane(self, message: FromIke) -> None:
        """Send a message about an SA (`SaInstall`, `SaDelete`, ...) to the data engine."""

    def log(
        self, id: str, values: Mapping[str, Any], session: Session | None, path: NetworkPath, now: float
    ) -> None:
        """Log a text of the guide's tables 5 and 6, by its id in `log.TEMPLATES`."""

    def log_own(
        self, kind: str, severity: str, text: str, session: Session | None, path: NetworkPath, now: float
    ) -> None:
        """Log a text of our own, without keys. `severity` is debug, info, warning or error.

        The rate is limited for each `kind`: a fixed word, with no part that comes from the peer.
        """

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter. A name means the same in both versions.

        `negotiations initiated` and `negotiations responded` count IKE SAs by who sent the first message, `IKE SAs
        established` those whose peer is authenticated, `IKE SAs rekeyed` those that a successor replaced.
        `retransmissions` are messages sent again by a timer, `responses resent` replies to repeated messages.
        CHILD SAs count when they are installed.
        """

    def group(self, context: int, local: int, remote: int, version: int) -> ConnectionGroup | None:
        """Return the connections between two addresses; None if there are none."""

    def on_demand(self, context: int, local: int, version: int) -> OnDemandGroup | None:
        """Return the on-demand tunnels of a local address; None if there are none."""

    def ask_key(self, session: Session, candidate: Connection) -> int:
        """Ask the controller for the key of the peer that `candidate` expects; return the number of the question.

        The answer comes to `session.on_peer_answer`. 0: too many of these questions are open.
        """

    def ask_admission(self, session: Session, candidate: Connection, after: int, *, wants_address: bool) -> int:
        """Ask the controller for the instance of an authenticated peer, as `ask_key`.

        `after` is the number of the question about its key, 0 for none. `wants_address`: the peer asks for an
        inner address (RFC 7296 2.19).
        """

    def is_asking(self, session: Session) -> bool:
        """Return whether a question of the session is open."""

    def instance(self, tunnel: int) -> Connection | None:
        """Return the connection of an instance; None if there is none of this number."""

    def admit(self, tunnel: int, peer: Peer) -> Connection:
        """Return the connection of an instance, which is this peer's from now on. Its IKE SA is established
        next."""

    def new_ike_spi(self) -> bytes:
        """Return a new SPI of eight octets, not zero and not in use."""

    def allocate_spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        """Allocate an inbound SPI for each protocol: four octets for AH and ESP, two for IPComp (a CPI)."""

    def release_spis(self, spis: Mapping[int, bytes]) -> None:
        """Release inbound SPIs of a failed negotiation or a deleted SA."""

    def new_serial(self, tunnel: int) -> int:
        """Return a number for a CHILD SA of a tunnel, never used before by this process."""

    def register_session(self, session: Session) -> None:
        """Add the successor that a session made (a rekeyed IKE SA), so that messages find it.

        Call it again when the successor is established and has taken over the CHILD SAs, after
        `on_child_installed` for each. Also call it after another session has changed it.
        """

    def sibling_sessions(self, session: Session) -> Sequence[Session]:
        """Return other sessions of the connection that are established or orphaned, oldest first.

        With IKEv1 CHILD SAs outlive their ISAKMP SA and move to the established one.
        """

    def reschedule(self, session: Session) -> None:
        """Update the timer of a session that another one has changed; remove it if it is closed."""

    def on_established(self, session: Session, now: float) -> None:
        """Report that the IKE SA is established; `session.connection` is set."""

    def on_child_installed(self, session: Session, child: ChildSa, now: float) -> None:
        """Report a CHILD SA, after its `SaInstall` was sent or after `session` took it over."""

    def on_child_removed(self, session: Session, child: ChildSa, reason: str, now: float) -> None:
        """Report that a CHILD SA was deleted, after its `SaDelete` was sent."""

    def on_failed(
        self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None = None
    ) -> None:
        """Report that the negotiation of the IKE SA failed, or with `entry` that of its CHILD SA."""

    def on_closed(self, session: Session, reason: str, now: float) -> None:
        """Report that the session is closed, after `on_child_removed` for its CHILD SAs, or orphaned."""

    def may_send_initial_contact(self, connection: Connection) -> bool:
        """Return whether to send INITIAL-CONTACT: once after a start for two identities (RFC 7296 2.4)."""

    def on_initial_contact(self, session: Session, now: float) -> None:
        """Close the other IKE SAs with the peer, which sent an authenticated INITIAL-CONTACT in `session`."""


class IkeReports(Protocol):
    """What the manager of IKE SAs reports to the connection manager."""

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

    def on_admitted(self, connection: Connection) -> None:
        """The instance of `connection` has an authenticated peer, whose IKE SA will be established next."""

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
    raise ValueError(f"{value!r} is not a duration; expected 500ms or 10s")


def read_settings(given: Mapping[str, Any]) -> tuple[IkeSettings, list[str]]:
    """Return the settings and the errors in them. A wrong value leaves the default."""
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
            problems.append(f"setting {name}: {value!r} is out of range; expected a whole number from 1")
    for name, attribute in _PARTS.items():
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
            values[attribute] = float(value)
        elif value is not None:
            problems.append(
                f"setting {name}: {value!r} is out of range; expected a number from 0 up to, but not including, 1"
            )
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
        problems.append(f"setting strict-lifetime: {strict!r} is not valid; expected true or false")
    return IkeSettings(**values), problems
