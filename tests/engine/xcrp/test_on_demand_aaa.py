"""AAA for peers of on-demand tunnels: keys, profiles and addresses from RADIUS, and the accounting of sessions."""

from __future__ import annotations

from typing import Any

import pytest
from pyrad.packet import AccountingRequest

from chassis.aaa.settings import ServerAddress
from chassis.net.address import parse_address
from tests.support.on_demand import ASP, HUB, Hub, hub
from tests.support.radius import MemoryServer, attributes_of

SERVER = ServerAddress("10.1.0.9", 1812, b"sesame")
BOOKS = ServerAddress("10.1.0.9", 1813, b"sesame")
GLOBAL = ServerAddress("10.77.0.9", 1812, b"of all")

AAA = HUB.replace("pre-shared-key s3cret-of-the-test", "pre-shared-key use-aaa").replace(
    "context inner\n",
    """context inner
  aaa authentication subscriber radius
  aaa accounting subscriber radius
  radius server 10.1.0.9 key sesame
  radius accounting server 10.1.0.9 key sesame
  radius timeout 1
  radius max-retries 1
  ip pool P 10.8.0.0/29
  ipsec profile other
    mtu 1234
    seq 10 ipsec-policy ipsec-pol access-group acl
""",
)
FALLBACK = (
    AAA.replace("aaa authentication subscriber radius\n", "aaa authentication subscriber radius global\n", 1)
    + """
context local
  interface management
    ip address 10.77.0.1/24
  radius server 10.77.0.9 key of-all
  radius timeout 1
  radius max-retries 1
port ethernet 3/2
  no shutdown
  bind interface management local
"""
)
ADDRESSES = AAA.replace("ike policy pol", "ike2 policy pol").replace("ike proposal ike-p", "ike2 proposal ike-p")
ADDRESSES = ADDRESSES.replace(
    "    mode aggressive\n", "    connection-type responder-only\n    address-allocation aaa\n"
)

KEY = {"Security-Service": "ike pre-shared-key secret1"}


def served(
    text: str = AAA, users: dict[str, dict[str, Any]] | None = None
) -> tuple[Hub, MemoryServer, MemoryServer]:
    """A hub, the server that knows these users, and the one that keeps the books."""
    node = hub(text)
    server, books = MemoryServer(SERVER, users or {"one.example": KEY}), MemoryServer(BOOKS)
    node.serve(server, books)
    return node, server, books


def booked(books: MemoryServer) -> list[dict[str, list[Any]]]:
    return [attributes_of(one) for one in books.requests if one.code == AccountingRequest]


def log(node: Hub) -> list[str]:
    return [one["text"] for one in node.ask("log")["records"] if "refused" in one["text"]]


@pytest.mark.behaviour("B-094", "B-095", "B-097", "B-102")
def test_the_key_and_the_profile_of_a_peer_come_from_the_context_of_the_interface() -> None:
    both = {"Security-Service": "ike pre-shared-key secret1; ipsec profile other"}
    node, server, _ = served(users={"one.example": both})
    key = node.ask_about("one.example", step="key")
    assert key is not None
    assert (key.error, key.key, key.tunnel) == ("", b"secret1", 0)
    asked = attributes_of(server.requests[0])
    assert asked["User-Name"] == ["one.example"]
    assert (asked["NAS-IP-Address"], asked["Calling-Station-Id"]) == (["10.1.0.1"], ["50.0.0.1"])
    number = node.admit("one.example", after=key.number)
    instance = node.record(number).instance
    assert instance is not None
    assert instance.profile == "other"
    assert node.record(number).config.mtu == 1234
    assert len(server.requests) == 1


@pytest.mark.behaviour("B-100")
def test_without_a_profile_from_radius_it_is_that_of_the_tunnels_name() -> None:
    node, _, _ = served()
    key = node.ask_about("one.example", step="key")
    assert key is not None
    instance = node.record(node.admit("one.example", after=key.number)).instance
    assert instance is not None
    assert instance.profile == "T"


