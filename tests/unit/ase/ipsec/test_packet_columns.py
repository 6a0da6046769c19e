"""Packets of an SA as columns: a batch of many gives what its packets give one at a time."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence

import pytest

from chassis.ase.ipsec.causes import Drops
from chassis.ase.ipsec.cipher_engine import TRAILERS
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.esp import EspReceiver, ReceivedColumns
from chassis.ase.ipsec.received import PacketColumns
from chassis.ase.ipsec.sa import Esp, InboundSa
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import Rule
from chassis.ase.ipsec.state import SaStateFile, octets_for
from tests.support.cipher_engines import ENGINES, engine_of
from tests.support.ipsec import INSIDE, LEFT, RIGHT, batch, esp, inner, packets_of, resized

SUITES: dict[str, tuple[tuple[str, str | None], bool]] = {
    "aes": (("aes-128-cbc", "hmac-sha1-96"), False),
    "aes, extended numbers": (("aes-256-cbc", "hmac-sha-256-128"), True),
    "3des": (("3des-cbc", "hmac-md5-96"), False),
    "null": (("null", "hmac-sha1-96"), False),
    "null, extended numbers": (("null", "hmac-aes-xcbc"), True),
    "gcm": (("aes-128-gcm", None), False),
    "gcm, extended numbers": (("aes-256-gcm", None), True),
    "no integrity": (("aes-128-cbc", None), False),
}
PORTS = (Rule(17, source_port=1000), Rule(6), Rule(1))
SIZES = {"one length": (200,), "IMIX": (64, 576, 1400), "any": tuple(range(20, 140)), "two": (100, 104)}


class Sealer:
    """Makes authentic packets of any payloads."""

    def __init__(self, use: Esp, esn: bool, *, udp: bool) -> None:
        self.use = use
        self.udp = udp
        self._sealer = CRYPTOGRAPHY.sealer(use, esn)
        self._random = random.Random(3)

    def packet(self, number: int, payload: bytes, service: int = 0) -> bytes:
        """A packet with this payload and trailer, which are whole blocks."""
        port = struct.pack("!HHHH", 4500, 4500, 0, 0) if self.udp else b""
        outer = inner(20, source=LEFT, destination=RIGHT, protocol=17 if self.udp else 50, service=service) + port
        head = outer + struct.pack("!II", self.use.spi, number & 0xFFFFFFFF)
        iv = self._sealer.ivs(number, 1, self._random.randbytes)[0]
        if self._sealer.iv_in_head:
            head += iv
        whole = bytearray(self._sealer.seal_one(head, memoryview(payload), b"", len(payload), iv, number))
        if self.udp:
            whole[24:26] = struct.pack("!H", len(whole) - 20)
        return resized(bytes(whole))


def clear_packet(chance: random.Random, sizes: Sequence[int], odd: float) -> bytes:
    """A clear packet, as a rule an ordinary one."""
    size = chance.choice(sizes)
    packet = inner(size, source=INSIDE + chance.choice((0, 0, 1)), seed=chance.randrange(99))
    if chance.random() >= odd:
        return packet
    what = chance.randrange(6)
    if what == 0:
        return resized(b"\x46" + packet[1:20] + b"\1\1\1\0" + packet[20:])
    if what == 1:
        return inner(size, ports=(1, 1)) if size >= 24 else packet
    if what == 2:
        return inner(size, flags=chance.choice((0x2000, 0x2010, 0x0010)), ports=(7, 7))
    if what == 3:
        at = chance.choice((0, 2, 3))
        return packet[:at] + bytes((packet[at] ^ 1 << chance.randrange(8),)) + packet[at + 1 :]
    if what == 4:
        return inner(size, protocol=chance.choice((6, 89)), service=chance.randrange(256))
    return inner(size, service=chance.randrange(256))


def payload(chance: random.Random, packet: bytes, block: int, odd: float) -> bytes:
    """The packet with a trailer, as a rule the shortest right one."""
    padding = -(len(packet) + 2) % block
    if chance.random() >= odd:
        return packet + TRAILERS[padding]
    what = chance.randrange(5)
    if what == 0:  # longer padding
        return packet + TRAILERS[padding + block * chance.randrange(1 + (255 - padding) // block)]
    if what == 1:  # octets behind the packet
        return packet + bytes(block) + TRAILERS[padding]
    if what == 2:  # another payload
        return packet + TRAILERS[padding][:-1] + bytes((chance.choice((59, 6, 108, 4)),))
    whole = bytearray(packet + TRAILERS[padding])
    if what == 3:  # wrong padding
        whole[-2 - chance.randrange(1 + padding)] ^= chance.choice((1, 0x80))
        return bytes(whole)
    return chance.randbytes(block * chance.randrange(1, 4))


def on_the_wire(chance: random.Random, sent: list[bytes], earlier: Sequence[bytes], odd: float) -> list[bytes]:
    """The packets as they may arrive, with some of an earlier batch."""
    packets = list(sent)
    for at in range(len(packets)):
        if chance.random() >= odd:
            continue
        packet = packets[at]
        what = chance.randrange(9)
        if what == 0:
            other = chance.randrange(len(packets))
            packets[at], packets[other] = packets[other], packets[at]
        elif what == 1:
            packets[at] = chance.choice(earlier if earlier and chance.random() < 0.5 else packets)
        elif what == 2:
            changed = bytearray(packet)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            packets[at] = bytes(changed)
        elif what == 3:
            packets[at] = packet[: chance.randrange(len(packet))]
        elif what == 4:
            packets[at] = packet + bytes(chance.randrange(1, 9))
        elif what == 5:
            packets[at] = resized(b"\x46" + packet[1:20] + b"\1\1\1\0" + packet[20:])
        elif what == 6:
            packets[at] = packet[:6] + chance.choice((b"\x20\0", b"\0\x09")) + packet[8:]
        elif what == 7:
            packets[at] = inner(chance.choice((24, 40, 90)), source=LEFT, destination=RIGHT, protocol=1)
        else:
            packets[at] = resized(packet[:1] + bytes((chance.randrange(256),)) + packet[2:])
    return packets


Outcome = tuple[dict[int, list[tuple[int, bytes]]], dict[str, int], list[bytes], list[int]]


def opened(sadb: Sadb, packets: Sequence[bytes], first: int = 0) -> Outcome:
    """The inner packets by tunnel with their places, the drops, what was punted, and the SAs reported."""
    result = sadb.decapsulate_batch(*batch(packets))
    found = {
        group.tunnel: list(
            zip([first + origin for origin in group.origins], packets_of(group.body, group.lengths), strict=True)
        )
        for group in result.groups
    }
    drops = {str(cause): count for cause, count in result.drops.counts.items()}
    return found, drops, [bytes(one) for one in result.punted], [one.sa.tunnel for one in result.negotiated]


def compare(whole: Sadb, single: Sadb, packets: Sequence[bytes]) -> int:
    """Open packets as a batch and one at a time; return how many came out."""
    found, drops, punted, reported = opened(whole, packets)
    each: dict[int, list[tuple[int, bytes]]] = {}
    counts: Counter[str] = Counter()
    others: list[bytes] = []
    tunnels: set[int] = set()
    for index, packet in enumerate(packets):
        some, dropped, rest, used = opened(single, [packet], index)
        for tunnel, more in some.items():
            each.setdefault(tunnel, []).extend(more)
        counts.update(dropped)
        others += rest
        tunnels.update(used)
    assert found == each
    assert list(found) == sorted(found, key=lambda tunnel: found[tunnel][0])
    assert drops == dict(counts)
    assert punted == others
    assert set(reported) == tunnels
    for one, other in zip(whole.inbound.values(), single.inbound.values(), strict=True):
        assert account(one) == account(other)
    return sum(map(len, found.values()))


def account(sa: Decapsulator) -> tuple[object, ...]:
    esp_receiver = sa.receiver
    assert esp_receiver is not None
    window = esp_receiver.edge, esp_receiver._bitmap
    return sa.packets, sa.octets, sa.decapsulated, dict(sa.drops), sa.udp_source, window


def receivers(
    engine: str, uses: Sequence[Esp], *, esn: bool, selectors: tuple[Rule, ...], udp: bool
) -> tuple[list[Sadb], list[memoryview]]:
    """Two databases with the same SAs, and their states. The first two SAs are of one tunnel."""
    states = [memoryview(bytearray(octets_for(16))) for _ in range(2)]
    sadbs = [Sadb(SaStateFile(state, salt=1), engine=engine_of(engine)) for state in states]
    for sadb in sadbs:
        for serial, use in enumerate(uses):
            sadb.install_inbound(
                InboundSa(
                    max(serial, 1),
                    serial,
                    LEFT,
                    RIGHT,
                    esp=use,
                    esn=esn,
                    negotiated=esn,
                    selectors=selectors,
                    udp=udp,
                )
            )
    return sadbs, states


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often packets were opened as columns, by what they were."""
    counts: Counter[str] = Counter()
    begin, finish, together = EspReceiver.begin_columns, EspReceiver.finish_columns, Decapsulator._finish_odd

    def begun(self: EspReceiver, packets: PacketColumns) -> ReceivedColumns | None:
        received = begin(self, packets)
        form = "refused" if received is None else "even" if packets.size else "mixed"
        counts[form] += 1
        return received

    def finished(self: EspReceiver, received: ReceivedColumns, *rest: object) -> object:
        clear = finish(self, received, *rest)  # type: ignore[arg-type]
        counts["some dropped" if isinstance(clear, tuple) else "all taken"] += 1
        return clear

    def odd(self: Decapsulator, view: memoryview, *rest: object) -> object:
        counts["some odd"] += 1
        return together(self, view, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EspReceiver, "begin_columns", begun)
    monkeypatch.setattr(EspReceiver, "finish_columns", finished)
    monkeypatch.setattr(Decapsulator, "_finish_odd", odd)
    return counts


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suite", SUITES)
def test_a_batch_opens_as_its_packets_do(suite: str, engine: str, ways: Counter[str]) -> None:
    (cipher, integrity), esn = SUITES[suite]
    chance = random.Random(suite)
    total = came = 0
    for index, sizes in enumerate(SIZES.values()):
        for count in (1, 3):
            udp = (count > 1) ^ (index % 2 > 0)
            selectors = chance.choice(((), PORTS, (Rule(17, source=(INSIDE, 32)), Rule(6))))
            uses = [esp(cipher, integrity, 0x1001 + index) for index in range(count)]
            sealers = [Sealer(use, esn, udp=udp) for use in uses]
            sadbs, _ = receivers(engine, uses, esn=esn, selectors=selectors, udp=udp)
            numbers = [0] * count
            earlier: list[bytes] = []
            for odd in (0.0, 0.03, 0.3, 0.1, 0.02):
                sent: list[bytes] = []
                many = chance.choice((20, 60, 100)) * count
                for at in range(many):
                    which = chance.randrange(count) if chance.random() < 0.9 else at % count
                    numbers[which] += 1 if chance.random() < 0.98 else chance.randrange(1, 9)
                    clear = clear_packet(chance, sizes, odd)
                    octets = payload(chance, clear, max(uses[0].cipher_algorithm.block_octets, 4), odd)
                    sent.append(sealers[which].packet(numbers[which], octets, chance.choice((0, 0xB8))))
                wire = on_the_wire(chance, sent, earlier, odd)
                earlier = sent
                came += compare(sadbs[0], sadbs[1], wire)
                total += len(wire)
    assert came > total // 2
    assert set(ways) >= {"even", "mixed", "all taken", "some odd"}, ways
    assert bool(ways["refused"] and ways["some dropped"]) is (suite != "no integrity")


