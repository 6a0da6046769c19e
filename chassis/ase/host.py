"""What the data path of an ASP needs of the card that it is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from chassis.ase.ipsec.causes import Drops, Notice
from chassis.ase.ipsec.decapsulate import Decapsulator
from chassis.bus.batch import Batch
from chassis.bus.engine import Output


class DataPathHost(Protocol):
    """What the paths need of their card."""

    card: str

    @property
    def up(self) -> Mapping[str, bool]: ...

    def sending(self, batch: Batch) -> Batch: ...

    def drop(self, cause: str, packets: int = 1) -> None: ...

    def stamp(self, batch: Batch, step: str, now: float) -> None: ...

    def count_drops(self, drops: Drops, now: float) -> list[Output]:
        """Count and log what the packet engine dropped."""

    def on_sa_notice(self, notices: tuple[Notice, ...], now: float) -> list[Output]:
        """Pass on what an SA has to say."""

    def on_acquire(self, tunnel: int, entries: tuple[int, ...], now: float) -> list[Output]:
        """Packets matched policy lines that have no SA."""

    def on_inbound_traffic(self, decapsulators: tuple[Decapsulator, ...], now: float) -> list[Output]:
        """Authentic packets came by negotiated SAs."""
