"""Compression inside ESP and AH."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.ipcomp import decompress
from chassis.ase.ipsec.sa import InboundSa, OutboundSa, SaError
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from tests.support.ipsec import (
    ENTRY,
    LEFT,
    RIGHT,
    ah,
    batch,
    database,
    esp,
    inner,
    null_esp,
    packets_of,
    protected,
)

PROTOCOLS = [
    pytest.param(esp(), None, id="esp"),
    pytest.param(esp("null"), None, id="null esp"),
    pytest.param(None, ah(), id="ah"),
    pytest.param(esp(), ah(), id="bundle"),
]


def soft(size: int) -> bytes:
    """A packet that shrinks well."""
    return inner(24)[:2] + struct.pack("!H", size) + inner(24)[4:] + b"abcd" * (size // 4 - 6)


def left(use_esp: Any, use_ah: Any, cpi: int = 2) -> Sadb:
    sadb = database()
    sadb.install_outbound(
        OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, context=0, esp=use_esp, ah=use_ah, ip_comp=True, cpi=cpi)
    )
    sadb.spd.set_entries(1, [SpdEntry(ENTRY)])
    return sadb


def right(use_esp: Any, use_ah: Any, ip_comp: bool = True, cpi: int = 2) -> Sadb:
    sadb = database()
    sadb.install_inbound(InboundSa(1, 1, LEFT, RIGHT, context=0, esp=use_esp, ah=use_ah, ip_comp=ip_comp, cpi=cpi))
    return sadb


@pytest.mark.parametrize(("use_esp", "use_ah"), PROTOCOLS)
def test_both_ways(use_esp: Any, use_ah: Any) -> None:
    packets = [soft(1400), inner(1400), soft(100), soft(40), inner(20), soft(65000)]
    wire = protected(left(use_esp, use_ah), packets)
    result = right(use_esp, use_ah).decapsulate_batch(*batch(wire))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets
    assert len(wire[0]) < 300
    assert len(wire[1]) >= 1400 + 20, "what does not shrink is sent as it is"


def test_the_header_on_the_wire() -> None:
    (wire,) = protected(left(None, ah()), [soft(400)])
    assert wire[20] == 108
    assert wire[44:48] == bytes([4, 0, 0, 2])
    assert zlib.decompress(wire[48:], -11) == soft(400)
    (wire,) = protected(left(None, ah(), cpi=0x1234), [soft(400)])
    assert wire[46:48] == b"\x12\x34"
    (wire,) = protected(left(None, ah()), [soft(80)])
    assert wire[20] == 4, "too short to be worth it"
    (wire,) = protected(left(esp("null"), None), [soft(400)])
    assert wire[-13] == 108


def test_an_end_without_compression_refuses_it() -> None:
    wire = protected(left(esp(), None), [soft(400), inner(400)])
    result = right(esp(), None, ip_comp=False).decapsulate_batch(*batch(wire))
    assert result.drops.counts == {IpsecDropCause.NOT_TUNNEL_MODE: 1}
    assert list(result.groups[0].origins) == [1]


def test_another_cpi_is_refused() -> None:
    wire = protected(left(esp(), None), [soft(400)])
    assert right(esp(), None, cpi=3).decapsulate_batch(*batch(wire)).drops.counts == {
        IpsecDropCause.DECOMPRESSION_FAILED: 1
    }
    with pytest.raises(SaError, match="CPI 0"):
        OutboundSa(1, 1, LEFT, RIGHT, esp=esp(), ip_comp=True, cpi=0)


def raw(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize("data", [
    b"",
    b"\4\0\0",
    b"\4\0\0\2",
    b"\4\0\0\2" + b"\xff" * 20,
    b"\4\0\0\2" + raw(bytes(100))[:-1],
    b"\4\0\0\2" + raw(bytes(200_000)),
    b"\x11\0\0\2" + raw(bytes(100)),
])  # fmt: skip
def test_streams_that_are_refused(data: bytes) -> None:
    assert decompress(memoryview(data), 2) is None


def test_what_inflates_must_be_a_packet() -> None:
    for content, cause in ((bytes(100), IpsecDropCause.MALFORMED), (b"", IpsecDropCause.MALFORMED)):
        payload = b"\4\0\0\2" + raw(content)
        padding = -(len(payload) + 2) % 4
        payload += bytes(range(1, padding + 1)) + bytes([padding, 108])
        assert right(esp("null"), None).decapsulate_batch(*batch([null_esp(payload)])).drops.counts == {cause: 1}
