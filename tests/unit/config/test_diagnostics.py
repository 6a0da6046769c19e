"""What is said about wrong, doubtful and idle lines: one small configuration for each kind."""

from __future__ import annotations

import pytest

from chassis.config.checking import nearest
from chassis.config.diagnostics import Diagnostic, has_errors, in_order
from chassis.config.parser import parse

SERVED = """\
asp pool pool service security
 asp 1/1
asp group group
 pool pool
context L
 asp-group group service security
 interface lo loopback
  ip address 10.0.0.1/32
 interface lo2 loopback
  ip address 10.0.0.2/32
 interface t1
 interface t2
 interface mb ipsec multibind
  ip unnumbered lo
"""
"""Fourteen lines that say nothing wrong: what the tunnels of the cases stand on."""

KEYS = " both\n  esp spi {spi}\n  esp authentication key 01234567890123456789\n"


def case(name: str, text: str, *expected: tuple[int, int, str, str, str], hint: str = "") -> object:
    return pytest.param(text, expected, hint, id=name)


E, W, N = "error", "warning", "note"

CASES = (
    case("nothing", SERVED + "card ge-10-port 3\nport ethernet 3/10\n no shutdown\n bind interface t1 L\n"),
    case("unknown", "frobnicate x\n", (1, 1, W, "unknown", "frobnicate")),
    case("unknown, once", "frob x\nfrob y\nglob x\n frob\n", (1, 1, W, "unknown", "frob"),
         (3, 1, W, "unknown", "glob")),
    case("unknown, no form", "no frob x\n", (1, 4, W, "unknown", "frob")),
    case("unknown, second word", "context c\n ip 46 to qos ef\n", (2, 5, W, "unknown", "***")),
    case("foreign", "context c\n router ospf 1\n", (2, 2, W, "unknown", "router")),
    case("near", "contxt c\n interface i\n", (1, 1, W, "unknown", "contxt"), hint="context c"),
    case("near, second word", "tunnel ipsce t\n", (1, 8, W, "unknown", "ipsce"), hint="tunnel ipsec t"),
    case("NUL", "context c\0d\n interface i\ncontext e\n frob x\n", (1, 10, E, "bad-text", "***"),
         (4, 2, W, "unknown", "frob")),
    case("half a surrogate pair", "context c\n interface \ud800\n  ip address 1.1.1.1/24\n",
         (2, 12, E, "bad-text", "***")),
    case("half a surrogate pair in a line that is not known", "frob \udcff x\n", (1, 6, E, "bad-text", "***")),
    case("too long", f"context {'x' * 5000}\n", (1, 4097, E, "bad-text", "***")),
    case("wrong word", "tunnel ipsec t bogus\n mtu 300\n", (1, 16, E, "unknown", "bogus")),
    case("ambiguous", "context c\n i a\n", (2, 2, E, "ambiguous", "i")),
    case("incomplete", "context\n", (1, 1, E, "incomplete", "context")),
    case("surplus", "context c d\n", (1, 11, E, "surplus", "d"), hint="context c"),
    case("of another mode", "context c\n num-queues 4\n", (2, 2, W, "unknown", "num-queues")),
    case("bad value", "context c\n ip route x 1.2.3.4\n", (2, 11, E, "bad-value", "x")),
    case("config twice", "context c\nconfig\n", (2, 1, E, "misplaced", "config")),
    case("no such object", "no context c\n", (1, 12, W, "nothing-to-remove", "c")),
    case("no such asp", "asp pool p service security\n no asp 1/1\n", (2, 9, W, "nothing-to-remove", "1/1")),
    case("no such line", "ipsec policy p\n no seq 5\n",
         (2, 9, "warning", "nothing-to-remove", "5")),
    case("no such route", "context c\n no ip route 1.0.0.0/8 1.2.3.4\n",
         (2, 14, W, "nothing-to-remove", "1.0.0.0/8")),
    case("local stays", "no context local\n", (1, 12, E, "conflict", "local")),
    case("both and in", "ipsec security-association s\n both\n in\n  ah spi 300\n", (3, 2, E, "conflict", "in")),
    case("another kind", "context c\n interface a\n interface a loopback\n  ip address 1.1.1.1/32\n",
         (3, 12, E, "conflict", "a")),
    case("multibind address", SERVED + "context L\n interface mb\n  ip address 1.1.1.1/24\n",
         (17, 3, E, "multibind", "ip")),
    case("no effect", "logging active\nlogging active\n", (1, 1, N, "no-effect", "logging active")),
    case("no effect, no form", "no service console-break\n", (1, 4, N, "no-effect", "service console-break")),
    case("shown", "show ike policy\n", (1, 1, N, "no-effect", "show ike")),
    case("S-003", "ipsec proposal p\n lifetime 400\n",
         (2, 11, E, "S-003", "400"), hint="lifetime seconds 400"),
    case("S-007", "context c\n ike policy p\n  identity local fqdn a.b value\n", (3, 27, E, "S-007", "value"),
         hint="identity local fqdn a.b"),
    case("S-008", "context c\n ike policy p\n  mode fast\n",
         (3, 8, E, "S-008", "fast")),
    case("S-012", "context c\n import pki certificate trusted rsa file x\n", (2, 2, E, "S-012", "import")),
    case("S-015 nothing to match", "context c\n ipsec access-list a\n  seq 10\n", (3, 3, E, "S-015", "seq")),
    case("S-015 port without protocol", "context c\n ipsec access-list a\n  seq 10 eq 5\n",
         (3, 10, E, "S-015", "eq")),
    case("S-015 port of icmp", "context c\n ipsec access-list a\n  seq 10 icmp any any eq 5\n",
         (3, 23, E, "S-015", "eq")),
    case("S-015 bare address", "context c\n ipsec access-list a\n  seq 10 10.0.0.1 any\n",
         (3, 10, E, "S-015", "10.0.0.1"), hint="seq 10 10.0.0.1/32 any"),
    case("S-016", "ipsec qos policy q sa1 pq\n", (1, 20, W, "S-016", "sa1"), hint="ipsec qos policy q pq"),
    case("S-023 group", "asp-group g\n", (1, 1, E, "S-023", "asp-group"), hint="asp group g"),
    case("S-023 service at the top", "asp-group g service security\n", (1, 1, E, "S-023", "asp-group")),
    case("S-023 context", "context c\n asp group g service security\n", (2, 14, E, "S-023", "service"),
         hint="asp-group g service security"),
    case("S-030 line", "context c\n ike policy p\n  address-allocation aaa\n",
         (3, 3, E, "S-030", "address-allocation"), hint="ike2 policy p"),
    case("S-030 proposal", "ike2 proposal x\ncontext c\n ike policy p\n  seq 1 proposal x\n",
         (4, 18, E, "S-030", "x")),
    case("S-031", "context c\n ike2 policy p\n  mode main\n",
         (3, 3, E, "S-031", "mode")),
    case("S-032", "ike2 proposal p\n lifetime seconds 300\n",
         (2, 2, E, "S-032", "lifetime")),
    case("S-033", "ipsec proposal p\n esp encryption aes-128-cbc\n",
         (2, 17, W, "S-033", "aes-128-cbc")),
    case("S-033 neither", "ipsec proposal p\n esp encryption null\n",
         (2, 17, E, "S-033", "null"), hint="esp encryption aes-128-cbc"),
    case("S-033 null with integrity", "ipsec proposal p\n esp encryption null\n esp authentication hmac-md5-96\n"),
    case("S-033 null inside AH", "ipsec proposal p\n esp encryption null\n ah hmac-md5-96\n"),
    case("S-037", "ike proposal p\nike2 proposal p\n pseudo-random-function hmac-md5\n", (2, 15, E, "S-037", "p")),
    case("S-039 pool", "asp group g\n pool p\n", (2, 7, W, "S-039", "p")),
    case("S-039 near", "ipsec policy p\n seq 1 proposal ipsec_Prop\nipsec proposal ipsec_Prop1\n",
         (2, 17, W, "S-039", "ipsec_Prop"), hint="seq 1 proposal ipsec_Prop1"),
    case("S-041", "context c\n ipsec profile p\n  df-bit propagate\n", (3, 10, E, "S-041", "propagate")),
    case("S-045", SERVED + "tunnel ipsec o on-demand\n bind interface mb L\n", (15, 14, W, "S-045", "o")),
    case("S-047", "context c\n interface i\ntunnel ipsec t manual\n bind interface i d\n",
         (4, 19, W, "S-047", "d"), hint="bind interface i c"),
    case("S-047 end point", "tunnel ipsec t manual\n peer-end-point local 1.1.1.1 remote 2.2.2.2 context x\n",
         (2, 54, W, "S-047", "x")),
    case("S-051", "context c\n ike2 policy p IKE2 POLICY\n",
         (2, 16, W, "S-051", "IKE2 POLICY"), hint="ike2 policy p"),
    case("S-053", "context c\n interface i\n  ip address 10.0.0.0/24\n", (3, 14, E, "S-053", "10.0.0.0/24"),
         hint="ip address 10.0.0.1/24"),
    case("S-060", "context c\n interface i\n  ip address 10.0.0.1/24\n ip route 9.0.0.0/8 10.0.1.1\n",
         (4, 21, W, "S-060", "10.0.1.1")),
    case("S-068", "ipsec security-association s\n esp spi 300\n", (2, 2, E, "S-068", "esp")),
    case("S-069", "ipsec security-association s\n both\n  ah key 123\n", (3, 10, E, "S-069", "123")),
    case("S-073", "ipsec proposal p\n ah sha256\n",
         (2, 5, E, "S-073", "sha256")),
    case("S-074", "ipsec policy p\n perfect-forward-secrecy dh-group 3\n",
         (2, 35, E, "S-074", "3")),
    case("S-077", "clear ike sa tunnel t\n", (1, 1, E, "S-077", "clear")),
    case("S-082", "card ge-10-port 3\nport ethernet 3/11\n", (2, 15, W, "S-082", "3/11"),
         hint="card ether-12-port 3"),
    case("S-082 asp card", "card ase 3\nport ethernet 3/1\n", (2, 15, W, "S-082", "3/1")),
    case("S-090", SERVED + "context L\n ip route 9.0.0.0/8 mb\n", (16, 21, E, "S-090", "mb")),
    case("S-097", "context c\n ipsec access-list a\n  seq 10 10.0.0.0 255.0.0.0\n",
         (3, 19, E, "S-097", "255.0.0.0"), hint="seq 10 10.0.0.0/8"),
    case("S-097 wildcard", "context c\n ipsec access-list a\n  seq 10 10.0.0.0/0.0.0.255 any\n",
         (3, 10, E, "S-097", "10.0.0.0/0.0.0.255"), hint="seq 10 10.0.0.0/24 any"),
    case("S-101 controller", "card ase 7\n", (1, 10, E, "S-101", "7")),
    case("S-101 taken", "card ase 3\ncard ge-10-port 3\n", (2, 17, E, "S-101", "3")),
    case("S-101 other", "card atm-oc3 3\n", (1, 6, N, "S-101", "atm-oc3")),
    case("S-102", "card ge-10-port 3\nasp pool p service security\n asp 3/1\n", (3, 6, E, "S-102", "3/1")),
    case("S-102 controller", "asp pool p service security\n asp 8/1\n", (2, 6, E, "S-102", "8/1")),
    case("S-103", "port ethernet 3/1\nport ethernet 7/1\n", (1, 15, W, "S-103", "3/1")),
    case("S-105", SERVED + "tunnel ipsec t manual\n peer-end-point local 9.9.9.9 remote 2.2.2.2 context L\n",
         (16, 23, W, "S-105", "9.9.9.9")),
    case("S-105 no loopback", SERVED + "context L\n interface i\n  ip address 10.1.0.1/24\ntunnel ipsec t manual\n"
         " peer-end-point local 10.1.0.1 remote 2.2.2.2 context L\n",
         (19, 23, W, "S-105", "10.1.0.1")),
    case("S-106", "context c\n interface lo loopback\n  ip address 1.1.1.1/32\ntunnel ipsec t manual\n"
         " peer-end-point local 1.1.1.1 remote 2.2.2.2 context c\n", (5, 54, W, "S-106", "c")),
    case("S-106 group", "context c\n asp-group g service security\n", (2, 12, W, "S-106", "g")),
    case("S-106 empty group", "asp group g\ncontext c\n asp-group g service security\n", (3, 12, W, "S-106", "g")),
    case("S-109 no key", "ipsec security-association s\n both\n  esp spi 300\n", (3, 11, W, "S-109", "300")),
    case("S-109 no spi", "ipsec security-association s\n both\n  ah key 01234567890123456789\n",
         (3, 3, W, "S-109", "ah")),
    case("S-109 null only", "ipsec security-association s\n both\n  esp spi 300\n  esp encryption null\n",
         (3, 11, W, "S-109", "300")),
    case("S-109 half", "ipsec security-association s\n in\n  ah spi 300\n  ah key 01234567890123456789\n",
         (2, 2, W, "S-109", "in")),
    case("S-109 protocols", "ipsec security-association s\n in\n  ah spi 300\n  ah key 01234567890123456789\n"
         " out\n  esp spi 300\n  esp encryption key 0123456789abcdef\n", (5, 2, W, "S-109", "out")),
    case("S-109 nothing", "ipsec security-association s\n", (1, 28, W, "S-109", "s")),
    case("S-109 silent after an error", "ipsec security-association s\n both\n  ah spi 300\n  ah key 1\n",
         (4, 10, E, "S-069", "1")),
    case("S-109 one SPI twice", SERVED
         + "ipsec security-association a\n" + KEYS.format(spi=300)
         + "ipsec security-association b\n" + KEYS.format(spi=300)
         + "tunnel ipsec t1 manual\n bind interface t1 L\n"
         " peer-end-point local 10.0.0.1 remote 2.2.2.2 context L\n seq 1 security-association a\n"
         + "tunnel ipsec t2 manual\n bind interface t2 L\n"
         " peer-end-point local 10.0.0.1 remote 3.3.3.3 context L\n seq 1 security-association b\n",
         (30, 29, E, "S-109", "b")),
    case("S-021", "tunnel ipsec t manual\n remote-id 1.2.3.4\n", (2, 2, W, "S-021", "remote-id")),
    case("unnumbered", "context c\n interface a\n interface b\n  ip unnumbered a\n",
         (4, 17, W, "unnumbered", "a")),
    case("binding", SERVED + "tunnel ipsec a manual\n bind interface t1 L\ntunnel ipsec b manual\n"
         " bind interface t1 L\n", (18, 17, W, "binding", "t1")),
    case("binding multibind", SERVED + "tunnel ipsec a manual\n bind interface mb L\n",
         (16, 17, W, "binding", "mb")),
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected", "hint"), CASES)
def test_diagnostic(text: str, expected: tuple[tuple[int, int, str, str, str], ...], hint: str) -> None:
    found = parse(text, "x.cfg").diagnostics
    if not expected:
        found = tuple(d for d in found if d.severity != "note")
    assert [(d.line, d.column, d.severity, d.code, d.name) for d in found] == list(expected)
    hints = [d.hint for d in found if d.hint]
    assert hints == ([hint] if hint else [])
    assert all(d.message and d.file == "x.cfg" for d in found)


IKE = """\
ike proposal v1
ike2 proposal v2
context L
 asp-group group service security
 ike policy p
  {line}
  seq 1 proposal v1
 ike2 policy q
  {line2}
  seq 1 proposal v2
tunnel ipsec t
 bind interface t1 L
 peer-end-point local 10.0.0.1 remote 2.2.2.2 context L
 ike-policy p
 remote-id {remote}
{more}
"""


def ike(line: str = "", line2: str = "", remote: str = "2.2.2.2", more: str = "") -> list[tuple[str, str, str]]:
    text = SERVED + IKE.format(line=line, line2=line2, remote=remote, more=more)
    return [(d.severity, d.code, d.name) for d in parse(text).diagnostics if d.severity != "note"]


SECOND = "tunnel ipsec u\n bind interface t2 L\n peer-end-point local 10.0.0.1 remote 3.3.3.3 context L\n"
DEMAND = (
    "context L\n ipsec profile o\ntunnel ipsec o on-demand\n bind interface mb L\n"
    " peer-end-point local 10.0.0.2 context L\n"
)


@pytest.mark.parametrize(("found", "expected"), [
    (ike(), []),
    (ike("identity remote 2.2.2.2"), []),
    (ike("identity remote 5.5.5.5"), [("warning", "S-006", "2.2.2.2")]),
    (ike(line2="address-allocation aaa"), [("warning", "S-029", "address-allocation")]),
    (ike(line2="address-allocation aaa\n  connection-type responder-only"), []),
    (ike("validate-certificate-identity"), [("warning", "S-091", "validate-certificate-identity")]),
    (ike(line2="validate-certificate-identity"), []),
    (ike(line2="validate-certificate-identity\n  authentication rsa-signature"), []),
    (ike("pre-shared-key use-aaa"), [("warning", "use-aaa", "p")]),
    (ike(more=SECOND + " ike-policy q\n remote-id 2.2.2.2"), [("warning", "S-036", "q")]),
    (ike(more=SECOND + " ike-policy p\n remote-id 2.2.2.2"), []),
    (ike(more=SECOND + " ike-policy r\n"), [("warning", "S-048", "r")]),
    (ike(more=DEMAND + " ike-policy p\n"), [("warning", "S-093", "p")]),
    (ike("mode aggressive", more=DEMAND + " ike-policy p\n"), []),
    (ike(more=DEMAND + " ike-policy q\n"), []),
    (ike(more=DEMAND + " ike-policy q\n remote-id 2.2.2.2"), [("error", "S-094", "2.2.2.2")]),
    (ike(more=DEMAND + " ike-policy q\n remote-id *.2.2"), []),
    (ike(remote="B.x", more=DEMAND + " ike-policy q\n remote-id b.x"), [("error", "S-094", "b.x")]),
    (ike(remote="*.example"), [("warning", "S-021", "*.example")]),
    (ike(more=DEMAND + " ike-policy q\n remote-id *.a.*"), [("error", "S-021", "*.a.*")]),
    (ike("identity remote fqdn B.example", remote="b.example"), []),
    (ike(line2="connection-type initiator-only", more=DEMAND + " ike-policy q"), [("warning", "on-demand", "q")]),
    (ike(line2="pre-shared-key use-aaa", more=DEMAND + " ike-policy q\n"), [("warning", "use-aaa", "q")]),
])  # fmt: skip
def test_checks_of_ike_at_commit(found: list[tuple[str, str, str]], expected: list[tuple[str, str, str]]) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("version", "rules", "expected"), [("", 64, []), ("", 65, [("warning", "S-080", "many")]), ("2", 65, [])]
)
def test_rules_beyond_those_that_ikev1_negotiates_are_warned_of(
    version: str, rules: int, expected: list[tuple[str, str, str]]
) -> None:
    listed = "".join(f"  seq {number} 10.0.{number}.0/24 any\n" for number in range(1, rules + 1))
    text = (
        SERVED
        + f"ike{version} proposal v\nipsec proposal e\nipsec policy i\n seq 1 proposal e\n"
        + f"context L\n asp-group group service security\n ike{version} policy p\n  seq 1 proposal v\n"
        + f" ipsec access-list many\n{listed}"
        + "tunnel ipsec t\n bind interface t1 L\n peer-end-point local 10.0.0.1 remote 2.2.2.2 context L\n"
        + " ike-policy p\n seq 10 ipsec-policy i access-group many\n"
    )
    found = [d for d in parse(text).diagnostics if d.severity != "note"]
    assert [(d.severity, d.code, d.name) for d in found] == expected
    assert not found or (found[0].line, found[0].column) == (len(text.splitlines()), 37)


