"""Every request that an operator may make, by the process that answers it: the one table of them.

Processes check what comes in against it (`chassis.bus.arguments.read`), `chassisctl` takes ranges, defaults and
help texts from it, and `docs/bus.md` prints it. Line cards and ASPs are asked by their controller, on the bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chassis.bus.arguments import (
    AddressType,
    Argument,
    ArgumentType,
    EitherType,
    FlagType,
    IntType,
    NumberType,
    PathType,
    QuantityType,
    Spec,
    TextListType,
    TextType,
    ValuesType,
    WordType,
)
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, MAX_IPV4_LENGTH

MAX_CONFIGURATION: Final = 32 * 1024 * 1024
"""Octets of the longest configuration that is taken."""

MAX_PING: Final = MAX_IPV4_LENGTH - HEADROOM - IPV4_HEADER_LENGTH - 8
"""Octets of data of the largest echo request: with its headers it is a packet of a batch."""

MAX_TIME: Final = 1e12
"""Seconds of the monotonic clock, far beyond the life of any machine."""

MAX_RATE: Final = 1e7
"""Packets a second of the fastest flow, but for `max`."""

CLEAR: Final = ("all", "ike", "ipsec")
"""What of a tunnel is negotiated anew: everything, or the SAs that the guide's two clear commands name."""

REKEY: Final = ("ipsec", "ike")
SHOW: Final = ("sas", "statistics")

_NODE = Argument(TextType(64), "name of the node", required=True)
_CARD = Argument(TextType(32), "the card, such as asp 1/1; not needed for a node of one process", "")
_PORT = Argument(TextType(32), "the port, such as 3/11", required=True)
_SINCE = Argument(NumberType(0, MAX_TIME, "seconds"), "only what came after this monotonic time", 0.0)
_TUNNEL = Argument(TextType(), "name of the tunnel; of all where it is left out", "")
_FLOW = Argument(TextType(64), "name of the flow; all of them where it is left out")

_SECONDS: Final[ArgumentType] = NumberType(0.001, 60, "seconds")

_LINK = Spec(
    "Set faults of what a port sends, and say which are in force.",
    {
        "port": _PORT,
        "far": Argument(FlagType(), "of what the Linux device at the other end sends instead"),
        "down": Argument(FlagType(), "the link is down"),
        "loss": Argument(QuantityType(0, 1, "1%"), "share of packets lost"),
        "delay": Argument(QuantityType(0, 3600, "20ms"), "time under way"),
        "jitter": Argument(QuantityType(0, 3600, "5ms"), "most that is added to the delay or taken from it"),
        "reorder": Argument(QuantityType(0, 1, "1%"), "share of packets that a later one overtakes"),
        "duplicate": Argument(QuantityType(0, 1, "1%"), "share of packets that arrive twice"),
        "rate": Argument(QuantityType(0, 1e15, "100M"), "bits a second; 0 is no limit"),
        "seed": Argument(IntType(0, 2**32), "start the faults' random numbers over from this seed"),
        "clear": Argument(FlagType(), "end every fault first"),
    },
)
_INJECT = Spec(
    "Give a port the packets again that a capture says it received.",
    {
        "port": _PORT,
        "file": Argument(PathType(), "the capture", required=True),
        "seconds": Argument(NumberType(0, 1e9, "seconds"), "only those of its last such time; 0 for all", 0.0),
    },
)
_SNAPLEN = Argument(IntType(0, 65_535), "most octets that are kept of a packet; 0 for all", 0)


def _capture(points: str, **more: Argument) -> Spec:
    return Spec(
        "Capture packets into a file or a pipe.",
        {
            "what": Argument(TextType(64), points, required=True),
            "file": Argument(PathType(), "where to", required=True),
            "snaplen": _SNAPLEN,
            "clear": Argument(FlagType(), "only frames that are neither protected nor IKE's nor ARP", False),
            "ring": Argument(IntType(0, 2**50), "octets of which the last are kept; 0 for no bound", 0),
            **more,
        },
    )


def _capture_stop(what: str) -> Spec:
    return Spec(
        "End a capture.",
        {
            "file": Argument(TextType(4095), "the capture by its file", ""),
            "what": Argument(TextType(64), what, ""),
        },
    )


_APPEND = Argument(FlagType(), "go on with a file that is there", False)

