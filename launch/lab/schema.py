"""JSON Schema (2020-12) of lab files, for editors: `chassis-launch schema > lab.schema.json`.

Input: the tables of keys, verbs, conditions and bounds of the parser and the scenario reader. Output: the schema.
A file that `chassis-launch check` accepts is valid, except for values of a wrong type such as the boolean in `run:
true`. The reverse does not hold: only `check` knows whether a named node, flow or moment exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chassis.bus.requests import MAX_SETUP_RATE
from chassis.model.ipsec import CIPHER_ENGINES
from chassis.net import units
from chassis.peers import nat, spec
from chassis.xcrp.settings import CAPACITIES, EXTENSIONS, IKE, SYSTEMS, IkeSetting
from launch.lab import parser, scenario, scenario_syntax, ssh

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

TOPOLOGY_KEYS = ("nodes", "links")
PORT_KEYS = ("address", "gateway")
LINK_KEYS = ("endpoints", "veth", "pause")
CONDITION_KEYS = ("condition", "within")
"""Keys without a table in the parser; a test compares them with its messages about unknown keys."""

_RATE = r"^\s*(?:\d+(?:\.\d*)?|\.\d+)\s*[kKmMgG]?\s*(?:[Bb]its?/s|[Bb]it|[Bb]ps|[Pp]ps|packets/s)?\s*$"

_SCALAR: Schema = {"type": ["string", "number"]}


def schema() -> Schema:
    """Return the schema of a whole lab file."""
    return {
        "$schema": DIALECT,
        "title": "Lab of SmartEdge routers",
        **_lab(),
        "$defs": {**_values(), **_nodes(), **_traffic(), **_scenario(), **_expectations()},
    }


# building blocks


def _ref(name: str, description: str = "") -> Schema:
    return {"$ref": f"#/$defs/{name}", **({"description": description} if description else {})}


def _text(description: str = "", pattern: str = "") -> Schema:
    made: Schema = {"type": "string"}
    if pattern:
        made["pattern"] = pattern
    if description:
        made["description"] = description
    return made


def _one_or_several(one: Schema, description: str) -> Schema:
    return {"anyOf": [one, {"type": "array", "items": one}], "description": description}


def _or_nothing(of: Schema) -> Schema:
    """Allow an empty value too, as in `flows:` with nothing below it."""
    return {"anyOf": [of, {"type": "null"}]}


def _mapping(keys: Sequence[str], values: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """Make a mapping of known keys, in the parser's order.

    Raises:
        KeyError, ValueError: keys and values differ.
    """
    unknown = values.keys() - set(keys)
    if unknown:
        raise ValueError(f"keys that lab files do not have: {', '.join(sorted(unknown))}")
    made: Schema = {
        "type": "object",
        "properties": {key: values[key] for key in keys},
        "additionalProperties": False,
    }
    if required:
        made["required"] = list(required)
    return made


def _named(names: str, values: Schema, description: str = "") -> Schema:
    made: Schema = {"type": "object", "propertyNames": {"pattern": names}, "additionalProperties": values}
    return {**made, "description": description} if description else made


def _pattern(pattern: re.Pattern[str]) -> str:
    """Convert a regular expression of the parser to JSON Schema's form, without group names."""
    return "^" + re.sub(r"\(\?P<\w+>", "(?:", pattern.pattern).removesuffix(r"\Z") + "$"


def _words(pattern: re.Pattern[str]) -> str:
    """Convert a pattern of several words, with any white space between them."""
    return r"^\s*" + _pattern(pattern)[1:-1].replace(" ", r"\s+") + r"\s*$"


def _integer(low: int, high: int, description: str) -> Schema:
    """Accept an integer, digits in quotes, and `{i}` of a counted node."""
    return {
        "anyOf": [
            {"type": "integer", "minimum": low, "maximum": high},
            _text(pattern=r"^[0-9]{1,11}$"),
            _ref("numbered"),
        ],
        "description": description,
    }


# the parts


