"""A lab asks for a cipher engine; who gets another one is told why, and where to look."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chassis.ase.ipsec import ipsec_mb, ipsec_mb_library, known_answers
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.ipsec_mb import choose_engine
from chassis.ase.ipsec.ipsec_mb_library import FILE, INSTALL, LibraryMissing
from chassis.bus.messages import Hello
from chassis.model.ipsec import CIPHER_ENGINES
from chassis.xcrp.settings import ControllerSettings
from launch.client.status_view import render
from launch.lab.model import RouterNode
from launch.lab.parser import load
from launch.lab.schema import schema
from launch.lab.yaml_source import LabError
from tests.support.asp import Controller, records
from tests.support.cipher_engines import engine_of


def told(folder: Path, of_lab: str, of_node: str) -> tuple[dict[str, Any], ControllerSettings]:
    """What the processes of a router get, and what its controller makes of it."""
    (folder / "a.cfg").write_text("context local\n")
    (folder / "lab.yaml").write_text(
        f"name: n\n{of_lab}\ntopology: {{nodes: {{a: {{kind: smartedge, config: a.cfg{of_node}}}}}}}\n"
    )
    node = load(folder / "lab.yaml")[0].nodes["a"]
    assert isinstance(node, RouterNode)
    read, problems = ControllerSettings.read(node.to_settings())
    assert problems == []
    return node.to_settings(), read


@pytest.mark.parametrize(
    ("of_lab", "of_node", "name"),
    [
        ("", "", None),
        ("settings: {cipher-engine: auto}", "", "auto"),
        ("settings: {cipher-engine: auto}", ", settings: {cipher-engine: cryptography}", None),
        ("", ", settings: {cipher-engine: ipsec-mb}", "ipsec-mb"),
    ],
)
def test_a_lab_or_a_node_asks_for_it(tmp_path: Path, of_lab: str, of_node: str, name: str | None) -> None:
    assert told(tmp_path, of_lab, of_node)[0].get("cipher-engine") == name


def test_another_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="'cipher-engine:' is cryptography, auto or ipsec-mb"):
        told(tmp_path, "settings: {cipher-engine: openssl}", "")
    read, problems = ControllerSettings.read({"cipher-engine": ["auto"]})
    assert problems == ["setting cipher-engine: ['auto'] is none of cryptography, auto, ipsec-mb"]
    assert "cipher-engine" not in read.cards
    assert schema()["$defs"]["settings"]["properties"]["cipher-engine"]["enum"] == list(CIPHER_ENGINES)


def test_who_asks_for_cryptography_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipsec_mb_library, "load", None)
    assert choose_engine("cryptography") == (CRYPTOGRAPHY, ())


def test_without_the_library_it_is_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipsec_mb_library, "FILE", "libNowhere.so.1")
    with pytest.raises(LibraryMissing, match=f"libNowhere.so.1 is not installed: {INSTALL}"):
        ipsec_mb_library.load()
    assert choose_engine("auto") == (CRYPTOGRAPHY, ())
    engine, remarks = choose_engine("ipsec-mb")
    assert engine is CRYPTOGRAPHY
    assert remarks == (f"ESP is by cryptography: libNowhere.so.1 is not installed: {INSTALL}",)


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of("ipsec-mb")
    monkeypatch.setattr(ipsec_mb_library, "VERSIONS", {0x20000: "2.0.0"})
    engine, remarks = choose_engine("ipsec-mb")
    assert engine is CRYPTOGRAPHY
    (remark,) = remarks
    assert remark.startswith(f"ESP is by cryptography: {FILE} has version 1.")
    assert remark.endswith("; expected 2.0.0")


def test_a_wrong_known_answer_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of("ipsec-mb")
    wrong = ("aes-256-gcm", None)
    monkeypatch.setattr(known_answers, "ANSWERS", {**known_answers.ANSWERS, wrong: "0" * 16})
    engine, remarks = choose_engine("auto")
    assert isinstance(engine, ipsec_mb.MultiBufferEngine)
    assert remarks == (f"wrong known answers of {engine.name}, so ESP is by cryptography with aes-256-gcm",)


@pytest.mark.parametrize("name", ["cryptography", "ipsec-mb"])
def test_an_asp_says_which_one_it_has(name: str) -> None:
    a = Controller(records(), engine=engine_of(name))
    (hello,) = [message for message in a.said if isinstance(message, Hello)]
    assert hello.cipher_engine.split()[0] == name


def test_status_shows_remarks() -> None:
    card = {"card": "asp 1/1", "remarks": ["ESP is by cryptography: no library"]}
    status: dict[str, Any] = {
        "lab": "n", "seconds": 1.0, "boot_seconds": 1.0, "processes": [], "missing": [], "flows": {}, "links": [],
        "events": [], "nodes": {"a": {"kind": "smartedge", "status": {"cards": [card]}, "error": ""}},
    }  # fmt: skip
    shown = io.StringIO()
    Console(file=shown, width=120).print(render(status))
    assert "  a asp 1/1: ESP is by cryptography: no library\n" in shown.getvalue()
