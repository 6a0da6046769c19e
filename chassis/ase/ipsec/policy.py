"""Security policy of tunnels: which SA protects a packet (RFC 4301 4.4.1, guide 9.2.1, 9.4.1).

A tunnel has up to eight lines in order of their sequence number; the first whose access list
matches protects the packet, and a packet that none matches is dropped, never sent in clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chassis.ase.ipsec.selectors import Classifier, Memory, Rule
from chassis.ase.lines import line_and_rule

NO_ENTRY: Final = -1
"""What the classifier of a tunnel gives for a packet that no line matches."""


@dataclass(frozen=True, slots=True)
class SpdEntry:
    """One line of a tunnel, or one rule that has SAs of its own: its number (`chassis.ase.lines`) and rules.

    No rules means that the line has no access list and protects everything. A manual tunnel
    passes only the first rule of its list, a negotiated one all of them (guide 8.4).
    """

    number: int
    rules: tuple[Rule, ...] = ()


class Spd:
    """The policy of every tunnel.

    A changed policy is a new classifier, whose memory of flows is its own: no decision outlives
    the lines that it was made by, and the flows of other tunnels stay remembered.
    """

    __slots__ = ("_classifiers", "_memory", "_rules")

    def __init__(self, memory: Memory | None = None) -> None:
        """`memory` is that of all classifiers of the ASP."""
        self._memory = Memory() if memory is None else memory
        self._classifiers: dict[int, Classifier] = {}
        self._rules: dict[int, dict[int, tuple[Rule, ...]]] = {}

    def put(self, tunnel: int, entries: Iterable[SpdEntry]) -> None:
        """Give a tunnel its lines, in any order, in place of those that it had."""
        lines = sorted(entries, key=lambda entry: line_and_rule(entry.number))
        rules = [(rule, entry.number) for entry in lines for rule in entry.rules or (Rule(),)]
        self._classifiers[tunnel] = Classifier(rules, NO_ENTRY, self._memory)
        self._rules[tunnel] = {entry.number: entry.rules for entry in lines}

    def remove(self, tunnel: int) -> None:
        """Forget a tunnel; without lines everything routed into it is dropped."""
        self._classifiers.pop(tunnel, None)
        self._rules.pop(tunnel, None)

    def rules(self, tunnel: int, entry: int) -> tuple[Rule, ...] | None:
        """The rules of a line that there is."""
        return self._rules.get(tunnel, {}).get(entry)

    def has(self, tunnel: int, entry: int) -> bool:
        """Whether a line may be one of its tunnel's: a tunnel without any at the moment may have it again."""
        lines = self._rules.get(tunnel)
        return lines is None or entry in lines

    def classifier(self, tunnel: int) -> Classifier | None:
        """The lines of a tunnel, ready to match; None when it has none."""
        return self._classifiers.get(tunnel)
