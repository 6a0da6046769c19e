"""Types that all codecs use."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Input of a decoder: contiguous octets."""

Writable: TypeAlias = bytearray | memoryview
"""Octets in which headers are changed in place."""

Address: TypeAlias = int
"""An IPv4 address as an unsigned 32-bit number in network order."""

Prefix: TypeAlias = tuple[int, int]
"""(network address, prefix length); bits below the length are zero."""
