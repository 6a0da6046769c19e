"""Security associations as values: what manual keys or a negotiation hand to the engine.

A value says everything about an SA and holds no state; keys never show in its representation.
An SA here is what RFC 4301 4.4.2 calls one, or a bundle of two: AH around ESP under one outer header.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY, CipherAlgorithm, IntegrityAlgorithm
from chassis.ase.ipsec.ipcomp import CPI_DEFLATE, MAX_CPI
from chassis.ase.ipsec.replay import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    MIN_WINDOW,
    WINDOW_STEP,
    valid_window,
)
from chassis.ase.ipsec.spd import Rule
from chassis.net.ipv4 import DONT_FRAGMENT, IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP
from chassis.net.udp import UDP_HEADER_LENGTH

ESP_HEADER_LENGTH = 8
ESP_TRAILER_LENGTH = 2
AH_FIXED_LENGTH = 12
MAX_SEQUENCE = (1 << 32) - 1
MAX_EXTENDED_SEQUENCE = (1 << 64) - 1
"""The last of the extended sequence numbers (RFC 4303 2.2.1), of which only the low half is sent."""
MIN_SPI = 256


class SaError(ValueError):
    """An SA that cannot be built or installed; the text is fit for the operator."""


class DfPolicy(StrEnum):
    """Don't-fragment bit of the outer header: copied from the inner one, or forced."""

    PROPAGATE = "propagate"
    SET = "set"
    CLEAR = "clear"

    @property
    def mask_and_bits(self) -> tuple[int, int]:
        """(mask, bits): the outer flags are `inner & mask | bits`."""
        if self is DfPolicy.PROPAGATE:
            return DONT_FRAGMENT, 0
        return 0, DONT_FRAGMENT if self is DfPolicy.SET else 0


def _check_spi(protocol: str, spi: int) -> None:
    if not MIN_SPI <= spi <= MAX_SEQUENCE:
        raise SaError(f"{protocol} SPI {spi} is outside {MIN_SPI} to {MAX_SEQUENCE}")


def _integrity(name: str, key: bytes) -> IntegrityAlgorithm:
    entry = INTEGRITY.get(name)
    if entry is None:
        raise SaError(f"unknown integrity algorithm {name}")
    if len(key) != entry.key_octets:
        raise SaError(f"key has {len(key)} bytes, {name} needs {entry.key_octets}")
    return entry


@dataclass(frozen=True, slots=True)
class Esp:
    """ESP of one SA. No `integrity` means no ICV and so no replay window (RFC 4303 3.4.3), but for a
    cipher that brings its own."""

    spi: int
    cipher: str = "null"
    cipher_key: bytes = field(default=b"", repr=False)
    integrity: str | None = None
    integrity_key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        _check_spi("ESP", self.spi)
        entry = CIPHERS.get(self.cipher)
        if entry is None:
            raise SaError(f"unknown encryption algorithm {self.cipher}")
        if len(self.cipher_key) != entry.key_octets:
            raise SaError(f"key has {len(self.cipher_key)} bytes, {self.cipher} needs {entry.key_octets}")
        if entry.combined and self.integrity is not None:
            raise SaError(f"{self.cipher} takes no integrity algorithm beside it")
        if self.integrity is not None:
            _integrity(self.integrity, self.integrity_key)
        elif self.integrity_key:
            raise SaError("ESP has an integrity key but no integrity algorithm")

    @property
    def cipher_algorithm(self) -> CipherAlgorithm:
        """The registry's entry for the cipher."""
        return CIPHERS[self.cipher]

    @property
    def integrity_algorithm(self) -> IntegrityAlgorithm | None:
        """The registry's entry for the integrity algorithm, if there is one."""
        return None if self.integrity is None else INTEGRITY[self.integrity]

    @property
    def icv_octets(self) -> int:
        """Length of the ICV at the end of a packet; 0 without integrity."""
        if self.integrity is None:
            return self.cipher_algorithm.icv_octets
        return INTEGRITY[self.integrity].icv_octets


