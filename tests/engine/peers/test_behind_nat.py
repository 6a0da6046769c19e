"""Peers behind NAT: many share one outer address, and their ESP is in UDP."""

from __future__ import annotations

from pathlib import Path

from chassis.net.ethernet import HEADROOM, header
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp
from chassis.peers.nat import FIRST_INSIDE, FIRST_PORT
from chassis.tester.host import frames_batch
from tests.support import CONFIGS
from tests.support.load_lab import LoadShell

CHANGES = {"peers": 6, "nat": 4, "start": "auto", "rate": 50}
TRAFFIC = {"to": "10.100.0.2", "rate": 2}


def test_peers_of_both_versions_share_outer_addresses(tmp_path: Path) -> None:
    shell = LoadShell(CONFIGS / "load" / "lab.yaml", tmp_path, **CHANGES, of={"branches": {"traffic": TRAFFIC}})
    shell.wait_until(lambda: all(shell.status(node)["up"] == 6 for node in shell.engines), 30.0)
    shell.wait_until(lambda: len(shell.instances()) == 12, 5.0)
    rows = shell.ask("hub", "tunnels", {"kind": "on-demand", "detail": True})["tunnels"]
    remotes = [row["remote"] for row in rows if row.get("identity")]
    assert {remote: remotes.count(remote) for remote in remotes} == {
        "10.9.0.1": 4, "10.9.0.2": 2, "10.10.0.1": 4, "10.10.0.2": 2,
    }  # fmt: skip
    shell.pass_time(25.0)
    for node in shell.engines.values():
        for number in range(1, 7):
            node._parked.unpark(number, shell.run.world.now)
        sessions = node._ike.ike_sa_manager.table.by_spi.values()
        assert {session.path.local_port for session in sessions} == {4500}
    traffic = shell.status("branches")["traffic"]
    assert traffic["received"] == traffic["sent"] > 250
    assert (traffic["lost"], traffic["drops"]) == (0, {})
    sadb = shell.engines["branches"].traffic._sadb
    assert all(sa.sa.udp is not None for sa in sadb.outbound.values())
    # The other node's peers send nothing but keepalives, which keep their mappings alive (RFC 3948 4).
    cards = [dict(shell.routers["hub"]._counters_of(f"asp 2/{place}").items()) for place in (1, 2)]
    assert sum(card["nat keepalives received"] for card in cards) >= 6
    for name in shell.engines:
        shell.command(name, "down")
    shell.wait_until(lambda: not shell.instances(), 5.0)


def test_a_long_datagram_passes_the_nat_in_fragments(tmp_path: Path) -> None:
    shell = LoadShell(CONFIGS / "load" / "lab.yaml", tmp_path, **CHANGES)
    engine = shell.engines["branches"]
    gateway, outside, mac = engine.spec.gateways[0], engine.spec.first, engine._host.mac

    def datagram(source: int, port: int, destination: int, to: int) -> Ipv4:
        data = Udp(port, to, bytes(range(250)) * 12).emit((source, destination))
        return Ipv4(source, destination, PROTOCOL_UDP, data, identification=7)

    sent = engine._to_frame(datagram(FIRST_INSIDE, 500, gateway, 500).emit(), mac)
    assert [len(frame) for frame in sent] == [1514, 1514, 68 + HEADROOM]
    whole = datagram(outside, FIRST_PORT, gateway, 500)
    assert [frame[HEADROOM:] for frame in sent] == [piece.emit() for piece in fragment(whole, 1500)]

    pieces = [header(mac, mac) + one.emit() for one in fragment(datagram(gateway, 500, outside, FIRST_PORT), 1500)]
    for count, frame in enumerate(reversed(pieces)):
        assert dict(engine.counters.items()).get("datagrams received", 0) == 0, count
        engine.receive_frames("1", frames_batch([frame]), 1.0)
    assert dict(engine.counters.items())["datagrams received"] == 1
