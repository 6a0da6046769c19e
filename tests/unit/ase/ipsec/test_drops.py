"""Every cause of a drop, its counter, its sample and its log message; leases and exhaustion."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.ase.ipsec.causes import MESSAGE_IDS, OWN_MESSAGES, DropSample, IpsecDropCause, NoticeKind
from chassis.ase.ipsec.encapsulate import EncapsulationResult, encapsulate
from chassis.ase.ipsec.sa import MAX_SEQUENCE, OutboundSa, SequenceLease
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import Rule, SpdEntry
from tests.support.ipsec import (
    ENTRY,
    INSIDE,
    LEFT,
    OUTSIDE,
    RIGHT,
    ah,
    batch,
    database,
    esp,
    inner,
    null_esp,
    packets_of,
    protected,
    random_octets,
    receiver,
    resized,
    sender,
)


def refused(sadb: Sadb, packets: list[bytes], cause: IpsecDropCause) -> DropSample:
    """Opens packets that must all be dropped for one cause; its sample."""
    result = sadb.decapsulate_batch(*batch(packets))
    assert result.groups == ()
    assert result.drops.counts == {cause: len(packets)}
    return result.drops.samples[cause]


def altered(packet: bytes, at: int, value: int | None = None) -> bytes:
    changed = bytearray(packet)
    changed[at] = changed[at] ^ 1 if value is None else value
    return bytes(changed)


NULL = esp("null")
BUNDLE = (esp(), ah())


@pytest.mark.behaviour("B-220")
def test_no_inbound_sa() -> None:
    wire = protected(sender(esp(spi=0x7777)), [inner()] * 3)
    sample = refused(receiver(esp()), wire, IpsecDropCause.NO_INBOUND_SA)
    assert sample == DropSample(IpsecDropCause.NO_INBOUND_SA, 0x7777, LEFT, 1)


def test_esp_of_a_bundle_is_not_accepted_without_its_ah() -> None:
    refused(receiver(*BUNDLE), protected(sender(BUNDLE[0]), [inner()]), IpsecDropCause.NO_INBOUND_SA)


def test_a_bundle_holds_the_esp_of_its_own_sa() -> None:
    wire = protected(sender(esp(spi=0x7777), ah()), [inner()])
    sample = refused(receiver(*BUNDLE), wire, IpsecDropCause.NO_INBOUND_SA)
    assert sample.spi == 0x7777


@pytest.mark.behaviour("B-113")
@pytest.mark.parametrize("protocols", [(esp(), None), (None, ah()), BUNDLE])
@pytest.mark.parametrize("window", [32, 64, 128, 1024])
def test_late_and_duplicate(protocols: tuple[Any, Any], window: int) -> None:
    wire = protected(sender(*protocols), [inner(30)] * (window + 1))
    right = receiver(*protocols, window=window)
    spi = protocols[1].spi if protocols[1] else protocols[0].spi
    assert right.decapsulate_batch(*batch(wire[1:])).drops.counts == {}
    assert refused(right, [wire[0]], IpsecDropCause.OUTSIDE_WINDOW) == DropSample(
        IpsecDropCause.OUTSIDE_WINDOW, spi, LEFT, 1, 1
    )
    sample = refused(right, [wire[1], wire[-1]], IpsecDropCause.REPLAYED)
    assert sample == DropSample(IpsecDropCause.REPLAYED, spi, LEFT, 2, 1)


def test_a_duplicate_within_one_batch() -> None:
    (packet,) = protected(sender(esp()), [inner()])
    result = receiver(esp()).decapsulate_batch(*batch([packet, packet]))
    assert len(result.groups[0].lengths) == 1
    assert result.drops.counts == {IpsecDropCause.REPLAYED: 1}


def test_without_integrity_there_is_no_window() -> None:
    use = esp("aes-128-cbc", None)
    (packet,) = protected(sender(use), [inner()])
    result = receiver(use).decapsulate_batch(*batch([packet, packet]))
    assert len(result.groups[0].lengths) == 2


@pytest.mark.behaviour("B-218")
@pytest.mark.parametrize("at", [20 + 8, 20 + 8 + 16, -13, -12, -1])
def test_esp_authentication(at: int) -> None:
    wire = protected(sender(esp()), [inner()] * 2)
    right = receiver(esp())
    sample = refused(right, [altered(packet, at) for packet in wire], IpsecDropCause.ESP_AUTHENTICATION)
    assert sample == DropSample(IpsecDropCause.ESP_AUTHENTICATION, 0x1001, LEFT, 1, 1)
    assert right.decapsulate_batch(*batch(wire)).drops.counts == {}, "a forgery does not move the window"


def test_a_forged_number_does_not_move_the_window() -> None:
    (packet,) = protected(sender(esp()), [inner()])
    right = receiver(esp())
    refused(right, [altered(packet, 24, 0x7F)], IpsecDropCause.ESP_AUTHENTICATION)
    assert right.decapsulate_batch(*batch([packet])).drops.counts == {}


@pytest.mark.behaviour("B-218")
@pytest.mark.parametrize("at", [4, 12, 20 + 2, 20 + 12, 20 + 24, -1])
@pytest.mark.parametrize("protocols", [(None, ah()), BUNDLE])
def test_ah_authentication(protocols: tuple[Any, Any], at: int) -> None:
    wire = protected(sender(*protocols), [inner()])
    sample = refused(receiver(*protocols), [altered(wire[0], at)], IpsecDropCause.AH_AUTHENTICATION)
    assert sample.spi == 0x2001


def test_esp_authentication_inside_ah() -> None:
    """The peer's AH is right around an ESP whose key differs."""
    wrong = sender(esp(integrity="hmac-md5-96"), ah())
    sample = refused(receiver(*BUNDLE), protected(wrong, [inner()]), IpsecDropCause.ESP_AUTHENTICATION)
    assert sample.spi == 0x1001


