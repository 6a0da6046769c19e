"""What each kind of command does to the object that is being configured.

A command names its effect (`Command.does`) and the field it is about (`Command.target`); the functions here carry
it out on the open frame. They are given what `Reading` holds and report through it, and never raise on any text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from chassis.config.drafts import Frame, Path, blank, defaults, thaw
from chassis.config.grammar import MODES, Choice, Command, Either, Element, Maybe, Param
from chassis.config.operations import COMMANDS
from chassis.config.values import card_ports
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkePolicy, IkeProposal, ProposalRef
from chassis.model.ipsec import (
    IpsecPolicy,
    IpsecProposal,
    Key,
    Keyed,
    ManualSa,
    Profile,
    QosPolicy,
    Spi,
    TunnelEntry,
)
from chassis.model.router import (
    LOCAL,
    Administrator,
    AspGroup,
    AspPool,
    Card,
    Context,
    Interface,
    Port,
    StaticRoute,
    Tunnel,
)

if TYPE_CHECKING:
    from chassis.config.parser import Reading

KEY_BYTES = {
    "hmac-md5-96": (16,),
    "hmac-sha1-96": (20,),
    "hmac-aes-xcbc": (16,),
    "aes-128-cbc": (16,),
    "aes-192-cbc": (24,),
    "aes-256-cbc": (32,),
    "des-cbc": (8,),
    "3des-cbc": (24,),
}
"""Lengths of key that each algorithm takes, in bytes (RFC 2403, 2404, 3566, 3602, 2405, 2451)."""

LIMITS = {"ike-policy": 16, "ipsec-policy": 16, "tunnel": 8, "ipsec-profile": 8}
"""Most `seq` lines of an object: IKE and IPsec proposals, IPsec policies or manual SAs (guide 6.4.1, 8.2, 9.2)."""

CLASSES: dict[str, type] = {
    "asp-pool": AspPool,
    "asp-group": AspGroup,
    "context": Context,
    "interface": Interface,
    "administrator": Administrator,
    "ike-policy": IkePolicy,
    "ipsec-acl": Acl,
    "ipsec-profile": Profile,
    "tunnel": Tunnel,
    "ike-proposal": IkeProposal,
    "ike2-proposal": IkeProposal,
    "ipsec-proposal": IpsecProposal,
    "ipsec-policy": IpsecPolicy,
    "ipsec-sa": ManualSa,
    "ipsec-sa-spi": Spi,
    "ipsec-policy-pq": QosPolicy,
    "card": Card,
    "port": Port,
}
"""The class of the object that each mode configures."""

FIXED: dict[str, dict[str, Any]] = {
    "interface": {"kind": "numbered"},
    "interface-loopback": {"kind": "loopback"},
    "interface-ipsec": {"kind": "ipsec"},
    "interface-ipsec-multibind": {"kind": "multibind"},
    "ike-policy": {"version": 1},
    "ike2-policy": {"version": 2},
    "ike-proposal": {"version": 1},
    "ike2-proposal": {"version": 2},
    "tunnel-static": {"kind": "static", "economical": False},
    "tunnel-static-economical": {"kind": "static", "economical": True},
    "tunnel-on-demand": {"kind": "on-demand", "economical": False},
    "tunnel-on-demand-economical": {"kind": "on-demand", "economical": True},
    "tunnel-manual": {"kind": "manual", "economical": False},
    "tunnel-manual-economical": {"kind": "manual", "economical": True},
}
"""Fields that the opening line itself decides."""

_BARE = frozenset({"interface", "tunnel-static"})
"""Opening lines that, for an object that exists, open it whatever its kind."""

_ORDER = {command.keywords: number for number, command in enumerate(COMMANDS)}


def _leaves(elements: tuple[Element, ...]) -> list[Param | Choice]:
    found: list[Param | Choice] = []
    for element in elements:
        match element:
            case Param() | Choice():
                found.append(element)
            case Maybe(items):
                found.extend(_leaves(items))
            case Either(branches):
                for branch in branches:
                    found.extend(_leaves(branch))
    return found


@cache
def fields_of(command: Command) -> tuple[str, ...]:
    """The names of the values that a command takes, each once."""
    return tuple(dict.fromkeys(leaf.field for leaf in _leaves(command.elements)))


@cache
def is_secret(command: Command) -> bool:
    """Whether a line of this command may hold a key or a password hash."""
    return any(isinstance(leaf, Param) and leaf.type.secret for leaf in _leaves(command.elements))


def variant_of(mode: str, content: dict[str, Any]) -> str:
    """The grammar's variant of an object: ikev1 or ikev2 for policies, the kind for tunnels."""
    if mode == "ike-policy":
        return f"ikev{content['version']}"
    return str(content["kind"]) if mode == "tunnel" else ""