@dataclass(frozen=True, slots=True)
class Ah:
    """AH of one SA."""

    spi: int
    integrity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_spi("AH", self.spi)
        _integrity(self.integrity, self.key)

    @property
    def integrity_algorithm(self) -> IntegrityAlgorithm:
        """The registry's entry for the integrity algorithm."""
        return INTEGRITY[self.integrity]

    @property
    def header_octets(self) -> int:
        """Length of the AH header: 12 octets and the ICV (RFC 4302 2.2)."""
        return AH_FIXED_LENGTH + self.integrity_algorithm.icv_octets


def _check_protocols(esp: Esp | None, ah: Ah | None, cpi: int) -> None:
    if esp is None and ah is None:
        raise SaError("an SA needs ESP, AH or both")
    if ah is None and esp is not None and esp.cipher == "null" and esp.integrity is None:
        # RFC 4303 1. AH around it is integrity enough.
        raise SaError("ESP needs a cipher, an integrity algorithm or both")
    if not 1 <= cpi <= MAX_CPI:
        raise SaError(f"IP compression has no CPI {cpi}")


def _check_esn(esn: bool, negotiated: bool) -> None:
    if esn and not negotiated:
        # Manual keys have no ESN (RFC 4303 2.2.1), and what outlives a process is made for 32 bits.
        raise SaError("extended sequence numbers need a negotiated SA")


def _check_address(what: str, address: int) -> None:
    if not 0 <= address < 1 << 32:
        raise SaError(f"{what} address {address:#x} is no IPv4 address")


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """UDP encapsulation of ESP (RFC 3948): the ports of the header between outer IP and ESP."""

    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class ByteLifetime:
    """Octets after which an SA is to be replaced (`soft`) and after which it ends (`hard`); 0 is never."""

    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class OutboundSa:
    """One direction of an SA, towards the peer.

    `tunnel` and `serial` name it; `entry` is the policy line that it serves; `context` holds
    `source`, the local outer address. Addresses are numbers. The number and length limits of its
    packets come from the tunnel, not from here. `assignment` is the controller's number for having it
    here, which its state is kept with. `esn`: its numbers have 64 bits. A `fleeting` SA ends
    with the process: its numbers are kept nowhere else. `selectors` are the rules that were agreed
    with the peer, perhaps fewer packets than its policy line would send (RFC 7296 2.9); an empty
    tuple allows everything.
    """

    tunnel: int
    serial: int
    source: int
    destination: int
    entry: int = 0
    context: int = 0
    esp: Esp | None = None
    ah: Ah | None = None
    df: DfPolicy = DfPolicy.PROPAGATE
    ip_comp: bool = False
    cpi: int = CPI_DEFLATE
    esn: bool = False
    negotiated: bool = False
    udp: UdpPorts | None = None
    lifetime: ByteLifetime = ByteLifetime()
    selectors: tuple[Rule, ...] = ()
    assignment: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        _check_protocols(self.esp, self.ah, self.cpi)
        _check_address("source", self.source)
        _check_address("destination", self.destination)
        if self.udp is not None and self.ah is not None:
            raise SaError("UDP encapsulation carries ESP only")
        _check_esn(self.esn, self.negotiated)

    @property
    def protocols(self) -> tuple[tuple[int, int], ...]:
        """(protocol, SPI) from the outside in."""
        return _protocols(self.esp, self.ah)

    def key(self, protocol: int) -> bytes:
        """What makes packets of one of the protocols authentic, or secret where nothing does."""
        return _key(self.esp, self.ah, protocol)

    @property
    def max_sequence(self) -> int:
        """The last number that may be sent."""
        return MAX_EXTENDED_SEQUENCE if self.esn else MAX_SEQUENCE

    def overhead(self, inner: int) -> int:
        """Octets that protection adds to an inner packet of `inner` octets that does not shrink."""
        return _overhead(self.esp, self.ah, inner) + (UDP_HEADER_LENGTH if self.udp else 0)

    def max_overhead(self) -> int:
        """The most octets that protection adds to any packet."""
        block = 1 if self.esp is None else self.esp.cipher_algorithm.block_octets
        return max(self.overhead(inner) for inner in range(IPV4_HEADER_LENGTH, IPV4_HEADER_LENGTH + block))

    def max_inner(self, outer: int) -> int:
        """The largest inner packet whose protected form fits in `outer` octets."""
        inner = max(outer - self.max_overhead(), 0)
        while inner + 1 + self.overhead(inner + 1) <= outer:
            inner += 1
        return inner


