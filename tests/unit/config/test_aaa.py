"""Lines about AAA: what they set, how they print, what a commit says of them."""

from __future__ import annotations

import pytest

from chassis.aaa.settings import AaaConfig, AaaSettings, ServerAddress, aaa_config
from chassis.config.affected import affected_by
from chassis.config.difference import difference
from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from chassis.model.aaa import MOST_POOLS, MOST_SERVERS, RadiusServer
from chassis.model.ipsec import Key
from chassis.model.router import Context
from tests.support import ROOT
from tests.support.configurations import SECRET

LINES = """\
context vpn
 interface lo loopback
  ip address 10.0.0.254/32
 aaa authentication subscriber radius global
 aaa accounting subscriber radius
 aaa password OpenSesame
 radius server 10.0.0.1 key s3cret
 radius server 10.0.0.2 key s3cret port 2812 message-authenticator optional
 radius server 10.0.0.3 key 0x41 oldports
 radius accounting server 10.0.0.5 key books
 radius accounting server 10.0.0.6 key books oldports
 radius timeout 3
 radius max-retries 0
 radius deadtime 0
 radius algorithm round-robin
 radius max-outstanding 16
 radius source-port 40000
 radius attribute nas-ip-address interface lo
 ip pool clients 10.50.0.0/16
"""


def vpn(*lines: str) -> Parsed:
    return parse("\n".join(["context vpn", *(f" {line}" for line in lines)]))


def context(parsed: Parsed) -> Context:
    return parsed.config.contexts["vpn"]


def said(parsed: Parsed, severity: str = "warning") -> list[tuple[str, str]]:
    return [(d.code, d.name) for d in parsed.diagnostics if d.severity == severity]


def test_all_lines_print_as_they_were_typed() -> None:
    parsed = parse(LINES)
    assert parsed.diagnostics == ()
    assert LINES in render(parsed.config)


def test_what_the_lines_say_is_what_the_client_gets() -> None:
    def source(name: str, server: str) -> str | None:
        raise AssertionError("the interface decides")

    config = aaa_config(parse(LINES).config, source)
    lo = "10.0.0.254"
    assert config.of("vpn") == AaaSettings(
        servers=(
            ServerAddress("10.0.0.1", 1812, b"s3cret", True, lo),
            ServerAddress("10.0.0.2", 2812, b"s3cret", False, lo),
            ServerAddress("10.0.0.3", 1645, b"0x41", True, lo),
        ),
        accounting_servers=(
            ServerAddress("10.0.0.5", 1813, b"books", True, lo),
            ServerAddress("10.0.0.6", 1646, b"books", True, lo),
        ),
        timeout=3, retries=0, dead_time=0, algorithm="round-robin", outstanding=16, source_port=40000,
        password=b"OpenSesame", global_fallback=True, accounting=True,
    )  # fmt: skip
    assert "s3cret" not in repr(config)
    assert "OpenSesame" not in repr((config, parse(LINES).config))


def test_a_context_without_lines_has_the_defaults() -> None:
    config = aaa_config(vpn("radius server 10.0.0.1 key k").config, lambda name, server: f"{name} {server}")
    assert config == AaaConfig(
        "Redback",
        {
            "local": AaaSettings(),
            "vpn": AaaSettings(servers=(ServerAddress("10.0.0.1", 1812, b"k", True, "vpn 10.0.0.1"),)),
        },
    )
    assert (AaaSettings().timeout, AaaSettings().retries, AaaSettings().dead_time) == (10, 3, 300)


def test_a_second_line_about_a_server_takes_the_place_of_the_first() -> None:
    parsed = vpn("radius server 10.0.0.1 key a", "radius server 10.0.0.2 key b", "radius server 10.0.0.1 key c")
    assert context(parsed).radius_servers == (
        RadiusServer("10.0.0.1", Key(b"c")), RadiusServer("10.0.0.2", Key(b"b")),
    )  # fmt: skip


def test_no_lines_take_servers_and_pools_away() -> None:
    lines = ("radius server 10.0.0.1 key a", "radius server 10.0.0.2 key b", "ip pool p 10.0.0.0/24")
    parsed = vpn(*lines, "no radius server 10.0.0.1 key whatever", "no ip pool p", "no radius server 10.0.0.9")
    assert [server.address for server in context(parsed).radius_servers] == ["10.0.0.2"]
    assert context(parsed).ip_pools == ()
    assert said(parsed) == [("nothing-to-remove", "10.0.0.9")]


def test_servers_and_pools_of_a_context_are_bounded() -> None:
    lines = [f"radius server 10.0.1.{number} key a" for number in range(1, MOST_SERVERS + 2)]
    lines += [f"ip pool p{number} 10.{number}.0.0/24" for number in range(MOST_POOLS + 1)]
    parsed = vpn(*lines)
    assert [code for code, _ in said(parsed, "error")] == ["limit", "limit"]
    assert len(context(parsed).radius_servers) == MOST_SERVERS
    assert len(context(parsed).ip_pools) == MOST_POOLS


def test_keys_print_in_their_encrypted_form_and_load_again() -> None:
    parsed = parse(LINES, secret=SECRET)
    shown = render(parsed.config, keys=False)
    for key in ("s3cret", "books", "OpenSesame"):
        assert key not in shown
    assert " radius server 10.0.0.1 encrypted-key 1 " in shown
    assert " aaa password encrypted 1 " in shown
    again = parse(shown, secret=SECRET)
    assert again.config == parsed.config
    assert LINES in render(again.config)


