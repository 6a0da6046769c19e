"""Pools of addresses: who gets which, and that nobody gets another's."""

from __future__ import annotations

import random

import pytest

from chassis.aaa.pools import AddressPools, PoolError
from chassis.config.parser import parse
from chassis.model.router import Config


def config(*lines: str, context: str = "vpn") -> Config:
    return parse("\n".join([f"context {context}", *(f" ip pool {line}" for line in lines)])).config


def pools(*lines: str) -> AddressPools:
    made = AddressPools()
    made.configure(config(*lines))
    return made


def test_addresses_are_leased_in_order_without_network_and_broadcast() -> None:
    made = pools("p 10.0.0.0/29")
    assert [made.lease("vpn", "p", owner) for owner in range(6)] == [f"10.0.0.{last}" for last in range(1, 7)]
    with pytest.raises(PoolError, match="ip pool p of context vpn has no free address"):
        made.lease("vpn", "p", "late")
    assert made.usage() == {("vpn", "p"): (6, 6)}


@pytest.mark.parametrize(
    ("prefix", "addresses"), [("10.0.0.4/31", ["10.0.0.4", "10.0.0.5"]), ("10.0.0.9/32", ["10.0.0.9"])]
)
def test_short_prefixes_have_no_broadcast(prefix: str, addresses: list[str]) -> None:
    made = pools(f"p {prefix}")
    assert [made.lease("vpn", "p", one) for one in addresses] == addresses


def test_an_owner_gets_its_address_again_and_a_released_one_rests() -> None:
    made = pools("p 10.0.0.0/30")
    assert (made.lease("vpn", "p", "a"), made.lease("vpn", "p", "a")) == ("10.0.0.1", "10.0.0.1")
    made.release("vpn", "10.0.0.1", "a")
    assert made.lease("vpn", "p", "b") == "10.0.0.2"
    assert made.lease("vpn", "p", "c") == "10.0.0.1"


def test_only_its_owner_gives_an_address_back() -> None:
    made = pools("p 10.0.0.0/31")
    made.lease("vpn", "p", "a")
    made.release("vpn", "10.0.0.0", "b")
    made.release("vpn", "10.9.9.9", "a")
    assert made.usage() == {("vpn", "p"): (1, 2)}


def test_a_pool_that_is_not_there_is_told() -> None:
    with pytest.raises(PoolError, match="context vpn has no ip pool q"):
        pools("p 10.0.0.0/30").lease("vpn", "q", "a")


def test_an_address_that_aaa_names_is_not_leased() -> None:
    made = pools("p 10.0.0.0/30")
    assert made.hold("vpn", "10.0.0.1", "named")
    assert not made.hold("vpn", "10.0.0.1", "another")
    assert made.hold("vpn", "192.168.0.1", "outside")
    assert made.lease("vpn", "p", "a") == "10.0.0.2"
    with pytest.raises(PoolError):
        made.lease("vpn", "p", "b")


def test_leases_are_restored_after_a_start() -> None:
    made = pools("p 10.0.0.0/29")
    assert made.hold("vpn", "10.0.0.3", "a", "p")
    assert made.lease("vpn", "p", "a") == "10.0.0.3"
    assert made.lease("vpn", "p", "b") == "10.0.0.1"


def test_a_changed_pool_keeps_what_is_held() -> None:
    made = pools("p 10.0.0.0/30")
    made.lease("vpn", "p", "a")
    made.configure(config("p 10.0.0.0/29", "q 10.0.0.0/30"))
    assert made.usage() == {("vpn", "p"): (1, 6), ("vpn", "q"): (1, 2)}
    assert made.lease("vpn", "p", "a") == "10.0.0.1"
    made.configure(config("p 10.1.0.0/30"))
    assert made.lease("vpn", "p", "a") == "10.1.0.1"
    made.configure(config())
    assert made.usage() == {}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_holds_the_address_of_another(seed: int) -> None:
    chance = random.Random(seed)
    made = pools("p 10.0.0.0/28", "q 10.0.0.8/29")
    held: dict[tuple[str, int], str] = {}
    for _ in range(400):
        owner = (chance.choice("pq"), chance.randrange(12))
        if owner in held:
            made.release("vpn", held.pop(owner), owner)
            continue
        try:
            held[owner] = made.lease("vpn", owner[0], owner)
        except PoolError:
            addresses = {f"10.0.0.{last}" for last in (range(1, 15) if owner[0] == "p" else range(9, 15))}
            assert addresses <= set(held.values()), "a pool is full only if all of its addresses are held"
        assert len(set(held.values())) == len(held)
    assert made.usage()["vpn", "p"][0] == len(held)
