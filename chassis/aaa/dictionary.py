"""The RADIUS attributes that are used here, in the form of pyrad's dictionaries.

RFC 2865 and RFC 2866 (1 to 61), RFC 2869 (52 to 55, 80, 85, 88), RFC 2548 (vendor 311), and Redback's own (vendor
2352), among them Security-Service (guide 7).
"""

from __future__ import annotations

from io import StringIO
from typing import Final

from pyrad.dictionary import Dictionary

_TEXT = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE User-Password 2 octets
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Framed-IP-Netmask 9 ipaddr
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE Class 25 octets
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Delay-Time 41 integer
ATTRIBUTE Acct-Input-Octets 42 integer
ATTRIBUTE Acct-Output-Octets 43 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Authentic 45 integer
ATTRIBUTE Acct-Session-Time 46 integer
ATTRIBUTE Acct-Input-Packets 47 integer
ATTRIBUTE Acct-Output-Packets 48 integer
ATTRIBUTE Acct-Terminate-Cause 49 integer
ATTRIBUTE Acct-Input-Gigawords 52 integer
ATTRIBUTE Acct-Output-Gigawords 53 integer
ATTRIBUTE Event-Timestamp 55 date
ATTRIBUTE NAS-Port-Type 61 integer
ATTRIBUTE Message-Authenticator 80 octets
ATTRIBUTE Acct-Interim-Interval 85 integer
ATTRIBUTE Framed-Pool 88 string

VENDOR Microsoft 311
BEGIN-VENDOR Microsoft
ATTRIBUTE MS-Primary-DNS-Server 28 ipaddr
ATTRIBUTE MS-Secondary-DNS-Server 29 ipaddr
END-VENDOR Microsoft

VENDOR Redback 2352
BEGIN-VENDOR Redback
ATTRIBUTE Client-DNS-Pri 1 ipaddr
ATTRIBUTE Client-DNS-Sec 2 ipaddr
ATTRIBUTE Acct-Input-Octets-64 128 integer64
ATTRIBUTE Acct-Output-Octets-64 129 integer64
ATTRIBUTE Acct-Input-Packets-64 130 integer64
ATTRIBUTE Acct-Output-Packets-64 131 integer64
ATTRIBUTE Security-Service 203 string
END-VENDOR Redback
"""

DICTIONARY: Final = Dictionary(StringIO(_TEXT))
"""pyrad's dictionary: never changed."""
