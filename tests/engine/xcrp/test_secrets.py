"""The secret of a router at its controller: what it prints, who exports it, and what another router reads."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.cli.commands import REQUESTS
from chassis.config.secrets import CHARACTERS, SECRET_FILE, RouterSecret
from chassis.model.ike import PreSharedKey
from chassis.xcrp.journal import JOURNAL
from tests.support import CONFIGS
from tests.support.cli_node import NodeRig
from tests.support.configurations import SECRET
from tests.support.exec_forms import EXAMPLES, show_lines
from tests.support.xcrp import Node

OTHER = RouterSecret(("secret-of-another-router",))
TEXT = (CONFIGS / "manual-keys" / "a.cfg").read_text()
KEY = TEXT.split(" key 0x")[1].split()[0]


def booted(text: str, secret: RouterSecret = SECRET, settings: dict[str, Any] | None = None) -> Node:
    node = Node(text, state={SECRET_FILE: secret.write()}, settings=settings)
    node.boot_all()
    return node


def logged(node: Node) -> list[str]:
    return [record["text"] for record in node.ask("log")["records"]]


def test_keys_are_clear_on_request_alone_and_the_log_says_so() -> None:
    node = booted(TEXT)
    before = logged(node)
    printed = node.ask("config")["text"]
    assert KEY not in printed
    assert logged(node) == before
    assert KEY in node.ask("config", keys=True)["text"]
    assert logged(node)[len(before) :] == ["the configuration was printed with clear keys"]


def test_what_one_router_prints_is_in_force_in_the_next_with_the_same_secret() -> None:
    one = booted(TEXT)
    printed = one.ask("config")["text"]
    two = booted(printed)
    assert two.ask("config") == one.ask("config") | {"changed": two.ask("config")["changed"]}
    assert two.ask("config", keys=True)["text"] == one.ask("config", keys=True)["text"]
    # Nothing differs, so a commit of it changes nothing; and the journal of the second has what it was given.
    assert one.ask("apply", text=printed)["changes"] == []
    assert KEY.encode() not in two.state[JOURNAL]


def test_the_secret_is_exported_with_a_log_line_and_makes_another_router_read() -> None:
    one = booted(TEXT)
    exported = one.ask("secret")
    assert exported == {"secret": SECRET.texts[0], "name": SECRET.name}
    assert logged(one)[-1] == f"the secret of the router, named {SECRET.name}, was exported"
    assert SECRET.texts[0] not in "".join(logged(one))
    printed = one.ask("config")["text"]
    other = booted(TEXT, OTHER)
    answer = other.ask("apply", text=printed, file="a.cfg")
    assert not answer["applied"]
    assert {found["code"] for found in answer["diagnostics"] if found["severity"] == "error"} == {"encrypted"}
    other.kill_controller()
    other.state[SECRET_FILE] = RouterSecret((*OTHER.texts, exported["secret"])).write()
    other.start()
    other.run(2)
    assert other.ask("apply", text=printed, file="a.cfg")["applied"]


def test_a_router_without_a_secret_shows_no_key_and_reads_none() -> None:
    printed = booted(TEXT).ask("config")["text"]
    node = Node(TEXT, state={SECRET_FILE: b"short\n"})
    node.boot_all()
    assert "  esp encryption aes-128-cbc key ***\n" in node.ask("config")["text"]
    assert KEY not in node.ask("config")["text"]
    with pytest.raises(LookupError, match="has no secret"):
        node.ask("secret")
    answer = node.ask("apply", text=printed)
    assert not answer["applied"]
    assert "this router has none" in answer["diagnostics"][0]["message"]
    assert any("file of the secret is wrong" in event["text"] for event in node.ask("events")["events"])


def test_a_start_with_another_secret_leaves_the_lines_out_and_says_so() -> None:
    printed = booted(TEXT).ask("config")["text"]
    node = booted(printed, OTHER)
    status = node.ask("status")
    assert status["diagnostics"]["error"] == printed.count(" encrypted 1 ")
    assert any("was encrypted under the secret named" in text for text in logged(node))


def test_a_changed_key_shows_both_encrypted_forms_and_no_key() -> None:
    node = booted(TEXT)
    changed = TEXT.replace(KEY, KEY[::-1], 1)
    answer = node.ask("apply", text=changed, dry=True)
    (change,) = answer["changes"]
    gone, come = change["lines"]
    assert " key encrypted 1 " in gone
    assert " key encrypted 1 " in come
    assert gone[2:] != come[2:]
    assert KEY not in str(answer)
    assert KEY[::-1] not in str(answer)


@pytest.mark.parametrize("refuse", [False, True])
def test_a_key_of_the_wrong_length_is_in_no_log(refuse: bool) -> None:
    digits = "0fa20fa20fa20fa2"
    text = TEXT + f"ipsec security-association wrong\n both\n  ah hmac-md5-96 hex {digits}\n"
    node = booted(text, settings={"refuse-errors": refuse})
    said = logged(node) + [event["text"] for event in node.ask("events")["events"]]
    assert any("hmac-md5-96 needs 16" in one for one in said)
    assert digits not in "".join(said)


def test_a_session_can_ask_for_no_clear_key() -> None:
    assert "config" in REQUESTS
    assert not {"secret", "keys"} & REQUESTS
    node = booted(TEXT)
    before = logged(node)
    for line in show_lines({**EXAMPLES, "name": "circuit-keys"}):
        if line.startswith(("show configuration", "show ipsec", "show ike")):
            NodeRig(node, context="lan").run(line)
    assert logged(node) == before


def session(node: Node) -> NodeRig:
    rig = NodeRig(node, length=0)
    rig.start(named=True)
    for line in ("configure", "context lan", "ike policy typed"):
        rig.type(f"{line}\r")
    return rig


def test_a_typed_key_is_shown_encrypted_and_by_no_way_in_clear() -> None:
    node = booted(TEXT)
    rig = session(node)
    rig.type("pre-shared-key TypedByAnOperator\r")
    said = [rig.type(f"{line}\r") for line in ("show configuration candidate", "show history")]
    said += [rig.type("\x10"), rig.type("\x10"), rig.type("\x10\x03")]
    said += [rig.type(f"{line}\r") for line in ("commit", "show configuration", "end", "show history")]
    form = SECRET.encrypt(CHARACTERS, b"TypedByAnOperator")
    assert f"pre-shared-key encrypted 1 {form}\r\n" in said[0]
    assert "Transaction committed" in said[5]
    assert f"pre-shared-key encrypted 1 {form}\r\n" in said[6]
    assert "TypedByAnOperator" not in "".join(said)
    assert b"TypedByAnOperator" in node.state[JOURNAL]
    # The journal alone has it, and gives it back to the next controller.
    node.kill_controller()
    node.start()
    node.run(2)
    assert "  pre-shared-key TypedByAnOperator\n" in node.ask("config", keys=True)["text"]


def test_an_encrypted_form_is_typed_as_it_was_printed() -> None:
    node = booted(TEXT)
    form = SECRET.encrypt(CHARACTERS, b"SharedSecretOfTwo")
    rig = session(node)
    assert "% " not in rig.type(f"pre-shared-key encrypted 1 {form}\r")
    assert "Transaction committed" in rig.type("commit\r")
    policy = node.controller.state.config.contexts["lan"].ike_policies["typed"] if node.controller else None
    assert policy is not None
    assert policy.pre_shared_key == PreSharedKey("ascii", b"SharedSecretOfTwo")
    # Only the router knows whether it can read it: the commit says so, and changes nothing.
    rig.type(f"pre-shared-key encrypted 1 {OTHER.encrypt(CHARACTERS, b'SharedSecretOfTwo')}\r")
    said = rig.type("commit\r")
    assert f"encrypted under the secret named {OTHER.name}" in said
    assert "Transaction committed" not in said
    assert node.controller is not None
    assert node.controller.state.config.contexts["lan"].ike_policies["typed"] == policy
    # What cannot be such a text at all is refused at the caret.
    assert "% " in rig.type("pre-shared-key encrypted 1 NotPrintedByARouter\r")


@pytest.mark.parametrize(("command", "name"), [("apply", "text"), ("commit", "lines"), ("candidate", "lines")])
def test_a_refused_text_is_not_quoted(command: str, name: str) -> None:
    node = booted(TEXT)
    with pytest.raises(
        LookupError, match=f"argument '{name}' is a text, not a text of up to .*character 30 is NUL"
    ):
        node.ask(command, **{name: f"pre-shared-key {KEY[:14]}\0"})
