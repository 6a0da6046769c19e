"""A node in memory: the controller's engine, its state folder, and small cards on `Card` and `Replica`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from chassis.bus import codec, requests
from chassis.bus.card import CardBase
from chassis.bus.engine import (
    Append,
    Exit,
    Output,
    Perform,
    Persist,
    ToCard,
    ToController,
    ToFlash,
    ToLauncher,
    ToOperator,
    WriteLog,
)
from chassis.bus.messages import (
    Datagram,
    Datagrams,
    Delta,
    Hello,
    PeerAnswer,
    PeerNetworks,
    PortEvent,
    Reply,
    Request,
    SaReport,
    ToCardMessage,
    TunnelEvent,
)
from chassis.bus.records import CardStateRecord, CircuitRecord, RouteRecord, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.config.secrets import SECRET_FILE
from chassis.net.address import parse_prefix
from chassis.sim.disk import Disk
from chassis.xcrp.engine import ControllerEngine
from chassis.xcrp.flash import FlashFile
from chassis.xcrp.flash_operations import FlashAnswer
from tests.support.configurations import SECRET


class FakeLineCard(CardBase):
    kind = "linecard"
    specs = requests.LINE_CARD

    def __init__(self, card: str, *, pid: int, boot: int, ports: tuple[str, ...]) -> None:
        super().__init__(card, pid=pid, boot=boot)
        self.ports = set(ports)
        self.changes: list[RecordChange] = []
        self.datagrams: list[Datagram] = []
        """What the controller gave it to send."""

    def hello_state(self, hello: Hello) -> Hello:
        return replace(hello, ports=tuple(sorted(self.ports)))

    def on_records_changed(self, change: RecordChange, now: float) -> list[Output]:
        self.changes.append(change)
        return []

    def on_datagrams(self, message: Datagrams, now: float) -> list[Output]:
        self.datagrams += message.datagrams
        return []

    def on_request(self, request: Request, now: float) -> list[Output] | None:
        if request.name in ("ping", "trace", "neighbours", "counters"):
            return [ToController(Reply(request.number, {"asked": request.name}))]
        return None


class FakeAsp(CardBase):
    """Installs the SAs of every tunnel whose conditions are met and whose keys it has."""

    kind = "asp"
    specs = requests.ASP

    def __init__(self, card: str, *, pid: int, boot: int, fresh: bool = False) -> None:
        super().__init__(card, pid=pid, boot=boot)
        self.fresh = fresh
        self.up_tunnels: set[int] = set()
        self.changes: list[RecordChange] = []
        self.requests: list[Request] = []
        self.answers: list[PeerAnswer] = []
        self.networks: dict[int, tuple[int, ...]] = {}
        """Behind the peers of tunnels that are up."""
        self.gone: set[int] = set()
        """Instances whose peers are gone."""

    def receive(self, message: ToCardMessage, now: float) -> list[Output]:
        if isinstance(message, PeerAnswer):
            self.answers.append(message)
            return []
        return super().receive(message, now)

    def held_instances(self) -> tuple[TunnelRecord, ...]:
        records = self.replica.records.values()
        return tuple(
            one
            for one in records
            if isinstance(one, TunnelRecord)
            and one.instance
            and one.asp == self.card
            and one.number not in self.gone
        )

    def on_request(self, request: Request, now: float) -> list[Output] | None:
        if request.name not in ("clear", "rekey", "ike"):
            return None
        self.requests.append(request)
        return [ToController(Reply(request.number, {"asked": request.name}))]

    def hello_state(self, hello: Hello) -> Hello:
        sas = tuple(SaReport(number, 10, "in", "esp", 300, 0) for number in sorted(self.up_tunnels))
        networks = tuple(PeerNetworks(number, behind) for number, behind in self.networks.items())
        return replace(hello, fresh=self.fresh, sas=sas, networks=networks)

    def on_records_changed(self, change: RecordChange, now: float) -> list[Output]:
        self.changes.append(change)
        events: list[Output] = []
        records = self.replica.records
        for record in records.values():
            if not isinstance(record, TunnelRecord) or record.asp != self.card or record.instance is not None:
                continue
            ready = record.up and all(("manual-sa", entry.sa) in records for entry in record.config.entries)
            if ready != (record.number in self.up_tunnels):
                (self.up_tunnels.add if ready else self.up_tunnels.discard)(record.number)
                reason = "" if ready else "no SA"
                events.append(ToController(TunnelEvent(record.number, ready, reason, record.remote)))
        for number in [number for number in self.up_tunnels if ("tunnel", number) not in records]:
            self.up_tunnels.discard(number)
            self.networks.pop(number, None)
        return events


class Cut(Exception):
    """The controller was killed before it could do one of its outputs."""


class Node:
    """The controller and its cards, with messages in flight and a clock of its own."""

    def __init__(
        self,
        text: str,
        *,
        settings: dict[str, Any] | None = None,
        state: dict[str, bytes] | None = None,
        flash: tuple[FlashFile, ...] = (),
    ) -> None:
        self.text = text
        self.flash = flash
        self.settings = settings or {}
        self.state: dict[str, bytes] = {} if state is None else state
        self.disk = Disk()
        """Its flash."""
        self.now = 1000.0
        self.wall_offset = 1_700_000_000.0
        """What the clock of the day shows more than the node's own."""
        self.boot = 0
        self.boots: dict[str, int] = {}
        self.cards: dict[str, FakeLineCard | FakeAsp] = {}
        self.stopped: set[str] = set()
        self.carrier: dict[str, set[str]] = {}
        self.launcher: list[ToLauncher] = []
        self.answers: list[ToOperator] = []
        self.goodbyes: list[tuple[str, str]] = []
        self.down: deque[ToCard] = deque()
        self.frozen: dict[str, list[ToCard]] = {}
        self.full = False
        """Whether the state folder's disk has no room left."""
        self.budget = inf
        """Outputs that the controller may still do before it is killed."""
        self.epochs: dict[str, int] = {}
        self.watch: Callable[[ToCard], None] = lambda output: None
        self.refusal = ""
        """What a card's shell says of a request that only it can carry out; without a word it did."""
        self.controller: ControllerEngine | None = None

    # processes

    def start(self) -> None:
        """A controller, from what the state folder holds."""
        self.boot += 1
        self.controller = ControllerEngine(
            "a",
            boot=self.boot,
            files={SECRET_FILE: SECRET.write(), **self.state},
            startup=(self.text, "a.cfg"),
            settings=self.settings,
            now=self.now,
            flash=self.flash,
            wall_offset=self.wall_offset,
            random=random.Random(self.boot).randbytes,
            read_flash=self.disk.read,
        )
        self.perform(self.controller.start(self.now))
        for card in list(self.cards):
            if card not in self.stopped:
                self.card_does(card, self.cards[card].on_connected(self.now))

    def kill_controller(self) -> None:
        self.controller = None
        self.down.clear()
        self.frozen.clear()
        for card in self.cards.values():
            card.on_disconnected(self.now)

    def start_card(self, card: str, *, fresh: bool = False) -> FakeLineCard | FakeAsp:
        boot = self.boots[card] = self.boots.get(card, 0) + 1
        if card.startswith("lc"):
            made: FakeLineCard | FakeAsp = FakeLineCard(
                card, pid=100 + boot, boot=boot, ports=tuple(self.carrier.get(card, ()))
            )
        else:
            made = FakeAsp(card, pid=100 + boot, boot=boot, fresh=fresh)
        self.cards[card] = made
        self.frozen.pop(card, None)
        self.stopped.discard(card)
        if self.controller is not None:
            self.perform(self.controller.on_card_started(card, boot, 100 + boot, self.now))
            self.card_does(card, made.start(self.now) + made.on_connected(self.now))
        return made

    def kill_card(self, card: str) -> None:
        del self.cards[card]
        self.down = deque(output for output in self.down if output.card != card)
        if self.controller is not None:
            self.perform(self.controller.on_card_died(card, self.boots[card], self.now))
            while self.controller.next_timer() <= self.now:
                self.perform(self.controller.on_timer(self.now))

    def boot_all(self, *carrier: str) -> None:
        """The controller and every card that its configuration calls for; these ports have a far end."""
        for port in carrier:
            self.carrier.setdefault(f"lc {port.split('/')[0]}", set()).add(port)
        self.start()
        assert self.controller is not None
        for card, _ in self.controller.cards():
            self.start_card(card)
        self.run(0.3)

    def stop_card(self, card: str) -> None:
        self.stopped.add(card)

    def continue_card(self, card: str, stood: float) -> None:
        self.stopped.discard(card)
        made = self.cards[card]
        self.card_does(card, made.on_stall(stood, self.now))
        if self.controller is not None and not made._controller:
            # Another controller came while it stood still: its connection opens only now.
            self.card_does(card, made.on_connected(self.now))
        for output in self.frozen.pop(card, []):
            self.card_does(card, made.receive(output.message, self.now))

    # what they do

    def store(self, output: Persist | Append) -> str:
        """A write to the state folder; why it failed, or nothing."""
        if self.full:
            return "No space left on device"
        before = b"" if isinstance(output, Persist) else self.state.get(output.file, b"")
        self.state[output.file] = before + output.data
        return ""

    def store_log(self, output: WriteLog) -> str:
        """A write to the file of the log; why it failed, or nothing."""
        if self.full:
            return "No space left on device"
        before = b"" if output.whole else self.state.get(output.file, b"")
        self.state[output.file] = before + output.data
        return ""

    def perform(self, outputs: list[Output]) -> None:
        stored: list[tuple[str, str]] = []
        worked: list[tuple[int, FlashAnswer]] = []
        missing = False
        for output in outputs:
            if self.budget <= 0:
                raise Cut
            self.budget -= 1
            if isinstance(output, (Persist, Append)):
                error = self.store(output)
                missing = missing or bool(error)
                stored.append((output.file, error))
            elif isinstance(output, WriteLog):
                assert self.controller is not None
                self.controller.on_log_written(self.store_log(output), self.now)
            elif isinstance(output, ToFlash):
                worked.append((output.number, self.disk.work(output)))
            elif isinstance(output, ToCard):
                if not missing:
                    self.down.append(output)
            elif isinstance(output, ToLauncher):
                self.launcher.append(output)
            elif isinstance(output, ToOperator):
                self.answers.append(output)
            else:
                raise AssertionError(output)
        self.deliver()
        for file, error in stored:
            assert self.controller is not None
            self.perform(self.controller.on_stored(file, error, self.now))
        for number, answer in worked:
            assert self.controller is not None
            self.perform(self.controller.on_flash(number, answer, self.now))

    def deliver(self) -> None:
        while self.down:
            output = self.down.popleft()
            self.watch(output)
            message = codec.decode(codec.encode(output.message))
            assert message == output.message
            if isinstance(message, Delta):
                for record in message.put:
                    if isinstance(record, CardStateRecord):
                        assert record.epoch >= self.epochs.get(record.card, 0)
                        self.epochs[record.card] = record.epoch
            card = self.cards.get(output.card)
            if output.card in self.stopped:
                self.frozen.setdefault(output.card, []).append(output)
            elif card is not None:
                self.card_does(output.card, card.receive(output.message, self.now))

    def card_does(self, card: str, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToController):
                message = codec.decode(codec.encode(output.message))
                if self.controller is not None:
                    self.perform(self.controller.receive(card, message, self.now))
            elif isinstance(output, Exit):
                self.goodbyes.append((card, output.reason))
                self.cards.pop(card, None)
            elif isinstance(output, Perform) and self.controller is not None:
                reply = Reply(output.request.number, {"performed": output.request.name}, self.refusal)
                self.perform(self.controller.receive(card, reply, self.now))

    def run(self, seconds: float) -> None:
        """Let time pass: every timer of every process at its time."""
        end = self.now + seconds
        while True:
            wakes = [(made.next_timer(), name) for name, made in self.cards.items() if name not in self.stopped]
            if self.controller is not None:
                wakes.append((self.controller.next_timer(), ""))
            at, name = min(wakes, default=(inf, ""))
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            if name:
                self.card_does(name, self.cards[name].on_timer(self.now))
            else:
                assert self.controller is not None
                self.perform(self.controller.on_timer(self.now))

    def carrier_event(self, port: str, up: bool) -> None:
        name = f"lc {port.split('/')[0]}"
        card = self.cards[name]
        assert isinstance(card, FakeLineCard)
        (card.ports.add if up else card.ports.discard)(port)
        self.carrier[name] = set(card.ports)
        self.card_does(name, [ToController(PortEvent(port, up, "", 1000, b"\x02\0\0\0\0\1"))])

    # what can be asked

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command of an operator, answered at once or within the time that cards take."""
        assert self.controller is not None
        before = len(self.answers)
        self.perform(self.controller.on_operator_command(77, command, arguments, self.now))
        answer = self.answers[-1]
        assert len(self.answers) > before
        if answer.error:
            raise LookupError(answer.error)
        result: dict[str, Any] = answer.result
        return result

    def tunnel(self, name: str) -> dict[str, Any]:
        rows = [row for row in self.ask("status")["tunnels"] if row["name"] == name]
        assert len(rows) == 1, name
        return dict(rows[0])

    def card(self, name: str) -> dict[str, Any]:
        return dict(next(row for row in self.ask("status")["cards"] if row["card"] == name))

    def route(self, card: str, context: str, prefix: str) -> RouteRecord | None:
        """The route of a prefix as a card holds it."""
        assert self.controller is not None
        number = self.controller.node.plan.contexts[context]
        address, length = parse_prefix(prefix)
        record = self.cards[card].replica.records.get(("route", number, address, length))
        assert record is None or isinstance(record, RouteRecord)
        return record

    def hops(self, card: str, context: str, prefix: str) -> list[str]:
        """The next hops of a route on a card: a tunnel's name, a port, local or discard, in order."""
        assert self.controller is not None
        route = self.route(card, context, prefix)
        names = {number: name for name, number in self.controller.node.plan.by_name.items()}
        found = []
        plans = self.controller.node.plan.tunnels
        for hop in route.next_hops if route is not None else ():
            found.append(
                (names.get(hop.tunnel) or plans[hop.tunnel].label)
                if hop.kind == "tunnel"
                else hop.port or hop.kind
            )
        return found

    def circuits(self, card: str) -> dict[int, int]:
        """Tunnel to circuit, as a line card holds them."""
        records = self.cards[card].replica.records.values()
        return {r.tunnel: r.number for r in records if isinstance(r, CircuitRecord) and r.kind == "tunnel"}

    def keys_of(self, card: str) -> set[str]:
        return {str(key[1]) for key in self.cards[card].replica.records if key[0] == "manual-sa"}

    def events(self) -> list[str]:
        return [str(output.values["text"]) for output in self.launcher if output.request == "event"]


