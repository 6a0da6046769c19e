"""Settings of a node that its controller goes by: a lab may set each (S-112)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from chassis.bus.messages import Attributes

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)?\s*")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(value: Any) -> float:
    """`100ms`, `1.5s`, `2m` or a number of seconds, as seconds; ValueError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value >= 0:
        return float(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no duration such as 100ms or 2s")
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Settings:
    """`heartbeat`, `kill_after` and `reconcile` are in seconds, `misses` counts heartbeats.

    `discard`: a withdrawn tunnel route becomes a discard route. `cards` is what each card is told in its
    `Welcome`: the settings as the lab gave them, as far as they are plain values.
    """

    heartbeat: float = 0.1
    misses: int = 5
    kill_after: float = 1.0
    reconcile: float = 2.0
    discard: bool = False
    cards: Attributes = field(default_factory=dict)

    @property
    def silence(self) -> float:
        """Seconds without a heartbeat after which a card is unusable."""
        return self.heartbeat * self.misses

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> tuple[Settings, list[str]]:
        """The settings in a lab's mapping, and what is wrong with it; a wrong value leaves the default."""
        problems: list[str] = []
        values: dict[str, Any] = {}
        durations = {"heartbeat": "heartbeat", "kill-after": "kill_after", "reconcile": "reconcile"}
        for name, attribute in durations.items():
            if name in given:
                try:
                    value = seconds(given[name])
                    if name == "heartbeat" and value <= 0:
                        raise ValueError(f"{given[name]!r} is no time between heartbeats")
                    values[attribute] = value
                except ValueError as error:
                    problems.append(f"setting {name}: {error}")
        misses = given.get("misses", 5)
        if isinstance(misses, bool) or not isinstance(misses, int) or misses < 1:
            problems.append(f"setting misses: {misses!r} is no number of heartbeats")
        else:
            values["misses"] = misses
        discard = given.get("discard-tunnel-routes", False)
        if not isinstance(discard, bool):
            problems.append(f"setting discard-tunnel-routes: {discard!r} is neither true nor false")
        else:
            values["discard"] = discard
        values["cards"] = {
            name: value for name, value in given.items() if isinstance(value, (str, int, float, bool))
        }
        return cls(**values), problems
