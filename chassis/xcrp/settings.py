"""Settings of a node that its controller uses (S-112): read from a lab file, with defaults and ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from chassis.bus.messages import Attributes
from chassis.model.ipsec import CIPHER_ENGINES
from chassis.net.rate import Rate
from chassis.xcrp.capacity import CARD_CAPACITY, ROUTER_CAPACITY, Capacity

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)?\s*")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(value: Any) -> float:
    """Return the seconds of `100ms`, `1.5s`, `2m` or a number of seconds.

    Raises:
        ValueError: the value is not a duration.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value >= 0:
        return float(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a duration; expected 100ms or 2s")
    return float(found[1]) * _UNITS[found[2]]


EXTENSIONS = ("modern",)
"""Extensions beyond the guide that a lab may enable: `modern` enables algorithms that the guide does not have."""


SYSTEMS = ("seos", "ipos")
"""Names of the operating system that `show version` gives: the router's own, or that of its successor, which some
programs look for."""


CAPACITIES = (
    ("card-capacity", "card", CARD_CAPACITY, "tunnels that an ASE card holds"),
    ("router-capacity", "router", ROUTER_CAPACITY, "tunnels that a router holds"),
)
"""Settings by which a lab makes ASE cards and routers smaller: name, field of `Capacity`, most, and what it is."""


@dataclass(frozen=True, slots=True)
class IkeSetting:
    """A setting of IKE: a duration (s), number, part (fraction) or switch, from `low` to `high`."""

    name: str
    kind: Literal["duration", "number", "part", "switch"]
    low: float
    high: float
    text: str


IKE: tuple[IkeSetting, ...] = (
    IkeSetting("dpd-interval", "duration", 0.005, 86400, "time between two questions of dead peer detection"),
    IkeSetting("dpd-retries", "number", 1, 1000, "questions without an answer after which a peer counts as dead"),
    IkeSetting("strict-lifetime", "switch", 0, 1, "IKEv1 refuses an offer of a longer lifetime than its own"),
    IkeSetting("extended-sequence-numbers", "switch", 0, 1, "negotiated SAs have sequence numbers of 64 bits"),
    IkeSetting(
        "ike-retransmit-timeout", "duration", 0.01, 3600, "first wait before a message is sent again; it doubles"
    ),
    IkeSetting(
        "ike-retransmit-tries", "number", 1, 100, "times that a message is sent again before the peer is given up"
    ),
    IkeSetting(
        "half-open-timeout", "duration", 0.1, 3600, "how long a negotiation may take to authenticate its peer"
    ),
    IkeSetting("ike-retry-delay", "duration", 0.01, 3600, "first pause between an initiator's attempts; it grows"),
    IkeSetting(
        "ike-fragment-size", "number", 256, 65535, "largest IKE message, in bytes, that is sent in one piece"
    ),
    IkeSetting("nat-keepalive-interval", "duration", 1, 3600, "time between two keepalives through a NAT"),
    IkeSetting(
        "rekey-margin-factor", "part", 0, 0.9, "part of a lifetime that is left when its successor is negotiated"
    ),
    IkeSetting("rekey-jitter-factor", "part", 0, 0.9, "part of that margin that is drawn at random"),
    IkeSetting(
        "cookie-threshold", "number", 1, 1_000_000, "unauthenticated negotiations that are held without cookies"
    ),
    IkeSetting("half-open-limit", "number", 1, 1_000_000, "unauthenticated negotiations that are held at all"),
    IkeSetting("half-open-limit-per-peer", "number", 1, 1_000_000, "unauthenticated negotiations of one address"),
)
"""All settings of IKE, as labs write them. Each ASP gets the given values."""


def ike_setting_error(setting: IkeSetting, value: Any) -> str:
    """Return the error of the value of a setting of IKE; empty if it is valid."""
    if setting.kind == "switch":
        return "" if isinstance(value, bool) else f"{value!r} is neither true nor false"
    if setting.kind == "duration":
        try:
            number = seconds(value)
        except ValueError as error:
            return str(error)
        return (
            ""
            if setting.low <= number <= setting.high
            else f"{value!r} is out of range; expected {setting.low:g} s to {setting.high:g} s"
        )
    whole = setting.kind == "number"
    right = isinstance(value, int) if whole else isinstance(value, (int, float))
    if isinstance(value, bool) or not right or not setting.low <= value <= setting.high:
        what = "whole number" if whole else "number"
        return f"{value!r} is not a {what} from {setting.low:g} to {setting.high:g}"
    return ""


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """`heartbeat`, `kill_after` and `reconcile` are in seconds, `misses` counts heartbeats.

    `refuse`: a start-up file with an error is not applied at all. `discard`: a withdrawn tunnel route becomes a
    discard route. `modern`: the configuration may use algorithms that the guide does not have. `esn`: negotiated
    SAs have sequence numbers of 64 bits. `capacity`: what cards and router hold. `os` is one of `SYSTEMS`.
    `cards` are the settings in the `Welcome` of each card, as the lab gave them; settings that are wrong or not
    plain values are left out.
    """

    heartbeat_interval: float = 0.1
    heartbeat_misses: int = 5
    kill_after: float = 1.0
    reconcile: float = 2.0
    refuse: bool = False
    discard: bool = False
    modern: bool = False
    esn: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    os: str = SYSTEMS[0]
    cards: Attributes = field(default_factory=dict)

    @property
    def silence(self) -> float:
        """Return the time (s) without a heartbeat after which a card is unusable."""
        return self.heartbeat_interval * self.heartbeat_misses

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> tuple[ControllerSettings, list[str]]:
        """Return the settings of a lab's mapping, and its errors; the default replaces a wrong value."""
        problems: list[str] = []
        values: dict[str, Any] = {}
        durations = {
            "heartbeat-interval": "heartbeat_interval",
            "kill-after": "kill_after",
            "reconcile": "reconcile",
        }
        for name, attribute in durations.items():
            if name in given:
                try:
                    value = seconds(given[name])
                    if name == "heartbeat-interval" and value <= 0:
                        raise ValueError(f"{given[name]!r} is not a positive duration; expected 100ms or 2s")
                    values[attribute] = value
                except ValueError as error:
                    problems.append(f"setting {name}: {error}")
        misses = given.get("heartbeat-misses", 5)
        if isinstance(misses, bool) or not isinstance(misses, int) or misses < 1:
            problems.append(f"setting heartbeat-misses: {misses!r} is not a whole number of 1 or more")
        else:
            values["heartbeat_misses"] = misses
        most: dict[str, int] = {}
        for name, attribute, high, _ in CAPACITIES:
            count = given.get(name, high)
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= high:
                problems.append(f"setting {name}: {count!r} is not a whole number from 1 to {high}")
            else:
                most[attribute] = count
        values["capacity"] = Capacity(**most)
        for name, attribute in {"discard-tunnel-routes": "discard", "refuse-errors": "refuse"}.items():
            switch = given.get(name, False)
            if not isinstance(switch, bool):
                problems.append(f"setting {name}: {switch!r} is neither true nor false")
            else:
                values[attribute] = switch
        extensions = given.get("extensions", ())
        if not isinstance(extensions, (list, tuple)) or any(name not in EXTENSIONS for name in extensions):
            problems.append(f"setting extensions: {extensions!r} is not a list of {', '.join(EXTENSIONS)}")
        else:
            values["modern"] = "modern" in extensions
        if (system := given.get("os", SYSTEMS[0])) in SYSTEMS:
            values["os"] = system
        else:
            problems.append(f"setting os: {system!r} is none of {', '.join(SYSTEMS)}")
        wrong: set[str] = set()
        if (engine := given.get("cipher-engine", CIPHER_ENGINES[0])) not in CIPHER_ENGINES:
            problems.append(f"setting cipher-engine: {engine!r} is none of {', '.join(CIPHER_ENGINES)}")
            wrong.add("cipher-engine")
        try:
            Rate.parse(given.get("asp-rate", 0))
        except ValueError as error:
            problems.append(f"setting asp-rate: {error}")
            wrong.add("asp-rate")
        for setting in IKE:
            fault = ike_setting_error(setting, given[setting.name]) if setting.name in given else ""
            if fault:
                problems.append(f"setting {setting.name}: {fault}")
                wrong.add(setting.name)
        values["esn"] = given.get("extended-sequence-numbers") is True
        plain = (str, int, float, bool)
        values["cards"] = {
            name: value for name, value in given.items() if isinstance(value, plain) and name not in wrong
        }
        values["cards"]["modern"] = values.get("modern", False)
        return cls(**values), problems
