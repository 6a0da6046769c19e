"""What AAA has to do with the peers of on-demand tunnels: terms, inner addresses, sessions and accounting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from typing import Final

from chassis.aaa.answers import AccessAnswer
from chassis.bus.engine import Output
from chassis.bus.messages import PeerUsage
from chassis.bus.records import Instance
from chassis.net.address import is_unicast_host, parse_address, parse_prefix
from chassis.xcrp.aaa import Aaa, Result
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.peer_addresses import AddressError, PeerAddresses
from chassis.xcrp.peer_sessions import PeerSessions, drop_stale, terminate_cause
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.reports import Receiver
from chassis.xcrp.session_store import SessionStore
from chassis.xcrp.state import ControllerState

SESSION_TIMEOUT: Final = "session timeout"

LOG_LINES, LOG_PERIOD = 20, 10.0
"""Most lines (count) about peers that are not authenticated, in this time (s)."""


class PeerServices:
    """AAA, inner addresses and sessions of the peers of one router."""

    def __init__(self, state: ControllerState, random: Callable[[int], bytes], stored: bytes) -> None:
        """`stored` is the file of sessions, as it is now."""
        self._state, self._node = state, state.node
        self.on_result: Callable[[Hashable, Result, float], list[Output]] = lambda token, result, now: []
        """Gets AAA's answers about peers, by the token of their question."""
        self.aaa = Aaa(state, random, lambda *answer: self.on_result(*answer), self._on_record_done)
        self.store = SessionStore()
        self.problem = self.store.read(stored)
        self.addresses = PeerAddresses()
        self._sessions = PeerSessions(self.store, self.aaa.account)
        self._made = 0
        self._ends: list[tuple[float, int]] = []
        """When the sessions with a time limit are over: time of day (s since 1970) and number of the instance."""
        self._logged: deque[float] = deque()
        self.receivers: dict[type, Receiver] = {PeerUsage: self._on_usage}

    # start and time

    def start(self, now: float) -> list[Output]:
        """The first plan is in force: ask AAA by it, go on with the sessions of instances that ASPs hold, and
        report the end of the others."""
        outputs = self.aaa.configure(now)
        outputs += self.take_over(now)
        outputs += self.process_ended(now)
        lost = [session for session in self.store.sessions if session not in self._sessions.sessions()]
        return outputs + self._sessions.close_lost(lost, now, self._wall(now))

    def take_over(self, now: float) -> list[Output]:
        """Take over the addresses and sessions of instances that ASPs hold from an earlier controller."""
        outputs: list[Output] = []
        taken, self._node.taken_over = self._node.taken_over, []
        for tunnel_plan in taken:
            instance = tunnel_plan.instance
            if instance is None or tunnel_plan.number not in self._node.plan.tunnels:
                continue
            if instance.address:
                pool = self._prefix_of(tunnel_plan, instance.pool)
                try:
                    self.addresses.hold(
                        tunnel_plan.context, instance.address, tunnel_plan.number, instance.pool, pool
                    )
                except AddressError as error:
                    lines = self._node.end_instances([tunnel_plan.number], str(error), now)
                    outputs += self._state.publish() + self._state.events(lines, now)
                    continue
            outputs += self.begin(tunnel_plan, now, is_new=False)
        return outputs

    def set_clock(self, wall_offset: float) -> None:
        self.aaa.set_clock(wall_offset)

    def next_timer(self) -> float:
        if not self._state.reconciled:
            return inf
        if self._node.ended or self._node.taken_over:
            return -inf
        ends = self._ends[0][0] - self._state.history.wall_offset if self._ends else inf
        return min(ends, self.aaa.next_timer(), self._sessions.next_timer(), self.store.next_timer())

    def on_timer(self, now: float) -> list[Output]:
        if not self._state.reconciled:
            return []
        outputs = self.take_over(now) + self.aaa.on_timer(now)
        outputs += self._sessions.on_timer(now, self._wall(now))
        outputs += self._end_sessions(now) + self.process_ended(now)
        # The write comes last: where it fails, it holds up no message to a card.
        return outputs + self.store.flush(now)

    def flush(self) -> list[Output]:
        """The process ends in good order: write what is not written."""
        return self.store.write()

    # peers

    def new_session(self, context: str) -> str:
        """Return an Acct-Session-Id that no controller of this router gave before; empty where sessions are not
        reported."""
        if not self.aaa.accounts(context):
            return ""
        self._made += 1
        return f"{self._state.boot:08X}{self._made:08X}"

    def with_terms(self, instance: Instance, answer: AccessAnswer, wall: float) -> Instance:
        """Return an instance with what AAA said of its session."""
        timeout = answer.session_timeout
        return replace(
            instance,
            interim=answer.interim_interval or 0,
            ends=wall + timeout if timeout else 0.0,
            classes=answer.classes,
        )

    def with_address(self, tunnel_plan: TunnelPlan, answer: AccessAnswer, before: TunnelPlan | None) -> TunnelPlan:
        """Return an instance with the inner address that AAA gives its peer, itself or from a pool; none if AAA
        says nothing of an address. `before` is the instance that it replaces, which gives back its address.

        Raises:
            AddressError: another peer has it, or no address is free; nothing has changed.
        """
        old = before.instance if before is not None else None
        if before is None or old is None or not old.address:
            return self._with_address(tunnel_plan, answer)
        self.addresses.release(before.context, old.address, before.number)
        try:
            return self._with_address(tunnel_plan, answer)
        except AddressError:
            pool = self._prefix_of(before, old.pool)
            self.addresses.hold(before.context, old.address, before.number, old.pool, pool)
            raise

    def _with_address(self, tunnel_plan: TunnelPlan, answer: AccessAnswer) -> TunnelPlan:
        instance = tunnel_plan.instance
        assert instance is not None
        context, number = tunnel_plan.context, tunnel_plan.number
        if answer.address is not None:
            address = parse_address(answer.address)
            if not is_unicast_host(address) or (context, address) in self._node.plan.local:
                raise AddressError(f"AAA gives {answer.address}, which no peer can have")
            self.addresses.hold(context, address, number)
            length = _length(answer.netmask)
            return replace(tunnel_plan, instance=replace(instance, address=address, prefix_length=length))
        if answer.pool is None:
            return tunnel_plan
        prefix = self._prefix_of(tunnel_plan, answer.pool)
        if prefix is None:
            raise AddressError(f"no pool {answer.pool} in context {tunnel_plan.config.interface_context}")
        own = {address for at, address in self._node.plan.local if at == context}
        address = self.addresses.take(context, answer.pool, prefix, instance.identity, number, own)
        length = _length(answer.netmask)
        taken = replace(instance, address=address, prefix_length=length, pool=answer.pool)
        return replace(tunnel_plan, instance=taken)

    def begin(self, tunnel_plan: TunnelPlan, now: float, *, is_new: bool = True) -> list[Output]:
        """An instance is there: its session begins, or goes on."""
        instance = tunnel_plan.instance
        if instance is not None and instance.ends:
            heappush(self._ends, (instance.ends, tunnel_plan.number))
            drop_stale(self._ends, self._node.plan.tunnels)
        context = tunnel_plan.config.interface_context
        return self._sessions.begin(tunnel_plan, context, now, self._wall(now), is_new=is_new)

    def process_ended(self, now: float) -> list[Output]:
        """Give back the addresses of instances that have ended, and end their sessions."""
        outputs: list[Output] = []
        ended, self._node.ended = self._node.ended, []
        for one in ended:
            instance = one.tunnel_plan.instance
            if instance is None:
                continue
            number = one.tunnel_plan.number
            if instance.address:
                self.addresses.release(one.tunnel_plan.context, instance.address, number)
            card = self._node.cards.get(one.tunnel_plan.asp)
            cause = terminate_cause(one.reason, by_commit=one.by_commit)
            awaited = card is not None and card.usable
            outputs += self._sessions.end(number, cause, now, self._wall(now), awaited=awaited)
        return outputs

    def may_log(self, now: float) -> bool:
        """Return whether one more line may be logged about a peer that is not authenticated."""
        while self._logged and self._logged[0] <= now - LOG_PERIOD:
            self._logged.popleft()
        if len(self._logged) >= LOG_LINES:
            return False
        self._logged.append(now)
        return True

    # inside

    def _wall(self, now: float) -> float:
        """Return the time of day (s since 1970)."""
        return now + self._state.history.wall_offset

    def _on_usage(self, entry: CardEntry, message: PeerUsage, now: float) -> list[Output]:
        return self._sessions.on_usage(entry.card, message, now)

    def _on_record_done(self, record: str, now: float) -> None:
        session, _, rest = record.partition(" ")
        self.store.done(session, rest.partition(" ")[0], now)

    def _end_sessions(self, now: float) -> list[Output]:
        """End the instances whose time is over."""
        ended = []
        while self._ends and self._ends[0][0] <= self._wall(now):
            _, number = heappop(self._ends)
            if number in self._node.plan.tunnels:
                ended.append(number)
        return self._end(ended, SESSION_TIMEOUT, now) if ended else []

    def _end(self, numbers: Iterable[int], reason: str, now: float) -> list[Output]:
        lines = self._node.end_instances(numbers, reason, now)
        return self._state.publish() + self._state.events(lines, now)

    def _prefix_of(self, tunnel_plan: TunnelPlan, pool: str) -> tuple[int, int] | None:
        """Return the prefix of a pool of the context of a tunnel's interface; None if there is none."""
        context = self._node.plan.config.contexts.get(tunnel_plan.config.interface_context)
        found = (one.prefix for one in (context.ip_pools if context is not None else ()) if one.name == pool)
        prefix = next(found, None)
        return None if prefix is None else parse_prefix(prefix)


def _length(netmask: str | None) -> int:
    """Return the length of a netmask; 32 without one, and for one with holes."""
    mask = parse_address(netmask) if netmask else 0xFFFFFFFF
    length = mask.bit_count()
    return length if mask == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF else 32
