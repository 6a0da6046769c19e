"""Packets with an SPI that nobody has: who is told, and what a peer makes of it (RFC 7296 1.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.unknown_spi import invalid_spi_v1, invalid_spi_v2, read_invalid_spi
from chassis.ase.ike_messages import IkePacket, UnknownSpi
from tests.engine.ike.test_establish import established, settled
from tests.support.ike.pair import CONTEXT, A, B, Ends, EnginePair, Version, other


def forgotten(version: Version) -> tuple[EnginePair, int]:
    """End b has lost its SAs and waits for its peer; the SPI with which end a still sends."""
    asks = Ends(version=version, keepalive=True)
    two = established(asks)
    sender = two.a.sender()
    assert sender is not None
    assert sender.outbound.esp_spi is not None
    new = two.restart(two.b, replace(other(asks), connection="responder-only"))
    assert not new.sessions
    two.run(1.0)
    two.a.sent.clear()
    return two, sender.outbound.esp_spi


def unknown(spi: int, remote: int = A) -> UnknownSpi:
    return UnknownSpi(CONTEXT, B, 500, remote, 500, 3, spi)


@pytest.mark.parametrize("version", [1, 2])
def test_a_peer_that_is_told_asks_at_once(version: Version) -> None:
    two, spi = forgotten(version)
    probes = two.a.count("DPD probes sent")
    two.give(two.b, unknown(spi))
    (answer,) = two.b.sent
    assert read_invalid_spi(answer.data, Header.parse(answer.data)) == spi.to_bytes(4, "big")
    two.run(0.5)
    assert two.a.count("invalid SPI notified") == 1
    assert two.a.count("DPD probes sent") == probes + 1
    # The peer is dead for it after a while, and comes anew.
    assert two.until(lambda: two.b.up() and two.a.up(), within=120.0)
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
def test_a_peer_is_told_once_a_second(version: Version) -> None:
    two, spi = forgotten(version)
    for _ in range(100):
        two.give(two.b, unknown(spi))
    assert len(two.b.sent) == 1
    two.run(1.1)
    two.b.sent.clear()
    two.give(two.b, unknown(spi))
    assert len(two.b.sent) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_nobody_else_is_told(version: Version) -> None:
    two, spi = forgotten(version)
    two.give(two.b, unknown(spi, remote=A + 1))
    assert not two.b.sent, "a stranger"
    standing = established(Ends(version=version, keepalive=True))
    standing.b.sent.clear()
    standing.give(standing.b, unknown(spi))
    assert not standing.b.sent, "a late packet of a peer that has an IKE SA"


@pytest.mark.parametrize("version", [1, 2])
def test_what_anybody_may_say_harms_nothing(version: Version) -> None:
    two = established(Ends(version=version, keepalive=True))
    session, sender = two.a.session, two.a.sender()
    assert sender is not None
    assert sender.outbound.esp_spi is not None
    two.a.sent.clear()

    def say(spi: int, number: int) -> None:
        octets, random = spi.to_bytes(4, "big"), number.to_bytes(8, "big")
        data = invalid_spi_v1(random, random[:4], 3, octets) if version == 1 else invalid_spi_v2(random, octets)
        two.give(two.a, IkePacket(CONTEXT, A, 500, B, 500, data))

    for number in range(1, 50):
        say(sender.outbound.esp_spi ^ 1, number)
    assert not two.a.sent, "an SPI that is not ours"
    for number in range(1, 500):
        say(sender.outbound.esp_spi, number)
    two.run(0.2)
    assert two.a.count("DPD probes sent") == 1
    two.run(60)
    assert two.a.session is session
    settled(two)