def test_a_peer_that_needs_no_key_of_aaa_has_its_profile_from_there() -> None:
    """One with a certificate, where the policy says `use-aaa`."""
    node, server, _ = served(users={"one.example": {"Security-Service": "ipsec profile other"}})
    instance = node.record(node.admit("one.example")).instance
    assert instance is not None
    assert instance.profile == "other"
    assert node.refused("two.example", "50.0.0.2").startswith("AAA: ")
    assert len(server.requests) == 2


@pytest.mark.behaviour("B-101", "B-102")
def test_a_profile_that_radius_names_and_is_not_there_is_not_replaced() -> None:
    both = {"Security-Service": "ike pre-shared-key secret1; ipsec profile nope"}
    node, _, _ = served(users={"one.example": both})
    key = node.ask_about("one.example", step="key")
    assert key is not None
    answer = node.ask_about("one.example", after=key.number)
    assert answer is not None
    assert answer.error == "no IPsec profile nope, which RADIUS names, in context inner"


@pytest.mark.behaviour("B-093")
@pytest.mark.parametrize(("users", "why"), [
    ({}, ": rejected"),
    ({"one.example": {"Framed-IP-Address": "10.8.0.1"}}, " gives no preshared key"),
])  # fmt: skip
def test_no_key_no_tunnel(users: dict[str, dict[str, Any]], why: str) -> None:
    node = hub(AAA)
    node.serve(MemoryServer(SERVER, users))
    why = f"AAA: RADIUS server 10.1.0.9 port 1812 of context inner{why}"
    answer = node.ask_about("one.example", step="key")
    assert answer is not None
    assert (answer.error, answer.key) == (why, b"")
    assert log(node) == [f"tunnel T: peer one.example at 50.0.0.1 refused: {why}"]


@pytest.mark.behaviour("B-099")
def test_a_server_that_is_silent_brings_no_tunnel_up() -> None:
    node, server, _ = served()
    server.alive = False
    assert node.ask_about("one.example", step="key") is None
    node.run(5.0)
    (answer,) = node.asp.answers
    assert answer.error.startswith("AAA: ")
    assert not answer.key
    assert len(server.requests) == 2


@pytest.mark.behaviour("B-098")
def test_the_servers_of_context_local_are_asked_where_the_context_says_so() -> None:
    node = Hub(FALLBACK)
    node.boot_all("3/1", "3/2", "3/11")
    near, far = MemoryServer(SERVER, alive=False), MemoryServer(GLOBAL, {"one.example": KEY})
    far.address = ServerAddress("10.77.0.9", 1812, b"of-all")
    node.serve(near, far)
    assert node.ask_about("one.example", step="key") is None
    node.run(5.0)
    (answer,) = node.asp.answers
    assert (answer.error, answer.key) == ("", b"secret1")
    assert len(near.requests) == 2


def test_a_peer_that_is_gone_is_asked_about_no_longer() -> None:
    node, server, _ = served()
    server.alive = False
    assert node.ask_about("one.example", step="key") is None
    node.drops_question(1)
    server.alive = True
    node.run(5.0)
    assert len(server.requests) == 1
    assert not node.asp.answers


def test_what_aaa_said_of_a_key_counts_once_and_for_a_while() -> None:
    node, _, _ = served()
    key = node.ask_about("one.example", step="key")
    assert key is not None
    node.run(200.0)
    gone = "what AAA said of its key is gone"
    for after in (key.number, 77):
        answer = node.ask_about("one.example", after=after)
        assert answer is not None
        assert answer.error == gone
    # One that proved itself by a certificate has no key of AAA's.
    assert node.admit("one.example")


def test_strangers_fill_no_log() -> None:
    node, _, _ = served()
    for at in range(300):
        node.ask_about(f"nobody-{at}.example", f"51.0.{at >> 8}.{at & 255}", step="key")
    assert len(log(node)) == 20


