"""What is dropped, how it is logged, and that nothing from outside ends the engine."""

from __future__ import annotations

import random

import pytest

from chassis.ase.drop_log import DROP_LOG_INTERVAL, DropLog
from chassis.ase.ipsec.causes import Drops, IpsecDropCause
from chassis.bus.batch import Step
from chassis.bus.messages import LogRecord
from chassis.net.ipv4 import PROTOCOL_ESP
from tests.support.asp import (
    ASP,
    CIRCUIT,
    ECONOMICAL,
    INNER,
    OUTER,
    Controller,
    batch_of,
    moved,
    packets_of,
    pair,
    udp_packet,
)


def logs(end: Controller) -> list[LogRecord]:
    return [message for message in end.said if isinstance(message, LogRecord)]


def test_the_log_keeps_causes_apart_and_wakes_for_the_first() -> None:
    log = DropLog(ASP, lambda number: None)

    def drop(cause: IpsecDropCause, count: int, now: float) -> list[tuple[str, object]]:
        drops = Drops()
        drops.add_many(cause, count)
        return [(record.id, record.values["count"]) for record in log.log(drops, now)]

    assert drop(IpsecDropCause.OUTSIDE_WINDOW, 1, 0.0) == [("esp-late-packet", 1)]
    assert drop(IpsecDropCause.NO_INBOUND_SA, 2, 0.5) == [("esp-no-inbound-sa", 2)]
    assert drop(IpsecDropCause.OUTSIDE_WINDOW, 3, 0.6) == []
    assert drop(IpsecDropCause.NO_INBOUND_SA, 4, 0.7) == []
    assert drop(IpsecDropCause.MALFORMED, 4, 0.7) == []
    assert log.due == DROP_LOG_INTERVAL
    assert [record.values["count"] for record in log.flush(1.0)] == [3]
    assert log.due == 0.5 + DROP_LOG_INTERVAL
    assert drop(IpsecDropCause.NO_INBOUND_SA, 1, 2.0) == [("esp-no-inbound-sa", 5)]
    assert log.flush(2.0) == []
    assert log.due == float("inf")


@pytest.mark.parametrize("seed", range(20))
def test_no_packet_ends_the_engine(seed: int) -> None:
    draw = random.Random(seed)
    a, b = pair(kind=("esp", "ah", "bundle")[seed % 3])
    good: list[bytes] = []
    for tunnel in (CIRCUIT, ECONOMICAL):
        for _, batch in a.protect(tunnel, [udp_packet("52.0.0.1", "62.0.0.1", number=i) for i in range(5)]):
            good += packets_of(batch)
    for _ in range(30):
        packets = []
        for _ in range(draw.randrange(1, 6)):
            base = draw.choice([*good, udp_packet("52.0.0.1", "62.0.0.1"), udp_packet(protocol=PROTOCOL_ESP)])
            packet = bytearray(base if draw.random() < 0.8 else draw.randbytes(draw.randrange(0, 80)))
            for _ in range(draw.randrange(0, 4)):
                if packet:
                    packet[draw.randrange(min(len(packet), 60))] = draw.randrange(256)
            packets.append(bytes(packet[: draw.randrange(len(packet) + 1)] if draw.random() < 0.2 else packet))
        step = draw.choice([Step.DECAPSULATE, Step.ENCAPSULATE])
        fields = {"tunnel": draw.choice([CIRCUIT, ECONOMICAL, 77]), "context": draw.choice([INNER, OUTER, 9])}
        marks = ((draw.randrange(len(packets)), 5),) if draw.random() < 0.3 else ()
        b.give(batch_of(packets, step, marks=marks, **fields))


def test_a_batch_in_a_read_only_slice_of_another_is_left_as_it_was() -> None:
    a, b = pair()
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i) for i in range(3)])
    before = bytes(out.body)
    b.open(moved(out))
    assert bytes(out.body) == before
