"""Why a negotiation fails: what is logged, what the peer is told, what statistics count. For both versions of IKE.

What handles a message raises `NegotiationError`; the session logs its rows, sends its notification and reports its
`FailureReason`. The texts of rows are the guide's (chapters 15 and 16); notifications are those of RFC 2408 3.14.1
and RFC 7296 3.10.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.ike_proposals import Mismatch, NoMatch
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import NotifyV2

Row = tuple[str, Mapping[str, Any]]
"""An id of `log.TEMPLATES`, and the values of its template."""


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Why a negotiation failed: statistics count `cause`, the operator reads `text`."""

    cause: str
    text: str


class NegotiationError(Exception):
    """A negotiation cannot go on; `cause` and `text` are those of `FailureReason`.

    `rows` are lines to log, in order. `notify` is the type of the notification for the peer (0: none), `data` its
    data. The rest is of version 1: `notify_row` is the line about the notification (None: that of
    `notify_row_v1`), `encrypted` sends it under the keys, and `final` says that the peer was authenticated, so no
    better message can follow.
    """

    def __init__(
        self,
        cause: str,
        text: str,
        *,
        notify: int = 0,
        data: bytes = b"",
        rows: tuple[Row, ...] = (),
        notify_row: Row | None = None,
        encrypted: bool = False,
        final: bool = False,
    ) -> None:
        super().__init__(text)
        self.failure = FailureReason(cause, text)
        self.text = text
        self.notify = notify
        self.data = data
        self.rows = rows
        self.notify_row = notify_row_v1(notify) if notify_row is None else notify_row
        self.encrypted = encrypted
        self.final = final


# --- version 1 ---

_NOTIFY_ROWS_V1: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
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
_NOTIFIES_V1: Final = frozenset(NotifyTypeV1)


def notify_row_v1(notify: int) -> Row | None:
    """Return the guide's line about a phase 1 notification that is sent; None where it has none."""
    found = _NOTIFY_ROWS_V1.get(notify)
    return None if found is None else (found[0], {"notify": found[1]})


def notify_name_v1(notify: int) -> str:
    """Return the guide's name of a received notification, or its number."""
    return NotifyTypeV1(notify).name if notify in _NOTIFIES_V1 else str(notify)


def malformed_v1(error: PayloadError) -> NegotiationError:
    """Return the error for a message that does not decode."""
    rows: tuple[Row, ...] = ((error.log, error.values),) if error.log else ()
    return NegotiationError("malformed", str(error), rows=rows, notify=error.notify)


def no_ike_proposal_v1(found: NoMatch) -> NegotiationError:
    """Return the error for a phase 1 offer without a usable proposal.

    A single mismatch has its own line; of several, the first is named.
    """
    mismatches = found.mismatches
    if not mismatches:
        return NegotiationError(
            "no proposal chosen", "the peer offers nothing for IKE", notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN
        )
    first = mismatches[0]
    notify = {
        "transform": NotifyTypeV1.INVALID_TRANSFORM_ID,
        "attribute": NotifyTypeV1.ATTRIBUTES_NOT_SUPPORTED,
    }.get(first.field, NotifyTypeV1.NO_PROPOSAL_CHOSEN)
    log = first.log
    if first.field == "cipher" and found.only_mismatch is None:
        log = "ikev1-p1-no-proposal-encr-alg"
    rows: tuple[Row, ...] = ((log, first.values),) if log else ()
    return NegotiationError("no proposal chosen", _differences(mismatches), rows=rows, notify=notify)


def no_ipsec_proposal_v1(found: NoMatch) -> NegotiationError:
    """Return the error for a quick mode offer without a usable proposal."""
    text = _differences(found.mismatches) if found.mismatches else "the peer offers nothing"
    return NegotiationError(
        "no proposal chosen",
        text,
        rows=_rows(found.mismatches[:1]),
        notify=NotifyTypeV1.NO_PROPOSAL_CHOSEN,
        final=True,
    )


def _differences(mismatches: tuple[Mismatch, ...]) -> str:
    """Return the values that differ, each once: AH and ESP may lack the same one."""
    texts = [f"{one.field}: received {one.received}, configured {one.configured}" for one in mismatches]
    return "; ".join(dict.fromkeys(texts))


def _rows(mismatches: tuple[Mismatch, ...]) -> tuple[Row, ...]:
    """Return the guide's lines for values that do not match."""
    return tuple([(one.log, one.values) for one in mismatches if one.log])


# --- version 2 ---

_CAUSES_V2: Final[Mapping[int, str]] = MappingProxyType(
    {
        NotifyTypeV2.NO_PROPOSAL_CHOSEN: "no proposal chosen",
        NotifyTypeV2.INVALID_KE_PAYLOAD: "dh group",
        NotifyTypeV2.AUTHENTICATION_FAILED: "authentication",
        NotifyTypeV2.TS_UNACCEPTABLE: "traffic selectors",
        NotifyTypeV2.NO_ADDITIONAL_SAS: "no additional SAs",
        NotifyTypeV2.INTERNAL_ADDRESS_FAILURE: "inner address",
        NotifyTypeV2.FAILED_CP_REQUIRED: "inner address",
        NotifyTypeV2.TEMPORARY_FAILURE: "temporary failure",
        NotifyTypeV2.CHILD_SA_NOT_FOUND: "CHILD SA not found",
        NotifyTypeV2.INVALID_SYNTAX: "syntax",
        NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD: "syntax",
    }
)
_NOTIFIES_V2: Final = frozenset(NotifyTypeV2)


def notify_name_v2(notify: int) -> str:
    """Return the RFC's name of a notification, or its number."""
    return NotifyTypeV2(notify).name if notify in _NOTIFIES_V2 else f"notification {notify}"


def error_v2(notify: int, text: str, data: bytes = b"", rows: tuple[Row, ...] = ()) -> NegotiationError:
    """Return the error that `notify` tells the peer; its cause follows from `notify`."""
    return NegotiationError(_CAUSES_V2.get(notify, "refused"), text, notify=notify, data=data, rows=rows)


def syntax_error_v2(text: str) -> NegotiationError:
    """Return the error for a message that lacks a payload, or whose payloads do not belong together."""
    return error_v2(NotifyTypeV2.INVALID_SYNTAX, text)


def authentication_error_v2(text: str) -> NegotiationError:
    """Return the error for a peer that is not the expected one, or if this end cannot authenticate itself."""
    return error_v2(NotifyTypeV2.AUTHENTICATION_FAILED, text)


def no_proposal_v2(found: NoMatch, kind: str) -> NegotiationError:
    """Return the error for an offer without a usable proposal. `kind` is `IKE` or `IPsec`."""
    texts = [f"{one.field} {one.received} received, {one.configured} configured" for one in found.mismatches]
    differences = ", ".join(dict.fromkeys(texts))  # Each once: AH and ESP may lack the same value.
    text = f"no {kind} proposal fits: {differences or 'none offered'}"
    return error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, text, rows=_rows(found.mismatches))


def notify_payload_v2(error: NegotiationError) -> NotifyV2:
    """Return the notification that answers the peer's request."""
    return NotifyV2(error.notify, error.data)


def find_error_notify(payloads: tuple[PayloadV2, ...]) -> NotifyV2 | None:
    """Return the error notification of a response; None if it has none."""
    return next((one for one in payloads if isinstance(one, NotifyV2) and one.is_error), None)
