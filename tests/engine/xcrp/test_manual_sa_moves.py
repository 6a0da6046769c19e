"""Who gets a manual SA that another ASP had waits until that one has let go of it, or has ended."""

from __future__ import annotations

from chassis.bus.records import TunnelRecord
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted, sa

MOVED = HIGH_AVAILABILITY.replace("  asp-group G1 service", "  asp-group G2 service")
SHARED = HIGH_AVAILABILITY.replace("security-association sa-2 access", "security-association sa-1 access")


def hold(node: Node, card: str = "asp 2/2", name: str = "Tun-1") -> str:
    """Why a card may not use the SA of a tunnel, as it was told."""
    records = node.cards[card].replica.records.values()
    (record,) = [record for record in records if isinstance(record, TunnelRecord) and record.config.name == name]
    assert record.asp == card
    return str(record.leases[0].hold)


def test_it_waits_for_the_word_of_the_asp_that_had_it() -> None:
    node = booted()
    node.stop_card("asp 2/1")
    node.ask("apply", text=MOVED)
    assert hold(node) == "not let go of by asp 2/1 yet"
    # What it is told now it says with its next heartbeat.
    node.continue_card("asp 2/1", 0.0)
    node.run(0.15)
    assert hold(node) == ""
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]


def test_it_waits_for_a_hung_asp_to_be_killed() -> None:
    node = booted()
    node.stop_card("asp 2/1")
    node.ask("apply", text=MOVED)
    node.run(0.8)
    assert hold(node) == "not let go of by asp 2/1 yet", "it is silent, and may go on"
    node.kill_card("asp 2/1")
    node.run(0.01)
    assert hold(node) == ""


def test_a_controller_that_starts_in_between_still_waits() -> None:
    node = booted()
    node.stop_card("asp 2/1")
    node.ask("apply", text=MOVED)
    node.kill_controller()
    node.start()
    node.run(1.0)
    assert hold(node) == "not let go of by asp 2/1 yet"
    node.continue_card("asp 2/1", 0.0)
    node.run(1.5)
    assert hold(node) == ""


def test_an_sa_that_both_have_is_not_held_back() -> None:
    node = booted(SHARED)
    node.stop_card("asp 2/1")
    node.ask("apply", text=SHARED.replace("bind interface TI-2 C1\n", "bind interface TI-2 C1\n  mtu 1300\n"))
    assert hold(node, name="Tun-2") == ""
    # Tun-1 comes over: it waits, and the one that is there already does not.
    node.ask("apply", text=SHARED.replace("  asp-group G1 service", "  asp-group G2 service"))
    assert hold(node) == "not let go of by asp 2/1 yet"
    assert hold(node, name="Tun-2") == ""


def test_an_sa_that_stays_on_its_asp_waits_for_nobody() -> None:
    node = booted()
    node.ask("apply", text=HIGH_AVAILABILITY.replace("L1", "L9"))
    assert hold(node, "asp 2/1") == ""
    node.run(0.2)
    assert node.tunnel("Tun-1")["up"]


def test_an_asp_that_lost_its_windows_gets_its_sas_back_under_another_spi_only() -> None:
    node = booted()
    node.run(0.3)
    node.kill_card("asp 2/1")
    node.start_card("asp 2/1", fresh=True)
    node.run(0.3)
    assert hold(node, "asp 2/1") == "replay window lost with the state of asp 2/1: another SPI is needed"
    assert hold(node, "asp 2/2", "Tun-2") == ""
    # Nor is there a way around it by another ASP, or by another controller.
    node.ask("apply", text=MOVED)
    node.kill_controller()
    node.start()
    node.run(2.0)
    assert "replay window lost" in hold(node)
    node.ask("apply", text=MOVED.replace(sa("sa-1", 301), sa("sa-1", 401)))
    node.run(0.3)
    assert hold(node) == ""


def test_an_asp_that_was_never_in_service_lost_nothing() -> None:
    node = Node(HIGH_AVAILABILITY)
    node.start()
    # It says hello and is gone before it is told anything: numbers that are not on disk are not told.
    node.full = True
    node.start_card("asp 2/1", fresh=True)
    node.kill_card("asp 2/1")
    node.full = False
    node.start_card("asp 2/1", fresh=True)
    node.run(1.0)
    assert hold(node, "asp 2/1") == ""


def test_a_later_commit_that_does_not_concern_it_changes_nothing() -> None:
    node = booted(HIGH_AVAILABILITY)
    node.stop_card("asp 2/1")
    node.ask("apply", text=MOVED)
    node.ask("apply", text=MOVED.replace("bind interface TI-2 C1\n", "bind interface TI-2 C1\n  mtu 1300\n"))
    assert hold(node) == "not let go of by asp 2/1 yet"
    node.continue_card("asp 2/1", 0.0)
    node.run(0.2)
    assert hold(node) == ""


def test_where_it_can_not_be_known_who_was_in_service_an_asp_without_its_state_lost_it() -> None:
    node = booted()
    node.kill_controller()
    node.kill_card("asp 2/1")
    node.state["cards.json"] = b"{"
    node.start()
    node.start_card("asp 2/1", fresh=True)
    node.run(3.0)
    assert "replay window lost" in hold(node, "asp 2/1")
