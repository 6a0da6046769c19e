"""The IKE engine of an ASP: both versions on one UDP port, and every configured tunnel kept up.

Inputs are messages of the data engine, with datagrams among them; outputs are messages for it
(`chassis.ase.ike_messages`). Time and randomness are arguments. Each IKE SA is a session (`chassis.ase.ike.v1`,
`.v2`), written against `chassis.ase.ike.host`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final, cast

from chassis.ase.entry_numbers import describe_entry
from chassis.ase.ike.connection_manager import ConnectionManager, Initiate
from chassis.ase.ike.connection_state import ConnectionState
from chassis.ase.ike.connections import Connections
from chassis.ase.ike.host import IkeSettings, NetworkPath, Session, read_settings
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.parking import Parking
from chassis.ase.ike.receiver import IkeReceiver, Respond
from chassis.ase.ike.unknown_spi import UnknownSpis
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.ike_messages import (
    Acquire,
    Configure,
    FromIke,
    IkeHeartbeat,
    IkePacket,
    IkeReply,
    IkeRequest,
    NatMappingChanged,
    PeerAlive,
    PeerUsesSa,
    SaExpire,
    SaUpdateAddress,
    ToIke,
    UdpEncapsulation,
    UnknownSpi,
)
from chassis.bus.arguments import fault
from chassis.bus.messages import Attributes, PeerAnswer

IKE_HEARTBEAT_INTERVAL = 1.0
"""Time (s) between two heartbeats."""

INITIATE: Final[Mapping[int, Initiate]] = {1: SessionV1.initiate, 2: SessionV2.initiate}
RESPOND: Final[Mapping[int, Respond]] = {1: SessionV1.respond, 2: SessionV2.respond}
"""What makes a session, by IKE version."""

NOWHERE: Final = NetworkPath(0, 0, 0, 0, 0)
"""The path in log lines that concern no peer."""


class IkeRequestError(Exception):
    """A command cannot be carried out. The text goes to the operator."""


class IkeEngine:
    """All IKE of one ASP."""

    def __init__(
        self,
        asp: str,
        *,
        random: Callable[[int], bytes],
        settings: IkeSettings | None = None,
    ) -> None:
        """`random(n)` returns n unpredictable octets."""
        self.asp = asp
        self._connections = Connections()
        self.ike_sa_manager = IkeSaManager(asp, random, settings or IkeSettings(), self._connections)
        self.connection_manager = ConnectionManager(self.ike_sa_manager, INITIATE)
        self.ike_sa_manager.reports = self.connection_manager
        self._receiver = IkeReceiver(self.ike_sa_manager, RESPOND, random, self.connection_manager.on_invalid_spi)
        self._unknown_spis = UnknownSpis(self.ike_sa_manager)
        self.parking = Parking(self._connections, self.ike_sa_manager, self.connection_manager)
        self._parts: list[Configure] = []
        """Messages of a change whose last message has not been received yet."""
        self._alive_at = -inf

    # the process's calls

    def start(self, now: float) -> list[FromIke]:
        self._send_heartbeat(now)
        return self.ike_sa_manager.flush()

    def receive(self, message: ToIke, now: float, wall: float) -> list[FromIke]:
        """Handle a message of the data engine and return the messages for it.

        `now` (s) is monotonic. `wall` (s since 1970) may jump; certificates are checked against it.
        """
        self.ike_sa_manager.set_time(now, wall)
        if isinstance(message, IkePacket):
            self._receiver.receive(message, now)
        elif isinstance(message, Configure):
            self._configure(message, now)
        elif isinstance(message, SaExpire | PeerUsesSa | NatMappingChanged):
            session = self.ike_sa_manager.table.child_owner.get((message.tunnel, message.serial))
            if session is None or session.closed:
                pass
            elif isinstance(message, SaExpire):
                self.ike_sa_manager.run(
                    session, session.on_child_expiring, message.serial, message.hard, message.reason, now
                )
            elif isinstance(message, PeerUsesSa):
                self.ike_sa_manager.run(session, session.on_peer_uses_sa, message.serial, now)
            else:
                self._follow_peer(session, message)
        elif isinstance(message, PeerAlive):
            for tunnel in message.tunnels:
                self.connection_manager.on_peer_alive(tunnel, now)
        elif isinstance(message, UnknownSpi):
            self._unknown_spis.answer(message, now)
        elif isinstance(message, PeerAnswer):
            session = self.ike_sa_manager.questions.close(message.number)
            if session is not None:
                self.ike_sa_manager.run(session, session.on_peer_answer, message, now)
        elif isinstance(message, Acquire):
            self.connection_manager.on_acquire(message.tunnel, message.entry, now)
        elif isinstance(message, IkeRequest):
            try:
                self.ike_sa_manager.output(
                    IkeReply(message.number, _run_command(self, message.name, message.arguments, now))
                )
            except IkeRequestError as error:
                self.ike_sa_manager.output(IkeReply(message.number, {}, str(error)))
            except Exception as error:
                # A fault of this program: reply with it, and keep the tunnels of this ASP up.
                text = f"{message.name}: {fault(error)}"
                self.ike_sa_manager.log_own("fault", "error", text, None, NOWHERE, now)
                self.ike_sa_manager.output(IkeReply(message.number, {}, text))
        return self.ike_sa_manager.flush()

    def on_message_dropped(self, text: str, number: int, now: float) -> list[FromIke]:
        """Log a dropped message to or from the data engine. `number` is that of its command, 0 for none."""
        text = f"A message between {self.asp} and its IKE was dropped: {text}"
        self.ike_sa_manager.log_own("message dropped", "error", text, None, NOWHERE, now)
        if number:
            self.ike_sa_manager.output(IkeReply(number, {}, text))
        return self.ike_sa_manager.flush()

    def on_timer(self, now: float) -> list[FromIke]:
        self.ike_sa_manager.set_time(now)
        self.ike_sa_manager.run_due(now)
        self.connection_manager.on_timer(now)
        if now >= self._alive_at:
            self._send_heartbeat(now)
        return self.ike_sa_manager.flush()

    def next_timer(self) -> float:
        return min(self.ike_sa_manager.table.next_timer(), self.connection_manager.next_timer(), self._alive_at)

    # inside

    def _configure(self, message: Configure, now: float) -> None:
        if message.settings:
            self.ike_sa_manager.settings, problems = read_settings(message.settings)
            for problem in problems:
                self.ike_sa_manager.log_own("configuration", "error", problem, None, NOWHERE, now)
        self._parts.append(message)
        if message.more:
            return
        parts, self._parts = self._parts, []
        # Apply all parts together: a full change deletes what none of its parts names.
        put = [record for part in parts for record in part.put]
        delete = [key for part in parts for key in part.delete]
        changes = self._connections.apply(put, delete, any(part.full for part in parts))
        for problem in self._connections.problems:
            self.ike_sa_manager.log_own("configuration", "error", problem, None, NOWHERE, now)
        self._connections.problems.clear()
        for tunnel, (before, after) in changes.items():
            self.connection_manager.configure(tunnel, before, after, now)

    def _follow_peer(self, session: Session, message: NatMappingChanged) -> None:
        """Send to a new address or port of the peer, for IKE and all CHILD SAs of the session (RFC 7296 2.23)."""
        if not session.path.on_nat_port:
            return
        session.path = replace(session.path, remote=message.remote, remote_port=message.remote_port)
        way = UdpEncapsulation(session.path.local_port, message.remote, message.remote_port)
        for serial in self.connection_manager.by_tunnel[message.tunnel].child_sas:
            if self.ike_sa_manager.table.child_owner.get((message.tunnel, serial)) is session:
                self.ike_sa_manager.output(SaUpdateAddress(message.tunnel, serial, way))

    def _send_heartbeat(self, now: float) -> None:
        late = max(now - self._alive_at, 0.0) if self._alive_at > -inf else 0.0
        self._alive_at = now + IKE_HEARTBEAT_INTERVAL
        self.ike_sa_manager.output(IkeHeartbeat(late, dict(self.ike_sa_manager.statistics.total)))


def _run_command(ike: IkeEngine, name: str, arguments: Attributes, now: float) -> Attributes:
    """Carry out a command. `tunnel` in the arguments is a number; without it all tunnels are meant.

    Raises:
        IkeRequestError: there is no such command or tunnel.
    """
    tunnels = _tunnels(ike, arguments)
    if name == "clear":
        clear = {"ike": ike.connection_manager.clear_ike, "ipsec": ike.connection_manager.clear_child_sas}
        for tunnel in tunnels:
            clear.get(str(arguments.get("what")), ike.connection_manager.clear)(tunnel, now)
        return {"cleared": len(tunnels)}
    if name == "rekey":
        whole = arguments.get("what") == "ike"
        return {"begun": sum(ike.connection_manager.rekey(tunnel, whole, now) for tunnel in tunnels)}
    if name == "sas":
        rows = [_describe(ike, ike.connection_manager.by_tunnel[tunnel]) for tunnel in tunnels]
        return cast("Attributes", {"tunnels": rows})
    if name == "total":
        versions = [session.version for session in ike.ike_sa_manager.table.by_spi.values() if session.established]
        return cast(
            "Attributes",
            {
                "total": dict(ike.ike_sa_manager.statistics.total),
                "ike_sas": {f"v{version}": versions.count(version) for version in (1, 2)},
            },
        )
    if name == "statistics":
        counts = {str(tunnel): ike.ike_sa_manager.statistics.tunnels.get(tunnel, {}) for tunnel in tunnels}
        return cast("Attributes", {"total": dict(ike.ike_sa_manager.statistics.total), "tunnels": counts})
    if name == "keys":
        secrets = [
            row
            for tunnel in tunnels
            for session in ike.connection_manager.by_tunnel[tunnel].sessions()
            for row in session.secrets()
        ]
        return cast("Attributes", {"keys": secrets})
    raise IkeRequestError(f"IKE does not know {name!r}")


def _tunnels(ike: IkeEngine, arguments: Attributes) -> list[int]:
    wanted = arguments.get("tunnel")
    if wanted is None:
        return sorted(ike.connection_manager.by_tunnel)
    if not isinstance(wanted, int) or wanted not in ike.connection_manager.by_tunnel:
        raise IkeRequestError(f"no negotiated tunnel {wanted!r} is on {ike.asp}")
    return [wanted]


def _describe(ike: IkeEngine, state: ConnectionState) -> dict[str, Any]:
    return {
        "tunnel": state.connection.tunnel,
        "name": state.connection.name,
        "up": state.all_entries_up,
        "reason": ike.connection_manager.reason(state),
        "failures": state.failures,
        "missing": [
            {**describe_entry(entry.number), "reason": state.failures_of(entry).reason}
            for entry in state.missing_entries
        ],
        "ike": [session.describe() for session in state.sessions()],
    }
