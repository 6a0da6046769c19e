"""Packet accounting of a lab: find every packet in exactly one place, from the counters of all its cards.

Input: the mapped counters of a run folder, the lab's links, and the processes that ended. Output:
`PacketAccounting`. What enters a process leaves it or is dropped for a named cause; what a process sends on a wire
or into the fabric is received by the next one. Otherwise a process ended with packets in its memory or in its
queues. Counters outlive their process: each difference is exact, and their sum equals the packets that the testers
did not receive. The result is valid only if no packet is under way.
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
"""Faults of a wire that add packets, and that do not change their number; all others remove packets."""


_OWN_PORTS = ("tester", "peers")
"""Kinds of nodes with one process, which holds all ports. No packet passes through it."""


@dataclass(slots=True)
class PacketAccounting:
    """Packets of a lab (counts). `sent` and `received` are those of the testers' flows.

    `non_flow` are the other packets that cards, testers and Linux nodes made (ARP, IKE, ICMP, fragments) or that
    an operator injected, less those consumed and those that wait for an address or a fragment. `dropped` is by
    place and cause. `lost_in_crash` was in a process that ended or in a queue to or from it; `unexplained` is the
    same without such a process, and must be empty.

    `overflowed` counts by card what its full table of counters could not name: packets or octets. It is not part
    of the sum; if a card has any, its other counts are unreliable.
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
        """Return the packets that no entry names: 0 unless the counters contradict each other."""
        drops = sum(sum(causes.values()) for causes in self.dropped.values())
        return (
            self.lost + self.non_flow - drops - sum(self.lost_in_crash.values()) - sum(self.unexplained.values())
        )

    def to_json(self) -> dict[str, object]:
        """Return the accounting as a JSON object."""
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
    """Compute the accounting from a lab's run folder; `rows` are its processes as the launcher lists them."""
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
    """Compute the accounting of a lab.

    `kinds` are its nodes by name (smartedge, tester, peers, linux), `links` both ends of each link as in a lab
    file, `counters` by node and card, `died` the cards of which a process ended.
    The only card of a tester, or of a node of peers, is called as its kind.
    """
    dead = set(died)
    ledger = PacketAccounting()
    for node, kind in kinds.items():
        cards = counters.get(node, {})
        for card, values in cards.items():
            if nameless := values.get(OVERFLOW_NAME, 0):
                ledger.overflowed[f"{node} {card}"] = nameless
        if kind in _OWN_PORTS:
            _tester(ledger, node, cards.get(kind, {}))
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
                # Packets that a Linux kernel consumes or sends end or begin there.
                ledger.non_flow += received - sent
                continue
            # Packets queued for the far end are lost with the process that sent them, too.
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
    # Every frame of a tester that is not a flow's is its own.
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
    """Return frames received and sent at a card's ports, and drops at the ports by cause."""
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
    """Return the number of frames that an operator injected at a card's ports."""
    return sum(value for key, value in values.items() if _PORT.fullmatch(key) and key.endswith(" frames injected"))


def _node(end: str) -> str:
    return end.partition(":")[0]


def _frames(
    kinds: Mapping[str, str], counters: Mapping[str, Mapping[str, CardCounters]], end: str, what: str
) -> int:
    """Return this counter of the card at this end of a link."""
    cards = counters.get(_node(end), {})
    name = f"port {end.partition(':')[2]} {what}"
    return sum(values.get(name, 0) for card, values in cards.items() if _holds(kinds, end, card))


def _holds(kinds: Mapping[str, str], end: str, card: str) -> bool:
    node, _, port = end.partition(":")
    return kinds[node] in _OWN_PORTS or card == f"lc {port.partition('/')[0]}"


def _dropped(ledger: PacketAccounting, place: str, drops: Mapping[str, int]) -> None:
    found = {cause: count for cause, count in drops.items() if count}
    if found:
        ledger.dropped[place] = found


def _missing(ledger: PacketAccounting, place: str, packets: int, died: bool) -> None:
    if packets:
        (ledger.lost_in_crash if died else ledger.unexplained)[place] = packets
