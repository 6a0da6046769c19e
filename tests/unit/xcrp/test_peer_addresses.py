"""Inner addresses of peers: pools in turn, what is given back, and whose an address is."""

from __future__ import annotations

import pytest

from chassis.net.address import parse_address, parse_prefix
from chassis.xcrp.peer_addresses import AddressError, PeerAddresses

SMALL = parse_prefix("10.8.0.0/29")


def take(addresses: PeerAddresses, number: int, identity: str = "", barred: tuple[str, ...] = ()) -> str:
    own = {parse_address(one) for one in barred}
    address = addresses.take(1, "P", SMALL, identity or f"{number}.example", number, own)
    return f"10.8.0.{address & 255}"


def test_network_broadcast_and_the_routers_own_are_nobodys() -> None:
    addresses = PeerAddresses()
    given = [take(addresses, number, barred=("10.8.0.1",)) for number in range(5)]
    assert given == [f"10.8.0.{at}" for at in range(2, 7)]
    with pytest.raises(AddressError, match="pool P has no free address"):
        take(addresses, 9, barred=("10.8.0.1",))


def test_an_address_that_was_given_back_is_the_last_one_to_be_given_to_another() -> None:
    addresses = PeerAddresses()
    take(addresses, 1)
    addresses.release(1, parse_address("10.8.0.1"), 1)
    assert [take(addresses, number) for number in range(2, 7)] == [f"10.8.0.{at}" for at in range(2, 7)]
    assert take(addresses, 7) == "10.8.0.1"


def test_the_same_identity_gets_the_same_address() -> None:
    addresses = PeerAddresses()
    assert take(addresses, 1, "One.example") == "10.8.0.1"
    assert take(addresses, 2) == "10.8.0.2"
    addresses.release(1, parse_address("10.8.0.1"), 1)
    assert take(addresses, 3, "one.EXAMPLE") == "10.8.0.1"
    # While it is another's, it is another's.
    assert take(addresses, 4, "one.example") == "10.8.0.3"


def test_only_the_holder_gives_an_address_back() -> None:
    addresses = PeerAddresses()
    fixed = parse_address("192.0.2.1")
    addresses.hold(1, fixed, 5)
    addresses.hold(1, fixed, 5)
    addresses.hold(2, fixed, 6)
    with pytest.raises(AddressError, match="another peer's"):
        addresses.hold(1, fixed, 7)
    addresses.release(1, fixed, 7)
    assert addresses.holder(1, fixed) == 5
    addresses.release(1, fixed, 5)
    assert addresses.holder(1, fixed) is None
    assert addresses.holder(2, fixed) == 6


def test_addresses_that_were_taken_over_count() -> None:
    addresses = PeerAddresses()
    for number in range(1, 7):
        addresses.hold(1, parse_address(f"10.8.0.{number}"), number, "P", SMALL)
    with pytest.raises(AddressError):
        take(addresses, 9)
    addresses.release(1, parse_address("10.8.0.4"), 4)
    assert take(addresses, 9) == "10.8.0.4"


def test_a_pool_with_another_prefix_is_another_pool() -> None:
    addresses = PeerAddresses()
    take(addresses, 1, "one")
    other = parse_prefix("10.9.0.0/31")
    given = [addresses.take(1, "P", other, name, number, ()) for name, number in (("one", 2), ("two", 3))]
    assert sorted(address & 1 for address in given) == [0, 1]
    with pytest.raises(AddressError):
        addresses.take(1, "P", other, "three", 4, ())
