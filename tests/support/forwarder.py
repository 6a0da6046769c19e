"""Records of a router with two line cards and a tunnel, for the forwarder."""

from __future__ import annotations

from chassis.bus.records import InterfaceRecord, LocalAddressRecord, NextHop, PortRecord, Record, RouteRecord
from chassis.net.address import parse_address as ip
from tests.support.linecard import tunnel

TUNNEL = tunnel(7, "asp 1/1", economical=True)


RECORDS: tuple[Record, ...] = (
    PortRecord(port="3/1", card="lc 3", enabled=True, context=1, interface="lan", address=ip("10.0.0.1"),
        prefix_length=8, mac=b"\2\0\0\0\3\1"),
    PortRecord(port="4/1", card="lc 4", enabled=True, context=1, interface="lan2", address=ip("11.0.0.1"),
        prefix_length=8, mac=b"\2\0\0\0\4\1"),
    InterfaceRecord(context=1, name="lan", kind="numbered", address=ip("10.0.0.1"), prefix_length=8, port="3/1"),
    InterfaceRecord(context=1, name="lan2", kind="numbered", address=ip("11.0.0.1"), prefix_length=8, port="4/1"),
    InterfaceRecord(context=1, name="loop", kind="loopback", address=ip("9.9.9.9"), prefix_length=32),
    LocalAddressRecord(1, ip("10.0.0.1")),
    LocalAddressRecord(1, ip("5.5.5.5"), "asp 1/1"),
    RouteRecord(1, ip("10.0.0.0"), 8, (NextHop("port", 0, "lc 3", "3/1"),)),
    RouteRecord(1, ip("11.0.0.0"), 8, (NextHop("port", 0, "lc 4", "4/1"),)),
    RouteRecord(1, ip("30.0.0.0"), 8, (NextHop("tunnel", 0, "asp 1/2", tunnel=7),)),
    TUNNEL,
)  # fmt: skip
