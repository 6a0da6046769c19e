"""The router's own UDP at the controller: services send datagrams and listen to ports (RFC 768).

A service, such as RADIUS or the sender of log lines, is an engine of its own and holds no socket. It calls

    udp.listen(1812, self.on_datagram, peers={(context, server, 1812)})     # once, and when its peers change
    outputs += udp.send(context, server, 1812, 1812, [request], now)        # raises UnreachableError

where `udp` is `ControllerState.udp`, contexts are numbers of the plan (`Plan.contexts`) and addresses unsigned
32-bit numbers. `on_datagram(datagram, now)` returns outputs; of the `Datagram` that came in, `source` and
`source_port` are the far end's.

Datagrams travel by line cards, in `Datagrams` messages. Nothing is acknowledged or repeated: what is sent may be
lost, with its card too, and what comes in while no controller runs is dropped. So a service repeats what is not
answered, and takes an answer to a question that it does not know in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from chassis.bus.engine import Output, ToCard
from chassis.bus.messages import MAX_DATAGRAM, MAX_DATAGRAMS, Datagram, Datagrams
from chassis.bus.records import UdpPeer, UdpPortRecord
from chassis.net.address import is_unicast_host
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.inventory import LINE_CARD
from chassis.xcrp.leaving_card import UnreachableError, leaving_card
from chassis.xcrp.node import NodeState

Handler = Callable[[Datagram, float], list[Output]]
"""Acts on a datagram that came in, and returns outputs."""

Peer = tuple[int, int, int]
"""Context, address and port of a far end."""


class RouterUdp:
    """The UDP ports of one router."""

    def __init__(self, node: NodeState, ignored: Callable[[str], None]) -> None:
        """`ignored` counts messages that are ignored, by cause."""
        self._node = node
        self._ignored = ignored
        self._handlers: dict[int, Handler] = {}

    def listen(self, port: int, handler: Handler, peers: Collection[Peer] | None = None) -> None:
        """Have `handler` called with each datagram that comes in for a port, at any address of the router.

        With `peers` only these far ends may send: for others the port is closed, as it is for all if `peers` is
        empty. Without, anybody may. A second call for a port replaces the first. Line cards learn of it with the
        next records that are published (`ControllerState.publish`); before the first plan that happens by itself.
        Each line card lets a thousand a second through, of all ports together: a handler must bear that many from
        strangers.

        Raises:
            ValueError: the port is not from 1 to 65535.
        """
        if not 0 < port <= 0xFFFF:
            raise ValueError(f"no port {port}; expected 1 to 65535")
        if peers is not None and not peers:
            self.close(port)
            return
        self._handlers[port] = handler
        self._node.open_udp_port(UdpPortRecord(port, tuple(UdpPeer(*peer) for peer in sorted(peers or ()))))

    def close(self, port: int) -> None:
        """Listen to a port no longer."""
        if self._handlers.pop(port, None) is not None:
            self._node.close_udp_port(port)

    def send(
        self,
        context: int,
        destination: int,
        destination_port: int,
        source_port: int,
        payloads: Sequence[bytes],
        now: float,
        source: int = 0,
    ) -> list[Output]:
        """Send each payload as a datagram to a port of an address, by the routes of a context, into a tunnel too.

        The line card sends from `source`, or else from the address of the interface by which the datagram leaves,
        else from the context's router ID, as it does with ICMP. It fragments what is longer than the MTU.

        Raises:
            UnreachableError: the destination cannot be reached now: there is no route, no line card is usable, the
                route leads into a tunnel that is down, or the context has no address to send from. Nothing was
                sent.
            ValueError: a payload is longer than `MAX_DATAGRAM`.
        """
        if any(len(payload) > MAX_DATAGRAM for payload in payloads):
            raise ValueError(f"a datagram is longer than {MAX_DATAGRAM} octets")
        if not is_unicast_host(destination):
            raise UnreachableError("the address is not that of one host")
        card = leaving_card(self._node, context, destination)
        if not source and not self._has_address(context):
            raise UnreachableError("the context has no address to send from")
        datagrams = [
            Datagram(context, source, destination, source_port, destination_port, payload) for payload in payloads
        ]
        return [
            ToCard(card, Datagrams(tuple(datagrams[at : at + MAX_DATAGRAMS])))
            for at in range(0, len(datagrams), MAX_DATAGRAMS)
        ]

    def receive(self, entry: CardEntry, message: Datagrams, now: float) -> list[Output]:
        """Give datagrams of a line card to those who listen. Others are ignored, and counted."""
        if entry.kind != LINE_CARD or not entry.expects_heartbeats:
            self._ignored("datagrams of a card that is no admitted line card")
            return []
        if len(message.datagrams) > MAX_DATAGRAMS:
            self._ignored("too many datagrams in a message")
            return []
        outputs: list[Output] = []
        for datagram in message.datagrams:
            handler = self._handlers.get(datagram.destination_port)
            if handler is None or len(datagram.payload) > MAX_DATAGRAM:
                self._ignored("datagram that no service takes")
            else:
                outputs += handler(datagram, now)
        return outputs

    def _has_address(self, context: int) -> bool:
        plan = self._node.plan
        name = next((name for name, number in plan.contexts.items() if number == context), "")
        held = plan.config.contexts.get(name)
        return held is not None and any(interface.address for interface in held.interfaces.values())
