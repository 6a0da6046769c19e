"""What counters showed when an operator cleared them: what is shown since then counts from there.

No counter of a card is ever set back, so the accounting of packets stays exact. A base is forgotten when the
controller starts again. A counter below its base is one of a new file: it counts from zero.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from copy import deepcopy
from typing import Any

Row = dict[str, Any]

_SA = ("serial", "direction", "protocol", "spi", "peer")


class CounterBases:
    """The bases of ports and circuits by name and number, and of tunnels by number."""

    def __init__(self) -> None:
        self._cards: dict[tuple[str, str], Mapping[str, int]] = {}
        self._tunnels: dict[int, Row] = {}

    # what is cleared

    def clear_cards(self, replies: Iterable[Mapping[str, Any]], port: str = "") -> None:
        """Remember what line cards counted at ports and of circuits, or at one port."""
        for reply in replies:
            for kind in ("ports", "circuits"):
                for name, counts in reply.get(kind, {}).items():
                    if port in ("", name):
                        self._cards[kind, name] = dict(counts)

    def clear_tunnels(self, replies: Iterable[Mapping[str, Any]]) -> None:
        """Remember what ASPs counted of tunnels."""
        for reply in replies:
            for row in reply.get("tunnels", ()):
                self._tunnels[row["tunnel"]] = row

    def retain(self, tunnels: Container[int], circuits: Container[int]) -> None:
        """Forget tunnels and circuits that are no longer there."""
        self._tunnels = {number: row for number, row in self._tunnels.items() if number in tunnels}
        self._cards = {
            (kind, name): counts
            for (kind, name), counts in self._cards.items()
            if kind != "circuits" or int(name) in circuits
        }

    # what is shown

    def count_cards(self, reply: Mapping[str, Any]) -> Row:
        """Return what a line card counted since the last clear."""
        return {
            kind: {name: _since(counts, self._cards.get((kind, name), {})) for name, counts in reply[kind].items()}
            for kind in ("ports", "circuits")
            if kind in reply
        }

    def count_tunnels(self, reply: Mapping[str, Any]) -> Row:
        """Return what an ASP counted of its tunnels since the last clear."""
        return {**reply, "tunnels": [self._tunnel(row) for row in reply.get("tunnels", ())]}

    def count_totals(self, totals: Mapping[str, Any], tunnels: Iterable[int]) -> Row:
        """Return the sums of an ASP over these tunnels since the last clear."""
        counted = deepcopy(dict(totals))
        for number in tunnels:
            base = self._tunnels.get(number)
            if base is not None:
                _reduce(counted, base)
        return counted

    def _tunnel(self, row: Mapping[str, Any]) -> Row:
        counted = deepcopy(dict(row))
        base = self._tunnels.get(row["tunnel"])
        if base is None:
            return counted
        _reduce(counted, base)
        held = {tuple(sa.get(name) for name in _SA): sa for sa in base["sas"]}
        for sa in counted["sas"]:
            before = held.get(tuple(sa.get(name) for name in _SA))
            if before is not None:
                sa.update(_since({unit: sa[unit] for unit in ("packets", "octets")}, before))
        return counted


def _reduce(row: Row, base: Mapping[str, Any]) -> None:
    for way in ("encapsulated", "decapsulated"):
        row[way] = _since(row[way], base[way])
    for way, causes in row["drops"].items():
        row["drops"][way] = _since(causes, base["drops"].get(way, {}))


def _since(counts: Mapping[str, int], base: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: count - int(base.get(name, 0)) if count >= int(base.get(name, 0)) else count
        for name, count in counts.items()
    }
