"""A lab whose routers operators log in to by SSH, and clients of other makers that do.

Router a is reached as SEOS, router b as IPOS. Tunnel t0 between them carries the flow `forward0`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from passlib.hash import md5_crypt, sha512_crypt

from tests.support import lab_files

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

OPERATOR, PASSWORD = "operator", "correct horse"
"""The lab's own login, with every privilege."""

READER, READER_PASSWORD, ENABLE_PASSWORD = "reader", "battery staple", "all privileges"
"""An administrator of router a, who begins without privileges and asks for them with a password of their own."""

SPARE = """\
ike proposal spare
ipsec proposal spare
 esp encryption aes-128-cbc
 esp authentication hmac-sha1-96
ipsec policy spare
 seq 10 proposal spare
context lan
 ike policy spare
  pre-shared-key NeverShownToAnybody
  seq 10 proposal spare
 ipsec access-list spare
  seq 10 11.0.0.0/8 12.0.0.0/8
 ipsec profile spare
"""
"""Objects of router a that no tunnel uses."""

NAMES: Final = {
    "show-asp-pool.name": "P",
    "show-asp-group.name": "G",
    "show-ip-interface.name": "private",
    "show-ike-policy.name": "spare",
    "show-ike-proposal.name": "spare",
    "show-ipsec-access-list.name": "spare",
    "show-ipsec-policy.name": "spare",
    "show-ipsec-profile.name": "spare",
    "show-ipsec-proposal.name": "spare",
    "show-ipsec-sa.name": "sa0",
}
"""Objects of context lan of router a and of no context, by field (`tests.support.exec_forms`)."""

INSTALL: Final = {
    "ssh": "apt-get install -y --no-install-recommends openssh-client",
    "netmiko": "pip install netmiko",
    "ntc_templates": "pip install ntc-templates",
    "pexpect": "pip install pexpect",
}
"""How to get the clients."""


def need(*clients: str) -> Any:
    """The module of the last client, or None for a program. Skips the test where one is missing."""
    found: Any = None
    for client in clients:
        if client == "ssh":
            if shutil.which("ssh") is None:
                pytest.skip(f"needs OpenSSH's client: {INSTALL['ssh']}")
        else:
            found = pytest.importorskip(client, reason=f"needs {client}: {INSTALL[client]}")
    return found


@dataclass(frozen=True)
class SshLab:
    """The running lab."""

    client: LabClient
    ports: Mapping[str, int]
    """The port of each router on 127.0.0.1."""

    @property
    def run(self) -> Path:
        """The run folder of the lab."""
        assert self.client.run is not None
        return self.client.run

    def netmiko(self, node: str, **more: Any) -> dict[str, Any]:
        """What Netmiko is told to log in to a router as the lab's own user, unless told otherwise."""
        given = {"username": OPERATOR, "password": PASSWORD, "device_type": "ericsson_ipos"}
        return {"host": "127.0.0.1", "port": self.ports[node], **given, **more}

    def openssh(self, node: str, *words: str, user: str = OPERATOR) -> list[str]:
        """The command line of OpenSSH's client, with the file that the lab has for it."""
        return ["ssh", "-F", str(self.run / "ssh_config"), "-o", f"User={user}", node, *words]


def start(factory: LabFactory, folder: Path, rate: int = 1000) -> SshLab:
    """Start the lab and wait until its tunnel is up."""
    reader, enable = md5_crypt.hash(READER_PASSWORD), sha512_crypt.using(rounds=5000).hash(ENABLE_PASSWORD)
    accounts = f"context local\n administrator {READER} encrypted 1 {reader}\n enable encrypted 2 {enable}\n"
    lab_files.written(folder, 1, [0])
    near = folder / "a.cfg"
    near.write_text(accounts + SPARE + near.read_text())
    text = lab_files.lab([0], rate).replace(f"rate: {rate}", f"rate: {rate}, start: manual")
    text = text.replace(
        "{kind: smartedge, config: b.cfg}", "{kind: smartedge, config: b.cfg, settings: {os: ipos}}"
    )
    # A card of a crowded machine is late; only one that is gone for 10 s may be taken for dead.
    login = f"ssh: {{user: {OPERATOR}, password: {PASSWORD}}}\nsettings: {{heartbeat-misses: 100}}\n"
    (folder / "lab.yaml").write_text(login + text)
    client = factory(folder / "lab.yaml")
    client.wait_until("tunnels up", within=60)
    rows = client.ask("", "ps", {})["processes"]
    return SshLab(client, {row["node"]: row["ssh"]["port"] for row in rows if "ssh" in row})
