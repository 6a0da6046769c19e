"""Drop causes of forwarding: a closed set, each with a counter of its own (`drop CAUSE`)."""

from __future__ import annotations

from enum import StrEnum


class DropCause(StrEnum):
    # the frame
    SHORT = "truncated packet"
    LINK_ADDRESS = "not for this port"
    LINK_BROADCAST = "link broadcast"
    ETHERTYPE = "unknown ethertype"
    ARP = "malformed arp"
    # the packet
    VERSION = "not ipv4"
    HEADER = "malformed ipv4 header"
    CHECKSUM = "header checksum"
    MARTIAN_SOURCE = "martian source"
    MARTIAN_DESTINATION = "martian destination"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    TTL = "ttl exceeded"
    TOO_LONG = "fragmentation needed"
    # the route
    NO_ROUTE = "no route"
    DISCARD = "discard route"
    TUNNEL_DOWN = "no usable tunnel"
    NEXT_HOP_DOWN = "no usable next hop"
    OWNER_DOWN = "asp down"
    NO_CIRCUIT = "unknown circuit"
    LOOP = "routing loop"
    # the port
    NO_PORT = "unknown port"
    NO_NEXT_HOP = "no next hop address"
    PORT_DOWN = "port down"
    NEIGHBOUR_QUEUE = "neighbour queue full"
    NEIGHBOURS = "too many neighbours"
    NEIGHBOUR = "neighbour unresolved"
    # the local stack
    LOCAL_PROTOCOL = "protocol unreachable"
    LOCAL_PORT = "port unreachable"
    LOCAL_FRAGMENT = "reassembly timeout"
    LOCAL_MESSAGE = "malformed icmp"
    LOCAL_DATAGRAM = "malformed udp"
    LOCAL_RATE = "udp rate limit"
    LOCAL_CONTROLLER = "no controller"
    LOCAL_SOURCE = "no source address"
    # the card
    FENCED = "fenced"
    OLD_EPOCH = "stale epoch"
    WRONG_STEP = "unexpected step"
