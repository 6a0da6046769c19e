"""Views of echo requests: what `ping` and `traceroute` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.cli.views.layout import Data, Scope, View

MARKS: Final[Mapping[int, str]] = {0: "!N", 1: "!H", 2: "!P", 4: "!F", 13: "!X"}
"""What stands behind a hop that says that the address can't be reached, by the code of its message (RFC 792)."""


def ping_head(data: Data) -> list[str]:
    """The lines before the marks."""
    timeout, address = data["timeout"], data["address"]
    return [
        f"PING {address} ({address}): source {data['source']}, {data['size']} data bytes,",
        f"timeout is {timeout:g} second{'s' if timeout != 1 else ''}",
    ]


def _ping(data: Data, scope: Scope) -> list[str]:
    back = {reply["sequence"]: reply for reply in data["replies"]}
    sent, received = data["sent"], data["received"]
    lost = 100 * (sent - received) / sent if sent else 0.0
    lines = [
        *ping_head(data),
        "".join("!" if number in back else "." for number in range(1, sent + 1)),
        *(f"refused by {error}" for error in data["errors"]),
        "",
        f"----{data['address']} PING Statistics----",
        f"{sent} packets transmitted, {received} packets received, {lost:.1f}% packet loss",
    ]
    if back:
        times = [reply["ms"] for reply in back.values()]
        lines.append(
            f"round-trip min/avg/max = {min(times):.3f}/{sum(times) / len(times):.3f}/{max(times):.3f} ms"
        )
    return lines


ping = View(_ping)


def _hop(hop: dict[str, Any]) -> str:
    text, shown = "", ""
    for probe in hop["probes"]:
        if not probe["address"]:
            text += " *"
            continue
        if probe["address"] != shown:
            text += f"  {probe['address']}"
            shown = probe["address"]
        text += f"  {probe['ms']:.3f} ms" + (f" {probe['mark']}" if probe["mark"] else "")
    return f"{hop['ttl']:>2} {text}"


def traceroute_lines(data: Data) -> list[str]:
    """A line for each hop, below the title."""
    address = data["address"]
    title = f"traceroute to {address} ({address}), {data['most']} hops max, {data['size']} byte packets"
    return [title, *map(_hop, data["hops"])]


traceroute = View(lambda data, scope: traceroute_lines(data))
