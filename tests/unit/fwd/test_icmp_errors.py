"""Which errors are owed, how they look, and how many leave."""

from __future__ import annotations

import pytest

from chassis.bus.counters import Counters
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.icmp_errors import RATE_LIMITED, SENT, IcmpErrors, may_send_error
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import Ipv4
from chassis.net.rate import TokenBucket


def packet(**fields: object) -> Ipv4:
    base: dict[str, object] = {
        "source": ip("10.0.0.5"),
        "destination": ip("30.0.0.1"),
        "protocol": ipv4.PROTOCOL_UDP,
        "payload": bytes(1000),
    }
    return Ipv4(**{**base, **fields})  # type: ignore[arg-type]


def error(cause: DropCause, dropped: bytes, source: int, mtu: int = 0) -> bytes | None:
    return IcmpErrors(Counters()).make(cause, dropped, lambda _: source, 0.0, mtu)


@pytest.mark.parametrize(("cause", "kind", "code", "mtu"), [
    (DropCause.TTL, 11, 0, 0),
    (DropCause.NO_ROUTE, 3, 0, 0),
    (DropCause.NEIGHBOUR, 3, 1, 0),
    (DropCause.TOO_LONG, 3, 4, 1400),
    (DropCause.LOCAL_PROTOCOL, 3, 2, 0),
    (DropCause.LOCAL_PORT, 3, 3, 0),
])  # fmt: skip
def test_an_error_quotes_the_packet_within_576_bytes(cause: DropCause, kind: int, code: int, mtu: int) -> None:
    dropped = packet()
    raw = error(cause, dropped.emit(), ip("10.0.0.1"), mtu=1400)
    assert raw is not None
    assert len(raw) == 576
    sent = Ipv4.parse(raw)
    assert (sent.source, sent.destination) == (ip("10.0.0.1"), dropped.source)
    assert sent.tos == 0xC0
    message = Icmp.parse(sent.payload)
    assert (message.type, message.code, message.mtu) == (kind, code, mtu)
    assert dropped.emit().startswith(message.payload)


@pytest.mark.parametrize("silent", [
    packet(offset=64),
    packet(destination=ip("224.0.0.1")),
    packet(destination=ip("255.255.255.255")),
    packet(source=ip("0.0.0.0")),
    packet(source=ip("255.255.255.255")),
    packet(source=ip("224.0.0.9")),
    packet(source=ip("127.0.0.1")),
    packet(protocol=ipv4.PROTOCOL_ICMP, payload=icmp.time_exceeded(bytes(28)).emit()),
    packet(protocol=ipv4.PROTOCOL_ICMP, payload=icmp.unreachable(1, bytes(28)).emit(), options=bytes(4)),
    packet(protocol=ipv4.PROTOCOL_ICMP, payload=b""),
])  # fmt: skip
def test_never_about_these(silent: Ipv4) -> None:
    assert not may_send_error(silent.emit())
    assert error(DropCause.TTL, silent.emit(), ip("10.0.0.1")) is None


def test_owed_about_a_first_fragment_and_an_echo() -> None:
    assert may_send_error(packet(more_fragments=True).emit())
    assert may_send_error(packet(protocol=ipv4.PROTOCOL_ICMP, payload=icmp.echo_request(1, 1, b"").emit()).emit())
    assert not may_send_error(b"short")


def test_silent_causes_and_no_source() -> None:
    assert error(DropCause.DISCARD, packet().emit(), ip("10.0.0.1")) is None
    assert error(DropCause.TUNNEL_DOWN, packet().emit(), ip("10.0.0.1")) is None
    assert error(DropCause.TTL, packet().emit(), 0) is None


def test_the_bucket_fills_with_time_and_holds_no_more_than_the_burst() -> None:
    bucket = TokenBucket(10.0, 3.0)
    assert [bucket.consume(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.consume(0.05)
    assert bucket.consume(0.15)
    assert not bucket.consume(0.15)
    assert [bucket.consume(99.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.consume(98.0)


def test_errors_are_counted_and_what_is_not_owed_uses_no_limit_up() -> None:
    counters = Counters()
    errors = IcmpErrors(counters)
    asked: list[int] = []

    def source(sender: int) -> int:
        asked.append(sender)
        return ip("10.0.0.1")

    for _ in range(300):
        assert errors.make(DropCause.TTL, packet(offset=64).emit(), source, 0.0) is None
        assert errors.make(DropCause.TTL, packet().emit(), lambda _: 0, 0.0) is None
    assert asked == []
    made = [errors.make(DropCause.TTL, packet().emit(), source, 0.0) for _ in range(250)]
    assert [error is not None for error in made] == [True] * 200 + [False] * 50
    # "Fragmentation needed" has a limit of its own.
    assert errors.make(DropCause.TOO_LONG, packet().emit(), source, 0.0, 1400) is not None
    assert (counters.get(SENT), counters.get(RATE_LIMITED)) == (201, 50)
