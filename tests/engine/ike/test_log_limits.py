"""Log lines of IKE: what strangers make it write is limited by the kind of line, and costs nobody else theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.log import MAX_LINES_PER_SECOND
from chassis.ase.ike_messages import IkePacket
from tests.support.ike.pair import CONTEXT, A, B, Ends, EnginePair, first_message, other

SOURCES = 1000

VERSIONS = pytest.mark.parametrize("version", [1, 2])


def talking(version: int) -> EnginePair:
    """Two ends between which packets pass."""
    ends = Ends(version=version)
    two = EnginePair(ends, replace(other(ends), connection="responder-only"))
    assert two.until(lambda: two.packet(two.a))
    two.b.logs.clear()
    return two


def flood(two: EnginePair, data: bytes, sources: int = SOURCES) -> None:
    """Each a datagram, from an address of its own."""
    for source in range(sources):
        two.give(two.b, IkePacket(CONTEXT, B, 500, 0x0B000000 + source, 500, data))


@VERSIONS
def test_however_many_strangers_begin_a_second_has_room_for_so_many_lines(version: int) -> None:
    two = talking(version)
    for begun in (1, 2):
        flood(two, first_message(Ends(version=begun)))
    assert len(two.b.logs) == MAX_LINES_PER_SECOND
    assert {record.id for record in two.b.logs} == {"ike-no-tunnel"}
    two.run(1.5)
    flood(two, first_message(Ends(version=version)), 1)
    assert two.b.logs[-1].values["held back"] == 2 * SOURCES - MAX_LINES_PER_SECOND
    assert (
        two.ask(two.b, "statistics").result["total"]["log lines held back"] == 2 * SOURCES - MAX_LINES_PER_SECOND
    )


@VERSIONS
def test_a_peer_that_proved_who_it_is_has_lines_that_strangers_cannot_use_up(version: int) -> None:
    two = talking(version)
    ike = two.b.ike.ike_sa_manager
    (peer,) = [session for session in set(ike.table.by_spi.values()) if session.established]
    two.give(two.b, IkePacket(CONTEXT, B, 500, A, 500, first_message(Ends(version=version))))
    (stranger,) = [session for session in set(ike.table.by_spi.values()) if not session.established]
    timeout = FailureReason("timeout", "No answer.")
    for _ in range(SOURCES):
        ike.on_failed(stranger, timeout, two.now)
    ike.on_failed(peer, timeout, two.now)
    two.ask(two.b, "statistics")
    assert two.b.texts().count("No answer.") == MAX_LINES_PER_SECOND + 1
