"""The rules of every run. A check raises a `Violation` as soon as a rule is violated.

1. No packet of a flow whose route is a tunnel is in clear on a wire between routers.
2. No sender uses a sequence number twice for one (destination, protocol, SPI); no packet is delivered twice.
3. A configuration is applied completely or not at all: at every moment each card holds records of one variant
only,
   and an acknowledged commit stays, whatever happens to the controller.
4. A restarted controller does not remove records that are still right.
5. A process sends nothing of an epoch that it knows to be over (see `CardProcess`).
6. After the last fault all cards, tunnels and flows recover.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from chassis.bus.batch import Batch
from chassis.bus.records import (
    CardStateRecord,
    CircuitRecord,
    Key,
    LocalAddressRecord,
    PortRecord,
    Record,
    RouteRecord,
    TunnelHopRecord,
    TunnelRecord,
)
from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP
from chassis.sim.node import CardProcess, SimNode
from chassis.sim.wires import WireEnd
from chassis.sim.world import Simulation

Identify = Callable[[bytes | bytearray | memoryview, int], tuple[int, int, int] | None]
"""Returns (flow, start, sequence number) of the frame at an offset of a body; None if it belongs to no flow."""

_AH = Struct("!BB2xII")
_ESP = Struct("!II")
_WORD = Struct("!I")

_NUMBERED = frozenset({PROTOCOL_ESP, PROTOCOL_AH})
_IP_AT = 14
_STEADY_RECORDS = (
    CardStateRecord,
    TunnelRecord,
    TunnelHopRecord,
    CircuitRecord,
    RouteRecord,
    LocalAddressRecord,
)
"""Types of records that a restart of only the controller does not change."""

Sender = tuple[str, int, int, int]
"""(node, destination, protocol, SPI)"""


@dataclass(slots=True)
class _Commits:
    """Numbers of the commits of one node; 0 is its first configuration."""

    tried: int = 0
    acknowledged: int = 0


@dataclass(slots=True)
class Traffic:
    """Packets that testers sent and received: (flow, start, sequence number) of each."""

    sent: dict[tuple[int, int, int], None] = field(default_factory=dict)
    delivered: set[tuple[int, int, int]] = field(default_factory=set)

    def lost(self, since: int = 0) -> int:
        """Return how many of the packets after the first `since` did not arrive."""
        delivered = self.delivered
        return sum(key not in delivered for number, key in enumerate(self.sent) if number >= since)


class Checks:
    """The checks of one run."""

    def __init__(self, world: Simulation, identify: Identify) -> None:
        self.world = world
        self.traffic = Traffic()
        self.protected = 0
        """Protected packets seen between routers (count)."""
        self._identify = identify
        self._numbers: dict[Sender, set[int]] = {}
        self._entry: dict[int, tuple[str, str]] = {}
        self._frozen: dict[str, dict[str, dict[Key, Record]]] = {}
        self._commits: dict[str, _Commits] = {}

    # wires

    def from_tester(self, end: WireEnd, batch: Batch) -> None:
        """Check frames that a tester sends to a router."""
        identify, sent, at = self._identify, self.traffic.sent, 0
        for length in batch.lengths:
            key = identify(batch.body, at)
            if key is not None:
                if key[0] not in self._entry:
                    self._entry[key[0]] = (end.far.node, end.far.port)
                sent[key] = None
            at += length

    def to_tester(self, end: WireEnd, batch: Batch) -> None:
        """Check frames that a router sends to a tester: each packet of a flow once."""
        identify, delivered, at = self._identify, self.traffic.delivered, 0
        for length in batch.lengths:
            key = identify(batch.body, at)
            if key is not None:
                if key in delivered:
                    raise self.world.violation(
                        "no replay", f"{end} delivers packet {key[2]} of start {key[1]} of a flow a second time"
                    )
                delivered.add(key)
            at += length

    def between_routers(self, end: WireEnd, batch: Batch) -> None:
        """Check frames that a router sends to another one."""
        body, at = batch.body, _IP_AT
        for length in batch.lengths:
            if body[at - 2] == 8 and body[at - 1] == 0:
                protocol = body[at + 9]
                if protocol in _NUMBERED:
                    # A later fragment has no ESP or AH header.
                    if not (body[at + 6] & 0x1F or body[at + 7]):
                        self._check_protected(end, body, at, protocol)
                elif protocol == PROTOCOL_UDP:
                    self._check_cleartext(end, body, at)
            at += length

    def _check_protected(self, end: WireEnd, body: bytearray | memoryview, at: int, protocol: int) -> None:
        self.protected += 1
        data = at + (body[at] & 15) * 4
        (destination,) = _WORD.unpack_from(body, at + 16)
        if protocol == PROTOCOL_AH:
            following, words, spi, sequence = _AH.unpack_from(body, data)
            self._check_number(end, (end.node, destination, PROTOCOL_AH, spi), sequence)
            if following != PROTOCOL_ESP:
                return
            data += (words + 2) * 4
        spi, sequence = _ESP.unpack_from(body, data)
        self._check_number(end, (end.node, destination, PROTOCOL_ESP, spi), sequence)

    def _check_number(self, end: WireEnd, sender: Sender, sequence: int) -> None:
        used = self._numbers.get(sender)
        if used is None:
            used = self._numbers[sender] = set()
        if sequence in used:
            raise self.world.violation(
                "no number twice",
                f"{end} sends sequence number {sequence} of SPI {sender[3]:#x}, protocol {sender[2]}, again",
            )
        used.add(sequence)

    def _check_cleartext(self, end: WireEnd, body: bytearray | memoryview, at: int) -> None:
        key = self._identify(body, at - _IP_AT)
        process = end.process
        if key is None or not isinstance(process, CardProcess):
            return
        (destination,) = _WORD.unpack_from(body, at + 16)
        entry = self._entry.get(key[0], ("", ""))
        records: Mapping[Key, Record] = process.engine.replica.records
        port = records.get((PortRecord.TYPE, entry[1])) if entry[0] == end.node else None
        context = port.context if isinstance(port, PortRecord) else None
        for route in best_routes(records, destination, context):
            if any(hop.kind in ("tunnel", "discard") for hop in route.next_hops):
                raise self.world.violation(
                    "nothing in clear", f"{end} sends packet {key[2]} of a flow in clear; its route is a tunnel"
                )

    # configuration and replication

    def check_replicated(self, card: CardProcess) -> None:
        """Check a card's records after a change."""
        records: Mapping[Key, Record] = card.engine.replica.records
        variants = card.home.model.variants
        if len(variants) > 1 and not any(_holds_variant(variant.marks, records) for variant in variants):
            raise self.world.violation("a commit is whole", f"{card.name} holds records of two configurations")
        held = self._frozen.get(card.home.model.name)
        if held is None or card.card not in held:
            return
        steady = _steady_records(records)
        if steady != held[card.card]:
            raise self.world.violation(
                "nothing is flushed",
                f"a controller that came back changed {_difference(held[card.card], steady)} of {card.name}",
            )

    def freeze_records(self, node: SimNode) -> None:
        """Note that from now on only the controller of this node fails: the records of its cards must stay."""
        self._frozen[node.model.name] = {
            card.card: _steady_records(card.engine.replica.records) for card in node.cards.values()
        }

    def unfreeze_records(self, node: SimNode) -> None:
        self._frozen.pop(node.model.name, None)

    def begin_commit(self, node: SimNode) -> int:
        """Return the number of a commit that begins. Its variant is the number modulo the number of variants."""
        commits = self._commits.setdefault(node.model.name, _Commits())
        commits.tried += 1
        return commits.tried

    def acknowledge_commit(self, node: SimNode, number: int) -> None:
        """Note that a commit was acknowledged."""
        commits = self._commits[node.model.name]
        commits.acknowledged = max(commits.acknowledged, number)

    def check_configuration(self, node: SimNode) -> None:
        """Check, when a node is idle, that its cards hold the last acknowledged commit or a later one."""
        variants = node.model.variants
        if len(variants) < 2:
            return
        commits = self._commits.get(node.model.name, _Commits())
        allowed = [variants[number % len(variants)] for number in range(commits.acknowledged, commits.tried + 1)]
        for card in node.cards.values():
            if not any(_holds_variant(variant.marks, card.engine.replica.records) for variant in allowed):
                raise self.world.violation(
                    "a commit is whole",
                    f"{card.name} does not hold commit {commits.acknowledged}, which was acknowledged",
                )


def best_routes(records: Mapping[Key, Record], destination: int, context: int | None) -> list[RouteRecord]:
    """Return the longest match in a context, or in each context if none is given."""
    best: dict[int, RouteRecord] = {}
    for record in records.values():
        if isinstance(record, RouteRecord) and (context is None or record.context == context):
            shift = 32 - record.length
            if destination >> shift == record.prefix >> shift:
                known = best.get(record.context)
                if known is None or record.length > known.length:
                    best[record.context] = record
    return list(best.values())


def _holds_variant(marks: Callable[[Record], bool | None], records: Mapping[Key, Record]) -> bool:
    return all(marks(record) is not False for record in records.values())


def _steady_records(records: Mapping[Key, Record]) -> dict[Key, Record]:
    return {key: record for key, record in records.items() if isinstance(record, _STEADY_RECORDS)}


def _difference(before: dict[Key, Any], after: dict[Key, Any]) -> str:
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    return ", ".join(" ".join(map(str, key)) for key in sorted(changed, key=repr)[:4])
