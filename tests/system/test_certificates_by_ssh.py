"""Two routers get certificates from operators who are logged in over SSH, and nothing shows a private key."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.authority import Authority
from tests.support.chassisctl import chassisctl
from tests.support.key_search import found, private_parts
from tests.support.pki_typing import (
    ADDRESSES,
    CONTEXT,
    HEAD,
    TUNNEL,
    Typist,
    judged,
    openssl_verifies,
    private_key,
    signing,
    typist,
    written,
)
from tests.system.test_no_key_is_seen import asked, left, processes

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


async def killed_while_it_makes_a_key(lab: LabClient, at: Typist) -> None:
    """The controller is killed while it makes a key that takes minutes: there is no file of it, and no session."""
    at.shell.type("add pki key-pair long rsa 16384\r")
    lab.wait_until(lambda: lab.node("a").call("identity"), within=60)
    lab.kill("a", "xcrp")
    await at.until("a#")
    lab.wait_until("cards of a up", within=60)
    said = await at.run("show pki key-pair")
    assert "No key pairs" in said
    assert "long" not in said.replace("key-pair", "")


async def certified(lab: LabClient, authority: Authority, imported: str) -> tuple[str, list[str]]:
    """Give router a a key pair of its own and router b one that is pasted, and both their certificates; return
    what the terminals showed, and the requests."""
    async with typist(lab, "a", CONTEXT) as a, typist(lab, "b", CONTEXT) as b:
        await killed_while_it_makes_a_key(lab, a)
        assert "Key pair own of 2048 bits is made" in await a.run("add pki key-pair own rsa 2048")
        assert "Imported key pair pasted" in await b.paste("import pki key-pair pasted rsa", imported)
        requests = [
            await at.certify(pair, ADDRESSES[at.router], authority) for at, pair in ((a, "own"), (b, "pasted"))
        ]
        for at in (a, b):
            for line in ("show pki key-pair", "show pki certificate self rsa", "show history", "show log", "dir"):
                await at.run(line)
        return a.seen + b.seen, requests


@pytest.mark.behaviour("B-055", "B-056", "B-057", "B-058")
def test_certificates_that_are_typed_in_bring_up_tunnels_of_both_versions(
    lab_factory: LabFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    authority = Authority()
    imported = authority.issue("b", ADDRESSES["b"]).key
    lab = lab_factory(written(tmp_path, 2, HEAD))
    assert lab.run is not None
    monkeypatch.setenv("CHASSIS_RUN", str(lab.run.parent))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    recording = tmp_path / "bus.jsonl"
    watching = chassisctl(lab, "bus", "--record", recording, **pipes)
    lab.wait_until(lambda: recording.exists() and recording.stat().st_size > 0, within=60)
    capture = tmp_path / "wire.pcapng"
    lab.capture("b", "port 3/11", capture)
    said, requests = asyncio.run(certified(lab, authority, imported))
    lab.wait_until("tunnels up", within=60)

    # The same certificates serve version 1.
    for router in ADDRESSES:
        lab.node(router).call("apply", text=signing(1, router))
    lab.ask("a", "clear", {"tunnel": TUNNEL, "what": "all"})
    lab.wait_until(lambda: all(_version(lab, router) == 1 for router in ADDRESSES), within=60)
    lab.wait_until("tunnels up", within=60)
    # Alarms are looked for once a second.
    lab.wait_until(lambda: not certificate_alarms(lab, "a"), within=60)

    for request, (router, address) in zip(requests, ADDRESSES.items(), strict=True):
        text = judged(request)
        assert f"CN = router {router}" in text
        assert f"IP Address:{address}" in text
        assert "Digital Signature" in text
        assert openssl_verifies(lab, router, CONTEXT)
    watching.send_signal(signal.SIGINT)
    keys = private_parts(private_key(lab, "a", CONTEXT, "own"))
    keys |= {f"imported {name}": part for name, part in private_parts(imported).items()}
    state = lab.run.parents[1] / "s" / lab.run.name
    seen = {
        "the terminals": said.encode(),
        "the watcher of the bus": b"".join(watching.communicate(timeout=60)),
        str(recording): recording.read_bytes(),
        str(capture): capture.read_bytes(),
        **{f"{word} of {router}": asked(word, router) for router in ADDRESSES for word in ("log", "config")},
        **dict(left(lab.run, state)),
        **dict(processes(lab)),
    }
    assert [(name, hits) for name, output in seen.items() if (hits := found(keys, output))] == []
    # The search had something to search in, and finds what is there.
    assert "Enter the private key identifier: own" in said
    assert b"IkePolicy" in seen[str(recording)]
    assert set(found(keys, private_key(lab, "b", CONTEXT, "pasted").encode())) == {
        name for name in keys if name.startswith("imported")
    }
    assert b"IKE" in seen["log of a"]


def certificate_alarms(lab: LabClient, router: str) -> list[dict[str, Any]]:
    return [row for row in lab.node(router).call("alarms")["alarms"] if "ertificate" in row["alarm"]]


def _version(lab: LabClient, router: str) -> int:
    """The IKE version of the SAs that the tunnel has; 0 without one."""
    cards = lab.ask(router, "ike", {"tunnel": TUNNEL, "what": "sas"})["cards"]
    found = [sa["version"] for card in cards.values() for row in card["tunnels"] for sa in row["ike"]]
    return max(found, default=0)
