"""Why a request is refused, in the three ways that it is said: to the peer, to the operator, to the statistics."""

from __future__ import annotations

from chassis.ase.ike.host import Blame
from chassis.ase.ike.payloads.numbers import NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import NotifyV2
from chassis.ase.ike.proposals import Mismatch, Refusal

CAUSES = {
    NotifyTypeV2.NO_PROPOSAL_CHOSEN: "no proposal chosen",
    NotifyTypeV2.INVALID_KE_PAYLOAD: "group",
    NotifyTypeV2.AUTHENTICATION_FAILED: "authentication",
    NotifyTypeV2.TS_UNACCEPTABLE: "selectors",
    NotifyTypeV2.NO_ADDITIONAL_SAS: "no additional SAs",
    NotifyTypeV2.TEMPORARY_FAILURE: "temporary failure",
    NotifyTypeV2.CHILD_SA_NOT_FOUND: "CHILD SA not found",
    NotifyTypeV2.INVALID_SYNTAX: "syntax",
    NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD: "syntax",
}


class Refused(Exception):
    """A request that comes to nothing. `notify` and `data` are for the peer; `mismatches` have lines to log."""

    def __init__(self, notify: int, text: str, data: bytes = b"", mismatches: tuple[Mismatch, ...] = ()) -> None:
        super().__init__(text)
        self.notify = notify
        self.text = text
        self.data = data
        self.mismatches = mismatches

    @property
    def blame(self) -> Blame:
        return Blame(cause(self.notify), self.text)

    @property
    def payload(self) -> NotifyV2:
        return NotifyV2(self.notify, self.data)


def cause(notify: int) -> str:
    """The word of the statistics for a notification."""
    return CAUSES.get(NotifyTypeV2(notify), "refused") if notify in set(NotifyTypeV2) else "refused"


def name(notify: int) -> str:
    """A notification in the words of its RFC."""
    return NotifyTypeV2(notify).name if notify in set(NotifyTypeV2) else f"notification {notify}"


def refusal(payloads: tuple[PayloadV2, ...]) -> NotifyV2 | None:
    """The error that an answer consists of."""
    return next((one for one in payloads if isinstance(one, NotifyV2) and one.is_error), None)


def syntax(what: str) -> Refused:
    """A message that lacks something, or holds what does not fit together."""
    return Refused(NotifyTypeV2.INVALID_SYNTAX, what)


def no_proposal(refusal: Refusal, what: str) -> Refused:
    """No proposal fits: the values that stand in the way."""
    texts = [f"{one.field} {one.received} received, {one.configured} configured" for one in refusal.mismatches]
    differences = ", ".join(dict.fromkeys(texts))  # A value that AH and ESP both lack is said once.
    text = f"no {what} proposal fits: {differences or 'none offered'}"
    return Refused(NotifyTypeV2.NO_PROPOSAL_CHOSEN, text, mismatches=refusal.mismatches)
