"""The table of exec commands, and what is understood, completed and helped from it."""

from __future__ import annotations

import ast

import pytest

from chassis.bus import requests
from chassis.bus.arguments import read
from chassis.cli.commands import COMMANDS, REQUESTS, WORDS, grammar
from chassis.cli.completion import ParsedLine, SyntaxFault, complete, help_lines, offers, parse
from chassis.cli.dialogue import Seat
from chassis.cli.pipes import PIPES
from chassis.config.grammar import Alternatives, Choice, Element, OptionalPart, Param, SyntaxWord, parse_syntax
from chassis.config.operations import BY_ID
from chassis.config.portion import PARTS
from tests.support import ROOT


def keywords(elements: tuple[Element, ...]) -> set[str]:
    found: set[str] = set()
    for element in elements:
        match element:
            case SyntaxWord(spellings):
                found |= {*spellings}
            case Choice():
                found |= {text for text, _ in element.options}
            case OptionalPart(items):
                found |= keywords(items)
            case Alternatives(branches):
                found |= {word for branch in branches for word in keywords(branch)}
            case Param():
                pass
    return found


def helped(text: str, privilege: int = 15) -> list[str]:
    return help_lines(offers(text, Seat("u", "a", "local", privilege=privilege)))


def test_every_row_is_whole() -> None:
    assert len({row.id for row in COMMANDS}) == len(COMMANDS)
    for row in COMMANDS:
        assert 0 <= row.privilege <= 15
        assert row.help
        assert not row.request or row.request in requests.CONTROLLER
        assert row.request or row.act or row.opening or row.id in ("show-clock", "show-privilege"), row.id
        for syntax in (row.syntax, *row.aliases):
            assert keywords(parse_syntax(syntax)) <= WORDS.keys(), row.id


