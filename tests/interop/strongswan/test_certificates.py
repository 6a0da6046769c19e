"""A whole router and strongSwan: certificates typed in over SSH or from the flash, and one that has expired."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.authority import Authority, Issued
from tests.support.charon import CONFIGURATION, PLUGINS, PROGRAM, Auth, Conn, require, swanctl_conf
from tests.support.pki_typing import HEAD, judged, openssl_verifies, typist
from tests.support.strongswan_lab import LAB, LOAD, PEER, ROUTER, RULE, START, US, VICI, Swan

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

PLACE = "#!/bin/sh\nmkdir -p x509ca x509 private\nmv ca.pem x509ca\nmv peer.pem x509\nmv peer-key.pem private\n"
"""Each into the folder where charon looks for it."""


def router(version: int) -> str:
    """The configuration of the lab with signatures in place of the preshared key."""
    text = ROUTER.format(us=US, peer=PEER, psk="-", ike="ike" if version == 1 else "ike2", rules=RULE)
    signed = "authentication rsa-signature\n"
    assert text.count("    pre-shared-key -\n") == 1
    assert text.count("  dh-group 2\n") == 1
    if version == 2:
        return text.replace("    pre-shared-key -\n", f"    {signed}")
    return text.replace("    pre-shared-key -\n", "").replace("  dh-group 2\n", f"  dh-group 2\n  {signed}")


def filled(flash: Path, authority: Authority) -> None:
    """A folder for the router's flash, with the authority and a certificate of it."""
    ours = authority.issue("router", US)
    for name, text in (
        ("trusted/ca", authority.certificate),
        ("self/router", ours.certificate),
        ("keys/router", ours.key),
    ):
        file = flash / "pki" / "outer" / f"{name}.pem"
        file.parent.mkdir(parents=True)
        file.touch(mode=0o600)
        file.write_text(text)


def started(lab_factory: LabFactory, folder: Path, version: int, authority: Authority, theirs: Issued) -> Swan:
    """A lab whose router has what `flash` has, and whose peer shows a certificate of the authority."""
    (folder / "flash").mkdir(exist_ok=True)
    (folder / "a.cfg").write_text(router(version))
    conn = Conn("t", version, PEER, US, Auth(PEER, "pubkey", "peer.pem"), Auth(US, "pubkey"))
    conf = CONFIGURATION.format(
        plugins=PLUGINS, tries=2, signatures="yes", vici=VICI, log="/run/charon.log", level=1
    )
    texts = {
        "strongswan": json.dumps(conf),
        "swanctl": json.dumps(swanctl_conf([conn], {})),
        "start": json.dumps(PLACE + START.removeprefix("#!/bin/sh\n")),
        "load": json.dumps(LOAD),
    }
    text = LAB.format(peer=PEER, **texts)
    text = text.replace("config: a.cfg}", "config: a.cfg, flash: flash}", 1)
    pems = {"ca.pem": authority.certificate, "peer.pem": theirs.certificate, "peer-key.pem": theirs.key}
    files = "".join(f"        {name}: {json.dumps(pem)}\n" for name, pem in pems.items())
    text = text.replace("      files:\n", f"      files:\n{files}", 1)
    (folder / "lab.yaml").write_text(f"{HEAD}{text}")
    return Swan(lab_factory(folder / "lab.yaml"))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def certified(lab: LabClient, authority: Authority) -> str:
    """Give the router a key pair and certificates over SSH; return the request for its own."""
    async with typist(lab, "a", "outer") as operator:
        assert "is made" in await operator.run("add pki key-pair own rsa 2048")
        return await operator.certify("own", US, authority)


@pytest.mark.behaviour("B-055", "B-056")
@pytest.mark.parametrize("version", [1, 2])
def test_certificates_of_one_authority_that_were_typed_in(
    lab_factory: LabFactory, tmp_path: Path, authority: Authority, version: int
) -> None:
    require(PROGRAM, "swanctl")
    swan = started(lab_factory, tmp_path, version, authority, authority.issue("peer", PEER))
    lab = swan.lab
    assert lab.node("a").tunnel("T")["reason"] == "certificate: context outer has no trusted certificate"
    request = asyncio.run(certified(lab, authority))
    lab.wait_until("tunnels up", within=60)
    lab.start("forward", "reverse")
    swan.traffic()
    swan.anew(lambda: lab.ask("a", "clear", {"tunnel": "T", "what": "all"}))
    lab.stop("forward", "reverse")
    lab.drain("forward", "reverse")
    assert not lab.unexpected()
    if shutil.which("openssl"):
        assert f"IP Address:{US}" in judged(request)
        assert openssl_verifies(lab, "a", "outer")


@pytest.mark.parametrize("version", [1, 2])
def test_an_expired_certificate_is_refused_by_its_date_until_there_is_another(
    lab_factory: LabFactory, tmp_path: Path, authority: Authority, version: int
) -> None:
    require(PROGRAM, "swanctl")
    filled(tmp_path / "flash", authority)
    swan = started(lab_factory, tmp_path, version, authority, authority.issue("peer", PEER, days=-2))
    lab = swan.lab

    def refused() -> bool:
        tunnel = lab.node("a").tunnel("T")
        assert not tunnel["up"]
        return "certificate of CN=peer expired on" in tunnel["reason"]

    lab.wait_until(refused, within=60)
    logged = lab.ask("a", "log", {})["records"]
    assert any("expired on" in str(record) for record in logged), logged
    good = authority.issue("peer", PEER)
    for name, text in (("x509/peer.pem", good.certificate), ("private/peer-key.pem", good.key)):
        swan.run(f"cat > {name} <<'END'\n{text}END")
    swan.run(LOAD.removeprefix("#!/bin/sh\n"))
    lab.start("forward", "reverse")
    swan.traffic()
