"""Tunnels at rest, in a few hundred octets each, and back.

A tunnel is at rest while it is up and nothing is to be done about it: no message waits for its answer, no attempt
and no timer of the connection manager is due. `Parking.park` packs its state and takes it out of all tables of the
engine, its records too. Whoever has the packed form must put it back before the engine gets anything that is about
the tunnel: a datagram for its addresses, a command, a message of the data engine; and at its next timer at the
latest. From then on everything is as if it had never been parked.
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
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.v1.parked_sa import pack_v1, unpack_v1
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.parked_sa import pack_v2, unpack_v2
from chassis.ase.ike.v2.session import SessionV2
from chassis.bus.records import Key, Record

Unpack = Callable[[IkeHost, Connection, Sequence[Any]], Session]

_UNPACK: Final[Mapping[int, Unpack]] = {1: unpack_v1, 2: unpack_v2}


@dataclass(frozen=True, slots=True)
class ParkedTunnel:
    """A tunnel at rest: when its next timer is due (s), and its packed state, with keys in it."""

    due: float
    data: bytes = field(repr=False)


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
        if isinstance(session, SessionV1):
            values = pack_v1(session)
        elif isinstance(session, SessionV2):
            values = pack_v2(session)
        if values is None or session is None:
            return None
        for serial in state.child_sas:
            if table.child_owner.get((tunnel, serial)) is not session:
                return None
        due = session.next_timer()
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
        return ParkedTunnel(due, packed)

    def put_back(self, tunnel: int, parked: ParkedTunnel, records: Iterable[Record]) -> None:
        """Put a tunnel back, of which `records` are those that `park` took out."""
        self._connections.apply(records, ())
        connection, table = self._connections.by_tunnel[tunnel], self._manager.table
        version, values, place, remembered, outbound, rest = msgpack.unpackb(parked.data, use_list=False)
        session = _UNPACK[version](self._manager, connection, values)
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
