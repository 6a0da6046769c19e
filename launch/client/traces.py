"""Combine the trace stamps of all nodes of a lab into the path of each traced packet.

Input: answers of testers and routers to `traces`. Output: steps by trace number, and the processes whose stamps
may be missing. Query testers first: a packet that a tester received has passed all routers, whose cards then
report their stamps. Such a packet is complete, or the missing processes are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

Answer = Mapping[str, Any]

_RANKS = {"in": 0, "encapsulate": 1, "decapsulate": 1, "circuit": 2, "local": 3, "out": 3}


class Stamps:
    """The stamps of all traced packets. Times are monotonic (s)."""

    def __init__(self) -> None:
        self.flows: dict[int, tuple[str, str, float]] = {}
        """By trace number: the tester that sent the packet, its flow and the time of sending."""
        self._stamps: dict[int, dict[str, list[tuple[float, str]]]] = {}
        self._missing: dict[str, tuple[float, str]] = {}

    def tester(self, node: str, answer: Answer) -> None:
        for trace in answer["traces"]:
            self._add(node, "", trace)
            if trace.get("flow"):
                self.flows[trace["number"]] = node, trace["flow"], float(trace["stamps"][0]["time"])

    def router(self, node: str, answer: Answer) -> None:
        """Add an answer to `traces`, or to `traces` with `settled`."""
        for trace in answer["traces"]:
            self._add(node, f"{node} ", trace)
        for card, why in answer.get("given_up", {}).items():
            self._missing[f"{node} {card}"] = inf, why
        for card, since in answer.get("since", {}).items():
            self._missing.setdefault(f"{node} {card}", (since, f"{card} was restarted"))
        if "began" in answer:
            # A controller loses all stamps of its cards when it ends.
            self._missing[f"{node} xcrp"] = answer["began"], "the controller was restarted"

    def silent(self, node: str, why: str) -> None:
        """Record a node that does not answer."""
        self._missing[node] = inf, why

    def numbers(self) -> list[int]:
        return sorted(self._stamps)

    def given_up(self, began: float) -> dict[str, str]:
        """Return the processes that may have lost stamps of a packet sent at this time, and why."""
        return {who: why for who, (until, why) in self._missing.items() if began < until}

    def times(self, number: int) -> list[tuple[float, str]]:
        """Return (time, step) of a packet in order of time."""
        return sorted(stamp for steps in self._stamps.get(number, {}).values() for stamp in steps)

    def steps(self, number: int) -> tuple[str, ...]:
        """Return the steps of a packet in the order in which they happened.

        A card reads the clock once for all waiting packets, so two stamps of a router may be in the wrong order by
        a moment: within a router that the packet entered once, use the fixed order of steps.
        """
        ordered: list[tuple[float, int, float, str]] = []
        for steps in self._stamps.get(number, {}).values():
            began = min((at for at, _ in steps), default=0.0)
            ranks = [_RANKS.get(word, 2) for _, step in steps for word in step.split()[1:3] if word in _RANKS]
            once = len(ranks) == len(steps) and ranks.count(0) <= 1
            for index, (at, step) in enumerate(steps):
                ordered.append((began if once else at, ranks[index] if once else 0, at, step))
        return tuple(step for _, _, _, step in sorted(ordered))

    def _add(self, node: str, prefix: str, trace: Answer) -> None:
        seen = self._stamps.setdefault(trace["number"], {}).setdefault(node, [])
        seen += [(float(stamp["time"]), prefix + stamp["step"]) for stamp in trace["stamps"]]
