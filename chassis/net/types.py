"""Names for shapes that every codec shares."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What a decoder reads: any contiguous bytes."""

Writable: TypeAlias = bytearray | memoryview
"""What headers are rewritten in."""

Address: TypeAlias = int
"""An IPv4 address as an unsigned 32-bit number in network order."""

Prefix: TypeAlias = tuple[int, int]
"""(network address, prefix length); bits below the length are zero."""
