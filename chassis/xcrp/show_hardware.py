"""The router's hardware as plain values for operators: slots, ASPs with their pools and groups, alarms."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.model.router import MANAGEMENT_SLOT, Config
from chassis.net.rate import Rate
from chassis.xcrp import spares
from chassis.xcrp.cards import AdmissionState, CardEntry
from chassis.xcrp.inventory import ASP, asp, is_shut, rate_of
from chassis.xcrp.node import NodeState
from chassis.xcrp.state import ControllerState

Row = dict[str, Any]

PLATFORM: Final = "SE1200"
"""The chassis with 14 slots."""

CONTROLLER_TYPE: Final = "xcrp4"
ASE_TYPE: Final = "ase"

MAX_ALARMS: Final = 200
"""Most alarms in one part of an answer (count)."""

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


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


def hardware(state: ControllerState) -> Row:
    """Return the slots, the parts that are in none, and the number of alarms."""
    parts = [{"part": part, **_made(state.node.name, part)} for part in ("backplane", "fan tray")]
    return {
        "platform": PLATFORM,
        "slots": slots(state),
        "parts": parts,
        "alarms": len(state.alarms.table.standing),
    }


def _rate(node: NodeState, card: str) -> str:
    """Return the rate that an ASP keeps to, as it says it itself."""
    rate = Rate.parse(rate_of(node.plan.config, card) or node.settings.cards.get("asp-rate", 0))
    return str(rate) if rate is not None else ""


def asps(node: NodeState) -> Row:
    """Return ASPs, pools and groups. A group works with the first `asp_count` ASPs of its pools.

    `rate` is what an ASP can encapsulate in a second: by its pool, else by the lab; empty without a limit.
    `cipher_engine` is what encrypts its ESP; empty of an ASP that was not there yet.
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
                "cipher_engine": entry.cipher_engine,
                "tunnels": len(node.plan.tunnels_by_asp.get(entry.card, ())),
                "up": node.tunnels_up(entry.card),
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


def alarms(state: ControllerState, after: str) -> Row:
    """Return the alarms that stand, the worst first; of many at most `MAX_ALARMS`, those after the part that ended
    with `after`.

    `raised` is Unix time (s), `tunnels` counts the tunnels that are down with a card or port and have no alarm of
    their own. The last part has an empty `next`, and in `total` the number of all by severity.

    Raises:
        ArgumentError: no part ends so.
    """
    watch = state.alarms
    try:
        found, going_on = watch.table.part(after, MAX_ALARMS)
    except ValueError as error:
        raise ArgumentError(f"after: {error}") from None
    down_with = watch.down_with()
    rows = [
        {
            "severity": one.alarm.severity,
            "object": one.alarm.place,
            "alarm": one.alarm.name,
            "cause": one.alarm.cause,
            "text": one.alarm.text,
            "raised": one.raised,
            "tunnels": down_with[one.alarm.place],
        }
        for one in found
    ]
    return {"alarms": rows, "next": going_on, **({} if going_on else {"total": watch.table.total})}
