"""Security-Service in all its forms, and the other attributes of an Access-Accept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.packet import AccessAccept, Packet

from chassis.aaa.answers import AccessAnswer, AnswerError, SecurityService, read_accept, read_security_service
from chassis.aaa.dictionary import DICTIONARY

WORD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


def accept(**attributes: Any) -> Packet:
    packet = Packet(AccessAccept, 1, dict=DICTIONARY)
    for name, value in attributes.items():
        packet.AddAttribute(name.replace("_", "-"), value)
    return packet


def raw(values: dict[Any, list[bytes]]) -> Packet:
    packet = Packet(AccessAccept, 1, dict=DICTIONARY)
    for key, value in values.items():
        packet[key] = value
    return packet


@pytest.mark.behaviour("B-094")
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ike pre-shared-key secret1", b"secret1"),
        ("ike pre-shared-key hex 00ff7A", b"\0\xffz"),
        ("ike pre-shared-key hex 0x00ff", b"\0\xff"),
        ("ike pre-shared-key 0x00ff", b"0x00ff"),
        ("  ike  pre-shared-key   a;b ", b"a;b"),
        ("ike pre-shared-key hexagon", b"hexagon"),
        ('ike pre-shared-key "quoted"', b'"quoted"'),
    ],
)
def test_the_key_comes_as_the_guide_prints_it(text: str, key: bytes) -> None:
    assert read_security_service(text) == SecurityService(key)


@pytest.mark.behaviour("B-095")
@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("ipsec profile branch", SecurityService(None, "branch")),
        ("ipsec profile branch;ike pre-shared-key s", SecurityService(b"s", "branch")),
        ("ike pre-shared-key s;ipsec profile branch", SecurityService(b"s", "branch")),
        ("ike pre-shared-key hex 6162 ; ipsec profile branch", SecurityService(b"ab", "branch")),
        ("ipsec profile branch ; ike pre-shared-key a;b", SecurityService(b"a;b", "branch")),
        ("ike pre-shared-key a;b;ipsec profile branch", SecurityService(b"a;b", "branch")),
    ],
)
def test_a_profile_may_come_with_a_key_in_either_order(text: str, service: SecurityService) -> None:
    assert read_security_service(text) == service


@pytest.mark.parametrize(
    "text",
    [
        "", "ike pre-shared-key", "ike pre-shared-key hex", "ike pre-shared-key hex abc",
        "ike pre-shared-key hex xyz",
        "ike pre-shared-key two words", "ipsec profile", "ipsec profile a b", "ipsec profile a;", "firewall on",
        "ike pre-shared-key caf\u00e9", "ike pre-shared-key a\0b", "ipsec profile a;ipsec profile b",
    ],
)  # fmt: skip
def test_other_forms_are_refused_without_telling_a_key(text: str) -> None:
    with pytest.raises(AnswerError) as error:
        read_security_service(text)
    for word in ("abc", "xyz", "two words", "caf"):
        assert word not in str(error.value)


@given(WORD.filter(lambda word: word.lower() != "hex"), WORD.filter(lambda word: ";" not in word), st.booleans())
def test_any_key_and_profile_are_read_back(key: str, profile: str, first: bool) -> None:
    parts = [f"ike pre-shared-key {key}", f"ipsec profile {profile}"]
    text = ";".join(parts if first else parts[::-1])
    assert read_security_service(text) == SecurityService(key.encode(), profile)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for form in (text, f"ike pre-shared-key {text}", f"ipsec profile {text}"):
        try:
            read_security_service(form)
        except AnswerError:
            continue


def test_an_answer_has_addresses_names_servers_and_terms() -> None:
    packet = accept(
        Framed_IP_Address="10.50.0.7", Framed_IP_Netmask="255.255.255.0", Framed_Pool="clients",
        Session_Timeout=3600, Acct_Interim_Interval=600, Client_DNS_Pri="10.0.0.53", Client_DNS_Sec="10.0.1.53",
        MS_Primary_DNS_Server="10.0.0.53", MS_Secondary_DNS_Server="10.0.2.53",
    )  # fmt: skip
    packet[25] = [b"0x41", b"\0class"]
    assert read_accept(packet, "s") == AccessAnswer(
        address="10.50.0.7", netmask="255.255.255.0", pool="clients", session_timeout=3600, interim_interval=600,
        dns=("10.0.0.53", "10.0.1.53", "10.0.2.53"), classes=(b"0x41", b"\0class"), server="s",
    )  # fmt: skip


@pytest.mark.parametrize("address", ["255.255.255.255", "255.255.255.254"])
def test_an_address_left_to_the_router_is_none(address: str) -> None:
    assert read_accept(accept(Framed_IP_Address=address), "s").address is None


def test_key_and_profile_may_come_in_two_attributes() -> None:
    packet = accept(Security_Service=["ipsec profile p", "ike pre-shared-key k"])
    answer = read_accept(packet, "s")
    assert (answer.key, answer.profile) == (b"k", "p")
    assert "'k'" not in repr(answer)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({8: [b"\1\2\3"]}, "Framed-IP-Address has a wrong length"),
        ({27: [b"\0"]}, "Session-Timeout has a wrong length"),
        ({(311, 28): [b"12345"]}, "MS-Primary-DNS-Server has a wrong length"),
        ({8: [b"\1\2\3\4", b"\1\2\3\5"]}, "Framed-IP-Address is given 2 times"),
        ({88: [b"\xff\xfe"]}, "Framed-Pool is not text in UTF-8"),
        ({(2352, 203): [b"\xff"]}, "Security-Service is not text in UTF-8"),
        ({(2352, 203): [b"ike pre-shared-key a", b"ike pre-shared-key b"]}, "two keys or two profiles"),
    ],
)
def test_a_wrong_attribute_is_told(attributes: dict[Any, list[bytes]], said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        read_accept(raw(attributes), "s")
