"""Status of a lab for people: cards, tunnels, flows, loss and the last events; once, or live in a terminal.

Input: the launcher's `status` answer as a dict. Output: rich renderables.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chassis.bus.operator import OperatorClient, OperatorError
from chassis.net import units
from chassis.tester.results import combine
from launch.run_folders import LAUNCHER_SOCKET

REFRESH_INTERVAL = 0.5
"""Time (s) between two updates of the live status."""

FLOWS_TIMEOUT = 20.0
"""Time (s) after which `--once` stops waiting for the flows."""

TUNNELS_SHOWN = 24
EVENTS_SHOWN = 8
NOTES_SHOWN = 20
ROUTERS_SHOWN = 8

Status = Mapping[str, Any]


def flows(status: Status) -> dict[str, dict[str, Any]]:
    """Return each flow's measurements, combined from the reports of the testers at both ends."""
    found: dict[str, dict[str, Any]] = {}
    for name, flow in status["flows"].items():
        source = _report(status, flow["from"], name).get("source")
        sink = _report(status, flow["to"], name).get("sink")
        found[name] = {**flow, **combine(source, sink, auto=flow["start"] == "auto")}
    return found


def _report(status: Status, end: str, name: str) -> dict[str, Any]:
    node = status["nodes"].get(end.partition(":")[0]) or {}
    report: dict[str, Any] = (node.get("status") or {}).get("flows", {}).get(name) or {}
    return report


def events(status: Status) -> list[dict[str, Any]]:
    """Return the events of the launcher and the controllers, in order of time."""
    found = {(event["time"], event["node"], event["text"]): event for event in status["events"]}
    for name, node in status["nodes"].items():
        for event in (node["status"] or {}).get("events", []):
            found.setdefault((event["time"], name, event["text"]), {**event, "node": name})
    return sorted(found.values(), key=lambda event: float(event["time"]))


def running(status: Status) -> bool:
    """Return whether packets arrive of every flow that starts automatically."""
    wanted = [flow for flow in flows(status).values() if flow["start"] == "auto"]
    return not status["missing"] and all(flow["received"] for flow in wanted)


def render(status: Status, before: Status | None = None) -> RenderableType:
    """Render the whole status; rates need an earlier status as `before`."""
    parts: list[RenderableType] = [_head(status), _cards(status, before)]
    tunnels = list(_tunnel_rows(status))
    if tunnels:
        parts.append(_tunnels(tunnels))
    if status["flows"]:
        parts.append(_flows(status, before))
    peers = {name: node["status"] for name, node in status["nodes"].items() if node.get("kind") == "peers"}
    if peers:
        parts += ["", peers_view({name: report for name, report in peers.items() if report})]
    noted = events(status)[-EVENTS_SHOWN:]
    if noted:
        parts.append(_events(status, noted))
    return Group(*parts)


def _head(status: Status) -> Text:
    boot = status["boot_seconds"]
    text = Text.assemble(
        ("lab ", "dim"),
        (status["lab"], "bold"),
        f"   running for {units.format_duration(status['seconds'])}",
        f"   booted in {units.format_duration(boot)}" if boot else "",
    )
    if line := how_to_log_in(status):
        text.append(f"\n  {line}", "dim")
    for name, node in status["nodes"].items():
        errors = ((node["status"] or {}).get("diagnostics") or {}).get("error", 0)
        if errors:
            lines = "1 error: its line has" if errors == 1 else f"{errors} errors: their lines have"
            text.append(f"\n  {name}: its configuration has {lines} no effect", "red")
        for card in (node["status"] or {}).get("cards", []):
            for remark in card.get("remarks", []):
                text.append(f"\n  {name} {card['card']}: {remark}", "yellow")
    for missing in status["missing"][:4]:
        text.append(f"\n  {missing}", "yellow")
    for line in status.get("not_in_force", [])[:NOTES_SHOWN]:
        text.append(f"\n  {line}", "yellow")
    return text


def how_to_log_in(status: Status) -> str:
    """Say how to log in to the routers, and their ports; of some where there are many."""
    found = {row["node"]: row["ssh"] for row in status["processes"] if row.get("ssh")}
    if not found:
        return ""
    command = next(iter(found.values()))["command"].rpartition(" ")[0]
    ports = [f"{node} at port {ssh['port']}" for node, ssh in found.items()][:ROUTERS_SHOWN]
    more = [f"{len(found) - len(ports)} more"] if len(found) > len(ports) else []
    return f"{command} NODE: {', '.join([*ports, *more])}"


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Create a plain table of these columns; the last one and `state` may wrap."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=name not in ("state", columns[-1])
        )
    return table


