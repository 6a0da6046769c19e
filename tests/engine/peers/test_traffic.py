"""Traffic through a sample of the peers: every packet is found again, and what is lost is counted as lost."""

from __future__ import annotations

from pathlib import Path

from tests.support.load_lab import LoadShell, static_lab

TRAFFIC = {"peers": 8, "to": "10.100.0.2", "rate": "10/s"}


def test_packets_go_both_ways_through_both_versions_and_paths(tmp_path: Path) -> None:
    shell = LoadShell(static_lab(tmp_path, peers=16, traffic=TRAFFIC), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 16, 30.0)
    before = shell.status("peers")["traffic"]
    shell.pass_time(5.0)
    traffic = shell.status("peers")["traffic"]
    # Eight peers, ten a second, five seconds; what waits for an answer is not among those sent.
    assert 390 <= traffic["sent"] - before["sent"] <= 410
    assert (traffic["lost"], traffic["late"], traffic["drops"]) == (0, 0, {})
    assert traffic["received"] == traffic["sent"]
    assert 0 < traffic["round_trip"]["p50_ms"] < 100
    sadb = shell.engines["peers"].traffic._sadb
    assert {tunnel for (tunnel, _), sa in sadb.outbound.items() if sa.packets > 45} == set(range(1, 9))
    assert {tunnel for (tunnel, _), sa in sadb.inbound.items() if sa.decapsulated > 45} == set(range(1, 9))


def test_packets_that_do_not_come_back_are_lost_and_not_those_of_a_peer_that_goes(tmp_path: Path) -> None:
    shell = LoadShell(static_lab(tmp_path, peers=8, traffic=TRAFFIC), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 8, 30.0)
    shell.pass_time(3.0)
    engine = shell.engines["peers"]
    received = engine.traffic.receive
    engine.traffic.receive = lambda body, lengths, now: ([], [])  # type: ignore[method-assign]
    shell.pass_time(1.0)
    engine.traffic.receive = received  # type: ignore[method-assign]
    shell.pass_time(3.0)
    traffic = shell.status("peers")["traffic"]
    assert 72 <= traffic["lost"] <= 88
    assert traffic["received"] + traffic["lost"] == traffic["sent"]
    shell.command("peers", "down")
    shell.pass_time(5.0)
    after = shell.status("peers")["traffic"]
    assert (after["lost"], after["waiting"], after["sending"]) == (traffic["lost"], 0, 0)
    assert after["received"] + after["lost"] == after["sent"]


def test_a_peer_answers_pings_through_its_tunnel(tmp_path: Path) -> None:
    shell = LoadShell(static_lab(tmp_path, peers=2, traffic={**TRAFFIC, "peers": 2, "rate": 0.1}), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 2, 30.0)
    shell.pass_time(1.0)
    ping = {"context": "private", "address": "10.112.0.5", "source": "10.100.0.1", "count": 3}
    assert shell.ask("hub", "ping", ping)["received"] == 3
    assert shell.status("peers")["traffic"]["answered"] == 3
