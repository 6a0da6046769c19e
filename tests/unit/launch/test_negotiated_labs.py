"""Labs of negotiated tunnels: flash, extensions, IKE's settings; and `chassisctl` about what IKE made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chassis.xcrp.settings import IKE, ControllerSettings
from launch import checking
from launch.client.running_lab import RunningLab
from launch.ctl.main import main as chassisctl
from launch.lab.model import RouterNode
from launch.lab.parser import load
from launch.lab.yaml_source import LabError

LAB = """\
name: n
settings: {dpd-interval: 200ms, strict-lifetime: false}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg, flash: flash-a, extensions: [modern],
        settings: {dpd-retries: 2, rekey-margin-factor: 0.2}}
    b: {kind: smartedge, config: b.cfg}
"""


def written(folder: Path, lab: str = LAB) -> Path:
    for name in ("a.cfg", "b.cfg"):
        (folder / name).write_text("ike2 proposal p\n  dh-group 31\n")
    (folder / "flash-a/pki/local/keys").mkdir(parents=True, exist_ok=True)
    file = folder / "lab.yaml"
    file.write_text(lab)
    return file


def test_what_the_processes_of_a_router_are_told(tmp_path: Path) -> None:
    lab, _ = load(written(tmp_path))
    a, b = lab.nodes["a"], lab.nodes["b"]
    assert isinstance(a, RouterNode)
    assert isinstance(b, RouterNode)
    assert (a.flash, b.flash) == (tmp_path / "flash-a", None)
    told = a.to_settings()
    assert told["extensions"] == ["modern"]
    assert (told["dpd-interval"], told["dpd-retries"], told["strict-lifetime"]) == (0.2, 2, False)
    assert told["rekey-margin-factor"] == 0.2
    assert "dpd-retries" not in b.to_settings()
    settings, problems = ControllerSettings.read(told)
    assert not problems
    assert settings.modern
    assert settings.cards["dpd-interval"] == 0.2
    assert settings.cards["modern"] is True
    assert ControllerSettings.read(b.to_settings())[0].cards["modern"] is False


def test_the_modern_names_are_known_where_the_lab_asks_for_them(tmp_path: Path) -> None:
    found = checking.check(written(tmp_path))
    assert [(Path(one.file).name, one.line, one.severity, one.name) for one in found] == [
        ("b.cfg", 2, "error", "31")
    ]


def test_check_names_the_files_of_the_flash_that_are_wrong(tmp_path: Path) -> None:
    lab = written(tmp_path)
    (tmp_path / "flash-a/pki/local/keys/x.pem").write_text("no key at all")
    found = [one for one in checking.check(lab) if one.code == "pki"]
    assert [(one.severity, one.name, one.message) for one in found] == [
        ("error", "pki/local/keys/x.pem", "is not a readable PEM private key")
    ]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("flash-a", "flash-z", "there is no folder 'flash-z' beside the lab"),
    ("[modern]", "[modern, old]", "unknown extension 'old'"),
    ("dpd-retries: 2", "dpd-retries: 0", "'dpd-retries:' is a whole number, 1 to 1000"),
    ("dpd-interval: 200ms", "dpd-interval: 1ms", "0.001 is out of range; expected 0.005 s to 86400 s"),
    ("rekey-margin-factor: 0.2", "rekey-margin-factor: 2", "2 is not a number from 0 to 0.9"),
    ("strict-lifetime: false", "strict-lifetime: 1", "'strict-lifetime:' 1 is neither true nor false"),
])  # fmt: skip
def test_what_a_lab_cannot_ask_for(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in LAB
    with pytest.raises(LabError, match=said.replace("(", r"\(")):
        load(written(tmp_path, LAB.replace(old, new)))


@pytest.mark.parametrize("setting", IKE, ids=lambda setting: setting.name)
def test_every_setting_of_ike_has_its_bounds(setting: Any) -> None:
    wrong: list[Any] = ["often", [1], "1" if setting.kind == "switch" else True]
    if setting.kind != "switch":
        wrong += [setting.high * 2, setting.low - 1]
    for value in wrong:
        settings, problems = ControllerSettings.read({setting.name: value})
        assert [problem.split(":")[0] for problem in problems] == [f"setting {setting.name}"], value
        assert setting.name not in settings.cards
    right = True if setting.kind == "switch" else int(setting.high) if setting.kind == "number" else setting.high
    assert ControllerSettings.read({setting.name: right})[0].cards[setting.name] == right


# chassisctl


COUNTED = {
    "total": {"v2 begun": 3, "v2 done": 2, "log lines held back": 1},
    "tunnels": {"1": {"begun": 2, "lost": 0}},
}


class FakeLab:
    """Answers as a controller would."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.errors: dict[str, str] = {}
        self.keys: list[dict[str, str]] = []
        self.missing: list[dict[str, Any]] = []

    def node(self, name: str, command: str, **arguments: Any) -> dict[str, Any]:
        self.calls.append((name, command, arguments))
        row = {"tunnel": 1, "name": "t1", "up": True, "ike": [{"version": 2, "state": "up"}]}
        row["missing"] = self.missing
        result: dict[str, Any] = {
            "clear": {"cleared": 2},
            "rekey": {"begun": 1},
            "ike": {"tunnels": [row]} if arguments.get("what") == "sas" else COUNTED,
            "ike-statistics": {"total": COUNTED["total"], "ike_sas": {"v1": 0, "v2": 1}},
            "keys": {"keys": self.keys},
        }[command]
        if command == "ike-statistics":
            return result
        return {"cards": {"asp 1/1": result}, "errors": self.errors}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    made = FakeLab()
    monkeypatch.setattr(RunningLab, "find", classmethod(lambda cls, name: made))
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(chassisctl, list(words))


