"""What a capture of a wire between two routers holds, told apart far enough to judge it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chassis.bus.capture import read

ARP = 0x0806
IPV4 = 0x0800
ESP = 50
AH = 51
UDP = 17
IKE_PORTS = (500, 4500)


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet: `way` is in or out of the port that was captured; `spi` and `number` are 0 where it has none."""

    way: str
    time: float
    ethertype: int
    protocol: int
    source: str
    destination: str
    spi: int
    number: int
    frame: bytes


def packets(file: Path) -> Iterator[Seen]:
    """Every packet of a capture of a port, in the order in which it was written."""
    for interface, nanoseconds, frame in read(file.read_bytes()):
        way, time = interface.rsplit(" ", 1)[1], nanoseconds / 1e9
        ethertype = struct.unpack_from("!H", frame, 12)[0]
        if ethertype != IPV4:
            yield Seen(way, time, ethertype, 0, "", "", 0, 0, frame)
            continue
        protocol = frame[23]
        source, destination = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
        spi = number = 0
        if protocol in (ESP, AH):
            spi, number = struct.unpack_from("!II", frame, 34 if protocol == ESP else 38)
        yield Seen(way, time, ethertype, protocol, source, destination, spi, number, frame)


def clear(file: Path) -> list[Seen]:
    """The packets that are neither ARP nor protected: there should be none."""
    return [seen for seen in packets(file) if seen.ethertype != ARP and seen.protocol not in (ESP, AH)]


def used_twice(file: Path, way: str = "out") -> list[tuple[str, int, int, int]]:
    """(destination, protocol, SPI, number) that a port sent, or received, more than once."""
    met: set[tuple[str, int, int, int]] = set()
    again = []
    for seen in packets(file):
        if seen.way == way and seen.spi:
            key = (seen.destination, seen.protocol, seen.spi, seen.number)
            if key in met:
                again.append(key)
            met.add(key)
    return again


def neither_protected_nor_ike(file: Path) -> list[Seen]:
    """The packets in clear other than IKE's own: there should be none."""
    return [seen for seen in clear(file) if seen.protocol != UDP or _destination_port(seen) not in IKE_PORTS]


def _destination_port(seen: Seen) -> int:
    return int.from_bytes(seen.frame[36:38], "big")
