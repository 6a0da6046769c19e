"""The ASP's process: the card's shell, and the mapped file with the state of its SAs."""

from __future__ import annotations

import os

from chassis.ase.engine import Asp
from chassis.ase.ipsec.state import FILE_SIZE
from chassis.bus import endpoints
from chassis.bus.card_shell import CardShell
from chassis.bus.environment import Environment, map_file


def run(env: Environment) -> int:
    """The process of an ASP, until it is told to end."""
    state, fresh = map_file(env.state / f"{endpoints.compact(env.card)}.sa", FILE_SIZE)
    counters = env.counters()
    engine = Asp(
        env.card,
        pid=os.getpid(),
        boot=env.boot,
        counters=counters,
        state=state,
        fresh=fresh,
        random=os.urandom,
    )
    return CardShell(env, engine, counters).run()
