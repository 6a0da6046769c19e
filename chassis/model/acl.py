"""IPsec access lists (guide 8.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from chassis.model.source import OFF_WIRE, Kept, description_field, kept_field, line_field, written_field
from chassis.net.address import ANY
from chassis.net.types import Prefix

MAX_IKEV1_RULES: Final = 64
"""Rules of a tunnel's line that IKEv1 negotiates, each with SAs of its own."""


Form = Literal["", "any", "prefix"]
"""How a network was typed: left out, as `any`, or with its length."""


@dataclass(frozen=True, slots=True)
class AclRule:
    """One rule of an IPsec ACL. A `protocol` or port of None and the network `ANY` match anything."""

    seq: int
    protocol: int | None = None
    source: Prefix = ANY
    source_port: int | None = None
    destination: Prefix = ANY
    destination_port: int | None = None
    source_form: Form = field(default="", compare=False, repr=False, metadata=OFF_WIRE)
    destination_form: Form = field(default="", compare=False, repr=False, metadata=OFF_WIRE)
    line: int = line_field()


@dataclass(frozen=True, slots=True)
class Acl:
    """`ipsec access-list`: rules in order of their sequence numbers."""

    name: str
    description: str | None = description_field()
    rules: tuple[AclRule, ...] = ()
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()
