"""Lines of a real router's `show configuration` that the guide does not have, as they are read and printed."""

from __future__ import annotations

import pytest

from chassis.config.parser import parse
from chassis.config.render import render
from chassis.model.router import StaticRoute


def lines(text: str) -> list[str]:
    parsed = parse(text)
    assert not [d for d in parsed.diagnostics if d.severity == "error"], parsed.diagnostics
    shown = render(parsed.config)
    again = parse(shown)
    assert again.config == parsed.config
    assert render(again.config) == shown
    return shown.split("\n")


@pytest.mark.parametrize(
    "text",
    [
        "context a\n interface x\n  description to the core, 10 Gbit/s\n  ip address 10.0.0.1/24\n",
        ("context a\n interface x\n  ip address 10.0.0.1/24\n  ip address 10.1.0.1/24 secondary\n"
        "  ip address 10.2.0.1/24 secondary\n"),
        "context a\n interface x\n  ip address 10.1.0.1/24 secondary\n",
        "port ethernet 3/1\n description uplink  of   x\n no shutdown\n",
        "port ethernet management\n no shutdown\n",
        "context a\n ip route 10.0.0.0/8 null0\n ip route 10.0.0.0/9 null0 cost 250\n",
        "context a\n ip route 10.0.0.0/8 1.1.1.1 description the way home\n",
        "context a vpn-rd 65001:10\n interface x\n",
        "context a\n ip route 10.0.0.0/8 context b\n ip route 11.0.0.0/8 context b cost 5 description over\n",
        "context a\n ip route 10.0.0.0/8 1.1.1.1 cost 1 distance 1\n ip route 10.0.0.0/8 x distance 200 tag 7\n",
        "context a\n ip route 10.0.0.0/8 1.1.1.1 cost 2 distance 3 tag 4 permanent description all\n",
        "context a\n administrator x password hush\n  privilege start 15\n",
        ("context a\n ip route 10.0.0.0/8 1.1.1.1 context b cost 5 description all of it\n"
        " ip route 10.0.0.0/8 1.1.1.1\n ip route 10.0.0.0/8 x context b\n"),
        ("context a\n administrator admin encrypted 2 $1$abc$def\n  privilege start 10\n  privilege max 15\n"
        "  full-name \"Ad Min\"\n administrator other encrypted 1 $1$x$y\n"),
        # What says a default.
        "port ethernet 3/1\n shutdown\n",
        "ike proposal p\n dh-group 1\n lifetime seconds 86400\n",
        "tunnel ipsec t\n df-bit propagate\n no shutdown\n",
        "context a\n no ike keepalive\n ike2 policy p\n  connection-type both\n  authentication pre-shared-key\n",
        "ipsec policy p\n anti-replay-window 64\n",
        "asp group g\n asp-count 1\n",
        "system hostname Redback\n",
    ],
)  # fmt: skip
def test_lines_come_back(text: str) -> None:
    shown = lines(text)
    for line in text.rstrip("\n").split("\n"):
        assert line in shown


def test_other_spellings_are_settled() -> None:
    assert " ip route 10.0.0.0/8 1.1.1.1 context b cost 5" in lines(
        "context a\n ip route 10.0.0.0/8 1.1.1.1 cost 5 context b\n"
    )
    assert " ip route 10.0.0.0/8 null0" in lines("context a\n ip route 10.0.0.0/8 Null0\n")


def test_no_forms() -> None:
    text = "context a\n interface x\n  ip address 10.0.0.1/24\n  ip address 10.1.0.1/24 secondary\n"
    assert "secondary" not in "".join(lines(text + "  no ip address 10.1.0.1/24 secondary\n"))
    routes = "context a\n ip route 10.0.0.0/8 1.1.1.1 context b\n ip route 10.0.0.0/8 1.1.1.1\n"
    assert parse(routes + " no ip route 10.0.0.0/8 1.1.1.1\n").config.contexts["a"].routes == (
        StaticRoute("10.0.0.0/8", "1.1.1.1", context="b"),
    )


def test_a_route_to_another_context_is_warned_of() -> None:
    found = parse("context a\n ip route 10.0.0.0/8 1.1.1.1 context b\n").diagnostics
    assert [(d.severity, d.code, d.name, d.column) for d in found] == [("warning", "S-104", "b", 38)]


def test_a_circuit_of_a_port_does_not_bind_the_port() -> None:
    text = (
        "context a\n interface x\n  ip address 10.0.0.1/24\ncard ge-10-port 3\nport ethernet 3/1\n no shutdown\n"
        " encapsulation dot1q\n dot1q pvc 100\n  bind interface x a\n dot1q pvc 200\n  shutdown\n"
    )
    for given in (text, "\n".join(line.strip() for line in text.split("\n"))):
        parsed = parse(given)
        port = parsed.config.ports["3/1"]
        assert (port.interface, port.context, port.shutdown) == (None, None, False)
        assert [(d.severity, d.name) for d in parsed.diagnostics] == [
            ("warning", "encapsulation"), ("warning", "dot1q"),
        ]  # fmt: skip
    shown = "\n".join(lines(text))
    assert " encapsulation dot1q\n dot1q pvc 100\n  bind interface x a\n dot1q pvc 200\n  shutdown\n" in shown


def test_lines_of_a_circuit_that_are_not_indented_under_it_are_its_own() -> None:
    text = (
        "card ge-10-port 3\ncontext a\n interface x\n  ip address 10.0.0.1/24\nport ethernet 3/1\n no shutdown\n"
        " encapsulation dot1q\n dot1q pvc 100\n bind interface x a\n shutdown\n medium-type copper\n"
    )
    port = parse(text).config.ports["3/1"]
    assert (port.interface, port.shutdown) == (None, False)
    assert " dot1q pvc 100\n  bind interface x a\n  shutdown\n medium-type copper" in "\n".join(lines(text))
    # A line of the port that is printed after a circuit stays one of the port's.
    shown = lines("port ethernet 3/1\n bind interface x a\n no shutdown\n dot1q pvc 3\n")
    assert " no shutdown\n dot1q pvc 3\n exit\n bind interface x a" in "\n".join(shown)
    # Under a circuit with a block of its own the port's lines go on.
    text = text.replace(" pvc 100\n bind", " pvc 100\n  bind").replace(
        " shutdown\n medium", " bind interface x a\n medium"
    )
    assert parse(text).config.ports["3/1"].interface == "x"
