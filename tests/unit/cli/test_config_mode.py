"""Configuration mode, keystroke by keystroke, with a controller's engine behind it."""

from __future__ import annotations

import base64
import random
import re

import pytest

from chassis.cli.session import MAX_QUEUED_OCTETS
from chassis.config.operations import COMMANDS
from tests.support.cli import CliRig, of_node
from tests.support.configurations import Generator
from tests.support.xcrp import HIGH_AVAILABILITY, Node

GREETING = "Enter configuration commands, one per line, 'end' to exit"


def seated(text: str = HIGH_AVAILABILITY, **settings: object) -> CliRig:
    """A session at a router in memory, in exec mode."""
    node = Node(text)
    node.start()
    node.run(1.0)
    rig = CliRig(of_node(node), length=0, **settings)
    rig.start(named=True)
    return rig


def configuring(text: str = HIGH_AVAILABILITY) -> CliRig:
    rig = seated(text)
    assert rig.type("configure\r") == f"configure\r\n{GREETING}\r\n[local]a(config)#"
    return rig


def shown(rig: CliRig) -> str:
    assert rig.controller is not None
    return str(rig.controller("config", {"keys": True})["text"])


def said(rig: CliRig, line: str) -> list[str]:
    """What a line prints, without its echo; the prompt is the last."""
    return rig.type(f"{line}\r").removeprefix(f"{line}\r\n").split("\r\n")


def test_a_tunnel_is_typed_and_committed() -> None:
    rig = configuring()
    assert rig.type("tunnel ipsec new\r").endswith("\r\n[local]a(config-tunnel)#")
    assert said(rig, "peer-end-point local 1.1.1.1 remote 9.9.9.9 context L1") == ["[local]a(config-tunnel)#"]
    assert said(rig, "bind interface TI-3 C1") == ["[local]a(config-tunnel)#"]
    assert "tunnel ipsec new" not in shown(rig)
    assert said(rig, "commit") == [
        "% Warning: line 3, `bind interface TI-3 C1`: no interface TI-3 in context C1; did you mean TI-2?",
        "  repaired: bind interface TI-2 C1",
        "Transaction committed",
        "[local]a(config-tunnel)#",
    ]
    assert "tunnel ipsec new\n" in shown(rig)
    assert said(rig, "end") == ["[local]a#"]
    assert " bind interface TI-3 C1" in said(rig, "show configuration tunnel")


def test_a_line_climbs_to_the_mode_that_knows_it() -> None:
    """`exit` is never needed."""
    rig = configuring()
    for line, mode in (
        ("context C9", "config-ctx"),
        ("interface x loopback", "config-if"),
        ("ip address 9.1.1.1/32", "config-if"),
        ("ike policy p", "config-ike-policy"),
        ("ip route 9.2.0.0/16 null0", "config-ctx"),
        ("interface y", "config-if"),
        ("ipsec policy q", "config-ipsec-policy"),
        ("card ase 9", "config-card"),
    ):
        assert said(rig, line) == [f"[local]a({mode})#"]
    assert said(rig, "end") == ["Transaction committed", "[local]a#"]
    text = shown(rig)
    assert "context C9\n interface x loopback\n  ip address 9.1.1.1/32\n interface y\n" in text
    assert " ip route 9.2.0.0/16 null0\n" in text


@pytest.mark.parametrize("way", ["end\r", "exit\r", "\x1a", "exit\rexit\r"])
def test_leaving_commits_what_is_pending(way: str) -> None:
    rig = configuring()
    rig.type("system hostname core\r" if way != "exit\rexit\r" else "context C1\rsystem hostname core\r")
    if way == "exit\rexit\r":
        rig.type("context C1\r")
    assert rig.type(way).endswith("Transaction committed\r\n[local]core#")
    assert "system hostname core\n" in shown(rig)


def test_leaving_with_nothing_pending_asks_nothing_of_the_controller() -> None:
    rig = configuring()
    rig.type("system hostname core\r")
    assert said(rig, "commit") == ["Transaction committed", "[local]core(config)#"]
    before = len(rig.requests)
    assert said(rig, "end") == ["[local]core#"]
    assert len(rig.requests) == before


