"""Security associations as immutable values: what manual keys or IKE hand to the SA database (RFC 4301 4.4.2).

A value describes an SA completely and holds no state. Its representation does not contain keys. An SA here is one
SA of RFC 4301, or a bundle of two: AH around ESP under one outer header.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
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
"""The last extended sequence number (RFC 4303 2.2.1). Only its low half is sent."""
MIN_SPI = 256
"""Lower SPIs are reserved (RFC 4302 2.4, RFC 4303 2.1). A CPI of IPComp may be lower (RFC 3173 3.3)."""


class SaError(ValueError):
    """An SA cannot be built or installed. The text is shown to the operator."""


class DfPolicy(StrEnum):
    """How the don't-fragment bit of the outer header is set: copied from the inner header, or forced."""

    PROPAGATE = "propagate"
    SET = "set"
    CLEAR = "clear"

    @property
    def mask_and_bits(self) -> tuple[int, int]:
        """Return (mask, bits): the outer flags are `inner & mask | bits`."""
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
    """ESP of one SA. Without `integrity`, and without a combined mode cipher, there is no ICV and no replay window
    (RFC 4303 3.4.3).

    Raises:
        SaError: the SPI, an algorithm or the length of a key is not valid.
    """

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
            raise SaError(f"{self.cipher} cannot have a separate integrity algorithm")
        if self.integrity is not None:
            _integrity(self.integrity, self.integrity_key)
        elif self.integrity_key:
            raise SaError("ESP has an integrity key but no integrity algorithm")

    @property
    def cipher_algorithm(self) -> CipherAlgorithm:
        """The registry entry of the cipher."""
        return CIPHERS[self.cipher]

    @property
    def integrity_algorithm(self) -> IntegrityAlgorithm | None:
        """The registry entry of the integrity algorithm; None without one."""
        return None if self.integrity is None else INTEGRITY[self.integrity]

    @property
    def icv_octets(self) -> int:
        """Length of the ICV (octets); 0 without integrity."""
        if self.integrity is None:
            return self.cipher_algorithm.icv_octets
        return INTEGRITY[self.integrity].icv_octets


@dataclass(frozen=True, slots=True)
class Ah:
    """AH of one SA.

    Raises:
        SaError: the SPI, the algorithm or the length of the key is not valid.
    """

    spi: int
    integrity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_spi("AH", self.spi)
        _integrity(self.integrity, self.key)

    @property
    def integrity_algorithm(self) -> IntegrityAlgorithm:
        """The registry entry of the integrity algorithm."""
        return INTEGRITY[self.integrity]

    @property
    def header_octets(self) -> int:
        """Length of the AH header: 12 octets and the ICV (RFC 4302 2.2)."""
        return AH_FIXED_LENGTH + self.integrity_algorithm.icv_octets


def _check_protocols(esp: Esp | None, ah: Ah | None, cpi: int) -> None:
    if esp is None and ah is None:
        raise SaError("an SA needs ESP, AH or both")
    if ah is None and esp is not None and esp.cipher == "null" and esp.integrity is None:
        # RFC 4303 1. With AH around it, ESP needs neither.
        raise SaError("ESP needs a cipher, an integrity algorithm or both")
    if not 1 <= cpi <= MAX_CPI:
        raise SaError(f"IPComp CPI {cpi} is outside 1 to {MAX_CPI}")


def _check_esn(esn: bool, negotiated: bool) -> None:
    if esn and not negotiated:
        # Manual keys have no ESN (RFC 4303 2.2.1), and the stored numbers have 32 bits.
        raise SaError("extended sequence numbers need a negotiated SA")


def _check_address(what: str, address: int) -> None:
    if not 0 <= address < 1 << 32:
        raise SaError(f"{what} address {address:#x} is not an IPv4 address")


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """Ports of the UDP header between outer IP header and ESP (RFC 3948)."""

    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class ByteLifetime:
    """Octets after which an SA is rekeyed (`soft`) and after which it ends (`hard`); 0 is no limit (RFC 4301
    4.4.2.1)."""

    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class OutboundSa:
    """The outbound direction of an SA.

    `tunnel` and `serial` identify it; `entry` is the number of the SPD entry that it serves. Addresses are IPv4
    addresses as numbers; `source`, the local outer address, belongs to `context`. `assignment` is the controller's
    number of its placement on this ASP, which is stored with its state. `esn`: sequence numbers have 64 bits. A
    `negotiated` SA (from IKE) ends with the process: its numbers are not stored. `selectors` are the rules agreed
    with the peer, perhaps narrower than the SPD entry (RFC 7296 2.9); `()` matches everything. The tunnel, not the
    SA, limits the length of packets.

    Raises:
        SaError: the values do not make an SA.
    """

    tunnel: int
    serial: int
    source: int
    destination: int
    _: KW_ONLY
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
        """(protocol, SPI), outermost first."""
        return _protocols(self.esp, self.ah)

    def key(self, protocol: int) -> bytes:
        """Return the key that authenticates packets of a protocol; the encryption key if there is no integrity."""
        return _key(self.esp, self.ah, protocol)

    @property
    def max_sequence(self) -> int:
        """The last sequence number that may be sent."""
        return MAX_EXTENDED_SEQUENCE if self.esn else MAX_SEQUENCE

    def overhead(self, inner: int) -> int:
        """Return the octets that encapsulation adds to an inner packet of `inner` octets, without compression."""
        return _overhead(self.esp, self.ah, inner) + (UDP_HEADER_LENGTH if self.udp else 0)

    def max_overhead(self) -> int:
        """Return the most octets that encapsulation adds to a packet."""
        block = 1 if self.esp is None else self.esp.cipher_algorithm.block_octets
        return max(self.overhead(inner) for inner in range(IPV4_HEADER_LENGTH, IPV4_HEADER_LENGTH + block))

    def max_inner(self, outer: int) -> int:
        """Return the length of the longest inner packet whose outer packet fits in `outer` octets."""
        inner = max(outer - self.max_overhead(), 0)
        while inner + 1 + self.overhead(inner + 1) <= outer:
            inner += 1
        return inner


@dataclass(frozen=True, slots=True)
class InboundSa:
    """The inbound direction of an SA.

    `destination` is the local outer address, in `context`. `selectors` are matched against inner packets as they
    come out, so they mirror an access list that is written for packets going in (`Rule.mirrored`); `()` matches
    everything. `window` is the size of the replay window (packets). `udp`: packets may be UDP-encapsulated, and
    their source is reported. `entry` is the number of the SPD entry that it belongs to. `esn`, `negotiated` and
    `assignment` as in `OutboundSa`. `closed`: where another ASP had the SA before, no number up to the edge of the
    window there is taken.

    Raises:
        SaError: the values do not make an SA.
    """

    tunnel: int
    serial: int
    source: int
    destination: int
    _: KW_ONLY
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
    closed: bool = field(default=False, compare=False)

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
        """(protocol, SPI), outermost first."""
        return _protocols(self.esp, self.ah)

    def key(self, protocol: int) -> bytes:
        """Return the key that authenticates packets of a protocol; the encryption key if there is no integrity."""
        return _key(self.esp, self.ah, protocol)


@dataclass(frozen=True, slots=True)
class SequenceLease:
    """Sequence numbers that an outbound SA may use: `first` up to, but not including, `limit`.

    Raises:
        SaError: the range is not valid.
    """

    first: int = 1
    limit: int = MAX_SEQUENCE + 1

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.limit <= MAX_EXTENDED_SEQUENCE + 1:
            raise SaError(f"sequence lease {self.first} to {self.limit} is not valid")


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
