"""The process `mgmt` of a router: it serves SSH at the socket that the launcher listens on.

Nothing of SSH is loaded before somebody connects: a lab has one such process for each router, and most of them are
never used. A connection waits meanwhile in the queue of the socket.
"""

from __future__ import annotations

import select
import signal
import socket
import sys

from chassis.bus.environment import Environment


def run(env: Environment) -> int:
    """Run the process until it is ended; return its exit status.

    Raises:
        ValueError: the launcher gave it no socket.
    """
    if env.listener is None:
        raise ValueError("the launcher gave this process no socket to listen on")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=env.listener)
    select.select([listener], [], [])
    return _serve(env, listener)


def _serve(env: Environment, listener: socket.socket) -> int:
    """Load what SSH needs, and serve."""
    import asyncio
    import logging

    from chassis.mgmt.host_keys import HostKeyError
    from chassis.mgmt.server import ManagementServer

    # Whoever connects decides what the library would write.
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    try:
        asyncio.run(ManagementServer(env, listener).run())
    except HostKeyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
