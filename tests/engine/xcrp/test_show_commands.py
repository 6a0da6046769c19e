"""Show commands at a controller in memory: hardware, ASPs, interfaces, ports, circuits, alarms, PKI stores."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chassis.xcrp.flash import FlashFile
from tests.support.authority import Authority
from tests.support.cli_node import NodeRig, run
from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, Node, booted
from tests.support.xcrp_ike import PORTS, STATIC, flash


def shown(node: Node, line: str, **settings: Any) -> Any:
    return json.loads(run(node, f"{line} | json", **settings))


@pytest.fixture(scope="module")
def node() -> Node:
    return booted()


def test_the_chassis_has_the_cards_of_its_configuration_and_a_controller(node: Node) -> None:
    said = run(node, "show chassis")
    assert re.findall(r"^(\d+) +: (\S+) .*: (\S+) +(Yes|No) +(\S+)$", said, re.MULTILINE) == [
        ("2", "ase", "ase", "Yes", "P1P2U"),
        ("3", "ether-12-port", "ether-12-port", "Yes", "RU"),
        ("4", "ge-10-port", "ge-10-port", "Yes", "RU"),
        ("7", "xcrp4", "xcrp4", "Yes", "A"),
    ]
    assert [row["slot"] for row in shown(node, "show slot table")] == [2, 3, 4, 7]
    assert run(node, "show card 5") == "% Error: no card in slot 5\n"


def test_the_backup_programs_find_what_they_look_for(node: Node) -> None:
    """The rules of Netshot: platform, one row of hardware for each module, ports with their addresses."""
    assert re.search(r"Current platform is (.*)", run(node, "show chassis")).group(1) == "SE1200"  # type: ignore[union-attr]
    module = r"^([0-9]+|N/A) +(.*?) +([A-Z0-9]+) +[A-Z0-9]+ +[0-9]+ +[0-9]+-[A-Z][A-Z][A-Z]-[0-9][0-9][0-9][0-9]"
    found = re.findall(module, run(node, "show hardware"), re.MULTILINE)
    assert [row[:2] for row in found] == [
        ("N/A", "backplane"),
        ("N/A", "fan tray"),
        ("2", "ase"),
        ("3", "ether-12-port"),
        ("4", "ge-10-port"),
        ("7", "xcrp4"),
    ]
    assert len({row[2] for row in found}) == len(found)
    assert run(node, "show hardware") == run(node, "show hardware")
    any_text = r"(?:.|\n|\r)*?"
    port = (
        rf"ethernet (.+) state is (Up|Down){any_text}Admin state +: (Up|Down){any_text}MAC address +: ([0-9a-z:]+)"
    )
    assert [row[:3] for row in re.findall(port, run(node, "show port detail"))] == [
        (port, "Up", "Up") for port in HA_PORTS
    ]


def captured(node: Node, line: str) -> list[str]:
    """What a program that is logged in gets: the echo, the output and the next prompt, line by line."""
    rig = NodeRig(node, length=0)
    rig.start()
    return rig.type(f"{line}\r").replace("\r\n", "\n").splitlines()


def rancid(node: Node) -> list[str]:
    """What RANCID keeps of the configuration: its rules for a redback."""
    dropped = re.compile(
        r"^(?:Building configuration|Current configuration|! last updated:|!  Configuration last changed by user )"
    )
    lines = captured(node, "show config")
    assert lines[0].endswith("show config")
    assert "end" in lines
    return [line for line in lines[1 : lines.index("end") + 1] if not dropped.match(line)]


def oxidized(node: Node) -> list[str]:
    """What Oxidized keeps of it: its model ipos drops three lines after the echo, and the prompt."""
    assert captured(node, "show configuration")[1:4] == ["Building configuration...", "", "Current configuration:"]
    lines = captured(node, "show configuration")[4:-1]
    by = r"Configuration last changed by (?:system user|user '(?:%LICM%|<NO USER>|)') "
    return [line for line in lines if not re.search(by, line)]


def test_backups_differ_only_where_the_configuration_does() -> None:
    node = booted()
    before = rancid(node), oxidized(node)
    assert before[0][-1] == before[1][-1] == "end"
    assert not any("last changed" in line for line in (*before[0], *before[1]))
    node.run(100)
    assert (rancid(node), oxidized(node)) == before
    node.ask("commit", lines="context L1\ninterface peer-1\ndescription uplink\n", user="ann")
    node.run(1)
    assert [line for line in rancid(node) if line not in before[0]] == ["  description uplink"]
    added = [line for line in oxidized(node) if line not in before[1]]
    assert re.fullmatch(
        r"!  Configuration last changed by user 'ann' at \w{3} \w{3} \d\d [\d:]{8} \d{4}", added[0]
    )
    assert added[1:] == ["  description uplink"]
    # Netshot takes the contexts and their interfaces out of it.
    text = "\n".join(captured(node, "show configuration"))
    contexts = re.split(r"^context ", text, flags=re.MULTILINE)[1:]
    found = {one.split()[0]: re.findall(r"^ interface (.+)", one, re.MULTILINE) for one in contexts}
    assert found["L1"] == ["Tun-1-Local loopback", "peer-1"]


def test_rows_that_a_driver_reads(node: Node) -> None:
    """NAPALM's: port, administrative and operational state; interface and address with its length."""
    rows = re.findall(r"^\s+(\d+/\d+)\s+(\S+)\s+(\S+)", run(node, "show port"), re.MULTILINE)
    assert rows == [(port, "Up", "Up") for port in HA_PORTS]
    said = run(node, "show ip local interface", context="L1")
    assert re.findall(r"^\s*(\S+)\s+(\d+\.\d+\.\d+\.\d+)/(\d+)", said, re.MULTILINE) == [
        ("Tun-1-Local", "1.1.1.1", "32"),
        ("peer-1", "4.4.4.1", "24"),
    ]


