"""The engine of a node of peers: thousands of remote peers that set up tunnels with one gateway.

It is a pure state machine around one IKE engine, of which each peer is a connection. Only a sample of the peers
has a data engine (`chassis.peers.traffic`): the CHILD SAs of the others exist for both ends' IKE alone. In: frames
of the port, commands of operators, time. Out: `Output` values in the order in which they must be carried out.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import Configure, FromIke, IkeLog, IkePacket, IkeTunnelState, ToIke
from chassis.ase.nat_traversal import KEEPALIVE, NETWORK_CONTROL, NON_ESP_MARKER
from chassis.bus import requests
from chassis.bus.arguments import ArgumentError, fault, given, named, read, refusal
from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, Perform, ToOperator, ToWire
from chassis.bus.messages import Request
from chassis.bus.records import Key, Record
from chassis.fwd.reassembly import Reassembler
from chassis.net.address import format_address
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM, header, padded
from chassis.net.fragments import fragment
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_ESP, PROTOCOL_UDP, Ipv4
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH, Udp
from chassis.peers.churn import Churn
from chassis.peers.measurements import SetupMeasurements
from chassis.peers.nat import Nat
from chassis.peers.parking import ParkedPeers
from chassis.peers.report import MAX_LOG, report
from chassis.peers.spec import OUTER, PeersSpec, read_spec
from chassis.peers.traffic import SampleTraffic
from chassis.tester.host import TesterHost, frames_batch

MTU = 1500
"""Longest packet (octets); longer ones of IKE leave in fragments."""


class PeersError(Exception):
    """The keys of the node are wrong, or a command cannot be carried out. The text goes to the operator."""


class PeersEngine:
    """The peers of one node, behind one port.

    Raises:
        PeersError: the keys of the node are wrong.
    """

    performs = frozenset({"link", "inject", "capture", "capture-stop"})
    """Commands that the shell carries out."""

    def __init__(
        self,
        node: str,
        *,
        ports: Mapping[str, Mapping[str, Any]],
        peers: Mapping[str, Any],
        random: Callable[[int], bytes],
        settings: Mapping[str, Any] | None = None,
        counters: Counters | None = None,
        part: int | None = None,
        wall: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`ports` has the one port, `peers` the keys of `chassis.peers.spec`; `random(n)` returns n octets.

        `part` is the index of a process of the node, whose peers these are; None: these are all peers. `wall()` is
        the time of day (s since 1970), by which certificates are checked.
        """
        self.node = node
        self.counters = Counters() if counters is None else counters
        spec, problems = read_spec(peers)
        if spec is None or len(ports) != 1:
            raise PeersError("; ".join(text for _, text in problems) or f"{node} has {len(ports)} ports, not one")
        self.spec: PeersSpec = spec if part is None else spec.split()[part]
        spec = self.spec
        self._settings = dict(settings or {})
        ((self._port, values),) = ports.items()
        self._host = TesterHost(node, self._port, values)
        self._wall = wall
        self._fragments = Reassembler()
        self._nat = Nat(spec.outer_addresses()[0], spec.count, spec.nat, spec.address(1)) if spec.nat else None
        self._ike = IkeEngine(node, random=random)
        self._parked = ParkedPeers(spec, self._ike.parking)
        self.setups = SetupMeasurements(spec.count)
        self.traffic = None if spec.traffic is None else SampleTraffic(spec, spec.traffic, "", random)
        self._work: deque[int] = deque()
        """Peers that are still to begin, or to go, in order."""
        self._begins = True
        """Whether `_work` is of those to begin."""
        self._due = inf
        self._rate = spec.rate
        self._churn = Churn()
        self._started = spec.auto
        self._identification = int.from_bytes(random(2), "big")
        self._log: deque[str] = deque(maxlen=MAX_LOG)
        self._commands: dict[str, Callable[[dict[str, Any], float], list[bytes]]] = {
            "start": self._start,
            "churn": self._come_and_go,
            "stop": self._stop,
            "down": self._down,
            "status": lambda arguments, now: [],
        }

    # calls of the shell

    def start(self, now: float) -> list[Output]:
        """Configure what all peers share; they begin when the gateway of the port is known."""
        frames = self._carry_out(self._ike.start(now), now)
        shared = Configure(self.spec.shared_records(), full=True, settings=self._settings)
        frames += self._carry_out(self._ike.receive(shared, now, self._wall()), now)
        if self.traffic is not None:
            self.traffic.apply_settings(self._settings)
        if self._started:
            self._begin(now)
        return self._to_wire(frames)

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """The wire of the port came up or went down."""
        return self._to_wire([*self._host.on_carrier(up), *self._host.on_timer(now)])

    def on_congestion(self, port: str, full: bool, now: float) -> None:
        """The wire takes no more packets, or takes them again. IKE repeats what was lost."""

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Hand datagrams of IKE to it, ESP to the data engine; answer ARP and echo requests; count all others."""
        answers: list[bytes] = []
        protected: list[bytes] = []
        for view in batch.packets():
            frame = self._whole(bytes(view), now)
            if frame is None:
                continue
            if frame[12:14] == b"\x08\x06":
                answers += self._host.on_arp(frame, now)
            elif (
                frame[12:14] != b"\x08\x00"
                or frame[:6] != self._host.mac
                or len(frame) < HEADROOM + IPV4_HEADER_LENGTH
            ):
                self.counters.add("unexpected frames")
            else:
                if self._nat is not None:
                    packet = self._nat.inward(frame[HEADROOM:])
                    if packet is None:
                        answers += self._receive_other(frame)
                        continue
                    frame = frame[:HEADROOM] + packet
                if self.traffic is not None and self._is_protected(frame):
                    protected.append(frame)
                else:
                    answers += self._receive_ipv4(frame, now)
        if self.traffic is not None and protected:
            body, lengths = b"".join(protected), array("H", map(len, protected))
            answers += self._carry_out_traffic(self.traffic.receive(body, lengths, now), now)
        return self._to_wire(answers)

    def on_operator_command(self, number: int, command: Any, arguments: Any, now: float) -> list[Output]:
        """Check an operator's command against `chassis.bus.requests` and run it. Every command is answered."""
        try:
            values = read(named(requests.PEERS, command, "a node of peers"), arguments)
            if command in self.performs:
                return [Perform(Request(number, command, given(values)))]
            frames = self._commands[command](values, now)
        except ArgumentError as error:
            return [ToOperator(number, {}, refusal(command, error))]
        except Exception as error:
            # An error of this program: report it to the operator and continue.
            return [ToOperator(number, {}, f"{command}: {fault(error)}")]
        return [*self._to_wire(frames), ToOperator(number, self.report(now))]

    def on_timer(self, now: float) -> list[Output]:
        """Begin or end the peers that are due; return what IKE and ARP send."""
        frames: list[bytes] = []
        if self._host.next_timer() <= now:
            frames += self._host.on_timer(now)
        self._parked.unpark_due(now)
        if self._ike.next_timer() <= now:
            frames += self._carry_out(self._ike.on_timer(now), now)
        if self._next_due() <= now:
            frames += self._change_due(now)
        self._fragments.on_timer(now)
        if self._churn.next_timer() <= now:
            frames += self._churn_due(now)
        self._parked.park_resting(now)
        if self.traffic is not None and self.traffic.next_timer() <= now:
            frames += self._carry_out_traffic(self.traffic.on_timer(now), now)
        return self._to_wire(frames)

    def next_timer(self) -> float:
        """Return the time of the next `on_timer`."""
        traffic = inf if self.traffic is None else self.traffic.next_timer()
        ike = min(self._ike.next_timer(), self._parked.next_timer())
        own = min(self._next_due(), self._churn.next_timer(), traffic, self._fragments.next_timer())
        return min(self._host.next_timer(), ike, own)

    def report(self, now: float) -> dict[str, Any]:
        """Return how many peers are up, the set-ups a second, their latencies, and failures by cause."""
        return report([self.counts(now)])

    def counts(self, now: float) -> dict[str, Any]:
        """Return what was counted, for a report of one process or of several (`chassis.peers.report`)."""
        return {
            "now": now,
            "state": self._state(),
            "towards": ", ".join([format_address(address) for address in self.spec.gateways]),
            "waiting": len(self._work),
            "ike_sas": len(self._ike.ike_sa_manager.table.by_spi) + len(self._parked),
            "parked": len(self._parked),
            **self.setups.counts(),
            **({} if self.traffic is None else {"traffic": self.traffic.counts(now)}),
            "ike": dict(self._ike.ike_sa_manager.statistics.total),
            "log": list(self._log),
        }

    # peers that begin and go

    def _state(self) -> str:
        if self._work:
            if not self._gateway:
                return "waiting for the gateway of the port"
            return "starting" if self._begins else "going down"
        if self._churn.active:
            return "coming and going"
        return "running" if self.setups.wanted else "stopped"

    def _numbers(self, *, wanted: bool) -> Iterable[int]:
        return (number for number, peer in enumerate(self.setups.peers, 1) if peer.wanted == wanted)

    def _begin(self, now: float) -> None:
        if not self.setups.wanted:
            self.setups.reset()
            if self.traffic is not None:
                self.traffic.reset()
        self._work, self._begins, self._due = deque(self._numbers(wanted=False)), True, now

    def _start(self, arguments: dict[str, Any], now: float) -> list[bytes]:
        self._rate = arguments["rate"] or self.spec.rate
        self._churn.stop()
        self._begin(now)
        return []

    def _come_and_go(self, arguments: dict[str, Any], now: float) -> list[bytes]:
        self._churn.start(arguments["rate"], arguments["away"], now)
        return []

    def _stop(self, arguments: dict[str, Any], now: float) -> list[bytes]:
        self._churn.stop()
        self._work.clear()
        return []

    def _down(self, arguments: dict[str, Any], now: float) -> list[bytes]:
        self._churn.stop()
        self._work, self._begins, self._due = deque(self._numbers(wanted=True)), False, now
        return []

    @property
    def _gateway(self) -> bytes:
        """The MAC address of the next hop to the gateway of the tunnels; empty while it is unknown."""
        return self._mac(self.spec.gateways[0])

    def _mac(self, remote: int) -> bytes:
        hop = self._host.next_hop(remote)
        return self._host.resolve(hop) if hop else b""

    def _next_due(self) -> float:
        if not self._work or (self._begins and self.setups.on_the_way >= self.spec.at_once):
            return inf
        return self._due if self._gateway else inf

    def _change_due(self, now: float) -> list[bytes]:
        # After a stall, or a long wait for the gateway, the peers of one second at most are due at once.
        self._due = max(self._due, now - 1.0)
        begin: list[int] = []
        end: list[int] = []
        while self._next_due() <= now:
            number = self._work.popleft()
            self._due += 1.0 / self._rate
            self.setups.on_wanted(number, self._begins)
            (begin if self._begins else end).append(number)
        return self._change(begin, end, now)

    def _churn_due(self, now: float) -> list[bytes]:
        back = self._churn.pop_back(now)
        going = self._churn.pop_going(self.setups, now)
        for numbers, wanted in ((back, True), (going, False)):
            for number in numbers:
                self.setups.on_wanted(number, wanted)
        return self._change(back, going, now)

    def _change(self, begin: Iterable[int], end: Iterable[int], now: float) -> list[bytes]:
        """Have peers begin, and others go; return the frames."""
        put: list[Record] = []
        delete: list[Key] = []
        for number in begin:
            put += self.spec.records(number)
            if self.traffic is not None:
                self.traffic.begin(number)
        for number in end:
            self._parked.unpark(number, now)
            self._parked.on_down(number)
            delete += self.spec.keys(number)
            if self.traffic is not None:
                self.traffic.end(number)
        return self._carry_out(self._ike.receive(Configure(tuple(put), tuple(delete)), now, self._wall()), now)

    # IKE

    def _carry_out(self, messages: Iterable[FromIke], now: float) -> list[bytes]:
        """Act on what IKE says; return the frames to send."""
        frames: list[bytes] = []
        traffic = self.traffic
        work = deque(messages)
        while work:
            message = work.popleft()
            if traffic is not None:
                for answer in traffic.from_ike(message, now):
                    work += self._ike.receive(answer, now, self._wall())
            if isinstance(message, IkePacket):
                self.setups.on_sent(self.spec.number(message.local), now)
                frames += self._frame(message)
            elif isinstance(message, IkeTunnelState):
                self.setups.on_state(message.tunnel, message.up, message.reason, now)
                if not message.up:
                    self._parked.on_down(message.tunnel)
                elif traffic is None or not traffic.has(message.tunnel):
                    self._parked.on_up(message.tunnel, now)
            elif isinstance(message, IkeLog):
                self._log.append(message.record.text)
        return frames

    def _carry_out_traffic(self, made: tuple[list[bytes], list[ToIke]], now: float) -> list[bytes]:
        packets, messages = made
        frames: list[bytes] = []
        for packet in packets:
            frames += self._to_frame(packet, self._gateway)
        self.counters.add("protected packets sent", len(frames))
        for message in messages:
            frames += self._carry_out(self._ike.receive(message, now, self._wall()), now)
        return frames

    @staticmethod
    def _is_protected(frame: bytes) -> bool:
        """Return whether a frame has ESP for a peer, or ESP in UDP (RFC 3948 2.1)."""
        if frame[HEADROOM + 9] == PROTOCOL_ESP:
            return True
        start = HEADROOM + 4 * (frame[HEADROOM] & 15)
        return (
            frame[HEADROOM + 9] == PROTOCOL_UDP
            and frame[start + 2 : start + 4] == NAT_PORT.to_bytes(2, "big")
            and len(frame) > start + UDP_HEADER_LENGTH + len(NON_ESP_MARKER)
            and frame[start + UDP_HEADER_LENGTH : start + UDP_HEADER_LENGTH + 4] != NON_ESP_MARKER
        )

    def _frame(self, message: IkePacket) -> list[bytes]:
        mac = self._mac(message.remote)
        data = message.data
        if message.local_port == NAT_PORT:
            data = NON_ESP_MARKER + data if data else KEEPALIVE
        self._identification = self._identification + 1 & 0xFFFF
        packet = Ipv4(
            message.local,
            message.remote,
            PROTOCOL_UDP,
            Udp(message.local_port, message.remote_port, data).emit((message.local, message.remote)),
            tos=NETWORK_CONTROL,
            identification=self._identification,
        ).emit()
        frame = self._to_frame(packet, mac)
        self.counters.add("datagrams sent", bool(frame))
        return frame

    def _to_frame(self, packet: bytes, mac: bytes) -> list[bytes]:
        """Return the frame of a packet on the wire, outside the NAT if any; none for one that cannot go."""
        outside = packet if self._nat is None else self._nat.outward(packet)
        if not mac or outside is None:
            self.counters.add(f"datagrams {'refused by the nat' if mac else 'without a next hop'}")
            return []
        pieces = [outside]
        if len(outside) > MTU:
            pieces = [piece.emit() for piece in fragment(Ipv4.parse(outside), MTU)]
        return [padded(header(mac, self._host.mac) + piece) for piece in pieces]

    def _whole(self, frame: bytes, now: float) -> bytes | None:
        """Return a frame, with the whole packet if it has its last fragment; None while other ones are missing."""
        if (
            frame[12:14] != b"\x08\x00"
            or len(frame) < HEADROOM + IPV4_HEADER_LENGTH
            or not int.from_bytes(frame[HEADROOM + 6 : HEADROOM + 8], "big") & 0x3FFF
        ):
            return frame
        self.counters.add("fragments received")
        try:
            whole = self._fragments.add(OUTER, Ipv4.parse(frame[HEADROOM:], padding=True), now)
        except DecodeError:
            return frame
        return frame[:HEADROOM] + whole[0].emit() if whole is not None else None

    def _receive_ipv4(self, frame: bytes, now: float) -> list[bytes]:
        try:
            packet = Ipv4.parse(frame[HEADROOM:], padding=True)
            if packet.protocol != PROTOCOL_UDP or packet.more_fragments or packet.offset:
                return self._receive_other(frame)
            udp = Udp.parse(packet.payload, (packet.source, packet.destination))
        except DecodeError:
            self.counters.add("unexpected malformed")
            return []
        data = udp.payload
        if udp.destination_port == NAT_PORT:
            if not data.startswith(NON_ESP_MARKER):
                return self._receive_other(frame)
            data = data[len(NON_ESP_MARKER) :]
        number = self.spec.number(packet.destination)
        if not data or udp.destination_port not in (IKE_PORT, NAT_PORT) or not number:
            return self._receive_other(frame)
        self.counters.add("datagrams received")
        message = IkePacket(OUTER, packet.destination, udp.destination_port, packet.source, udp.source_port, data)
        answer = self._parked.answer(number, message, now)
        if answer is not None:
            return self._frame(answer)
        self._parked.unpark(number, now)
        return self._carry_out(self._ike.receive(message, now, self._wall()), now)

    def _receive_other(self, frame: bytes) -> list[bytes]:
        answer = self._host.on_echo_request(frame)
        if answer is None:
            self.counters.add("unexpected packets")
        return answer or []

    def _to_wire(self, frames: list[bytes]) -> list[Output]:
        return [ToWire(self._port, frames_batch(frames))] if frames else []
