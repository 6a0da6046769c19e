"""Assigned numbers of IKE: exchange and payload types, notifications, protocols, identities.

Sources: RFC 2407, 2408, 2409 (version 1), RFC 7296, 7383, 7427 (version 2), RFC 3947 (NAT traversal), RFC 3706.
Fields of payloads hold plain ints, so that a number without a name here still decodes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

IPSEC_DOI: Final = 1
SIT_IDENTITY_ONLY: Final = 1
KEY_IKE: Final = 1


class ExchangeType(IntEnum):
    """Exchange types of both versions; 5 and 32 are the version 1 ones beside main (2) and aggressive (4)."""

    MAIN_MODE = 2
    AGGRESSIVE_MODE = 4
    INFORMATIONAL_V1 = 5
    QUICK_MODE = 32
    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37


EXCHANGES_V1: Final = frozenset(
    (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE, ExchangeType.INFORMATIONAL_V1, ExchangeType.QUICK_MODE)
)
UNSUPPORTED_EXCHANGES_V1: Final = frozenset((1, 3, 33))
"""Exchange types of version 1 that are defined but not supported: base, authentication only (RFC 2408 3.1), new
group mode (RFC 2409 5.6)."""
EXCHANGES_V2: Final = frozenset(
    (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH, ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL)
)


class Protocol(IntEnum):
    """Security protocol identifiers (RFC 2407 4.4.1, RFC 7296 3.3.1); IPCOMP is version 1's."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3
    IPCOMP = 4


class PayloadTypeV1(IntEnum):
    """Payload types of version 1 (RFC 2408 3.1, RFC 3947); the draft numbers are what older peers send."""

    NONE = 0
    SA = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KE = 4
    ID = 5
    CERT = 6
    CERTREQ = 7
    HASH = 8
    SIG = 9
    NONCE = 10
    NOTIFY = 11
    DELETE = 12
    VENDOR = 13
    ATTRIBUTES = 14
    NAT_D = 20
    NAT_OA = 21
    NAT_D_DRAFT = 130
    NAT_OA_DRAFT = 131
    FRAGMENT = 132


class PayloadTypeV2(IntEnum):
    """Payload types of version 2 (RFC 7296 3.2, RFC 7383)."""

    NONE = 0
    SA = 33
    KE = 34
    ID_I = 35
    ID_R = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR = 43
    TS_I = 44
    TS_R = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class IdType(IntEnum):
    """Identification types (RFC 2407 4.6.2.1, RFC 7296 3.5); 4, 6, 7 and 8 are version 1's alone."""

    IPV4_ADDR = 1
    FQDN = 2
    USER_FQDN = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


class CertEncoding(IntEnum):
    """Certificate encodings (RFC 2408 3.9, RFC 7296 3.6) that peers use."""

    PKCS7_WRAPPED = 1
    X509_SIGNATURE = 4
    CRL = 7
    HASH_AND_URL = 12
    HASH_AND_URL_BUNDLE = 13


class AuthMethod(IntEnum):
    """Authentication methods of version 2 (RFC 7296 3.8, RFC 4754, RFC 7427)."""

    RSA_SIGNATURE = 1
    SHARED_KEY = 2
    DSS_SIGNATURE = 3
    ECDSA_256 = 9
    ECDSA_384 = 10
    ECDSA_521 = 11
    NULL = 13
    DIGITAL_SIGNATURE = 14


class ConfigAttributeType(IntEnum):
    """Attributes of Configuration payloads that are answered (RFC 7296 3.15.1)."""

    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_NETMASK = 2
    INTERNAL_IP4_DNS = 3


class NotifyTypeV1(IntEnum):
    """Notifications of version 1: RFC 2408 3.14.1, RFC 2407 4.6.3, RFC 3706. The names are the guide's."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_MINOR_VERSION = 6
    INVALID_EXCHANGE_TYPE = 7
    INVALID_FLAGS = 8
    INVALID_MESSAGE_ID = 9
    INVALID_PROTOCOL_ID = 10
    INVALID_SPI = 11
    INVALID_TRANSFORM_ID = 12
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_CERT_ENCODING = 19
    INVALID_CERTIFICATE = 20
    CERT_TYPE_UNSUPPORTED = 21
    INVALID_CERT_AUTHORITY = 22
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    ADDRESS_NOTIFICATION = 26
    NOTIFY_SA_LIFETIME = 27
    CERTIFICATE_UNAVAILABLE = 28
    UNSUPPORTED_EXCHANGE_TYPE = 29
    UNEQUAL_PAYLOAD_LENGTHS = 30
    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136
    R_U_THERE_ACK = 36137


class NotifyTypeV2(IntEnum):
    """Notifications of version 2: RFC 7296 3.10.1, RFC 7383, RFC 7427."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431
