"""Where every packet of a lab is: the ledger of all its cards' counters.

What goes into a process comes out of it or is dropped there for a cause that has a name; what one process puts on
a wire or into the fabric the next one takes out. Where that is not so, a process has died in between, and took
with it what it had in hand, or what waited for it. Counters outlive their process: each of these differences is
known to the packet, and adds up to what the testers miss. The ledger is of a lab at rest: nothing under way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.ase.counters import CAUSES as ASP_CAUSES
from chassis.bus import endpoints
from chassis.bus.counters import OVERFLOW_NAME, read
from chassis.fwd.drop_causes import DropCause

CardCounters = Mapping[str, int]
Row = Mapping[str, Any]

_PORT = re.compile(r"port (?P<port>\S+) (?P<what>.+)")
_ENGINE_DROPS = frozenset(f"drop {cause}" for cause in (*ASP_CAUSES, *(cause.value for cause in DropCause)))
_MORE = frozenset({"duplicate"})
_SAME = frozenset({"reorder"})
"""Faults of a wire that make packets more, and that leave their number alone; all others take them away."""


@dataclass(slots=True)
class PacketAccounting:
    """Packets of a lab. `sent` and `received` are those of the testers' flows.

    `non_flow` are what cards, testers and Linux nodes made besides (ARP, IKE, ICMP, fragments) or were given to a
    port by an operator, less what they consumed of that kind and what still waits, for an address or a fragment.
    `dropped` is by place and cause. `lost_in_crash` is what went with a process that died: in its hands, or in a
    queue towards it or from it; `unexplained` is the same where no process died, which there must be none of.

    `overflowed` is by card what it counted when its table of counters was full. It may be anything, packets or
    octets, and is no part of the sum; where there is any, nothing else of that card can be relied on.
    """

    sent: int = 0
    received: int = 0
    non_flow: int = 0
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    lost_in_crash: dict[str, int] = field(default_factory=dict)
    unexplained: dict[str, int] = field(default_factory=dict)
    overflowed: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def residual(self) -> int:
        """Packets that no entry names: zero, or the counters contradict each other."""
        drops = sum(sum(causes.values()) for causes in self.dropped.values())
        return (
            self.lost + self.non_flow - drops - sum(self.lost_in_crash.values()) - sum(self.unexplained.values())
        )

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "sent": self.sent,
            "received": self.received,
            "lost": self.lost,
            "non_flow": self.non_flow,
            "dropped": self.dropped,
            "lost_in_crash": self.lost_in_crash,
            "unexplained": self.unexplained,
            "overflowed": self.overflowed,
            "residual": self.residual,
        }


def for_lab(
    run: Path, kinds: Mapping[str, str], links: Iterable[Sequence[str]], rows: Iterable[Row]
) -> PacketAccounting:
    """The ledger from the counters in a lab's run folder; `rows` are its processes as the launcher lists them."""
    held: dict[str, dict[str, CardCounters]] = {}
    died = []
    for row in rows:
        file = run / f"{row['node']}.{endpoints.compact(row['card'])}.counters"
        if row["card"] and file.exists():
            held.setdefault(row["node"], {})[row["card"]] = read(file)
        if row.get("ended"):
            died.append((row["node"], row["card"]))
    return account_for(kinds, links, held, died)


def account_for(
    kinds: Mapping[str, str],
    links: Iterable[Sequence[str]],
    counters: Mapping[str, Mapping[str, CardCounters]],
    died: Iterable[tuple[str, str]],
) -> PacketAccounting:
    """The ledger of a lab: `kinds` of its nodes by name (smartedge, tester, linux), both ends of each link as a
    lab file writes them, `counters` by node and card, and the cards of which a process has died. A
    tester's only card is `tester`.
    """
    dead = set(died)
    ledger = PacketAccounting()
    for node, kind in kinds.items():
        cards = counters.get(node, {})
        for card, values in cards.items():
            if nameless := values.get(OVERFLOW_NAME, 0):
                ledger.overflowed[f"{node} {card}"] = nameless
        if kind == "tester":
            _tester(ledger, node, cards.get("tester", {}))
        elif kind == "smartedge":
            for card, values in cards.items():
                _card(ledger, f"{node} {card}", values, (node, card) in dead)
            between = sum(
                values.get("fabric sent", 0) - values.get("fabric received", 0) for values in cards.values()
            )
            _missing(ledger, f"{node} fabric", between, any(name == node for name, _ in dead))
    for link in links:
        for end, far in (tuple(link), tuple(link)[::-1]):
            sent = _frames(kinds, counters, end, "frames sent")
            received = _frames(kinds, counters, far, "frames received")
            if "linux" in (kinds[_node(end)], kinds[_node(far)]):
                # What a kernel takes, and what it sends, ends and begins there.
                ledger.non_flow += received - sent
                continue
            # What waited for its far end goes with the process that sent it, too.
            at_an_end = any(
                _node(one) == node and _holds(kinds, one, card) for node, card in dead for one in (end, far)
            )
            _missing(ledger, f"wire {end} to {far}", sent - received, at_an_end)
    return ledger


