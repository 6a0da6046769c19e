"""The encrypted form of keys: what is printed loads again where the secret is, and nowhere else."""

from __future__ import annotations

import base64
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.config.difference import difference
from chassis.config.kept import with_clear_rest, with_encrypted_rest
from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from chassis.config.secrets import CHARACTERS, REST, EncryptedFormError, RouterSecret, secret_fault
from chassis.config.values import TYPES
from tests.support import CONFIGS, REAL
from tests.support.configurations import SECRET

OTHER = RouterSecret(("secret-of-another-router",))

FILES = sorted((*CONFIGS.rglob("*.cfg"), *REAL.glob("*.cfg")))

_WORDS = st.text(
    st.sampled_from(string.ascii_letters + string.digits + string.punctuation), min_size=1, max_size=80
)
_OCTETS = st.binary(min_size=1, max_size=80)

KINDS = {
    "psk-text": _WORDS.filter(lambda word: word.lower() not in ("hex", "use-aaa", "encrypted", "***")).map(
        lambda word: f"context c\n ike policy p\n  pre-shared-key {word}\n"
    ),
    "psk-hex": _OCTETS.map(lambda octets: f"context c\n ike2 policy p\n  pre-shared-key hex 0x{octets.hex()}\n"),
    "radius-key": _WORDS.filter(lambda word: word != "***").map(
        lambda word: f"context c\n radius server 10.0.0.9 key {word}\n"
    ),
    "manual-key": st.one_of(
        st.text(st.sampled_from(string.ascii_letters), min_size=20, max_size=20),
        st.binary(min_size=20, max_size=20).map(lambda octets: f"0x{octets.hex()}"),
    ).map(lambda key: f"ipsec security-association s\n both\n  esp authentication hmac-sha1-96 key {key}\n"),
    "hex-key": st.binary(min_size=16, max_size=16).map(
        lambda octets: f"ipsec security-association s\n in\n  esp encryption aes-128-cbc hex {octets.hex()}\n"
    ),
}
"""Configurations with one key, by the type of its value."""


def shown(parsed: Parsed) -> str:
    return render(parsed.config, keys=False)


def errors(text: str, secret: RouterSecret) -> list[tuple[int, int, str, str]]:
    found = parse(text, secret=secret).diagnostics
    return [(d.line, d.column, d.code, d.name) for d in found if d.severity == "error"]


def test_every_type_of_keys_is_here() -> None:
    secret = {kind.name for kind in TYPES.values() if kind.secret and not kind.encrypted and not kind.one_way}
    assert secret == KINDS.keys()


