"""Random schedules of questions, replies and commits: each question has one answer, and nothing is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import inf

import pytest

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import AaaAction, Authorized, Rejected, SendDatagram, Unreachable
from chassis.aaa.questions import QuestionLimits
from chassis.aaa.settings import AaaConfig
from tests.support.radius import BOOKS, WALL, A, B, C, MemoryServer, RadiusRig, aaa, key_of, settings

USERS = {f"{number}.example.com": {"Security-Service": f"ike pre-shared-key k{number}"} for number in range(6)}
LIMITS = QuestionLimits(peer=6, local=12, total=15, identity=2, shared=2, remembered=3)


class Schedule:
    """A rig whose network loses, delays, repeats and reorders replies, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.servers = {key_of(one): MemoryServer(one, USERS) for one in (A, B, C)}
        self.late: list[tuple[SendDatagram, bytes]] = []
        self.cancelled: set[int] = set()
        self.asked = 0
        self.rig = RadiusRig(self.config(), limits=LIMITS)
        self.rig.take = self.take  # type: ignore[method-assign]

    def config(self) -> AaaConfig:
        vpn = [one for one in (A, B) if self.chance.random() < 0.8]
        self.chance.shuffle(vpn)
        return aaa(
            settings(
                *vpn,
                timeout=2.0,
                retries=self.chance.randrange(3),
                dead_time=self.chance.choice([0, 5, 60]),
                outstanding=self.chance.choice([1, 2, 256]),
                algorithm=self.chance.choice(["first", "round-robin"]),
                source_port=self.chance.choice([None, None, 40000]),
                global_fallback=self.chance.random() < 0.5,
            ),
            local=settings(*([C] if self.chance.random() < 0.8 else []), timeout=1.0, retries=1),
        )

    def take(self, actions: Iterable[AaaAction]) -> None:
        for action in actions:
            if not isinstance(action, SendDatagram):
                self.rig.done.append(action)
                continue
            self.rig.sent.append((self.rig.now, action))
            reply = self.servers[action.destination, action.destination_port].reply_to(action.payload)
            for _ in range(self.chance.choice([0, 1, 1, 1, 2])):
                if reply is not None:
                    self.late.append((action, reply))

    def step(self) -> None:
        act = self.chance.choice(["ask"] * 6 + ["deliver"] * 6 + ["wait", "flip", "cancel", "commit", "noise"])
        rig, chance = self.rig, self.chance
        if act == "ask":
            number = chance.randrange(8)
            rig.ask(
                self.asked, f"{number}.example.com", chance.choice(["vpn", "vpn", "local", "none"]),
                peer=f"192.0.2.{chance.randrange(3)}", exchange=chance.randrange(4),
            )  # fmt: skip
            self.asked += 1
        elif act == "deliver" and self.late:
            sent, reply = self.late.pop(chance.randrange(len(self.late)))
            rig.receive(sent, reply)
        elif act == "noise" and self.late:
            sent, reply = chance.choice(self.late)
            rig.receive(sent, reply[:-1] + bytes((reply[-1] ^ 1,)))
        elif act == "wait":
            rig.run_until(rig.now + chance.choice([0.5, 2, 7]))
        elif act == "flip":
            server = chance.choice(list(self.servers.values()))
            server.alive = not server.alive
        elif act == "cancel" and self.asked:
            token = chance.randrange(self.asked)
            if token not in {getattr(one, "token", None) for one in rig.done}:
                self.cancelled.add(token)
            self.take(rig.client.cancel(token, rig.now))
        elif act == "commit":
            rig.configure(self.config())


@pytest.mark.parametrize("seed", range(60))
def test_each_question_has_one_answer_and_nothing_is_left(seed: int) -> None:
    schedule = Schedule(seed)
    for _ in range(150):
        schedule.step()
        for status in schedule.rig.client.status():
            assert 0 <= status.outstanding <= 256
    while schedule.late or schedule.rig.client.next_timer() < inf:
        while schedule.late:
            schedule.rig.receive(*schedule.late.pop())
        schedule.rig.run_until(max(schedule.rig.now, min(schedule.rig.client.next_timer(), schedule.rig.now + 50)))
    answers = [one for one in schedule.rig.done if isinstance(one, Authorized | Rejected | Unreachable)]
    counted = Counter(one.token for one in answers)
    assert set(counted.values()) <= {1}
    assert counted.keys() == set(range(schedule.asked)) - schedule.cancelled
    for one in answers:
        if isinstance(one, Authorized):
            assert one.answer.key is not None
    assert [(one.outstanding, one.waiting) for one in schedule.rig.client.status()] == [
        (0, 0) for _ in schedule.rig.client.status()
    ]
    assert schedule.rig.client.open_questions == 0


def test_a_changed_source_port_takes_what_is_under_way_along() -> None:
    rig = RadiusRig(aaa(settings(A)), (MemoryServer(A, USERS, alive=False),))
    rig.ask(1, "1.example.com")
    rig.servers[0].alive = True
    rig.configure(aaa(settings(A, source_port=40000)))
    assert isinstance(rig.done[-1], Authorized)
    assert [one.source_port for _, one in rig.sent] == [1812, 40000]
    assert rig.client.endpoints() == {("vpn", "10.0.0.1", 1812, 40000)}


def test_accounting_falls_back_to_context_local_too() -> None:
    books = MemoryServer(BOOKS)
    vpn = settings(A, accounting=True, global_fallback=True)
    rig = RadiusRig(aaa(vpn, local=replace(settings(), accounting_servers=(BOOKS,))), (books,))
    rig.account(AccountingRecord("r", "s", "start", "vpn", "gw.example.com", WALL))
    assert rig.sent[0][1].context == "local"
    assert len(books.requests) == 1


def test_a_schedule_is_the_same_each_time() -> None:
    """The simulator repeats runs from their seeds."""
    runs = []
    for _ in range(2):
        schedule = Schedule(7)
        for _ in range(150):
            schedule.step()
        runs.append([(at, one.destination, one.payload) for at, one in schedule.rig.sent] + schedule.rig.done)
    assert runs[0] == runs[1]
