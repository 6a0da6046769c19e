"""Requests on their way to RADIUS servers: choice of the server, identifiers, retransmission, fail-over, replies.

A request goes to the servers of its context in turn, and then to those of context local where its context has that
fallback (guide 9.3). To one server it goes up to 1 + `retries` times, `timeout` apart, each time the same octets
(RFC 5080 2.2.1) unless the request itself has changed. Another server gets another identifier and authenticator.
Dead servers are passed over. A reply belongs to the request by (context, server's address and port, own port,
identifier) and is checked with the server's secret; what is not genuine is counted and dropped, and the request
goes on to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import inf
from typing import Protocol

from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, Packet

from chassis.aaa.actions import AaaAction, RadiusLog, SendDatagram
from chassis.aaa.packets import ReplyError, SentRequest, read_reply
from chassis.aaa.servers import Identifiers, Role, Server, ServerChange, ServerEvent, ServerState, ServerStatus
from chassis.aaa.settings import AaaConfig, AaaSettings, ServerAddress
from chassis.model.router import LOCAL

Random = Callable[[int], bytes]
"""Returns that many octets that nobody can guess."""

COMPLAINT_PERIOD = 60.0
"""Seconds between log lines about one thing, such as bad replies of one server."""

_NAMES = {AccessAccept: "access accepts", AccessReject: "access rejects", AccessChallenge: "access challenges"}


class Encoder(Protocol):
    """What a request consists of."""

    def encode(self, identifier: int, server: Server[RadiusRequest], now: float) -> SentRequest: ...

    def has_changed(self, sent: SentRequest, now: float) -> bool:
        """Return whether a retransmission would differ from this, so that it needs an identifier of its own."""


@dataclass(eq=False, slots=True)
class RadiusRequest:
    """A request that waits for its reply, or for its turn at a server."""

    role: Role
    context: str
    content: Encoder = field(repr=False)
    tried: set[Server[RadiusRequest]] = field(default_factory=set, repr=False)
    server: Server[RadiusRequest] | None = field(default=None, repr=False)
    sent: dict[int, SentRequest] = field(default_factory=dict, repr=False)
    """Its transmissions to this server, by identifier, the last one last."""
    transmissions: int = 0
    began: float = -inf
    due: float = inf
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class Replied:
    """A genuine reply came."""

    request: RadiusRequest
    reply: Packet
    server: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No server is left."""

    request: RadiusRequest
    reason: str


Outcome = AaaAction | Replied | GaveUp
"""What the parts of the client return: actions for the caller, and what became of a request."""

_ServerKey = tuple[Role, str, str, int]

Endpoint = tuple[str, str, int, int]
"""Context, address and port of a server, and the port of the router that it sends to."""


