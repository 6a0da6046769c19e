"""Whole engines under mutated messages, in clear and under the keys, with a tunnel that stands between them.

No exception escapes, nothing is leaked, what is half open stays bounded. Who has no keys does the tunnel no harm
at all; what a peer with the keys breaks comes up again by itself. `python -m bench fuzz` gives a million messages.
"""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import closing

import pytest

from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import IdType
from chassis.ase.ike.receiver import IkeReceiver
from chassis.ase.ike.v1.phase1_exchange import display_identity
from chassis.ase.ike_messages import IkePacket
from tests.support.ike.fuzzer import HALF_OPEN, Fuzzed, fuzzed
from tests.support.ike.pair import Ends, EnginePair, other, proposal

BURSTS = 5
MESSAGES = 350
"""Six cases of five bursts: 10,500 messages."""
LEAKING = 1_700
"""So many in each burst that the smallest leak of each shows."""
GROWTH = 150_000
"""Octets by which what two engines hold may differ between two rests, by what is under way just then."""
CASES = [("clear", 1, 1), ("clear", 1, 2), ("clear", 2, 2), ("inside", 1, 1), ("inside", 1, 2), ("inside", 2, 2)]
"""(kind, version, seed): aggressive mode by an odd seed, main mode by an even one."""


def growth(fuzz: Fuzzed, messages: int = MESSAGES) -> int:
    """Octets that the engines hold more at the last two rests than at the first two, whichever way is least."""
    sizes = []
    tracemalloc.start()
    try:
        for _ in range(BURSTS):
            fuzz.burst(messages)
            fuzz.rest()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return min(sizes[-2:]) - max(sizes[:2])


@pytest.mark.parametrize(("kind", "version", "seed"), CASES)
def test_mutated_messages(kind: str, version: int, seed: int) -> None:
    with closing(fuzzed(kind, version, seed)) as fuzz:
        assert growth(fuzz) < GROWTH
        assert fuzz.given >= BURSTS * MESSAGES
        total = fuzz.two.a.ike.ike_sa_manager.statistics.total
        assert sum(total.get(f"{mark}messages received", 0) for mark in ("", "v1 ", "v2 ")) > BURSTS * MESSAGES / 3
        if kind == "clear":
            assert fuzz.longest == 0.0
            assert fuzz.peak >= HALF_OPEN, "the bound was reached"
            refused = "cookies requested" if version == 2 else "half-open evicted"
            assert any(end.ike.ike_sa_manager.statistics.total.get(refused, 0) for end in (fuzz.two.a, fuzz.two.b))
        else:
            # It was really behind the protection that most of them were refused.
            names = (
                ("v1 failed malformed", "v1 decryption failures") if version == 1 else ("v2 messages malformed",)
            )
            assert sum(total[name] for name in names) > BURSTS * MESSAGES / 3


def test_a_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    datagram = IkeReceiver.receive

    def keeps(arrivals: IkeReceiver, packet: IkePacket, now: float) -> None:
        kept.append(packet.data[:32])
        datagram(arrivals, packet, now)

    monkeypatch.setattr(IkeReceiver, "receive", keeps)
    with closing(fuzzed("clear", 2, 2)) as fuzz:
        assert growth(fuzz, LEAKING) > GROWTH


@pytest.fixture
def stranger() -> EnginePair:
    ends = Ends(connection="responder-only")
    return EnginePair(ends, other(ends))


@pytest.mark.parametrize(("change", "row"), [
    # A payload in the first message that is none, and the flag that says that the responder speaks.
    (lambda data: data[:28] + b"\0\0\0\3" + data[32:], "ikev2-generic-header-length"),
    (lambda data: data[:19] + b"\0" + data[20:], ""),
])  # fmt: skip
def test_a_first_message_that_is_none_holds_nothing(stranger: EnginePair, change: object, row: str) -> None:
    assert callable(change)
    first = first_message()
    for port in range(1000, 1050):
        stranger.give(stranger.a, IkePacket(7, stranger.a.local, 500, stranger.b.local, port, change(first)))
    assert stranger.a.ike.ike_sa_manager.table.half_open == 0
    assert not stranger.a.ike.ike_sa_manager.table.by_spi
    assert (row in stranger.a.rows()) == bool(row)
    # One that is right does begin something.
    stranger.give(stranger.a, IkePacket(7, stranger.a.local, 500, stranger.b.local, 1, first))
    assert stranger.a.ike.ike_sa_manager.table.half_open == 1


def first_message() -> bytes:
    """An IKE_SA_INIT request of an initiator."""
    ends = Ends(proposals=(proposal(2, dh_group=1),))
    two = EnginePair(ends, replace_with_silence(ends), trouble=lambda *_: ())
    two.run(5)
    data = two.a.sent[0].data
    assert Header.parse(data).exchange == 34
    return data


def replace_with_silence(ends: Ends) -> Ends:
    return other(Ends(proposals=ends.proposals, connection="responder-only"))


def test_a_distinguished_name_with_a_bit_string_is_shown() -> None:
    bits = bytes.fromhex("301031 0e300c0603550403 0305 00 61626364".replace(" ", ""))
    for data in (bits, bits[:-1], b"\x30", b"", b"\x30\x80" + bits):
        assert display_identity(IkeIdentity(IdType.DER_ASN1_DN, data)).isprintable()