@dataclass(frozen=True, slots=True)
class InboundSa:
    """One direction of an SA, from the peer.

    `destination` is the local outer address, in `context`. `selectors` are rules as clear packets
    coming out must match them, so they are the mirror of an access list written for packets
    going in (`Rule.mirrored`); an empty tuple allows everything. `esn` and `fleeting` as in
    `OutboundSa`; `udp` says that the way of UDP-encapsulated packets is worth watching. `entry` is
    the policy line that it belongs to; `assignment` as in `OutboundSa`.
    """

    tunnel: int
    serial: int
    source: int
    destination: int
    context: int = 0
    esp: Esp | None = None
    ah: Ah | None = None
    window: int = DEFAULT_WINDOW
    selectors: tuple[Rule, ...] = ()
    ip_comp: bool = False
    cpi: int = CPI_DEFLATE
    esn: bool = False
    negotiated: bool = False
    udp: bool = False
    lifetime: ByteLifetime = ByteLifetime()
    entry: int = 0
    assignment: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        _check_protocols(self.esp, self.ah, self.cpi)
        _check_address("source", self.source)
        _check_address("destination", self.destination)
        _check_esn(self.esn, self.negotiated)
        if not valid_window(self.window):
            raise SaError(
                f"antireplay window {self.window} is not a multiple of {WINDOW_STEP} "
                f"from {MIN_WINDOW} to {MAX_WINDOW}"
            )

    @property
    def protocols(self) -> tuple[tuple[int, int], ...]:
        """(protocol, SPI) from the outside in."""
        return _protocols(self.esp, self.ah)

    def key(self, protocol: int) -> bytes:
        """What makes packets of one of the protocols authentic, or secret where nothing does."""
        return _key(self.esp, self.ah, protocol)


@dataclass(frozen=True, slots=True)
class SequenceLease:
    """Sequence numbers that an outbound SA may use: from `first` up to but not including `limit`."""

    first: int = 1
    limit: int = MAX_SEQUENCE + 1

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.limit <= MAX_EXTENDED_SEQUENCE + 1:
            raise SaError(f"no lease of sequence numbers: {self.first} to {self.limit}")


def _protocols(esp: Esp | None, ah: Ah | None) -> tuple[tuple[int, int], ...]:
    outer = () if ah is None else ((PROTOCOL_AH, ah.spi),)
    inner = () if esp is None else ((PROTOCOL_ESP, esp.spi),)
    return outer + inner


def _key(esp: Esp | None, ah: Ah | None, protocol: int) -> bytes:
    if protocol == PROTOCOL_AH:
        return b"" if ah is None else ah.key
    return b"" if esp is None else esp.integrity_key or esp.cipher_key


def _overhead(esp: Esp | None, ah: Ah | None, inner: int) -> int:
    octets = IPV4_HEADER_LENGTH
    if ah is not None:
        octets += ah.header_octets
    if esp is not None:
        cipher = esp.cipher_algorithm
        padding = -(inner + ESP_TRAILER_LENGTH) % cipher.block_octets
        octets += ESP_HEADER_LENGTH + cipher.iv_octets + padding + ESP_TRAILER_LENGTH + esp.icv_octets
    return octets