@pytest.mark.parametrize("protocols", [(None, ah()), BUNDLE])
def test_fields_that_routers_may_change_do_not_break_ah(protocols: tuple[Any, Any]) -> None:
    (wire,) = protected(sender(*protocols), [inner()])
    changed = altered(altered(altered(wire, 8, 3), 1, 0x20), 10)
    changed = altered(changed, 6, 0x40)
    assert receiver(*protocols).decapsulate_batch(*batch([changed])).drops.counts == {}


@pytest.mark.behaviour("B-219")
def test_encapsulation_mode() -> None:
    transport = struct.pack("!HHHH", 1, 2, 8, 0) + bytes([1, 2, 2, 17])
    refused(receiver(NULL), [null_esp(transport)], IpsecDropCause.NOT_TUNNEL_MODE)


def test_encapsulation_mode_of_ah() -> None:
    """AH alone around ESP, where AH alone is expected around a packet."""
    wire = protected(sender(*BUNDLE), [inner()])
    refused(receiver(None, ah()), wire, IpsecDropCause.NOT_TUNNEL_MODE)
    refused(receiver(*BUNDLE), protected(sender(None, ah()), [inner()]), IpsecDropCause.NOT_TUNNEL_MODE)


def test_dummy_packets() -> None:
    refused(receiver(NULL), [null_esp(bytes(10) + bytes([0, 59]))], IpsecDropCause.DUMMY)


@pytest.mark.parametrize("payload", [
    pytest.param(inner(40) + bytes([1, 9, 2, 4]), id="padding octets"),
    pytest.param(bytes(10) + bytes([200, 4]), id="padding longer than the payload"),
    pytest.param(bytes(11) + bytes([0, 4]), id="not a multiple of four"),
    pytest.param(bytes(18) + bytes([0, 4]), id="inner shorter than a header"),
    pytest.param(b"\x60" + bytes(41) + bytes([0, 4]), id="inner not IPv4"),
    pytest.param(inner(40)[:30] + bytes([0, 4]), id="inner cut"),
    pytest.param(b"\x44" + inner(40)[1:] + bytes([1, 2, 2, 4]), id="inner header length"),
    pytest.param(inner(40)[:2] + b"\x00\x10" + inner(40)[4:] + bytes([1, 2, 2, 4]), id="inner total"),
])  # fmt: skip
def test_malformed_inside(payload: bytes) -> None:
    refused(receiver(NULL), [null_esp(payload)], IpsecDropCause.MALFORMED)