def test_a_wrong_line_has_no_effect_and_the_rest_is_read() -> None:
    parsed = parse("ike proposal p\n dh-group 3\n encryption algorithm des-cbc\n frob\n dh-group 2\n")
    assert parsed.config.ike_proposals["p"].dh_group == 2
    assert parsed.config.ike_proposals["p"].encryption_algorithm == "des-cbc"
    assert [d.severity for d in parsed.diagnostics] == ["error", "warning"]


def test_nothing_is_said_inside_an_object_that_is_an_error() -> None:
    parsed = parse("ipsec policy a b\n seq 1 proposal nowhere\n anti-replay-window 7\ncontext c\n interface i\n")
    assert [(d.line, d.code) for d in parsed.diagnostics] == [(1, "surplus")]
    assert not parsed.config.ipsec_policies
    assert "i" in parsed.config.contexts["c"].interfaces


def test_an_error_at_commit_takes_its_line_out() -> None:
    parsed = parse(SERVED + "context L\n ip route 9.0.0.0/8 mb\n ip route 9.0.0.0/8 t1\n")
    assert [route.interface for route in parsed.config.contexts["L"].routes] == ["t1"]
    parsed = parse("card ge-10-port 3\nasp pool p service security\n asp 3/1\n asp 1/1\n")
    assert parsed.config.pools["p"].asps == ("1/1",)


def test_order_and_text_of_diagnostics() -> None:
    one = Diagnostic("warning", "S-105", "a", "f", 2, 3, "m")
    two = Diagnostic("error", "S-106", "a", "f", 2, 3, "m", "right")
    assert in_order([two, one]) == (one, two)
    assert has_errors([one, two])
    assert not has_errors([one])
    assert str(two) == "f:2:3: error S-106: m\n    repaired: right"
    assert str(Diagnostic("note", "x", "a", "", 1, 1, "m")) == "1:1: note x: m"


def test_the_nearest_name_is_found_among_thousands() -> None:
    assert nearest("ike-pol1", ["ike-poll1", "other"]) == "ike-poll1"
    assert nearest("MAIN", ["main"]) == "main"
    assert nearest("zzz", ["main"]) == ""
    assert nearest("tunnel-91x", [f"tunnel-{n}" for n in range(5000)] + ["tunnel-91xy"]) != ""
