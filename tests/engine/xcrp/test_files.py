"""Files at the controller: save, the boot file, reload, and what a start reads."""

from __future__ import annotations

from math import inf

import pytest

from chassis.config.parser import parse
from chassis.config.render import render
from chassis.xcrp.journal import Journal
from tests.support.xcrp import HIGH_AVAILABILITY, Cut, Node, booted

BOOT = ("redback.cfg",)
PLAIN = "context C9\n interface I9\n!\n"
NO_KEYS = HIGH_AVAILABILITY.split("\ntunnel ipsec Tun-1")[0] + "\n"


def start(node: Node) -> None:
    """Start a controller, and pass the time in which it waits for cards."""
    node.start()
    node.run(10.0)


def contexts(node: Node) -> list[str]:
    return list(parse(node.ask("config")["text"], "x").config.contexts)


def test_saved_is_what_is_in_force_and_no_key_is_in_clear() -> None:
    node = booted()
    assert node.ask("boot") == {"file": "/flash/redback.cfg", "exists": False, "saved": False}
    answer = node.ask("save", user="ann")
    text = node.disk.flash[BOOT]
    assert answer == {"file": "/flash/redback.cfg", "exists": False, "octets": len(text)}
    assert "configuration saved to /flash/redback.cfg by ann" in node.events()
    assert node.ask("boot") == {"file": "/flash/redback.cfg", "exists": True, "saved": True}
    assert b"tunnel ipsec Tun-1 manual" in text
    for spi in (301, 302):
        assert f"{spi:032x}".encode() not in text
    node.ask("apply", text=NO_KEYS)
    assert not node.ask("boot")["saved"]


def test_an_existing_file_is_replaced_on_request_alone() -> None:
    node = booted(NO_KEYS)
    node.disk.flash["a.cfg",] = b"old"
    assert node.ask("save", file="a.cfg")["exists"]
    assert node.disk.flash["a.cfg",] == b"old"
    assert not node.ask("save", file="/flash/a.cfg", overwrite=True)["exists"]
    assert node.disk.flash["a.cfg",] == render(parse(NO_KEYS, "a").config, keys=False).encode()


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("save", {"file": "../a"}, "save: ../a is not a valid path on a local file system"),
        ("save", {"file": "/flash"}, "save: /flash is a folder"),
        ("save", {"file": "pki/local/keys/a.pem"}, "save: /flash/pki/local/keys/a.pem belongs to the PKI stores"),
        ("read-file", {"file": "/etc/passwd"}, "read-file: /etc/passwd is not a valid path"),
        ("read-file", {"file": "none"}, "Can't open /flash/none: No such file or directory"),
        ("read-file", {"file": "key.txt"}, "/flash/key.txt holds a private key"),
        ("read-file", {"file": "binary"}, "/flash/binary is not a text file"),
        ("delete-file", {"file": "none"}, "Can't open /flash/none"),
        ("copy-file", {"file": "none", "target": "x"}, "Can't open /flash/none"),
        ("copy-file", {"file": "binary", "target": "/pcmcia0/x"}, "copy-file: /pcmcia0: No such device"),
        ("files", {"path": "/pcmcia0"}, "files: /pcmcia0: No such device"),
    ],
)
def test_what_is_no_file_to_work_on_is_refused(command: str, arguments: dict[str, str], why: str) -> None:
    node = booted(NO_KEYS)
    node.disk.flash |= {
        ("key.txt",): b"-----BEGIN PRIVATE KEY-----\nMII\n",
        ("binary",): b"\xff\xfe",
        ("pki", "local", "keys", "a.pem"): b"key",
    }
    before = dict(node.disk.flash)
    with pytest.raises(LookupError) as refused:
        node.ask(command, **arguments)
    assert str(refused.value).startswith(why)
    assert node.disk.flash == before