@settings(deadline=None)
@given(st.one_of(*KINDS.values()))
def test_a_key_loads_again_from_its_encrypted_form(text: str) -> None:
    one = parse(text, secret=SECRET)
    printed = shown(one)
    key = text.split()[-1].removeprefix("0x")
    assert " encrypted 1 " in printed or " encrypted-key 1 " in printed
    assert "***" not in printed
    assert len(key) < 4 or key not in printed
    again = parse(printed, secret=SECRET)
    assert again.config == one.config
    assert shown(again) == printed
    # The same kind of key too: it prints in clear as it was typed, but for hexadecimal digits.
    assert render(again.config) == render(one.config)
    # Without a secret it stays what it is; with another one it is refused.
    assert shown(parse(printed)) == render(parse(printed).config) == printed
    assert [code for _, _, code, _ in errors(printed, OTHER)] == ["encrypted"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_file_shows_the_same_again_where_the_secret_is(file: Path) -> None:
    text = file.read_bytes().decode()
    modern = "extensions: [modern]" in (
        (file.parent / "lab.yaml").read_text() if (file.parent / "lab.yaml").exists() else ""
    )
    one = parse(text, modern=modern, secret=SECRET)
    printed = shown(one)
    again = parse(printed, modern=modern, secret=SECRET)
    assert again.config == one.config
    assert render(again.config) == render(one.config)
    assert shown(again) == printed
    keys = re.findall(
        r"(?:pre-?shared-key|key|hex|password|encrypted-key|key-string encrypted) (\S{5,})$", text, re.M
    )
    assert not [key for key in keys if re.search(rf"(?<!\S){re.escape(key)}(?!\S)", printed)]
    # Each line that the other router refuses is one with an encrypted form, and each such line is refused.
    lines = [
        number
        for number, line in enumerate(printed.split("\n"), 1)
        if re.search(r" encrypted(-rest|-key)? 1 [^$]", line)
    ]
    assert [line for line, _, code, _ in errors(printed, OTHER) if code == "encrypted"] == lines


def test_two_routers_print_two_texts_and_one_router_one() -> None:
    text = "context c\n" + "".join(f" ike policy {name}\n  pre-shared-key SharedSecretOfTwo\n" for name in "pq")
    printed = shown(parse(text, secret=SECRET))
    found = re.findall(r"encrypted 1 (\S+)", printed)
    assert len(found) == 2
    assert found[0] == found[1]
    assert found[0] not in shown(parse(text, secret=OTHER))
    assert shown(parse(text)).count("pre-shared-key ***\n") == 2


def test_another_secret_is_refused_with_line_column_and_what_helps() -> None:
    printed = shown(parse("context c\n ike policy p\n  pre-shared-key SharedSecretOfTwo\n", secret=SECRET))
    line = printed.split("\n").index(next(one for one in printed.split("\n") if "encrypted 1" in one)) + 1
    found = [d for d in parse(printed, "a.cfg", secret=OTHER).diagnostics if d.severity == "error"]
    assert [(d.file, d.line, d.column, d.code, d.name) for d in found] == [("a.cfg", line, 30, "encrypted", "***")]
    assert found[0].message == (
        f"this was encrypted under the secret named {SECRET.name}, and this router's is {OTHER.name}: give the "
        "router the secret of the one that printed it (`secret:` of the lab), or type the key itself"
    )
    none = [d for d in parse(printed, secret=RouterSecret()).diagnostics if d.severity == "error"]
    assert f"{SECRET.name}, and this router has none" in none[0].message
    assert parse(printed, secret=OTHER).config.contexts["c"].ike_policies["p"].pre_shared_key is None


def damaged(text: str) -> str:
    return text[:-2] + ("AA" if text[-2:] != "AA" else "BA")


@pytest.mark.parametrize(("change", "column", "code"), [
    (damaged, 30, "encrypted"),
    (lambda text: text[:20], 30, "S-022"),
    (lambda text: text + "=", 30, "S-022"),
    (lambda text: text.replace(text[4], "+", 1), 30, "S-022"),
    (lambda text: text + " more", None, "surplus"),
    (lambda text: "", 28, "incomplete"),
])  # fmt: skip
def test_a_text_that_was_not_copied_whole_is_refused(change: object, column: int | None, code: str) -> None:
    assert callable(change)
    text = change(SECRET.encrypt(CHARACTERS, b"SharedSecretOfTwo"))
    found = errors(f"context c\n ike policy p\n  pre-shared-key encrypted 1 {text}\n", SECRET)
    assert [(line, what) for line, _, what, _ in found] == [(3, code)]
    assert column is None or found[0][1] == column
    assert not text or text not in repr(found)


def test_only_version_1_is_known() -> None:
    text = SECRET.encrypt(CHARACTERS, b"SharedSecretOfTwo")
    assert [
        (d[0], d[1], d[3]) for d in errors(f"context c\nike policy p\npre-shared-key encrypted 2 {text}\n", SECRET)
    ] == [(3, 26, "***")]


@pytest.mark.parametrize(
    ("kind", "octets"),
    [
        (CHARACTERS, b"two words"),
        (CHARACTERS, b"tab\tbed"),
        (CHARACTERS, b"\x7f"),
        (CHARACTERS, b"\xe9"),
        (REST, b"of a line"),
        (b"?", b"abc"),
    ],
)
def test_what_could_not_be_typed_is_not_read_from_an_encrypted_form(kind: bytes, octets: bytes) -> None:
    text = SECRET.encrypt(kind, octets)
    found = errors(f"context c\nike policy p\npre-shared-key encrypted 1 {text}\n", SECRET)
    assert [code for _, _, code, _ in found] == ["encrypted"]


def test_a_key_of_a_wrong_length_is_refused_from_its_encrypted_form_too() -> None:
    text = SECRET.encrypt(CHARACTERS, b"short")
    found = parse(f"ipsec security-association s\n both\n  ah key encrypted 1 {text}\n", secret=SECRET).diagnostics
    assert [(d.line, d.column, d.code, d.hint) for d in found if d.severity == "error"] == [(3, 22, "S-069", "")]


@pytest.mark.parametrize("line", [
    "context c\n radius coa server 10.0.0.9 key  Hush now, twice",
    "snmp server\n community Hush view all",
    "context c\n subscriber name s\n  password Hush",
    "context c\n ntp server 1.2.3.4 md5 3 Hush",
    "context c\n key-chain isis key-id 1\n  key-string encrypted Hush",
    "frob secret 7 Hush",
])  # fmt: skip
def test_the_end_of_a_kept_line_that_may_be_a_key_is_encrypted(line: str) -> None:
    one = parse(f"{line}\n", secret=SECRET)
    printed = shown(one)
    assert "Hush" not in printed
    assert " encrypted-rest 1 " in printed
    again = parse(printed, secret=SECRET)
    assert render(again.config) == render(one.config)
    assert line.split("\n")[-1].strip() in render(again.config)
    assert shown(again) == printed
    assert "Hush" not in shown(parse(f"{line}\n"))
    assert [code for _, _, code, _ in errors(printed, OTHER)] == ["encrypted"]


@pytest.mark.parametrize("line", [
    "aaa authentication administrator local", "bind authentication pap chap context isp",
    "set community 65001:100", "administrator a encrypted 1 $1$salt$Hash", "enable encrypted 2 $6$salt$Hash",
    "key-chain isis key-id 1", "banner login devices, authorised users only", "password", "description of a key",
])  # fmt: skip
def test_what_is_no_key_is_shown(line: str) -> None:
    assert with_encrypted_rest(line, SECRET) == line


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60))
def test_the_rest_of_a_line_comes_back_octet_for_octet(rest: str) -> None:
    line = f"frob key {rest}"
    assert with_clear_rest(with_encrypted_rest(line, SECRET), SECRET) == line


