"""Evaluate conditions of scenarios in a running lab (docs/labs.md).

Input: a parsed condition and an `Observer`. Output: whether the condition holds now, and a text with what was
seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chassis.bus.operator import OperatorError
from launch.lab.model import Lab
from launch.lab.scenario_syntax import Condition


class Observer(Protocol):
    """Queries that a condition may make to a running lab."""

    @property
    def file(self) -> Lab:
        """The lab as its file describes it."""

    def ask(self, node: str, command: str, arguments: Mapping[str, Any]) -> Any:
        """Return the result of an operator's command at a node.

        Raises:
            OperatorError: the node refuses or does not answer.
        """

    def report(self, flow: str) -> Mapping[str, Any]:
        """Return the testers' measurements of a flow."""

    def path(self, flow: str) -> tuple[str, ...]:
        """Return the steps of a flow's last traced packet; `()` if none arrived."""


def _routers(lab: Observer, condition: Condition) -> list[str]:
    return [condition.node] if condition.node else [router.name for router in lab.file.routers()]


def _tunnels(lab: Observer, condition: Condition) -> tuple[bool, str]:
    wanted = condition.state == "up"
    wrong, count = [], 0
    for router in _routers(lab, condition):
        status = lab.ask(router, "status", {})
        for row in status["tunnels"]:
            count += 1
            if row["up"] != wanted:
                wrong.append(_tunnel_seen(router, row))
        # "up" is the controller's state; packets use the tunnel once the cards have applied it.
        for row in status["cards"]:
            if row["usable"] and not row.get("in_sync", True):
                wrong.append(f"{row['card']} of {router} has not applied it yet")
    if not count:
        return False, "no tunnels"
    return not wrong, "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "") or "all are"


def _tunnel_seen(router: str, row: Mapping[str, Any]) -> str:
    if row["up"]:
        return f"tunnel {row['name']} of {router} is up on {row.get('asp', '')}"
    return f"tunnel {row['name']} of {router} is down: {row.get('reason', '')}"


def _tunnel(lab: Observer, condition: Condition) -> tuple[bool, str]:
    seen, held = [], True
    for router in _routers(lab, condition):
        for row in lab.ask(router, "status", {})["tunnels"]:
            if row["name"] != condition.name:
                continue
            if condition.where:
                at = row.get("asp") if condition.where.startswith("asp ") else row.get("home")
                held &= row["up"] and at == condition.where
                seen.append(
                    f"tunnel {row['name']} of {router} is on {at or 'none'}, {'up' if row['up'] else 'down'}"
                )
            else:
                held &= row["up"] == (condition.state == "up")
                seen.append(_tunnel_seen(router, row))
    return held and bool(seen), "; ".join(seen) or f"no router has tunnel {condition.name}"


def _cards(lab: Observer, condition: Condition) -> tuple[bool, str]:
    wanted = condition.state == "up"
    wrong = []
    for router in _routers(lab, condition):
        for row in lab.ask(router, "status", {})["cards"]:
            if row["card"] != "xcrp" and row["usable"] != wanted:
                wrong.append(f"{row['card']} of {router} is {row['state']}")
    if wanted and not condition.node:
        for tester in lab.file.testers():
            lab.ask(tester.name, "flows", {})
        for peers in lab.file.peers():
            lab.ask(peers.name, "status", {})
    return not wrong, "; ".join(wrong[:8]) or "all are"


def _card(lab: Observer, condition: Condition) -> tuple[bool, str]:
    wanted = condition.state == "up"
    try:
        rows = lab.ask(condition.node, "status", {})["cards"]
    except OperatorError as error:
        if condition.name != "xcrp":
            raise
        return not wanted, str(error)
    if condition.name == "xcrp":
        return wanted, "it answers"
    for row in rows:
        if row["card"] == condition.name:
            return row["usable"] == wanted, f"{condition.name} of {condition.node} is {row['state']}"
    return False, f"{condition.node} has no {condition.name}: it has {', '.join(row['card'] for row in rows)}"


def _port(lab: Observer, condition: Condition) -> tuple[bool, str]:
    rows = lab.ask(condition.node, "status", {})["ports"]
    for row in rows:
        if row["port"] == condition.name:
            return row["up"] == (condition.state == "up"), f"it is {'up' if row['up'] else 'down'}"
    return False, f"{condition.node} has no port {condition.name}"


def _flow(lab: Observer, condition: Condition) -> tuple[bool, str]:
    report = lab.report(condition.name)
    if condition.bound is not None:
        return condition.bound.holds(report["received"]), f"{report['received']} received"
    reason = f": {report['reason']}" if report["reason"] else ""
    return report["state"] == condition.state, f"flow {condition.name} is {report['state']}{reason}"


def _path(lab: Observer, condition: Condition) -> tuple[bool, str]:
    path = lab.path(condition.name)
    return goes_by(path, condition.where), ", ".join(path) or "no traced packet arrived"


CHECKS: Mapping[str, Callable[[Observer, Condition], tuple[bool, str]]] = {
    "tunnels": _tunnels,
    "tunnel": _tunnel,
    "cards": _cards,
    "card": _card,
    "port": _port,
    "flow": _flow,
    "path": _path,
}


def goes_by(path: tuple[str, ...], place: str) -> bool:
    """Return whether a path passes a place: `a asp 1/1`, `a lc 3`, a port as `a 3/11` or a whole step.

    Recognise line cards by their ports and circuits (`3/11 out`, `3 circuit 17`), ASPs by their steps.
    """
    words = place.split()
    for step in path:
        if step == place:
            return True
        part = step.split()
        if len(words) < 2 or len(part) < 3 or part[0] != words[0]:
            continue
        where, what = part[1], part[2]
        asp = what in ("encapsulate", "decapsulate")
        if words[1] == "asp" and len(words) == 3:
            if asp and where == words[2]:
                return True
        elif words[1] == "lc" and len(words) == 3:
            if not asp and where.partition("/")[0] == words[2]:
                return True
        elif len(words) == 2 and not asp and where == words[1]:
            return True
    return False
