"""IPsec access lists (guide 8.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chassis.model.source import Kept, description_field, kept_field, line_field, written_field, written_flag

MOST_RULES: Final = 64
"""Rules of a tunnel's line that IKEv1 negotiates, each with SAs of its own."""


@dataclass(frozen=True, slots=True)
class AclRule:
    """One rule of an IPsec ACL; None matches anything. Networks are "a.b.c.d/len"."""

    seq: int
    protocol: int | None = None
    source: str | None = None
    source_port: int | None = None
    destination: str | None = None
    destination_port: int | None = None
    source_written: bool = written_flag()
    destination_written: bool = written_flag()
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