def test_asps_know_their_pools_groups_and_roles(node: Node) -> None:
    rows = {row["asp"]: row for row in shown(node, "show asp")}
    assert {name: (row["state"], row["role"], row["contexts"]) for name, row in rows.items()} == {
        "2/1": ("up", "active", ["L1"]),
        "2/2": ("up", "active", ["L2"]),
    }
    assert [(row["tunnels"], row["up"]) for row in rows.values()] == [(1, 1), (1, 1)]
    assert shown(node, "show asp pool P1") == [
        {"pool": "P1", "service": "security", "asps": ["2/1"], "up": 1, "spare": 0, "rate": ""}
    ]
    assert shown(node, "show asp group")[1]["active"] == ["2/2"]
    assert run(node, "show asp 9/1") == "% Error: no asp '9/1'\n"


def test_contexts_and_interfaces_are_those_of_the_session_or_all(node: Node) -> None:
    assert [row["context"] for row in shown(node, "show context")] == ["local"]
    assert [row["context"] for row in shown(node, "show context all")] == ["local", "C1", "L1", "L2"]
    assert len({row["id"] for row in shown(node, "show context all")}) == 4
    rows = {row["interface"]: row for row in shown(node, "show ip interface", context="C1")}
    assert {name: (row["state"], row["bindings"]) for name, row in rows.items()} == {
        "TI-1": ("up", ["ipsec Tun-1"]),
        "TI-2": ("up", ["ipsec Tun-2"]),
        "private-interface": ("up", ["ethernet 3/1"]),
    }
    assert run(node, "show ip interface none") == "% Error: no interface 'none'\n"
    assert "Interface TI-1 is Up" in run(node, "show ip interface TI-1", context="C1")


def test_the_configuration_of_a_context_is_that_context_and_nothing_else(node: Node) -> None:
    said = run(node, "show configuration context L1")
    assert said.startswith("context L1\n")
    assert " ip route 3.3.3.3/32 4.4.4.4\n" in said
    assert "context C1" not in said
    assert "tunnel" not in said
    assert run(node, "show configuration context", context="L1") == said
    assert run(node, "show configuration context none").startswith("% Error: no context 'none'")
    assert said in run(node, "show configuration")


def test_circuits_are_of_ports_and_of_circuit_based_tunnels(node: Node) -> None:
    found = shown(node, "show circuit")
    assert [(row["kind"], row["name"]) for row in found["circuits"]] == [
        *(("port", port) for port in HA_PORTS),
        ("tunnel", "Tun-1"),
    ]
    assert found["total"] == {"circuits": 4, "up": 4, "bound": 4}


def test_what_is_down_stands_in_the_alarms() -> None:
    node = booted()
    assert run(node, "show alarms") == "Alarms: 0\n"
    node.kill_card("asp 2/1")
    node.carrier_event("3/1", False)
    node.run(3)
    found = shown(node, "show alarms")
    assert [(row["object"], row["alarm"], row["text"], row["tunnels"]) for row in found["alarms"]] == [
        ("asp 2/1", "aseAsp1Down", "died", 1),
        ("port 3/1", "portDown", "no carrier", 0),
    ]
    assert [row["raised"] - node.now - node.wall_offset for row in found["alarms"]] == [-3, -1]
    assert found["total"] == {"major": 2}
    assert "aseAsp1Down              died; 1 tunnel down with it\n" in run(node, "show alarms")
    assert "Active Alarms           2\n" in run(node, "show hardware")
    assert [(row["asp"], row["state"]) for row in shown(node, "show asp")] == [("2/1", "down"), ("2/2", "up")]
    assert [row["state"] for row in shown(node, "show ip interface brief", context="C1")] == ["down", "up", "down"]


