"""CLI sessions at a controller in memory: real requests, real answers."""

from __future__ import annotations

import re

import pytest

from chassis.bus.engine import ToOperator
from chassis.config.parser import parse
from chassis.config.render import render
from tests.support import CONFIGS
from tests.support.cli_node import NodeRig, run
from tests.support.configurations import SECRET
from tests.support.xcrp import Node

TEXT = (CONFIGS / "manual-keys" / "a.cfg").read_text()
KEYS = re.findall(r"key 0x([0-9a-f]+)", TEXT)

SECRETS = """
context lan
 administrator op encrypted 1 $1$salt$HashOfOperator
 radius server 10.0.0.9 key RadiusSecret
 ike policy p
  pre-shared-key SharedSecretOfTwo
 ike policy q
  pre-shared-key hex 0x00112233445566778899
tunnel ipsec callers on-demand
"""
WORDS = ("RadiusSecret", "SharedSecretOfTwo", "00112233445566778899")


@pytest.fixture(scope="module")
def node() -> Node:
    made = Node(TEXT + SECRETS)
    made.boot_all("3/1", "3/11")
    made.run(2)
    return made


def test_a_session_asks_what_its_controller_answers(node: Node) -> None:
    rig = NodeRig(node, length=0)
    assert rig.start() == "[local]a#"
    row = "\r\ncircuit           manual     30.0.0.1       20.0.0.1       1/1   3        Up\r\n"
    assert row in rig.type("show tunnel\r")
    assert "1   : ase                   1   : ase                   Yes           P1P2U\r\n" in rig.type(
        "show chassis\r"
    )
    assert rig.type("context lan\r") == "context lan\r\n[lan]a#"
    assert "\r\n>  S     60.1.0.0/16                 1  circuit\r\n" in rig.type("show ip route\r")
    assert "  seq 10 50.2.0.0/16 60.2.0.0/16\r\n" in rig.type("show ipsec access-list\r")
    assert rig.type("context none\r").endswith("\r\n[lan]a#")
    assert rig.type("clear ipsec sa tunnel circuit\r").endswith("circuit\r\n[lan]a#")
    assert rig.requests[-1].arguments == {"tunnel": "circuit", "what": "ipsec"}
    assert rig.type("clear ike sa tunnel circuit\r").endswith(
        "% Error: tunnel circuit has manual keys: it has no IKE SA\r\n[lan]a#"
    )
    assert "clear ipsec sa tunnel none\r\n% Error: no tunnel 'none'" in rig.type("clear ipsec sa tunnel none\r")
    rig.type("exit\r")
    assert rig.status == 0


def test_requests_go_to_the_cards_and_come_back(node: Node) -> None:
    rig = NodeRig(node)
    rig.hold = True
    assert rig.run("ping 50.0.0.1 2") == ""
    sent = {"context": "local", "size": 36, "address": "50.0.0.1", "count": 1, "timeout": 1}
    assert rig.asked[0].arguments == sent
    assert isinstance(node.ask("ping", **rig.asked[0].arguments), dict)
    assert isinstance(node.answers[-1], ToOperator)


@pytest.mark.parametrize(
    "line",
    [
        "show configuration",
        "show configuration verbose",
        "show configuration ike all-contexts",
        "show configuration ipsec all-contexts verbose",
        "show configuration tunnel",
        "show ipsec security-association",
        "show ipsec security-association circuit-keys",
        "show configuration | json",
        "show tunnel ipsec detail",
        "show tunnel | json",
        "show log",
    ],
)
def test_no_key_and_no_password_is_printed(node: Node, line: str) -> None:
    said = run(node, line).lower()
    assert said or line == "show log"
    for word in (*KEYS, *WORDS):
        assert word.lower() not in said
        assert word.encode().hex() not in said


def test_the_configuration_is_the_one_in_force_with_hidden_keys(node: Node) -> None:
    said = run(node, "show configuration")
    assert said.startswith("Building configuration...\n\nCurrent configuration:\n")
    assert said.endswith("\nend\n")
    assert "  esp encryption aes-128-cbc key encrypted 1 " in said
    assert "  pre-shared-key encrypted 1 " in said
    assert " administrator op encrypted 1 $1$salt$HashOfOperator\n" in said
    printed = parse(said, secret=SECRET)
    assert printed.config == parse(TEXT + SECRETS).config
    assert render(printed.config, keys=False) in said


@pytest.mark.behaviour("B-187")
@pytest.mark.behaviour("B-188")
def test_parts_of_the_configuration_are_of_the_context(node: Node) -> None:
    assert "ike policy p" not in run(node, "show configuration ike")
    assert "ike policy p" in run(node, "show configuration ike all-contexts")
    assert "ike policy p" in run(node, "show configuration ike", context="lan")
    assert "ike policy p" in run(node, "show ike policy p", context="lan")
    assert "ike policy q" not in run(node, "show ike policy p", context="lan")
    assert run(node, "show ike policy p") == "% Error: no ike policy 'p'\n"
    assert run(node, "show ike policy") == ""
    # A tunnel is in the context of its interface, and in local (S-075).
    for context, count in (("local", 3), ("lan", 2), ("wan", 0)):
        assert run(node, "show configuration tunnel", context=context).count("tunnel ipsec ") == count
    assert run(node, "show configuration tunnel all-contexts", context="wan").count("tunnel ipsec ") == 3


def test_only_what_belongs_to_a_part_is_in_it(node: Node) -> None:
    for verbose in ("", " verbose"):
        said = run(node, f"show configuration ipsec all-contexts{verbose}")
        assert "ipsec access-list economical-traffic" in said
        assert "ipsec security-association circuit-keys" in said
        for other in ("hostname", "interface ", "tunnel ipsec ", "port ", "ike policy", "! **", "\nend"):
            assert other not in said


def test_a_filter_and_json_work_on_real_answers(node: Node) -> None:
    assert run(node, "show tunnel ipsec | include economical").count("\n") == 1
    assert '"name": "economical"' in run(node, "show tunnel ipsec name economical | json")
    assert '"name": "circuit"' not in run(node, "show tunnel ipsec name economical | json")


@pytest.mark.behaviour("B-192")
def test_tunnels_are_chosen_by_name_by_remote_end_and_by_kind(node: Node) -> None:
    assert "economical" not in run(node, "show tunnel ipsec name circuit")
    assert "circuit " not in run(node, "show tunnel ipsec remote 20.0.0.2")
    said = run(node, "show tunnel ipsec on-demand")
    assert "callers " in said
    assert said.endswith("Tunnels: 1, up: 0, down: 1\n")
    assert run(node, "show tunnel ipsec name none") == "% Error: no tunnel 'none'\n"


@pytest.mark.behaviour("B-190")
def test_card_limits_the_answer_to_what_tunnels_of_an_asp_use(node: Node) -> None:
    line = "show ipsec card {} security-association"
    assert "circuit-keys" in run(node, line.format("1/1"))
    assert "economical-keys" not in run(node, line.format("1/1"))
    assert "economical-keys" in run(node, line.format("1/2"))
    assert "circuit-keys" not in run(node, "show ipsec security-association economical-keys")
    lists = "show ipsec card {} access-list"
    assert "economical-traffic" in run(node, lists.format("1/2"), context="lan")
    assert run(node, lists.format("1/1"), context="lan") == ""
    assert run(node, lists.format("1/2"), context="wan") == ""
    assert run(node, line.format("1/1") + " economical-keys").startswith("% Error: no security association")
    assert run(node, "show ike card 1/1 policy", context="lan") == ""
    assert run(node, line.format("2/1")) == "% Error: no asp 2/1\n"
