"""Every form that the table of exec commands allows is understood as the command of its row."""

from __future__ import annotations

import pytest

from chassis.cli.commands import COMMANDS
from chassis.cli.completion import ParsedLine, parse
from chassis.cli.rows import ExecCommand
from tests.support.exec_forms import EXAMPLES, forms


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.id)
def test_each_form_of_a_row_is_its_own(row: ExecCommand) -> None:
    for line in forms(row, EXAMPLES):
        parsed = parse(line, 15, row.mode == "config")
        assert isinstance(parsed, ParsedLine), line
        assert parsed.command.request == row.request, line