def test_a_secret_that_is_replaced_still_reads() -> None:
    text = "context c\n ike policy p\n  pre-shared-key SharedSecretOfTwo\n"
    printed = shown(parse(text, secret=OTHER))
    both = RouterSecret.read(OTHER.with_first(SECRET.texts[0]).write())
    assert both == OTHER.with_first(SECRET.texts[0]) == both.with_first(SECRET.texts[0])
    assert not errors(printed, both)
    # It prints under the one in use, which the next router has.
    assert shown(parse(printed, secret=both)) == shown(parse(text, secret=SECRET))


@pytest.mark.parametrize("data", [b"", b"\n", b"short\n", b"with a blank in it\n", b"\xff" * 20, b"x" * 257])
def test_a_file_of_secrets_that_is_wrong_is_told_without_its_content(data: bytes) -> None:
    with pytest.raises(ValueError, match="file of the secret") as caught:
        RouterSecret.read(data)
    assert data.decode("ascii", "replace").strip() == "" or data.decode("ascii", "replace").strip() not in str(
        caught.value
    )


def test_a_secret_and_its_name_say_nothing_of_it() -> None:
    assert SECRET.texts[0] not in repr(SECRET)
    assert secret_fault("x" * 15)
    assert not secret_fault("x" * 16)
    assert SECRET.name != OTHER.name
    assert re.fullmatch(r"[A-Za-z0-9_-]{4}", SECRET.name)
    with pytest.raises(EncryptedFormError):
        SECRET.decrypt("no text of ours")


def test_the_form_is_the_one_that_is_documented() -> None:
    """An independent reading: base64url of name (3) | AES-SIV (16 + length), under a key derived by scrypt."""
    from hashlib import scrypt

    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    text = SECRET.encrypt(CHARACTERS, b"abc")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    made = scrypt(SECRET.texts[0].encode(), salt=b"chassis router secret 1", n=16384, r=8, p=1, dklen=67)
    assert data[:3] == made[64:]
    assert AESSIV(made[:64]).decrypt(data[3:], [b"chassis encrypted 1"]) == b"aabc"


def test_the_sign_for_a_hidden_key_is_no_key() -> None:
    """A router without a secret prints it; as a key it would be one that everybody knows."""
    text = "context c\n ike policy p\n  pre-shared-key ***\n"
    for secret in (SECRET, None):
        found = [d for d in parse(text, secret=secret).diagnostics if d.severity == "error"]
        assert [(d.line, d.column, d.code) for d in found] == [(3, 18, "S-022")]


MARK = "Zq9MarkOfAKey"


@pytest.mark.parametrize("line", [
    "frob {}", "frob x {} y", "snmp {}", "ip frob {}", "ike {} x", "router bgp {}", "tunnel {}", "no frob {}",
    "aaa {}", "enable {}", "esp authentication hmac-sha1-96 {}", "esp encryption {}", "ah hmac-md5-96 {}",
    "ah key encrypted 1 {}", "pre-shared-key encrypted {}", "pre-shared-key encrypted 1 {}", "pre-share-key {}",
    "psk {}", "radius server 1.2.3.4 {}", "administrator a encrypted 3 {}", "administrator a password {}",
    "key {}", "authentication {}", "pre-shared-key hex {}",
])  # fmt: skip
@pytest.mark.parametrize(
    "mode", ["", "context c\n", "context c\n ike policy p\n", "ipsec security-association s\n both\n"]
)
def test_a_line_that_is_not_known_is_shown_by_its_first_word(mode: str, line: str) -> None:
    for number in (None, 0):
        blanks = " " * mode.count("\n") if number is None else ""
        text = f"{mode}{blanks}{line.format(MARK)}\n"
        parsed = parse(text, secret=SECRET)
        assert parsed.diagnostics
        spoken = [*map(repr, parsed.diagnostics), *map(str, parsed.diagnostics), repr(parsed)]
        spoken += map(str, difference(parse("").config, parsed.config))
        assert not [one for one in spoken if MARK in one]
