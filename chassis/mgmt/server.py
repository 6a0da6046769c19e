"""The SSH server of a router: connections, logins, and the bounds that keep one client from harming another.

Input: connections at the launcher's listening socket. Output: sessions of those who may log in. There is no file
transfer and no forwarding, and nothing that a client wants set in the environment has an effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import asyncssh

from chassis.bus import endpoints
from chassis.bus.arguments import fault
from chassis.bus.environment import Environment
from chassis.bus.operator import OperatorError
from chassis.cli.commands import REQUESTS
from chassis.mgmt import host_keys, logins, passwords
from chassis.mgmt.controller_link import ControllerClient
from chassis.mgmt.logins import Account
from chassis.mgmt.roster import Roster
from chassis.mgmt.ssh_session import SessionHost, SshSession

LOGIN_TIMEOUT: Final = 30.0
"""Time (s) that a client has to log in."""

MAX_STARTUPS: Final = 16
"""Most connections that have not logged in (count). For one more, the oldest of them that has not yet named a user
is cut; if there is none, the new one is."""

MAX_PASSWORDS: Final = 3
"""Most passwords that one connection may try (count)."""

MAX_PUBLIC_KEYS: Final = 20
"""Most public keys that one connection may offer (count); an agent offers all that it has."""

MAX_SESSIONS: Final = 32
"""Most sessions of a router at once (count)."""

MAX_CONNECTION_SESSIONS: Final = 10
"""Most sessions that one connection opens at once (count)."""

MAX_CONNECTIONS: Final = 64
"""Most connections at once, with a session or without (count)."""

FAILURE_TIME: Final = 0.5
"""Time (s) that a password that does not fit takes at least, whether or not there is such a user."""

CONTROLLER_TIMEOUT: Final = 5.0
"""Time (s) that a login waits for a controller that is away."""

KEEPALIVE_INTERVAL, KEEPALIVES = 15, 3
"""Time (s) between two questions whether a silent client is there, and how many may stay without an answer."""

WINDOW: Final = 128 * 1024
"""Octets that a client may send before they are taken."""

ACCEPT_RETRY: Final = 0.1
"""Time (s) before the next try to accept where the process has no descriptor left."""


WRONG_PASSWORD: Final = "wrong password"


class ManagementServer:
    """Serves the SSH port of one router."""

    def __init__(self, env: Environment, listener: socket.socket) -> None:
        self._env, self._listener = env, listener
        self.ssh: Mapping[str, Any] = env.settings.get("ssh", {})
        path = endpoints.operator(env.run, env.node)
        self._threads = ThreadPoolExecutor(8, "session")
        self._verifiers = ThreadPoolExecutor(2, "password")
        self._controller = ControllerClient(path, self._threads)
        wall_offset = time.time() - time.monotonic()
        self._host = SessionHost(
            env.node, path, self._threads, REQUESTS, wall_offset, self.check_enable, bool(self.ssh.get("urls"))
        )
        self.startups: dict[LoginServer, None] = {}
        """Connections that have not logged in, oldest first."""
        self.roster = Roster(self._controller)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the process ends."""
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(self._threads, self._host_keys)
        options = asyncssh.SSHServerConnectionOptions(
            config=None,
            server_host_keys=keys,
            gss_host=None,
            compression_algs=None,
            line_editor=False,
            encoding=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            login_timeout=LOGIN_TIMEOUT,
            keepalive_interval=KEEPALIVE_INTERVAL,
            keepalive_count_max=KEEPALIVES,
            window=WINDOW,
        )
        self._keep(self.roster.report())
        while True:
            try:
                stream, address = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(ACCEPT_RETRY)
                continue
            login = LoginServer(self, f"{address[0]}:{address[1]}", stream)
            if self._make_room():
                self.startups[login] = None
                self._keep(self._serve(login, stream, options))
            else:
                stream.close()

    def _host_keys(self) -> list[asyncssh.SSHKey]:
        """Return the host keys; make the one for old clients if there is none, and tell clients."""
        state = self._env.state
        told = host_keys.public_keys(state)
        # Each connection would read files again.
        keys = [asyncssh.read_private_key(host_keys.host_key(state, kind)) for kind in ("ed25519", "rsa")]
        place = self.ssh.get("known-hosts")
        if place and len(new := host_keys.public_keys(state)) > len(told):
            with contextlib.suppress(OSError), open(self._env.run / host_keys.KNOWN_HOSTS, "a") as known:
                known.write("".join(f"{place} {key}\n" for key in new if key not in told))
        return keys

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task; the event loop itself would not keep it alive."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> bool:
        """Return whether one more connection may begin to log in."""
        if len(self._tasks) > MAX_CONNECTIONS:
            return False
        if len(self.startups) < MAX_STARTUPS:
            return True
        oldest = next((login for login in self.startups if not login.named), None)
        if oldest is None:
            return False
        oldest.cut()
        return True

    async def _serve(
        self, login: LoginServer, stream: socket.socket, options: asyncssh.SSHServerConnectionOptions
    ) -> None:
        try:
            connection = await asyncssh.run_server(stream, options=options, server_factory=lambda: login)
            await connection.wait_closed()
        except (OSError, asyncssh.Error):
            # The client went away, or is none of SSH.
            pass
        except Exception as error:
            print(f"connection from {login.source}: {fault(error)}", file=sys.stderr)
        finally:
            self.startups.pop(login, None)
            stream.close()

    # logins

    async def account(self, name: str) -> Account | None:
        """Return who logs in by this name, if anybody may."""
        if len(name) > logins.MAX_NAME:
            return None
        account = logins.of_lab(self.ssh, name)
        if account is not None:
            return account
        user, context = logins.split(name)
        try:
            answer = await self._controller.call("login", CONTROLLER_TIMEOUT, name=user, context=context)
        except OperatorError:
            return None
        return logins.of_configuration(answer, name, published=bool(self.ssh.get("published")))

    async def verify(self, password: str, password_hash: str) -> bool:
        """Verify a password in a thread of its own; an empty hash costs as much as another one."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._verifiers, passwords.verify, password, password_hash)

    async def check_enable(self, account: Account, password: str, source: str) -> str:
        """Return why a password does not give more privilege; empty if it does: it is that of the context's line
        `enable encrypted`, else the user's own."""
        began = time.monotonic()
        now = await self.account(f"{account.user}@{account.context}")
        if now is None:
            return "you are no administrator any more, or the controller is away"
        held = now.enable_hash or now.password_hash
        if not held:
            return "no password is set for this privilege"
        if await self.verify(password, held):
            return ""
        await asyncio.sleep(began + FAILURE_TIME - time.monotonic())
        self.roster.turn_away(f"{account.user} to more privilege", source, WRONG_PASSWORD)
        return WRONG_PASSWORD

    def new_session(self, account: Account, source: str) -> SshSession | None:
        """Return a new session, unless there are too many."""
        for open_now, most in (
            (len(self.roster), MAX_SESSIONS),
            (self.roster.of(source), MAX_CONNECTION_SESSIONS),
        ):
            if open_now >= most:
                self.roster.turn_away(account.user, source, f"{most} sessions are open already")
                return None
        session = SshSession(self._host, account, source, self.roster.leave)
        self.roster.enter(session)
        return session


