"""`monitor tunnel`: tunnels, or one with its traffic, shown again every two seconds until ^C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.cli.dialogue import Conversation, Inquiry, InquiryReply, Outcome, Pause, Saying, Seat
from chassis.cli.views import monitor

INTERVAL: Final = 2.0
"""Time (s) between two looks."""

ROWS: Final = 18
"""Most tunnels that are shown (count): they fit a small terminal."""

CLEAR: Final = "\x1b[H\x1b[J"
"""Makes a terminal empty."""


def tunnel(values: Mapping[str, Any], seat: Seat) -> Conversation:
    """Look until the operator gives up, or once where nobody looks."""
    name = values.get("name", "")
    context = "" if name or seat.context == "local" else seat.context
    before: dict[str, Any] = {}
    while True:
        reply: InquiryReply = yield Inquiry("tunnels", {"name": name, "context": context, "limit": ROWS})
        data: dict[str, Any] = {"tunnels": reply.unless_refused()["tunnels"], "traffic": {}, "rates": {}}
        if name:
            counted: InquiryReply = yield Inquiry("sas", {"tunnel": name, "cleared": True})
            # A tunnel without an ASP has no traffic to show.
            data["traffic"] = _traffic(counted.result)
            if before:
                data["rates"] = {
                    way: max(packets - before[way], 0) / INTERVAL for way, packets in data["traffic"].items()
                }
            before = data["traffic"]
        if not seat.live:
            return Outcome(data)
        yield Saying(CLEAR + "".join(f"{line}\n" for line in [*monitor.lines(data), "", "^C ends"]))
        yield Pause(INTERVAL)


def _traffic(result: Mapping[str, Any]) -> dict[str, int]:
    """Packets out and in of a tunnel."""
    rows = [row for reply in result.get("cards", {}).values() for row in reply.get("tunnels", ())]
    return {
        way: sum(int(row[title]["packets"]) for row in rows)
        for way, title in (("out", "encapsulated"), ("in", "decapsulated"))
    }
