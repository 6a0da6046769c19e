"""Longest prefix match, generations, and which next hop is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chassis.bus.records import LocalAddressRecord, NextHop, RouteRecord
from chassis.fwd.fib import Fib, choose_next_hop
from chassis.net.address import contains, network_of, parse_address, parse_prefix

PORT = NextHop("port", 0, "lc 3", "3/1")


def route(prefix: str, *hops: NextHop, context: int = 1) -> RouteRecord:
    network, length = parse_prefix(prefix)
    return RouteRecord(context, network, length, hops or (PORT,))


prefixes = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda pair: network_of(*pair))


@given(st.sets(prefixes, max_size=30), st.integers(0, 2**32 - 1), st.integers(0, 29))
def test_the_longest_prefix_that_holds_the_address_wins(
    table: set[tuple[int, int]], address: int, near: int
) -> None:
    if table and near % 2:
        address = sorted(table)[near % len(table)][0]
    fib = Fib()
    fib.apply([RouteRecord(1, network, length, (PORT,)) for network, length in table], [])
    holding = [prefix for prefix in table if contains(prefix, address)]
    found = fib.lookup(1, address)
    if not holding:
        assert found is None
    else:
        assert found is not None
        assert (found.prefix, found.length) == max(holding, key=lambda prefix: prefix[1])


def test_contexts_do_not_see_each_other() -> None:
    fib = Fib()
    fib.apply([route("10.0.0.0/8"), route("10.0.0.0/8", context=2), LocalAddressRecord(2, 7, "asp 1/1")], [])
    assert fib.lookup(1, parse_address("10.1.1.1")) == route("10.0.0.0/8")
    assert fib.lookup(2, parse_address("10.1.1.1")) == route("10.0.0.0/8", context=2)
    assert fib.lookup(3, parse_address("10.1.1.1")) is None
    assert fib.local(1, 7) is None
    assert fib.local(3, 7) is None
    assert fib.local(2, 7) == LocalAddressRecord(2, 7, "asp 1/1")


def test_every_change_raises_the_generation_and_a_removal_uncovers_the_shorter_prefix() -> None:
    fib = Fib()
    long, short, own = route("10.1.0.0/16"), route("10.0.0.0/8"), LocalAddressRecord(1, 9)
    assert fib.apply([long, short, own], [])
    assert fib.generation == 1
    assert fib.apply([], [long])
    assert fib.generation == 2
    assert fib.lookup(1, parse_address("10.1.2.3")) == short
    assert fib.apply([RouteRecord(1, short.prefix, 8, ())], [own])
    assert fib.generation == 3
    assert fib.lookup(1, parse_address("10.1.2.3")) is None
    assert not fib.apply([], [])
    assert fib.generation == 3
    assert fib.contexts == {}
    assert fib.apply([], [long])  # of a context that is gone
    assert [*fib.contexts] == []


def test_the_first_usable_hop_is_taken_and_a_port_never_stands_in_for_a_tunnel() -> None:
    first, second = NextHop("tunnel", 5, "asp 1/1", tunnel=1), NextHop("tunnel", 10, "asp 2/1", tunnel=2)
    port = NextHop("port", 7, "lc 3", "3/1")
    local, discard = NextHop("local"), NextHop("discard")
    down: set[NextHop] = set()

    def usable(hop: NextHop) -> bool:
        return hop not in down

    assert choose_next_hop((first, port, second), usable) == (first, False)
    down.add(first)
    assert choose_next_hop((first, port, second), usable) == (second, True)
    down.add(second)
    assert choose_next_hop((first, port, second), usable) == (None, True)
    assert choose_next_hop((first, discard), usable) == (discard, True)
    assert choose_next_hop((port, first), usable) == (port, False)
    down.add(port)
    assert choose_next_hop((port, local), usable) == (local, False)
    assert choose_next_hop((port,), usable) == (None, False)
    assert choose_next_hop((), usable) == (None, False)
