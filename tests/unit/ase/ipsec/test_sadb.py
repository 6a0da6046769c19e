"""SAs as values and their life in the database."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.cipher_engine import EspOpener, EspSealer
from chassis.ase.ipsec.cryptography_engine import CryptographyEngine
from chassis.ase.ipsec.sa import Ah, Esp, InboundSa, OutboundSa, SaError, SequenceLease
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaStateFile, StateError, octets_for
from tests.support.ipsec import ENTRY, LEFT, RIGHT, ah, batch, database, esp, inner, protected, receiver, sender

SECRET = b"a secret of 16 b"


def test_keys_are_never_shown() -> None:
    use_esp = Esp(0x1001, "aes-128-cbc", SECRET, "hmac-md5-96", SECRET)
    use_ah = Ah(0x2001, "hmac-md5-96", SECRET)
    sadb = database()
    outbound = OutboundSa(1, 1, LEFT, RIGHT, esp=use_esp, ah=use_ah)
    inbound = InboundSa(1, 1, LEFT, RIGHT, esp=use_esp, ah=use_ah)
    encapsulator = sadb.install_outbound(outbound)
    decapsulator = sadb.install_inbound(inbound)
    for shown in (
        use_esp,
        use_ah,
        outbound,
        inbound,
        encapsulator,
        decapsulator,
        sadb,
        sadb.outbound,
        sadb.inbound,
    ):
        for text in (repr(shown), str(shown), f"{shown}"):
            assert "secret" not in text
            assert SECRET.hex() not in text
    with pytest.raises(SaError) as caught:
        Esp(0x1001, "aes-256-cbc", SECRET)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("build", "text"), [
    (lambda: Esp(0x1001, "aes-256-cbc", SECRET), "key has 16 bytes, aes-256-cbc needs 32"),
    (lambda: Esp(0x1001, "null", SECRET), "key has 16 bytes, null needs 0"),
    (lambda: Ah(0x1001, "hmac-md5-96", b"8 bytes!"), "key has 8 bytes, hmac-md5-96 needs 16"),
    (lambda: Ah(0x1001, "hmac-sha9", SECRET), "unknown integrity algorithm hmac-sha9"),
    (lambda: Esp(0x1001, "rot13"), "unknown encryption algorithm rot13"),
    (lambda: Esp(0x1001, integrity_key=SECRET), "no integrity algorithm"),
    (lambda: Esp(255), "ESP SPI 255 is outside 256 to 4294967295"),
    (lambda: Ah(1 << 32, "hmac-md5-96", SECRET), "AH SPI"),
    (lambda: OutboundSa(1, 1, LEFT, RIGHT), "needs ESP, AH or both"),
    (lambda: InboundSa(1, 1, LEFT, RIGHT), "needs ESP, AH or both"),
    (lambda: OutboundSa(1, 1, LEFT, RIGHT, esp=Esp(300)), "needs a cipher, an integrity algorithm or both"),
    (lambda: InboundSa(1, 1, LEFT, RIGHT, esp=Esp(300)), "needs a cipher, an integrity algorithm or both"),
    (lambda: InboundSa(1, 1, LEFT, RIGHT, esp=esp(), window=65), "window 65 is not a multiple of 32"),
    (lambda: InboundSa(1, 1, LEFT, RIGHT, esp=esp(), window=2048), "window 2048"),
    (lambda: OutboundSa(1, 1, -1, RIGHT, esp=esp()), "source address"),
    (lambda: OutboundSa(1, 1, LEFT, 1 << 32, esp=esp()), "destination address"),
    (lambda: SequenceLease(0, 10), "sequence lease"),
    (lambda: SequenceLease(10, 5), "sequence lease"),
    (lambda: SequenceLease(10, (1 << 64) + 1), "sequence lease"),
])  # fmt: skip
def test_what_cannot_be_built_says_why(build: Any, text: str) -> None:
    with pytest.raises(SaError, match=text):
        build()


@pytest.mark.behaviour("B-118")
def test_conflicts_are_refused() -> None:
    sadb = database()
    sadb.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=esp(), ah=ah()))
    sadb.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, esp=esp()))
    for other in (InboundSa(2, 1, LEFT + 9, RIGHT, esp=esp()), InboundSa(2, 1, LEFT, RIGHT, ah=ah())):
        with pytest.raises(SaError, match="of tunnel 2 is in use by tunnel 1"):
            sadb.install_inbound(other)
    with pytest.raises(SaError, match="in use by tunnel 1"):
        sadb.install_outbound(OutboundSa(2, 1, LEFT, RIGHT, esp=esp()))
    with pytest.raises(SaError, match="already has another inbound SA 1"):
        sadb.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=esp("null")))
    with pytest.raises(SaError, match="already has another outbound SA 1"):
        sadb.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, esp=esp("null")))
    sadb.install_inbound(InboundSa(2, 1, LEFT, RIGHT, context=1, esp=esp()))
    sadb.install_inbound(InboundSa(3, 1, LEFT, RIGHT + 1, esp=esp()))


def test_installing_again_changes_nothing() -> None:
    sadb = sender(esp(), lease=SequenceLease(1, 100))
    receiver(esp(), into=sadb)
    wire = protected(sadb, [inner()] * 5)
    sadb.decapsulate_batch(*batch(wire))
    encapsulator, decapsulator = sadb.outbound[1, 1], sadb.inbound[1, 1]
    assert (
        sadb.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, esp=esp()), SequenceLease(1, 100))
        is encapsulator
    )
    assert sadb.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=esp())) is decapsulator
    assert encapsulator.next_number == 6
    assert sadb.decapsulate_batch(*batch(wire)).drops.counts == {IpsecDropCause.REPLAYED: 5}


def test_a_rekey_switches_when_told() -> None:
    sadb = sender(esp(spi=0x1001))
    sadb.install_outbound(OutboundSa(1, 2, LEFT, RIGHT, entry=ENTRY, esp=esp(spi=0x1002)), current=False)
    assert protected(sadb, [inner()])[0][20:24].hex() == "00001001"
    sadb.activate_outbound(1, 2)
    assert protected(sadb, [inner()])[0][20:24].hex() == "00001002"
    assert sadb.remove_outbound(1, 1)
    assert not sadb.remove_outbound(1, 1)
    assert protected(sadb, [inner()])[0][20:24].hex() == "00001002"
    for call in (lambda: sadb.activate_outbound(1, 1), lambda: sadb.renew_lease(1, 1, SequenceLease())):
        with pytest.raises(SaError, match="no outbound SA 1"):
            call()
    assert sadb.current_outbound(1, ENTRY) is sadb.outbound[1, 2]
    sadb.remove_outbound(1, 2)
    assert sadb.current_outbound(1, ENTRY) is None


def test_a_removed_inbound_sa_opens_nothing() -> None:
    left, right = sender(esp()), receiver(esp())
    assert right.find_inbound(0, RIGHT, 50, 0x1001) is right.inbound[1, 1]
    assert right.remove_inbound(1, 1)
    assert not right.remove_inbound(1, 1)
    assert right.find_inbound(0, RIGHT, 50, 0x1001) is None
    assert right.decapsulate_batch(*batch(protected(left, [inner()]))).drops.counts == {
        IpsecDropCause.NO_INBOUND_SA: 1
    }


def test_numbers_and_windows_outlive_removal() -> None:
    left, right = sender(esp()), receiver(esp())
    wire = protected(left, [inner()] * 3)
    right.decapsulate_batch(*batch(wire))
    left.remove_outbound(1, 1)
    right.remove_inbound(1, 1)
    sender(esp(), into=left)
    receiver(esp(), into=right)
    assert right.decapsulate_batch(*batch(wire)).drops.counts == {IpsecDropCause.REPLAYED: 3}
    assert protected(left, [inner()])[0][24:28] == (4).to_bytes(4, "big")


def test_a_bundle_that_loses_its_ah_goes_on_with_its_esp_numbers() -> None:
    left, right = sender(esp(), ah()), receiver(esp(), ah())
    right.decapsulate_batch(*batch(protected(left, [inner()] * 3)))
    left.remove_outbound(1, 1)
    right.remove_inbound(1, 1)
    sender(esp(), into=left)
    receiver(esp(), into=right)
    (packet,) = protected(left, [inner()])
    assert packet[24:28] == (4).to_bytes(4, "big")
    replayed = protected(sender(esp()), [inner()] * 3)
    assert right.decapsulate_batch(*batch(replayed)).drops.counts == {IpsecDropCause.REPLAYED: 3}


def test_a_lost_file_goes_on_from_the_lease() -> None:
    left = sender(esp(), lease=SequenceLease((1 << 20) + 1, (1 << 21) + 1))
    assert protected(left, [inner()])[0][24:28] == ((1 << 20) + 1).to_bytes(4, "big")


def test_an_edge_from_elsewhere_refuses_what_lies_before_it() -> None:
    left = sender(esp(), ah())
    wire = protected(left, [inner()] * 100)
    right = database()
    right.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=esp(), ah=ah()), edge=90)
    result = right.decapsulate_batch(*batch(wire))
    assert list(result.groups[0].origins) == list(range(90, 100))
    assert set(result.drops.counts) == {IpsecDropCause.OUTSIDE_WINDOW, IpsecDropCause.REPLAYED}


def test_a_full_state_says_so_and_keeps_nothing_half_installed() -> None:
    sadb = Sadb(SaStateFile(memoryview(bytearray(octets_for(1)))))
    with pytest.raises(StateError, match="full"):
        sadb.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, esp=esp(), ah=ah()))
    assert not sadb.outbound
    sadb.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, entry=ENTRY, esp=esp()))


def test_a_smaller_window_is_exact_after_a_larger_one() -> None:
    """The window of a manual SA may change; what it remembers is cut to its new size."""
    left, right = sender(esp()), receiver(esp(), window=1024)
    wire = protected(left, [inner(30)] * 200)
    right.decapsulate_batch(*batch(wire[:50] + wire[100:]))
    right.remove_inbound(1, 1)
    receiver(esp(), window=64, into=right)
    assert right.decapsulate_batch(*batch([wire[60]])).drops.counts == {IpsecDropCause.OUTSIDE_WINDOW: 1}
    assert right.decapsulate_batch(*batch([wire[150]])).drops.counts == {IpsecDropCause.REPLAYED: 1}


class CountingEngine(CryptographyEngine):
    """Counts what it makes for SAs."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def sealer(self, esp: Esp, esn: bool) -> EspSealer:
        self.made.append("sealer")
        return super().sealer(esp, esn)

    def opener(self, esp: Esp, esn: bool) -> EspOpener:
        self.made.append("opener")
        return super().opener(esp, esn)


def test_an_idle_sa_has_no_keyed_contexts() -> None:
    engine = CountingEngine()
    both = Sadb(SaStateFile(memoryview(bytearray(octets_for(4)))), engine=engine)
    sender(esp(), into=both)
    receiver(esp(), into=both)
    assert not engine.made
    packets = [packet for _ in range(2) for packet in protected(both, [inner(40)])]
    assert engine.made == ["sealer"]
    for packet in packets:
        both.decapsulate_batch(*batch([packet]), 0)
    assert engine.made == ["sealer", "opener"]
