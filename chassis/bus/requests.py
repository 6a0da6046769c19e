"""The table of all requests of operators, by the process that answers them.

Processes check received requests against it (`chassis.bus.arguments.read`), `chassisctl` takes ranges, defaults
and help texts from it, and `docs/bus.md` prints it. Line cards and ASPs get requests from their controller, on the
bus.
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
"""Length (octets) of the longest configuration."""

MAX_PEM: Final = 1 << 17
"""Length (octets) of the longest PEM text in a request."""

MAX_PING: Final = MAX_IPV4_LENGTH - HEADROOM - IPV4_HEADER_LENGTH - 8
"""Data (octets) of the largest echo request: with its headers it fits a batch."""

MAX_TIME: Final = 1e12
"""Latest time (s of the monotonic clock) that a request may name."""

MAX_RATE: Final = 1e7
"""Rate (packets/s) of the fastest flow, except `max`."""

CLEAR: Final = ("all", "ike", "ipsec")
"""SAs of a tunnel to negotiate again: all, or those that the guide's two clear commands name."""

PARTS: Final = (
    "all",
    "ike",
    "ipsec",
    "tunnel",
    "context",
    "ike-policy",
    "ike-proposal",
    "ipsec-access-list",
    "ipsec-policy",
    "ipsec-profile",
    "ipsec-proposal",
    "security-association",
)
"""What of a configuration is printed: all, a part as `show configuration` names it, or one kind of object."""

KINDS: Final = ("all", "static", "manual", "on-demand")
"""Kinds of tunnels."""

MAX_SLICE: Final = 1000
"""Most objects (count) of one slice of a listing."""

COUNTED: Final = ("port", "circuit", "tunnel")
"""Counters that an operator clears."""

REKEY: Final = ("ipsec", "ike")
SHOW: Final = ("sas", "statistics")

_NODE = Argument(TextType(64), "name of the node", required=True)
_CARD = Argument(TextType(32), "the card, such as asp 1/1; not needed for a node of one process", "")
_PORT = Argument(TextType(32), "the port, such as 3/11", required=True)
_SINCE = Argument(NumberType(0, MAX_TIME, "seconds"), "only entries after this monotonic time", 0.0)
_TUNNEL = Argument(TextType(), "name of the tunnel; all if it is left out", "")
_ASP = Argument(TextType(32), "the ASP, as in 1/1", required=True)
_HANDLE = Argument(TextType(64), "its handle, as in show pki certificate", required=True)
_OF_CONTEXT = Argument(TextType(), "name of the context", required=True)
_CONTEXT = Argument(TextType(), "only of this context; of all where it is empty", "")
_COUNTED = Argument(FlagType(), "with what line cards counted", False)
_FLOW = Argument(TextType(64), "name of the flow; all if it is left out")

_FILE = Argument(TextType(), "the file, such as a.cfg or /flash/a.cfg", required=True)
_OVERWRITE = Argument(FlagType(), "replace a file of that name", False)
_USER = Argument(TextType(256), "who asks for it", "")
_COMMENT = Argument(TextType(1024), "what the history of commits says of it", "")
_BASE = Argument(
    IntType(-1), "number of the commit in force when the lines were begun; -1 if that does not matter", -1
)

_SECONDS: Final[ArgumentType] = NumberType(0.001, 60, "seconds")