def test_files_are_listed_read_copied_and_deleted() -> None:
    node = booted(NO_KEYS)
    node.disk.flash |= {("a.cfg",): b"one\r\ntwo\n", ("old", "b.cfg"): b""}
    answer = node.ask("files")
    assert answer["path"] == "/flash"
    assert [(row["name"], row["octets"], row["folder"]) for row in answer["files"]] == [
        ("a.cfg", 9, False), ("old", 0, False)
    ]  # fmt: skip
    assert node.ask("read-file", file="a.cfg") == {"file": "/flash/a.cfg", "text": "one\ntwo\n"}
    assert node.ask("copy-file", file="a.cfg", target="old/b.cfg")["exists"]
    copied = node.ask("copy-file", file="a.cfg", target="old/b.cfg", overwrite=True)
    assert copied == {"file": "/flash/a.cfg", "target": "/flash/old/b.cfg", "exists": False}
    node.ask("delete-file", file="a.cfg")
    assert node.disk.flash == {("old", "b.cfg"): b"one\r\ntwo\n"}


def test_a_full_disk_is_told_and_the_old_file_stays() -> None:
    node = booted(NO_KEYS)
    node.ask("save")
    before = dict(node.disk.flash)
    node.ask("apply", text=PLAIN)
    node.disk.room = 0
    with pytest.raises(LookupError, match=r"Can't write /flash/redback\.cfg: No space left on device"):
        node.ask("save", overwrite=True)
    assert node.disk.flash == before


# what a start reads (S-113)


def test_a_start_without_commits_reads_the_boot_file_and_else_the_file_of_the_lab() -> None:
    node = Node(NO_KEYS + "boot configuration b.cfg\n")
    node.disk.flash["b.cfg",] = PLAIN.encode()
    node.disk.flash[BOOT] = b"context C8\n"
    start(node)
    assert contexts(node) == ["local", "C9"]
    assert node.ask("status")["configuration"] == {"commit": 1, "file": "/flash/b.cfg", "differs": True}
    # From now on what was committed is read, whatever the flash has.
    node.disk.flash["b.cfg",] = b"context C7\n"
    node.kill_controller()
    start(node)
    assert contexts(node) == ["local", "C9"]
    other = Node(NO_KEYS)
    start(other)
    assert other.ask("status")["configuration"]["file"] == "a.cfg"


@pytest.mark.parametrize(
    ("line", "held", "told"),
    [
        ("boot configuration ../b.cfg", {}, "the boot file is not read: ../b.cfg is not a valid path"),
        ("", {BOOT: b"\xff"}, "the boot file is not read: /flash/redback.cfg is not a text file"),
    ],
)
def test_a_boot_file_that_can_not_be_read_is_told(
    line: str, held: dict[tuple[str, ...], bytes], told: str
) -> None:
    node = Node(f"{PLAIN}{line}\n")
    node.disk.flash |= held
    start(node)
    assert contexts(node) == ["local", "C9"]
    assert [row["text"] for row in node.ask("log")["records"] if row["text"].startswith(told)]


def test_a_reload_drops_what_was_not_saved_and_starts_every_process() -> None:
    node = booted(NO_KEYS)
    node.ask("save")
    node.ask("apply", text=PLAIN)
    assert node.ask("reload", user="ann") == {"file": "/flash/redback.cfg", "errors": 0}
    assert [output.request for output in node.launcher[-1:]] == ["reload"]
    assert "reload with /flash/redback.cfg by ann" in node.events()
    node.kill_controller()
    start(node)
    assert contexts(node) == ["local", "C1", "L1", "L2"]
    # What it dropped is still in the history of commits.
    texts = [commit.text for commit in Journal(node.state["journal"]).commits]
    assert len(texts) == 3
    assert PLAIN in texts


def test_a_reload_ends_a_commit_that_waits_to_be_confirmed() -> None:
    node = booted(NO_KEYS)
    node.ask("save")
    assert node.ask("commit", lines=PLAIN, user="ann", confirm=1)["applied"]
    assert node.ask("reload")["file"] == "/flash/redback.cfg"
    assert node.ask("commits")["open"] == {}
    node.run(120.0)
    node.kill_controller()
    start(node)
    assert contexts(node) == ["local", "C1", "L1", "L2"]


