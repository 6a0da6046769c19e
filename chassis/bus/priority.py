"""Traffic classes of packets: 0 the highest, 3 the lowest (guide 8.5, table 3; S-040).

The priority queues of an SA and the drops of a full fabric connection use the same four classes. The class of a
packet comes from its DSCP, or from the priority descriptor (PD) that the ingress line card gave it.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Final

import numpy as np

from chassis.bus.batch import Batch, Step
from chassis.model.qos import LOWEST_CLASS, class_of
from chassis.net.columns import MIN_PACKETS, Columns
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH

_SERVICE: Final = HEADROOM + 1
"""Offset (octets) of a packet's type of service (DSCP and ECN) from the beginning of its headroom."""

_PROTOCOL: Final = HEADROOM + 9
_UDP_AT: Final = HEADROOM + IPV4_HEADER_LENGTH
_WORDS: Final = IPV4_HEADER_LENGTH // 4
_UDP_END: Final = HEADROOM + IPV4_HEADER_LENGTH + UDP_HEADER_LENGTH
_IKE: Final = IKE_PORT.to_bytes(2, "big")
_NAT: Final = NAT_PORT.to_bytes(2, "big")
_ARP: Final = ETHERTYPE_ARP.to_bytes(2, "big")
_IPV4: Final = ETHERTYPE_IPV4.to_bytes(2, "big")


_OF_SERVICE: Final = bytes(class_of(service >> 2) for service in range(256))
_OF_DESCRIPTOR: Final = bytes(class_of(value & 0x3F) for value in range(256))


def classes_of(body: bytearray | memoryview, lengths: array[int], descriptors: bytes = b"") -> bytes:
    """Return the class of each packet of a batch.

    `descriptors`, if not empty, are the packets' PD values, which override their DSCP. A packet without a complete
    IPv4 header gets an arbitrary class; it is dropped later.
    """
    if descriptors:
        return descriptors.translate(_OF_DESCRIPTOR)
    first = lengths[0]
    if first > _SERVICE and lengths.count(first) == len(lengths):
        # Packets of one size: their octets are at equal distances, so one slice reads them all.
        return bytes(memoryview(body)[_SERVICE::first]).translate(_OF_SERVICE)
    if len(lengths) >= MIN_PACKETS and min(lengths) > _SERVICE:
        return Columns(body, lengths).read(_SERVICE, 1).tobytes().translate(_OF_SERVICE)
    last = len(body) - 1
    starts = accumulate(lengths, initial=_SERVICE)
    return bytes([_OF_SERVICE[body[min(at, last)]] for at, _ in zip(starts, lengths, strict=False)])


def classes_of_batch(batch: Batch) -> bytes:
    """Return the class of each packet of a batch on its way between cards.

    What the router itself made, and IKE for one of its ASPs, is of the highest class whatever its DSCP is.
    """
    if not batch.ingress:
        return bytes(len(batch.lengths))
    classes = classes_of(batch.body, batch.lengths, batch.descriptors)
    return _raised(classes, batch, frames=False) if batch.step is Step.DECAPSULATE else classes


def classes_of_frames(batch: Batch) -> bytes:
    """Return one class for all frames of a wire, which loses the latest first, but the highest for ARP and IKE."""
    return _raised(bytes([LOWEST_CLASS]) * len(batch.lengths), batch, frames=True)


def _raised(classes: bytes, batch: Batch, *, frames: bool) -> bytes:
    """Return the classes with the highest one for packets of IKE, and of frames for ARP too."""
    wanted = _is_control if frames else _is_ike
    found = _may_be_wanted(batch, frames=frames)
    if found is None:
        return bytes([0 if wanted(packet) else one for packet, one in zip(batch.packets(), classes, strict=True)])
    if not found:
        return classes
    raised = bytearray(classes)
    for index, packet in enumerate(batch.packets()):
        if index in found and wanted(packet):
            raised[index] = 0
    return bytes(raised)


def _may_be_wanted(batch: Batch, *, frames: bool) -> set[int] | None:
    """Return the indices of the packets that may be of IKE or ARP; None if each must be looked at."""
    lengths = batch.lengths
    if len(lengths) < MIN_PACKETS or min(lengths) < _UDP_END:
        return None
    columns = Columns(batch.body, lengths)
    udp = columns.numbers(_PROTOCOL, 1) == PROTOCOL_UDP
    ports = columns.read(_UDP_AT, 4).view(">u2")
    may = udp & (
        ((ports == IKE_PORT) | (ports == NAT_PORT)).any(axis=1) | (columns.numbers(HEADROOM, 1) & 15 != _WORDS)
    )
    if frames:
        may |= columns.numbers(HEADROOM - 2, 2) == ETHERTYPE_ARP
    return set(np.flatnonzero(may).tolist())


def _is_ike(packet: memoryview) -> bool:
    """Return whether a packet behind its headroom is one of IKE (RFC 7296 2, RFC 3948 2.2)."""
    if len(packet) < _UDP_END or packet[_PROTOCOL] != PROTOCOL_UDP:
        return False
    udp = HEADROOM + (packet[HEADROOM] & 15) * 4
    ports = bytes(packet[udp : udp + 4])
    if _IKE in (ports[:2], ports[2:]):
        return True
    return _NAT in (ports[:2], ports[2:]) and bytes(packet[udp + 8 : udp + 12]) == bytes(4)


def _is_control(packet: memoryview) -> bool:
    """Return whether a frame is one of ARP or IKE."""
    kind = bytes(packet[HEADROOM - 2 : HEADROOM])
    return kind == _ARP or (kind == _IPV4 and _is_ike(packet))
