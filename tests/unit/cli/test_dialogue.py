"""Commands that ask and that show their answers as they come: questions, ping, traceroute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from chassis.cli.dialogue import Conversation, DialogueRun, Inquiry, Outcome, Pause, Question, Saying, agreed
from chassis.cli.session import Wake, Write
from tests.support.cli import CliRig


def echoes(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A controller whose echo requests come back after 1 ms; those to .9 are lost, and hops answer short ones."""
    assert command == "ping"
    assert arguments["count"] == 1
    if arguments["context"] == "none":
        raise LookupError("ping: no context 'none'")
    known: dict[str, Any] = {"source": "10.0.0.1", "address": arguments["address"], "sent": 1, "received": 0}
    known |= {"replies": [], "errors": [], "refusals": []}
    ttl = arguments.get("ttl", 64)
    if arguments["address"] == "10.0.9.9":
        return known
    if ttl < 3:
        expired = {"sequence": 1, "ms": 0.5, "address": f"10.{ttl}.0.1", "type": 11, "code": 0}
        return known | {"errors": [f"10.{ttl}.0.1: type 11 code 0 (sequence 1)"], "refusals": [expired]}
    if arguments["address"] == "10.0.8.8":
        away = {"sequence": 1, "ms": 0.5, "address": "10.3.0.1", "type": 3, "code": 1}
        return known | {"refusals": [away]}
    return known | {"received": 1, "replies": [{"sequence": 1, "ms": 1.0, "ttl": 60}]}


def session(**settings: Any) -> CliRig:
    rig = CliRig(echoes, **settings)
    rig.start()
    return rig


PINGED = """\
PING 10.0.0.2 (10.0.0.2): source 10.0.0.1, 36 data bytes,\r
timeout is 1 second\r
!!!!!\r
\r
----10.0.0.2 PING Statistics----\r
5 packets transmitted, 5 packets received, 0.0% packet loss\r
round-trip min/avg/max = 1.000/1.000/1.000 ms\r
[local]a#"""


def test_a_ping_by_argument_sends_one_request_after_another() -> None:
    rig = session()
    assert rig.type("ping 10.0.0.2\r") == f"ping 10.0.0.2\r\n{PINGED}"
    wanted = {"context": "local", "address": "10.0.0.2", "count": 1, "size": 36, "timeout": 1}
    assert [ask.arguments for ask in rig.requests] == [wanted] * 5


def test_marks_come_with_the_answers() -> None:
    rig = session()
    rig.hold = True
    rig.type("ping 10.0.0.2 3\r")
    answer = echoes("ping", rig.asked[0].arguments)
    assert rig.reply(answer).endswith("timeout is 1 second\r\n!")
    assert rig.reply(answer | {"replies": []}) == "."
    # A card that fails meanwhile has lost its request.
    assert rig.reply({}, "ping: lc 3: lc 3 is down").startswith(".\r\n\r\n----10.0.0.2 PING")


def test_the_dialogue_of_a_ping_asks_in_the_order_of_the_box() -> None:
    rig = session()
    said = rig.type("ping\r10.0.0.2\r\r\r\r\r")
    questions = (
        "Target IP address: 10.0.0.2\r\n"
        "Repeat count [5]: \r\nICMP datagram size [36]: \r\n"
        "Timeout in seconds [1]: \r\nExtended commands [n]: \r\n"
    )
    assert said == f"ping\r\n{questions}{PINGED}"
    rig.requests.clear()
    said = rig.type("ping\r10.0.9.9\r2\r100\r3\ry\r10.0.0.7\r")
    assert "Source address: 10.0.0.7\r\nPING 10.0.9.9 (10.0.9.9): source 10.0.0.1, 100 data bytes,\r\n" in said
    assert "timeout is 3 seconds\r\n..\r\n\r\n" in said
    assert "2 packets transmitted, 0 packets received, 100.0% packet loss\r\n" in said
    assert [ask.arguments["source"] for ask in rig.requests] == ["10.0.0.7"] * 2


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("\r", "an IPv4 address is needed"),
        ("10.0.0\r", "'10.0.0' is not an IPv4 address"),
        ("10.0.0.2\r0\r", "'0' is not a number from 1 to 10000"),
        ("10.0.0.2\r\rmany\r", "'many' is not a number from 0 to "),
    ],
)
def test_a_wrong_answer_ends_the_dialogue(keys: str, why: str) -> None:
    rig = session()
    said = rig.type(f"ping\r{keys}")
    assert f"% Error: {why}" in said
    assert said.endswith("[local]a#")
    assert not rig.requests


