"""Cost of an ASP's engine besides cryptography: applying thousands of tunnels, and its own time per packet."""

from __future__ import annotations

import time
from math import inf
from typing import Any
from unittest.mock import patch

from bench.report import Report
from chassis.ase.ipsec.sadb import Sadb
from chassis.bus.batch import Step
from chassis.bus.records import TunnelRecord
from tests.support.asp import ASP, CIRCUIT, ECONOMICAL, INNER, LC3, altered, batch_of, pair, thousands, udp_packet

TUNNELS = 4000
RUNS = 5
ALL = 1500.0
"""Bound (ms) of the work for all tunnels together. It applies to the fastest run, because other load of the
machine only adds time."""
SLICE = 100.0
"""Bound (ms) of one slice of them, between two heartbeats: the heartbeat interval."""
CHANGE = 100.0
"""Bound (ms) of a change of one tunnel."""
BATCHES = 1500
PACKETS = 64
ADDED = 0.5
"""Bound (us) per packet beyond the packet engine."""


def taken_in() -> tuple[float, list[float], float]:
    """Measure the time (ms) of all tunnels, of each slice, and of a change of one tunnel."""
    a, made = thousands(TUNNELS)
    slices = []
    begin = time.process_time()
    for part in a.publisher.snapshot(ASP):
        a.asp.receive(part, a.now)
    while a.asp.next_timer() == -inf:
        before = time.process_time()
        a.asp.on_timer(a.now)
        slices.append((time.process_time() - before) * 1e3)
    total = (time.process_time() - begin) * 1e3
    assert sum(state.up for state in a.asp.tunnels.local.values()) == TUNNELS
    changed = made[-1]
    assert isinstance(changed, TunnelRecord)
    begin = time.process_time()
    a.put(altered(changed, mtu=1000))
    return total, slices, (time.process_time() - begin) * 1e3


def added(tunnel: int) -> list[float]:
    """Measure for each batch the time (us) per packet outside the packet engine. Take both times from the same
    batch, because two batches on a busy machine differ by more than this."""
    a, _ = pair()
    clear = [udp_packet("52.0.0.1", "62.0.0.1", size=1400, number=i) for i in range(PACKETS)]
    clock = time.perf_counter
    encapsulate_tunnel, inside = Sadb.encapsulate_tunnel, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal inside
        begin = clock()
        try:
            return encapsulate_tunnel(*arguments)
        finally:
            inside += clock() - begin

    found = []
    with patch.object(Sadb, "encapsulate_tunnel", timed):
        for _ in range(BATCHES):
            batch = batch_of(
                clear, Step.ENCAPSULATE, context=INNER, tunnel=tunnel, ingress="3/1", card=LC3, epoch=1
            )
            inside, begin = 0.0, clock()
            a.asp.receive_batch(batch, a.now)
            found.append((clock() - begin - inside) / PACKETS * 1e6)
            assert inside
    return found


def run(report: Report) -> None:
    runs = [taken_in() for _ in range(RUNS)]
    name = f"an ASP takes in {TUNNELS:,} tunnels"
    report.within(f"{name}, the fastest run", [min(total for total, _, _ in runs)], ALL)
    report.within(f"{name}: a slice", [one for _, slices, _ in runs for one in slices], SLICE)
    report.within(f"{name}: a change of one", [change for _, _, change in runs], CHANGE)
    for tunnel, kind in ((CIRCUIT, "circuit"), (ECONOMICAL, "economical")):
        # Take the 2 % quantile as the undisturbed time.
        undisturbed = sorted(added(tunnel))[BATCHES // 50]
        report.within(f"an ASP's engine beyond the packet engine, {kind}", [undisturbed], ADDED, "us/packet")
