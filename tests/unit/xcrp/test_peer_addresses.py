"""Inner addresses of peers: who gets which of a pool, and that nobody gets another's."""

from __future__ import annotations

import random

import pytest

from chassis.net.address import format_address, parse_address, parse_prefix
from chassis.xcrp.peer_addresses import AddressError, PeerAddresses

VPN = 3


def take(held: PeerAddresses, prefix: str, number: int, identity: str = "", barred: tuple[str, ...] = ()) -> str:
    kept = {parse_address(one) for one in barred}
    return format_address(held.take(VPN, "p", parse_prefix(prefix), identity or f"{number}", number, kept))


def release(held: PeerAddresses, address: str, number: int) -> None:
    held.release(VPN, parse_address(address), number)


def test_addresses_go_out_in_turn_without_network_and_broadcast() -> None:
    held = PeerAddresses()
    assert [take(held, "10.0.0.0/29", n) for n in range(6)] == [f"10.0.0.{last}" for last in range(1, 7)]
    with pytest.raises(AddressError, match="pool p has no free address"):
        take(held, "10.0.0.0/29", 9)


@pytest.mark.parametrize(
    ("prefix", "addresses"), [("10.0.0.4/31", {"10.0.0.4", "10.0.0.5"}), ("10.0.0.9/32", {"10.0.0.9"})]
)
def test_short_prefixes_have_no_broadcast(prefix: str, addresses: set[str]) -> None:
    held = PeerAddresses()
    assert {take(held, prefix, n) for n in range(len(addresses))} == addresses


def test_a_peer_gets_its_last_address_again_unless_another_has_it() -> None:
    held = PeerAddresses()
    assert take(held, "10.0.0.0/29", 1, "gw.example.com") == "10.0.0.1"
    release(held, "10.0.0.1", 1)
    assert take(held, "10.0.0.0/29", 2, "other") == "10.0.0.2"
    assert take(held, "10.0.0.0/29", 3, "GW.example.com") == "10.0.0.1"
    release(held, "10.0.0.1", 3)
    held.hold(VPN, parse_address("10.0.0.1"), 4)
    assert take(held, "10.0.0.0/29", 5, "gw.example.com") == "10.0.0.3"


def test_what_aaa_names_or_nobody_may_have_is_not_leased() -> None:
    held = PeerAddresses()
    held.hold(VPN, parse_address("10.0.0.1"), 1)
    with pytest.raises(AddressError, match="another peer's"):
        held.hold(VPN, parse_address("10.0.0.1"), 2)
    assert take(held, "10.0.0.0/29", 3, barred=("10.0.0.2",)) == "10.0.0.3"


def test_only_its_holder_gives_an_address_back() -> None:
    held = PeerAddresses()
    take(held, "10.0.0.0/30", 1)
    release(held, "10.0.0.1", 2)
    assert held.holder(VPN, parse_address("10.0.0.1")) == 1


@pytest.mark.parametrize("seed", range(20))
def test_nobody_holds_the_address_of_another(seed: int) -> None:
    """Peers come and go, some with AAA's addresses: a pool is full only if all its addresses are held."""
    chance = random.Random(seed)
    held, holders = PeerAddresses(), dict[int, str]()
    addresses = {f"10.0.0.{last}" for last in range(1, 15)}
    for number in range(400):
        act = chance.random()
        if act < 0.45 and holders:
            leaving = chance.choice(list(holders))
            release(held, holders.pop(leaving), leaving)
        elif act < 0.55:
            named = chance.choice(sorted(addresses))
            try:
                held.hold(VPN, parse_address(named), number)
            except AddressError:
                assert named in holders.values()
            else:
                holders[number] = named
        else:
            try:
                holders[number] = take(held, "10.0.0.0/28", number, f"peer{chance.randrange(20)}")
            except AddressError:
                assert addresses <= set(holders.values())
        assert len(set(holders.values())) == len(holders)
        assert set(holders.values()) <= addresses