@pytest.mark.parametrize(("words", "command", "arguments"), [
    ("clear a all", "clear", {"tunnel": "", "what": "all"}),
    ("clear a tunnel t1", "clear", {"tunnel": "t1", "what": "all"}),
    ("clear a tunnel t1 ipsec", "clear", {"tunnel": "t1", "what": "ipsec"}),
    ("rekey a tunnel t1", "rekey", {"tunnel": "t1", "what": "ipsec"}),
    ("rekey a tunnel t1 ike", "rekey", {"tunnel": "t1", "what": "ike"}),
])  # fmt: skip
def test_clear_and_rekey(words: str, command: str, arguments: dict[str, str], lab: FakeLab) -> None:
    assert run(*words.split()).exit_code == 0
    assert lab.calls == [("a", command, arguments)]
    lab.errors = {"asp 1/1": "no negotiated tunnel"}
    refused = run(*words.split())
    assert refused.exit_code == 1
    assert "asp 1/1: no negotiated tunnel" in refused.output


@pytest.mark.parametrize("words", ["clear a", "clear a t1", "rekey a all", "rekey a tunnel t1 ike now"])
def test_what_is_meant_must_be_said(words: str, lab: FakeLab) -> None:
    assert run(*words.split()).exit_code == 2
    assert lab.calls == []


def test_ike_shows_sas_and_statistics(lab: FakeLab) -> None:
    assert run("ike", "a").output.splitlines() == [
        "tunnel t1: up",
        "    version 2, state up",
        "IKEv2 statistics of ASP 1/1",
        "  IKE SAs : 1",
        "  begun   : 3",
        "  done    : 2",
        "Other statistics of ASP 1/1",
        "  log lines held back : 1",
    ]
    assert run("ike", "a", "--tunnel", "t1").output.splitlines()[2:] == [
        "IKE statistics of tunnel t1",
        "  begun : 2",
    ]
    assert lab.calls[-1] == ("a", "ike", {"tunnel": "t1", "what": "statistics"})
    lab.missing = [{"entry": 10, "rule": 30, "reason": "the peer refuses"}, {"entry": 20, "reason": ""}]
    assert run("ike", "a").output.splitlines()[1:3] == [
        "    line 10 rule 30 has no SAs: the peer refuses",
        "    line 20 has no SAs",
    ]
    answer = json.loads(run("ike", "a", "--json").output)
    assert answer["statistics"] == {"asp 1/1": COUNTED}


V1 = {"kind": "ikev1", "cookie_i": "0011223344556677", "key": "ab" * 16}
V2 = {
    "kind": "ikev2", "spi_i": "01" * 8, "spi_r": "02" * 8, "sk_ei": "03" * 16, "sk_er": "04" * 16,
    "encryption": "AES-CBC-128 [RFC3602]", "sk_ai": "05" * 20, "sk_ar": "06" * 20,
    "integrity": "HMAC_SHA1_96 [RFC2404]",
}  # fmt: skip


def test_keys_are_written_for_their_owner_alone(lab: FakeLab, tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("what was there, for everybody")
    file.chmod(0o644)
    lab.keys = [V2]
    result = run("keys", "a", "--file", str(file))
    assert result.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == (
        f'{"01" * 8},{"02" * 8},{"03" * 16},{"04" * 16},"AES-CBC-128 [RFC3602]",'
        f'{"05" * 20},{"06" * 20},"HMAC_SHA1_96 [RFC2404]"\n'
    )
    assert "1 rows of ikev2_decryption_table" in result.output
    assert "03" * 16 not in result.output


def test_keys_of_both_versions_go_into_two_files(lab: FakeLab, tmp_path: Path) -> None:
    lab.keys = [V1, V2]
    file = tmp_path / "table"
    refused = run("keys", "a", "--file", str(file))
    assert refused.exit_code == 1
    assert "give --version" in refused.output
    assert not file.exists()
    assert run("keys", "a", "--file", str(file), "--version", "1").exit_code == 0
    assert file.read_text() == f"0011223344556677,{'ab' * 16}\n"
