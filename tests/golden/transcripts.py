"""What two IKE engines say to each other and to their data engines, as digests.

A transcript has three digests, so that a mismatch tells what kind of change it is:

- datagrams: when, from which end, addresses, ports and octets of each IKE message;
- values: when, from which end, and all numbers and octets of each message to a data engine about SAs and tunnels;
- words: every text in those messages (algorithms, reasons), and all of log lines, answers and counters.

A message goes in by a number of its own and the values of its fields in order, so the names of classes, fields
and modules are in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from hashlib import sha256
from random import Random
from typing import Any

from chassis.ase.ike_messages import (
    FromIke,
    IkeHeartbeat,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeTunnelState,
    SaActivateOutbound,
    SaDelete,
    SaExpire,
    SaInstall,
    SaUpdateAddress,
)
from chassis.model.acl import AclRule
from tests.support.ike.pair import START, A, B, End, Ends, EnginePair

DIGITS = 12
"""Hexadecimal digits that are kept of a SHA-256: equal by chance once in 2**48."""

PARTS = ("datagrams", "values", "words")

ABOUT_SAS = {SaInstall: 1, SaActivateOutbound: 2, SaDelete: 3, SaUpdateAddress: 4, SaExpire: 5, IkeTunnelState: 6}
TOLD = {IkeLog: 11, IkeReply: 12, IkeHeartbeat: 13}
"""The number that stands for a kind of message."""

PUBLIC = 0xC0000201
"""The address that a NAT gives to end a, 192.0.2.1."""
FIRST_PORTS = {500: 1500, 4500: 14500}
LATER_PORTS = {500: 2500, 4500: 24500}
"""What the NAT makes of a's ports, first and after it was started again."""


# how a transcript is made


def numbers(value: Any) -> Iterator[bytes]:
    """Everything in a value but its texts, in order."""
    if isinstance(value, Enum):
        yield from numbers(value.value)
    elif isinstance(value, str):
        yield b"s"
    elif value is None:
        yield b"n"
    elif isinstance(value, int):
        yield b"i%d;" % value
    elif isinstance(value, float):
        yield b"f%d;" % microseconds(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        yield b"b%d:" % len(value)
        yield bytes(value)
    else:
        yield b"("
        for one in parts(value):
            yield from numbers(one)
        yield b")"


def texts(value: Any) -> Iterator[bytes]:
    """Every text in a value, in order."""
    if isinstance(value, Enum):
        yield from texts(value.value)
    elif isinstance(value, str):
        encoded = value.encode()
        yield b"s%d:" % len(encoded)
        yield encoded
    elif not isinstance(value, int | float | bytes | bytearray | memoryview | None):
        for one in parts(value):
            yield from texts(one)


def parts(value: Any) -> Iterator[Any]:
    """What a message or a collection is made of, without the names of its fields."""
    if isinstance(value, AclRule):
        # As numbers alone, whichever way the rule says "any".
        protocol = -1 if value.protocol is None else value.protocol
        ports = [-1 if port is None else port for port in (value.source_port, value.destination_port)]
        yield from (value.seq, protocol, *value.source, ports[0], *value.destination, ports[1])
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield one
    elif isinstance(value, tuple | list):
        yield from value
    else:
        raise TypeError(f"no place in a transcript for {type(value).__name__}: {value!r}")


def microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


class Transcript:
    """The digests of what both ends say."""

    def __init__(self) -> None:
        self._hashes = {part: sha256() for part in PARTS}

    def add(self, end: int, now: float, message: FromIke) -> None:
        """Note a message of an end, known by its address."""
        head = (end, now - START)
        if isinstance(message, IkePacket):
            self._note("datagrams", numbers((*head, message)))
        elif type(message) in ABOUT_SAS:
            head = (*head, ABOUT_SAS[type(message)])
            self._note("values", numbers((*head, message)))
            self._note("words", texts(message))
        else:
            head = (*head, TOLD[type(message)])
            self._note("words", numbers((*head, message)))
            self._note("words", texts(message))

    def _note(self, part: str, octets: Iterator[bytes]) -> None:
        for one in octets:
            self._hashes[part].update(one)

    def digests(self) -> str:
        """One digest for each of `PARTS`, with blanks between."""
        return " ".join(self._hashes[part].hexdigest()[:DIGITS] for part in PARTS)


class Recorded(EnginePair):
    """Two engines of which everything is noted, with a NAT before end a where one is asked for."""

    def __init__(self, a: Ends, b: Ends, *, ports: dict[int, int] | None = None, **settings: Any) -> None:
        self.transcript = Transcript()
        self.ports = ports
        """What the NAT makes of a's ports."""
        self.configured = {a.local: a, b.local: b}
        super().__init__(a, b, **settings)

    def _took(self, end: End, messages: list[FromIke]) -> None:
        for message in messages:
            self.transcript.add(end.local, self.now, message)
        super()._took(end, messages)

    def _wire(self, end: End, packet: IkePacket) -> None:
        if self.ports is not None:
            if end.local == A:
                packet = replace(packet, local=PUBLIC, local_port=self.ports[packet.local_port])
            else:
                back = {outside: inside for inside, outside in self.ports.items()}
                if packet.remote != PUBLIC or packet.remote_port not in back:
                    return
                packet = replace(packet, remote=A, remote_port=back[packet.remote_port])
        super()._wire(end, packet)

    def settle(self, seconds: float = 12.0) -> None:
        """Let time pass, then a packet each way through every policy line."""
        self.run(seconds)
        for end in (self.a, self.b):
            for entry in range(10, 10 * len(self.configured[end.local].rules) + 1, 10):
                if not end.dead:
                    self.packet(end, entry)
        self.run(0.1)

    def change(self, end: End, **values: Any) -> None:
        """Another configuration of an end."""
        changed = self.configured[end.local] = replace(self.configured[end.local], **values)
        self.configure(end, changed.records())


class Wire:
    """What becomes of datagrams, by a name. Single ones are lost once it is `armed`, others all the time."""

    def __init__(self, kind: str, random: Random) -> None:
        self.kind = kind
        self.armed = False
        self._random = random
        self._count = {A: 0, B: 0}

    def __call__(self, sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        if self.kind == "one in five lost":
            late = 0.002 + 0.04 * self._random.random()
            drawn = self._random.random()
            return () if drawn < 0.2 else (late, late + 0.01) if drawn < 0.3 else (late,)
        if self.kind == "slow":
            return (0.4,)
        if self.armed:
            self._count[sender] += 1
            number, name = self._count[sender], "a" if sender == A else "b"
            if self.kind in (f"message {number} of {name} lost", f"message {number} of both lost"):
                return ()
            if self.kind == "all twice":
                return (0.01, 0.011)
            if self.kind == "all of b lost":
                return () if name == "b" else (0.01,)
        return (0.01,)
