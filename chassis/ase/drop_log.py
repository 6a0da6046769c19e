"""Log records of the drops of an ASP's data path: their texts and their rate limit.

The texts are those of the guide, table 7, and of `OWN_MESSAGES`. `chassis.ase.ipsec.causes.MESSAGE_IDS` says which
drop causes are logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from chassis.ase.ipsec.causes import MESSAGE_IDS, Drops, DropSample, IpsecDropCause
from chassis.bus.messages import LogRecord, Value
from chassis.net.address import format_address

FACILITY: Final = "ipsec"

DROP_LOG_INTERVAL: Final = 1.0
"""Interval (s) between two records of one cause. Drops in between are counted into the next record."""


@dataclass(frozen=True, slots=True)
class LogText:
    """Severity (by the words of syslog) and text of one message."""

    severity: str
    text: str


TEXTS: Final[Mapping[str, LogText]] = MappingProxyType(
    {
        "esp-icv-ah": LogText("error", "Authentication failure. Possibly mis-matching keys."),
        "esp-icv-esp": LogText("error", "Authentication failure. Possibly mis-matching keys."),
        "esp-encap-mode": LogText(
            "error",
            "Encapsulation mode differs. Received in Transport mode, where expected in Tunnel mode.",
        ),
        "esp-no-inbound-sa": LogText("informational", "No Inbound SA Found."),
        "esp-late-packet": LogText("informational", "Late Packet falling out of window."),
        "esp-duplicate-packet": LogText("informational", "Repeated/duplicate packet."),
        "esp-selector-mismatch": LogText("error", "Packet does not match the selectors of its SA."),
    }
)
"""Messages by their id. The guide calls three of them informational and gives the others no severity: M-11."""


@dataclass(slots=True)
class _CauseState:
    """One cause: when the next record may be made, and the drops since the last one."""

    again_at: float = -inf
    count: int = 0
    sample: DropSample | None = None


class DropLog:
    """Makes log records of drops: the first of a cause at once, then one in `DROP_LOG_INTERVAL` with the number
    since.

    A record has tunnel, SPI, source and sequence number of one packet. The counts of all records of a cause add up
    to its drops, except those that `flush` still holds back.
    """

    __slots__ = ("_card", "_name_of", "_states", "due")

    def __init__(self, card: str, name_of: Callable[[int], str | None]) -> None:
        """`name_of` returns the name of a tunnel by its number; None if it is not there."""
        self._card = card
        self._name_of = name_of
        self._states = {cause: _CauseState() for cause in MESSAGE_IDS}
        self.due = inf
        """When `flush` has something to say."""

    def log(self, drops: Drops, now: float) -> list[LogRecord]:
        """Take the drops of a batch; return the records to send now."""
        records = []
        for cause, count in drops.counts.items():
            state = self._states.get(cause)
            if state is None:
                continue
            state.count += count
            state.sample = drops.samples[cause]
            if now >= state.again_at:
                records.append(self._record(cause, state, now))
            elif state.again_at < self.due:
                self.due = state.again_at
        return records

    def flush(self, now: float) -> list[LogRecord]:
        """Return the records that are due."""
        if now < self.due:
            return []
        records = []
        self.due = inf
        for cause, state in self._states.items():
            if not state.count:
                continue
            if now >= state.again_at:
                records.append(self._record(cause, state, now))
            elif state.again_at < self.due:
                self.due = state.again_at
        return records

    def _record(self, cause: IpsecDropCause, state: _CauseState, now: float) -> LogRecord:
        sample, count = state.sample, state.count
        assert sample is not None
        state.again_at, state.count, state.sample = now + DROP_LOG_INTERVAL, 0, None
        name = MESSAGE_IDS[cause]
        text = TEXTS[name]
        values: dict[str, Value] = {
            "card": self._card,
            "spi": sample.spi,
            "source": format_address(sample.source),
            "sequence": sample.sequence,
            "count": count,
        }
        tunnel = self._name_of(sample.tunnel)
        if tunnel is not None:
            values["tunnel"] = tunnel
        return LogRecord(now, text.severity, FACILITY, name, text.text, values)
