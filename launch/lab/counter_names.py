"""Names of the counters of line cards and ASPs. Most counters exist only after the first count, so a misspelt name
would read 0 for ever: check names against these lists. A test compares the lists with the code that counts."""

from __future__ import annotations

import difflib
import re
from functools import cache

from chassis.ase import counters as asp
from chassis.bus.counters import OVERFLOW_NAME
from chassis.bus.fabric import TAKEN_FROM
from chassis.bus.hops import COUNTS, PREFIX, WAKEUPS
from chassis.fwd import decision, icmp_errors
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import ORIGINATED
from chassis.linecard import arp, circuits
from chassis.linecard import counters as line_card
from chassis.ports import impairment

COMMON = (
    "fabric sent",
    "fabric received",
    f"{TAKEN_FROM}{{card}}",
    "fabric full class {number}",
    "drop fabric full to {card}",
    "drop no connection to {card}",
    "drop undecodable batch",
    "drop undecodable message",
    "drop unencodable message",
    "drop control message",
    decision.EVICTED,
    OVERFLOW_NAME,
    WAKEUPS,
    *(f"{PREFIX}{{rest}} {count}" for count in COUNTS),
)
"""Counters of every card. A name in braces stands for any value."""

LINE_CARD = (
    line_card.FROM_WIRE,
    line_card.FROM_FABRIC,
    ORIGINATED,
    line_card.TO_WIRE,
    line_card.TO_FABRIC,
    line_card.DELIVERED,
    line_card.WAITING,
    icmp_errors.SENT,
    icmp_errors.RATE_LIMITED,
    arp.EVICTED_INCOMPLETE,
    arp.EVICTED_RESOLVED,
    arp.EVENTS_RATE_LIMITED,
    *(f"drop {cause}" for cause in DropCause),
    *(
        f"{kind} {{number}} {what} {way}"
        for kind in ("circuit", circuits.INSTANCE)
        for what in ("packets", "bytes")
        for way in ("in", "out")
    ),
    *(f"port {{port}} frames {what}" for what in ("sent", "received", "injected")),
    *(f"port {{port}} drop {what}" for what in ("not sent", "down", "fenced", "undecodable", "ring full")),
    *(f"port {{port}} impairment {cause}" for cause in impairment.IMPAIRMENT_COUNTS),
)

IKE = (
    "negotiations responded",
    "responses resent",
    "negotiations initiated",
    "CHILD SAs created",
    "CHILD SAs rekeyed",
    "rekey collisions lost",
    "cookies requested",
    "half-open evicted",
    "IKE SAs established",
    "messages dropped",
    "failed dead peer",
    "cleartext errors",
    "IKE SAs rekeyed",
    "integrity failures",
    "log lines held back",
    "messages malformed",
    "messages received",
    "messages sent",
    "no matching connection",
    "octets received",
    "octets sent",
    "INVALID_KE_PAYLOAD sent",
    "unexpected messages",
    "DPD probes sent",
    "half-open limit reached",
    "requests sent",
    "retransmissions",
    "request queue full",
    "decryption failures",
    "unknown SPI",
    "unknown SPIs answered",
    "invalid SPI notified",
    "retried after {rest}",
    "failed {rest}",
    "refused {rest}",
)
"""Counters of IKE; some have the IKE version as prefix."""

ASP = (
    "packets from fabric",
    "selector flows shed",
    "packets to fabric",
    "packets originated",
    "fragments created",
    "icmp errors sent",
    "icmp errors rate limited",
    "packets delivered",
    "packets queued",
    "ike datagrams received",
    "ike datagrams sent",
    "ike datagrams dropped",
    "nat keepalives received",
    "path mtu updates",
    "ike pipe messages dropped",
    "drop ike busy",
    *(f"drop {cause}" for cause in asp.CAUSES),
    *(
        f"drop {cause}"
        for cause in (DropCause.FENCED, DropCause.OLD_EPOCH, DropCause.WRONG_STEP, DropCause.NO_PORT)
    ),
    *(f"{kind} {{number}} {what}" for kind in ("tunnel", asp.INSTANCE) for what in asp.TUNNEL_COUNTERS),
    *(f"queue {name} {what}" for name in asp.QUEUE_NAMES for what in asp.QUEUE_COUNTERS),
    *(f"ike {version}{name}" for version in ("", "v1 ", "v2 ") for name in IKE),
)

_OPEN = {
    "{port}": r"\d+/\d+",
    "{card}": r"(?:lc \d+|asp \d+/\d+)",
    "{number}": r"\d+",
    "{rest}": r".+",
}


def names(card: str) -> tuple[str, ...]:
    """Return every counter name of a card; with "" those of all kinds of cards."""
    kinds = {"lc": LINE_CARD, "asp": ASP, "": (*LINE_CARD, *ASP)}
    return (*COMMON, *kinds[card.partition(" ")[0]])


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """Return a pattern of all counter names of a kind of card."""
    parts = []
    for name in dict.fromkeys(names(kind)):
        text = re.escape(name)
        for word, pattern in _OPEN.items():
            text = text.replace(re.escape(word), pattern)
        parts.append(text)
    return re.compile("|".join(f"(?:{part})" for part in parts))


def problem(name: str, card: str) -> str:
    """Return why no counter of this card (or, with "", of any) can have this name, with similar names; empty if
    one can."""
    kind = card.partition(" ")[0]
    if _pattern(kind).fullmatch(name):
        return ""
    close = difflib.get_close_matches(name, names(kind), n=3, cutoff=0.5)
    hint = f"; the nearest are {', '.join(map(repr, close))}" if close else ""
    return f"{card or 'no card'} {'has no' if card else 'has a'} counter {name!r}{hint}"


_SUBJECT = re.compile(r"(port|circuit|tunnel) (\S+) .+|.* to ((?:lc|asp) .+)")


def subject(name: str) -> tuple[str, str]:
    """Return what a counter belongs to: `port`, `circuit`, `tunnel` or `card`, and its name; empty for a whole
    card."""
    match = _SUBJECT.fullmatch(name)
    if match is None:
        return "", ""
    return ("card", match[3]) if match[3] else (match[1], match[2])
