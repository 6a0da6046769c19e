"""Transactions: commits of lines, conflicts, commits that must be confirmed, the history and going back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from chassis.xcrp import commits
from chassis.xcrp import journal as journals
from chassis.xcrp.journal import JOURNAL, Journal
from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, Cut, Node, booted, sa

KEY = "SecretWord0815"

TUN_3 = """
tunnel ipsec Tun-3 manual economical
peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1
bind interface TI-3 C1
seq 10 security-association sa-3
context C1
interface TI-3
ip address 192.168.4.1/30
""" + "".join(f"{line.strip()}\n" for line in sa("sa-3", 303).splitlines())
"""As typed: no blanks before the lines."""


def commit(node: Node, lines: str, user: str = "ann", **more: Any) -> dict[str, Any]:
    """A commit of lines that were begun on what is in force now."""
    base = more.pop("base", node.ask("identity")["version"])
    return node.ask("commit", lines=lines, user=user, base=base, **more)


def refusal(node: Node, lines: str, user: str = "bob", **more: Any) -> str:
    with pytest.raises(LookupError) as found:
        commit(node, lines, user, **more)
    return str(found.value)


def mtu(node: Node, value: int, tunnel: str = "Tun-1", **more: Any) -> dict[str, Any]:
    return commit(node, f"tunnel ipsec {tunnel}\nmtu {value}\n", **more)


def mtus(node: Node) -> list[str]:
    return [line.strip() for line in text(node).splitlines() if line.strip().startswith("mtu")]


def text(node: Node, keys: bool = False) -> str:
    """The configuration in force."""
    return str(node.ask("config", keys=keys)["text"])


def restart(node: Node) -> None:
    node.kill_controller()
    node.start()
    node.run(0.3)


def record(node: Node) -> dict[str, Any]:
    """The journal's last line."""
    value: dict[str, Any] = json.loads(node.state[JOURNAL].splitlines()[-1])
    return value


# --- commits of lines ---


def test_lines_are_put_in_force_and_written_as_they_are() -> None:
    node = booted()
    size = len(node.state[JOURNAL])
    done = commit(node, TUN_3, comment="a third tunnel")
    assert (done["applied"], done["version"], done["diagnostics"]) == (True, 2, [])
    node.run(0.1)
    assert {row["name"]: row["up"] for row in node.ask("status")["tunnels"]} == {
        "Tun-1": True,
        "Tun-2": True,
        "Tun-3": True,
    }
    written = record(node)
    assert (written["lines"], written["user"], written["comment"]) == (TUN_3, "ann", "a third tunnel")
    assert written["time"] == pytest.approx(node.now + node.wall_offset, abs=1.0)
    assert ["tunnel", "Tun-3"] in written["changed"]
    assert "text" not in written
    assert len(node.state[JOURNAL]) - size < len(TUN_3) + 500
    before = text(node)
    restart(node)
    assert text(node) == before
    assert node.keys_of("asp 2/1") == {"sa-1", "sa-3"}


def test_every_reason_is_told_with_its_line_and_nothing_changes() -> None:
    node = booted()
    before, journal = text(node), node.state[JOURNAL]
    lines = (
        "tunnel ipsec Tun-1\nmtu 1300\nmtu 1\nnonsense word\ncontext C1\nip route 9.0.0.0/8 TI-1 cost many\n"
        "ipsec proposal p\nesp encryption null\n"
    )
    done = commit(node, lines)
    assert (done["applied"], done["changes"], done["version"]) == (False, [], 1)
    wrong = [(found["line"], found["code"]) for found in done["diagnostics"] if found["severity"] == "error"]
    assert [line for line, _ in wrong] == [3, 4, 6, 8]
    assert (4, "unknown") in wrong
    assert (8, "S-033") in wrong
    assert (text(node), node.state[JOURNAL]) == (before, journal)


def test_an_unknown_line_is_refused_where_it_was_typed_and_kept_from_a_file() -> None:
    node = booted()
    lines = f"magic word {KEY}\nsub line {KEY}\n"
    done = commit(node, lines)
    assert not done["applied"]
    assert [(found["name"], found["line"]) for found in done["diagnostics"]] == [("magic", 1), ("sub", 2)]
    assert KEY not in json.dumps(done)
    done = commit(node, lines, file="part.cfg")
    assert done["applied"]
    assert {found["severity"] for found in done["diagnostics"]} == {"warning"}
    assert f"magic word {KEY}" in text(node)