def test_a_session_may_send_what_the_cli_asks_and_nothing_else() -> None:
    """Words of the CLI's source that name a request, but those that mean something else there."""
    words = {
        node.value
        for path in (ROOT / "chassis" / "cli").glob("*.py")
        if path.name != "commands.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert words & requests.CONTROLLER.keys() - {"keys"} <= REQUESTS
    assert not REQUESTS & {"login", "sessions", "secret", "apply", "bus", "capture", "keys", "link", "inject"}


LINES = (
    "show version",
    "show release",
    "show administrators",
    "show privilege",
    "show chassis",
    "show hardware",
    "show hardware detail",
    "show slot table",
    "show card",
    "show card 3",
    "show asp",
    "show asp 1/1 detail",
    "show asp detail",
    "show asp pool",
    "show asp pool P1 detail",
    "show asp group",
    "show asp group G1",
    "show ipsec queues",
    "show ipsec queues office",
    "show alarms",
    "show context",
    "show context all",
    "show ip interface",
    "show ip interface brief",
    "show ip interface to-peer",
    "show ip local interface",
    "show port",
    "show port 3/11",
    "show port detail",
    "show port 3/11 detail",
    "show port counters",
    "show port 3/11 counters",
    "show circuit",
    "show circuit counters",
    "show ike card 1/1 statistics global ike1",
    "show pki certificate self rsa",
    "show pki certificate trusted rsa",
    "show pki asp 1/1 certificate self rsa",
    "show pki card 1/1 certificate self rsa identity a.example",
    "show pki certificate trusted rsa handle 0a1b2c3d",
    "show pki key-pair",
    "show pki key-pair a",
    "show pki certificate-request rsa",
    "show pki certificate-request rsa all",
    "show ike asp 1/1 statistics global ike2",
    "show ipsec card 1/1 statistics global context lan",
    "show process",
    "show clock",
    "show log",
    "show log active",
    "show log since 15m level 4 facility ike tunnel t1 context lan last 20 explain",
    "show configuration",
    "show configuration verbose",
    "show configuration context",
    "show configuration context lan",
    "show configuration context lan verbose",
    "show configuration ike",
    "show configuration ipsec all-contexts",
    "show configuration tunnel all-contexts verbose",
    "show ip route",
    "show arp-cache",
    "show arp-cache all",
    "show arp-cache all-context",
    "show arp-cache interworking",
    "show arp-cache summary",
    "show arp-cache xcrp",
    "show ike policy",
    "show ike policy p",
    "show ike proposal p",
    "show ike card 1/1 policy",
    "show ike card 1/1 proposal p",
    "show ipsec asp 1/2 access-list l",
    "show ipsec card 1/2 policy",
    "show ipsec card 1/2 profile",
    "show ipsec card 1/2 proposal",
    "show ipsec card 1/2 security-association s",
    "show ipsec access-list",
    "show ipsec policy p",
    "show ipsec profile",
    "show ipsec proposal",
    "show ipsec security-association s",
    "show tunnel",
    "show tunnel ipsec",
    "show tunnel ipsec detail",
    "show tunnel ipsec on-demand",
    "show tunnel ipsec name t",
    "show tunnel ipsec name t detail",
    "show tunnel ipsec name t on-demand",
    "show tunnel ipsec remote 10.0.0.1 detail",
    "show tunnel ipsec t",
    "show tunnel ipsec t statistics",
    "show tunnel ipsec t on-demand statistics Detail",
    "show tunnel ipsec name t statistics detail",
    "show tunnel ipsec name t statistics ike",
    "show tunnel ipsec name t statistics ike detail",
    "clear ike sa tunnel t",
    "clear ipsec sa tunnel t",
    "clear arp-cache",
    "clear arp-cache 10.0.0.1",
    "clear log",
    "terminal monitor",
    "no terminal monitor",
    "monitor tunnel",
    "monitor tunnel t",
    "clear counters",
    "clear counters port",
    "clear counters port 3/1",
    "clear counters circuit",
    "clear counters tunnel t",
    "save configuration",
    "save config a.cfg",
    "save",
    "dir",
    "dir /flash",
    "copy a.cfg b.cfg",
    "more a.cfg",
    "delete a.cfg",
    "reload",
    "reload card 1",
    "reload asp 1/2",
    "import pki certificate trusted rsa file ca.pem",
    "import pki certificate self rsa key-pair k file own.pem",
    "import pki key-pair k rsa file terminal",
    "add pki key-pair k rsa 2048",
    "add pki certificate-request rsa r file r.pem",
    "remove pki certificate 0a1b2c3d",
    "ping",
    "ping 10.0.0.1",
    "ping 10.0.0.1 7 size 100 timeout 2 source 10.0.0.2",
    "traceroute 10.0.0.1",
    "traceroute 10.0.0.1 ttl 5 timeout 2 source 10.0.0.2",
    "context lan",
    "enable",
    "enable 15",
    "disable",
    "exit",
    "logout",
    "terminal length 0",
    "terminal width 512",
    "configure",
    "configure /flash/a.cfg",
    "rollback 3",
    "show configuration candidate",
    "show transaction",
    "show transaction history",
    "show history",
)

CONFIGURATION_LINES = (
    "commit",
    "commit comment why not",
    "commit confirmed",
    'commit confirmed 5 comment "why not"',
    "abort",
    "exit",
    "end",
)


@pytest.mark.parametrize("line", LINES)
def test_a_form_is_a_command_whose_request_its_controller_takes(line: str) -> None:
    parsed = parse(line, 15)
    assert isinstance(parsed, ParsedLine)
    row = parsed.command
    if row.request:
        read(requests.CONTROLLER[row.request], row.arguments(parsed.values, "local"))


def test_every_row_is_typed_above() -> None:
    typed = [parse(line, 15) for line in LINES] + [parse(line, 15, True) for line in CONFIGURATION_LINES]
    assert {parsed.command.id for parsed in typed if isinstance(parsed, ParsedLine)} == {
        row.id for row in COMMANDS
    }


def test_the_words_of_the_guide_are_those_of_the_grammar() -> None:
    for row in COMMANDS:
        if row.guide:
            assert row.guide == BY_ID[row.id].guide
            known = keywords(parse_syntax(BY_ID[row.id].syntax))
            assert keywords(parse_syntax(row.syntax)) <= known, row.id


def test_the_parts_of_a_configuration_are_those_of_the_request() -> None:
    assert {*requests.PARTS} == PARTS | {"all"}


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("sh ver", "show-version"),
        ("SHOW Version", "show-version"),
        ("sh tu ip na t", "show-tunnel-ipsec"),
        ("show conf", "show-configuration"),
        ("sh ipsec sec", "show-ipsec-sa"),
        ("term len 0", "terminal-length"),
        ("ex", "exit"),
        ("sh arp", "show-arp-cache"),
        ("conf", "config"),
    ],
)
def test_words_are_shortened_as_long_as_they_are_clear(line: str, row: str) -> None:
    parsed = parse(line, 15)
    assert isinstance(parsed, ParsedLine)
    assert parsed.command.id == row


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("foo", ["          ^", "% Invalid input at '^' marker"]),
        ("show foo", ["               ^", "% Invalid input at '^' marker"]),
        ("show   foo bar", ["                 ^", "% Invalid input at '^' marker"]),
        ("show version x", ["                       ^", "% Invalid input at '^' marker"]),
        ("show", ["% Incomplete command: show"]),
        ("show  tunnel ipsec name", ["% Incomplete command: show tunnel ipsec name"]),
        ("traceroute", ["% Incomplete command: traceroute"]),
        ("show i", ['% Ambiguous command:  "show i"']),
        ("show tunnel | x", ["                        ^", "% Invalid input at '^' marker"]),
        ("show tunnel | include", ["% Incomplete command: show tunnel | include"]),
        ("| include x", ["          ^", "% Invalid input at '^' marker"]),
    ],
)
def test_a_wrong_line_says_where_and_why(line: str, lines: list[str]) -> None:
    """The caret stands under the first character of the wrong word, a prompt of 10 columns before the line."""
    found = parse(line, 15)
    assert isinstance(found, SyntaxFault)
    assert found.lines(10) == lines


