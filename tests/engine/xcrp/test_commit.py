"""Commits: checked whole, journalled before they act, old or new whole wherever the controller ends."""

from __future__ import annotations

import json

import pytest

from chassis.bus.codec import encode_record
from chassis.bus.records import CardStateRecord
from chassis.xcrp.journal import JOURNAL, Journal
from tests.support import odd
from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, Cut, Node, booted, sa

CHANGED = (
    HIGH_AVAILABILITY.replace("ip route 172.168.3.0/24 TI-1 cost 5", "ip route 172.168.4.0/24 TI-1 cost 5")
    .replace("manual economical", "manual")
    .replace("context L2\n", "context L3\n")
    .replace("context L2", "context L3")
    .replace("4/1\n  no shutdown\n  bind interface peer-2 L2", "4/1\n  no shutdown\n  bind interface peer-2 L3")
    + """
tunnel ipsec Tun-3 manual economical
  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1
  bind interface TI-3 C1
  seq 10 security-association sa-3
context C1
  interface TI-3
    ip address 192.168.4.1/30
"""
    + sa("sa-3", 303)
)


def wanted(node: Node) -> dict[object, bytes]:
    """What the controller wants cards to hold, but for the cards' own states."""
    assert node.controller is not None
    records = node.controller.node.publisher.records
    return {
        key: encode_record(record) for key, record in records.items() if not isinstance(record, CardStateRecord)
    }


def test_apply_changes_what_it_says() -> None:
    node = booted()
    dry = node.ask("apply", text=CHANGED, file="b.cfg", dry=True)
    assert dry["applied"] is False
    assert node.tunnel("Tun-2")["mode"] == "economical"
    done = node.ask("apply", text=CHANGED, file="b.cfg")
    assert done["applied"] is True
    assert done["changes"] == dry["changes"]
    paths = [" ".join(change["path"]) for change in done["changes"]]
    assert any("Tun-3" in path for path in paths)
    assert not any("0" * 10 in json.dumps(change) for change in done["changes"]), "a key is shown"
    node.run(0.1)
    assert {row["name"]: row["up"] for row in node.ask("status")["tunnels"]} == {
        "Tun-1": True,
        "Tun-2": True,
        "Tun-3": True,
    }
    assert node.tunnel("Tun-2")["home"] == "lc 4"
    assert node.keys_of("asp 2/1") == {"sa-1", "sa-3"}
    assert node.hops("lc 3", "C1", "172.168.4.0/24") == ["Tun-1"]


def test_one_wrong_line_refuses_all() -> None:
    node = booted()
    before = wanted(node)
    journal = node.state[JOURNAL]
    answer = node.ask("apply", text=CHANGED + "\nipsec policy x y\n", file="b.cfg")
    assert answer["applied"] is False
    assert answer["changes"] == []
    error = next(found for found in answer["diagnostics"] if found["severity"] == "error")
    assert (error["file"], error["column"]) == ("b.cfg", 16)
    assert error["line"] == len(CHANGED.split("\n")) + 1
    assert wanted(node) == before
    assert node.state[JOURNAL] == journal


def test_changing_one_tunnel_touches_no_other() -> None:
    node = booted()
    node.run(0.2)
    for card in node.cards.values():
        card.changes.clear()
    node.ask(
        "apply", text=HIGH_AVAILABILITY.replace("bind interface TI-2 C1\n", "bind interface TI-2 C1\n  mtu 1300\n")
    )
    node.run(0.2)
    put = {record.key for card in node.cards.values() for change in card.changes for record in change.put}
    assert put == {("tunnel", 2)}
    assert not [record for card in node.cards.values() for change in card.changes for record in change.deleted]
    assert node.cards["asp 2/1"].changes == []


def test_a_tunnel_that_looks_routes_up_makes_no_other_known_again() -> None:
    """Its ASP learns all tunnels; whoever knew them hears nothing."""
    node = booted(HIGH_AVAILABILITY.replace("manual economical", "manual"), *HA_PORTS)
    sent: set[tuple[str, object]] = set()
    node.watch = lambda output: sent.update((output.card, one.key) for one in getattr(output.message, "put", ()))
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.2)
    assert {card for card, key in sent if key in (("tunnel", 1), ("tunnel-hop", 1))} == {"asp 2/2"}


