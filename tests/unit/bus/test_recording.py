"""Records of the bus: what is in them decodes again, secrets are not in them, and bad files say where."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings

from chassis.bus import codec, recording, records
from chassis.bus.messages import Datagram, Datagrams, Delta, Goodbye, Message, Reply, Snapshot
from chassis.bus.recording import RecordError
from chassis.model.ike import IkePolicy, PreSharedKey
from chassis.model.ipsec import Key, Keyed, ManualSa, Spi
from chassis.model.source import on_wire
from tests.support.messages import any_message

SECRET = b"a secret of the router"

DIRECTION = Spi(
    esp_spi=4097,
    esp_auth=Keyed(None, Key(SECRET)),
    esp_encryption=Keyed(None, Key(SECRET)),
    ah=Keyed(None, Key(SECRET)),
)
SA = records.PolicyRecord(0, ManualSa("sa", both=DIRECTION))


def _secret_records() -> list[Any]:
    """A record of each type that has something to hide, full of it."""
    return [
        SA,
        records.PolicyRecord(1, IkePolicy("p", pre_shared_key=PreSharedKey("ascii", SECRET))),
        records.CertificateRecord(1, "key", "key", SECRET),
    ]


@settings(max_examples=60, deadline=None)
@given(any_message)
def test_what_was_recorded_is_read_again(message: Message) -> None:
    lines = [
        json.dumps(recording.header()),
        json.dumps(recording.describe_message(1.5, "a", "lc 3", "to-card", message)),
    ]
    ((values, entry),) = recording.read(lines)
    assert entry == recording.RecordedMessage(1.5, "a", "lc 3", "to-card", recording.redacted(message))
    assert values["text"] == repr(entry.message)
    assert values["type"] == entry.type == type(message).__name__


@pytest.mark.parametrize("record", _secret_records(), ids=lambda record: type(record).__name__)
def test_no_secret_of_a_record_gets_into_a_line(record: records.Record) -> None:
    for message in (Delta(1, 2, (record,), ()), Snapshot(1, 1, 1, (record,))):
        assert SECRET in codec.encode(message)
        line = recording.describe_message(0.0, "a", "asp 1/1", "to-card", message)
        assert SECRET not in base64.b64decode(line["data"])
        assert SECRET.decode() not in json.dumps(line)


@pytest.mark.parametrize("direction", recording.DIRECTIONS)
def test_no_payload_of_a_datagram_gets_into_a_line(direction: str) -> None:
    message = Datagrams((Datagram(1, 0, 7, 1812, 1812, SECRET),))
    assert SECRET in codec.encode(message)
    line = recording.describe_message(0.0, "a", "lc 3", direction, message)
    assert SECRET not in base64.b64decode(line["data"])
    assert SECRET.decode() not in json.dumps(line)
    assert recording.entry(line).message == Datagrams((Datagram(1, 0, 7, 1812, 1812, b""),))


def test_keys_that_an_asp_was_asked_for_are_in_no_line() -> None:
    line = recording.describe_message(
        0.0, "a", "asp 1/1", "to-controller", Reply(1, {"keys": [{"sk_ei": SECRET.hex()}]})
    )
    assert SECRET.hex().encode() not in base64.b64decode(line["data"])
    assert "***" in line["text"]


def test_keys_of_a_manual_sa_keep_their_length_and_the_rest_its_value() -> None:
    sa = recording.redacted(Snapshot(1, 1, 1, (SA,))).records[0]
    assert (sa.value.keys("out").esp_cipher_key, sa.value.keys("in").esp_spi) == (bytes(len(SECRET)), 4097)
    assert sa.value.name == "sa"


def _types_within(*hints: Any) -> set[type]:
    """The dataclasses that values of these types consist of."""
    found: set[type] = set()
    todo = list(hints)
    while todo:
        hint = todo.pop()
        todo += get_args(hint)
        if is_dataclass(hint) and hint not in found:
            found.add(hint)
            inner = get_type_hints(hint)
            todo += [inner[item.name] for item in fields(hint) if on_wire(item)]
    return found


def test_every_secret_on_the_bus_is_known_here() -> None:
    """What a `repr` hides is what a record hides: these five types, and bytes in each case."""
    hiding = {
        kind.__name__: [item.type for item in fields(kind) if on_wire(item) and not item.repr]
        for kind in _types_within(*codec.MESSAGE_TYPES, *codec.RECORD_TYPES)
        if any(on_wire(item) and not item.repr for item in fields(kind))
    }
    assert set(hiding) == {"Key", "PreSharedKey", "CertificateRecord", "PeerAnswer", "Datagram"}
    assert {kind for kinds in hiding.values() for kind in kinds} == {"bytes"}


HEADER = json.dumps(recording.header())
LINE = recording.describe_message(0.0, "a", "lc 3", "to-card", Goodbye("x"))


@pytest.mark.parametrize(("lines", "said"), [
    ([], "line 1: the file is empty"),
    (["#!/bin/sh"], "line 1: not a complete JSON object"),
    (["[1]"], "line 1: not a JSON object"),
    (['{"name": "x"}'], "line 1: not a bus recording"),
    ([json.dumps({**recording.header(), "version": 3})], "line 1: a record of version 3; .* reads version 2"),
    ([json.dumps({**recording.header(), "protocol": 9})], "line 1: its messages are of protocol version 9"),
    ([HEADER, json.dumps(LINE), json.dumps(LINE)[:-9]], "line 3: .*cut short"),
    ([HEADER, json.dumps({**LINE, "data": "!"})], "line 2: its message is not base64"),
    ([HEADER, json.dumps({**LINE, "data": 5})], "line 2: its message is not base64"),
    ([HEADER, json.dumps({**LINE, "data": "wA=="})], "line 2: its message does not decode"),
    ([HEADER, json.dumps({**LINE, "direction": "sideways"})], "line 2: 'sideways' is not a direction"),
    ([HEADER, json.dumps({**LINE, "time": "now"})], "line 2: not a line of a bus recording"),
])  # fmt: skip
def test_a_bad_file_says_in_which_line(lines: Iterable[str], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        list(recording.read(lines))
