"""Traffic classes: what a batch as columns gives is what each of its packets gives alone."""

from __future__ import annotations

import random

import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.priority import classes_of_batch, classes_of_frames
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4

PORTS = (500, 4500, 40_000, 1)


def _frame(chance: random.Random, size: int | None) -> bytes:
    """A frame of IKE, ESP in UDP, ARP, or anything."""
    kind = chance.choice((ETHERTYPE_IPV4, ETHERTYPE_IPV4, ETHERTYPE_IPV4, ETHERTYPE_ARP, 0x86DD))
    words = chance.choice((5, 5, 5, 6, 15))
    octets = bytearray(chance.randbytes(14 + words * 4 + 8 + 4))
    octets[12:14] = kind.to_bytes(2, "big")
    octets[14] = 0x40 | words
    octets[23] = chance.choice((17, 17, 50, 6))
    udp = 14 + words * 4
    for at in (udp, udp + 2):
        octets[at : at + 2] = chance.choice(PORTS).to_bytes(2, "big")
    if chance.random() < 0.5:
        octets[udp + 8 : udp + 12] = bytes(4)
    if size is None:
        return bytes(octets) if chance.random() < 0.9 else bytes(octets[: chance.randrange(16, 42)])
    return bytes(octets[:size]).ljust(size, b"\0")


@pytest.mark.parametrize("size", [46, 86, None])
@pytest.mark.parametrize("step", [Step.INGRESS, Step.DECAPSULATE, Step.ENCAPSULATE])
def test_a_batch_has_the_classes_of_its_packets(size: int | None, step: Step) -> None:
    chance = random.Random(3)
    raised = 0
    for _ in range(30):
        frames = [_frame(chance, size) for _ in range(chance.choice((1, 5, 40, 200)))]
        for classes in (classes_of_frames, classes_of_batch):
            whole = classes(Batch(step, *pack(frames), ingress="3/1"))
            each = b"".join([classes(Batch(step, *pack([frame]), ingress="3/1")) for frame in frames])
            assert whole == each
            raised += each.count(0)
    assert raised


def test_what_the_router_made_is_of_the_highest_class() -> None:
    assert classes_of_batch(Batch(Step.EGRESS, *pack([bytes(60)] * 20))) == bytes(20)
