"""The base of port drivers: carrier, impairments, taps, counters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf

from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.messages import Attributes
from chassis.ports.impairment import Impairment

OnFrames = Callable[[str, Batch, float], None]
OnCarrier = Callable[[str, bool, float], None]
OnCongestion = Callable[[str, bool, float], None]


class PortDriver(ABC):
    """The link of one port. `tap(direction, batch)`, if set, is called with all frames that pass.

    `far_seed` is given if the far end makes no impairments itself: this port makes those of that direction too,
    with generators of their own, and counts them with its own.
    """

    def __init__(
        self,
        port: str,
        counters: Counters,
        on_frames: OnFrames,
        on_carrier: OnCarrier,
        seed: int,
        far_seed: int | None = None,
    ) -> None:
        self.port = port
        self.tap: Callable[[str, Batch], None] | None = None
        self._counters = counters
        self._on_frames, self._on_carrier = on_frames, on_carrier
        self._impairment = Impairment(seed)
        self._far = None if far_seed is None else Impairment(far_seed)
        self._directions = [made for made in (self._impairment, self._far) if made is not None]
        self._connected = False
        self._down = False
        self._sent_slot = counters.slot(f"port {port} frames sent")
        self._received_slot = counters.slot(f"port {port} frames received")
        self._not_sent_slot = counters.slot(f"port {port} drop not sent")

    @property
    def carrier(self) -> bool:
        return self._connected and not self._down

    def set_impairment(self, settings: Attributes, now: float, *, far: bool = False) -> Attributes:
        """Set (or with `clear`, end) impairments of what this end sends, or with `far`, of what the far end sends.

        Returns those that are in force.

        Raises:
            ValueError: a setting is wrong, or the far end makes its impairments itself.
        """
        impairment = self._far if far else self._impairment
        if impairment is None:
            raise ValueError(f"the far end of port {self.port} makes its own faults: ask there")
        before = self.carrier
        impairment.set(**settings)
        self._down = self._impairment.down
        if self._down:
            self._drop_waiting(now)
        self._count_impairments()
        if self.carrier != before:
            self._on_carrier(self.port, self.carrier, now)
        return dict(impairment.settings())

    def report_carrier(self, now: float) -> None:
        """Report carrier if the far end needs no connection."""
        if self.carrier:
            self._on_carrier(self.port, True, now)

    def next_timer(self) -> float:
        first = self._impairment.next_timer()
        return first if self._far is None else min(first, self._far.next_timer())

    def on_timer(self, now: float) -> None:
        if self._impairment.idle and (self._far is None or self._far.idle):
            return
        for batch in self._impairment.dequeue(now):
            self._transmit_now(batch)
        if self._far is not None:
            for batch in self._far.dequeue(now):
                self._deliver(batch, now)
        self._count_impairments()

    def transmit(self, batch: Batch, now: float) -> None:
        """Send frames by the link; those that it does not take are lost and counted."""
        if self._impairment.idle:
            self._transmit_now(batch)
            return
        for ready in self._impairment.enqueue(batch, now):
            self._transmit_now(ready)
        self._count_impairments()

    def _count_impairments(self) -> None:
        """Add what the impairments did since the last call to the counters, which outlive the process."""
        for impairment in self._directions:
            for cause, count in impairment.counts.items():
                if count:
                    self._counters.add(f"port {self.port} impairment {cause}", count)
                    impairment.counts[cause] = 0

    def inject(self, batch: Batch, now: float) -> None:
        """Receive frames as if they had come by the link. A capture marks them `injected`."""
        self._counters.add(f"port {self.port} frames injected", len(batch.lengths))
        if self.tap:
            self.tap("injected", batch)
        self._on_frames(self.port, batch, now)

    @abstractmethod
    def close(self) -> None:
        """Close the sockets."""

    @abstractmethod
    def _write(self, batch: Batch) -> None:
        """Send, now or as soon as the far end takes more; call `_count_sent` and `_count_not_sent`."""

    @abstractmethod
    def _drop_waiting(self, now: float) -> None:
        """Drop and count what waits for a far end that is no longer reached."""

    def _transmit_now(self, batch: Batch) -> None:
        if self._far is not None and self._far.down:
            # A far end that is down receives nothing, as a port of a card does.
            self._counters.add(f"port {self.port} drop down", len(batch.lengths))
        elif self.carrier:
            self._write(batch)
        else:
            self._count_not_sent(len(batch.lengths))

    def _count_sent(self, batch: Batch, frames: int) -> None:
        """Count the frames of a batch that were sent."""
        self._counters.values[self._sent_slot] += frames
        if frames and self.tap:
            self.tap("out", batch)

    def _count_not_sent(self, frames: int) -> None:
        self._counters.values[self._not_sent_slot] += frames

    def _receive(self, batch: Batch, now: float) -> None:
        # Counted before any of it is dropped.
        self._counters.values[self._received_slot] += len(batch.lengths)
        if self._far is None or self._far.idle:
            self._deliver(batch, now)
            return
        for ready in self._far.enqueue(batch, now):
            self._deliver(ready, now)
        self._count_impairments()

    def _deliver(self, batch: Batch, now: float) -> None:
        if self._down:
            self._counters.add(f"port {self.port} drop down", len(batch.lengths))
            return
        if self.tap:
            self.tap("in", batch)
        self._on_frames(self.port, batch, now)


def next_timer(drivers: dict[str, PortDriver]) -> float:
    """Return the time at which the first of these ports has something to do."""
    first = inf
    for driver in drivers.values():
        first = min(first, driver.next_timer())
    return first
