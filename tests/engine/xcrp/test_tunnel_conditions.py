"""What a tunnel needs to be up (S-107), the reason given for the first thing that is missing, and routes."""

from __future__ import annotations

import pytest

from chassis.bus.records import LocalAddressRecord, PolicyRecord, PortRecord, TunnelRecord
from chassis.model.ipsec import ManualSa
from chassis.net.address import parse_address
from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, booted, sa

CONDITIONS = [
    ("tunnel ipsec Tun-1 manual\n", "tunnel ipsec Tun-1 manual\n  shutdown\n", "shutdown"),
    ("bind interface TI-1 C1", "bind interface TI-9 C1", "no interface binding"),
    ("bind interface TI-1 C1", "bind interface TI-1 C9", "no interface binding"),
    ("interface Tun-1-Local loopback\n    ip address 1.1.1.1/32", "interface Tun-1-Local loopback",
        "end point not configured"),
    ("remote 3.3.3.3 context L1", "remote 3.3.3.3 context L9", "end point not configured"),
    ("  asp-group G1 service security\n", "", "no Security service"),
    ("  asp-group G1 service security\n", "  asp-group G9 service security\n", "no Security service"),
    ("asp pool P1 service security\n  asp 2/1\n", "", "no Security service"),
    ("security-association sa-1 access", "security-association sa-9 access", "manual SA not configured: sa-9"),
    ("  seq 10 security-association sa-1 access-group acl-C1\n", "", "manual SA not configured"),
    ("sa-1 access-group acl-C1", "sa-1 access-group acl-C9", "access list: acl-C9"),
    ("  bind interface TI-1 C1\n", "  bind interface TI-1 C1\n  qos policy queuing q9\n", "QoS policy: q9"),
    ("  ip route 3.3.3.3/32 4.4.4.4\n", "", "no route to the peer"),
    ("  ip route 3.3.3.3/32 4.4.4.4\n", "  ip route 3.3.3.3/32 9.9.9.9\n", "no route to the peer"),
    ("bind interface peer-1 L1\n", "bind interface peer-1 L1\n  shutdown\n", "no route to the peer"),
]  # fmt: skip


@pytest.mark.behaviour("B-017", "B-024", "B-041", "B-209")
@pytest.mark.parametrize(("old", "new", "reason"), CONDITIONS)
def test_one_missing_thing(old: str, new: str, reason: str) -> None:
    assert old in HIGH_AVAILABILITY
    text = HIGH_AVAILABILITY.replace(old, new)
    node = booted(text)
    row = node.tunnel("Tun-1")
    assert (row["up"], row["reason"], row["circuit"]) == (False, reason, 0)
    assert node.tunnel("Tun-2")["up"]
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-2"]
    # The repaired configuration brings it up without anything else.
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]


def test_without_a_port_card_there_is_no_circuit() -> None:
    text = "".join(
        line for line in HIGH_AVAILABILITY.splitlines(keepends=True) if not line.startswith("card ether")
    ).replace("card ge-10-port 4\n", "")
    node = booted(text)
    assert node.tunnel("Tun-1")["reason"] == "no line card"
    assert node.tunnel("Tun-2")["reason"] == "no route to the peer"


@pytest.mark.behaviour("B-020")
def test_a_local_end_on_a_port_follows_it() -> None:
    text = HIGH_AVAILABILITY.replace("local 1.1.1.1", "local 4.4.4.1")
    node = booted(text)
    assert node.tunnel("Tun-1")["up"]
    node.carrier_event("3/11", False)
    assert node.tunnel("Tun-1")["reason"] == "end point not configured"
    node.carrier_event("3/11", True)
    node.run(0.1)
    node.kill_card("lc 3")
    assert node.tunnel("Tun-1")["reason"] == "line card down"


def test_asp_says_why_it_has_no_sa() -> None:
    node = booted(HIGH_AVAILABILITY)
    assert node.controller is not None
    number = node.tunnel("Tun-1")["number"]
    from chassis.bus.messages import TunnelEvent

    down = TunnelEvent(number, False, "sequence numbers used up", 0)
    node.perform(node.controller.receive("asp 2/1", down, node.now))
    node.run(0.01)
    assert node.tunnel("Tun-1")["reason"] == "SAs not installed: sequence numbers used up"
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-2"]
    # Nobody else's word counts.
    node.perform(node.controller.receive("asp 2/2", TunnelEvent(number, True, "", 0), node.now))
    node.run(0.01)
    assert not node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-021", "B-170")
