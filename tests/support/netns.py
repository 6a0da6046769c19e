"""Network namespaces for tests with peers: made and wired by the launcher's own Linux nodes.

They have no name and belong to a process namespace whose init ends with the test run, so nothing stays behind,
whatever becomes of the run. Commands are run by `nsenter`; sockets are opened from this process, in which the
tests' own loop then serves them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket as Socket
from typing import IO

from launch.lab.model import Endpoint, Lab, Link, LinuxNode
from launch.supervisor.namespaces import RootNamespace, available

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace: addresses by device (`lo` too), routes as `ip route add` takes them."""

    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    routes: Sequence[str] = ()


class Namespaces:
    """Hosts, and the veth pairs between them: a wire is `("a:eth0", "b:eth0")`.

    Each has a /run and a /tmp of its own. `folder` is where their files go: `home(name)` is seen alike from
    inside and outside.
    """

    def __init__(self, folder: Path, hosts: Mapping[str, Host], wires: Sequence[tuple[str, str]] = ()) -> None:
        nodes = {
            name: LinuxNode(
                name, {device: tuple(those) for device, those in host.addresses.items()}, tuple(host.routes)
            )
            for name, host in hosts.items()
        }
        links = tuple(Link((_end(one), _end(other))) for one, other in wires)
        self.folder = folder
        self._ground = RootNamespace(Lab("interop", folder / "lab.yaml", nodes, links), folder)
        self._running: list[subprocess.Popen[bytes]] = []

    def home(self, name: str) -> Path:
        return self.folder / f"{name}.files"

    def _inside(self, name: str) -> list[str]:
        return ["nsenter", "-t", str(self._ground.pids[name]), "-n", "-m", "-p", f"-w{self.home(name)}", "--"]

    def run(self, name: str, *command: str, timeout: float = 10.0) -> str:
        """What a command prints; AssertionError with it when the command fails."""
        done = subprocess.run(
            [*self._inside(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{' '.join(command)} in {name} ended with {done.returncode}: {said}"
        return said

    def begin(
        self, name: str, *command: str, output: IO[bytes], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command that runs on; `signal` reaches it, and `close` ends it."""
        running = subprocess.Popen(
            [*self._inside(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        self._running.append(running)
        return running

    def signal(self, running: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to a command of `begin`: to itself, not to the `nsenter` that waits for it."""
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            os.kill(int(child), number)

    def socket(
        self, name: str, kind: int = socket.SOCK_DGRAM, protocol: int = 0, family: int = socket.AF_INET
    ) -> Socket:
        """A socket in the namespace, not blocking; IPv4 packets are never fragmented."""
        made: list[socket.socket | OSError] = []

        def attempt() -> None:
            # Only this thread goes in, and it ends there.
            try:
                with open(f"/proc/{self._ground.pids[name]}/ns/net") as there:
                    if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.socket(family, kind, protocol))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        made[0].setblocking(False)
        if family == socket.AF_INET:
            made[0].setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        return made[0]

    def tap(self, name: str, device: str) -> Socket:
        """A socket that sees every frame of a device, in both directions."""
        made = self.socket(name, socket.SOCK_RAW, socket.htons(ETH_P_ALL), socket.AF_PACKET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((device, ETH_P_ALL))
        return made

    def udp(self, name: str, address: str, port: int) -> Socket:
        """A UDP socket there, bound."""
        made = self.socket(name)
        made.bind((address, port))
        return made

    def close(self) -> None:
        """End everything: all processes in all namespaces, then the namespaces."""
        for running in self._running:
            self.signal(running, signal.SIGKILL)
        self._ground.close()
        for running in self._running:
            running.wait()


def _end(text: str) -> Endpoint:
    node, _, port = text.partition(":")
    return Endpoint(node, port)


def why_not() -> str:
    """Why no namespaces can be made here that this process can open sockets in, or nothing."""
    if os.geteuid() != 0:
        return "namespaces with devices of their own for peers need root"
    return available()