def test_a_failing_commit_stays_in_configuration_mode() -> None:
    rig = configuring()
    for line in ("context C1", "interface TI-1"):
        said(rig, line)
    rig.controller = lambda command, arguments: {
        "applied": False,
        "diagnostics": [
            {"severity": "error", "line": 2, "column": 1, "code": "x", "message": "it can't be", "hint": "so"}
        ],
    }
    for line in ("exit", "end"):
        printed = said(rig, line)
    assert printed == [
        "% Error: line 2, `interface TI-1`: it can't be",
        "  repaired: so",
        "% Error: nothing is committed",
        "[local]a(config-ctx)#",
    ]


def test_abort_forgets_the_candidate_and_stays() -> None:
    rig = configuring()
    before = shown(rig)
    rig.type("system hostname core\rtunnel ipsec Tun-1\rmtu 300\r")
    assert said(rig, "abort") == ["Transaction aborted", "[local]a(config)#"]
    assert said(rig, "end") == ["[local]a#"]
    assert shown(rig) == before


def test_lines_after_a_commit_go_on_in_their_mode() -> None:
    rig = configuring()
    rig.type("tunnel ipsec Tun-1\rmtu 300\rcommit\rdf-bit set\rcommit\r")
    assert "tunnel ipsec Tun-1 manual\n" in shown(rig)
    assert " df-bit set\n" in shown(rig)
    rig.type("exit\rno tunnel ipsec Tun-2\rcommit\r")
    assert "Tun-2 manual" not in shown(rig)


def test_an_existing_object_is_changed_and_checked_as_it_is() -> None:
    rig = configuring()
    assert said(rig, "tunnel ipsec Tun-2 on-demand")[0] == (
        "% Error: Tun-2 exists already and is of another kind; remove it first"
    )
    assert said(rig, "tunnel ipsec Tun-1") == ["[local]a(config-tunnel)#"]
    assert said(rig, "ike-policy p")[-2:] == [
        "% Error: `ike-policy` is valid only in a static tunnel or an on-demand tunnel, this is a manual tunnel",
        "[local]a(config-tunnel)#",
    ]
    assert said(rig, "no seq 20") == ["% Warning: there is no line 20 to remove", "[local]a(config-tunnel)#"]
    assert said(rig, "no seq 10") == ["[local]a(config-tunnel)#"]


def test_a_removed_object_comes_back_empty() -> None:
    rig = configuring()
    for line in ("no context C1", "context C1", "interface TI-1", "end"):
        printed = said(rig, line)
    assert "Transaction committed" in printed
    text = shown(rig)
    assert "context C1\n interface TI-1\n!" in text
    assert "192.168.2.1" not in text


def test_default_gives_a_setting_its_own_value() -> None:
    rig = configuring(
        "tunnel ipsec t\n mtu 300\ncontext c\n no logging console\nport ethernet 3/1\n no shutdown\n"
    )
    for line in ("tunnel ipsec t", "default mtu", "context c", "default logging console", "port ethernet 3/1"):
        assert not [one for one in said(rig, line) if one.startswith(("% Error", "% Inv"))]
    assert said(rig, "default shutdown") == ["[local]a(config-port)#"]
    rig.type("end\r")
    text = shown(rig)
    assert "mtu" not in text
    assert "logging console" not in text
    assert "no shutdown" not in text


def test_default_is_for_settings() -> None:
    rig = configuring()
    assert said(rig, "default tunnel ipsec Tun-1")[0] == "% Error: `tunnel ipsec` has no default: use no"
    rig.type("end\r")
    assert "tunnel ipsec Tun-1 manual\n" in shown(rig)


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("frobnicate x", ["           ^", "% Invalid input at '^' marker"]),
        ("tunnel ipsec", ["% Incomplete command: tunnel ipsec"]),
        ("tunnel  ipsec t bogus", [" " * 27 + "^", "% Invalid input at '^' marker"]),
        ("no tunnel ipsec t bogus", [" " * 29 + "^", "% Invalid input at '^' marker"]),
        ("i", ['% Ambiguous command:  "i"']),
        ("show", ["% Incomplete command: show"]),
        ("show foo", [" " * 16 + "^", "% Invalid input at '^' marker"]),
        ("router ospf 1", ["           ^", "% Invalid input at '^' marker"]),
        ("contxt c", ["           ^", "% Invalid input at '^' marker", "  repaired: context c"]),
    ],
)
def test_a_wrong_line_says_where_and_why(line: str, printed: list[str]) -> None:
    rig = configuring()
    rig.type("context C1\rexit\r")
    prompt = "[local]a(config)#"
    column = len(prompt) - len("[local]a#") - 2
    expected = [one if one.strip() != "^" else " " * column + one for one in printed]
    assert said(rig, line) == [*expected, prompt]
    assert said(rig, "end")[-1] == "[local]a#"


