"""The ports of a process: a driver for each, with captures, impairments and replays on request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import zmq

from chassis.bus import regular_files
from chassis.bus.batch import Batch, Step, pack
from chassis.bus.capture import Capture, read_file
from chassis.bus.card_shell import CardRequestError
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.bus.messages import Attributes
from chassis.bus.sender import MAX_BACKLOG_PACKETS, Congestion
from chassis.net.errors import DecodeError
from chassis.ports.driver import OnCarrier, OnCongestion, OnFrames, PortDriver, next_timer
from chassis.ports.packet import PacketPort
from chassis.ports.wire import Wire

MAX_INJECT_PACKETS = 32
"""Frames (count) that a replay gives to a port at a time."""

MAX_INJECT_INTERVAL = 0.005
"""Time (s) of one slice of a replay, at most: a large capture must not make its line card miss heartbeats."""

Done = Callable[[Attributes, str], None]
"""`done(result, error)`: called when a replay has ended."""


class PortDrivers:
    """All port drivers of one process."""

    def __init__(
        self,
        context: zmq.Context[Any],
        loop: Loop,
        run: Path,
        node: str,
        wires: Mapping[str, WireSpec],
        counters: Counters,
        on_frames: OnFrames,
        on_carrier: OnCarrier,
        on_congestion: OnCongestion = lambda port, full, now: None,
        may_send: Callable[[], bool] = lambda: True,
        hold: float = 0.0,
        congestion: Congestion | None = None,
        most_waiting: int = MAX_BACKLOG_PACKETS,
    ) -> None:
        """`on_congestion` and `may_send`: see `chassis.ports.wire`. Other ports use a queue of the kernel.

        `hold` is the time (s) for which frames are held at a port on a crowded machine. `congestion` is the
        process's: it holds all ports back. `most_waiting` frames (count) wait at a port whose wire is full.
        """
        congestion = Congestion() if congestion is None else congestion
        self.drivers: dict[str, PortDriver] = {}
        self._node = node
        self._replays: deque[tuple[Iterator[int], Done]] = deque()
        self._injected = 0
        for port, far in wires.items():
            if far.kind == "packet":
                self.drivers[port] = PacketPort(loop, port, far, counters, on_frames, on_carrier, hold, congestion)
            else:
                self.drivers[port] = Wire(
                    context,
                    loop,
                    run,
                    node,
                    port,
                    far,
                    counters,
                    on_frames,
                    on_carrier,
                    on_congestion,
                    may_send,
                    hold,
                    congestion,
                    most_waiting,
                )

    def report_carrier(self, now: float) -> None:
        """Report the carrier of the ports that need no connection."""
        for driver in self.drivers.values():
            driver.report_carrier(now)

    def next_timer(self) -> float:
        return -inf if self._replays else next_timer(self.drivers)

    def on_timer(self, now: float) -> None:
        if self._replays:
            self._continue_replay()
        for driver in self.drivers.values():
            driver.on_timer(now)

    def transmit(self, port: str, batch: Batch, now: float) -> None:
        driver = self.drivers.get(port)
        if driver is not None:
            driver.transmit(batch, now)

    def close(self) -> None:
        for driver in self.drivers.values():
            driver.close()

    def tap(self, what: str, capture: Capture | None) -> None:
        """Capture `port 3/11`, or stop with None.

        Raises:
            CardRequestError: there is no such port.
        """
        driver = self._driver(what.removeprefix("port "))
        driver.tap = None
        if capture is not None:
            kept, name = capture, f"{self._node}:{driver.port}"
            driver.tap = lambda way, batch: kept.write(f"{name} {way}", batch)

    def link(self, arguments: Attributes, now: float) -> Attributes:
        """Set a link's faults at this end (`chassis.ports.impairment`).

        `far` in the arguments holds those of what the Linux device at the other end sends.
        """
        settings = dict(arguments)
        far = settings.pop("far", False) is True
        return self._driver(str(settings.pop("port", ""))).set_impairment(settings, now, far=far)

    def inject(self, arguments: Attributes, done: Done) -> None:
        """Replay frames of a capture into a port, as if they came by its wire.

        Only frames that were received (`interface` ending in `in`) in the last `seconds` of the file. The replay
        continues in slices from `on_timer`; `done` is called with the number of frames, or with an error.
        """
        self._replays.append((self._replay(arguments), done))

    def _replay(self, arguments: Attributes) -> Iterator[int]:
        """Run a replay step by step; yield the frames (count) given to the port so far."""
        driver = self._driver(str(arguments.get("port", "")))
        seconds = arguments.get("seconds", 0)
        if not isinstance(seconds, int | float):
            raise CardRequestError("'seconds' is a number")
        packets: deque[tuple[int, bytes]] = deque()
        # A capture may be far larger than its last seconds.
        with open(regular_files.open_regular(Path(str(arguments["file"]))), "rb") as file:
            for number, (name, at, packet) in enumerate(read_file(file)):
                if name.endswith(" in"):
                    packets.append((at, packet))
                    while seconds and packets[0][0] < at - int(seconds * 1e9):
                        packets.popleft()
                if number % MAX_INJECT_PACKETS == 0:
                    yield 0
        chosen = [packet for _, packet in packets]
        for begin in range(0, len(chosen), MAX_INJECT_PACKETS):
            body, lengths = pack(chosen[begin : begin + MAX_INJECT_PACKETS])
            driver.inject(Batch(Step.INGRESS, body, lengths), time.monotonic())
            yield begin + len(lengths)

    def _continue_replay(self) -> None:
        """Continue the first replay for one slice of time."""
        steps, done = self._replays[0]
        until = time.monotonic() + MAX_INJECT_INTERVAL
        try:
            for self._injected in steps:
                if time.monotonic() >= until:
                    return
        except (CardRequestError, OSError, ValueError, DecodeError) as error:
            done({}, str(error) or type(error).__name__)
        else:
            done({"injected": self._injected}, "")
        self._replays.popleft()
        self._injected = 0

    def _driver(self, port: str) -> PortDriver:
        driver = self.drivers.get(port)
        if driver is None:
            known = ", ".join(sorted(self.drivers)) or "none"
            raise CardRequestError(f"{self._node} has no link at port {port!r}; linked ports: {known}")
        return driver
