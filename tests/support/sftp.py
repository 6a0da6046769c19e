"""An SFTP server in this process: one login, and a folder that it takes for the whole file system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

USER, PASSWORD = "ann", "for this test"


class SftpLogin(asyncssh.SSHServer):
    """Lets `USER` in with `PASSWORD`."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """Serve a folder; the address is what a file's name is put behind to make its URL."""
    server: Any = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=SftpLogin,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder).encode()),
    )
    async with server:
        yield f"sftp://{USER}@127.0.0.1:{server.get_port()}/"
