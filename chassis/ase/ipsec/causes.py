"""Drop causes of IPsec and notices of outbound SAs: two closed sets.

The ids of log messages are those of the guide, table 7, and `OWN_MESSAGES`.
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
"""Message ids of the causes that are logged: the guide's messages and our own.

The guide's message esp-auth-alg is never logged: a wrong algorithm and a wrong key look the same on the wire.
"""

OWN_MESSAGES: Final = frozenset({"esp-selector-mismatch"})
"""Message ids that the guide does not have: RFC 4301 5.2 requires a log entry for an inner packet that does not
match the selectors of its SA, with the source of that packet."""


def add_count(counts: dict[Key, int], key: Key, count: int = 1) -> None:
    """Add `count` to the value of `key`."""
    counts[key] = counts.get(key, 0) + count


@dataclass(frozen=True, slots=True)
class DropSample:
    """One dropped packet, for a log record. SPI, sequence number and number of the tunnel are 0 if unknown."""

    cause: IpsecDropCause
    spi: int
    source: int
    sequence: int
    tunnel: int = 0


@dataclass(frozen=True, slots=True)
class UnknownSa:
    """A packet for an SA that is not here: addresses, protocol (AH or ESP), SPI, and the UDP port that it came
    from (RFC 3948), 0 without UDP."""

    source: int
    destination: int
    protocol: int
    spi: int
    udp_port: int


class Drops:
    """Drops of one batch: number of packets by cause, and a sample of the first packet of each cause.

    `unknown` is the first packet for an SA that is not here.
    """

    __slots__ = ("counts", "samples", "unknown")

    def __init__(self) -> None:
        self.unknown: UnknownSa | None = None
        self.counts: dict[IpsecDropCause, int] = {}
        self.samples: dict[IpsecDropCause, DropSample] = {}

    def add(
        self, cause: IpsecDropCause, spi: int = 0, source: int = 0, sequence: int = 0, tunnel: int = 0
    ) -> None:
        """Count one packet. `source` is an IPv4 address."""
        if cause in self.counts:
            self.counts[cause] += 1
        else:
            self.counts[cause] = 1
            self.samples[cause] = DropSample(cause, spi, source, sequence, tunnel)

    def add_many(self, cause: IpsecDropCause, count: int, spi: int = 0, source: int = 0) -> None:
        """Count `count` packets (0 or more) that have no sequence number."""
        if count:
            self.add(cause, spi, source)
            self.counts[cause] += count - 1


class NoticeKind(StrEnum):
    """Events of an outbound SA that its owner must act on."""

    LEASE_HALF_USED = "half of the lease used"
    LEASE_EXHAUSTED = "lease used up"
    SEQUENCE_EXHAUSTED = "sequence exhausted"
    SEQUENCE_LOW = "sequence numbers run low"
    SOFT_OCTETS = "soft limit of traffic"
    HARD_OCTETS = "limit of traffic"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event of the SA (tunnel, serial), reported once per lease, or once at the end of its numbers or
    lifetime."""

    kind: NoticeKind
    tunnel: int
    serial: int
    next_number: int
    limit: int
