"""UDP datagrams of the router's own services, such as lines for a syslog server (RFC 768).

They leave as the router's own packets do: by the route of their context, into a tunnel too. None is received.
"""

from __future__ import annotations

from typing import Any

from chassis.bus.engine import Output, ToController
from chassis.bus.messages import Attributes, Reply, Request
from chassis.fwd.forwarder import Forwarder
from chassis.fwd.tables import ForwardingTables
from chassis.net.address import format_address
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp

TTL = 64


class DatagramSender:
    """Sends datagrams that the controller gives, and answers with how many it sent."""

    def __init__(self, forwarder: Forwarder, tables: ForwardingTables) -> None:
        self._forwarder = forwarder
        self._tables = tables
        self._identification = 0

    def send(self, request: Request, context: int, now: float) -> list[Output]:
        """Send the datagrams of a request, whose arguments are those of the table (`chassis.bus.requests`).

        Raises:
            ValueError: the context has no address to send from.
        """
        asked: dict[str, Any] = dict(request.arguments)
        destination = asked["address"]
        source = asked["source"] or self._tables.egress_address(
            context, self._tables.decider.decide_destination(context, destination)
        )
        if not source:
            raise ValueError("the context has no address to send from")
        out: list[Output] = []
        for data in asked["datagrams"]:
            self._identification = (self._identification + 1) & 0xFFFF
            datagram = Udp(asked["source_port"], asked["port"], data)
            packet = Ipv4(
                source=source,
                destination=destination,
                protocol=PROTOCOL_UDP,
                payload=datagram.emit((source, destination)),
                ttl=TTL,
                identification=self._identification,
            )
            out += self._forwarder.originate(context, packet.emit(), now)
        result: Attributes = {"sent": len(asked["datagrams"]), "source": format_address(source)}
        return [*out, ToController(Reply(request.number, result))]