def test_an_sa_that_a_second_asp_begins_to_use() -> None:
    node = booted()
    text = HIGH_AVAILABILITY.replace("security-association sa-2 access", "security-association sa-1 access")
    node.ask("apply", text=text)
    node.ask("clear", tunnel="Tun-2")
    node.run(0.2)
    assert node.keys_of("asp 2/1") == {"sa-1"}
    assert node.keys_of("asp 2/2") == {"sa-1"}
    assert node.tunnel("Tun-2")["up"]
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.ask("clear", tunnel="Tun-2")
    node.run(0.2)
    assert node.keys_of("asp 2/2") == {"sa-2"}


def test_only_an_asp_that_looks_routes_up_knows_the_tunnels_of_others() -> None:
    node = booted()

    def known(card: str) -> list[object]:
        return sorted(key[1] for key in node.cards[card].replica.records if key[0] == "tunnel-hop")

    # Tun-2 is economical: its clear packets are looked up on its ASP, and may have to go on into Tun-1.
    assert (known("asp 2/1"), known("asp 2/2")) == ([1], [1, 2])
    node.ask("apply", text=HIGH_AVAILABILITY.replace("manual economical", "manual"))
    node.run(0.1)
    assert (known("asp 2/1"), known("asp 2/2")) == ([1], [2])
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.1)
    assert (known("asp 2/1"), known("asp 2/2")) == ([1], [1, 2])
    assert node.keys_of("asp 2/2") == {"sa-2"}


def test_cards_come_and_go() -> None:
    node = booted()
    text = HIGH_AVAILABILITY.replace("card ge-10-port 4\n", "card ge-10-port 5\n").replace("4/1", "5/1")
    node.ask("apply", text=text)
    assert node.goodbyes == [("lc 4", "no longer in the configuration")]
    told = [output.values["cards"] for output in node.launcher if output.request == "cards"]
    assert told == [{"asp 2/1": "asp", "asp 2/2": "asp", "lc 3": "linecard", "lc 5": "linecard"}]
    assert node.tunnel("Tun-2")["reason"] == "line card down"
    node.carrier["lc 5"] = {"5/1"}
    node.start_card("lc 5")
    node.run(0.2)
    assert node.tunnel("Tun-2")["up"]
    # The card that comes back goes on above the epochs that it had.
    epoch = node.epochs["lc 4"]
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.start_card("lc 4")
    node.run(0.2)
    assert node.card("lc 4")["epoch"] > epoch


def outputs_of_a_commit() -> int:
    node = booted()
    node.budget = 1 << 30
    node.ask("apply", text=CHANGED)
    node.run(0.1)
    return (1 << 30) - int(node.budget)


def test_killed_at_every_cut_it_is_the_old_or_the_new_one_whole() -> None:
    old, new = booted(), booted()
    new.ask("apply", text=CHANGED)
    new.run(0.3)
    old.run(0.3)
    plain_old, plain_new = set(map(str, wanted(old))), set(map(str, wanted(new)))
    seen = set()
    for cut in range(outputs_of_a_commit() + 1):
        node = booted()
        node.budget = cut
        try:
            node.ask("apply", text=CHANGED)
            node.run(0.1)
        except (Cut, AssertionError):
            pass
        node.budget = 1 << 30
        node.kill_controller()
        node.start()
        node.run(1.0)
        states = {row["name"]: row["up"] for row in node.ask("status")["tunnels"]}
        assert all(states.values()), (cut, states)
        keys = {str(key) for key in wanted(node)}
        is_new = "Tun-3" in states
        assert len(keys) == len(plain_new if is_new else plain_old)
        # What the cards hold is what is wanted, nothing of the other configuration is left.
        for card in node.cards.values():
            assert all(
                node.controller is not None and node.controller.node.publisher.records[key] == record
                for key, record in card.replica.records.items()
            ), cut
        assert is_new == (cut > 0)
        seen.add(is_new)
    assert seen == {False, True}


