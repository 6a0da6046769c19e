"""Keys are printed by `render` alone."""

from __future__ import annotations

import pytest

from chassis.config.difference import difference
from chassis.config.parser import parse
from chassis.config.render import render

KEYS = ("TopSecretTopSecret20", "0011223344556677889900112233445566778899", "SharedSecretOfTwo", "$1$salt$Hashed")
TEXT = f"""\
context c
 administrator a encrypted 1 {KEYS[3]}
 ike policy p
  pre-shared-key {KEYS[2]}
 ike policy q
  pre-shared-key hex 0x{KEYS[1]}
ipsec security-association s
 both
  ah spi 300
  ah key {KEYS[0]}
  esp authentication hex {KEYS[1]}
"""


def test_repr_differences_and_diagnostics_hold_no_key() -> None:
    parsed = parse(TEXT)
    empty = parse("").config
    spoken = [
        repr(parsed),
        repr(parsed.config),
        *map(repr, difference(empty, parsed.config)),
        *map(str, difference(empty, parsed.config)),
        *map(str, difference(parsed.config, empty)),
        *map(repr, parsed.diagnostics),
        *map(str, parsed.diagnostics),
    ]
    for text in spoken:
        for key in KEYS:
            assert key not in text
            assert bytes(key, "ascii").hex() not in text
            assert repr(bytes.fromhex(KEYS[1])) not in text


def test_a_saved_file_has_every_key() -> None:
    text = render(parse(TEXT).config)
    assert all(key in text for key in KEYS)


@pytest.mark.parametrize("line", [
    "pre-shared-key {key} more", "pre-shared-key more {key}", "pre-shared-key hex {key}", "pre-shred-key {key}",
    "pre-shared-keys {key}", "preshared-key hex {key} x", "no pre-shared-key {key} x",
])  # fmt: skip
def test_a_wrong_line_shows_no_key(line: str) -> None:
    key = "SecretWord1"
    found = parse("context c\nike policy p\n" + line.format(key=key)).diagnostics
    assert any(d.severity in ("error", "warning") for d in found)
    assert key not in repr(found)
    assert key not in "".join(map(str, found))


def test_a_changed_key_is_a_change_without_the_key() -> None:
    other = parse(TEXT.replace(KEYS[0], "OtherSecretOtherSec1")).config
    changes = difference(parse(TEXT).config, other)
    assert [change.path for change in changes] == [("security-association", "s")]
    assert changes[0].lines == ("a key or its kind changed",)


@pytest.mark.parametrize("version", ["ike policy", "ike2 policy"])
@pytest.mark.parametrize(("written", "warned"), [
    ('"SecretWord1"', True),
    ("'SecretWord1'", True),
    ('"SecretWord1', True),
    ('SecretWord1"', True),
    ("SecretWord1", False),
    ("Secret\"Word'1", False),
    ("hex 5365637265740a", False),
    ("use-aaa", False),
])  # fmt: skip
def test_quotes_of_a_preshared_key_are_kept_and_warned_of(version: str, written: str, warned: bool) -> None:
    parsed = parse(f"context c\n {version} p\n  pre-shared-key {written}\n")
    said = [(d.severity, d.code, d.name, d.line, d.column) for d in parsed.diagnostics if d.code == "S-022"]
    assert said == ([("warning", "S-022", "pre-shared-key", 3, 18)] if warned else [])
    assert "SecretWord1" not in repr(parsed.diagnostics)
    key = parsed.config.contexts["c"].ike_policies["p"].pre_shared_key
    assert key is not None
    if key.form == "ascii":
        # The octets stay what stands there, in force and saved.
        assert key.value == written.encode()
        assert f"pre-shared-key {written}\n" in render(parsed.config)


@pytest.mark.parametrize("line", ['esp authentication key "{}"', "esp encryption des-cbc key '{}'", 'ah key "{}"'])
def test_quotes_of_a_manual_key_are_kept_and_warned_of(line: str) -> None:
    key = "a" * (6 if "des" in line else 18)
    parsed = parse(f"ipsec security-association s\n both\n  {line.format(key)}\n")
    said = [(d.severity, d.name, d.line, d.column) for d in parsed.diagnostics if d.code == "S-022"]
    assert said == [("warning", line.split()[0], 3, 3)]
    assert key not in repr(parsed.diagnostics)
    assert line.format(key) in render(parsed.config).replace("hmac-sha1-96 ", "")
