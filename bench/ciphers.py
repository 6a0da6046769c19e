"""CPU of one ASP's engine for each packet, with each cipher engine, in turns: batches in, batches out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy

from bench.asp import KEYS, LEFT, RIGHT, asp_of, batches_of, clear_batch
from bench.report import Report
from chassis.ase.engine import AspEngine
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.ipsec_mb import choose_engine
from chassis.bus.batch import Batch, Step

SIZES = (64, 1400)
"""Octets of a clear packet."""
BATCHES = (16, 64, 256)
"""Packets in a batch."""
ROUNDS = 9
PACKETS = 2000
"""Packets of a round, at least."""


def one_round(sender: AspEngine, receiver: AspEngine, clear: Batch) -> tuple[float, float]:
    """Return the CPU (us) of a packet to protect it, and to open it. Each batch is opened when it is protected, so
    that memory is used again as between cards."""
    clock = time.process_time
    protecting = opening = 0.0
    batches = max(4, PACKETS // len(clear))
    for _ in range(batches):
        given = copy(clear)
        begin = clock()
        outputs = sender.receive_batch(given, 0.0)
        protecting += clock() - begin
        (batch,) = batches_of(outputs)
        batch.card, batch.epoch, batch.step, batch.context = "lc 3", 2, Step.DECAPSULATE, 1
        begin = clock()
        outputs = receiver.receive_batch(batch, 0.0)
        opening += clock() - begin
        assert sum(map(len, batches_of(outputs))) == len(clear), "every packet must open"
    packets = batches * len(clear)
    return protecting / packets * 1e6, opening / packets * 1e6


def run(report: Report) -> None:
    """Report the CPU of a packet with `cryptography`, and with libIPSec_MB where it is."""
    engines: dict[str, CipherEngine] = {"cryptography": CRYPTOGRAPHY}
    other, remarks = choose_engine("ipsec-mb")
    for remark in remarks:
        print(f"  {remark}", flush=True)
    if other is not CRYPTOGRAPHY:
        engines["ipsec-mb"] = other
    for suite in KEYS:
        for size in SIZES:
            for packets in BATCHES:
                _row(report, engines, suite, size, packets)


def _row(report: Report, engines: Mapping[str, CipherEngine], suite: str, size: int, packets: int) -> None:
    clear = clear_batch((size,), packets)
    pairs = {
        name: (asp_of(KEYS[suite], LEFT, RIGHT, engine), asp_of(KEYS[suite], RIGHT, LEFT, engine))
        for name, engine in engines.items()
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, pair in pairs.items():
            found[name].append(one_round(*pair, clear))
    for index, way in enumerate(("to protect", "to open")):
        # Other load of the machine only adds time, so the fastest round counts.
        best = {name: min(times[index] for times in one) for name, one in found.items()}
        for name, value in best.items():
            peer = ("cryptography", best["cryptography"]) if name != "cryptography" else ("", None)
            report.add(f"{way}, {size} x {packets}, {suite}, {name}", [value], "us/packet", *peer)
