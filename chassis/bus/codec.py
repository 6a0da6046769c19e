"""MessagePack encoding of control messages and records; encoder and decoder are generated from the types.

A dataclass is an array: its name, if several types are possible, then its fields in order. Decoding checks every
value against the type of its field, and raises `DecodeError` for a value of another type.

A field may be a scalar, one of several scalars (`Literal`, `int | None`), a dataclass, one of several dataclasses,
a dataclass or None, a tuple of these, or a map. A field with `metadata={"wire": False}` stays off the wire
and is decoded to its default.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from sys import intern
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgpack

from chassis.bus import messages, records
from chassis.bus.messages import Message
from chassis.bus.records import Record
from chassis.model.source import on_wire
from chassis.net.errors import DecodeError

Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]

MAX_MESSAGE = 16 * 1024 * 1024
"""Length (octets) of the longest control message that is decoded."""

MAX_KEPT_OCTETS = 1 << 18
"""Length (octets) of a message from which the buffer that it was encoded in is given back."""

DEEPEST = 8
"""Most levels of maps and lists in a value. The answer to `ike`, with IKE SAs and their CHILD SAs, has six."""


def _plain(value: Any) -> Any:
    return value


def _scalar(kind: type) -> Decoder:
    return _SCALAR_DECODERS[kind] if kind in _SCALAR_DECODERS else _new_scalar(kind)


def _new_scalar(kind: type) -> Decoder:
    if kind is float:

        def number(value: Any) -> float:
            if type(value) is float or type(value) is int:
                return float(value)
            raise DecodeError("bus", f"a number was expected, not {type(value).__name__}")

        return number
    if kind is str:

        def text(value: Any) -> Any:
            if type(value) is not str:
                raise DecodeError("bus", f"str was expected, not {type(value).__name__}")
            # Thousands of records have the same names in them: all share one text.
            return intern(value)

        return text

    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise DecodeError("bus", f"{kind.__name__} was expected, not {type(value).__name__}")
        return value

    return decode


_SCALAR_DECODERS: Final[dict[type, Decoder]] = {kind: _new_scalar(kind) for kind in (str, int, bool, bytes)}


def _literal(members: tuple[Any, ...]) -> Decoder:
    known = {(type(member), member): member for member in members}

    def decode(value: Any) -> Any:
        if type(value) not in (str, int, bool, bytes) or (type(value), value) not in known:
            raise DecodeError("bus", f"one of {', '.join(map(str, members))} was expected")
        return known[type(value), value]

    return decode


def _one_of(kinds: tuple[Any, ...]) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) not in kinds:
            names = " or ".join("nothing" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise DecodeError("bus", f"{names} was expected, not {type(value).__name__}")
        return value

    return decode


def _loose(value: Any, depth: int = 0) -> Any:
    """Arguments and results of requests: any nesting of plain values, no deeper than `DEEPEST`."""
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    if depth >= DEEPEST:
        raise DecodeError("bus", "values are nested too deep")
    if type(value) is list:
        return [_loose(item, depth + 1) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _loose(item, depth + 1) for key, item in value.items()}
    raise DecodeError("bus", f"a plain value was expected, not {type(value).__name__}")


def _loose_map(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise DecodeError("bus", "a map was expected")
    return typing.cast("dict[str, Any]", _loose(value))


def _key(value: Any) -> Any:
    if type(value) is not list or not value or not all(type(part) in (str, int) for part in value):
        raise DecodeError("bus", "a record's key was expected")
    return tuple(value)


_SCALARS = (str, int, float, bool, bytes, types.NoneType)


class _Codec:
    """Encoders and decoders of all types, compiled once."""

    def __init__(self) -> None:
        self._encoders: dict[type, Encoder] = {}
        self._decoders: dict[type, Decoder] = {}

    def of(self, hint: Any) -> tuple[Encoder, Decoder]:
        origin = get_origin(hint)
        if hint is records.Key or (origin is tuple and get_args(hint) == get_args(records.Key)):
            return list, _key
        if origin in (Union, types.UnionType):
            return self._union(get_args(hint))
        if origin is tuple:
            return self._tuple(get_args(hint))
        if origin is dict:
            return _plain, _loose_map
        if origin is Literal:
            return _plain, _literal(get_args(hint))
        if is_dataclass(hint):
            return self._dataclass(typing.cast(type, hint))
        return _plain, _scalar(hint)

    def _tuple(self, args: tuple[Any, ...]) -> tuple[Encoder, Decoder]:
        if Ellipsis not in args:
            return self._row(args)
        encode, decode = self.of(args[0])

        def pack(value: Any) -> list[Any]:
            return [encode(item) for item in value]

        def unpack(value: Any) -> tuple[Any, ...]:
            if type(value) is not list:
                raise DecodeError("bus", "a list was expected")
            return tuple([decode(item) for item in value])

        return pack, unpack

    def _row(self, args: tuple[Any, ...]) -> tuple[Encoder, Decoder]:
        """A tuple of fixed length."""
        parts = [self.of(arg) for arg in args]

        def pack(value: Any) -> list[Any]:
            return [encode(item) for (encode, _), item in zip(parts, value, strict=True)]

        def unpack(value: Any) -> tuple[Any, ...]:
            if type(value) is not list or len(value) != len(parts):
                raise DecodeError("bus", f"a list of {len(parts)} was expected")
            return tuple([decode(item) for (_, decode), item in zip(parts, value, strict=True)])

        return pack, unpack

    def _union(self, members: tuple[Any, ...]) -> tuple[Encoder, Decoder]:
        others = tuple(member for member in members if member is not types.NoneType)
        if len(others) == 1 and len(members) == 2:
            return self._optional(others[0])
        if all(member in _SCALARS for member in members):
            return _plain, _one_of(members)
        if not all(is_dataclass(member) for member in members):
            return _plain, _loose
        encoders = {member: (member.__name__, self.of(member)[0]) for member in members}
        decoders = {member.__name__: self.of(member)[1] for member in members}

        def pack(value: Any) -> list[Any]:
            name, encode = encoders[type(value)]
            return [name, encode(value)]

        def unpack(value: Any) -> Any:
            if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
                raise DecodeError("bus", "a [type, fields] pair was expected")
            decode = decoders.get(value[0])
            if decode is None:
                raise DecodeError("bus", f"no such type: {value[0][:40]!r}")
            return decode(value[1])

        return pack, unpack

    def _optional(self, member: Any) -> tuple[Encoder, Decoder]:
        encode, decode = self.of(member)

        def pack(value: Any) -> Any:
            return None if value is None else encode(value)

        def unpack(value: Any) -> Any:
            return None if value is None else decode(value)

        return pack, unpack

    def _dataclass(self, kind: type) -> tuple[Encoder, Decoder]:
        if kind in self._encoders:
            return self._encoders[kind], self._decoders[kind]
        hints = typing.get_type_hints(kind)
        parts = [(item.name, *self.of(hints[item.name])) for item in fields(kind) if on_wire(item)]
        name, count = kind.__name__, len(parts)
        positional = all(on_wire(item) and not item.kw_only for item in fields(kind)[:count])
        for item in fields(kind):
            if not on_wire(item) and item.default is MISSING and item.default_factory is MISSING:
                raise TypeError(f"{name}.{item.name} stays off the wire and has no default")

        pack, unpack = _compiled(kind, parts, positional)
        self._encoders[kind], self._decoders[kind] = pack, unpack
        return pack, unpack


_SOURCE = """\
def pack(value):
    return [{packed}]

