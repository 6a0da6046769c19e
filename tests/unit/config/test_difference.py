"""Differences: object by object, and what they say."""

from __future__ import annotations

from chassis.config.difference import ConfigChange, difference
from chassis.config.parser import parse

BASE = """\
asp pool p service security
 asp 1/1
context L
 asp-group g service security
 interface x
  ip address 1.0.0.1/24
 ip route 9.0.0.0/8 1.0.0.2 cost 5
tunnel ipsec t manual
 mtu 1400
card ase 1
port ethernet 3/1
"""


def changes(old: str, new: str) -> list[tuple[str, tuple[str | int, ...], tuple[str, ...]]]:
    return [(c.kind, c.path, c.lines) for c in difference(parse(old).config, parse(new).config)]


def test_equal_configurations_have_none() -> None:
    assert changes(BASE, "config\n\n" + BASE.replace("\n ", "\n    ") + "end\n") == []


def test_one_setting() -> None:
    new = BASE.replace("mtu 1400", "mtu 1300")
    assert changes(BASE, new) == [("changed", ("tunnel", "t"), ("- mtu 1400", "+ mtu 1300"))]


def test_an_interface_and_a_route_of_a_context() -> None:
    new = BASE.replace("1.0.0.1/24", "1.0.0.3/24").replace("cost 5", "cost 6")
    assert changes(BASE, new) == [
        ("changed", ("context", "L", "interface", "x"), ("- ip address 1.0.0.1/24", "+ ip address 1.0.0.3/24")),
        ("changed", ("context", "L", "route", "9.0.0.0/8", "1.0.0.2"),
            ("- ip route 9.0.0.0/8 1.0.0.2 cost 5", "+ ip route 9.0.0.0/8 1.0.0.2 cost 6")),
    ]  # fmt: skip


def test_a_whole_context_comes_with_its_parts() -> None:
    new = BASE + "context M\n interface y\n ipsec access-list a\n  seq 1 any\n"
    assert changes(BASE, new) == [
        ("added", ("context", "M"), ("+ context M",)),
        ("added", ("context", "M", "interface", "y"), ("+ interface y",)),
        ("added", ("context", "M", "ipsec-access-list", "a"), ("+ ipsec access-list a", "+ seq 1 any")),
    ]
    gone = changes(new, BASE)
    assert [(kind, path) for kind, path, _ in gone] == [("removed", path) for _, path, _ in changes(BASE, new)]


def test_settings_of_a_context_and_of_the_router() -> None:
    new = "system hostname east\n" + BASE.replace("asp-group g ", "asp-group h ") + "logging active\n"
    assert changes(BASE, new) == [
        ("changed", ("hostname",), ("- system hostname Redback", "+ system hostname east")),
        ("changed", ("accepted",), ("+ logging active",)),
        ("changed", ("context", "L"), ("- asp-group g service security", "+ asp-group h service security")),
    ]


def test_another_kind_of_tunnel_is_a_change() -> None:
    found = difference(parse(BASE).config, parse(BASE.replace("t manual", "t manual economical")).config)
    assert found[0].lines == ("- tunnel ipsec t manual", "+ tunnel ipsec t manual economical")
    assert (found[0].old.economical, found[0].new.economical) == (False, True)


def test_the_text_of_a_change() -> None:
    found = difference(parse(BASE).config, parse(BASE.replace("mtu 1400", "mtu 1300")).config)
    assert str(found[0]) == "changed tunnel t: - mtu 1400; + mtu 1300"
    assert str(ConfigChange("removed", ("card", 1), None, None)) == "removed card 1"


def test_cards_pools_and_ports() -> None:
    new = BASE.replace("card ase 1\n", "").replace("asp 1/1", "asp 1/2").replace("3/1", "3/2")
    assert [(kind, path) for kind, path, _ in changes(BASE, new)] == [
        ("changed", ("asp-pool", "p")),
        ("removed", ("card", 1)),
        ("removed", ("port", "3/1")),
        ("added", ("port", "3/2")),
    ]
