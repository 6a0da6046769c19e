"""What `show` and `--json` say of a session of version 1; never a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chassis.ase.ike.payloads.numbers import ExchangeType

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1


def describe_session(session: SessionV1) -> dict[str, Any]:
    """`ends` and the times of children are of the engine's clock, `lifetime` is in seconds."""
    handshake, connection = session.handshake, session.connection
    chosen = handshake.choice
    result: dict[str, Any] = {
        "version": 1,
        "mode": "aggressive" if handshake.mode == ExchangeType.AGGRESSIVE_MODE else "main",
        "state": session.state.value,
        "initiator": session.initiator,
        "cookie_i": handshake.cky_i.hex(),
        "cookie_r": handshake.cky_r.hex(),
        "nat": {"local": handshake.behind_nat, "remote": handshake.peer_behind_nat},
        "dpd": session.detector is not None,
    }
    if connection is not None:
        result["tunnel"] = connection.name
        result["identity_local"] = str(connection.identity)
    if session.identity is not None:
        result["identity_remote"] = str(session.identity)
    if chosen is not None:
        proposal = chosen.proposal
        result["algorithms"] = {
            "cipher": proposal.encryption_algorithm,
            "integrity": proposal.authentication_algorithm,
            "group": proposal.dh_group,
            "authentication": proposal.authentication,
        }
    if session.established and chosen is not None:
        result["lifetime"] = chosen.lifetime
        result["ends"] = session.hard
    if session.established or session.orphaned:
        result["children"] = session.pairs.describe()
    return result
