"""The search that finds no key in a lab's outputs finds one in each form that it may have."""

from __future__ import annotations

import base64
import json
import random

import msgpack
import pytest

from tests.support.authority import Authority
from tests.support.key_search import found, private_parts

KEY = bytes.fromhex("00ff5a1122334455667788990a0d27ab")
TEXT = b"ManualKeyInLetters20"
KEYS = {"octets": KEY, "text": TEXT}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(3))
def test_a_planted_key_is_found(name: str, before: int, after: int) -> None:
    key, source = KEYS[name], random.Random(before * 3 + after)
    around = source.randbytes(before), source.randbytes(after)
    whole = around[0] + key + around[1]
    for output in (
        whole,
        whole.hex().encode(),
        whole.hex().upper().encode(),
        whole.hex(":").encode(),
        base64.b64encode(whole),
        base64.urlsafe_b64encode(whole),
        base64.encodebytes(whole * 5),
        repr(whole).encode(),
        json.dumps({"data": base64.b64encode(msgpack.packb([1, whole, "x"])).decode()}).encode(),
    ):
        assert found(KEYS, b"some text " + output + b" and more") == [name], output


def test_what_holds_no_key_is_not_found() -> None:
    source = random.Random(1)
    for _ in range(200):
        assert found(KEYS, base64.b64encode(source.randbytes(300)) + source.randbytes(300)) == []
    # A part of a key is not the key, nor is another of its length.
    assert found(KEYS, TEXT[:-1] + b" " + KEY[1:]) == []


def test_the_parts_of_a_private_key_are_found_in_its_file_and_not_in_its_certificate() -> None:
    issued = Authority(bits=1024).issue("a", "10.0.0.1")
    parts = private_parts(issued.key)
    assert len(parts) > 8
    assert set(found(parts, issued.key.encode())) == parts.keys()
    assert found(parts, issued.certificate.encode()) == []


def test_a_key_whose_base64_has_what_begins_a_number_is_found_over_two_lines() -> None:
    text = b"QUJD0xQUJDREVGR0hJSk0xUl"
    key = base64.b64decode(text)
    assert found({"key": key}, b"a line\n" + text[:12] + b"\n" + text[12:] + b"\n") == ["key"]
