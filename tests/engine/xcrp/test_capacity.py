"""What ASE cards and the router hold: 8,000 and 32,000 tunnels, less by a lab's settings (guide 2, S-071)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chassis.model.router import Tunnel
from chassis.xcrp.capacity import Capacity, surplus
from chassis.xcrp.capacity_alarms import NAME
from chassis.xcrp.configuration import check
from chassis.xcrp.placement import place
from chassis.xcrp.settings import ControllerSettings
from tests.support.on_demand import HUB, hub
from tests.support.xcrp import Node

SHARED = """\
card ase 2
card ase 4
card ether-12-port 3
asp pool P service security
  asp 2/1
  asp 4/1
asp pool Q service security
  asp 4/2
asp group G
  pool P
asp group H
  pool Q
ike proposal old
  dh-group 2
ike2 proposal new
  dh-group 2
ipsec proposal ipsec-p
ipsec policy ipsec-pol
  seq 1 proposal ipsec-p
context inner
context G
  asp-group G service security
  interface wan
    ip address 40.0.0.1/16
  ike policy v1
    pre-shared-key s3cret-of-the-test
    seq 1 proposal old
  ike2 policy v2
    pre-shared-key s3cret-of-the-test
    seq 1 proposal new
context H
  asp-group H service security
  interface wan
    ip address 50.0.0.1/16
  ike policy v1
    pre-shared-key s3cret-of-the-test
    seq 1 proposal old
  ike2 policy v2
    pre-shared-key s3cret-of-the-test
    seq 1 proposal new
port ethernet 3/1
  no shutdown
  bind interface wan G
port ethernet 3/2
  no shutdown
  bind interface wan H
