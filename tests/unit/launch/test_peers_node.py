"""A node of peers in a lab file: what is wrong is said with its line and column, and no key is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis.config.parser import parse
from launch.lab.parser import load
from launch.lab.yaml_source import LabError
from launch.main import main

NODE = """\
name: peers
topology:
  nodes:
    p:
      kind: peers
      ports: {"1": {address: 10.1.0.1/24, gateway: 10.1.0.2}}
      peers: 500
      first-address: 10.9.0.1
      towards: 10.3.0.1
      version: both
      identity: "p{number}.example"
      pre-shared-key: a-secret-key
      first-network: 10.96.0.0/30
      remote-network: 10.0.0.0/16
      ike-proposal: {dh-group: 2}
      rate: 100/s
      at-once: 20
"""


def parsed(folder: Path, text: str) -> str:
    path = folder / "lab.yaml"
    path.write_text(text)
    try:
        load(path)
    except LabError as error:
        return str(error)
    return ""


def test_a_right_one_has_no_error(tmp_path: Path) -> None:
    assert parsed(tmp_path, NODE) == ""
    node = load(tmp_path / "lab.yaml")[0].peers()[0]
    assert node.values["peers"] == 500
    assert "a-secret-key" not in repr(node)


@pytest.mark.parametrize(("old", "new", "place", "said"), [
    ("peers: 500", "peers: 0", "7:14", "1 to 32000"),
    ("10.9.0.1", "10.9.0", "8:22", "IPv4 address"),
    ("towards: 10.3.0.1", "towards: 10.9.0.9", "9:16", "address of a peer"),
    ("version: both", "version: 3", "10:16", "1, 2 or both"),
    ("p{number}.example", "p.example", "11:17", "the same for all peers"),
    ("10.96.0.0/30", "10.96.0.1/30", "13:22", "is a network"),
    ("dh-group: 2", "dh-group: 77", "15:32", "is one of"),
    ("dh-group: 2", "group: 2", "15:22", "unknown key"),
    ("towards: 10.3.0.1", "towards: [10.3.0.1, here]", "9:16", "IPv4 address"),
    ("towards: 10.3.0.1", "towards: []", "9:16", "a list of 1 to 64"),
    ("version: both", "mode: quick", "10:13", "main or aggressive"),
    ("rate: 100/s", "nat: 99999", "16:12", "0 to 27768"),
    ("rate: 100/s", "traffic: {peers: 2}", "16:16", "needs 'to'"),
    ("rate: 100/s", "traffic: {to: 10.0.0.1, size: 9}", "16:37", "64 to 1400"),
    ("rate: 100/s", "rate: fast", "16:13", "peers a second"),
    ("rate: 100/s", "certificate: none.pem", "16:20", "cannot be read"),
    ("      pre-shared-key: a-secret-key\n", "", "4:5", "need 'pre-shared-key:', or 'certificate:'"),
    ("at-once: 20", "at-once: 0", "17:16", "1 to 32000"),
    ("      towards: 10.3.0.1\n", "", "4:5", "need 'towards:'"),
    ("a-secret-key", '"a-secret-key\\0"', "12:23", "not allowed"),
])  # fmt: skip
def test_an_error_is_said_where_it_is(tmp_path: Path, old: str, new: str, place: str, said: str) -> None:
    told = parsed(tmp_path, NODE.replace(old, new))
    assert f"lab.yaml:{place}" in told
    assert said in told
    assert "secret" not in told


def test_a_gateway_has_a_tunnel_for_each_peer(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(NODE.replace("peers: 500", "peers: 6"))
    told = CliRunner().invoke(main, ["gateway-config", str(path), "--outer", "isp", "--forwarding", "economical"])
    assert told.exit_code == 0, told.output
    assert told.stdout.count(" economical\n") == 6
    assert "  peer-end-point local 10.3.0.1 remote 10.9.0.6 context isp\n" in told.stdout
    found = parse(f"context isp\ncontext private\n{told.stdout}").diagnostics
    # Only what the rest of the configuration has is missing: the gateway's address and the ASPs.
    assert {one.code for one in found} == {"S-105", "S-106"}

    path.write_text(NODE.replace("peers: 500", "peers: 6\n      nat: 3"))
    told = CliRunner().invoke(main, ["gateway-config", str(path)])
    assert told.exit_code == 1
    assert "behind NAT" in told.output

    path.write_text("name: none\ntopology: {nodes: {t: {kind: tester, ports: {'1': {address: 10.0.0.1/24}}}}}\n")
    told = CliRunner().invoke(main, ["gateway-config", str(path)])
    assert told.exit_code == 1
    assert "no node is of kind peers" in told.output