@pytest.mark.parametrize(("key", "echo"), [("\x03", "^C\r\n"), ("\x04", "\r\n"), ("\x1a", "^Z\r\n")])
def test_a_key_gives_up_a_dialogue(key: str, echo: str) -> None:
    rig = session()
    rig.type("ping\r")
    assert rig.type(key) == f"{echo}[local]a#"
    assert rig.type("exit\r") == "exit\r\n"
    assert rig.status == 0


def test_an_interrupt_gives_up_a_ping_between_two_requests() -> None:
    rig = session()
    rig.hold = True
    rig.type("ping 10.0.0.2\r")
    assert rig.type("\x03") == "^C\r\n[local]a#"
    # The answer to what was given up is nobody's.
    assert rig.reply({}) == ""


def test_a_refused_ping_says_why() -> None:
    rig = session(context="none")
    assert rig.type("ping 10.0.0.2\r") == "ping 10.0.0.2\r\n% Error: no context 'none'\r\n[none]a#"


def test_a_ping_through_a_filter_and_without_a_terminal_shows_all_at_the_end() -> None:
    assert (
        session()
        .type("ping 10.0.0.2 2 | include packets\r")
        .endswith("\r\n2 packets transmitted, 2 packets received, 0.0% packet loss\r\n[local]a#")
    )
    rig = CliRig(echoes, terminal=False)
    assert rig.run("ping 10.0.0.2").encode() == PINGED.replace("\r", "").removesuffix("[local]a#").encode()
    data = json.loads(CliRig(echoes, terminal=False).run("ping 10.0.0.2 2 | json"))
    assert [reply["sequence"] for reply in data["replies"]] == [1, 2]


def test_a_traceroute_shows_each_hop_and_ends_at_the_address() -> None:
    title = " (10.0.0.2), 30 hops max, 36 byte packets\r\n"
    assert (
        session()
        .type("traceroute 10.0.0.2\r")
        .endswith(
            f"{title} 1   10.1.0.1  0.500 ms  0.500 ms  0.500 ms\r\n"
            " 2   10.2.0.1  0.500 ms  0.500 ms  0.500 ms\r\n"
            " 3   10.0.0.2  1.000 ms  1.000 ms  1.000 ms\r\n[local]a#"
        )
    )


def test_a_traceroute_says_who_refused_and_which_hop_is_silent() -> None:
    assert " 3   10.3.0.1  0.500 ms !H  0.500 ms !H  0.500 ms !H\r\n[local]a#" in session().type(
        "traceroute 10.0.8.8\r"
    )
    said = session().type("traceroute 10.0.9.9 ttl 2\r")
    assert said.endswith(" 1  * * *\r\n 2  * * *\r\n[local]a#")


def talk(*steps: Any) -> Conversation:
    """A conversation of these steps, whose outcome is the answers."""
    answers = []
    for step in steps:
        answers.append((yield step))
    return Outcome(answers)


def test_a_question_without_echo_shows_no_key_of_its_answer() -> None:
    run = DialogueRun(talk(Question("Password: ", echo=False)), 80)
    assert run.advance(None) is None
    assert run.prompt() == b"Password: "
    typed = [run.key(octet) for octet in b"secre\x08t?\r"]
    assert b"".join(one.echo for one in typed) == b"\r\n"
    assert typed[-1].answer == "secrt?"


def test_an_empty_answer_is_the_default_and_blanks_do_not_count() -> None:
    run = DialogueRun(talk(Saying("a\nb"), Question("? ", "x"), Question("? ", "x")), 80)
    run.advance(None)
    assert run.said() == b"a\r\nb"
    run.advance("  ")
    assert run.advance(" y ") == Outcome([None, "x", "y"])
    assert run.said() == b""


@pytest.mark.parametrize(
    ("answer", "yes"), [("y", True), ("YES ", True), ("", False), ("n", False), ("ye", False)]
)
def test_only_y_and_yes_agree(answer: str, yes: bool) -> None:
    assert agreed(answer) is yes


def test_a_pause_lasts_until_its_time_and_an_interrupt_ends_it() -> None:
    rig = session()
    rig.hold = True
    rig.type("ping 10.0.0.2\r")
    run = DialogueRun(talk(Inquiry("status"), Saying("one\n"), Pause(2.0), Saying("two\n"), Pause(2.0)), 80)
    run.advance(None)
    rig.session._dialogue = run
    assert rig.session.answer(rig.asked[0].number, {}, "", 10.0) == [Write(b"one\r\n"), Wake(12.0)]
    assert rig.session.on_timer(11.9) == []
    assert rig.session.on_timer(12.0) == [Write(b"two\r\n"), Wake(14.0)]
    rig.session.receive(b"\x03", 13.0)
    assert rig.session.on_timer(14.0) == []
