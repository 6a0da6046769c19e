"""IPsec proposals, policies, manual SAs, profiles and the `seq` lines of tunnels (guide 8.1 to 8.3, 9.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from chassis.model.ike import ProposalRef
from chassis.model.source import (
    OFF_WIRE,
    Kept,
    description_field,
    encrypted_field,
    kept_field,
    line_field,
    written_field,
)

CIPHER_ENGINES: Final = ("cryptography", "auto", "ipsec-mb")
"""What a lab may ask for as the library that encrypts ESP, the default first. `auto` is ipsec-mb where the machine
has it."""

DEFAULT_WINDOW: Final = 64
"""Anti-replay window of an SA without such a line (packets)."""


@dataclass(frozen=True, slots=True)
class Key:
    """Key material as bytes; `hexadecimal` says how it was typed and is printed back.

    `opaque`: only the encrypted form is known, as where no secret is; its text is the value.
    """

    value: bytes = field(repr=False)
    hexadecimal: bool = field(default=False, compare=False, metadata=OFF_WIRE)
    encrypted: str = encrypted_field()

    @property
    def opaque(self) -> bool:
        return self.encrypted != "" and self.value == self.encrypted.encode()


@dataclass(frozen=True, slots=True)
class Keyed:
    """An algorithm with its manual key (guide 8.3.1); `algorithm` is None where the line left it out.

    `Spi` has the algorithms in force. The cipher null is `Keyed("null", Key(b""))`.
    """

    algorithm: str | None
    key: Key


@dataclass(frozen=True, slots=True)
class IpsecProposal:
    """`ipsec proposal`. The three algorithm fields hold the lines that were typed; the properties what they mean.

    Without any of the three lines a proposal means ESP hmac-sha1-96 with aes-128-cbc; as soon as one line
    exists only the lines count.
    """

    name: str
    description: str | None = description_field()
    ip_comp: bool = False
    ah: str | None = None
    esp_authentication: str | None = None
    esp_encryption: str | None = None
    lifetime_seconds: int = 86400
    lifetime_kbytes: int | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def is_default_pair(self) -> bool:
        return self.ah is None and self.esp_authentication is None and self.esp_encryption is None

    @property
    def esp_integrity(self) -> str | None:
        """Integrity algorithm of ESP in force, None for none (or no ESP at all)."""
        return "hmac-sha1-96" if self.is_default_pair else self.esp_authentication

    @property
    def esp_cipher(self) -> str | None:
        """Cipher of ESP in force ("null" counts), None when the proposal has no ESP."""
        if self.is_default_pair:
            return "aes-128-cbc"
        if self.esp_encryption is None and self.esp_authentication is not None:
            return "null"
        return self.esp_encryption


@dataclass(frozen=True, slots=True)
class IpsecPolicy:
    """`ipsec policy`; `window` in packets, `pfs_group` None when PFS is off.

    `esn` asks for extended sequence numbers (RFC 4303 2.2.1): a setting of the node, not of a command.
    """

    name: str
    description: str | None = description_field()
    window: int = DEFAULT_WINDOW
    pfs_group: int | None = None
    proposals: tuple[ProposalRef, ...] = ()
    esn: bool = False
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class SaKeys:
    """Keys of one direction of an SA, algorithms in force. An SPI of 0 means that the protocol is not used."""

    esp_spi: int = 0
    esp_integrity: str = ""
    esp_integrity_key: bytes = field(default=b"", repr=False)
    esp_cipher: str = "null"
    esp_cipher_key: bytes = field(default=b"", repr=False)
    ah_spi: int = 0
    ah_integrity: str = ""
    ah_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Spi:
    """The attributes of a manual SA in one direction (or in both): guide 8.3.1, SPI configuration mode."""

    esp_spi: int | None = None
    esp_auth: Keyed | None = None
    esp_encryption: Keyed | None = None
    ah_spi: int | None = None
    ah: Keyed | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def esp_integrity(self) -> str | None:
        """Integrity algorithm of ESP in force, None without an `esp authentication` line."""
        return None if self.esp_auth is None else self.esp_auth.algorithm or "hmac-sha1-96"

    @property
    def esp_cipher(self) -> str | None:
        """Cipher of ESP in force; "null" without an `esp encryption` line; None without ESP."""
        if self.esp_encryption is not None:
            return self.esp_encryption.algorithm or "aes-128-cbc"
        return "null" if self.esp_auth is not None else None

    @property
    def ah_integrity(self) -> str | None:
        """Algorithm of AH in force, None without AH."""
        return None if self.ah is None else self.ah.algorithm or "hmac-sha1-96"

    @property
    def keys(self) -> SaKeys:
        """SPIs, algorithms and keys of this direction; complete only if the direction is."""
        return SaKeys(
            esp_spi=self.esp_spi or 0,
            esp_integrity=self.esp_integrity or "",
            esp_integrity_key=self.esp_auth.key.value if self.esp_auth is not None else b"",
            esp_cipher=self.esp_cipher or "null",
            esp_cipher_key=self.esp_encryption.key.value if self.esp_encryption is not None else b"",
            ah_spi=self.ah_spi or 0,
            ah_integrity=self.ah_integrity or "",
            ah_key=self.ah.key.value if self.ah is not None else b"",
        )

    @property
    def has_esp(self) -> bool:
        return self.esp_spi is not None or self.esp_auth is not None or self.esp_encryption is not None

    @property
    def has_ah(self) -> bool:
        return self.ah_spi is not None or self.ah is not None

    @property
    def complete(self) -> bool:
        """Whether each protocol with a line has both an SPI and a key; cipher null alone does not count as one."""
        if not self.has_esp and not self.has_ah:
            return False
        keyed = self.esp_auth is not None or (
            self.esp_encryption is not None and self.esp_encryption.algorithm != "null"
        )
        if self.has_esp and (self.esp_spi is None or not keyed):
            return False
        return not self.has_ah or (self.ah_spi is not None and self.ah is not None)


@dataclass(frozen=True, slots=True)
class ManualSa:
    """`ipsec security-association`. `both` excludes `inbound` and `outbound`, which come as a pair.

    `window` is None where no line gives it, and `replay_window` what is in force then.
    """

    name: str
    description: str | None = description_field()
    window: int | None = None
    ip_comp: bool = False
    both: Spi | None = None
    inbound: Spi | None = None
    outbound: Spi | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def replay_window(self) -> int:
        """Anti-replay window in force (packets): S-109."""
        return DEFAULT_WINDOW if self.window is None else self.window

    def keys(self, direction: Literal["in", "out"]) -> SaKeys:
        """Keys of the packets that come in, or go out; empty where that direction is missing."""
        spi = self.receive if direction == "in" else self.send
        return SaKeys() if spi is None else spi.keys

    @property
    def receive(self) -> Spi | None:
        """The direction that protects the packets that come in."""
        return self.both or self.inbound

    @property
    def send(self) -> Spi | None:
        """The direction that protects the packets that go out."""
        return self.both or self.outbound

    @property
    def complete(self) -> bool:
        """Whether both directions are there, complete, and of the same protocols."""
        receive, send = self.receive, self.send
        if receive is None or send is None or not receive.complete or not send.complete:
            return False
        return receive.has_esp == send.has_esp and receive.has_ah == send.has_ah


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """`seq N ...` of a tunnel or a profile: an IPsec policy, or a manual SA (then `policy` means nothing)."""

    seq: int
    policy: str | None = None
    sa: str | None = None
    acl: str | None = None
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Profile:
    """`ipsec profile`, for on-demand tunnels of the same name. `df_bit` None copies the inner bit."""

    name: str
    df_bit: Literal["set", "clear"] | None = None
    mtu: int | None = None
    entries: tuple[TunnelEntry, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class QosPolicy:
    """`ipsec qos policy NAME pq`; `num_queues` 1 or 4, None where no line gives it (1 is meant)."""

    name: str
    num_queues: int | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()
