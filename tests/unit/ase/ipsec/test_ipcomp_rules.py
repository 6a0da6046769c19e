"""The rules of RFC 3173 section 2: when a packet is compressed, and that nothing ever grows by it."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from chassis.ase.ipsec.ipcomp import CPI_DEFLATE, HEADER_OCTETS, Compressor, decompress
from chassis.ase.ipsec.sa import Ah, Esp, InboundSa, OutboundSa
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from chassis.ase.sa_builder import manual_pair
from chassis.bus.records import TunnelRecord
from chassis.model.ipsec import Key, Keyed, ManualSa, Spi, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import PROTOCOL_IPCOMP, PROTOCOL_IPIP
from tests.support.ipsec import ENTRY, LEFT, RIGHT, ah, batch, database, esp, inner, packets_of, protected

THRESHOLD = 90
PROTOCOLS: tuple[tuple[Esp | None, Ah | None], ...] = (
    (esp("aes-128-cbc"), None),
    (esp("aes-256-gcm"), None),
    (esp("null"), None),
    (None, ah()),
    (esp("3des-cbc", "hmac-md5-96"), ah()),
)


def packet(content: bytes) -> bytes:
    head = inner(20)
    return head[:2] + struct.pack("!H", 20 + len(content)) + head[4:] + content


def mixed(size: int, repeated: int, chance: random.Random) -> bytes:
    """A packet of which `repeated` octets are alike and the others are not."""
    return packet(chance.randbytes(size - 20 - repeated) + bytes(repeated))


def left(use_esp: Any, use_ah: Any, ip_comp: bool = True) -> Sadb:
    sadb = database()
    sadb.install_outbound(
        OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, context=0, esp=use_esp, ah=use_ah, ip_comp=ip_comp)
    )
    sadb.spd.set_entries(1, [SpdEntry(ENTRY)])
    return sadb


def right(use_esp: Any, use_ah: Any) -> Sadb:
    sadb = database()
    sadb.install_inbound(
        InboundSa(1, 1, LEFT, RIGHT, context=0, esp=use_esp, ah=use_ah, window=1024, ip_comp=True)
    )
    return sadb


def deflated(packets: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Next header and octets of each, each by a deflater that has had no failure."""
    result: list[tuple[int, bytes]] = []
    for one in packets:
        view, ((start, end),), (following,) = Compressor(CPI_DEFLATE).compress(memoryview(one), [(0, len(one))])
        result.append((following, bytes(view[start:end])))
    return result


@pytest.mark.parametrize(("use_esp", "use_ah"), PROTOCOLS)
def test_nothing_grows(use_esp: Any, use_ah: Any) -> None:
    chance = random.Random(1)
    packets = [
        mixed(size := chance.randrange(28, 1400), chance.randrange(0, size - 20), chance) for _ in range(200)
    ]
    with_it = protected(left(use_esp, use_ah), packets)
    without = protected(left(use_esp, use_ah, False), packets)
    assert all(len(one) <= len(other) for one, other in zip(with_it, without, strict=True))
    assert sum(map(len, with_it)) < 0.8 * sum(map(len, without))
    result = right(use_esp, use_ah).decapsulate_batch(*batch(with_it))
    assert result.drops.counts == {}
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == packets


def test_exactly_where_it_begins_to_pay() -> None:
    """A packet that header and all would be as long compressed goes as it is; one octet less is compressed."""
    chance = random.Random(2)
    gains: dict[int, int] = {}
    for repeated in range(60):
        for size in (200, 201, 202, 203, 1000):
            clear = mixed(size, repeated, chance)
            stream = zlib.compressobj(1, zlib.DEFLATED, -11, 4)
            gain = size - HEADER_OCTETS - len(stream.compress(clear) + stream.flush())
            ((following, octets),) = deflated([clear])
            gains[gain] = gains.get(gain, 0) + 1
            if gain > 0:
                assert following == PROTOCOL_IPCOMP
                assert octets[:4] == bytes((PROTOCOL_IPIP, 0, 0, 2))
                assert len(octets) == size - gain
                assert decompress(memoryview(octets), 2) == clear
            else:
                assert (following, octets) == (PROTOCOL_IPIP, clear)
    assert {-1, 0, 1, 2} <= set(gains), "the edge was met"


def test_small_packets_are_not_tried() -> None:
    small, enough = packet(bytes(THRESHOLD - 21)), packet(bytes(THRESHOLD - 20))
    assert deflated([small, enough])[0] == (PROTOCOL_IPIP, small)
    assert deflated([small, enough])[1][0] == PROTOCOL_IPCOMP


@pytest.mark.parametrize(("use_esp", "use_ah"), PROTOCOLS)
def test_no_packet_needs_another(use_esp: Any, use_ah: Any) -> None:
    """There is no history: in any order, and with losses, each inflates (RFC 3173 2.1)."""
    chance = random.Random(3)
    packets = [packet(bytes([number]) * 40 + b"the same in all of them " * 20) for number in range(60)]
    wire = protected(left(use_esp, use_ah), packets)
    order = chance.sample(range(60), 40)
    result = right(use_esp, use_ah).decapsulate_batch(*batch([wire[number] for number in order]))
    assert result.drops.counts == {}
    opened = packets_of(result.groups[0].body, result.groups[0].lengths)
    assert opened == [packets[number] for number in order]


