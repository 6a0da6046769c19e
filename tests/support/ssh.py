"""SSH clients for tests: asyncssh's and OpenSSH's, without the files, keys and agent of whoever runs the tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from launch.client.lab_client import LabClient

WITHIN = 60.0
"""Time (s) that anything may take on a crowded machine."""


def port_of(lab: LabClient, node: str) -> int:
    rows = lab.ask("", "ps", {})["processes"]
    return next(int(row["ssh"]["port"]) for row in rows if row["node"] == node and row["card"] == "mgmt")


@asynccontextmanager
async def connected(lab: LabClient, user: str, node: str = "a", **options: Any) -> AsyncIterator[Any]:
    """A connection of asyncssh's client."""
    assert lab.run is not None
    options = {"client_keys": None, "gss_host": None, **options}
    async with asyncio.timeout(WITHIN):
        connection = await asyncssh.connect(
            "127.0.0.1", port_of(lab, node), username=user, config=None, agent_path=None,
            known_hosts=str(lab.run / "known_hosts"), **options,
        )  # fmt: skip
    async with connection:
        yield connection


class Shell:
    """A shell with a terminal on a connection."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.text = ""

    @classmethod
    async def open(cls, connection: Any, **options: Any) -> Shell:
        size = {"term_type": "vt100", "term_size": (80, 24), "encoding": None, **options}
        return cls(await connection.create_process(**size))

    def type(self, keys: str) -> None:
        self.process.stdin.write(keys.encode())

    async def until(self, text: str) -> str:
        """Read until the terminal shows a text; return what came up to its end."""
        async with asyncio.timeout(WITHIN):
            while text not in self.text:
                data = await self.process.stdout.read(65_536)
                if not data:
                    raise EOFError(self.text)
                self.text += data.decode()
        said, self.text = self.text.split(text, 1)
        return said + text

    async def rest(self) -> str:
        """Read until the other side closes."""
        async with asyncio.timeout(WITHIN):
            while data := await self.process.stdout.read(65_536):
                self.text += data.decode()
        return self.text


@pytest.fixture
def openssh(tmp_path: Path) -> OpenSsh:
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's client missing: apt-get install openssh-client")
    return OpenSsh(tmp_path)


class OpenSsh:
    """OpenSSH's client with the `ssh_config` of a lab."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(
        self, lab: LabClient, *words: str, password: str = "", options: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `ssh -F ... WORDS`; a password is given as a user types it, by SSH_ASKPASS."""
        assert lab.run is not None
        ask = self._folder / "askpass"
        ask.write_text('#!/bin/sh\nprintf "%s\\n" "$CHASSIS_TEST_PASSWORD"\n')
        ask.chmod(0o700)
        # What a user has of keys and agents does not count.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
        environment |= {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "CHASSIS_TEST_PASSWORD": password}
        own = ("-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-o", "NumberOfPasswordPrompts=1", *options)
        return subprocess.run(
            ["ssh", "-F", str(lab.run / "ssh_config"), *own, *words],
            env=environment, capture_output=True, text=True, timeout=WITHIN, check=False,
            **({"stdin": subprocess.DEVNULL} | more),
        )  # fmt: skip

    def key(self, name: str = "key") -> Path:
        """A new key pair; return the file of the private one."""
        file = self._folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        return file