def key_of(command: Command, values: dict[str, object]) -> str | int | None:
    """The key of the object that an opening line names; None for the directions of a manual SA."""
    if command.enters == "card":
        return int(str(values["slot"]))
    name = values.get("name")
    return None if name is None else str(name)


def path_of(command: Command, parent: Frame, key: str | int | None) -> Path:
    """The path of the object that an opening line opens."""
    if command.enters == "ipsec-sa-spi":
        return (*parent.path, command.target)
    return (*parent.path, MODES[command.enters].path, key if key is not None else "")


# --- opening and deleting ---


def _enter(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    key = key_of(command, values)
    fixed = dict(FIXED.get(command.id, ()))
    cls = CLASSES[command.enters]
    existing = frame.fields[command.target] if key is None else frame.fields[command.target].get(key)
    wrong = _opening_error(reading, frame, command, values, fixed, existing)
    if wrong:
        void = Frame(command.enters, cls, {}, frame, path=(*frame.path, "?"), void=True)
        reading.push(void)
        return
    if existing is not None:
        content = thaw(existing)
    else:
        content = blank(cls, line=reading.line.number, **fixed)
        if command.enters == "card":
            content.update(type=values["type"], slot=values["slot"], ports=card_ports(values["type"]))
        elif key is not None:
            content["name"] = key
    if "vpn_rd" in values:
        content["vpn_rd"] = values["vpn_rd"]
    if command.enters == "administrator":
        content.update(password_hash=values["password_hash"], hash_type=values["hash_type"])
    path = path_of(command, frame, key)
    opened = Frame(command.enters, cls, content, frame, command.target, key, path)
    opened.variant = variant_of(command.enters, content)
    reading.push(opened)
    reading.keep_places(path)
    reading.keep_place(path, None)
    if "surplus" in values:
        _surplus(reading, command)


def _surplus(reading: Reading, command: Command) -> None:
    line, index = reading.line, reading.match.places["surplus"]
    if command.id == "ike2-policy":
        last, code = len(line.words) - 1, "S-051"
    else:
        last, code = index, "S-016"
    place = line.place(index)
    place = place._replace(
        word=line.text[line.columns[index] - 1 : line.columns[last] - 1 + len(line.words[last])]
    )
    reading.report(
        "warning", code, place, f"surplus words after the policy name, ignored: {place.word}",
        line.replaced(index, last, ""),
    )  # fmt: skip


def _opening_error(
    reading: Reading,
    frame: Frame,
    command: Command,
    values: dict[str, Any],
    fixed: dict[str, Any],
    existing: Any,
) -> bool:
    """Whether the object cannot be opened; the reason has been reported then."""
    line = reading.line
    if command.enters == "ipsec-sa-spi":
        content = frame.fields
        others = [name for name in ("both", "inbound", "outbound") if content[name] is not None]
        if (command.target == "both" and set(others) - {"both"}) or (
            command.target != "both" and "both" in others
        ):
            reading.report("error", "conflict", line.place(0), "both excludes in and out: choose one of the two")
            return True
        return False
    if command.enters == "card":
        return _card_error(reading, values, existing)
    if existing is None or command.id in _BARE:
        return False
    name = values["name"]
    for field, value in fixed.items():
        if getattr(existing, field) == value:
            continue
        if field == "version":
            version = existing.version
            reading.report(
                "error", "S-037", line.place(reading.match.places["name"]),
                f"{name} is the name of an IKEv{version} object already; names are unique over both versions",
            )  # fmt: skip
        else:
            reading.report(
                "error", "conflict", line.place(reading.match.places["name"]),
                f"{name} exists already and is of another kind; remove it first",
            )  # fmt: skip
        return True
    return False


def _card_error(reading: Reading, values: dict[str, Any], existing: Any) -> bool:
    line, slot, kind = reading.line, values["slot"], values["type"]
    if slot in (7, 8) and not kind.startswith("xcrp"):
        reading.report(
            "error", "S-101", line.place(reading.match.places["slot"]),
            f"slot {slot} belongs to a controller",
        )  # fmt: skip
        return True
    if existing is not None and existing.type != kind:
        reading.report(
            "error", "S-101", line.place(reading.match.places["slot"]),
            f"slot {slot} has card {existing.type} already; remove it first",
        )  # fmt: skip
        return True
    return False


def _delete(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    key = key_of(command, values)
    if key is None:
        frame.fields[command.target] = None
        return
    holder = frame.fields[command.target]
    found = holder.get(key)
    index = reading.match.places.get("name", reading.match.places.get("slot", 0))
    if found is None or (command.enters == "card" and found.type != values["type"]):
        reading.report("warning", "nothing-to-remove", reading.place(index), f"there is no {key} to remove")
        return
    if command.target == "contexts" and key == LOCAL:
        reading.report("error", "conflict", reading.place(index), "context local always exists")
        return
    del holder[key]


# --- settings ---


def _set(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    content = frame.fields
    standard = defaults(frame.cls)
    for name in fields_of(command):
        if name in values:
            content[name] = values[name]
        elif name in standard:
            content[name] = standard[name]()
        written = f"{name}_written"
        if written in standard:
            content[written] = name in values
    reading.keep_places(frame.path)


def _unset(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    standard = defaults(frame.cls)
    for name in fields_of(command):
        frame.fields[name] = standard[name]()


def _flag(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = True
    reading.keep_place((*frame.path, command.target), None)


def _unflag(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = False


def _idle(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields["idle_timeout"] = values.get("idle_timeout", 0)


def _reset(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = None


def _is_unnumbered(reading: Reading, frame: Frame) -> bool:
    """Whether an interface may have no address; that has been reported then."""
    if frame.fields["kind"] != "multibind":
        return False
    reading.report("error", "multibind", reading.place(0), "a multibind interface is unnumbered: ip unnumbered")
    return True


def _secondary(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if not _is_unnumbered(reading, frame):
        _append(reading, frame, command, values)


def _address(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if _is_unnumbered(reading, frame):
        return
    address, _, length = str(values["address"]).partition("/")
    frame.fields.update(address=address, prefix_len=int(length))


def _no_address(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields.update(address=None, prefix_len=0)


def _append(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    value = values[command.target]
    present: tuple[object, ...] = frame.fields[command.target]
    if value not in present:
        frame.fields[command.target] = (*present, value)
    reading.keep_place((*frame.path, command.target, value), command.target)


def _remove(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    value = values[command.target]
    present: tuple[object, ...] = frame.fields[command.target]
    if value not in present:
        reading.report(
            "warning", "nothing-to-remove", reading.place(reading.match.places[command.target]),
            f"there is no {value} to remove",
        )  # fmt: skip
    frame.fields[command.target] = tuple(item for item in present if item != value)


def _keep_text(frame: Frame, command: Command, text: str | None) -> None:
    """Keep one line without effect, in the place that the grammar gives it."""
    words = command.keywords
    kept = [item for item in frame.fields["accepted"] if not same_command(item, words)]
    if text is not None:
        kept.append(text)
    frame.fields["accepted"] = tuple(sorted(kept, key=_accepted_order))


def same_command(text: str, words: str) -> bool:
    text = text.removeprefix("no ")
    return text == words or text.startswith(f"{words} ")


def _accepted_order(text: str) -> int:
    text = text.removeprefix("no ")
    while text not in _ORDER and " " in text:
        text = text.rpartition(" ")[0]
    return _ORDER.get(text, len(_ORDER))


def _keep(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    _keep_text(frame, command, " ".join([command.keywords, *(str(value) for value in values.values())]))


def _keep_no(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    _keep_text(frame, command, None if fields_of(command) else f"no {command.keywords}")


# --- lists ---


def _put_seq(reading: Reading, frame: Frame, target: str, item: Any) -> bool:
    kept = [other for other in frame.fields[target] if other.seq != item.seq]
    limit = LIMITS.get(frame.mode)
    if limit is not None and len(kept) >= limit:
        reading.report(
            "error", "limit", reading.place(0), f"{MODES[frame.mode].title} has at most {limit} of these lines"
        )
        return False
    kept.append(item)
    kept.sort(key=lambda other: int(other.seq))
    frame.fields[target] = tuple(kept)
    reading.keep_places((*frame.path, "seq", item.seq))
    return True


def _proposal(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    item = ProposalRef(values["seq"], values["name"], reading.line.number)
    _put_seq(reading, frame, command.target, item)


def _entry(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    item = TunnelEntry(
        values["seq"], values.get("policy"), values.get("sa"), values.get("acl"), reading.line.number
    )
    _put_seq(reading, frame, command.target, item)


def _rule(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if len(values) == 1:
        reading.report("error", "S-015", reading.place(0), "a rule needs something to match besides its number")
        return
    ports = [name for name in ("source_port", "destination_port") if name in values]
    if ports and values.get("protocol") not in (6, 17):
        reading.report(
            "error", "S-015", reading.place(reading.match.places[ports[0]] - 1), "ports need tcp or udp"
        )
        return
    source, destination = values.get("source"), values.get("destination")
    item = AclRule(
        seq=values["seq"],
        protocol=values.get("protocol"),
        source=None if source == "any" else source,
        source_port=values.get("source_port"),
        destination=None if destination == "any" else destination,
        destination_port=values.get("destination_port"),
        source_written=source is not None,
        destination_written=destination is not None,
        line=reading.line.number,
    )
    _put_seq(reading, frame, command.target, item)


def _no_seq(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    present = frame.fields[command.target]
    kept = tuple(item for item in present if item.seq != values["seq"])
    if len(kept) == len(present):
        reading.report(
            "warning", "nothing-to-remove", reading.place(reading.match.places["seq"]),
            f"there is no line {values['seq']} to remove",
        )  # fmt: skip
    frame.fields[command.target] = kept


def _same_route(route: StaticRoute, values: dict[str, Any]) -> bool:
    return _route_key(route) == (
        values["prefix"],
        values.get("next_hop"),
        values.get("interface"),
        values.get("context"),
    )


def _route_key(route: StaticRoute) -> tuple[str, str | None, str | None, str | None]:
    return route.prefix, route.next_hop, route.interface, route.context


def _route(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    values = {**values, **{f"{name}_written": True for name in ("cost", "distance") if name in values}}
    route = StaticRoute(**values, line=reading.line.number)
    routes = frame.fields["routes"]
    if not isinstance(routes, dict):
        # A context with thousands of routes is read line by line: keyed while it is open, a tuple when it closes.
        routes = {_route_key(item): item for item in routes}
        frame.fields["routes"] = routes
    routes[_route_key(route)] = route
    reading.keep_places((*frame.path, "route", route.prefix, route.next_hop or route.interface or ""))


def _no_route(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    routes = frame.fields["routes"]
    present = tuple(routes.values()) if isinstance(routes, dict) else routes
    kept = tuple(route for route in present if not _same_route(route, values))
    if len(kept) == len(present):
        reading.report(
            "warning", "nothing-to-remove", reading.place(reading.match.places["prefix"]),
            f"there is no such route to {values['prefix']} to remove",
        )  # fmt: skip
    frame.fields["routes"] = kept


# --- manual keys ---


def _keyed(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    algorithm, key = values.get("algorithm"), values["key"]
    in_force = algorithm or ("aes-128-cbc" if command.target == "esp_encryption" else "hmac-sha1-96")
    allowed = KEY_BYTES[in_force]
    if len(key.value) not in allowed:
        _wrong_length(reading, key, in_force, allowed)
        return
    frame.fields[command.target] = Keyed(algorithm, key)
    reading.keep_place((*frame.path, command.target), None)


def _wrong_length(reading: Reading, key: Key, algorithm: str, allowed: tuple[int, ...]) -> None:
    line, index = reading.line, reading.match.places["key"]
    word, before = line.words[index], index - 1
    digits = word[2:] if word[:2] in ("0x", "0X") else word
    hint = ""
    if key.hexadecimal and len(digits) in allowed:
        hint = line.replaced(before, index, f"key {digits}")
    elif not key.hexadecimal and len(word) == 2 * allowed[0] and set(word) <= set("0123456789abcdefABCDEF"):
        # Characters twice as many as the key has bytes: the digits of a hexadecimal key.
        hint = line.replaced(before, index, f"key 0x{word}")
    reading.report(
        "error", "S-069", line.place(index),
        f"this key has {len(key.value)} bytes, {algorithm} needs {allowed[0]}", hint, secret=False,
    )  # fmt: skip


def _null(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = Keyed("null", Key(b""))
    reading.keep_place((*frame.path, command.target), None)


def _shut(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields["shutdown"] = True


def _none(reading: Reading, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    """Commands that leave the configuration as it is."""


Effect = Callable[["Reading", Frame, Command, dict[str, Any]], None]

DO: dict[str, Effect] = {
    "enter": _enter,
    "set": _set,
    "flag": _flag,
    "switch": _flag,
    "idle": _idle,
    "address": _address,
    "secondary": _secondary,
    "append": _append,
    "keep": _keep,
    "proposal": _proposal,
    "entry": _entry,
    "rule": _rule,
    "route": _route,
    "keyed": _keyed,
    "null": _null,
    "shutdown": _shut,
    "none": _none,
    "control": _none,
    "foreign": _none,
}
"""What a command does, by `Command.does`."""

UNDO: dict[str, Effect] = {
    "enter": _delete,
    "set": _unset,
    "flag": _unflag,
    "switch": _unflag,
    "idle": _idle,
    "address": _no_address,
    "secondary": _remove,
    "append": _remove,
    "keep": _keep_no,
    "proposal": _no_seq,
    "entry": _no_seq,
    "rule": _no_seq,
    "route": _no_route,
    "keyed": _reset,
    "null": _reset,
    "shutdown": _unflag,
    "foreign": _none,
}
"""What its no form does."""
