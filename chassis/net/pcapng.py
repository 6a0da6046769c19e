"""Encoding of pcapng blocks (draft-ietf-opsawg-pcapng).

A capture is `section_header()`, one `interface_description()` for each interface in order (the first is interface
0), then `enhanced_packet()` blocks. Timestamps are in nanoseconds.
"""

from __future__ import annotations

import struct

from chassis.net.types import Buffer

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW_IPV4 = 228
LINKTYPE_USER0 = 147

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_ENHANCED_PACKET = 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D

_OPTION_COMMENT = 1
_OPTION_IF_NAME = 2
_OPTION_USER_APPLICATION = 4
_OPTION_TIME_RESOLUTION = 9

_U32 = struct.Struct("<I")
_OPTION = struct.Struct("<HH")
_EPB = struct.Struct("<IIIIIII")


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = _U32.pack(len(body) + 12)
    return b"".join((_U32.pack(kind), length, body, length))


def section_header(application: str = "chassis") -> bytes:
    """Return the block that begins a section."""
    options = _option(_OPTION_USER_APPLICATION, application.encode()) + _option(0, b"")
    return _block(_SECTION_HEADER, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1) + options)


def interface_description(name: str, link_type: int = LINKTYPE_ETHERNET, snap_length: int = 0) -> bytes:
    """Return the block of the next interface; a snap length (octets) of 0 means no limit."""
    options = _option(_OPTION_IF_NAME, name.encode()) + _option(_OPTION_TIME_RESOLUTION, b"\x09")
    return _block(
        _INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, snap_length) + options + _option(0, b"")
    )


def enhanced_packet(
    interface: int, time_ns: int, data: Buffer, *, original_length: int | None = None, comment: str = ""
) -> bytes:
    """Return the block of one captured packet. `time_ns` is in ns since 1970; readers show the comment."""
    size = len(data)
    padding = -size % 4
    options = _option(_OPTION_COMMENT, comment.encode()) + _option(0, b"") if comment else b""
    total = 32 + size + padding + len(options)
    head = _EPB.pack(
        _ENHANCED_PACKET,
        total,
        interface,
        time_ns >> 32 & 0xFFFFFFFF,
        time_ns & 0xFFFFFFFF,
        size,
        size if original_length is None else original_length,
    )
    return b"".join((head, data, bytes(padding), options, _U32.pack(total)))