def unpack(value):
    if type(value) is not list or len(value) != {count}:
        raise DecodeError("bus", "{name}: {count} fields were expected")
    {names} = value
    try:
        return kind({unpacked})
    except DecodeError as error:
        raise DecodeError("bus", "{name}: " + error.what) from None
"""


def _compiled(kind: type, parts: list[tuple[str, Encoder, Decoder]], positional: bool) -> tuple[Encoder, Decoder]:
    """Return encoder and decoder of a class of records or messages, without a loop over its fields: a snapshot has
    thousands of records. Fields of plain values are taken as they are, and a plain type is checked in place."""
    known: dict[str, Any] = {"DecodeError": DecodeError, "intern": intern, "kind": kind}
    packed, unpacked = [], []
    for number, (field, encode, decode) in enumerate(parts):
        known[f"encode{number}"], known[f"decode{number}"] = encode, decode
        packed.append(f"value.{field}" if encode is _plain else f"encode{number}(value.{field})")
        plain = next((one for one, decoder in _SCALAR_DECODERS.items() if decoder is decode), None)
        text = f"decode{number}(f{number})"
        if plain is not None:
            taken = f"intern(f{number})" if plain is str else f"f{number}"
            text = f"{taken} if type(f{number}) is {plain.__name__} else {text}"
        unpacked.append(text if positional else f"{field}={text}")
    names = "".join(f"f{number}, " for number in range(len(parts))).rstrip() or "()"
    source = _SOURCE.format(
        packed=", ".join(packed), unpacked=", ".join(unpacked), names=names, count=len(parts), name=kind.__name__
    )
    exec(source, known)
    return known["pack"], known["unpack"]


_codec = _Codec()


class EncodeError(ValueError):
    """A message cannot be encoded; the text is the reason, without the values."""


_packer = msgpack.Packer()
"""Kept, because each has a buffer of its own, of 256 KiB and more."""


def _octets(value: Any) -> bytes:
    """Return a value in MessagePack; raises what its encoder raises."""
    global _packer
    data: bytes = _packer.pack(value)
    if len(data) > MAX_KEPT_OCTETS:
        # Its buffer has grown, and would stay so.
        _packer = msgpack.Packer()
    return data


def _packed(kind: str, value: Any) -> bytes:
    """Encode a value within the limits of length and MessagePack.

    Raises:
        EncodeError: the value cannot be encoded, or is too long.
    """
    try:
        data = _octets(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Leave out the error's text: it may contain a key.
        raise EncodeError(f"{kind}: what is in it can't be carried ({type(error).__name__})") from None
    if len(data) > MAX_MESSAGE:
        raise EncodeError(f"{kind}: {len(data)} bytes are too many")
    return data


def carrier(union: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return (encoder, decoder) for several message types, for another link; raises as `encode` and `decode`."""
    pack, unpack = _codec.of(union)

    def encode(message: Any) -> bytes:
        return _octets(pack(message))

    def decode(data: bytes) -> Any:
        try:
            value = msgpack.unpackb(data, strict_map_key=True)
        except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
            raise DecodeError("message", str(error)) from None
        return unpack(value)

    return encode, decode


