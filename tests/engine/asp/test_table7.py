"""Every log message of the guide's table 7, and ours beside it, provoked by packets on the wire between two ASPs.

A row of the table without a case here fails the last test; M-14 says which row can have none.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from chassis.ase.drop_log import DROP_LOG_INTERVAL, TEXTS
from chassis.ase.ipsec.causes import MESSAGE_IDS, OWN_MESSAGES
from chassis.bus.batch import Step
from tests.support.asp import ASP, batch_of
from tests.support.asp_table7 import CASES, Case, logs, seen_before

INFORMATIONAL = {"esp-no-inbound-sa", "esp-late-packet", "esp-duplicate-packet"}
"""The rows that the guide calls that."""

INDISTINGUISHABLE = "esp-auth-alg"
"""A wrong algorithm looks like a wrong key: M-14."""

FAILURE = "Authentication failure. Possibly mis-matching keys."
TRANSPORT = "Encapsulation mode differs. Received in Transport mode, where expected in Tunnel mode."


SAID = {
    "esp-icv-ah": FAILURE,
    "esp-icv-esp": FAILURE,
    "esp-encap-mode": TRANSPORT,
    "esp-no-inbound-sa": "No Inbound SA Found.",
    "esp-late-packet": "Late Packet falling out of window.",
    "esp-duplicate-packet": "Repeated/duplicate packet.",
    "esp-selector-mismatch": "Packet does not match the selectors of its SA.",
}

every_case = pytest.mark.parametrize(
    ("row", "case"),
    [pytest.param(row, case, id=f"{row}-{i}") for row in CASES for i, case in enumerate(CASES[row])],
)


@pytest.mark.behaviour("B-036", "B-113", "B-218", "B-219", "B-220", "B-221")
@every_case
def test_packets_are_dropped_counted_and_logged(row: str, case: Case) -> None:
    refused = case(3)
    router = refused.router
    before = router.drops()
    assert router.open(batch_of(refused.packets, Step.DECAPSULATE)) == []
    assert before == {}
    assert router.drops() == {refused.cause: 3}
    [said] = logs(router)
    severity = "informational" if row in INFORMATIONAL else "error"
    assert (said.id, said.severity, said.facility, said.text) == (row, severity, "ipsec", SAID[row])
    about = {} if row == "esp-no-inbound-sa" else {"tunnel": "t1"}
    assert said.values == {
        "card": ASP, "spi": refused.spi, "source": refused.source, "sequence": refused.sequence, "count": 3,
        **about,
    }  # fmt: skip


@every_case
def test_a_flood_is_a_line_a_second_and_no_packet_is_forgotten(row: str, case: Case) -> None:
    floods, packets = 12, 10
    refused = case(floods * packets)
    router = refused.router
    began = router.now
    for flood in range(floods):
        router.open(batch_of(refused.packets[flood * packets :][:packets], Step.DECAPSULATE))
        router.now += 0.3
    assert 1 <= len(logs(router)) <= 1 + (router.now - began) / DROP_LOG_INTERVAL
    router.now += DROP_LOG_INTERVAL
    router.take(router.asp.on_timer(router.now))
    said = logs(router)
    times = [line.time for line in said]
    assert all(later - earlier > DROP_LOG_INTERVAL - 1e-6 for earlier, later in pairwise(times))
    assert {line.id for line in said} == {row}
    counts = [line.values["count"] for line in said]
    assert all(isinstance(count, int) and count > 0 for count in counts)
    assert sum(count for count in counts if isinstance(count, int)) == floods * packets
    assert router.drops() == {refused.cause: floods * packets}
    assert router.asp.next_timer() > router.now, "nothing is held back any more"


def test_one_kind_of_flood_does_not_keep_another_message_back() -> None:
    refused = seen_before("esp")(3)
    router = refused.router
    router.open(batch_of(refused.packets, Step.DECAPSULATE))
    unknown = [packet[:20] + (77777).to_bytes(4, "big") + packet[24:] for packet in refused.packets]
    router.open(batch_of([*refused.packets, *unknown], Step.DECAPSULATE))
    assert [(line.id, line.values["spi"]) for line in logs(router)] == [
        ("esp-duplicate-packet", 1000),
        ("esp-no-inbound-sa", 77777),
    ]


def test_every_message_has_a_case_and_every_case_is_a_message() -> None:
    assert set(CASES) == set(SAID) == set(TEXTS) == set(MESSAGE_IDS.values())


def test_every_row_of_the_table_has_a_case(spec_dir: Path) -> None:
    messages = yaml.safe_load((spec_dir / "messages.yaml").read_text())["messages"]
    rows = {message["id"]: message for message in messages if message["table"] == 7}
    assert set(rows) - set(CASES) == {INDISTINGUISHABLE}
    assert set(CASES) - set(rows) == OWN_MESSAGES
    for row in set(SAID) - OWN_MESSAGES:
        text = SAID[row]
        assert text == rows[row].get("settled_text", rows[row]["text"])
        assert (row in INFORMATIONAL) == (rows[row].get("type") == "informational")
