"""Commands of other parts of the router: they open a mode or belong to one, and have no effect here.

Their lines are kept word for word. The grammar has them for scripts without indentation, to tell a line of such a
mode from the same words of another mode, such as `shutdown` and `bind interface` of a port. Only words that an
enclosing mode knows need a row, and words whose warnings would be too frequent.
"""

from __future__ import annotations

from chassis.config.grammar import Command

_PORTS = (
    "atm|pos|ds0s|ds1|ds3|e1|e3|channelized-ds3|channelized-e1|channelized-stm1|channelized-oc12|ethernet-mgmt"
)
_TUNNELS = "gre|ip-ip|ipip|ipv6v4-auto|ipv6v4-manual|l2tp|dynamic"

_OPENERS: tuple[tuple[str, str, str, str], ...] = (
    # mode, syntax, mode that it opens, help
    ("global", "link-group", "link-group", "group of links"),
    ("global", "qos", "qos-policy", "policy or map of quality of service"),
    ("global", "qos policy <name:name> <kind:word>", "qos-policy", "QoS policy of another kind"),
    ("global", "qos policy <name:name> policing <option:word>", "qos-policy", "QoS policy with an option"),
    ("global", "bridge", "bridge", "profile of bridges"),
    ("global", "dot1q profile", "dot1q-profile", "profile of 802.1Q circuits"),
    ("global", "atm profile", "atm-profile", "profile of ATM circuits"),
    ("global", "forward policy", "forward-policy", "forward policy"),
    ("global", "xc-group", "xc-group", "group of cross-connections"),
    ("global", f"port <kind={_PORTS}>", "other-port", "port of another kind"),
    ("global", f"tunnel <kind={_TUNNELS}>", "other-tunnel", "tunnel of another kind"),
    ("global", "snmp server", "snmp", "SNMP agent"),
    ("context", "snmp server", "snmp", "SNMP agent"),
    ("context", "router", "router", "routing protocol"),
    ("context", "subscriber", "subscriber", "subscriber record"),
    ("context", "bridge", "bridge", "bridge"),
    ("context", "ip access-list", "filter", "IP access list"),
    ("context", "ip prefix-list", "filter", "IP prefix list"),
    ("context", "ip as-path-list", "filter", "list of AS paths"),
    ("context", "ip community-list", "filter", "list of communities"),
    ("context", "ipv6 access-list", "filter", "IPv6 access list"),
    ("context", "ipv6 prefix-list", "filter", "IPv6 prefix list"),
    ("context", "policy access-list", "filter", "policy access list"),
    ("context", "route-map", "filter", "route map"),
    ("context", "nat policy", "filter", "NAT policy"),
    ("context", "ip nat pool", "filter", "pool of NAT addresses"),
    ("context", "dhcp server policy", "filter", "policy of the DHCP server"),
    ("context", "key-chain", "filter", "keys of routing protocols"),
    ("context", "l2tp-peer", "filter", "L2TP peer"),
    ("context", "administrator <name:name> password", "other-administrator", "administrator with a password"),
    *(
        ("context", f"interface <name:name> {kind}", "other-interface", "interface of another kind")
        for kind in ("bridge", "multibind", "p2p", "intercontext")
    ),
    ("port", "dot1q pvc", "pvc", "802.1Q circuits"),
    ("link-group", "dot1q pvc", "pvc", "802.1Q circuits"),
    ("other-port", "dot1q pvc", "pvc", "802.1Q circuits"),
    ("other-port", "atm pvc", "pvc", "ATM circuits"),
    ("router", "area", "area", "area of OSPF"),
    ("router", "neighbor", "neighbor", "neighbour of BGP"),
    ("router", "peer-group", "neighbor", "group of neighbours of BGP"),
    ("router", "address-family", "neighbor", "address family"),
    ("router", "interface <name:name>", "protocol-interface", "interface of a routing protocol"),
    ("neighbor", "address-family", "neighbor-family", "address family of a neighbour"),
    ("area", "interface <name:name>", "protocol-interface", "interface of OSPF"),
    ("qos-policy", "class", "class", "class of traffic"),
    ("policing", "class", "class", "class of traffic"),
    ("policing", "access-group", "class", "classes of traffic"),
    ("forward-policy", "class", "class", "class of traffic"),
)

