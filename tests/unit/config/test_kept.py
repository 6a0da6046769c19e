"""Lines that no command is: kept where they stand, printed back as they stood, without effect."""

from __future__ import annotations

import random

import pytest

from chassis.config.difference import difference
from chassis.config.parser import parse
from chassis.config.render import render, render_object
from chassis.model.router import Config
from tests.support.configurations import Generator


def printed(text: str) -> str:
    """A text as it is printed back, without the remarks of a saved file; it must read back equal."""
    parsed = parse(text)
    shown = render(parsed.config)
    again = parse(shown)
    assert again.config == parsed.config, shown
    assert render(again.config) == shown
    return "\n".join(line for line in shown.split("\n") if line.strip() and line.strip()[0] != "!")


def codes(text: str) -> list[tuple[str, str, str]]:
    return [(d.severity, d.code, d.name) for d in parse(text).diagnostics if d.severity != "note"]


def test_one_unknown_command_leaves_the_rest_in_force() -> None:
    text = "context a\n interface x\n  ip address 10.0.0.1/24\n router ospf 1\n  area 0\n interface y\n"
    parsed = parse(text)
    assert codes(text) == [("warning", "unknown", "router")]
    assert set(parsed.config.contexts["a"].interfaces) == {"x", "y"}
    assert [kept.lines for kept in parsed.config.contexts["a"].kept] == [("router ospf 1", " area 0")]


def test_a_block_stays_under_its_line_word_for_word() -> None:
    text = (
        "context local\ncontext a\n interface x\n  ip address 10.0.0.1/24\n  verify  unicast   rpf\n"
        " aaa authentication administrator local\n  with a block\n      of some depth\n   and less\n"
        " ip route 0.0.0.0/0 10.0.0.2\n snmp server\nntp server 1.2.3.4\n"
    )
    assert printed(text + "end\n") == text + "end"


def test_an_unknown_line_follows_the_line_that_it_followed() -> None:
    """The lines that are known are printed in the order of a saved file; what follows them goes with them."""
    text = (
        "context a\n first of all\n ip route 9.0.0.0/8 x\n after the route\n interface x\n after the interface\n"
        " interface y\n no ip domain-lookup\n after the look-up\n after that\n"
    )
    assert printed(text) == (
        "context local\ncontext a\n first of all\n no ip domain-lookup\n after the look-up\n after that\n"
        " interface x\n after the interface\n interface y\n ip route 9.0.0.0/8 x\n after the route\nend"
    )


def test_after_a_line_that_is_not_printed() -> None:
    """A line that says a default, or that was taken back, is not printed; what followed it stays where it was."""
    text = (
        "context a\n ike policy p\n  connection-type both\n  mode main\n  after the mode\n"
        "  identity local 1.1.1.1\n"
    )
    assert "mode main" not in printed(text)
    assert "  connection-type both\n  after the mode\n  identity local 1.1.1.1" in printed(text)
    text = "context a\n interface x\n after x\n interface y\n no interface x\n"
    assert printed(text) == "context local\ncontext a\n interface y\n after x\nend"


def test_a_line_that_a_check_takes_out_leaves_what_followed_it() -> None:
    text = (
        "context a\n interface x\n interface m ipsec multibind\n  ip unnumbered x\n"
        " ip route 9.0.0.0/8 m\n frob\n ip route 9.0.0.0/8 x\n"
    )
    assert codes(text) == [("warning", "unnumbered", "x"), ("error", "S-090", "m"), ("warning", "unknown", "frob")]
    assert "frob" in printed(text)


def test_a_script_without_indentation_reads_like_the_file_with_it() -> None:
    text = (
        "context a\n interface x\n  ip address 10.0.0.1/24\n  frob the interface\n ip route 9.0.0.0/8 x\n"
        " router ospf 1\n  area 0.0.0.0\n   interface x\n    cost 10\n ip route 8.0.0.0/8 x\n"
        "port ethernet 3/1\n no shutdown\n encapsulation dot1q\n dot1q pvc 100\n  bind interface x a\n  shutdown\n"
        "link-group lg access\n bind interface x a\n shutdown\n"
        "qos policy p metering\n class c\n  shutdown\n"
        "port ethernet 3/2\n no shutdown\n bind interface x a\n"
    )
    flat = "\n".join(line.strip() for line in text.split("\n"))
    ports = parse(flat).config.ports
    assert (ports["3/1"].shutdown, ports["3/1"].interface) == (False, None)
    assert (ports["3/2"].shutdown, ports["3/2"].interface) == (False, "x")
    assert not {severity for severity, _, _ in codes(flat)} - {"warning"}
    assert printed(flat) == printed(text)


