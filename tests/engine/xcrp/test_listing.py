"""The request `tunnels`: slices that go on where the one before ended, and what is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.on_demand import hub
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted

MANY = (
    HIGH_AVAILABILITY
    + """
tunnel ipsec D-9 on-demand
tunnel ipsec S-9
  peer-end-point local 1.1.1.1 remote 3.3.3.10 context L1
tunnel ipsec S-1
  peer-end-point local 1.1.1.1 remote 3.3.3.11 context L1
tunnel ipsec D-1 on-demand
tunnel ipsec M-1 manual
  peer-end-point local 1.1.1.1 remote 3.3.3.14 context L1
"""
)
ORDER = ["Tun-1", "Tun-2", "D-9", "S-9", "S-1", "D-1", "M-1"]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


def slices(node: Node, **given: Any) -> list[dict[str, Any]]:
    found = [node.ask("tunnels", **given)]
    while found[-1]["next"]:
        found.append(node.ask("tunnels", **given, after=found[-1]["next"]))
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
def test_slices_are_the_whole_in_order(limit: int) -> None:
    node = booted(MANY)
    found = slices(node, limit=limit, detail=True)
    assert len(found) == -(-len(ORDER) // limit)
    rows = [row for part in found for row in part["tunnels"]]
    assert names(rows) == ORDER
    listed = {row["name"]: row for row in node.ask("status")["tunnels"]}
    assert {row["name"]: row for row in rows} == listed
    assert found[-1]["total"] == len(ORDER)
    assert found[-1]["up"] == sum(row["up"] for row in rows) == 2
    assert all("total" not in part for part in found[:-1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "S-1"}, ["S-1"]),
        ({"name": "D-9"}, ["D-9"]),
        ({"remote": "3.3.3.11"}, ["S-1"]),
        ({"remote": "9.9.9.9"}, []),
        ({"context": "C1"}, ["Tun-1", "Tun-2"]),
        ({"context": "C1", "remote": "3.3.3.4"}, ["Tun-2"]),
        ({"card": "2/1"}, ["Tun-1", "S-9", "S-1", "M-1"]),
        ({"card": "2/1", "kind": "manual"}, ["Tun-1", "M-1"]),
        ({"kind": "static"}, ["S-9", "S-1"]),
        ({"kind": "on-demand"}, ["D-9", "D-1"]),
        ({"kind": "manual", "name": "S-1"}, []),
    ],
)
def test_choice(given: dict[str, str], expected: list[str]) -> None:
    node = booted(MANY)
    for limit in (1, 200):
        found = slices(node, limit=limit, **given)
        assert names([row for part in found for row in part["tunnels"]]) == expected
        assert found[-1]["total"] == len(expected)


def test_a_commit_between_two_slices() -> None:
    """What is listed already does not come again, and nothing that stays is left out."""
    node = booted(MANY)
    first = node.ask("tunnels", limit=3)
    assert names(first["tunnels"]) == ORDER[:3]
    text = MANY.replace("tunnel ipsec S-9", "tunnel ipsec S-8").replace("tunnel ipsec Tun-1", "tunnel ipsec Tun-9")
    assert node.ask("apply", text=text)["applied"]
    second = node.ask("tunnels", limit=3, after=first["next"])
    assert names(second["tunnels"]) == ["S-1", "D-1", "M-1"]
    # New tunnels have the highest numbers.
    third = node.ask("tunnels", limit=1, after=second["next"])
    assert names(third["tunnels"]) == ["Tun-9"]
    node.ask("apply", text=text.replace("tunnel ipsec D-1 on-demand", "tunnel ipsec D-0 on-demand"))
    assert names(node.ask("tunnels", after=third["next"])["tunnels"]) == ["S-8", "D-0"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "S-2"}, "no tunnel 'S-2'"),
        ({"context": "C9"}, "no context 'C9'"),
        ({"card": "9/9"}, "no asp 9/9"),
        ({"after": "S-1"}, "after: 'S-1' is not the `next` of a slice"),
        ({"after": "-1"}, "is not the `next` of a slice"),
        ({"limit": 0}, "limit"),
        ({"kind": "dynamic"}, "kind"),
    ],
)
def test_refusals(given: dict[str, Any], why: str) -> None:
    with pytest.raises(LookupError, match=why):
        booted(MANY).ask("tunnels", **given)


def test_without_detail_rows_are_short() -> None:
    node = booted(MANY)
    brief, full = (node.ask("tunnels", name="S-1", detail=detail)["tunnels"][0] for detail in (False, True))
    assert full.keys() - brief.keys() == {"ike_policy", "ike_version", "identity", "networks", "sas"}


def test_an_on_demand_tunnel_counts_as_its_peers() -> None:
    node = hub()

    def counted(**given: str) -> tuple[int, int, int]:
        found = node.ask("tunnels", **given)
        return len(found["tunnels"]), found["total"], found["up"]

    assert counted() == (1, 1, 0)
    up = node.admit("one.example", "50.0.0.1")
    node.admit("two.example", "50.0.0.2")
    node.comes_up(up, "10.2.1.0/24")
    assert counted() == counted(name="T") == (3, 2, 1)
    assert counted(remote="50.0.0.1") == (1, 1, 1)
