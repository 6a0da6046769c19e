"""`configure FILE`, with a controller's engine and its flash behind it."""

from __future__ import annotations

from chassis.cli.configure_file import SLICE
from chassis.cli.session import Ask, Wake
from tests.support.cli import CliRig, of_node
from tests.support.xcrp import HIGH_AVAILABILITY, Node
from tests.unit.cli.test_config_mode import GREETING, said, shown


def with_file(text: str, running: str = HIGH_AVAILABILITY) -> CliRig:
    """A session at a router whose flash has the file a.cfg."""
    node = Node(running)
    node.disk.flash["a.cfg",] = text.encode()
    node.start()
    node.run(1.0)
    rig = CliRig(of_node(node), length=0)
    rig.start(named=True)
    return rig


def test_a_file_is_merged_into_the_candidate_and_waits_for_a_commit() -> None:
    rig = with_file("tunnel ipsec Tun-1\n  mtu 300\nsystem hostname core\n")
    before = shown(rig)
    assert said(rig, "configure a.cfg") == [GREETING, "[local]a(config)#"]
    assert shown(rig) == before
    assert "+ system hostname core" in said(rig, "show configuration candidate")
    assert said(rig, "commit") == ["Transaction committed", "[local]core(config)#"]
    assert "tunnel ipsec Tun-1 manual\n" in shown(rig)
    assert " mtu 300\n" in shown(rig)


def test_an_end_in_the_file_commits_and_what_follows_is_not_read() -> None:
    rig = with_file("Current configuration:\n!\nsystem hostname core\nend\nsystem hostname other\n")
    assert said(rig, "configure /flash/a.cfg") == ["Transaction committed", "[local]core#"]


def test_an_error_discards_all_of_it_and_names_every_line() -> None:
    rig = with_file("system hostname core\ntunnel ipsec Tun-1\n  mtu 1\n  df-bit up\nend\n")
    before = shown(rig)
    assert said(rig, "configure a.cfg") == [
        "% Error: line 3, `mtu 1`: 1 is not from 256 to 16384",
        "% Error: line 4, `df-bit up`: expected propagate, set, clear",
        "% Error: nothing of a.cfg is taken",
        "[local]a#",
    ]
    assert shown(rig) == before


def test_lines_that_no_mode_knows_are_kept_as_in_every_file() -> None:
    rig = with_file("context C1\n frobnicate all\n  deeper x\n interface TI-9\nend\n")
    printed = said(rig, "configure a.cfg")
    assert printed[0] == (
        "% Warning: line 2, `frobnicate`: `frobnicate` is not a command here: kept without effect"
    )
    assert printed[-2:] == ["Transaction committed", "[local]a#"]
    assert " frobnicate all\n  deeper x\n" in shown(rig)
    assert " interface TI-9\n" in shown(rig)


def test_what_is_typed_after_a_file_begins_at_the_top() -> None:
    rig = with_file("port ethernet 3/5\n dot1q pvc 7\n  bind interface x local\n")
    assert said(rig, "configure a.cfg")[-1] == "[local]a(config)#"
    rig.type("port ethernet 3/6\rno shutdown\rbind interface TI-1 C1\rend\r")
    text = shown(rig)
    assert "port ethernet 3/5\n dot1q pvc 7\n  bind interface x local\n" in text
    assert "port ethernet 3/6\n no shutdown\n bind interface TI-1 C1\n" in text


def test_an_existing_object_is_checked_as_it_is() -> None:
    rig = with_file("tunnel ipsec Tun-1\n  ike-policy p\n")
    printed = said(rig, "configure a.cfg")
    assert printed[0].startswith("% Error: line 2, `ike-policy`: `ike-policy` is valid only in a static tunnel")


def test_a_file_that_is_not_there() -> None:
    rig = with_file("")
    assert said(rig, "configure none.cfg")[0].startswith("% Error: Can't open /flash/none.cfg")
    assert rig.type("\r").endswith("[local]a#")


def test_no_key_of_a_file_is_printed() -> None:
    rig = with_file("context L1\n ike policy p\n  pre-shared-key hex xyz-secret\nfoo very-secret-key\n")
    assert "secret" not in "".join(said(rig, "configure a.cfg"))


def test_a_long_file_comes_in_slices_and_can_be_given_up() -> None:
    lines = "".join(f"ipsec policy p{number}\n" for number in range(2 * SLICE))
    rig = with_file(lines)
    session, actions = rig.session, rig.session.receive(b"configure a.cfg\r", 10.0)
    wakes = 0
    while not wakes:
        (ask,) = [action for action in actions if isinstance(action, Ask)]
        assert rig.controller is not None
        actions = session.answer(ask.number, rig.controller(ask.command, ask.arguments), "", 10.0)
        wakes = sum(isinstance(action, Wake) for action in actions)
    assert b"".join(action.text for action in session.receive(b"\x03", 11.0) if hasattr(action, "text")) == (
        b"^C\r\n[local]a#"
    )
    assert session.on_timer(12.0) == []
    assert said(rig, "configure a.cfg") == [GREETING, "[local]a(config)#"]
    assert said(rig, "commit")[0] == "Transaction committed"
    assert shown(rig).count("ipsec policy p") == 2 * SLICE
