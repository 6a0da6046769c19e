"""Tunnels at rest, in a few hundred octets each, and back.

A tunnel is at rest while it is up and nothing is to be done about it: no message waits for its answer, no attempt
and no timer of the connection manager is due. `Parking.park` packs its state and takes it out of all tables of the
engine, its records too. Whoever has the packed form must put it back before the engine gets anything that is about
the tunnel: a datagram for its addresses, a command, a message of the data engine; and at its next timer at the
latest. From then on everything is as if it had never been parked. Only a peer that asks whether it is alive is
answered without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from chassis.ase.ike.connection_manager import ConnectionManager
from chassis.ase.ike.connection_state import ConnectionState
from chassis.ase.ike.connections import Connection, Connections
from chassis.ase.ike.host import IkeHost, Session
from chassis.ase.ike.ike_proposals import ChoiceV1, ChoiceV2
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.v1.parked_sa import answer_probe_v1, pack_v1, unpack_v1
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.parked_sa import answer_probe_v2, pack_v2, unpack_v2
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.ike_messages import IkePacket
from chassis.bus.records import Key, Record

Unpack = Callable[[IkeHost, Connection, Sequence[Any], float], Session]

_UNPACK: Final[Mapping[int, Unpack]] = {1: unpack_v1, 2: unpack_v2}

Answer = Callable[[IkeHost, Any, Sequence[Any], bytes, Sequence[int], float], tuple[bytes, Sequence[Any]] | None]

_ANSWER: Final[Mapping[int, Answer]] = {1: answer_probe_v1, 2: answer_probe_v2}


@dataclass(frozen=True, slots=True)
class ParkedTunnel:
    """A tunnel at rest: when its next timer is due (s), and its packed state, with keys in it."""

    due: float
    data: bytes = field(repr=False)
    choice: ChoiceV1 | ChoiceV2
    """What its IKE SA has chosen, which it shares with others."""


class Parking:
    """Takes tunnels at rest out of an engine, and puts them back. It has no state of its own."""

    def __init__(self, connections: Connections, manager: IkeSaManager, tunnels: ConnectionManager) -> None:
        self._connections = connections
        self._manager = manager
        self._tunnels = tunnels

    def park(self, tunnel: int, keys: Iterable[Key]) -> ParkedTunnel | None:
        """Return the packed state of a tunnel, which the engine then does not know; None if it is not at rest.

        `keys` are those of the records of this tunnel alone, its own first.
        """
        state = self._tunnels.by_tunnel.get(tunnel)
        if state is None or not self._tunnels.is_at_rest(state):
            return None
        session, connection, table = state.session, state.connection, self._manager.table
        values = None
        choice: ChoiceV1 | ChoiceV2 | None = None
        if isinstance(session, SessionV1):
            values, choice = pack_v1(session), session.phase1.choice
        elif isinstance(session, SessionV2) and session.keymat is not None:
            values, choice = pack_v2(session), session.keymat.choice
        if values is None or choice is None or session is None:
            return None
        for serial in state.child_sas:
            if table.child_owner.get((tunnel, serial)) is not session:
                return None
        due = session.rests_until() if isinstance(session, SessionV1) else session.next_timer()
        for serial in state.child_sas:
            del table.child_owner[tunnel, serial]
        packed = msgpack.packb(
            (
                session.version,
                values,
                table.take_out(session),
                self._manager.forget_tunnel(connection),
                tuple(state.current_outbound.items()),
                (state.established_at, state.failures, state.reason),
            )
        )
        del self._tunnels.by_tunnel[tunnel]
        self._connections.apply((), keys)
        return ParkedTunnel(due, packed, choice)

    def answer(self, parked: ParkedTunnel, packet: IkePacket, now: float) -> tuple[ParkedTunnel, IkePacket] | None:
        """Return the answer to a peer that asks whether a parked tunnel is alive, and the tunnel after it.

        Its timer may be due too early then: it is put back for nothing. Return None for any other message, for
        which the tunnel has to be put back first.
        """
        version, values, place, (serial, contacted, counts), *rest = msgpack.unpackb(parked.data, use_list=False)
        way = (packet.context, packet.local, packet.local_port, packet.remote, packet.remote_port)
        found = _ANSWER[version](self._manager, parked.choice, values, packet.data, way, now)
        if found is None:
            return None
        answer, values = found
        for name, number in (
            ("messages received", 1), ("octets received", len(packet.data)),
            ("messages sent", 1), ("octets sent", len(answer)),
        ):  # fmt: skip
            self._manager.statistics.count(name, version, 0, number)
            counts[name] = counts.get(name, 0) + number
        packed = msgpack.packb((version, values, place, (serial, contacted, counts), *rest))
        return ParkedTunnel(parked.due, packed, parked.choice), IkePacket(*way, answer)

    def put_back(self, tunnel: int, parked: ParkedTunnel, records: Iterable[Record], now: float) -> None:
        """Put a tunnel back, of which `records` are those that `park` took out."""
        self._connections.apply(records, ())
        connection, table = self._connections.by_tunnel[tunnel], self._manager.table
        version, values, place, remembered, outbound, rest = msgpack.unpackb(parked.data, use_list=False)
        session = _UNPACK[version](self._manager, connection, values, now)
        self._manager.remember_tunnel(connection, *remembered)
        state = ConnectionState(connection, session)
        state.child_sas = {child.serial: child for child in _children(session)}
        state.current_outbound = dict(outbound)
        state.established_at, state.failures, state.reason = rest
        for serial in state.child_sas:
            table.child_owner[tunnel, serial] = session
        self._tunnels.put_back(state)
        table.put_back(session, *place)


def _children(session: Session) -> list[Any]:
    if isinstance(session, SessionV2):
        return [session.child_report(child) for child in session.child_sas.by_serial.values()]
    return [child.child for child in session.child_sas.all] if isinstance(session, SessionV1) else []
