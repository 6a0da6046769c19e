"""Reading the arguments of a request: what is wrong with one is a ValueError with words for the operator."""

from __future__ import annotations

from chassis.bus.messages import Attributes
from chassis.net.address import parse_address


def whole(arguments: Attributes, name: str, default: int, low: int, high: int) -> int:
    """A whole number within bounds."""
    value = arguments.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name!r} is a whole number from {low} to {high}")
    return value


def seconds(arguments: Attributes, name: str, default: float, low: float, high: float) -> float:
    """A time within bounds."""
    value = arguments.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name!r} is a number of seconds from {low} to {high}")
    return float(value)


def address(arguments: Attributes, name: str) -> int:
    """An address, as text or as a number; 0 where none was given."""
    value = arguments.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        return parse_address(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{name!r} is no address")
    return value


def text(arguments: Attributes, name: str) -> str:
    """A word; empty where none was given."""
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is a text")
    return value