def test_equal_costs_into_tunnels_go_by_the_interface_name() -> None:
    node = booted(HIGH_AVAILABILITY.replace("TI-1 cost 5", "TI-1 cost 10"))
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-1", "Tun-2"]
    text = HIGH_AVAILABILITY.replace("TI-1", "TX-1").replace("TX-1 cost 5", "TX-1 cost 10")
    assert booted(text).hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-2", "Tun-1"]


@pytest.mark.behaviour("B-183")
def test_next_hop_through_a_tunnel_network_and_through_an_interface() -> None:
    text = HIGH_AVAILABILITY + (
        "context C1\n  ip route 10.0.0.0/8 192.168.2.2\n  ip route 0.0.0.0/0 172.168.2.254\n"
        "  ip route 11.0.0.0/8 private-interface\n"
    )
    node = booted(text)
    assert node.hops("lc 3", "C1", "10.0.0.0/8") == ["Tun-1"]
    assert node.hops("lc 3", "C1", "0.0.0.0/0") == ["3/1"]
    default = node.route("lc 3", "C1", "0.0.0.0/0")
    direct = node.route("lc 3", "C1", "11.0.0.0/8")
    assert default is not None
    assert direct is not None
    assert default.next_hops[0].address == parse_address("172.168.2.254")
    assert (direct.next_hops[0].port, direct.next_hops[0].address) == ("3/1", 0)
    node.kill_card("asp 2/1")
    assert node.hops("lc 4", "C1", "10.0.0.0/8") == []


@pytest.mark.behaviour("B-020")
def test_connected_before_static_and_longest_network_first() -> None:
    text = HIGH_AVAILABILITY + (
        "context L1\n  interface wide\n    ip address 4.0.0.1/8\n"
        "  ip route 4.4.4.0/24 4.0.0.9\n"
        "port ethernet 4/3\n  no shutdown\n  bind interface wide L1\n"
    )
    node = booted(text, *HA_PORTS, "4/3")
    assert node.hops("lc 3", "L1", "4.4.4.0/24") == ["3/11", "4/3"]
    # The next hop 4.4.4.4 lies in both networks: the longer one counts while its port is up.
    assert node.hops("lc 3", "L1", "3.3.3.3/32") == ["3/11", "4/3"]
    assert node.tunnel("Tun-1")["home"] == "lc 3"
    node.carrier_event("3/11", False)
    assert node.hops("lc 3", "L1", "3.3.3.3/32") == ["4/3"]
    assert node.tunnel("Tun-1")["home"] == "lc 4"


def test_management_port_is_up_but_never_transit() -> None:
    text = HIGH_AVAILABILITY.replace(
        "  ip route 3.3.3.3/32 4.4.4.4\n", "  ip route 3.3.3.3/32 10.192.17.254\n"
    ) + (
        "context L1\n  interface mgmt\n    ip address 10.192.16.250/23\n"
        "port ethernet 7/1\n  no shutdown\n  bind interface mgmt L1\n"
    )
    node = booted(text)
    assert node.hops("lc 3", "L1", "10.192.16.0/23") == ["7/1"]
    assert node.hops("lc 3", "L1", "3.3.3.3/32") == ["7/1"]
    assert node.tunnel("Tun-1")["reason"] == "no route to the peer"
    rows = {row["port"]: row for row in node.ask("status")["ports"]}
    assert rows["7/1"]["up"]


def test_contexts_are_apart() -> None:
    text = HIGH_AVAILABILITY.replace("5.5.5.1/24", "4.4.4.1/24").replace(
        "3.3.3.4/32 5.5.5.5", "3.3.3.4/32 4.4.4.4"
    )
    node = booted(text)
    assert node.hops("lc 3", "L1", "4.4.4.0/24") == ["3/11"]
    assert node.hops("lc 3", "L2", "4.4.4.0/24") == ["4/1"]
    assert node.tunnel("Tun-1")["home"] == "lc 3"


