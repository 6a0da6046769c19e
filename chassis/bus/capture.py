"""Captures of ports and of the fabric on a running process, and reading them back for replays."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from chassis.bus.batch import Batch
from chassis.net import pcapng
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM


class Capture:
    """A pcapng file that grows by a write for each batch, so that it can be read while it does.

    `skip` leaves out so many bytes of each packet: the headroom on the fabric, where packets begin with IP.
    """

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._skip = skip
        self._link_type = pcapng.LINKTYPE_RAW_IPV4 if skip == HEADROOM else pcapng.LINKTYPE_ETHERNET
        self._interfaces: dict[str, int] = {}
        os.write(self._fd, pcapng.section_header())

    def write(self, interface: str, batch: Batch) -> None:
        """Add a batch's packets, as seen on this (named) interface now."""
        blocks = bytearray()
        number = self._interfaces.get(interface)
        if number is None:
            number = self._interfaces[interface] = len(self._interfaces)
            blocks += pcapng.interface_description(interface, self._link_type)
        now = time.time_ns()
        marks = dict(batch.marks)
        for index, packet in enumerate(batch.packets()):
            comment = f"trace {marks[index]}" if index in marks else ""
            blocks += pcapng.enhanced_packet(number, now, packet[self._skip :], comment=comment)
        os.write(self._fd, blocks)

    def close(self) -> None:
        os.close(self._fd)


def read(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(interface name, time in ns, packet) of each packet of a capture made by `Capture`.

    A block that is cut short at the end (the file is still being written) ends it.

    Raises:
        DecodeError: this is no such file.
    """
    if len(data) < 28 or data[:4] != b"\x0a\x0d\x0d\x0a" or data[8:12] != b"\x4d\x3c\x2b\x1a":
        raise DecodeError("pcapng", "not a little-endian pcapng file")
    at = 0
    names: list[str] = []
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if length < 12 or length % 4:
            raise DecodeError("pcapng", f"a block of {length} bytes", at)
        if at + length > len(data):
            return
        if kind == 1:
            names.append(_name(data[at + 16 : at + length - 4]))
        elif kind == 6 and length >= 32:
            number, high, low, size = struct.unpack_from("<IIII", data, at + 8)
            if number < len(names) and size <= length - 32:
                yield names[number], high << 32 | low, data[at + 28 : at + 28 + size]
        at += length


def _name(options: bytes) -> str:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("<HH", options, at)
        if code == 2:
            return options[at + 4 : at + 4 + length].decode(errors="replace")
        at += 4 + length + -length % 4
    return ""
