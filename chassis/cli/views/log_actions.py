"""What the guide recommends to do about a message of its tables 5 and 7 (chapters 15 and 17), in words of our own.

Table 6 recommends nothing. A wrong authentication algorithm of ESP or AH has the line of a wrong key (M-14), whose
recommendation therefore names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ACTIONS: Final[Mapping[str, str]] = {
    "Configure the same preshared key in the IKE policies of both ends.": """
        ikev1-psk-payload-length ikev1-psk-mismatch-suspected ikev1-psk-notify-unequal-payload-lengths
    """,
    "Configure the same DH group in the IKE proposals that the IKE policies of both ends use.": """
        ikev1-p1-dh-group-mismatch
    """,
    "Configure the same key exchange mode in the IKE policies of both ends.": """
        ikev1-p1-xchange-type-mismatch ikev1-received-unprotected-notify
    """,
    "Configure the same authentication algorithm in the IKE proposals that the IKE policies of both ends use.": """
        ikev1-p1-auth-alg-mismatch
    """,
    "Configure the same encryption algorithm in the IKE proposals that the IKE policies of both ends use.": """
        ikev1-p1-encr-alg-mismatch
    """,
    "Configure the same authentication method in the IKE proposals that the IKE policies of both ends use.": """
        ikev1-p1-auth-method-mismatch
    """,
    "Let the identities in the IKE policies of both ends be those that the certificates have.": """
        ikev1-cert-id-dn ikev1-cert-id-ipv4 ikev1-cert-id-user-fqdn ikev1-cert-id-fqdn ikev1-cert-id-no-cert
        ikev1-cert-id-notify-invalid-id
    """,
    "Let an IKE policy expect the identity that the certificate of the dial-in user has.": """
        ikev1-cert-id-dialin-dn ikev1-cert-id-dialin-ipv4 ikev1-cert-id-dialin-user-fqdn
        ikev1-cert-id-dialin-fqdn ikev1-cert-id-dialin-no-cert ikev1-cert-id-dialin-notify-invalid-id
    """,
    "Let the local identity of each end be the remote identity that the other one expects.": """
        ikev1-psk-id-ipv4 ikev1-psk-id-fqdn
    """,
    "Configure the same ID data in the IKE policies of both ends.": """
        ikev1-cert-id-payload-policy ikev1-cert-id-payload-cert ikev1-received-notify
    """,
    "Configure the same main mode attributes in the IKE policies of both ends.": """
        ikev1-invalid-next-payload ikev1-notify-invalid-payload-type ikev1-invalid-xform-id
        ikev1-notify-invalid-transform-id ikev1-unsupported-attribute ikev1-notify-attributes-not-supported
        ikev1-p1-no-proposal-encr-alg ikev1-notify-no-proposal-chosen ikev1-invalid-reserved-value
        ikev1-notify-bad-proposal-syntax ikev1-invalid-reserved-payload ikev1-notify-payload-malformed
        ikev1-unsupported-xchgtype ikev1-sa-payload-length ikev1-notify-unequal-payload-length
    """,
    "The peer's DOI is wrong, or not supported: ask its support.": """
        ikev1-invalid-doi ikev1-notify-doi-not-supported
    """,
    "Ask the support.": """
        ikev1-situation-not-supported ikev1-notify-invalid-notify-type ikev1-invalid-minor-version
        ikev1-notify-invalid-minor-version ikev1-invalid-message-id ikev1-notify-invalid-message-id
        ikev1-invalid-protocol-id
    """,
    "Reset the connection of the tunnel; ask the support if it happens again.": """
        ikev1-invalid-initiator-cookie ikev1-invalid-xchange-type ikev1-invalid-flags
        ikev1-notify-invalid-flags
    """,
    "The version number is wrong: ask the support.": """
        ikev1-invalid-major-version ikev1-notify-invalid-major-version
    """,
    "Configure the same PFS group in the IPsec policies of both ends.": """
        ikev1-p2-dh-group-mismatch
    """,
    "Configure the same authentication algorithms in the IPsec proposals of both ends.": """
        ikev1-p2-auth-alg-mismatch
    """,
    "Configure the same encryption algorithms in the IPsec proposals of both ends.": """
        ikev1-p2-encr-alg-mismatch
    """,
    "Nothing needs to be done.": """
        ikev1-p2-selectors-sent-initiator ikev1-p2-selectors-sent-responder
        ikev1-p2-selectors-received-initiator ikev1-p2-selectors-received-responder
        ikev1-p2-responder-lifetime-seconds-notify ikev1-p2-responder-lifetime-seconds
        ikev1-p2-responder-lifetime-kbytes-notify ikev1-p2-responder-lifetime-kbytes ikev1-delete-received-ah
        ikev1-delete-received-esp esp-no-inbound-sa esp-late-packet esp-duplicate-packet
    """,
    "Let the IPsec policies and the rules of the IPsec access lists of both ends fit each other.": """
        ikev1-p2-selectors-no-match
    """,
    "Configure ESP and AH alike at both ends.": """
        ikev1-p2-ah-count-mismatch ikev1-p2-esp-count-mismatch
    """,
    "Configure the IPsec policies of both ends alike: keys, and authentication algorithms.": """
        esp-icv-ah esp-icv-esp
    """,
    "Configure tunnel mode at both ends; there is no transport mode.": """
        esp-encap-mode
    """,
}
"""Message ids by what is recommended."""

ACTIONS: Final[Mapping[str, str]] = {id: action for action, ids in _ACTIONS.items() for id in ids.split()}
"""What is recommended, by message id."""

_ABOUT: Final[Mapping[str, str]] = {
    "ikev1-received-unprotected-notify": "UNSUPPORTED_EXCHANGE_TYPE",
    "ikev1-received-notify": "INVALID_ID_INFORMATION",
}
"""The notification that the guide's recommendation is about, by the id of a message that takes any."""

AT_THE_PEER: Final = "Look at the log of the peer: it says what it received and what it has configured."
"""Ours: what is recommended about other notifications in the same messages."""


def recommended(id: str, values: Mapping[str, Any]) -> str:
    """Return what is recommended about a message, empty if nothing is. `values` are those of its record."""
    if id in _ABOUT and values.get("notify") != _ABOUT[id]:
        return AT_THE_PEER
    return ACTIONS.get(id, "")