def _cards(status: Status, before: Status | None) -> Table:
    grid = table(
        "card", "pid", "boot", "epoch", "state", "CPU", "memory", right=("pid", "boot", "epoch", "CPU", "memory")
    )
    earlier = {row["pid"]: row for row in before["processes"]} if before else {}
    span = status["now"] - before["now"] if before else 0.0
    for row in status["processes"]:
        card = _card(status, row["node"], row["card"])
        state = row["state"]
        if state == "running" and row["kind"] not in ("xcrp", "mgmt", "tester", "peers", "linux"):
            state = "usable" if card.get("usable") else card.get("state", "not admitted")
        style = "green" if state in ("usable", "running") else "red"
        cpu = row.get("cpu")
        past = earlier.get(row["pid"], {}).get("cpu")
        busy = f"{(cpu - past) / span:.0%}" if cpu is not None and past is not None and span else ""
        memory = f"{row['memory'] >> 20} MB" if "memory" in row else ""
        grid.add_row(
            f"{row['node']} {row['card']}".strip(),
            str(row["pid"] or ""),
            str(row["boot"]),
            str(card.get("epoch", "")),
            Text(state, style),
            busy,
            memory,
        )
    return grid


def _card(status: Status, node: str, card: str) -> dict[str, Any]:
    for row in (status["nodes"][node]["status"] or {}).get("cards", []):
        if row["card"] == card:
            found: dict[str, Any] = row
            return found
    return {}


def _tunnel_rows(status: Status) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in status["nodes"].items():
        for tunnel in (node["status"] or {}).get("tunnels", []):
            yield name, tunnel


def pairs(value: Any) -> str:
    """Print a mapping as `name value, name value`; anything else as text."""
    return ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, Mapping) else str(value)


def _up(tunnel: Mapping[str, Any]) -> str:
    """Print `up`, with the peer's identity and the number of SAs of a negotiated tunnel."""
    sas = sum(sa["direction"] == "out" for sa in tunnel.get("sas", []))
    said = [f"with {tunnel['identity']}"] if tunnel.get("identity") else []
    said += [f"{sas} SA{'s' if sas != 1 else ''} out"] if sas else []
    return f"up {', '.join(said)}" if said else "up"


def _kind(tunnel: Mapping[str, Any]) -> str:
    version = tunnel.get("ike_version")
    return f"{tunnel.get('kind', '')} IKEv{version}" if version else str(tunnel.get("kind", ""))


def _tunnels(rows: list[tuple[str, dict[str, Any]]]) -> Group:
    grid = table("tunnel", "kind", "mode", "ASP", "circuit", "ends", "state")
    # Show tunnels that are down first if not all fit.
    shown = sorted(rows, key=lambda row: bool(row[1]["up"])) if len(rows) > TUNNELS_SHOWN else rows
    for node, tunnel in shown[:TUNNELS_SHOWN]:
        circuit = f"{tunnel['circuit']} on {tunnel['home']}" if tunnel.get("circuit") else ""
        state = Text(_up(tunnel), "green") if tunnel["up"] else Text(f"down: {tunnel.get('reason', '')}", "red")
        grid.add_row(
            f"{node} {tunnel['name']}",
            _kind(tunnel),
            tunnel.get("mode", ""),
            tunnel.get("asp", "").removeprefix("asp "),
            circuit,
            f"{tunnel.get('local', '')} - {tunnel.get('remote', '')}",
            state,
        )
    parts: list[RenderableType] = ["", grid]
    if len(rows) > TUNNELS_SHOWN:
        up = sum(bool(tunnel["up"]) for _, tunnel in rows)
        parts.append(Text(f"... {len(rows)} tunnels in all, {up} of them up", "dim"))
    return Group(*parts)


def _flows(status: Status, before: Status | None) -> Group:
    grid = table(
        *("flow", "way", "packets/s", "sent", "received", "lost", "gap", "late", "state"),
        right=("packets/s", "sent", "received", "lost", "gap", "late"),
    )
    now = flows(status)
    past = flows(before) if before else {}
    span = status["now"] - before["now"] if before else 0.0
    for name, flow in now.items():
        rate = f"{(flow['received'] - past[name]['received']) / span:,.0f}" if name in past and span else ""
        lost = Text(
            f"{flow['lost']:,} ({flow['loss_ms']:.0f} ms)" if flow["lost"] else "0", "red" if flow["lost"] else ""
        )
        latency = flow["latency"].get("p50_ms") if flow["latency"] else None
        grid.add_row(
            name,
            f"{flow['from']} - {flow['to']}",
            rate,
            f"{flow['sent']:,}",
            f"{flow['received']:,}",
            lost,
            f"{flow['longest_gap_ms']:.0f} ms",
            f"{latency:.1f} ms" if latency is not None else "",
            " ".join(part for part in (flow["state"], flow["reason"]) if part),
        )
    return Group("", grid)