def test_what_a_privilege_does_not_allow_it_does_not_know() -> None:
    for line in ("clear ike sa tunnel t", "context lan"):
        assert isinstance(parse(line, 6), SyntaxFault)
        assert isinstance(parse(line, 10), ParsedLine)
    assert "clear" not in "".join(helped("", 6))
    assert grammar(6) is grammar(6)


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("sh", "ow "),
        ("show tu", "nnel "),
        ("show conf", "iguration "),
        ("show i", ""),
        ("show c", ""),
        ("show p", ""),
        ("show pro", "cess "),
        ("show ips", "ec "),
        ("show ", ""),
        ("", ""),
        ("nothing", ""),
        ("show ipsec po", "licy "),
        ("show ipsec pro", ""),
        ("show tunnel | i", "nclude "),
        ("ex", "it "),
        ("show version", " "),
        ("Sh", "ow "),
    ],
)
def test_tab_completes_what_is_clear(text: str, added: str) -> None:
    assert complete(offers(text, Seat("u", "a", "local"))) == added


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            "show i",
            [("ike", "Internet Key Exchange"), ("ip", "Internet Protocol"), ("ipsec", "IP Security")],
        ),
        (
            "terminal ",
            [
                ("length", "rows of the terminal"),
                ("monitor", "look at what comes"),
                ("width", "columns of the terminal"),
            ],
        ),
        ("terminal length ", [("<0..512>", "number from 0 to 512")]),
        ("show version ", [("|", "filter the output"), ("<cr>", "run the command")]),
        ("show tunnel | ", list(PIPES.items())),
        ("show tunnel | in", [("include", "lines that have the text")]),
    ],
)
def test_help_stands_in_columns(text: str, rows: list[tuple[str, str]]) -> None:
    """The help of a keyword begins 22 columns after it, as in the one line of the box that is known."""
    assert helped(text) == [f"  {word:<22}{help}" for word, help in rows]


def test_where_nothing_fits_help_says_so() -> None:
    assert helped("show foo ") == ["% Unrecognized command"]
