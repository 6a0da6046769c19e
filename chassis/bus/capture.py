"""Packet captures of a running process: written to pcapng files and named pipes, and read back for replays.

In: batches at a capture point. Out: draft-ietf-opsawg-pcapng blocks (`chassis.net.pcapng`).
"""

from __future__ import annotations

import errno
import io
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from chassis.bus import regular_files
from chassis.bus.batch import Batch
from chassis.bus.messages import Attributes
from chassis.net import pcapng
from chassis.net.errors import DecodeError
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM
from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP
from chassis.net.udp import IKE_PORT, NAT_PORT

_ARP, _IPV4 = ETHERTYPE_ARP.to_bytes(2, "big"), ETHERTYPE_IPV4.to_bytes(2, "big")
_IKE_PORTS = tuple([port.to_bytes(2, "big") for port in (IKE_PORT, NAT_PORT)])

SECTION = 0x0A0D0D0A
"""Type of the block that begins a section. Each process that appended to a capture began a section."""

MIN_RING_OCTETS = 1 << 17
"""Smallest size (octets) of a ring."""

APPEND_SCAN_OCTETS = 1 << 20
"""Length (octets) of the beginning of a file that is searched for its interfaces before an append."""


MAX_BLOCK_OCTETS = 1 << 20
"""Length (octets) of the longest block that is read. A packet has less than 65,536."""


def older(path: Path) -> Path:
    """Return the name of a ring's file with the older packets: `x.older.pcapng` for `x.pcapng`."""
    return path.with_name(f"{path.stem}.older{path.suffix}")


class Capture:
    """A capture into a pcapng file, with a write for each batch so that it can be read meanwhile, or into a pipe.

    `skip` is the number of octets left out before each packet: the headroom, if packets begin with IP. `snaplen`
    is the most octets kept of a packet; 0 keeps all. `clear` keeps only Ethernet frames that are not ARP, ESP, AH
    or IKE. Only its owner may read the file, which is always a new one (see `chassis.bus.regular_files`).

    `ring` (octets; 0: no limit) keeps only the last packets, in two files: a file that reaches half of that size
    replaces the `older` one, and a new one begins.

    `append` continues the file of a process that died, after its last whole block, with a new section. A pipe
    cannot be continued, because its reader saw the end.

    Packets do not wait for a capture: packets for a full pipe are left out and counted in `missed`. A failed write
    (full disk, no reader) ends the capture: `error` has the reason, and `on_end` is called.
    """

    def __init__(
        self,
        path: Path,
        *,
        skip: int = 0,
        snaplen: int = 0,
        clear: bool = False,
        append: bool = False,
        ring: int = 0,
    ) -> None:
        self._path, self._half = path, ring // 2
        if append and self._half and not path.exists() and older(path).is_file():
            # The process died after the rename and before it made the new file.
            append = False
        if append and not path.is_file():
            raise OSError(errno.ENOENT, "is not a regular file: only a file can be continued", str(path))
        try:
            # Non-blocking: a pipe without a reader would block the open, and a full one the write.
            if append:
                self._fd = regular_files.reopen(path, os.O_RDWR | os.O_APPEND)
            elif regular_files.is_pipe(path):
                self._fd, self._half = regular_files.reopen(path, os.O_WRONLY), 0
            else:
                if self._half:
                    # It belongs to an earlier capture.
                    regular_files.check(older(path))
                    older(path).unlink(missing_ok=True)
                self._fd = regular_files.create(path)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(error.errno, "the pipe has no reader", str(path)) from None
            raise
        self._skip, self._snaplen, self._clear = skip, snaplen, clear
        self._link_type = pcapng.LINKTYPE_RAW_IPV4 if skip == HEADROOM else pcapng.LINKTYPE_ETHERNET
        self._interfaces: dict[str, int] = {}
        self._rest = pcapng.section_header()
        """Packets that a full pipe did not take (count); a block is never cut."""
        self.missed = 0
        self.error = ""
        self.on_end: Callable[[], None] | None = None
        try:
            if append:
                _end_whole(self._fd)
                # Keep the order of the first section: tshark 4.0 uses its names for all sections.
                for name in _interfaces(os.pread(self._fd, APPEND_SCAN_OCTETS, 0)):
                    self._rest += self._described(name)
        except (OSError, DecodeError):
            os.close(self._fd)
            raise
        self._size = os.fstat(self._fd).st_size if append else 0
        self._flush()
        if self.error:
            os.close(self._fd)
            raise OSError(errno.EIO, self.error, str(path))

    def write(self, interface: str, batch: Batch) -> None:
        """Write the packets of a batch, as seen on the interface `name` now."""
        if self._rest:
            self._flush()
        if self._rest or self.error:
            self.missed += len(batch.lengths)
            return
        blocks = bytearray()
        described = b"" if interface in self._interfaces else self._described(interface)
        number = self._interfaces[interface]
        now = time.time_ns()
        marks = dict(batch.marks)
        skip, stop = self._skip, self._skip + self._snaplen if self._snaplen else None
        for index, packet in enumerate(batch.packets()):
            if self._clear and not is_cleartext(packet):
                continue
            comment = f"trace {marks[index]}" if index in marks else ""
            length = len(packet) - skip
            blocks += pcapng.enhanced_packet(
                number, now, packet[skip:stop], original_length=length, comment=comment
            )
        if not blocks:
            self._rest = described
        elif self._half and self._size + len(blocks) > self._half and not self._turned():
            self.missed += len(batch.lengths)
            return
        else:
            self._rest = (self._rest or described) + bytes(blocks)
        if self._rest:
            self._flush()

    def _turned(self) -> bool:
        """Begin a new file with the known interfaces; a failure ends the capture."""
        try:
            self._path.rename(older(self._path))
            fd = regular_files.create(self._path)
        except OSError as error:
            self._end(error)
            return False
        os.close(self._fd)
        self._fd, self._size = fd, 0
        names = list(self._interfaces)
        self._interfaces.clear()
        self._rest = pcapng.section_header() + b"".join(self._described(name) for name in names)
        return True

    def close(self) -> None:
        if self._rest and not self.error:
            self._flush()
        os.close(self._fd)

    def _described(self, interface: str) -> bytes:
        """Return the block that describes one more interface."""
        self._interfaces[interface] = len(self._interfaces)
        return pcapng.interface_description(interface, self._link_type, self._snaplen)

    def _flush(self) -> None:
        try:
            written = os.write(self._fd, self._rest)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        self._rest = self._rest[written:]
        self._size += written

    def _end(self, error: OSError) -> None:
        self.error = error.strerror or type(error).__name__
        self._rest = b""
        if self.on_end is not None:
            self.on_end()


