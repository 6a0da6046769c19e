"""Every row of the guide's tables of log messages, from the fault to the operator of a simulated router.

Two ends that differ or a bent message provoke it. Then it is in `show log`, on the console, at the syslog server
and in the file of the log, and `show log explain` has what the guide recommends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from chassis.ase.drop_log import TEXTS
from chassis.ase.ike.log import FACILITY as IKE
from chassis.ase.ike.log import TEMPLATES
from chassis.ase.ipsec.causes import OWN_MESSAGES
from chassis.bus.log_lines import SEVERITIES
from chassis.bus.messages import LogRecord
from chassis.cli.views.log_actions import ACTIONS, recommended
from tests.support.log_rows import CONTEXT, LOGGED_AS, MANUAL, TUNNEL, WAYS
from tests.support.log_seat import LogSeat

ROWS = [*TEMPLATES, *TEXTS, *LOGGED_AS]
"""All that the project logs of rejected messages and packets, and the row that has no line of its own."""


@pytest.fixture(scope="module")
def seat(tmp_path_factory: pytest.TempPathFactory) -> LogSeat:
    return LogSeat(tmp_path_factory.mktemp("seat"))


def text_of(record: LogRecord) -> str:
    """The text that the row has in the guide, with the values of a record."""
    if record.id in TEXTS:
        return TEXTS[record.id].text
    return TEMPLATES[record.id].format(**record.values)


@pytest.mark.behaviour("B-213", "B-216")
@pytest.mark.parametrize("row", ROWS)
def test_a_row_comes_to_the_operator(row: str, seat: LogSeat, monkeypatch: pytest.MonkeyPatch) -> None:
    assert row in WAYS, "nothing provokes this row"
    with monkeypatch.context() as patch:
        records = WAYS[row](patch)
    logged = LOGGED_AS.get(row, row)
    at = [record.id for record in records].index(logged)
    record = records[at]
    seen = seat.log(records)
    assert len(seen.shown) == len(seen.console) == len(seen.datagrams) == len(seen.file) == len(records)

    digit, name = SEVERITIES[record.severity]
    of_tunnel = record.values.get("tunnel") in (TUNNEL, MANUAL)
    about = r"\[[0-9A-F]{4}\]: " if of_tunnel or record.facility == IKE else ""
    about += r"\[\d[\d/:]+\]: " if of_tunnel else ""
    said = f"%{record.facility.upper()}-{digit}-{name}: {text_of(record)}"
    line = seen.shown[at]
    assert re.fullmatch(rf"[A-Z][a-z]{{2}} \d\d \d\d:\d\d:\d\d: {about}{re.escape(said)}", line)
    assert seen.console[at] == line
    date, _, rest = line.partition(": ")
    assert seen.datagrams[at] == f"<{19 * 8 + digit}>{date} edge {rest}"
    _, _, severity, facility, id, text, *_, values = seen.file[at]
    assert (severity, facility, id, text) == (record.severity, record.facility, logged, text_of(record))
    kept = {name: value.hex() if isinstance(value, bytes) else value for name, value in record.values.items()}
    kept |= {"context": CONTEXT} if record.facility == IKE else {}
    assert kept.items() <= values.items()
    advice = [f"    {said}" if (said := recommended(one.id, one.values)) else "" for one in records]
    assert recommended(record.id, record.values) == ACTIONS.get(record.id, "")
    assert seen.explained == [line for two in zip(seen.shown, advice, strict=True) for line in two if line]


def test_the_rows_are_those_of_the_guide(spec_dir: Path) -> None:
    messages = yaml.safe_load((spec_dir / "messages.yaml").read_text())["messages"]
    rows = {message["id"]: message for message in messages}
    assert len(rows) == len(messages)
    assert set(ROWS) - OWN_MESSAGES == set(rows)
    for id, row in rows.items():
        assert (row["action"] is not None) == (LOGGED_AS.get(id, id) in ACTIONS), id
    for id, logged in LOGGED_AS.items():
        assert rows[id]["text"].replace(" agent=IPSEC", "") == TEXTS[logged].text
