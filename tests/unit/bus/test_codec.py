"""The control bus's one encoder and one decoder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Literal

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus import codec, messages, records
from chassis.model.ipsec import Key, Keyed, ManualSa, SaKeys, Spi
from chassis.net.errors import DecodeError
from tests.support.messages import any_message, any_record


@settings(max_examples=120, deadline=None)
@given(any_message)
def test_what_was_encoded_is_decoded(message: messages.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@settings(max_examples=80, deadline=None)
@given(any_record)
def test_records_too(record: records.Record) -> None:
    assert codec.decode_record(codec.encode_record(record)) == record


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_the_one_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        codec.decode(data)


@settings(max_examples=120, deadline=None)
@given(any_message, st.data())
def test_a_changed_byte_decodes_to_a_message_or_raises_the_one_error(
    message: messages.Message, data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = codec.decode(bytes(encoded))
    except DecodeError:
        return
    assert isinstance(again, codec.MESSAGE_TYPES)


@pytest.mark.parametrize("value", [
    ["Nothing", []],
    ["Goodbye", []],
    ["Goodbye", [1]],
    ["Goodbye", ["a", "b"]],
    ["Delta", [1, 2, [["RouteRecord", [1, 2]]], []]],
    ["Delta", [1, 2, [], [[]]]],
    ["Heartbeat", ["lc 3", True, 1, 1, 0.0]],
    ["Request", [1, "trace", {"deep": [[[[[[[[[1]]]]]]]]]}]],
    [["Goodbye"], ["a"]],
    {"Goodbye": "a"},
    None,
])  # fmt: skip
def test_what_is_almost_a_message_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        codec.decode(msgpack.packb(value))


@dataclass(frozen=True)
class Inner:
    number: int


@dataclass(frozen=True)
class Outer:
    """Has a field of each kind that no message has so far."""

    kind: Literal["main", "aggressive"]
    version: Literal[1, 2] = 1
    inner: Inner | None = None
    words: tuple[Inner, ...] = ()
    bit: Literal["set", "clear"] | None = None
    limit: int | None = None
    text: str | int | None = None
    line: int = field(default=0, metadata={"wire": False})
    last: int = 0


ENCODE, DECODE = codec.carrier(Outer)


@pytest.mark.parametrize("value", [
    Outer("main"),
    Outer("aggressive", 2, Inner(3), (Inner(1), Inner(2)), "set", 0, "x"),
    Outer("main", text=7, last=9),
])  # fmt: skip
def test_literals_and_optional_values_travel(value: Outer) -> None:
    assert DECODE(ENCODE(value)) == value


def test_a_field_off_the_wire_arrives_as_its_default() -> None:
    assert DECODE(ENCODE(Outer("main", line=7, last=5))) == Outer("main", line=0, last=5)
    assert len(msgpack.unpackb(ENCODE(Outer("main", line=7)))) == 8


@pytest.mark.parametrize(("place", "wrong", "says"), [
    (0, "base", "Outer: one of main, aggressive was expected"),
    (0, 1, "one of main, aggressive was expected"),
    (0, [], "one of main, aggressive was expected"),
    (1, True, "one of 1, 2 was expected"),
    (1, None, "one of 1, 2 was expected"),
    (2, 3, "Inner: 1 fields were expected"),
    (2, ["x"], "Inner: int was expected, not str"),
    (4, "copy", "one of set, clear was expected"),
    (5, "x", "int was expected, not str"),
    (6, 1.5, "str or int or nothing was expected, not float"),
    (6, [1], "str or int or nothing was expected, not list"),
])  # fmt: skip
def test_what_no_type_says_is_refused(place: int, wrong: object, says: str) -> None:
    values = msgpack.unpackb(ENCODE(Outer("main")))
    values[place] = wrong
    with pytest.raises(DecodeError, match=says):
        DECODE(msgpack.packb(values))


def test_a_field_off_the_wire_needs_a_default() -> None:
    @dataclass
    class NoDefault:
        line: int = field(metadata={"wire": False})

    with pytest.raises(TypeError, match=r"NoDefault\.line"):
        codec.carrier(NoDefault)


def test_keys_are_in_no_repr() -> None:
    keys = SaKeys(esp_integrity_key=b"secret-one", esp_cipher_key=b"secret-two", ah_key=b"secret-three")
    assert "secret" not in repr(keys)
    spi = Spi(esp_auth=Keyed(None, Key(b"secret-one")), esp_encryption=Keyed(None, Key(b"secret-two")))
    record = records.PolicyRecord(0, ManualSa("sa", both=replace(spi, ah=Keyed(None, Key(b"secret-three")))))
    assert "secret" not in repr(messages.Delta(1, 2, (record,), ()))