def _values() -> dict[str, Schema]:
    numbers = {"type": "number", "minimum": 0}
    spelled = _text(pattern=_pattern(units._NUMBER).replace("[A-Za-zµ]*", "(?:us|µs|ms|s|m|h|d)?"))
    bounds = (scenario_syntax._BOUND, scenario_syntax._RANGE)
    return {
        "numbered": _text("A text with {i}, the number of a node with count.", r"\{i\}"),
        "duration": {"anyOf": [numbers, spelled], "description": "2s, 100ms, 50us, 5m, 1h; a number is seconds."},
        "duration-numbered": {"anyOf": [_ref("duration"), _ref("numbered")]},
        "address": {"anyOf": [_text(pattern=r"^\d{1,3}(?:\.\d{1,3}){3}$"), _ref("numbered")]},
        "interface": {
            "anyOf": [_text(pattern=r"^\d{1,3}(?:\.\d{1,3}){3}/[\d.]+$"), _ref("numbered")],
            "description": "An IPv4 address with its prefix length, such as 10.0.0.1/24.",
        },
        "endpoint": _text(
            "A port of a node: a:3/11 of a router, t1:1 of a tester, h:eth1 of a Linux node.",
            r"^[A-Za-z0-9_{}-]+:[A-Za-z0-9_/{}-]+$",
        ),
        "bound": {
            "anyOf": [{"type": "number"}, *(_text(pattern=_pattern(bound)) for bound in bounds)],
            "description": "0, '<= 5', '< 50ms', '> 100 packets' or '1..5'; a bare number is met exactly.",
        },
    }


def _lab() -> Schema:
    values = {
        "name": _text("Name of the lab.", _pattern(parser.VALID_NAME)),
        "settings": _ref("settings", "Times of every node; a node's own settings go before them."),
        "ssh": _ref("ssh", "SSH to every router; a router's own keys go before these."),
        "refuse-errors": {"type": "boolean", "description": "The setting of this name, for every router."},
        "topology": _ref("topology"),
        "flows": _or_nothing(
            _named(_pattern(parser.VALID_NAME), _ref("flow"), "Numbered traffic between testers, by name.")
        ),
        "scenario": _or_nothing(
            {"type": "array", "items": _ref("step"), "description": "What happens in a test of the lab."}
        ),
        "expect": _or_nothing(
            {"type": "array", "items": _ref("expectation"), "description": "What must hold when it is over."}
        ),
    }
    return _mapping(parser._LAB_KEYS, values, ("name", "topology"))


