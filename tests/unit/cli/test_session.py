"""A session, keystroke by keystroke, with a controller that is a function."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from chassis.cli.pager import MORE
from chassis.cli.session import MAX_QUEUED_OCTETS
from tests.support.cli import CliRig


def records(count: int) -> dict[str, Any]:
    row = {"severity": "info", "facility": "ike", "id": "", "context_id": 0, "circuit": "", "wall": 1.0}
    return {"records": [{**row, "time": 1.0, "text": f"line {number}"} for number in range(count)]}


def controller(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if command == "log":
        return records(30)
    if command == "routes":
        if arguments["context"] not in ("local", "lan"):
            raise LookupError(f"routes: no context {arguments['context']!r}; there are: local, lan")
        return {"routes": [], "down": []}
    raise LookupError(f"{command}: not now")


def session(**settings: Any) -> CliRig:
    rig = CliRig(controller, **settings)
    assert rig.start() == ("[local]a#" if settings.get("privilege", 15) >= 10 else "[local]a>")
    return rig


def test_what_is_typed_is_echoed_and_run() -> None:
    rig = session()
    assert [rig.type(key) for key in "exit"] == ["e", "x", "i", "t"]
    assert rig.type("\r") == "\r\n"
    assert rig.status == 0
    assert rig.type("more\r") == ""


def test_an_empty_line_and_a_remark_bring_the_prompt_back() -> None:
    rig = session()
    assert rig.type("\r") == "\r\n[local]a#"
    assert rig.type("! a remark\n") == "! a remark\r\n[local]a#"


def test_the_settings_of_the_terminal_are_silent() -> None:
    rig = session()
    assert rig.type("terminal width 512\n") == "terminal width 512\r\n[local]a#"
    assert rig.type("terminal length 0\n") == "terminal length 0\r\n[local]a#"
    assert MORE not in rig.type("show log\n")


def test_a_wrong_word_has_a_caret_below_it() -> None:
    rig = session()
    said = rig.type("show foo\r")
    assert said == f"show foo\r\n{' ' * 14}^\r\n% Invalid input at '^' marker\r\n[local]a#"


def test_help_at_any_place_leaves_the_line_as_it_is() -> None:
    rig = session()
    said = rig.type("show ver\x02\x02\x02?")
    assert said.startswith("show ver\b\b\b?\r\n  administrators ")
    assert said.endswith("\r\n[local]a#show ver\b\b\b")
    assert rig.type("\x05\r").endswith("[local]a#")


def test_tab_completes_and_rings_where_it_can_not() -> None:
    rig = session()
    assert rig.type("sh\tver\t") == "show version "
    assert rig.type("\t") == "\a"


def test_a_line_comes_back_from_the_history() -> None:
    rig = session()
    rig.type("terminal length 0\r")
    assert rig.type("\x10") == "\x1b[Jterminal length 0"
    assert rig.type("\r") == "\r\n[local]a#"


def test_long_answers_come_page_by_page() -> None:
    rig = session(length=10)
    first = rig.type("show log\r")
    assert first.endswith(f"line 8\r\n{MORE}")
    assert rig.type("x") == ""
    assert rig.type("\r").endswith(f"line 9\r\n{MORE}")
    assert rig.type(" ").endswith(f"line 18\r\n{MORE}")
    assert rig.type("q").endswith("\r[local]a#")
    # The rest of what was typed at once is for the next prompt.
    assert rig.type("show log\rqexit\r").endswith("[local]a#exit\r\n")
    assert rig.status == 0


def test_a_resize_counts_from_the_next_page_on() -> None:
    rig = session(length=10)
    rig.session.resize(80, 5)
    assert rig.type("show log\r").endswith(f"line 3\r\n{MORE}")
    rig.type("q")
    rig.type("terminal length 0\r")
    rig.session.resize(80, 5)
    assert MORE not in rig.type("show log\r")


def test_keys_wait_for_an_answer() -> None:
    rig = session()
    rig.hold = True
    assert rig.type("show log\rterminal length 0\r") == "show log\r\n"
    said = rig.reply(records(1))
    assert said == "Jan 01 00:00:01: %IKE-6-INFO: line 0\r\n[local]a#terminal length 0\r\n[local]a#"


def test_an_interrupt_gives_up_waiting() -> None:
    rig = session()
    rig.hold = True
    rig.type("show log\rlost")
    assert rig.type("\x03kept") == "^C\r\n[local]a#kept"
    # The late answer is nobody's.
    assert rig.reply(records(5)) == ""
    assert rig.type("\x03") == "^C\r\n[local]a#"


def test_a_flood_of_keys_is_bounded_and_can_be_interrupted() -> None:
    rig = session()
    rig.hold = True
    rig.type("show log\r")
    assert rig.type("x" * MAX_QUEUED_OCTETS) == ""
    assert rig.type("x") == "\a"
    assert rig.type("\x03") == "^C\r\n[local]a#"


def test_a_refusal_of_the_controller_is_an_error_and_the_session_goes_on() -> None:
    rig = session()
    assert rig.type("ping 10.0.0.1\r").endswith("\r\n% Error: not now\r\n[local]a#")
    assert rig.type("show tunnel\r").endswith("\r\n% Error: not now\r\n[local]a#")


def test_an_answer_that_a_view_can_not_show_ends_nothing() -> None:
    rig = session()
    rig.hold = True
    rig.type("show log\r")
    assert "% Error: internal error: KeyError" in rig.reply({"records": [{}]})
    assert rig.type("\r") == "\r\n[local]a#"


def test_the_context_is_in_the_prompt_and_in_requests() -> None:
    rig = session()
    assert rig.type("context lan\r") == "context lan\r\n[lan]a#"
    rig.type("show ip route\r")
    assert rig.requests[-1].arguments == {"context": "lan"}
    assert rig.type("context none\r").endswith("% Error: no context 'none'; there are: local, lan\r\n[lan]a#")


def test_privileges_change_the_prompt_and_what_is_known() -> None:
    rig = session()
    assert rig.type("disable\r").endswith("[local]a>")
    assert "% Invalid input" in rig.type("context lan\r")
    assert rig.type("enable 15\r").endswith("\r\n[local]a#")
    assert rig.type("enable 5\r").endswith("\r\n[local]a>")
    assert rig.type("enable\r").endswith("\r\n[local]a#")
    assert rig.type("context lan\r").endswith("[lan]a#")


def test_a_higher_privilege_asks_for_its_password_and_does_not_show_it() -> None:
    rig = session(privilege=6)
    for line in ("enable", "enable 15", "enable 7"):
        assert rig.type(f"{line}\r") == f"{line}\r\nPassword: "
        assert rig.type("wrong?\r") == "\r\n% Error: wrong password\r\n[local]a>"
    assert rig.checked[-1] == (7, "wrong?")
    assert rig.type("enable 15\rsec") == "enable 15\r\nPassword: "
    assert rig.type("rot\x7f\x7fet\r") == "\r\n[local]a#"
    assert rig.checked[-1] == (15, "secret")
    # What was typed there is in no history.
    assert "secret" not in rig.type("\x10\x10\x19")


def test_a_password_can_be_given_up() -> None:
    rig = session(privilege=6)
    rig.type("enable\r")
    assert rig.type("sec\x03") == "^C\r\n[local]a>"
    assert rig.type("exit\r") == "exit\r\n"
    assert not rig.checked


def test_nobody_goes_above_the_highest_privilege() -> None:
    rig = session(privilege=6, privilege_max=10)
    assert "% Error: privilege 15 is above your highest, 10" in rig.type("enable\r")
    rig.type("enable 10\r")
    assert rig.type("secret\r") == "\r\n[local]a#"


def test_the_end_of_input_ends_the_session() -> None:
    rig = session()
    assert rig.type("\x04") == "\r\n"
    assert rig.status == 0


def test_one_command_without_a_terminal_is_plain_text_and_a_status() -> None:
    for line, said, status in (
        ("show log | count", "30\n", 0),
        ("show log", "".join(f"Jan 01 00:00:01: %IKE-6-INFO: line {number}\n" for number in range(30)), 0),
        ("show foo", "     ^\n% Invalid input at '^' marker\n", 1),
        ("show", "% Incomplete command: show\n", 1),
        ("ping 10.0.0.1", "% Error: not now\n", 1),
        ("exit", "", 0),
        ("  ", "", 0),
    ):
        rig = CliRig(controller, terminal=False)
        assert rig.run(line) == said
        assert rig.status == status


def test_data_come_as_json() -> None:
    rig = CliRig(controller)
    assert rig.run('show log | json | grep "line 29"') == '    "text": "line 29"\n'


@pytest.mark.parametrize("seed", range(40))
def test_no_keys_and_no_answers_break_a_session(seed: int) -> None:
    """Whatever is typed and answered, the session goes on until it is left, and its prompt comes back."""
    chance = random.Random(seed)
    rig = CliRig(controller, width=chance.choice((20, 80)), length=chance.choice((0, 2, 5, 24)))
    rig.start()
    words = (
        "show",
        "tunnel",
        "ipsec",
        "name",
        "clear",
        "|",
        "log",
        "count",
        "json",
        "terminal length 3",
        "\t",
        "?",
    )
    for _ in range(400):
        rig.hold = chance.random() < 0.5
        if rig.asked and chance.random() < 0.5:
            answer: dict[str, Any] = chance.choice(
                ({}, records(9), {"tunnels": None}, {"cards": [], "errors": {}})
            )
            rig.reply(answer, chance.choice(("", "", "no")))
        keys = chance.choice(
            (f"{chance.choice(words)} ".encode(), chance.randbytes(3), b"\r", b" ", b"q", b"\x1b[A")
        )
        rig.type(keys.replace(b"\x04", b""))
        assert rig.status in (None, 0)
        if rig.status == 0:
            return
    while rig.asked:
        rig.reply({})
    assert rig.type("\x1b[Z\x03\x03").endswith("[local]a#")
