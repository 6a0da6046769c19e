"""Files and restarts of a running router by its own CLI: save, reload, a lab that starts again, reload of an ASP,
and ping and traceroute through a tunnel."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chassisctl import ending
from tests.support.lab_files import MANUAL_KEYS, calm
from tests.support.processes import eventually, lives
from tests.support.terminal import TerminalRig
from tests.system.test_cli import run

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


class Router:
    """Router `a` of the lab, with a terminal at its CLI."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab
        assert lab.folder is not None
        self.flash: Path = lab.folder / "s" / "manual-keys" / "a" / "flash"

    @property
    def text(self) -> str:
        return str(self.lab.node("a").call("config", keys=False)["text"])

    def describe(self, word: str) -> None:
        """Commit a change."""
        lines = f"port ethernet 3/1\n description {word}\n"
        assert self.lab.node("a").call("commit", lines=lines, user="test")["applied"]

    def boots(self) -> dict[str, int]:
        return {row["card"]: row["boot"] for row in self.lab.node("a").status()["cards"]}

    def facts(self) -> dict[str, Any]:
        assert self.lab.run is not None
        facts: dict[str, Any] = json.loads((self.lab.run / "lab.json").read_text())
        return facts


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calm(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory, file: Path) -> LabClient:
    return shared_lab_factory(file)


def test_ping_traceroute_and_a_reloaded_asp(lab: LabClient) -> None:
    lab.wait_until("tunnels of a up", within=60)
    router = Router(lab)
    for name, network in (("a", "60.0.0.0/16"), ("b", "50.0.0.0/16")):
        lines = f"context lan\n ip route {network} to-circuit\n"
        assert lab.node(name).call("commit", lines=lines, user="test")["applied"]
    there = {"context": "lan", "address": "60.0.0.1", "source": "50.0.0.254", "count": 1}
    lab.wait_until(lambda: lab.node("a").call("ping", **there)["received"])
    rig = TerminalRig(lab)
    with ending(rig.process):
        rig.until("[local]a#")
        rig.type("context lan\r")
        rig.until("[lan]a#")
        rig.type("ping\r60.0.0.1\r3\r100\r20\ry\r50.0.0.254\r")
        said = rig.until("0.0% packet loss\r\n")
        assert (
            "PING 60.0.0.1 (60.0.0.1): source 50.0.0.254, 100 data bytes,\r\ntimeout is 20 seconds\r\n!!!\r\n"
            in said
        )
        rig.until("[lan]a#")
        rig.type("traceroute 60.0.0.1 source 50.0.0.254\r")
        said = rig.until("[lan]a#")
        assert re.search(r"\r\n 1   55\.0\.1\.2  [0-9.]+ ms  [0-9.]+ ms  [0-9.]+ ms\r\n", said)
        assert re.search(r"\r\n 2   60\.0\.0\.1  [0-9.]+ ms  [0-9.]+ ms  [0-9.]+ ms\r\n", said)

        # What is shown counts from a clear on; what cards count does not change.
        lab.stop()
        lab.drain()
        rig.type("clear counters\r")
        rig.until("[lan]a#")
        rig.type("ping 60.0.0.1 4 source 50.0.0.254\r")
        rig.until("0.0% packet loss\r\n")
        rig.until("[lan]a#")
        (shown,) = json.loads(run(lab, "show tunnel ipsec name circuit statistics | json")[0])
        assert (shown["encapsulated"]["packets"], shown["decapsulated"]["packets"]) == (4, 4)
        (reply,) = lab.node("a").call("sas", tunnel="circuit")["cards"].values()
        assert reply["tunnels"][0]["encapsulated"]["packets"] >= 4 + 3 + 6
        (circuit,) = [
            row
            for row in json.loads(run(lab, "show circuit counters | json")[0])["circuits"]
            if row["name"] == "circuit"
        ]
        assert circuit["counters"]["packets_out"] == 4
        account = lab.accounting()
        assert (account.unexplained, account.residual) == ({}, 0)

        boot = router.boots()["asp 1/1"]
        other = router.boots()["asp 1/2"]
        rig.type("reload asp 1/1\ry\r")
        rig.until("Reloading asp 1/1\r\n")
        rig.until("[lan]a#")
        lab.wait_until(lambda: router.boots()["asp 1/1"] > boot, within=60)
        lab.wait_until("tunnels of a up", within=60)
        assert router.boots()["asp 1/2"] == other
        rig.type("context wan\rclear arp-cache\r")
        rig.until("Cleared arp entries: 1\r\n")
        rig.type("ping 40.0.0.2\r")
        rig.until("0.0% packet loss\r\n")
        rig.type("exit\r")
        rig.process.wait(timeout=60)
    os.close(rig.screen)
    assert (
        run(lab, "ping 40.9.9.9 1")[0].splitlines()[0] == "% Error: lc 3: the context has no address to ping from"
    )


def test_save_reload_and_a_lab_that_starts_again(lab: LabClient, file: Path) -> None:
    lab.wait_until("tunnels of a up", within=60)
    router = Router(lab)
    assert router.flash.is_dir()
    router.describe("one")
    rig = TerminalRig(lab)
    with ending(rig.process):
        rig.until("[local]a#")
        rig.type("save configuration\r")
        assert "Save to file: /flash/redback.cfg\r\n" in rig.until("[local]a#")
        saved = (router.flash / "redback.cfg").read_text()
        assert " description one\n" in saved
        keys = re.findall(r"key 0x([0-9a-f]+)", MANUAL_KEYS.with_name("a.cfg").read_text())
        assert keys
        assert not [key for key in keys if key in saved]
        rig.type("dir /flash\r")
        assert "  redback.cfg\r\n" in rig.until("[local]a#")

        # What was saved last is what a reload brings back: the rest is dropped.
        router.describe("two")
        before = router.boots()
        cards = router.facts()["nodes"]["a"]["cards"]
        controller, sessions = cards["xcrp"]["boot"], cards["mgmt"]["pid"]
        rig.type("reload\r")
        assert "what is not saved is lost" in rig.until("Proceed with reload? (y/n) ")
        rig.type("y\r")
        rig.until("Reloading with /flash/redback.cfg\r\n")
        lab.wait_until(lambda: router.facts()["nodes"]["a"]["cards"]["xcrp"]["boot"] > controller, within=60)
        lab.wait_until(lambda: all(boot > before[card] for card, boot in router.boots().items()), within=60)
        lab.wait_until("cards of a up", within=60)
        assert " description one\n" in router.text
        # The process that holds the operators' sessions is none of the router's cards.
        assert router.facts()["nodes"]["a"]["cards"]["mgmt"]["pid"] == sessions
        rig.type("exit\r")
        rig.process.wait(timeout=60)
    os.close(rig.screen)

    # Everything is killed: a start goes on with what was committed, not with what was saved.
    router.describe("three")
    facts = router.facts()
    pids = [card["pid"] for node in facts["nodes"].values() for card in node.get("cards", {}).values()]
    os.kill(facts["launcher"], signal.SIGKILL)
    eventually(lambda: not any(map(lives, pids)), "every process ends with the launcher")
    assert lab.run is not None
    environment = {**os.environ, "CHASSIS_RUN": str(lab.run.parent), "CHASSIS_STATE": str(router.flash.parents[2])}
    command = [sys.executable, "-c", "from launch.main import main; main()", str(file), "--detach", "--with-pid"]
    again = subprocess.run(
        [*command, str(os.getpid())], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    lab.wait_until("cards of a up", within=60)
    assert " description three\n" in router.text
    assert (router.flash / "redback.cfg").read_text() == saved
