"""SSH to routers of real labs: who gets in, what a login can do, and that no client harms another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest
from passlib.hash import md5_crypt

from chassis.mgmt import passwords
from tests.support.ssh import WITHIN, OpenSsh, Shell, connected, openssh, port_of

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

__all__ = ["openssh"]

pytestmark = pytest.mark.multiprocess

LAB = """
name: ssh
settings: {restart-delay: 100ms}
ssh: {user: op, password: "the lab's own"}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
"""
PASSWORD = "one of ours"
MORE = "even more"
KEY = asyncssh.generate_private_key("ssh-ed25519")
CONFIG = f"""
context local
 administrator admin encrypted 2 {passwords.hashed(PASSWORD)}
  privilege start 10
  public-key {KEY.export_public_key().decode().strip()}
 administrator low encrypted 2 {passwords.hashed(PASSWORD)}
 administrator test encrypted 1 {passwords.PUBLISHED}
  privilege start 15
  privilege max 12
 enable encrypted 1 {md5_crypt.hash(MORE)}
context vpn
 administrator limited encrypted 2 {passwords.hashed(PASSWORD)}
  timeout session idle 1
 administrator other encrypted 2 {passwords.hashed(PASSWORD)}
  privilege start 15
end
"""
LAB_PASSWORD = "the lab's own"


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory) -> LabClient:
    return shared_lab_factory.text(LAB, {"a.cfg": CONFIG})


async def refused(lab: LabClient, user: str, **options: Any) -> bool:
    try:
        async with connected(lab, user, **options):
            return False
    except (asyncssh.PermissionDenied, asyncssh.ConnectionLost):
        return True


async def works(lab: LabClient) -> None:
    """A new login gets a prompt and an answer of the controller."""
    async with connected(lab, "op", password=LAB_PASSWORD) as connection:
        shell = await Shell.open(connection)
        await shell.until("[local]a#")
        shell.type("show log | count\r")
        assert re.search(r"\n\d+\r\n", await shell.until("[local]a#"))


def test_openssh_runs_commands_without_a_terminal(lab: LabClient, openssh: OpenSsh) -> None:
    said = openssh.run(lab, "a", "show log | json", password=LAB_PASSWORD)
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)
    said = openssh.run(lab, "a", "show foo", password=LAB_PASSWORD)
    assert (said.returncode, said.stdout) == (1, "     ^\n% Invalid input at '^' marker\n")
    said = openssh.run(lab, "a", password=LAB_PASSWORD, stdin=None, input="show clock\nshow foo\nshow version")
    assert said.returncode == 0
    assert " UTC" in said.stdout
    assert "% Invalid input" in said.stdout
    assert "SEOS" in said.stdout
    said = openssh.run(lab, "a", "show clock", password="wrong")
    assert said.returncode == 255
    assert "Permission denied" in said.stderr
    assert LAB_PASSWORD not in said.stderr


def test_openssh_logs_in_with_a_key_of_the_lab(lab_factory: LabFactory, openssh: OpenSsh) -> None:
    key = openssh.key()
    public = key.with_suffix(".pub").read_text().strip()
    text = LAB.replace('password: "the lab\'s own"', f'key: "{public}"')
    lab = lab_factory.text(text, {"a.cfg": "context local\nend\n"})
    said = openssh.run(lab, "a", "show clock", options=("-i", str(key)))
    assert (said.returncode, said.stderr) == (0, "")
    assert " UTC" in said.stdout
    said = openssh.run(lab, "a", "show clock", options=("-i", str(openssh.key("other"))), password="anything")
    assert said.returncode == 255


def test_administrators_log_in_with_their_privileges(lab: LabClient) -> None:
    async def run() -> None:
        for user, prompt in (
            ("op", "[local]a#"), ("admin", "[local]a#"), ("low", "[local]a>"), ("low@local", "[local]a>"),
            ("other@vpn", "[vpn]a#"),
        ):  # fmt: skip
            password = LAB_PASSWORD if user == "op" else PASSWORD
            async with connected(lab, user, password=password) as connection:
                shell = await Shell.open(connection)
                await shell.until(prompt)
                shell.type("exit\r")
                await shell.rest()
                assert shell.process.exit_status == 0
        async with connected(lab, "admin", client_keys=[KEY]) as connection:
            assert " UTC" in str((await connection.run("show clock", check=True)).stdout)

    asyncio.run(run())


def test_enable_asks_for_the_password_of_the_context_else_for_the_users_own(lab: LabClient) -> None:
    async def run() -> None:
        for user, prompt, right, wrong in (
            ("low", "[local]a", MORE, PASSWORD), ("limited@vpn", "[vpn]a", PASSWORD, MORE),
        ):  # fmt: skip
            async with connected(lab, user, password=PASSWORD) as connection:
                shell = await Shell.open(connection)
                await shell.until(f"{prompt}>")
                shell.type("enable\r")
                await shell.until("Password: ")
                shell.type(f"{wrong}\r")
                said = await shell.until(f"{prompt}>")
                assert "% Error: wrong password" in said
                shell.type("enable\r")
                await shell.until("Password: ")
                shell.type(f"{right}\r")
                assert right not in await shell.until(f"{prompt}#")
                shell.type("disable\r")
                await shell.until(f"{prompt}>")

    asyncio.run(run())


def test_nobody_else_gets_in(lab: LabClient) -> None:
    async def run() -> None:
        stranger = asyncssh.generate_private_key("ssh-ed25519")
        # The guide prints the password hash of "test".
        assert await refused(lab, "test", password="test")
        assert await refused(lab, "other", password=PASSWORD)
        assert await refused(lab, "admin@vpn", password=PASSWORD)
        assert await refused(lab, "op", password=PASSWORD)
        assert await refused(lab, "op@vpn", password=LAB_PASSWORD)
        assert await refused(lab, "nobody", password=PASSWORD)
        assert await refused(lab, "", password="")
        assert await refused(lab, "admin", password="")
        assert await refused(lab, "x" * 500, password=PASSWORD)
        assert await refused(lab, "low", client_keys=[KEY])
        assert await refused(lab, "admin", client_keys=[stranger])

    asyncio.run(run())


def test_a_published_password_lets_in_where_the_lab_says_so(lab_factory: LabFactory) -> None:
    text = LAB.replace("ssh: {", "ssh: {published-password: true, ")
    lab = lab_factory.text(text, {"a.cfg": CONFIG})

    async def run() -> None:
        async with connected(lab, "test", password="test") as connection:
            shell = await Shell.open(connection)
            await shell.until("[local]a#")

    asyncio.run(run())


def test_a_connection_has_three_tries(lab: LabClient) -> None:
    class Guesser(asyncssh.SSHClient):
        asked = 0

        def password_auth_requested(self) -> str:
            self.asked += 1
            return f"guess {self.asked}"

    async def run() -> None:
        guesser = Guesser()
        with pytest.raises((asyncssh.DisconnectError, asyncssh.ConnectionLost)):
            async with connected(lab, "admin", client_factory=lambda: guesser, preferred_auth=["password"]):
                pass
        assert guesser.asked == 3

    asyncio.run(run())


def test_there_is_nothing_but_the_cli(lab: LabClient, tmp_path: Path) -> None:
    async def run() -> None:
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.start_sftp_client()
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("127.0.0.1", port_of(lab, "a"))
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_unix_connection(str(tmp_path / "socket"))
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.forward_remote_port("", 0, "127.0.0.1", 1)
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(x11_forwarding=True, x11_display=":0", term_type="vt100")
            said = await connection.run("scp -t /flash", env={"PATH": "/bin", "LD_PRELOAD": "x"})
            assert said.exit_status == 1
            assert "% Invalid input" in str(said.stdout)

    asyncio.run(run())


def test_a_connection_opens_ten_sessions_and_no_more(lab: LabClient) -> None:
    async def run() -> None:
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            for _ in range(10):
                await (await Shell.open(connection)).until("[local]a#")
            with pytest.raises(asyncssh.ChannelOpenError):
                await Shell.open(connection)
            await works(lab)

    asyncio.run(run())


def test_an_old_client_that_knows_rsa_keys_alone_logs_in(lab: LabClient, openssh: OpenSsh) -> None:
    asyncio.run(works(lab))
    old = ("-o", "HostKeyAlgorithms=rsa-sha2-256", "-o", "KexAlgorithms=diffie-hellman-group14-sha256")
    said = openssh.run(lab, "a", "show clock", password=LAB_PASSWORD, options=old)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_session_outlives_the_controller(lab: LabClient) -> None:
    async def run() -> None:
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            shell = await Shell.open(connection)
            await shell.until("[local]a#")
            lab.stop_card("a", "xcrp")
            shell.type("show log\r")
            await shell.until("show log\r\n")
            lab.kill("a", "xcrp")
            assert await shell.until("[local]a#") == "% Error: the controller is away: try again\r\n[local]a#"
            await asyncio.to_thread(lab.wait_until, "cards of a up", within=WITHIN)
            shell.type("show log | count\r")
            assert re.search(r"\n\d+\r\n", await shell.until("[local]a#"))
            # The controller that came after it knows of the session again.
            deadline = asyncio.get_running_loop().time() + WITHIN
            while not lab.node("a").call("administrators")["sessions"]:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(run())


def test_the_port_outlives_what_serves_it(lab: LabClient) -> None:
    async def run() -> None:
        port = port_of(lab, "a")
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            shell = await Shell.open(connection)
            await shell.until("[local]a#")
            lab.kill("a", "mgmt")
            with contextlib.suppress(asyncssh.Error, OSError):
                await shell.rest()
        # At once: who connects waits for the next process.
        await works(lab)
        assert port_of(lab, "a") == port

    asyncio.run(run())
    states = {row["card"]: row["state"] for row in lab.node("a").status()["cards"]}
    assert "mgmt" not in states


def test_killed_while_sessions_commit_it_leaves_whole_commits_and_no_candidate(lab: LabClient) -> None:
    draw, shown = Random(20), 0

    def pid() -> int:
        rows = lab.ask("", "ps", {})["processes"]
        return next(int(row["pid"]) for row in rows if row["card"] == "mgmt" and row["state"] == "running")

    async def killed(number: int, commit: bool) -> bool:
        """Type a change, kill the process at some moment; return whether the operator saw that it is committed."""
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            shell = await Shell.open(connection)
            await shell.until("[local]a#")
            shell.type(f"configure\rcontext k{number}a\rcontext k{number}b\r")
            if not commit:
                await shell.until(f"context k{number}b\r\n[local]a(config-ctx)#")
            else:
                shell.type("commit\r")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if number % 3 == 0 else draw.random() * 0.2):
                        await shell.until("Transaction committed")
            os.kill(pid(), signal.SIGKILL)
            with contextlib.suppress(asyncssh.Error, OSError):
                await shell.rest()
            return "Transaction committed" in shell.text or (commit and number % 3 == 0)

    for number in range(9):
        seen = asyncio.run(killed(number, commit=number != 8))
        asyncio.run(works(lab))
        present = {f"k{number}a", f"k{number}b"} & {*lab.node("a").call("identity")["contexts"]}
        assert len(present) in ((2,) if seen else (0,) if number == 8 else (0, 2))
        shown += seen
    assert shown >= 3
    assert lab.node("a").status()["cards"] == []


def test_two_hundred_silent_connections_harm_nobody(lab: LabClient) -> None:
    async def run() -> None:
        port = port_of(lab, "a")
        async with connected(lab, "op", password=LAB_PASSWORD) as connection:
            shell = await Shell.open(connection)
            await shell.until("[local]a#")
            with contextlib.ExitStack() as flood:
                for number in range(200):
                    stranger = socket.create_connection(("127.0.0.1", port), WITHIN)
                    flood.enter_context(stranger)
                    if number % 4 == 0:
                        # What it was sent before may have made it close the connection.
                        with contextlib.suppress(OSError):
                            stranger.sendall((b"GET / HTTP/1.0\r\n\r\n", b"\0" * 70_000)[number % 8 == 0])
                shell.type("show log | count\r")
                assert re.search(r"\n\d+\r\n", await shell.until("[local]a#"))
                await works(lab)

    asyncio.run(run())


def test_clients_that_do_not_read_or_type_without_end_harm_nobody(lab: LabClient) -> None:
    async def run() -> None:
        async with (
            connected(lab, "op", password=LAB_PASSWORD) as first,
            connected(lab, "op", password=LAB_PASSWORD) as second,
            connected(lab, "op", password=LAB_PASSWORD) as third,
        ):
            deaf = await Shell.open(first)
            deaf.type("terminal length 0\r")
            await deaf.until("[local]a#terminal length 0\r\n[local]a#")
            deaf.process.stdout.channel.pause_reading()
            for _ in range(3000):
                deaf.type("show log\r")
            flooding = await Shell.open(second)
            for _ in range(64):
                flooding.type("x" * 65_536)
            shell = await Shell.open(third)
            await shell.until("[local]a#")
            shell.type("show log | count\r")
            assert re.search(r"\n\d+\r\n", await shell.until("[local]a#"))
            await works(lab)

    asyncio.run(run())


def test_the_log_has_logins_and_no_password(lab: LabClient) -> None:
    async def run() -> None:
        # Of many failed logins in a short time, as in tests before this one, some are only counted.
        for _ in range(60):
            assert await refused(lab, "intruder", password="a wrong one")
            if "login of 'intruder' from 127.0.0.1:" in await asyncio.to_thread(told, lab, ""):
                break
        else:
            raise AssertionError("no failed login is told")
        assert await refused(lab, "low", client_keys=[KEY])
        await asyncio.to_thread(told, lab, "failed: none of its keys lets in")
        async with connected(lab, "admin", password=PASSWORD) as connection:
            await Shell.open(connection)
            await asyncio.to_thread(told, lab, "admin@local logged in from 127.0.0.1:")
            await asyncio.to_thread(lab.wait_until, lambda: here(lab)[-1:] == ["admin"], within=WITHIN)
            rows = lab.node("a").call("administrators")
            assert {row["name"] for row in rows["administrators"]} == {"admin", "low", "test", "other", "limited"}
        await asyncio.to_thread(told, lab, "admin@local from 127.0.0.1:")

    asyncio.run(run())
    assert lab.run is not None
    written = "".join(path.read_text(errors="replace") for path in lab.run.glob("*.log"))
    written += (lab.run / "lab.json").read_text() + json.dumps(lab.ask("", "status", {}))
    assert "Traceback" not in written
    for secret in (LAB_PASSWORD, PASSWORD, MORE, "a wrong one", "$6$", "$1$"):
        assert secret not in written


def here(lab: LabClient) -> list[str]:
    """The users of the sessions of router `a`, as its controller knows them."""
    return [str(row["user"]) for row in lab.node("a").call("administrators")["sessions"]]


def told(lab: LabClient, text: str) -> str:
    """Wait until the router's log has a text; return the whole log."""
    seen: list[str] = []

    def check() -> bool:
        seen[:] = [record["text"] for record in lab.node("a").call("log")["records"]]
        return any(text in line for line in seen)

    lab.wait_until(check, within=WITHIN)
    return "\n".join(seen)
