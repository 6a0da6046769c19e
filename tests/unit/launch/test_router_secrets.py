"""The secret of a router: made once or given by the lab, kept for its owner alone, deleted with the state."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chassis.config.parser import parse
from chassis.config.render import render
from chassis.config.secrets import SECRET_FILE, RouterSecret
from launch import checking, router_secrets
from launch.lab.parser import load
from launch.lab.yaml_source import LabError
from launch.run_folders import Folders, delete_state, node_state
from launch.supervisor.start import StartError, prepare

CONFIG = "context c\n ike policy p\n  pre-shared-key SharedSecretOfTwo\n"
GIVEN = "SecretThatTheLabGives"

Lab = Callable[..., Path]


@pytest.fixture(autouse=True)
def folders(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "run"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "state"))


def lab(folder: Path, config: str = CONFIG, more: str = "", of_b: str = "") -> Path:
    (folder / "a.cfg").write_text(config)
    nodes = f"a: {{kind: smartedge, config: a.cfg{more}}}, b: {{kind: smartedge, config: a.cfg{of_b}}}"
    file = folder / "lab.yaml"
    file.write_text(f"name: n\ntopology: {{nodes: {{{nodes}}}}}\n")
    return file


def started(file: Path) -> dict[str, RouterSecret]:
    """What a start of the lab makes and keeps."""
    made, startup = prepare(file, None, False, lambda line: None)
    held = Folders(made.name, made.nodes)
    secrets = {name: given.secret for name, given in startup.items()}
    router_secrets.keep(held, secrets)
    held.close()
    return secrets


def kept(node: str) -> Path:
    return node_state("n", node) / SECRET_FILE


def printed(secret: RouterSecret) -> str:
    return render(parse(CONFIG, secret=secret).config, keys=False)


def test_a_secret_is_made_once_for_each_router_and_survives(tmp_path: Path) -> None:
    file = lab(tmp_path)
    made = started(file)
    assert made["a"] != made["b"]
    assert stat.S_IMODE(kept("a").stat().st_mode) == 0o600
    assert RouterSecret.read(kept("a").read_bytes()) == made["a"]
    written = kept("a").stat().st_mtime_ns
    assert started(file) == made
    assert kept("a").stat().st_mtime_ns == written
    assert delete_state("n")
    assert not kept("a").exists()
    assert started(file)["a"] != made["a"]


def test_a_lab_gives_the_secret_and_earlier_forms_are_still_read(tmp_path: Path) -> None:
    before = started(lab(tmp_path))["a"]
    old = printed(before)
    after = started(lab(tmp_path, more=f", secret: {GIVEN}"))["a"]
    assert after.texts == (GIVEN, *before.texts)
    assert not [d for d in parse(old, secret=after).diagnostics if d.severity == "error"]
    assert printed(after) == printed(RouterSecret((GIVEN,)))
    # The lab need not say it again.
    assert started(lab(tmp_path))["a"] == after


def test_what_another_router_printed_is_refused_at_the_start_and_by_check(tmp_path: Path) -> None:
    other = RouterSecret(("secret-of-another-router",))
    said: list[str] = []
    file = lab(tmp_path, printed(other), f", secret: {GIVEN}", f", secret: {other.texts[0]}")
    prepare(file, None, False, said.append)
    line = (
        printed(other)
        .split("\n")
        .index(f"  pre-shared-key {printed(other).split('pre-shared-key ')[1].split(chr(10))[0]}")
    )
    assert any(f"a.cfg:{line + 1}:30: error encrypted: " in one for one in said)
    assert f"a: {tmp_path / 'a.cfg'} has 1 error: its line has no effect" in said
    assert not [one for one in said if one.startswith("b: ")]
    found = [d for d in checking.check(file) if d.severity == "error"]
    assert [(d.line, d.code) for d in found] == [(line + 1, "encrypted")]
    # Where nobody knows the secret yet, `check` has nothing to say of it; the start does.
    file = lab(tmp_path, printed(other))
    assert not [d for d in checking.check(file) if d.severity == "error"]
    said.clear()
    prepare(file, None, False, said.append)
    assert sum("error encrypted: " in one for one in said) == 2


def test_a_file_of_the_secret_that_is_damaged_stops_the_start(tmp_path: Path) -> None:
    file = lab(tmp_path)
    started(file)
    kept("a").write_text("short\n")
    with pytest.raises(
        StartError, match=r"state/n/a/secret: line 1 of the file of the secret is wrong.*'secret:'$"
    ):
        prepare(file, None, False, lambda line: None)
    found = [d for d in checking.check(file) if d.severity == "error"]
    assert [(d.code, d.name) for d in found] == [("secret", "a")]
    assert "short" not in found[0].message


@pytest.mark.parametrize(
    "given", ["short", "'sixteen signs and blanks'", "1234567890123456", "[sixteen-signs-of-it]"]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(tmp_path: Path, given: str) -> None:
    with pytest.raises(LabError) as caught:
        load(lab(tmp_path, more=f", secret: {given}"))
    text = str(caught.value)
    assert "'secret:' is " in text
    assert given.strip("'[]") not in text


def test_no_text_of_a_lab_has_its_secret(tmp_path: Path) -> None:
    made, _ = load(lab(tmp_path, more=f", secret: {GIVEN}"))
    assert made.routers()[0].secret == GIVEN
    assert GIVEN not in repr(made)
    assert GIVEN not in str(made.routers()[0].to_settings())
