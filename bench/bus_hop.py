"""One hop of the fabric: one process sends batches, another one receives them."""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

import zmq

from bench.report import Report
from chassis.bus import connection, endpoints
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.fabric import MAX_QUEUED_BATCHES
from chassis.bus.hops import SentBatches
from chassis.net.ethernet import HEADROOM

BATCH = 64
SECONDS = 1.0
RUNS = 5


def _send(run: Path, size: int) -> None:
    """Send as fast as the hop accepts, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sender, _ = connection.connect(context, zmq.PUSH, endpoints.fabric(run, "a", "lc 3", 1), MAX_QUEUED_BATCHES)
    lengths = array("H", [size + HEADROOM] * BATCH)
    batch = Batch(Step.ENCAPSULATE, bytearray(sum(lengths)), lengths, card="asp 1/1", epoch=1)
    hop = SentBatches(Counters(), "fabric to lc 3")
    while True:
        if not connection.send_batches(sender, [batch], hop):
            sender.poll(1, zmq.POLLOUT)


def _hop(size: int) -> float:
    """Return the rate (packets/s) of the receiving process."""
    with TemporaryDirectory(dir="/tmp") as folder:
        child = os.fork()
        if not child:
            try:
                _send(Path(folder), size)
            finally:
                # Not on in the code of its parent.
                os._exit(1)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        pull = connection.receiver(context, endpoints.fabric(Path(folder), "a", "lc 3", 1), MAX_QUEUED_BATCHES)
        try:
            pull.poll(5000)
            packets, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < SECONDS:
                batches = connection.receive(pull)
                if not batches:
                    pull.poll(10)
                packets += sum(map(len, batches))
            seconds = time.perf_counter() - begin
            assert packets % BATCH == 0, "all packets of a batch are counted"
            return packets / seconds
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
            context.destroy(linger=0)


def run(report: Report) -> None:
    """Measure both sizes; a hop uses two cores, one for each end."""
    for size in (64, 1400):
        report.add(f"bus hop, {size} bytes, batches of {BATCH}", [_hop(size) for _ in range(RUNS)], "packets/s")
