"""Odd values of every type, from a seed, and generated requests: right ones, wrong ones and all between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from math import inf, nan
from random import Random
from typing import Any

from chassis.bus import codec
from chassis.bus.engine import Append, Output, Perform, ToCard, ToController, ToFlash, ToIke, ToOperator
from chassis.net.errors import DecodeError


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64,
        -(2**63) - 1),
    *(10**400, -(10**400), 0.0, -0.0, 0.5, 1e-320, 1e-3, 1e7, 1e308, -1e308, inf, -inf, nan),
)  # fmt: skip
TEXTS = (
    *("", " ", "a", "all", "x" * 300, "x" * 9_000, "\0", "a\0b", "\ud800", "\udcff.cfg", "\u202e", "\x1b[2J",
        "\U0001f4a5"),
    *("1%", "-1%", "1e999", "nan", "inf", "20ms", "-20ms", "1_0", "100M", "max", "none", "true", "~", "10.0.0.1"),
    *("10.0.0.1/33", "::1", "3/11", "99999999999/1", "../..", "/", "/dev/zero", "/\0", "a:b:c", "{{ kind }}",
        "{i}", "%s%n"),
)  # fmt: skip
DEEP = deep(2000)
ODD: tuple[Any, ...] = (
    *(None, True, False),
    *NUMBERS,
    *TEXTS,
    *([], [[]], {}, [None], ["a", 1], {"a": 1}, {"\ud800": 1}, {"": {"": {}}}, {"a": [{"b": inf}]}),
    deep(9),
    DEEP,
    list(range(500)),
    {str(number): number for number in range(500)},
)
"""Whatever JSON can say."""

RAW: tuple[Any, ...] = (*ODD, b"", b"\xff", {1: 2}, (1,), object())
"""And what only another program of ours could."""


def example(kind: Any, random: Random) -> Any:
    """A value that a kind of argument takes, at its edges where it has any."""
    name = type(kind).__name__
    if name == "IntType":
        return random.choice((kind.low, kind.high, max(kind.low, min(kind.high, 7))))
    if name in ("NumberType", "QuantityType"):
        return random.choice((kind.low, kind.high, (kind.low + kind.high) / 2, max(kind.low, min(kind.high, 1))))
    if name == "WordType":
        return random.choice(kind.words)
    if name == "EitherType":
        return example(random.choice(kind.kinds), random)
    made = {
        "TextType": ("", "a", "3/11", "1", "t1", "lc 3", "asp 1/1", "port 3/11", "forward", "local"),
        "PathType": ("/tmp/x.pcapng", "/", "/nowhere/at/all"),
        "FlagType": (True, False),
        "TextListType": ([], ["TunnelEvent"]),
        "AddressType": ("10.0.0.1", 0, 0xFFFFFFFF),
        "ValuesType": ({}, {"from": "t1:1", "to": "t2:1", "source": "10.0.0.1", "destination": "10.0.0.2"}),
    }
    return random.choice(made[name])


def requests(
    table: Mapping[str, Any], count: int, seed: int, values: tuple[Any, ...] = ODD
) -> Iterator[tuple[Any, Any]]:
    """(name, arguments) of so many requests: mostly with one odd argument among right ones."""
    random = Random(seed)
    names = sorted(table)
    for _ in range(count):
        name = random.choice(names)
        arguments: Any = {
            key: example(argument.kind, random)
            for key, argument in table[name].arguments.items()
            if argument.required or random.random() < 0.5
        }
        chance = random.random()
        keys = list(table[name].arguments)
        if keys and chance < 0.7:
            for key in random.sample(keys, min(len(keys), random.choice((1, 1, 2)))):
                arguments[key] = random.choice(values)
        elif chance < 0.75:
            arguments[random.choice(("node", "port", "", "\ud800", "x" * 300))] = random.choice(values)
        elif chance < 0.8:
            arguments = random.choice(values)
        elif chance < 0.83:
            yield random.choice(values), arguments
            continue
        yield name, arguments


def survived(call: Callable[..., Any], *arguments: Any, about: object = "") -> Any:
    """What a call returns; whatever it raises fails the test."""
    try:
        return call(*arguments)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:200]}; {short(about)}") from error


def short(value: object) -> str:
    """A value for a message, however odd it is."""
    try:
        return ascii(value)[:300]
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that can't be shown"


def over_the_bus(message: Any) -> Any:
    """A message as it comes out at the other end; None where the bus refuses it, at either end."""
    try:
        data = codec.encode(message)
    except codec.EncodeError:
        return None
    try:
        return codec.decode(data)
    except DecodeError:
        return None


def carried(outputs: list[Output], about: object = "") -> list[Output]:
    """The outputs of an engine, after a look that the bus and the operator's socket can carry each of them, and
    that no fault of the program is among the answers."""
    for output in outputs:
        if isinstance(output, (ToCard, ToController)):
            data = survived(codec.encode, output.message, about=about)
            assert codec.decode(data) == output.message, about
        elif isinstance(output, ToOperator):
            survived(json.dumps, [output.result, output.error], about=about)
            assert "internal error" not in output.error, (output.error, short(about))
        error = getattr(getattr(output, "message", None), "error", "")
        assert "internal error" not in error, (error, short(about))
    return outputs


def asked(outputs: list[Output]) -> list[Output]:
    """Of these outputs those that answer, or will."""
    return [
        output
        for output in outputs
        if isinstance(output, (Append, ToFlash, ToOperator, ToCard, ToController, ToIke, Perform))
    ]