LAUNCHER: Final[Mapping[str, Spec]] = {
    "ps": Spec("The processes of the lab."),
    "status": Spec("The status of every node."),
    "events": Spec("What the launcher noted.", {"since": _SINCE}),
    "kill": Spec("Kill a card's process (SIGKILL).", {"node": _NODE, "card": _CARD}),
    "stop": Spec("Make a card hang (SIGSTOP).", {"node": _NODE, "card": _CARD}),
    "continue": Spec("Let a hung card go on (SIGCONT).", {"node": _NODE, "card": _CARD}),
    "restart": Spec("Kill a card and start it again at once.", {"node": _NODE, "card": _CARD}),
    "exec": Spec(
        "Run a command in a Linux node.",
        {
            "node": _NODE,
            "command": Argument(
                EitherType((TextType(65_536), TextListType(1000, 65_536))),
                "one text for the shell, or a program with its arguments",
                required=True,
            ),
            "timeout": Argument(NumberType(0, 86_400, "seconds"), "longest that it may take", 30.0),
        },
    ),
    "destroy": Spec("End the lab.", {"keep_state": Argument(FlagType(), "keep the nodes' state folders", False)}),
}

CONTROLLER: Final[Mapping[str, Spec]] = {
    "status": Spec("Cards, tunnels, ports and the last events."),
    "routes": Spec("The routes of a context.", {"context": Argument(TextType(), "name of the context", "local")}),
    "log": Spec("The log.", {"since": _SINCE}),
    "events": Spec("What happened.", {"since": _SINCE}),
    "config": Spec("The configuration in force, keys included."),
    "apply": Spec(
        "Put a configuration into force, whole or not at all.",
        {
            "text": Argument(TextType(MAX_CONFIGURATION), "the configuration", required=True),
            "file": Argument(TextType(4095), "name of its file, for messages", ""),
            "dry": Argument(FlagType(), "only check it and say what would change", False),
        },
    ),
    "trace": Spec(
        "Mark the next packets that enter, so that every process on their way stamps them.",
        {
            "count": Argument(IntType(1, 100), "number of packets", 1),
            "context": Argument(TextType(), "only packets that are looked up in this context"),
            "source": Argument(AddressType(), "only packets from this address"),
            "destination": Argument(AddressType(), "only packets to this address"),
            "protocol": Argument(IntType(0, 255), "only packets of this IP protocol number"),
            "port": Argument(TextType(32), "only packets that come in by this port"),
        },
    ),
    "traces": Spec(
        "The stamps of traced packets.",
        {"settled": Argument(FlagType(), "ask every card first for what it has not reported yet", False)},
    ),
    "ping": Spec(
        "Send echo requests.",
        {
            "context": Argument(TextType(), "context to send from", "local"),
            "address": Argument(AddressType(), "address to send to", required=True),
            "count": Argument(IntType(1, 10_000), "number of requests", 5),
            "size": Argument(IntType(0, MAX_PING), "octets of data in each", 56),
            "timeout": Argument(_SECONDS, "wait for the last answer", 1.0),
            "interval": Argument(_SECONDS, "time between two requests", 0.2),
            "ttl": Argument(IntType(1, 255), "time to live", 64),
            "source": Argument(AddressType(), "address to send from"),
            "trace": Argument(FlagType(), "trace the first one", False),
        },
    ),
    "link": _LINK,
    "inject": _INJECT,
    "capture": _capture("port 3/11, asp 1/1 inner, asp 1/1 outer, asp 1/1 or fabric lc 3"),
    "capture-stop": _capture_stop("or by what is captured"),
    "neighbours": Spec("Neighbours by ARP.", {"card": Argument(TextType(32), "of this line card only")}),
    "clear": Spec(
        "Delete SAs and have them made anew.",
        {"tunnel": _TUNNEL, "what": Argument(WordType(CLEAR), "which SAs", "all")},
    ),
    "rekey": Spec(
        "Make a tunnel's SAs anew before their time.",
        {
            "tunnel": Argument(TextType(), "name of the tunnel", required=True),
            "what": Argument(WordType(REKEY), "which SAs", "ipsec"),
        },
    ),
    "ike": Spec(
        "The IKE SAs, or what was counted about negotiations.",
        {"tunnel": _TUNNEL, "what": Argument(WordType(SHOW), "which of the two", "sas")},
    ),
    "keys": Spec("The keys of IKE and IPsec SAs.", {"tunnel": _TUNNEL}),
    "queues": Spec("The priority queues of ASPs.", {"tunnel": _TUNNEL}),
    "sas": Spec("What was counted for each SA.", {"tunnel": _TUNNEL}),
    "bus": Spec(
        "Control messages as they pass, until the operator goes.",
        {"types": Argument(TextListType(), "only messages of these types; of all where it is empty", ())},
    ),
}

