"""Why a forwarder drops packets: a closed set, each with a counter of its own (`drop CAUSE`)."""

from __future__ import annotations

from enum import StrEnum


class DropCause(StrEnum):
    # the frame
    SHORT = "short packet"
    LINK_ADDRESS = "not for this port"
    LINK_BROADCAST = "link broadcast"
    ETHERTYPE = "unknown ethertype"
    ARP = "bad arp"
    # the packet
    VERSION = "not ipv4"
    HEADER = "bad header"
    CHECKSUM = "header checksum"
    MARTIAN_SOURCE = "martian source"
    MARTIAN_DESTINATION = "martian destination"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    TTL = "ttl exceeded"
    TOO_LONG = "fragmentation needed"
    # the way
    NO_ROUTE = "no route"
    DISCARD = "discard route"
    TUNNEL_DOWN = "no usable tunnel"
    NEXT_HOP_DOWN = "no usable next hop"
    OWNER_DOWN = "asp down"
    NO_CIRCUIT = "unknown circuit"
    LOOP = "too many turns"
    # the port
    NO_PORT = "unknown port"
    NO_NEXT_HOP = "no next hop address"
    PORT_DOWN = "port down"
    NEIGHBOUR_QUEUE = "neighbour queue full"
    NEIGHBOURS = "too many neighbours"
    NEIGHBOUR = "neighbour unresolved"
    # the local stack
    LOCAL_PROTOCOL = "no local protocol"
    LOCAL_PORT = "no local port"
    LOCAL_FRAGMENT = "fragments incomplete"
    LOCAL_MESSAGE = "bad local message"
    # the card
    FENCED = "fenced"
    OLD_EPOCH = "old epoch"
    WRONG_STEP = "wrong step"
