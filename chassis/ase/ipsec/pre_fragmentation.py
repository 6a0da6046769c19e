"""Decide which packets may be fragmented before they are encapsulated (RFC 4301 7, RFC 4459 3.3).

Only the first fragment of a packet has ports. If ports selected the SA, later fragments would match another SPD
entry or none, and a receiver that checks the SA's selectors would refuse them. Such a packet is encapsulated whole
and its outer packet is fragmented; the peer reassembles it before it decapsulates. All others may be fragmented
first: each fragment matches as the whole does, at both ends.
"""

from __future__ import annotations

import struct
from typing import Final

from chassis.ase.ipsec.policy import NO_ENTRY
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.selectors import ports_of
from chassis.fwd.mtu import FragmentDecision

_ADDRESSES: Final = struct.Struct("!BxxII").unpack_from


def fragment_decision(sadb: Sadb, tunnel: int, view: memoryview, start: int, end: int) -> FragmentDecision:
    """Return what may be done with the IPv4 packet at start:end (20 octets or more), too large for its tunnel."""
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
    # The SAs' selectors are narrower than the entry's: they decide too, and all of them may refuse the packet.
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