_LINK = Spec(
    "Set the faults of the packets that a port sends; return the faults in force.",
    {
        "port": _PORT,
        "far": Argument(FlagType(), "set them for the packets of the Linux device at the other end instead"),
        "down": Argument(FlagType(), "the link is down"),
        "loss": Argument(QuantityType(0, 1, "1%"), "share of packets that are lost"),
        "delay": Argument(QuantityType(0, 3600, "20ms"), "delay of each packet"),
        "jitter": Argument(QuantityType(0, 3600, "5ms"), "largest change of the delay, up or down"),
        "reorder": Argument(QuantityType(0, 1, "1%"), "share of packets that a later one overtakes"),
        "duplicate": Argument(QuantityType(0, 1, "1%"), "share of packets that arrive twice"),
        "rate": Argument(QuantityType(0, 1e15, "100M"), "bits a second; 0 means no limit"),
        "seed": Argument(IntType(0, 2**32), "restart the random numbers of the faults from this seed"),
        "clear": Argument(FlagType(), "end all faults first"),
    },
)
_INJECT = Spec(
    "Give a port the packets of a capture again, as received.",
    {
        "port": _PORT,
        "file": Argument(PathType(), "the capture", required=True),
        "seconds": Argument(NumberType(0, 1e9, "seconds"), "only packets of the last seconds; 0 for all", 0.0),
    },
)
_SNAPLEN = Argument(IntType(0, 65_535), "most octets of a packet that are kept; 0 for all", 0)


def _capture(points: str, **more: Argument) -> Spec:
    return Spec(
        "Capture packets into a file or a pipe.",
        {
            "what": Argument(TextType(64), points, required=True),
            "file": Argument(PathType(), "where to", required=True),
            "snaplen": _SNAPLEN,
            "clear": Argument(FlagType(), "only frames that are not ESP, AH, IKE or ARP", False),
            "ring": Argument(IntType(0, 2**50), "octets of the last packets to keep; 0 for no limit", 0),
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


_APPEND = Argument(FlagType(), "continue an existing file", False)

LAUNCHER: Final[Mapping[str, Spec]] = {
    "ps": Spec("The processes of the lab."),
    "status": Spec("The status of every node."),
    "events": Spec("The launcher's events.", {"since": _SINCE}),
    "kill": Spec("Kill a card's process (SIGKILL).", {"node": _NODE, "card": _CARD}),
    "stop": Spec("Make a card hang (SIGSTOP).", {"node": _NODE, "card": _CARD}),
    "continue": Spec("Resume a stopped card (SIGCONT).", {"node": _NODE, "card": _CARD}),
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
            "timeout": Argument(NumberType(0, 86_400, "seconds"), "time limit of the command", 30.0),
        },
    ),
    "destroy": Spec("End the lab.", {"keep_state": Argument(FlagType(), "keep the nodes' state folders", False)}),
}