class RadiusTransport:
    """All requests to all servers of a router. Each given to `begin` comes back once, as `Replied` or `GaveUp`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.config = AaaConfig()
        self._servers: dict[_ServerKey, Server[RadiusRequest]] = {}
        self._paths: dict[Endpoint, Identifiers[RadiusRequest]] = {}
        self._turns: dict[tuple[Role, str], int] = {}
        self._timers: list[tuple[float, int, RadiusRequest]] = []
        self._number = 0
        self.strays = 0
        """Datagrams that are of no server, or answer nothing that is waiting."""

    # --- configuration ---

    def configure(self, config: AaaConfig, now: float) -> list[Outcome]:
        """Use these servers from now on. Requests at a server that is gone, or another one now, go to the next."""
        self.config = config
        before, self._servers = self._servers, {}
        for context, settings in config.contexts.items():
            roles: tuple[tuple[Role, tuple[ServerAddress, ...]], ...] = (
                ("authentication", settings.servers),
                ("accounting", settings.accounting_servers),
            )
            for role, addresses in roles:
                for address in addresses:
                    key = (role, context, address.address, address.port)
                    self._servers[key] = self._server(before.get(key), role, context, address, settings)
        kept = set(self._servers.values())
        homeless = {
            request: None
            for path in self._paths.values()
            for request in path.used.values()
            if request.server not in kept
        }
        for server in before.values():
            if server not in kept:
                homeless.update(server.waiting)
                server.waiting.clear()
        outcomes = [one for request in sorted(homeless, key=_began) for one in self._move(request, now)]
        self._paths = {
            (one.context, one.address.address, one.address.port, one.source_port): one.identifiers
            for one in self._servers.values()
        }
        return outcomes

    def _server(
        self,
        known: Server[RadiusRequest] | None,
        role: Role,
        context: str,
        address: ServerAddress,
        settings: AaaSettings,
    ) -> Server[RadiusRequest]:
        port = settings.source_port or address.port
        same = known is not None and replace(known.address, source=address.source) == address
        if known is not None and same and known.source_port == port:
            known.address, known.settings = address, settings
            return known
        endpoint = (context, address.address, address.port, port)
        path = self._paths.get(endpoint)
        if path is None:
            path = self._paths[endpoint] = Identifiers(self._random(1)[0])
        return Server(role, context, address, settings, port, path)

    def _candidates(self, request: RadiusRequest) -> Iterator[Server[RadiusRequest]]:
        """Yield the servers that a request may go to, in order."""
        settings = self.config.of(request.context)
        yield from self._of(request.role, request.context, settings)
        if settings.global_fallback and request.context != LOCAL:
            yield from self._of(request.role, LOCAL, self.config.of(LOCAL))

    def _of(self, role: Role, context: str, settings: AaaSettings) -> Iterator[Server[RadiusRequest]]:
        listed = settings.servers if role == "authentication" else settings.accounting_servers
        turn = self._turns.get((role, context), 0) if settings.algorithm == "round-robin" else 0
        for number in range(len(listed)):
            address = listed[(turn + number) % len(listed)]
            yield self._servers[role, context, address.address, address.port]

    # --- requests ---

    def begin(self, request: RadiusRequest, now: float) -> list[Outcome]:
        """Send a request to its first server that is not dead."""
        outcomes = self._to_next(request, now)
        key = (request.role, request.context)
        self._turns[key] = self._turns.get(key, 0) + 1
        return outcomes

    def cancel(self, request: RadiusRequest, now: float) -> list[Outcome]:
        """Forget a request: its reply would be a stray."""
        request.is_open = False
        return self._release(request, now)

    def _to_next(self, request: RadiusRequest, now: float) -> list[Outcome]:
        candidates = list(self._candidates(request))
        for server in candidates:
            if server not in request.tried and not server.passed_over(now):
                request.tried.add(server)
                request.server, request.transmissions, request.began = server, 0, now
                if server.full:
                    server.waiting[request] = None
                    self._schedule(request, now + server.settings.timeout * (1 + server.settings.retries))
                    return []
                return self._transmit(request, server, now)
        request.is_open = False
        if not candidates:
            what = "RADIUS server" if request.role == "authentication" else "RADIUS accounting server"
            return [GaveUp(request, f"context {request.context} has no {what}")]
        names = ", ".join(f"{one.address.address} port {one.address.port}" for one in candidates)
        return [GaveUp(request, f"no reply from any RADIUS server of context {request.context}: {names}")]

    def _transmit(self, request: RadiusRequest, server: Server[RadiusRequest], now: float) -> list[Outcome]:
        """Send a request, or send it again."""
        last = next(reversed(request.sent.values()), None)
        if last is None or request.content.has_changed(last, now):
            path = server.identifiers
            identifier = path.take()
            if identifier is None:
                # All are in use: the oldest of its own is given up for the new one.
                identifier = next(iter(request.sent))
                del request.sent[identifier]
            last = request.content.encode(identifier, server, now)
            request.sent[identifier] = last
            path.used[identifier] = request
        server.outstanding += request.transmissions == 0
        server.counters["requests" if request.transmissions == 0 else "retransmissions"] += 1
        request.transmissions += 1
        self._schedule(request, now + server.settings.timeout)
        address = server.address
        return [
            SendDatagram(
                server.context, address.address, address.port, server.source_port, last.payload, address.source
            )
        ]

    def _release(self, request: RadiusRequest, now: float) -> list[Outcome]:
        """Free what a request has at its server; others that wait there go."""
        server, request.server = request.server, None
        request.due = inf
        if server is None:
            return []
        servers = [server]
        if server.identifiers.full:
            # Requests of all servers that share them may wait for one.
            servers = [one for one in self._servers.values() if one.identifiers is server.identifiers]
        for identifier in request.sent:
            del server.identifiers.used[identifier]
        request.sent.clear()
        server.outstanding -= request.transmissions > 0
        server.waiting.pop(request, None)
        return self._pump(servers, now)

    def _pump(self, servers: list[Server[RadiusRequest]], now: float) -> list[Outcome]:
        """Send what waits at these servers and now can go: what has waited longest first."""
        outcomes: list[Outcome] = []
        while ready := [
            (next(iter(one.waiting)), one)
            for one in servers
            if one.waiting and one.state is not ServerState.DEAD and not one.full
        ]:
            request, server = min(ready, key=lambda first: first[0].began)
            del server.waiting[request]
            request.began = now
            outcomes += self._transmit(request, server, now)
        return outcomes

    def _move(self, request: RadiusRequest, now: float) -> list[Outcome]:
        """Take a request from its server to the next one."""
        return [*self._release(request, now), *self._to_next(request, now)]

    # --- replies ---

    def on_datagram(
        self, context: str, source: str, source_port: int, destination_port: int, payload: bytes, now: float
    ) -> list[Outcome]:
        """Take a datagram that came to the router."""
        path = self._paths.get((context, source, source_port, destination_port))
        request = path.used.get(payload[1]) if path is not None and len(payload) > 1 else None
        server = request.server if request is not None else None
        if request is None or server is None:
            self.strays += 1
            return []
        try:
            reply = read_reply(payload, request.sent[payload[1]])
        except ReplyError as error:
            return self._bad_reply(server, error.cause, now)
        server.heard = now
        server.counters[_NAMES.get(reply.code, "accounting responses")] += 1
        outcomes: list[Outcome] = []
        if server.transition(ServerEvent.REPLIED) is ServerChange.RETURNED:
            outcomes.append(RadiusLog("info", f"{server} replies again", server.context))
        request.is_open = False
        return [*outcomes, Replied(request, reply, str(server)), *self._release(request, now)]

    def _bad_reply(self, server: Server[RadiusRequest], cause: str, now: float) -> list[Outcome]:
        server.counters[f"{cause} replies"] += 1
        if cause in ("unsigned", "unknown type"):
            # It is of no use, but the server is there.
            server.heard = now
        if now < server.complained + COMPLAINT_PERIOD:
            return []
        server.complained = now
        why = {
            "malformed": "it is malformed",
            "bad authenticator": "it is not made with the server's key",
            "unsigned": "it has no Message-Authenticator",
        }.get(cause, "its type answers no such request")
        return [RadiusLog("warning", f"a reply of {server} is dropped: {why}", server.context)]

    # --- time ---

    def _schedule(self, request: RadiusRequest, at: float) -> None:
        request.due = at
        self._number += 1
        heappush(self._timers, (at, self._number, request))

    def next_timer(self) -> float:
        """Return when `on_timer` wants to be called, or infinity."""
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else inf

    def on_timer(self, now: float) -> list[Outcome]:
        """Send again what got no reply in time, or send it elsewhere."""
        outcomes: list[Outcome] = []
        while self.next_timer() <= now:
            request = heappop(self._timers)[2]
            request.due = inf
            outcomes += self._on_silence(request, now)
        return outcomes

    def _on_silence(self, request: RadiusRequest, now: float) -> list[Outcome]:
        server = request.server
        assert server is not None
        waited = request.transmissions == 0
        passed_over = server.passed_over(now)
        if not waited and not passed_over and request.transmissions <= server.settings.retries:
            return self._transmit(request, server, now)
        outcomes: list[Outcome] = []
        if not waited:
            server.counters["timeouts"] += 1
            if server.heard < request.began:
                outcomes += self._on_silent_server(server, now)
        return [*outcomes, *self._move(request, now)]

    def _on_silent_server(self, server: Server[RadiusRequest], now: float) -> list[Outcome]:
        """A server replied to nothing while a request was sent to it as often as it may be."""
        dead_time = server.settings.dead_time
        if dead_time <= 0:
            return []
        change = server.transition(ServerEvent.SILENT)
        if change is ServerChange.NOTHING:
            return []
        server.dead_until = now + dead_time
        outcomes: list[Outcome] = []
        if change is ServerChange.DIED:
            text = f"{server} does not reply: it is passed over for {dead_time:g} seconds"
            outcomes.append(RadiusLog("warning", text, server.context))
        for request in list(server.waiting):
            outcomes += self._move(request, now)
        return outcomes

    def endpoints(self) -> frozenset[Endpoint]:
        """Return where replies come from."""
        return frozenset(self._paths)

    def status(self) -> tuple[ServerStatus, ...]:
        """Return all servers, with what was counted."""
        return tuple(server.status() for server in self._servers.values())


def _began(request: RadiusRequest) -> float:
    return request.began
