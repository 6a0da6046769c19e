"""On-demand tunnels at the controller: a peer is admitted, has a tunnel like any other, and is gone again."""

from __future__ import annotations

import pytest

from chassis.bus.records import CircuitRecord, PolicyRecord
from chassis.net.address import parse_address
from tests.support.on_demand import ASP, HUB, hub

ECONOMICAL = HUB.replace("tunnel ipsec T on-demand\n", "tunnel ipsec T on-demand economical\n")


@pytest.mark.behaviour("B-155", "B-158", "B-164", "B-181")
@pytest.mark.parametrize("text", [HUB, ECONOMICAL])
def test_a_peer_comes_and_goes(text: str) -> None:
    node = hub(text.replace("ipsec profile T\n", "ipsec profile T\n    df-bit set\n    mtu 1300\n"))
    assert node.on_demand().wanted
    assert (node.tunnel("T")["up"], node.tunnel("T")["reason"]) == (False, "no peer")
    assert not node.instances()

    number = node.admit("one.example", "50.0.0.1")
    for card in ("lc 3", ASP):
        assert node.instances(card) == {"one.example": number}
    record = node.record(number)
    config = record.config
    assert (config.kind, config.name, config.remote, config.remote_id) == (
        "on-demand", "T", "50.0.0.1", "one.example",
    )  # fmt: skip
    assert (config.df_bit, config.mtu, [entry.policy for entry in config.entries]) == ("set", 1300, ["ipsec-pol"])
    assert (record.asp, record.remote, record.up) == (ASP, parse_address("50.0.0.1"), True)
    circuit = node.circuits("lc 3").get(number, 0)
    assert circuit == record.circuit
    assert bool(circuit) != config.economical

    node.comes_up(number, "10.2.0.0/24")
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T (one.example)"]
    assert node.tunnel("T")["up"]
    assert node.events()[-1] == "tunnel T (one.example) up"

    node.goes(number)
    for card in node.cards.values():
        assert ("tunnel", number) not in card.replica.records
        assert not [r for r in card.replica.records.values() if isinstance(r, CircuitRecord) and r.tunnel]
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []
    assert node.tunnel("T")["reason"] == "no peer"
    assert node.events()[-1] == "tunnel T (one.example) ended: dead peer"


@pytest.mark.behaviour("B-177", "B-179")
def test_the_asp_has_what_an_instance_needs_before_there_is_one() -> None:
    node = hub()
    held = {key for key, record in node.asp.replica.records.items() if isinstance(record, PolicyRecord)}
    inner = node.on_demand().context
    assert {("ipsec-policy", "ipsec-pol"), ("ipsec-proposal", "ipsec-p"), ("acl", inner, "acl")} <= held
    assert not [r for r in node.cards["lc 3"].replica.records.values() if isinstance(r, PolicyRecord)]


CONDITIONS = [
    ("  ip route traffic", "  shutdown\n  ip route traffic", "shutdown"),
    ("  bind interface TI inner\n", "", "no interface binding"),
    (
        "  interface TI ipsec multibind\n    ip unnumbered lan\n",
        "  interface TI\n",
        "interface: TI is not multibind",
    ),
    ("    ip unnumbered lan\n", "", "interface: TI borrows no address"),
    ("    ip unnumbered lan\n", "    ip unnumbered other\n", "interface: TI borrows no address"),
    ("local 40.0.0.1", "local 40.0.0.9", "end point not configured"),
    ("  asp-group G service security\n", "", "no Security service"),
    ("  ike-policy pol\n", "", "IKE policy"),
    ("    seq 1 proposal ike-p\n", "", "IKE proposal: policy pol names none"),
    ("    pre-shared-key s3cret-of-the-test\n", "", "pre-shared key: policy pol has none"),
    ("pre-shared-key s3cret-of-the-test", "pre-shared-key use-aaa", ""),
    ("  ipsec profile T\n    seq 10 ipsec-policy ipsec-pol access-group acl\n", "", ""),
]


@pytest.mark.behaviour("B-174", "B-178")
@pytest.mark.parametrize(("old", "new", "reason"), CONDITIONS)
def test_one_missing_thing_is_the_reason(old: str, new: str, reason: str) -> None:
    """Without a profile the tunnel waits for peers: RADIUS may name one."""
    assert old in HUB
    node = hub(HUB.replace(old, new))
    assert node.tunnel("T")["reason"] == (reason or "no peer")
    if reason != "no Security service" and "local" not in old:
        record = node.on_demand()
        assert (record.wanted, record.reason) == (not reason, reason)