class Captures:
    """The captures of one process, by capture point.

    `tap(what, capture)` sets the capture of the point `what`, or ends it (None); it raises if the point does not
    exist. `skip(what)` returns the octets to leave out before each packet of the point.
    """

    def __init__(self, tap: Callable[[str, Capture | None], None], skip: Callable[[str], int]) -> None:
        self._tap, self._skip = tap, skip
        self._captures: dict[str, Capture] = {}

    def start(self, arguments: Attributes) -> Attributes:
        """Carry out the request `capture`: `what`, `file` (absolute path), `snaplen`, `clear`, `ring`, `append`.

        Raises:
            ValueError: an argument is wrong.
            OSError: the file cannot be written.
        """
        what, file = str(arguments.get("what", "")), str(arguments.get("file", ""))
        snaplen, append = arguments.get("snaplen", 0), arguments.get("append", False) is True
        if not file or not Path(file).is_absolute():
            raise ValueError("capture needs 'what', and 'file' as an absolute path")
        if type(snaplen) is not int or not 0 <= snaplen <= 0xFFFF:
            raise ValueError("'snaplen' is 0 to 65535 octets")
        ring = arguments.get("ring", 0)
        if type(ring) is not int or (ring and ring < MIN_RING_OCTETS):
            raise ValueError(f"'ring' is 0 for no bound, or {MIN_RING_OCTETS} octets and more")
        skip = self._skip(what)
        if arguments.get("clear") and skip:
            raise ValueError("'clear' is for ports: a point inside a router says itself what is protected there")
        self.stop({"what": what})
        # Tap first: no file is made for a point that does not exist.
        self._tap(what, None)
        capture = Capture(
            Path(file), skip=skip, snaplen=snaplen, clear=bool(arguments.get("clear")), append=append, ring=ring
        )
        capture.on_end = lambda: self._tap(what, None)
        self._captures[what] = capture
        self._tap(what, capture)
        return {"file": file}

    def stop(self, arguments: Attributes) -> Attributes:
        """Carry out the request `capture-stop`. Return the packets that a full pipe did not take, and the reason
        if the capture had ended by itself."""
        what = str(arguments.get("what", ""))
        capture = self._captures.pop(what, None)
        if capture is None:
            return {"stopped": False, "missed": 0, "error": ""}
        self._tap(what, None)
        capture.close()
        return {"stopped": True, "missed": capture.missed, "error": capture.error}

    def close(self) -> None:
        for what in list(self._captures):
            self.stop({"what": what})


