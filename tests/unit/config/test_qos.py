"""QoS policies of ports and rates of pools: what is read, refused, printed, compared, and kept without effect."""

from __future__ import annotations

import pytest

from chassis.config.difference import difference
from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from chassis.config.validate import check, check_change
from chassis.model.qos import DSCPS

POLICY = "qos policy up policing\n {line}\n"


def errors(parsed: Parsed) -> list[tuple[int, str]]:
    return [(one.line, one.code) for one in parsed.diagnostics if one.severity == "error"]


def descriptor(line: str) -> int | None:
    parsed = parse(POLICY.format(line=line))
    assert errors(parsed) == []
    again = parse(render(parsed.config))
    assert again.config == parsed.config
    return parsed.config.policing_policies["up"].descriptor


@pytest.mark.parametrize("name", DSCPS)
def test_a_dscp_by_name_and_by_number(name: str) -> None:
    assert descriptor(f"mark dscp {name}") == descriptor(f"mark dscp {DSCPS[name]}") == DSCPS[name]


def test_values_of_dscp_have_their_names() -> None:
    """RFC 4594 3: class selectors, assured and expedited forwarding."""
    assert {name: DSCPS[name] for name in ("cs7", "cs1", "af11", "af13", "af41", "af43", "ef", "df")} == {
        "cs7": 56, "cs1": 8, "af11": 10, "af13": 14, "af41": 34, "af43": 38, "ef": 46, "df": 0,
    }  # fmt: skip
    text = render(parse(POLICY.format(line="mark dscp 46")).config)
    assert " mark dscp ef\n" in text
    assert " mark dscp 47\n" in render(parse(POLICY.format(line="mark dscp 47")).config)
    assert " mark dscp cs0\n" in render(parse(POLICY.format(line="mark dscp df")).config)


def test_a_priority_is_a_class_selector_from_the_other_end() -> None:
    assert [descriptor(f"mark priority {number}") for number in range(8)] == [56, 48, 40, 32, 24, 16, 8, 0]


@pytest.mark.parametrize("line", ["mark dscp 64", "mark dscp ef1", "mark priority 8", "mark dscp", "mark cos 3"])
def test_wrong_marks_are_refused(line: str) -> None:
    assert [at for at, _ in errors(parse(POLICY.format(line=line)))] == [2]


def test_the_last_mark_counts_and_no_mark_takes_it_away() -> None:
    assert descriptor("mark priority 0\n mark dscp af11") == 10
    assert descriptor("mark dscp ef\n mark priority 7") == 0
    assert descriptor("mark dscp ef\n no mark") is None
    assert descriptor("mark dscp ef\n no mark dscp") is None


def test_the_other_lines_of_a_policy_are_kept_with_what_is_below_them() -> None:
    text = (
        "qos policy up policing\n mark dscp ef\n rate 1000 burst 9000\n  exceed drop\n class voice\n"
        "  mark dscp cs6\n access-group classes local\n  class rest\n   rate 10 burst 100\n"
    )
    parsed = parse(text)
    assert {one.severity for one in parsed.diagnostics} == {"warning"}
    assert parsed.config.policing_policies["up"].descriptor == 46, "a class has no effect on the others"
    printed = render(parsed.config)
    assert text in printed
    assert parse(printed).config == parsed.config
    flat = parse("\n".join(line.strip() for line in text.splitlines()))
    assert flat.config.policing_policies["up"].descriptor == 46


def test_policies_of_other_kinds_are_kept_whole() -> None:
    text = "qos policy a metering\n mark dscp ef\nqos policy b policing radius-guided\n mark dscp ef\n"
    parsed = parse(text)
    assert errors(parsed) == []
    assert parsed.config.policing_policies == {}
    assert text in render(parsed.config)


def test_a_policy_after_a_port_is_not_a_line_of_the_port() -> None:
    """`qos policy pol policing` of a file without indentation, where `pol` could be short for `policing`."""
    parsed = parse("card ether-12-port 3\nport ethernet 3/1\nqos policy pol policing\nmark dscp ef\n")
    assert parsed.diagnostics == ()
    assert parsed.config.ports["3/1"].policing_policy is None
    assert parsed.config.policing_policies["pol"].descriptor == 46
    bound = parse("card ether-12-port 3\nport ethernet 3/1\n qos policy pol up\nqos policy up policing\n").config
    assert bound.ports["3/1"].policing_policy == "up"


@pytest.mark.behaviour("B-139")
@pytest.mark.parametrize("kind", ["", " economical", " on-demand", " on-demand economical", " manual"])
def test_each_kind_of_tunnel_takes_a_policy_of_queues(kind: str) -> None:
    """On-demand tunnels stay down; their policy is kept with them."""
    text = f"ipsec qos policy four pq\n num-queues 4\ntunnel ipsec t{kind}\n qos policy queuing four\n"
    parsed = parse(text)
    assert [one.code for one in parsed.diagnostics if one.severity == "error"] == []
    assert parsed.config.tunnels["t"].qos_policy == "four"
    assert " qos policy queuing four\n" in render(parsed.config)


def test_a_policy_that_does_not_exist_is_warned_of_until_it_does() -> None:
    lines = "card ether-12-port 3\nport ethernet 3/1\n qos policy policing up acl-counters\n"
    before = parse(lines)
    assert [(one.line, one.code, one.name) for one in before.diagnostics] == [(3, "S-039", "up")]
    assert " qos policy policing up acl-counters\n" in render(before.config)
    after = parse(lines + "qos policy up policing\n")
    assert after.diagnostics == ()
    found = check_change(after.config, before.config)
    assert [(one.code, one.name) for one in found.found] == [("S-039", "up")]
    assert check(after.config)[1] == ()


def test_a_changed_mark_is_a_difference_of_its_policy() -> None:
    one, two = (parse(POLICY.format(line=f"mark dscp {name}")).config for name in ("ef", "cs1"))
    (change,) = difference(one, two)
    assert change.path == ("policing-policy", "up")
    assert change.lines == ("- mark dscp ef", "+ mark dscp cs1")


@pytest.mark.parametrize("rate", ["50M", "20kpps", "1500000", "1.5Gbit"])
def test_the_rate_of_a_pool(rate: str) -> None:
    parsed = parse(f"asp pool p service security\n asp 1/1\n rate {rate}\n")
    assert parsed.diagnostics == ()
    assert parsed.config.pools["p"].rate == rate
    assert f" rate {rate}\n" in render(parsed.config)
    assert parse(render(parsed.config)).config == parsed.config
    assert parse(f"asp pool p service security\n rate {rate}\n no rate\n").config.pools["p"].rate is None


@pytest.mark.parametrize("rate", ["0", "fast", "-1", "20kppss", "inf", "nan", "1e999"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    parsed = parse(f"asp pool p service security\n asp 1/1\n rate {rate}\n")
    assert [at for at, _ in errors(parsed)] == [3]
