"""The two clear commands of the guide (11) at running routers, typed in the CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import CONFIGS
from tests.support.lab_files import CALM, MANUAL_KEYS
from tests.system.test_cli import run

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


def commit(lab: LabClient, node: str, lines: str) -> None:
    assert lab.node(node).call("commit", lines=lines, user="test")["applied"]


def outbound(lab: LabClient, tunnel: str) -> set[int]:
    """Serial numbers of the outbound SAs of a tunnel of a."""
    return {sa["serial"] for sa in lab.node("a").tunnel(tunnel)["sas"] if sa["direction"] == "out"}


def algorithms(lab: LabClient) -> str:
    return " ".join(sorted({str(sa["algorithms"]) for sa in lab.node("a").tunnel("rec_1_1")["sas"]}))


def ike_key_octets(lab: LabClient) -> set[int]:
    replies = lab.ask("a", "keys", {"tunnel": "rec_1_1"})["cards"].values()
    return {len(row["key"]) // 2 for reply in replies for row in reply["keys"]}


@pytest.mark.behaviour("B-193", "B-195", "B-196", "B-198")
def test_a_changed_proposal_waits_for_the_clear_of_its_tunnel(lab_factory: LabFactory) -> None:
    lab = lab_factory(CONFIGS / "site-to-site" / "lab.yaml")
    lab.wait_until("tunnels up", within=60)
    lab.wait_until(lambda: outbound(lab, "rec_1_1"))
    before = outbound(lab, "rec_1_1")
    assert "3des-cbc" in algorithms(lab)
    for node in ("a", "b"):
        commit(lab, node, "ipsec proposal ipsec-prop\n esp encryption aes-256-cbc\n")
    assert outbound(lab, "rec_1_1") == before
    assert "3des-cbc" in algorithms(lab)
    assert run(lab, "clear ipsec sa tunnel rec_1_1") == ("", 0)
    lab.wait_until(lambda: outbound(lab, "rec_1_1") and not outbound(lab, "rec_1_1") & before, within=60)
    lab.wait_until("tunnels up", within=60)
    assert "aes-256-cbc" in algorithms(lab)
    assert "3des-cbc" not in algorithms(lab)

    for node in ("a", "b"):
        commit(lab, node, "ike proposal ike-prop\n encryption algorithm aes-256-cbc\n")
    # Keys of DES have 8 octets, those of AES-256 have 32.
    assert ike_key_octets(lab) == {8}
    assert run(lab, "clear ike sa tunnel rec_1_1") == ("", 0)
    lab.wait_until(lambda: ike_key_octets(lab) == {32}, within=60)
    lab.wait_until("tunnels up", within=60)


@pytest.mark.behaviour("B-195", "B-197")
def test_cleared_manual_sas_are_made_anew_and_no_other_tunnel_is_touched(lab_factory: LabFactory) -> None:
    lab = lab_factory(MANUAL_KEYS, flows=CALM)
    lab.wait_until("tunnels up", within=60)

    def packets() -> dict[str, int]:
        """What the outbound SA of each tunnel has protected."""
        rows = [row for reply in lab.ask("a", "sas", {})["cards"].values() for row in reply["tunnels"]]
        return {row["name"]: sum(sa["packets"] for sa in row["sas"] if sa["direction"] == "out") for row in rows}

    lab.wait_until(lambda: min(packets().values()) > 50, within=60)
    lab.stop()
    lab.drain()
    before = packets()
    assert run(lab, "clear ipsec sa tunnel circuit") == ("", 0)
    assert packets() == {**before, "circuit": 0}
    lab.wait_until("tunnels up", within=60)
    lab.start("circuit-forward")
    lab.wait_until(lambda: lab.report("circuit-forward")["received"] > before["circuit"] + 20, within=60)
    assert run(lab, "clear ike sa tunnel circuit") == (
        "% Error: tunnel circuit has manual keys: it has no IKE SA\n", 1
    )  # fmt: skip
