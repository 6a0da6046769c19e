"""Identifications of outer headers: one sequence for all that a receiver of fragments cannot tell apart."""

from __future__ import annotations

from chassis.ase.ipsec.outer_header import Ipv4IdSequence
from chassis.ase.ipsec.sa import Ah, Esp, OutboundSa, UdpPorts
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from chassis.ase.ipsec.state import SaStateFile, octets_for
from tests.support.ipsec import ENTRY, LEFT, RIGHT, ah, batch, database, esp, inner, packets_of, random_octets

ELSEWHERE = RIGHT + 1


def add(
    sadb: Sadb,
    tunnel: int,
    *,
    use_esp: Esp | None = None,
    use_ah: Ah | None = None,
    destination: int = RIGHT,
    negotiated: bool = True,
    udp: UdpPorts | None = None,
) -> None:
    sadb.install_outbound(
        OutboundSa(
            tunnel, 1, LEFT, destination, entry=ENTRY, esp=use_esp, ah=use_ah, negotiated=negotiated, udp=udp
        )
    )
    sadb.spd.set_entries(tunnel, [SpdEntry(ENTRY)])


def sent(sadb: Sadb, tunnel: int, count: int) -> list[int]:
    """Identifications of so many packets."""
    result = sadb.encapsulate_tunnel(tunnel, *batch([inner(60)] * count), random_octets())
    return [int.from_bytes(packet[4:6], "big") for packet in packets_of(result.body, result.lengths)]


def run(first: int, count: int) -> list[int]:
    return [number & 0xFFFF for number in range(first, first + count)]


def test_sas_between_the_same_ends_share_one_sequence() -> None:
    sadb = database()
    add(sadb, 1, use_esp=esp(spi=0x1001))
    add(sadb, 2, use_esp=esp("aes-128-gcm", spi=0x1002))
    first = 0x1001 + 0x1002 + 2
    assert sent(sadb, 1, 3) == run(first, 3)
    assert sent(sadb, 2, 4) == run(first + 3, 4)
    # A successor does not set the sequence back.
    add(sadb, 3, use_esp=esp(spi=0x1003))
    assert sadb.remove_outbound(1, 1)
    assert sent(sadb, 3, 2) == run(first + 7, 2)


def test_another_protocol_or_destination_has_another_sequence() -> None:
    sadb = database()
    add(sadb, 1, use_esp=esp(spi=0x1001))
    add(sadb, 2, use_ah=ah(spi=0x2001))
    add(sadb, 3, use_esp=esp(spi=0x3001), udp=UdpPorts(4500, 4500))
    add(sadb, 4, use_esp=esp(spi=0x4001), destination=ELSEWHERE)
    add(sadb, 5, use_esp=esp(spi=0x5001), use_ah=ah(spi=0x2002))
    firsts = {1: 0x1002, 2: 0x2001 + 0x2002 + 2, 3: 0x3002, 4: 0x4002}
    for tunnel, first in firsts.items():
        assert sent(sadb, tunnel, 2) == run(first, 2)
    assert sent(sadb, 5, 2) == run(firsts[2] + 2, 2)
    # An SA whose peer is elsewhere now goes by the sequence there.
    sadb.update_outbound(OutboundSa(1, 1, LEFT, ELSEWHERE, entry=ENTRY, esp=esp(spi=0x1001), negotiated=True))
    assert sent(sadb, 1, 2) == run(firsts[4] + 2, 2)


def test_a_process_that_goes_on_with_manual_sas_goes_on_with_their_sequence() -> None:
    state = memoryview(bytearray(octets_for(16)))
    sent_before: list[int] = []
    for _ in range(3):
        sadb = Sadb(SaStateFile(state))
        for tunnel in (1, 2):
            add(sadb, tunnel, use_esp=esp(spi=0x1000 + tunnel), negotiated=False)
        for tunnel in (1, 2, 1):
            sent_before += sent(sadb, tunnel, 5)
    assert sent_before == run(sent_before[0], 45)


def test_a_sequence_begins_anew_after_its_last_number() -> None:
    sequence = Ipv4IdSequence()
    sequence.add_sa(0xFFF0, 0x0A)
    assert [*sequence.allocate(3)] == [0xFFFA, 0xFFFB, 0xFFFC]
    assert [*sequence.allocate(5)] == [0xFFFD, 0xFFFE, 0xFFFF, 0, 1]
    assert [*sequence.allocate(2)] == [2, 3]
    assert [*sequence.allocate(0)] == []
    sequence.add_sa(1000, 1)
    assert len({*sequence.allocate(0x10000)}) == 0x10000
    assert [*sequence.allocate(1)] == [4]
