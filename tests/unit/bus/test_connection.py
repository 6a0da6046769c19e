"""Connections of the fabric: the room that the kernel gives them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import zmq

from chassis.bus import connection
from chassis.bus.connection import SEND_BUFFER_OCTETS
from tests.support.processes import eventually


def _buffers(peer: str) -> list[int]:
    """Send buffers (octets) of this process's connections to a socket at a path."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            made = socket.socket(fileno=int(name))
            try:
                if made.family == socket.AF_UNIX and made.getpeername() == peer:
                    found.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
            finally:
                made.detach()
    return found


def test_a_connection_gets_room_for_a_large_message(tmp_path: Path) -> None:
    path = str(tmp_path / "card")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        receiver = connection.receiver(context, f"ipc://{path}", 10)
        sender, monitor = connection.connect(context, zmq.PUSH, f"ipc://{path}", 10)
        seen: list[bool] = []
        eventually(lambda: seen.extend(connection.connection_events(monitor)) or seen, "a connection")
        assert seen == [True]
        most = int(Path("/proc/sys/net/core/wmem_max").read_text())
        # The kernel doubles what is asked for, for what it keeps beside the octets.
        assert _buffers(path) == [2 * min(SEND_BUFFER_OCTETS, most)]
        # A socket that nothing refers to is closed.
        assert receiver
        assert sender
    finally:
        context.destroy(linger=0)


def test_a_descriptor_that_is_another_file_s_by_now_is_left_alone(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    number = one.fileno()
    with one, other:
        before = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        connection._enlarge_buffer(number, f"ipc://{tmp_path}/card")
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before
    with (tmp_path / "file").open("w") as file:
        connection._enlarge_buffer(file.fileno(), f"ipc://{tmp_path}/card")
    connection._enlarge_buffer(number, f"ipc://{tmp_path}/card")
