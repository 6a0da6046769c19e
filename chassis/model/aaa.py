"""RADIUS servers and address pools of a context (guide 7, 9.3).

A RADIUS server answers questions about peers (RFC 2865) or takes accounting records (RFC 2866).
`chassis.aaa.settings` collects what a context says of AAA for the engine that asks the servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from chassis.model.ipsec import Key
from chassis.model.source import line_field

AUTHENTICATION_PORT, ACCOUNTING_PORT = 1812, 1813
"""UDP ports of servers (RFC 2865 3, RFC 2866 3)."""

OLD_AUTHENTICATION_PORT, OLD_ACCOUNTING_PORT = 1645, 1646
"""The ports that `oldports` means."""

MOST_SERVERS, MOST_POOLS = 8, 64
"""Servers of a kind, and pools, in a context."""


@dataclass(frozen=True, slots=True)
class RadiusServer:
    """`radius server` or `radius accounting server`: address, shared secret, port.

    `port` None: the standard one of its kind, or with `oldports` the one before RFC 2865. `signature` "optional":
    accepts without Message-Authenticator are taken too (RFC 3579 3.2); accounting replies never need one.
    """

    address: str
    key: Key
    port: int | None = None
    oldports: str | None = None
    signature: str | None = None
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class IpPool:
    """`ip pool NAME PREFIX`: addresses that Framed-Pool of an answer names."""

    name: str
    prefix: str
    line: int = line_field()