"""


def tunnel(number: int, context: str = "G", kind: str = "") -> str:
    """A tunnel to a peer of its own; every second one has IKEv1."""
    net = {"G": 40, "H": 50}[context]
    text = (
        f"context inner\n  interface ti-{number}\n    ip address 10.{number >> 6}.{number & 63}.1/30\n"
        f"tunnel ipsec t-{number} {kind}\n"
        f"  peer-end-point local {net}.0.0.1 remote {net}.0.0.{number} context {context}\n"
        f"  bind interface ti-{number} inner\n"
    )
    if kind:
        return text
    return text + (
        f"  remote-id {number}.example\n  ike-policy {'v1' if number % 2 else 'v2'}\n"
        "  seq 10 ipsec-policy ipsec-pol\n"
    )


def node(text: str, **settings: Any) -> Node:
    made = Node(text, settings=settings)
    made.boot_all("3/1", "3/2")
    return made


def reasons(made: Node) -> dict[str, str]:
    """The tunnels for which there is no room, with the reason."""
    rows = made.ask("status")["tunnels"]
    return {str(row["name"]): row["reason"] for row in rows if row["reason"].startswith("capacity")}


FULL = SHARED + "".join(map(tunnel, (2, 3, 4)))


@pytest.mark.behaviour("B-004", "B-005", "B-173")
def test_a_commit_of_one_tunnel_more_than_the_card_holds_is_refused() -> None:
    full = node(FULL, **{"card-capacity": 3})
    more = tunnel(5)
    answer = full.ask("commit", lines=more, user="me", base=-1)
    assert not answer["applied"]
    (found,) = [one for one in answer["diagnostics"] if one["severity"] == "error"]
    assert more.splitlines()[found["line"] - 1] == "tunnel ipsec t-5 "
    assert found["message"] == "tunnel t-5 finds no room: capacity: card 2 holds 3 tunnels"
    assert not full.ask("apply", text=FULL + more)["applied"]
    # Another card has room, though the addresses of the first one's context are on this one.
    assert full.ask("commit", lines=tunnel(5, "H"), user="me", base=-1)["applied"]
    assert full.ask("commit", lines="no tunnel ipsec t-3\n" + tunnel(6), user="me", base=-1)["applied"]
    assert reasons(full) == {}


@pytest.mark.behaviour("B-004")
def test_manual_tunnels_do_not_count() -> None:
    full = node(FULL, **{"card-capacity": 3})
    assert full.ask("commit", lines=tunnel(5, kind="manual"), user="me", base=-1)["applied"]
    answer = full.ask("commit", lines=tunnel(6), user="me", base=-1)
    assert not answer["applied"]


@pytest.mark.behaviour("B-006")
def test_a_router_holds_no_more_though_a_card_has_room() -> None:
    full = node(FULL, **{"router-capacity": 3})
    answer = full.ask("commit", lines=tunnel(5, "H"), user="me", base=-1)
    assert not answer["applied"]
    messages = [one["message"] for one in answer["diagnostics"] if one["severity"] == "error"]
    assert messages == ["tunnel t-5 finds no room: capacity: the router holds 3 tunnels"]


def test_a_start_up_file_is_in_force_without_the_surplus() -> None:
    full = node(FULL + tunnel(5), **{"card-capacity": 3})
    assert {row["name"] for row in full.ask("status")["tunnels"]} == {"t-2", "t-3", "t-4"}
    assert [one["text"] for one in full.ask("log")["records"] if "t-5 finds no room" in one["text"]]


@pytest.mark.behaviour("B-173")
def test_a_takeover_fills_a_card_and_the_rest_is_down() -> None:
    text = SHARED + tunnel(2) + tunnel(3) + tunnel(4, "H") + tunnel(5, "H")
    made = node(text, **{"card-capacity": 3})
    made.kill_card("asp 2/1")
    made.run(0.1)
    assert {row["asp"] for row in made.ask("status")["tunnels"]} == {"asp 4/1", "asp 4/2"}
    (gone,) = reasons(made).items()
    assert gone[0] in ("t-2", "t-3")
    assert gone[1] == "capacity: card 4 holds 3 tunnels"
    # The configuration stays acceptable, for commits and for the next controller.
    assert made.ask("commit", lines="tunnel ipsec t-4\n  mtu 1300\n", user="me", base=-1)["applied"]
    assert reasons(made) == dict([gone])
    made.start_card("asp 2/1")
    made.run(0.3)
    made.kill_controller()
    made.start()
    made.run(3.0)
    assert list(reasons(made)) == [gone[0]]
    made.kill_card("asp 4/1")
    made.run(0.1)
    assert {row["asp"] for row in made.ask("status")["tunnels"]} == {"asp 2/1", "asp 4/2"}
    assert reasons(made) == {}


@pytest.mark.behaviour("B-004")
def test_the_8001st_tunnel_of_a_card_finds_no_room() -> None:
    empty = check(SHARED, "test").config
    tunnels = {f"t-{number}": Tunnel(f"t-{number}", local="40.0.0.1", context="G") for number in range(8_001)}
    config = replace(empty, tunnels=tunnels)
    found = list(surplus(config, empty, place(config, {}), {}, Capacity()))
    assert [(one.name, why) for one, why in found] == [("t-8000", "capacity: card 2 holds 8000 tunnels")]
    # Another local address of the same context would be on the same card.
    more = replace(config, tunnels={**tunnels, "t-8001": Tunnel("t-8001", local="40.0.0.2", context="G")})
    assert len(list(surplus(more, config, place(config, {}), {}, Capacity()))) == 1


@pytest.mark.parametrize("value", [0, 8_001, "many", True, 1.5])
def test_a_capacity_above_the_real_one_is_no_setting(value: object) -> None:
    settings, problems = ControllerSettings.read({"card-capacity": value})
    assert settings.capacity == Capacity()
    assert [problem.split(":")[0] for problem in problems] == ["setting card-capacity"]


def test_room_that_a_peer_leaves_is_for_a_tunnel_that_found_none() -> None:
    made = hub(**{"card-capacity": 2})
    numbers = [made.admit(f"{at}.example", f"50.0.0.{at}") for at in (1, 2)]
    lines = (
        "context inner\n interface ti-3\n  ip address 10.9.3.1/30\n"
        "tunnel ipsec t-3\n peer-end-point local 40.0.0.1 remote 40.0.0.9 context outer\n"
        " bind interface ti-3 inner\n"
        " remote-id three.example\n ike-policy pol\n seq 10 ipsec-policy ipsec-pol\n"
    )
    assert made.ask("commit", lines=lines, user="me", base=-1)["applied"]
    assert made.tunnel("t-3")["reason"] == "capacity: card 2 holds 2 tunnels"
    assert made.refused("3.example", "50.0.0.3") == "capacity: card 2 holds 2 tunnels"
    made.goes(numbers[0])
    made.run(1.1)
    assert made.tunnel("t-3")["reason"].startswith("IKE")
    assert made.refused("3.example", "50.0.0.3") == "capacity: card 2 holds 2 tunnels"


def told(made: Node) -> list[str]:
    """What the log says of alarms of capacity, in order."""
    records: list[Any] = made.ask("log", facility="alarm")["records"]
    values = [row["values"] for row in records]
    return [f"{one['object']} {one['state']}" for one in values if one["alarm"] == NAME]


def standing(made: Node) -> list[dict[str, Any]]:
    return [row for row in made.ask("alarms")["alarms"] if row["alarm"] == NAME]


@pytest.mark.behaviour("B-173")
@pytest.mark.parametrize(("setting", "place"), [("card-capacity", "ase 2"), ("router-capacity", "router")])
def test_a_peer_that_finds_no_room_raises_one_alarm_until_there_is_room(setting: str, place: str) -> None:
    made = hub(**{setting: 2})
    numbers = [made.admit(f"{at}.example", f"50.0.0.{at}") for at in (1, 2)]
    made.run(2.0)
    assert told(made) == []
    for at in (3, 4, 5):
        made.refused(f"{at}.example", f"50.0.0.{at}")
    made.run(2.0)
    assert told(made) == [f"{place} minor"]
    (row,) = standing(made)
    assert (row["object"], row["severity"]) == (place, "minor")
    assert row["text"] == "holds 2 tunnels: peers are refused"
    assert [text for text in made.events() if NAME in text] == [f"{place}: alarm {NAME} (minor): {row['text']}"]
    # The next controller finds it standing, and does not tell of it again.
    made.kill_controller()
    made.start()
    made.run(4.0)
    assert standing(made) == [row]
    assert told(made) == [f"{place} minor"]
    made.goes(numbers[0])
    made.run(1.1)
    assert standing(made) == []
    assert told(made) == [f"{place} minor", f"{place} cleared"]
    made.admit("3.example", "50.0.0.3")
    made.run(1.1)
    assert len(told(made)) == 2
    made.refused("4.example", "50.0.0.4")
    made.run(0.1)
    assert told(made)[2:] == [f"{place} minor"]


@pytest.mark.behaviour("B-173", "B-180")
def test_max_tunnels_takes_no_room_and_raises_no_alarm() -> None:
    made = hub(HUB.replace("tunnel ipsec T on-demand\n", "tunnel ipsec T on-demand\n  max-tunnels 8000\n"),
               **{"card-capacity": 2})  # fmt: skip
    more = "tunnel ipsec U on-demand\n peer-end-point local 40.0.0.1 context outer\n max-tunnels 8000\n"
    assert made.ask("commit", lines=more, user="me", base=-1)["applied"]
    assert made.ask("commit", lines="tunnel ipsec T\n max-tunnels 1\n", user="me", base=-1)["applied"]
    made.admit("1.example", "50.0.0.1")
    assert made.refused("2.example", "50.0.0.2").startswith("max-tunnels")
    made.run(1.1)
    assert told(made) == []


def test_a_rollback_to_tunnels_without_room_is_refused() -> None:
    full = node(FULL, **{"card-capacity": 3})
    for change in ("no tunnel ipsec t-4\n", tunnel(5)):
        assert full.ask("commit", lines=change, user="me", base=-1)["applied"]
    assert full.ask("rollback", number=1, user="me")["applied"]
    # The lab is started again with less.
    full.settings["card-capacity"] = 2
    full.kill_controller()
    full.start()
    full.run(3.0)
    assert len(reasons(full)) == 1
    assert full.ask("commit", lines="no tunnel ipsec t-4\n", user="me", base=-1)["applied"]
    before = full.ask("identity")["version"]
    answer = full.ask("rollback", number=1, user="me")
    assert not answer["applied"]
    messages = [one["message"] for one in answer["diagnostics"]]
    assert messages == ["tunnel t-4 finds no room: capacity: card 2 holds 2 tunnels"]
    assert full.ask("identity")["version"] == before
    assert reasons(full) == {}
    assert full.ask("rollback", number=before, user="me")["applied"]
