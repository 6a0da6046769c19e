"""One IKE SA of version 2, or the attempt at one: what comes in is opened and handed on, what is due is done.

The subjects have files of their own: `sa_init`, `ike_auth`, `negotiate` (pairs), `rekey` (the IKE SA itself),
`informational`; states are in `ike_sa` and `child_sa`, times in `timers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.host import Host, Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import INITIATOR, RESPONSE, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, refuse_critical, remarks
from chassis.ase.ike.v2 import describe, ike_auth, informational, negotiate, reception, rekey, sa_init, timers
from chassis.ase.ike.v2.child_sa import ChildSaEvent, ChildSaState, ChildSaV2
from chassis.ase.ike.v2.children import ChildSasV2, remove, remove_all, switch
from chassis.ase.ike.v2.create import lifetimes
from chassis.ase.ike.v2.exchange import Answered, Task, TaskManager
from chassis.ase.ike.v2.fragments import Assembly, seal
from chassis.ase.ike.v2.ike_sa import ESTABLISHED_STATES, HALF_OPEN_STATES, IkeSa, IkeSaEvent, IkeSaState
from chassis.ase.ike.v2.keyring import IkeSaKeymat
from chassis.ase.ike.v2.nat import NatStatus
from chassis.ase.ike.v2.reception import CurrentRequest
from chassis.ase.ike.v2.refused import Refused
from chassis.ase.link import Encapsulation


class SessionV2:
    """See `chassis.ase.ike.host.Session`."""

    version: int = 2
    orphaned: bool = False

    def __init__(
        self, host: Host, path: Path, connection: Connection | None, initiator: bool, spi: bytes, peer_spi: bytes
    ) -> None:
        self.host = host
        self.path = path
        self.connection = connection
        self.initiator = initiator
        self.spi = spi
        self.peer_spi = peer_spi
        self.established = False
        self.closed = False
        self.receives = False
        self.sa = IkeSa()
        self.exchanges = TaskManager(host.settings)
        self.children = ChildSasV2()
        self.keyring: IkeSaKeymat | None = None
        self.nat = NatStatus()
        self.fragmenting = False
        self.hashes: tuple[int, ...] = ()
        self.nonces = (b"", b"")
        self.lowest = b""
        self.first_sent = b""
        self.first_received = b""
        self.peer_identity: Identity | None = None
        self.rival: SessionV2 | None = None
        """What the peer replaced this IKE SA with while our own request to do so is out."""
        self.wanted: dict[int, None] = {}
        """Lines asked for before the IKE SA stands."""
        self.making = 0
        """The line whose first pair is made with the IKE SA itself."""
        self.deleted: set[tuple[int, bytes]] = set()
        """SPIs of deletes that named no pair of ours, since our last request for one left."""
        self.ending = ""
        """Why it is being deleted."""
        self.postponed: list[tuple[float, Task]] = []
        self.born = 0.0
        self.soft = math.inf
        self.hard = math.inf
        self.deadline = math.inf
        """When a state that must not last is over."""
        self.heard = 0.0
        self.sent = 0.0
        self.hinted = -math.inf
        self.assemblies = {False: Assembly(), True: Assembly()}
        """Fragments of a request of the peer, and of an answer of it."""
        self.handling = CurrentRequest(path)

    @classmethod
    def initiate(cls, host: Host, connection: Connection, path: Path) -> SessionV2:
        """We begin."""
        return cls(host, path, connection, True, host.ike_spi(), bytes(8))

    @classmethod
    def respond(cls, host: Host, path: Path, header: Header) -> SessionV2:
        """The peer begins: `header` is of its IKE_SA_INIT request, which is to be given to `receive` next."""
        return cls(host, path, None, False, host.ike_spi(), header.spi_i)

    # what the engine asks

    def start(self, now: float) -> None:
        self.born = now
        self.deadline = now + self.host.settings.give_up
        self.host.count("begun")
        self.take(IkeSaEvent.START)
        self.put(sa_init.IkeSaInitTask())
        self.pump(now)

    def receive(self, data: bytes, header: Header, path: Path, now: float) -> None:
        if not self.closed:
            reception.receive(self, data, path, now)
            if self.sa.state is IkeSaState.NEW:
                # What looked like a first message was none: nothing is held for its sender.
                self.end("no first message", now)
            self.pump(now)

    def wake(self) -> float:
        return timers.wake(self)

    def on_timer(self, now: float) -> None:
        timers.run(self, now)
        self.pump(now)

    def negotiate(self, line: Line, replaces: int, now: float) -> None:
        if self.closed:
            return
        if self.sa.state in HALF_OPEN_STATES:
            self.wanted[line.seq] = None
            return
        old = self.children.by_serial.get(replaces)
        if self.negotiating(line.seq) or (old is None and self.children.served(line.seq)):
            return
        self.put(negotiate.CreateChildTask(line, old))
        self.pump(now)

    def rekey(self, now: float) -> None:
        if self.sa.state is IkeSaState.ESTABLISHED and not self.rekeying:
            self.put(rekey.RekeyIkeSaTask())
            self.pump(now)

    def drop(self, serial: int, reason: str, now: float) -> None:
        child = self.children.by_serial.get(serial)
        if child is not None and not self.closed:
            informational.close_child(self, child, reason)
            self.pump(now)

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        if self.closed:
            return
        if self.rival is not None and not self.rival.closed:
            self.rival.close(reason, now, tell=tell)
            self.host.adopt(self.rival)
            self.rival = None
        if not tell or not self.sa.may(IkeSaEvent.CLOSE):
            if not tell or self.sa.state is not IkeSaState.DELETING:
                self.end(reason, now)
            return
        remove_all(self, reason, now)
        self.take(IkeSaEvent.CLOSE)
        self.ending = reason
        self.deadline = now + self.host.settings.give_up
        for task in self.exchanges.empty():
            task.abandoned(self)
        self.postponed.clear()
        self.put(informational.DeleteIkeSaTask(reason))
        self.pump(now)

    def expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        child = self.children.by_serial.get(serial)
        if child is None or self.closed:
            return
        if hard:
            self.expire(child, reason, now)
        else:
            self.renew(child, now)
        self.pump(now)

    def seen(self, serial: int, now: float) -> None:
        child = self.children.by_serial.get(serial)
        if child is not None and child.state is ChildSaState.STANDBY:
            switch(self, child)
        self.alive(now)

    def alive(self, now: float) -> None:
        self.heard = max(self.heard, now)

    def configured(self, connection: Connection, now: float) -> None:
        self.connection = connection

    def describe(self) -> dict[str, Any]:
        return describe.describe(self)

    def secrets(self) -> list[dict[str, str]]:
        return [] if self.keyring is None else self.keyring.secrets(self.spi_i, self.spi_r)

    # what the parts of a session ask of each other

    @property
    def tunnel(self) -> int:
        return 0 if self.connection is None else self.connection.tunnel

    @property
    def spi_i(self) -> bytes:
        return self.spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        return self.peer_spi if self.initiator else self.spi

    @property
    def ring(self) -> IkeSaKeymat:
        assert self.keyring is not None
        return self.keyring

    @property
    def encapsulation(self) -> tuple[Encapsulation, ...]:
        """UDP encapsulation of ESP, where a NAT makes it necessary."""
        if not self.nat.found:
            return ()
        return (Encapsulation(self.path.local_port, self.path.remote, self.path.remote_port),)

    @property
    def rekeying(self) -> bool:
        """Whether our request to replace the IKE SA is out, or waits."""
        waiting = [task for _, task in self.postponed]
        return any(isinstance(task, rekey.RekeyIkeSaTask) for task in self.exchanges.tasks() + waiting)

    @property
    def busy_with_children(self) -> bool:
        """Whether a request of ours about a pair is out (RFC 7296 2.25.2)."""
        outstanding = self.exchanges.outstanding
        busy = (negotiate.CreateChildTask, informational.DeleteChildTask, informational.DeleteChildSpisTask)
        return outstanding is not None and isinstance(outstanding.task, busy)

    def negotiating(self, seq: int) -> bool:
        """Whether a pair for this line is being made, or is about to be."""
        waiting = [task for _, task in self.postponed]
        return seq == self.making or any(task.seq == seq for task in self.exchanges.tasks() + waiting)

    def take(self, event: IkeSaEvent) -> None:
        """The IKE SA goes where its table says."""
        self.sa.take(event)
        self.established = self.sa.state in ESTABLISHED_STATES
        self.closed = self.sa.state is IkeSaState.CLOSED

    def put(self, task: Task) -> None:
        """Queue a request; it leaves with the next `pump`."""
        if not self.exchanges.put(task):
            self.host.count("too many requests")
            task.abandoned(self)

    def later(self, task: Task, now: float) -> None:
        """Ask again soon, at a moment that the other end does not choose too."""
        part = int.from_bytes(self.host.random(2), "big") / 65535
        self.postponed.append((now + self.host.settings.retransmit * (0.5 + part), task))

    def pump(self, now: float) -> None:
        """Send the next request if none is out."""
        exchanges = self.exchanges
        while exchanges.outstanding is None and exchanges.queue and not self.closed:
            task = exchanges.queue.popleft()
            payloads = task.begin(self, now)
            if payloads is None or self.closed:
                continue
            datagrams = self._pack(task.exchange, exchanges.next_id, payloads, 0)
            exchanges.sent(task, datagrams, now)
            if isinstance(task, informational.DpdTask):
                settings = self.host.settings
                exchanges.steady(settings.dpd_interval, settings.dpd_tries, now)
                self.host.count("probes")
            self.host.count("requests sent")
            self.transmit(datagrams, self.path, now)

    def transmit(self, datagrams: tuple[bytes, ...], path: Path, now: float) -> None:
        for datagram in datagrams:
            self.host.send(path, datagram)
        self.sent = now

    def reply(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Answer the request that is being handled."""
        message_id = self.exchanges.expected
        datagrams = self._pack(self.handling.exchange, message_id, payloads, RESPONSE)
        self.exchanges.last = Answered(message_id, self.handling.clear, datagrams)
        self.exchanges.expected = message_id + 1
        self.transmit(datagrams, self.handling.path, now)

    def note(self, error: PayloadError, now: float) -> None:
        """Log what is wrong with a message."""
        if error.log:
            self.host.log(error.log, error.values, self, self.path, now)
        else:
            self.host.say("malformed", "debug", str(error), self, self.path, now)

    def examine(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Log what is passed over in a message; PayloadError for what must not be."""
        refuse_critical(payloads)
        for id, values in remarks(payloads):
            self.host.log(id, values, self, self.path, now)

    def explain(self, refused: Refused, now: float) -> None:
        """The guide's lines for the values that stood in the way."""
        for one in refused.mismatches:
            if one.log:
                self.host.log(one.log, one.values, self, self.path, now)

    def line_failed(self, line: Line, refused: Refused, now: float) -> None:
        """A line got no pair; the IKE SA stands."""
        self.explain(refused, now)
        self.host.failed(self, refused.blame, now, line)

    def failed(self, refused: Refused, now: float) -> None:
        """The IKE SA does not come to stand."""
        self.explain(refused, now)
        self.host.failed(self, refused.blame, now)

    def fail(self, refused: Refused, now: float) -> None:
        """The attempt is over."""
        self.failed(refused, now)
        self.end(refused.text, now)

    def authenticated(self, now: float, making: int) -> None:
        """The IKE SA stands. `making` is the line whose pair comes with it."""
        self.making = making
        self.take(IkeSaEvent.AUTHENTICATED)
        self.deadline = math.inf
        self.stood(now)
        self.first_sent = self.first_received = b""
        self.host.count("done")
        self.host.up(self, now)
        if self.closed or self.connection is None:
            return
        seqs = [line.seq for line in self.connection.lines] if self.initiator else list(self.wanted)
        self.wanted.clear()
        for seq in seqs:
            line = self.connection.line(seq)
            if line is not None and not self.negotiating(seq) and not self.children.served(seq):
                self.put(negotiate.CreateChildTask(line, None))

    def stood(self, now: float) -> None:
        """Set the times of an IKE SA that begins to live."""
        self.born = self.heard = self.sent = now
        if self.connection is not None:
            self.soft, self.hard = lifetimes(self, self.connection.policy.lifetime, now)

    def renew(self, child: ChildSaV2, now: float) -> None:
        """Have a pair succeeded, if that is not under way."""
        child.soft = math.inf
        if child.may(ChildSaEvent.REKEY) and not self.negotiating(child.line.seq):
            self.put(negotiate.CreateChildTask(child.line, child))

    def put_off(self, child: ChildSaV2, now: float) -> None:
        """No successor was to be had: try again before the pair ends."""
        child.soft = now + max((min(child.hard, now + 240.0) - now) / 4, 1.0)

    def limit(self, child: ChildSaV2, now: float) -> None:
        """A pair that the peer is to delete does not stay for ever."""
        child.soft = math.inf
        child.hard = min(child.hard, now + self.host.settings.give_up)

    def expire(self, child: ChildSaV2, reason: str, now: float) -> None:
        """A pair is over: it stops here at once, and the peer is told."""
        inbound: Mapping[int, bytes] = child.inbound
        remove(self, child, reason, now)
        self.put(informational.DeleteChildSpisTask(inbound))

    def end(self, reason: str, now: float) -> None:
        """It is over; nothing is sent any more."""
        if self.closed:
            return
        waiting = [task for _, task in self.postponed]
        for task in self.exchanges.tasks() + waiting:
            task.abandoned(self)
        self.exchanges.empty()
        self.exchanges.outstanding = None
        self.postponed.clear()
        self.take(IkeSaEvent.END)
        remove_all(self, reason, now)
        self.host.down(self, reason, now)

    def silence(self, now: float) -> None:
        """The peer does not answer any more."""
        if self.sa.state in HALF_OPEN_STATES:
            blame = ike_auth.blame_silence(self)
            self.host.failed(self, blame, now)
            self.end(blame.text, now)
        elif self.sa.state is IkeSaState.DELETING:
            self.end(self.ending, now)
        else:
            self.host.count("failed dead peer")
            self.close("the peer does not answer", now, tell=False)

    # inside

    def _pack(
        self, exchange: int, message_id: int, payloads: tuple[PayloadV2, ...], response: int
    ) -> tuple[bytes, ...]:
        """The datagrams of a message."""
        flags = response | (INITIATOR if self.initiator else 0)
        in_clear = exchange == ExchangeType.IKE_SA_INIT
        refusing = in_clear and response and self.keyring is None and self.sa.state is IkeSaState.NEW
        spi_r = bytes(8) if refusing else self.spi_r
        header = Header(self.spi_i, spi_r, 0, VERSION_2, exchange, flags, message_id, 0)
        if in_clear:
            self.first_sent = MessageV2(header, payloads).emit()
            return (self.first_sent,)
        room = self.host.settings.fragment
        return seal(self.ring, header, payloads, room, self.host.random, fragment=self.fragmenting)
