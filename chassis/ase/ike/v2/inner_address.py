"""The inner address of a peer: asked for and assigned by Configuration payloads (RFC 7296 2.19, 3.15).

Only on-demand tunnels whose policy says `address-allocation aaa` assign one (guide 6.4.1). There a peer must ask
for it: its CHILD SAs are for that address alone, and without one it gets none.
"""

from __future__ import annotations

from chassis.ase.ike.connections import Connection
from chassis.ase.ike.errors import error_v2
from chassis.ase.ike.payloads.numbers import ConfigAttributeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import CFG_REPLY, CFG_REQUEST, ConfigAttribute, ConfigPayload
from chassis.bus.messages import PeerAnswer


def asks_for_address(payloads: tuple[PayloadV2, ...]) -> bool:
    """Return whether a request asks for an IPv4 address. What address the peer would like does not count."""
    return any(
        isinstance(one, ConfigPayload)
        and one.kind == CFG_REQUEST
        and any(attribute.type == ConfigAttributeType.INTERNAL_IP4_ADDRESS for attribute in one.attributes)
        for one in payloads
    )


def config_reply(answer: PeerAnswer) -> tuple[ConfigPayload, ...]:
    """Return the reply with the address that the controller assigned; nothing if it assigned none."""
    if not answer.address:
        return ()
    kind = ConfigAttributeType
    values = [(kind.INTERNAL_IP4_ADDRESS, answer.address)]
    if answer.netmask:
        values.append((kind.INTERNAL_IP4_NETMASK, answer.netmask))
    values += [(kind.INTERNAL_IP4_DNS, server) for server in answer.dns]
    return (
        ConfigPayload(CFG_REPLY, tuple(ConfigAttribute(one, value.to_bytes(4, "big")) for one, value in values)),
    )


def check_address(connection: Connection, *, asked: bool) -> None:
    """Check that the peer of an instance has the inner address without which it gets no CHILD SA.

    The IKE SA stays: neither notification is fatal to it (RFC 7296 2.19, 3.10.1).

    Raises:
        NegotiationError: it asked for one and got none, or did not ask.
    """
    if not connection.lacks_address:
        return
    if asked:
        text = f"no inner address was assigned to {connection.expected}"
        raise error_v2(NotifyTypeV2.INTERNAL_ADDRESS_FAILURE, text)
    text = f"{connection.expected} did not ask for an inner address, which its IKE policy assigns"
    raise error_v2(NotifyTypeV2.FAILED_CP_REQUIRED, text)