TESTER: Final[Mapping[str, Spec]] = {
    "start": Spec(
        "Start flows.",
        {
            "flow": _FLOW,
            "rate": Argument(
                EitherType((NumberType(1e-3, MAX_RATE), WordType(("max",)))),
                "packets a second instead of the flow's own",
            ),
            "count": Argument(IntType(0, 2**62), "end after so many packets; 0 for never"),
        },
    ),
    "stop": Spec("Stop flows.", {"flow": _FLOW}),
    "define": Spec(
        "Make a flow, or make it anew.",
        {
            "flow": Argument(TextType(32), "name of the flow", required=True),
            "spec": Argument(ValuesType(), "its keys as in a lab file", required=True),
        },
    ),
    **{
        name: Spec(
            "What became of flows, and what came that is none's.",
            {
                "flow": _FLOW,
                "since": Argument(NumberType(0, MAX_TIME, "seconds"), "losses in a window from this time", 0.0),
                "until": Argument(NumberType(0, MAX_TIME, "seconds"), "to this one"),
            },
        )
        for name in ("flows", "status")
    },
    "traces": Spec("The stamps of traced packets.", {"since": _SINCE}),
    "link": _LINK,
    "inject": _INJECT,
    "capture": _capture("port 1"),
    "capture-stop": _capture_stop("the point"),
}

_STAMPS = Spec("Report the stamps that were not reported yet.")
_NUMBER = Argument(IntType(0), "number of the tunnel; all of them where it is left out")

LINE_CARD: Final[Mapping[str, Spec]] = {
    "ping": Spec(
        "Send echo requests.",
        {
            "context": Argument(
                EitherType((IntType(), TextType())), "number or name of the context", required=True
            ),
            "address": Argument(AddressType(), "address to send to", required=True),
            "source": Argument(AddressType(), "address to send from", 0),
            "count": Argument(IntType(1, 100_000), "number of requests", 1),
            "interval": Argument(NumberType(0.001, 3600, "seconds"), "time between two requests", 1.0),
            "timeout": Argument(NumberType(0.001, 3600, "seconds"), "wait for the last answer", 2.0),
            "size": Argument(IntType(0, MAX_PING), "octets of data in each", 56),
            "ttl": Argument(IntType(1, 255), "time to live", 64),
            "trace": Argument(IntType(0, 2**62), "number of the first one's trace; 0 for none", 0),
        },
    ),
    "trace": Spec(
        "Mark the next packets that match.",
        {
            "number": Argument(IntType(1), "of the first packet", required=True),
            "count": Argument(IntType(1, 1000), "number of packets", 1),
            "port": Argument(TextType(32), "that came in by this port; by any where it is empty", ""),
            "source": Argument(AddressType(), "from this address", 0),
            "destination": Argument(AddressType(), "to this address", 0),
            "protocol": Argument(IntType(-1, 255), "of this IP protocol number; of any for -1", -1),
        },
    ),
    "neighbours": Spec("Neighbours by ARP."),
    "stamps": _STAMPS,
    "link": _LINK,
    "inject": _INJECT,
    "capture": _capture("port 3/11 or fabric", append=_APPEND),
    "capture-stop": _capture_stop("the point"),
}

ASP: Final[Mapping[str, Spec]] = {
    "clear": Spec(
        "Delete SAs and have them made anew.",
        {"tunnel": _NUMBER, "what": Argument(WordType(CLEAR), "which SAs")},
    ),
    "rekey": Spec("Make SAs anew.", {"tunnel": _NUMBER, "what": Argument(WordType(REKEY), "which SAs")}),
    "ike": Spec(
        "IKE's own account.",
        {
            "tunnel": _NUMBER,
            "what": Argument(WordType((*SHOW, "keys")), "of what", required=True),
        },
    ),
    "stamps": _STAMPS,
    "queues": Spec("The priority queues.", {"tunnel": _NUMBER}),
    "sas": Spec("What was counted for each SA.", {"tunnel": _NUMBER}),
    "capture": _capture("clear, protected or fabric", append=_APPEND),
    "capture-stop": _capture_stop("the point"),
}

TABLES: Final[Mapping[str, Mapping[str, Spec]]] = {
    "launcher": LAUNCHER,
    "controller": CONTROLLER,
    "tester": TESTER,
    "line card": LINE_CARD,
    "ASP": ASP,
}
"""The whole table, by the process that answers."""
