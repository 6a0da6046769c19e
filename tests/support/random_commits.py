"""Random commits at a simulated router with many tunnels, and what has to hold after each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from chassis.ase.engine import AspEngine
from chassis.ase.ipsec.sa import InboundSa, OutboundSa
from chassis.bus.engine import ToCard
from chassis.bus.messages import Delta, Snapshot
from chassis.bus.records import (
    CardStateRecord,
    CircuitRecord,
    InterfaceRecord,
    Key,
    LocalAddressRecord,
    PolicyRecord,
    Record,
    RouteRecord,
    TunnelHopRecord,
    TunnelRecord,
)
from chassis.sim.lab import LabModel, Run
from chassis.sim.node import SimNode
from chassis.xcrp import configuration
from chassis.xcrp.engine import ControllerEngine
from chassis.xcrp.journal import JOURNAL
from launch import simulate
from tests.support import many_tunnels
from tests.support.many_tunnels import is_manual

SA_SLOTS: Final = 4096
SETTLE: Final = 3.0
"""Simulated seconds in which a commit has done what it does."""

MINUTE: Final = 60.0

WRONG: Final = (
    "no such command\n",
    "tunnel ipsec t-1\nmtu 1\n",
    "ipsec proposal none\nesp encryption null\n",
    "context inner\nip route 99.0.0.0/8 ti-1 cost many\n",
    "card ether-12-port 7\n",
    "ipsec policy light heavy\n",
    "context outer\nike2 policy new\nmode aggressive\n",
)
"""Lines that a commit is refused for."""

DISTURBANCES: Final = (
    ("context outer\nno asp-group\n", "context outer\nasp-group G service security\n"),
    ("context outer\nno ip route 2.0.0.0/8 10.0.0.2\n", "context outer\nip route 2.0.0.0/8 10.0.0.2\n"),
    ("port ethernet 3/1\nshutdown\n", "port ethernet 3/1\nno shutdown\n"),
    ("no ipsec policy light\n", "ipsec policy light\nseq 10 proposal light\n"),
    ("asp pool P service security\nno asp 1/2\n", "asp pool P service security\nasp 1/2\n"),
    (
        "context outer\nno interface end-1\ninterface end-2\nno ip address\n",
        "context outer\ninterface end-1 loopback\nip address 1.1.1.1/32\ninterface end-2\nip address 1.1.1.2/32\n",
    ),
    ("no ike2 proposal ike\n", "ike2 proposal ike\ndh-group 2\n"),
)
"""What all or many tunnels need is taken away, and given back."""

Sas = dict[str, list[tuple[Any, ...]]]
"""(serial, direction, SPI) of the SAs of each tunnel, by its name."""


@dataclass(slots=True)
class Step:
    """A commit: its lines, the tunnels that it is about (None: all), and whether SAs must stay until a `clear`."""

    lines: str
    touched: frozenset[int] | None
    sas_stay: bool = False


class RandomCommits:
    """The lab of `many_tunnels`, up; commits at `a` drawn from a seed."""

    def __init__(self, folder: Path, tunnels: int, seed: int) -> None:
        self.folder, self.draw = folder, Random(seed)
        prepared = tunnels + max(4, tunnels // 10)
        self.run = Run(_model(many_tunnels.write_lab(folder, tunnels, prepared)), seed)
        self.a, self.b = self.run.nodes
        self.run.boot()
        self.present = set(range(1, tunnels + 1))
        self.numbers = range(1, prepared + 1)
        self.counts: dict[str, int] = {}
        self.sent: list[tuple[str, Record | Key]] = []
        """(card, what was put, or the key that was deleted)"""
        self.mirror: dict[str, dict[Key, Record]] = {}
        self.names: dict[int, int] = {}
        """By number of a tunnel in records, the one that its name has."""
        self.wait(6.0)
        assert all(state.up for state in self.engine.node.tunnels.values())
        assert self.a.controller is not None
        self.a.controller.handlers[ToCard] = self._watch(self.a.controller.handlers[ToCard])

    # asking

    @property
    def engine(self) -> ControllerEngine:
        assert self.a.controller is not None
        engine: ControllerEngine = self.a.controller.engine
        return engine

    def wait(self, seconds: float) -> None:
        self.run.world.run(self.run.world.now + seconds)

    def ask(self, command: str, node: SimNode | None = None, **arguments: Any) -> tuple[dict[str, Any], str]:
        """A command's answer and its error."""
        answers: list[tuple[dict[str, Any], str]] = []
        (node or self.a).operate(command, arguments, lambda result, error: answers.append((result, error)))
        for _ in range(60):
            self.wait(0.1)
            if answers:
                [answer] = answers
                return answer
        raise AssertionError(f"{command} is not answered")

    def version(self) -> int:
        result, _ = self.ask("identity")
        return int(result["version"])

    def commit(self, lines: str, **more: Any) -> tuple[dict[str, Any], str]:
        return self.ask("commit", lines=lines, **{"user": "ann", "base": self.version(), **more})

    # what a router holds

    def text(self) -> str:
        """The configuration in force, with its keys."""
        return configuration.text_of(self.engine.state.config)

    def records(self) -> dict[Key, Record]:
        return dict(self.engine.node.publisher.records)

    def sas(self) -> Sas:
        found: Sas = {}
        for card in self.a.cards.values():
            if isinstance(card.engine, AspEngine):
                for row in card.engine.sa_statistics.statistics(None)["tunnels"]:
                    found[row["name"]] = [(sa["serial"], sa["direction"], sa["spi"]) for sa in row["sas"]]
        return found

    # the steps

    def kinds(self) -> dict[str, tuple[int, Callable[[], None]]]:
        """How often each kind of step is drawn, and what makes it."""
        return {
            "edit": (8, lambda: self.done(self.edit())),
            "add": (3, lambda: self.done(self.add())),
            "remove": (3, lambda: self.done(self.remove())),
            "shared": (1, lambda: self.done(self.shared())),
            "disturbed": (1, self.disturbed),
            "invalid": (3, self.refused),
            "sessions": (3, self.two_sessions),
            "confirmed": (2, lambda: self.confirmed(confirm=True)),
            "undone": (2, lambda: self.confirmed(confirm=False)),
            "rollback": (1, self.rolled_back),
        }

    def steps(self, count: int) -> None:
        """So many steps: one of each kind at least, the others drawn."""
        kinds = self.kinds()
        names = list(kinds)
        drawn = self.draw.choices(names, [weight for weight, _ in kinds.values()], k=count - len(names))
        order = names + drawn
        self.draw.shuffle(order)
        for name in order:
            self.counts[name] = self.counts.get(name, 0) + 1
            kinds[name][1]()

    def edit(self, number: int | None = None) -> Step:
        """A change of one or two tunnels."""
        numbers = (
            [number] if number is not None else self.draw.sample(sorted(self.present), self.draw.choice((1, 1, 2)))
        )
        lines, stay = "", True
        for one in numbers:
            added, stays = self._edit(one)
            lines, stay = lines + added, stay and stays
        return Step(lines, frozenset(numbers), stay)

    def _edit(self, number: int) -> tuple[str, bool]:
        draw, name = self.draw, f"tunnel ipsec t-{number}\n"
        far, near = many_tunnels.inside("b", number), many_tunnels.inside("a", number)
        rule = f"{draw.choice(('', 'tcp ', 'udp '))}{near} {far}"
        changes = [
            (f"{name}mtu {draw.randrange(1200, 1400)}\n", True),
            (f"{name}{draw.choice(('shutdown', 'no shutdown'))}\n", False),
            (f"context inner\nip route {far} ti-{number} cost {draw.randrange(1, 15)}\n", True),
            (f"context inner\ninterface ti-{number}\ndescription text {draw.random()}\n", True),
            (f"context inner\nipsec access-list acl-{number}\nseq 10 {rule}\n", False),
        ]
        if is_manual(number):
            ends = f"local 1.1.1.{draw.randrange(1, 3)} remote {many_tunnels.end_point('b', number)} context outer"
            spi = 20000 + 16 * number + draw.randrange(16)
            changes += [
                (many_tunnels.manual_sa("a", number, draw.randrange(16)), True),
                (f"tunnel ipsec t-{number} manual\npeer-end-point {ends}\n", True),
                (f"ipsec security-association sa-{number}\n{draw.choice(('in', 'out'))}\nesp spi {spi}\n", True),
            ]
        else:
            changes += [
                (f"{name}seq 10 ipsec-policy {draw.choice(('light', 'heavy'))} access-group acl-{number}\n", True),
                (f"context outer\nike2 policy pol-{number}\nlifetime seconds {draw.randrange(600, 9999)}\n", True),
            ]
        return draw.choice(changes)

    def add(self) -> Step:
        absent = sorted(set(self.numbers) - self.present)
        if not absent:
            return self.remove()
        number = self.draw.choice(absent)
        self.present.add(number)
        return Step(many_tunnels.tunnel("a", number), frozenset({number}))

    def remove(self) -> Step:
        number = self.draw.choice(sorted(self.present))
        self.present.discard(number)
        lines = f"no tunnel ipsec t-{number}\n"
        if self.draw.random() < 0.5:
            far = many_tunnels.inside("b", number)
            lines += (
                f"context inner\nno interface ti-{number}\nno ipsec access-list acl-{number}\n"
                f"no ip route {far} ti-{number}\n"
            )
            lines += (
                f"no ipsec security-association sa-{number}\n"
                if is_manual(number)
                else f"context outer\nno ike2 policy pol-{number}\n"
            )
        return Step(lines, frozenset({number}))

    def shared(self) -> Step:
        """A change of what all tunnels use: their SAs have it when they are made anew."""
        return Step(f"ipsec proposal light\nlifetime seconds {self.draw.randrange(600, 9999)}\n", None, True)

    def disturbed(self) -> None:
        """Something that all tunnels need goes, and comes back with another commit."""
        for lines in self.draw.choice(DISTURBANCES):
            self.done(Step(lines, None))
        # An IKE SA whose deletion nobody answers, because the end point is gone, takes half a minute to go.
        self.wait(45.0)
        node = self.engine.node
        for number, plan in node.plan.tunnels.items():
            assert node.tunnels[number].up or plan.config_error, plan.config.name

    # what has to hold

    def done(self, step: Step, **more: Any) -> None:
        before = self.sas()
        self._begin()
        result, error = self.commit(step.lines, **more)
        assert (result.get("applied"), error) == (True, ""), (step, result, error)
        self.wait(SETTLE)
        self.only(step.touched, before, sas_stay=step.sas_stay)

    def refused(self) -> None:
        """A wrong line, after right ones or before them: nothing changes anywhere."""
        lines = [self.edit().lines, self.draw.choice(WRONG)]
        self.draw.shuffle(lines)
        self.unchanged(lambda: self.commit("".join(lines))[0]["applied"] is False)

    def unchanged(self, refused: Callable[[], bool]) -> None:
        records, sas, text = self.records(), self.sas(), self.text()
        journal = self.a.disk.files[JOURNAL]
        self._begin()
        assert refused()
        self.wait(0.5)
        assert self.sent == []
        assert (self.records(), self.sas(), self.text()) == (records, sas, text)
        assert self.a.disk.files[JOURNAL] == journal

    def two_sessions(self) -> None:
        """Both began at the same commit: what the second one changes too is refused, the rest goes."""
        base = self.version()
        one, other = self.draw.sample(sorted(self.present), 2)
        held = self.engine.state.config.tunnels[f"t-{one}"].mtu
        mtus = [mtu for mtu in range(1400, 1410) if mtu != held]
        self.done(Step(f"tunnel ipsec t-{one}\nmtu {mtus[0]}\n", frozenset({one}), True))
        self.done(self.edit(other), user="bob", base=base)
        mine = f"{self.edit(one).lines}tunnel ipsec t-{one}\nmtu {mtus[1]}\n"
        why = f"Database is locked by another transaction of user ann: tunnel t-{one}"
        self.unchanged(lambda: why in self.commit(mine, user="bob", base=base)[1])

    def confirmed(self, *, confirm: bool) -> None:
        """A commit that must be confirmed: it is, or goes back as if it had never been."""
        records, text, present = self.records(), self.text(), set(self.present)
        step = self.draw.choice((self.edit, self.add, self.remove))()
        self.done(step, confirm=1)
        self.unchanged(lambda: "Database is locked" in self.commit("context new\n", user="bob")[1])
        if confirm:
            assert self.commit("")[0]["applied"]
            text, records = self.text(), self.records()
        before = self.sas()
        self._begin()
        self.wait(MINUTE + SETTLE)
        assert self.text() == text
        if confirm:
            assert self.sent == []
            return
        self.present = present
        self.only(step.touched, before, sas_stay=False)
        self.same_records(records, self.records())

    def rolled_back(self) -> None:
        """An earlier configuration, whose difference from the present one is what changes."""
        rows = [row["number"] for row in self.ask("commits")[0]["commits"]]
        target = self.draw.choice(rows[:4])
        before = self.sas()
        self._begin()
        result, error = self.ask("rollback", number=target, user="ann")
        assert not error
        self.wait(SETTLE)
        paths = " ".join(" ".join(change["path"]) for change in result["changes"])
        touched = frozenset(int(number) for number in re.findall(r"-(\d+)\b", paths))
        self.only(None if "proposal light" in paths else touched, before, sas_stay=False)
        self.present = {self.names_of(name) for name in self.engine.state.config.tunnels}

    @staticmethod
    def names_of(name: str) -> int:
        return int(name.removeprefix("t-"))

    def only(self, touched: frozenset[int] | None, before: Sas, *, sas_stay: bool) -> None:
        """No other tunnel than these was told of, and the SAs of the others are the same."""
        for card, what in self.sent:
            about = self._about(what)
            if touched is not None and not (about is None and self._begins_or_ends(card, what)):
                assert about in touched, f"{card} was told of {what}"
        for name, sas in self.sas().items():
            if touched is not None and self.names_of(name) not in touched:
                assert sas == before[name], name
            elif sas_stay and before.get(name):
                assert sas == before[name], f"{name} was negotiated again without a clear"

    def _begins_or_ends(self, card: str, what: Record | Key) -> bool:
        """Whether an ASP got what tunnels share because its first one uses it now, or lost it."""
        if isinstance(what, PolicyRecord):
            return what.key not in self.held[card]
        return isinstance(what, tuple) and what[0] in ("ipsec-policy", "ipsec-proposal", "ike-proposal")

    def _about(self, what: Record | Key) -> int | None:
        """Return the number of the tunnel that a record belongs to; None for what is not a tunnel's."""
        if isinstance(what, tuple):
            if what[0] in ("tunnel", "tunnel-hop"):
                return self.names.get(int(what[1]))
            name = str(what[-1])
            if what[0] == "route":
                return _of_address(int(what[2]))
            if what[0] == "local":
                return _of_address(int(what[2]))
            if what[0] == "circuit":
                return self.names.get(self.circuits.get(int(what[1]), 0))
        elif isinstance(what, TunnelHopRecord):
            return self.names.get(what.number)
        elif isinstance(what, TunnelRecord):
            name = what.config.name
        elif isinstance(what, CircuitRecord | InterfaceRecord):
            name = what.interface if isinstance(what, CircuitRecord) else what.name
        elif isinstance(what, PolicyRecord):
            name = what.value.name
        elif isinstance(what, RouteRecord):
            return _of_address(what.prefix)
        elif isinstance(what, LocalAddressRecord):
            return _of_address(what.address)
        else:
            name = ""
        # A manual SA that stays while another is configured has the name of that one, and more.
        found = re.fullmatch(r"[a-z]+-(\d+)", name.partition(" ")[0])
        return int(found.group(1)) if found else None

    def _begin(self) -> None:
        """Look at what is sent from now on."""
        self.sent.clear()
        self.mirror = {card.card: dict(card.engine.replica.records) for card in self.a.cards.values()}
        self.held = {card: frozenset(records) for card, records in self.mirror.items()}
        for record in self.records().values():
            if isinstance(record, TunnelRecord):
                self.names[record.number] = self.names_of(record.config.name)
        self.circuits = {
            record.number: record.tunnel for record in self.records().values() if isinstance(record, CircuitRecord)
        }

    def _watch(self, send: Callable[[Any], None]) -> Callable[[Any], None]:
        def watching(output: ToCard) -> None:
            message = output.message
            if isinstance(message, Delta | Snapshot):
                held = self.mirror.setdefault(output.card, {})
                for record in message.put if isinstance(message, Delta) else message.records:
                    if isinstance(record, TunnelRecord):
                        self.names[record.number] = self.names_of(record.config.name)
                    if not isinstance(record, CardStateRecord):
                        assert held.get(record.key) != record, f"{output.card} is told again of {record.key}"
                        self.sent.append((output.card, record))
                    held[record.key] = record
                for key in message.delete if isinstance(message, Delta) else ():
                    self.sent.append((output.card, key))
                    held.pop(key, None)
            send(output)

        return watching

    # the end

    def fresh(self) -> RandomCommits:
        """Another chassis with the same numbers and replay windows; its start-up file is what is in force here."""
        folder = self.folder / "fresh"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        made = object.__new__(RandomCommits)
        made.folder = folder
        path = many_tunnels.write_lab(folder, 0, len(self.numbers))
        (folder / "a.cfg").write_text(self.text())
        made.run = Run(_model(path), 1)
        made.a, made.b = made.run.nodes
        made.a.disk.files = {name: data for name, data in self.a.disk.files.items() if name != JOURNAL}
        made.a.memory = {card: memoryview(bytearray(memory)) for card, memory in self.a.memory.items()}
        made.a._boots = dict(self.a._boots)
        made.run.boot()
        made.wait(6.0)
        return made

    def same_as(self, other: RandomCommits) -> None:
        """After a `clear` the plan, the records and the SAs are those of a chassis that began with this text."""
        self.ask("clear")
        self.wait(6.0)
        mine, its = self.engine.node.plan, other.engine.node.plan
        for item in fields(mine):
            one, two = getattr(mine, item.name), getattr(its, item.name)
            assert _plain(one) == _plain(two), item.name
        self.same_records(self.records(), other.records())
        assert self.described() == other.described()

    def same_records(self, one: dict[Key, Record], two: dict[Key, Record]) -> None:
        mine, its = _steady(one.values()), _steady(two.values())
        differing = [key for key in mine.keys() | its.keys() if mine.get(key) != its.get(key)]
        assert differing == [], [(mine.get(key), its.get(key)) for key in differing[:2]]

    def described(self) -> dict[str, list[Any]]:
        """What the SAs of each tunnel are but for their keys and numbers."""
        found: dict[str, list[Any]] = {}
        for card in self.a.cards.values():
            if not isinstance(card.engine, AspEngine):
                continue
            for state in card.engine.tunnels.local.values():
                found[state.record.config.name] = [
                    (card.card, *_described(sa)) for pair in state.pairs for sa in (pair.outbound, pair.inbound)
                ]
        return found


