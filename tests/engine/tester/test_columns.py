"""A sink that checks packets by columns counts as one that looks at one packet at a time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.net.checksum import checksum
from chassis.net.ethernet import ETHERTYPE_IPV4, HEADROOM, header
from chassis.net.ipv4 import decrement_ttl
from chassis.tester.engine import TesterEngine as Engine
from chassis.tester.flow import MIN_FLOW_LENGTH, PacketTemplate, parse_flow
from chassis.tester.host import port_mac
from chassis.tester.latency import LatencyHistogram
from tests.support.tester import FLOW

MAC, FROM = port_mac("t2", "1"), port_mac("t1", "1")
PORTS = {"1": {"address": "10.0.0.2/24"}}
BOOTS = 300 << 16
SIZES = (MIN_FLOW_LENGTH, 64, 65, 200, 1400)
FIRSTS = (0, 65_000, 65_533, 2**32 - 100, 2**48 + 65_500)


class Traffic:
    """Batches of two flows, most of them as they were sent, some with all that can happen to them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.flows = {
            name: {
                **FLOW,
                "size": rng.choice(SIZES),
                "destination": f"10.{number}.0.2",
                "destinations": rng.choice((1, 1, 3, 200)),
                "dscp": rng.randrange(64),
            }
            for number, name in enumerate(("one", "two"))
        }
        self.templates = [PacketTemplate(parse_flow(name, values)) for name, values in self.flows.items()]
        self.numbering = BOOTS + 1
        self.next = [rng.choice(FIRSTS) for _ in self.templates]
        self.now_ns = 10**12
        self.sent: list[list[bytes]] = [[], []]

    def run(self, flow: int, count: int) -> list[bytes]:
        """Return the next packets of a flow, sent in up to three batches."""
        rng, template, frames = self.rng, self.templates[flow], []
        while count > 0:
            part = rng.randint(1, count) if rng.random() < 0.3 else count
            self.now_ns += rng.randrange(2_000_000)
            body = template.make(MAC, FROM, self.numbering, self.next[flow], part, self.now_ns)
            frames += [bytes(body[at : at + len(body) // part]) for at in range(0, len(body), len(body) // part)]
            self.next[flow] += part
            count -= part
        if rng.random() < 0.1:
            self.next[flow] += rng.randint(1, 50)
        self.sent[flow] = (self.sent[flow] + frames)[-500:]
        return frames

    def batch(self) -> Batch:
        rng = self.rng
        flow, count = rng.randrange(2), rng.choice((1, 2, 7, 8, 9, 11, 12, 13, 64, 255, 256, 257, 300))
        frames = self.run(flow, count)
        if rng.random() < 0.2:
            frames += self.run(1 - flow, rng.randint(1, 40))
            frames += self.run(flow, rng.randint(1, 40))
        for happens in rng.sample(self.faults(), k=rng.choice((0, 0, 1, 1, 2))):
            happens(frames)
        if rng.random() < 0.05:
            self.numbering += rng.choice((1, 1, 1 << 16, -(1 << 16)))
        body, lengths = pack(frames)
        return Batch(Step.INGRESS, rng.choice((body, memoryview(bytes(body)))), lengths)

    def faults(self) -> list[Any]:
        return [
            self.corrupt,
            self.lose,
            self.duplicate,
            self.reorder,
            self.repeat,
            self.hop,
            self.hop_of_one,
            self.other_numbering,
            self.wrong_sum,
            self.other_payload,
            self.stranger,
            self.shorten,
        ]

    def some(self, frames: list[bytes]) -> int:
        return self.rng.randrange(len(frames))

    def corrupt(self, frames: list[bytes]) -> None:
        index = self.some(frames)
        frame = bytearray(frames[index])
        frame[self.rng.randrange(len(frame))] ^= self.rng.randint(1, 255)
        frames[index] = bytes(frame)

    def lose(self, frames: list[bytes]) -> None:
        for _ in range(self.rng.randint(1, 20)):
            if len(frames) > 1:
                del frames[self.some(frames)]

    def duplicate(self, frames: list[bytes]) -> None:
        for _ in range(self.rng.randint(1, 3)):
            frames.insert(self.some(frames), frames[self.some(frames)])

    def reorder(self, frames: list[bytes]) -> None:
        for _ in range(self.rng.randint(1, 3)):
            frames.insert(self.some(frames), frames.pop(self.some(frames)))

    def repeat(self, frames: list[bytes]) -> None:
        """Packets of before, in the place of new ones."""
        frames[:] = self.rng.choice([old for old in self.sent if old])[: len(frames)]

    def hop(self, frames: list[bytes]) -> None:
        for index, frame in enumerate(frames):
            body = bytearray(frame)
            if len(body) < HEADROOM + 20 or not body[HEADROOM + 8]:
                continue
            decrement_ttl(body, HEADROOM)
            body[:HEADROOM] = header(MAC, b"\x02\x00\x00\x00\x03\x01", ETHERTYPE_IPV4)
            frames[index] = bytes(body)

    def hop_of_one(self, frames: list[bytes]) -> None:
        index = self.some(frames)
        one = frames[index : index + 1]
        self.hop(one)
        frames[index : index + 1] = one

    def other_numbering(self, frames: list[bytes]) -> None:
        """Valid packets of another start or another process of the source."""
        template = self.rng.choice(self.templates)
        numbering = self.numbering + self.rng.choice((1, -1, 1 << 16, -(1 << 16)))
        made = template.make(MAC, FROM, numbering, 7, 1, self.now_ns)
        frames.insert(self.some(frames), bytes(made))

    def wrong_sum(self, frames: list[bytes]) -> None:
        index = self.some(frames)
        frame, at = bytearray(frames[index]), HEADROOM + self.rng.choice((10, 26))
        frame[at : at + 2] = self.rng.choice((b"\0\0", b"\xff\xff", b"\x12\x34"))
        frames[index] = bytes(frame)

    def other_payload(self, frames: list[bytes]) -> None:
        """Another number or time in a packet whose checksums are right."""
        index = self.some(frames)
        frame = bytearray(frames[index])
        at = HEADROOM + self.rng.randrange(44, 60)
        if len(frame) <= at:
            return
        frame[at] ^= self.rng.choice((1, 0x80))
        datagram = frame[HEADROOM + 20 :]
        datagram[6:8] = b"\0\0"
        pseudo = frame[HEADROOM + 12 : HEADROOM + 20] + b"\0\x11" + len(datagram).to_bytes(2, "big")
        frame[HEADROOM + 26 : HEADROOM + 28] = checksum(bytes(pseudo + datagram)).to_bytes(2, "big")
        frames[index] = bytes(frame)

    def stranger(self, frames: list[bytes]) -> None:
        """A frame of no flow."""
        other = self.rng.choice((bytes(14), bytes(60), MAC + FROM + b"\x08\x00" + bytes(80), bytes(1400)))
        frames.insert(self.some(frames), other)

    def shorten(self, frames: list[bytes]) -> None:
        index = self.some(frames)
        frames[index] = frames[index][: max(len(frames[index]) - self.rng.randint(1, 9), HEADROOM)]


def told(engine: Engine) -> dict[str, Any]:
    """Return all that a tester counted."""
    outputs = engine.on_operator_command(1, "flows", {}, 2000.0)
    return dict(outputs[0].result)  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(12))
def test_columns_count_what_single_packets_count(seed: int) -> None:
    traffic = Traffic(seed)
    columns, single = (Engine("t2", ports=PORTS, flows=traffic.flows) for _ in range(2))
    for _ in range(60):
        batch = traffic.batch()
        now = (traffic.now_ns + traffic.rng.randrange(5_000_000)) / 1e9
        octets = bytes(batch.body)
        columns.receive_frames("1", batch, now)
        assert bytes(batch.body) == octets
        single._receive_one_by_one("1", batch, now)
        assert told(columns) == told(single)


@pytest.mark.parametrize("destinations", [1, 2, 200, 4096])
@pytest.mark.parametrize("first", [*FIRSTS, 2**62])
def test_columns_make_what_a_loop_makes(first: int, destinations: int) -> None:
    rng = random.Random(first + destinations)
    for size in SIZES:
        flow = parse_flow("forward", {**FLOW, "size": size, "destinations": destinations})
        template = PacketTemplate(flow)
        for count in (8, 64, 256):
            numbering, now_ns, at = rng.randrange(1 << 32), rng.randrange(1 << 62), first + rng.randrange(300)
            made = template.make(MAC, FROM, numbering, at, count, now_ns)
            alone = [template.make(MAC, FROM, numbering, at + index, 1, now_ns) for index in range(count)]
            assert bytes(made) == b"".join(alone)


@pytest.mark.parametrize("size", [64, 1400])
@pytest.mark.parametrize("where", [0, 1, 100, 254, 255])
def test_every_octet_of_every_packet_is_checked(size: int, where: int) -> None:
    flows = {"forward": {**FLOW, "size": size}}
    template = PacketTemplate(parse_flow("forward", flows["forward"]))
    engine = Engine("t2", ports=PORTS, flows=flows)
    sink = engine._ends["forward"].sink
    assert sink is not None
    made = template.make(MAC, FROM, BOOTS, 0, 256, 10**12)
    frame = len(made) // 256
    # The source MAC address is the last hop's, and the same in a batch.
    for octet in range(frame):
        bad = bytearray(made)
        bad[where * frame + octet] ^= 0x40
        batch = Batch(Step.INGRESS, bad, template.lengths(256))
        before = sink.tracker.received
        assert not sink.receive_batch(batch, 10**12)
        assert sink.tracker.received == before
    assert sink.receive_batch(Batch(Step.INGRESS, made, template.lengths(256)), 10**12)


def test_latencies_of_many_times_are_counted_as_each_alone() -> None:
    rng = random.Random(5)
    values = [0, 1, 15, 16, 31, 32, 33, -7, *[rng.randrange(1 << rng.randrange(1, 50)) for _ in range(200)]]
    for extra in ([], [1 << 55]):
        each, alone = LatencyHistogram(), LatencyHistogram()
        each.add_each(np.array(values + extra))
        for value in values + extra:
            alone.add(value, 1)
        assert each.plain() == alone.plain()
        assert each.statistics() == alone.statistics()
