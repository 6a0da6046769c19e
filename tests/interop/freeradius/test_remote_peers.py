"""A router asks FreeRADIUS about strongSwan peers: keys, profiles, addresses, and books that balance."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chassis.xcrp.session_store import SESSIONS
from tests.support import ROOT
from tests.support.charon import PROGRAM, require
from tests.support.cli import CliRig
from tests.support.freeradius import require_freeradius
from tests.support.radius_lab import CLOSED, FIRST, SECOND, SPECIAL, Radius, aaa_node, asking_router
from tests.support.remote_peers import ASSIGNED, FAR, Field, dialer, lab_text

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def whole_field(shared_lab_factory: LabFactory) -> Field:
    require(PROGRAM, "swanctl", "nft")
    require_freeradius()
    return Field(shared_lab_factory.text(lab_text(*aaa_node()), {"hub.cfg": asking_router()}))


@pytest.fixture
def field(whole_field: Field) -> Iterator[Field]:
    yield whole_field
    whole_field.reset()
    Radius(whole_field.peers["aaa"]).hide()


@pytest.fixture
def radius(field: Field) -> Radius:
    return Radius(field.peers["aaa"])


@pytest.mark.behaviour("B-090", "B-094", "B-095", "B-097", "B-100", "B-102")
def test_keys_addresses_and_profiles_come_from_the_server(field: Field) -> None:
    one = dialer("one", "key-one", "10.50.0.7", FAR[0])
    two = dialer("two", "key-two", "10.50.1.1", FAR[1])
    wrong = dialer("one", "another-key", "10.50.0.7", FAR[2]).but(name="wrong")
    field.far.load(one, two)
    field.up(field.far, one, two)
    rows = field.hub.instances(ASSIGNED)
    assert {name: (row["profile"], row["assigned"]) for name, row in rows.items()} == {
        one.identity: (ASSIGNED, f"{one.assigned}/32"),
        two.identity: (SPECIAL, f"{two.assigned}/32"),
    }
    field.end(field.far, one)
    field.end(field.far, two)
    field.far.load(wrong)
    assert "AUTHENTICATION_FAILED" in field.far.refused(wrong)


@pytest.mark.behaviour("B-093", "B-101")
@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        (CLOSED, "any", "account closed"),
        (
            "unknown",
            "any",
            "peer unknown.dial.example at 50.0.2.1 refused: AAA: RADIUS server 10.99.0.2 port 1812",
        ),
        ("keyless", "any", "key"),
        ("lost", "key-lost", "no IPsec profile nowhere, which RADIUS names, in context inner"),
    ],
)
def test_a_peer_without_what_it_needs_is_refused_with_the_reason(
    field: Field, name: str, key: str, reason: str
) -> None:
    peer = dialer(name, key, "", FAR[0])
    field.far.load(peer)
    assert "AUTHENTICATION_FAILED" in field.far.refused(peer)
    assert field.hub.logged(reason)
    assert field.hub.instances() == {}


@pytest.mark.behaviour("B-098", "B-099")
def test_other_servers_are_asked_while_one_does_not_answer(field: Field, radius: Radius) -> None:
    second = dialer("spare", "of-second", "10.50.0.20", FAR[0])
    central = dialer("spare", "of-local", "10.50.0.30", FAR[1]).but(name="central")
    nobody = central.but(name="nobody")
    field.far.load(second)
    radius.hide(FIRST)
    field.up(field.far, second)
    field.end(field.far, second)
    field.far.load(central, nobody)
    radius.hide(FIRST, SECOND)
    field.up(field.far, central)
    field.end(field.far, central)
    field.lab.apply("hub", asking_router(fallback=False))
    field.far.refused(nobody)
    assert field.hub.instances() == {}
    field.lab.apply("hub", asking_router())


def test_the_books_balance_whatever_becomes_of_the_controller(field: Field, radius: Radius) -> None:
    """Each session that there was has a start and a stop, also those of the tests before, and no other has."""
    one = dialer("one", "key-one", "10.50.0.7", FAR[0])
    two = dialer("two", "key-two", "10.50.1.1", FAR[1])
    field.far.load(one, two)
    field.up(field.far, one, two)
    sessions = {row["session"] for row in field.hub.instances().values()}
    assert len(sessions) == 2
    # What it has written outlives a controller that is killed.
    assert field.lab.run is not None
    facts = json.loads((field.lab.run / "lab.json").read_text())
    file = Path(facts["state"]) / "hub" / SESSIONS
    field.lab.wait_until(lambda: file.exists() and all(session in file.read_text() for session in sessions))
    radius.hide(FIRST, port=1813)
    field.lab.kill("hub", "xcrp")
    field.lab.wait_until(lambda: {row["session"] for row in field.hub.instances().values()} == sessions)
    field.far.ping(one.source)
    # The stop of this one gets no answer. The controller's successor has it.
    session = field.hub.instances()[one.identity]["session"]
    field.end(field.far, one)
    field.lab.wait_until(lambda: f'"{session} stop"' in file.read_text())
    radius.hide()
    field.lab.kill("hub", "xcrp")
    field.lab.wait_until(lambda: len(field.hub.instances()) == 1)
    field.end(field.far, two)

    def balanced() -> bool:
        seen = {status: Counter[str]() for status in ("Start", "Stop")}
        for entry in radius.books():
            if entry["Acct-Status-Type"] in seen:
                seen[entry["Acct-Status-Type"]][entry["Acct-Session-Id"].strip('"')] += 1
        return seen["Start"].keys() == seen["Stop"].keys() and sessions <= seen["Start"].keys()

    field.lab.wait_until(balanced)
    stops = [entry for entry in radius.books() if entry["Acct-Status-Type"] == "Stop"]
    mine = {
        entry["User-Name"].strip('"'): entry for entry in stops if entry["Acct-Session-Id"].strip('"') in sessions
    }
    assert mine.keys() == {one.identity, two.identity}
    for peer in (one, two):
        entry = mine[peer.identity]
        assert entry["Framed-IP-Address"] == peer.assigned
        assert int(entry["Acct-Input-Packets"]) >= 2
        assert int(entry["Acct-Output-Octets"]) >= 200


PAGE = ROOT / "docs" / "remote-peers.md"
BLOCK = re.compile(r"^```(base|hub|sh|swanctl|users)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^\[\w+\]hub(\([\w-]+\))?#")


def test_the_page_leads_from_nothing_to_peers_of_both_kinds(field: Field, radius: Radius) -> None:
    """Its lines are typed, its files are written and its commands run, in its order."""
    far, aaa = field.far, field.peers["aaa"]
    rig = CliRig(lambda command, arguments: field.lab.ask("hub", command, arguments))
    said = ""
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "base":
            field.lab.apply("hub", text)
            rig.start(named=True)
            said = rig.type("terminal length 0\r")
        elif kind == "swanctl":
            far.run(f"printf %s {shlex.quote(text)} > swanctl.conf")
        elif kind == "users":
            aaa.run(f"printf %s {shlex.quote(text)} > users-at-0")
            radius.restart()
        elif kind == "sh":
            for line in text.splitlines():
                program, _, words = line.partition(" ")
                file = " --file $PWD/swanctl.conf" if words == "--load-all" else ""
                code, output = far.swanctl(f"{words}{file}") if program == "swanctl" else far.attempt(line)
                assert code == 0, f"{line}: {output}\n{far.log()}"
        else:
            for line in text.splitlines():
                prompt = PROMPT.match(line)
                assert prompt is not None
                assert said.rstrip().endswith(prompt[0]), (line, said[-200:])
                answer = rig.type(f"{line.removeprefix(prompt[0])}\r")
                assert "% " not in answer, (line, answer)
                said += answer
    assert "Down (no peer)" in said
    assert field.hub.instances().keys() == {"lyon.branch.example", "anna.staff.example"}
    for shown in ("lyon.branch.example", "anna.staff.example", "10.2.6.1/32", "10.50.1.1"):
        assert shown in said
