"""Kinds of arguments of requests, and the one reader that checks what came in against them.

A request comes from an operator's socket or from the bus, so anything may stand in it. What `read` lets through
is of the declared type and range, and the bus and the journal can carry it: whole numbers have 64 bits, numbers
are finite, texts are UTF-8 without NUL and have a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Protocol

from chassis.bus.codec import DEEPEST
from chassis.net.address import parse_address

LOWEST, HIGHEST = -(2**63), 2**63 - 1
"""Whole numbers that the bus carries, signed."""

MAX_SHOWN_CHARS = 40
"""Characters of a wrong value that a refusal quotes."""


class ArgumentError(ValueError):
    """What is asked for can't be done; the text says why."""


class UnknownRequest(ArgumentError):
    """There is no such request."""


def text_fault(text: str, most: float = inf) -> str:
    """Why a text can't be carried and kept: it has characters that are none, or more than `most` octets."""
    try:
        octets = len(text.encode())
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} is half of a surrogate pair"
    if "\0" in text:
        return f"character {text.index(chr(0)) + 1} is NUL"
    return f"it has {octets} octets, at most {most:.0f} are taken" if octets > most else ""


def shown(value: Any) -> str:
    """A wrong value as a refusal quotes it: short, whatever it is."""
    if isinstance(value, bool) or value is None or (isinstance(value, float) and not value > 1e300):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:MAX_SHOWN_CHARS]) + ("..." if len(value) > MAX_SHOWN_CHARS else "")
    return f"a {type(value).__name__}"


class ArgumentType(Protocol):
    """What an argument may be."""

    @property
    def expected(self) -> str:
        """In words, as in `a whole number from 1 to 100`."""

    def read(self, value: Any) -> Any:
        """The value; ValueError for any other. The text, where there is one, is more than `expected` says."""


@dataclass(frozen=True, slots=True)
class TextType:
    """A text of at most so many octets."""

    most: int = 256

    @property
    def expected(self) -> str:
        return f"a text of up to {self.most} octets"

    def read(self, value: Any) -> str:
        if type(value) is not str:
            raise ValueError
        if fault := text_fault(value, self.most):
            raise ValueError(fault)
        return value


@dataclass(frozen=True, slots=True)
class PathType:
    """The absolute path of a file."""

    expected: str = field(default="the absolute path of a file", init=False)

    def read(self, value: Any) -> str:
        if type(value) is not str or not value.startswith("/"):
            raise ValueError
        if fault := text_fault(value, 4095):
            raise ValueError(fault)
        return value


