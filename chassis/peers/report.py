"""The report of a node of peers, from the counts of its processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chassis.tester.latency import LatencyHistogram

Counts = Mapping[str, Any]
"""What one process counted, as plain values (`chassis.peers.engine.PeersEngine.counts`)."""

MAX_LOG: Final = 50
"""Last texts of IKE's log that a report has (count)."""

STATES: Final = (
    "waiting for the gateway of the port",
    "starting",
    "going down",
    "coming and going",
    "running",
    "stopped",
)
"""States of a process; that of the node is the first one that one of its processes is in."""

_SUMS: Final = ("peers", "wanted", "up", "setups", "left", "lost", "waiting", "ike_sas", "parked")
_TRAFFIC_SUMS: Final = ("peers", "sending", "sent", "received", "lost", "late", "answered", "waiting")


def report(parts: Sequence[Counts]) -> dict[str, Any]:
    """Return the report of a node with these processes, at least one."""
    firsts = [part["first"] for part in parts if part["first"]]
    span = max(part["last"] for part in parts) - min(firsts) if firsts else 0.0
    setups = sum(part["setups"] for part in parts)
    made: dict[str, Any] = {
        "now": max(part["now"] for part in parts),
        "state": min((part["state"] for part in parts), key=STATES.index),
        "processes": len(parts),
        "towards": parts[0]["towards"],
        **{name: sum(part[name] for part in parts) for name in _SUMS},
        "seconds": round(max(span, 0.0), 6),
        "setups_per_second": round(setups / span, 1) if span > 0 else 0.0,
        "latency": _latency([part["latency"] for part in parts]),
        **{name: _added([part[name] for part in parts]) for name in ("down", "failures", "ike")},
        "log": [text for part in parts for text in part["log"]][-MAX_LOG:],
    }
    traffic = [part["traffic"] for part in parts if "traffic" in part]
    if traffic:
        made["traffic"] = {
            **{name: sum(part[name] for part in traffic) for name in _TRAFFIC_SUMS},
            "drops": _added([part["drops"] for part in traffic]),
            "round_trip": _latency([part["round_trip"] for part in traffic]),
        }
    return made


def _added(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def _latency(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return percentiles (ms); empty without any."""
    whole = LatencyHistogram()
    for part in parts:
        whole.merge(part)
    if not whole.count:
        return {}
    found = {f"p{share}_ms": whole.percentile(share / 100) for share in (50, 90, 99)}
    return {name: round(value / 1e6, 3) for name, value in {**found, "max_ms": whole.max}.items()}
