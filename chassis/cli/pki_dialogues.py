"""Conversations of the PKI commands (guide 6.1.1): the questions of a request, and pasted PEM files."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final

from chassis.cli.acts import OVERWRITE
from chassis.cli.dialogue import (
    Conversation,
    Inquiry,
    InquiryReply,
    Outcome,
    Question,
    Saying,
    Seat,
    Step,
    agreed,
    refused,
)
from chassis.net.pki import USAGES, alternative_fault, subject_fault

SUBJECT: Final = (
    ("common_name", "Enter the Common name: "),
    ("organization_unit", "Enter the Organization Unit Name: "),
    ("organization", "Enter the Organization Name: "),
    ("city", "Enter the City Name: "),
    ("state", "Enter the State Name: "),
    ("postal_code", "Enter the Postal Code: "),
    ("country", "Enter the Country Code: "),
)
"""Fields of the subject, with the questions of the guide."""

ALTERNATIVES: Final = (
    ("ipv4", "Enter the IPv4 Address: "),
    ("ipv6", "Enter the IPv6 Address: "),
    ("domain", "Enter the Domain Name: "),
    ("email", "Enter the Email Id: "),
)
"""Alternative names; each is asked for twice (S-057)."""

MAX_TRIES: Final = 3
"""How often one thing is asked for before the command is given up (count)."""

TERMINAL: Final = "terminal"
"""In the place of a file name: the PEM text is pasted. A file of this name is /flash/terminal."""

MAX_PASTED_LINES: Final = 400
"""Lines of the longest PEM text that is pasted."""

_END: Final = re.compile(r"-----END [A-Z0-9 ]+-----")

Values = Mapping[str, Any]
Check = Callable[[str], str]
"""Returns what is wrong with an answer, or an empty text."""


def certificate_request(values: Values, seat: Seat) -> Conversation:
    """Ask for all that a request holds, and write it into a file."""
    if not seat.live:
        refused("a certificate request asks questions: it needs a terminal")
    pair = yield from _pair(seat)
    subject = {}
    for field, question in SUBJECT:
        if answer := (yield from _asked(question, partial(subject_fault, field))):
            subject[field] = answer
    yield Saying("% SUBJECT ALTERNATIVE NAMES\n")
    names = {}
    for kind, question in ALTERNATIVES:
        if answer := (yield from _twice(question, partial(alternative_fault, kind))):
            names[kind] = answer
    usages: list[str] | None = None
    if agreed((yield Question("Do you want to configure Key Usage Attributes (y/n): "))):
        usages = []
        for usage in USAGES:
            if agreed((yield Question(f"{usage} (y/n): "))):
                usages.append(usage)
    arguments: dict[str, Any] = {
        "context": seat.context,
        "name": values["name"],
        "file": values["file"],
        "key_pair": pair,
        "subject": subject,
        "alternatives": names,
        "usages": usages,
    }
    reply: InquiryReply = yield Inquiry("pki-request", arguments)
    result = reply.unless_refused()
    if result["exists"]:
        if not agreed((yield Question(OVERWRITE))):
            refused("the file exists, and was not replaced")
        reply = yield Inquiry("pki-request", {**arguments, "overwrite": True})
        result = reply.unless_refused()
    return Outcome(result)


def _pair(seat: Seat) -> Generator[Step, Any, str]:
    """Ask for the name of a key pair of the context."""
    reply: InquiryReply = yield Inquiry("key-pairs", {"context": seat.context})
    known = [row["name"] for row in reply.unless_refused()["key_pairs"]]
    if not known:
        refused(f"context {seat.context} has no key pair: make one with `add pki key-pair`")
    said = ", ".join(known)
    return (
        yield from _asked(
            "Enter the private key identifier: ",
            lambda text: "" if text in known else f"there is no such key pair; there are: {said}",
        )
    )


def _asked(question: str, check: Check) -> Generator[Step, Any, str]:
    """Ask until the answer is right; give up after `MAX_TRIES`."""
    for _ in range(MAX_TRIES):
        answer = str((yield Question(question)))
        why = check(answer)
        if not why:
            return answer
        yield Saying(f"% Error: {why}\n")
    refused("given up after three wrong answers")


def _twice(question: str, check: Check) -> Generator[Step, Any, str]:
    """Ask twice for the same thing (S-057)."""
    for _ in range(MAX_TRIES):
        answer = yield from _asked(question, lambda text: check(text) if text else "")
        if (yield Question(question)) == answer:
            return answer
        yield Saying("% Error: the two answers differ\n")
    refused("given up: the two answers differed three times")


def imported(kind: str) -> Callable[[Values, Seat], Conversation]:
    """Return the conversation of an import: of a `trusted` or `self` certificate, or of a `key-pair`."""

    def conversation(values: Values, seat: Seat) -> Conversation:
        file, text = values["file"], ""
        if file == TERMINAL:
            text = yield from _pasted(seat, echo=kind != "key-pair")
        arguments = {
            "context": seat.context,
            "kind": kind,
            "name": values.get("name", ""),
            "file": file,
            "text": text,
        }
        reply: InquiryReply = yield Inquiry("pki-import", arguments)
        return Outcome(reply.unless_refused())

    return conversation


def _pasted(seat: Seat, *, echo: bool) -> Generator[Step, Any, str]:
    """Take a PEM text line by line, up to an empty line after its end; a private key is not shown."""
    if not seat.live:
        refused("a pasted file needs a terminal: name a file of /flash")
    yield Saying("Paste the PEM text; an empty line ends it.\n")
    lines: list[str] = []
    while len(lines) < MAX_PASTED_LINES:
        line = str((yield Question("", echo=echo))).strip()
        if not line and (not lines or _END.fullmatch(lines[-1])):
            break
        lines.append(line)
    else:
        refused(f"the text has more than {MAX_PASTED_LINES} lines")
    return "".join(f"{line}\n" for line in lines)


def remove(values: Values, seat: Seat) -> Conversation:
    """Remove a certificate by its handle, after asking."""
    arguments = {"context": seat.context, "handle": values["handle"]}
    reply: InquiryReply = yield Inquiry("pki-find", arguments)
    found = reply.unless_refused()
    if seat.live and not agreed(
        (yield Question(f"Remove {found['kind']} certificate {found['subject']}? (y/n) "))
    ):
        refused("nothing was removed")
    reply = yield Inquiry("pki-remove", arguments)
    return Outcome(reply.unless_refused())
