"""The tester's engine: hosts on its ports, sources and sinks of numbered flows, and their statistics.

It is a pure state machine. In: frames of the ports, commands of operators, time. Out: `Output` values in the order
in which they must be carried out.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any

from chassis.bus import requests
from chassis.bus.arguments import ArgumentError, fault, given, named, read, refusal
from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, Perform, ToOperator, ToWire
from chassis.bus.messages import Request
from chassis.fwd.reassembly import Reassembler
from chassis.net import ipv4
from chassis.net.columns import MIN_PACKETS, Columns, runs
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM
from chassis.tester.flow import MAGIC, MAX_RATE, UDP_PORT, Flow, FlowError, describe_flow, parse_flow
from chassis.tester.host import TesterHost, frames_batch
from chassis.tester.results import combine
from chassis.tester.sink import Sink
from chassis.tester.source import Source

MAX_STAMPS = 16_384
MAX_LEAKS = 50
MAX_FLOWS = 10_000
REASSEMBLY_TIMEOUT = 2.0
"""Time (s) until the fragments of a packet must be complete. IPv4 identifications are reused quickly here."""
MAX_REASSEMBLIES = 1024
"""Packets of one port that wait for fragments."""
_FLOW_AT = HEADROOM + 28 + len(MAGIC)


class _FlowEnd:
    """The end of a flow at this tester: its source, its sink, or both."""

    __slots__ = ("flow", "received", "sent", "sink", "source", "token")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.source: Source | None = None
        self.sink: Sink | None = None
        self.token = 0
        self.sent = self.received = 0


class TesterEngine:
    """A tester. `ports` and `flows` are plain values of the lab; flows between other testers are ignored.

    A trace number contains 16 bits of `settings["tester-id"]`, or of the node's name, and 8 bits of the boot
    number.

    Raises:
        FlowError: a flow of the lab is not valid.
    """

    performs = frozenset({"link", "inject", "capture", "capture-stop"})
    """Commands that the shell carries out."""

    def __init__(
        self,
        node: str,
        *,
        ports: Mapping[str, Mapping[str, Any]],
        flows: Mapping[str, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        counters: Counters | None = None,
        boot: int = 1,
    ) -> None:
        self.node = node
        self.boot = boot
        self.counters = Counters() if counters is None else counters
        self._hosts = {port: TesterHost(node, port, values) for port, values in ports.items()}
        self._reassembly = {port: Reassembler(REASSEMBLY_TIMEOUT, MAX_REASSEMBLIES) for port in ports}
        self._ends: dict[str, _FlowEnd] = {}
        self._sinks: dict[int, _FlowEnd] = {}
        self._waiting: dict[str, _FlowEnd] = {}
        self._heap: list[tuple[float, str, int]] = []
        self._stamps: deque[tuple[int, str, float]] = deque(maxlen=MAX_STAMPS)
        self._traced: dict[int, str] = {}
        self._leaks: deque[dict[str, Any]] = deque(maxlen=MAX_LEAKS)
        self._unexpected: dict[str, int] = {}
        ident = (settings or {}).get("tester-id")
        high = int(ident) if ident is not None else zlib.crc32(node.encode())
        self._trace = (high & 0xFFFF) << 32 | (boot & 0xFF) << 24
        self._commands: dict[str, Callable[[dict[str, Any], float], tuple[dict[str, Any], list[Output]]]] = {
            "start": self._start,
            "stop": self._stop,
            "define": self._define,
            "flows": self._flows,
            "status": self._flows,
            "traces": self._traces,
        }
        for name, values in (flows or {}).items():
            self._add_flow(parse_flow(name, values))

    # calls of the shell

    def start(self, now: float) -> list[Output]:
        """Start the flows with `auto`."""
        for end in self._ends.values():
            if end.source is not None and end.flow.auto:
                self._start_source(end, now)
        return self._start_waiting_flows(now)

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """The wire of a port came up or went down."""
        host = self._hosts.get(port)
        if host is None:
            return []
        return [*_to_wire(port, host.on_carrier(up)), *_to_wire(port, host.on_timer(now))]

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Count the frames of a flow; answer ARP and echo requests; count all others as unexpected."""
        body = batch.body
        end = self._sinks.get(int.from_bytes(body[_FLOW_AT : _FLOW_AT + 4], "big"))
        sink = end.sink if end is not None and end.flow.to_port == port else None
        if end is None or sink is None or not sink.receive_batch(batch, int(now * 1e9)):
            return self._receive_mixed(port, batch, now)
        self.counters.values[end.received] += len(batch.lengths)
        for _, number in batch.marks:
            self._stamps.append((number, f"{self.node}:{port} in", now))
        return []

    def on_operator_command(self, number: int, command: Any, arguments: Any, now: float) -> list[Output]:
        """Check an operator's command against `chassis.bus.requests` and run it. Every command is answered."""
        try:
            values = read(named(requests.TESTER, command, "a tester"), arguments)
            if command in self.performs:
                return [Perform(Request(number, command, given(values)))]
            result, outputs = self._commands[command](values, now)
        except FlowError as error:
            return [ToOperator(number, {}, str(error))]
        except ArgumentError as error:
            return [ToOperator(number, {}, refusal(command, error))]
        except Exception as error:
            # An error of this program: report it to the operator and continue.
            return [ToOperator(number, {}, f"{command}: {fault(error)}")]
        return [*outputs, ToOperator(number, result)]

    def on_congestion(self, port: str, full: bool, now: float) -> None:
        """The wire of a port accepts no more packets (`full`), or accepts them again."""
        for end in self._ends.values():
            if end.source is not None and end.flow.from_port == port:
                end.source.congested = full
                if not full:
                    self._schedule(end)

    def on_timer(self, now: float) -> list[Output]:
        """Return the packets and ARP requests that are due."""
        outputs: list[Output] = []
        for port, host in self._hosts.items():
            if host.next_timer() <= now:
                outputs += _to_wire(port, host.on_timer(now))
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now:
            _, name, token = heappop(heap)
            end = self._ends.get(name)
            if end is not None and end.token == token:
                due.append(end)
        for end in due:
            outputs += self._send(end, now)
            self._schedule(end)
        return outputs

    def next_timer(self) -> float:
        """Return the time of the next `on_timer`."""
        first = self._heap[0][0] if self._heap else inf
        for host in self._hosts.values():
            first = min(first, host.next_timer())
        return first

    # sending

    def _send(self, end: _FlowEnd, now: float) -> list[Output]:
        source, flow = end.source, end.flow
        assert source is not None
        host = self._hosts[flow.from_port]
        mac = host.resolve(host.next_hop(flow.destination))
        trace = 0
        if source.wants_trace(now):
            self._trace += 1
            trace = self._trace
            self._traced[trace] = flow.name
            if len(self._traced) > MAX_STAMPS:
                del self._traced[next(iter(self._traced))]
        before = source.sent
        batches = source.send(mac, host.mac, trace, now)
        if not batches:
            return []
        self.counters.values[end.sent] += source.sent - before
        if batches[0].marks:
            self._stamps.append((trace, f"{self.node}:{flow.from_port} out", now))
        port = flow.from_port
        return [ToWire(port, batch) for batch in batches]

    def _schedule(self, end: _FlowEnd) -> None:
        assert end.source is not None
        next_timer = end.source.next_timer()
        end.token += 1
        if next_timer < inf:
            heappush(self._heap, (next_timer, end.flow.name, end.token))

    def _start_source(
        self, end: _FlowEnd, now: float, rate: float | None = None, count: int | None = None
    ) -> None:
        assert end.source is not None
        end.source.start(now, rate, count)
        self._waiting[end.flow.name] = end

    def _start_waiting_flows(self, now: float) -> list[Output]:
        """Start the waiting flows whose next hop is resolved; send ARP requests for the others."""
        outputs: list[Output] = []
        for name, end in list(self._waiting.items()):
            source, host = end.source, self._hosts[end.flow.from_port]
            assert source is not None
            hop = host.next_hop(end.flow.destination)
            if source.state != "waiting":
                del self._waiting[name]
            elif not hop:
                source.reason = f"port {end.flow.from_port} has no gateway for the destination"
            elif host.resolve(hop):
                del self._waiting[name]
                source.on_next_hop_resolved(now)
                outputs += self._send(end, now)
                self._schedule(end)
            elif host.up:
                outputs += _to_wire(end.flow.from_port, host.on_timer(now))
        return outputs

    # receiving

    def _receive_mixed(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Handle a batch that is not of one flow alone: packets of one flow in a row together, others one by
        one."""
        body, lengths = batch.body, batch.lengths
        if len(lengths) < MIN_PACKETS or batch.marks or min(lengths) < _FLOW_AT + 4:
            return self._receive_one_by_one(port, batch, now)
        columns = Columns(body, lengths)
        numbers = columns.numbers(_FLOW_AT, 4)
        parts = runs((numbers[1:] != numbers[:-1]) | (columns.lengths[1:] != columns.lengths[:-1]))
        if len(parts) == 1:
            return self._receive_one_by_one(port, batch, now)
        view, starts = memoryview(body), [*columns.starts.tolist(), len(body)]
        outputs: list[Output] = []
        for first, last in parts:
            part = Batch(batch.step, view[starts[first] : starts[last]], lengths[first:last])
            end = self._sinks.get(int(numbers[first]))
            sink = end.sink if end is not None and end.flow.to_port == port else None
            if end is None or sink is None:
                outputs += self._receive_one_by_one(port, part, now)
                continue
            before = sink.tracker.received, sink.boot
            if sink.receive_batch(part, int(now * 1e9)):
                known = before[0] if before[1] == sink.boot else 0
                self.counters.values[end.received] += sink.tracker.received - known
            else:
                outputs += self._receive_one_by_one(port, part, now)
        return outputs

    def _receive_one_by_one(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Handle frames one by one: those of no flow, of several flows in one batch, and unexpected ones."""
        host = self._hosts.get(port)
        if host is None:
            return []
        frames: list[bytes] = []
        learned = False
        marks = dict(batch.marks)
        for index, view in enumerate(batch.packets()):
            frame = bytes(view)
            kind = frame[12:14]
            if kind == b"\x08\x06":
                frames += host.on_arp(frame, now)
                learned = True
            elif kind != b"\x08\x00":
                self._count_unexpected(port, "not IPv4", frame, now)
            elif frame[:6] not in (host.mac, b"\xff" * 6):
                self._count_unexpected(port, "other MAC address", frame, now)
            else:
                answer = self._ipv4(port, host, frame, now)
                if answer:
                    frames += answer
                if index in marks:
                    self._stamps.append((marks[index], f"{self.node}:{port} in", now))
        outputs = _to_wire(port, frames)
        if learned and self._waiting:
            outputs += self._start_waiting_flows(now)
        return outputs

    def _ipv4(self, port: str, host: TesterHost, frame: bytes, now: float) -> list[bytes] | None:
        size = len(frame) - HEADROOM
        total = frame[HEADROOM + 2] << 8 | frame[HEADROOM + 3] if size >= ipv4.IPV4_HEADER_LENGTH else 0
        if not ipv4.IPV4_HEADER_LENGTH <= total <= size:
            self._count_unexpected(port, "short", frame, now)
            return None
        packet = frame[HEADROOM : HEADROOM + total]
        if (packet[6] & 0x3F) or packet[7]:
            try:
                whole = self._reassembly[port].add(0, ipv4.Ipv4.parse(packet), now)
            except DecodeError:
                self._count_unexpected(port, "malformed fragment", frame, now)
                return None
            if whole is None:
                return None
            packet = whole[0].emit()
        protocol = packet[9]
        if protocol == ipv4.PROTOCOL_UDP:
            self._udp(port, packet, frame, now)
            return None
        if protocol == ipv4.PROTOCOL_ICMP:
            answer = host.on_echo_request(frame)
            if answer is None:
                kind = f"{packet[20]}/{packet[21]}" if len(packet) >= 22 else "short"
                self._unexpected[f"icmp {kind}"] = self._unexpected.get(f"icmp {kind}", 0) + 1
            return answer
        self._count_unexpected(port, f"protocol {protocol}", frame, now)
        return None

    def _udp(self, port: str, packet: bytes, frame: bytes, now: float) -> None:
        end = None
        if packet[28:36] == MAGIC:
            end = self._sinks.get(int.from_bytes(packet[36:40], "big"))
            if end is None:
                self._count_unexpected(port, "flow of another tester", frame, now)
                return
        elif packet[22:24] == UDP_PORT.to_bytes(2, "big"):
            # The payload is damaged; the addresses and ports still identify the flow.
            ends = packet[12:24]
            for other in self._sinks.values():
                if other.sink is not None and other.sink.template.has_ends(ends):
                    end = other
        if end is None or end.sink is None:
            self._count_unexpected(port, "unknown UDP", frame, now)
        elif end.flow.to_port != port:
            self._count_unexpected(port, f"flow {end.flow.name} at the wrong port", frame, now)
        else:
            outcome = end.sink.receive_packet(packet, int(now * 1e9))
            if outcome == "received":
                self.counters.values[end.received] += 1
            elif outcome == "corrupted":
                self._count_unexpected(port, f"flow {end.flow.name} corrupted", frame, now)

    def _count_unexpected(self, port: str, why: str, frame: bytes, now: float) -> None:
        self._unexpected[why] = self._unexpected.get(why, 0) + 1
        self.counters.add(f"unexpected {why}")
        self._leaks.append({"time": now, "port": port, "why": why, "bytes": frame[:128].hex()})

    # operators

    def _add_flow(self, flow: Flow) -> _FlowEnd | None:
        if self.node not in (flow.from_node, flow.to_node):
            return None
        for node, port in ((flow.from_node, flow.from_port), (flow.to_node, flow.to_port)):
            if node == self.node and port not in self._hosts:
                raise FlowError(f"{node} has no port {port!r}: it has {', '.join(self._hosts)}")
        other = self._sinks.get(flow.number)
        if other is not None and other.flow.name != flow.name:
            raise FlowError(f"flows {flow.name} and {other.flow.name} have the same number: rename one")
        end = _FlowEnd(flow)
        known = self._ends.get(flow.name)
        if known is not None:
            end.token = known.token + 1
        if flow.from_node == self.node:
            end.source = Source(flow, self.boot)
            if known is not None and known.source is not None:
                # Use new numbers, as another process would.
                end.source.numbering = (known.source.numbering | 0xFFFF) + 1
            end.sent = self.counters.slot(f"flow {flow.name} sent")
            self._hosts[flow.from_port].answer_for([flow.source])
        if flow.to_node == self.node:
            end.sink = Sink(flow, self._hosts[flow.to_port].mac)
            end.received = self.counters.slot(f"flow {flow.name} received")
            self._hosts[flow.to_port].answer_for(flow.targets)
            self._sinks[flow.number] = end
        self._ends[flow.name] = end
        return end

    def _find_ends(self, arguments: Mapping[str, Any], *, sources: bool) -> list[_FlowEnd]:
        name = arguments["flow"]
        if name is None:
            return [end for end in self._ends.values() if end.source is not None or not sources]
        end = self._ends.get(name)
        if end is None:
            raise FlowError(f"{self.node} has no flow {name!r}: it has {', '.join(self._ends) or 'none'}")
        if sources and end.source is None:
            raise FlowError(f"flow {name} begins at {end.flow.from_node}, not at {self.node}")
        return [end]

    def _start(self, arguments: dict[str, Any], now: float) -> tuple[dict[str, Any], list[Output]]:
        rate, count = arguments["rate"], arguments["count"]
        started = self._find_ends(arguments, sources=True)
        for end in started:
            if end.source is not None and end.source.state not in ("running", "waiting"):
                self._start_source(end, now, MAX_RATE if rate == "max" else rate, count)
        return {"started": [end.flow.name for end in started], "time": now}, self._start_waiting_flows(now)

    def _stop(self, arguments: dict[str, Any], now: float) -> tuple[dict[str, Any], list[Output]]:
        stopped = self._find_ends(arguments, sources=True)
        for end in stopped:
            if end.source is not None:
                end.source.stop()
                end.token += 1
                self._waiting.pop(end.flow.name, None)
        return {"stopped": [end.flow.name for end in stopped], "time": now}, []

    def _define(self, arguments: dict[str, Any], now: float) -> tuple[dict[str, Any], list[Output]]:
        name = arguments["flow"]
        if not name or (name not in self._ends and len(self._ends) >= MAX_FLOWS):
            raise FlowError("a flow needs a name" if not name else f"{MAX_FLOWS} flows are there already")
        flow = parse_flow(name, arguments["spec"])
        self._waiting.pop(name, None)
        end = self._add_flow(flow)
        if end is None:
            return {"defined": False, "time": now}, []
        if end.source is not None and flow.auto:
            self._start_source(end, now)
        return {"defined": True, "time": now}, self._start_waiting_flows(now)

    def _flows(self, arguments: dict[str, Any], now: float) -> tuple[dict[str, Any], list[Output]]:
        begin, until = arguments["since"], inf if arguments["until"] is None else arguments["until"]
        window = (int(begin * 1e9) - (begin <= 0), (1 << 62) if until > 4e9 else int(until * 1e9))
        flows: dict[str, Any] = {}
        for end in self._find_ends(arguments, sources=False):
            source = None if end.source is None else end.source.statistics(now)
            sink = None if end.sink is None else end.sink.statistics(*window)
            flows[end.flow.name] = {"flow": describe_flow(end.flow), "source": source, "sink": sink}
            if source is not None and sink is not None:
                auto = end.flow.auto
                flows[end.flow.name]["result"] = combine(source, sink, auto=auto, begin=begin, end=until)
        ports = {
            port: {
                "up": host.up,
                "mac": host.mac.hex(":"),
                "gateway": host.resolve(host.gateway).hex(":") if host.gateway else "",
            }
            for port, host in self._hosts.items()
        }
        unexpected = dict(self._unexpected)
        for reassembly in self._reassembly.values():
            reassembly.on_timer(now)
            if reassembly.lost:
                unexpected["incomplete fragments"] = unexpected.get("incomplete fragments", 0) + reassembly.lost
        return {
            "now": now,
            "ports": ports,
            "flows": flows,
            "unexpected": unexpected,
            "unexpected_packets": list(self._leaks),
        }, []

    def _traces(self, arguments: dict[str, Any], now: float) -> tuple[dict[str, Any], list[Output]]:
        found: dict[int, list[dict[str, Any]]] = {}
        since = arguments["since"]
        for number, step, time in self._stamps:
            if time >= since:
                found.setdefault(number, []).append({"step": step, "time": time})
        traces = [
            {"number": number, "flow": self._traced.get(number, ""), "stamps": stamps}
            for number, stamps in found.items()
        ]
        return {"now": now, "traces": traces}, []


def _to_wire(port: str, frames: list[bytes]) -> list[Output]:
    return [ToWire(port, frames_batch(frames))] if frames else []
