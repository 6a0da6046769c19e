"""Nothing that a lab prints, records or leaves for others to read has a key of it, in whatever form."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from chassis.bus import counters
from chassis.config.secrets import SECRET_FILE
from chassis.xcrp.journal import JOURNAL
from launch.ctl.main import main
from tests.support import CONFIGS
from tests.support.authority import Authority
from tests.support.chassisctl import chassisctl, ending
from tests.support.exec_forms import EXAMPLES, show_lines
from tests.support.key_search import found, private_parts
from tests.support.terminal import TerminalRig

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

SHARED = b"SharedByBothEnds4711"
HEX = bytes.fromhex("00c1d2e3f4a5968778695a4b3c2d1e0fff10")
MANUAL = b"ManualKeyInLetters20"
CIPHER = bytes.fromhex("7a6b5c4d3e2f10010203a4b5c6d7e8f9")
KEPT = b"KeyOfALineThatNoCommandIs"
CANDIDATE = b"TypedButNeverCommitted"
WRONG = b"KeyInALineInError0815"
SECRET = b"SecretOfRouterAInThisLab"
LOGIN = b"correct-horse-of-the-lab"
CLEAR = {"shared": SHARED, "hexadecimal": HEX, "manual": MANUAL, "cipher": CIPHER, "kept": KEPT}
"""The keys that the owner of the lab can have in clear."""

ADDED = f"""\
context vpn
 radius server 10.9.9.9 key {KEPT.decode()}
 ike policy spare
  pre-shared-key hex 0x{HEX.hex()}
ipsec security-association spare
 both
  esp spi 5000
  esp authentication hmac-sha1-96 key {MANUAL.decode()}
  esp encryption aes-128-cbc hex {CIPHER.hex()}
"""

QUESTIONS = (
    ("status", "--once"), ("ps",), ("config", "a"), ("config", "b"), ("routes", "a", "--context", "vpn"),
    ("log", "a"), ("events",), ("sas", "a"), ("ike", "a"), ("queues", "a"), ("counters", "a"), ("accounting",),
)  # fmt: skip

pytestmark = pytest.mark.multiprocess


def lab_files(folder: Path) -> dict[str, bytes]:
    """The example of IKEv2 with keys of its own and a PKI store; returns its keys."""
    authority = Authority(bits=1024)
    issued = authority.issue("a", "30.0.0.1")
    for name, added in (("a.cfg", ADDED), ("b.cfg", "")):
        text = (CONFIGS / "ikev2" / name).read_text().replace("1234567890123456", SHARED.decode())
        (folder / name).write_text(text + added)
    store = folder / "flash" / "pki" / "vpn"
    for kind, pem in (("trusted", authority.certificate), ("self", issued.certificate), ("keys", issued.key)):
        (store / kind).mkdir(parents=True)
        (store / kind / "a.pem").write_text(pem)
    (store / "keys" / "a.pem").chmod(0o600)
    lab = (CONFIGS / "ikev2" / "lab.yaml").read_text()
    near = f"a: {{kind: smartedge, config: a.cfg, flash: flash, secret: {SECRET.decode()}}}"
    lab = lab.replace("a: {kind: smartedge, config: a.cfg}", near)
    (folder / "lab.yaml").write_text(f"ssh: {{user: op, password: {LOGIN.decode()}}}\n{lab}")
    typed = {"candidate": CANDIDATE, "wrong": WRONG, "secret": SECRET, "login": LOGIN}
    return CLEAR | typed | private_parts(issued.key)


def asked(*words: str | Path) -> bytes:
    """What `chassisctl` prints, in this process: there are many questions."""
    return CliRunner().invoke(main, [str(word) for word in words]).output_bytes


def typed(lab: LabClient) -> bytes:
    """A session of the CLI: every line that shows, and a candidate with a key, without what was typed itself."""
    rig = TerminalRig(lab)
    said = ""
    with ending(rig.process):
        rig.until("[local]a#")
        rig.type("context vpn\r")
        rig.until("[vpn]a#")
        lines = [*show_lines({**EXAMPLES, "asp": "4/1", "context": "vpn", "name": "ike_policy"}), "show history"]
        for line in lines:
            rig.type(f"{line}\r")
            said += rig.until("[vpn]a#")
        rig.type("configure\r")
        rig.until("(config)#")
        for line in ("context vpn", "ike policy added"):
            rig.type(f"{line}\r")
            rig.until(")#")
        rig.type(f"pre-shared-key {CANDIDATE.decode()}\r")
        rig.until(")#")
        for line in ("show configuration candidate", "show history", "show configuration"):
            rig.type(f"{line}\r")
            said += rig.until(")#")
        rig.type("abort\r")
        said += rig.until("(config)#")
        rig.type("end\r")
        said += rig.until("[vpn]a#")
        rig.type("show history\r")
        said += rig.until("[vpn]a#")
        rig.type("exit\rexit\r")
        rig.process.wait(30)
    return said.encode()


def outputs(lab: LabClient, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What people and programs get to see, by name."""
    for words in QUESTIONS:
        for more in ((), ("--json",)):
            if words[0] == "status" and more:
                words = ("status",)
            yield " ".join(("chassisctl", *words, *more)), asked(*words, *more)
    changed = folder / "changed.cfg"
    changed.write_text((folder / "a.cfg").read_text().replace(MANUAL.decode(), "ManualKeyInLetters21"))
    yield "the difference", asked("apply", "a", changed, "--dry-run", "--json")
    changed.write_text(
        (folder / "a.cfg").read_text()
        + f"frob {WRONG.decode()}\nipsec security-association spare\n both\n  ah hmac-sha1-96 {WRONG.decode()}\n"
    )
    for more in ((), ("--json",)):
        yield "a refused file", asked("apply", "a", changed, *more)
    yield "the CLI", typed(lab)


