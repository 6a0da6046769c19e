"""The algorithms of today's peers: names of the grammar that a node knows only where its lab asks for them."""

from __future__ import annotations

import pytest

from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY, PRFS
from chassis.ase.ike.crypto.diffie_hellman import GROUPS
from chassis.config.grammar import Choice, parse_syntax
from chassis.config.matcher import expected
from chassis.config.operations import BY_ID
from chassis.config.parser import parse
from chassis.config.render import render

LINES = [
    ("ike2 proposal p", "authentication algorithm hmac-sha-256-128"),
    ("ike2 proposal p", "encryption algorithm aes-256-gcm"),
    ("ike2 proposal p", "pseudo-random-function hmac-sha-512"),
    ("ike proposal p", "authentication algorithm hmac-sha-384-192"),
    ("ike proposal p", "dh-group 16"),
    ("ipsec proposal p", "ah hmac-sha-512-256"),
    ("ipsec proposal p", "esp authentication hmac-sha-256-128"),
    ("ipsec proposal p", "esp encryption aes-128-gcm"),
    ("ipsec policy p", "perfect-forward-secrecy dh-group 31"),
]


@pytest.mark.parametrize(("opens", "line"), LINES)
def test_a_modern_name_is_known_where_it_is_asked_for(opens: str, line: str) -> None:
    text = f"{opens}\n  {line}\n"
    assert [found.severity for found in parse(text).diagnostics] == ["error"]
    parsed = parse(text, modern=True)
    assert parsed.diagnostics == ()
    printed = render(parsed.config)
    assert line in printed
    assert parse(printed, modern=True).config == parsed.config


def test_the_guides_names_are_known_with_and_without() -> None:
    text = "ike2 proposal p\n  dh-group 14\n  encryption algorithm 3des-cbc\n"
    assert parse(text).config == parse(text, modern=True).config


def test_version_1_has_no_authenticating_cipher() -> None:
    (found,) = parse("ike proposal p\n  encryption algorithm aes-128-gcm\n", modern=True).diagnostics
    assert (found.severity, found.code, found.line) == ("warning", "aead", 2)


def test_a_cipher_that_authenticates_needs_no_second_algorithm() -> None:
    assert not parse("ipsec proposal p\n  esp encryption aes-128-gcm\n", modern=True).diagnostics
    (found,) = parse("ipsec proposal p\n  esp encryption aes-128-cbc\n", modern=True).diagnostics
    assert found.code == "S-033"


@pytest.mark.parametrize(("command", "field", "registry", "left_out"), [
    ("ike-proposal.dh-group", "dh_group", GROUPS, set()),
    ("ike-proposal.encryption-algorithm", "encryption_algorithm", CIPHERS, {"null"}),
    ("ike-proposal.authentication-algorithm", "authentication_algorithm", INTEGRITY, {"hmac-aes-xcbc"}),
    ("ike2-proposal.pseudo-random-function", "prf", PRFS, set()),
    ("ipsec-proposal.esp-encryption", "esp_encryption", CIPHERS, set()),
    ("ipsec-proposal.esp-authentication", "esp_authentication", INTEGRITY, set()),
    ("ipsec-policy.perfect-forward-secrecy", "pfs_group", GROUPS, set()),
])  # fmt: skip
def test_the_grammar_and_the_arithmetic_know_the_same(
    command: str, field: str, registry: dict[object, object], left_out: set[object]
) -> None:
    """By the registries' own word on what is modern."""
    (choice,) = [
        one for one in parse_syntax(BY_ID[command].syntax) if isinstance(one, Choice) and one.field == field
    ]
    modern = {name for name, spec in registry.items() if getattr(spec, "modern", False)}
    assert {value for _, value in choice.extensions} == modern
    assert {value for _, value in choice.options} == registry.keys() - modern - left_out


def test_a_no_form_knows_the_name_too() -> None:
    text = "ipsec proposal p\n  esp encryption aes-128-gcm\n  no esp encryption aes-128-gcm\n"
    assert parse(text, modern=True).diagnostics == ()
    assert parse(text, modern=True).config == parse("ipsec proposal p\n").config


def test_help_offers_the_guides_lists() -> None:
    offered = [word for word, _ in expected("ike-proposal", ["dh-group"])]
    assert offered == ["1", "2", "5", "14"]