def _tester(ledger: PacketAccounting, name: str, values: CardCounters) -> None:
    sent = sum(value for key, value in values.items() if key.startswith("flow ") and key.endswith(" sent"))
    received = sum(value for key, value in values.items() if key.startswith("flow ") and key.endswith(" received"))
    came, went, drops = _ports(values)
    ledger.sent += sent
    ledger.received += received
    # Everything that leaves is a flow's or the tester's own; so is what comes.
    ledger.non_flow += went + sum(drops.values()) - sent - (came - received) + _injected(values)
    _dropped(ledger, name, drops)


def _card(ledger: PacketAccounting, place: str, values: CardCounters, died: bool) -> None:
    came, went, drops = _ports(values)
    made, consumed = values.get("packets originated", 0), values.get("packets delivered", 0)
    drops |= {
        key.removeprefix("drop "): value
        for key, value in values.items()
        if key in _ENGINE_DROPS or key.startswith(("drop fabric full to ", "drop no connection to "))
    }
    _dropped(ledger, place, drops)
    ledger.non_flow += made - consumed + _injected(values)
    held = came + values.get("fabric received", 0) + made
    found = went + values.get("fabric sent", 0) + consumed + values.get("packets queued", 0)
    ledger.non_flow -= values.get("packets queued", 0)
    _missing(ledger, place, held - found - sum(drops.values()), died)


def _ports(values: CardCounters) -> tuple[int, int, dict[str, int]]:
    """Frames that came by a card's ports and that left by them, and what was dropped at them, by cause."""
    came = went = 0
    drops: dict[str, int] = {}
    for key, value in values.items():
        found = _PORT.fullmatch(key)
        if found is None or not value:
            continue
        what = found["what"]
        if what in ("frames received", "frames injected"):
            came += value
        elif what == "frames sent":
            went += value
        elif what.startswith("drop "):
            drops[key] = value
        elif what.startswith("impairment "):
            kind = what.removeprefix("impairment ")
            if kind not in _SAME:
                drops[key] = -value if kind in _MORE else value
    return came, went, drops


def _injected(values: CardCounters) -> int:
    """Frames that an operator gave to a card's ports."""
    return sum(value for key, value in values.items() if _PORT.fullmatch(key) and key.endswith(" frames injected"))


def _node(end: str) -> str:
    return end.partition(":")[0]


def _frames(
    kinds: Mapping[str, str], counters: Mapping[str, Mapping[str, CardCounters]], end: str, what: str
) -> int:
    """What the card of this end has counted of it."""
    cards = counters.get(_node(end), {})
    name = f"port {end.partition(':')[2]} {what}"
    return sum(values.get(name, 0) for card, values in cards.items() if _holds(kinds, end, card))


def _holds(kinds: Mapping[str, str], end: str, card: str) -> bool:
    node, _, port = end.partition(":")
    return kinds[node] == "tester" or card == f"lc {port.partition('/')[0]}"


def _dropped(ledger: PacketAccounting, place: str, drops: Mapping[str, int]) -> None:
    found = {cause: count for cause, count in drops.items() if count}
    if found:
        ledger.dropped[place] = found


def _missing(ledger: PacketAccounting, place: str, packets: int, died: bool) -> None:
    if packets:
        (ledger.lost_in_crash if died else ledger.unexplained)[place] = packets
