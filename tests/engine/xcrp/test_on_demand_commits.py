"""What commits do to the peers of on-demand tunnels: those that stand on nothing that is gone stay."""

from __future__ import annotations

import pytest

from chassis.bus.records import PolicyRecord, TunnelHopRecord
from tests.engine.xcrp.test_plan_changes import check
from tests.support.on_demand import ASP, HUB, Hub, hub

AAA = HUB.replace("pre-shared-key s3cret-of-the-test", "pre-shared-key use-aaa")


def with_two(text: str = HUB) -> tuple[Hub, dict[str, int]]:
    node = hub(text)
    node.comes_up(node.admit("one.example", "50.0.0.1"), "10.2.0.0/24")
    node.comes_up(node.admit("two.example", "50.0.0.2"), "10.3.0.0/24")
    return node, node.instances()


STAYS = [
    ("system hostname b\n", "something else"),
    ("context inner\n interface other loopback\n  ip address 9.9.9.9/32\n", "another interface"),
    ("context inner\n ip route 77.0.0.0/8 10.1.0.9\n", "a route"),
    ("context inner\n ipsec profile T\n  seq 20 ipsec-policy ipsec-pol\n", "its profile, for later peers"),
    ("context inner\n ipsec profile T\n  mtu 1200\n", "MTU of its profile"),
    ("context inner\n ipsec profile T\n  no seq 10\n", "its profile names nothing now"),
    ("context inner\n no ipsec profile T\n", "no profile"),
    ("ipsec policy ipsec-pol\n anti-replay-window 128\n", "its policy, for later SAs"),
    ("tunnel ipsec T\n max-tunnels 1\n", "a limit"),
    ("tunnel ipsec T\n remote-id *.other\n", "the identity of later peers"),
    ("tunnel ipsec other on-demand\n peer-end-point local 40.0.0.1 context outer\n", "another tunnel"),
    ("context outer\n ike policy pol\n  connection-type responder-only\n", "its IKE policy, for later SAs"),
]


@pytest.mark.parametrize(("lines", "what"), STAYS, ids=[what for _, what in STAYS])
def test_it_stays(lines: str, what: str) -> None:
    node, before = with_two()
    records = {number: node.record(number) for number in before.values()}
    result = node.ask("commit", lines=lines, base=-1, user="x")
    assert result["applied"], result
    node.run(0.1)
    assert node.instances() == node.instances("lc 3") == before
    assert node.tunnel("T")["instances_up"] == 2
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T (one.example)"]
    for number, record in records.items():
        assert node.record(number).config.entries == record.config.entries
        assert node.record(number).config.mtu == record.config.mtu
    held = node.cards[ASP].replica.records
    assert isinstance(held["ipsec-policy", "ipsec-pol"], PolicyRecord)
    assert ("acl", node.on_demand().context, "acl") in held
    check(node)


def test_later_peers_have_what_the_profile_says_now() -> None:
    node, before = with_two()
    node.ask("commit", lines="context inner\n ipsec profile T\n  mtu 1200\n  df-bit set\n", base=-1, user="x")
    later = node.record(node.admit("three.example", "50.0.0.3"))
    assert (later.config.mtu, later.config.df_bit) == (1200, "set")
    assert {node.record(number).config.mtu for number in before.values()} == {None}


OTHER_POLICY = "context outer\n ike policy pol2\n  pre-shared-key x\n  seq 1 proposal ike-p\n"
OTHER_INTERFACE = "context inner\n interface TJ ipsec multibind\n  ip unnumbered lan\n"
OTHER_END = "context outer\n interface two loopback\n  ip address 40.9.0.1/32\n"
ENDS = [
    ("tunnel ipsec T\n shutdown\n", "shutdown"),
    ("no tunnel ipsec T\n", "on-demand tunnel removed"),
    ("context inner\n no ipsec access-list acl\n", "access list: acl"),
    ("no ipsec policy ipsec-pol\n", "IPsec policy: ipsec-pol"),
    ("context outer\n no ike policy pol\n", "IKE policy: no pol in context outer"),
    ("context inner\n no interface TI\n", "no interface binding"),
    ("context outer\n no asp-group\n", "no Security service"),
    ("tunnel ipsec T\n no ike-policy\n", "IKE policy"),
    (OTHER_POLICY + "tunnel ipsec T\n ike-policy pol2\n", "IKE policy changed"),
    (OTHER_INTERFACE + "tunnel ipsec T\n bind interface TJ inner\n", "bound to another interface"),
    (OTHER_END + "tunnel ipsec T\n peer-end-point local 40.9.0.1 context outer\n", "local end point changed"),
    ("no tunnel ipsec T\ntunnel ipsec T manual\n", "on-demand tunnel removed"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "why"), ENDS, ids=[f"{at} {why}" for at, (_, why) in enumerate(ENDS)])
def test_it_ends(lines: str, why: str) -> None:
    node, _ = with_two()
    result = node.ask("commit", lines=lines, base=-1, user="x")
    assert result["applied"], result
    node.run(0.1)
    assert not node.instances("lc 3")
    assert not node.instances()
    assert not node.circuits("lc 3")
    assert f"tunnel T: 2 peers ended: {why}" in node.events()
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []
    check(node)


def test_a_change_of_pools_is_a_plan_from_nothing_and_ends_nobody() -> None:
    node, before = with_two()
    node.ask("commit", lines="asp pool Q service security\n asp 2/2\n", base=-1, user="x")
    node.run(0.3)
    assert node.instances() == node.instances("lc 3") == before
    assert node.tunnel("T")["instances_up"] == 2
    check(node)
    node.ask("commit", lines="asp pool P service security\n no asp 2/1\n asp 2/2\n", base=-1, user="x")
    node.run(0.3)
    assert not node.instances("lc 3")
    assert "tunnel T: 2 peers ended: moved to asp 2/2" in node.events()


def test_the_same_text_read_anew_changes_nothing() -> None:
    node, before = with_two()
    changes = len(node.cards["lc 3"].changes)
    node.ask("apply", text=HUB)
    node.run(0.2)
    assert node.instances() == before
    for change in node.cards["lc 3"].changes[changes:]:
        assert not [one for one in (*change.put, *change.deleted) if isinstance(one, TunnelHopRecord)]
    check(node)


def test_where_aaa_may_name_a_profile_the_asp_has_all_of_the_context() -> None:
    more = (
        "  ipsec profile V\n    seq 10 ipsec-policy other access-group acl-2\n"
        "  ipsec access-list acl-2\n    seq 10 1.0.0.0/8 2.0.0.0/8\n"
    )
    policy = "ipsec policy other\n  seq 1 proposal ipsec-p\n"
    for text, there in ((HUB, False), (AAA, True)):
        node = hub(text.replace("  ipsec profile T\n", more + "  ipsec profile T\n") + policy)
        held = node.cards[ASP].replica.records
        assert (("ipsec-policy", "other") in held) == there
        assert (("acl", node.on_demand().context, "acl-2") in held) == there
