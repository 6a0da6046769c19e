"""Lifetimes of IPsec SAs: the shorter of both ends holds, RESPONDER-LIFETIME says so (RFC 2407 4.5.4, S-034)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.ase.ike.child_proposals import LIFE_DURATION, LIFE_TYPE, ChildChoiceV1
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import NotifyV1, PayloadV1
from chassis.ase.ike.payloads.v1_sa import AttributeV1
from chassis.ase.ike.proposals import seconds

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

SECONDS = 1
KBYTES = 2
MIN_LIFETIME = 20
"""Seconds: no peer may have us negotiate more often than that."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """`kbytes` 0 is no limit."""

    seconds: int
    kbytes: int


def responder_lifetime_notify(unit: int, value: int, protocol: int, spi: bytes) -> NotifyV1:
    """RESPONDER-LIFETIME for one unit (RFC 2407 4.6.3.1)."""
    data = AttributeV1(LIFE_TYPE, unit).emit() + AttributeV1(LIFE_DURATION, seconds(value)).emit()
    return NotifyV1(NotifyTypeV1.RESPONDER_LIFETIME, protocol, spi, data)


def lifetimes_in(data: bytes) -> list[tuple[int, int]]:
    """(unit, value) of each duration in a RESPONDER-LIFETIME; what is no attribute ends the list."""
    found: list[tuple[int, int]] = []
    unit = at = 0
    while at + 4 <= len(data):
        kind, value = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        if not kind & 0x8000:
            octets, at = data[at : at + value], at + value
            value = int.from_bytes(octets, "big")
        if kind & 0x7FFF == LIFE_TYPE:
            unit = value
        elif kind & 0x7FFF == LIFE_DURATION:
            found.append((unit, value))
    return found


def responder_lifetime(found: ChildChoiceV1, spis: Mapping[int, bytes]) -> tuple[Lifetime, tuple[NotifyV1, ...]]:
    """What holds, and what the initiator has to be told because it offered more."""
    suite = found.suite
    protocol = suite.protocols[0]
    notifies: list[NotifyV1] = []
    whole, kbytes = suite.seconds, suite.kbytes or 0
    if found.peer_seconds is None or found.peer_seconds > whole:
        notifies.append(responder_lifetime_notify(SECONDS, whole, protocol, spis[protocol]))
    else:
        whole = max(found.peer_seconds, MIN_LIFETIME)
    if kbytes and (not found.peer_kbytes or found.peer_kbytes > kbytes):
        notifies.append(responder_lifetime_notify(KBYTES, kbytes, protocol, spis[protocol]))
    elif found.peer_kbytes:
        kbytes = found.peer_kbytes
    return Lifetime(whole, kbytes), tuple(notifies)


def initiator_lifetime(
    session: SessionV1, found: ChildChoiceV1, payloads: Sequence[PayloadV1], now: float
) -> Lifetime:
    """What holds, after what the responder says of its own limits."""
    suite = found.suite
    whole, kbytes = suite.seconds, suite.kbytes or 0
    for one in payloads:
        if not isinstance(one, NotifyV1) or one.notify != NotifyTypeV1.RESPONDER_LIFETIME:
            continue
        for unit, value in lifetimes_in(one.data):
            if unit == SECONDS and value:
                name = "seconds"
                whole = min(whole, max(value, MIN_LIFETIME))
            elif unit == KBYTES and value:
                name = "kbytes"
                kbytes = min(kbytes, value) if kbytes else value
            else:
                continue
            session.log(f"ikev1-p2-responder-lifetime-{name}-notify", {"notify": "RESPONDER_LIFETIME"}, now)
            session.log(f"ikev1-p2-responder-lifetime-{name}", {"notify": "RESPOND_NOTIFY", "value": value}, now)
    return Lifetime(whole, kbytes)
