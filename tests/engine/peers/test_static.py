"""Peers with addresses, for which the gateway has static tunnels: main mode and IKEv2, both ways of forwarding."""

from __future__ import annotations

from pathlib import Path

from tests.support.load_lab import LoadShell, static_lab


def test_static_pairs_of_both_versions_and_paths_come_up_and_go(tmp_path: Path) -> None:
    shell = LoadShell(static_lab(tmp_path), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 8, 30.0)
    report = shell.status("peers")
    assert (report["setups"], report["lost"], report["failures"]) == (8, 0, {})
    rows = shell.ask("hub", "tunnels", {"detail": True})["tunnels"]
    kinds = {(row["kind"], row["local"], row["mode"], row["ike_version"]) for row in rows if row["up"]}
    assert len(kinds) == 8, rows
    assert {row["asp"] for row in rows} == {"asp 2/1", "asp 2/2"}
    shell.command("peers", "down")
    shell.wait_until(lambda: not any(row["up"] for row in shell.ask("hub", "tunnels", {})["tunnels"]), 10.0)


def test_static_pairs_by_name_with_other_proposals(tmp_path: Path) -> None:
    proposals = {
        "ike_proposal": {
            "encryption": "3des-cbc",
            "authentication": "hmac-md5-96",
            "dh-group": 5,
            "lifetime": 7200,
        },
        "ipsec_proposal": {"encryption": "aes-256-cbc", "authentication": "hmac-sha1-96", "pfs-group": 2},
    }
    names = {"identity": "p{number}.example", "remote_id": "hub.example"}
    shell = LoadShell(static_lab(tmp_path, peers=4, **names, **proposals), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 4, 30.0)
    rows = shell.ask("hub", "tunnels", {"detail": True})["tunnels"]
    assert {row["identity"] for row in rows if row["up"]} == {f"p{number}.example" for number in range(1, 5)}
