"""What other tools make of our messages: ike-scan of our answers, tshark of whole captures with our key file."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launch.client.running_lab import RunningLab
from launch.ctl.main import main as chassisctl
from tests.support.charon import require
from tests.support.charon_rig import Rig, Suite
from tests.support.ike.udp_end import US

pytestmark = pytest.mark.multiprocess

TRIPLE = Suite("3des-cbc", "hmac-md5-96", 2, "hmac-md5")
AES = Suite("aes-256-cbc", "hmac-sha1-96", 2, "hmac-sha1")


def scan(rig: Rig, *words: str) -> str:
    """What ike-scan says of our end."""
    require("ike-scan")
    with tempfile.TemporaryFile() as output:
        command = ("ike-scan", "--sport=0", "--retry=1", "--lifetime=86400", *words, US)
        running = rig.namespaces.begin("peer", *command, output=output)
        rig.until(lambda: running.poll() is not None, "ike-scan ends")
        output.seek(0)
        return output.read().decode()


@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_ike_scan_sees_the_transform_that_is_configured(rig: Rig, mode: str) -> None:
    ours, _ = rig.plan(1, "responder", TRIPLE, mode=mode)
    rig.us.reset()
    rig.us.drain()
    rig.us.configure(ours)
    # The identity is an address, which ike-scan takes as octets.
    words = ["--aggressive", "--id=0x0a630002", "--idtype=1", "--dhgroup=2"] if mode == "aggressive" else []
    try:
        said = scan(rig, "--trans=5,1,1,2", *words)
        assert f"{'Main' if mode == 'main' else 'Aggressive'} Mode Handshake returned" in said, said
        assert "SA=(Enc=3DES Hash=MD5 Auth=PSK Group=2:modp1024 LifeType=Seconds LifeDuration" in said
        assert "VID=4a131c81070358455c5728f20e95452f (RFC 3947 NAT-T)" in said
        assert "VID=afcad71368a1f1c96b8696fc77570100 (Dead Peer Detection v1.0)" in said
        other = scan(rig, "--trans=7/128,2,1,2", *words)
        assert "NO-PROPOSAL-CHOSEN" in other, other
    finally:
        rig.us.clear()


def test_ike_scan_sees_the_transforms_of_version_2(rig: Rig) -> None:
    ours, _ = rig.plan(2, "responder", AES)
    rig.us.reset()
    rig.us.drain()
    rig.us.configure(ours)
    try:
        said = scan(rig, "--ikev2")
        assert "IKEv2 SA_INIT Handshake returned" in said, said
        assert "SA=(Encr=AES_CBC,KeyLength=256 Prf=HMAC_SHA1 Integ=HMAC_SHA1_96 DH_Group=2:modp1024)" in said
    finally:
        rig.us.clear()


def frames_of(tap: object) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(tap.recv(65536))  # type: ignore[attr-defined]
        except BlockingIOError:
            return frames


class KeysOf:
    """A lab whose one router has these keys."""

    def __init__(self, keys: list[dict[str, str]]) -> None:
        self._keys = keys

    def node(self, name: str, command: str, **arguments: Any) -> dict[str, Any]:
        assert (name, command) == ("a", "keys")
        return {"cards": {"asp 1/1": {"keys": self._keys}}, "errors": {}}


def wireshark(patch: pytest.MonkeyPatch, keys: list[dict[str, str]], version: int, home: Path) -> dict[str, str]:
    """The environment of somebody who has let `chassisctl keys` write into the folder of Wireshark's profile, and
    has done no more."""
    patch.setattr(RunningLab, "find", classmethod(lambda cls, name: KeysOf(keys)))
    folder = home / ".config" / "wireshark"
    folder.mkdir(parents=True)
    file = folder / f"ikev{version}_decryption_table"
    done = CliRunner().invoke(chassisctl, ["keys", "a", "--file", str(file)])
    assert done.exit_code == 0, done.output
    assert f"{len(keys)} rows of {file.name}" in done.output
    return {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


@pytest.mark.parametrize(("version", "suite"), [
    (1, TRIPLE),
    (1, AES),
    (2, AES),
    (2, Suite("3des-cbc", "hmac-md5-96", 2, "hmac-md5")),
    (2, Suite("aes-192-cbc", "hmac-aes-xcbc", 5, "aes-128-xcbc")),
    (2, Suite("aes-128-gcm", "hmac-sha1-96", 19, "hmac-sha-256")),
    (2, Suite("aes-192-gcm", "hmac-sha1-96", 19, "hmac-sha-256")),
], ids=str)  # fmt: skip
def test_tshark_opens_what_we_sent_with_the_file_that_we_write(
    rig: Rig, version: int, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("tshark")
    tap = rig.namespaces.tap("us", "eth0")
    try:
        with rig.tunnel(version, "initiator", suite):
            rig.traffic()
            rig.us.ask("rekey", tunnel=5)
            serial = rig.sender()
            rig.until(lambda: rig.sender() != serial, "rekeyed")
            keys = rig.us.ask("keys", tunnel=5)["keys"]
        frames = frames_of(tap)
    finally:
        tap.close()
    parts = [struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    parts += [struct.pack("<IIII", at, 0, len(frame), len(frame)) + frame for at, frame in enumerate(frames)]
    (tmp_path / "ike.pcap").write_bytes(b"".join(parts))
    command = ["tshark", "-r", str(tmp_path / "ike.pcap"), "-Y", "isakmp", "-T", "fields"]
    for field in ("isakmp.exchangetype", "isakmp.messageid", "isakmp.typepayload"):
        command += ["-e", field]
    person = wireshark(monkeypatch, keys, version, tmp_path / "home")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=person)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    counts = Counter(int(line[0]) for line in lines)
    # SA, KE, nonce, traffic selectors, HASH, ID: what is only inside sealed messages shows that they are open.
    if version == 1:
        assert counts[2] == 6
        assert counts[32] >= 6
        sealed = [line for line in lines if line[0] in ("32", "5")]
        assert all("8" in line[2].split(",") for line in sealed), done.stdout
        assert all({"1", "10", "5"} <= set(line[2].split(",")) for line in first_two(lines, "32"))
    else:
        assert counts[34] == counts[35] == 2
        assert counts[36] >= 2
        assert all({"46", "33", "44", "45", "39"} <= set(line[2].split(",")) for line in lines if line[0] == "35")
        assert all({"46", "33", "40"} <= set(line[2].split(",")) for line in lines if line[0] == "36")


def first_two(lines: list[list[str]], exchange: str) -> list[list[str]]:
    """The first two messages of an exchange type: they are of one exchange."""
    found = [line for line in lines if line[0] == exchange]
    return [line for line in found if line[1] == found[0][1]][:2]
