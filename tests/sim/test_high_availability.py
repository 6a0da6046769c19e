"""Two tunnels to one gateway on two ASPs, with either version of IKE: one ASP dies and comes back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import CONFIGS
from tests.support.sim_shell import SimShell

LAB = CONFIGS / "high-availability" / "lab.yaml"
BURST = 100


def written(folder: Path, version: int) -> Path:
    """The lab with proposals and policies of this version; a dead ASP stays away for ten seconds."""
    for router in ("ha", "gateway"):
        text = (LAB.parent / f"{router}.cfg").read_text()
        text, count = re.subn(r"\bike (proposal|policy) ", r"ike2 \1 " if version == 2 else r"ike \1 ", text)
        assert count == 3
        (folder / f"{router}.cfg").write_text(text)
    text = LAB.read_text().replace("settings: {", "settings: {restart-delay: 10s, ")
    (folder / "lab.yaml").write_text(text)
    return folder / "lab.yaml"


def carried(shell: SimShell) -> dict[str, int]:
    """Send a burst of both flows; return how many packets each tunnel of `ha` encapsulated for it."""

    def counts() -> dict[str, int]:
        cards = shell.ask("ha", "sas", {})["cards"].values()
        return {row["name"]: row["encapsulated"]["packets"] for card in cards for row in card["tunnels"]}

    before = counts()
    shell.send(BURST)
    return {name: count - before.get(name, 0) for name, count in counts().items()}


@pytest.mark.behaviour("B-201", "B-202", "B-203", "B-205")
@pytest.mark.parametrize("version", [1, 2])
def test_traffic_moves_to_the_second_tunnel_and_back(tmp_path: Path, version: int) -> None:
    shell = SimShell(written(tmp_path, version))
    shell.wait_until(shell.tunnels_up)
    assert {row["ike_version"] for row in shell.ask("ha", "status", {})["tunnels"]} == {version}
    assert carried(shell) == {"Tun-1": BURST, "Tun-2": 0}
    shell.routers["ha"].cards["asp 2/1"].kill()
    shell.wait_until(lambda: not shell.tunnels_up())
    assert carried(shell) == {"Tun-2": BURST}
    shell.wait_until(shell.tunnels_up)
    assert carried(shell) == {"Tun-1": BURST, "Tun-2": 0}
    flows = shell.flows()
    assert flows["forward"]["lost"] == 0
    assert flows["reverse"]["received"] >= 2 * BURST