def test_a_refused_value_says_what_is_expected() -> None:
    rig = configuring()
    rig.type("tunnel ipsec Tun-1\r")
    assert said(rig, "mtu 1") == [
        " " * 28 + "^",
        "% Invalid input at '^' marker",
        "% Error: 1 is not from 256 to 16384",
        "[local]a(config-tunnel)#",
    ]


@pytest.mark.behaviour("B-186")
def test_show_commands_work_in_every_mode() -> None:
    rig = configuring()
    rig.type("context C1\rinterface TI-1\r")
    assert "Current platform is SE1200" in said(rig, "show chassis")
    assert said(rig, "show tunnel | count") == ["5", "[local]a(config-if)#"]
    assert "tunnel ipsec Tun-1 manual" in said(rig, "sh conf tun")


@pytest.mark.behaviour("B-198")
@pytest.mark.parametrize("line", ["clear ipsec sa tunnel Tun-1", "clear ike sa tunnel Tun-1", "disable"])
def test_commands_of_exec_mode_are_refused_as_such(line: str) -> None:
    rig = configuring()
    asked = len(rig.requests)
    printed = said(rig, line)
    assert printed[0].endswith(" is a command of exec mode, not of the configuration")
    assert len(printed) == 2
    assert len(rig.requests) == asked


def test_remarks_and_prompts_of_a_transcript_are_not_lines() -> None:
    rig = configuring()
    assert said(rig, "! a remark") == ["[local]a(config)#"]
    assert said(rig, "[local]Redback(config)#context C8") == ["[local]a(config-ctx)#"]
    assert said(rig, "(config-ctx)# interface i") == ["[local]a(config-if)#"]
    rig.type("end\r")
    assert "context C8\n interface i\n" in shown(rig)


def test_a_long_paste_is_taken_line_by_line() -> None:
    rig = configuring("")
    lines = [f"ipsec policy p{number}\r\n seq 10 proposal q\r\n" for number in range(1500)]
    for at in range(0, len(lines), 100):
        rig.type("".join(lines[at : at + 100]))
    rig.type("end\r")
    assert shown(rig).count("ipsec policy p") == 1500


def test_keys_are_in_no_history() -> None:
    rig = configuring()
    rig.type("context L1\rike policy p\r")
    rig.type("pre-shared-key very-secret\r")
    assert "pre-shared-key ***" in rig.type("\x10")
    rig.type("\x15pre-shred-key very-secret\r")
    assert "secret" not in rig.type("\x10")
    rig.type("\x15pre-shared-key hex very-secret\r")
    assert "secret" not in rig.type("\x10")
    rig.type("\x15")
    assert said(rig, "pre-shared-key ***")[0] == "% Error: the history hides keys: type it"
    rig.type("end\r")
    assert "pre-shared-key very-secret\n" in shown(rig)


def test_a_session_without_its_controller_stays_where_it_is() -> None:
    rig = configuring()
    controller = rig.controller

    def away(command: str, arguments: object) -> dict[str, object]:
        raise LookupError("the controller is away")

    rig.controller = away
    rig.type("system hostname x\r")
    assert said(rig, "end") == ["% Error: the controller is away", "[local]a(config)#"]
    assert said(rig, "context C1") == ["% Error: the controller is away", "[local]a(config)#"]
    rig.controller = controller
    assert said(rig, "end") == ["Transaction committed", "[local]x#"]
    assert said(rig, "configure")[-1] == "[local]x(config)#"
    rig.controller = away
    rig.type("end\r")
    assert said(rig, "configure") == ["% Error: the controller is away", "[local]x#"]


