"""The secret of a router: read from its state folder, and exported to the owner of the lab on request.

A router without the file shows no key, and reads none from its encrypted form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.config.secrets import SECRET_FILE, RouterSecret
from chassis.xcrp.operators import Method, Operators


def read_secret(files: Mapping[str, bytes]) -> tuple[RouterSecret, list[str]]:
    """Return the secrets of a state folder, and what is wrong with their file.

    A file with a wrong line counts as missing: half of it could print keys that no other router reads.
    """
    if SECRET_FILE not in files:
        return RouterSecret(), []
    try:
        return RouterSecret.read(files[SECRET_FILE]), []
    except ValueError as error:
        return RouterSecret(), [f"{error}: no key is shown, and none read from its encrypted form"]


def _secret(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    if not state.secret.texts:
        raise ArgumentError("this router has no secret: its state folder has no file of it that can be read")
    state.log(
        "warning", "configuration", f"the secret of the router, named {state.secret.name}, was exported", now
    )
    return [ToOperator(number, {"secret": state.secret.texts[0], "name": state.secret.name})]


COMMANDS: Final[dict[str, Method]] = {"secret": _secret}
"""Functions that carry out the commands, by name."""