@pytest.mark.parametrize("change", [
    pytest.param(lambda packet: packet[:-1], id="cut"),
    pytest.param(lambda packet: packet[:33], id="too short"),
    pytest.param(lambda packet: b"\x65" + packet[1:], id="version"),
    pytest.param(lambda packet: b"\x44" + packet[1:], id="header length"),
    pytest.param(lambda packet: b"\x4f" + packet[1:40], id="options beyond the end"),
    pytest.param(lambda packet: packet[:2] + b"\0\x14" + packet[4:], id="total length"),
    pytest.param(lambda packet: resized(packet[:-4]), id="ciphertext not whole blocks"),
    pytest.param(lambda packet: resized(packet[:60]), id="no room for a block"),
])  # fmt: skip
def test_malformed_outside(change: Any) -> None:
    (packet,) = protected(sender(esp()), [inner(60)])
    refused(receiver(esp()), [change(packet)], IpsecDropCause.MALFORMED)


def test_ah_of_another_length_is_malformed() -> None:
    (packet,) = protected(sender(None, ah()), [inner(60)])
    refused(receiver(None, ah()), [altered(packet, 21, 5)], IpsecDropCause.MALFORMED)
    refused(receiver(None, ah()), [resized(packet[:40])], IpsecDropCause.MALFORMED)


def test_lengths_beyond_the_body_are_malformed() -> None:
    body, lengths = batch(protected(sender(esp()), [inner()] * 2))
    result = receiver(esp()).decapsulate_batch(body[:-1], lengths)
    assert result.drops.counts == {IpsecDropCause.MALFORMED: 1}
    result2 = sender(esp()).encapsulate_tunnel(1, body[:-1], lengths, random_octets())
    assert result2.drops.counts == {IpsecDropCause.MALFORMED: 1}


@pytest.mark.parametrize("flags", [b"\x20\x00", b"\x00\x10", b"\x20\x10"])
@pytest.mark.parametrize("protocols", [(esp(), None), (None, ah())])
def test_fragments_are_put_aside(flags: bytes, protocols: tuple[Any, Any]) -> None:
    (packet,) = protected(sender(*protocols), [inner()])
    piece = packet[:6] + flags + packet[8:]
    short = piece[:2] + b"\x00\x1b" + piece[4:27]
    result = receiver(*protocols).decapsulate_batch(*batch([piece, short]))
    assert [bytes(view) for view in result.punted] == [piece, short]
    assert (result.groups, result.drops.counts) == ((), {})


def test_fragments_of_others_are_not_ipsec() -> None:
    refused(receiver(esp()), [inner(flags=0x2000, protocol=6)], IpsecDropCause.NOT_IPSEC)


def test_not_ipsec() -> None:
    assert refused(receiver(esp()), [inner(source=5)], IpsecDropCause.NOT_IPSEC).source == 5


def test_selector_mismatch() -> None:
    rule = Rule(source=(OUTSIDE, 32), destination=(INSIDE, 32))
    right = receiver(esp(), selectors=(rule,))
    left = sender(esp())
    refused(right, protected(left, [inner()]), IpsecDropCause.SELECTOR_MISMATCH)
    right_way = inner(source=OUTSIDE, destination=INSIDE)
    result = right.decapsulate_batch(*batch(protected(left, [right_way])))
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == [right_way]


def out(sadb: Sadb, packets: list[bytes], tunnel: int = 1) -> EncapsulationResult:
    return sadb.encapsulate_tunnel(tunnel, *batch(packets), random_octets())


