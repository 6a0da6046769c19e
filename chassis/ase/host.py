"""What the data path of an ASP calls on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from chassis.ase.ipsec.causes import Drops, Notice, UnknownSa
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.bus.batch import Batch
from chassis.bus.engine import Output


class DataPathHost(Protocol):
    """The card of a data path."""

    card: str

    @property
    def up(self) -> Mapping[str, bool]:
        """Whether each card is up, by name."""

    def set_sender(self, batch: Batch) -> Batch:
        """Return the batch with this card and its epoch as the sender."""

    def drop(self, cause: str, packets: int = 1) -> None:
        """Count dropped packets."""

    def add_stamp(self, batch: Batch, step: str, now: float) -> None:
        """Record that the packet of a traced batch passed a step."""

    def count_drops(self, drops: Drops, now: float) -> list[Output]:
        """Count and log the drops of a batch."""

    def on_sa_notice(self, notices: tuple[Notice, ...], now: float) -> list[Output]:
        """An SA has reached a limit of sequence numbers or octets."""

    def on_unknown_sa(self, context: int, packet: UnknownSa, now: float) -> list[Output]:
        """A packet arrived in a context for an SA that is not here."""

    def on_acquire(self, tunnel: int, entries: tuple[int, ...], now: float) -> list[Output]:
        """Packets matched SPD entries of a tunnel that have no SA."""

    def on_inbound_traffic(
        self, decapsulators: tuple[Decapsulator, ...], peers: Sequence[int], now: float
    ) -> list[Output]:
        """Authentic packets arrived with these negotiated SAs."""