def is_cleartext(frame: bytes | bytearray | memoryview) -> bool:
    """Return whether an Ethernet frame is not ARP, ESP, AH or an IKE datagram (RFC 7296 section 2)."""
    ethertype = frame[12:14]
    if ethertype == _ARP:
        return False
    if ethertype != _IPV4 or len(frame) < 34:
        return True
    protocol, options = frame[23], 4 * (frame[14] & 15)
    if protocol != PROTOCOL_UDP:
        return protocol not in (PROTOCOL_ESP, PROTOCOL_AH)
    # A later fragment has no ports, so it counts as clear.
    first = not (frame[20] & 0x1F or frame[21])
    return not (first and bytes(frame[16 + options : 18 + options]) in _IKE_PORTS)


def read(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Do the same as `read_file` for the octets of a file."""
    return read_file(io.BytesIO(data))


def read_file(file: BinaryIO) -> Iterator[tuple[str, int, bytes]]:
    """Yield (interface name, time in ns, packet) for each packet of a capture that `Capture` made.

    Stop at an incomplete last block: the file may still be written.

    Raises:
        DecodeError: the file is not such a capture.
    """
    names: list[str] = []
    first = True
    for kind, block in _blocks(file):
        if first and (len(block) < 28 or kind != SECTION or block[8:12] != b"\x4d\x3c\x2b\x1a"):
            break
        first = False
        if kind == SECTION:
            # A section numbers its interfaces from 0.
            names.clear()
        elif kind == 1:
            names.append(_name(block[16:-4]))
        elif kind == 6 and len(block) >= 32:
            number, high, low, size = struct.unpack_from("<IIII", block, 8)
            if number < len(names) and size <= len(block) - 32:
                yield names[number], high << 32 | low, block[28 : 28 + size]
    if first:
        raise DecodeError("pcapng", "not a little-endian pcapng file")


def _blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (type, octets) of each whole block."""
    at = 0
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<II", head)
        if not 12 <= length <= MAX_BLOCK_OCTETS or length % 4:
            raise DecodeError("pcapng", f"a block of {length} bytes", at)
        rest = file.read(length - 8)
        if len(rest) < length - 8:
            return
        yield kind, head + rest
        at += length


def _interfaces(data: bytes) -> list[str]:
    """Return the interface names of the first section, from the beginning of a file."""
    names: list[str] = []
    for number, (kind, block) in enumerate(_blocks(io.BytesIO(data))):
        if kind == SECTION and number:
            break
        if kind == 1:
            names.append(_name(block[16:-4]))
    return names


def _end_whole(fd: int) -> None:
    """Cut a file after its last whole block, because a process may have been killed in a write."""
    size = os.fstat(fd).st_size
    if size < 12:
        os.ftruncate(fd, 0)
        return
    # Each block has its length at both ends. If the last one is whole, the others need not be read.
    length = int.from_bytes(os.pread(fd, 4, size - 4), "little")
    if 12 <= length <= size and os.pread(fd, 8, size - length)[4:] == length.to_bytes(4, "little"):
        return
    at = 0
    while at + 12 <= size:
        length = int.from_bytes(os.pread(fd, 4, at + 4), "little")
        if length < 12 or at + length > size:
            break
        at += length
    os.ftruncate(fd, at)


def _name(options: bytes) -> str:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("<HH", options, at)
        if code == 2:
            return options[at + 4 : at + 4 + length].decode(errors="replace")
        at += 4 + length + -length % 4
    return ""