def test_the_end_of_input_leaves_a_mode() -> None:
    rig = configuring()
    rig.type("context C1\r")
    assert rig.type("\x04") == "\r\n[local]a(config)#"
    assert rig.type("\x04").endswith("[local]a#")
    assert rig.status is None


def test_the_candidate_is_shown_as_a_difference() -> None:
    rig = configuring()
    assert said(rig, "show configuration candidate")[0] == "No changes"
    rig.type("tunnel ipsec Tun-1\rmtu 300\rno tunnel ipsec Tun-2\r")
    assert said(rig, "show configuration candidate") == [
        "  tunnel Tun-1",
        "+  mtu 300",
        "- tunnel Tun-2",
        "[local]a(config)#",
    ]
    rig.type("abort\rend\r")
    assert said(rig, "show configuration candidate")[0].startswith("% Error: this session is not in configuration")


def test_open_transactions_and_commits_are_shown() -> None:
    rig = configuring()
    assert said(rig, "show transaction") == ["No open transaction", "[local]a(config)#"]
    rig.type("context C1\r")
    assert re.match(r" +1  Active +1  tester$", said(rig, "show transaction")[1])
    rig.type('interface x\rcommit confirmed 3 comment "try it"\r')
    assert re.match(r" +2  Outstanding +-  tester +180 s to confirm$", said(rig, "show transaction")[1])
    assert re.search("  tester +commit +waiting +try it$", said(rig, "show transaction history")[1])


def test_a_confirmed_commit_waits_for_a_second_one_and_end_is_none() -> None:
    rig = configuring()
    rig.type("system hostname core\r")
    assert said(rig, "commit confirmed")[0] == "Commit confirmed ,it will be rolled back within 10 minutes"
    assert said(rig, "end") == ["[local]core#"]
    assert len(said(rig, "show transaction")) == 3
    rig.type("configure\r")
    assert said(rig, "commit") == ["Transaction committed", "[local]core(config)#"]
    assert said(rig, "show transaction")[0] == "No open transaction"


def test_a_lock_names_who_holds_it() -> None:
    rig = configuring()
    assert rig.controller is not None
    rig.controller("commit", {"lines": "system hostname b\n", "user": "bob", "confirm": 5})
    rig.type("context C1\rinterface x\r")
    printed = said(rig, "commit")
    assert printed[0].startswith("% Error: Database is locked by another transaction of user bob")
    assert printed[-1] == "[local]a(config-if)#"


def test_an_earlier_configuration_comes_back() -> None:
    rig = configuring()
    before = shown(rig)
    rig.type("system hostname core\rend\r")
    assert said(rig, "rollback 1") == ["Transaction committed", "[local]a#"]
    assert shown(rig) == before
    assert said(rig, "rollback 99")[0].startswith("% Error: ")


def test_the_history_is_shown() -> None:
    rig = seated()
    rig.type("show clock\rterminal length 0\r")
    assert said(rig, "show history") == [
        "    1  show clock",
        "    2  terminal length 0",
        "    3  show history",
        "[local]a#",
    ]


def test_what_is_indented_below_a_refused_line_is_left_out() -> None:
    """A paste of another router's configuration: the interface of a routing protocol is none of the context."""
    rig = configuring()
    rig.type("context C1\r")
    assert "% Invalid input" in rig.type(" router ospf 1\r")
    for line in ("  area 0.0.0.0", "   interface TI-9"):
        assert said(rig, line) == [
            "% Error: left out, as the line that it is indented below",
            "[local]a(config-ctx)#",
        ]
    assert said(rig, " interface TI-8") == ["[local]a(config-if)#"]
    rig.type("end\r")
    assert "TI-8" in shown(rig)
    assert "TI-9" not in shown(rig)


def test_a_paste_of_what_show_configuration_prints_is_taken() -> None:
    rig = configuring("")
    text = shown(seated())
    printed = rig.type(f"Building configuration...\r\rCurrent configuration:\r{text}".replace("\n", "\r"))
    assert "% Error" not in printed
    assert "% Invalid" not in printed
    assert printed.endswith("Transaction committed\r\n[local]a#")
    assert shown(rig) == text


