"""What the nodes of a lab say of traced packets, put together: which way each went, and whether that is all of it.

Testers are asked first: what they have received by then has passed all the routers, whose cards are then made to
say what they stamped. So a packet that was at its end is told whole, or with the processes that were given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

Answer = Mapping[str, Any]

_RANKS = {"in": 0, "encapsulate": 1, "decapsulate": 1, "circuit": 2, "local": 3, "out": 3}


class Stamps:
    """The stamps of all traced packets that the nodes know of. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.flows: dict[int, tuple[str, str, float]] = {}
        """By trace number: a tester that made the packet, its flow and when it left."""
        self._stamps: dict[int, dict[str, list[tuple[float, str]]]] = {}
        self._missing: dict[str, tuple[float, str]] = {}

    def tester(self, node: str, answer: Answer) -> None:
        for trace in answer["traces"]:
            self._add(node, "", trace)
            if trace.get("flow"):
                self.flows[trace["number"]] = node, trace["flow"], float(trace["stamps"][0]["time"])

    def router(self, node: str, answer: Answer) -> None:
        """An answer to `traces`, or to `traces` with `settled`."""
        for trace in answer["traces"]:
            self._add(node, f"{node} ", trace)
        for card, why in answer.get("given_up", {}).items():
            self._missing[f"{node} {card}"] = inf, why
        for card, since in answer.get("since", {}).items():
            self._missing.setdefault(f"{node} {card}", (since, f"{card} was started anew"))
        if "began" in answer:
            # All that its cards had told it went with a controller.
            self._missing[f"{node} xcrp"] = answer["began"], "the controller was started anew"

    def silent(self, node: str, why: str) -> None:
        """A node that does not answer."""
        self._missing[node] = inf, why

    def numbers(self) -> list[int]:
        return sorted(self._stamps)

    def given_up(self, began: float) -> dict[str, str]:
        """Processes that may have taken stamps of a packet along that left at this time, and why."""
        return {who: why for who, (until, why) in self._missing.items() if began < until}

    def times(self, number: int) -> list[tuple[float, str]]:
        """(time, step) of a packet by time."""
        return sorted(stamp for steps in self._stamps.get(number, {}).values() for stamp in steps)

    def steps(self, number: int) -> tuple[str, ...]:
        """The steps of a packet in the order in which they happened.

        Cards read the clock once for all that waits for them, so two stamps of a router may be the wrong way round
        by a moment: within a router that was entered once the steps have an order of their own.
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
