"""The commands of transactions: one row each, some of exec mode and some of configuration mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chassis.cli import transactions
from chassis.cli.configure_file import configure_file
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
        "configure-file",
        "configure/config <file:word>",
        "take the lines of a file; an `end` in it commits them",
        view.said,
        privilege=ADMINISTRATOR,
        opening=configure_file,
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
    ExecCommand(
        "show-configuration-candidate",
        "show configuration candidate",
        "what the candidate would change",
        view.candidate,
        opening=transactions.candidate,
    ),
    ExecCommand(
        "show-transaction",
        "show transaction",
        "open transactions",
        view.transactions,
        opening=transactions.transactions,
    ),
    ExecCommand(
        "show-transaction-history",
        "show transaction history",
        "commits that can be gone back to",
        view.commits,
        "commits",
    ),
    ExecCommand(
        "show-history", "show history", "lines that were typed", view.history, opening=transactions.history
    ),
    ExecCommand(
        "rollback",
        "rollback <number:1-4294967295>",
        "put the configuration of an earlier commit into force again",
        view.said,
        privilege=ADMINISTRATOR,
        opening=transactions.rollback,
    ),
)
"""In the order of the documentation."""

TRANSACTION_WORDS: Final[Mapping[str, str]] = {
    "abort": "forget the candidate",
    "candidate": "what the candidate would change",
    "comment": "why, as the history of commits shows it",
    "commit": "check the candidate and put it into force",
    "config": "enter configuration mode",
    "configure": "enter configuration mode",
    "confirmed": "roll back by itself unless a second commit confirms",
    "history": "lines that were typed, or commits",
    "rollback": "put the configuration of an earlier commit into force again",
    "transaction": "open transactions",
    "end": "commit configuration changes and return to exec mode",
}
"""What `?` says of the keywords of these commands."""
