"""`ssh:` of lab files: what is read, what is refused, and that no message has a password."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis.mgmt import host_keys, passwords
from launch.client.status_view import ROUTERS_SHOWN, how_to_log_in
from launch.ctl.main import main
from launch.lab.model import Lab, SshSettings
from launch.lab.parser import load
from launch.lab.yaml_source import LabError
from launch.run_folders import Folders
from launch.supervisor.access import Access, AccessError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDaI0ut5neEvpfNObB/+vWINVtWSYp9VX5fFrQzYqKVS"


def read(folder: Path, of_lab: str = "", of_router: str = "") -> Lab:
    (folder / "a.cfg").write_text("context local\nend\n")
    own = f", ssh: {of_router}" if of_router else ""
    text = f"name: l\n{f'ssh: {of_lab}' if of_lab else ''}\ntopology:\n  nodes:\n"
    (folder / "lab.yaml").write_text(f"{text}    a: {{kind: smartedge, config: a.cfg{own}}}\n")
    return load(folder / "lab.yaml")[0]


def settings(folder: Path, of_lab: str = "", of_router: str = "") -> SshSettings:
    return read(folder, of_lab, of_router).routers()[0].ssh


def test_a_lab_without_the_key_listens_on_this_machine_alone_and_lets_nobody_in(tmp_path: Path) -> None:
    assert settings(tmp_path) == SshSettings("127.0.0.1", 0, "", "", (), False)


def test_a_routers_keys_go_before_those_of_the_lab(tmp_path: Path) -> None:
    found = settings(tmp_path, '{user: op, password: "secret"}', "{port: 2201, user: other, listen: 0.0.0.0}")
    assert (found.user, found.port, found.listen) == ("other", 2201, "0.0.0.0")
    assert passwords.verify("secret", found.password_hash)
    assert "secret" not in repr(found)
    assert found.password_hash not in repr(found)


def test_keys_are_given_as_such_or_by_files(tmp_path: Path) -> None:
    (tmp_path / "keys.pub").write_text(f"# mine\n{KEY} one\n\n{KEY} two\n")
    assert settings(tmp_path, f'{{user: op, key: "{KEY}"}}').keys == (KEY,)
    assert settings(tmp_path, f'{{user: op, key: ["{KEY}", keys.pub]}}').keys == (KEY, f"{KEY} one", f"{KEY} two")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("true", "'ssh:' is a mapping"),
        ("{users: op}", "unknown key of ssh 'users'; did you mean 'user'?"),
        ("{port: 22}", "each router needs a port of its own"),
        ("{listen: here}", "'here' is not an IPv4 address"),
        ('{user: "o p", password: "verysecret"}', "'user:' is up to 32"),
        ("{user: op, password: 12345}", "put digits in quotes"),
        ('{user: op, password: ""}', "'password:' is a text"),
        ('{password: "verysecret"}', "needs the 'user:'"),
        ("{user: op}", "needs a 'password:' or a 'key:'"),
        ("{user: op, key: nowhere.pub}", "neither a public key nor a file"),
        ('{user: op, key: "-----BEGIN OPENSSH PRIVATE KEY-----"}', "not the private one"),
        ("{user: op, key: a.cfg}", "a.cfg has no public key"),
        ("{user: op, key: 5}", "is a public key or the file"),
        ('{user: op, password: "verysecret", published-password: 1}', "is true or false"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        read(tmp_path, given)
    said = [str(found) for found in caught.value.diagnostics]
    assert any(message in line for line in said), said
    assert not any(secret in line for line in said for secret in ("verysecret", "12345", "$6$"))


@pytest.mark.parametrize("port", ["0", "65536", "true", '"x"', "1.5"])
def test_a_port_is_one(tmp_path: Path, port: str) -> None:
    with pytest.raises(LabError, match="'port:' is a whole number"):
        read(tmp_path, "", f"{{port: {port}}}")


@pytest.fixture
def folders(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "r"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "s"))
    return Folders("l", ["a"])


def test_the_launcher_listens_and_writes_how_to_log_in(tmp_path: Path, folders: Folders) -> None:
    router = read(tmp_path, '{user: op, password: "verysecret"}').routers()[0]
    first = Access([router], folders)
    port = first.port("a")
    with socket.create_connection(("127.0.0.1", port)):
        pass
    config = (folders.run / "ssh_config").read_text()
    assert f"Host a\n  HostName 127.0.0.1\n  Port {port}\n  User op\n" in config
    assert "StrictHostKeyChecking yes" in config
    known = (folders.run / "known_hosts").read_text()
    assert known == f"[127.0.0.1]:{port} {host_keys.public_keys(folders.node_state('a'))[0]}\n"
    for file in (folders.run / "ssh_config", *(folders.node_state("a") / "ssh").iterdir()):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert "verysecret" not in config + str(first.facts("a")) + str(first.lines([]))
    said = f"a: SSH at 127.0.0.1 port {port}: ssh -F {folders.run}/ssh_config a"
    assert first.lines([]) == [said]
    first.close()
    nobody = Access([dataclasses.replace(router, ssh=SshSettings())], folders)
    assert nobody.lines([])[0].endswith("ssh_config a (no login is given yet)")
    assert nobody.lines(["a"])[0].endswith("ssh_config a")
    nobody.close()
    # The host key is made once; the port is free again.
    again = Access([dataclasses.replace(router, ssh=dataclasses.replace(router.ssh, port=port))], folders)
    assert (folders.run / "known_hosts").read_text() == known
    with pytest.raises(AccessError, match=rf"a can't listen for SSH at 127\.0\.0\.1 port {port}: .*in use"):
        Access([dataclasses.replace(router, ssh=dataclasses.replace(router.ssh, port=port))], folders)
    again.close()
    folders.close()


def test_a_host_key_that_is_none_is_not_replaced(tmp_path: Path, folders: Folders) -> None:
    file = host_keys.host_key(folders.node_state("a"), "ed25519")
    file.write_text("broken")
    with pytest.raises(AccessError, match="ssh_host_ed25519_key is no host key"):
        Access(read(tmp_path).routers(), folders)
    assert file.read_text() == "broken"
    folders.close()


def test_a_lab_on_a_machine_without_loopback_has_no_ssh(
    tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    router = read(tmp_path).routers()[0]
    monkeypatch.setattr("launch.supervisor.access.socket.socket", Nowhere)
    access = Access([router], folders)
    assert (access.sockets, access.lines([])) == ({}, ["a: no SSH: 127.0.0.1: Cannot assign requested address"])
    with pytest.raises(AccessError):
        Access([dataclasses.replace(router, ssh=dataclasses.replace(router.ssh, port=2201))], folders)
    folders.close()


def test_nothing_of_ssh_is_loaded_before_somebody_connects() -> None:
    heavy = ("asyncssh", "passlib", "chassis.mgmt.server", "chassis.cli.session")
    code = f"import sys, launch.supervisor.start; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_session_without_ssh_is_one_at_the_console() -> None:
    said = CliRunner().invoke(main, ["cli", "a"])
    assert said.exit_code == 2
    assert "give one with -c, or use 'chassisctl console a' for a session" in said.output


def test_the_status_of_a_lab_says_how_to_log_in() -> None:
    rows = [
        {"node": f"r{number}", "ssh": {"port": 2200 + number, "command": f"ssh -F '/a b/ssh_config' r{number}"}}
        for number in range(ROUTERS_SHOWN + 2)
    ]
    told = how_to_log_in({"processes": [{"node": "t1"}, *rows]})
    assert told.startswith("ssh -F '/a b/ssh_config' NODE: r0 at port 2200, r1 at port 2201,")
    assert told.endswith("r7 at port 2207, 2 more")
    assert how_to_log_in({"processes": [{"node": "t1"}]}) == ""
