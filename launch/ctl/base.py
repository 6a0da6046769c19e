"""Common parts of the commands of `chassisctl`: the lab, JSON or text output, errors, argument types."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, RenderableType

from chassis.bus.arguments import IntType, NumberType
from chassis.bus.operator import OperatorError
from chassis.bus.requests import TABLES
from chassis.net import units
from chassis.net.units import parse_probability
from launch.client.running_lab import RunningLab

MODULES = {
    "bus_commands": ("bus",),
    "capture_commands": ("capture",),
    "card_commands": (
        "apply",
        "config",
        "continue",
        "events",
        "exec",
        "kill",
        "link",
        "log",
        "ps",
        "restart",
        "routes",
        "secret",
        "status",
        "stop",
    ),
    "cli_commands": ("cli", "console"),
    "packet_commands": ("accounting", "counters", "flow", "inject", "ping", "trace"),
    "perf_command": ("perf",),
    "tunnel_commands": ("clear", "ike", "keys", "peers", "queues", "rekey", "sas"),
}
"""Modules of this package by the commands that they add. A command's module is imported when it is wanted: all of
them take longer than most commands."""


class CommandGroup(click.Group):
    """Commands of `MODULES`. They print an error as one line and exit with status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in MODULES.items():
            if cmd_name in names:
                import_module(f"{__package__}.{module}")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperatorError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=CommandGroup)
@click.option("--lab", "lab_name", metavar="NAME", help="The lab; the only one that runs when left out.")
@click.pass_context
def main(ctx: click.Context, lab_name: str | None) -> None:
    """Look at a running lab and act on it.

    \b
    chassisctl status
    chassisctl cli a -c 'show tunnel'
    chassisctl console a
    chassisctl kill a asp 1/1
    chassisctl link a:3/11 --loss 1% --delay 20ms
    chassisctl trace a --source 50.1.0.1
    chassisctl ping a --context lan 60.0.0.1
    chassisctl ike a
    chassisctl sas a --tunnel t1
    chassisctl rekey a tunnel t1
    """
    ctx.obj = lab_name


def lab_command(*names: str, unless: str = "", **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command with --lab and --json; its function gets the lab first and `as_json` by name.

    If the parameter `unless` has a value, the command needs no lab: the function gets None instead.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="As JSON.")
        @click.option("--lab", "own_lab", metavar="NAME", help="The lab; the only one that runs when left out.")
        @click.pass_context
        @functools.wraps(function)
        def command(ctx: click.Context, /, *args: Any, own_lab: str | None, **values: Any) -> Any:
            lab = None if values.get(unless) is not None else RunningLab.find(own_lab or ctx.obj)
            return function(lab, *args, **values)

        made: click.Command = main.command(*names, **settings)(command)
        return made

    return decorate


def print_answer(as_json: bool, value: Any, text: RenderableType) -> None:
    """Print one answer: as JSON, or as text for people."""
    if as_json:
        click.echo(json.dumps(value, indent=2))
    elif isinstance(text, str):
        click.echo(text)
    else:
        Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(text)


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # ParamType of older releases of click does not take type arguments.
    _ParamType = click.ParamType


class CheckedParam(_ParamType):
    """A click parameter that `check` validates; with `convert` its value is the result of `check`."""

    def __init__(self, name: str, check: Callable[[str], Any], convert: bool = False) -> None:
        self.name = name
        self._check = check
        self._convert = convert

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            checked = self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return checked if self._convert else value


def _number(kind: NumberType, text: str) -> float:
    try:
        return kind.read(float(text))
    except ValueError:
        raise ValueError(f"{text!r} is not {kind.expected}") from None


def option(table: str, request: str, name: str, **more: Any) -> Callable[[Any], Any]:
    """Make an option for an argument of a request, with the range, default and help of its table.

    `more` overrides what follows from the table.
    """
    argument = TABLES[table][request].arguments[name]
    kind = argument.kind
    made: dict[str, Any] = {"help": f"{argument.help[0].upper()}{argument.help[1:]}."}
    if isinstance(kind, IntType):
        made["type"] = click.IntRange(kind.low, kind.high)
    elif isinstance(kind, NumberType):
        made["type"] = CheckedParam("number", functools.partial(_number, kind), convert=True)
    if argument.default not in (None, ""):
        made.update(default=argument.default, show_default=True)
    return click.option(f"--{name}", **{**made, **more})


SHARE = CheckedParam("share", parse_probability)
RATE = CheckedParam("rate", units.parse_rate_limit, convert=True)
PACKETS = click.IntRange(min=1)
DURATION = CheckedParam("duration", units.parse_duration, convert=True)
