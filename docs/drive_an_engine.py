"""Drive an engine by hand: a line card gets its records, a neighbour and a ping, and says what is to be done.

No process, no socket, no clock: `python docs/drive_an_engine.py`.
"""

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.engine import ToWire
from chassis.bus.messages import Snapshot, Welcome
from chassis.bus.records import (
    CardStateRecord,
    ContextRecord,
    InterfaceRecord,
    LocalAddressRecord,
    NextHop,
    PortRecord,
    RouteRecord,
)
from chassis.linecard.engine import LineCardEngine
from chassis.net.address import BROADCAST_MAC, ZERO_MAC, parse_address
from chassis.net.arp import REQUEST, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header
from chassis.net.icmp import Icmp, echo_request
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4

US, PEER = parse_address("10.0.0.1"), parse_address("10.0.0.5")
OUR_MAC, PEER_MAC = b"\2\0\0\0\3\1", b"\2\0\0\0\0\5"

card, now = LineCardEngine("lc 3", pid=1, boot=1), 1.0
card.start(now)
card.on_carrier("3/1", True, now)
card.on_connected(now)
card.receive(Welcome(4, 10, 0.1, 5, {}), now)  # Epoch 4; version 10 of the state follows.
records = (
    CardStateRecord("lc 3", "linecard", 1, 4, True),
    ContextRecord(1, "vpn"),
    InterfaceRecord(context=1, name="lan", kind="numbered", address=US, prefix_length=24, port="3/1"),
    PortRecord(
        port="3/1",
        card="lc 3",
        enabled=True,
        context=1,
        interface="lan",
        address=US,
        prefix_length=24,
        mac=OUR_MAC,
    ),
    LocalAddressRecord(1, US),
    RouteRecord(1, US & ~255, 24, (NextHop("port", 0, "lc 3", "3/1"),)),
)
card.receive(Snapshot(10, 1, 1, records), now)

arp = header(BROADCAST_MAC, PEER_MAC, ETHERTYPE_ARP) + Arp(REQUEST, PEER_MAC, PEER, ZERO_MAC, US).emit()
ping = header(OUR_MAC, PEER_MAC) + Ipv4(PEER, US, PROTOCOL_ICMP, echo_request(7, 1, b"hello").emit()).emit()
for frame in (arp, ping):
    body, lengths = pack([frame])
    for output in card.receive_frames("3/1", Batch(Step.INGRESS, body, lengths), now):
        for sent in output.batch.packets() if isinstance(output, ToWire) else ():
            arrived = Ipv4.parse(sent[HEADROOM:]) if sent[12:14] == b"\x08\0" else Arp.parse(sent[HEADROOM:])
            print(f"out of {output.port} to {bytes(sent[:6]).hex(':')}: {arrived}")
            print(Icmp.parse(arrived.payload) if isinstance(arrived, Ipv4) else "")