def test_no_policy() -> None:
    left = sender(esp(), rules=(Rule(source=(INSIDE, 32)),))
    result = out(left, [inner(), inner(source=9), inner()])
    assert result.drops.counts == {IpsecDropCause.NO_POLICY: 1}
    assert result.drops.samples[IpsecDropCause.NO_POLICY].source == 9
    assert list(result.origins) == [0, 2]
    assert out(left, [inner()] * 2, tunnel=5).drops.counts == {IpsecDropCause.NO_POLICY: 2}


def test_no_outbound_sa() -> None:
    sadb = database()
    sadb.spd.set_entries(1, [SpdEntry(ENTRY)])
    result = out(sadb, [inner()] * 3)
    assert result.drops.counts == {IpsecDropCause.NO_OUTBOUND_SA: 3}
    assert len(result.lengths) == 0


@pytest.mark.parametrize("packet", [b"", b"\x45" + bytes(18), b"\x65" + inner()[1:], inner(80)[:60]])
def test_malformed_clear_packets(packet: bytes) -> None:
    result = out(sender(esp()), [packet, inner()])
    assert result.drops.counts == {IpsecDropCause.MALFORMED: 1}
    assert list(result.origins) == [1]
    alone = out(sender(esp()), [packet])
    assert alone.drops.counts == {IpsecDropCause.MALFORMED: 1}
    assert list(alone.origins) == []


def test_a_clear_packet_that_says_more_than_its_length_is_malformed() -> None:
    body, lengths = batch([inner(80)])
    lengths[0] -= 20
    # The octets that it says it has are in the body, but are not its own.
    result = sender(esp()).encapsulate_tunnel(1, body, lengths, random_octets())
    assert result.drops.counts == {IpsecDropCause.MALFORMED: 1}


def test_too_long() -> None:
    result = out(sender(esp()), [inner(65500), inner()])
    assert result.drops.counts == {IpsecDropCause.TOO_LONG: 1}
    assert list(result.origins) == [1]
    fits = sender(esp()).outbound[1, 1].sa.max_inner(65535 - 14)
    assert max(out(sender(esp()), [inner(fits)]).lengths) <= 65535
    assert out(sender(esp()), [inner(fits + 1)]).drops.counts == {IpsecDropCause.TOO_LONG: 1}


def test_a_lease_ends_and_is_renewed() -> None:
    left = sender(esp(), lease=SequenceLease(1, 11))
    first = out(left, [inner()] * 4)
    assert first.notices == ()
    second = out(left, [inner()] * 4)
    (notice,) = second.notices
    assert (notice.kind, notice.tunnel, notice.serial) == (NoticeKind.LEASE_HALF_USED, 1, 1)
    assert (notice.next_number, notice.limit) == (9, 11)
    third = out(left, [inner()] * 4)
    assert list(third.origins) == [0, 1]
    assert third.drops.counts == {IpsecDropCause.NO_LEASE: 2}
    assert third.drops.samples[IpsecDropCause.NO_LEASE] == DropSample(IpsecDropCause.NO_LEASE, 0x1001, INSIDE, 0)
    assert [said.kind for said in third.notices] == [NoticeKind.LEASE_EXHAUSTED]
    fourth = out(left, [inner()])
    assert (len(fourth.lengths), fourth.notices) == (0, ()), "said once"
    left.renew_lease(1, 1, SequenceLease(11, 21))
    fifth = out(left, [inner()] * 2)
    assert [int.from_bytes(packet[24:28], "big") for packet in packets_of(fifth.body, fifth.lengths)] == [11, 12]


def test_a_lease_that_joins_leaves_no_gap() -> None:
    left = sender(esp(), lease=SequenceLease(1, 11))
    out(left, [inner()] * 6)
    left.renew_lease(1, 1, SequenceLease(11, 31))
    result = out(left, [inner()] * 10)
    assert [int.from_bytes(packet[24:28], "big") for packet in packets_of(result.body, result.lengths)] == list(
        range(7, 17)
    )
    assert result.notices == ()
    assert [said.kind for said in out(left, [inner()] * 10).notices] == [NoticeKind.LEASE_HALF_USED]


