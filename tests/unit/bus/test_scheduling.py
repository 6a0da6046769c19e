"""Slices of the scheduler: those who carry packets have short ones, and their forks and threads too; and who waits
for a core."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
import zmq

from chassis.bus import codec, endpoints, scheduling
from chassis.bus.environment import Environment
from chassis.bus.messages import PROTOCOL, Hello
from chassis.bus.scheduling import (
    BATCH_SLICE,
    COMPUTE_SLICE,
    PACKET_SLICE,
    Contention,
    CpuSample,
    ask_for_slice,
    cpu_wait,
    sample_threads,
)
from chassis.xcrp.shell import ControllerShell


def slice_of(task: str) -> int | None:
    """Nanoseconds; None where the kernel does not tell."""
    try:
        lines = Path(f"/proc/{task}/sched").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("se.slice")), None)


def test_a_process_has_the_slice_that_it_asked_for_and_its_threads_have_it() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        asked = ask_for_slice(PACKET_SLICE)
        found = [slice_of("self")]
        thread = threading.Thread(target=lambda: found.append(slice_of("thread-self")))
        thread.start()
        thread.join()
        os.write(
            writing,
            json.dumps((asked, found, ask_for_slice(COMPUTE_SLICE), slice_of("self"), os.nice(0))).encode(),
        )
        os._exit(0)
    os.waitpid(pid, 0)
    asked, found, again, last, nice = json.loads(os.read(reading, 1000))
    assert asked == again == (platform.machine() in ("x86_64", "aarch64"))
    assert nice == os.nice(0)
    # Where the kernel has slices of one's own and tells of them.
    release = [int(part) for part in platform.release().split(".")[:2]]
    if release >= [6, 12] and None not in found:
        assert (found, last) == ([200_000, 200_000], 4_000_000)


def test_another_machine_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert not ask_for_slice(PACKET_SLICE)


def test_a_process_that_waits_for_a_core_no_longer_interrupts_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, bool]] = []
    ran = waited = 0.0

    def ask(seconds: float, *, batch: bool = False, thread: int = 0) -> bool:
        asked.append((seconds, batch))
        return True

    monkeypatch.setattr(scheduling, "ask_for_slice", ask)
    monkeypatch.setattr(os, "pread", lambda file, size, at: b"%d %d 1" % (round(ran * 1e9), round(waited * 1e9)))
    contention, now = Contention(), 10.0
    # Shares of each tenth of a second for which it ran and waited, and whether the machine is crowded then.
    for running, share, crowded in (
        (0.2, 0.0, False),
        (0.2, 0.2, False),
        (0.02, 0.5, False),
        (0.2, 0.5, True),
        (0.2, 0.2, True),
        (0.2, 0.17, False),
        (0.2, 0.2, False),
    ):
        ran += running * Contention.INTERVAL
        waited += share * Contention.INTERVAL
        contention.look(now)
        assert contention.crowded is crowded, share
        assert contention.due == now + Contention.INTERVAL
        now += Contention.INTERVAL
    threads = len(os.listdir("/proc/self/task"))
    assert asked == [(BATCH_SLICE, True)] * threads + [(PACKET_SLICE, False)] * threads


def test_a_kernel_that_does_not_tell_has_no_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", missing)
    assert Contention().due == inf


@pytest.fixture
def circling() -> Iterator[Callable[..., int]]:
    """Forks processes that go round in a circle on one core, run only when nothing else would if `idle`."""
    core = min(os.sched_getaffinity(0))
    pids = []

    def fork(*, idle: bool = False) -> int:
        pid = os.fork()
        if pid == 0:
            os.sched_setaffinity(0, {core})
            if idle:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            while True:
                pass
        pids.append(pid)
        return pid

    yield fork
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def waits(pid: int, looks: int = 100) -> list[float]:
    """What comes of so many looks at a process, 100 ms apart."""
    found, before = [], sample_threads(pid, time.monotonic())
    for _ in range(looks):
        # Not a pause for something to happen: it is the time between looks.
        select.select([], [], [], 0.1)
        after = sample_threads(pid, time.monotonic())
        found.append(cpu_wait(before, after))
        before = after
        if len([seconds for seconds in found if seconds]) >= 3:
            break
    return found


def test_a_process_without_a_core_waits(circling: Callable[..., int]) -> None:
    circling()
    found = waits(circling(idle=True))
    assert len([seconds for seconds in found if seconds >= 0.1]) >= 3


def test_a_stopped_process_does_not_wait_and_one_that_is_gone_does_not(circling: Callable[..., int]) -> None:
    pid = circling()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    assert not any(waits(pid, 3))
    assert sample_threads(pid, 1.0).runnable == {}
    assert sample_threads(1 << 30, 1.0).runnable == {}


def test_what_counts_is_the_time_that_a_thread_had_of_a_core() -> None:
    before = CpuSample(1.0, {7: 3.0, 8: 0.5})
    assert cpu_wait(before, CpuSample(1.5, {7: 3.4, 8: 0.7})) == 0.0
    assert cpu_wait(before, CpuSample(1.5, {7: 3.4, 8: 0.51})) == 0.5
    # Threads that slept at one of the two looks had no need of a core all the while.
    assert cpu_wait(before, CpuSample(1.5, {9: 0.0})) == 0.0
    assert cpu_wait(before, CpuSample(1.5)) == 0.0


@pytest.fixture
def controller() -> Iterator[ControllerShell]:
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/tmp") as name:
        run, state = Path(name) / "r", Path(name) / "s"
        run.mkdir()
        state.mkdir()
        yield ControllerShell(Environment("lab", "a", "xcrp", 1, run, state, startup=("card ase 2\n", "a.cfg")))
    for number, handler in signals.items():
        signal.signal(number, handler)


def test_a_controller_finds_out_which_silent_card_waits(
    controller: ControllerShell, circling: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    circling()
    pids = {"asp 2/1": circling(idle=True), "asp 2/2": circling()}
    os.kill(pids["asp 2/2"], signal.SIGSTOP)
    with zmq.Context() as context:
        context.linger = 0
        sockets = {card: context.socket(zmq.DEALER) for card in pids}
        for card, socket in sockets.items():
            socket.connect(endpoints.control(controller.env.run, controller.env.node))
            socket.send(codec.encode(Hello(PROTOCOL, card, "asp", pids[card], 1, 0, 0)))
        entries, on_timer, end = controller.engine.node.cards, controller._on_timer, time.monotonic() + 20

        def until_it_knows(now: float) -> None:
            on_timer(now)
            if entries["asp 2/1"].cpu_wait or now > end:
                controller.loop.stop()

        monkeypatch.setattr(controller, "_on_timer", until_it_knows)
        controller.run()
        context.destroy()
    assert entries["asp 2/1"].cpu_wait >= 0.1
    assert entries["asp 2/2"].cpu_wait == 0
