"""Which packets may be cut before they are protected, and which are protected whole (RFC 4301 section 7).

The later fragments of a packet have no ports. Where it is for its ports that a packet goes by its SA, they would
go by another line or by none, and a receiver that checks the SA's selectors would refuse them: such a packet is
protected as it is, and what protects it is cut, which the other end puts together before it looks inside. All
others may be cut: every piece is matched as the whole is, at both ends.
"""

from __future__ import annotations

import struct
from enum import Enum, auto
from typing import Final

from chassis.ase.ipsec.policy import NO_ENTRY
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.selectors import ports_of

_ADDRESSES: Final = struct.Struct("!BxxII").unpack_from


class FragmentDecision(Enum):
    """What becomes of a clear packet that is too large for its tunnel."""

    FRAGMENT = auto()
    """It may be cut."""
    KEEP_WHOLE = auto()
    """It goes by its ports: protected as it is or not at all."""
    DROP = auto()
    """No line or no SA wants it: there is no use in cutting it."""


def fragment_decision(sadb: Sadb, tunnel: int, view: memoryview, start: int, end: int) -> FragmentDecision:
    """Judge the IPv4 packet that lies at start:end, at least 20 octets, as its whole."""
    classifier = sadb.policies.classifier(tunnel)
    if classifier is None:
        return FragmentDecision.DROP
    line = classifier.value(view, start, end)
    if line == NO_ENTRY:
        return FragmentDecision.DROP
    sending = sadb.sending(tunnel, line)
    if sending is None:
        return FragmentDecision.DROP
    same = classifier.later(view, start) == line
    if sending.covers(sadb.policies.rules(tunnel, line)):
        return FragmentDecision.FRAGMENT if same else FragmentDecision.KEEP_WHOLE
    # Less was agreed with the peer than the line wants: the SAs have a say too, and may all refuse it.
    protocol, source, destination = _ADDRESSES(view, start + 9)
    ports = ports_of(view, start, end)
    for sa in (sending, *sadb.besides(tunnel, line)):
        matched = [rule for rule in sa.sa.selectors if rule.matches(protocol, source, destination, ports)]
        if matched:
            return (
                FragmentDecision.FRAGMENT
                if same and any(not rule.names_port for rule in matched)
                else FragmentDecision.KEEP_WHOLE
            )
    return FragmentDecision.DROP
