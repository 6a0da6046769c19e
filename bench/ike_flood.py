"""An initiator that sets up tunnels without end: `python -m bench.ike_flood LOCAL REMOTE TUNNELS GROUP`.

It sets up all its tunnels, discards its state, and starts again as after a boot, with INITIAL-CONTACT: each set-up
replaces the previous one. It runs in a Linux node of a lab until the lab ends. Its tunnels are those of
`bench.ike_ends.records`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

from bench.ike_ends import End, records

ROUND = 10.0
"""Time (s) after which a round is aborted."""


def main(local: str, remote: str, tunnels: int, group: int) -> None:
    # This process represents other machines, so use a core only when no router process needs it. Where Linux
    # shares the cores among sessions first, this also holds for its session.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    sockets = {}
    for port in (500, 4500):
        sockets[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets[port].bind((local, port))
        sockets[port].setblocking(False)
    put = records(local, remote, tunnels, group, "initiator-only")
    while True:
        end = End(local, sockets)
        end.configure(put)
        deadline = time.monotonic() + ROUND
        while len(end.up) < tunnels and time.monotonic() < deadline:
            end.turn(0.1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
