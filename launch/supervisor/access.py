"""SSH of a lab's routers, as the launcher holds it: listening sockets, host keys, and files for OpenSSH's client.

The sockets are bound before the first fork and inherited by the process `mgmt` of each router, so that a port
outlives the process that serves it. `ssh -F RUN/ssh_config NODE` logs in, whatever the user's own files say.
"""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from chassis.mgmt import host_keys
from chassis.mgmt.host_keys import KNOWN_HOSTS, HostKeyError
from launch.lab.model import RouterNode
from launch.run_folders import Folders, write_private

SSH_CONFIG = "ssh_config"

LOOPBACK = "127.0.0.1"

BACKLOG = 128
"""Connections that wait to be accepted (count)."""

MAX_SHOWN = 8
"""Most routers of which the launch says how to log in (count)."""


class AccessError(Exception):
    """A router can't be reached by SSH as the lab wants it; the text says why."""


class Access:
    """The SSH ports of some routers, held until `close`.

    Raises:
        AccessError: a port is taken, or a host key cannot be used. Where the lab names neither port nor address,
            and this machine has no loopback to listen on, the router has no SSH instead.
    """

    def __init__(self, routers: Iterable[RouterNode], folders: Folders) -> None:
        self._routers = {router.name: router for router in routers}
        self._config = folders.run / SSH_CONFIG
        self.sockets: dict[str, socket.socket] = {}
        """Listening sockets, by router."""
        self._without: dict[str, str] = {}
        """Why a router has no SSH."""
        try:
            known = [line for router in self._routers.values() for line in self._open(router, folders)]
            write_private(folders.run / KNOWN_HOSTS, "".join(f"{line}\n" for line in known))
            write_private(self._config, self._ssh_config(folders.run))
        except HostKeyError as error:
            self.close()
            raise AccessError(str(error)) from None
        except OSError as error:
            self.close()
            raise AccessError(f"SSH: {error.strerror}") from None
        except AccessError:
            self.close()
            raise

    def _open(self, router: RouterNode, folders: Folders) -> list[str]:
        """Listen for one router; return its lines of `known_hosts`."""
        wanted = router.ssh
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((wanted.listen, wanted.port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL and (wanted.listen, wanted.port) == (LOOPBACK, 0):
                self._without[router.name] = f"no SSH: {LOOPBACK}: {error.strerror}"
                return []
            where = f"{wanted.listen} port {wanted.port}" if wanted.port else wanted.listen
            raise AccessError(f"{router.name} can't listen for SSH at {where}: {error.strerror}") from None
        self.sockets[router.name] = listener
        listener.setblocking(False)
        state = folders.node_state(router.name)
        host_keys.host_key(state, "ed25519")
        place = f"[{self.address(router.name)}]:{self.port(router.name)}"
        return [f"{place} {key}" for key in host_keys.public_keys(state)]

    def address(self, node: str) -> str:
        """Return the address to connect to."""
        listen = self._routers[node].ssh.listen
        return LOOPBACK if listen == "0.0.0.0" else listen

    def port(self, node: str) -> int:
        port: int = self.sockets[node].getsockname()[1]
        return port

    def settings(self, node: str) -> dict[str, Any]:
        """Return what the process that serves SSH is told of the lab's own login."""
        ssh = self._routers[node].ssh
        return {
            "user": ssh.user,
            "hash": ssh.password_hash,
            "keys": list(ssh.keys),
            "published": ssh.published,
            "urls": ssh.urls,
            "known-hosts": f"[{self.address(node)}]:{self.port(node)}",
        }

    def facts(self, node: str) -> dict[str, Any]:
        """Return for people and programs how to log in."""
        return {"address": self.address(node), "port": self.port(node), "command": self.command(node)}

    def command(self, node: str) -> str:
        return f"ssh -F {shlex.quote(str(self._config))} {node}"

    def lines(self, administered: Collection[str]) -> list[str]:
        """Return what a launch says of this; of some of the routers where there are many. `administered` are those
        with an administrator in their start-up file."""
        nodes = list(self.sockets)
        lines = [f"{node}: {why}" for node, why in self._without.items()]
        for node in nodes[:MAX_SHOWN]:
            nobody = "" if self._routers[node].ssh.user or node in administered else " (no login is given yet)"
            lines.append(
                f"{node}: SSH at {self.address(node)} port {self.port(node)}: {self.command(node)}{nobody}"
            )
        more = len(nodes) - MAX_SHOWN
        return [*lines, *([f"and {more} routers more: see {self._config}"] if more > 0 else [])]

    def close(self) -> None:
        for listener in self.sockets.values():
            listener.close()

    def _ssh_config(self, run: Path) -> str:
        """Return a configuration of OpenSSH's client (ssh_config(5)) for these routers."""
        known = _quoted(run / KNOWN_HOSTS)
        lines = ["# How OpenSSH's client reaches the routers of this lab."]
        for node in self.sockets:
            router = self._routers[node]
            lines += [f"Host {node}", f"  HostName {self.address(node)}", f"  Port {self.port(node)}"]
            lines += [f"  User {router.ssh.user}"] if router.ssh.user else []
        lines += [
            "Host *",
            f"  UserKnownHostsFile {known}",
            "  GlobalKnownHostsFile /dev/null",
            "  StrictHostKeyChecking yes",
            "  UpdateHostKeys no",
            "  ForwardAgent no",
            "  ForwardX11 no",
        ]
        return "".join(f"{line}\n" for line in lines)


def _quoted(path: Path) -> str:
    """Return a path as ssh_config takes it: a blank does not end it, and `%` stands for itself."""
    text = str(path).replace("%", "%%")
    return f'"{text}"'
