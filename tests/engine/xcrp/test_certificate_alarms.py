"""Certificates live on: alarms before and when they expire, once each, by the time of day, whatever is killed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from chassis.xcrp.flash import FlashFile
from tests.support.ike import pki
from tests.support.xcrp import Cut, Node
from tests.support.xcrp_ike import PORTS, STATIC

SIGNS = STATIC.replace("  dh-group 2\nipsec", "  dh-group 2\n  authentication rsa-signature\nipsec", 1)
DAY = 86_400.0
TODAY = 1_700_001_000.0
"""The time of day at which a node starts (s since 1970)."""

MISSING = {"noValidSelfCertificate", "noValidTrustedCertificate"}


def store(*, begins: float = -300 * DAY, ends: float = 300 * DAY, context: str = "outer") -> tuple[FlashFile, ...]:
    """A whole store, whose own certificate is valid for these seconds before and after today."""
    root = pki.build(
        "root", pki.key("root").public_key(), pki.common_name("root"), pki.key("root"), ca=True,
        begins=TODAY - 3000 * DAY, ends=TODAY + 3000 * DAY,
    )  # fmt: skip
    own = pki.Authority(root, pki.key("root")).issue(
        "a.example", dns=["a.example"], begins=TODAY + begins, ends=TODAY + ends
    )
    files = (
        ("keys/a", pki.key_pem(pki.key("a.example"))),
        ("self/a", pki.pem(own)),
        ("trusted/ca", pki.pem(root)),
    )
    return tuple(FlashFile(f"pki/{context}/{name}.pem", data) for name, data in files)


def booted(text: str = SIGNS, files: tuple[FlashFile, ...] = ()) -> Node:
    node = Node(text, flash=files)
    node.boot_all(*PORTS)
    node.run(2)
    return node


def alarms(node: Node) -> dict[str, str]:
    """Severity by name, of the alarms of certificates."""
    rows = node.ask("alarms")["alarms"]
    return {row["alarm"]: row["severity"] for row in rows if "ertificate" in row["alarm"]}


def told(node: Node) -> list[str]:
    """What the log said of alarms of certificates, in order: the name, and `cleared` or the severity."""
    records: list[Any] = node.ask("log")["records"]
    values = [record["values"] for record in records if record["facility"] == "alarm"]
    return [f"{one['alarm']} {one['state']}" for one in values if "ertificate" in one["alarm"]]


def test_a_certificate_warns_and_then_expires_once_each() -> None:
    node = booted(files=store(ends=40 * DAY))
    assert alarms(node) == {}
    node.now += 9 * DAY
    node.run(2)
    assert alarms(node) == {}
    node.now += 2 * DAY
    node.run(2)
    assert alarms(node) == {"certificateNearExpiry": "warning"}
    node.now += 30 * DAY
    node.run(2)
    assert alarms(node) == {"certificateExpired": "minor", "noValidSelfCertificate": "major"}
    node.run(20)
    assert told(node) == [
        "certificateNearExpiry warning", "noValidSelfCertificate major", "certificateExpired minor",
        "certificateNearExpiry cleared",
    ]  # fmt: skip
    said = [row["text"] for row in node.ask("alarms")["alarms"] if row["alarm"] == "certificateExpired"]
    assert said == ["self certificate CN=a.example expired on 2023-12-24 22:30:00 UTC"]


def test_the_timer_stands_at_the_next_turn_of_a_certificate() -> None:
    node = booted(files=store(ends=31 * DAY))
    assert node.controller is not None
    watch = node.controller.state.alarms
    assert watch.next_timer() + node.wall_offset == TODAY + DAY


def test_a_certificate_of_tomorrow_and_one_that_lives_shortly() -> None:
    node = booted(files=store(begins=DAY, ends=4 * DAY))
    assert alarms(node) == {"certificateNotYetValid": "minor", "noValidSelfCertificate": "major"}
    node.now += 2 * DAY
    node.run(2)
    assert alarms(node) == {}
    node.now += 1.5 * DAY
    node.run(2)
    assert alarms(node) == {"certificateNearExpiry": "warning"}


def test_a_context_that_signs_misses_its_certificates_and_another_does_not() -> None:
    assert alarms(booted()).keys() == MISSING
    assert alarms(booted(STATIC)) == {}
    assert alarms(booted(files=store(context="inner"))).keys() == MISSING
    node = booted(files=store()[:2])
    assert alarms(node) == {"noValidTrustedCertificate": "major"}
    assert alarms(booted(files=store()[1:])) == {"noValidSelfCertificate": "major"}
    node.ask("apply", text=STATIC)
    node.run(2)
    assert alarms(node) == {}
    assert told(node) == ["noValidTrustedCertificate major", "noValidTrustedCertificate cleared"]


def test_no_controller_tells_again_what_one_before_it_told() -> None:
    node = booted(files=store(ends=DAY))
    assert told(node) == ["certificateNearExpiry warning"]
    for _ in range(3):
        node.kill_controller()
        node.start()
        node.run(4)
        assert told(node) == ["certificateNearExpiry warning"]
        assert alarms(node) == {"certificateNearExpiry": "warning"}
    node.kill_controller()
    node.now += 2 * DAY
    node.start()
    node.run(4)
    assert told(node) == [
        "certificateNearExpiry warning", "noValidSelfCertificate major", "certificateExpired minor",
        "certificateNearExpiry cleared",
    ]  # fmt: skip


def test_two_hundred_kills_lose_no_alarm_and_tell_none_twice() -> None:
    rng = Random(21)
    stores = [store(), store(ends=5 * DAY), store(ends=-DAY), store()[:2], store()[1:], store(begins=2 * DAY), ()]
    node = booted(files=stores[0])
    kills = 0
    while kills < 200:
        assert node.controller is not None
        try:
            node.budget = rng.choice((3, 10, 60, 1 << 20))
            node.flash = rng.choice(stores)
            node.perform(node.controller.on_flash_changed(node.flash, node.now))
            node.perform(node.controller.on_operator_command(1, "apply", {"text": SIGNS}, node.now))
            node.run(rng.choice((0.01, 0.3, 0.9, 1.05, 1.3, 3.0)))
        except Cut:
            pass
        node.budget = 1 << 30
        node.kill_controller()
        node.start()
        kills += 1
        if rng.random() < 0.5:
            node.run(rng.choice((0.5, 2.5, 4.0)))
    node.run(6.0)
    standing: dict[str, str] = {}
    for line in told(node):
        name, state = line.split()
        assert (name in standing) == (state == "cleared"), told(node)
        if state == "cleared":
            del standing[name]
        else:
            standing[name] = state
    assert standing == alarms(node)
    assert len(told(node)) > 60


def test_a_clock_that_is_set_counts() -> None:
    node = booted(files=store())
    assert node.controller is not None
    node.controller.set_clock(node.wall_offset + 400 * DAY)
    node.run(2)
    assert "certificateExpired" in alarms(node)
    node.controller.set_clock(node.wall_offset)
    node.run(2)
    assert alarms(node) == {}
    assert told(node)[2:] == ["noValidSelfCertificate cleared", "certificateExpired cleared"]


@pytest.mark.parametrize("data", [b"", b"[[1]]", b"\xff", b"3", b"[1, [2]]"])
def test_a_file_of_alarms_that_cannot_be_read_has_none(data: bytes) -> None:
    node = Node(SIGNS, flash=store(ends=DAY), state={"alarms.json": data})
    node.boot_all(*PORTS)
    node.run(4)
    assert told(node) == ["certificateNearExpiry warning"]


def test_a_full_disk_only_puts_off_the_file_of_alarms() -> None:
    node = booted(files=store(ends=31 * DAY))
    node.full = True
    node.now += 2 * DAY
    node.run(2)
    assert told(node) == ["certificateNearExpiry warning"]
    node.full = False
    node.run(20)
    assert b"certificateNearExpiry" in node.state["alarms.json"]
    assert told(node) == ["certificateNearExpiry warning"]
