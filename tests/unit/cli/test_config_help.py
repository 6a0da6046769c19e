"""`?` and tab in configuration mode, and for names in every mode."""

from __future__ import annotations

from chassis.cli.commands import CONFIGURATION_WORDS
from chassis.cli.completion import END, MAX_HELP_NAMES
from chassis.config.grammar import MODES
from chassis.config.matcher import Keyword, compiled_grammar
from tests.unit.cli.test_config_mode import configuring, seated


def helped(rig_text: str) -> dict[str, str]:
    """The rows of help in what a `?` printed."""
    rows = rig_text.split("?\r\n", 1)[1].split("\r\n")[:-1]
    return {row[2:24].strip(): row[24:] for row in rows}


def test_help_of_a_mode_has_its_commands_and_those_of_every_mode() -> None:
    rig = configuring()
    rig.type("tunnel ipsec Tun-1\r")
    rows = helped(rig.type("?"))
    assert rows["mtu"] == "longest inner packet in bytes"
    assert rows["bind"] == "interface of the tunnel and its context"
    for word in ("no", "default", "commit", "abort", "exit", "end", "show"):
        assert rows[word], word
    assert "asp" not in rows
    assert "ike-policy" not in rows, "a manual tunnel has none"
    assert "clear" not in rows
    assert rig.type("\x15\r").endswith("(config-tunnel)#")


def test_help_of_a_word_that_only_a_mode_around_knows() -> None:
    rig = configuring()
    rig.type("context C1\rinterface TI-1\r")
    assert helped(rig.type("ipsec ?")) == {
        "access-list": "traffic to protect",
        "profile": "how the on-demand tunnel of this name protects traffic",
    }
    rig.type("\x15")
    assert "route" in helped(rig.type("ip ro?"))


def test_help_of_values_and_of_the_end() -> None:
    rig = configuring()
    rig.type("tunnel ipsec Tun-1\r")
    assert helped(rig.type("mtu ?")) == {"<256..16384>": "number from 256 to 16384"}
    assert helped(rig.type("300 ?")) == {END: "run the command"}
    rig.type("\x15")
    assert helped(rig.type("no m?")) == {"mtu": "longest inner packet in bytes"}
    assert helped(rig.type("tu ?")) == {"<256..16384>": "number from 256 to 16384", END: "run the command"}


def test_help_of_what_stands_before_a_command() -> None:
    rig = configuring()
    assert "tunnel" in helped(rig.type("no ?"))
    rig.type("\x15")
    rows = helped(rig.type("default ?"))
    assert "system" in rows
    assert "tunnel" not in rows, "it opens a mode: it has no default"


def test_tab_completes_commands_of_the_configuration() -> None:
    rig = configuring()
    assert rig.type("tun\tip\t") == "tunnel ipsec "
    rig.type("new\r")
    assert rig.type("peer\t") == "peer-end-point "
    rig.type("\x15")
    assert rig.type("d\t") == "d\a", "default and df-bit"
    rig.type("\x15")
    assert rig.type("default m\t") == "default mtu "
    rig.type("\x15")
    assert rig.type("sho\tver\t") == "show version "
    rig.type("\x15")
    assert rig.type("pre\t") == "pre\a"


def test_names_are_completed_from_what_is_in_force_and_from_the_candidate() -> None:
    rig = configuring()
    assert rig.type("tunnel ipsec T\t") == "tunnel ipsec Tun-"
    assert helped(rig.type("?")) == {"Tun-1": "", "Tun-2": ""}
    rig.type("\x15tunnel ipsec Tunnel-3\rexit\r")
    assert rig.type("no tunnel ipsec Tunn\t") == "no tunnel ipsec Tunnel-3 "
    rig.type("\x15tunnel ipsec Tun-1\r")
    assert rig.type("bind interface p\t") == "bind interface p\a"
    assert helped(rig.type("?")) == {"peer-1": "", "peer-2": "", "private-interface": ""}
    assert rig.type("r\tC\t") == "rivate-interface C1 "
    rig.type("\x15")
    rig.type("bind interface TI-1 C1\r")
    assert rig.type("seq 10 security-association sa-1 access-group a\t").endswith(" acl-C1 ")


def test_names_are_completed_in_exec_mode() -> None:
    rig = seated()
    assert rig.type("show tunnel ipsec name Tun\t\t") == "show tunnel ipsec name Tun-\a"
    rows = helped(rig.type("?"))
    assert rows == {"Tun-1": "", "Tun-2": ""}
    rig.type("\x15context L\t")
    assert helped(rig.type("?")) == {"L1": "", "L2": ""}
    assert rig.type("1\r").endswith("[L1]a#")
    # Names of what contexts have are those of the session's context.
    assert "no-such" not in helped(rig.type("show ipsec access-list ?"))
    rig.type("\x15context C1\r")
    assert "acl-C1" in helped(rig.type("show ipsec access-list ?"))


def test_ports_are_completed_where_a_value_is_one() -> None:
    rig = seated()
    assert rig.type("show port 3/\t") == "show port 3/1"
    assert helped(rig.type("?")) == {"3/1": "", "3/11": ""}
    rig.type("\x15")
    assert rig.type("clear counters tunnel T\t") == "clear counters tunnel Tun-"
    rig.type("\x15")
    assert rig.type("clear counters port 4\t") == "clear counters port 4/1 "
    rig = configuring()
    assert rig.type("port ethernet 4\t") == "port ethernet 4/1 "


def test_many_names_are_cut_off() -> None:
    rig = seated("".join(f"ipsec policy p{number:03}\n" for number in range(300)))
    rows = helped(rig.type("show ipsec policy p?"))
    assert len(rows) == MAX_HELP_NAMES + 1
    assert "..." in rows
    assert rig.type("\t") == "\a"
    assert rig.type("29\t") == "29\a"


def test_a_controller_that_is_away_leaves_keywords_and_the_candidate() -> None:
    rig = configuring()
    rig.type("tunnel ipsec mine\r")
    rig.hold = True
    rig.type("exit\rtunnel ipsec m?x")
    text = rig.reply({}, "the controller is away")
    assert helped(text) == {"mine": ""}
    assert text.endswith("tunnel ipsec mx")
    rig.type("\x15tunnel ipsec m\tlost")
    assert rig.type("\x03kept") == "^C\r\n[local]a(config)#kept"
    assert rig.reply({"names": ["m"], "more": False}) == ""


def test_words_that_begin_several_commands_have_help_of_their_own() -> None:
    variants = {"ike-policy": ("ikev1", "ikev2"), "tunnel": ("static", "on-demand", "manual")}
    for mode in MODES.keys() - {"exec"}:
        for variant in variants.get(mode, ("",)):
            begun: dict[str, set[str]] = {}
            for arc in compiled_grammar(mode, variant, False).start:
                command = arc.command
                if isinstance(arc, Keyword) and command.kind == "config" and command.does != "foreign":
                    begun.setdefault(arc.spelling, set()).add(command.id)
            several = {word for word, commands in begun.items() if len(commands) > 1}
            assert several <= CONFIGURATION_WORDS.keys(), mode
