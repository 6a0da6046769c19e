"""Why a negotiation of version 1 stops: the guide's lines, the notification, and what statistics count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.proposals import Mismatch, Refusal

Row = tuple[str, Mapping[str, Any]]
"""An id of `messages.TEMPLATES` and its values."""

_SENDING: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        NotifyTypeV1.INVALID_PAYLOAD_TYPE: ("ikev1-notify-invalid-payload-type", "INVALID_PAYLOAD_TYPE"),
        NotifyTypeV1.DOI_NOT_SUPPORTED: ("ikev1-notify-doi-not-supported", "DOI_NOT_SUPPORTED"),
        # The guide's word for a situation differs from the wire's (settled M-04).
        NotifyTypeV1.SITUATION_NOT_SUPPORTED: ("ikev1-notify-invalid-notify-type", "INVALID_NOTIFY_TYPE"),
        NotifyTypeV1.INVALID_MAJOR_VERSION: ("ikev1-notify-invalid-major-version", "INVALID_MAJOR_VERSION"),
        NotifyTypeV1.INVALID_MINOR_VERSION: ("ikev1-notify-invalid-minor-version", "INVALID_MINOR_VERSION"),
        NotifyTypeV1.INVALID_FLAGS: ("ikev1-notify-invalid-flags", "INVALID_FLAGS"),
        NotifyTypeV1.INVALID_MESSAGE_ID: ("ikev1-notify-invalid-message-id", "INVALID_MESSAGE_ID"),
        NotifyTypeV1.INVALID_TRANSFORM_ID: ("ikev1-notify-invalid-transform-id", "INVALID_TRANSFORM_ID"),
        NotifyTypeV1.ATTRIBUTES_NOT_SUPPORTED: (
            "ikev1-notify-attributes-not-supported",
            "ATTRIBUTES_NOT_SUPPORTED",
        ),
        NotifyTypeV1.NO_PROPOSAL_CHOSEN: ("ikev1-notify-no-proposal-chosen", "NO_PROPOSAL_CHOSEN"),
        NotifyTypeV1.BAD_PROPOSAL_SYNTAX: ("ikev1-notify-bad-proposal-syntax", "BAD_PROPOSAL_SYNTAX"),
        NotifyTypeV1.PAYLOAD_MALFORMED: ("ikev1-notify-payload-malformed", "PAYLOAD_MALFORMED"),
        # Singular in this row, plural in the one of preshared keys (settled M-01).
        NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS: ("ikev1-notify-unequal-payload-length", "UNEQUAL_PAYLOAD_LENGTH"),
    }
)


def sending(notify: int) -> Row | None:
    """The line about a phase 1 notification that is sent, None where the guide has none."""
    found = _SENDING.get(notify)
    return None if found is None else (found[0], {"notify": found[1]})


def notify_name(notify: int) -> str:
    """A notification that was received, in the guide's words."""
    return NotifyTypeV1(notify).name if notify in _NOTIFIES else str(notify)


_NOTIFIES: Final = frozenset(NotifyTypeV1)


class Stop(Exception):
    """An exchange cannot go on.

    `rows` are logged in order, then `notify` is sent (0: nothing), under the keys if `protected`, and `said` (or
    the guide's line for it) is logged. `certain`: the peer was authenticated when it became clear, so nothing
    better can come any more.
    """

    def __init__(
        self,
        cause: str,
        text: str,
        *,
        rows: tuple[Row, ...] = (),
        notify: int = 0,
        said: Row | None = None,
        protected: bool = False,
        certain: bool = False,
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text
        self.rows = rows
        self.notify = notify
        self.said = sending(notify) if said is None else said
        self.protected = protected
        self.certain = certain


def malformed(error: PayloadError) -> Stop:
    """A message that is not what it claims to be."""
    rows: tuple[Row, ...] = ((error.log, error.values),) if error.log else ()
    return Stop("malformed", str(error), rows=rows, notify=error.notify)


def refused(refusal: Refusal) -> Stop:
    """No offer of phase 1 fits: one differing value has a line of its own, of several the first is named."""
    mismatches = refusal.mismatches
    if not mismatches:
        return Stop(
            "no proposal chosen", "the peer offers nothing for IKE", notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN
        )
    first = mismatches[0]
    notify = {
        "transform": NotifyTypeV1.INVALID_TRANSFORM_ID,
        "attribute": NotifyTypeV1.ATTRIBUTES_NOT_SUPPORTED,
    }.get(first.field, NotifyTypeV1.NO_PROPOSAL_CHOSEN)
    log = first.log
    if first.field == "cipher" and refusal.single is None:
        log = "ikev1-p1-no-proposal-encr-alg"
    rows: tuple[Row, ...] = ((log, first.values),) if log else ()
    return Stop("no proposal chosen", differences(mismatches), rows=rows, notify=notify)


def refused_phase_2(refusal: Refusal) -> Stop:
    """No offer of quick mode fits."""
    rows: tuple[Row, ...] = tuple([(one.log, one.values) for one in refusal.mismatches[:1] if one.log])
    text = differences(refusal.mismatches) if refusal.mismatches else "the peer offers nothing"
    return Stop("no proposal chosen", text, rows=rows, notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN, certain=True)


def differences(mismatches: tuple[Mismatch, ...]) -> str:
    """The values that differ, for the operator."""
    texts = [f"{one.field}: received {one.received}, configured {one.configured}" for one in mismatches]
    return "; ".join(dict.fromkeys(texts))  # A value that AH and ESP both lack is said once.
