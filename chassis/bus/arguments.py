"""Types of request arguments, and the function that checks a received request against them.

In: the arguments of a request from an operator's socket or from the bus, which are not trusted. Out: values of the
declared type and range that the bus and the journal can encode: 64-bit integers, finite numbers, and UTF-8 texts
without NUL, of limited length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Protocol

from chassis.bus.codec import DEEPEST
from chassis.net.address import parse_address

LOWEST, HIGHEST = -(2**63), 2**63 - 1
"""Range of the integers that the bus carries (64 bits, signed)."""

MAX_SHOWN_CHARS = 40
"""Length (characters) of the part of a wrong value that an error message quotes."""

MAX_QUOTED_OCTETS = 4096
"""Length (octets) up to which a text is a name, a path or the like, which an error message may quote."""


class ArgumentError(ValueError):
    """A request cannot be carried out; the text says why."""


class UnknownRequest(ArgumentError):
    """The process does not have a request of this name."""


def text_fault(text: str, most: float = inf) -> str:
    """Return why a text cannot be encoded or stored (invalid characters, over `most` octets); empty if it can."""
    try:
        octets = len(text.encode())
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} is half of a surrogate pair"
    if "\0" in text:
        return f"character {text.index(chr(0)) + 1} is NUL"
    return f"it has {octets} octets, at most {most:.0f} are taken" if octets > most else ""


def shown(value: Any) -> str:
    """Return a wrong value as an error message quotes it, shortened."""
    if isinstance(value, bool) or value is None or (isinstance(value, float) and not value > 1e300):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:MAX_SHOWN_CHARS]) + ("..." if len(value) > MAX_SHOWN_CHARS else "")
    return f"a {type(value).__name__}"


class ArgumentType(Protocol):
    """The type of an argument."""

    @property
    def expected(self) -> str:
        """The type in words, as in `a whole number from 1 to 100`."""

    def read(self, value: Any) -> Any:
        """Return the checked value.

        Raises:
            ValueError: the value is not of this type. Its text, if any, adds to `expected`.
        """


@dataclass(frozen=True, slots=True)
class TextType:
    """A text of at most `most` octets."""

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
        # Compare before the conversion: a large integer does not fit a float.
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise ValueError
        return float(value)


@dataclass(frozen=True, slots=True)
class QuantityType:
    """A number, or a text with a number and its unit, such as `20ms`. The process that uses it parses the text."""

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
    """A list of at most `most` texts."""

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
    """An IPv4 address as text or number; the result is the number."""

    expected: str = field(default="an IPv4 address", init=False)

    def read(self, value: Any) -> int:
        if type(value) is str:
            return parse_address(value[:MAX_SHOWN_CHARS])
        return IntType(0, 0xFFFFFFFF).read(value)


@dataclass(frozen=True, slots=True)
class EitherType:
    """Several types; the first that accepts the value reads it."""

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
    """A map of names to plain values, as in a lab file."""

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
        """Values that may still follow (count)."""
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
    """One argument: its type, its help text, and its default (None: no default)."""

    kind: ArgumentType
    help: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """A request: its help text, and its arguments by name."""

    help: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)


def read(spec: Spec, given: Any) -> dict[str, Any]:
    """Return the checked arguments of a request, with defaults added. An argument that is None is not given.

    Raises:
        ArgumentError: an argument is missing, unknown, or of the wrong type.
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
            kind = argument.kind
            # The text of a configuration or of a PEM file may begin with a key.
            private = isinstance(value, str) and isinstance(kind, TextType) and kind.most > MAX_QUOTED_OCTETS
            quoted = "a text" if private else shown(value)
            raise ArgumentError(f"argument {name!r} is {quoted}, not {kind.expected}{more}") from None
    return values


def named(specs: Mapping[str, Spec], name: Any, who: str) -> Spec:
    """Return the request of a name.

    Raises:
        UnknownRequest: the process `who` does not have a request of this name.
    """
    spec = specs.get(name) if type(name) is str else None
    if spec is None:
        raise UnknownRequest(f"{who} does not know {shown(name)}: it knows {', '.join(sorted(specs))}")
    return spec


def refusal(name: Any, error: ArgumentError) -> str:
    """Return the error text of the answer to a refused request."""
    return str(error) if isinstance(error, UnknownRequest) else f"{name}: {error}"


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the arguments that have a value, as a request on the bus carries them."""
    return {name: value for name, value in values.items() if value is not None}


def fault(error: BaseException, frames: int = 3) -> str:
    """Return a log text for a bug of this program: the type of the exception and its places, innermost first.

    The text of the exception is left out, because it may contain a key.
    """
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"internal error: {type(error).__name__} at {', '.join(places[: -frames - 1 : -1])}"
