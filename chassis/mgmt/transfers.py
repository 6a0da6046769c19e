"""Files on other machines, read and written for a session: scp and sftp (both by SFTP), http and https.

The client has no key, agent or configuration of anybody: the operator's password is all it offers. The host keys
of other machines are not known here, so they are not checked.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from concurrent.futures import Executor
from typing import Final
from urllib.parse import quote

import asyncssh

from chassis.bus.requests import MAX_CONFIGURATION
from chassis.cli.urls import FileUrl, read_url

TIMEOUT: Final = 60.0
"""Time (s) that a transfer may take."""

CONNECT_TIMEOUT: Final = 15.0


class TransferError(Exception):
    """A transfer failed; the text says why."""


async def carry(text: str, data: str | None, password: str, threads: Executor) -> str:
    """Return the text of a URL's file, or write `data` there and return an empty text.

    Raises:
        TransferError: it was not done, or not as a whole.
    """
    url = read_url(text)
    try:
        async with asyncio.timeout(TIMEOUT):
            if url.is_ssh:
                return _decoded(await _by_ssh(url, data, password))
            loop = asyncio.get_running_loop()
            return _decoded(await loop.run_in_executor(threads, _by_http, url))
    except TimeoutError:
        raise TransferError(f"can't connect to {url.host}: connection timed out") from None
    except asyncssh.PermissionDenied:
        raise TransferError("Login failed") from None
    except (asyncssh.Error, OSError, urllib.error.URLError) as error:
        raise TransferError(f"{url.host}: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, asyncssh.Error):
        return error.reason
    return getattr(error, "strerror", None) or str(getattr(error, "reason", "")) or type(error).__name__


def _decoded(data: bytes) -> str:
    if len(data) > MAX_CONFIGURATION:
        raise TransferError(f"the file has more than {MAX_CONFIGURATION} octets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TransferError("the file is not a text file") from None


async def _by_ssh(url: FileUrl, data: str | None, password: str) -> bytes:
    connection = await asyncssh.connect(
        url.host,
        url.port or 22,
        username=url.user,
        password=password,
        client_keys=None,
        agent_path=None,
        known_hosts=None,
        config=None,
        gss_host=None,
        connect_timeout=CONNECT_TIMEOUT,
    )
    async with connection, connection.start_sftp_client() as client:
        # As scp has it: a path is that of the user's folder, and //path is an absolute one.
        path = url.path[1:]
        found = b""
        async with client.open(path, "rb" if data is None else "wb") as file:
            if data is None:
                found = await file.read(MAX_CONFIGURATION + 1)
            else:
                await file.write(data.encode())
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A server may not send a router elsewhere."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def _by_http(url: FileUrl) -> bytes:
    port = f":{url.port}" if url.port else ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    with opener.open(
        f"{url.scheme}://{url.host}{port}{quote(url.path, safe='/?=&%~')}", timeout=CONNECT_TIMEOUT
    ) as file:
        data: bytes = file.read(MAX_CONFIGURATION + 1)
    return data
