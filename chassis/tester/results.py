"""A flow's result from the statistics of its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count_evenly(count: int, before: int, after: int, begin: int, end: int) -> int:
    """Return how many of `count` events, spread evenly between two times (both exclusive), lie in [begin, end)."""
    if begin <= before and after <= end:
        return count
    step = (after - before) / (count + 1)
    if step <= 0:
        return count if begin <= before < end else 0

    def up_to(time: int) -> int:
        # Event k of 1..count is at before + k * step; how many are earlier than `time`.
        position = (time - before) / step
        whole = int(position) if position > int(position) else int(position) - 1
        return min(max(whole, 0), count)

    return max(up_to(end) - up_to(begin), 0)


def combine(
    source: Mapping[str, Any] | None,
    sink: Mapping[str, Any] | None,
    *,
    auto: bool = False,
    final: bool = False,
    begin: float = 0.0,
    end: float = float("inf"),
) -> dict[str, Any]:
    """Return a flow's result from the statistics of its two ends.

    A packet that had no time to arrive is neither received nor lost, unless `final`: the flow has stopped and the
    wires are empty. Packets of an `auto` flow before the first one that arrived do not count as lost; they are
    `lost_before_first`. `window_lost` counts packets that should have arrived in [begin, end), in seconds of
    the monotonic clock; the statistics of the sink must be of the same period.
    """
    sent = int(source["sent"]) if source else 0
    settled = sent if final else int(source["settled"]) if source else 0
    result: dict[str, Any] = {
        "state": source["state"] if source else "no source",
        "reason": source["reason"] if source else "",
        "sent": sent,
        "received": 0,
        "lost": 0,
        "lost_before_first": 0,
        "in_flight": 0,
        "loss_ms": 0.0,
        "longest_gap_ms": 0.0,
        "duplicated": 0,
        "reordered": 0,
        "corrupted": 0,
        "not_sent": int(source["not_sent"]) if source else 0,
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
            lost_before_first=leading,
            longest_gap_ms=float(sink["longest_gap_ms"]),
            duplicated=int(sink["duplicated"]),
            reordered=int(sink["reordered"]),
            corrupted=int(sink["corrupted"]),
            latency=sink["latency"],
            window_lost=int(sink["window"]["missing"]) - leading_in_window,
            window_gap_ms=float(sink["window"]["longest_gap_ms"]),
        )
    elif auto and not final:
        result["lost_before_first"], tail = settled, 0
    else:
        result["lost"] = tail
    if tail and source:
        last = float(source["last_sent"])
        # Assume that the source sent the tail evenly since the last packet that arrived.
        first = tail_at if tail_from else float(source["started_at"])
        unsettled = sent - settled
        span = last - first
        upto = last - span * unsettled / max(sent - tail_from, 1)
        way = max(float(sink["last_seen"]) - tail_at, 0.0) if tail_from and sink else 0.0
        lost = count_evenly(tail, int(first * 1e9), int(upto * 1e9) + 1, _ns(begin - way), _ns(end - way))
        result["window_lost"] += lost
        gap = (upto - (float(sink["last_seen"]) if tail_from and sink else first)) * 1e3
        result["longest_gap_ms"] = max(result["longest_gap_ms"], gap)
        if upto > begin and first < end:
            result["window_gap_ms"] = max(result["window_gap_ms"], gap)
    result["in_flight"] = max(sent - result["received"] - result["lost"] - result["lost_before_first"], 0)
    rate = source["rate"] if source else 0
    if isinstance(rate, (int, float)) and rate:
        result["loss_ms"] = result["lost"] / rate * 1e3
        result["window_loss_ms"] = result["window_lost"] / rate * 1e3
    return result


def _ns(seconds: float) -> int:
    return (1 << 62) if seconds > 4e9 else int(seconds * 1e9)
