"""Save, copy, delete and reload, as an operator types them, at a real controller in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.cli import PASSWORD, CliRig
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted

TEXT = HIGH_AVAILABILITY.split("\ntunnel ipsec Tun-1")[0] + "\n"


@pytest.fixture
def node() -> Node:
    return booted(TEXT)


def session(node: Node, **settings: Any) -> CliRig:
    def controller(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return node.ask(command, **arguments)

    rig = CliRig(controller, **settings)
    rig.start()
    return rig


def answers(rig: CliRig, keys: str) -> str:
    """What follows the echo of the first line."""
    return rig.type(keys).partition("\r\n")[2].removesuffix("[local]a#")


def test_save_asks_before_it_replaces_a_file(node: Node) -> None:
    rig = session(node)
    assert answers(rig, "save configuration\r") == "Save to file: /flash/redback.cfg\r\n"
    node.ask("apply", text="context C9\n")
    question = "Save to file: /flash/redback.cfg\r\nTarget file exists, overwrite? (y/n) "
    for key in ("n\r", "\r", "nonsense\r"):
        said = answers(rig, f"save config\r{key}")
        assert said == f"{question}{key}\n% Error: the file exists, and was not replaced\r\n"
    assert b"C9" not in node.disk.flash["redback.cfg",]
    # Netmiko answers yes, Quali y.
    for key in ("yes\r", "y\r", "Y\r"):
        assert answers(rig, f"save\r{key}") == f"{question}{key}\n"
    assert b"C9" in node.disk.flash["redback.cfg",]


def test_save_goes_to_the_file_that_the_configuration_or_the_operator_names(node: Node) -> None:
    node.ask("apply", text=f"{TEXT}boot configuration demo.cfg\n")
    rig = session(node)
    assert answers(rig, "save configuration\r") == "Save to file: /flash/demo.cfg\r\n"
    assert answers(rig, "save configuration /flash/other.cfg\r") == "Save to file: /flash/other.cfg\r\n"
    assert {*node.disk.flash} == {("demo.cfg",), ("other.cfg",)}
    assert b"\nboot configuration demo.cfg\n" in node.disk.flash["demo.cfg",]


def test_a_refused_save_says_why(node: Node) -> None:
    rig = session(node)
    said = answers(rig, "save configuration ../x\r")
    assert said == "% Error: ../x is not a valid path on a local file system\r\n"
    node.disk.room = 0
    assert answers(rig, "save\r").endswith("% Error: Can't write /flash/redback.cfg: No space left on device\r\n")


def test_without_a_terminal_a_question_is_not_asked_and_means_no(node: Node) -> None:
    rig = CliRig(session(node).controller)
    assert rig.run("save configuration") == "Save to file: /flash/redback.cfg\n"
    assert rig.status == 0
    rig = CliRig(session(node).controller)
    assert rig.run("save configuration") == "% Error: the file exists, and was not replaced\n"
    assert rig.status == 1


def test_files_are_listed_copied_and_deleted(node: Node) -> None:
    rig = session(node)
    node.disk.flash |= {("a.cfg",): b"one", ("b.cfg",): b"two"}
    assert "3  Jan 01 1970 00:00  a.cfg\r\n" in answers(rig, "dir\r")
    assert answers(rig, "dir /flash\r").endswith("2 files, 6 octets\r\n")
    assert answers(rig, "dir /pcmcia0\r") == "% Error: /pcmcia0: No such device\r\n"
    assert answers(rig, "dir /etc\r") == "% Error: /etc is not a valid path on a local file system\r\n"
    assert answers(rig, "copy a.cfg c.cfg\r") == "Copied /flash/a.cfg to /flash/c.cfg\r\n"
    assert answers(rig, "more c.cfg\r") == "one\r\n"
    node.disk.flash["key.pem",] = b"-----BEGIN RSA PRIVATE KEY-----\n"
    assert answers(rig, "more key.pem\r") == "% Error: /flash/key.pem holds a private key\r\n"
    del node.disk.flash["key.pem",]
    overwritten = answers(rig, "copy a.cfg b.cfg\ry\r")
    assert overwritten == "Target file exists, overwrite? (y/n) y\r\nCopied /flash/a.cfg to /flash/b.cfg\r\n"
    assert answers(rig, "delete a.cfg\rn\r") == "Delete a.cfg? (y/n) n\r\n% Error: nothing was deleted\r\n"
    assert answers(rig, "delete a.cfg\ry\r") == "Delete a.cfg? (y/n) y\r\nDeleted /flash/a.cfg\r\n"
    assert node.disk.flash == {("b.cfg",): b"one", ("c.cfg",): b"one"}


def test_a_reload_asks_and_says_what_is_lost(node: Node) -> None:
    rig = session(node)
    lost = "The configuration in force is not saved: what is not saved is lost.\r\n"
    none = "/flash/redback.cfg does not exist: the router starts with the file of its lab.\r\n"
    assert answers(rig, "reload\rn\r") == (
        f"{none}{lost}Proceed with reload? (y/n) n\r\n% Error: nothing was done\r\n"
    )
    assert not [output for output in node.launcher if output.request == "reload"]
    rig.type("save\r")
    assert answers(rig, "reload\ry\r") == "Proceed with reload? (y/n) y\r\nReloading with /flash/redback.cfg\r\n"
    assert node.launcher[-1].request == "reload"
    node.ask("apply", text="context C9\n")
    assert answers(rig, "reload\r") == f"{lost}Proceed with reload? (y/n) "
    assert rig.type("\x03") == "^C\r\n[local]a#"


def test_cards_are_reloaded_after_a_yes(node: Node) -> None:
    rig = session(node)
    assert answers(rig, "reload card 2\ry\r") == "Reload card 2? (y/n) y\r\nReloading asp 2/1, asp 2/2\r\n"
    assert answers(rig, "reload asp 2/1\ry\r") == "Reload ASP 2/1? (y/n) y\r\nReloading asp 2/1\r\n"
    assert answers(rig, "reload asp 2/1\rn\r").endswith("% Error: nothing was done\r\n")
    assert sum(output.request == "restart" for output in node.launcher) == 3
    assert answers(rig, "reload card 9\ry\r").endswith("% Error: no card in slot 9 has a process\r\n")


@pytest.mark.parametrize("line", ["save", "dir", "copy a b", "delete a", "reload", "clear log", "clear arp-cache"])
def test_commands_that_act_want_a_privilege(node: Node, line: str) -> None:
    rig = session(node, privilege=6)
    assert "% Invalid input at '^' marker" in rig.type(f"{line}\r")
    assert not rig.requests


def test_monitor_looks_again_until_it_is_given_up() -> None:
    packets = 0

    def controller(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal packets
        if command == "tunnels":
            assert (arguments["name"], arguments["context"]) == ("t", "")
            return {"tunnels": [{"name": "t", "kind": "manual", "remote": "10.0.0.1", "up": True}]}
        assert (command, dict(arguments)) == ("sas", {"tunnel": "t", "cleared": True})
        packets += 1000
        row = {"encapsulated": {"packets": packets}, "decapsulated": {"packets": 7}}
        return {"cards": {"asp 1/1": {"tunnels": [row]}}, "errors": {}}

    rig = CliRig(controller)
    rig.sleeps = True
    rig.start()
    first = rig.type("monitor tunnel t\r")
    assert first.startswith("monitor tunnel t\r\n\x1b[H\x1b[JTunnel  Type    Remote    State\r\n")
    assert "out     1000          -\r\n" in first
    assert first.endswith("^C ends\r\n")
    rig.now += 2.0
    assert "out     2000        500\r\nin         7          0\r\n" in rig.timer()
    assert rig.type("\x03") == "^C\r\n[local]a#"
    rig.now += 2.0
    assert rig.timer() == ""
    assert "out     3000          -\n" in CliRig(controller).run("monitor tunnel t")


def test_a_configuration_is_saved_to_a_url_without_keys_in_clear(node: Node) -> None:
    rig = session(node)
    said = answers(rig, f"save configuration scp://ann@10.0.0.1/a.cfg\r{PASSWORD}\r")
    assert said == "Password for ann@10.0.0.1: \r\nSave to file: scp://ann@10.0.0.1/a.cfg\r\n"
    assert rig.urls == {"scp://ann@10.0.0.1/a.cfg": node.ask("config", keys=False)["text"]}
    assert not node.disk.flash
    said = answers(rig, "save configuration scp://ann@10.0.0.1/a.cfg\rwrong\r")
    assert said.endswith("% Error: Login failed\r\n")
    said = answers(rig, "save configuration http://10.0.0.1/a.cfg\r")
    assert said == "% Error: http is for reading only\r\n"
    said = answers(rig, "save configuration scp://ann:secret@10.0.0.1/a.cfg\r")
    assert said == "% Error: a URL has no password here: it is asked for\r\n"
    assert rig.session._editor.history[-1] == "save configuration scp://ann:***@10.0.0.1/a.cfg"


def test_a_file_of_a_url_is_taken_into_the_candidate(node: Node) -> None:
    rig = session(node)
    rig.urls["http://10.0.0.1/a.cfg"] = "context C9\n"
    assert "[local]a(config)#" in rig.type("configure http://10.0.0.1/a.cfg\r")
    assert "Transaction committed" in rig.type("commit\r")
    assert "\ncontext C9\n" in node.ask("config")["text"]
