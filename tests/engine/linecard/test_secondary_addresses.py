"""Further addresses of an interface, from the configuration to the wire: all of them are the router's own."""

from __future__ import annotations

from chassis.bus.records import CardStateRecord, ContextRecord, NextHop, PortRecord
from chassis.config.parser import parse
from chassis.net.address import BROADCAST_MAC, ZERO_MAC
from chassis.net.address import parse_address as ip
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.xcrp import record_builder
from chassis.xcrp.id_allocator import IdAllocator
from chassis.xcrp.planner import make_plan
from tests.support.linecard import GATEWAY, HOST, MAC, RECORDS, Rig, packet, route

CONFIG = """\
card ether-12-port 3
context vpn
 interface x
  ip address 10.0.0.1/24
  ip address 10.7.0.1/16 secondary
  ip address 10.8.0.1/24 secondary
port ethernet 3/1
 no shutdown
 bind interface x vpn
"""


def rig() -> Rig:
    parsed = parse(CONFIG)
    change = make_plan(parsed.config, IdAllocator({}, 1), "a")
    context = change.plan.contexts["vpn"]
    made = [
        record
        for _, record in record_builder.fixed(change, discard=False, esn=False)
        if record is not None and not isinstance(record, ContextRecord)
    ]
    MAC["3/1"] = next(record.mac for record in made if isinstance(record, PortRecord))
    cards = [record for record in RECORDS if isinstance(record, CardStateRecord)]
    connected = [
        route(context, prefix, NextHop("port", 0, "lc 3", "3/1")) for prefix in ("10.0.0.0/24", "10.7.0.0/16")
    ]
    far = route(context, "30.0.0.0/8", NextHop("port", 0, "lc 3", "3/1", ip("10.7.9.9")))
    return Rig([*cards, ContextRecord(context, "vpn"), *made, *connected, far])


def test_each_address_is_announced_and_answered_for() -> None:
    mac = MAC["3/1"]
    try:
        card = rig()
        own = MAC["3/1"]
        card.do(card.card.on_carrier("3/1", False, card.now))
        card.do(card.card.on_carrier("3/1", True, card.now))
        assert [arp.sender_address for _, _, arp in card.arps()] == [
            ip("10.0.0.1"), ip("10.7.0.1"), ip("10.8.0.1"),
        ]  # fmt: skip
        card.arp("3/1", REQUEST, "10.7.0.5", HOST, "10.7.0.1")
        assert card.arps() == [("3/1", HOST, Arp(REPLY, own, ip("10.7.0.1"), HOST, ip("10.7.0.5")))]
        # A neighbour of the second network is asked for from the address in it.
        card.frames("3/1", packet("30.0.0.1", source="10.0.0.5"))
        assert card.arps() == [("3/1", BROADCAST_MAC, Arp(REQUEST, own, ip("10.7.0.1"), ZERO_MAC, ip("10.7.9.9")))]
        card.arp("3/1", REPLY, "10.7.9.9", GATEWAY, "10.7.0.1", target_mac=own)
        assert len(card.sent("3/1")) == 1
        # Whoever claims one of our addresses is not believed.
        card.arp("3/1", REQUEST, "10.8.0.1", HOST, "10.7.0.1")
        assert card.arps() == []
    finally:
        MAC["3/1"] = mac