def sa(name: str, spi: int) -> str:
    return f"""
ipsec security-association {name}
  both
    esp authentication hmac-sha1-96 key 0x{spi:040x}
    esp encryption aes-128-cbc key 0x{spi:032x}
    esp spi {spi}
"""


HIGH_AVAILABILITY = (
    """
card ase 2
card ge-10-port 3
card ge-10-port 4
asp pool P1 service security
  asp 2/1
asp group G1
  pool P1
asp pool P2 service security
  asp 2/2
asp group G2
  pool P2
context C1
  interface TI-1
    ip address 192.168.2.1/30
  interface TI-2
    ip address 192.168.3.1/30
  interface private-interface
    ip address 172.168.2.1/24
  ipsec access-list acl-C1
    seq 10 172.168.2.0/24 172.168.3.0/24
  ip route 172.168.3.0/24 TI-1 cost 5
  ip route 172.168.3.0/24 TI-2 cost 10
context L1
  interface Tun-1-Local loopback
    ip address 1.1.1.1/32
  interface peer-1
    ip address 4.4.4.1/24
  asp-group G1 service security
  ip route 3.3.3.3/32 4.4.4.4
context L2
  interface Tun-2-Local loopback
    ip address 2.2.2.2/32
  interface peer-2
    ip address 5.5.5.1/24
  asp-group G2 service security
  ip route 3.3.3.4/32 5.5.5.5
tunnel ipsec Tun-1 manual
  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1
  bind interface TI-1 C1
  seq 10 security-association sa-1 access-group acl-C1
tunnel ipsec Tun-2 manual economical
  peer-end-point local 2.2.2.2 remote 3.3.3.4 context L2
  bind interface TI-2 C1
  seq 10 security-association sa-2 access-group acl-C1
port ethernet 3/1
  no shutdown
  bind interface private-interface C1
port ethernet 3/11
  no shutdown
  bind interface peer-1 L1
port ethernet 4/1
  no shutdown
  bind interface peer-2 L2
"""
    + sa("sa-1", 301)
    + sa("sa-2", 302)
).replace("ge-10-port 3", "ether-12-port 3")

HA_PORTS = ("3/1", "3/11", "4/1")


def booted(text: str = HIGH_AVAILABILITY, *carrier: str) -> Node:
    """A router whose controller and cards are up; these ports, or those of the text, have a far end."""
    node = Node(text)
    node.boot_all(*(carrier or HA_PORTS))
    return node


TWO_WAYS = (
    HIGH_AVAILABILITY.replace(
        "  ip route 3.3.3.3/32 4.4.4.4\n",
        "  ip route 3.3.3.3/32 4.4.4.4 cost 5\n  ip route 3.3.3.3/32 6.6.6.6 cost 10\n"
        "  interface peer-3\n    ip address 6.6.6.1/24\n",
    )
    + "port ethernet 4/2\n  no shutdown\n  bind interface peer-3 L1\n"
)