def test_local_addresses_belong_to_the_asp_that_terminates_there() -> None:
    node = booted(HIGH_AVAILABILITY)
    assert node.controller is not None
    contexts = node.controller.node.plan.contexts
    owners = {
        (record.context, record.address): record.owner
        for record in node.cards["lc 3"].replica.records.values()
        if isinstance(record, LocalAddressRecord)
    }
    assert owners[contexts["L1"], parse_address("1.1.1.1")] == "asp 2/1"
    assert owners[contexts["L2"], parse_address("2.2.2.2")] == "asp 2/2"
    assert owners[contexts["L1"], parse_address("4.4.4.1")] == ""


def test_what_the_cards_learn_of_a_tunnel_and_its_sa() -> None:
    text = HIGH_AVAILABILITY.replace(
        "tunnel ipsec Tun-1 manual\n",
        "ipsec qos policy q pq\n  num-queues 4\ntunnel ipsec Tun-1 manual\n  mtu 1280\n  df-bit clear\n"
        "  qos policy queuing q\n",
    )
    node = booted(text)
    records = node.cards["asp 2/1"].replica.records
    tunnel = records["tunnel", 1]
    assert isinstance(tunnel, TunnelRecord)
    assert (tunnel.config.mtu, tunnel.config.df_bit, tunnel.queues, tunnel.up, tunnel.asp) == (
        1280, "clear", 4, True, "asp 2/1",
    )  # fmt: skip
    assert (tunnel.local, tunnel.remote) == (parse_address("1.1.1.1"), parse_address("3.3.3.3"))
    assert [(entry.seq, entry.sa, entry.acl) for entry in tunnel.config.entries] == [(10, "sa-1", "acl-C1")]
    made = records["manual-sa", "sa-1"]
    assert isinstance(made, PolicyRecord)
    assert isinstance(made.value, ManualSa)
    assert made.value.replay_window == 64
    keys = made.value.keys("out")
    assert keys == made.value.keys("in")
    assert (keys.esp_spi, keys.esp_integrity) == (301, "hmac-sha1-96")
    assert keys.esp_integrity_key == (301).to_bytes(20, "big")
    assert keys.esp_cipher_key == (301).to_bytes(16, "big")
    assert "\\x01" not in repr(made)


def test_hardware_addresses_are_unicast_local_and_all_different() -> None:
    node = booted(HIGH_AVAILABILITY)
    macs = [r.mac for r in node.cards["lc 3"].replica.records.values() if isinstance(r, PortRecord)]
    assert len(set(macs)) == len(macs) == 3
    assert all(len(mac) == 6 and mac[0] & 3 == 2 for mac in macs)


@pytest.mark.behaviour("B-037")
def test_two_protocols_of_one_sa() -> None:
    text = HIGH_AVAILABILITY.replace("sa-1 access", "sa-both access") + (
        "ipsec security-association sa-both\n  anti-replay-window 128\n  in\n    ah spi 700\n    ah key 0x"
        + "11" * 20
        + "\n    esp spi 701\n    esp encryption des-cbc key 12345678\n  out\n    ah spi 800\n"
        "    ah hmac-md5-96 key 0x" + "22" * 16 + "\n    esp spi 801\n    esp encryption des-cbc key 87654321\n"
    )
    node = booted(text + sa("unused", 999))
    made = node.cards["asp 2/1"].replica.records["manual-sa", "sa-both"]
    assert isinstance(made, PolicyRecord)
    assert isinstance(made.value, ManualSa)
    inbound, outbound = made.value.keys("in"), made.value.keys("out")
    assert (made.value.replay_window, inbound.ah_spi, inbound.esp_spi) == (128, 700, 701)
    assert (outbound.ah_spi, outbound.esp_spi) == (800, 801)
    assert (inbound.ah_integrity, outbound.ah_integrity) == ("hmac-sha1-96", "hmac-md5-96")
    assert (inbound.esp_cipher, inbound.esp_cipher_key) == ("des-cbc", b"12345678")
    assert inbound.esp_integrity == ""
    assert node.keys_of("asp 2/1") == {"sa-both"}
    assert node.controller is not None
    assert {use.split(" ", 1)[1] for use in node.controller.node.numbers.leases[1, 10].uses} == {
        "esp 801",
        "ah 800",
    }