def test_without_a_secret_keys_are_hidden_and_a_server_with_an_encrypted_one_is_not_asked() -> None:
    assert "radius server 10.0.0.1 key ***" in render(parse(LINES).config, keys=False)
    shown = render(parse(LINES, secret=SECRET).config, keys=False)
    assert aaa_config(parse(shown).config).of("vpn").servers == ()
    assert said(vpn("radius server 10.0.0.1 key ***"), "error") == [("S-022", "***")]


@pytest.mark.parametrize(
    "line",
    [
        "radius server 10.0.0.1 encrypted-key 8A1F00C2D4 oldports",
        "radius accounting server 10.0.0.1 encrypted-key 8A1F00C2D4",
        "radius coa server 10.0.0.1 key s3cret",
        "radius attribute acct-session-id access-request",
        "radius policy name mask",
        "aaa authentication administrator local",
        "aaa authentication subscriber none",
        "aaa update subscriber 30",
        "ip pool 10.0.0.0/24",
    ],
)
def test_lines_of_other_uses_are_kept(line: str) -> None:
    parsed = vpn(line)
    assert said(parsed, "error") == []
    assert f" {line}\n" in render(parsed.config)
    assert context(parsed).radius_servers == ()


@pytest.mark.parametrize(
    "line",
    [
        "radius server ten key a", "radius server 10.0.0.1", "radius server 10.0.0.1 key", "radius timeout 0",
        "radius server 10.0.0.1 key a b", "radius server 10.0.0.1 key a port 0", "radius source-port 80",
        "radius algorithm last", "aaa authentication subscriber", "aaa authentication subscriber tacacs",
        "ip pool p", "ip pool p 10.0.0.1", "radius server 10.0.0.1 key caf\u00e9", "radius server 0.0.0.0 key a",
    ],
)  # fmt: skip
def test_a_wrong_line_is_an_error(line: str) -> None:
    assert said(vpn(line), "error")


def test_a_commit_tells_an_interface_and_pools_that_are_wrong() -> None:
    parsed = vpn(
        "interface lo loopback", "radius attribute nas-ip-address interface lo",
        "ip pool a 10.0.0.0/16", "ip pool b 10.0.4.0/24", "ip pool c 10.1.0.0/16",
    )  # fmt: skip
    assert said(parsed) == [("radius", "lo"), ("ip-pool", "b")]
    assert said(vpn("radius attribute nas-ip-address interface l0")) == [("S-039", "l0")]


ON_DEMAND = """\
asp pool p service security
 asp 1/1
asp group g
 pool p
card ase 1
ike2 proposal i
ipsec proposal e
ipsec policy e
 seq 1 proposal e
tunnel ipsec t on-demand
 peer-end-point local 1.1.1.1 context vpn
 bind interface mb vpn
 ike-policy i
context vpn
 interface lo loopback
  ip address 1.1.1.1/32
 interface mb ipsec multibind
  ip unnumbered lo
 asp-group g service security
 ike2 policy i
  pre-shared-key use-aaa
  seq 1 proposal i
 ipsec profile t
  seq 1 ipsec-policy e
"""


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("", "vpn"),
        (" aaa authentication subscriber radius global\n", "vpn and local"),
        (" radius server 10.0.0.1 key k\n", None),
        (
            " aaa authentication subscriber radius global\ncontext local\n radius server 10.0.0.1 key k\n", None,
        ),
    ],
)  # fmt: skip
def test_an_on_demand_tunnel_whose_keys_nobody_has_is_told(lines: str, named: str | None) -> None:
    found = [d for d in parse(ON_DEMAND + lines).diagnostics if d.code == "use-aaa"]
    assert [d.message for d in found] == (
        [] if named is None else [f"no peer gets its key: there is no RADIUS server in context {named}"]
    )


def test_a_change_of_servers_is_a_difference_and_affects_the_tunnels_that_ask() -> None:
    before = parse(ON_DEMAND, secret=SECRET).config
    with_server = parse(f"{ON_DEMAND} radius server 10.0.0.1 key k1\n", secret=SECRET).config
    other_key = parse(f"{ON_DEMAND} radius server 10.0.0.1 key k2\n", secret=SECRET).config
    (change,) = difference(before, with_server)
    assert change.path == ("context", "vpn")
    assert change.lines[0].startswith("+ radius server 10.0.0.1 encrypted-key 1 ")
    assert "k1" not in str(difference(before, parse(f"{ON_DEMAND} radius server 10.0.0.1 key k1\n").config))
    assert len(difference(with_server, other_key)) == 1
    assert affected_by(before, with_server).tunnels == {"t"}


def test_a_server_of_context_local_affects_the_tunnels_whose_context_falls_back() -> None:
    fallback = f"{ON_DEMAND} aaa authentication subscriber radius global\n"
    server = "context local\n radius server 10.0.0.1 key k\n"
    for text, affected in ((fallback, {"t"}), (ON_DEMAND, set())):
        before = parse(text).config
        assert affected_by(before, parse(server, config=before).config).tunnels == affected


def test_the_lines_of_the_page_about_radius_say_what_it_says() -> None:
    page = (ROOT / "docs" / "radius.md").read_text()
    text = page.partition("```router\n")[2].partition("```")[0]
    parsed = parse(text)
    assert not [d for d in parsed.diagnostics if d.severity != "note"]
    inner = aaa_config(parsed.config).of("inner")
    assert [server.address for server in inner.servers] == ["10.0.0.1", "10.0.0.2"]
    assert (inner.timeout, inner.retries, inner.global_fallback, inner.accounting) == (2, 1, True, True)
    standard = AaaSettings()
    wait = standard.timeout * (1 + standard.retries)
    assert f"costs its first question {wait:g} s" in page
    assert f"pass it over for {standard.dead_time / 60:g} minutes" in page
