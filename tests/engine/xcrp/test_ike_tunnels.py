"""Negotiated tunnels at the controller: what each needs, who gets its policies, up and down, SAs, selectors."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToController
from chassis.bus.messages import LogRecord, SaEvent, SaReport, TunnelEvent
from chassis.bus.records import CertificateRecord, ContextRecord, PolicyRecord, TunnelRecord
from chassis.model.ike import IkeProposal, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal
from chassis.model.source import as_carried
from chassis.net.address import parse_address
from chassis.xcrp.flash import FlashFile
from chassis.xcrp.tunnels import ControllerTunnel, TunnelStatus
from tests.support.xcrp import FakeAsp, Node
from tests.support.xcrp_ike import PORTS, STATIC, flash

PEER = parse_address("40.0.0.2")
NETWORK = parse_address("10.2.0.0")
ASP = "asp 2/1"


def booted(text: str = STATIC, files: tuple[FlashFile, ...] = (), **settings: object) -> Node:
    node = Node(text, flash=files, settings=settings)
    node.boot_all(*PORTS)
    return node


def number(node: Node, name: str = "T") -> int:
    assert node.controller is not None
    return node.controller.node.plan.by_name[name]


def record(node: Node, name: str = "T") -> TunnelRecord:
    found = node.cards[ASP].replica.records["tunnel", number(node, name)]
    assert isinstance(found, TunnelRecord)
    return found


def say(
    node: Node, up: bool, reason: str = "", *, selectors: tuple[int, ...] = (), sas: tuple[SaReport, ...] = ()
) -> None:
    event = TunnelEvent(number(node), up, reason, PEER, "b.example" if up else "", sas, selectors)
    node.card_does(ASP, [ToController(event)])
    node.run(0.01)


def sa(node: Node, serial: int, direction: str = "out") -> SaReport:
    return SaReport(number(node), serial, direction, "esp", 1000 + serial, PEER, "aes-128-cbc hmac-sha1-96", 64)


RSA = STATIC.replace("  dh-group 2\nipsec", "  dh-group 2\n  authentication rsa-signature\nipsec", 1)
V2 = STATIC.replace("ike policy pol", "ike2 policy pol").replace("ike proposal ike-p", "ike2 proposal ike-p")
V2_RSA = V2.replace("    pre-shared-key s3cret-of-the-test\n", "    authentication rsa-signature\n")

CONDITIONS = [
    ("  bind interface TI inner\n", "  bind interface TI inner\n  shutdown\n", "shutdown"),
    ("  bind interface TI inner\n", "", "no interface binding"),
    ("local 40.0.0.1 remote", "local 40.0.0.9 remote", "end point not configured"),
    ("  asp-group G service security\n", "", "no Security service"),
    ("  ike-policy pol\n", "", "IKE policy"),
    ("  ike-policy pol\n", "  ike-policy po1\n", "IKE policy: no po1 in context outer"),
    ("    seq 1 proposal ike-p\n", "", "IKE proposal: policy pol names none"),
    ("    seq 1 proposal ike-p\n", "    seq 1 proposal x\n", "IKE proposal: none of policy pol is there (x)"),
    ("    pre-shared-key s3cret-of-the-test\n", "", "pre-shared key: policy pol has none"),
    ("pre-shared-key s3cret-of-the-test", "pre-shared-key use-aaa",
        "AAA: policy pol has its pre-shared key from AAA"),
    ("  seq 10 ipsec-policy ipsec-pol access-group acl\n", "", "IPsec policy"),
    ("ipsec-policy ipsec-pol access", "ipsec-policy nope access", "IPsec policy: nope"),
    ("  seq 1 proposal ipsec-p\n", "", "IPsec proposal: policy ipsec-pol names none"),
    ("seq 1 proposal ipsec-p\n", "seq 1 proposal y\n", "IPsec proposal: none of policy ipsec-pol is there (y)"),
    ("access-group acl\n", "access-group nope\n", "access list: nope"),
    ("remote 40.0.0.2", "remote 40.1.0.2", "no route to the peer"),
]  # fmt: skip


@pytest.mark.behaviour("B-017", "B-024", "B-041", "B-092", "B-150")
@pytest.mark.parametrize(("old", "new", "reason"), CONDITIONS)
def test_one_missing_thing_is_the_reason(old: str, new: str, reason: str) -> None:
    assert old in STATIC
    node = booted(STATIC.replace(old, new))
    row = node.tunnel("T")
    assert (row["up"], row["reason"]) == (False, reason)
    made = [one for one in node.cards[ASP].replica.records.values() if isinstance(one, TunnelRecord)]
    # Only a way to the peer comes and goes by itself: its SAs live on.
    assert [(one.up, one.wanted) for one in made if one.asp] in ([], [(False, reason == "no route to the peer")])


@pytest.mark.behaviour("B-052", "B-053")
@pytest.mark.parametrize("text", [RSA, V2_RSA])
def test_signatures_need_the_whole_store(text: str) -> None:
    assert booted(text).tunnel("T")["reason"] == "certificate: context outer has no trusted certificate"
    lacks = "certificate: certificate a of context outer has no key"
    assert booted(text, flash()[1:]).tunnel("T")["reason"] == lacks
    assert booted(text, flash("inner")).tunnel("T")["reason"].startswith("certificate: context outer")
    assert booted(text, flash()).tunnel("T")["reason"] == "IKE: not negotiated yet"


@pytest.mark.behaviour("B-054")
def test_a_bad_file_is_an_event_with_its_name() -> None:
    node = booted(RSA, (FlashFile("pki/outer/self/a.pem", b"not this"), *flash()[::2]))
    assert "flash pki/outer/self/a.pem: is not a readable PEM certificate" in node.events()
    assert node.tunnel("T")["reason"] == "certificate: context outer has no certificate of its own"


def test_a_store_that_was_filled_counts_with_the_next_commit() -> None:
    node = booted(RSA)
    assert node.controller is not None
    node.perform(node.controller.on_flash_changed(flash(), node.now))
    assert node.tunnel("T")["reason"].startswith("certificate")
    node.ask("apply", text=RSA)
    assert node.tunnel("T")["reason"] == "IKE: not negotiated yet"
    kept = [one for one in node.cards[ASP].replica.records.values() if isinstance(one, CertificateRecord)]
    assert {(one.kind, one.name) for one in kept} == {("key", "a"), ("self", "a"), ("trusted", "ca")}


def test_an_asp_gets_what_it_negotiates_with() -> None:
    node = booted(V2.replace("ike keepalive", "ike keepalive\n  ike2 policy other\n    pre-shared-key x"))
    assert node.controller is not None
    outer = node.controller.node.plan.contexts["outer"]
    held = node.cards[ASP].replica.records
    config = node.controller.node.plan.config
    policy = config.contexts["outer"].ike_policies["pol"]
    assert policy.psk == b"s3cret-of-the-test"
    assert held["ike-policy", outer, "pol"] == PolicyRecord(outer, as_carried(policy))
    assert held["ike-proposal", "ike-p"] == PolicyRecord(0, IkeProposal("ike-p", 2, dh_group=2))
    assert held["ipsec-policy", "ipsec-pol"] == PolicyRecord(
        0, IpsecPolicy("ipsec-pol", pfs_group=2, proposals=(ProposalRef(1, "ipsec-p"),))
    )
    assert held["ipsec-proposal", "ipsec-p"] == PolicyRecord(0, IpsecProposal("ipsec-p"))
    assert ("ike-policy", outer, "other") not in held
    context = held["context", outer]
    assert isinstance(context, ContextRecord)
    assert context.keepalive
    made = record(node)
    assert (made.config.kind, made.config.ike_policy, made.config.remote_id, made.wanted, made.up) == (
        "static", "pol", "b.example", True, True,
    )  # fmt: skip
    assert made.config.entries[0].policy == "ipsec-pol"


def test_keys_go_to_the_tunnels_asp_alone() -> None:
    node = booted(V2_RSA, flash())
    secret = (PolicyRecord, CertificateRecord)
    for name, card in node.cards.items():
        held = [one for one in card.replica.records.values() if isinstance(one, secret)]
        assert bool(held) == (name == ASP), name


def test_a_peer_may_sign_where_we_do_not() -> None:
    """Version 2 lets each end prove itself its own way: the trusted certificates go to the ASP, no key does."""
    held = booted(V2, flash()).cards[ASP].replica.records.values()
    assert [one.kind for one in held if isinstance(one, CertificateRecord)] == ["trusted"]
    held = booted(STATIC, flash()).cards[ASP].replica.records.values()
    assert not [one for one in held if isinstance(one, CertificateRecord)]


@pytest.mark.behaviour("B-208")
def test_up_and_down_as_the_asp_says() -> None:
    node = booted()
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []
    say(node, False, "no answer from 40.0.0.2")
    assert node.tunnel("T")["reason"] == "IKE: no answer from 40.0.0.2"
    say(node, True, sas=(sa(node, 1, "in"), sa(node, 1)))
    row = node.tunnel("T")
    assert (row["up"], row["reason"], row["identity"], row["ike_version"]) == (True, "", "b.example", 1)
    assert {(one["serial"], one["direction"]) for one in row["sas"]} == {(1, "in"), (1, "out")}
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T"]
    say(node, False, "IKE: dead peer")
    row = node.tunnel("T")
    assert (row["up"], row["reason"], row["sas"]) == (False, "IKE: dead peer", [])
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []


def test_sas_are_known_from_what_asps_say() -> None:
    node = booted()
    say(node, True, sas=(sa(node, 1),))
    node.card_does(ASP, [ToController(SaEvent(sa(node, 2), "installed"))])
    node.card_does(ASP, [ToController(SaEvent(sa(node, 1), "rekeyed", "by 2"))])
    assert {one["serial"]: one["event"] for one in node.tunnel("T")["sas"]} == {1: "rekeyed", 2: "installed"}
    node.card_does(ASP, [ToController(SaEvent(sa(node, 1), "deleted"))])
    assert [one["serial"] for one in node.tunnel("T")["sas"]] == [2]
    for serial in range(3, 600):
        node.card_does(ASP, [ToController(SaEvent(sa(node, serial), "installed"))])
    kept = [one["serial"] for one in node.tunnel("T")["sas"]]
    assert len(kept) == 128
    assert kept[-1] == 599
    node.kill_card(ASP)
    node.run(1.0)
    row = node.tunnel("T")
    assert (row["up"], row["reason"], row["sas"]) == (False, "ASP: asp 2/1 is down", [])


SELECTED = STATIC.replace("  remote-id b.example\n", "  ip route traffic-selector-guided\n")


@pytest.mark.behaviour("B-023", "B-147")
def test_the_peers_networks_become_routes_while_the_tunnel_is_up() -> None:
    node = booted(SELECTED.replace("  ip route 10.2.0.0/24 TI\n", ""))
    say(node, True, selectors=(NETWORK, 24, PEER, 32))
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T"]
    assert node.hops("lc 3", "inner", "40.0.0.2/32") == ["T"]
    assert node.tunnel("T")["networks"] == ["10.2.0.0/24", "40.0.0.2/32"]
    say(node, True, selectors=(NETWORK, 25))
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == ["T"]
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []
    say(node, False, "dead peer")
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == []
    say(node, True, selectors=(NETWORK, 25))
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == ["T"]
    node.ask("apply", text=STATIC)
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == []
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T"]


@pytest.mark.behaviour("B-149")
def test_without_the_line_there_are_no_such_routes() -> None:
    node = booted(STATIC.replace("  ip route 10.2.0.0/24 TI\n", ""))
    say(node, True, selectors=(NETWORK, 24))
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []


def test_nonsense_for_networks_makes_no_route() -> None:
    node = booted(SELECTED)
    say(node, True, selectors=(NETWORK, 33, -1, 8, 1 << 32, 8, NETWORK))
    assert node.tunnel("T")["networks"] == []


def test_a_lab_may_have_discard_routes_in_place_of_withdrawn_ones() -> None:
    node = booted(SELECTED, **{"discard-tunnel-routes": True})
    say(node, True, selectors=(NETWORK, 25))
    say(node, False, "dead peer")
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == ["discard"]


def test_a_controller_that_starts_again_takes_over_what_is_up() -> None:
    node = booted(SELECTED)
    say(node, True, selectors=(NETWORK, 25))
    asp = node.cards[ASP]
    assert isinstance(asp, FakeAsp)
    asp.up_tunnels.add(number(node))
    node.kill_controller()
    node.start()
    # Before the window is over the ASP says once more what it said before.
    event = TunnelEvent(number_of(asp), True, "", PEER, "b.example", (), (NETWORK, 25))
    node.card_does(ASP, [ToController(event)])
    node.run(0.5)
    assert node.tunnel("T")["up"]
    assert node.hops("lc 3", "inner", "10.2.0.0/25") == ["T"]


def number_of(asp: FakeAsp) -> int:
    return next(one.number for one in asp.replica.records.values() if isinstance(one, TunnelRecord))


def test_log_lines_say_which_card_they_are_from() -> None:
    node = booted()
    values = {"tunnel": "T", "context": "outer", "peer": "40.0.0.2", "asp": ASP}
    line = LogRecord(node.now, "error", "ike", "ikev1-p1-timeout", "no answer", dict(values))
    node.card_does(ASP, [ToController(line)])
    (found,) = [one for one in node.ask("log")["records"] if one["facility"] == "ike"]
    assert found["values"] == {"card": ASP, **values}


def test_commands_reach_the_tunnels_asp() -> None:
    node = booted()
    asp = node.cards[ASP]
    assert isinstance(asp, FakeAsp)
    for command, arguments in (
        ("clear", {"tunnel": "T"}),
        ("clear", {"tunnel": "T", "what": "ike"}),
        ("clear", {}),
        ("rekey", {"tunnel": "T"}),
        ("rekey", {"tunnel": "T", "what": "ike"}),
        ("ike", {}),
        ("ike", {"tunnel": "T", "what": "statistics"}),
        ("keys", {"tunnel": "T"}),
    ):
        assert node.ask(command, **arguments) == {"cards": {ASP: {"asked": _request(command)}}, "errors": {}}
    one = number(node)
    assert [(request.name, request.arguments) for request in asp.requests] == [
        ("clear", {"tunnel": one, "what": "all"}),
        ("clear", {"tunnel": one, "what": "ike"}),
        ("clear", {"what": "all"}),
        ("rekey", {"tunnel": one, "what": "ipsec"}),
        ("rekey", {"tunnel": one, "what": "ike"}),
        ("ike", {"what": "sas"}),
        ("ike", {"tunnel": one, "what": "statistics"}),
        ("ike", {"tunnel": one, "what": "keys"}),
    ]


def _request(command: str) -> str:
    return "ike" if command == "keys" else command


@pytest.mark.parametrize(("command", "arguments", "error"), [
    ("clear", {"tunnel": "X"}, "clear: no tunnel 'X'; there are: T"),
    ("rekey", {}, "rekey: argument 'tunnel' is missing"),
    ("rekey", {"tunnel": "T", "what": "it"}, "rekey: argument 'what' is 'it', not one of ipsec, ike"),
    ("ike", {"what": "keys"}, "ike: argument 'what' is 'keys', not one of sas, statistics"),
])  # fmt: skip
def test_commands_that_make_no_sense(command: str, arguments: dict[str, str], error: str) -> None:
    with pytest.raises(LookupError, match=error):
        booted().ask(command, **arguments)


def test_the_reason_of_every_state() -> None:
    state = ControllerTunnel(negotiated=True)
    state.set_conditions(True, 0.0)
    assert (state.status, state.reason(ASP, True)) == (TunnelStatus.WAITING, "IKE: not negotiated yet")
    state.asp_reason = "no answer"
    assert state.reason(ASP, True) == "IKE: no answer"
    assert state.reason(ASP, False) == "ASP: asp 2/1 is down"
    state.set_sas(True, 1.0)
    assert state.reason(ASP, True) == ""
