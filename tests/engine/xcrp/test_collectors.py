"""Programs that collect configurations find what they look for in what a session at a real controller prints."""

from __future__ import annotations

import pytest

from chassis.config.parser import parse
from tests.support import CONFIGS, collectors
from tests.support.cli_node import NodeRig
from tests.support.xcrp import Node

TEXT = (CONFIGS / "manual-keys" / "a.cfg").read_text()


@pytest.fixture(scope="module")
def node() -> Node:
    made = Node(TEXT)
    made.boot_all("3/1", "3/11")
    made.run(2)
    return made


def session(node: Node, **settings: object) -> NodeRig:
    """A session as these programs begin it: at the end of a page nothing waits."""
    rig = NodeRig(node, **settings)
    rig.start()
    assert rig.type("terminal length 0\r") == f"terminal length 0\r\n{rig.session.prompt}"
    return rig


def test_oxidized_keeps_the_whole_configuration(node: Node) -> None:
    rig = session(node)
    kept = collectors.oxidized({command: rig.type(f"{command}\r") for command in collectors.OXIDIZED_COMMANDS})
    assert "! Current platform is SE1200\n" in kept
    assert kept.endswith("\nend\n")
    text = "".join(f"{line}\n" for line in kept.splitlines() if not line.startswith("! "))
    assert list(parse(text).config.tunnels) == ["circuit", "economical"]


def test_rancid_finds_a_complete_run_and_twice_the_same(node: Node) -> None:
    runs = []
    for _ in range(2):
        rig = session(node)
        rig.node.run(2)
        typed = "".join(rig.type(f"{command}\r") for command in collectors.RANCID_COMMANDS) + rig.type("exit\r")
        runs.append(collectors.rancid(f"{rig.session.prompt}{typed}"))
    assert runs[0].missed == []
    assert runs[0].complete
    assert runs[0].kept == runs[1].kept
    assert "tunnel ipsec circuit manual" in runs[0].kept["show config"]
    assert any("ase" in line for line in runs[0].kept["show slot table"])


def test_netshot_finds_modules_ports_and_interfaces(node: Node) -> None:
    rig = session(node, privilege=6)
    assert collectors.NETSHOT_PROMPT.fullmatch(rig.session.prompt)
    answers = {}
    for command in collectors.NETSHOT_COMMANDS:
        said = rig.type(f"{command}\r")
        assert said.startswith(f"{command}\r\n")
        answers[command] = said.removeprefix(f"{command}\r\n").removesuffix(rig.session.prompt)
    device = collectors.netshot(answers)
    assert device.version.startswith("SEOS-")
    assert device.family == "SE1200"
    assert {"1": "ase", "3": "ether-12-port"}.items() <= {slot: kind for slot, kind, _ in device.modules}.items()
    assert set(device.ports) == {"3/1", "3/11"}
    assert all(on and mac.count(":") == 5 for on, mac in device.ports.values())
    assert device.interfaces["lan private"] == [("50.0.0.254", 8)]
    assert device.interfaces["wan circuit-end loopback"] == [("30.0.0.1", 32)]
    assert parse(device.configuration).config.contexts["wan"].interfaces


def test_the_driver_of_napalm_reads_ports_and_addresses(node: Node) -> None:
    rig = session(node)
    assert collectors.napalm_ports(rig.type("show port\r")) == {"3/1": (True, True), "3/11": (True, True)}
    rig.type("context wan\r")
    assert ("to-peer", "40.0.0.1", 16) in collectors.napalm_addresses(rig.type("show ip local interface\r"))


def test_ansible_sees_what_is_an_error_and_what_is_none(node: Node) -> None:
    rig = session(node)
    for line in (
        "show foo",
        "show",
        "show tunnel ipsec name",
        "context none",
        "show tunnel ipsec none statistics",
    ):
        assert collectors.ansible_failed(rig.type(f"{line}\r")), line
    for line in (
        "show log",
        "show alarms",
        "show configuration",
        "show tunnel",
        "terminal width 512",
        "configure",
    ):
        assert not collectors.ansible_failed(rig.type(f"{line}\r")), line
    for line in ("ip address 10.0.0.1/24", "context", "tunnel ipsec t9 wrong", "clear log"):
        assert collectors.ansible_failed(rig.type(f"{line}\r")), line
    for line in ("context lan", "interface more", "ip address 10.0.0.1/24", "abort", "end"):
        assert not collectors.ansible_failed(rig.type(f"{line}\r")), line