def _nodes() -> dict[str, Schema]:
    device = _pattern(parser._DEVICE)
    commands = _or_nothing(_one_or_several({"type": "string"}, "Shell commands."))
    files: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    common = {
        "count": _integer(1, parser.MAX_COUNT, "So many nodes, NAME-1 and on; {i} in texts is the number."),
        "settings": _ref("settings", "Settings of this node alone."),
    }
    port = {
        "address": _ref("interface"),
        "gateway": _ref("address", "Next hop of everything outside the port's own network."),
    }
    of_kind: Mapping[str, tuple[Mapping[str, Schema], tuple[str, ...]]] = {
        "smartedge": (
            {
                "config": _text("File of the router's configuration, beside the lab."),
                "discard-tunnel-routes": {
                    "type": "boolean",
                    "description": "A withdrawn tunnel route becomes a discard route: no packet is sent in clear.",
                },
                "flash": _text("Folder beside the lab that the router's /flash is filled from."),
                "secret": _text("What makes and reads the encrypted forms of its keys.", r"^[!-~]{16,256}$"),
                "extensions": _or_nothing(
                    {
                        "type": "array",
                        "items": {"enum": list(EXTENSIONS)},
                        "description": "modern: the configuration may name SHA-2, AES-GCM and newer groups.",
                    }
                ),
                "ssh": _ref("ssh", "SSH to this router."),
            },
            ("config",),
        ),
        "tester": (
            {
                "ports": _named(
                    device, _mapping(PORT_KEYS, port, ("address",)), "Ports by number or word, each in quotes."
                )
            },
            ("ports",),
        ),
        "peers": (
            {
                "ports": _named(
                    device, _mapping(PORT_KEYS, port, ("address",)), "The one port, by number or word in quotes."
                ),
                **_peers(),
            },
            ("ports", *spec.NEEDED),
        ),
        "linux": (
            {
                "addresses": _or_nothing(
                    _named(device, _one_or_several(_ref("interface"), "Addresses of this device."), "By device.")
                ),
                "routes": {**commands, "description": "As 'ip route add' takes them: default via 10.0.0.1."},
                "files": _or_nothing({**files, "description": "Texts of files by path."}),
                "exec": {**commands, "description": "Commands that are run once, in order, when the lab is up."},
                "wait-for": {**commands, "description": "Commands that are tried until each succeeds."},
            },
            (),
        ),
    }
    kinds = {
        kind: _mapping(keys, {"kind": {"const": kind}, **common, **of_kind[kind][0]}, of_kind[kind][1])
        for kind, keys in parser._NODE_KEYS.items()
    }
    settings = {
        "restart-delay": {
            "anyOf": [_ref("duration-numbered"), {"const": "never"}],
            "description": "Delay before the restart of a dead card; never: no restart.",
        },
        "heartbeat-interval": _ref("duration-numbered", "Time between two heartbeats of a card, 5ms or more."),
        "heartbeat-misses": _integer(2, 1000, "Heartbeats after which a silent card counts as dead."),
        "ingress-hold": _ref(
            "duration-numbered", "How long a port may hold frames on a crowded machine, to 50ms."
        ),
        "seed": _integer(0, 2**32, "Seed of what is drawn at random, such as lost packets."),
        "asp-rate": {
            "anyOf": [{"type": "number", "minimum": 0}, _text(pattern=_RATE), _ref("numbered")],
            "description": "What an ASP can protect in a second: 50M in bits, 20kpps in packets; 0: no limit.",
        },
        **{name: _integer(1, high, f"Most {what}.") for name, _, high, what in CAPACITIES},
        "refuse-errors": {
            "type": "boolean",
            "description": "No start with an error in the configuration; else without those lines.",
        },
        "cipher-engine": {
            "enum": list(CIPHER_ENGINES),
            "description": "Library that encrypts ESP; auto: ipsec-mb where the machine has it.",
        },
        "os": {
            "enum": list(SYSTEMS),
            "description": "What `show version` calls the router's system: seos, or ipos as its successor.",
        },
        **{setting.name: _ike(setting) for setting in IKE},
    }
    topology = {
        "nodes": {
            **_named(_pattern(parser.VALID_NAME), _ref("node"), "Nodes by name."),
            "minProperties": 1,
        },
        "links": _or_nothing({"type": "array", "items": _ref("link")}),
    }
    access: Mapping[str, Schema] = {
        "listen": _ref("address", "Address to listen on; default 127.0.0.1."),
        "port": _integer(1, 65535, "Port to listen on; default: a free one."),
        "user": _text("Name of the lab's own login."),
        "password": _text("Password of that login."),
        "key": _one_or_several(
            {"type": "string"}, "Public keys of that login: 'ssh-ed25519 AAAA...', or a file beside the lab."
        ),
        "published-password": {
            "type": "boolean",
            "description": "The password hash that the guide prints may log in.",
        },
        "urls": {"type": "boolean", "description": "Sessions may use files of other machines, by URL."},
    }
    ends = {"type": "array", "items": _ref("endpoint"), "minItems": 2, "maxItems": 2}
    veth = {
        "type": "boolean",
        "description": "A pair of Linux devices in place of the wire; a port of a Linux node always has one.",
    }
    pause = {
        "enum": ["on", "off"],
        "description": "Whether an end of the wire that takes nothing holds the other one back; default: on.",
    }
    return {
        "topology": _mapping(TOPOLOGY_KEYS, topology, ("nodes",)),
        "node": {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(kinds)}},
            "allOf": [_if_key_is("kind", kind, _ref(kind)) for kind in kinds],
        },
        **kinds,
        "settings": _mapping(parser._SETTINGS_KEYS, settings),
        "ssh": _mapping(ssh.KEYS, access),
        "link": _mapping(LINK_KEYS, {"endpoints": ends, "veth": veth, "pause": pause}, ("endpoints",)),
    }


def _whole(low: int, high: int, description: str) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}


def _per_second(most: float, description: str) -> Schema:
    number: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": most}
    return {"anyOf": [number, _text(pattern=r"^[0-9]+(?:\.[0-9]*)?/s$")], "description": description}


