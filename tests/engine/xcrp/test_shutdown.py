"""A card, an ASP, a port and a tunnel that are shut down: what goes down, why, and that it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.records import PortRecord
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted


def commit(node: Node, lines: str) -> None:
    answer = node.ask("commit", lines=lines, user="t")
    assert answer["applied"], answer
    node.run(0.3)


def reasons(node: Node) -> dict[str, str]:
    return {row["name"]: row["reason"] for row in node.ask("status")["tunnels"]}


@pytest.mark.parametrize(
    ("lines", "back", "down"),
    [
        ("card ase 2\n asp 1 shutdown\n", "card ase 2\n no asp 1 shutdown\n", {"Tun-1": "shutdown: asp 2/1"}),
        (
            "card ase 2\n shutdown\n",
            "card ase 2\n no shutdown\n",
            {"Tun-1": "shutdown: asp 2/1", "Tun-2": "shutdown: asp 2/2"},
        ),
        ("card ge-10-port 4\n shutdown\n", "card ge-10-port 4\n no shutdown\n", {"Tun-2": "shutdown: lc 4"}),
        ("port ethernet 4/1\n shutdown\n", "port ethernet 4/1\n no shutdown\n", {"Tun-2": "no route to the peer"}),
        (
            "tunnel ipsec Tun-1 manual\n shutdown\n",
            "tunnel ipsec Tun-1 manual\n no shutdown\n",
            {"Tun-1": "shutdown"},
        ),
    ],
)
def test_what_is_shut_down_takes_its_tunnels_down_with_that_reason(
    lines: str, back: str, down: dict[str, str]
) -> None:
    node = booted()
    up = {"Tun-1": "", "Tun-2": ""}
    assert reasons(node) == up
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-1", "Tun-2"]
    commit(node, lines)
    assert reasons(node) == up | down
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == [name for name in up if name not in down]
    commit(node, back)
    assert reasons(node) == up
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-1", "Tun-2"]


def port(node: Node, card: str, name: str) -> PortRecord:
    found = node.cards[card].replica.records["port", name]
    assert isinstance(found, PortRecord)
    return found


def test_the_ports_of_a_shut_card_are_off_and_its_processes_stay() -> None:
    node = booted()
    before: dict[str, Any] = {row["card"]: row["boot"] for row in node.ask("status")["cards"]}
    commit(node, "card ether-12-port 3\n shutdown\n")
    assert not port(node, "lc 3", "3/1").enabled
    assert port(node, "lc 4", "4/1").enabled
    assert {row["card"]: row["boot"] for row in node.ask("status")["cards"]} == before
    commit(node, "card ether-12-port 3\n no shutdown\n")
    assert port(node, "lc 3", "3/1").enabled


def test_a_shut_card_and_asp_are_shown_as_that() -> None:
    node = booted(HIGH_AVAILABILITY.replace("card ase 2\n", "card ase 2\n asp 2 shutdown\n"))
    rows = {row["asp"]: row["state"] for row in node.ask("asps")["asps"]}
    assert rows == {"2/1": "up", "2/2": "shutdown"}
    commit(node, "card ge-10-port 4\n shutdown\n")
    slots = {row["slot"]: row for row in node.ask("hardware")["slots"]}
    assert [one["state"] for one in slots[4]["processes"]] == ["shutdown"]
    assert [one["usable"] for one in slots[2]["processes"]] == [True, False]


def test_the_lines_are_printed_and_read_again() -> None:
    node = booted()
    commit(node, "card ase 2\n asp 2 shutdown\n asp 1 shutdown\n shutdown\n")
    text = node.ask("config")["text"]
    assert "card ase 2\n shutdown\n asp 2 shutdown\n asp 1 shutdown\n" in text
    again = booted(text)
    assert again.ask("config")["text"] == text
    commit(node, "card ase 2\n no asp 2 shutdown\n no shutdown\n")
    assert "card ase 2\n no shutdown\n asp 1 shutdown\n" in node.ask("config")["text"]
    assert reasons(node) == {"Tun-1": "shutdown: asp 2/1", "Tun-2": ""}
