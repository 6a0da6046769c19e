"""Random peers, commits and deaths: what cards hold is always what a fresh plan of the same peers would send."""

from __future__ import annotations

import random

import pytest

from tests.engine.xcrp.test_plan_changes import check
from tests.support.on_demand import ASP, HUB, Hub, hub

TEXT = (
    HUB.replace("  ipsec profile T\n", "  ipsec profile U\n    seq 10 ipsec-policy ipsec-pol\n  ipsec profile T\n")
    .replace("  ike-policy pol\n", "  ike-policy pol\n  max-tunnels 6\n")
    .replace("asp-count 1", "asp-count 2")
    + """
tunnel ipsec U on-demand economical
  peer-end-point local 40.0.0.1 context outer
  bind interface TI inner
  ike-policy pol
  ip route traffic-selector-guided
"""
)
PROFILE = "context inner\n ipsec profile T\n"
SECOND = (
    "tunnel ipsec U on-demand\n peer-end-point local 40.0.0.1 context outer\n"
    " bind interface TI inner\n ike-policy pol\n"
)

LINES = (
    ("tunnel ipsec T\n shutdown\n", "tunnel ipsec T\n no shutdown\n"),
    ("context inner\n no ipsec profile T\n", "context inner\n ipsec profile T\n  seq 10 ipsec-policy ipsec-pol\n"),
    ("context inner\n ipsec profile U\n  mtu 1300\n", "context inner\n ipsec profile U\n  no mtu\n"),
    ("ipsec policy other\n seq 1 proposal ipsec-p\n", "no ipsec policy other\n"),
    (PROFILE + "  seq 20 ipsec-policy other\n", PROFILE + "  no seq 20\n"),
    ("no tunnel ipsec U\n", SECOND),
    ("asp pool Q service security\n asp 2/2\n", "no asp pool Q service security\n"),
    ("tunnel ipsec S\n peer-end-point local 40.0.0.1 remote 50.0.0.3 context outer\n", "no tunnel ipsec S\n"),
    ("port ethernet 3/11\n shutdown\n", "port ethernet 3/11\n no shutdown\n"),
    ("context outer\n ip route 50.0.0.2/32 null0\n", "context outer\n no ip route 50.0.0.2/32 null0\n"),
    ("tunnel ipsec T\n max-tunnels 2\n", "tunnel ipsec T\n max-tunnels 9\n"),
)  # fmt: skip


class _Life:
    """A hub and what happens to it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.node: Hub = hub(TEXT)
        self.undo: list[str] = []

    def peer(self) -> None:
        """A peer comes: new, again, or from another address."""
        names = [name for name in "TU" if any(r.config.name == name and r.wanted for r in self.node.demanded())]
        if not names or ASP not in self.node.cards:
            return
        at = self.chance.randrange(9)
        where = f"50.0.0.{self.chance.choice((at, at, at, 2))}"
        answer = self.node.ask_about(f"{at}.example", where, name=self.chance.choice(names))
        assert answer is not None
        if answer.tunnel and self.chance.random() < 0.8:
            third = self.chance.randrange(4)
            self.node.comes_up(answer.tunnel, f"10.2.{third}.0/24", f"10.3.{at}.0/24")

    def leaves(self) -> None:
        held = list(self.node.instances().values()) if ASP in self.node.cards else []
        if held:
            act = self.chance.choice((self.node.goes, self.node.loses_sas))
            act(self.chance.choice(held))

    def commit(self) -> None:
        if self.undo and self.chance.random() < 0.6:
            lines = self.undo.pop()
        else:
            lines, back = self.chance.choice(LINES)
            self.undo.append(back)
        self.node.ask("commit", lines=lines, base=-1, user="x")

    def controller(self) -> None:
        self.node.kill_controller()
        if self.chance.random() < 0.5:
            for number in list(self.node.instances().values())[:1]:
                # Its message is lost: the ASP says with its hello that the peer is gone.
                self.node.asp.gone.add(number)
        self.node.start()
        self.node.run(2.5)

    def asp(self) -> None:
        self.node.kill_card(ASP)
        self.node.run(0.1)
        self.node.start_card(ASP)

    def line_card(self) -> None:
        self.node.kill_card("lc 3")
        self.node.run(0.1)
        self.node.start_card("lc 3")

    def hang(self) -> None:
        self.node.stop_card(ASP)
        self.node.run(0.8)
        self.node.continue_card(ASP, 0.8)


@pytest.mark.parametrize("seed", range(8))
def test_random_lives(seed: int) -> None:
    life = _Life(seed)
    acts = (life.peer,) * 8 + (life.leaves,) * 3 + (life.commit,) * 4
    acts += (life.controller, life.asp, life.line_card, life.hang)
    most = 0
    for _ in range(60):
        life.chance.choice(acts)()
        life.node.run(0.3)
        check(life.node)
        assert life.node.controller is not None
        state = life.node.controller.node
        held = [one for one in state.plan.tunnels.values() if one.instance is not None]
        identities = [(one.outer, one.instance.identity) for one in held if one.instance is not None]
        assert len(set(identities)) == len(identities)
        assert {state.instances.of(*identity) for identity in identities} == {one.number for one in held}
        most = max(most, len(held))
        assert not state.ended
        assert not state.taken_over
    assert most >= 2
