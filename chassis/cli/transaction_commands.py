"""The commands of transactions: one row each, some of exec mode and some of configuration mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chassis.cli import transactions
from chassis.cli.rows import ADMINISTRATOR, ExecCommand
from chassis.cli.views import transactions as view

TRANSACTION_COMMANDS: Final[tuple[ExecCommand, ...]] = (
    ExecCommand(
        "config",
        "configure/config",
        "enter configuration mode",
        view.said,
        privilege=ADMINISTRATOR,
        guide="12",
        opening=transactions.configure,
    ),
    ExecCommand(
        "commit",
        "commit [<confirmed=confirmed> [<minutes:1-65535>]] [comment <comment:text>]",
        "check the candidate and put it into force",
        view.said,
        mode="config",
        opening=transactions.commit,
    ),
    ExecCommand(
        "abort",
        "abort",
        "forget the candidate",
        view.said,
        mode="config",
        opening=transactions.abort,
    ),
    ExecCommand(
        "leave-mode",
        "exit",
        "leave this mode; from (config) commit and return to exec mode",
        view.said,
        mode="config",
        opening=transactions.leave,
    ),
    ExecCommand(
        "end",
        "end",
        "commit configuration changes and return to exec mode",
        view.said,
        guide="12",
        mode="config",
        opening=transactions.end,
    ),
)
"""In the order of the documentation."""

TRANSACTION_WORDS: Final[Mapping[str, str]] = {
    "abort": "forget the candidate",
    "comment": "why, as the history of commits shows it",
    "commit": "check the candidate and put it into force",
    "config": "enter configuration mode",
    "configure": "enter configuration mode",
    "confirmed": "roll back by itself unless a second commit confirms",
    "end": "commit configuration changes and return to exec mode",
}
"""What `?` says of the keywords of these commands."""