def test_a_lease_further_on_is_taken_from_its_start() -> None:
    left = sender(esp(), lease=SequenceLease(1, 11))
    out(left, [inner()] * 2)
    left.renew_lease(1, 1, SequenceLease(101, 201))
    result = out(left, [inner()])
    assert packets_of(result.body, result.lengths)[0][24:28] == (101).to_bytes(4, "big")


@pytest.mark.parametrize("protocols", [(esp(), None), (None, ah()), BUNDLE])
def test_the_last_number_is_sent_and_none_after_it(protocols: tuple[Any, Any]) -> None:
    left = sender(*protocols, lease=SequenceLease(first=MAX_SEQUENCE - 1))
    result = out(left, [inner()] * 3)
    wire = packets_of(result.body, result.lengths)
    at = 28 if protocols[1] else 24
    assert [int.from_bytes(packet[at : at + 4], "big") for packet in wire] == [MAX_SEQUENCE - 1, MAX_SEQUENCE]
    assert result.drops.counts == {IpsecDropCause.SEQUENCE_EXHAUSTED: 1}
    assert [said.kind for said in result.notices] == [NoticeKind.SEQUENCE_EXHAUSTED]
    assert out(left, [inner()]).drops.counts == {IpsecDropCause.SEQUENCE_EXHAUSTED: 1}
    assert receiver(*protocols).decapsulate_batch(*batch(wire)).drops.counts == {}


def test_exhaustion_outlives_the_process() -> None:
    left = sender(esp(), lease=SequenceLease(first=MAX_SEQUENCE))
    out(left, [inner()])
    left.remove_outbound(1, 1)
    left.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, esp=esp()))
    assert out(left, [inner()]).drops.counts == {IpsecDropCause.SEQUENCE_EXHAUSTED: 1}


def test_the_order_and_count_of_mixed_drops() -> None:
    """Counts add up: what goes in comes out or is dropped for a named cause."""
    chance = random.Random(3)
    left, right = sender(esp()), receiver(esp(), window=32)
    wire = protected(left, [inner(40)] * 60)
    chosen = []
    for _ in range(300):
        packet = chance.choice(wire)
        chosen.append(altered(packet, chance.randrange(20, len(packet))) if chance.random() < 0.3 else packet)
    total = 0
    for start in range(0, 300, 30):
        result = right.decapsulate_batch(*batch(chosen[start : start + 30]))
        total += sum(result.drops.counts.values()) + sum(len(group.lengths) for group in result.groups)
        assert set(result.drops.samples) == set(result.drops.counts)
    assert total == 300


def test_one_sa_can_be_asked_directly() -> None:
    left = sender(esp())
    result = encapsulate(left.outbound[1, 1], *batch([inner(), b""]), random_octets())
    assert len(result.lengths) == 1
    assert result.drops.counts == {IpsecDropCause.MALFORMED: 1}


def test_messages_are_those_of_the_guide(spec_dir: Path) -> None:
    rows = yaml.safe_load((spec_dir / "messages.yaml").read_text())
    rows = rows if isinstance(rows, list) else rows["messages"]
    table = {row["id"]: row for row in rows if row.get("table") == 7}
    assert set(MESSAGE_IDS.values()) - OWN_MESSAGES == set(table) - {"esp-auth-alg"}
    assert "authentication" in table[MESSAGE_IDS[IpsecDropCause.ESP_AUTHENTICATION]]["text"].lower()
    assert "late" in table[MESSAGE_IDS[IpsecDropCause.OUTSIDE_WINDOW]]["text"].lower()
    assert "duplicate" in table[MESSAGE_IDS[IpsecDropCause.REPLAYED]]["text"].lower()
