"""Why a phase 1 that proved nothing came to nothing, as far as this end can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.ase.ike.host import Blame
from chassis.ase.ike.v1.phase1 import Phase1State

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1

PSK_MISMATCH_TEXT: Final = "the preshared keys of the two ends differ, as it seems"

PSK_MISMATCH_NOTIFIES: Final = frozenset(
    ("UNEQUAL_PAYLOAD_LENGTHS", "PAYLOAD_MALFORMED", "INVALID_HASH_INFORMATION", "AUTHENTICATION_FAILED")
)
"""What peers refuse a proof of identity with that makes no sense under their key."""


def keys_may_differ(session: SessionV1) -> bool:
    """Whether all that is missing is the peer's answer to our proof, which it can open with our preshared key
    alone (RFC 2409 5.4)."""
    return session.state is Phase1State.PROOF_SENT and session.handshake.by_psk


def refusal(session: SessionV1, notify: str) -> Blame:
    """The peer refused by a notification in clear."""
    text = f"the peer refuses: {notify}"
    if keys_may_differ(session) and notify in PSK_MISMATCH_NOTIFIES:
        return Blame("preshared key", f"{text}; {PSK_MISMATCH_TEXT}")
    return Blame("refused by the peer", text)


def silence(session: SessionV1) -> Blame:
    """Nothing came in the time that there was."""
    text = f"{session.peer} does not answer"
    if keys_may_differ(session):
        text += " our proof of identity: the preshared keys of the two ends may differ"
    return Blame("timeout", text)