CONTROLLER: Final[Mapping[str, Spec]] = {
    "status": Spec("Cards, tunnels, ports and the last events."),
    "tunnels": Spec(
        "A slice of the list of tunnels, and the key of the next one.",
        {
            "after": Argument(TextType(300), "the `next` of the slice before; empty for the first", ""),
            "limit": Argument(IntType(1, MAX_SLICE), "most tunnels of a slice", 200),
            "name": Argument(TextType(), "the tunnel of this name", ""),
            "remote": Argument(TextType(32), "tunnels with this remote end", ""),
            "context": Argument(TextType(), "tunnels with an interface in this context", ""),
            "card": Argument(TextType(32), "tunnels of this ASP, as in 1/1", ""),
            "kind": Argument(WordType(KINDS), "tunnels of this kind", "all"),
            "detail": Argument(FlagType(), "with policy, peer and SAs of negotiated tunnels", False),
        },
    ),
    "routes": Spec("The routes of a context.", {"context": Argument(TextType(), "name of the context", "local")}),
    "system": Spec("The router as a whole: its names, its platform, how long it runs."),
    "hardware": Spec("The slots and what is in them, and the number of alarms."),
    "processes": Spec("The processes of the cards."),
    "asps": Spec("ASPs, their pools and groups."),
    "alarms": Spec(
        "A part of the alarms that stand, and the key of the next one.",
        {"after": Argument(TextType(300), "the `next` of the part before; empty for the first", "")},
    ),
    "contexts": Spec("The contexts."),
    "interfaces": Spec("Interfaces.", {"context": _CONTEXT, "name": Argument(TextType(), "only this one", "")}),
    "ports": Spec(
        "Ports.", {"port": Argument(TextType(32), "only this one, such as 3/11", ""), "counters": _COUNTED}
    ),
    "circuits": Spec(
        "A slice of the circuits of ports and tunnels.",
        {
            "context": _CONTEXT,
            "after": Argument(IntType(0), "the `next` of the slice before; 0 for the first", 0),
            "counters": _COUNTED,
        },
    ),
    "arp": Spec("ARP entries: our own addresses, and neighbours.", {"context": _CONTEXT}),
    "ike-statistics": Spec("What IKE counted, and its SAs, of one ASP.", {"asp": _ASP}),
    "ipsec-statistics": Spec(
        "What an ASP counted for the tunnels that have an end in a context.",
        {"asp": _ASP, "context": _OF_CONTEXT},
    ),
    "certificates": Spec(
        "Certificates of a context's PKI store.",
        {
            "context": _OF_CONTEXT,
            "whose": Argument(WordType(("trusted", "self")), "of authorities, or our own", required=True),
            "asp": Argument(TextType(32), "only those that this ASP holds, as in 1/1", ""),
            "identity": Argument(TextType(), "only those of this subject or alternative name", ""),
            "handle": Argument(TextType(64), "only the one with this handle", ""),
        },
    ),
    "key-pairs": Spec(
        "Names and lengths of a context's key pairs; never a key.",
        {"context": _OF_CONTEXT, "name": Argument(TextType(), "only this one", "")},
    ),
    "pki-import": Spec(
        "Import a certificate or a key pair into a context's PKI store.",
        {
            "context": _OF_CONTEXT,
            "kind": Argument(WordType(("trusted", "self", "key-pair")), "of what", required=True),
            "name": Argument(TextType(64), "name of the key pair", ""),
            "file": Argument(TextType(256), "PEM file of the flash", ""),
            "text": Argument(TextType(MAX_PEM), "PEM text in place of a file", ""),
        },
    ),
    "pki-key-pair": Spec(
        "Make a key pair.",
        {
            "context": _OF_CONTEXT,
            "name": Argument(TextType(64), "name of the key pair", required=True),
            "bits": Argument(IntType(512, 16_384), "length of the key", required=True),
        },
    ),
    "pki-request": Spec(
        "Write a certificate request into a PEM file.",
        {
            "context": _OF_CONTEXT,
            "name": Argument(TextType(64), "name of the request", required=True),
            "file": Argument(TextType(256), "file of the flash", required=True),
            "key_pair": Argument(TextType(64), "name of the key pair", required=True),
            "subject": Argument(ValuesType(16), "fields of the subject", required=True),
            "alternatives": Argument(ValuesType(16), "alternative names by kind", required=True),
            "usages": Argument(TextListType(7, 32), "key usages; none are asked for where it is left out"),
            "overwrite": Argument(FlagType(), "replace an existing file", False),
        },
    ),
    "pki-find": Spec("The certificate of a handle.", {"context": _OF_CONTEXT, "handle": _HANDLE}),
    "pki-remove": Spec("Remove the certificate of a handle.", {"context": _OF_CONTEXT, "handle": _HANDLE}),
    "certificate-requests": Spec("Certificate requests and their files.", {"context": _CONTEXT}),
    "log": Spec(
        "A part of the log: what all of its arguments have in common.",
        {
            "since": _SINCE,
            "from": Argument(TextType(32), "records from this time on, as in 15m, 14:30 or 2026-11-29T14:30", ""),
            "after": Argument(IntType(0, 2**53), "records with a number above this", 0),
            "level": Argument(IntType(0, 7), "records of this syslog level and the more severe ones", 7),
            "facility": Argument(TextType(32), "records of this facility; of all where it is empty", ""),
            "tunnel": Argument(TextType(), "records about this tunnel; about all where it is empty", ""),
            "context": Argument(TextType(), "records about this context; about all where it is empty", ""),
            "shown": Argument(
                WordType(("log", "monitor", "console")),
                "what goes to a monitor, or to the console, if not all",
                "log",
            ),
            "last": Argument(IntType(0, 1_000_000), "the last records of them, so many; all if 0", 0),
        },
    ),
    "events": Spec("The events of the node.", {"since": _SINCE}),
    "config": Spec(
        "The configuration in force.",
        {
            "keys": Argument(FlagType(), "with clear keys; else each has its encrypted form", False),
            "part": Argument(WordType(PARTS), "this part of it", "all"),
            "context": Argument(TextType(), "what of the part is of this context; of all where it is empty", ""),
            "name": Argument(TextType(), "the object of this name; all where it is empty", ""),
            "asp": Argument(TextType(32), "what tunnels of this ASP use, as in 1/1; all where it is empty", ""),
            "verbose": Argument(FlagType(), "with settings that have their default value", False),
        },
    ),
    "secret": Spec("The secret of the router, which other routers need to read its encrypted keys."),
    "apply": Spec(
        "Apply a configuration, completely or not at all.",
        {
            "text": Argument(TextType(MAX_CONFIGURATION), "the configuration", required=True),
            "file": Argument(TextType(4095), "name of its file, for messages", ""),
            "dry": Argument(FlagType(), "only check it and show the changes", False),
            "user": _USER,
            "comment": _COMMENT,
        },
    ),
    "commit": Spec(
        "Apply lines to the configuration in force, all of them or none.",
        {
            "lines": Argument(TextType(MAX_CONFIGURATION), "the lines, with those that enter their modes", ""),
            "base": _BASE,
            "user": _USER,
            "comment": _COMMENT,
            "confirm": Argument(
                IntType(0, 65_535), "minutes until it is taken back, unless it is confirmed; 0 for no limit", 0
            ),
            "typed": Argument(FlagType(), "`commit` itself was typed: only that confirms the one before", True),
            "file": Argument(TextType(4095), "name of the file that they are of; empty if they were typed", ""),
        },
    ),
    "sessions": Spec(
        "Who is logged in, told by the process that serves SSH; and lines for the log.",
        {
            "sessions": Argument(ValuesType(2000), "every session by its number", required=True),
            "notes": Argument(TextListType(64), "logins and their ends", ()),
            "warnings": Argument(TextListType(64), "logins that failed", ()),
        },
    ),
    "administrators": Spec("Who may log in, without their passwords, and who is logged in."),
    "candidate": Spec(
        "The difference that lines make, and what is wrong with them.",
        {
            "lines": Argument(TextType(MAX_CONFIGURATION), "the lines, with those that enter their modes", ""),
            "base": _BASE,
            "file": Argument(TextType(4095), "name of the file that they are of; empty if they were typed", ""),
        },
    ),
    "commits": Spec("The commits that are kept, the last one first, and the one that waits to be confirmed."),
    "rollback": Spec(
        "Put the configuration of an earlier commit into force again.",
        {
            "number": Argument(IntType(1), "number of the commit", required=True),
            "user": _USER,
            "comment": _COMMENT,
        },
    ),
    "trace": Spec(
        "Mark the next packets that enter, so that every process on their path reports them.",
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
        {"settled": Argument(FlagType(), "first ask every card for stamps that it has not reported", False)},
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
    "clear-arp": Spec(
        "Forget neighbours, which are asked for again.",
        {
            "context": Argument(TextType(), "name of their context", "local"),
            "address": Argument(AddressType(), "this neighbour only"),
        },
    ),
    "clear-log": Spec("Delete the records of the log."),
    "clear": Spec(
        "Delete SAs, and negotiate them again.",
        {"tunnel": _TUNNEL, "what": Argument(WordType(CLEAR), "which SAs", "all")},
    ),
    "rekey": Spec(
        "Rekey a tunnel's SAs before their lifetime ends.",
        {
            "tunnel": Argument(TextType(), "name of the tunnel", required=True),
            "what": Argument(WordType(REKEY), "which SAs", "ipsec"),
        },
    ),
    "ike": Spec(
        "The IKE SAs, or the counters of negotiations.",
        {"tunnel": _TUNNEL, "what": Argument(WordType(SHOW), "which of the two", "sas")},
    ),
    "keys": Spec("The keys of IKE and IPsec SAs.", {"tunnel": _TUNNEL}),
    "queues": Spec("The priority queues of ASPs.", {"tunnel": _TUNNEL}),
    "sas": Spec(
        "What was counted for each SA.",
        {"tunnel": _TUNNEL, "cleared": Argument(FlagType(), "count from the last clear-counters on", False)},
    ),
    "clear-counters": Spec(
        "Have what is shown of counters begin at zero; no card's counter is changed.",
        {
            "what": Argument(WordType(COUNTED), "which counters", required=True),
            "name": Argument(TextType(), "of this port or tunnel only", ""),
        },
    ),
    "identity": Spec("Name, contexts and version of the configuration in force."),
    "object": Spec(
        "The lines of one object of the configuration, keys hidden.",
        {"path": Argument(TextListType(8), "kinds and names, as in context L1 ike-policy p", required=True)},
    ),
    "names": Spec(
        "Names of objects of a kind.",
        {
            "kind": Argument(TextType(32), "the kind, as in ike-policy", required=True),
            "context": Argument(
                TextType(),
                "of this context, where contexts have the kind; of all where it is empty",
                "local",
            ),
            "prefix": Argument(TextType(), "how they begin", ""),
        },
    ),
    "login": Spec(
        "Who may log in by this name, with the hash of the password; for the process that serves SSH.",
        {
            "name": Argument(TextType(), "name of the administrator", required=True),
            "context": Argument(TextType(), "context of the administrator", "local"),
        },
    ),
    "files": Spec(
        "Files of the flash.", {"path": Argument(TextType(), "a folder, or a file; /flash if it is left out", "")}
    ),
    "read-file": Spec("The text of a file of the flash.", {"file": _FILE}),
    "save": Spec(
        "Write the configuration in force to a file of the flash, no key of it in clear.",
        {
            "file": Argument(TextType(), "the file; the one that a start reads if it is left out", ""),
            "overwrite": _OVERWRITE,
            "user": _USER,
        },
    ),
    "delete-file": Spec("Delete a file of the flash.", {"file": _FILE}),
    "copy-file": Spec(
        "Copy a file of the flash.",
        {
            "file": _FILE,
            "target": Argument(TextType(), "the new file", required=True),
            "overwrite": _OVERWRITE,
        },
    ),
    "boot": Spec("The file that a start without commits reads, and whether it is what is in force."),
    "reload": Spec("Read that file in place of what is in force, and start every process again.", {"user": _USER}),
    "reload-card": Spec(
        "Start the processes of a card again.",
        {"slot": Argument(IntType(1, 14), "slot of the card", required=True), "user": _USER},
    ),
    "reload-asp": Spec("Start an ASP again.", {"asp": _ASP, "user": _USER}),
    "bus": Spec(
        "Control messages as they are sent and received, until the client disconnects.",
        {"types": Argument(TextListType(), "only messages of these types; all if it is empty", ())},
    ),
}

TESTER: Final[Mapping[str, Spec]] = {
    "start": Spec(
        "Start flows.",
        {
            "flow": _FLOW,
            "rate": Argument(
                EitherType((NumberType(1e-3, MAX_RATE), WordType(("max",)))),
                "packets a second instead of the flow's rate",
            ),
            "count": Argument(IntType(0, 2**62), "end after this number of packets; 0 for never"),
        },
    ),
    "stop": Spec("Stop flows.", {"flow": _FLOW}),
    "define": Spec(
        "Define a flow, or replace it.",
        {
            "flow": Argument(TextType(32), "name of the flow", required=True),
            "spec": Argument(ValuesType(), "its keys as in a lab file", required=True),
        },
    ),
    **{
        name: Spec(
            "Results of flows, and received packets that belong to no flow.",
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

MAX_SETUP_RATE: Final = 1e4
"""Most peers (1/s) that a node of peers may begin."""

PEERS: Final[Mapping[str, Spec]] = {
    "start": Spec(
        "Have the peers that are down begin, at the node's rate.",
        {"rate": Argument(NumberType(1e-3, MAX_SETUP_RATE), "peers a second instead of the node's rate")},
    ),
    "churn": Spec(
        "Have peers that are up go, one after the other, and come again.",
        {
            "rate": Argument(NumberType(1e-3, MAX_SETUP_RATE), "peers that go in a second", required=True),
            "away": Argument(NumberType(1e-3, 3600, "seconds"), "time until a peer comes again", 1.0),
        },
    ),
    "stop": Spec("Let no more peers begin, or go; those that are up stay."),
    "down": Spec("Have all peers that are up delete their SAs and go, at the rate of the last start."),
    "status": Spec("How many peers are up, set-ups a second, their latencies, and failures by cause."),
    "link": _LINK,
    "inject": _INJECT,
    "capture": _capture("port 1"),
    "capture-stop": _capture_stop("the point"),
}

_STAMPS = Spec("Report the stamps that are not reported yet.")
_NUMBER = Argument(IntType(0), "number of the tunnel; all if it is left out")

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
            "port": Argument(TextType(32), "that entered by this port; any if it is empty", ""),
            "source": Argument(AddressType(), "from this address", 0),
            "destination": Argument(AddressType(), "to this address", 0),
            "protocol": Argument(IntType(-1, 255), "of this IP protocol number; -1 for any", -1),
        },
    ),
    "neighbours": Spec("Neighbours by ARP."),
    "clear-arp": Spec(
        "Forget neighbours.",
        {
            "context": Argument(IntType(), "number of their context", required=True),
            "address": Argument(AddressType(), "this neighbour only"),
        },
    ),
    "counters": Spec(
        "Counters of ports and of tunnel circuits.",
        {
            "ports": Argument(FlagType(), "of all ports of the card", False),
            "first": Argument(IntType(0), "of circuits from this number on", 0),
            "last": Argument(IntType(0), "up to this one; 0: of no circuit", 0),
        },
    ),
    "stamps": _STAMPS,
    "link": _LINK,
    "inject": _INJECT,
    "capture": _capture("port 3/11 or fabric", append=_APPEND),
    "capture-stop": _capture_stop("the point"),
}

ASP: Final[Mapping[str, Spec]] = {
    "clear": Spec(
        "Delete SAs, and negotiate them again.",
        {"tunnel": _NUMBER, "what": Argument(WordType(CLEAR), "which SAs")},
    ),
    "rekey": Spec("Rekey SAs.", {"tunnel": _NUMBER, "what": Argument(WordType(REKEY), "which SAs")}),
    "ike": Spec(
        "IKE SAs and counters.",
        {
            "tunnel": _NUMBER,
            "what": Argument(WordType((*SHOW, "keys", "total")), "of what", required=True),
        },
    ),
    "stamps": _STAMPS,
    "queues": Spec("The priority queues.", {"tunnel": _NUMBER}),
    "sas": Spec("What was counted for each SA.", {"tunnel": _NUMBER}),
    "totals": Spec(
        "What was counted for all tunnels with an end in a context.",
        {"context": Argument(IntType(0), "number of the context", required=True)},
    ),
    "capture": _capture("clear, protected or fabric", append=_APPEND),
    "capture-stop": _capture_stop("the point"),
}

TABLES: Final[Mapping[str, Mapping[str, Spec]]] = {
    "launcher": LAUNCHER,
    "controller": CONTROLLER,
    "tester": TESTER,
    "node of peers": PEERS,
    "line card": LINE_CARD,
    "ASP": ASP,
}
"""The whole table, by the process that answers."""