def test_a_line_of_another_part_of_the_router_may_be_typed() -> None:
    node = booted()
    done = commit(node, "context C1\nrouter ospf 1\n")
    assert done["applied"]
    restart(node)
    assert "router ospf 1" in text(node)


def test_a_commit_tells_only_what_its_lines_bring_about() -> None:
    text = HIGH_AVAILABILITY + "context C9\n  asp-group G9 service security\n"
    node = booted(text, *HA_PORTS)
    assert node.ask("status")["diagnostics"]["warning"] == 1
    done = mtu(node, 1300)
    assert done["diagnostics"] == []
    assert node.ask("status")["diagnostics"]["warning"] == 1
    done = commit(node, "no ipsec security-association sa-1\n")
    assert done["applied"]
    assert [(found["code"], found["name"], found["line"]) for found in done["diagnostics"]] == [
        ("S-039", "sa-1", 0)
    ]
    assert node.ask("status")["diagnostics"]["warning"] == 2
    restart(node)
    assert node.ask("status")["diagnostics"]["warning"] == 2
    commit(node, "no context C9\n")
    assert node.ask("status")["diagnostics"]["warning"] == 1


def test_lines_without_a_difference_are_no_commit() -> None:
    node = booted()
    journal = node.state[JOURNAL]
    done = commit(node, "tunnel ipsec Tun-1\nbind interface TI-1 C1\n")
    assert (done["applied"], done["version"], done["changes"]) == (True, 1, [])
    assert commit(node, "")["applied"]
    assert node.state[JOURNAL] == journal


def test_a_setting_that_is_typed_with_its_default_is_a_commit() -> None:
    node = booted()
    commit(node, "context L1\nike2 policy p\n")
    before = text(node)
    done = commit(node, "context L1\nike2 policy p\nconnection-type both\n")
    assert (done["changes"], done["version"]) == ([], 3)
    restart(node)
    policy = " ike2 policy p\n"
    assert text(node) == before.replace(policy, f"{policy}  connection-type both\n")


def test_a_commit_that_does_not_get_to_disk_is_refused() -> None:
    node = booted()
    before = text(node), node.state[JOURNAL]
    node.full = True
    assert "journal can't be written: No space left on device" in refusal(node, TUN_3)
    assert (text(node), node.state[JOURNAL]) == before
    assert any("commit 2 of bob refused" in event for event in node.events())
    node.full = False
    assert commit(node, TUN_3)["version"] == 2


# --- two sessions ---


def test_an_object_that_both_changed_is_a_conflict_and_another_one_is_not() -> None:
    node = booted()
    mtu(node, 1300, user="ann")
    before = text(node)
    why = refusal(node, "tunnel ipsec Tun-1\ndf-bit set\n", "bob", base=1)
    assert why.startswith("Database is locked by another transaction")
    assert "ann" in why
    assert "tunnel Tun-1" in why
    assert text(node) == before
    done = commit(node, "tunnel ipsec Tun-2\nmtu 1200\n", "bob", base=1)
    assert done["applied"]
    assert mtus(node) == ["mtu 1300", "mtu 1200"]


def test_what_another_one_removed_does_not_come_back() -> None:
    node = booted()
    commit(node, "no tunnel ipsec Tun-1\n", "ann")
    why = refusal(node, "tunnel ipsec Tun-1 manual\nmtu 1300\n", "bob", base=1)
    assert "tunnel Tun-1" in why
    # What was removed by both is no conflict.
    assert commit(node, "no tunnel ipsec Tun-1\n", "bob", base=1)["applied"]


def test_a_context_cannot_be_removed_under_what_another_one_added() -> None:
    node = booted()
    commit(node, "context C1\ninterface new\nip address 9.9.9.1/30\n", "ann")
    assert "context C1 interface new" in refusal(node, "no context C1\n", "bob", base=1)
    assert commit(node, "context C1\ninterface other\nip address 9.9.8.1/30\n", "bob", base=1)["applied"]


def test_conflicts_are_known_after_a_restart() -> None:
    node = booted()
    mtu(node, 1300, user="ann")
    restart(node)
    assert "ann" in refusal(node, "tunnel ipsec Tun-1\nmtu 1200\n", "bob", base=1)
    assert commit(node, "tunnel ipsec Tun-2\nmtu 1200\n", "bob", base=1)["applied"]