def test_windows_of_columns_are_stored() -> None:
    use = esp()
    (whole, single), states = receivers("cryptography", [use], esn=False, selectors=(), udp=False)
    sealer = Sealer(use, False, udp=False)
    chance = random.Random(2)
    wire = [sealer.packet(number, payload(chance, inner(100), 16, 0.0)) for number in range(1, 200) if number % 7]
    assert compare(whole, single, wire) == len(wire)
    assert bytes(states[0]) != bytes(len(states[0]))
    again = Sadb(SaStateFile(states[0], salt=1))
    again.install_inbound(InboundSa(1, 0, LEFT, RIGHT, esp=use))
    assert opened(again, wire)[0] == {}
    assert compare(whole, single, wire) == 0


def test_the_sample_of_a_drop_is_its_first_packet() -> None:
    """Also where some SAs have many packets and others few."""
    uses = [esp(spi=0x1001 + index) for index in range(3)]
    sealers = [Sealer(use, False, udp=False) for use in uses]
    (whole, _), _ = receivers("cryptography", uses, esn=False, selectors=(), udp=False)
    ordinary = inner(100) + TRAILERS[-102 % 16]
    wire = [sealers[1].packet(1, ordinary)]
    wire += [sealers[0].packet(number, ordinary) for number in range(1, 30)]
    wire += [sealers[2].packet(number, ordinary) for number in range(1, 30)]
    broken = [packet[:-1] + bytes((packet[-1] ^ 1,)) for packet in wire]
    drops: Drops = whole.decapsulate_batch(*batch(broken)).drops
    (sample,) = drops.samples.values()
    assert (sample.spi, sample.sequence, sample.tunnel) == (0x1002, 1, 1)
    assert sum(drops.counts.values()) == len(broken)
    assert opened(whole, wire)[1] == {}