OPENERS = (
    "router ospf 1", "subscriber name s", "link-group g access", "qos policy p policing", "bridge b",
    "qos policy pol metering",
    "dot1q pvc 5", "tunnel gre g", "port atm 4/1", "dot1q profile p", "interface i multibind",
    "route-map m permit 10",
    "ip access-list l", "nat policy n", "forward policy f", "dhcp server policy", "key-chain k key-id 1",
)  # fmt: skip


@pytest.mark.parametrize("opener", OPENERS)
def test_what_follows_an_opener_of_the_box_does_not_hit_the_port_before(opener: str) -> None:
    before = "context a\ninterface x\nport ethernet 3/1\nno shutdown\nbind interface x a\n"
    wanted = parse(before).config.ports
    for line in ("shutdown", "bind interface y b", "no bind interface", "mtu 1500", "description d"):
        found = parse(f"{before}{opener}\n{line}\n")
        assert {n: (p.shutdown, p.interface, p.context) for n, p in found.config.ports.items()} == {
            n: (p.shutdown, p.interface, p.context) for n, p in wanted.items()
        }, line
        assert not [d for d in found.diagnostics if d.severity == "error"], line
        assert f" {line}" in render(found.config) or line in render(found.config)


def test_exit_leaves_the_modes_of_openers_one_by_one() -> None:
    text = (
        "context a\nrouter ospf 1\narea 0\ninterface x\ncost 3\nexit\nexit\nexit\nip domain-lookup\nexit\n"
        "port ethernet 3/1\ndot1q pvc 7\nexit\nno shutdown\n"
    )
    parsed = parse(text)
    assert parsed.config.contexts["a"].domain_lookup is True
    assert not parsed.config.contexts["a"].interfaces
    assert not parsed.config.ports["3/1"].shutdown


def test_an_opener_in_a_file_with_indentation_ends_with_its_block() -> None:
    text = (
        "context a\n router ospf 1\n interface x\n  ip address 10.0.0.1/24\n"
        "link-group g\nport ethernet 3/1\n no shutdown\n"
    )
    parsed = parse(text)
    assert set(parsed.config.contexts["a"].interfaces) == {"x"}
    assert not parsed.config.ports["3/1"].shutdown


def test_a_warning_says_which_words_are_meant() -> None:
    text = "context a\n interface s multibind lastresort\n ip access-list l\n router ospf 1\n frob me\n"
    assert [d.message.split(" is not a ")[0] for d in parse(text).diagnostics] == [
        "`interface s multibind`", "`ip access-list`", "`router`", "`frob`",
    ]  # fmt: skip


def test_a_line_of_another_mode_is_unknown_where_it_stands() -> None:
    assert codes("context a\nfrob\ndescription of it\n") == [
        ("warning", "unknown", "frob"),
        ("warning", "unknown", "description"),
    ]
    assert codes("port ethernet 7/1\n num-queues 4\n") == [("warning", "unknown", "num-queues")]


def test_a_line_that_misuses_a_command_is_still_an_error() -> None:
    for text in (
        "context\n", "context a b\n", "tunnel ipsec t bogus\n", "context a\n i a\n",
        "context a\n ip route x 1.2.3.4\n", "port ethernet 3/1\n bind interface x\n",
        "ipsec proposal p\n ah sha256\n",
        "ipsec proposal p\n lifetime 400\n",
        "asp-group g\n", "ike2 proposal p\n lifetime seconds 300\n", "clear ike sa tunnel t\n",
    ):  # fmt: skip
        assert [severity for severity, _, _ in codes(text) if severity == "error"] == ["error"], text


def test_one_that_nearly_opens_a_mode_has_what_follows() -> None:
    """A misprint does not give its lines to the object before."""
    parsed = parse("context a\ninterface x\nip address 10.0.0.1/24\ninterfce y\nip address 10.0.1.1/24\n")
    assert parsed.config.contexts["a"].interfaces["x"].address == "10.0.0.1"
    assert "interfce y\n   ip address 10.0.1.1/24" in render(parsed.config)
    assert [d.hint for d in parsed.diagnostics] == ["interface y"]


def test_exit_is_printed_where_a_line_would_be_taken_for_one_of_the_object_before() -> None:
    text = "tunnel ipsec t\n mtu 300\nexit\nmtu 400\n"
    assert parse(text).config.tunnels["t"].mtu == 300
    assert printed(text).endswith("tunnel ipsec t\n mtu 300\nexit\nmtu 400\nend")
    text = "ipsec security-association s\n both\n  esp spi 300\nexit\nexit\nesp spi 400\n"
    assert printed(text).endswith("  esp spi 300\nexit\nexit\nesp spi 400\nend")


def test_a_byte_order_mark_is_no_part_of_the_first_word() -> None:
    assert parse("\ufeffcontext a\n") == parse("context a\n")