def test_an_applied_file_is_a_commit_of_the_history() -> None:
    node = booted()
    node.ask("apply", text=HIGH_AVAILABILITY.replace("cost 5", "cost 6"), file="b.cfg", user="olga", comment="c")
    why = refusal(node, "context C1\nno ip route 172.168.3.0/24 TI-1\n", "bob", base=1)
    assert "olga" in why
    rows = node.ask("commits")["commits"]
    assert [(row["number"], row["user"], row["kind"], row["file"], row["comment"]) for row in rows] == [
        (2, "olga", "apply", "b.cfg", "c"),
        (1, "", "apply", "a.cfg", ""),
    ]


def test_a_base_that_is_no_commit_is_refused() -> None:
    assert "there is no commit 7" in refusal(booted(), "context C7\n", base=7)


# --- commits that must be confirmed ---


def test_what_is_not_confirmed_goes_back_by_itself() -> None:
    node = booted()
    before = text(node)
    done = commit(node, TUN_3, confirm=10)
    assert (done["applied"], done["minutes"], done["version"]) == (True, 10, 2)
    assert node.ask("commits")["open"] == {
        "number": 2,
        "user": "ann",
        "seconds": pytest.approx(600.0, abs=1.0),
    }
    node.run(599.0)
    assert "Tun-3" in text(node)
    node.run(2.0)
    assert text(node) == before
    assert node.keys_of("asp 2/1") == {"sa-1"}
    assert any("commit 2 of ann was not confirmed" in event for event in node.events())
    rows = node.ask("commits")
    assert [(row["number"], row["kind"], row["state"]) for row in rows["commits"]] == [
        (3, "rollback", ""),
        (2, "commit", "undone"),
        (1, "apply", ""),
    ]
    assert rows["open"] == {}
    restart(node)
    assert text(node) == before


def test_while_it_waits_everybody_else_is_locked_out() -> None:
    node = booted()
    mtu(node, 1300, confirm=10)
    held = text(node), node.state[JOURNAL]
    refused: dict[str, dict[str, Any]] = {
        "commit": {"lines": "context C9\n", "user": "bob", "base": 2},
        "apply": {"text": HIGH_AVAILABILITY, "user": "ann"},
        "rollback": {"number": 1, "user": "bob"},
    }
    for name, arguments in refused.items():
        with pytest.raises(LookupError, match=r"Database is locked by another transaction.*ann"):
            node.ask(name, **arguments)
    assert "ann" in refusal(node, "", "bob")
    # Another session of the same user, which began before.
    assert "ann" in refusal(node, "context C9\n", "ann", base=1)
    assert (text(node), node.state[JOURNAL]) == held
    assert not node.ask("apply", text=HIGH_AVAILABILITY, dry=True)["applied"]


