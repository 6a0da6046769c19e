"""Rates: what a card can do in a second, as a lab sets it, and a token bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chassis.net.ethernet import HEADROOM
from chassis.net.units import parse_rate

_PACKETS = ("packets/s", "pps")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in bits of IPv4 packets, or in packets, a second."""

    amount: float
    packets: bool = False

    @classmethod
    def parse(cls, value: Any) -> Rate | None:
        """Read `50M` or a number (bits/s), `20kpps` or `20k packets/s` (packets/s); None for 0: no limit.

        Raises:
            ValueError: the value is not a rate; the text says how to write one.
        """
        text = str(value).strip()
        unit = next((unit for unit in _PACKETS if text.lower().endswith(unit)), "")
        try:
            if isinstance(value, bool):
                raise ValueError
            amount = parse_rate(text[: len(text) - len(unit)])
        except ValueError:
            raise ValueError(
                f"{value!r} is not a rate; expected 50M in bits a second, or 20kpps in packets"
            ) from None
        return cls(amount, bool(unit)) if amount else None

    def cost(self, length: int) -> int:
        """Return what a packet takes of the rate; `length` (octets) counts its headroom."""
        return 1 if self.packets else (length - HEADROOM) * 8

    def __str__(self) -> str:
        amount = f"{self.amount:.0f}" if self.amount % 1 == 0 else f"{self.amount:g}"
        return f"{amount} {'packets/s' if self.packets else 'bit/s'}"


class TokenBucket:
    """Lets `rate` events (1/s) through, and `burst` of them (count) at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._at = 0.0

    def consume(self, now: float) -> bool:
        """Return whether one more event may happen now; count it if so."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