def test_flags_mean_nothing_to_a_receiver() -> None:
    (_, octets) = deflated([packet(bytes(500))])[0]
    assert octets[1] == 0, "sent as zero"
    assert decompress(memoryview(octets[:1] + b"\xff" + octets[2:]), 2) == packet(bytes(500))


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("bits", [-9, -11, -15])
def test_any_deflate_stream_is_inflated(level: int, bits: int) -> None:
    """Stored, with fixed codes or with their own, with any history that DEFLATE has (RFC 1951)."""
    chance = random.Random(4)
    for size in (20, 21, 1400, 9000, MAX_BATCHED_IPV4_LENGTH):
        clear = (b"words words and words " * 3000)[: size // 2] + chance.randbytes(size - size // 2)
        stream = zlib.compressobj(level, zlib.DEFLATED, bits)
        data = bytes((PROTOCOL_IPIP, 0, 0, 2)) + stream.compress(clear) + stream.flush()
        assert decompress(memoryview(data), 2) == clear
    stream = zlib.compressobj(level, zlib.DEFLATED, bits)
    data = bytes((PROTOCOL_IPIP, 0, 0, 2)) + stream.compress(bytes(MAX_BATCHED_IPV4_LENGTH + 1)) + stream.flush()
    assert decompress(memoryview(data), 2) is None


# What does not shrink is not tried for ever


def tried(deflater: Compressor, packets: Sequence[bytes], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which packets were tried."""
    tries: list[int] = []
    make = zlib.compressobj

    def counted(*arguments: Any) -> Any:
        tries.append(0)
        return make(*arguments)

    monkeypatch.setattr("chassis.ase.ipsec.ipcomp.zlib.compressobj", counted)
    result: list[bool] = []
    for one in packets:
        before = len(tries)
        deflater.compress(memoryview(one), [(0, len(one))])
        result.append(len(tries) > before)
    return result


def runs(values: Sequence[bool]) -> list[int]:
    """Lengths of the runs of equal values."""
    lengths: list[int] = []
    last: bool | None = None
    for value in values:
        if value == last:
            lengths[-1] += 1
        else:
            lengths.append(1)
        last = value
    return lengths


def test_pauses_double_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    noise = [mixed(300, 0, chance) for _ in range(1100)]
    deflater = Compressor(2)
    asked = tried(deflater, noise, monkeypatch)
    assert asked[0]
    assert runs(asked)[:14] == [8, 16, 1, 32, 1, 64, 1, 128, 1, 256, 1, 256, 1, 256]
    # Small packets neither count nor are they counted.
    assert not any(tried(deflater, [packet(bytes(40))] * 50, monkeypatch))
    soft = [packet(bytes(300))] * 300
    asked = tried(deflater, soft, monkeypatch)
    first = asked.index(True)
    assert first < 256
    assert all(asked[first:]), "one that shrinks ends it"
    assert runs(tried(deflater, noise, monkeypatch))[:4] == [8, 16, 1, 32]


def test_some_that_do_not_shrink_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(6)
    packets = [packet(bytes(300)) if number % 8 == 0 else mixed(300, 0, chance) for number in range(400)]
    assert all(tried(Compressor(2), packets, monkeypatch))


def test_every_sa_has_its_own_pause() -> None:
    use = esp()
    chance = random.Random(7)
    one, other = left(use, None), left(use, None)
    protected(one, [mixed(300, 0, chance) for _ in range(30)])
    soft = packet(bytes(1000))
    assert len(protected(one, [soft])[0]) > 1000
    assert len(protected(other, [soft])[0]) < 200


# Manual keys


def test_manual_keys_use_the_well_known_cpi() -> None:
    sa = ManualSa("sa", ip_comp=True, both=Spi(esp_spi=1000, esp_auth=Keyed("hmac-sha1-96", Key(bytes(20)))))
    entry = TunnelEntry(10, sa="sa")
    record = TunnelRecord(
        number=1, config=Tunnel("t", kind="manual", economical=True, entries=(entry,)), asp="asp 1/1", circuit=0,
        home="", context=2, outer_context=1, local=LEFT, remote=RIGHT, queues=1, up=True,
    )  # fmt: skip
    pair = manual_pair(record, entry, {"sa": sa}, {})
    assert (pair.outbound.ip_comp, pair.outbound.cpi) == (True, CPI_DEFLATE)
    assert (pair.inbound.ip_comp, pair.inbound.cpi) == (True, CPI_DEFLATE)
    sadb = database()
    sadb.install_outbound(pair.outbound)
    sadb.spd.set_entries(1, [SpdEntry(10)])
    (wire,) = protected(sadb, [packet(bytes(600))])
    assert wire[28:32] == bytes((PROTOCOL_IPIP, 0, 0, 2))
