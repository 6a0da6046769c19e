"""Conversations of commands that act: files of the router, processes that start again, counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.cli.dialogue import (
    Conversation,
    Inquiry,
    InquiryReply,
    Outcome,
    Question,
    Saying,
    Seat,
    agreed,
    refused,
)
from chassis.cli.urls import carry, is_url

Values = Mapping[str, Any]

OVERWRITE = "Target file exists, overwrite? (y/n) "
PROCEED = "Proceed? (y/n) "


def _twice(command: str, arguments: Mapping[str, Any], seat: Seat, saying: str = "") -> Any:
    """Send a request that writes a file, and ask before an existing one is replaced. Return the answer."""
    reply: InquiryReply = yield Inquiry(command, {**arguments, "overwrite": False})
    result = reply.unless_refused()
    if saying and seat.live:
        yield Saying(f"{saying}{result['file']}\n")
    if result["exists"]:
        if not agreed((yield Question(OVERWRITE))):
            refused("the file exists, and was not replaced")
        reply = yield Inquiry(command, {**arguments, "overwrite": True})
        result = reply.unless_refused()
    return result


def save(values: Values, seat: Seat) -> Conversation:
    """Write the configuration in force into a file."""
    file = values.get("file", "")
    if is_url(file):
        running: InquiryReply = yield Inquiry("config", {"keys": False})
        text = str(running.unless_refused()["text"])
        yield from carry(file, text)
        return Outcome({"file": file, "octets": len(text)})
    arguments = {"file": file, "user": seat.user}
    result = yield from _twice("save", arguments, seat, "Save to file: ")
    return Outcome({"file": result["file"], "octets": result["octets"]}, said=1 if seat.live else 0)


def copy(values: Values, seat: Seat) -> Conversation:
    """Copy a file."""
    result = yield from _twice("copy-file", {"file": values["file"], "target": values["target"]}, seat)
    return Outcome({"file": result["file"], "target": result["target"]})


def delete(values: Values, seat: Seat) -> Conversation:
    """Delete a file, after asking."""
    if not agreed((yield Question(f"Delete {values['file']}? (y/n) "))):
        refused("nothing was deleted")
    reply: InquiryReply = yield Inquiry("delete-file", {"file": values["file"]})
    return Outcome(reply.unless_refused())


def reload(values: Values, seat: Seat) -> Conversation:
    """Start the router again from its boot file, after asking."""
    boot: InquiryReply = yield Inquiry("boot")
    known = boot.unless_refused()
    if seat.live:
        if not known["exists"]:
            yield Saying(f"{known['file']} does not exist: the router starts with the file of its lab.\n")
        if not known["saved"]:
            yield Saying("The configuration in force is not saved: what is not saved is lost.\n")
    yield from _agree("Proceed with reload? (y/n) ")
    reply: InquiryReply = yield Inquiry("reload", {"user": seat.user})
    return Outcome(reply.unless_refused())


def reload_card(values: Values, seat: Seat) -> Conversation:
    """Start the processes of a card again, after asking."""
    yield from _agree(f"Reload card {values['slot']}? (y/n) ")
    reply: InquiryReply = yield Inquiry("reload-card", {"slot": int(values["slot"]), "user": seat.user})
    return Outcome(reply.unless_refused())


def reload_asp(values: Values, seat: Seat) -> Conversation:
    """Start an ASP again, after asking."""
    yield from _agree(f"Reload ASP {values['asp']}? (y/n) ")
    reply: InquiryReply = yield Inquiry("reload-asp", {"asp": values["asp"], "user": seat.user})
    return Outcome(reply.unless_refused())


def _agree(question: str) -> Any:
    """Ask; go on only after a yes."""
    if not agreed((yield Question(question))):
        refused("nothing was done")


def clear_counters(values: Values, seat: Seat) -> Conversation:
    """Have what is shown of counters begin at zero: of ports, circuits or tunnels, or of all."""
    chosen = [what] if (what := values.get("what")) else ["circuit", "tunnel"]
    for what in chosen:
        reply: InquiryReply = yield Inquiry("clear-counters", {"what": what, "name": values.get("name", "")})
        for card, why in reply.unless_refused()["errors"].items():
            refused(f"{card}: {why}")
    return Outcome({"cleared": chosen})
