"""What CLI sessions ask a controller: identity, objects, names, and commits of lines."""

from __future__ import annotations

import pytest

from chassis.xcrp.cli_commands import MAX_NAMES
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted


def node(text: str = HIGH_AVAILABILITY) -> Node:
    made = Node(text)
    made.start()
    made.run(1.0)
    return made


def test_a_router_is_named_by_its_node_until_its_configuration_names_it() -> None:
    router = node()
    before = router.ask("identity")
    assert before["hostname"] == "a"
    assert before["contexts"] == ["local", "C1", "L1", "L2"]
    made = router.ask("commit", lines="system hostname Redback\n", base=before["version"])
    assert made["applied"]
    after = router.ask("identity")
    assert after["hostname"] == "Redback"
    assert after["version"] == made["version"] > before["version"]


def test_an_object_comes_as_the_lines_that_make_it() -> None:
    router = node()
    found = router.ask("object", path=["tunnel", "Tun-1"])
    assert found["exists"]
    assert found["text"].splitlines()[0] == "tunnel ipsec Tun-1 manual"
    found = router.ask("object", path=["context", "C1", "interface", "TI-1"])
    assert found["text"] == "interface TI-1\n ip address 192.168.2.1/30\n"
    context = router.ask("object", path=["context", "L1"])
    assert context["text"] == "context L1\n asp-group G1 service security\n"
    assert router.ask("object", path=["card", "2"])["text"] == "card ase 2\n"


@pytest.mark.parametrize(
    "path",
    [["tunnel", "no"], ["context", "no", "interface", "x"], ["card", "x"], ["context", "C1", "interface", "x"]],
)
def test_an_object_that_is_not_there(path: list[str]) -> None:
    assert node().ask("object", path=path) == {"exists": False, "text": ""}


@pytest.mark.parametrize("path", [[], ["tunnel"], ["nothing", "x"], ["interface", "x"]])
def test_a_path_that_no_object_has(path: list[str]) -> None:
    with pytest.raises(LookupError, match="object"):
        node().ask("object", path=path)


def test_no_key_is_in_an_object() -> None:
    assert f"{301:040x}" not in node().ask("object", path=["security-association", "sa-1"])["text"]


def test_names_by_kind_context_and_prefix() -> None:
    router = node()
    assert router.ask("names", kind="tunnel") == {"names": ["Tun-1", "Tun-2"], "more": False}
    assert router.ask("names", kind="interface", context="C1", prefix="TI")["names"] == ["TI-1", "TI-2"]
    assert router.ask("names", kind="interface", context="nowhere")["names"] == []
    assert router.ask("names", kind="card")["names"] == ["2", "3", "4"]
    assert router.ask("names", kind="context", prefix="l")["names"] == ["local"]
    with pytest.raises(LookupError, match="no kind"):
        router.ask("names", kind="colour")


def test_names_are_bounded() -> None:
    router = node("".join(f"ipsec policy p{number}\n" for number in range(MAX_NAMES + 1)))
    found = router.ask("names", kind="ipsec-policy")
    assert len(found["names"]) == MAX_NAMES
    assert found["more"]


def test_lines_change_what_is_in_force() -> None:
    router = booted()
    made = router.ask("commit", lines="tunnel ipsec Tun-1\n mtu 300\n", base=1)
    assert made["applied"]
    assert [change["lines"] for change in made["changes"]] == [["+ mtu 300"]]
    assert " mtu 300\n" in router.ask("config")["text"]


def test_a_wrong_line_changes_nothing_and_is_named() -> None:
    router = booted()
    before = router.ask("config")
    made = router.ask("commit", lines="tunnel ipsec Tun-1\n mtu 300\n mtu 1\n", base=1)
    assert not made["applied"]
    assert [(found["line"], found["severity"]) for found in made["diagnostics"]] == [(3, "error")]
    assert router.ask("config") == before


def test_what_lines_would_change_is_shown_and_not_done() -> None:
    router = booted()
    before = router.ask("config")
    found = router.ask("candidate", lines="tunnel ipsec Tun-1\n mtu 300\nipsec policy new\n")
    assert found["difference"] == [
        "+ ipsec policy new",
        "  tunnel Tun-1",
        "+  mtu 300",
    ]
    assert router.ask("config") == before