def test_a_reload_without_a_boot_file_reads_the_file_of_the_lab() -> None:
    node = booted(NO_KEYS)
    node.ask("apply", text=PLAIN)
    assert node.ask("reload")["file"] == "a.cfg"
    assert contexts(node) == ["local", "C1", "L1", "L2"]


def test_a_reload_leaves_lines_in_error_out_and_says_how_many() -> None:
    node = booted(NO_KEYS)
    node.disk.flash[BOOT] = f"{PLAIN}no such line at all\ncard ase 99\n".encode()
    node.ask("apply", text=NO_KEYS + "boot configuration redback.cfg\n")
    errors = node.ask("reload")["errors"]
    assert errors == sum(
        found.severity == "error" for found in parse(node.disk.flash[BOOT].decode(), "x").diagnostics
    )
    assert contexts(node) == ["local", "C9"]


def test_a_reload_that_can_not_be_stored_does_not_happen() -> None:
    node = booted(NO_KEYS)
    node.ask("save")
    node.ask("apply", text=PLAIN)
    node.full = True
    with pytest.raises(LookupError, match="No space left on device"):
        node.ask("reload")
    assert node.launcher[-1].request != "reload"
    assert contexts(node) == ["local", "C9"]


@pytest.mark.parametrize("command", ["save", "reload"])
def test_a_controller_killed_at_any_output_leaves_a_whole_configuration(command: str) -> None:
    whole = {name: render(parse(text, "x").config) for name, text in (("new", PLAIN), ("old", NO_KEYS))}
    for outputs in range(30):
        node = booted(NO_KEYS)
        node.ask("save")
        node.ask("apply", text=PLAIN)
        node.budget = outputs
        try:
            node.ask(command, **({"overwrite": True} if command == "save" else {}))
            ended = True
        except Cut:
            ended = False
        node.budget = inf
        node.kill_controller()
        start(node)
        assert node.ask("config")["text"] in whole.values()
        assert node.disk.flash[BOOT].decode() in whole.values()
        if ended:
            done = node.disk.flash[BOOT].decode() if command == "save" else node.ask("config")["text"]
            assert done == whole["new" if command == "save" else "old"]
            assert outputs > 1
            return
    raise AssertionError(f"{command} takes more than 30 outputs")


# cards


def test_a_reload_of_a_card_or_an_asp_asks_the_launcher_for_its_processes() -> None:
    node = booted()
    assert node.ask("reload-card", slot=2, user="ann") == {"cards": ["asp 2/1", "asp 2/2"]}
    assert [output.values["card"] for output in node.launcher if output.request == "restart"] == [
        "asp 2/1",
        "asp 2/2",
    ]
    assert "asp 2/1: reload by ann" in node.events()
    node.launcher.clear()
    assert node.ask("reload-asp", asp="2/2") == {"cards": ["asp 2/2"]}
    assert [output.values for output in node.launcher if output.request == "restart"] == [{"card": "asp 2/2"}]
    assert node.ask("reload-card", slot=4) == {"cards": ["lc 4"]}
    with pytest.raises(LookupError, match="reload-card: no card in slot 9 has a process"):
        node.ask("reload-card", slot=9)
    with pytest.raises(LookupError, match="reload-asp: no asp 4/1; there are: asp 2/1, asp 2/2"):
        node.ask("reload-asp", asp="4/1")


def test_a_cleared_log_is_empty() -> None:
    node = booted(HIGH_AVAILABILITY + "card ase 99\n")
    held = len(node.ask("log")["records"])
    assert held
    assert node.ask("clear-log") == {"cleared": held}
    assert node.ask("log")["records"] == []


def test_what_was_saved_loads_again_with_the_keys_of_its_router() -> None:
    node = booted()
    clear = node.ask("config", keys=True)["text"]
    node.ask("save")
    node.ask("apply", text=NO_KEYS)
    assert node.ask("reload")["errors"] == 0
    assert node.ask("config", keys=True)["text"] == clear
    # Without its commits the router starts with the file.
    node.kill_controller()
    del node.state["journal"]
    start(node)
    assert node.ask("status")["configuration"]["file"] == "/flash/redback.cfg"
    assert node.ask("config", keys=True)["text"] == clear