@pytest.mark.parametrize("lines", ["", "tunnel ipsec Tun-2\nmtu 1200\n"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_second_commit_confirms(lines: str, killed: bool) -> None:
    node = booted()
    mtu(node, 1300, confirm=10)
    done = commit(node, lines)
    assert (done["applied"], done["confirmed"], done["version"]) == (True, 2, 3 if lines else 2)
    if killed:
        restart(node)
    node.run(610.0)
    assert mtus(node) == (["mtu 1300", "mtu 1200"] if lines else ["mtu 1300"])
    rows = node.ask("commits")
    assert rows["open"] == {}
    assert {row["number"]: row["state"] for row in rows["commits"]}[2] == "confirmed"
    assert mtu(node, 1100, user="bob")["applied"]


@pytest.mark.parametrize("killed", [False, True])
def test_leaving_the_mode_confirms_nothing(killed: bool) -> None:
    """`end` commits its lines, and they go back with the commit before."""
    node = booted()
    mtu(node, 1300, confirm=10)
    node.run(300.0)
    assert commit(node, "", typed=False)["confirmed"] == 0
    done = mtu(node, 1200, "Tun-2", typed=False)
    assert (done["applied"], done["confirmed"], done["version"]) == (True, 0, 3)
    assert node.ask("commits")["open"]["seconds"] == pytest.approx(300.0, abs=1.0)
    if killed:
        restart(node)
    assert mtus(node) == ["mtu 1300", "mtu 1200"]
    node.run(301.0)
    assert mtus(node) == []
    assert [row["state"] for row in node.ask("commits")["commits"]] == ["", "undone", "undone", ""]


def test_a_second_one_that_must_be_confirmed_goes_back_to_where_the_first_began() -> None:
    node = booted()
    mtu(node, 1300, confirm=10)
    node.run(500.0)
    mtu(node, 1200, "Tun-2", confirm=10)
    node.run(500.0)
    assert mtus(node) == ["mtu 1300", "mtu 1200"]
    node.run(101.0)
    assert mtus(node) == []


@pytest.mark.parametrize(("down", "held"), [(100.0, True), (600.0, False)])
def test_the_time_runs_on_while_no_controller_does(down: float, held: bool) -> None:
    """The clock of the day counts: after a restart of the machine the node's own begins anew."""
    node = booted()
    before = text(node)
    mtu(node, 1300, confirm=10)
    node.kill_controller()
    wall = node.now + node.wall_offset + down
    node.now += 5.0
    node.wall_offset = wall - node.now
    node.start()
    assert node.controller is not None
    assert ("mtu 1300" in node.controller.state.journal.commits[-1].__repr__()) == held
    node.run(1.0)
    assert (mtus(node) == ["mtu 1300"]) == held
    if not held:
        assert text(node) == before
        assert any("commit 2 of ann was not confirmed" in event for event in node.events())
        restart(node)
        assert text(node) == before
    else:
        assert node.ask("commits")["open"]["seconds"] == pytest.approx(500.0, abs=3.0)
        node.run(500.0)
        assert text(node) == before


def test_a_clock_that_is_set_back_gives_no_more_time() -> None:
    node = booted()
    before = text(node)
    mtu(node, 1300, confirm=10)
    node.wall_offset -= 1_000_000.0
    restart(node)
    node.run(599.0)
    assert mtus(node) == ["mtu 1300"]
    node.run(2.0)
    assert text(node) == before
    mtu(node, 1300, confirm=20)
    node.run(1100.0)
    assert mtus(node) == ["mtu 1300"]


def test_a_full_disk_delays_going_back_and_no_more() -> None:
    node = booted()
    mtu(node, 1300, confirm=1)
    node.full = True
    node.run(70.0)
    assert mtus(node) == ["mtu 1300"]
    assert len([event for event in node.events() if "journal can't be written" in event]) == 1
    node.full = False
    node.run(1.0)
    assert mtus(node) == []
    restart(node)
    assert mtus(node) == []


def test_a_confirmation_that_does_not_get_to_disk_is_refused() -> None:
    node = booted()
    mtu(node, 1300, confirm=1)
    node.full = True
    assert "journal can't be written" in refusal(node, "", "ann")
    node.full = False
    assert node.ask("commits")["open"]["number"] == 2
    assert commit(node, "")["confirmed"] == 2
    node.run(100.0)
    assert mtus(node) == ["mtu 1300"]


def test_a_commit_confirmed_without_a_difference_still_waits() -> None:
    """A script that repeats itself gets the answer that it waits for."""
    node = booted()
    done = commit(node, "", confirm=3)
    assert (done["applied"], done["minutes"], done["version"]) == (True, 3, 2)
    assert commit(node, "")["confirmed"] == 2


def cut_commits(node: Node) -> None:
    """What may be cut anywhere: a commit to be confirmed, its confirmation, and one that goes back."""
    mtu(node, 1300, confirm=1)
    commit(node, "")
    mtu(node, 1200, "Tun-2", confirm=1)
    node.run(61.0)
    mtu(node, 1100, "Tun-2")


def test_killed_at_every_cut_what_was_acknowledged_is_in_force() -> None:
    node = booted()
    node.budget = 1 << 30
    cut_commits(node)
    outputs = (1 << 30) - int(node.budget)
    states: tuple[list[str], ...] = (
        [],
        ["mtu 1300"],
        ["mtu 1300", "mtu 1200"],
        ["mtu 1300"],
        ["mtu 1300", "mtu 1100"],
    )
    seen = set()
    for cut in range(outputs + 1):
        node = booted()
        before = len(node.answers)
        node.budget = cut
        with suppress(Cut, AssertionError):
            cut_commits(node)
        node.budget = 1 << 30
        answers: list[dict[str, Any]] = [dict(answer.result) for answer in node.answers[before:]]
        acknowledged = [result["version"] for result in answers if result.get("applied")]
        node.kill_controller()
        node.start()
        node.run(1.0)
        found = mtus(node)
        assert found in states, cut
        version = node.ask("identity")["version"]
        assert version >= max(acknowledged, default=1), cut
        node.run(70.0)
        if node.ask("commits")["version"] != version:
            assert found in (["mtu 1300"], ["mtu 1300", "mtu 1200"])
            assert mtus(node) == found[:-1]
        else:
            assert mtus(node) == found
        seen.add(tuple(found))
    assert len(seen) == 4


# --- the history ---


def test_an_earlier_commit_comes_back_as_a_new_one() -> None:
    node = booted()
    texts = {1: text(node)}
    for number in range(2, 6):
        mtu(node, 1000 + number, f"Tun-{number % 2 + 1}")
        texts[number] = text(node)
    done = node.ask("rollback", number=3, user="bob")
    assert (done["applied"], done["version"]) == (True, 6)
    assert [change["path"] for change in done["changes"]] == [["tunnel", "Tun-1"], ["tunnel", "Tun-2"]]
    assert text(node) == texts[3]
    assert "text" not in record(node)
    for number in (1, 4, 6):
        restart(node)
        node.ask("rollback", number=number, user="bob")
        assert text(node) == texts.get(number, texts[3])
    restart(node)
    assert text(node) == texts[3]
    assert node.ask("commits")["commits"][0]["back"] == 6
    with pytest.raises(LookupError, match="commit 99 is not kept"):
        node.ask("rollback", number=99, user="bob")
    assert node.ask("rollback", number=3, user="bob")["version"] == node.ask("identity")["version"]


def test_the_journal_has_a_whole_configuration_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MAX_JOURNAL_COMMITS", 5)
    monkeypatch.setattr(journals, "CUT_BACK_COMMITS", 12)
    monkeypatch.setattr(commits, "CHECKPOINT_DELAY", 0.0)
    node = booted()
    texts: dict[int, str] = {}
    for number in range(2, 60):
        if number % 7:
            mtu(node, 1000 + number, f"Tun-{number % 2 + 1}")
        else:
            kept = [row["number"] for row in node.ask("commits")["commits"]]
            target = kept[(number // 7) % len(kept)]
            node.ask("rollback", number=target, user="bob")
            assert text(node) == texts.get(target, text(node))
        texts[node.ask("identity")["version"]] = text(node)
        node.run(0.1)
        held = Journal(node.state[JOURNAL])
        assert not held.problems
        assert len(held.commits) <= 13
        whole = [commit.number for commit in held.commits if commit.text is not None]
        assert held.version - whole[-1] <= 5
        if number % 5 == 0:
            restart(node)
        assert text(node) == texts[held.version]


def test_many_differences_call_for_a_whole_one_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "CHECKPOINT_DELAY", 0.0)
    node = booted()
    description = "x" * 200
    for number in range(40):
        rules = "".join(f"seq {seq} 10.{number}.{seq}.0/24 11.0.0.0/8\n" for seq in range(1, 60))
        commit(node, f"context C1\ninterface TI-1\ndescription {description}\nipsec access-list big\n{rules}")
        node.run(0.1)
    held = Journal(node.state[JOURNAL])
    assert 1 < len([one for one in held.commits if one.text is not None]) < 6
    before = text(node)
    restart(node)
    assert text(node) == before


def test_a_whole_configuration_is_made_in_parts_between_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MAX_JOURNAL_COMMITS", 5)
    monkeypatch.setattr(commits, "MAX_JOURNAL_COMMITS", 5)
    monkeypatch.setattr(commits, "CHECKPOINT_PART", 10)
    node = booted()
    node.run(1.0)
    controller = node.controller
    assert controller is not None

    def wholes() -> list[int]:
        return [one.number for one in Journal(node.state[JOURNAL]).commits if one.text is not None]

    for number in range(2, 7):
        mtu(node, 1000 + number)
    node.run(0.0)
    # Commits that follow each other are not delayed by it: it is begun when none came for a while.
    assert controller.next_timer() > node.now
    node.now += commits.CHECKPOINT_DELAY
    parts = 0
    while controller.next_timer() <= node.now:
        outputs = controller.on_timer(node.now)
        assert outputs == [] or parts > 2
        node.perform(outputs)
        parts += 1
        if parts == 2:
            # A commit in between: the text begins anew, for that one.
            mtu(node, 1300)
            assert wholes() == [1]
            node.now += commits.CHECKPOINT_DELAY
    assert parts > 4
    assert controller.state.journal.commits[-1].text == text(node, keys=True)
    # Where commits never rest, it is made at once at last.
    for number in range(20):
        mtu(node, 1000 + number)
        node.perform(controller.on_timer(node.now))
    assert wholes() == [1, 7, 17, 27]
    before = text(node)
    restart(node)
    assert text(node) == before


@pytest.mark.parametrize(
    "line",
    [
        {"number": 2, "file": "", "lines": 7},
        {"number": 2, "file": "", "back": "1"},
        {"number": 2, "file": "", "lines": "", "deadline": 1},
        {"number": 2, "file": "", "lines": "", "changed": 5},
        {"number": 9, "checkpoint": "context c\n"},
        {"number": 1, "checkpoint": None},
        {"number": 9, "confirmed": True},
        {"number": 2.0, "file": "", "lines": ""},
    ],
)
def test_a_line_that_is_none_of_a_journal_is_left_out(line: dict[str, Any]) -> None:
    node = booted()
    before = text(node)
    node.state[JOURNAL] += json.dumps(line).encode() + b"\n"
    restart(node)
    assert any("line 2 of the journal" in event for event in node.events())
    assert text(node) == before
    assert mtu(node, 1300)["version"] == 2


def test_differences_without_a_whole_configuration_are_no_journal() -> None:
    lines = json.dumps({"number": 2, "file": "", "lines": "context c\n"}).encode() + b"\n"
    assert Journal(lines).commits == []
    assert len(Journal(lines).problems) == 1


# --- what is shown ---


def test_the_difference_is_shown_and_not_made() -> None:
    node = booted()
    before = text(node)
    lines = (
        "no tunnel ipsec Tun-2\ntunnel ipsec Tun-1\nmtu 1300\n"
        "context C1\nno interface TI-2\nip route 9.0.0.0/8 TI-1\n"
        "no ip route 172.168.3.0/24 TI-1\ninterface new\nip address 9.9.9.1/30\n"
        "context C2\nsystem hostname other\n"
    )
    found = node.ask("candidate", lines=lines, base=1)
    assert found["difference"] == [
        "- system hostname Redback",
        "+ system hostname other",
        "  tunnel Tun-1",
        "+  mtu 1300",
        "- tunnel Tun-2",
        "  context C1",
        "-  interface TI-2",
        "+  interface new",
        "+   ip address 9.9.9.1/30",
        "-  ip route 172.168.3.0/24 TI-1",
        "+  ip route 9.0.0.0/8 TI-1",
        "+ context C2",
    ]
    assert found["conflict"] == ""
    assert [item["severity"] for item in found["diagnostics"]] == ["warning"]
    assert text(node) == before
    mtu(node, 1200, user="bob")
    assert "bob" in node.ask("candidate", lines=lines, base=1)["conflict"]


def test_no_key_is_told_by_any_answer_event_or_log() -> None:
    node = booted()
    lines = (
        f"context L1\nike policy p\npre-shared-key {KEY}\nipsec security-association sa-9\nboth\n"
        f"esp authentication hmac-sha1-96 key 0x{909:040x}\n"
    )
    wrong = lines + f"pre-shared-key {KEY} {KEY}\nesp authentication hmac-sha1-96 key {KEY}x {KEY}\n"
    said = [
        node.ask("candidate", lines=lines, base=1),
        commit(node, wrong),
        node.ask("candidate", lines=wrong, base=1),
        commit(node, lines, confirm=1),
    ]
    node.run(61.0)
    said += [commit(node, lines), node.ask("rollback", number=1, user="ann"), node.ask("commits")]
    said += [node.ask("log"), node.ask("events"), node.ask("status"), {"events": node.events()}]
    assert said[3]["applied"]
    assert not said[1]["applied"]
    for text in (KEY, f"{909:040x}", KEY.encode().hex()):
        assert text not in json.dumps(said)
    assert KEY.encode() in node.state[JOURNAL], "the journal holds what is in force"
