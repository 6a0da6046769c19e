"""Who may log in, and with which password: hashes, the published one, the lab's login, administrators."""

from __future__ import annotations

import base64
from math import inf
from typing import Any

import pytest

from chassis.mgmt import logins, passwords
from chassis.net.ssh_key import public_key


def key(name: bytes = b"ssh-ed25519") -> str:
    octets = len(name).to_bytes(4, "big") + name + bytes(36)
    return f"ssh-ed25519 {base64.b64encode(octets).decode()} remark of mine"


def answer(**more: Any) -> dict[str, Any]:
    return {"exists": True, "hash": passwords.hashed("secret"), **more}


def test_the_prefix_of_a_hash_decides_its_scheme() -> None:
    from passlib.hash import md5_crypt, sha256_crypt, sha512_crypt

    for scheme in (md5_crypt, sha256_crypt.using(rounds=1000), sha512_crypt.using(rounds=1000)):
        held = scheme.hash("secret")
        assert passwords.is_usable(held)
        assert passwords.verify("secret", held)
        assert not passwords.verify("Secret", held)
    assert passwords.verify("secret", passwords.hashed("secret"))


@pytest.mark.parametrize(
    "held",
    [
        "",
        "secret",
        "*",
        "$1$",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$6$rounds=1000001$salt$" + "a" * 86,
        "$1$a:b$" + "a" * 22,
    ],
)
def test_no_password_fits_a_hash_that_is_none(held: str) -> None:
    assert not passwords.is_usable(held)
    assert not any(passwords.verify(text, held) for text in ("", "secret", held))


def test_a_user_who_is_not_there_costs_as_much_as_one_with_a_usual_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    scheme = passwords._scheme

    def counted(held: str) -> Any:
        tried.append(held)
        return scheme(held)

    monkeypatch.setattr(passwords, "_scheme", counted)
    assert not passwords.verify("secret", "")
    passwords.verify("secret", passwords.hashed("secret"))
    assert [held.split("$")[1] for held in tried] == ["6", "6"]
    assert not any("rounds" in held for held in tried)


def test_a_password_with_odd_characters_is_only_a_wrong_one() -> None:
    held = passwords.hashed("secret")
    assert not any(passwords.verify(text, held) for text in ("secret\0", "\0", "\ud800", "x" * 100_000, ""))


def test_the_published_hash_lets_nobody_in_unless_told() -> None:
    assert passwords.verify("test", passwords.PUBLISHED)
    assert not passwords.is_usable(passwords.PUBLISHED)
    for published in (False, True):
        found = logins.of_configuration(answer(hash=passwords.PUBLISHED), "test", published=published)
        assert found is not None
        assert passwords.verify("test", found.password_hash) is published


def test_a_login_names_a_context_after_its_user() -> None:
    assert logins.split("op") == ("op", "local")
    assert logins.split("op@vpn") == ("op", "vpn")
    assert logins.split("op@") == ("op", "local")


@pytest.mark.parametrize(("start", "most", "privilege", "privilege_max"), [
    (None, None, 6, 15), (15, None, 15, 15), (10, 12, 10, 12), (15, 3, 3, 3), (None, 2, 2, 2), (0, 0, 0, 0),
])  # fmt: skip
def test_privileges_of_an_administrator(
    start: int | None, most: int | None, privilege: int, privilege_max: int
) -> None:
    given = {"privilege_start": start, "privilege_max": most}
    said = {name: value for name, value in given.items() if value is not None}
    found = logins.of_configuration(answer(**said), "op@vpn", published=False)
    assert found is not None
    assert (found.user, found.context) == ("op", "vpn")
    assert (found.privilege, found.privilege_max) == (privilege, privilege_max)


def test_an_idle_session_ends_only_where_the_configuration_says_so() -> None:
    for minutes, seconds in ((None, inf), (0, inf), (5, 300.0)):
        found = logins.of_configuration(answer(idle_timeout=minutes), "op", published=False)
        assert found is not None
        assert found.idle_timeout == seconds


def test_who_is_not_configured_may_not_log_in() -> None:
    assert logins.of_configuration({"exists": False}, "op", published=True) is None
    assert logins.of_lab({}, "op") is None
    assert logins.of_lab({"user": ""}, "") is None
    assert logins.of_lab({"user": "op"}, "root") is None
    assert logins.of_lab({"user": "op"}, "op@vpn") is None


def test_the_login_of_the_lab_has_every_privilege() -> None:
    found = logins.of_lab({"user": "op", "hash": passwords.hashed("secret"), "keys": [key()]}, "op@local")
    assert found is not None
    assert (found.privilege, found.privilege_max, found.idle_timeout) == (15, 15, inf)
    assert passwords.verify("secret", found.password_hash)
    assert found.keys == (base64.b64decode(key().split()[1]),)


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-ed25519 AAAA", key(b"ssh-rsa"), "AAAA ssh-ed25519"]
)
def test_what_is_no_public_key_is_left_out(text: str) -> None:
    assert public_key(text) == b""
    assert public_key(key())


def test_a_log_line_shows_a_name_without_its_control_characters() -> None:
    assert logins.shown("op\r\nadmin\x1b[2J") == "'op??admin?[2J'"
    assert logins.shown("x" * 1000) == f"'{'x' * 40}'..."


def test_hashes_are_not_in_what_an_account_prints() -> None:
    found = logins.of_configuration(answer(enable=passwords.hashed("more")), "op", published=False)
    assert "$6$" not in repr(found)
