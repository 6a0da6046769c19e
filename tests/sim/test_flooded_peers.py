"""1,000 forged first messages a second at on-demand tunnels whose keys RADIUS has: honest peers come up and stay.

Forged are messages of aggressive mode and IKE_SA_INIT, from many addresses, from few and from the honest peers'
own, in the name of peers that RADIUS does not know and of those that it knows.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chassis.aaa.questions import QuestionLimits
from chassis.ase.ike import receiver
from chassis.fwd import decision
from chassis.xcrp import kept_answers
from tests.support.flooded_lab import OUTSTANDING, PEERS, REPLY_TIME, FloodedLab, identity_of

HONEST = {identity_of(peer) for peer in PEERS}
HALF_OPEN = 300
"""Half-open negotiations that the hub's ASP allows: a flood fills them in a second."""
WITHIN = 5.0
"""Seconds in which all honest peers come up beside the flood."""
ASKED_PER_SECOND = 250
"""Questions that reach the RADIUS server while the ASP is full."""
LINES_PER_SECOND = 100
"""Lines of the log that 1,000 forged datagrams cause."""
GROWTH = 40_000
"""Octets by which a further wave of the flood may add to what the hub keeps."""


def bounded(lab: FloodedLab) -> bool:
    """Whether every table is within its bound."""
    tables = lab.tables()
    limits = {
        "half open": HALF_OPEN,
        "sessions": HALF_OPEN,
        "first messages": HALF_OPEN + len(PEERS),
        "timers": 256 + 5 * (HALF_OPEN + len(PEERS)),
        "refused messages": 8192,
        "counts without a tunnel": HALF_OPEN,
        "questions of IKE": 256,
        "questions of the ASP": 256,
        "questions of the controller": 256,
        "kept answers": 4096,
        "questions to RADIUS": 256,
        "remembered rejects": QuestionLimits().remembered,
        "timers of RADIUS": 1024,
    }
    assert tables.keys() == limits.keys()
    return all(tables[name] <= limits[name] for name in limits)


def test_honest_peers_come_up_beside_a_flood(tmp_path: Path) -> None:
    lab = FloodedLab(tmp_path, **{"half-open-limit": HALF_OPEN})
    lab.cut()
    lab.pass_time(0.5)
    began = time.process_time()
    for at, _ in enumerate(lab.flood(1.5)):
        assert at % 10 or bounded(lab), lab.tables()
    spent = time.process_time() - began
    print(f"a forged datagram costs {spent / lab.forged * 1e6:.0f} us, with its making and the simulator")
    assert lab.tables()["half open"] == HALF_OPEN
    assert not lab.up()
    lab.join()
    joined, asked = lab.run.world.now, len(lab.server.asked)
    for _ in lab.flood(WITHIN):
        if lab.up().keys() == HONEST:
            break
    assert lab.up().keys() == HONEST, f"{HONEST - lab.up().keys()} are not up"
    print(f"{len(PEERS)} honest peers were up after {lab.run.world.now - joined:.2f} s")
    assert bounded(lab), lab.tables()
    for peer, _ in zip(PEERS, lab.flood(0.6), strict=False):
        lab.echo(peer)
    lab.pass_time(0.1)
    assert lab.echoed.keys() == set(PEERS)
    # The flood made RADIUS answer little, and nothing twice.
    assert lab.server.most <= OUTSTANDING
    assert lab.server.most_of_one == 1
    assert lab.server.shortest_pause() >= QuestionLimits().seconds
    passed = lab.run.world.now - joined
    assert len(lab.server.asked) <= OUTSTANDING * (lab.run.world.now - lab.began) / REPLY_TIME
    assert len(lab.server.asked) - asked <= ASKED_PER_SECOND * passed + len(PEERS)
    assert lab.log_lines() <= LINES_PER_SECOND * (lab.run.world.now - lab.began)


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def kept() -> int:
    """Octets that the router's code allocated since tracing began, and that are still held."""
    gc.collect()
    parts = ("aaa", "ase", "bus", "fwd", "linecard", "xcrp")
    router = [tracemalloc.Filter(True, f"*/chassis/{part}/*") for part in parts]
    found = tracemalloc.take_snapshot().filter_traces(router)
    return sum(one.size for one in found.statistics("filename"))


def test_a_flood_neither_displaces_honest_peers_nor_fills_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small tables are full soon, and then nothing may grow.
    monkeypatch.setattr(receiver, "MAX_REFUSED", 300)
    monkeypatch.setattr(kept_answers, "MAX_KEPT", 50)
    monkeypatch.setattr(decision, "MAX_CACHED_FLOWS", 500)
    lab = FloodedLab(tmp_path, **{"half-open-limit": 50})
    lab.pass_time(1.0)
    tunnels, established = lab.up(), lab.established()
    assert tunnels.keys() == HONEST
    held = []
    with traced():
        for wave in range(3):
            for at, _ in enumerate(lab.flood(0.8)):
                if at < len(PEERS):
                    lab.echo(PEERS[at])
            if wave:
                held.append(kept())
    assert held[1] - held[0] < GROWTH
    assert (lab.up(), lab.established()) == (tunnels, established)
    assert lab.echoed == dict.fromkeys(PEERS, 3)