def left(run: Path, state: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a running lab that hold no state, and those that anybody else may read."""
    for folder in (run, state):
        for path in (folder, *folder.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                private = path.is_relative_to(state) and not mode & 0o077
                if not private:
                    # The rest of a file of counters is a hole.
                    yield str(path), counters.used(path) if path.suffix == ".counters" else path.read_bytes()
            elif stat.S_ISDIR(mode):
                assert not mode & 0o077, f"{path} can be read by others"


def processes(lab: LabClient) -> Iterator[tuple[str, bytes]]:
    """What `ps` shows of each process of the lab, its launcher too."""
    answer = lab.ask("", "ps", {})
    for pid in (answer["launcher"], *(row["pid"] for row in answer["processes"] if row["pid"])):
        yield f"ps {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()
        yield f"environment of {pid}", Path(f"/proc/{pid}/environ").read_bytes()


def test_no_key_of_a_lab_is_in_what_it_shows_records_or_leaves(
    lab_factory: LabFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = lab_files(tmp_path)
    lab = lab_factory(tmp_path / "lab.yaml")
    assert lab.run is not None
    monkeypatch.setenv("CHASSIS_RUN", str(lab.run.parent))
    state = lab.run.parents[1] / "s" / lab.run.name
    lab.wait_until("tunnels up", within=60)
    recording, wire, inside = tmp_path / "bus.jsonl", tmp_path / "wire.pcapng", tmp_path / "asp.pcapng"
    watching = chassisctl(lab, "bus", "--record", recording, **PIPES)
    lab.wait_until(lambda: recording.exists() and recording.stat().st_size > 0, within=60)
    lab.capture("a", "port 3/11", wire)
    lab.capture("a", "asp 4/1", inside)
    # Every record goes to every card again, and the peers prove anew that they know the key.
    lab.restart("a", "asp 4/1")
    lab.kill("a", "xcrp")
    lab.wait_until("cards of a up", within=60)
    lab.wait_until("tunnels up", within=60)
    seen = dict(outputs(lab, tmp_path))
    watching.send_signal(signal.SIGINT)
    seen["what the watcher of the bus prints"] = b"".join(watching.communicate(timeout=60))
    seen |= {str(path): path.read_bytes() for path in (recording, wire, inside)}
    seen |= dict(left(lab.run, state))
    seen |= dict(processes(lab))

    caught = [(name, found(keys, output)) for name, output in seen.items()]
    assert [one for one in caught if one[1]] == []

    # The search had something to search in, and finds what is there.
    assert b"pre-shared-key encrypted 1 " in seen["chassisctl config a"]
    assert b"IkePolicy" in seen[str(recording)]
    assert b"pre-shared-key encrypted 1 " in seen["the CLI"]
    assert any(name.endswith(".log") for name in seen)
    assert set(found(CLEAR, asked("config", "a", "--keys"))) == CLEAR.keys()
    assert found(keys, asked("secret", "a")) == ["secret"]
    text = [json.loads(line)["text"] for line in asked("log", "a", "--json").splitlines()]
    assert "the configuration was printed with clear keys" in text
    assert any(one.startswith("the secret of the router, named ") for one in text)
    # State that may hold keys is its owner's alone.
    for file, held in ((JOURNAL, "shared"), (SECRET_FILE, "secret")):
        path = state / "a" / file
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == os.getuid()
        assert held in found(keys, path.read_bytes())
