"""AAA at the controller: the RADIUS client, with the router's UDP, its configuration and the log.

What the client wants done is done here. Answers about peers go to `on_result`, by the token of their question;
`on_record_done` hears of accounting records that a server has, or that are never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Final

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import (
    AaaAction,
    AccessQuestion,
    AccountingAcknowledged,
    AccountingDropped,
    Authorized,
    RadiusLog,
    Rejected,
    SendDatagram,
    Unreachable,
)
from chassis.aaa.client import RadiusClient
from chassis.aaa.settings import AaaConfig, aaa_config
from chassis.bus.engine import Output
from chassis.bus.messages import Datagram
from chassis.net.address import format_address, parse_address
from chassis.xcrp.leaving_card import UnreachableError, route_towards
from chassis.xcrp.state import ControllerState

Result = Authorized | Rejected | Unreachable

_SEVERITIES: Final = {"info": "informational"}


class Aaa:
    """RADIUS servers of one router, as its configuration has them."""

    def __init__(
        self,
        state: ControllerState,
        random: Callable[[int], bytes],
        on_result: Callable[[Hashable, Result, float], list[Output]],
        on_record_done: Callable[[str, float], None],
    ) -> None:
        """`random(n)` gives n octets that nobody can guess."""
        self._state = state
        self._client = RadiusClient(random, state.history.wall_offset)
        self._on_result, self._on_record_done = on_result, on_record_done
        self._config = AaaConfig()
        self._ports: set[int] = set()

    def configure(self, now: float) -> list[Output]:
        """Use the servers of the configuration in force, with the addresses by which they are reached now."""
        config = aaa_config(self._state.config, self._source_of)
        if config == self._config:
            return []
        self._config = config
        self._listen()
        return self._do(self._client.configure(config, now), now) + self._state.publish()

    def set_clock(self, wall_offset: float) -> None:
        self._client.set_clock(wall_offset)

    def accounts(self, context: str) -> bool:
        """Return whether the sessions of a context are reported."""
        return self._config.of(context).accounting

    def authorize(self, question: AccessQuestion, now: float) -> list[Output]:
        """Ask about a peer. `on_result` gets the answer, at once or later."""
        return self.configure(now) + self._do(self._client.authorize(question, now), now)

    def cancel(self, token: Hashable, now: float) -> list[Output]:
        """Nobody waits for the answer with this token any more."""
        return self._do(self._client.cancel(token, now), now)

    def account(self, record: AccountingRecord, now: float) -> list[Output]:
        """Report a start, an interim update or a stop."""
        return self._do(self._client.account(record, now), now)

    def next_timer(self) -> float:
        return self._client.next_timer() if self._state.reconciled else inf

    def on_timer(self, now: float) -> list[Output]:
        if now < self.next_timer():
            return []
        return self.configure(now) + self._do(self._client.on_timer(now), now)

    # inside

    def _listen(self) -> None:
        """Open the ports from which servers are asked, to these servers alone."""
        peers: dict[int, set[tuple[int, int, int]]] = {}
        for context, settings in self._config.contexts.items():
            number = self._state.node.plan.contexts.get(context, 0)
            for server in (*settings.servers, *settings.accounting_servers):
                port = settings.source_port or server.port
                peers.setdefault(port, set()).add((number, parse_address(server.address), server.port))
        for port in self._ports - peers.keys():
            self._state.udp.close(port)
        for port, far in peers.items():
            self._state.udp.listen(port, self._on_datagram, far)
        self._ports = set(peers)

    def _on_datagram(self, datagram: Datagram, now: float) -> list[Output]:
        contexts = self._state.node.plan.contexts.items()
        context = next((name for name, number in contexts if number == datagram.context), "")
        actions = self._client.on_datagram(
            context,
            format_address(datagram.source),
            datagram.source_port,
            datagram.destination_port,
            datagram.payload,
            now,
        )
        return self._do(actions, now)

    def _do(self, actions: list[AaaAction], now: float) -> list[Output]:
        outputs: list[Output] = []
        for action in actions:
            match action:
                case SendDatagram():
                    outputs += self._send(action, now)
                case Authorized() | Rejected() | Unreachable():
                    outputs += self._on_result(action.token, action, now)
                case AccountingAcknowledged() | AccountingDropped():
                    self._on_record_done(action.id, now)
                case RadiusLog():
                    severity = _SEVERITIES.get(action.severity, action.severity)
                    self._state.log(severity, "aaa", action.text, now, context=action.context)
        return outputs

    def _send(self, action: SendDatagram, now: float) -> list[Output]:
        context = self._state.node.plan.contexts.get(action.context, 0)
        source = parse_address(action.source) if action.source else 0
        try:
            return self._state.udp.send(
                context,
                parse_address(action.destination),
                action.destination_port,
                action.source_port,
                [action.payload],
                now,
                source,
            )
        except UnreachableError:
            # As lost on the way: the client sends it again, and goes to the next server in the end.
            self._state.count_ignored("RADIUS request that can't be sent now")
            return []

    def _source_of(self, context: str, server: str) -> str | None:
        """Return the router's own address by which it reaches a server; None if it does not by a port."""
        node = self._state.node
        route = route_towards(node, node.plan.contexts.get(context, 0), parse_address(server))
        hops = route.next_hops if route is not None else ()
        ports = (node.plan.ports.get(hop.port) for hop in hops if hop.kind == "port")
        address = next((port.address for port in ports if port is not None), 0)
        return format_address(address) if address else None
