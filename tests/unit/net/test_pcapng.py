"""Captures that other tools read."""

from __future__ import annotations

import io
import struct

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from chassis.net import pcapng


def test_known_interface_block() -> None:
    block = pcapng.interface_description("a", snap_length=96)
    assert block[:8] == struct.pack("<II", 1, len(block))
    assert block[8:16] == struct.pack("<HHI", 1, 0, 96)
    assert block[16:24] == b"\x02\x00\x01\x00a\x00\x00\x00"
    assert block[24:32] == b"\x09\x00\x01\x00\x09\x00\x00\x00"
    assert block[-4:] == struct.pack("<I", len(block))


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.binary(max_size=100), st.text(max_size=20), st.integers(0, 1)),
        max_size=8),
)  # fmt: skip
def test_scapy_reads_what_we_write(records: list[tuple[int, bytes, str, int]]) -> None:
    out = io.BytesIO()
    out.write(pcapng.section_header())
    out.write(pcapng.interface_description("a:3/1"))
    out.write(pcapng.interface_description("b:3/1", pcapng.LINKTYPE_RAW_IPV4))
    for time_ns, data, comment, interface in records:
        out.write(pcapng.enhanced_packet(interface, time_ns, data, comment=comment))
    out.seek(0)
    reader = RawPcapNgReader(out)
    seen = list(reader)
    assert len(seen) == len(records)
    for (data, meta), (time_ns, wanted, _, interface) in zip(seen, records, strict=True):
        assert data == wanted
        assert meta.tshigh << 32 | meta.tslow == time_ns
        assert meta.tsresol == 10**9
        assert meta.linktype == (1, 228)[interface]


def test_a_cut_packet_keeps_its_length() -> None:
    block = pcapng.enhanced_packet(0, 5, b"abcde", original_length=1400)
    assert struct.unpack_from("<IIIIIII", block) == (6, len(block), 0, 0, 5, 5, 1400)
