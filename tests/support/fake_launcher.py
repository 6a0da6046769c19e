"""A launcher whose processes only pretend: run as a program by the tests of supervision.

    python -m tests.support.fake_launcher LAB-FILE [RESTART-DELAY]

The controller of each router answers `status`, keeps what the launcher tells it (`heard`), and says to the
launcher what it is told to (`say`), nothing while it works (`work`), or nothing any more (`hush`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from chassis.bus import endpoints
from chassis.bus.environment import Environment
from chassis.bus.operator import OperatorServer
from launch.lab.parser import load
from launch.run_folders import Folders
from launch.supervisor.supervisor import Supervisor

CARDS = (("lc 3", "linecard"), ("asp 1/1", "asp"))


def card(env: Environment) -> int:
    file = env.run / f"{env.node}.{endpoints.compact(env.card)}.told"
    told = {"boot": env.boot, "wires": sorted(env.wires), "settings": dict(env.settings)}
    whole = file.with_suffix(".writing")
    whole.write_text(json.dumps(told))
    whole.rename(file)
    while True:
        signal.pause()


def controller(env: Environment) -> int:
    heard: list[Any] = []
    hushed = False
    assert env.launcher is not None
    launcher = env.launcher
    launcher.setblocking(True)

    def command(number: int, name: str, arguments: dict[str, Any]) -> None:
        nonlocal hushed
        if name == "status":
            rows = [{"card": name, "kind": kind, "usable": True} for name, kind in CARDS]
            server.answer(number, {"cards": rows, "startup": env.startup})
        elif name == "heard":
            server.answer(number, {"heard": heard})
        elif name == "say":
            launcher.sendall(json.dumps(arguments).encode() + b"\n")
            server.answer(number, {})
        elif name == "work":
            server.answer(number, {})
            until = time.monotonic() + arguments["seconds"]
            while time.monotonic() < until:
                pass
        else:
            hushed = True
            server.answer(number, {})

    server = OperatorServer(endpoints.operator(env.run, env.node), command)
    buffer, alive_at = b"", 0.0
    while True:
        if not hushed and time.monotonic() >= alive_at:
            alive_at = time.monotonic() + 0.1
            launcher.sendall(b'{"what": "alive"}\n')
        for fd in select.select([launcher.fileno(), *server.filenos()], [], [], 0.05)[0]:
            if fd == launcher.fileno():
                data = launcher.recv(65536)
                if not data:
                    return 0
                *lines, buffer = (buffer + data).split(b"\n")
                heard += [json.loads(line) for line in lines]
            else:
                server.ready(fd)


def main() -> int:
    lab, _ = load(Path(sys.argv[1]))
    entry_points = {"xcrp": controller, "linecard": card, "asp": card, "tester": card}
    routers = [router.name for router in lab.routers()]
    supervisor = Supervisor(
        lab,
        Folders(lab.name, lab.nodes),
        entry_points,
        dict.fromkeys(routers, CARDS),
        dict.fromkeys(routers, ("context local\n", "a.cfg")),
    )

    def ready(problem: str) -> None:
        os.write(1, (problem or "up").encode() + b"\n")

    return supervisor.run(ready)


if __name__ == "__main__":
    sys.exit(main())