class LoginServer(asyncssh.SSHServer):
    """One connection, up to its login and for the channels that it opens."""

    def __init__(self, server: ManagementServer, source: str, stream: socket.socket) -> None:
        self.source = source
        self.named = False
        """Whether the client has named a user."""
        self._server, self._stream = server, stream
        self._connection: asyncssh.SSHServerConnection | None = None
        self._accepted: dict[str, Account] = {}
        """Who has shown a password or a key, by login name."""
        self._account: Account | None = None
        self._passwords = self._public_keys = 0
        self._name = ""

    def cut(self) -> None:
        """Close the connection at once."""
        self._server.startups.pop(self, None)
        if self._connection is not None:
            self._connection.abort()
        else:
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)

    # what asyncssh calls

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        # A client offers all keys that it has: one line tells of them all.
        if self._account is None and self._public_keys and not self._passwords:
            self._server.roster.turn_away(logins.shown(self._name), self.source, "none of its keys lets in")

    def begin_auth(self, username: str) -> bool:
        self.named, self._name = True, username
        return True

    def password_auth_supported(self) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        began = time.monotonic()
        self._passwords += 1
        if self._passwords > MAX_PASSWORDS:
            self._refuse()
            return False
        account = await self._server.account(username)
        fits = await self._server.verify(password, account.password_hash if account is not None else "")
        if fits and account is not None:
            self._accepted[username] = account
            return True
        await asyncio.sleep(began + FAILURE_TIME - time.monotonic())
        why = "no such administrator" if account is None else account.why or WRONG_PASSWORD
        self._server.roster.turn_away(logins.shown(username), self.source, why)
        if self._passwords >= MAX_PASSWORDS:
            self._refuse()
        return False

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._public_keys += 1
        if self._public_keys > MAX_PUBLIC_KEYS:
            self._refuse()
            return False
        account = await self._server.account(username)
        if account is None or not any(hmac.compare_digest(key.public_data, held) for held in account.keys):
            return False
        self._accepted[username] = account
        return True

    def auth_completed(self) -> None:
        self._server.startups.pop(self, None)
        if self._connection is not None:
            self._account = self._accepted.get(str(self._connection.get_extra_info("username")))

    def session_requested(self) -> SshSession | bool:
        if self._account is None:
            return False
        return self._server.new_session(self._account, self.source) or False

    def _refuse(self) -> None:
        if self._connection is not None:
            self._connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )
