"""Addresses and prefixes as text and numbers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.net import address as a

u32 = st.integers(0, 0xFFFFFFFF)


@given(u32)
def test_text_and_back(number: int) -> None:
    text = a.format_address(number)
    assert text == str(ipaddress.IPv4Address(number))
    assert a.parse_address(text) == number


@given(u32, st.integers(0, 32), u32)
def test_prefixes_agree_with_the_standard_library(number: int, length: int, other: int) -> None:
    theirs = ipaddress.IPv4Network((number, length), strict=False)
    prefix = a.network_of(number, length)
    assert a.format_prefix(prefix) == str(theirs)
    assert a.parse_prefix(str(theirs)) == prefix
    assert a.contains(prefix, other) == (ipaddress.IPv4Address(other) in theirs)
    if length < 31:
        assert a.directed_broadcast(prefix) == int(theirs.broadcast_address)
    else:
        assert a.directed_broadcast(prefix) is None


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-1", "a.b.c.d", "1..2.3", "1.2.3.0004", "1.2.3.٤"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        a.parse_address(text)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "10.0.0.1/8", "10.0.0.0/-1"])
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match="prefix length"):
        a.parse_prefix(text)


def test_prefix_of_one_address_and_with_host_bits() -> None:
    assert a.parse_prefix("10.0.0.1") == (0x0A000001, 32)
    assert a.parse_prefix("10.0.0.1/8", host_bits=True) == (0x0A000000, 8)


@given(st.binary(min_size=6, max_size=6))
def test_mac_text(mac: bytes) -> None:
    assert a.parse_mac(a.format_mac(mac)) == mac


@pytest.mark.parametrize("text", ["", "02:00:00:00:03", "02:00:00:00:03:zz", "0:2:0:0:3:b", "020000000301"])
def test_what_is_no_mac(text: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        a.parse_mac(text)


def test_kinds_of_address() -> None:
    assert a.is_multicast(a.parse_address("224.0.0.5"))
    assert not a.is_multicast(a.parse_address("240.0.0.1"))
    good = [a.parse_address(text) for text in ("1.0.0.1", "10.255.255.255", "223.1.1.1")]
    bad = [a.parse_address(text) for text in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")]
    assert all(map(a.is_unicast_host, good))
    assert not any(map(a.is_unicast_host, bad))