def test_the_start_up_file_is_read_only_when_the_journal_is_empty() -> None:
    node = booted()
    node.ask("apply", text=CHANGED)
    node.kill_controller()
    node.text = "context other\n"
    node.start()
    node.run(0.1)
    assert "Tun-3" in {row["name"] for row in node.ask("status")["tunnels"]}


WRONG = HIGH_AVAILABILITY + "\nipsec policy x y\nrouter ospf 1\n"


def test_a_start_up_file_is_put_in_force_without_the_lines_that_are_errors() -> None:
    right, node = booted(), Node(WRONG)
    node.boot_all("3/1", "4/1")
    line = len(WRONG.split("\n")) - 2
    for start in range(2):
        assert node.controller is not None
        assert node.controller.cards() == right.controller.cards() if right.controller is not None else ()
        assert node.ask("status")["diagnostics"]["error"] == 1
        events = [event for event in node.events() if f"a.cfg:{line}:16: error surplus" in event]
        assert len(events) == start + 1
        assert "configuration a.cfg in force with 1 error: its line has no effect" in events[-1]
        records = [record for record in node.ask("log")["records"] if record["severity"] == "error"]
        assert [record["text"].split(": ")[0] for record in records] == [f"a.cfg:{line}:16"] * (start + 1)
        # The next start takes the text from the journal, in the same way.
        node.kill_controller()
        node.start()
        node.run(0.3)
    assert [commit.text for commit in Journal(node.state[JOURNAL]).commits] == [WRONG]


def test_whoever_applies_a_text_with_an_error_is_refused_though_it_is_in_force_without() -> None:
    node = booted(WRONG, "3/1", "4/1")
    journal = node.state[JOURNAL]
    answer = node.ask("apply", text=WRONG, file="a.cfg")
    assert (answer["applied"], answer["changes"]) == (False, [])
    assert node.state[JOURNAL] == journal


def test_a_start_up_file_with_an_error_is_refused_where_errors_are() -> None:
    node = Node("card ge-10-port 3\nipsec policy x y\n", settings={"refuse-errors": True})
    node.start()
    assert node.controller is not None
    assert node.controller.cards() == ()
    assert any("refused" in event and "a.cfg:2:16" in event for event in node.events())
    assert JOURNAL not in node.state


@pytest.mark.parametrize("torn", [b'{"number": 3, "file": "c", "te', b"\x00\xff", b"{}\n", b"[1]\n"])
def test_a_torn_journal_is_repaired(torn: bytes) -> None:
    node = booted()
    node.ask("apply", text=CHANGED, file="b.cfg")
    node.kill_controller()
    node.state[JOURNAL] += torn
    node.start()
    node.run(0.1)
    assert any("line 3 of the journal" in event for event in node.events()), "a line is left out without a word"
    assert node.ask("apply", text=HIGH_AVAILABILITY, file="c.cfg")["applied"]
    journal = Journal(node.state[JOURNAL])
    assert not journal.problems
    assert [commit.file for commit in journal.commits] == ["a.cfg", "b.cfg", "c.cfg"]


def test_a_long_journal_is_cut_back_while_the_controller_runs() -> None:
    node = Node("context c\n")
    node.start()
    lengths = []
    for i in range(260):
        node.ask("apply", text=f"context c{i}\n")
        lengths.append(len(Journal(node.state[JOURNAL]).commits))
    assert max(lengths) == 200
    assert 100 in lengths
    assert Journal(node.state[JOURNAL]).commits[-1].number == 261


def test_a_long_journal_is_cut_back_at_the_start() -> None:
    node = Node("context c\n")
    node.state[JOURNAL] = b"".join(
        json.dumps({"number": i, "file": "", "text": f"context c{i}\n"}).encode() + b"\n" for i in range(1, 302)
    )
    node.start()
    journal = Journal(node.state[JOURNAL])
    assert len(journal.commits) == 100
    assert journal.last is not None
    assert journal.last.number == 301
    assert "context c301" in node.ask("config")["text"]


def test_a_commit_without_a_difference_is_not_noted() -> None:
    node = booted()
    journal = node.state[JOURNAL]
    done = node.ask("apply", text="! The same again.\n" + HIGH_AVAILABILITY, file="b.cfg")
    assert done["applied"]
    assert done["changes"] == []
    assert node.state[JOURNAL] == journal


