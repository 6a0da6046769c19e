"""On-demand tunnels at the controller: a peer is admitted, has a tunnel like any other, and is gone again."""

from __future__ import annotations

import pytest

from chassis.bus.records import CircuitRecord, InterfaceRecord, PolicyRecord
from chassis.net.address import parse_address
from tests.support.on_demand import ASP, HUB, Hub, hub

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


def warnings(node: Hub) -> list[str]:
    return [one["text"] for one in node.ask("log")["records"] if "no route to" in one["text"]]


@pytest.mark.behaviour("B-147", "B-164", "B-170")
@pytest.mark.parametrize("text", [HUB, ECONOMICAL])
def test_of_equal_networks_the_first_peer_has_it(text: str) -> None:
    node = hub(text)
    numbers = [node.admit(f"{at}.example", f"50.0.0.{at}") for at in range(3)]
    for number in reversed(numbers):
        node.comes_up(number, "10.2.0.0/24", f"10.3.{number}.0/24")
    assert node.hops("lc 3", "inner", "10.2.0.0/24")[0] == "T (2.example)"
    assert warnings(node) == [
        f"tunnel T ({at}.example): no route to 10.2.0.0/24: another tunnel has it, T (2.example)" for at in (1, 0)
    ]
    # What the first one negotiates besides does not cost it its place, and nothing is said again.
    node.comes_up(numbers[2], "10.2.0.0/24", "10.9.9.0/24")
    node.comes_up(numbers[0], "10.2.0.0/24")
    assert node.hops("lc 3", "inner", "10.2.0.0/24")[0] == "T (2.example)"
    assert len(warnings(node)) == 2
    node.goes(numbers[2])
    assert node.hops("lc 3", "inner", "10.2.0.0/24")[0] == "T (1.example)"
    node.loses_sas(numbers[1])
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == ["T (0.example)"]
    # It comes back behind the one that was there all the time.
    node.comes_up(numbers[1], "10.2.0.0/24")
    assert node.hops("lc 3", "inner", "10.2.0.0/24")[0] == "T (0.example)"
    node.goes(numbers[0])
    node.goes(numbers[1])
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []


def test_a_network_of_the_router_itself_gives_no_route() -> None:
    node = hub()
    number = node.admit("one.example")
    node.comes_up(number, "10.1.0.0/24", "10.1.0.128/25", "10.1.0.1/32", "10.0.0.0/8", "50.0.0.1/32", "0.0.0.0/0")
    assert node.tunnel_row(number)["networks"] == ["10.0.0.0/8", "50.0.0.1/32", "0.0.0.0/0"]
    assert node.hops("lc 3", "inner", "10.1.0.0/24") == ["3/1"]
    assert [text.partition(": ")[2] for text in warnings(node)] == [
        f"no route to {network}: it is connected to the router"
        for network in ("10.1.0.0/24", "10.1.0.128/25", "10.1.0.1/32")
    ]


def test_a_network_with_the_peer_in_it_gives_no_route_where_the_peer_is() -> None:
    text = HUB.replace(
        "  interface wan\n", "  interface TO ipsec multibind\n    ip unnumbered wan\n  interface wan\n"
    )
    text = text.replace(
        "context outer\n", "context outer\n  ipsec profile T\n    seq 1 ipsec-policy ipsec-pol\n", 1
    )
    node = hub(text.replace("bind interface TI inner", "bind interface TO outer"))
    number = node.admit("one.example", "50.0.0.1")
    node.comes_up(number, "50.0.0.1/32", "50.0.0.0/24", "0.0.0.0/0", "48.0.0.0/16", "10.2.0.0/24")
    assert node.tunnel_row(number)["networks"] == ["48.0.0.0/16", "10.2.0.0/24"]
    assert node.hops("lc 3", "outer", "0.0.0.0/0") == ["3/11"]
    assert len(warnings(node)) == 3
    assert node.record(number).up


def test_a_flood_of_networks_is_a_few_lines() -> None:
    node = hub()
    first, second = node.admit("one.example", "50.0.0.1"), node.admit("two.example", "50.0.0.2")
    networks = [f"10.2.{at}.0/24" for at in range(250)]
    node.comes_up(first, *networks)
    node.comes_up(second, *networks)
    assert len(warnings(node)) == 5
    assert warnings(node)[-1] == "tunnel T (two.example): no route to 246 more networks"


def test_its_interface_is_up_while_a_peer_is() -> None:
    node = hub()

    def state() -> str:
        rows = node.ask("interfaces", context="inner")["interfaces"]
        return str(next(row["state"] for row in rows if row["interface"] == "TI"))

    assert state() == "down"
    number = node.admit("one.example")
    node.comes_up(number)
    assert state() == "up"
    assert not [row for row in node.ask("alarms")["alarms"] if "tunnel" in row["object"]]
    node.loses_sas(number)
    assert state() == "down"
    assert not [row for row in node.ask("alarms")["alarms"] if "tunnel" in row["object"]]


def test_a_request_about_an_on_demand_tunnel_goes_to_its_peers() -> None:
    node = hub()
    with pytest.raises(LookupError, match="tunnel T: no peer"):
        node.ask("clear", tunnel="T")
    numbers = [node.admit(f"{at}.example", f"50.0.0.{at}") for at in range(3)]
    assert node.ask("clear", tunnel="T", what="ike") == {"cards": {ASP: {"asked": "clear"}}, "errors": {}}
    assert [request.arguments for request in node.asp.requests] == [
        {"tunnel": number, "what": "ike"} for number in numbers
    ]


def test_the_router_says_what_it_says_itself_from_the_address_that_is_borrowed() -> None:
    node = hub()
    inner = node.on_demand().context
    record = node.cards["lc 3"].replica.records["interface", inner, "TI"]
    assert isinstance(record, InterfaceRecord)
    assert (record.kind, record.address, record.tunnel) == ("multibind", parse_address("10.1.0.1"), 0)
    node.ask("commit", lines="context inner\n interface lan\n  ip address 10.1.0.2/24\n", base=-1, user="x")
    record = node.cards["lc 3"].replica.records["interface", inner, "TI"]
    assert isinstance(record, InterfaceRecord)
    assert record.address == parse_address("10.1.0.2")