@pytest.mark.behaviour("B-090")
def test_inner_addresses_come_from_radius_or_from_its_pool() -> None:
    fixed = {
        **KEY,
        "Framed-IP-Address": "10.8.7.6",
        "Framed-IP-Netmask": "255.255.255.0",
        "Client-DNS-Pri": "9.9.9.9",
    }
    pooled = {**KEY, "Framed-Pool": "P"}
    users = {"one.example": fixed, **{f"{at}.example": pooled for at in range(9)}, "twin.example": fixed}
    node, _, _ = served(ADDRESSES, users)

    def comes(name: str, at: int) -> tuple[str, int, str]:
        key = node.ask_about(f"{name}.example", f"50.0.1.{at}", step="key")
        assert key is not None
        answer = node.ask_about(f"{name}.example", f"50.0.1.{at}", after=key.number, wants_address=True)
        assert answer is not None
        return answer.error, answer.tunnel, address_of(answer.address)

    def address_of(address: int) -> str:
        return ".".join(str(part) for part in address.to_bytes(4))

    error, _, address = comes("one", 1)
    assert (error, address) == ("", "10.8.7.6")
    answer = node.asp.answers[-1]
    assert (answer.netmask, answer.dns) == (0xFFFFFF00, (parse_address("9.9.9.9"),))
    assert comes("twin", 2)[0] == "its address is another peer's"
    given = [comes(str(at), 10 + at) for at in range(6)]
    assert [address for _, _, address in given] == [f"10.8.0.{at}" for at in range(1, 7)]
    assert comes("7", 17)[0] == "pool P has no free address"
    # A peer that goes gives its address back; the same peer gets it again.
    node.goes(given[2][1])
    node.goes(given[4][1])
    assert comes("4", 99)[2] == "10.8.0.5"
    assert comes("7", 17)[2] == "10.8.0.3"
    # Its move leaves it its address.
    assert comes("one", 77)[2] == "10.8.7.6"
    # A new controller knows who has which.
    node.kill_controller()
    node.start()
    node.run(0.3)
    assert comes("8", 18)[0] == "pool P has no free address"
    assert comes("twin", 2)[0] == "its address is another peer's"
    row = next(one for one in node.ask("tunnels", detail=True)["tunnels"] if one.get("identity") == "one.example")
    assert (row["assigned"], row["pool"], row["profile"]) == ("10.8.7.6/24", "", "T")


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "127.0.0.1", "10.1.0.1"])
def test_an_address_that_no_peer_can_have_refuses_it(address: str) -> None:
    node, _, _ = served(ADDRESSES, {"one.example": {**KEY, "Framed-IP-Address": address}})
    for _ in range(2):
        key = node.ask_about("one.example", step="key")
        assert key is not None
        answer = node.ask_about("one.example", after=key.number, wants_address=True)
        assert answer is not None
        assert answer.error == f"AAA gives {address}, which no peer can have"


def one_session(node: Hub, **terms: Any) -> int:
    key = node.ask_about("one.example", step="key")
    assert key is not None
    number = node.admit("one.example", after=key.number)
    node.comes_up(number, "10.2.0.0/24")
    return number


def test_a_session_is_reported_from_its_start_to_its_end() -> None:
    terms = {**KEY, "Class": b"gold", "Acct-Interim-Interval": 60}
    node, _, books = served(users={"one.example": terms})
    number = one_session(node)
    start = booked(books)[0]
    session = start["Acct-Session-Id"]
    assert (start["Acct-Status-Type"], start["User-Name"], start["Class"]) == ([1], ["one.example"], [b"gold"])
    node.run(30.0)
    node.uses(number, 3, 300, 2, 200)
    node.run(31.0)
    update = booked(books)[1]
    assert (update["Acct-Status-Type"], update["Acct-Session-Id"]) == ([3], session)
    assert (update["Acct-Input-Packets"], update["Acct-Output-Octets"]) == ([3], [200])
    node.goes(number, "deleted by the peer")
    assert len(booked(books)) == 2
    # The last figures come with the end of the record.
    node.uses(number, 5, 500, 4, 400)
    stop = booked(books)[2]
    assert (stop["Acct-Status-Type"], stop["Acct-Session-Id"], stop["Acct-Terminate-Cause"]) == ([2], session, [1])
    assert (stop["Acct-Input-Octets"], stop["Acct-Output-Packets"]) == ([500], [4])
    assert stop["Acct-Session-Time"] == [61]
    assert stop["Class"] == [b"gold"]
    node.run(5.0)
    assert len(booked(books)) == 3


