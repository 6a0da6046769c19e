"""Log lines of IKE: the guide's texts (chapters 15 and 16) and our own, made into records with their tunnel.

`TEMPLATES` maps an id to a template for `str.format`; the texts are the guide's, character by character, with
its uneven blanks and full stops. `INFORMATIONAL` has the ids that the guide calls informational; all others are
errors. No template takes a key.

If a session does not know yet which connection the peer means, its lines name the only tunnel between the two
addresses, or none if there are several. At most MAX_LINES_PER_SECOND lines of an id are logged in a second, for
established IKE SAs and for all others apart, so that unauthenticated peers cannot use up the budget of others. The
next line has the number of suppressed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.connections import Connection, ConnectionGroup
from chassis.ase.ike.host import NetworkPath, Session
from chassis.bus.messages import LogRecord, Value
from chassis.net.address import format_address

TEMPLATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        # IKEv1: chapter 15, table 5
        "ikev1-psk-payload-length": "Payload Length({length}) is greater than the supported length({limit})",
        "ikev1-psk-mismatch-suspected": "Possibly Mismatching Keys detected in IKE phase-I 5th/6th messages",
        "ikev1-psk-notify-unequal-payload-lengths": "Sending phase-I notify of type {notify}",
        "ikev1-p1-dh-group-mismatch": (
            "Mismatching DH Group({received}) detected, configured is ({configured}) in IKE phase-I 1st message"
        ),
        "ikev1-p1-xchange-type-mismatch": (
            "Mismatching Xchange Type ({received}) detected, configured is ({configured}) in "
            "IKE phase-I 1st message"
        ),
        "ikev1-received-unprotected-notify": "received unprotected message of notify type {notify}",
        "ikev1-p1-auth-alg-mismatch": (
            "Mismatching Authentication algorithm ({received}) detected, configured is "
            "({configured}) in IKE phase-I 1st message."
        ),
        "ikev1-p1-encr-alg-mismatch": (
            "Mismatching Encryption algorithm ({received}) detected, configured is "
            "({configured}) in IKE phase-I 1st message."
        ),
        "ikev1-p1-auth-method-mismatch": (
            "Mismatching Authentication method ({received}) detected, configured is "
            "({configured}) in phase-I message agent=IKE."
        ),
        "ikev1-cert-id-dn": "ID type ({id_type}) and ID data {id} not matching with the configured IKE policies",
        "ikev1-cert-id-ipv4": "ID type ({id_type}) and ID data {id} not matching with the configured IKE policies",
        "ikev1-cert-id-user-fqdn": (
            "ID type ({id_type}) and ID data {id} not matching with the configured IKE policies"
        ),
        "ikev1-cert-id-fqdn": "ID type ({id_type}) and ID data {id} not matching with the configured IKE policies",
        "ikev1-cert-id-no-cert": (
            "NO CERT found that matches with at least {count} remoteid configured in IKE policy"
        ),
        "ikev1-cert-id-notify-invalid-id": "Sending phase-I notify of type {notify}",
        "ikev1-cert-id-dialin-dn": (
            "ID type ({id_type}) and ID data {id} not matching with any of the configured IKE policies"
        ),
        "ikev1-cert-id-dialin-ipv4": (
            "ID type ({id_type}) and ID data {id} not matching with any of the configured IKE policies"
        ),
        "ikev1-cert-id-dialin-user-fqdn": (
            "ID type ({id_type}) and ID data {id} not matching with any of the configured IKE policies"
        ),
        "ikev1-cert-id-dialin-fqdn": (
            "ID type ({id_type}) and ID data {id} not matching with any of the configured IKE policies"
        ),
        "ikev1-cert-id-dialin-no-cert": (
            "NO CERT found that matches with at least {count} remoteid configured in IKE policy"
        ),
        "ikev1-cert-id-dialin-notify-invalid-id": "Sending phase-I notify of type {notify}",
        "ikev1-psk-id-ipv4": (
            "Mismatching ID type ({id_type}) and ID: {id} with the configured IKE policy agent=IKE"
        ),
        "ikev1-psk-id-fqdn": "Mismatching ID type ({id_type}) and ID: {id} with the configured IKE policy",
        "ikev1-cert-id-payload-policy": (
            "Mismatching ID type ({id_type}) and ID: {id} with the configured IKE policy"
        ),
        "ikev1-cert-id-payload-cert": (
            "ID type ({id_type}) and ID data: {id} mismatching with matching Cert ID type "
            "({cert_id_type}) and Cert ID: {cert_id}"
        ),
        "ikev1-received-notify": "received NOTIFY PAYLOAD of notify type {notify}.",
        "ikev1-invalid-next-payload": "Invalid Next Payload type({value:#x}) detected in IKE message",
        "ikev1-notify-invalid-payload-type": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-doi": "Invalid DOI ({value:#x}) detected in IKE phase-I 1st message",
        "ikev1-notify-doi-not-supported": "Sending phase-I notify of type {notify}",
        "ikev1-situation-not-supported": "Situation ({value:#x}) is not supported",
        "ikev1-notify-invalid-notify-type": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-initiator-cookie": "Invalid Initiator Cookie detected in IKE message.",
        "ikev1-invalid-major-version": "Invalid Major Version ({value:#x}) detected in IKE message",
        "ikev1-notify-invalid-major-version": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-minor-version": "Invalid Minor Version ({value:#x}) detected in IKE message",
        "ikev1-notify-invalid-minor-version": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-xchange-type": "Invalid Xchange Type ({value:#x}) detected for non-existing IKE SA.",
        "ikev1-invalid-flags": "Invalid Flags({value:#x}) detected in IKE message",
        "ikev1-notify-invalid-flags": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-message-id": "Invalid Message ID({value:#x}) detected in IKE phase-I message",
        "ikev1-notify-invalid-message-id": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-protocol-id": "Invalid Protocol ID({value:#x}) detected.",
        "ikev1-invalid-xform-id": "Invalid Xform ID({value}) detected in IKE phase-I 1st message",
        "ikev1-notify-invalid-transform-id": "Sending phase-I notify of type {notify}",
        "ikev1-unsupported-attribute": "Unsupported attribute({value}) detected in IKE phase-I 1st message",
        "ikev1-notify-attributes-not-supported": "Sending phase-I notify of type {notify}",
        "ikev1-p1-no-proposal-encr-alg": (
            "Mismatching Encryption algorithm ({received}) detected, configured is "
            "({configured}) in IKE phase-I 1st message"
        ),
        "ikev1-notify-no-proposal-chosen": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-reserved-value": "Invalid Reserved field value({value:#x}) detected",
        "ikev1-notify-bad-proposal-syntax": "Sending phase-I notify of type {notify}",
        "ikev1-invalid-reserved-payload": (
            "Invalid Reserved field ({value:#x}) detected in IKE phase-1 1st message"
        ),
        "ikev1-notify-payload-malformed": "Sending phase-I notify of type {notify}",
        "ikev1-unsupported-xchgtype": "Unsupported XchgType detected.",
        "ikev1-sa-payload-length": (
            "Payload Length({length}) is greater than SA + Proposal + Xform + Attributes size({size})"
        ),
        "ikev1-notify-unequal-payload-length": "Sending phase-I notify of type {notify}",
        "ikev1-p2-dh-group-mismatch": (
            "Mismatching DH Group({received}) detected, configured is({configured}) in IKE phase-II 1st message."
        ),
        "ikev1-p2-auth-alg-mismatch": (
            "Mismatching Authentication algorithm ({received}) detected, configured is "
            "({configured}), in IKE phase-II 1st message ."
        ),
        "ikev1-p2-encr-alg-mismatch": (
            "Mismatching Encryption algorithm ({received}) detected, configured is "
            "({configured}) in IKE phase-II message."
        ),
        "ikev1-p2-selectors-sent-initiator": (
            "Initiator SPD selectors sent: {id_type}, {address}, proto {proto}, port {port}"
        ),
        "ikev1-p2-selectors-sent-responder": (
            "Responder SPD selectors sent: {id_type}, {address}, proto {proto}, port {port}"
        ),
        "ikev1-p2-selectors-received-initiator": (
            "Initiator SPD selectors received: {id_type}, {address}, proto {proto}, port {port}"
        ),
        "ikev1-p2-selectors-received-responder": (
            "Responder SPD selectors received: {id_type}, {address}, proto {proto}, port {port}"
        ),
        "ikev1-p2-selectors-no-match": (
            "No matching SPD policy for the selectors received in IKE phase-II message."
        ),
        "ikev1-p2-ah-count-mismatch": (
            "Mismatching number of AH protocols received({received}), configured number of "
            "AH protocols: {configured} in IKE phase-II 1st message"
        ),
        "ikev1-p2-esp-count-mismatch": (
            "Mismatching number of ESP protocols received({received}), configured number of "
            "ESP protocols: {configured} in IKE phase-II 1st message"
        ),
        "ikev1-p2-responder-lifetime-seconds-notify": (
            "Notify payload of notify type {notify} with protocol ESP or AH received"
        ),
        "ikev1-p2-responder-lifetime-seconds": "Received Notify Type {notify} with {value} seconds",
        "ikev1-p2-responder-lifetime-kbytes-notify": (
            "Notify payload of notify type {notify} with protocol ESP or AH received"
        ),
        "ikev1-p2-responder-lifetime-kbytes": "Received Notify Type {notify} with {value} Kilo Bytes",
        "ikev1-delete-received-ah": (
            "Received DELETE PAYLOAD of protocol {protocol} detected with SPI : {spi:#010x} agent=IKE"
        ),
        "ikev1-delete-received-esp": (
            "Received DELETE PAYLOAD of protocol {protocol} detected with SPI : {spi:#010x}"
        ),
        # IKEv2: chapter 16, table 6
        "ikev2-auth-incomplete": "AUTH_PAYLOAD:Incomplete data received:{received}",
        "ikev2-auth-length": "AUTH_PAYLOAD_LENGTH_ERROR :{length} bytes,received {received} bytes",
        "ikev2-auth-method": "AUTH_PAYLOAD:Invalid AuthMethod Type:{method:X}",
        "ikev2-cert-incomplete": "CERT_PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-cert-length": "CERT_PAYLOAD_LENGTH_ERROR:{length}bytes,received {received} bytes",
        "ikev2-certreq-length": "CERT_REQ_PAYLOAD_LENGTH_ERROR:{length}bytes,received {received} bytes",
        "ikev2-cert-encoding": "INVALID_CERT_ENCODING_TYPE_ERROR {encoding} in CERT payload",
        "ikev2-cp-incomplete": "CP_PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-default-incomplete": "DEFAULT_PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-default-length": "DEFAULT_PAYLOAD:Invalid Length received:{received} bytes",
        "ikev2-delete-length": "DELETE_PAYLOAD_LENGTH_ERROR:{length} received {received} bytes",
        "ikev2-delete-protocol": "DELETE_PAYLOAD:INVALID_PROTOCOL_ID:{protocol}",
        "ikev2-delete-ike-spi-size": "DELETE_PAYLOAD:FOR IKE SA SPI SIZE IS NONZERO",
        "ikev2-eap-incomplete": "EAP PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-eap-length": "EAP_PAYLOAD_LENGTH_ERROR:Invalid payload length:{length} bytes",
        "ikev2-encrypted-nested": "ENCRYPTED PAYLOAD:Encrypted payload MUST not be nested",
        "ikev2-id-incomplete": "ID PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-id-length": "ID_PAYLOAD_LENGTH_ERROR: usPayloadLen {length} bytes, ulMsgLen {received} bytes:",
        "ikev2-ke-incomplete": "KEY EXCHANGE PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-ke-length": "KEY_EXCHANGE_PAYLOAD_LENGTH_ERROR:{length} bytes, received:{received} bytes",
        "ikev2-nonce-incomplete": "NONCE PAYLOAD:INCOMPLETE_DATA_RECEIVED:{received} bytes",
        "ikev2-nonce-too-long": "MAX_NONCE_PAYLOAD_LENGTH_ERROR:{length},Maximum Nonce Payload size: 256+4",
        "ikev2-notify-incomplete": "NOTIFY PAYLOAD:INCOMPLETE_DATA_RECEIVED:{received} bytes",
        "ikev2-notify-length": "NOTIFY_PAYLOAD_LENGTH_ERROR:{length}, received {received} bytes:",
        "ikev2-notify-protocol": "NOTIFY PAYLOAD:INVALID_NOTIFY_PROTOCOL_ID:{protocol}",
        "ikev2-notify-ike-spi-size": "NOTIFY PAYLOAD:FOR IKE SA SPI SIZE IS NONZERO",
        "ikev2-proposal-length": "PROPOSAL_PAYLOAD_LENGTH_ERROR : {length}, received bytes:{received},",
        "ikev2-sa-incomplete": "SA PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-sa-length": "SA_PAYLOAD_LENGTH_ERROR:{length}, received {received} bytes",
        "ikev2-ts-zero": "ZERO_TRAFFIC_SELECTORS in TRAFFIC_SELECTOR_PAYLOAD",
        "ikev2-unsupported-critical": "UNSUPPORTED PAYLOAD TYPE: {type:02d}, Critical Bit set",
        "ikev2-vendor-incomplete": "VENDOR ID PAYLOAD:Incomplete data received:{received} bytes",
        "ikev2-vendor-critical": "VENDOR ID PAYLOAD:Critical Bit Set",
        "ikev2-vendor-length": "VENDOR_ID_PAYLOAD_LENGTH_ERROR:{length} bytes",
        "ikev2-xform-incomplete": "INCOMPLETE_XFORM_PAYLOAD received :{received}",
        "ikev2-xform-length": "XFORM_PAYLOAD_LENGTH_ERROR :{length} received bytes;{received}",
        "ikev2-xform-attrib-af": "XFORM_ATTRIB_AF_Bit Set",
        "ikev2-xform-attrib-length": "XFORM_ATTRIB_LENGTH_ERROR :{length} bytes of Attribute Received:{received}",
        "ikev2-generic-header-length": "IKEV2_GENERIC_HEADER_LENGTH_ERROR:{length}",
        "ikev2-header-incomplete": "IKEV2 HEADER:Incomplete data received:{received} bytes",
        "ikev2-header-zero-spi": "IKEV2 HEADER:Zero Init SPI received",
        "ikev2-header-next-payload": "IKEV2 HEADER:INVALID_NEXT_PAYLOAD_TYPE",
        "ikev2-header-exchange-type": "IKEV2 HEADER:Invalid Exchange Type",
        "ikev2-header-total-length": (
            "IKEV2_TOTAL_LENGTH_RCVD_ERROR:{received} bytes IKE_HDR_TOTAL_LENGTH:{length}"
        ),
        "ikev2-header-major-version": "IKEV2_MAJOR_VERSION_ERROR :{version}",
        "ikev2-incomplete": "Incomplete data received {received} bytes",
        "ikev2-invalid-id-type": "INVALID_ID_TYPE_ERROR:{id_type}",
        "ikev2-invalid-protocol-id": "INVALID_PROTOCOL_ID {protocol} in PROPOSAL_{proposal},",
        "ikev2-invalid-spi-size": "INVALID_SPI_SIZE {size:#x} in PROPOSAL_{proposal}",
        "ikev2-invalid-ts-type": "INVALID_TRAFFIC_SELECTOR_TYPE:{type}",
        "ikev2-invalid-ts-length": "INVALID_TRAFFIC_SELECTOR_LENGTH:{length}",
        "ikev2-invalid-cp-attrib": "INVALID_CP_ATTRIB_TYPE:{type}",
        "ikev2-invalid-xform-attrib": "INVALID_XFORM_ATTRIB_TYPE:{type} Prop Num:{proposal}",
        "ikev2-zero-transform": "ZERO_TRANSFORM received in PROPOSAL_{proposal}",
        "ikev2-mismatch-protocol-count": (
            "MISMATCHED_NUMBER_OF_SECURITY_PROTOCOLS:{received} configured:{configured} in PROPOSAL_{proposal}"
        ),
        "ikev2-mismatch-esn": "MISMATCHED_ESN:{received} configured:{configured} in PROPOSAL_{proposal}",
        "ikev2-mismatch-pfs-group": (
            "MISMATCHED_PFS_GROUP RECEIVED:{received} configured:{configured} in PROPOSAL_{proposal}"
        ),
        "ikev2-mismatch-ah-auth": (
            "MISMATCHED_AH_AUTH_ALG:{received} configured:{configured} in PROPOSAL_{proposal}"
        ),
        "ikev2-mismatch-esp-encr": (
            "MISMATCHED_ESP_ENCRYPTION_ALG:{received} configured:{configured} in PROPOSAL_{proposal}"
        ),
        "ikev2-ts-incomplete": "Ikev2TSNtoH:INCOMPLETE_TRAFFIC_SELECTOR received:{received} bytes",
    }
)

INFORMATIONAL: Final = frozenset(
    {
        "ikev1-p2-selectors-sent-initiator",
        "ikev1-p2-selectors-sent-responder",
        "ikev1-p2-selectors-received-initiator",
        "ikev1-p2-selectors-received-responder",
        "ikev1-p2-responder-lifetime-seconds-notify",
        "ikev1-p2-responder-lifetime-seconds",
        "ikev1-p2-responder-lifetime-kbytes-notify",
        "ikev1-p2-responder-lifetime-kbytes",
        "ikev1-delete-received-ah",
        "ikev1-delete-received-esp",
    }
)


def text(message: str, values: Mapping[str, Any]) -> str:
    """Return the text of this id with its values.

    Raises:
        KeyError: the id is unknown or a value is missing.
    """
    return TEMPLATES[message].format(**values)


FACILITY: Final = "ike"
MAX_LINES_PER_SECOND: Final = 20
OWN_ID_PREFIX: Final = "ike-"
"""Prefix of the ids of our own texts."""


class IkeLogger:
    """Makes log records, within MAX_LINES_PER_SECOND for each id."""

    def __init__(self, asp: str, group: Callable[[int, int, int, int], ConnectionGroup | None]) -> None:
        """`group(context, local, remote, version)` returns the connections between two addresses."""
        self._asp = asp
        self._group = group
        self._said: dict[tuple[str, bool], tuple[int, int, int]] = {}
        """(second, lines logged in it, lines suppressed since), by id and whether the IKE SA is established."""

    def table(
        self, id: str, values: Mapping[str, Any], session: Session | None, path: NetworkPath, now: float
    ) -> LogRecord | None:
        """Return a record with a text of the guide's tables; None if it is suppressed."""
        severity = "informational" if id in INFORMATIONAL else "error"
        return self._record(severity, id, text(id, values), values, session, path, now)

    def own(
        self, kind: str, severity: str, said: str, session: Session | None, path: NetworkPath, now: float
    ) -> LogRecord | None:
        """Return a record with a text of our own; None if it is suppressed."""
        return self._record(severity, OWN_ID_PREFIX + kind.replace(" ", "-").lower(), said, {}, session, path, now)

    def _record(
        self,
        severity: str,
        id: str,
        said: str,
        values: Mapping[str, Any],
        session: Session | None,
        path: NetworkPath,
        now: float,
    ) -> LogRecord | None:
        second = int(now)
        kind = id, session is not None and session.established
        at, count, held = self._said.get(kind, (second, 0, 0))
        if at != second:
            count = 0
        if count >= MAX_LINES_PER_SECOND:
            self._said[kind] = (second, count, held + 1)
            return None
        self._said[kind] = (second, count + 1, 0)
        plain: dict[str, Value] = {
            name: value if isinstance(value, str | int | float | bool | bytes) else str(value)
            for name, value in values.items()
        }
        plain["asp"] = self._asp
        plain["peer"] = format_address(path.remote)
        connection = self._connection(session, path)
        if connection is not None:
            plain["tunnel"], plain["context"] = connection.name, connection.context_name
        else:
            plain["context"] = path.context
        if held:
            plain["held back"] = held
        return LogRecord(now, severity, FACILITY, id, said, plain)

    def _connection(self, session: Session | None, path: NetworkPath) -> Connection | None:
        """Return the connection that a line is about; None if it is not known."""
        if session is not None and session.connection is not None:
            return session.connection
        versions = (1, 2) if session is None else (session.version,)
        groups = [self._group(path.context, path.local, path.remote, version) for version in versions]
        members = [member for group in groups if group is not None for member in group.members]
        return members[0] if len(members) == 1 else None
