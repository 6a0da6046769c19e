"""An IKE SA of version 2 as `show` and `--json` have it: never a key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.v2.child_sa import ChildSaV2
from chassis.net.address import format_address

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


def _time(at: float) -> float | None:
    return None if math.isinf(at) else at


def describe(session: SessionV2) -> dict[str, Any]:
    """Times are of the monotonic clock."""
    path, ring = session.path, session.keyring
    algorithms: dict[str, Any] = {}
    if ring is not None:
        choice = ring.choice
        algorithms = {
            "cipher": choice.cipher.name,
            "integrity": None if choice.integrity is None else choice.integrity.name,
            "prf": choice.prf.name,
            "group": choice.group,
        }
    return {
        "version": 2,
        "state": session.sa.state.value,
        "initiator": session.initiator,
        "spi_i": session.spi_i.hex(),
        "spi_r": session.spi_r.hex(),
        "tunnel": session.tunnel,
        "local": format_address(path.local),
        "local_port": path.local_port,
        "remote": format_address(path.remote),
        "remote_port": path.remote_port,
        "identity": str(session.connection.identity) if session.connection is not None else "",
        "peer_identity": "" if session.peer_identity is None else str(session.peer_identity),
        "nat_here": session.nat.here,
        "nat_there": session.nat.there,
        "fragmentation": session.fragmenting,
        "algorithms": algorithms,
        "since": session.born,
        "rekey": _time(session.soft),
        "expires": _time(session.hard),
        "children": [_child(child) for child in session.children.by_serial.values()],
    }


def _child(child: ChildSaV2) -> dict[str, Any]:
    suite = child.suite
    return {
        "serial": child.serial,
        "entry": child.line.seq,
        "state": child.state.value,
        "initiator": child.initiator,
        "ah": suite.ah,
        "cipher": suite.cipher,
        "integrity": suite.esp_integrity,
        "esn": suite.esn,
        "group": suite.group,
        "ipcomp": child.cpi_out != 0,
        "inbound": {Protocol(number).name: spi.hex() for number, spi in child.inbound.items()},
        "outbound": {Protocol(number).name: spi.hex() for number, spi in child.outbound.items()},
        "since": child.born,
        "rekey": _time(child.soft),
        "expires": _time(child.hard),
    }
