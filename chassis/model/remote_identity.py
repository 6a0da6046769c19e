"""Identities that an on-demand tunnel expects of its peers: exact, partial, or any (guide 9.3; B-160, B-161).

An exact identity is an address or a name. A partial one is a domain name whose first labels are `*`, each for
one label: `*.branch.example`, `*.*.example`. `*` or `0.0.0.0` is any address. An on-demand tunnel without an
identity takes any peer. Names compare without regard to case.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

ANY_ADDRESS: Final = ("*", "0.0.0.0")
"""Spellings of the wildcard for addresses."""


class Precision(IntEnum):
    """How well an identity matches; the lowest wins, whatever the order of configuration."""

    EXACT = 0
    PARTIAL = 1
    WILDCARD = 2
    ANY = 3


@dataclass(frozen=True, slots=True)
class RemoteIdentity:
    """An expected identity. `labels` are those of a name in lower case, empty for an address or `ANY`."""

    precision: Precision
    text: str
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> RemoteIdentity:
        """Return the identity of `remote-id TEXT`; an empty text expects nothing.

        Raises:
            ValueError: `*` stands elsewhere than for the first labels of a name.
        """
        if not text:
            return cls(Precision.ANY, text)
        if text in ANY_ADDRESS:
            return cls(Precision.WILDCARD, text)
        if "*" not in text:
            return cls(Precision.EXACT, text.lower())
        labels = tuple(text.lower().split("."))
        stars = next(at for at, label in enumerate((*labels, "")) if label != "*")
        if not stars or stars == len(labels) or any("*" in label or not label for label in labels[stars:]):
            raise ValueError(
                f"{text!r}: `*` stands for whole labels at the start of a name, as in *.branch.example"
            )
        return cls(Precision.PARTIAL, text.lower(), labels)

    @property
    def canonical(self) -> str:
        """One text for all spellings of this identity."""
        return ANY_ADDRESS[0] if self.precision is Precision.WILDCARD else self.text

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key: exact first, then partial with the fewest `*`, then the wildcard."""
        return (self.precision, self.labels.count("*"))

    def matches(self, identity: str, *, is_address: bool) -> bool:
        """Return whether a peer's identity is meant. `is_address`: its ID payload is an address."""
        if self.precision is Precision.EXACT:
            return identity.lower() == self.text
        if self.precision is Precision.PARTIAL:
            said = identity.lower().split(".")
            return (
                not is_address
                and len(said) == len(self.labels)
                and all(own in ("*", other) and other for own, other in zip(self.labels, said, strict=True))
            )
        return is_address or self.precision is Precision.ANY