def test_headers_of_a_transcript_are_no_lines() -> None:
    text = (
        "[local]Redback#show configuration\nBuilding configuration...\n\nCurrent configuration:\n!\n"
        "! Configuration last changed by user 'x' at Tue Jun 27 06:38:05 2005\ncontext a\n!\n interface x\n"
        "---(more)---\n  ip address 10.0.0.1/24\n! ** End Context **\nlogging active\nend\n[local]Redback#\n"
    )
    script = "conf\ncontext a\ninterface x\nip address 10.0.0.1/24\nlogging active\ncommit\nend\nsave conf\ny\n"
    unended = "terminal length 0\n" + script.replace("end\nsave conf", "save")
    for found in (parse(text), parse(script), parse(unended)):
        assert found.config == parse("context a\n interface x\n  ip address 10.0.0.1/24\nlogging active\n").config
        assert [d.severity for d in found.diagnostics] == ["note"]


def test_what_is_typed_and_answered_around_a_configuration_is_no_line_of_it() -> None:
    text = (
        "login: admin\npassword:\n[local]Redback>enable 15\nPassword: \n[local]Redback#show version\n"
        "[local]Redback#show chassis\n[local]Redback#conf\n[local]Redback(config)#context a\n"
        '[local]Redback(config-ctx)#no ip domain-lookup\n[local]Redback(config-ctx)#commit comment "first"\n'
        "Transaction committed.\n[local]Redback(config-ctx)#exit\n[local]Redback(config)#end\n"
    )
    found = parse(text)
    assert found.config == parse("context a\n no ip domain-lookup\n").config
    assert {(d.severity, d.code) for d in found.diagnostics} == {("note", "no-effect")}
    refused = parse("[local]Redback(config)#context a\n                 ^\n% Invalid input at '^' marker\n")
    assert not refused.diagnostics


@pytest.mark.parametrize("text", ["frob\rcontext b\n", "port ethernet 7/1\n description x\rcontext b\n"])
def test_a_line_can_not_become_two(text: str) -> None:
    """Programs that take a carriage return for the end of a line would read its rest as a command."""
    assert "\r" not in render(parse(text).config)


def test_secrets_in_unknown_lines_are_not_shown() -> None:
    text = (
        "context a\n radius server 10.0.0.1 encrypted-key 8F2A1B oldports\n router bgp 1\n  password 8F2A1B\n"
        "snmp community 8F2A1B\nport ethernet 7/1\n key 8F2A1B\n"
    )
    parsed = parse(text)
    changes = difference(Config(), parsed.config)
    assert {change.path for change in changes} == {("kept",), ("context", "a"), ("port", "7/1")}
    assert not [line for change in changes for line in change.lines if "8F2A1B" in line]
    assert "+ radius ***" in [line for change in changes for line in change.lines]
    assert "8F2A1B" not in repr(parsed.config)
    assert "8F2A1B" not in "".join(render_object("context", parsed.config.contexts["a"], keys=False))
    assert not [d for d in parsed.diagnostics if "8F2A1B" in str(d)]


def test_a_changed_line_without_effect_is_a_difference() -> None:
    one, two = parse("snmp server\ncontext a\n frob\n").config, parse("snmp client\ncontext a\n frob\n").config
    assert [(c.path, c.lines) for c in difference(one, two)] == [(("kept",), ("lines without effect changed",))]
    three = parse("snmp server\ncontext a\n glob\n").config
    assert [c.lines for c in difference(one, three)] == [("- frob", "+ glob")]


LINES = (
    "frob x", "description d", "router ospf 1", "area 0", "interface x", "exit", "qos policy p", "shutdown",
    "bind interface x a", "no shutdown", "mtu 300", "dot1q pvc 3", "lifetime seconds 300", "seq 10 x", "contxt c",
    "interfce q", "tunel ipsec t", "link-group g", "context a", "port ethernet 3/1", "ip frob",
    "subscriber name s",
    "no frob", "! c", "#", "[local]x#", "esp spi 300", "anti-replay-window 64", "mode main", "i", "ip", "tunnel",
    "ip address 10.0.0.1/24", "ip route 9.0.0.0/8 9.9.9.9", "bridge b", "y", "logging console", "asp-group g",
)  # fmt: skip


@pytest.mark.parametrize("style", ["flat", "kept", "random"])
def test_right_files_with_unknown_lines_among_theirs(style: str) -> None:
    """Print and read again is a fixed point, wherever such lines come and however they are indented."""
    for seed in range(60):
        source = random.Random(seed)
        lines: list[str] = []
        for line in Generator(random.Random(seed)).configuration().split("\n")[: source.choice((6, 12, 200))]:
            depth = {"flat": 0, "kept": len(line) - len(line.lstrip()), "random": source.randrange(4)}[style]
            lines.append(" " * depth + line.strip())
            while source.random() < 0.3:
                depth = 0 if style == "flat" else max(0, depth + source.choice((-1, 0, 0, 1, 2)))
                lines.append(" " * depth + source.choice(LINES))
        printed("\n".join(lines))
