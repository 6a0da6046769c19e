"""Why a packet was dropped, and what an SA has to tell its owner: two closed sets.

Identifiers of log messages are those of the operator guide, table 7, and `OURS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

Key = TypeVar("Key")


class IpsecDropCause(StrEnum):
    """Cause of a drop; the value is the name of the counter."""

    NO_INBOUND_SA = "no inbound sa"
    OUTSIDE_WINDOW = "outside replay window"
    REPLAYED = "replayed"
    AH_AUTHENTICATION = "ah integrity"
    ESP_AUTHENTICATION = "esp integrity"
    NOT_TUNNEL_MODE = "not tunnel mode"
    MALFORMED = "malformed"
    FRAGMENT = "fragment"
    NOT_IPSEC = "not ipsec"
    DECOMPRESSION_FAILED = "decompression failed"
    DUMMY = "dummy packet"
    ECN = "ecn ce on not-ect"
    SELECTOR_MISMATCH = "selector mismatch"
    NO_POLICY = "no policy"
    NO_OUTBOUND_SA = "no outbound sa"
    NO_LEASE = "no lease"
    SEQUENCE_EXHAUSTED = "sequence exhausted"
    TOO_LONG = "too long"


MESSAGE_IDS: Final[Mapping[IpsecDropCause, str]] = MappingProxyType(
    {
        IpsecDropCause.AH_AUTHENTICATION: "esp-icv-ah",
        IpsecDropCause.ESP_AUTHENTICATION: "esp-icv-esp",
        IpsecDropCause.NOT_TUNNEL_MODE: "esp-encap-mode",
        IpsecDropCause.NO_INBOUND_SA: "esp-no-inbound-sa",
        IpsecDropCause.OUTSIDE_WINDOW: "esp-late-packet",
        IpsecDropCause.REPLAYED: "esp-duplicate-packet",
        IpsecDropCause.SELECTOR_MISMATCH: "esp-selector-mismatch",
    }
)
"""Causes that are logged: those that the guide has a message for, and ours.

Its message esp-auth-alg never applies: a wrong algorithm and a wrong key look alike on the wire.
"""

OWN_MESSAGES: Final = frozenset({"esp-selector-mismatch"})
"""Messages that the guide does not have: that a clear packet did not match the selectors of its SA is to be logged
(RFC 4301 5.2), with that packet's own source."""


def add_count(counts: dict[Key, int], key: Key, count: int = 1) -> None:
    """Count into a mapping."""
    counts[key] = counts.get(key, 0) + count


@dataclass(frozen=True, slots=True)
class DropSample:
    """One dropped packet of a cause, for a log line: SPI and sequence number are 0 where unknown."""

    cause: IpsecDropCause
    spi: int
    source: int
    sequence: int


class Drops:
    """Drops of one batch: how many by cause, and the first packet of each cause."""

    __slots__ = ("counts", "samples")

    def __init__(self) -> None:
        self.counts: dict[IpsecDropCause, int] = {}
        self.samples: dict[IpsecDropCause, DropSample] = {}

    def add(self, cause: IpsecDropCause, spi: int = 0, source: int = 0, sequence: int = 0) -> None:
        """Count one packet; addresses, SPIs and sequence numbers are plain numbers."""
        if cause in self.counts:
            self.counts[cause] += 1
        else:
            self.counts[cause] = 1
            self.samples[cause] = DropSample(cause, spi, source, sequence)

    def add_many(self, cause: IpsecDropCause, count: int, spi: int = 0, source: int = 0) -> None:
        """Count `count` packets of one cause that have no sequence number."""
        if count:
            self.add(cause, spi, source)
            self.counts[cause] += count - 1


class NoticeKind(StrEnum):
    """What an outbound SA tells its owner."""

    LEASE_HALF_USED = "half of the lease used"
    LEASE_EXHAUSTED = "lease used up"
    SEQUENCE_EXHAUSTED = "sequence exhausted"
    SEQUENCE_LOW = "sequence numbers run low"
    SOFT_OCTETS = "soft limit of traffic"
    HARD_OCTETS = "limit of traffic"


@dataclass(frozen=True, slots=True)
class Notice:
    """Said once per lease (or once at the end of the numbers, or of the traffic) by the SA (tunnel, serial)."""

    kind: NoticeKind
    tunnel: int
    serial: int
    next_number: int
    limit: int
