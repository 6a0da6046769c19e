"""The flash: which files are objects of a PKI store, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.xcrp.flash import KEY, SELF, TRUSTED, FlashFile, read_store
from chassis.xcrp.flash_folder import read_folder
from tests.support.xcrp_ike import flash, pair

PRIVATE, PUBLIC = pair()


def test_a_whole_store_has_nothing_wrong() -> None:
    held = read_store(flash())
    assert not held.problems
    assert {(item.kind, item.name) for item in held.items["outer"]} == {(KEY, "a"), (SELF, "a"), (TRUSTED, "ca")}
    assert held.first_missing("outer") == ""
    assert held.first_missing("inner") == "context inner has no trusted certificate"


@pytest.mark.parametrize(("left_out", "flaw"), [
    ("trusted/ca", "context outer has no trusted certificate"),
    ("self/a", "context outer has no certificate of its own"),
    ("keys/a", "certificate a of context outer has no key"),
])  # fmt: skip
def test_what_a_store_lacks(left_out: str, flaw: str) -> None:
    held = read_store([file for file in flash() if left_out not in file.path])
    assert held.first_missing("outer") == flaw


@pytest.mark.parametrize(("file", "severity", "said"), [
    (FlashFile("pki/outer/trusted/x.pem", b"nonsense"), "error", "is not a readable PEM certificate"),
    (FlashFile("pki/outer/trusted/x.pem", PRIVATE), "error", "is not a readable PEM certificate"),
    (FlashFile("pki/outer/keys/x.pem", PUBLIC), "error", "is not a readable PEM private key"),
    (FlashFile("pki/outer/keys/x.pem", b"\xff" * (1 << 19)), "error", "is too long for a PEM file"),
    (FlashFile("pki/outer/keys/x.pem", error="Permission denied"), "error", "Permission denied"),
    (FlashFile("pki/outer/keys/x.pem", PRIVATE, exposed=True), "warning", "chmod 600"),
    (FlashFile("pki/outer/self/x.pem", PUBLIC), "warning", "there is no key pki/outer/keys/x.pem"),
    (FlashFile("pki/outer/certs/x.pem", PUBLIC), "warning", "is not used"),
    (FlashFile("pki/outer/trusted/x.crt", PUBLIC), "warning", "is not used"),
    (FlashFile("pki/x.pem", PUBLIC), "warning", "is not used"),
])  # fmt: skip
def test_a_file_that_is_not_right_is_named(file: FlashFile, severity: str, said: str) -> None:
    (problem,) = read_store([file]).problems
    assert (problem.severity, problem.path) == (severity, file.path)
    assert said in problem.text
    assert file.path in str(problem)


def test_a_certificate_belongs_to_the_key_of_its_name() -> None:
    other, _ = pair("another.example")
    held = read_store([FlashFile("pki/outer/keys/a.pem", other), *flash()[1:]])
    assert [problem.text for problem in held.problems] == ["is not the certificate of key pki/outer/keys/a.pem"]
    assert held.first_missing("outer") == "context outer has no certificate of its own"


def test_no_text_has_a_key_in_it() -> None:
    held = read_store([*flash(), FlashFile("pki/outer/keys/b.pem", PRIVATE[:-40])])
    secret = PRIVATE.decode().splitlines()[1]
    assert secret not in repr(held)
    assert secret not in repr(flash())
    assert all(secret not in str(problem) for problem in held.problems)


@given(st.binary(max_size=300), st.sampled_from(["trusted", "self", "keys"]))
def test_any_bytes_are_a_problem_or_an_object(data: bytes, folder: str) -> None:
    held = read_store([FlashFile(f"pki/c/{folder}/x.pem", data)])
    assert bool(held.problems) != bool(held.items.get("c"))


def test_a_folder_is_read_with_the_rights_of_its_files(tmp_path: Path) -> None:
    for file in flash():
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        path.chmod(0o600 if "keys" in file.path else 0o644)
    (tmp_path / "notes.txt").write_text("not of a store")
    found = read_folder(tmp_path)
    assert [file.path for file in found] == [file.path for file in flash()]
    assert not read_store(found).problems
    (tmp_path / "pki/outer/keys/a.pem").chmod(0o640)
    (problem,) = read_store(read_folder(tmp_path)).problems
    assert problem.path == "pki/outer/keys/a.pem"


def test_a_folder_that_is_not_there_is_said() -> None:
    (file,) = read_folder(Path("/nonexistent"))
    assert file.error == "the folder does not exist"
