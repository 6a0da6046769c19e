"""The router's hardware as plain values for operators: slots, ASPs with their pools and groups, alarms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from chassis.model.router import MANAGEMENT_SLOT, Config
from chassis.net.rate import Rate
from chassis.xcrp import spares, tunnels
from chassis.xcrp.cards import AdmissionState, CardEntry
from chassis.xcrp.inventory import ASP, asp, is_shut, rate_of
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.state import ControllerState

Row = dict[str, Any]

PLATFORM: Final = "SE1200"
"""The chassis with 14 slots."""

CONTROLLER_TYPE: Final = "xcrp4"
ASE_TYPE: Final = "ase"

MAX_ALARMS: Final = 200
"""Most alarms in one answer (count); the totals count all."""

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

_DOWN_CAUSES: Final = (
    (tunnels.SHUTDOWN, "configuredDown"),
    (tunnels.ROUTE, "noRoute"),
    (tunnels.LINE_CARD, "ppaHomingFailure"),
    (tunnels.NO_LINE_CARD, "ppaHomingFailure"),
    (tunnels.SERVICE, "aspHomingFailure"),
    (f"{tunnels.ASP}:", "aspHomingFailure"),
)
"""Causes of tunnel alarms as RBN-IP-SECURITY-MIB names them, by the beginning of the reason."""

MAJOR: Final = "major"


def system(state: ControllerState, now: float) -> Row:
    """Return what the router says of itself; `uptime` is the age of its controller's process (s)."""
    return {
        "node": state.node.name,
        "hostname": state.config.hostname,
        "platform": PLATFORM,
        "os": state.settings.os,
        "uptime": now - state.history.began,
    }


def _made(node: str, part: str) -> Row:
    """Return serial number, revision, version and date of manufacture of a part: ours, always the same."""
    digest = hashlib.sha256(f"{node} {part}".encode()).digest()
    day, month, year = digest[8] % 28 + 1, _MONTHS[digest[9] % 12], 2006 + digest[10] % 6
    return {
        "serial": digest[:7].hex().upper(),
        "revision": f"{digest[11] % 20 + 1:02}",
        "version": 1 + digest[12] % 4,
        "manufactured": f"{day:02}-{month}-{year}",
    }


def slots(state: ControllerState) -> list[Row]:
    """Return one row for each slot with a card, configured or installed, in order of slots.

    `installed` is empty for a configured type that is not emulated. `processes` are those of the card.
    """
    node = state.node
    configured = {slot: card.type for slot, card in node.plan.config.cards.items()}
    processes: dict[int, list[CardEntry]] = {}
    for entry in node.cards.values():
        processes.setdefault(_slot(entry.card), []).append(entry)
    rows = []
    for number in sorted({*configured, *processes, MANAGEMENT_SLOT}):
        entries = [_process(node.plan.config, entry) for entry in processes.get(number, ())]
        named = configured.get(number, CONTROLLER_TYPE if number == MANAGEMENT_SLOT else "")
        here = named if entries or number == MANAGEMENT_SLOT else ""
        rows.append(
            {
                "slot": number,
                "configured": named,
                "installed": here or (ASE_TYPE if entries else ""),
                "active": number == MANAGEMENT_SLOT,
                "initialized": all(entry["usable"] for entry in entries) and bool(entries or here),
                "processes": entries,
                **_made(node.name, f"slot {number}"),
            }
        )
    return rows


def _process(config: Config, entry: CardEntry) -> Row:
    """Return the row of a card's process. One whose card is shut down runs, and carries nothing."""
    if is_shut(config, entry.card):
        return {"name": entry.card, "usable": False, "state": "shutdown"}
    return {"name": entry.card, "usable": entry.usable, "state": entry.state.value}


def _slot(card: str) -> int:
    """Return the slot of `lc 3` or `asp 1/2`."""
    return int(card.rpartition(" ")[2].partition("/")[0])


def hardware(state: ControllerState, now: float) -> Row:
    """Return the slots, the parts that are in none, and the number of alarms."""
    parts = [{"part": part, **_made(state.node.name, part)} for part in ("backplane", "fan tray")]
    return {
        "platform": PLATFORM,
        "slots": slots(state),
        "parts": parts,
        "alarms": sum(1 for _ in _alarms(state, now)),
    }


def _rate(node: NodeState, card: str) -> str:
    """Return the rate that an ASP keeps to, as it says it itself."""
    rate = Rate.parse(rate_of(node.plan.config, card) or node.settings.cards.get("asp-rate", 0))
    return str(rate) if rate is not None else ""


