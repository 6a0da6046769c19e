"""The gates for moves and renames: nothing that the product does has changed since it was recorded."""

from __future__ import annotations

from functools import cache

import pytest

from chassis.ase.ike_messages import IkeLog, IkePacket, SaActivateOutbound, SaDelete
from chassis.bus.messages import LogRecord
from tests.golden.gates import IN_SUITE, RECORDED, RULE, Check, checks, difference, main, recorded
from tests.golden.transcripts import PARTS, Transcript

LABS = sorted({name.partition(",")[0] for name in recorded("labs")})
"""Those of the record: to look for the labs again in each worker takes long."""


@cache
def every() -> list[Check]:
    return checks()


def differing(which: list[Check]) -> list[str]:
    """What of it is not as recorded."""
    before = {gate: recorded(gate) for gate in RECORDED}
    lines = [difference(one.gate, one.name, before[one.gate].get(one.name), one.make()) for one in which]
    return [line for line in lines if line]


@pytest.mark.parametrize("lab", LABS)
def test_simulated_runs_go_the_way_that_was_recorded(lab: str) -> None:
    which = [one for one in every() if one.gate == "labs" and one.in_suite and one.name.startswith(f"{lab}, ")]
    assert len(which) == IN_SUITE
    lines = differing(which)
    assert not lines, "\n".join([*lines, RULE])


def test_engines_of_ike_say_what_was_recorded() -> None:
    """A part of what `make gates` compares."""
    which = [one for one in every() if one.gate == "transcripts" and one.in_suite]
    assert len(which) > 30
    lines = differing(which)
    assert not lines, "\n".join([*lines, RULE])


@pytest.mark.parametrize("gate", RECORDED)
def test_every_check_is_recorded_and_nothing_else(gate: str) -> None:
    names = [one.name for one in every() if one.gate == gate]
    assert len(set(names)) == len(names)
    assert list(recorded(gate)) == names, RULE


PACKET = IkePacket(7, 1, 500, 2, 500, b"octets")
DELETE = SaDelete(5, 1, "reason")
LOG = IkeLog(LogRecord(0.0, "error", "ike", "id", "text", {}))


def digests(*messages: IkePacket | SaDelete | SaActivateOutbound | IkeLog, now: float = 1000.0) -> dict[str, str]:
    transcript = Transcript()
    for message in messages:
        transcript.add(1, now, message)
    return dict(zip(PARTS, transcript.digests().split(), strict=True))


@pytest.mark.parametrize(("other", "changed"), [
    ([IkePacket(7, 1, 500, 2, 500, b"Octets"), DELETE, LOG], {"datagrams"}),
    ([IkePacket(7, 1, 500, 2, 4500, b"octets"), DELETE, LOG], {"datagrams"}),
    ([PACKET, PACKET, DELETE, LOG], {"datagrams"}),
    ([PACKET, SaDelete(5, 2, "reason"), LOG], {"values"}),
    ([PACKET, SaActivateOutbound(5, 1), LOG], {"values", "words"}),
    ([PACKET, SaDelete(5, 1, "another"), LOG], {"words"}),
    ([PACKET, DELETE], {"words"}),
])  # fmt: skip
def test_a_change_shows_in_its_part_of_a_transcript(
    other: list[IkePacket | SaDelete | SaActivateOutbound | IkeLog], changed: set[str]
) -> None:
    before, after = digests(PACKET, DELETE, LOG), digests(*other)
    assert {part for part in PARTS if before[part] != after[part]} == changed


def test_time_is_part_of_a_transcript_to_the_microsecond() -> None:
    assert digests(PACKET, DELETE, LOG) == digests(PACKET, DELETE, LOG, now=1000.0000001)
    assert not set(digests(PACKET, DELETE, LOG).values()) & set(digests(PACKET, DELETE, LOG, now=1001.0).values())


def test_what_differs_is_printed_with_the_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = Check("transcripts", "a case", lambda: "1 2 3", False)
    monkeypatch.setattr("tests.golden.gates.checks", lambda: [check])
    rows = {"labs": {}, "transcripts": {"a case": "1 0 3", "another case": "1 2 3"}}
    monkeypatch.setattr("tests.golden.gates.recorded", rows.get)
    assert main(["--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "transcripts: a case: values differ: 1 0 3 recorded, now 1 2 3" in said
    assert "another case: is recorded, but there is no such case" in said
    assert RULE in said
    rows["transcripts"] = {"a case": "1 2 3"}
    assert main(["--jobs", "1"]) == 0
