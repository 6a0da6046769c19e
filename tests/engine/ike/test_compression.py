"""IPComp (RFC 3173) from its negotiation to packets: two IKE engines agree on CPIs, the data engine uses them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from dataclasses import replace

import pytest

from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike_messages import SaInstall
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.ase.sa_builder import negotiated_pair
from chassis.bus.records import Record, TunnelRecord
from chassis.net.checksum import checksum
from chassis.net.ethernet import HEADROOM
from tests.support.ike.pair import TUNNEL, Ends, EnginePair, esp, other, proposal

SUITES = {
    "esp": esp("", "null", "hmac-sha1-96", ip_comp=True),
    "ah": esp("hmac-md5-96", "", "", ip_comp=True),
    "bundle": esp("hmac-md5-96", "null", "", ip_comp=True),
}
OUTER_CONTEXT = 7


def packet(source: str, target: str, content: bytes) -> bytes:
    size = 20 + len(content)
    ends = bytes(int(part) for address in (source, target) for part in address.split("."))
    head = bytes((0x45, 0)) + size.to_bytes(2, "big") + bytes((0, 1, 0, 0, 64, 253, 0, 0)) + ends
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + content


def database(records: Iterable[Record], install: SaInstall) -> Sadb:
    """What the data engine has of a pair."""
    (tunnel,) = (record for record in records if isinstance(record, TunnelRecord))
    pair = negotiated_pair(tunnel, install)
    sadb = Sadb(SaStateFile(memoryview(bytearray(octets_for(2)))))
    sadb.install_inbound(pair.inbound)
    sadb.install_outbound(pair.outbound, pair.lease)
    sadb.spd.set_entries(TUNNEL, [pair.spd_entry])
    return sadb


def protected(sadb: Sadb, clear: bytes) -> bytes:
    result = sadb.encapsulate_tunnel(TUNNEL, bytes(HEADROOM) + clear, [HEADROOM + len(clear)], random.randbytes)
    assert result.drops.counts == {}
    return bytes(result.body[HEADROOM:])


def opened(sadb: Sadb, wire: bytes) -> tuple[list[bytes], dict[IpsecDropCause, int]]:
    result = sadb.decapsulate_batch(bytes(HEADROOM) + wire, [HEADROOM + len(wire)], OUTER_CONTEXT)
    return [bytes(group.body[HEADROOM:]) for group in result.groups], result.drops.counts


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("version", [1, 2])
def test_each_end_sends_with_the_others_cpi(version: int, name: str) -> None:
    ends = Ends(version=version, proposals=(proposal(version),), suites=(SUITES[name],))
    two = EnginePair(ends, other(ends))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    assert two.packet(two.a)
    a, b = two.a.sender(), two.b.sender()
    assert a is not None
    assert b is not None
    assert (a.cpi_out, a.cpi_in) == (b.cpi_in, b.cpi_out)
    assert a.cpi_in != a.cpi_out
    # Negotiated CPIs are none of the well-known ones, of the reserved ones, or of private use (RFC 3173 3.3).
    assert all(256 <= cpi <= 61439 for cpi in (a.cpi_in, a.cpi_out))
    sadbs = database(ends.records(), a), database(other(ends).records(), b)
    rules = a.rules[0] if a.rules else None
    here, there = (
        ("10.1.0.9", "10.2.0.9") if rules is None else (_within(rules.source[0]), _within(rules.destination[0]))
    )
    for sender, receiver, source, target, cpi in (
        (*sadbs, here, there, b.cpi_in),
        (*sadbs[::-1], there, here, a.cpi_in),
    ):
        clear = packet(source, target, b"compressible " * 90)
        wire = protected(sender, clear)
        assert len(wire) < len(clear) // 4
        head = {"esp": 28, "ah": 44, "bundle": 52}[name]
        assert wire[head : head + 4] == bytes((4, 0)) + cpi.to_bytes(2, "big")
        assert zlib.decompressobj(-15).decompress(wire[head + 4 :]) == clear
        assert opened(receiver, wire) == ([clear], {})
        for content in (random.Random(3).randbytes(1300), b"short"):
            clear = packet(source, target, content)
            wire = protected(sender, clear)
            assert wire[head : head + len(clear)] == clear, "what does not shrink has no header of its own"
            assert opened(receiver, wire) == ([clear], {})


def _within(address: int) -> str:
    return ".".join(str(octet) for octet in (address + 9).to_bytes(4, "big"))


@pytest.mark.parametrize("version", [1, 2])
def test_without_it_nothing_is_compressed(version: int) -> None:
    plain = replace(SUITES["esp"], ip_comp=False)
    ends = Ends(version=version, proposals=(proposal(version),), suites=(plain,))
    two = EnginePair(ends, other(ends))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    a = two.a.sender()
    assert a is not None
    assert (a.cpi_in, a.cpi_out) == (0, 0)
    assert not negotiated_pair(*_tunnel_and(ends, a)).outbound.ip_comp


def _tunnel_and(ends: Ends, install: SaInstall) -> tuple[TunnelRecord, SaInstall]:
    (tunnel,) = (record for record in ends.records() if isinstance(record, TunnelRecord))
    return tunnel, install


def test_one_end_of_version_2_that_does_not_compress() -> None:
    """The notification is only a wish (RFC 7296 2.22): the pair stands without it."""
    ends = Ends(suites=(SUITES["esp"],))
    two = EnginePair(ends, replace(other(ends), suites=(replace(SUITES["esp"], ip_comp=False),)))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    a, b = two.a.sender(), two.b.sender()
    assert a is not None
    assert b is not None
    assert (a.cpi_in, a.cpi_out, b.cpi_in, b.cpi_out) == (0, 0, 0, 0)


def test_a_cpi_of_four_octets_is_its_last_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3173 4.1: the two others must be zero, and must be ignored."""
    spis = IkeSaManager.allocate_spis

    def longer(self: IkeSaManager, protocols: tuple[int, ...]) -> dict[int, bytes]:
        found = spis(self, protocols)
        if self.asp == "asp 2/1" and Protocol.IPCOMP in found:
            self.release_spis({Protocol.IPCOMP: found[Protocol.IPCOMP]})
            found[Protocol.IPCOMP] = b"\xab\xcd\x12\x34"
        return found

    monkeypatch.setattr(IkeSaManager, "allocate_spis", longer)
    ends = Ends(version=1, proposals=(proposal(1),), suites=(SUITES["esp"],))
    two = EnginePair(ends, other(ends))
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    assert two.a.installs[0].cpi_out == 0x1234