_pack_message, _unpack_message = _codec.of(Message)
_pack_record, _unpack_record = _codec.of(Record)

MESSAGE_TYPES: tuple[type, ...] = get_args(messages.Message)
RECORD_TYPES: tuple[type, ...] = get_args(records.Record)


def encode(message: Message) -> bytes:
    """Return the encoded control message.

    Raises:
        EncodeError: it has a value that cannot be encoded, or is too long.
    """
    return _packed(type(message).__name__, _pack_message(message))


def decode(data: bytes | memoryview) -> Message:
    """Return the decoded control message.

    Raises:
        DecodeError: the octets are not a message of this protocol; the text names the wrong part.
    """
    if len(data) > MAX_MESSAGE:
        raise DecodeError("control message", f"{len(data)} bytes are too many")
    try:
        value = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError("control message", str(error)) from None
    message: Message = _unpack_message(value)
    return message


def encode_record(record: Record) -> bytes:
    """Return one encoded record, as the controller stores and compares it; raises as `encode`."""
    return _packed(type(record).__name__, _pack_record(record))


def decode_record(data: bytes | memoryview) -> Record:
    """Return the decoded record; raises as `decode`."""
    try:
        value = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError("record", str(error)) from None
    record: Record = _unpack_record(value)
    return record
