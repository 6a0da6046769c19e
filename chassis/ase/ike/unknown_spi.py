"""INVALID_SPI: the notification about packets with an SPI that nobody has.

It is sent outside of an IKE SA, in one message that is never answered (RFC 7296 1.5, RFC 2408 3.14.1), and only to
a configured peer that has no IKE SA here, as after an ASP's end. It is not authenticated, so the peer takes it for
a hint: it asks with dead peer detection sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import INITIATOR, VERSION_1, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v1 import MessageV1, NotifyV1
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import NotifyV2
from chassis.ase.ike_messages import UnknownSpi

ANSWER_INTERVAL: Final = 1.0
"""Shortest time (s) between two of these messages to one peer."""

MAX_ANSWERED: Final = 1_000
"""Peers of which the last answer is remembered (count)."""

NO_SPI: Final = bytes(8)


def invalid_spi_v1(cookie: bytes, message_id: bytes, protocol: int, spi: bytes) -> bytes:
    """Return the message of IKEv1. `cookie` is 8 random octets, `message_id` 4; `protocol` is IKE's number."""
    number = int.from_bytes(message_id, "big") or 1
    header = Header(cookie, NO_SPI, 0, VERSION_1, ExchangeType.INFORMATIONAL_V1, 0, number, 0)
    return MessageV1(header, (NotifyV1(NotifyTypeV1.INVALID_SPI, protocol, spi),)).emit()


def invalid_spi_v2(random_spi: bytes, spi: bytes) -> bytes:
    """Return the message of IKEv2. `random_spi` is 8 random octets: RFC 7296 1.5 allows any."""
    header = Header(random_spi, NO_SPI, 0, VERSION_2, ExchangeType.INFORMATIONAL, INITIATOR, 0, 0)
    return MessageV2(header, (NotifyV2(NotifyTypeV2.INVALID_SPI, spi),)).emit()


def read_invalid_spi(data: bytes, header: Header) -> bytes:
    """Return the SPI that a message in clear of either version says nobody has; empty if it says no such thing."""
    payloads: Sequence[object]
    try:
        if header.major == 1:
            if header.exchange != ExchangeType.INFORMATIONAL_V1 or header.encrypted:
                return b""
            payloads = MessageV1.parse(data).payloads
        else:
            if header.exchange != ExchangeType.INFORMATIONAL or header.is_response:
                return b""
            payloads = MessageV2.parse(data).payloads
    except PayloadError:
        return b""
    for one in payloads:
        if isinstance(one, NotifyV1) and one.notify == NotifyTypeV1.INVALID_SPI:
            return one.spi if len(one.spi) == 4 else one.data[:4]
        if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.INVALID_SPI:
            return one.data[:4]
    return b""


class UnknownSpis:
    """Tells peers of SPIs that nobody has here."""

    def __init__(self, manager: IkeSaManager) -> None:
        self._manager = manager
        self._answered: dict[tuple[int, int], float] = {}

    def answer(self, message: UnknownSpi, now: float) -> None:
        """Tell the sender of a packet, if it is a configured peer without an IKE SA."""
        manager, peer = self._manager, (message.context, message.remote)
        path = NetworkPath(message.context, message.local, message.local_port, message.remote, message.remote_port)
        if now < self._answered.get(peer, now):
            return
        version = self._version(path)
        if not version or self._has_session(path):
            return
        if len(self._answered) >= MAX_ANSWERED:
            self._answered.clear()
        self._answered[peer] = now + ANSWER_INTERVAL
        spi = message.spi.to_bytes(4, "big")
        if version == 1:
            data = invalid_spi_v1(manager.random(8), manager.random(4), message.protocol, spi)
        else:
            data = invalid_spi_v2(manager.random(8), spi)
        manager.count("unknown SPIs answered")
        manager.send(path, data)

    def _version(self, path: NetworkPath) -> int:
        """Return the version of IKE that a peer speaks by the configuration; 0 for a stranger."""
        manager = self._manager
        for version in (2, 1):
            if manager.group(path.context, path.local, path.remote, version) is not None:
                return version
        for version in (2, 1):
            if manager.on_demand(path.context, path.local, version) is not None:
                return version
        return 0

    def _has_session(self, path: NetworkPath) -> bool:
        """Return whether an IKE SA with a peer is there: then the packet is a late one of an SA that ended."""
        sessions = self._manager.table.by_spi.values()
        return any(
            one.established and (one.path.context, one.path.remote) == (path.context, path.remote)
            for one in sessions
        )
