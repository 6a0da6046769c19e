"""What is shown of counters after a clear: the difference, and all of it where a counter began anew."""

from __future__ import annotations

from typing import Any

from chassis.xcrp.counter_bases import CounterBases


def tunnel(number: int, packets: int, drops: int = 0, sa_packets: int = 0, serial: int = 1) -> dict[str, Any]:
    both = {"packets": packets, "octets": 100 * packets}
    sa = {"serial": serial, "direction": "out", "protocol": "esp", "spi": 256, "peer": "10.0.0.1"}
    return {
        "tunnel": number,
        "name": f"t{number}",
        "encapsulated": dict(both),
        "decapsulated": dict(both),
        "drops": {"out": {"policy": drops}, "in": {}},
        "sas": [{**sa, "packets": sa_packets, "octets": 10 * sa_packets}],
    }


def test_tunnels_count_from_their_last_clear() -> None:
    bases = CounterBases()
    bases.clear_tunnels([{"tunnels": [tunnel(1, 10, 3, 8)]}])
    (row, other) = bases.count_tunnels({"tunnels": [tunnel(1, 15, 4, 9), tunnel(2, 5)], "drops": {}})["tunnels"]
    assert row["encapsulated"] == {"packets": 5, "octets": 500}
    assert row["drops"] == {"out": {"policy": 1}, "in": {}}
    assert (row["sas"][0]["packets"], row["sas"][0]["octets"], row["sas"][0]["spi"]) == (1, 10, 256)
    assert other == tunnel(2, 5)
    # A rekeyed SA has no base, and an ASP with a new file counts from zero.
    (row,) = bases.count_tunnels({"tunnels": [tunnel(1, 2, 0, 2, serial=2)]})["tunnels"]
    assert row["encapsulated"] == {"packets": 2, "octets": 200}
    assert row["sas"][0]["packets"] == 2


def test_what_is_counted_is_not_changed() -> None:
    bases = CounterBases()
    reply = {"tunnels": [tunnel(1, 10)]}
    bases.clear_tunnels([reply])
    bases.count_tunnels(reply)
    assert reply == {"tunnels": [tunnel(1, 10)]}
    assert bases.count_tunnels(reply)["tunnels"][0]["encapsulated"]["packets"] == 0


def test_sums_count_from_the_clears_of_their_tunnels() -> None:
    bases = CounterBases()
    bases.clear_tunnels([{"tunnels": [tunnel(1, 10, 2), tunnel(2, 20), tunnel(3, 40)]}])
    totals = {
        "tunnels": 2,
        "encapsulated": {"packets": 35, "octets": 3500},
        "decapsulated": {"packets": 31, "octets": 3100},
        "drops": {"out": {"policy": 5, "queue": 1}, "in": {}},
    }
    counted = bases.count_totals(totals, [1, 2, 9])
    assert counted["encapsulated"] == {"packets": 5, "octets": 500}
    assert counted["drops"]["out"] == {"policy": 3, "queue": 1}
    assert counted["tunnels"] == 2
    bases.retain({2}, ())
    assert bases.count_totals(totals, [1, 2])["encapsulated"]["packets"] == 15


def test_ports_and_circuits_count_from_the_last_clear_of_each() -> None:
    bases = CounterBases()
    reply = {"ports": {"3/1": {"packets_in": 7, "drops": 1}, "3/2": {"packets_in": 3, "drops": 0}}}
    bases.clear_cards([reply], "3/1")
    assert bases.count_cards(reply)["ports"] == {
        "3/1": {"packets_in": 0, "drops": 0}, "3/2": {"packets_in": 3, "drops": 0}
    }  # fmt: skip
    bases.clear_cards([{**reply, "circuits": {"17": {"packets_in": 4}}}])
    later = {
        "ports": {"3/2": {"packets_in": 4, "drops": 0}},
        "circuits": {"17": {"packets_in": 9}, "18": {"x": 1}},
    }
    assert bases.count_cards(later) == {
        "ports": {"3/2": {"packets_in": 1, "drops": 0}}, "circuits": {"17": {"packets_in": 5}, "18": {"x": 1}}
    }  # fmt: skip
    assert bases.count_cards({}) == {}
    # That of a peer which has gone is forgotten.
    bases.retain((), {18})
    assert bases.count_cards(later)["circuits"] == later["circuits"]
    assert bases.count_cards(later)["ports"]["3/2"] == {"packets_in": 1, "drops": 0}