def generated(seed: int) -> str:
    return Generator(random.Random(seed), no_share=0.3 if seed % 2 else 0.0).configuration()


@pytest.mark.parametrize("seed", range(40))
def test_what_is_typed_is_what_a_file_makes(seed: int) -> None:
    """Lines that are right one by one, as the file has them, make the same configuration."""
    text = generated(seed)
    rig = configuring("")
    taken: list[str] = []
    for line in text.splitlines():
        printed = said(rig, line)
        if printed[-1] == "[local]a#":
            break
        if not any(one.startswith(("% Error", "% Incomplete", "% Ambiguous", "% Invalid")) for one in printed):
            taken.append(line)
    assert rig.controller is not None
    checked = rig.controller("apply", {"text": "\n".join(taken), "dry": True})
    wrong = [found["message"] for found in checked["diagnostics"] if found["severity"] == "error"]
    printed = said(rig, "end")
    assert ("% Error: nothing is committed" in printed) == bool(wrong), printed
    if wrong:
        assert all(any(message in one for one in printed) for message in wrong), printed
    else:
        assert shown(rig) == shown(seated("\n".join(taken)))


@pytest.mark.parametrize("seed", range(20))
def test_no_keys_break_configuration_mode(seed: int) -> None:
    chance = random.Random(seed)
    rig = configuring()
    words = [word for command in COMMANDS for word in command.keywords.split()]
    words += [
        "no",
        "default",
        "commit",
        "abort",
        "exit",
        "show",
        "?",
        "\t",
        "x",
        "1",
        "10.0.0.1",
        "Tun-1",
        "C1",
        "|",
    ]
    for _ in range(300):
        keys = chance.choice((f"{chance.choice(words)} ", f"{chance.choice(words)} ", "\r", "\x1b[A", "\x1a", "!"))
        printed = rig.type(keys)
        assert "internal error" not in printed
        if rig.session.seat.mode is None:
            rig.type("\x03configure\r")
        if rig.status is not None:
            rig = configuring()
    assert rig.type("\x03").endswith("#")


def test_no_key_is_printed_by_any_command_once_it_is_typed() -> None:
    rig = configuring()
    key = "very-secret"
    rig.type("context L1\rike policy p\r")
    rig.type(f"pre-shared-key {key}\r")
    rig.type("tunnel ipsec Tun-9\rbind interface none C1\ripsec security-association s\rboth\r")
    rig.type(f"ah hmac-md5-96 key {key}\r")
    rig.type(f"pre-shred-key {key}\radministrator x encrypted 1 {key}\r")
    lines = ["show configuration candidate", "show history", "show transaction", "commit"]
    lines += ["show configuration", "show configuration ike all-contexts", "show transaction history", "show log"]
    for line in lines:
        for form in (line, f"{line} | json") if line != "commit" else (line,):
            printed = "\n".join(said(rig, form))
            assert "internal error" not in printed
            for hidden in (key, key.encode().hex(), base64.b64encode(key.encode()).decode()):
                assert hidden not in printed, form
    assert "pre-shared-key encrypted 1 " in "\n".join(said(rig, "show configuration"))


def test_a_commit_is_waited_for_whatever_is_typed() -> None:
    rig = configuring()
    rig.type("context C1\rinterface x\r")
    rig.hold = True
    rig.type("commit\r")
    assert rig.type("\x03show history\r") == ""
    assert rig.type(b"\x03" * MAX_QUEUED_OCTETS) == "\a"
    rig.hold = False
    assert rig.controller is not None
    printed = rig.reply(rig.controller("commit", rig.asked[0].arguments))
    assert printed.startswith(
        "Transaction committed\r\n[local]a(config-if)#^C\r\n[local]a(config-if)#show history\r\n"
    )


def test_a_filter_of_a_show_command_is_no_secret() -> None:
    rig = configuring()
    rig.type("show log | include secret word\rshow pki key-pair\r")
    assert [line[7:] for line in said(rig, "show history")[1:3]] == [
        "show log | include secret word",
        "show pki key-pair",
    ]
