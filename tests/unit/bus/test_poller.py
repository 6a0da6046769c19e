"""The poller loses no wake-up: what waits is told, whoever took notice of it before."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from chassis.bus.engine import STALL_TIMEOUT
from chassis.bus.loop import Loop
from chassis.bus.poller import Poller

DEADLINE_MS = 20_000
MESSAGES = 3000

Socket = zmq.Socket[bytes]


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    context: zmq.Context[Socket] = zmq.Context()
    yield context
    context.destroy(linger=0)


def pair(context: zmq.Context[Socket], sending: int, receiving: int) -> tuple[Socket, Socket]:
    """Return two connected sockets; a message of the first one has arrived at the second, and was read."""
    sender, receiver = context.socket(sending), context.socket(receiving)
    receiver.bind("tcp://127.0.0.1:*")
    sender.connect(receiver.getsockopt_string(zmq.LAST_ENDPOINT))
    sender.send(b"first")
    assert receiver.poll(DEADLINE_MS)
    receiver.recv_multipart()
    return sender, receiver


def wait_until_readable(socket: Socket) -> None:
    """Wait until there is something for the socket, without a call of it."""
    readable = select.poll()
    readable.register(socket.getsockopt(zmq.FD), select.POLLIN)
    assert readable.poll(DEADLINE_MS)


def told(poller: Poller) -> list[Any]:
    """Return what is ready, after a while; a descriptor of a socket may be readable for other reasons."""
    end = time.monotonic() + DEADLINE_MS / 1000
    while not (ready := poller.poll(DEADLINE_MS)):
        assert time.monotonic() < end, "a wake-up was lost"
    return ready


def test_a_socket_is_ready_until_it_was_read_empty(context: zmq.Context[Socket]) -> None:
    push, pull = pair(context, zmq.PUSH, zmq.PULL)
    poller = Poller()
    poller.register(pull)
    assert poller.poll(0) == []
    push.send_multipart([b"a"])
    push.send_multipart([b"b"])
    while pull.getsockopt(zmq.EVENTS) & zmq.POLLIN == 0:
        wait_until_readable(pull)
    poller.ask_all()
    assert poller.poll(0) == [pull]
    assert pull.recv() == b"a"
    assert told(poller) == [pull]
    assert pull.recv() == b"b"
    assert poller.poll(0) == []


def test_what_a_send_took_notice_of_is_told(context: zmq.Context[Socket]) -> None:
    dealer, router = pair(context, zmq.DEALER, zmq.ROUTER)
    dealer.send(b"name")
    assert router.poll(DEADLINE_MS)
    name, _ = router.recv_multipart()
    poller = Poller()
    poller.register(router)
    assert poller.poll(0) == []
    for _ in range(100):
        dealer.send(b"up")
        wait_until_readable(router)
        for _ in range(3):
            router.send_multipart([name, b"down"])
        assert told(poller) == [router]
        assert router.recv_multipart()[1] == b"up"
        assert poller.poll(0) == []


def test_what_another_one_took_notice_of_is_told_after_it_said_so(context: zmq.Context[Socket]) -> None:
    push, pull = pair(context, zmq.PUSH, zmq.PULL)
    poller = Poller()
    poller.register(pull)
    assert poller.poll(0) == []
    push.send(b"a")
    assert pull.poll(DEADLINE_MS)
    poller.ask_all()
    assert told(poller) == [pull]


def test_no_message_is_left_while_others_send_at_any_moment(context: zmq.Context[Socket]) -> None:
    receivers = [context.socket(zmq.PULL) for _ in range(3)]
    poller = Poller()
    endpoints = []
    for receiver in receivers:
        receiver.bind("tcp://127.0.0.1:*")
        endpoints.append(receiver.getsockopt_string(zmq.LAST_ENDPOINT))
        poller.register(receiver)

    def send(endpoint: str) -> None:
        with context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.LINGER, -1)
            push.connect(endpoint)
            for number in range(MESSAGES):
                push.send(b"%d" % number)
                if number % 7 == 0:
                    time.sleep(0)

    senders = [threading.Thread(target=send, args=(endpoint,)) for endpoint in endpoints]
    for sender in senders:
        sender.start()
    counts = dict.fromkeys(receivers, 0)
    try:
        while sum(counts.values()) < 3 * MESSAGES:
            for socket in told(poller):
                assert socket.recv(zmq.DONTWAIT) == b"%d" % counts[socket]
                counts[socket] += 1
    finally:
        for sender in senders:
            sender.join()
    assert poller.poll(0) == []


def test_descriptors_are_told_with_the_events_that_are_waited_for() -> None:
    reading, writing = os.pipe()
    poller = Poller()
    try:
        poller.register(reading)
        poller.register(writing, zmq.POLLOUT)
        assert poller.poll(0) == [writing]
        os.write(writing, b"x")
        assert sorted(poller.poll(0)) == sorted([reading, writing])
        poller.unregister(writing)
        assert poller.poll(0) == [reading]
        poller.unregister(reading)
        assert poller.poll(0) == []
        with pytest.raises(KeyError):
            poller.unregister(reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_what_is_left_by_who_read_after_a_stall_is_read(context: zmq.Context[Socket]) -> None:
    push, pull = pair(context, zmq.PUSH, zmq.PULL)
    loop = Loop(longest_wait=DEADLINE_MS / 1000)
    got: list[bytes] = []

    def on_stall(seconds: float, now: float) -> None:
        if not got:
            push.send(b"a")
            push.send(b"b")
            assert pull.poll(DEADLINE_MS)
            got.append(pull.recv())

    def on_timer(now: float) -> None:
        if got:
            loop.stop()
        end = time.monotonic() + 2 * STALL_TIMEOUT
        while time.monotonic() < end:
            pass

    def read(now: float) -> None:
        got.append(pull.recv(zmq.DONTWAIT))
        loop.stop()

    loop.add(pull, read)
    loop.on_stall = on_stall
    began = time.monotonic()
    loop.run(lambda: began if not got else began + DEADLINE_MS / 1000, on_timer)
    assert got == [b"a", b"b"]