def asps(node: NodeState) -> Row:
    """Return ASPs, pools and groups. A group works with the first `asp_count` ASPs of its pools.

    `rate` is what an ASP can encapsulate in a second: by its pool, else by the lab; empty without a limit.
    """
    config = node.plan.config
    working = {name: list(spares.working(config, name, node.numbers.seats)) for name in config.groups}
    contexts: dict[str, list[str]] = {}
    for name, context in config.contexts.items():
        if context.asp_group:
            contexts.setdefault(context.asp_group, []).append(name)
    pools = {
        name: [pool.name for pool in config.pools.values() if name in pool.asps]
        for name in {name for pool in config.pools.values() for name in pool.asps}
    }
    rows = []
    for entry in node.cards.values():
        if entry.kind != ASP:
            continue
        name = entry.card.removeprefix("asp ")
        groups = [group for group, names in working.items() if name in names]
        numbers = node.plan.tunnels_by_asp.get(entry.card, ())
        rows.append(
            {
                "asp": name,
                "state": "shutdown" if is_shut(config, entry.card) else _state(entry),
                "reason": "" if entry.usable else entry.down_reason,
                "service": "security" if name in pools else "",
                "pools": pools.get(name, []),
                "groups": groups,
                "role": "active" if groups else "spare" if name in pools else "",
                "contexts": [context for group in groups for context in contexts.get(group, ())],
                "rate": _rate(node, entry.card),
                "tunnels": len(numbers),
                "up": sum(node.tunnels[number].up for number in numbers),
                "boot": entry.admitted_boot,
            }
        )
    return {
        "asps": rows,
        "pools": [
            {
                "pool": pool.name,
                "service": "security",
                "asps": list(pool.asps),
                "up": sum(node.asp_usable(asp(name)) for name in pool.asps),
                "spare": sum(not any(name in names for names in working.values()) for name in pool.asps),
                "rate": pool.rate or "",
            }
            for pool in config.pools.values()
        ],
        "groups": [
            {
                "group": group.name,
                "pools": list(group.pools),
                "asp_count": group.asp_count,
                "active": working[group.name],
                "contexts": contexts.get(group.name, []),
            }
            for group in config.groups.values()
        ],
    }


def _state(entry: CardEntry) -> str:
    """Return up, down or booting."""
    if entry.usable:
        return "up"
    booting = (AdmissionState.STARTED, AdmissionState.ADMITTED, AdmissionState.SYNCHRONISING)
    return "booting" if entry.state in booting else "down"


def alarms(state: ControllerState, now: float) -> Row:
    """Return the alarms that stand: cards, ports and tunnels that are down, certificates that are not valid.

    `total` counts them by severity; of many the first `MAX_ALARMS` are there.
    """
    rows: list[Row] = []
    total: dict[str, int] = {}
    for alarm in _alarms(state, now):
        total[alarm["severity"]] = total.get(alarm["severity"], 0) + 1
        if len(rows) < MAX_ALARMS:
            rows.append(alarm)
    return {"alarms": rows, "total": total}


def _alarms(state: ControllerState, now: float) -> Iterator[Row]:
    node = state.node
    served = {asp(name) for pool in node.plan.config.pools.values() for name in pool.asps}
    for entry in node.cards.values():
        if not entry.usable:
            name = f"aseAsp{entry.card[-1]}Down" if entry.kind == ASP else "cardDown"
            yield _alarm(entry.card, name, entry.down_reason or entry.state.value)
        elif entry.kind == ASP and entry.card not in served:
            yield _alarm(entry.card, f"asp{entry.card[-1]}MissingServiceAssoc", "in no pool", severity="warning")
    for port in node.plan.ports.values():
        if port.enabled and not port.shut and not node.port_up(port.name):
            card = node.cards.get(port.card)
            why = "no carrier" if card is None or card.usable else f"{port.card} is down"
            yield _alarm(f"port {port.name}", "portDown", why)
    for number, tunnel in node.tunnels.items():
        # A peer of an on-demand tunnel that goes is no fault of the router.
        if not tunnel.up and node.plan.tunnels[number].instance is None:
            yield _tunnel_alarm(node, node.plan.tunnels[number])
    for alarm in state.certificates.alarms(now):
        yield _alarm(alarm.place, alarm.name, alarm.text, alarm.severity)


def _alarm(place: str, kind: str, text: str, severity: str = MAJOR, cause: str = "") -> Row:
    return {"severity": severity, "object": place, "alarm": kind, "cause": cause, "text": text}


def _tunnel_alarm(node: NodeState, tunnel_plan: TunnelPlan) -> Row:
    state = node.tunnels[tunnel_plan.number]
    reason = state.reason(tunnel_plan.asp, node.asp_usable(tunnel_plan.asp))
    cause = next((name for begin, name in _DOWN_CAUSES if reason.startswith(begin)), "general")
    return _alarm(f"tunnel {tunnel_plan.config.name}", "ipsecTunnelDown", reason, cause=cause)
