"""IKE proposals and policies of both versions (guide 6.2, 6.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chassis.model.source import Kept, description_field, encrypted_field, kept_field, line_field, written_field


@dataclass(frozen=True, slots=True)
class Identity:
    """An IKE identity given as an address or as a name."""

    kind: Literal["address", "fqdn"]
    value: str


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """Pre-shared key of an IKE policy: characters, hexadecimal, or asked from AAA (then `value` is empty).

    `opaque`: only the encrypted form is known, as where no secret is; its text is the value.
    """

    form: Literal["ascii", "hex", "aaa"]
    value: bytes = field(default=b"", repr=False)
    encrypted: str = encrypted_field()

    @property
    def opaque(self) -> bool:
        return self.encrypted != "" and self.value == self.encrypted.encode()


@dataclass(frozen=True, slots=True)
class ProposalRef:
    """`seq N proposal NAME` of an IKE or IPsec policy."""

    seq: int
    name: str
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class IkeProposal:
    """`ike proposal` (version 1) or `ike2 proposal` (version 2); names are unique over both (guide table 1).

    `authentication` and `lifetime` (seconds) belong to version 1, `prf` to version 2.
    """

    name: str
    version: Literal[1, 2] = 1
    description: str | None = description_field()
    dh_group: int = 1
    authentication_algorithm: str = "hmac-sha1-96"
    encryption_algorithm: str = "aes-128-cbc"
    authentication: Literal["pre-shared-key", "rsa-signature"] = "pre-shared-key"
    lifetime: int = 86400
    prf: str = "hmac-sha1"
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def exists(self) -> bool:
        """Whether its version has its cipher: AES-GCM protects messages of version 2 only (RFC 5282)."""
        return self.version == 2 or not self.encryption_algorithm.endswith("-gcm")


@dataclass(frozen=True, slots=True)
class IkePolicy:
    """`ike policy` (version 1) or `ike2 policy` (version 2); names are unique over both in a context.

    `mode` belongs to version 1; `authentication`, `lifetime` (seconds) and `address_allocation` to version 2.
    """

    name: str
    version: Literal[1, 2] = 1
    description: str | None = description_field()
    connection_type: Literal["initiator-only", "responder-only", "both"] = "both"
    identity_local: Identity | None = None
    identity_remote: Identity | None = None
    mode: Literal["main", "aggressive"] = "main"
    authentication: Literal["pre-shared-key", "rsa-signature"] = "pre-shared-key"
    validate_certificate_identity: bool = False
    address_allocation: bool = False
    pre_shared_key: PreSharedKey | None = None
    lifetime: int = 86400
    proposals: tuple[ProposalRef, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def psk(self) -> bytes | None:
        """The octets of the pre-shared key; None without one, and where AAA has it."""
        key = self.pre_shared_key
        return None if key is None or key.form == "aaa" else key.value