def test_the_end_of_an_asp_is_reported_with_the_figures_that_are_known() -> None:
    node, _, books = served()
    number = one_session(node)
    node.uses(number, 3, 300, 2, 200)
    node.kill_card(ASP)
    stop = booked(books)[-1]
    assert (stop["Acct-Status-Type"], stop["Acct-Terminate-Cause"]) == ([2], [9])
    assert stop["Acct-Input-Octets"] == [300]


def test_an_asp_that_says_nothing_more_delays_the_end_by_a_moment() -> None:
    node, _, books = served()
    number = one_session(node)
    node.goes(number, "dead peer")
    node.run(0.5)
    assert len(booked(books)) == 1
    node.run(0.6)
    assert booked(books)[-1]["Acct-Terminate-Cause"] == [2]


def test_a_session_has_a_limit_of_time() -> None:
    node, _, books = served(users={"one.example": {**KEY, "Session-Timeout": 300}})
    one_session(node)
    node.run(290.0)
    node.kill_controller()
    node.start()
    node.serve(MemoryServer(SERVER, {}), books)
    node.run(5.0)
    assert len(node.instances()) == 1
    node.run(10.0)
    assert not node.instances()
    assert "tunnel T (one.example) ended: session timeout" in node.events()
    stop = booked(books)[-1]
    assert stop["Acct-Terminate-Cause"] == [5]
    assert 300 <= stop["Acct-Session-Time"][0] <= 301


def test_a_session_outlives_the_controller() -> None:
    node, _, books = served(users={"one.example": {**KEY, "Class": b"gold"}})
    number = one_session(node)
    session = booked(books)[0]["Acct-Session-Id"]
    node.run(2.0)
    node.kill_controller()
    node.start()
    node.run(3.0)
    # No second start, and no stop.
    assert len(booked(books)) == 1
    node.goes(number)
    node.uses(number, 1, 100, 1, 100)
    stop = booked(books)[-1]
    assert (stop["Acct-Status-Type"], stop["Acct-Session-Id"], stop["Class"]) == ([2], session, [b"gold"])
    # What comes next has a number of its own.
    one_session(node)
    assert booked(books)[-1]["Acct-Session-Id"] != session


def test_a_session_that_ended_while_no_controller_ran_is_reported() -> None:
    node, _, books = served()
    one_session(node)
    session = booked(books)[0]["Acct-Session-Id"]
    node.run(2.0)
    node.kill_controller()
    node.boots[ASP] += 1
    del node.cards[ASP]
    node.start()
    node.start_card(ASP)
    node.run(3.0)
    stop = booked(books)[-1]
    assert (stop["Acct-Status-Type"], stop["Acct-Session-Id"], stop["Acct-Terminate-Cause"]) == ([2], session, [3])
    assert len(booked(books)) == 2
    node.kill_controller()
    node.start()
    node.run(3.0)
    assert len(booked(books)) == 2


def test_a_stop_that_no_server_took_is_kept_for_the_next_controller() -> None:
    node, _, books = served()
    number = one_session(node)
    books.alive = False
    node.goes(number)
    node.uses(number, 7, 700, 0, 0)
    node.run(3.0)
    node.kill_controller()
    seen = len(books.requests)
    books.alive = True
    node.start()
    node.run(3.0)
    (stop,) = [attributes_of(one) for one in books.requests[seen:]]
    assert (stop["Acct-Status-Type"], stop["Acct-Input-Octets"]) == ([2], [700])
    assert stop["Acct-Delay-Time"][0] >= 3


def test_without_accounting_nothing_is_kept() -> None:
    node, _, books = served(AAA.replace("  aaa accounting subscriber radius\n", ""))
    one_session(node)
    node.run(3.0)
    assert not books.requests
    assert "sessions.jsonl" not in node.state
    instance = node.record(node.instances()["one.example"]).instance
    assert instance is not None
    assert instance.session == ""


def test_no_disk_does_not_stop_peers() -> None:
    node, _, books = served()
    one_session(node)
    node.full = True
    node.run(5.0)
    assert len(booked(books)) == 1
    node.full = False
    node.run(5.0)
    assert b"one.example" in node.state["sessions.jsonl"]
