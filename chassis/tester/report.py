"""What a source and a sink know of a flow, put together into what happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.tester.ledger import evenly


def combine(
    source: Mapping[str, Any] | None,
    sink: Mapping[str, Any] | None,
    *,
    auto: bool = False,
    final: bool = False,
    begin: float = 0.0,
    end: float = float("inf"),
) -> dict[str, Any]:
    """One flow's account of the two ends' reports.

    A packet that had no time to arrive yet is neither received nor lost, unless `final` says that the flow has
    stopped and the wires are empty. Of an `auto` flow, packets before the first one that arrived don't count as
    lost (`before`). `window_lost` counts packets that should have arrived in [begin, end), in seconds of the
    monotonic clock: the sink's report must have been made for the same period.
    """
    sent = int(source["sent"]) if source else 0
    settled = sent if final else int(source["settled"]) if source else 0
    result: dict[str, Any] = {
        "state": source["state"] if source else "no source",
        "reason": source["reason"] if source else "",
        "sent": sent,
        "received": 0,
        "lost": 0,
        "before": 0,
        "in_flight": 0,
        "loss_ms": 0.0,
        "longest_gap_ms": 0.0,
        "duplicated": 0,
        "reordered": 0,
        "corrupted": 0,
        "skipped": int(source["skipped"]) if source else 0,
        "latency": {},
        "window_lost": 0,
        "window_gap_ms": 0.0,
    }
    tail, tail_from, tail_at = settled, 0, 0.0
    if sink and source and sink["boot"] not in (-1, source["boot"]):
        sink = None
    if sink and sink["boot"] != -1:
        leading = int(sink["leading"]) if auto else 0
        tail_from, tail_at = int(sink["highest"]) + 1, float(sink["last_sent"])
        tail = max(settled - tail_from, 0)
        leading_in_window = leading if begin < float(sink["first_sent"]) <= end else 0
        result.update(
            received=int(sink["received"]),
            lost=int(sink["missing"]) - leading + tail,
            before=leading,
            longest_gap_ms=float(sink["longest_gap_ms"]),
            duplicated=int(sink["duplicated"]),
            reordered=int(sink["reordered"]),
            corrupted=int(sink["corrupted"]),
            latency=sink["latency"],
            window_lost=int(sink["window"]["missing"]) - leading_in_window,
            window_gap_ms=float(sink["window"]["longest_gap_ms"]),
        )
    elif auto and not final:
        result["before"], tail = settled, 0
    else:
        result["lost"] = tail
    if tail and source:
        last = float(source["last_sent"])
        # A source that ran on to its last packet sent the tail evenly since the last one that arrived.
        first = tail_at if tail_from else float(source["started_at"])
        unsettled = sent - settled
        span = last - first
        upto = last - span * unsettled / max(sent - tail_from, 1)
        way = max(float(sink["last_seen"]) - tail_at, 0.0) if tail_from and sink else 0.0
        lost = evenly(tail, int(first * 1e9), int(upto * 1e9) + 1, _ns(begin - way), _ns(end - way))
        result["window_lost"] += lost
        gap = (upto - (float(sink["last_seen"]) if tail_from and sink else first)) * 1e3
        result["longest_gap_ms"] = max(result["longest_gap_ms"], gap)
        if upto > begin and first < end:
            result["window_gap_ms"] = max(result["window_gap_ms"], gap)
    result["in_flight"] = max(sent - result["received"] - result["lost"] - result["before"], 0)
    rate = source["rate"] if source else 0
    if isinstance(rate, (int, float)) and rate:
        result["loss_ms"] = result["lost"] / rate * 1e3
        result["window_loss_ms"] = result["window_lost"] / rate * 1e3
    return result


def _ns(seconds: float) -> int:
    return (1 << 62) if seconds > 4e9 else int(seconds * 1e9)
