"""A real FreeRADIUS on the loopback, and a RADIUS client of ours with real sockets and a real clock."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import AaaAction, AccessQuestion, SendDatagram
from chassis.aaa.client import RadiusClient
from chassis.aaa.settings import AaaConfig, ServerAddress

PROGRAM = "freeradius"
SECRET = "s3cret of both"
SERVER, ROUTER = "127.0.0.1", "127.0.0.2"
PATIENCE = 60.0
"""Seconds after which a test gives up: a crowded machine takes its time."""

_CONFIGURATION = """\
prefix = /usr
raddbdir = {folder}
logdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/pid
max_request_time = 5
security {{
  max_attributes = 200
  status_server = yes
}}
client router {{
  ipaddr = {router}
  secret = "{secret}"
  require_message_authenticator = yes
}}
modules {{
  files {{
    filename = ${{raddbdir}}/users
  }}
  pap {{
  }}
  detail {{
    filename = ${{logdir}}/detail
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = {server}
    port = {authentication}
  }}
  listen {{
    type = acct
    ipaddr = {server}
    port = {accounting}
  }}
  authorize {{
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
  }}
  accounting {{
    detail
  }}
}}
"""


def require_freeradius() -> None:
    """Skip the test where FreeRADIUS is not installed; on a build machine that is a failure."""
    if shutil.which(PROGRAM) is None:
        missing = f"{PROGRAM} missing: apt-get install -y --no-install-recommends {PROGRAM}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def free_port() -> int:
    """A UDP port that neither end uses now."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            one.bind((SERVER, 0))
            port: int = one.getsockname()[1]
            try:
                other.bind((ROUTER, port))
            except OSError:
                continue
            return port


class FreeRadius:
    """One server with these `users` (the text of FreeRADIUS's users file)."""

    def __init__(self, folder: Path, users: str) -> None:
        self.folder = folder
        self.authentication = ServerAddress(SERVER, free_port(), SECRET.encode(), source=ROUTER)
        self.accounting = ServerAddress(SERVER, free_port(), SECRET.encode(), source=ROUTER)
        text = _CONFIGURATION.format(
            folder=folder,
            router=ROUTER,
            server=SERVER,
            secret=SECRET,
            authentication=self.authentication.port,
            accounting=self.accounting.port,
        )
        (folder / "radiusd.conf").write_text(text)
        (folder / "users").write_text(users)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [PROGRAM, "-f", "-l", "stdout", "-d", str(self.folder), "-n", "radiusd"],
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while b"Ready to process requests" not in log.read_bytes():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            select.select([], [], [], 0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def detail(self) -> list[dict[str, str]]:
        """The accounting requests that it has written, each as names and values."""
        path = self.folder / "detail"
        entries = path.read_text().strip().split("\n\n") if path.exists() else []
        return [
            dict(line.strip().split(" = ", 1) for line in entry.splitlines() if " = " in line) for entry in entries
        ]


class SocketClient:
    """A RADIUS client of ours whose datagrams travel by sockets of the router's address."""

    def __init__(self, config: AaaConfig) -> None:
        self.client = RadiusClient(secrets.token_bytes, time.time() - time.monotonic())
        self.done: list[AaaAction] = []
        self.sent: list[SendDatagram] = []
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self.take(self.client.configure(config, time.monotonic()))

    def take(self, actions: Iterable[AaaAction]) -> None:
        for action in actions:
            if isinstance(action, SendDatagram):
                self.sent.append(action)
                to = (action.destination, action.destination_port)
                self._socket(action.context, action.source_port).sendto(action.payload, to)
            else:
                self.done.append(action)

    def _socket(self, context: str, port: int) -> socket.socket:
        held = self._sockets.get((context, port))
        if held is None:
            held = self._sockets[context, port] = socket.socket(type=socket.SOCK_DGRAM)
            held.bind((ROUTER, port))
        return held

    def ask(self, identity: str, *, key_wanted: bool = True) -> AaaAction:
        """Ask about a peer; return the answer."""
        question = AccessQuestion(identity, "vpn", identity, "192.0.2.1", "198.51.100.1", identity, key_wanted)
        self.take(self.client.authorize(question, time.monotonic()))
        self.run_until(lambda: any(getattr(one, "token", None) == identity for one in self.done))
        return next(one for one in self.done if getattr(one, "token", None) == identity)

    def account(self, record: AccountingRecord) -> None:
        self.take(self.client.account(record, time.monotonic()))

    def run_until(self, happened: Callable[[], bool]) -> None:
        """Carry datagrams and time until something has happened."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            now = time.monotonic()
            assert now < deadline, (self.done, self.client.status())
            wait = max(0.0, min(self.client.next_timer(), deadline) - now)
            places = {held: place for place, held in self._sockets.items()}
            for held in select.select(list(places), [], [], wait)[0]:
                payload, (address, port) = held.recvfrom(65535)
                context, own_port = places[held]
                now = time.monotonic()
                self.take(self.client.on_datagram(context, address, port, own_port, payload, now))
            self.take(self.client.on_timer(time.monotonic()))

    def close(self) -> None:
        for held in self._sockets.values():
            held.close()