def peers_view(reports: Mapping[str, Mapping[str, Any]]) -> Group:
    """Create the tables of the nodes of peers and of their traffic, from their reports."""
    traffic = {name: report["traffic"] for name, report in reports.items() if "traffic" in report}
    tables: list[RenderableType] = [_peers_table(reports)]
    if traffic:
        tables += ["", _peers_traffic(traffic)]
    if any(report["failures"] for report in reports.values()):
        tables += ["", _peers_failures(reports)]
    return Group(*tables)


def _peers_failures(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    grid = table("failures", "count", "cause", right=("count",))
    for name, report in reports.items():
        for cause, count in sorted(report["failures"].items(), key=lambda item: -item[1]):
            grid.add_row(name, f"{count:,}", cause)
    return grid


def _peers_traffic(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    right = ("sending", "sent", "received", "lost", "late", "p50", "p99", "longest")
    grid = table("traffic", *right, "drops", right=right)
    for name, report in reports.items():
        trip = report["round_trip"]
        grid.add_row(
            name,
            f"{report['sending']:,}",
            f"{report['sent']:,}",
            f"{report['received']:,}",
            Text(f"{report['lost']:,}", "red" if report["lost"] else ""),
            f"{report['late']:,}",
            *[f"{trip[key]:,.1f} ms" if trip else "" for key in ("p50_ms", "p99_ms", "max_ms")],
            "; ".join(f"{count} {cause}" for cause, count in report["drops"].items()),
        )
    return grid


def _peers_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    grid = table(
        *("peers", "up", "of", "set-ups", "set-ups/s", "p50", "p90", "p99", "longest", "went", "lost", "state"),
        right=("up", "of", "set-ups", "set-ups/s", "p50", "p90", "p99", "longest", "went", "lost"),
    )
    for name, report in reports.items():
        latency = report["latency"]
        times = [f"{latency[key]:,.0f} ms" if latency else "" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms")]
        causes = "".join(f"; {count} {cause}" for cause, count in report["down"].items())
        grid.add_row(
            name,
            f"{report['up']:,}",
            f"{report['peers']:,}",
            f"{report['setups']:,}",
            f"{report['setups_per_second']:,.1f}",
            *times,
            f"{report['left']:,}",
            Text(f"{report['lost']:,}", "red" if report["lost"] else ""),
            f"{report['state']}{causes}",
        )
    return grid


def _events(status: Status, noted: list[dict[str, Any]]) -> Group:
    grid = table("when", "node", "event", right=("when",))
    for event in noted:
        ago = max(status["now"] - event["time"], 0.0)
        grid.add_row(f"{units.format_duration(ago)} ago", event["node"], event["text"])
    return Group("", grid)


def print_once(status: Status, before: Status | None = None) -> None:
    """Print a status to standard output; without a terminal in full width."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(render(status, before))


def live(run: Path) -> int:
    """Show the status repeatedly until Ctrl-C or the end of the lab. Return the exit status."""
    console = Console(highlight=False)
    before: Status | None = None
    try:
        with (
            OperatorClient(run / LAUNCHER_SOCKET) as client,
            Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as display,
        ):
            while True:
                status = client.call("status")
                display.update(render(status, before), refresh=True)
                before = status
                time.sleep(REFRESH_INTERVAL)
    except KeyboardInterrupt:
        return 0
    except OperatorError:
        return 0


def once_flows_run(run: Path) -> int:
    """Wait until the flows run, print one status. Return 1 if they do not run within `FLOWS_TIMEOUT`."""
    deadline = time.monotonic() + FLOWS_TIMEOUT
    with OperatorClient(run / LAUNCHER_SOCKET) as client:
        while True:
            status = client.call("status")
            if running(status) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        before = status
        time.sleep(REFRESH_INTERVAL)
        status = client.call("status")
    print_once(status, before)
    if not running(status):
        print("the flows do not run", file=sys.stderr)
        return 1
    return 0


def follow(run: Path, once: bool) -> int:
    """Show the status on the launcher's own terminal, in a child process of the launcher."""
    if once:
        return once_flows_run(run)
    # Ctrl-C reaches both processes; the launcher handles it and ends this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return live(run)
