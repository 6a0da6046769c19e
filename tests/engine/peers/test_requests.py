"""Generated requests for a node of peers: each is answered or handed to the shell, nothing is raised."""

from __future__ import annotations

from random import Random

import pytest

from chassis.bus.requests import PEERS
from chassis.peers.engine import PeersEngine
from launch.lab.parser import load
from tests.support import CONFIGS, odd


def alone() -> PeersEngine:
    """The first node of peers of configs/load, with five peers and a gateway that never answers."""
    node = load(CONFIGS / "load" / "lab.yaml")[0].peers()[0]
    ports = {name: port.plain() for name, port in node.ports.items()}
    made = PeersEngine(node.name, ports=ports, peers={**node.values, "peers": 5}, random=Random(1).randbytes)
    made.start(0.0)
    made.on_carrier("1", True, 0.0)
    return made


def test_the_table_names_every_command() -> None:
    engine = alone()
    assert {*engine._commands, *engine.performs} == PEERS.keys()


@pytest.mark.parametrize("seed", range(2))
def test_generated_requests(seed: int) -> None:
    engine = alone()
    for number, (name, arguments) in enumerate(odd.requests(PEERS, 300, seed, odd.RAW)):
        about, now = (name, arguments), 0.01 * number
        outputs = odd.survived(engine.on_operator_command, number, name, arguments, now, about=about)
        assert odd.asked(odd.carried(outputs, about)), about
        odd.survived(engine.on_timer, now, about=about)
    assert engine.report(9.0)["up"] == 0