@dataclass(frozen=True, slots=True)
class IntType:
    """A whole number."""

    low: int = LOWEST
    high: int = HIGHEST

    @property
    def expected(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class NumberType:
    """A finite number; `unit` is what it counts."""

    low: float
    high: float
    unit: str = ""

    @property
    def expected(self) -> str:
        return f"a number{' of ' if self.unit else ''}{self.unit} from {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float:
        # Compared before it is made a float, which a large whole number can't be.
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise ValueError
        return float(value)


@dataclass(frozen=True, slots=True)
class QuantityType:
    """A number, or a text of one with its unit, such as `20ms`: whoever acts on it reads the text."""

    low: float
    high: float
    example: str

    @property
    def expected(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}, or a text such as {self.example}"

    def read(self, value: Any) -> float | str:
        if type(value) is str:
            return TextType(32).read(value)
        return NumberType(self.low, self.high).read(value)


@dataclass(frozen=True, slots=True)
class FlagType:
    """True or false."""

    expected: str = field(default="true or false", init=False)

    def read(self, value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class WordType:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]

    def read(self, value: Any) -> str:
        if type(value) is not str or value not in self.words:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class TextListType:
    """A list of texts, each of at most so many octets."""

    most: int = 64
    octets: int = 256

    @property
    def expected(self) -> str:
        return f"a list of up to {self.most} texts"

    def read(self, value: Any) -> list[str]:
        if type(value) is not list or len(value) > self.most:
            raise ValueError
        kind = TextType(self.octets)
        return [kind.read(item) for item in value]


@dataclass(frozen=True, slots=True)
class AddressType:
    """An IPv4 address, as text or as its number; read, it is the number."""

    expected: str = field(default="an IPv4 address", init=False)

    def read(self, value: Any) -> int:
        if type(value) is str:
            return parse_address(value[:MAX_SHOWN_CHARS])
        return IntType(0, 0xFFFFFFFF).read(value)


@dataclass(frozen=True, slots=True)
class EitherType:
    """The first of several kinds that takes the value."""

    kinds: tuple[ArgumentType, ...]

    @property
    def expected(self) -> str:
        return ", or ".join(kind.expected for kind in self.kinds)

    def read(self, value: Any) -> Any:
        for kind in self.kinds:
            try:
                return kind.read(value)
            except ValueError:
                continue
        raise ValueError


@dataclass(frozen=True, slots=True)
class ValuesType:
    """A map of names to plain values, as a lab file has them."""

    most: int = 200

    @property
    def expected(self) -> str:
        return f"a map of up to {self.most} plain values"

    def read(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError
        self._count(value, 0, self.most)
        return value

    def _count(self, value: Any, depth: int, left: int) -> int:
        """How many values may still come."""
        if left <= 0 or depth > DEEPEST:
            raise ValueError("there are too many values in it, or they are nested too deep")
        if type(value) is str:
            TextType(4096).read(value)
        elif type(value) is int:
            if not LOWEST <= value <= HIGHEST:
                raise ValueError("a number in it has more than 64 bits")
        elif type(value) is float:
            if not isfinite(value):
                raise ValueError("a number in it is not finite")
        elif type(value) in (dict, list):
            if type(value) is dict:
                for name in value:
                    TextType().read(name)
            left -= 1
            for item in value.values() if type(value) is dict else value:
                left = self._count(item, depth + 1, left)
            return left
        elif value is not None and type(value) is not bool:
            raise ValueError(f"a {type(value).__name__} is in it")
        return left - 1


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: what it may be, what it is for, and its value where it is not given (None: there is none)."""

    kind: ArgumentType
    help: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """A request: what it does, and its arguments by name."""

    help: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)


def read(spec: Spec, given: Any) -> dict[str, Any]:
    """The arguments of a request with their defaults; an argument that is None counts as not given.

    Raises:
        ArgumentError: one is missing, unknown, or not what it may be.
    """
    if type(given) is not dict or not all(type(name) is str for name in given):
        raise ArgumentError("arguments are a map of names to values")
    for name in given:
        if name not in spec.arguments:
            known = ", ".join(spec.arguments) or "none"
            raise ArgumentError(f"no argument {shown(name)}; there are: {known}")
    values: dict[str, Any] = {}
    for name, argument in spec.arguments.items():
        value = given.get(name)
        if value is None:
            if argument.required:
                raise ArgumentError(f"argument {name!r} is missing: {argument.help}")
            values[name] = argument.default
            continue
        try:
            values[name] = argument.kind.read(value)
        except ValueError as error:
            more = f" ({error})" if str(error) else ""
            raise ArgumentError(
                f"argument {name!r} is {shown(value)}, not {argument.kind.expected}{more}"
            ) from None
    return values


def named(specs: Mapping[str, Spec], name: Any, who: str) -> Spec:
    """The request of a name.

    Raises:
        UnknownRequest: there is none; `who` is asked.
    """
    spec = specs.get(name) if type(name) is str else None
    if spec is None:
        raise UnknownRequest(f"{who} does not know {shown(name)}: it knows {', '.join(sorted(specs))}")
    return spec


def refusal(name: Any, error: ArgumentError) -> str:
    """What is answered to a request that was refused."""
    return str(error) if isinstance(error, UnknownRequest) else f"{name}: {error}"


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only the arguments that have a value, as a request on the bus carries them."""
    return {name: value for name, value in values.items() if value is not None}


def fault(error: BaseException, frames: int = 3) -> str:
    """A fault of this program for its log: what was raised and where, innermost place first.

    Without the error's own text: a key may stand in it.
    """
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"internal error: {type(error).__name__} at {', '.join(places[: -frames - 1 : -1])}"
