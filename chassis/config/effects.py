"""Effects of commands on the object of the open mode.

A command names its effect (`Command.does`) and the field that it sets (`Command.target`); the functions here carry
the effect out on the open frame. They read the line from the `ParseSession`, add their diagnostics to it, and do
not raise, whatever the text is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chassis.config.drafts import Frame, blank, defaults, thaw
from chassis.config.grammar import MODES, Command
from chassis.config.objects import CLASSES, FIXED, key_of, path_of, variant_of
from chassis.config.operations import COMMANDS
from chassis.config.parse_session import ParseSession
from chassis.config.values import card_ports
from chassis.model.aaa import MOST_POOLS, MOST_SERVERS, IpPool, RadiusServer
from chassis.model.acl import AclRule, Form
from chassis.model.ike import ProposalRef
from chassis.model.ipsec import Key, Keyed, TunnelEntry
from chassis.model.router import LOCAL, StaticRoute
from chassis.net.address import ANY
from chassis.net.types import Prefix

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
"""Key lengths (octets) of each algorithm (RFC 2403, 2404, 3566, 3602, 2405, 2451)."""

MAX_SEQ_LINES = {"ike-policy": 16, "ipsec-policy": 16, "tunnel": 8, "ipsec-profile": 8}
"""Most `seq` lines of an object: IKE and IPsec proposals, IPsec policies or manual SAs (guide 6.4.1, 8.2, 9.2)."""

LISTED: dict[str, tuple[type, int]] = {
    "radius_servers": (RadiusServer, MOST_SERVERS),
    "accounting_servers": (RadiusServer, MOST_SERVERS),
    "ip_pools": (IpPool, MOST_POOLS),
}
"""Lists of a context that lines fill one by one: the class of an item, and the most of them."""

_BARE = frozenset({"interface", "tunnel-static"})
"""Opening lines that open an existing object of any kind."""

_ORDER = {command.keywords: number for number, command in enumerate(COMMANDS)}


# --- opening and deleting ---


def _enter(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    key = key_of(command, values)
    fixed = dict(FIXED.get(command.id, ()))
    cls = CLASSES[command.enters]
    existing = frame.fields[command.target] if key is None else frame.fields[command.target].get(key)
    wrong = _opening_error(session, frame, command, values, fixed, existing)
    if wrong:
        session.push(Frame(command.enters, cls, {}, frame, path=(*frame.path, "?"), discarded=True))
        return
    if existing is not None:
        content = thaw(existing)
    else:
        content = blank(cls, line=session.line.number, **fixed)
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
    session.push(opened)
    session.store_positions(path)
    session.store_position(path, None)
    if "surplus" in values:
        _surplus(session, command)


def _surplus(session: ParseSession, command: Command) -> None:
    line, index = session.line, session.match.word_index["surplus"]
    if command.id == "ike2-policy":
        last, code = len(line.words) - 1, "S-051"
    else:
        last, code = index, "S-016"
    place = line.position(index)
    place = place._replace(
        word=line.text[line.columns[index] - 1 : line.columns[last] - 1 + len(line.words[last])]
    )
    session.report(
        "warning", code, place, f"surplus words after the policy name, ignored: {place.word}",
        line.replaced(index, last, ""),
    )  # fmt: skip


def _opening_error(
    session: ParseSession,
    frame: Frame,
    command: Command,
    values: dict[str, Any],
    fixed: dict[str, Any],
    existing: Any,
) -> bool:
    """Return whether the object cannot be opened; if so, report the reason."""
    line = session.line
    if command.enters == "ipsec-sa-spi":
        content = frame.fields
        others = [name for name in ("both", "inbound", "outbound") if content[name] is not None]
        if (command.target == "both" and set(others) - {"both"}) or (
            command.target != "both" and "both" in others
        ):
            session.report(
                "error", "conflict", line.position(0), "both excludes in and out: choose one of the two"
            )
            return True
        return False
    if command.enters == "card":
        return _card_error(session, values, existing)
    if existing is None or command.id in _BARE:
        return False
    name = values["name"]
    for field, value in fixed.items():
        if getattr(existing, field) == value:
            continue
        if field == "version":
            version = existing.version
            session.report(
                "error", "S-037", line.position(session.match.word_index["name"]),
                f"{name} is the name of an IKEv{version} object already; names are unique over both versions",
            )  # fmt: skip
        else:
            session.report(
                "error", "conflict", line.position(session.match.word_index["name"]),
                f"{name} exists already and is of another kind; remove it first",
            )  # fmt: skip
        return True
    return False


def _card_error(session: ParseSession, values: dict[str, Any], existing: Any) -> bool:
    line, slot, kind = session.line, values["slot"], values["type"]
    if slot in (7, 8) and not kind.startswith("xcrp"):
        session.report(
            "error", "S-101", line.position(session.match.word_index["slot"]),
            f"slot {slot} belongs to a controller",
        )  # fmt: skip
        return True
    if existing is not None and existing.type != kind:
        session.report(
            "error", "S-101", line.position(session.match.word_index["slot"]),
            f"slot {slot} has card {existing.type} already; remove it first",
        )  # fmt: skip
        return True
    return False


def _delete(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    key = key_of(command, values)
    if key is None:
        frame.fields[command.target] = None
        return
    holder = frame.fields[command.target]
    found = holder.get(key)
    index = session.match.word_index.get("name", session.match.word_index.get("slot", 0))
    if found is None or (command.enters == "card" and found.type != values["type"]):
        session.report("warning", "nothing-to-remove", session.position(index), f"there is no {key} to remove")
        return
    if command.target == "contexts" and key == LOCAL:
        session.report("error", "conflict", session.position(index), "context local always exists")
        return
    del holder[key]


# --- settings ---


def _set(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    content = frame.fields
    standard = defaults(frame.cls)
    for name in command.fields:
        if name in values:
            content[name] = values[name]
        elif name in standard:
            content[name] = standard[name]()
        written = f"{name}_written"
        if written in standard:
            content[written] = name in values
    session.store_positions(frame.path)


def _unset(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    standard = defaults(frame.cls)
    for name in command.fields:
        frame.fields[name] = standard[name]()


def _flag(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = True
    session.store_position((*frame.path, command.target), None)


def _unflag(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = False


def _set_idle_timeout(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields["idle_timeout"] = values.get("idle_timeout", 0)


def _reset(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = None


def _is_unnumbered(session: ParseSession, frame: Frame) -> bool:
    """Return whether an interface must not have an address; if so, report it."""
    if frame.fields["kind"] != "multibind":
        return False
    session.report("error", "multibind", session.position(0), "a multibind interface is unnumbered: ip unnumbered")
    return True


def _secondary(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if not _is_unnumbered(session, frame):
        _append(session, frame, command, values)


def _address(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if _is_unnumbered(session, frame):
        return
    address, _, length = str(values["address"]).partition("/")
    frame.fields.update(address=address, prefix_len=int(length))


def _no_address(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields.update(address=None, prefix_len=0)


def _append(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    value = values[command.target]
    present: tuple[object, ...] = frame.fields[command.target]
    if value not in present:
        frame.fields[command.target] = (*present, value)
    session.store_position((*frame.path, command.target, value), command.target)


def _remove(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    value = values[command.target]
    present: tuple[object, ...] = frame.fields[command.target]
    if value not in present:
        session.report(
            "warning", "nothing-to-remove", session.position(session.match.word_index[command.target]),
            f"there is no {value} to remove",
        )  # fmt: skip
    frame.fields[command.target] = tuple(item for item in present if item != value)


def _store_accepted(frame: Frame, command: Command, text: str | None) -> None:
    """Keep one line without effect, where the grammar has its place."""
    kept = [item for item in frame.fields["accepted"] if not command.begins(item)]
    if text is not None:
        kept.append(text)
    frame.fields["accepted"] = tuple(sorted(kept, key=_accepted_order))


def _accepted_order(text: str) -> int:
    text = text.removeprefix("no ")
    while text not in _ORDER and " " in text:
        text = text.rpartition(" ")[0]
    return _ORDER.get(text, len(_ORDER))


def _accept(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    _store_accepted(frame, command, " ".join([command.keywords, *(str(value) for value in values.values())]))


def _accept_no(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    _store_accepted(frame, command, None if command.fields else f"no {command.keywords}")


# --- lists ---


def _put_seq(session: ParseSession, frame: Frame, target: str, item: Any) -> bool:
    kept = [other for other in frame.fields[target] if other.seq != item.seq]
    limit = MAX_SEQ_LINES.get(frame.mode)
    if limit is not None and len(kept) >= limit:
        session.report(
            "error", "limit", session.position(0), f"{MODES[frame.mode].title} has at most {limit} of these lines"
        )
        return False
    kept.append(item)
    kept.sort(key=lambda other: int(other.seq))
    frame.fields[target] = tuple(kept)
    session.store_positions((*frame.path, "seq", item.seq))
    return True


def _proposal(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    item = ProposalRef(values["seq"], values["name"], session.line.number)
    _put_seq(session, frame, command.target, item)


def _entry(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    item = TunnelEntry(
        values["seq"], values.get("policy"), values.get("sa"), values.get("acl"), session.line.number
    )
    _put_seq(session, frame, command.target, item)


def _rule(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    if len(values) == 1:
        session.report("error", "S-015", session.position(0), "a rule needs something to match besides its number")
        return
    ports = [name for name in ("source_port", "destination_port") if name in values]
    if ports and values.get("protocol") not in (6, 17):
        session.report(
            "error", "S-015", session.position(session.match.word_index[ports[0]] - 1), "ports need tcp or udp"
        )
        return
    source, source_form = _network(values.get("source", ""))
    destination, destination_form = _network(values.get("destination", ""))
    item = AclRule(
        seq=values["seq"],
        protocol=values.get("protocol"),
        source=source,
        source_port=values.get("source_port"),
        destination=destination,
        destination_port=values.get("destination_port"),
        source_form=source_form,
        destination_form=destination_form,
        line=session.line.number,
    )
    _put_seq(session, frame, command.target, item)


def _network(value: Any) -> tuple[Prefix, Form]:
    """Return the network of a rule, and how it was typed: a prefix, "any", or "" if it was left out."""
    return (value, "prefix") if isinstance(value, tuple) else (ANY, value)


def _no_seq(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    present = frame.fields[command.target]
    kept = tuple(item for item in present if item.seq != values["seq"])
    if len(kept) == len(present):
        session.report(
            "warning", "nothing-to-remove", session.position(session.match.word_index["seq"]),
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


def _route(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    values = {**values, **{f"{name}_written": True for name in ("cost", "distance") if name in values}}
    route = StaticRoute(**values, line=session.line.number)
    routes = frame.fields["routes"]
    if not isinstance(routes, dict):
        # A context may have thousands of routes: keep them by key while it is open, as a tuple when it closes.
        known = frame.parent.routes.get(frame.key) if frame.parent is not None else None
        if known is not None and known[0] is routes:
            routes = known[1]
        else:
            routes = {_route_key(item): item for item in routes}
        frame.fields["routes"] = routes
    routes[_route_key(route)] = route
    session.store_positions((*frame.path, "route", route.prefix, route.next_hop or route.interface or ""))


def _no_route(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    routes = frame.fields["routes"]
    present = tuple(routes.values()) if isinstance(routes, dict) else routes
    kept = tuple(route for route in present if not _same_route(route, values))
    if len(kept) == len(present):
        session.report(
            "warning", "nothing-to-remove", session.position(session.match.word_index["prefix"]),
            f"there is no such route to {values['prefix']} to remove",
        )  # fmt: skip
    frame.fields["routes"] = kept


def _listed(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    """Add an item to a list, or put it in the place of the one with its first value."""
    cls, most = LISTED[command.target]
    first = command.fields[0]
    item = cls(**values, line=session.line.number)
    present = frame.fields[command.target]
    places = [at for at, other in enumerate(present) if getattr(other, first) == values[first]]
    if not places and len(present) >= most:
        session.report("error", "limit", session.position(0), f"a context has at most {most} of these lines")
        return
    at = places[0] if places else len(present)
    frame.fields[command.target] = (*present[:at], item, *present[at + 1 :])
    session.store_positions((*frame.path, command.target, values[first]))


def _unlisted(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    first = command.fields[0]
    present = frame.fields[command.target]
    kept = tuple(item for item in present if getattr(item, first) != values[first])
    if len(kept) == len(present):
        session.report(
            "warning", "nothing-to-remove", session.position(session.match.word_index[first]),
            f"there is no {values[first]} to remove",
        )  # fmt: skip
    frame.fields[command.target] = kept


# --- manual keys ---


def _keyed(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    algorithm, key = values.get("algorithm"), values["key"]
    in_force = algorithm or ("aes-128-cbc" if command.target == "esp_encryption" else "hmac-sha1-96")
    allowed = KEY_BYTES[in_force]
    if len(key.value) not in allowed and not key.opaque:
        _wrong_length(session, key, in_force, allowed)
        return
    frame.fields[command.target] = Keyed(algorithm, key)
    session.store_position((*frame.path, command.target), None)


def _wrong_length(session: ParseSession, key: Key, algorithm: str, allowed: tuple[int, ...]) -> None:
    line, index = session.line, session.match.word_index["key"]
    word, before = line.words[index], index - 1
    digits = word[2:] if word[:2] in ("0x", "0X") else word
    hint = ""
    if key.encrypted and key.encrypted == word:
        # The key came by its encrypted form.
        digits = word = ""
    if key.hexadecimal and len(digits) in allowed:
        hint = line.replaced(before, index, f"key {digits}")
    elif not key.hexadecimal and len(word) == 2 * allowed[0] and set(word) <= set("0123456789abcdefABCDEF"):
        # Twice as many characters as the key has octets: probably hexadecimal digits.
        hint = line.replaced(before, index, f"key 0x{word}")
    session.report(
        "error", "S-069", line.position(index),
        f"this key has {len(key.value)} bytes, {algorithm} needs {allowed[0]}", hint, secret=False,
    )  # fmt: skip


def _null(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields[command.target] = Keyed("null", Key(b""))
    session.store_position((*frame.path, command.target), None)


def _shutdown(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    frame.fields["shutdown"] = True


def _none(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    """Commands that leave the configuration as it is."""


Effect = Callable[[ParseSession, Frame, Command, dict[str, Any]], None]

EFFECTS: dict[str, Effect] = {
    "enter": _enter,
    "set": _set,
    "flag": _flag,
    "switch": _flag,
    "idle": _set_idle_timeout,
    "address": _address,
    "secondary": _secondary,
    "append": _append,
    "keep": _accept,
    "proposal": _proposal,
    "entry": _entry,
    "rule": _rule,
    "route": _route,
    "listed": _listed,
    "keyed": _keyed,
    "null": _null,
    "shutdown": _shutdown,
    "none": _none,
    "control": _none,
    "foreign": _none,
}
"""Functions that carry out commands, by `Command.does`."""

NO_EFFECTS: dict[str, Effect] = {
    "enter": _delete,
    "set": _unset,
    "flag": _unflag,
    "switch": _unflag,
    "idle": _set_idle_timeout,
    "address": _no_address,
    "secondary": _remove,
    "append": _remove,
    "keep": _accept_no,
    "proposal": _no_seq,
    "entry": _no_seq,
    "rule": _no_seq,
    "route": _no_route,
    "listed": _unlisted,
    "keyed": _reset,
    "null": _reset,
    "shutdown": _unflag,
    "foreign": _none,
}
"""Functions that carry out their `no` forms."""


def _default(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    """The setting is as in a new object."""
    standard = defaults(frame.cls)
    names = (command.target,) if command.target else command.fields
    frame.fields.update((name, standard[name]()) for name in names)


def _accept_default(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    _store_accepted(frame, command, None)


def _no_default(session: ParseSession, frame: Frame, command: Command, values: dict[str, Any]) -> None:
    session.report(
        "error", "no-default", session.line.position(0), f"`{command.keywords}` has no default: use no", ""
    )


DEFAULT_EFFECTS: dict[str, Effect] = {
    **dict.fromkeys(NO_EFFECTS, _no_default),
    **dict.fromkeys(("set", "flag", "switch", "idle", "keyed", "null", "shutdown"), _default),
    "address": _no_address,
    "keep": _accept_default,
    "foreign": _none,
}
"""Functions that carry out their `default` forms."""

HAVE_DEFAULT = frozenset(does for does, effect in DEFAULT_EFFECTS.items() if effect is not _no_default)
"""What commands with a `default` form do."""
