"""Modes: a line finds its mode by itself, in files and in transcripts."""

from __future__ import annotations

import pytest

from chassis.config.parser import Parsed, Parser, parse
from chassis.model.router import LOCAL, Config


def errors(parsed: Parsed) -> list[tuple[int, str]]:
    return [(d.line, d.code) for d in parsed.diagnostics if d.severity == "error"]


def test_an_empty_file_is_an_empty_router() -> None:
    assert parse("").config == Config()
    assert parse("\n! only a remark\n   ! another\n").diagnostics == ()
    assert set(Config().contexts) == {LOCAL}


def test_a_line_climbs_to_the_mode_that_knows_it() -> None:
    parsed = parse(
        "context a\n  interface x\n    ip address 1.1.1.1/24\n    ip route 2.0.0.0/8 1.1.1.2\n"
        "    interface y\ncontext b\nasp pool p service security\nasp 1/1\nasp pool q service security\nasp 1/2\n"
    )
    assert errors(parsed) == []
    config = parsed.config
    assert set(config.contexts) == {LOCAL, "a", "b"}
    assert set(config.contexts["a"].interfaces) == {"x", "y"}
    assert config.contexts["a"].routes[0].next_hop == "1.1.1.2"
    assert (config.pools["p"].asps, config.pools["q"].asps) == (("1/1",), ("1/2",))


def test_indentation_does_not_decide() -> None:
    flat = parse("context a\ninterface x\nip address 1.1.1.1/24\nipsec policy p\nseq 1 proposal q\n")
    deep = parse("context a\n\t interface x\n\t\tip address 1.1.1.1/24\nipsec policy p\n      seq 1 proposal q\n")
    assert flat.config == deep.config
    assert errors(flat) == []


def test_an_ipsec_line_under_a_tunnel_is_the_global_one() -> None:
    parsed = parse("tunnel ipsec t\n ike policy p\n ipsec policy q\n seq 1 proposal r\n")
    assert parsed.config.tunnels["t"].ike_policy == "p"
    assert parsed.config.ipsec_policies["q"].proposals[0].name == "r"


def test_a_window_in_a_direction_belongs_to_the_sa() -> None:
    sa = parse(
        "ipsec security-association s\n in\n  esp spi 300\n  anti-replay-window 128\n out\n"
    ).config.manual_sas["s"]
    assert sa.window == 128
    assert sa.inbound is not None
    assert sa.inbound.esp_spi == 300
    assert sa.outbound is not None


def test_logging_under_an_interface_is_the_contexts_and_the_last_counts() -> None:
    context = parse("context a\n interface x\n  logging console\n no logging console\n").config.contexts["a"]
    assert context.logging_console is False


def test_exit_leaves_one_mode() -> None:
    parsed = parse("context a\n interface x\n  exit\n exit\nexit\ncontext b\ninterface y\nexit\ninterface z\n")
    assert errors(parsed) == []
    assert set(parsed.config.contexts["b"].interfaces) == {"y", "z"}


def test_end_ends_the_file() -> None:
    parsed = parse("context a\nend\nthis is not read\n")
    assert set(parsed.config.contexts) == {LOCAL, "a"}
    assert parsed.diagnostics == ()


@pytest.mark.parametrize("word", ["config", "configure", "conf"])
def test_config_at_the_top_is_ignored(word: str) -> None:
    assert parse(f"{word}\ncontext a\ncommit\nend\n").config == parse("context a\n").config
    assert errors(parse(f"{word}\n")) == []
    assert errors(parse(f"context a\n{word}\n")) == [(2, "misplaced")]


def test_reentering_an_object_adds_to_it() -> None:
    parsed = parse(
        "tunnel ipsec t manual\n mtu 300\ncontext a\n interface x loopback\n  ip address 1.1.1.1/32\n"
        "tunnel ipsec t\n df-bit set\ncontext a\n interface x\n"
    )
    assert errors(parsed) == []
    tunnel = parsed.config.tunnels["t"]
    assert (tunnel.kind, tunnel.mtu, tunnel.df_bit) == ("manual", 300, "set")
    assert parsed.config.contexts["a"].interfaces["x"].kind == "loopback"


def test_keywords_may_be_short_and_in_any_case() -> None:
    parsed = parse(
        "Context a\n INT x LOOP\n  ip addr 1.1.1.1/32\ntun ips t man eco\n peer local 1.1.1.1 rem 2.2.2.2 con a\n"
    )
    assert errors(parsed) == []
    tunnel = parsed.config.tunnels["t"]
    assert (tunnel.kind, tunnel.economical, tunnel.context) == ("manual", True, "a")


@pytest.mark.parametrize("prompt", [
    "[local]Redback(config)#", "[local]Redback(context)#", "[local]Redback#(config)", "[local]Redback (config)#",
    "[local]Redback(config-ctx)##", "[local]Redback(config-ipsec-sa) #", "[local]Redback#", "[local]Redback>",
    "(config-if)#", "config-if)#", "(cfg-ipsec-profile)#", "#",
])  # fmt: skip
def test_prompts_are_dropped_and_columns_kept(prompt: str) -> None:
    parsed = parse(f"{prompt}context a\n{prompt}frob\n{prompt}\n{prompt}interface x\n")
    assert set(parsed.config.contexts["a"].interfaces) == {"x"}
    assert [(d.line, d.column, d.name) for d in parsed.diagnostics] == [(2, len(prompt) + 1, "frob")]


def test_line_ends_of_any_system() -> None:
    assert parse("context a\r\n interface x\r\n").config == parse("context a\n interface x\n").config


def test_lines_can_change_a_configuration_that_stands() -> None:
    before = parse("context a\n interface x\n  ip address 1.1.1.1/24\ntunnel ipsec t manual\n mtu 300\n").config
    after = parse("tunnel ipsec t\n no mtu\ncontext a\n no interface x\n", config=before).config
    assert after.tunnels["t"].mtu is None
    assert not after.contexts["a"].interfaces
    assert before.tunnels["t"].mtu == 300
    assert "x" in before.contexts["a"].interfaces


def test_reading_tells_its_mode() -> None:
    reading = Parser()
    modes = []
    for line in ("context a", "interface x", "ip route 0.0.0.0/0 x", "end"):
        reading.read_line(line)
        modes.append(reading.mode)
    assert modes == ["context", "interface", "context", "context"]
    assert reading.ended
    assert len(reading.config().contexts["a"].routes) == 1
