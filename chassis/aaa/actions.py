"""What the RADIUS client is asked, and what it wants done."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from chassis.aaa.answers import AccessAnswer

Subject = tuple[str, str]
"""Context and identity of a question."""


@dataclass(frozen=True, slots=True)
class AccessQuestion:
    """A question about a peer.

    `token` comes back in the answer. `context` is that of the tunnel's interface (guide 9.3), `identity` the
    peer's IKE identity as text, `peer` and `local` are the outer addresses. `exchange` names the IKE exchange: the
    same question of one exchange is asked once. Without `key_wanted` an answer without a key is one too.
    """

    token: Hashable
    context: str
    identity: str
    peer: str
    local: str
    exchange: Hashable = None
    key_wanted: bool = True

    @property
    def subject(self) -> Subject:
        return self.context, self.identity


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a UDP datagram from the router. `source` is our address, None where routing chooses it."""

    context: str
    destination: str
    destination_port: int
    source_port: int
    payload: bytes = field(repr=False)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Authorized:
    """The peer may come in, on the terms of the answer."""

    token: Hashable
    answer: AccessAnswer


@dataclass(frozen=True, slots=True)
class Rejected:
    """The peer may not come in: a server said so, or its answer cannot be used. `reason` is for the log.

    `kind` "busy": no server was asked, since too many questions are open; "rejected" otherwise.
    """

    token: Hashable
    reason: str
    kind: Literal["rejected", "busy"] = "rejected"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No server could be asked, or none replied: B-099."""

    token: Hashable
    reason: str


@dataclass(frozen=True, slots=True)
class AccountingAcknowledged:
    """A server has the record; whoever kept it for a restart forgets it."""

    id: str


@dataclass(frozen=True, slots=True)
class AccountingDropped:
    """The record is not going to be sent: it is an interim update that came too late, its context does not report
    sessions, or too many wait. Whoever kept it for a restart forgets it."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RadiusLog:
    """A line for the log, with its syslog severity by name."""

    severity: Literal["error", "warning", "info"]
    text: str
    context: str


AaaAction = (
    SendDatagram | Authorized | Rejected | Unreachable | AccountingAcknowledged | AccountingDropped | RadiusLog
)