def _peers() -> dict[str, Schema]:
    lifetime: Schema = {"type": "integer", "minimum": 120, "maximum": 2**31, "description": "Lifetime in seconds."}
    word: Schema = {"type": "string", "description": "As the router's configuration names it."}
    group: Schema = {"type": "integer", "description": "Number of a Diffie-Hellman group."}
    words = {"encryption": word, "authentication": word}
    return {
        "peers": _whole(1, spec.MAX_PEERS, "Number of peers."),
        "first-address": _ref("address", "Outer address of peer 1; those of the others follow."),
        "towards": {
            "anyOf": [_ref("address"), {"type": "array", "items": _ref("address"), "minItems": 1}],
            "description": "Address of the gateway with which they set up tunnels, or several, taken in turn.",
        },
        "version": {"enum": list(spec.VERSIONS), "description": "IKE version; both: the peers take them in turn."},
        "mode": {
            "enum": list(spec.MODES),
            "description": "Of IKEv1; default: aggressive with an identity, else main.",
        },
        "identity": _text("Identity of each peer, {number} in it is the peer's; default: its address."),
        "remote-id": _text("Identity of the gateway; default: its address."),
        "pre-shared-key": _text("Preshared key of all peers; {number} in it is the peer's."),
        "certificate": _text("PEM file of the certificate that all peers share, in place of a preshared key."),
        "private-key": _text("PEM file of its RSA key."),
        "authority": _text("PEM file of the certificates that the gateway's must be signed by."),
        "first-network": _ref("interface", "Inner network of peer 1; those of the others follow."),
        "remote-network": _ref("interface", "Inner network behind the gateway."),
        "traffic": _mapping(
            spec.TRAFFIC_KEYS,
            {
                "peers": _whole(1, spec.MAX_SAMPLE, "Peers that send, from the first on; default 10."),
                "to": _ref("address", "Who answers echo requests behind the gateway."),
                "rate": _per_second(spec.MAX_TRAFFIC_RATE, "Packets of each peer in a second; default 10/s."),
                "size": _whole(*spec.SIZES, "Octets of an inner packet; default 100."),
            },
            ("to",),
        ),
        "nat": _whole(0, nat.MAX_PER_ADDRESS, "Peers behind NAT that share an outer address; 0 without NAT."),
        "processes": _whole(1, spec.MAX_PROCESSES, "Processes that share the peers; default 1."),
        "rate": _per_second(MAX_SETUP_RATE, "Peers that begin, or go, in a second; default 100/s."),
        "at-once": _whole(1, spec.MAX_PEERS, "Most peers that are on their way up at a time; default all."),
        "start": {"enum": ["auto", "manual"], "description": "auto: as soon as the lab is up."},
        "keepalive": {"type": "boolean", "description": "The peers check whether the gateway is alive (DPD)."},
        "ike-proposal": _mapping(spec.IKE_KEYS, {**words, "prf": word, "dh-group": group, "lifetime": lifetime}),
        "ipsec-proposal": _mapping(spec.IPSEC_KEYS, {**words, "pfs-group": group, "lifetime": lifetime}),
    }


def _ike(setting: IkeSetting) -> Schema:
    text = f"{setting.text[0].upper()}{setting.text[1:]}."
    if setting.kind == "duration":
        return _ref("duration-numbered", text)
    if setting.kind == "number":
        return _integer(int(setting.low), int(setting.high), text)
    if setting.kind == "switch":
        return {"type": "boolean", "description": text}
    return {"type": "number", "minimum": setting.low, "maximum": setting.high, "description": text}


def _if_key_is(key: str, value: str, then: Schema) -> Schema:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}


def _traffic() -> dict[str, Schema]:
    values = {
        "from": _ref("endpoint", "The tester's port that sends."),
        "to": _ref("endpoint", "The tester's port that receives."),
        "rate": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 10_000_000}, {"const": "max"}],
            "description": "Packets per second, or max; default 100.",
        },
        "size": _integer(60, 65000, "Bytes of the IP packet; default 200."),
        "source": _ref("address", "Source address; default: that of the port."),
        "destination": _ref("address", "Destination address; default: that of the port."),
        "destinations": _integer(1, 4096, "Number of /24 networks to which its packets go in turn; default 1."),
        "dscp": _integer(0, 63, "Differentiated services code point."),
        "trace": _ref("duration-numbered", "Time between two traced packets; else only the first is traced."),
        "start": {"enum": ["auto", "manual"], "description": "auto: as soon as the lab is up."},
        "count": _integer(0, 2**31, "Packets after which it is done; 0: never."),
    }
    return {"flow": _mapping(parser._FLOW_KEYS, values, ("from", "to"))}


def _scenario() -> dict[str, Schema]:
    verbs = "|".join(dict.fromkeys(form.split()[0] for form in scenario.ACTIONS))
    values = {
        "at": _ref("duration", "So long after the scenario began."),
        "after": _ref("duration", "So long after the step before was done."),
        "when": _ref("condition", "As soon as this holds."),
        "within": _ref("duration", "How long 'when' may take; default 30s."),
        "do": _one_or_several(_ref("action"), "What is done, in order."),
        "expect": _one_or_several(_ref("expectation"), "What must hold when it is done."),
        "as": {**_SCALAR, "description": "A name of this moment, for since and until."},
    }
    waits = ("at", "after", "when")
    pairs = [[one, other] for number, one in enumerate(waits) for other in waits[number + 1 :]]
    step = {
        **_mapping(scenario.STEP_KEYS, values),
        "dependentRequired": {"within": ["when"]},
        "not": {"anyOf": [{"required": pair} for pair in pairs]},
        "anyOf": [{"required": [key]} for key in (*waits, "do", "expect")],
    }
    return {
        "step": {"if": {"type": "string"}, "then": _ref("action"), "else": step},
        "action": {
            **_text("; ".join(scenario.ACTIONS), rf"^\s*(?:{verbs})\s+\S"),
            "examples": list(scenario.ACTIONS),
        },
        "condition": {
            "type": "string",
            "anyOf": [{"pattern": _words(pattern)} for _, pattern in scenario_syntax._PATTERNS],
            "description": "; ".join(scenario_syntax.FORMS),
            "examples": list(scenario_syntax.FORMS),
        },
    }