def _model(path: Path) -> LabModel:
    """Return the lab with room for the SAs of many tunnels, and without the rules about its own two texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "SA_SLOTS", SA_SLOTS)
        model = simulate.model(path)
    return replace(model, nodes=tuple(replace(node, variants=()) for node in model.nodes))


def _described(sa: OutboundSa | InboundSa) -> tuple[Any, ...]:
    """Return what does not change when an SA is made anew; of manual keys also the SPI and the keys."""
    esp = sa.esp
    assert esp is not None
    return (
        type(sa).__name__,
        sa.source,
        sa.destination,
        sa.entry,
        sa.selectors,
        sa.negotiated,
        sa.lifetime,
        esp.cipher,
        esp.integrity,
        sa.negotiated or (esp.spi, esp.integrity_key),
    )


def _plain(value: Any) -> Any:
    """A part of a plan, with lists whose order means nothing in order."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return sorted(value, key=repr) if isinstance(value, list) else value


def _steady(records: Iterable[Record]) -> dict[Key, Record]:
    """Records without what depends on when cards, tunnels and SAs began: tunnels by the number of their names."""
    held = [record for record in records if not isinstance(record, CardStateRecord)]
    names = {one.number: int(one.config.name.removeprefix("t-")) for one in held if isinstance(one, TunnelRecord)}
    names[0] = 0
    found: dict[Key, Record] = {}
    for record in held:
        if isinstance(record, TunnelRecord):
            record = replace(record, number=names[record.number], circuit=0, leases=())
        elif isinstance(record, TunnelHopRecord):
            record = replace(record, number=names[record.number])
        elif isinstance(record, CircuitRecord) and record.tunnel:
            record = replace(record, number=-names[record.tunnel], tunnel=0)
        elif isinstance(record, InterfaceRecord):
            record = replace(record, tunnel=names[record.tunnel])
        elif isinstance(record, RouteRecord):
            hops = tuple(replace(hop, tunnel=names[hop.tunnel]) for hop in record.next_hops)
            record = replace(record, next_hops=hops)
        found[record.key] = record
    return found


def _of_address(address: int) -> int | None:
    """Return the number of the tunnel that an inner address is of."""
    first, second, third, _ = address.to_bytes(4, "big")
    if first == 10 and 200 <= second < 210:
        return (second - 200 << 6) + third
    return (second << 8) + third if first in (41, 42) else None
