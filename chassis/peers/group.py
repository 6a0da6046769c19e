"""The peers of one node in several processes: their one port, and their one report.

Each process is a member: a `PeersEngine` with its share of the peers. The group has the port: it hands frames to
the member whose peers have the outer address, sends what members send, and joins their answers to a command. It is
pure: `post` hands a message to a member, and the outputs go to the shell.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from chassis.bus import requests
from chassis.bus.arguments import ArgumentError, given, named, read, refusal
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, Perform, ToOperator, ToWire
from chassis.bus.messages import Request
from chassis.net import arp
from chassis.net.address import parse_address
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH
from chassis.peers.engine import PeersEngine
from chassis.peers.report import report
from chassis.peers.spec import PeersSpec
from chassis.tester.host import frames_batch


@dataclass(frozen=True, slots=True)
class MemberFrames:
    """Frames of the port, to a member or from it; `lengths` are 16-bit words of this machine."""

    body: bytes = field(repr=False)
    lengths: bytes


@dataclass(frozen=True, slots=True)
class MemberCarrier:
    """The wire of the port came up or went down."""

    up: bool


@dataclass(frozen=True, slots=True)
class MemberCommand:
    """A command; `arguments` are JSON."""

    number: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What a member says of a command: its counts (JSON), or an error."""

    number: int
    counts: str
    error: str = ""


ToMember = MemberFrames | MemberCarrier | MemberCommand
FromMember = MemberFrames | MemberAnswer

Post = Callable[[int, ToMember], None]

MAX_OPEN_COMMANDS: Final = 100
"""Commands at once that wait for members (count)."""


@dataclass(slots=True)
class _OpenCommand:
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""


class PeersGroup:
    """The port and the operators' side of a node of peers in several processes."""

    performs = PeersEngine.performs

    def __init__(
        self, port: str, values: Mapping[str, Any], spec: PeersSpec, counters: Counters, post: Post
    ) -> None:
        """`values` are those of the port: its address has what no peer has."""
        self._port, self._post, self._counters = port, post, counters
        self._own = parse_address(str(values.get("address", "0.0.0.0")).partition("/")[0]).to_bytes(4, "big")
        self.parts = spec.split()
        self._firsts = [part.outer_addresses()[0] for part in self.parts]
        self._open: dict[int, _OpenCommand] = {}

    # calls of the shell

    def start(self, now: float) -> list[Output]:
        """No-op: members start by themselves."""
        return []

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """Tell all members."""
        for member in range(len(self.parts)):
            self._post(member, MemberCarrier(up))
        return []

    def on_congestion(self, port: str, full: bool, now: float) -> None:
        """The wire takes no more packets, or takes them again. IKE repeats what was lost."""

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Hand frames to members: ARP for the port's own address to the first, other ARP to all."""
        shares: dict[int, list[bytes]] = {}
        for view in batch.packets():
            frame = bytes(view)
            for member in self._members_of(frame):
                shares.setdefault(member, []).append(frame)
        for member, frames in shares.items():
            self._post(member, frames_message(frames_batch(frames)))
        return []

    def on_operator_command(self, number: int, command: Any, arguments: Any, now: float) -> list[Output]:
        """Check an operator's command and hand it to all members, or to the shell. Every command is answered."""
        try:
            values = read(named(requests.PEERS, command, "a node of peers"), arguments)
        except ArgumentError as error:
            return [ToOperator(number, {}, refusal(command, error))]
        if command in self.performs:
            return [Perform(Request(number, command, given(values)))]
        if len(self._open) >= MAX_OPEN_COMMANDS or number in self._open:
            return [ToOperator(number, {}, f"{command}: {len(self._open)} commands wait for the processes")]
        shared = dict(given(values))
        if "rate" in shared:
            shared["rate"] = values["rate"] / len(self.parts)
        self._open[number] = _OpenCommand()
        for member in range(len(self.parts)):
            self._post(member, MemberCommand(number, command, json.dumps(shared)))
        return []

    def on_timer(self, now: float) -> list[Output]:
        """No-op: a group has no timers."""
        return []

    def next_timer(self) -> float:
        return inf

    # calls of members

    def from_member(self, member: int, message: FromMember) -> list[Output]:
        """Send the frames of a member; answer a command when all members did."""
        if isinstance(message, MemberFrames):
            return [ToWire(self._port, batch_of(message))]
        command = self._open.get(message.number)
        if command is None:
            return []
        command.answers[member] = json.loads(message.counts or "{}")
        command.error = command.error or message.error
        if len(command.answers) < len(self.parts):
            return []
        del self._open[message.number]
        if command.error:
            return [ToOperator(message.number, {}, command.error)]
        return [ToOperator(message.number, report([command.answers[each] for each in sorted(command.answers)]))]

    # inside

    def _members_of(self, frame: bytes) -> range:
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ETHERTYPE_ARP:
            operation, target = frame[HEADROOM + 6 : HEADROOM + 8], frame[HEADROOM + 24 : HEADROOM + 28]
            asks = operation == arp.REQUEST.to_bytes(2, "big") and target == self._own
            return range(1) if asks else range(len(self.parts))
        if kind == ETHERTYPE_IPV4 and len(frame) >= HEADROOM + IPV4_HEADER_LENGTH:
            address = int.from_bytes(frame[HEADROOM + 16 : HEADROOM + 20], "big")
            member = max(bisect_right(self._firsts, address) - 1, 0)
            first, end = self.parts[member].outer_addresses()
            if first <= address < end:
                return range(member, member + 1)
        return range(1)


def frames_message(batch: Batch) -> MemberFrames:
    """Return the message with the frames of a batch."""
    return MemberFrames(bytes(batch.body), batch.lengths.tobytes())


def batch_of(message: MemberFrames) -> Batch:
    """Return the batch of a message's frames."""
    return Batch(Step.INGRESS, bytearray(message.body), array("H", message.lengths))


def run_command(engine: PeersEngine, command: MemberCommand, now: float) -> tuple[list[Output], MemberAnswer]:
    """Run a command in a member; return its outputs, and the answer for the group."""
    outputs = engine.on_operator_command(command.number, command.name, json.loads(command.arguments), now)
    answers = [output for output in outputs if isinstance(output, ToOperator)]
    error = answers[-1].error if answers else ""
    counts = "" if error else json.dumps(engine.counts(now))
    return [output for output in outputs if not isinstance(output, ToOperator)], MemberAnswer(
        command.number, counts, error
    )