def _expectations() -> dict[str, Schema]:
    within = _ref("duration", "Time in which it must hold; default: at once.")
    router = {**_SCALAR, "description": "Name of a router."}
    state: Schema = {"enum": ["up", "down"]}
    texts = _one_or_several(_SCALAR, "Places such as 'a asp 1/1', 'a lc 3', 'a 3/11' or 't1:1 out'.")
    moment = {**_SCALAR, "description": "Name of a moment: the 'as' of a step."}
    values: Mapping[str, Mapping[str, Schema]] = {
        "flow": {
            "flow": {**_SCALAR, "description": "Name of a flow."},
            **dict.fromkeys(scenario.FLOW_BOUNDS, _ref("bound")),
            "path": texts,
            "via": texts,
            "not-via": texts,
            "since": moment,
            "until": moment,
        },
        "tunnel": {
            "tunnel": {**_SCALAR, "description": "Name of a tunnel."},
            "of": router,
            "state": state,
            "asp": {**_SCALAR, "description": "The ASP that it is on, such as asp 1/1."},
            "home": {**_SCALAR, "description": "The card that its circuit is on, such as lc 3."},
            "mode": {**_SCALAR, "description": "circuit-based or economical."},
            "reason": {**_SCALAR, "description": "Why it is down."},
        },
        "counter": {
            "counter": {**_SCALAR, "description": "Name of a counter."},
            "of": router,
            "card": {**_SCALAR, "description": "The card whose counter it is; else the sum of all."},
            "is": _ref("bound"),
        },
        "card": {
            "card": {**_SCALAR, "description": "asp 1/1 or lc 3."},
            "of": router,
            "state": state,
            "boot": {**_SCALAR, "description": "Number of the start that was admitted last."},
            "epoch": {**_SCALAR, "description": "Rises when it is given up and when a new start is admitted."},
        },
        "unexpected": {
            "unexpected": _ref("bound"),
            "of": {**_SCALAR, "description": "Name of a tester; else of all."},
        },
        "run": {
            "run": _text("A shell command, run beside the lab file.", r"\S"),
            "status": {**_SCALAR, "description": "Its exit status; default 0."},
            "output": {**_SCALAR, "description": "A regular expression that is found in its output."},
        },
    }
    made = {
        f"expect-{kind}": _mapping(keys, {**values[kind], "within": within}, (kind,))
        for kind, keys in scenario._FORMS.items()
    }
    # A period limits only some numbers to it; the others would cover the whole run.
    whole = {key: False for key in scenario.FLOW_BOUNDS if key not in scenario.IN_WINDOW}
    made["expect-flow"] |= {
        "anyOf": [{"required": [key]} for key in (*scenario.FLOW_BOUNDS, "path", "via", "not-via")],
        "if": {"anyOf": [{"required": ["since"]}, {"required": ["until"]}]},
        "then": {"properties": whole},
    }
    made["expect-tunnel"]["anyOf"] = [{"required": [key]} for key in ("state", "asp", "home", "mode", "reason")]
    made["expect-card"] |= {
        "required": ["card", "of"],
        "anyOf": [{"required": [key]} for key in ("state", "boot", "epoch")],
    }
    made["expect-counter"]["required"] = ["counter", "of"]
    made["expect-condition"] = _mapping(
        CONDITION_KEYS, {"condition": _ref("condition"), "within": within}, ("condition",)
    )
    # The first of these keys decides the kind of the expectation, as in the scenario reader.
    forms = ("condition", *scenario._FORMS)
    mapping: Schema = {"type": "object", "anyOf": [{"required": [kind]} for kind in forms]}
    for kind in reversed(forms):
        mapping = {"if": {"required": [kind]}, "then": _ref(f"expect-{kind}"), "else": mapping}
    mapping = {"type": "object", **mapping}
    made["expectation"] = {"if": {"type": "string"}, "then": _ref("condition"), "else": mapping}
    return made