def test_a_commit_that_does_not_get_to_disk_is_refused_and_changes_nothing() -> None:
    node = booted()
    held, config, journal = wanted(node), node.ask("config"), node.state[JOURNAL]
    told: list[object] = []
    node.watch = told.append
    node.full = True
    with pytest.raises(LookupError, match="journal can't be written: No space left on device"):
        node.ask("apply", text=CHANGED, file="b.cfg")
    assert (wanted(node), node.ask("config"), node.state[JOURNAL], told) == (held, config, journal, [])
    assert any("b.cfg refused: the journal can't be written" in event for event in node.events())
    node.full = False
    assert node.ask("apply", text=CHANGED, file="b.cfg")["applied"]
    assert [commit.number for commit in Journal(node.state[JOURNAL]).commits] == [1, 2]


def test_no_card_hears_of_a_commit_before_it_is_on_disk() -> None:
    node = booted()
    assert node.controller is not None
    outputs = node.controller.on_operator_command(1, "apply", {"text": CHANGED, "file": "b.cfg"}, node.now)
    assert [type(output).__name__ for output in outputs] == ["Append"]
    assert "Tun-3" not in node.controller.state.config.tunnels, "in force before it is on disk"


def test_cards_hear_nothing_while_numbers_are_not_on_disk_and_all_of_it_afterwards() -> None:
    node = booted()
    node.full = True
    told: list[object] = []
    node.watch = told.append
    epoch = node.epochs["asp 2/1"]
    node.kill_card("asp 2/1")
    node.start_card("asp 2/1")
    node.run(3.0)
    assert told == [], "a card was told of numbers that are not on disk"
    assert node.epochs["asp 2/1"] == epoch
    said = [event for event in node.events() if "cards.json can't be written" in event]
    assert len(said) == 1, "said once, not with every try"
    assert not [event for event in node.events() if "is to be killed" in event]
    node.full = False
    node.run(1.0)
    assert any("cards.json is written again" in event for event in node.events())
    assert all(card["usable"] for card in node.ask("status")["cards"])
    assert node.tunnel("Tun-1")["up"]


def test_a_start_up_file_that_can_not_be_noted_is_noted_when_there_is_room() -> None:
    node = Node(HIGH_AVAILABILITY)
    node.full = True
    node.boot_all(*HA_PORTS)
    assert any("journal can't be written" in event for event in node.events())
    assert JOURNAL not in node.state
    node.full = False
    node.run(1.0)
    assert [commit.file for commit in Journal(node.state[JOURNAL]).commits] == ["a.cfg"]
    assert {row["name"]: row["up"] for row in node.ask("status")["tunnels"]} == {"Tun-1": True, "Tun-2": True}


@pytest.mark.parametrize("line", ["context C\ud8001", "  description \udcff"])
def test_a_journal_that_holds_what_the_bus_cannot_carry_ends_no_controller(line: str) -> None:
    """An older program took it: the line has no effect, and the rest is in force as it was."""
    node = Node(HIGH_AVAILABILITY)
    commit = {"number": 1, "file": "\udcff.cfg", "text": f"{line}\n{HIGH_AVAILABILITY}"}
    node.state[JOURNAL] = json.dumps(commit).encode() + b"\n"
    odd.survived(node.boot_all, *HA_PORTS)
    assert node.tunnel("Tun-1")["up"]
    assert any("their lines have no effect" in text or "its line has no effect" in text for text in node.events())
    before = node.state[JOURNAL]
    with pytest.raises(LookupError, match="surrogate"):
        node.ask("apply", text=f"{line}\n")
    assert node.state[JOURNAL] == before


def test_a_journal_of_long_configurations_is_cut_back_by_its_size() -> None:
    node = Node("context c\n")
    node.start()
    comment = "! " + "x" * 10_000_000 + "\n"
    sizes = []
    for i in range(9):
        assert node.ask("apply", text=f"{comment}context c{i}\n")["applied"]
        sizes.append(len(node.state[JOURNAL]))
    assert max(sizes) < 70_000_000
    assert Journal(node.state[JOURNAL]).commits[-1].number == 10
