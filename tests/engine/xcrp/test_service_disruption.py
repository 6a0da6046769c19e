"""Chapter 14 of the guide: service that stops by a configuration comes back by a configuration."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToCard
from chassis.bus.messages import Delta
from chassis.bus.records import TunnelRecord
from tests.support.xcrp import HIGH_AVAILABILITY, booted
from tests.support.xcrp_ike import STATIC

LOCAL_END = """
context L1
 interface Tun-1-Local loopback
  ip address 1.1.1.1/32
 interface peer-1
  ip address 4.4.4.1/24
 asp-group G1 service security
 ip route 3.3.3.3/32 4.4.4.4
"""
"""The context of Tun-1's end point, made again."""

LEFT_OUT = "  asp-group G1 service security\n"
"""What an old file does not have yet: the Security service of Tun-1's context."""


@pytest.mark.behaviour("B-209", "B-210", "B-212")
def test_the_newest_backup_restores_service_after_a_start_with_an_old_file() -> None:
    node = booted(HIGH_AVAILABILITY.replace(LEFT_OUT, ""))
    assert node.tunnel("Tun-1")["reason"] == "no Security service"
    backup = HIGH_AVAILABILITY
    node.ask("apply", text=backup, file="backup.cfg")
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]
    # The backup is what the next start takes, whatever the start-up file says.
    node.kill_controller()
    node.start()
    node.run(0.5)
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-209")
def test_a_context_that_goes_takes_its_tunnel_along_and_brings_it_back() -> None:
    node = booted(HIGH_AVAILABILITY)
    begin = HIGH_AVAILABILITY.index("context L1\n")
    end = HIGH_AVAILABILITY.index("context ", begin + 1)
    node.ask("apply", text=HIGH_AVAILABILITY[:begin] + HIGH_AVAILABILITY[end:])
    assert not node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-2")["up"]
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-209")
@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ("context L1\n no asp-group\n", "context L1\n asp-group G1 service security\n"),
        ("asp group G1\n no pool P1\n", "asp group G1\n pool P1\n"),
        ("no asp group G1\n", "asp group G1\n pool P1\n"),
        ("asp pool P1 service security\n no asp 2/1\n", "asp pool P1 service security\n asp 2/1\n"),
        ("no context L1\n", LOCAL_END),
    ],
    ids=["service", "pool of the group", "group", "asp of the pool", "context"],
)
def test_service_that_is_taken_from_a_context_takes_its_tunnels_and_no_other(taken: str, given: str) -> None:
    node = booted(HIGH_AVAILABILITY)
    other = node.tunnel("Tun-2")
    heard: set[str] = set()

    def listen(output: ToCard) -> None:
        if isinstance(output.message, Delta):
            heard.update(r.config.name for r in output.message.put if isinstance(r, TunnelRecord))

    node.watch = listen
    assert node.ask("commit", lines=taken, base=-1, user="x")["applied"]
    node.run(0.2)
    assert not node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-1")["reason"] in ("no Security service", "end point not configured")
    assert node.tunnel("Tun-2") == other
    assert node.ask("commit", lines=given, base=-1, user="x")["applied"]
    node.run(0.2)
    assert node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-2") == other
    assert heard == {"Tun-1"}


@pytest.mark.behaviour("B-211")
def test_a_tunnel_is_deleted_and_made_again_after_a_change_of_its_link() -> None:
    node = booted(HIGH_AVAILABILITY)
    moved = HIGH_AVAILABILITY.replace("port ethernet 3/11", "port ethernet 3/12")
    assert moved != HIGH_AVAILABILITY
    begin = moved.index("tunnel ipsec Tun-1 manual\n")
    end = moved.index("tunnel ipsec Tun-2 ")
    number = node.tunnel("Tun-1")["number"]
    node.ask("apply", text=moved[:begin] + moved[end:])
    assert "Tun-1" not in {row["name"] for row in node.ask("status")["tunnels"]}
    assert ("tunnel", number) not in node.cards["asp 2/1"].replica.records
    node.carrier_event("3/12", True)
    node.ask("apply", text=moved)
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]
    assert node.hops("lc 3", "L1", "3.3.3.3/32") == ["3/12"]


@pytest.mark.behaviour("B-151")
@pytest.mark.parametrize("mode", ["", " economical"])
def test_connected_and_static_routes_lead_into_a_tunnel_of_either_mode(mode: str) -> None:
    text = HIGH_AVAILABILITY.replace("Tun-1 manual\n", f"Tun-1 manual{mode}\n")
    node = booted(text + "context C1\n  ip route 10.0.0.0/8 192.168.2.2\n")
    assert node.hops("lc 3", "C1", "172.168.3.0/24")[0] == "Tun-1"
    # 192.168.2.2 lies in the network of the tunnel's own interface.
    assert node.hops("lc 3", "C1", "10.0.0.0/8") == ["Tun-1"]
    assert (node.tunnel("Tun-1")["circuit"] == 0) is bool(mode)


@pytest.mark.behaviour("B-017")
def test_a_negotiated_tunnel_waits_for_the_service_too() -> None:
    node = booted(STATIC.replace("  asp-group G service security\n", ""), "3/1", "3/11")
    assert node.tunnel("T")["reason"] == "no Security service"
    node.ask("apply", text=STATIC)
    node.run(0.1)
    assert node.tunnel("T")["reason"] == "IKE: not negotiated yet"