def test_an_asp_of_no_pool_and_a_port_of_no_card_say_so() -> None:
    node = booted(HIGH_AVAILABILITY.replace("  asp 2/2\n", "") + "port ethernet 5/1\n no shutdown\n")
    rows = {row["object"]: row for row in shown(node, "show alarms")["alarms"]}
    assert (rows["asp 2/2"]["alarm"], rows["asp 2/2"]["severity"]) == ("asp2MissingServiceAssoc", "warning")
    assert "tunnel Tun-2" not in rows, "it was never up"
    assert shown(node, "show port 5/1")[0]["reason"] == "no port card in its slot"
    assert run(node, "show port 9/1") == "% Error: no port '9/1'\n"


def test_what_is_shut_down_is_no_fault_of_the_hardware() -> None:
    text = HIGH_AVAILABILITY.replace("card ge-10-port 4\n", "card ge-10-port 4\n shutdown\n")
    node = booted(text.replace("port ethernet 3/1\n  no shutdown\n", "port ethernet 3/1\n"))
    assert shown(node, "show alarms")["alarms"] == []
    assert {row["port"]: row["reason"] for row in shown(node, "show port")} == {
        "3/1": "shutdown",
        "3/11": "",
        "4/1": "lc 4 is shut down",
    }
    assert re.search(r"^4 .*No$", run(node, "show chassis"), re.MULTILINE)
    assert "Line card 4     : Shutdown" in run(node, "show card 4")


@pytest.mark.parametrize(
    ("system", "first"),
    [
        ("seos", "Redback Networks SmartEdge OS Version SEOS-12.1.1.11-Release"),
        ("ipos", "Ericsson IPOS Version IPOS-v20.3.1.803.142-Release"),
    ],
)
def test_the_banner_is_the_one_that_the_lab_asks_for(system: str, first: str) -> None:
    node = Node(HIGH_AVAILABILITY, settings={"os": system})
    node.boot_all(*HA_PORTS)
    node.run(61)
    assert run(node, "show version").splitlines()[1] == first
    assert run(node, "show version").splitlines()[-1].startswith("Router Up Time -  0 hours 1 minutes ")
    assert f"Version {first.split()[-1]}" in run(node, "show release")


REQUEST = FlashFile("pki/outer/requests/test1.pem", Authority(bits=1024).request("a.example").encode())


@pytest.fixture(scope="module")
def signed() -> Node:
    """A router whose context outer has a PKI store that one ASP holds."""
    text = STATIC.replace("  dh-group 2\nipsec", "  dh-group 2\n  authentication rsa-signature\nipsec", 1)
    made = Node(text, flash=(*flash(), *flash("inner", "i"), REQUEST))
    made.boot_all(*PORTS)
    return made


def test_certificates_are_those_of_a_context(signed: Node) -> None:
    (row,) = shown(signed, "show pki certificate self rsa", context="outer")
    assert (row["name"], row["key_pair"], row["bits"]) == ("a", "a", 2048)
    assert shown(signed, "show pki certificate trusted rsa", context="outer")[0]["name"] == "ca"
    assert run(signed, "show pki certificate self rsa") == "No certificates\n"
    line = "show pki certificate self rsa handle"
    assert shown(signed, f"{line} {row['handle'].upper()}", context="outer") == [row]
    assert run(signed, f"{line} 00000000", context="outer") == "% Error: no certificate '00000000'\n"
    name = row["subject"].removeprefix("CN=")
    assert shown(signed, f"show pki certificate self rsa identity {name}", context="outer") == [row]


@pytest.mark.behaviour("B-190")
def test_an_asp_shows_the_certificates_that_it_holds(signed: Node) -> None:
    assert shown(signed, "show pki asp 2/1 certificate self rsa", context="outer")
    assert shown(signed, "show pki card 2/1 certificate self rsa", context="inner") == []
    assert shown(signed, "show pki asp 2/2 certificate self rsa", context="outer") == []
    assert run(signed, "show pki asp 9/1 certificate self rsa") == "% Error: no asp 9/1\n"


@pytest.mark.behaviour("B-061")
def test_key_pairs_are_shown_without_keys(signed: Node) -> None:
    said = run(signed, "show pki key-pair", context="outer") + run(
        signed, "show pki key-pair | json", context="outer"
    )
    assert "a         rsa   2048  Yes" in said
    for file in flash():
        body = "".join(file.data.decode().splitlines()[1:-1])
        assert body[:40] not in said.replace("\n", "")
    assert run(signed, "show pki key-pair b", context="outer") == "% Error: no key pair 'b'\n"
    assert run(signed, "show pki key-pair") == "No key pairs\n"


@pytest.mark.behaviour("B-189")
def test_certificate_requests_are_those_of_a_context_with_their_files(signed: Node) -> None:
    (row,) = shown(signed, "show pki certificate-request rsa", context="outer")
    assert (row["name"], row["file"], row["subject"]) == ("test1", REQUEST.path, "CN=a.example")
    assert run(signed, "show pki certificate-request rsa", context="inner") == "No certificate requests\n"
    assert shown(signed, "show pki certificate-request rsa all", context="inner") == [row]
