"""The time of day by which certificates are judged: as it is when they are shown, however it came to be so.

A machine that was suspended, or that NTP set right, has another time of day than its monotonic clock says.
"""

from __future__ import annotations

import mmap
import select
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.ase import ike_process
from chassis.ase.ike_messages import Configure, FromIke, IkeLog, IkePacket, IkeRequest, IkeTunnelState, ToIke
from chassis.ase.ike_process import Pipe
from chassis.bus.environment import Environment
from chassis.bus.records import CertificateRecord
from tests.support.ike import pki
from tests.support.ike.pair import A, B, Ends, other, proposal

TODAY = pki.NOW
DAY = 86_400.0
LONGEST = 20.0
"""Seconds in which something has to be so."""

pytestmark = pytest.mark.multiprocess


class Clock:
    """A time of day that processes forked from here on share."""

    def __init__(self, at: float) -> None:
        self._octets = mmap.mmap(-1, 8)
        self.set(at)

    def set(self, at: float) -> None:
        self._octets[:] = struct.pack("d", at)

    def __call__(self) -> float:
        (at,) = struct.unpack("d", self._octets[:])
        return float(at)


class Processes:
    """The IKE processes of two ASPs, and the wire between them."""

    def __init__(self, folder: Path, *ends: Ends) -> None:
        self.pipes: dict[int, Pipe[ToIke, FromIke]] = {}
        self.up: dict[int, bool] = {}
        self.said: list[str] = []
        for one in ends:
            env = Environment("lab", "node", f"asp {one.local & 15}/1", 1, folder, folder)
            self.pipes[one.local] = ike_process.start(env)
            settings = {"ike-retry-delay": 0.1}
            self.pipes[one.local].send(Configure(one.records(), (), True, settings))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONGEST
        while not condition():
            assert time.monotonic() < deadline, self.said
            for local, pipe in self.pipes.items():
                if select.select([pipe.socket], [], [], 0.005)[0]:
                    for message in pipe.receive():
                        self._took(local, message)

    def _took(self, local: int, message: FromIke) -> None:
        if isinstance(message, IkePacket):
            there = IkePacket(
                message.context, message.remote, message.remote_port, local, message.local_port, message.data
            )
            self.pipes[message.remote].send(there)
        elif isinstance(message, IkeTunnelState):
            self.up[local] = message.up
        elif isinstance(message, IkeLog):
            self.said.append(message.record.text)

    def close(self) -> None:
        for pipe in self.pipes.values():
            pipe.socket.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock(TODAY)
    monkeypatch.setattr(time, "time", clock)
    yield clock
    monkeypatch.undo()


def store(name: str) -> tuple[CertificateRecord, ...]:
    """The PKI store of an end whose certificate is good for a day from today."""
    root = pki.root()
    leaf = root.issue(name, dns=[name], begins=TODAY - DAY, ends=TODAY + DAY)
    return tuple(pki.records(trusted=[root.certificate], own=[("me", leaf, pki.key(name))], context=7))


@pytest.mark.parametrize("version", [1, 2])
def test_certificates_are_judged_by_the_time_of_day_when_they_are_shown(
    tmp_path: Path, clock: Clock, version: int
) -> None:
    a = Ends(
        version=version,
        connection="initiator-only",
        authentication="rsa-signature",
        proposals=(proposal(version, authentication="rsa-signature"),),
        identity_local="a.example",
        identity_remote="b.example",
        certificates=store("a.example"),
    )
    b = replace(other(a), connection="responder-only", certificates=store("b.example"))
    two = Processes(tmp_path, a, b)
    try:
        both = {A: True, B: True}
        two.until(lambda: two.up == both)
        for at, why in ((TODAY + 2 * DAY, "expired on"), (TODAY - 2 * DAY, "is not valid before")):
            clock.set(at)
            two.said.clear()
            two.pipes[A].send(IkeRequest(1, "clear", {}))
            two.until(lambda: any(why in text for text in two.said))  # noqa: B023
            assert not two.up[A]
            clock.set(TODAY)
            two.until(lambda: two.up == both)
    finally:
        two.close()