_QOS = ("qos policy <kind=policing|metering|queuing>", "qos <kind=hierarchical|mode|priority|profile|rate|weight>")
_QUEUING = "qos policy <kind=metering|queuing>"
_FORWARD = "forward policy <name:name> <way=in|out>"
_CIRCUIT = (*_QOS, _FORWARD, "bind", "bridge profile", "description", "encapsulation", "ip", "mtu", "shutdown")
_AAA = (
    "aaa <kind=accounting|authentication> administrator", "aaa accounting <kind=commands|l2tp|reauthorization>",
    "aaa accounting subscriber <kind=global|none>", "aaa authentication subscriber <kind=global|local|none>",
    "aaa <kind=authorization|encrypted-password|global|last-resort|maximum|reauthorization|update>",
    "aaa username-format",
)  # fmt: skip
_RADIUS_GLOBAL = (
    "radius attribute",
    "radius coa",
    "radius policy",
    "radius route-download",
    "radius strip-domain",
)
_RADIUS = (
    *_RADIUS_GLOBAL,
    "radius accounting <kind=algorithm|deadtime|max-outstanding|max-retries|server-timeout|timeout>",
    # A key that another router has encrypted stays with its line.
    "radius accounting server <address:address> encrypted-key", "radius server <address:address> encrypted-key",
    "radius server-timeout",
)  # fmt: skip
"""Lines of AAA and RADIUS that the commands about peers of tunnels are not."""

_LINES: dict[str, tuple[str, ...]] = {
    "global": (
        "aaa <kind=accounting|authentication> administrator", "aaa <kind=authorization|global|last-resort>",
        "banner", "logging <kind=filter|syslog>", "mpls", "ntp", "pppoe", *_RADIUS_GLOBAL, "snmp", "software",
        "system <kind=alarm|clock|confirmations|contact|location>",
    ),
    "context": (
        *_AAA, *_RADIUS, "domain", "enable", "igmp", "ip domain-name", "ip host", "ip name-servers",
        "ip pool <prefix:network>", "ip static",
        "ntp", "service <kind=ftp|scp|sftp|ssh|telnet|tftp>", "snmp",
        "tacacs+", "vpn-rd",
    ),
    "port": (_QUEUING, *_QOS[1:], _FORWARD, "bridge profile", "link-group <name:name>"),
    "interface": (*_QOS, _FORWARD),
    "tunnel": ("qos policy <kind=policing|metering>", _FORWARD),
    "link-group": _CIRCUIT,
    "other-port": (*_CIRCUIT, "link-group <name:name>"),
    "other-tunnel": (*_CIRCUIT, "peer-end-point"),
    "pvc": (*_CIRCUIT, "dhcp", "link-group <name:name>"),
    "router": ("authentication", "description", "redistribute", "route-map", "router-id", "shutdown"),
    "area": ("authentication",),
    "protocol-interface": ("authentication", "cost", "description", "shutdown"),
    "neighbor": ("description", "remote-as", "route-map", "shutdown", "update-source"),
    "neighbor-family": ("route-map",),
    "subscriber": (
        *_QOS, _FORWARD, "bridge profile", "dhcp", "ip access-group", "ip address", "ip source-validation",
        "password", "timeout",
    ),
    "other-interface": (
        *_QOS, _FORWARD, "bridge", "description", "dhcp", "ip access-group", "ip address", "ip arp", "ip mtu",
        "ip unnumbered",
    ),
    "other-administrator": ("full-name", "privilege", "timeout"),
    "filter": ("description", "seq"),
    "policing": ("burst", "conform", "exceed", "radius", "rate", "violate"),
    "class": ("burst", "class", "conform", "exceed", "mark", "rate", "violate"),
    "bridge": ("description",),
}  # fmt: skip
"""Lines that do not open a mode: their leading words, by mode."""


def _row(mode: str, syntax: str, enters: str, help: str) -> Command:
    form = syntax if syntax.endswith((":name>", ":network>")) else f"{syntax} [<rest:text>]"
    return Command(f"{mode}: {syntax}", (mode,), form, help, does="foreign", enters=enters, standing="accepted")


FOREIGN: tuple[Command, ...] = (
    *(_row(mode, syntax, enters, help) for mode, syntax, enters, help in _OPENERS),
    *(_row(mode, words, "", "line without effect here") for mode, lines in _LINES.items() for words in lines),
)
"""All commands without effect."""

FOREIGN_MODES: frozenset[str] = frozenset(command.enters for command in FOREIGN if command.enters)
"""The modes that only these commands open."""
