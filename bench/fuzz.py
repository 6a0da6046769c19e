"""A million mutated messages for whole IKE engines: rate, outcomes, memory growth.

Half of the messages come from an attacker without keys, half from a peer with keys, for both versions and both
modes of IKEv1. `tests/support/ike/fuzzer.py` checks that no exception escapes, no memory leaks, and the tunnel
stays usable. A failure is printed with its seed and counted.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Literal

from bench.report import Report
from tests.support.ike.fuzzer import HALF_OPEN, fuzzed

MESSAGES = 1_000_000
BURST = 5_000
ROUND = 125_000
"""Messages (count) for two engines and one seed; then new engines start, in IKEv1 with the other mode."""
WARM = 2
"""Bursts (count) until two engines have allocated their working memory; growth after that is a leak."""

CASES: tuple[tuple[str, Literal[1, 2]], ...] = (("clear", 1), ("clear", 2), ("inside", 1), ("inside", 2))
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the resident memory (octets) of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Tally:
    """The outcome of one kind of messages."""

    def __init__(self) -> None:
        self.given = self.failures = self.peak = 0
        self.seconds = self.longest = 0.0
        self.octets = self.blocks = 0
        """Largest memory growth in a round: of the process (octets), and blocks of Python's allocator."""
        self.outcomes: Counter[str] = Counter()

    def round(self, kind: str, version: Literal[1, 2], seed: int, count: int) -> None:
        """Give `count` messages to two new engines."""
        began = time.process_time()
        held: list[tuple[int, int]] = []
        with closing(fuzzed(kind, version, seed)) as fuzz:
            try:
                while fuzz.given < count:
                    fuzz.burst(min(BURST, count - fuzz.given))
                    fuzz.rest()
                    held.append((resident(), sys.getallocatedblocks()))
            except Exception:
                self.failures += 1
                print(f"{kind}, version {version}, seed {seed}, after {fuzz.given} messages", file=sys.stderr)
                traceback.print_exc()
            if len(held) > 2 * WARM:
                octets, blocks = zip(*held, strict=True)
                self.octets = max(self.octets, min(octets[-2:]) - max(octets[:WARM]))
                self.blocks = max(self.blocks, min(blocks[-2:]) - max(blocks[:WARM]))
            self.given += fuzz.given
            self.peak = max(self.peak, fuzz.peak)
            self.longest = max(self.longest, fuzz.longest)
            for end in (fuzz.two.a, fuzz.two.b):
                self.outcomes.update(end.ike.ike_sa_manager.statistics.total)
        self.seconds += time.process_time() - began


def run(report: Report) -> None:
    part = MESSAGES // len(CASES)
    tallies = {}
    for kind, version in CASES:
        tally = tallies[kind, version] = Tally()
        name = f"fuzz: version {version}, {'in clear' if kind == 'clear' else 'under the keys'}"
        seed = 0
        while tally.given < part:
            seed += 1
            tally.round(kind, version, seed, min(ROUND, part - tally.given))
        report.add(f"{name}, messages", [tally.given], "")
        report.add(f"{name}, rate on one core", [tally.given / tally.seconds], "messages/s")
        report.add(f"{name}, memory gained", [tally.octets / 1024], "KiB")
        report.add(f"{name}, blocks gained", [tally.blocks], "")
        report.add(f"{name}, longest until the tunnel was whole again", [tally.longest], "s")
        report.add(f"{name}, most half open (cookies from {HALF_OPEN})", [tally.peak], "")
        report.add(f"{name}, failures", [tally.failures], "")
        for outcome, count in tally.outcomes.most_common():
            if outcome.endswith("sent") or "octets" in outcome or "messages" in outcome:
                continue
            print(f"    {outcome:<58} {count:>14,}")
    report.add("fuzz: messages", [sum(tally.given for tally in tallies.values())], "")
    report.add("fuzz: failures", [sum(tally.failures for tally in tallies.values())], "")
